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

/// What a section that is written now may say of itself. To be made before the changes are taken that are written with
/// it: what was deleted up to `contact` has to be among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present {
    /// When and by whom it is written.
    pub written: Stamp,
    /// Up to when deletions are known here.
    pub contact: Time,
}

/// What the writer of a store knows. It neither reads clocks nor knows engines: who drives it passes the time in, in
/// milliseconds of a clock that never goes back, and writes what it is given.
///
/// The caller's part: to write batches of [`Keeper::gather`] and [`Keeper::renew`] until they are written or to say
/// [`Keeper::not_written`]; and to make a section equal in the order of [`Reconciliation`] before it asks for
/// [`Keeper::compared`].
#[derive(Debug)]
pub struct Keeper {
    cache: Arc<Cache>,
    sections: Sections,
    owned: Vec<bool>,
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
            .for_each(|partition| self.sections.doubt(*partition));
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
        self.doubt_what_was_out_of_reach(now);
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
    /// before it counts as changed no more.
    pub fn gather(
        &mut self,
        partitions: &mut Peekable<impl Iterator<Item = Partition>>,
        present: Present,
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
            if changes.vanished {
                self.sections.doubt(partition);
            }
            // Without a digest the rest of it comes with the next batches.
            if let Some(digest) = changes.digest {
                partitions.next();
                self.push_state(&mut batch, partition, present, digest);
            }
            bytes += batch.as_bytes().len();
            batches.push(batch);
            if bytes >= most {
                break;
            }
        }
        batches
    }

    /// Batches are given up: what they held has changed still.
    pub fn not_written(&self, batches: &[Batch]) {
        let partitions = batches.iter().filter_map(|batch| batch.section().partition());
        partitions.for_each(|partition| self.cache.note_all_as_changed(partition));
    }

    /// Whether sections have to say again how far they go.
    pub fn is_old(&self, now: Millis) -> bool {
        now >= self.contact_due
    }

    /// What sections say of themselves, though nothing has changed: deletions up to now are known here.
    pub fn renew(&mut self, present: Present, now: Millis) -> Vec<Batch> {
        self.contact_due = now + self.cache.limits().tombstone_ttl_ms / CONTACT_STEPS;
        let mut batches = Vec::new();
        for partition in Partition::all() {
            if self.owns(partition) && !self.cache.has_changes(partition) {
                let mut batch = Batch::new(Section::of(partition));
                self.push_state(&mut batch, partition, present, self.cache.digest(partition));
                batches.push(batch);
            }
        }
        batches.retain(|batch| !batch.is_empty());
        batches
    }

    /// It was not written, and is due again.
    pub fn not_renewed(&mut self) {
        self.contact_due = 0;
    }

    /// Adds what a section says of itself, as far as it may.
    fn push_state(&mut self, batch: &mut Batch, partition: Partition, present: Present, digest: Digest) {
        let Some(contact) = self.sections.says(partition, present.contact) else {
            return;
        };
        let state = SectionState {
            written: present.written,
            contact,
            floor: self.cache.floor(),
            digest,
        };
        let value = state.to_bytes();
        batch.push(Record { id: b"", value: &value });
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
        self.push_state(&mut batch, partition, present, digest);
        batch
    }

    /// Compares a section, of which these are all records, with the cache. `trusted` says that there is nobody who would
    /// know better than the store.
    pub fn compare(&self, partition: Partition, mut held: Held, trusted: bool, wall: Millis) -> Reconciliation {
        let state = held.remove(&[][..]);
        let state = state.and_then(|value| SectionState::of(Record { id: &[], value: &value }));
        let contact = state.map_or(Time(0), |state| state.contact);
        let trust = match trusted {
            true => Trust::All,
            false => Trust::in_store_of(contact, self.cache.floor()),
        };
        reconcile(&self.cache, partition, held, trust, wall)
    }

    /// A section holds what the cache holds: what it says of itself from now on.
    pub fn compared(&mut self, partition: Partition, present: Present) -> Batch {
        self.sections.compared(partition);
        let mut batch = Batch::new(Section::of(partition));
        self.push_state(&mut batch, partition, present, self.cache.digest(partition));
        batch
    }

    /// A section could not be compared, or replaced.
    pub fn not_compared(&mut self, partition: Partition) {
        self.sections.was_out_of_reach(partition);
    }
}
