//! The asking side of bootstraps and comparisons: one small task after the other with a window, so that the responder
//! keeps no state and one that dies is replaced by any other for the next task. How much is asked for at a time follows
//! from the [pace](super::pace) at which answers come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::lacking::Withheld;
use super::pace::{Asked, Pace};
use super::task::{Purpose, Range, Rest, Task};
use crate::cache::{Cursor, Millis, NodeId, Partition, PARTITIONS};
use crate::wire::{AnswerEnd, Part, MAX_BUDGET};

/// Ranges that a bootstrap begins with.
const RANGES: usize = 4;

/// Requests under way at once.
const MAX_LANES: usize = 8;

/// Requests that were asked again and whose answers are still taken, should they come.
const MAX_LATE: usize = 16;

/// Partitions that are named may take more than is expected, by one part in so many, before the answer ends early,
/// which costs one more way there and back.
const SPARE: usize = 4;

/// While other answers arrive, a request is waited for so many times longer.
const PATIENCE_IN_QUEUE: u64 = 4;

/// Anybody can join those of whom NATS picks one, and not answer. A bootstrap of which no word has come for so long, or
/// so much longer than whole answers take if there were some, is asked for at a peer that is known, if there is one.
const SWALLOWED_MS: Millis = 250;

/// Requests in a row without an answer after which a pull from one certain peer is given up.
const MAX_FAILURES: u32 = 4;

/// Tasks that may wait at a time.
const MAX_TASKS: usize = 4_096;

/// Answers in a row that bring nothing, before a peer may add nothing more. Two nodes that cannot take what the other
/// has would add to each other's pulls for ever.
const MAX_IN_VAIN: u32 = 4;

/// A task that waits to be asked for.
struct Waiting {
    task: Task,
    /// The request that asked for it first, if it is asked for again.
    again: Option<u64>,
}

struct Lane {
    task: Task,
    /// The request that asked for it first. Whichever answer is complete before the others ends all of them.
    first: u64,
    /// Bytes that the answer is expected to have.
    expected: usize,
    asked: Asked,
    /// It was asked for again. An answer is taken all the same: what is under way is worth more than what is asked for.
    late: bool,
    /// Who answers: parts of different answers are not mixed.
    responder: Option<NodeId>,
    /// Which parts of the answer have arrived.
    received: BTreeSet<u64>,
    /// And how many bytes they have.
    bytes: usize,
    /// Something of it was new.
    changed: bool,
    /// The end, which may overtake them.
    end: Option<AnswerEnd>,
    /// When it was asked for, or the last part arrived.
    since: Millis,
    /// When the responder was found to be gone.
    gone_at: Option<Millis>,
}

impl Lane {
    fn complete(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| self.received.range(..end.parts).count() as u64 == end.parts)
    }

    /// Bytes that are still to come.
    fn outstanding(&self) -> usize {
        match self.late {
            true => 0,
            false => self.expected.saturating_sub(self.bytes).max(1),
        }
    }

    /// Something of the answer has arrived.
    fn heard(&mut self, pace: &mut Pace, now: Millis) {
        if self.late {
            pace.late(self.asked, now);
        } else if self.received.is_empty() && self.end.is_none() {
            pace.begun(self.asked, now);
        }
        self.since = now;
    }
}

/// What became of a pull after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    Running,
    Done,
    Failed,
}

pub(crate) struct Pull {
    pub purpose: Purpose,
    todo: VecDeque<Waiting>,
    lanes: BTreeMap<u64, Lane>,
    failures: u32,
    /// How often in a row answers did not come in time, and when that was last. All requests that were under way then
    /// are one time.
    timeouts: u32,
    timed_out: Millis,
    /// When something of an answer has arrived last.
    heard: Millis,
    /// Some responder has answered something.
    pub answered: bool,
    /// When the newest request was made of those that were answered in full, and by whom.
    overtakes: Option<(Millis, NodeId)>,
    /// Bytes of whole partitions that have arrived of late, and the weights of these partitions.
    partitions: (usize, usize),
    /// Per node the number of the frames whose effect every answer so far stands for.
    seqs: Option<BTreeMap<NodeId, u64>>,
    pub began: Millis,
    /// A bootstrap that nobody has answered is asked for once more.
    pub again: bool,
    /// Those that NATS has picked for a bootstrap did not answer: a peer that is known to be there is asked.
    pub swallowed: bool,
    /// What was refused: not everything is here.
    pub refused: Option<Withheld>,
    /// Something of it was new.
    changed: bool,
    /// Answers in a row of which nothing was new.
    in_vain: u32,
    /// It takes what is under way, and no more.
    ends: bool,
}

