//! The store of a node: what the thread of the node does beside the rules of
//! [`Keeper`](kvcache_core::durable::Keeper), one operation at a time, each of
//! which takes its time and may fail.

use std::collections::VecDeque;

use kvcache_core::cache::{Millis, Partition, Span, Stamp, Time};
use kvcache_core::durable::{Batch, Held, Loaded, LoadedSection, Present, Record, Section, SectionState};
use kvcache_core::replica::{Lineage, Replica, Start, SyncState};
use rand::RngExt;

use crate::engine::Op;
use crate::event::Event;
use crate::kept::{Keeping, Step, Why};
use crate::node::replica_config;
use crate::world::World;

/// Changes of a partition that are noted one by one: few, so that there are more now and then.
const NOTED_CHANGES: usize = 4;

/// Sections that are read at once.
const SECTIONS_AT_ONCE: u16 = 256;

/// All sections are compared one after the other where a store is taken over: each goes so much faster than other
/// operations.
const AUDITS_AT_ONCE: Millis = 16;

/// A write is tried for so long, as the node does.
const KEPT_MS: Millis = 10_000;

/// The pause after a failure.
const PAUSE_MS: Millis = 100;

/// The number of the store that all share.
const SHARED: u64 = 1;

/// The record of the head that says since when the state exists.
const LINEAGE: &[u8] = b"lineage";
const STAMP_BYTES: usize = 16;

impl World {
    fn keeping(&mut self, node: usize) -> &mut Keeping {
        self.nodes[node].keeping.as_mut().expect("a run with stores")
    }

    /// The number of the engine that a place writes to.
    pub(crate) fn engine_of(&self, place: usize) -> usize {
        place % self.engines.len()
    }

    /// A process starts: before anything else it reads its store.
    pub(crate) fn open_store(&mut self, node: usize) {
        if !std::mem::replace(&mut self.keeping(node).started, true) {
            self.tell(|| format!("node {node} opens its store"));
            self.keep_at(node, self.now);
        }
    }

    /// Whether callers are answered at a node.
    pub(crate) fn is_open(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        let Some(keeping) = &it.keeping else { return true };
        let peers = || it.replica.sync_state(self.clock(node)) == SyncState::Synced;
        keeping.ready || keeping.begun && (!self.scenario.store_required || peers())
    }

    fn keep_at(&mut self, node: usize, time: Millis) {
        self.turns += 1;
        let turn = self.turns;
        self.keeping(node).turn = turn;
        self.at(time, Event::Keep { node, turn });
    }

    fn op_ms(&mut self) -> Millis {
        self.rng.random_range(0..=self.scenario.store_ms)
    }

    /// Somebody waits for a partition.
    pub(crate) fn wait_for_store(&mut self, node: usize, partition: Partition) {
        let now = self.now;
        let keeping = self.keeping(node);
        keeping.waiting.push(partition);
        if keeping.ready && matches!(keeping.todo.front(), Some(Step::Round { .. })) && keeping.next_round > now {
            keeping.todo = VecDeque::from([Step::Round { due: false }]);
            self.keep_at(node, now);
        }
    }

    /// The keeper of a node does the next thing, and things that take no time.
    pub(crate) fn keep(&mut self, node: usize, turn: u64) {
        if self.nodes[node]
            .keeping
            .as_ref()
            .is_none_or(|keeping| keeping.turn != turn)
        {
            return;
        }
        if self.nodes[node].pause.is_some() {
            return self.keep_at(node, self.now + PAUSE_MS);
        }
        let step = self.keeping(node).todo.pop_front();
        let wait = match step {
            None => unreachable!("a round comes at last"),
            Some(step) => self.step(node, step),
        };
        self.keep_at(node, self.now + wait);
    }

    /// Whether a question is answered.
    fn is_answered(&mut self, node: usize) -> bool {
        let engine = self.engine_of(node);
        let fails = self.trouble && self.rng.random_bool(self.scenario.store_failures);
        !self.engines[engine].down && !fails
    }

    fn read(&mut self, node: usize, section: Section) -> Held {
        let engine = self.engine_of(node);
        self.engines[engine].read(section, &mut self.rng)
    }

    fn todo(&mut self, node: usize, step: Step) {
        self.keeping(node).todo.push_back(step);
    }

    fn todo_first(&mut self, node: usize, step: Step) {
        self.keeping(node).todo.push_front(step);
    }

