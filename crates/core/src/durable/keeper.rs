//! The rules by which a store is written: which sections, what they say of themselves, and which are compared.

use std::iter::Peekable;
use std::sync::Arc;

use super::batch::Batch;
use super::loaded::Loaded;
use super::owners::owns;
use super::reconcile::{reconcile, Held, Reconciliation, Trust};
use super::record::Record;
use super::section::Section;
use super::section_state::SectionState;
use super::sections::Sections;
use crate::cache::{Cache, Digest, Millis, NodeId, Partition, Stamp, Time};

/// What a section says of itself is renewed after this part of the time for which deletions are remembered.
const CONTACT_STEPS: Millis = 24;

/// Sections that are compared, or written anew, between two rounds when there is reason to.
const AUDITS_AT_ONCE: usize = 4;

/// The time between two audits without a reason: all 1,024 sections in a quarter of an hour.
const AUDIT_MS: Millis = 1_000;

/// Where a section changes all the time it says so often what it holds, in milliseconds: an engine is not to write twice
/// as much for it.
const SAYS_MS: Millis = 1_000;

/// What a section that is written now may say of itself. To be made before the changes are taken that are written with
/// it: what was deleted up to `contact` has to be among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present {
    /// When and by whom it is written.
    pub written: Stamp,
    /// Up to when deletions are known here.
    pub contact: Time,
    /// Since when the state of the cache exists; zero where that is not known.
    pub state_since: Time,
}

/// What the writer of a store knows. It neither reads clocks nor knows engines: who drives it passes the time in, in
/// milliseconds of a clock that never goes back, and writes what it is given.
///
/// The caller's part: to write batches of [`Keeper::gather`] and [`Keeper::renew`] until they are written or to say
/// [`Keeper::not_written`], those with [what sections say of themselves](Batch::is_state) no sooner than all others; and to make a section equal in the order of [`Reconciliation`] before it asks for
/// [`Keeper::compared`].
#[derive(Debug)]
pub struct Keeper {
    cache: Arc<Cache>,
    sections: Sections,
    owned: Vec<bool>,
    /// Who was synced when they were chosen.
    synced: Vec<NodeId>,
    /// All nodes write to the same store.
    is_shared: bool,
    /// The cache holds what the store held when it was opened, and nobody has written there since.
    has_loaded: bool,
    /// When the next section is compared in turn.
    audit_due: Millis,
    /// When sections say again how far they go.
    contact_due: Millis,
    /// When the last round ended in which all was written that had to be.
    complete_at: Millis,
}

impl Keeper {
    /// One that writes nothing before [`Keeper::choose`].
    pub fn new(cache: Arc<Cache>) -> Self {
        Keeper {
            cache,
            sections: Sections::default(),
            owned: Partition::all().map(|_| false).collect(),
            synced: Vec::new(),
            is_shared: false,
            has_loaded: false,
            audit_due: 0,
            contact_due: 0,
            complete_at: 0,
        }
    }

    // --- opening

    /// The store is there. `is_shared`: all nodes use the same one.
    pub fn opened(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// All that the store held was merged into the cache, which held nothing. `wall` is the wall clock.
    pub fn loaded(&mut self, loaded: &Loaded, wall: Millis) {
        self.cache.loaded(loaded.floor(), wall);
        for (partition, state) in &loaded.states {
            self.sections.read(*partition, state.map(|state| state.contact));
        }
        loaded
            .differ
            .iter()
            .for_each(|partition| self.sections.was_out_of_reach(*partition));
    }

    /// The cache begins with what the store holds.
    pub fn begins(&mut self, now: Millis) {
        self.has_loaded = true;
        self.complete_at = now;
    }

    /// All that had to be written is written.
    pub fn is_complete(&mut self, now: Millis) {
        self.complete_at = now;
    }

    // --- rounds

    /// A round begins. Chooses the partitions that this node writes, given who is synced.
    pub fn choose(&mut self, synced: &[NodeId], now: Millis) {
        if self.synced != synced || !self.is_shared {
            self.choose_among(synced);
            self.synced = synced.to_vec();
        }
        self.doubt_what_was_out_of_reach(now);
    }

    fn choose_among(&mut self, synced: &[NodeId]) {
        let node = self.cache.node();
        let loaded_alone = self.has_loaded && synced.len() == 1;
        let mut any = false;
        for partition in Partition::all() {
            let owned = !self.is_shared || synced.contains(&node) && owns(node, synced, partition);
            let before = std::mem::replace(&mut self.owned[usize::from(partition.0)], owned);
            any |= owned;
            if owned && !before && self.is_shared && !loaded_alone {
                self.sections.taken_over(partition);
            }
        }
        self.has_loaded &= !any;
    }

    /// Deletions that were made after the last round in which all was written may be forgotten by now, without ever having
    /// been in the store.
    fn doubt_what_was_out_of_reach(&mut self, now: Millis) {
        let ttl = self.cache.limits().tombstone_ttl_ms;
        if now.saturating_sub(self.complete_at) > ttl / 2 {
            let owned = Partition::all().filter(|partition| self.owned[usize::from(partition.0)]);
            owned.for_each(|partition| self.sections.was_out_of_reach(partition));
            self.complete_at = now;
        }
    }

    /// Whether this node writes a partition, as of the last round.
    pub fn owns(&self, partition: Partition) -> bool {
        self.owned[usize::from(partition.0)]
    }

    /// The partitions that this node writes and that have changed.
    pub fn changed(&self) -> impl Iterator<Item = Partition> + '_ {
        Partition::all().filter(|partition| self.owns(*partition) && self.cache.has_changes(*partition))
    }