impl Pull {
    /// A pull of all partitions: in one request if one sketch may be the answer to all.
    pub fn new(purpose: Purpose, now: Millis) -> Self {
        let ranges = if purpose.sends_digests() { 1 } else { RANGES };
        let step = PARTITIONS / ranges;
        let range = |lane: usize| Range {
            from: (lane * step) as u16,
            to: ((lane + 1) * step) as u16,
        };
        let mut pull = Pull::of(purpose, now);
        pull.add((0..ranges).map(|lane| Task::Partitions(range(lane))));
        pull
    }

    /// A pull of nothing yet.
    pub fn of(purpose: Purpose, now: Millis) -> Self {
        Pull {
            purpose,
            todo: VecDeque::new(),
            lanes: BTreeMap::new(),
            failures: 0,
            timeouts: 0,
            timed_out: 0,
            heard: now,
            answered: false,
            overtakes: None,
            partitions: (0, 0),
            seqs: None,
            began: now,
            again: false,
            swallowed: false,
            refused: None,
            changed: false,
            in_vain: 0,
            ends: false,
        }
    }

    /// What differs comes with missing frames: a comparison that stands for nothing asks for no more of it. What is
    /// under way is taken.
    pub fn leave_to_frames(&mut self) {
        if let Purpose::Difference(_) | Purpose::Reverse(_) = self.purpose {
            self.todo.clear();
            self.ends = true;
        }
    }

    /// Whether nothing was left to others.
    pub fn is_complete(&self) -> bool {
        !self.ends
    }

    /// Adds tasks. What does not fit is left to the next comparison.
    pub fn add(&mut self, tasks: impl IntoIterator<Item = Task>) {
        let room = match self.ends {
            true => 0,
            false => MAX_TASKS.saturating_sub(self.todo.len()),
        };
        let waiting = |task| Waiting { task, again: None };
        self.todo.extend(tasks.into_iter().take(room).map(waiting));
    }

    /// Whether further tasks may be added by a peer.
    pub fn has_room(&self) -> bool {
        !self.ends && self.todo.len() < MAX_TASKS && self.in_vain < MAX_IN_VAIN
    }

    /// Whether nothing was new, or nothing of what came last.
    pub fn is_in_vain(&self) -> bool {
        !self.changed || self.in_vain >= MAX_IN_VAIN
    }

    /// Whether requests have failed: then a peer known to be there is asked rather than any.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Bytes that were asked for and are still to come.
    pub fn under_way(&self) -> usize {
        self.lanes.values().map(Lane::outstanding).sum()
    }

    /// How much of a bootstrap is done, in percent.
    pub fn percent(&self) -> u8 {
        let left = |task: &Task| match task {
            Task::Partitions(range) => usize::from(range.to - range.from),
            Task::Rest(_) => 1,
            _ => 0,
        };
        let mut counted = BTreeSet::new();
        let waiting = self.todo.iter().map(|waiting| (waiting.again, &waiting.task));
        let asked = self.lanes.values().map(|lane| (Some(lane.first), &lane.task));
        let left: usize = waiting
            .chain(asked)
            .filter(|(first, _)| first.is_none_or(|first| counted.insert(first)))
            .map(|(_, task)| left(task))
            .sum();
        (100 * PARTITIONS.saturating_sub(left) / PARTITIONS) as u8
    }

    /// The next task, if the window has room beside what is under way, and how many bytes its answer may have. A range
    /// is cut to `most` partitions. The caller sends it as `request`.
    pub fn next_request(
        &mut self,
        request: u64,
        most: u16,
        pace: &Pace,
        under_way: usize,
        now: Millis,
    ) -> Option<(Task, usize)> {
        let first = pace
            .first_budget()
            .filter(|_| self.lanes.is_empty() && self.purpose == Purpose::Bootstrap);
        let budget = first.unwrap_or(pace.budget());
        let expected = budget.max(self.bytes_per_partition());
        let active = self.lanes.values().filter(|lane| !lane.late).count();
        if active >= MAX_LANES || (active > 0 && !pace.has_room(under_way, expected)) {
            return None;
        }
        let Waiting { mut task, again } = self.todo.pop_front()?;
        let mut most_bytes = budget;
        if let (Task::Partitions(range), None) = (&mut task, again) {
            let well_within = budget.min(MAX_BUDGET - MAX_BUDGET / SPARE);
            let known = self.partitions_in(range.from, well_within);
            if known.is_some() {
                most_bytes += budget / SPARE;
            }
            let most = known.map_or(most, |known| most.min(known));
            if range.to - range.from > most {
                let from = range.from + most;
                self.todo.push_front(Waiting {
                    task: Task::Partitions(Range { from, ..*range }),
                    again: None,
                });
                range.to = from;
            }
        }
        self.lanes.insert(
            request,
            Lane {
                task: task.clone(),
                first: again.unwrap_or(request),
                expected,
                asked: pace.asked(now),
                late: false,
                responder: None,
                received: BTreeSet::new(),
                bytes: 0,
                changed: false,
                end: None,
                since: now,
                gone_at: None,
            },
        );
        Some((task, most_bytes))
    }