    /// Does something; how long to wait before the next.
    fn step(&mut self, node: usize, step: Step) -> Millis {
        match step {
            Step::Open => return self.open(node),
            Step::Load(from) => return self.load(node, from),
            Step::TakeOver(from) => self.take_over(node, from),
            Step::Opened => self.opened(node),
            Step::Round { due } => return self.round(node, due),
            Step::Gather => self.gather(node),
            Step::Renew => self.renew(node),
            Step::Complete { due } => self.complete(node, due),
            Step::Do { op, why, began: None } => {
                let engine = self.engine_of(node);
                self.engines[engine].begin(node, op.clone());
                let began = Some(self.now);
                let at_once = if matches!(why, Why::Audit(_)) {
                    AUDITS_AT_ONCE
                } else {
                    1
                };
                self.todo_first(node, Step::Do { op, why, began });
                return self.op_ms() / at_once;
            }
            Step::Do {
                op,
                why,
                began: Some(began),
            } => return self.done(node, op, why, began),
            Step::Audit { partition } => return self.audit(node, partition),
            Step::Compare {
                partition,
                held,
                present,
            } => self.compare(node, partition, held, present),
            Step::Compared { partition, present } => {
                if let Some(state) = self.keeping(node).keeper.compared(partition, present) {
                    self.write_first(node, vec![state], Why::Audit(vec![partition]));
                }
            }
        }
        0
    }

    fn write_first(&mut self, node: usize, batches: Vec<Batch>, why: Why) {
        let op = Op::Write(batches);
        self.todo_first(node, Step::Do { op, why, began: None });
    }

    // --- opening

    fn open(&mut self, node: usize) -> Millis {
        if !self.is_answered(node) {
            return self.is_missing(node);
        }
        let known = self.read(node, Section::HEAD);
        let since = known.get(LINEAGE).and_then(|value| value.get(STAMP_BYTES..));
        let since = since
            .and_then(|since| since.try_into().ok())
            .map(u64::from_be_bytes)
            .map(Time);
        let is_shared = self.engines.len() == 1;
        let keeping = self.keeping(node);
        keeping.keeper.opened(is_shared);
        keeping.state_since = since;
        let begun = keeping.begun;
        let step = match (begun, since) {
            (false, Some(_)) => Step::Load(0),
            (false, None) => Step::Opened,
            (true, _) => {
                self.look_around(node);
                Step::TakeOver(0)
            }
        };
        let takes_over = matches!(step, Step::TakeOver(_));
        self.todo(node, step);
        if takes_over && since.is_none() {
            let written = self.stamp(node);
            self.keeping(node).state_since = Some(written.time);
            self.write_first(node, vec![head(written.time, written)], Why::Head);
        }
        self.op_ms()
    }

    /// The store cannot be read: the cache begins with nothing, and goes on trying.
    fn is_missing(&mut self, node: usize) -> Millis {
        let wall = self.clock(node).wall;
        if !self.keeping(node).begun {
            self.tell(|| format!("node {node} cannot read its store"));
            // What was read of it is nobody's state.
            for partition in Partition::all() {
                let cache = &self.nodes[node].cache;
                cache.forget(Span::of(partition), Time(u64::MAX), |_| true, wall);
            }
            self.nodes[node].cache.track_changes(NOTED_CHANGES);
            self.begin(node, Start::Empty);
        }
        self.keeping(node).todo = VecDeque::from([Step::Open]);
        self.rng.random_range(PAUSE_MS..=5_000)
    }

    fn load(&mut self, node: usize, from: u16) -> Millis {
        if !self.is_answered(node) {
            return self.is_missing(node);
        }
        let wall = self.clock(node).wall;
        if from == 0 {
            self.keeping(node).loaded = Loaded::default();
        }
        let mut loaded = std::mem::take(&mut self.keeping(node).loaded);
        let end = from + SECTIONS_AT_ONCE;
        for partition in (from..end).map(Partition) {
            let mut seen = LoadedSection::default();
            for (id, value) in self.read(node, Section::of(partition)) {
                let record = Record { id: &id, value: &value };
                if seen.shows(record) {
                    let delta = record.delta().expect("written by a node");
                    let cache = &self.nodes[node].cache;
                    cache.apply(&delta, wall).expect("clocks are good enough");
                }
            }
            loaded.has(&self.nodes[node].cache, partition, seen);
        }
        self.keeping(node).loaded = loaded;
        let step = match Section::numbered(end).and_then(Section::partition) {
            Some(_) => Step::Load(end),
            None => Step::Opened,
        };
        self.todo(node, step);
        self.op_ms()
    }