    /// Takes what has changed of the next partitions, until that has about `most` bytes. `taken` is told of each record
    /// before it counts as changed no more. With its first records a section says what it holds, in a batch of its own;
    /// later that may come with [`Keeper::renew`].
    pub fn gather(
        &mut self,
        partitions: &mut Peekable<impl Iterator<Item = Partition>>,
        present: Present,
        now: Millis,
        most: usize,
        mut taken: impl FnMut(),
    ) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        while let Some(&partition) = partitions.peek() {
            let mut batch = Batch::new(Section::of(partition));
            let changes = self.cache.take_changes(partition, |delta| {
                taken();
                batch.push_delta(&delta);
                bytes + batch.as_bytes().len() >= most
            });
            self.sections.writes(partition, changes.vanished);
            bytes += batch.as_bytes().len();
            batches.push(batch);
            // Without a digest the rest of it comes with the next batches.
            if let Some(digest) = changes.digest {
                partitions.next();
                if self.sections.has_to_say(partition, now, self.says_ms()) {
                    batches.extend(self.state(partition, present, digest));
                }
            }
            if bytes >= most {
                break;
            }
        }
        batches
    }

    /// Batches are given up: what they held has changed still.
    pub fn not_written(&mut self, batches: &[Batch]) {
        let of = |batch: &Batch| Some((batch.section().partition()?, batch.is_state()));
        let partitions: Vec<_> = batches.iter().filter_map(of).collect();
        for (partition, is_state) in partitions {
            self.sections.has_not_said(partition);
            if !is_state {
                self.cache.note_all_as_changed(partition);
            }
        }
    }

    /// Whether all sections have to say again how far they go.
    pub fn is_old(&self, now: Millis) -> bool {
        now >= self.contact_due
    }

    fn says_ms(&self) -> Millis {
        SAYS_MS.min(self.cache.limits().tombstone_ttl_ms / CONTACT_STEPS)
    }

    /// How many sections hold what they have not said yet.
    pub fn owing(&self) -> usize {
        let owing = |partition: &Partition| self.owns(*partition) && self.sections.owes(*partition);
        Partition::all().filter(owing).count()
    }

    /// What sections say of themselves, where nothing has changed meanwhile: those that owe it for long enough, or at all
    /// if this is the `last` time; and all if they are [old](Keeper::is_old), for deletions up to now are known here.
    pub fn renew(&mut self, present: Present, now: Millis, last: bool) -> Vec<Batch> {
        let all = self.is_old(now);
        if all {
            self.contact_due = now + self.cache.limits().tombstone_ttl_ms / CONTACT_STEPS;
        }
        let interval = if last { 0 } else { self.says_ms() };
        let mut batches = Vec::new();
        for partition in Partition::all() {
            let is_owed = all || self.sections.is_owed(partition, now, interval);
            if is_owed && self.owns(partition) && !self.cache.has_changes(partition) {
                self.sections.has_said(partition, now);
                batches.extend(self.state(partition, present, self.cache.digest(partition)));
            }
        }
        batches
    }

    /// It was not written, and is due again.
    pub fn not_renewed(&mut self) {
        self.contact_due = 0;
        Partition::all().for_each(|partition| self.sections.has_not_said(partition));
    }

    /// What a section says of itself, as far as it may.
    fn state(&mut self, partition: Partition, present: Present, digest: Digest) -> Option<Batch> {
        let contact = self.sections.says(partition, present.contact)?;
        let state = SectionState {
            written: present.written,
            contact,
            floor: self.cache.floor(),
            digest,
        };
        let mut batch = Batch::new(Section::of(partition));
        batch.push(Record {
            id: b"",
            value: &state.to_bytes(),
        });
        Some(batch)
    }

    // --- audits

    /// Sections that have to be compared now: a few of those that cannot wait, and one of the others each second.
    pub fn doubted(&mut self, now: Millis) -> Vec<Partition> {
        let mut partitions: Vec<Partition> = (0..AUDITS_AT_ONCE).map_while(|_| self.sections.next_urgent()).collect();
        if now >= self.audit_due {
            self.audit_due = now + AUDIT_MS;
            partitions.extend(self.sections.next_doubted());
            // What one node alone writes is as it was written.
            if self.is_shared {
                partitions.push(self.sections.next_in_turn());
            }
        }
        partitions.retain(|partition| self.owns(*partition));
        partitions
    }

    /// All that the cache holds of a partition, which is all that its section is to hold: for stores of one node.
    pub fn whole(&mut self, partition: Partition, present: Present) -> Batch {
        let mut batch = Batch::new(Section::of(partition));
        let digest = self.cache.digest(partition);
        self.cache.deltas(partition, |delta| batch.push_delta(&delta));
        self.sections.compared(partition);
        let state = self.state(partition, present, digest);
        state.iter().flat_map(Batch::iter).for_each(|record| batch.push(record));
        batch
    }

    /// Compares a section, of which these are all records, with the cache. `trusted` says that there is nobody who would
    /// know better than the store. Nor is there where the state of the cache began after the section was in contact: what
    /// it lacks was not deleted and forgotten in it. So a cache that began with nothing, as the store could not be read,
    /// takes all of it however long that was.
    pub fn compare(
        &self,
        partition: Partition,
        mut held: Held,
        present: Present,
        trusted: bool,
        wall: Millis,
    ) -> Reconciliation {
        let state = held.remove(&[][..]);
        let state = state.and_then(|value| SectionState::of(Record { id: &[], value: &value }));
        let contact = state.map(|state| state.contact);
        // One that does not say how far it goes was in contact when it was written last, at most.
        let at_most = contact.or_else(|| {
            let stamps = held.iter().map(|(id, value)| Record { id, value }.stamp());
            stamps.max().map(|newest| newest.time)
        });
        let began_later = at_most.is_some_and(|contact| contact < present.state_since);
        let trust = match trusted || began_later {
            true => Trust::All,
            false => Trust::in_store_of(contact.unwrap_or_default(), self.cache.floor()),
        };
        reconcile(&self.cache, partition, held, trust, wall)
    }

    /// A section holds what the cache holds: what it says of itself from now on.
    pub fn compared(&mut self, partition: Partition, present: Present) -> Option<Batch> {
        self.sections.compared(partition);
        self.state(partition, present, self.cache.digest(partition))
    }

    /// A section could not be compared, or replaced.
    pub fn not_compared(&mut self, partition: Partition) {
        self.sections.was_out_of_reach(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Key, KeyHash, Limits};

    const DAY: Millis = 24 * 3_600_000;
    const START: Millis = 100 * DAY;

    fn cache(node: u64) -> Arc<Cache> {
        Arc::new(Cache::new(NodeId(node), Limits::default()))
    }

    fn present(cache: &Cache, state_since: Millis, now: Millis) -> Present {
        let time = Time::from_millis(now);
        Present {
            written: Stamp {
                time,
                node: cache.node(),
            },
            contact: time,
            state_since: Time::from_millis(state_since),
        }
    }

    /// The key, and its section as a node that was alone has left it at the start.
    fn stored() -> (Key, Partition, Held) {
        let author = cache(1);
        let mut keeper = Keeper::new(author.clone());
        author.track_changes(8);
        let key = Key::shared(b"key");
        author.set(&key, "value", 0, START).unwrap();
        keeper.choose(&[author.node()], 0);
        let mut partitions = keeper.changed().collect::<Vec<_>>().into_iter().peekable();
        let batches = keeper.gather(&mut partitions, present(&author, START, START), 0, usize::MAX, || {});
        let records = batches.iter().flat_map(Batch::iter);
        let records = records.map(|record| (record.id.into(), record.value.into()));
        (
            key.clone(),
            Partition::of(KeyHash::of(key.as_bytes())),
            records.collect(),
        )
    }

    #[test]
    fn what_a_section_says_of_itself_comes_after_its_records() {
        let (_, partition, held) = stored();
        assert_eq!(held.len(), 2);
        let author = cache(1);
        author.track_changes(8);
        author.set(&Key::shared(b"key"), "value", 0, START).unwrap();
        let mut keeper = Keeper::new(author.clone());
        let now = present(&author, START, START);
        let one = || vec![partition].into_iter().peekable();
        let mut taken = 0;
        let batches = keeper.gather(&mut one(), now, 0, usize::MAX, || taken += 1);
        let states: Vec<bool> = batches.iter().map(Batch::is_state).collect();
        assert_eq!((states, taken), (vec![false, true], 1));
        assert!(batches.iter().all(|batch| batch.len() == 1), "in a batch of its own");
        keeper.not_written(&batches);
        assert!(author.has_changes(partition), "to be written anew");
    }

    #[test]
    fn a_section_says_what_it_holds_with_its_first_records_and_then_once_a_second() {
        let author = cache(1);
        author.track_changes(8);
        let mut keeper = Keeper::new(author.clone());
        keeper.choose(&[author.node()], 0);
        let key = Key::shared(b"key");
        let partition = Partition::of(KeyHash::of(key.as_bytes()));
        let says = |batches: &[Batch]| batches.iter().any(Batch::is_state);
        let flush = |keeper: &mut Keeper, now: Millis| {
            author.set(&key, &*now.to_string(), 0, START + now).unwrap();
            let present = present(&author, START, START + now);
            keeper.gather(&mut [partition].into_iter().peekable(), present, now, usize::MAX, || {})
        };
        let renew =
            |keeper: &mut Keeper, now: Millis, last| keeper.renew(present(&author, START, START + now), now, last);
        renew(&mut keeper, 0, false);
        let lost = flush(&mut keeper, 10);
        assert!(!says(&lost), "all sections have just said so");

        // What was not written has not said anything either.
        keeper.not_written(&lost);
        assert!(
            says(&flush(&mut keeper, 20)),
            "without it nothing is known of the section"
        );
        for now in [120, 500, 1_019] {
            assert!(!says(&flush(&mut keeper, now)));
            assert_eq!((renew(&mut keeper, now, false).len(), keeper.owing()), (0, 1), "{now}");
        }
        assert!(says(&flush(&mut keeper, 1_020)));
        assert_eq!(keeper.owing(), 0);
        assert!(!says(&flush(&mut keeper, 1_120)));
        let owed = renew(&mut keeper, 2_020, false);
        let state = SectionState::of(owed[0].iter().next().unwrap()).unwrap();
        assert_eq!((owed.len(), keeper.owing()), (1, 0));
        assert_eq!(state.digest, author.digest(partition));

        // At a stop nothing is owed.
        flush(&mut keeper, 2_100);
        assert_eq!((renew(&mut keeper, 2_101, true).len(), keeper.owing()), (1, 0));
        assert!(renew(&mut keeper, 2_102, true).is_empty());

        // Where that alone was not written its records are not written again.
        let lost = flush(&mut keeper, 3_200);
        keeper.not_written(&lost[1..]);
        assert_eq!((author.has_changes(partition), keeper.owing()), (false, 1));
        assert_eq!(renew(&mut keeper, 3_201, false).len(), 1);
    }

    /// All processes were killed while the store was away, for longer than deletions are remembered.
    #[test]
    fn a_cache_that_began_with_nothing_takes_all_of_a_store_however_long_that_was_away() {
        let (key, partition, held) = stored();
        let now = START + 3 * DAY;
        for (state_since, says, is_taken) in [
            (now - DAY, true, true),
            (now - DAY, false, true),
            (START - DAY, true, false),
            (START - DAY, false, false),
            (0, true, false),
        ] {
            let late = cache(2);
            late.sweep(1_024, now);
            assert!(Time::from_millis(START) < late.floor());
            let mut held = held.clone();
            if !says {
                held.remove(&[][..]);
            }
            let keeper = Keeper::new(late.clone());
            let outcome = keeper.compare(partition, held, present(&late, state_since, now), false, now);
            let shown = late.get(&key, now).unwrap();
            assert_eq!(shown.is_some(), is_taken, "{state_since} {says}");
            assert_eq!(outcome.resets.is_empty(), is_taken);
        }
    }
}