    /// A request that nobody has begun to answer is asked again; a late answer is taken all the same.
    pub fn take_back(&mut self, request: u64) {
        let unheard = |lane: &&mut Lane| lane.responder.is_none() && !lane.late;
        if let Some(lane) = self.lanes.get_mut(&request).filter(unheard) {
            lane.late = true;
            self.todo.push_back(Waiting {
                task: lane.task.clone().anew(),
                again: Some(lane.first),
            });
        }
    }

    /// What a partition takes, as far as it is known.
    fn bytes_per_partition(&self) -> usize {
        let (bytes, weight) = self.partitions;
        bytes.saturating_mul(MIDDLE_WEIGHT) / weight.max(1)
    }

    /// How many partitions from `from` on answers of so many bytes hold, if that is known.
    fn partitions_in(&self, from: u16, bytes: usize) -> Option<u16> {
        let (known, weight) = self.partitions;
        let mut room = bytes.saturating_mul(weight).checked_div(known)?;
        let fits = |partition: &u16| {
            let left = room.checked_sub(weight_of(*partition));
            room = left.unwrap_or(0);
            left.is_some()
        };
        let partitions = (from..PARTITIONS as u16).take_while(fits).count();
        Some(partitions.max(1) as u16)
    }

    /// A part of an answer has arrived, of so many bytes. Returns the task it answers if it is one of this pull that
    /// was asked for and the part is new; call [`Pull::close`] when it is used.
    pub fn part(&mut self, from: NodeId, part: Part, bytes: u64, pace: &mut Pace, now: Millis) -> Option<&Task> {
        let lane = self.lanes.get_mut(&part.request)?;
        if *lane.responder.get_or_insert(from) != from {
            return None;
        }
        self.end_doubt(part.request);
        let lane = self.lanes.get_mut(&part.request)?;
        lane.heard(pace, now);
        pace.arrived(bytes as usize);
        lane.bytes += bytes as usize;
        self.heard = now;
        self.timeouts = 0;
        self.answered = true;
        lane.received.insert(part.index).then_some(&lane.task)
    }

    /// Something of the answer was new.
    pub fn changed_by(&mut self, request: u64) {
        self.changed = true;
        if let Some(lane) = self.lanes.get_mut(&request) {
            lane.changed = true;
        }
    }

    /// The end of an answer has arrived.
    pub fn end(&mut self, from: NodeId, end: AnswerEnd, pace: &mut Pace, now: Millis) {
        let Some(lane) = self.lanes.get_mut(&end.request) else {
            return;
        };
        if *lane.responder.get_or_insert(from) != from {
            return;
        }
        self.end_doubt(end.request);
        if let Some(lane) = self.lanes.get_mut(&end.request) {
            lane.heard(pace, now);
            lane.end = Some(end);
            self.heard = now;
            self.timeouts = 0;
            self.answered = true;
        }
    }