    fn take_over(&mut self, node: usize, from: u16) {
        for partition in (from..from + SECTIONS_AT_ONCE).map(Partition) {
            self.todo(node, Step::Audit { partition });
        }
        let step = match Section::numbered(from + SECTIONS_AT_ONCE).and_then(Section::partition) {
            Some(partition) => Step::TakeOver(partition.0),
            None => Step::Opened,
        };
        self.todo(node, step);
    }

    fn opened(&mut self, node: usize) {
        let (now, wall) = (self.now, self.clock(node).wall);
        let written = self.stamp(node);
        let keeping = self.keeping(node);
        let since = keeping.state_since.unwrap_or(written.time);
        if keeping.begun {
            keeping.keeper.is_complete(now);
        } else {
            let mut start = Start::Empty;
            if keeping.state_since.is_some() {
                let loaded = std::mem::take(&mut keeping.loaded);
                keeping.keeper.loaded(&loaded, wall);
                if let Some(contact) = loaded.contact() {
                    start = Start::Loaded(lineage(since, contact));
                }
            }
            keeping.keeper.begins(now);
            self.nodes[node].cache.track_changes(NOTED_CHANGES);
            self.tell(|| format!("node {node} has read its store: {start:?}"));
            self.begin(node, start);
        }
        self.write_first(node, vec![head(since, written)], Why::Open);
    }

    /// The cache is in service.
    fn begin(&mut self, node: usize, start: Start) {
        self.keeping(node).begun = true;
        let config = replica_config(&self.scenario, self.nodes[node].life);
        let it = &mut self.nodes[node];
        it.replica = Replica::new(it.cache.clone(), config, start);
        if start != Start::Empty {
            it.returned = Some(self.now);
            self.outcome.loaded += 1;
        }
        self.goes_into_service(node);
    }

    // --- rounds

    /// Who is there now.
    fn look_around(&mut self, node: usize) {
        let now = self.clock(node);
        let it = &self.nodes[node];
        let status = it.replica.status(now);
        let sharing = |store: u64| store == it.cache.shared_store();
        let peers = status.peers.iter().filter(|peer| peer.synced && sharing(peer.store));
        let peers = peers.map(|peer| peer.node);
        let synced = match status.sync {
            SyncState::Synced | SyncState::Alone | SyncState::Disconnected => {
                std::iter::once(it.cache.node()).chain(peers).collect()
            }
            _ => Vec::new(),
        };
        let lineage = Some(it.replica.lineage());
        let keeping = self.keeping(node);
        (keeping.synced, keeping.lineage) = (synced, lineage);
    }

    fn stamp(&self, node: usize) -> Stamp {
        let (cache, wall) = (&self.nodes[node].cache, self.clock(node).wall);
        Stamp {
            time: Time::from_millis(cache.clock().now(wall)),
            node: cache.node(),
        }
    }

    fn present(&mut self, node: usize) -> Present {
        let written = self.stamp(node);
        let lineage = self.keeping(node).lineage;
        Present {
            written,
            contact: lineage.map_or(written.time, |lineage| lineage.last_contact),
            state_since: lineage.map_or(Time(0), |lineage| lineage.state_since),
        }
    }

    /// Writes what has changed, and of what clients wait for whoever else may write it.
    fn round(&mut self, node: usize, due: bool) -> Millis {
        let (now, flush_ms) = (self.now, self.scenario.flush_ms);
        if due && now < self.keeping(node).next_round {
            let next_round = self.keeping(node).next_round;
            self.todo(node, Step::Round { due });
            return next_round - now;
        }
        let cache = self.nodes[node].cache.clone();
        let mut partitions = std::mem::take(&mut self.keeping(node).waiting);
        if due {
            self.look_around(node);
            let keeping = self.keeping(node);
            keeping.next_round = now + flush_ms;
            keeping.keeper.choose(&keeping.synced, now);
            partitions.extend(keeping.keeper.changed());
        }
        partitions.retain(|partition| cache.has_changes(*partition));
        partitions.sort_unstable();
        partitions.dedup();
        self.keeping(node).partitions = partitions.into();
        self.todo(node, Step::Gather);
        if due {
            self.todo(node, Step::Renew);
        }
        self.todo(node, Step::Complete { due });
        0
    }

