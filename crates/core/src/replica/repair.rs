//! Which repair is due, and what is done with the answers of peers.

use std::collections::{BTreeSet, HashSet};

use super::machine::{Output, Phase, Replica, Target};
use super::membership::Past;
use super::outbound::spread_of;
use super::pace::Pace;
use super::peers::{Peer, Withheld};
use super::pull::{is_whole, FollowUp, Named, Progress, Pull, Purpose, Range, Rest, Sketched, Task};
use super::serve::{digest_of, symbols_of, Answered, Held, Job, Lacking};
use super::sketch::{self, decode};
use super::Now;
use crate::cache::{Millis, NodeId, Partition, Span, Time, PARTITIONS};
use crate::wire::{
    self, Compare, Exchange, Fetch, Holding, Message, Offer, ReplayCommands, ReplayEnd, ReplayRequest, Request, Sketch,
    SketchRequest, Splits, Survey, Unknown, Want, ENVELOPE_BYTES,
};

/// While one of two nodes has forgotten older deletions than the other, their digests differ for no reason. A difference
/// that stays for this many beat intervals is looked at all the same.
const FLOOR_PATIENCE: u64 = 30;

/// What was refused for its stamps is asked for again when the first of it can be taken; if some is still refused then,
/// after this many beat intervals.
const WITHHELD_PAUSE: u64 = 10;

/// Least bytes asked for in an exchange.
const EXCHANGE_BYTES: u64 = 256 << 10;

/// How often further symbols of a sketch are asked for, before what differs is looked for span by span.
const MAX_ROUNDS: u32 = 3;

/// How long a node waits after its first replay for what peers have sent meanwhile.
const SETTLING_MS: Millis = 1_500;

impl Replica {
    // --- answering

    /// What an answer made now stands for. While this node waits for some that it has not met, those who take its state
    /// have to wait for them too.
    fn stands_for(&self) -> Vec<(NodeId, u64)> {
        let own = (self.cache.node(), self.seq);
        let known = self
            .peers
            .all()
            .filter(|(_, peer)| peer.proven || self.settling.is_some());
        let peers = known.map(|(node, peer)| (node, peer.effective()));
        std::iter::once(own).chain(peers).collect()
    }

    /// Takes a request of a node, once. It is answered when the node has proven to be alive.
    pub(super) fn take_request(&mut self, now: Now, node: NodeId, request: Request, length: u64) {
        let number = request.number();
        let proven = self
            .peers
            .change(node, |peer| peer.takes_request(number).then_some(peer.proven));
        match proven.flatten() {
            Some(true) => self.serve(now, node, request),
            Some(false) => {
                self.peers.change(node, |peer| peer.park(request, length as usize));
            }
            None => self.counters.repeated += 1,
        }
    }

    pub(super) fn serve(&mut self, now: Now, node: NodeId, request: Request) {
        match request {
            Request::Frames(request) => self.serve_frames(now, node, &request),
            request => self.jobs.add(node, request),
        }
        self.next_job(now);
    }

    /// Has the next answer made, if none is being made.
    fn next_job(&mut self, now: Now) {
        while let Some((node, mut request)) = self.jobs.next() {
            let replays = self.phase == Phase::Synced && now.mono >= self.serves_from;
            let of_state = matches!(request, Request::Replay(_) | Request::Survey(_));
            if self.peers.proven(node).is_none() || of_state && !replays {
                continue;
            }
            if let Request::Survey(survey) = &mut request {
                // Who compares partitions at rest finds none: what differs here is about to come.
                if survey.settled_ms > 0 && self.frames_come_in() {
                    survey.settled_ms = u64::MAX;
                }
            }
            self.counters.replays_served += u64::from(of_state);
            let version = self.version_for(Target::Node(node));
            let job = Job::new((node, request), version, self.message_bytes(), self.stands_for(), now);
            self.jobs.begin();
            self.outputs.push_back(Output::Answer(job));
        }
    }