    /// Closes a request when its whole answer is here. What is missing is waited for, then asked for again.
    pub fn close(&mut self, request: u64, pace: &mut Pace, now: Millis) -> Progress {
        if !self.lanes.get(&request).is_some_and(Lane::complete) {
            return Progress::Running;
        }
        let Some(Lane {
            task,
            end: Some(end),
            first,
            asked,
            bytes,
            expected,
            changed,
            late,
            responder,
            ..
        }) = self.lanes.remove(&request)
        else {
            return Progress::Running;
        };
        if !late {
            pace.answered(asked, (bytes, expected), now);
        }
        self.in_vain = if changed { 0 } else { self.in_vain + 1 };
        if let Some(node) = responder {
            self.overtakes = self.overtakes.max(Some((asked.at, node)));
        }
        // Those that ask for the same are not needed any more.
        self.lanes.retain(|_, lane| lane.first != first);
        self.todo.retain(|waiting| waiting.again != Some(first));
        let rest = match task {
            Task::Partitions(range) => {
                let from = end.next.min(range.to.into()) as u16;
                let rest = self.rest_of(from, range, responder, end.rest);
                if from < range.from || from == range.from && rest.is_none() {
                    return self.failed(Task::Partitions(range), None);
                }
                self.note_seqs(&end.seqs);
                match rest {
                    Some(_) => {
                        let from = from + 1;
                        self.add_front((from < range.to).then_some(Task::Partitions(Range { from, ..range })));
                        rest
                    }
                    None => {
                        // They need not all be alike: what came last says most.
                        self.partitions.0 = self.partitions.0 / 2 + bytes;
                        self.partitions.1 = self.partitions.1 / 2 + (range.from..from).map(weight_of).sum::<usize>();
                        (from < range.to).then_some(Task::Partitions(Range { from, ..range }))
                    }
                }
            }
            Task::Rest(known) => {
                let partition = u64::from(known.partition.0);
                // Each answer has to get on, or they would never end.
                let from = end.rest.filter(|from| end.next == partition && *from > known.from);
                if end.next <= partition && from.is_none() {
                    return self.failed(Task::Rest(known), None);
                }
                self.note_seqs(&end.seqs);
                from.map(|from| Task::Rest(Rest { from, ..known }))
            }
            // Answered in one piece, or not at all.
            Task::Sketch(_) if end.next > 0 => None,
            Task::Sketch(known) => return self.failed(Task::Sketch(known), None),
            // Cut within a partition or span: what has come is not asked for again.
            Task::Reconcile(named) if end.next == 0 && changed => Some(Task::Reconcile(named)),
            Task::Fetch(spans) if end.next == 0 && changed => Some(Task::Fetch(spans)),
            Task::Reconcile(named) if end.next == 0 => return self.failed(Task::Reconcile(named), None),
            Task::Reconcile(mut named) => {
                let left = named.partitions.len() - named.done;
                named.done += left.min(end.next as usize);
                (named.done < named.partitions.len()).then_some(Task::Reconcile(named))
            }
            Task::Compare(spans) => match remaining(spans, end.next) {
                Ok(rest) => rest.map(Task::Compare),
                Err(spans) => return self.failed(Task::Compare(spans), None),
            },
            Task::Fetch(spans) => match remaining(spans, end.next) {
                Ok(rest) => rest.map(Task::Fetch),
                Err(spans) => return self.failed(Task::Fetch(spans), None),
            },
        };
        self.failures = 0;
        self.add_front(rest);
        self.progress()
    }

    fn add_front(&mut self, task: Option<Task>) {
        let waiting = |task| Waiting { task, again: None };
        task.filter(|_| !self.ends)
            .map(waiting)
            .into_iter()
            .for_each(|task| self.todo.push_front(task));
    }

    /// What is left of a partition of the range in which an answer ended.
    fn rest_of(&self, next: u16, range: Range, responder: Option<NodeId>, from: Option<Cursor>) -> Option<Task> {
        let (node, from) = (responder?, from?);
        let partition = Partition(next);
        let cut = !self.purpose.sends_digests() && (range.from..range.to).contains(&next);
        cut.then_some(Task::Rest(Rest { partition, node, from }))
    }

    fn note_seqs(&mut self, seqs: &[(NodeId, u64)]) {
        let new: BTreeMap<NodeId, u64> = seqs.iter().copied().collect();
        self.seqs = Some(match self.seqs.take() {
            None => new,
            Some(old) => old
                .into_iter()
                .filter_map(|(node, seq)| new.get(&node).map(|other| (node, seq.min(*other))))
                .collect(),
        });
    }

    /// What the pull stands for when it is done: the effect of all frames of these nodes up to these numbers, but for
    /// what was refused. A comparison that leaves out partitions in flux stands for nothing.
    pub fn stands_for(&self) -> Vec<(NodeId, u64)> {
        match self.purpose {
            Purpose::Difference(_) | Purpose::Reverse(_) => Vec::new(),
            _ => self.seqs.iter().flatten().map(|(node, seq)| (*node, *seq)).collect(),
        }
    }

    /// Whether the request is one of this pull whose answer is taken.
    pub fn has_request(&self, request: u64) -> bool {
        self.lanes.contains_key(&request)
    }