    /// What sections owe, and now and then how far all of them go.
    fn renew(&mut self, node: usize) {
        let now = self.now;
        let present = self.present(node);
        let keeping = self.keeping(node);
        let is_old = keeping.keeper.is_old(now);
        let mut batches = keeping.keeper.renew(present, now, false);
        let joined = keeping.lineage.filter(|lineage| is_old && lineage.joined_at != Time(0));
        batches.extend(joined.map(|lineage| head(lineage.state_since, present.written)));
        if !batches.is_empty() {
            self.write_first(node, batches, Why::Renew);
        }
    }

    fn gather(&mut self, node: usize) {
        let present = self.present(node);
        let (now, most) = (self.now, self.scenario.round_bytes);
        let cache = self.nodes[node].cache.clone();
        let keeping = self.keeping(node);
        if keeping.partitions.is_empty() {
            return;
        }
        let all: Vec<Partition> = keeping.partitions.drain(..).collect();
        let mut partitions = all.iter().copied().peekable();
        let batches = keeping.keeper.gather(&mut partitions, present, now, most, || {});
        keeping.partitions = partitions.collect();
        // Those of which everything is on its way with this.
        let whole = all.into_iter().filter(|partition| !cache.has_changes(*partition));
        let covered = self.nodes[node].covers(whole);
        self.todo_first(node, Step::Gather);
        self.write_first(node, batches, Why::Flush(covered));
    }

    fn complete(&mut self, node: usize, due: bool) {
        let now = self.now;
        let present = self.present(node);
        let is_shared = self.engines.len() == 1;
        let keeping = self.keeping(node);
        if due {
            keeping.keeper.is_complete(now);
            let doubted = keeping.keeper.doubted(now);
            if is_shared {
                let audit = |partition| Step::Audit { partition };
                keeping.todo.extend(doubted.into_iter().map(audit));
            } else if !doubted.is_empty() {
                let whole = |partition: &Partition| keeping.keeper.whole(*partition, present);
                let op = Op::Replace(doubted.iter().map(whole).collect());
                let why = Why::Audit(doubted);
                keeping.todo.push_back(Step::Do { op, why, began: None });
            }
        }
        self.next_round(node);
    }

    fn next_round(&mut self, node: usize) {
        let keeping = self.keeping(node);
        let due = keeping.waiting.is_empty();
        keeping.todo.push_back(Step::Round { due });
    }

    /// An operation has come to its end.
    fn done(&mut self, node: usize, op: Op, why: Why, began: Millis) -> Millis {
        let engine = self.engine_of(node);
        let succeeds = self.is_answered(node);
        if self.engines[engine].end(node, succeeds, &mut self.rng) {
            match why {
                Why::Flush(covered) => self.are_stored(node, covered),
                Why::Open if !self.keeping(node).ready => {
                    self.keeping(node).ready = true;
                    if self.engines.len() == 1 {
                        self.nodes[node].cache.set_shared_store(SHARED);
                    }
                    self.next_round(node);
                }
                _ => {}
            }
            return 0;
        }
        self.outcome.store_errors += 1;
        match why {
            Why::Head | Why::Open => return self.is_missing(node),
            Why::Flush(_) | Why::Renew if self.now - began < KEPT_MS => {
                // Under way again, and its time goes on.
                self.engines[engine].begin(node, op.clone());
                self.todo_first(
                    node,
                    Step::Do {
                        op,
                        why,
                        began: Some(began),
                    },
                );
                return self.rng.random_range(PAUSE_MS..=1_000);
            }
            Why::Flush(_) => {
                if let Op::Write(batches) = &op {
                    self.keeping(node).keeper.not_written(batches);
                }
                // The round has failed, and is not complete.
                self.keeping(node).todo.clear();
                self.next_round(node);
            }
            Why::Renew => self.keeping(node).keeper.not_renewed(),
            Why::Audit(partitions) => self.not_audited(node, &partitions),
        }
        self.rng.random_range(0..=PAUSE_MS)
    }

    // --- audits