    /// An answer is made.
    pub(super) fn answered(&mut self, now: Now, answered: Answered) {
        self.jobs.end();
        let Answered {
            node,
            messages,
            lacking,
        } = answered;
        if self.peers.proven(node).is_some() {
            for message in messages {
                self.publish(Target::Node(node), message);
            }
            match lacking {
                Lacking::Nothing => {}
                Lacking::Spans(spans) => self.fetch_back(now, node, spans),
                Lacking::Named(named) if self.may_fetch_back(now, node) => {
                    self.add_reverse(now, node, vec![Task::Exchange(named)]);
                }
                Lacking::Named(_) => {}
            }
        }
        self.next_job(now);
    }

    /// A peer that compares with this node has something that is missing here. One exchange so makes both equal.
    fn may_fetch_back(&self, now: Now, node: NodeId) -> bool {
        let paused = now.mono < self.next_reverse && self.reverse.is_none();
        !paused && !self.frames_come_in() && self.phase == Phase::Synced && self.may_take_from(node)
    }

    fn fetch_back(&mut self, now: Now, node: NodeId, spans: Vec<Span>) {
        if spans.is_empty() || !self.may_fetch_back(now, node) {
            return;
        }
        let mut follow = FollowUp::of(self.pace.budget());
        let mut held = Held::of(&self.cache);
        for span in spans {
            let here = held.components(span).len();
            follow.fetch(span, true, here * 8 + 2_048);
        }
        self.add_reverse(now, node, follow.tasks());
    }

    fn add_reverse(&mut self, now: Now, node: NodeId, tasks: Vec<Task>) {
        let reverse = self
            .reverse
            .get_or_insert_with(|| Pull::of(Purpose::Reverse(node), now.mono));
        if reverse.purpose.peer() == Some(node) && reverse.has_room() {
            reverse.add(tasks);
        }
    }

    /// Whether a peer is known to have been away for so long that it has to take others' state first.
    pub(super) fn is_outdated(&self, node: NodeId) -> bool {
        let beat = self.peers.get(node).and_then(|peer| peer.beat.as_ref());
        beat.is_some_and(|beat| Past::of_beat(node, beat).is_outdated_by(self.past()))
    }

    /// Whether a peer is synced, and not one that has to take others' state first.
    pub(super) fn may_take_from(&self, node: NodeId) -> bool {
        self.peers.get(node).is_some_and(Peer::synced) && !self.is_outdated(node)
    }

    // --- asking

    /// Sends requests while the windows have room.
    pub(super) fn request_tasks(&mut self, now: Now) {
        if !self.connected {
            return;
        }
        while let Some((purpose, doubtful, request, task, budget)) = self.next_task(now) {
            let peer = match &task {
                Task::Rest(rest) => Some(rest.node),
                _ => purpose.peer(),
            };
            let message = self.request(purpose, request, task, budget as u64);
            let to = match peer {
                Some(node) => Target::Node(node),
                // One that is known to be there, should those that NATS picks not answer.
                None => match self.known_to_answer().filter(|_| doubtful) {
                    Some(node) => Target::Node(node),
                    None => Target::Replay { request },
                },
            };
            if let Target::Replay { request } = to {
                self.search.asked(request);
            }
            self.send(to, &message);
        }
    }

    /// A synced peer: the one that has answered a first replay, if one has.
    fn known_to_answer(&self) -> Option<NodeId> {
        let answers = self.pull.as_ref().and_then(Pull::answers);
        let answers = answers.filter(|node| self.peers.get(*node).is_some_and(Peer::synced));
        answers.or_else(|| self.peers.synced().next().map(|(node, _)| node))
    }

    fn next_task(&mut self, now: Now) -> Option<(Purpose, bool, u64, Task, usize)> {
        let request = self.next_id + 1;
        // The fragments of a larger request could reach different peers of the replay group.
        let most = (self.max_message.saturating_sub(2 * ENVELOPE_BYTES) / 8).clamp(1, PARTITIONS) as u16;
        if self.pull.is_none() && self.reverse.is_none() {
            return None;
        }
        let under_way = self.under_way();
        for pull in [&mut self.pull, &mut self.reverse].into_iter().flatten() {
            if let Some((task, budget)) = pull.next_request(request, most, &self.pace, under_way, now.mono) {
                self.next_id = request;
                let doubtful = pull.again || pull.swallowed || pull.failures() > 0;
                return Some((pull.purpose, doubtful, request, task, budget));
            }
        }
        None
    }