    /// A node is gone: what it has not answered in full is asked for again, by whoever is there.
    pub fn gone(&mut self, node: NodeId, now: Millis) {
        let of_node = |lane: &&mut Lane| lane.responder == Some(node) || lane.task.is_for(node);
        for lane in self.lanes.values_mut().filter(of_node) {
            lane.gone_at = Some(now);
        }
        for waiting in self.todo.iter_mut().filter(|waiting| waiting.task.is_for(node)) {
            waiting.task = waiting.task.clone().anew();
        }
    }

    /// When a request of a bootstrap counts as swallowed by those that NATS has picked, if somebody else can be asked:
    /// none was answered, or those answered that were made as late.
    pub fn swallowed_at(&self, pace: &Pace) -> Option<Millis> {
        if self.purpose != Purpose::Bootstrap || self.swallowed {
            return None;
        }
        if self.answered {
            let overtaken = self.overtaken().map(|(_, lane)| lane.since).min()?;
            return Some(overtaken.max(self.heard) + SWALLOWED_MS + pace.took());
        }
        let waits = self.lanes.values().filter(|lane| !lane.late).map(|lane| lane.since);
        waits.min().map(|since| since + SWALLOWED_MS)
    }

    /// Requests without a word of an answer that were made no later than one that was answered in full.
    fn overtaken(&self) -> impl Iterator<Item = (u64, &Lane)> {
        let until = self.overtakes.map(|(at, _)| at);
        self.lanes
            .iter()
            .filter(move |(_, lane)| !lane.late && lane.responder.is_none() && Some(lane.asked.at) <= until)
            .map(|(request, lane)| (*request, lane))
    }

    /// Some do not answer. If none has, one request is made again, for little was asked for so far: its answer shows
    /// whether they are slow or do not answer at all. If some have, what they have overtaken is made again.
    pub fn ask_others(&mut self) {
        self.swallowed = true;
        let again: Vec<u64> = match self.answered {
            true => self.overtaken().map(|(request, _)| request).collect(),
            false => {
                let oldest = self.lanes.iter().find(|(_, lane)| !lane.late);
                oldest.map(|(request, _)| *request).into_iter().collect()
            }
        };
        again.into_iter().for_each(|request| self.ask_again(request));
    }

    /// Whom to ask first where not everybody answers.
    pub fn answers(&self) -> Option<NodeId> {
        self.overtakes.map(|(_, node)| node)
    }

    fn ask_again(&mut self, request: u64) {
        if let Some(lane) = self.lanes.get_mut(&request) {
            lane.late = true;
            let (task, first) = (lane.task.clone(), lane.first);
            self.failed(task, Some(first));
        }
    }

    /// Something of the answer to a request arrives, the first of all after one was made again. If it is that one,
    /// those before it were swallowed, for they would have been answered before; else they are being answered.
    fn end_doubt(&mut self, request: u64) {
        if self.answered || !self.swallowed {
            return;
        }
        let again = |lane: &Lane| lane.first != request;
        self.swallowed = self.lanes.get(&request).is_some_and(again);
        if self.swallowed {
            let silent = |(_, lane): &(&u64, &Lane)| !lane.late && lane.responder.is_none();
            let before: Vec<u64> = self
                .lanes
                .range(..request)
                .filter(silent)
                .map(|(request, _)| *request)
                .collect();
            before.into_iter().for_each(|request| self.ask_again(request));
        }
    }

    /// When a request counts as lost. One whose answer waits behind others is not asked for again.
    fn lost_at(&self, lane: &Lane, pace: &Pace) -> Millis {
        if let Some(gone_at) = lane.gone_at {
            return gone_at;
        }
        let patience = pace.patience(self.timeouts);
        let alone = lane.since + patience;
        alone
            .max(self.heard + patience)
            .min(lane.since + PATIENCE_IN_QUEUE * patience)
    }

