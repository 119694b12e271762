//! What is done with the answers of peers, and with pulls that are done.

use std::collections::HashSet;

use crate::cache::{Millis, NodeId, Partition, Span};
use crate::replica::machine::Replica;
use crate::replica::parts::held::{digest_of, symbols_of, Held};
use crate::replica::parts::lacking::Withheld;
use crate::replica::parts::now::Now;
use crate::replica::parts::pull::{Progress, Pull};
use crate::replica::parts::schedule::Repair;
use crate::replica::parts::sketch::{self, decode};
use crate::replica::parts::task::{is_whole, FollowUp, Named, Purpose, Sketched, Task};
use crate::wire::{self, AnswerEnd, BootstrapDeltas, RangeSplits, Sketch, Unknown};

/// How often further symbols of a sketch are asked for, before what differs is looked for span by span.
const MAX_ROUNDS: u32 = 3;

/// A peer that was met and of whose state something was refused is compared with again after this many heartbeat
/// intervals.
const MEETING_PATIENCE: u64 = 30;

impl Replica {
    fn first_bootstrap_answered(&mut self, now: Now, request: u64) {
        if self.pulls.first().is_some_and(|pull| pull.has_request(request)) {
            self.search.answered(request, now.mono);
        }
    }

    pub(crate) fn handle_bootstrap_deltas(
        &mut self,
        now: Now,
        node: NodeId,
        bootstrap: BootstrapDeltas<&[u8]>,
        length: u64,
    ) {
        let own = self.cache.node();
        let asked = self
            .pulls
            .asked(node, bootstrap.part.request)
            .filter(|_| bootstrap.part.to == own);
        let taken = asked.and_then(|(pull, pace)| pull.part(node, bootstrap.part, length, pace, now.mono));
        if taken.is_none() {
            self.counters.repeated += 1;
            return;
        }
        self.first_bootstrap_answered(now, bootstrap.part.request);
        self.counters.replay_bytes_received += length;
        self.counters.replay_commands_received += bootstrap.deltas.len() as u64;
        let before = self.cache.root_digest();
        let refused = self.apply(now, node, &bootstrap.deltas, bootstrap.clock);
        let changed = self.cache.root_digest() != before;
        if let Some((pull, _)) = self.pulls.asked(node, bootstrap.part.request) {
            if let Some(new) = refused {
                let known = pull.refused.get_or_insert(Withheld::NOTHING);
                known.deltas += new.deltas;
                known.from = known.from.min(new.from);
            }
            let withheld = pull.refused.filter(|_| refused.is_some());
            if changed {
                pull.changed_by(bootstrap.part.request);
            }
            if let Some(withheld) = withheld {
                self.peers.change(node, |peer| peer.withhold(withheld));
            }
        }
        self.close(now, bootstrap.part.request);
    }