    /// Bytes that were asked for and are still to come.
    pub(super) fn under_way(&self) -> usize {
        let pulls = [&self.pull, &self.reverse].into_iter().flatten();
        pulls.map(Pull::under_way).sum::<usize>() + self.peers.under_way()
    }

    fn request(&self, purpose: Purpose, request: u64, task: Task, budget: u64) -> Message {
        match task {
            Task::Partitions(Range { from, to }) if purpose.surveys() => Message::Survey(Survey {
                request,
                from: Partition(from),
                digests: (from..to)
                    .map(|partition| sketch::shortened(self.cache.digest(Partition(partition)), request))
                    .collect(),
                settled_ms: match purpose {
                    Purpose::Difference(_) => self.config.beat_interval_ms,
                    _ => 0,
                },
                budget,
            }),
            Task::Sketch(Sketched {
                partitions,
                theirs,
                count,
                ..
            }) => Message::SketchRequest(SketchRequest {
                request,
                partitions,
                first: theirs.len(),
                count,
            }),
            Task::Exchange(named) => Message::Exchange(self.exchange(request, &named, budget)),
            Task::Partitions(Range { from, to }) => Message::ReplayRequest(ReplayRequest {
                request,
                from: Partition(from),
                digests: (from..to)
                    .map(|partition| self.cache.digest(Partition(partition)))
                    .collect(),
                want: match purpose {
                    Purpose::FirstReplay => Want::Commands,
                    _ => Want::Splits,
                },
                budget,
                rest: None,
            }),
            Task::Rest(Rest { partition, from, .. }) => Message::ReplayRequest(ReplayRequest {
                request,
                from: partition,
                digests: vec![self.cache.digest(partition)],
                want: Want::Commands,
                budget,
                rest: Some(from),
            }),
            Task::Compare(spans) => {
                let mut held = Held::of(&self.cache);
                let digest = |span: Span| (span, digest_of(held.components(span)));
                Message::Compare(Compare {
                    request,
                    spans: spans.into_iter().map(digest).collect(),
                    budget,
                })
            }
            Task::Fetch(spans) => {
                let mut held = Held::of(&self.cache);
                let mut hashes = |span| held.components(span).iter().map(|component| component.hash).collect();
                let holding = |(span, wanted): (Span, bool)| Holding {
                    span,
                    hashes: wanted.then(|| hashes(span)),
                };
                Message::Fetch(Fetch {
                    request,
                    yields: matches!(purpose, Purpose::Yield(..)),
                    holdings: spans.into_iter().map(holding).collect(),
                    budget,
                })
            }
        }
    }

    /// Asks for what is still missing here, and offers what is still here.
    fn exchange(&self, request: u64, named: &Named, budget: u64) -> Exchange {
        let mut wanted: BTreeSet<u64> = named.wanted.iter().copied().collect();
        let offered: BTreeSet<u64> = named.offered.iter().copied().collect();
        let of_request = (self.cache.node(), request);
        let mut offers = Vec::new();
        for partition in &named.partitions {
            let is_offered = |hash| {
                wanted.remove(&hash);
                offered.contains(&hash)
            };
            self.cache
                .select_components(Span::of(*partition), is_offered, |component, command| {
                    offers.push(Offer {
                        hash: component.hash,
                        place: wire::place(of_request, *partition, &command),
                        time: command.newest().time,
                    });
                });
        }
        Exchange {
            request,
            partitions: named.partitions[named.done..].to_vec(),
            wanted: wanted.into_iter().collect(),
            offers,
            // Each further request would repeat the offers.
            budget: budget.max(EXCHANGE_BYTES),
        }
    }

