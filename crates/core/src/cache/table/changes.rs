//! What has changed in a partition since somebody took note of it last, for those who write it elsewhere.
//!
//! It costs a bit in the pointer to each entry ([`super::entry`]) and a bounded log. A key with few components is noted
//! whole: its bit is set, and the log says where it lies. Of a list or set with many elements the log names those that
//! have changed. Where the log is full, keys are noted by their bits alone, and are found by a walk of the partition.

use super::entry::Entry;
use crate::cache::blob::Blob;
use crate::cache::delta::Slot;
use crate::cache::horizon::Horizon;
use crate::cache::stamp::Stamp;

/// A list or set with more elements than this is not noted whole.
const MANY: usize = 32;

/// Bytes of members for each entry of a log, on average. A log with longer ones is full sooner.
const MEMBER_BYTES: usize = 64;

/// A change of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    /// Hash of the key under the secret of the tables.
    pub place: u64,
    /// The element that has changed; `None` for the whole key.
    pub element: Option<Element>,
}

/// An element of a collection, by what it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Element {
    /// An item of a list.
    Item(Stamp),
    /// A member of a set.
    Member(Blob),
}

impl Element {
    /// `None` where only the whole key will do.
    pub fn of(slot: Slot<'_>) -> Option<Self> {
        match slot {
            Slot::Reset | Slot::Add(..) => None,
            Slot::Item(id) => Some(Element::Item(id)),
            Slot::Member(member) => Some(Element::Member(Blob::new(member))),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Element::Item(_) => 0,
            Element::Member(member) => member.len(),
        }
    }

    pub fn slot(&self) -> Slot<'_> {
        match self {
            Element::Item(id) => Slot::Item(*id),
            Element::Member(member) => Slot::Member(member),
        }
    }
}

/// What has changed in a partition.
#[derive(Debug, Default)]
pub(in crate::cache) struct Changes {
    /// Entries of the log at most; 0 while nobody wants to know.
    limit: usize,
    log: Vec<Change>,
    /// Bytes of the members in it, which anybody may make long.
    member_bytes: usize,
    /// Keys are noted that are not in the log.
    pub overflowed: bool,
    /// Components are gone without a mark: forgotten, or covered by a reset.
    pub vanished: bool,
}

impl Changes {
    pub const fn new() -> Self {
        Changes {
            limit: 0,
            log: Vec::new(),
            member_bytes: 0,
            overflowed: false,
            vanished: false,
        }
    }

    /// From now on changes are noted, so many of them one by one.
    pub fn track(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub fn are_tracked(&self) -> bool {
        self.limit > 0
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty() && !self.overflowed
    }

    /// How many changes are noted, at least.
    pub fn len(&self) -> usize {
        self.log.len() + usize::from(self.overflowed)
    }

    /// All that it holds may have changed: each key is written that a walk is shown as changed.
    pub fn overflow(&mut self) {
        self.overflowed = true;
    }

    /// Takes note of a change of `entry`, which lies at `place`, by a change of `slot`. `before` and `after` are its
    /// horizons.
    pub(super) fn note(&mut self, entry: &mut Entry, place: u64, (before, after): (Horizon, Horizon), slot: Slot<'_>) {
        if entry.is_changed() {
            return;
        }
        // A horizon that has moved is a change of the reset as well, beside that of the element.
        let alone = entry.elements() > MANY && before == after && !self.overflowed;
        let element = Some(slot).filter(|_| alone).and_then(Element::of);
        let whole = element.is_none();
        let change = Change { place, element };
        if whole || self.log.last() != Some(&change) {
            let noted = self.log(change);
            entry.set_changed(whole || !noted);
        }
    }

    /// Adds to the log; returns whether it had room.
    fn log(&mut self, change: Change) -> bool {
        let bytes = self.member_bytes + change.element.as_ref().map_or(0, Element::bytes);
        let room = self.log.len() < self.limit && bytes <= self.limit * MEMBER_BYTES && !self.overflowed;
        if room {
            self.member_bytes = bytes;
            self.log.push(change);
        } else {
            self.overflowed = true;
        }
        room
    }

    /// Takes the newest changes out of the log, `most` at most.
    pub(super) fn take(&mut self, most: usize) -> Vec<Change> {
        if self.log.len() <= most {
            // Its memory is given back: a log that was full once may never be again.
            self.member_bytes = 0;
            return std::mem::take(&mut self.log);
        }
        self.log.split_off(self.log.len() - most)
    }
}