    /// Asks again for what has not been answered in time.
    pub fn tick(&mut self, pace: &mut Pace, now: Millis) -> Progress {
        let lost = |lane: &Lane| !lane.late && now >= self.lost_at(lane, pace);
        let lost: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lost(lane))
            .map(|(request, _)| *request)
            .collect();
        let anew = |request: &u64| {
            self.lanes
                .get(request)
                .is_some_and(|lane| lane.asked.at >= self.timed_out)
        };
        if lost.iter().any(anew) {
            self.timeouts += 1;
            self.timed_out = now;
            pace.given_up();
        }
        for request in lost {
            self.ask_again(request);
            if self.has_failed() {
                return Progress::Failed;
            }
        }
        let late = |(request, lane): (&u64, &Lane)| lane.late.then_some(*request);
        let late: Vec<u64> = self.lanes.iter().filter_map(late).collect();
        for request in &late[..late.len().saturating_sub(MAX_LATE)] {
            self.lanes.remove(request);
        }
        self.progress()
    }

    /// The connection is lost, and what was under way with it. What has arrived stays.
    pub fn interrupted(&mut self) {
        let mut counted = BTreeSet::new();
        for waiting in &mut self.todo {
            counted.extend(waiting.again.take());
        }
        for lane in std::mem::take(&mut self.lanes).into_values().rev() {
            if counted.insert(lane.first) {
                let task = lane.task;
                self.todo.push_front(Waiting { task, again: None });
            }
        }
        self.timeouts = 0;
    }

    fn failed(&mut self, task: Task, again: Option<u64>) -> Progress {
        self.failures += 1;
        if !self.ends {
            let task = task.anew();
            self.todo.push_back(Waiting { task, again });
        }
        match self.has_failed() {
            true => Progress::Failed,
            false => Progress::Running,
        }
    }

    fn has_failed(&self) -> bool {
        self.purpose.peer().is_some() && self.failures >= MAX_FAILURES
    }

    pub fn progress(&self) -> Progress {
        // What was given up has a successor in the queue, or one that is under way, unless nothing more is asked for.
        let is_done = match self.ends {
            true => self.lanes.values().all(|lane| lane.late),
            false => self.todo.is_empty() && self.lanes.is_empty(),
        };
        match is_done {
            true => Progress::Done,
            false => Progress::Running,
        }
    }

    pub fn deadline(&self, pace: &Pace) -> Option<Millis> {
        let waited_for = self.lanes.values().filter(|lane| !lane.late);
        waited_for.map(|lane| self.lost_at(lane, pace)).min()
    }
}

/// How much a partition holds, compared with others: by chance, the last one twice as much as the first.
fn weight_of(partition: u16) -> usize {
    PARTITIONS + usize::from(partition)
}

/// That of one in the middle.
const MIDDLE_WEIGHT: usize = PARTITIONS + PARTITIONS / 2;

/// What is left of a list of which `done` were answered; the list back if none was.
fn remaining<T>(mut list: Vec<T>, done: u64) -> Result<Option<Vec<T>>, Vec<T>> {
    if done == 0 {
        return Err(list);
    }
    let rest = list.split_off(list.len().min(done as usize));
    Ok((!rest.is_empty()).then_some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Span;

    /// A pull that has made `requests` requests at 1,000, of which `answered` are answered in full.
    fn left_to_frames(requests: u64, answered: u64, pace: &mut Pace) -> Pull {
        let peer = NodeId(1);
        let mut pull = Pull::of(Purpose::Difference(peer), 1_000);
        pull.add((0..8).map(|n| Task::Compare(vec![Span::of(Partition(n))])));
        for request in 1..=requests {
            assert!(pull.next_request(request, 1_024, pace, 0, 1_000).is_some());
        }
        pull.leave_to_frames();
        pull.add([Task::Compare(vec![Span::of(Partition(9))])]);
        for request in 1..=answered {
            assert_eq!(pull.progress(), Progress::Running);
            let to = NodeId(2);
            let end = AnswerEnd {
                to,
                request,
                parts: 0,
                next: 1,
                rest: None,
                seqs: Vec::new(),
            };
            pull.end(peer, end, pace, 1_100);
            pull.close(request, pace, 1_100);
        }
        pull
    }

    #[test]
    fn a_comparison_that_is_left_to_frames_ends_with_the_answers_under_way() {
        let pace = &mut Pace::default();
        for requests in 0..=3 {
            let mut pull = left_to_frames(requests, requests, pace);
            assert_eq!(pull.next_request(9, 1_024, pace, 0, 1_100), None);
            assert_eq!((pull.progress(), pull.is_complete()), (Progress::Done, false));
        }
    }

    #[test]
    fn a_comparison_that_is_left_to_frames_does_not_wait_for_answers_that_are_lost() {
        for answered in 0..=2 {
            let pace = &mut Pace::default();
            let mut pull = left_to_frames(3, answered, pace);
            assert_eq!(pull.tick(pace, 1_200), Progress::Running);
            let lost = pull.deadline(pace).expect("some are under way");
            assert_eq!(pull.tick(pace, lost), Progress::Done);
        }
    }
}