    // --- using answers

    fn first_replay_answered(&mut self, now: Now, request: u64) {
        let first = |pull: &&Pull| pull.purpose == Purpose::FirstReplay && pull.has_request(request);
        if self.pull.as_ref().filter(first).is_some() {
            self.search.answered(request, now.mono);
        }
    }

    /// The pull that asked `request`, if the answer comes from whom it asked.
    fn asked(&mut self, node: NodeId, request: u64) -> Option<(&mut Pull, &mut Pace)> {
        let pull = [&mut self.pull, &mut self.reverse]
            .into_iter()
            .flatten()
            .find(|pull| pull.has_request(request))?;
        (pull.purpose.peer().is_none_or(|peer| peer == node)).then_some((pull, &mut self.pace))
    }

    pub(super) fn replay_commands(&mut self, now: Now, node: NodeId, replay: ReplayCommands<&[u8]>, length: u64) {
        let own = self.cache.node();
        let asked = self.asked(node, replay.part.request).filter(|_| replay.part.to == own);
        let taken = asked.and_then(|(pull, pace)| pull.part(node, replay.part, length, pace, now.mono));
        if taken.is_none() {
            self.counters.repeated += 1;
            return;
        }
        self.first_replay_answered(now, replay.part.request);
        self.counters.replay_bytes_received += length;
        self.counters.replay_commands_received += replay.commands.len() as u64;
        let before = self.cache.root_digest();
        let refused = self.apply(now, node, &replay.commands, replay.clock);
        let changed = self.cache.root_digest() != before;
        if let Some((pull, _)) = self.asked(node, replay.part.request) {
            if let Some(new) = refused {
                let known = pull.refused.get_or_insert(Withheld::NOTHING);
                known.commands += new.commands;
                known.from = known.from.min(new.from);
            }
            let withheld = pull.refused.filter(|_| refused.is_some());
            if changed {
                pull.changed_by(replay.part.request);
            }
            if let Some(withheld) = withheld {
                self.peers.change(node, |peer| peer.withhold(withheld));
            }
        }
        self.close(now, replay.part.request);
    }

    pub(super) fn splits(&mut self, now: Now, node: NodeId, splits: Splits, length: u64) {
        let own = self.cache.node();
        let part = splits.part;
        let Some((pull, pace)) = self.asked(node, part.request).filter(|_| part.to == own) else {
            self.counters.repeated += 1;
            return;
        };
        let purpose = pull.purpose;
        // A split of something that was not asked for could lead anywhere.
        let asked = |task: &Task| splits.splits.iter().all(|split| task.covers(split.span));
        if !pull.part(node, part, length, pace, now.mono).is_some_and(asked) {
            self.counters.repeated += 1;
            return;
        }
        self.counters.replay_bytes_received += length;
        let tasks = self.follow_up(now, purpose, &splits);
        if let Some((pull, _)) = self.asked(node, part.request) {
            pull.add(tasks);
        }
        self.close(now, part.request);
    }

    fn follow_up(&self, now: Now, purpose: Purpose, splits: &Splits) -> Vec<Task> {
        let mut follow = FollowUp::of(self.pace.budget());
        let mut held = Held::of(&self.cache);
        for split in &splits.splits {
            // Parts that do not cover their whole say nothing.
            let Some(spans) = split.spans() else { continue };
            for (span, theirs) in spans {
                let here = held.components(span);
                if digest_of(here) == theirs.digest && here.len() as u64 == theirs.count {
                    continue;
                }
                match purpose {
                    Purpose::Yield(_, floor) if theirs.count == 0 => {
                        self.cache.forget(span, floor, |_| true, now.wall);
                    }
                    _ => follow.differs(span, here.len() as u64, theirs.count, is_whole(split)),
                }
            }
        }
        follow.tasks()
    }