    pub(crate) fn handle_splits(&mut self, now: Now, node: NodeId, splits: RangeSplits, length: u64) {
        let own = self.cache.node();
        let part = splits.part;
        let Some((pull, pace)) = self.pulls.asked(node, part.request).filter(|_| part.to == own) else {
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
        if let Some((pull, _)) = self.pulls.asked(node, part.request) {
            pull.add(tasks);
        }
        self.close(now, part.request);
    }

    fn follow_up(&self, now: Now, purpose: Purpose, splits: &RangeSplits) -> Vec<Task> {
        let mut follow = FollowUp::of(self.pulls.pace().budget());
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
                    Purpose::Resync(_, floor) if theirs.count == 0 => {
                        self.cache.forget(span, floor, |_| true, now.wall);
                    }
                    _ => follow.differs(span, here.len() as u64, theirs.count, is_whole(split)),
                }
            }
        }
        follow.tasks()
    }

    pub(crate) fn handle_sketch(&mut self, now: Now, node: NodeId, sketch: Sketch, length: u64) {
        let own = self.cache.node();
        let part = sketch.part;
        let Some((pull, pace)) = self.pulls.asked(node, part.request).filter(|_| part.to == own) else {
            self.counters.repeated += 1;
            return;
        };
        let sends_digests = pull.purpose.sends_digests();
        // There is one sketch in an answer: each costs a walk of its partitions.
        let asked = |task: &&Task| part.index == 0 && task.wants(&sketch, sends_digests);
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
        if let Some((pull, _)) = self.pulls.asked(node, part.request) {
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
                return vec![Task::Reconcile(named)];
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
            _ => split_all(&partitions, self.pulls.pace().budget()),
        }
    }

    pub(crate) fn handle_unknown(&mut self, now: Now, node: NodeId, unknown: &Unknown, length: u64) {
        let own = self.cache.node();
        let Some((pull, pace)) = self
            .pulls
            .asked(node, unknown.part.request)
            .filter(|_| unknown.part.to == own)
        else {
            self.counters.repeated += 1;
            return;
        };
        let (purpose, budget) = (pull.purpose, pace.budget());
        match (purpose, pull.part(node, unknown.part, length, pace, now.mono).cloned()) {
            (Purpose::Resync(_, floor), Some(Task::Fetch(spans))) => {
                let to_remove: HashSet<u64> = unknown.hashes.iter().copied().collect();
                for (span, _) in spans {
                    self.cache
                        .forget(span, floor, |hash| to_remove.contains(&hash), now.wall);
                }
            }
            // Something else has taken their place there since, and may be missing here. A comparison that stands for
            // frames has to get it: those frames count as arrived, and somebody may wait to hear so.
            (
                Purpose::Gap(_) | Purpose::Departed(_) | Purpose::Meeting(_) | Purpose::Withheld(_),
                Some(Task::Reconcile(named)),
            ) => {
                pull.add(split_all(&named.partitions, budget));
            }
            _ => {}
        }
        self.close(now, unknown.part.request);
    }

    pub(crate) fn handle_answer_end(&mut self, now: Now, node: NodeId, end: AnswerEnd) {
        let own = self.cache.node();
        let request = end.request;
        let for_us = end.to == own;
        self.first_bootstrap_answered(now, request);
        match self.pulls.asked(node, request).filter(|_| end.to == own) {
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
        if let Some((purpose, progress)) = self.pulls.close(request, now.mono) {
            self.pull_progress(now, purpose, progress);
        }
    }

    /// When a bootstrap that nobody answers is asked for at a peer that is known.
    pub(crate) fn swallowed_at(&self) -> Option<Millis> {
        let at = self.pulls.swallowed_at()?;
        self.peers.synced().next().is_some().then_some(at)
    }

    pub(crate) fn tick_pulls(&mut self, now: Now) {
        if self.swallowed_at().is_some_and(|at| now.mono >= at) {
            tracing::warn!("not all who should answer the bootstrap do: asking a peer that is known");
            self.pulls.ask_others();
        }
        for (purpose, progress) in self.pulls.tick(now.mono) {
            self.pull_progress(now, purpose, progress);
        }
    }

    fn pull_progress(&mut self, now: Now, purpose: Purpose, progress: Progress) {
        if progress == Progress::Running {
            return;
        }
        let Some(pull) = self.pulls.take(purpose) else { return };
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
                self.send_ack_of_all(now, node);
            }
            // Nodes that only the responder has heard are asked to introduce themselves.
            self.challenge(now, node);
        }
        let took_ms = now.mono - pull.began;
        self.looked_for_withheld(now, &pull);
        match purpose {
            Purpose::Bootstrap => {
                self.search
                    .set_refused(pull.refused.map(|refused| refused.deltas.max(1)));
                self.inherit_lineage();
                self.bootstrapped(now);
            }
            Purpose::Gap(node) => {
                // The next heartbeats may show that this has closed other gaps as well.
                let interval = self.heartbeat_interval();
                let pause = interval / 2 + self.spread(interval / 2);
                self.schedule.set(Repair::Gap, now.mono + pause);
                tracing::info!(peer = %node, took_ms, "repaired after missing frames");
            }
            Purpose::Departed(node) => {
                self.schedule.no_candidate(node);
                tracing::info!(peer = %node, took_ms, "repaired after a peer went with frames missing here");
            }
            Purpose::Meeting(node) => {
                match pull.refused {
                    None => self.merged(node),
                    Some(_) => {
                        let pause = MEETING_PATIENCE * self.heartbeat_interval();
                        self.schedule.set(Repair::Meeting, now.mono + pause);
                    }
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
                // A newer heartbeat has to show that something still differs.
                self.peers.change(node, |peer| peer.differs_since = None);
                tracing::debug!(peer = %node, took_ms, "compared partitions at rest");
            }
            Purpose::Reverse(node) => {
                if pull.is_in_vain() {
                    // Two nodes that cannot take what the other has would ask each other for ever.
                    self.schedule.set(Repair::Reverse, now.mono + self.heartbeat_interval());
                }
                tracing::debug!(peer = %node, took_ms, "took what a comparison has shown");
            }
            Purpose::Resync(node, _) => {
                tracing::info!(peer = %node, took_ms, "took the state of a peer after a long absence");
                self.lineage.is_complete(self.hybrid_now(now));
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

    /// The bootstrap is done.
    pub(crate) fn bootstrapped(&mut self, now: Now) {
        self.bootstrap.arrived(now.mono);
        self.settle(now);
    }

    /// The peer did not answer. It is asked again when it shows life; if it does not, it counts as gone.
    fn pull_failed(&mut self, now: Now, purpose: Purpose) {
        if let Purpose::Resync(..) = purpose {
            self.end_resync(now);
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
    pub(crate) fn give_up_pulls_from(&mut self, now: Now, node: NodeId) {
        if let Some(purpose) = self.pulls.gone(node, now.mono) {
            self.pull_failed(now, purpose);
        }
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