    fn audit(&mut self, node: usize, partition: Partition) -> Millis {
        let present = self.present(node);
        if !self.is_answered(node) {
            self.not_audited(node, &[partition]);
            return self.rng.random_range(0..=PAUSE_MS);
        }
        let held = self.read(node, Section::of(partition));
        self.todo_first(
            node,
            Step::Compare {
                partition,
                held,
                present,
            },
        );
        self.op_ms() / AUDITS_AT_ONCE
    }

    fn compare(&mut self, node: usize, partition: Partition, held: Held, present: Present) {
        let wall = self.clock(node).wall;
        let said = held
            .get(&[][..])
            .and_then(|value| SectionState::of(Record { id: &[], value }));
        let contact = said.map_or(Time(0), |state| state.contact);
        // It was out of reach for longer than deletions are remembered, in a state that goes back further. Or each node
        // takes such a store of its own, where one may have forgotten what another has never heard of.
        let goes_back = present.state_since <= contact || self.engines.len() > 1;
        self.gave_up |= contact < self.nodes[node].cache.floor() && goes_back;
        let outcome = self.keeping(node).keeper.compare(partition, held, present, false, wall);
        assert_eq!(outcome.unreadable, 0, "records of a node");
        let removed = outcome.elements.len() + outcome.resets.len();
        if removed + outcome.merged > 0 {
            let merged = outcome.merged;
            self.tell(|| {
                let numbers = format!("takes {merged} and removes {removed}");
                format!(
                    "node {node} {numbers} records of partition {} of its store",
                    partition.0
                )
            });
        }
        self.outcome.audits += 1;
        self.todo_first(node, Step::Compared { partition, present });
        let why = || Why::Audit(vec![partition]);
        // Resets go last: they may have covered elements.
        for batch in [outcome.resets, outcome.elements] {
            if !batch.is_empty() {
                let op = Op::Remove(batch);
                self.todo_first(
                    node,
                    Step::Do {
                        op,
                        why: why(),
                        began: None,
                    },
                );
            }
        }
        if !outcome.write.is_empty() {
            self.write_first(node, vec![outcome.write], why());
        }
    }

    /// An audit has failed. What else was to be compared now waits as well; a store that is being opened is tried again.
    fn not_audited(&mut self, node: usize, partitions: &[Partition]) {
        self.outcome.store_errors += 1;
        let keeping = self.keeping(node);
        if !keeping.ready {
            keeping.todo = VecDeque::from([Step::Open]);
            return;
        }
        let left = keeping.todo.iter().filter_map(|step| match step {
            Step::Audit { partition, .. } => Some(*partition),
            _ => None,
        });
        let left: Vec<Partition> = partitions.iter().copied().chain(left).collect();
        left.into_iter()
            .for_each(|partition| keeping.keeper.not_compared(partition));
        keeping.todo.clear();
        self.next_round(node);
    }

    /// A process ends without a word: what its store was about to write is written in part.
    pub(crate) fn abandon_store(&mut self, node: usize) {
        let engine = self.engine_of(node);
        self.engines[engine].loses(node, &mut self.rng);
    }

    /// Whether all that nodes hold is in their stores.
    pub(crate) fn all_is_stored(&self) -> bool {
        self.living().all(|place| {
            let it = &self.nodes[place];
            let Some(keeping) = &it.keeping else { return true };
            let idle = matches!(keeping.todo.front(), Some(Step::Round { .. }));
            keeping.ready && idle && keeping.keeper.changed().next().is_none() && keeping.keeper.owing() == 0
        })
    }

    /// Whether stores are in use everywhere.
    pub(crate) fn all_stores_are_ready(&self) -> bool {
        let ready = |place: usize| self.nodes[place].keeping.as_ref().is_none_or(|keeping| keeping.ready);
        self.living().all(ready)
    }
}

/// What a state begins with that was complete up to `contact`, as the head of the node has it (`Head::lineage`).
fn lineage(state_since: Time, contact: Time) -> Lineage {
    Lineage {
        state_since: state_since.min(contact),
        joined_at: contact.max(Time(1)),
        last_contact: contact,
        taken_since: None,
    }
}

/// The head.
fn head(state_since: Time, at: Stamp) -> Batch {
    let mut batch = Batch::new(Section::HEAD);
    let value = [at.time.0, at.node.0, state_since.0].map(u64::to_be_bytes).concat();
    batch.push(Record {
        id: LINEAGE,
        value: &value,
    });
    batch
}