    pub(super) fn sketch(&mut self, now: Now, node: NodeId, sketch: Sketch, length: u64) {
        let own = self.cache.node();
        let part = sketch.part;
        let Some((pull, pace)) = self.asked(node, part.request).filter(|_| part.to == own) else {
            self.counters.repeated += 1;
            return;
        };
        let surveys = pull.purpose.surveys();
        // There is one sketch in an answer: each costs a walk of its partitions.
        let asked = |task: &&Task| part.index == 0 && task.wants(&sketch, surveys);
        let taken = pull.part(node, part, length, pace, now.mono);
        let Some(task) = taken.filter(asked).cloned() else {
            self.counters.repeated += 1;
            return;
        };
        self.counters.replay_bytes_received += length;
        let (mut theirs, round) = match task {
            Task::Sketch(known) => (known.theirs, known.round),
            _ => (Vec::new(), 0),
        };
        theirs.extend(sketch.symbols);
        let tasks = self.sketched(sketch.partitions, theirs, round);
        if let Some((pull, _)) = self.asked(node, part.request) {
            pull.add(tasks);
        }
        self.close(now, part.request);
    }

    /// What follows from the symbols of a peer.
    fn sketched(&mut self, partitions: Vec<Partition>, theirs: Vec<wire::Symbol>, round: u32) -> Vec<Task> {
        let ours = symbols_of(&self.cache, &partitions, 0, theirs.len());
        let differing = match decode(&theirs, &ours) {
            Ok(difference) if difference.is_empty() => return Vec::new(),
            Ok(difference) => {
                self.counters.sketches += 1;
                let named = Named::new(partitions, difference.there, difference.here);
                return vec![Task::Exchange(named)];
            }
            Err(differing) => differing,
        };
        match sketch::more_symbols(theirs.len(), differing) {
            Some(all) if round < MAX_ROUNDS => vec![Task::Sketch(Sketched {
                count: all - theirs.len(),
                partitions,
                theirs,
                round: round + 1,
            })],
            _ => split_all(&partitions, self.pace.budget()),
        }
    }

    pub(super) fn unknown(&mut self, now: Now, node: NodeId, unknown: &Unknown, length: u64) {
        let own = self.cache.node();
        let Some((pull, pace)) = self
            .asked(node, unknown.part.request)
            .filter(|_| unknown.part.to == own)
        else {
            self.counters.repeated += 1;
            return;
        };
        let (purpose, budget) = (pull.purpose, pace.budget());
        match (purpose, pull.part(node, unknown.part, length, pace, now.mono).cloned()) {
            (Purpose::Yield(_, floor), Some(Task::Fetch(spans))) => {
                let doomed: HashSet<u64> = unknown.hashes.iter().copied().collect();
                for (span, _) in spans {
                    self.cache.forget(span, floor, |hash| doomed.contains(&hash), now.wall);
                }
            }
            // Something else has taken their place there since, and may be missing here. A comparison that stands for
            // frames has to get it: those frames count as arrived, and somebody may wait to hear so.
            (
                Purpose::Gap(_) | Purpose::Orphan(_) | Purpose::Meeting(_) | Purpose::Withheld(_),
                Some(Task::Exchange(named)),
            ) => {
                pull.add(split_all(&named.partitions, budget));
            }
            _ => {}
        }
        self.close(now, unknown.part.request);
    }

    pub(super) fn replay_end(&mut self, now: Now, node: NodeId, end: ReplayEnd) {
        let own = self.cache.node();
        let request = end.request;
        let for_us = end.to == own;
        self.first_replay_answered(now, request);
        match self.asked(node, request).filter(|_| end.to == own) {
            Some((pull, pace)) => pull.end(node, end, pace, now.mono),
            None => {
                if for_us {
                    self.probe_answered(now, request);
                }
                return;
            }
        }
        self.close(now, request);
    }

    fn close(&mut self, now: Now, request: u64) {
        let pulls = [&mut self.pull, &mut self.reverse];
        let found = pulls.into_iter().flatten().find(|pull| pull.has_request(request));
        let Some((purpose, progress)) = found.map(|pull| (pull.purpose, pull.close(request, &mut self.pace, now.mono)))
        else {
            return;
        };
        self.pull_progress(now, purpose, progress);
    }

    /// When a first replay that nobody answers is asked for at a peer that is known.
    pub(super) fn swallowed_at(&self) -> Option<Millis> {
        let at = self.pull.as_ref().and_then(|pull| pull.swallowed_at(&self.pace))?;
        self.peers.synced().next().is_some().then_some(at)
    }

    pub(super) fn tick_pulls(&mut self, now: Now) {
        if self.swallowed_at().is_some_and(|at| now.mono >= at) {
            tracing::warn!("not all who should answer the first replay do: asking a peer that is known");
            self.pull.as_mut().into_iter().for_each(Pull::ask_others);
        }
        let pace = &mut self.pace;
        let progress = |pull: &mut Pull| (pull.purpose, pull.tick(pace, now.mono));
        let pulls = [&mut self.pull, &mut self.reverse];
        let all: Vec<_> = pulls.into_iter().flatten().map(progress).collect();
        for (purpose, progress) in all {
            self.pull_progress(now, purpose, progress);
        }
    }

    fn pull_progress(&mut self, now: Now, purpose: Purpose, progress: Progress) {
        if progress == Progress::Running {
            return;
        }
        let place = match purpose {
            Purpose::Reverse(_) => &mut self.reverse,
            _ => &mut self.pull,
        };
        let Some(pull) = place.take() else { return };
        if progress == Progress::Failed {
            return self.pull_failed(now, purpose);
        }
        self.counters.pulls += u64::from(pull.is_complete());
        for (node, seq) in pull.stands_for() {
            if node == self.cache.node() {
                continue;
            }
            let present = self.hybrid_now(now);
            self.peers.named(node, present, self.taken_in(now));
            let refused = pull.refused.is_some();
            let closed = self.peers.change(node, |peer| {
                if refused {
                    peer.complete_in_vain(seq, now.mono);
                    return false;
                }
                let missed = peer.frames.has_gap();
                peer.complete_to(seq, now.mono);
                let doubted = peer.certain_to(seq);
                (missed || doubted) && !peer.is_lacking()
            });
            if closed == Some(true) {
                self.confirm_all(now, node);
            }
            // Nodes that only the responder has heard are asked to introduce themselves.
            self.challenge(now, node);
        }
        let took_ms = now.mono - pull.began;
        self.looked_for_withheld(now, &pull);
        match purpose {
            Purpose::FirstReplay => {
                self.search.refused = pull.refused.map(|refused| refused.commands.max(1));
                self.inherit_since();
                self.replayed(now);
            }
            Purpose::Gap(node) => {
                // The next beats may show that this has closed other gaps as well.
                let interval = self.beat_interval();
                self.next_gap_comparison = now.mono + interval / 2 + self.spread(interval / 2);
                tracing::info!(peer = %node, took_ms, "repaired after missing frames");
            }
            Purpose::Orphan(node) => {
                self.heirs.remove(&node);
                tracing::info!(peer = %node, took_ms, "repaired after a peer went with frames missing here");
            }
            Purpose::Meeting(node) => {
                match pull.refused {
                    None => self.merged(node),
                    Some(_) => self.next_meeting = now.mono + FLOOR_PATIENCE * self.beat_interval(),
                }
                tracing::info!(peer = %node, took_ms, "compared with a peer that was met");
            }
            Purpose::Withheld(node) => {
                if pull.refused.is_none() {
                    self.merged(node);
                }
                tracing::info!(peer = %node, took_ms, "took what had been from the future");
            }
            Purpose::Difference(node) => {
                // A newer beat has to show that something still differs.
                self.peers.change(node, |peer| peer.differs_since = None);
                tracing::debug!(peer = %node, took_ms, "compared partitions at rest");
            }
            Purpose::Reverse(node) => {
                if pull.is_in_vain() {
                    // Two nodes that cannot take what the other has would ask each other for ever.
                    self.next_reverse = now.mono + self.beat_interval();
                }
                tracing::debug!(peer = %node, took_ms, "took what a comparison has shown");
            }
            Purpose::Yield(node, _) => {
                tracing::info!(peer = %node, took_ms, "took the state of a peer after a long absence");
                self.contact = self.hybrid_now(now);
                self.taken = None;
                self.become_synced(now);
            }
        }
        self.settle(now);
    }

    /// What was refused of a peer was looked for again, unless some of what it holds was left out.
    fn looked_for_withheld(&mut self, now: Now, pull: &Pull) {
        let Some(node) = pull.purpose.peer() else { return };
        let all = !matches!(pull.purpose, Purpose::Difference(_) | Purpose::Reverse(_));
        let refused = pull.refused;
        self.peers.change(node, |peer| {
            if all {
                peer.withheld = refused;
            }
            if let Some(withheld) = &mut peer.withheld {
                withheld.asked = now.mono;
            }
        });
    }

    /// The first replay is done.
    pub(super) fn replayed(&mut self, now: Now) {
        self.phase = Phase::Settling;
        self.settling = Some(now.mono + SETTLING_MS);
        self.settle(now);
    }

    /// The peer did not answer. It is asked again when it shows life; if it does not, it counts as gone.
    fn pull_failed(&mut self, now: Now, purpose: Purpose) {
        if let Purpose::Yield(..) = purpose {
            self.stop_yielding(now);
        }
        let Some(node) = purpose.peer() else { return };
        let forgotten = self.peers.change(node, |peer| {
            peer.gap_since = None;
            peer.differs_since = None;
        });
        if forgotten.is_some() {
            tracing::warn!(peer = %node, "peer does not answer requests");
        }
    }

    /// A peer is gone: nobody waits for its answers any longer.
    pub(super) fn give_up_pulls_from(&mut self, now: Now, node: NodeId) {
        let from = |pull: &mut Pull| pull.purpose.peer() == Some(node);
        if let Some(pull) = self.pull.take_if(from) {
            self.pull_failed(now, pull.purpose);
        }
        self.reverse.take_if(from);
        if let Some(pull) = &mut self.pull {
            pull.gone(node, now.mono);
        }
    }

    // --- what is due

    /// This node was away for too long: it takes the state of `node`.
    pub(super) fn start_yielding(&mut self, now: Now, node: NodeId, floor: Time) {
        tracing::warn!(
            peer = %node,
            "this node was out of contact for longer than deletions are remembered: it takes the state of its peers"
        );
        self.counters.yields += 1;
        self.phase = Phase::Yielding;
        self.replay_began = now.mono;
        self.next_beat = now.mono;
        self.reverse = None;
        self.outputs.push_back(Output::LeaveReplays);
        self.pull = Some(Pull::new(Purpose::Yield(node, floor), now.mono));
    }

    /// It did not work out. The next beat of a synced peer starts it again; if none comes, this node is all there is.
    pub(super) fn stop_yielding(&mut self, now: Now) {
        self.phase = Phase::Synced;
        self.next_beat = now.mono;
        self.serves_from = now.mono + 1_000;
        self.outputs.push_back(Output::AnswerReplays);
    }

    /// Starts a pull where something is missing and none is under way.
    pub(super) fn repair(&mut self, now: Now) {
        let ready = matches!(self.phase, Phase::Synced | Phase::Settling);
        if !self.connected || !ready || self.pull.is_some() {
            return;
        }
        let found = self
            .meeting(now)
            .or_else(|| self.gap(now))
            .or_else(|| self.orphan(now))
            .or_else(|| self.withheld(now))
            .or_else(|| self.difference(now));
        let Some(purpose) = found else { return };
        match purpose {
            Purpose::Meeting(_) => {
                let interval = self.beat_interval();
                self.next_meeting = now.mono + interval / 2 + self.spread(interval / 2);
            }
            Purpose::Difference(_) => {
                let interval = self.config.beat_interval_ms;
                self.next_comparison = now.mono + interval + self.spread(interval);
            }
            Purpose::Orphan(_) => {
                // The next beats may show that the others have nothing more.
                let interval = self.beat_interval();
                self.next_orphan_comparison = now.mono + interval + self.spread(interval / 2);
            }
            _ => {}
        }
        self.pull = Some(Pull::new(purpose, now.mono));
    }

    /// This node was alone, and a peer has a state of its own.
    fn meeting(&self, now: Now) -> Option<Purpose> {
        if !self.search.alone || self.phase != Phase::Synced || now.mono < self.next_meeting {
            return None;
        }
        let own = self.cache.node();
        let peers = self.peers.iter().filter(|(node, _)| self.may_take_from(*node));
        peers
            .min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Meeting(node))
    }

    /// Where many nodes miss frames of many others, comparing with one at random makes two of them whole; a few rounds
    /// of that, and all are equal, which closes every gap.
    fn gap(&self, now: Now) -> Option<Purpose> {
        let own = NodeId(self.cache.node().0 ^ self.counters.pulls);
        self.peers
            .with_gaps()
            .filter(|(node, peer)| self.gap_is_hopeless(*node, peer, now) && self.may_take_from(*node))
            .min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Gap(node))
    }

    /// Who of the others has received what is missing of a peer that is gone cannot be known: each is compared with.
    fn orphan(&self, now: Now) -> Option<Purpose> {
        if now.mono < self.next_orphan_comparison {
            return None;
        }
        let own = self.cache.node();
        let heirs = self.heirs.iter().filter(|node| self.may_take_from(**node));
        heirs
            .min_by_key(|node| spread_of(own, node.0))
            .map(|node| Purpose::Orphan(*node))
    }

    /// The time has come to take what was refused. Not all of it may be of one time, and not all nodes ask at once.
    fn withheld(&self, now: Now) -> Option<Purpose> {
        let interval = self.config.beat_interval_ms;
        let own = self.cache.node();
        let is_due = |(node, peer): &(NodeId, &Peer)| {
            let jitter = spread_of(own, node.0) % interval;
            let due = |withheld: Withheld| {
                let rested = now.mono >= withheld.asked + WITHHELD_PAUSE * interval;
                now.wall >= withheld.from.saturating_add(jitter) && rested
            };
            peer.withheld.is_some_and(due) && self.may_take_from(*node)
        };
        let due = self.peers.withholding().filter(is_due);
        due.min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Withheld(node))
    }

    /// Whether this node holds what the peer refuses for now, by what its clock says. One that only repeats what the clocks
    /// of others say now and then seems to stand still: then nothing better is known than the time here.
    fn is_refused_by(&self, peer: &Peer, now: Now) -> bool {
        let clock = self.cache.clock();
        let newest = clock.latest().max(clock.stray()).millis();
        let skew = self.cache.limits().max_clock_skew_ms;
        newest > peer.clock_at(now.mono).unwrap_or(now.wall).saturating_add(skew)
    }

    fn difference(&self, now: Now) -> Option<Purpose> {
        if now.mono < self.next_comparison || self.frames_come_in() {
            return None;
        }
        let interval = self.config.beat_interval_ms;
        let own = self.cache.node();
        let stays = |node: NodeId, peer: &Peer| {
            let in_vain = peer.withheld.is_some() || self.is_refused_by(peer, now);
            let patience = if peer.floor_agrees && !in_vain {
                1
            } else {
                FLOOR_PATIENCE
            };
            // An exchange goes both ways: one of the two is enough, and begins a little earlier.
            let patience = interval * patience + if own < node { 0 } else { 2 * interval };
            peer.differs_since.is_some_and(|since| now.mono >= since + patience)
        };
        // Not all nodes at once with the same one.
        self.peers
            .differing()
            .filter(|(node, peer)| stays(*node, peer) && self.may_take_from(*node))
            .min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Difference(node))
    }
}

/// Looks span by span for what differs in the partitions.
fn split_all(partitions: &[Partition], budget: usize) -> Vec<Task> {
    let mut follow = FollowUp::of(budget);
    partitions
        .iter()
        .for_each(|partition| follow.compare(Span::of(*partition)));
    follow.tasks()
}
