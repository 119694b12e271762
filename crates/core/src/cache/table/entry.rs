//! A key with its state as it lies in memory.
//!
//! Nearly all keys are scalars that nobody counts on, or deletions: key, stamp, value and deadline then lie one after
//! the other in one allocation that a pointer of 8 bytes in the table points to. Anything more (counters, lists, sets)
//! is a [`KeyState`].
//!
//! Layout of the small form, integers in little endian and unaligned:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | flags, see below |
//! | 1 | 8 | time of the stamp |
//! | 9 | 1 or 2 | short name of its process ([`Nodes`]), 2 bytes with [`LONG_NAME`]; 0 where the process is written out |
//! | | 8 | with [`IN_FULL`]: the process |
//! | | 8 | with [`DEADLINE`]: milliseconds since the epoch |
//! | | 3 | with [`SECONDS`]: the deadline in seconds after the stamp |
//! | | 1 or 2 | length of the key; 2 bytes with [`LONG_KEY`] |
//! | | 1 or 4 | length of the value; 4 bytes with [`LONG_VALUE`] |
//! | | | the key, then the value; without [`VALUE`] 8 bytes of its content hash if it was given back |
//!
//! The allocator's size classes are 16 bytes apart: a key and a value of 16 bytes each fit into 48, with a deadline
//! too.
//!
//! What `unsafe` here relies on. All of it is kept by this file alone: nobody else sees the pointer of an [`Entry`].
//!
//! 1. *Owned.* An entry is the only one that points to its allocation. [`Packed::write`] and [`Entry::large`] make one
//!    for each entry, and `Drop` alone gives it back.
//! 2. *Told apart.* With the lowest bit the address is that of a `Box<Large>`, without it that of a small form. Both
//!    kinds of allocations are aligned to [`ALIGN`] at least, so that the bit is free. So are the upper 16, as
//!    [`owned`] has seen: they are [`NOTES`] of the table about the key, and masked wherever the address is meant.
//! 3. *Laid out.* A small form has [`Packed::size`] bytes, all of them written, as the table says. Its flags and
//!    lengths say what that size is, for as long as it lives: [`Entry::replace`] writes another one over it only if it
//!    has the same flags and size.
//! 4. *Borrowed.* What lies there is looked at through `&self` and changed through `&mut self`, and references to it
//!    live no longer than those. So what Rust checks of entries holds for it too. Through `&self` the pointer gets other
//!    [`READS`], and no other address.

use std::alloc::{self, Layout};
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::nodes::Nodes;
use super::prefetch::prefetch;
use crate::cache::blob::Blob;
use crate::cache::component::DELTA_BYTES;
use crate::cache::delta::{StateDelta, Value};
use crate::cache::hash::KeyHash;
use crate::cache::horizon::Horizon;
use crate::cache::memory::{allocated, Weight};
use crate::cache::reset::Reset;
use crate::cache::stamp::{Millis, NodeId, Stamp, Time};
use crate::cache::state::{KeyState, State};

/// Nothing of the reset itself is left.
const VOID: u8 = 1;
/// There is a value (it may be empty).
const VALUE: u8 = 2;
/// There is a deadline that is none of [`SECONDS`].
const DEADLINE: u8 = 4;
/// The process has no short name.
const IN_FULL: u8 = 8;
/// The length of the value takes 4 bytes.
const LONG_VALUE: u8 = 16;
/// The length of the key takes 2 bytes.
const LONG_KEY: u8 = 32;
/// The deadline is a number of whole seconds after the stamp, as writers give it, and fits into 3 bytes (194 days).
const SECONDS: u8 = 64;
/// The short name takes 2 bytes.
const LONG_NAME: u8 = 128;

/// Bytes of a small entry with a key and a value of about 16 bytes.
const USUAL_BYTES: usize = 48;

const TIME_AT: usize = 1;
const NAME_AT: usize = 9;

/// Addresses of allocations are multiples of this, which leaves the lowest bit to tell the two forms apart.
const ALIGN: usize = 2;
const LARGE: usize = 1;

/// Bits of a pointer that no address of a process has, on the machines that this runs on.
const NOTES: usize = 0xffff << 48;
/// The key has changed since somebody took note of it last: see [`super::changes`].
const CHANGED: usize = 1 << 63;
/// How often the key was read, of late: see [`Entry::count_read`].
const READS: usize = 7 << 48;
const ONE_READ: usize = 1 << 48;
/// Notes have room beside an address.
const _: () = assert!(usize::BITS == 64);

/// A key that needs more than the small form.
struct Large {
    key: Blob,
    state: KeyState,
}

/// A key with its state. Hashes and compares as its key does.
///
/// Atomic for the sake of the notes of readers alone ([`Entry::count_read`]): all else is changed through `&mut self`.
pub(in crate::cache) struct Entry(AtomicPtr<u8>);

/// An entry may be sent and shared, as an atomic pointer may: it owns what that points to (1), and through a shared
/// reference nothing but its notes is changed (4). Of what it points to, bytes may be sent and shared; and so may this.
const _: fn() = || {
    fn may_be_sent_and_shared<T: Send + Sync>() {}
    may_be_sent_and_shared::<Large>();
};

impl Entry {
    /// The state `change` makes of a key that was not there, and the change of the digest; `None` if that is nothing.
    pub fn made_by<B: AsRef<[u8]>>(
        nodes: &Nodes,
        key: &[u8],
        hash: KeyHash,
        change: &StateDelta<B>,
    ) -> Option<(Entry, u64)> {
        if let Some(reset) = Reset::of(change).filter(|reset| reset.seen.is_empty()) {
            let delta = reset.hash(hash);
            return (delta != 0).then(|| (Entry::small(nodes, key, &reset), delta));
        }
        let mut state = KeyState::new();
        let delta = state.apply(hash, change);
        (delta != 0).then(|| (Entry::of(nodes, key, state), delta))
    }

    /// Merges a change. Returns the change of the digest (wrapping); 0 if nothing changed.
    pub fn apply<B: AsRef<[u8]>>(&mut self, nodes: &Nodes, hash: KeyHash, change: &StateDelta<B>) -> u64 {
        // One reset replaces another whole: no need to take the old one apart.
        if let (None, Some(reset)) = (self.as_large(), Reset::of(change).filter(|reset| reset.seen.is_empty())) {
            let old = self.packed(nodes).reset;
            if reset.horizon < old.horizon || reset.horizon == old.horizon && reset.content() <= old.content() {
                return 0;
            }
            let delta = reset.hash(hash).wrapping_sub(old.hash(hash));
            self.replace(nodes, &reset);
            return delta;
        }
        self.change(nodes, |_, state| state.apply(hash, change))
    }

    /// Runs `change` on the state and brings what comes of it into its smallest form.
    pub fn change<T>(&mut self, nodes: &Nodes, change: impl FnOnce(&[u8], &mut KeyState) -> T) -> T {
        let notes = self.notes();
        if let Some(large) = self.as_large_mut() {
            let answer = change(&large.key, &mut large.state);
            if let Some(reset) = large.state.as_reset() {
                if let Some(small) = Packed::new(nodes, &large.key, &reset) {
                    *self = small.write().with_notes(notes);
                }
            }
            return answer;
        }
        let packed = self.packed(nodes);
        let mut state = KeyState::of_reset(&packed.reset);
        let answer = change(packed.key, &mut state);
        let unchanged = state.as_reset() == Some(packed.reset);
        if !unchanged {
            *self = Entry::of(nodes, packed.key, state).with_notes(notes);
        }
        answer
    }

    /// Asks the processor to fetch the memory of this entry, which somebody is about to look at: of what it points to
    /// as much as most take, which may be parts of two lines of the processor's cache.
    pub fn prefetch(&self) {
        let head = self.head();
        prefetch(head);
        prefetch(head.wrapping_add(USUAL_BYTES - 1));
    }

    /// Whether the key holds data, be it past its deadline.
    pub fn holds_data(&self) -> bool {
        match self.as_large() {
            Some(large) => large.state.holds_data(),
            // SAFETY: not large, so a small form (2), which begins with its flags (3).
            None => unsafe { *self.head() & VALUE != 0 },
        }
    }

    /// About how many components it has beside the newest reset.
    pub fn elements(&self) -> usize {
        self.as_large().map_or(0, |large| large.state.elements())
    }

    /// The length of the value, if it holds one and nothing beside it.
    pub fn value_length(&self) -> Option<usize> {
        // SAFETY: a small form, whose head says how long its value is (2, 3).
        let length = || unsafe { value_length(self.head()) };
        (self.is_small() && self.holds_data()).then(length)
    }

    /// Whether it is one component.
    pub fn is_small(&self) -> bool {
        self.large_pointer().is_none()
    }

    /// About how many bytes the deltas have that make up the state.
    pub fn written_bytes(&self) -> usize {
        match self.as_large() {
            Some(large) => {
                let mut bytes = 0;
                large
                    .state
                    .parts(|part| bytes += large.key.len() + part.written_bytes());
                bytes
            }
            // SAFETY: not large, so the head of a small form (2, 3).
            None => unsafe {
                let head = self.head();
                DELTA_BYTES + key_length(head) + value_length(head)
            },
        }
    }

    /// What it takes in memory.
    #[inline]
    pub fn weight(&self) -> Weight {
        let holds_data = self.holds_data();
        let (bytes, removed) = match self.as_large() {
            Some(Large { key, state }) => {
                let bytes = allocated(size_of::<Large>()) + key.heap_bytes() + state.heap_bytes();
                (bytes, state.deletion_bytes())
            }
            // SAFETY: not large, so the head of a small form (2, 3).
            None => (allocated(unsafe { small_size(self.head()) }), 0),
        };
        Weight {
            bytes,
            deletions: if holds_data { removed } else { bytes },
            holds_data,
        }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        match self.as_large() {
            Some(large) => &large.key,
            // SAFETY: not large, so a small form (2), in which the key lies where its flags and lengths say (3). The
            // slice lives as long as the borrow of the entry (4).
            None => unsafe {
                let head = self.head();
                slice::from_raw_parts(head.add(key_at(*head)), key_length(head))
            },
        }
    }

    /// The state.
    pub fn state(&self, nodes: &Nodes) -> State<'_> {
        match self.as_large() {
            Some(large) => State::Large(&large.state),
            None => State::Reset(self.packed(nodes).reset),
        }
    }

    fn of(nodes: &Nodes, key: &[u8], state: KeyState) -> Entry {
        if let Some(small) = state.as_reset().and_then(|reset| Packed::new(nodes, key, &reset)) {
            return small.write();
        }
        Entry::large(key, state)
    }

    fn small(nodes: &Nodes, key: &[u8], reset: &Reset<'_>) -> Entry {
        match Packed::new(nodes, key, reset) {
            Some(small) => small.write(),
            None => Entry::large(key, KeyState::of_reset(reset)),
        }
    }

    fn large(key: &[u8], state: KeyState) -> Entry {
        let key = Blob::new(key);
        let large = Box::into_raw(Box::new(Large { key, state }));
        let large = NonNull::new(large.cast::<u8>()).expect("a box is nowhere near null");
        Entry::at(owned(large).as_ptr().map_addr(|address| address | LARGE))
    }

    /// Puts another reset in place of the one of this small entry, in the same memory if it takes as much.
    fn replace(&mut self, nodes: &Nodes, reset: &Reset<'_>) {
        let (old, notes) = (self.packed(nodes), self.notes());
        let Some(new) = Packed::new(nodes, old.key, reset) else {
            *self = Entry::small(nodes, old.key, reset).with_notes(notes);
            return;
        };
        if new.size() == old.size() && new.flags == old.flags {
            // SAFETY: the bytes are those of this entry, which is borrowed exclusively (1, 4), and as many as the new
            // form has. With equal flags and sizes everything has its old place, and what they say of it stays true
            // (3). The key, which `new` borrows from here, is not written; the value is the caller's and lies
            // elsewhere.
            unsafe { new.write_fields(self.head()) };
        } else {
            *self = new.write().with_notes(notes);
        }
    }

    fn at(pointer: *mut u8) -> Entry {
        Entry(AtomicPtr::new(pointer))
    }

    #[inline]
    fn pointer(&self) -> *mut u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn address(&self) -> usize {
        self.pointer().addr()
    }

    fn note(&mut self, noted: impl FnOnce(usize) -> usize) {
        let pointer = self.0.get_mut();
        *pointer = pointer.map_addr(noted);
    }

    /// Where what it points to begins.
    fn head(&self) -> *mut u8 {
        self.pointer().map_addr(|address| address & !(LARGE | NOTES))
    }

    // --- notes

    fn notes(&self) -> usize {
        self.address() & NOTES
    }

    /// A new entry that takes the place of one of the same key, of which this was noted.
    fn with_notes(mut self, notes: usize) -> Self {
        self.note(|address| address | notes);
        self
    }

    /// Whether it was noted that the key has changed.
    pub fn is_changed(&self) -> bool {
        self.address() & CHANGED != 0
    }

    /// Takes note that the key has changed, or that somebody has seen the change.
    pub fn set_changed(&mut self, changed: bool) {
        let noted = if changed { CHANGED } else { 0 };
        self.note(|address| address & !CHANGED | noted);
    }

    /// How often it was read, of late: up to 7.
    #[inline]
    pub fn reads(&self) -> u8 {
        ((self.address() & READS) >> READS.trailing_zeros()) as u8
    }

    /// Counts a read, unless that many were counted already: what is read most is not written to with every read.
    /// Returns whether it was counted. Of two reads at once one may be lost.
    #[inline]
    pub fn count_read(&self) -> bool {
        let before = self.pointer();
        if before.addr() & READS == READS {
            return false;
        }
        let after = before.map_addr(|address| address + ONE_READ);
        let counted = self
            .0
            .compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
        counted.is_ok()
    }

    /// Half of the reads are forgotten. Reads that are counted meanwhile may be, too.
    pub fn halve_reads(&self) {
        let before = self.pointer();
        let halved = ((before.addr() & READS) / 2) & READS;
        let after = before.map_addr(|address| address & !READS | halved);
        let _ = self
            .0
            .compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn large_pointer(&self) -> Option<*mut Large> {
        let is_large = self.address() & LARGE != 0;
        is_large.then(|| self.head().cast())
    }

    fn as_large(&self) -> Option<&Large> {
        // SAFETY: a marked address is that of a box (2) that this entry owns (1); the reference borrows the entry (4).
        self.large_pointer().map(|large| unsafe { &*large })
    }

    fn as_large_mut(&mut self) -> Option<&mut Large> {
        // SAFETY: as above, and the entry is borrowed exclusively (4).
        self.large_pointer().map(|large| unsafe { &mut *large })
    }

    /// A small entry, taken apart.
    fn packed(&self, nodes: &Nodes) -> Packed<'_> {
        debug_assert!(self.as_large().is_none());
        // SAFETY: callers have seen that it is not large, so it is a small form (2), in which each of these lies where
        // its flags and lengths say (3). The slices live as long as the borrow of the entry (4).
        unsafe {
            let head = self.head();
            let flags = *head;
            let time = Time(head.add(TIME_AT).cast::<u64>().read_unaligned());
            let mut at = head.add(NAME_AT);
            let name = if flags & LONG_NAME != 0 {
                let name = at.cast::<u16>().read_unaligned();
                at = at.add(2);
                name
            } else {
                let name = u16::from(*at);
                at = at.add(1);
                name
            };
            let node = if flags & IN_FULL != 0 {
                let node = NodeId(at.cast::<u64>().read_unaligned());
                at = at.add(8);
                node
            } else {
                nodes.node(name)
            };
            let expires_at = if flags & DEADLINE != 0 {
                Some(at.cast::<u64>().read_unaligned())
            } else if flags & SECONDS != 0 {
                let [low, middle, high] = at.cast::<[u8; 3]>().read();
                let seconds = u32::from_le_bytes([low, middle, high, 0]);
                Some(time.millis() + u64::from(seconds) * 1_000)
            } else {
                None
            };
            let (key_length, value_length) = (key_length(head), value_length(head));
            let key = slice::from_raw_parts(head.add(key_at(flags)), key_length);
            let value = slice::from_raw_parts(head.add(key_at(flags) + key_length), value_length);
            let stamp = Stamp { time, node };
            let void = flags & VOID != 0;
            let content = match <[u8; 8]>::try_from(value) {
                _ if flags & VALUE != 0 => Content::Bytes(value),
                Ok(hash) => Content::Hash(hash),
                Err(_) => Content::Bytes(&[]),
            };
            Packed {
                flags,
                name,
                key,
                content,
                reset: Reset {
                    horizon: Horizon { stamp, void },
                    value: match content {
                        Content::Hash(hash) => Some(Value::GivenBack(u64::from_le_bytes(hash))),
                        Content::Bytes(value) => (flags & VALUE != 0).then_some(Value::Held(value)),
                    },
                    expires_at,
                    seen: &[],
                },
            }
        }
    }
}

/// What was just allocated. Bits that tell entries apart, or are notes, have to be free in its address; where they are
/// not, nothing here could be trusted.
fn owned(allocation: NonNull<u8>) -> NonNull<u8> {
    assert_eq!(
        allocation.addr().get() & (LARGE | NOTES),
        0,
        "an address of more than 48 bits"
    );
    allocation
}

/// Where the key begins.
fn key_at(flags: u8) -> usize {
    let when = |flag: u8, bytes: usize| if flags & flag != 0 { bytes } else { 0 };
    let name = 1 + when(LONG_NAME, 1) + when(IN_FULL, 8);
    let deadline = when(DEADLINE, 8) + when(SECONDS, 3);
    let lengths = 2 + when(LONG_KEY, 1) + when(LONG_VALUE, 3);
    NAME_AT + name + deadline + lengths
}

/// # Safety
/// `head` has to be that of a small form.
unsafe fn key_length(head: *const u8) -> usize {
    // SAFETY: the caller's promise; the lengths stand before the key, in as many bytes as the flags say (3).
    unsafe {
        let flags = *head;
        let value_length_at = key_at(flags) - if flags & LONG_VALUE != 0 { 4 } else { 1 };
        if flags & LONG_KEY != 0 {
            usize::from(head.add(value_length_at - 2).cast::<u16>().read_unaligned())
        } else {
            usize::from(*head.add(value_length_at - 1))
        }
    }
}

/// # Safety
/// `head` has to be that of a small form.
unsafe fn value_length(head: *const u8) -> usize {
    // SAFETY: the caller's promise; the length stands right before the key, in as many bytes as the flags say (3).
    unsafe {
        let flags = *head;
        if flags & LONG_VALUE != 0 {
            head.add(key_at(flags) - 4).cast::<u32>().read_unaligned() as usize
        } else {
            usize::from(*head.add(key_at(flags) - 1))
        }
    }
}

/// # Safety
/// `head` has to be that of a small form.
unsafe fn small_size(head: *const u8) -> usize {
    // SAFETY: the caller's promise; a small form begins with its flags (3).
    unsafe { key_at(*head) + key_length(head) + value_length(head) }
}

/// The deadline in seconds after the stamp, if it can be written as that.
fn seconds_after(at: Time, deadline: Millis) -> Option<u32> {
    let after = deadline.checked_sub(at.millis())?;
    let seconds = u32::try_from(after / 1_000).ok()?;
    (after % 1_000 == 0 && seconds < 1 << 24).then_some(seconds)
}

/// The content of a small entry.
struct Packed<'a> {
    flags: u8,
    name: u16,
    key: &'a [u8],
    /// What lies in the place of the value.
    content: Content<'a>,
    reset: Reset<'a>,
}

/// What is left of a value.
#[derive(Clone, Copy)]
enum Content<'a> {
    /// All of it; nothing of a deletion.
    Bytes(&'a [u8]),
    /// The content hash of one that was given back.
    Hash([u8; 8]),
}

impl Content<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Content::Bytes(bytes) => bytes,
            Content::Hash(hash) => hash,
        }
    }
}

impl<'a> Packed<'a> {
    /// `None` if it does not fit the small form.
    fn new(nodes: &Nodes, key: &'a [u8], reset: &Reset<'a>) -> Option<Self> {
        let content = match reset.value {
            Some(Value::Held(bytes)) => Content::Bytes(bytes),
            Some(Value::GivenBack(hash)) => Content::Hash(hash.to_le_bytes()),
            None => Content::Bytes(&[]),
        };
        let value = content.as_slice();
        let fits = u16::try_from(key.len()).is_ok() && u32::try_from(value.len()).is_ok() && reset.seen.is_empty();
        if !fits {
            return None;
        }
        let name = nodes.name(reset.horizon.stamp.node);
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        let deadline = match reset.expires_at {
            Some(deadline) if seconds_after(reset.horizon.stamp.time, deadline).is_some() => SECONDS,
            Some(_) => DEADLINE,
            None => 0,
        };
        let flags = flag(VOID, reset.horizon.void)
            | flag(VALUE, reset.bytes().is_some())
            | deadline
            | flag(IN_FULL, name.is_none())
            | flag(LONG_NAME, name.is_some_and(|name| name > u16::from(u8::MAX)))
            | flag(LONG_KEY, key.len() > usize::from(u8::MAX))
            | flag(LONG_VALUE, value.len() > usize::from(u8::MAX));
        Some(Packed {
            flags,
            name: name.unwrap_or(0),
            key,
            content,
            reset: *reset,
        })
    }

    fn value(&self) -> &[u8] {
        self.content.as_slice()
    }

    fn size(&self) -> usize {
        key_at(self.flags) + self.key.len() + self.value().len()
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.size(), ALIGN).expect("two slices that exist make no larger layout than there is")
    }

    fn write(&self) -> Entry {
        let layout = self.layout();
        // SAFETY: the layout is not empty. The allocation is new, so neither the value nor the key lies in it, and
        // nobody else has it (1). `write_fields` and the key fill exactly its size (3). It is aligned to `ALIGN` (2).
        unsafe {
            let Some(to) = NonNull::new(alloc::alloc(layout)) else {
                alloc::handle_alloc_error(layout);
            };
            let to = owned(to);
            self.write_fields(to.as_ptr());
            ptr::copy_nonoverlapping(self.key.as_ptr(), to.as_ptr().add(key_at(self.flags)), self.key.len());
            Entry::at(to.as_ptr())
        }
    }

    /// Writes everything but the key.
    ///
    /// # Safety
    /// `to` has to point to [`Packed::size`] bytes that may be written, and the value must not lie there.
    unsafe fn write_fields(&self, to: *mut u8) {
        let stamp = self.reset.horizon.stamp;
        let value = self.value();
        // SAFETY: the caller's promise. Each field is written if its flag is set, as `new` set it, so they end where
        // `key_at` lets the key begin; and key and value end at the size.
        unsafe {
            to.write(self.flags);
            to.add(TIME_AT).cast::<u64>().write_unaligned(stamp.time.0);
            let mut at = to.add(NAME_AT);
            if self.flags & LONG_NAME != 0 {
                at.cast::<u16>().write_unaligned(self.name);
                at = at.add(2);
            } else {
                at.write(self.name as u8);
                at = at.add(1);
            }
            if self.flags & IN_FULL != 0 {
                at.cast::<u64>().write_unaligned(stamp.node.0);
                at = at.add(8);
            }
            if let Some(deadline) = self.reset.expires_at {
                if let Some(seconds) = seconds_after(stamp.time, deadline) {
                    let [low, middle, high, _] = seconds.to_le_bytes();
                    at.cast::<[u8; 3]>().write([low, middle, high]);
                    at = at.add(3);
                } else {
                    at.cast::<u64>().write_unaligned(deadline);
                    at = at.add(8);
                }
            }
            if self.flags & LONG_KEY != 0 {
                at.cast::<u16>().write_unaligned(self.key.len() as u16);
                at = at.add(2);
            } else {
                at.write(self.key.len() as u8);
                at = at.add(1);
            }
            if self.flags & LONG_VALUE != 0 {
                at.cast::<u32>().write_unaligned(value.len() as u32);
            } else {
                at.write(value.len() as u8);
            }
            let after_key = to.add(key_at(self.flags) + self.key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), after_key, value.len());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(large) = self.large_pointer() {
            // SAFETY: a marked address (2) was made by `Box::into_raw`, and is this entry's alone (1), which is gone
            // now.
            drop(unsafe { Box::from_raw(large) });
            return;
        }
        // SAFETY: not large, so a small form (2), whose flags and lengths say with which size it was allocated (3). It
        // is this entry's alone (1), which is gone now.
        unsafe {
            let head = self.head();
            alloc::dealloc(head, Layout::from_size_align_unchecked(small_size(head), ALIGN));
        }
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.key()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::hash::KeyHash;

    fn put(at: u64, node: u64, value: &[u8], expires_at: Option<u64>) -> StateDelta {
        StateDelta::Put {
            at: Stamp {
                time: Time(at),
                node: NodeId(node),
            },
            value: Value::Held(Blob::new(value)),
            expires_at,
            seen: Vec::new(),
        }
    }

    fn given_back(put: &StateDelta) -> StateDelta {
        let mut put = put.clone();
        if let StateDelta::Put { value, .. } = &mut put {
            *value = value.given_back();
        }
        put
    }

    fn add(at: u64) -> StateDelta {
        StateDelta::Add {
            node: NodeId(9),
            base: Default::default(),
            sum: 1,
            at: Stamp {
                time: Time(at),
                node: NodeId(9),
            },
        }
    }

    fn parts(state: State<'_>, hash: KeyHash) -> Vec<(u64, u64, StateDelta<&[u8]>)> {
        let mut parts = Vec::new();
        state.parts(|part| parts.push((part.element(), part.hash(hash), part.change())));
        parts
    }

    /// What a key of its own state, without entry, makes of the same changes.
    fn check(nodes: &Nodes, key: &[u8], changes: &[StateDelta]) {
        let hash = KeyHash::of(key);
        let mut model = KeyState::new();
        let mut entry: Option<Entry> = None;
        for change in changes {
            let expected = model.apply(hash, change);
            let delta = match &mut entry {
                Some(entry) => entry.apply(nodes, hash, change),
                None => {
                    let made = Entry::made_by(nodes, key, hash, change);
                    let (made, delta) = made.map_or((None, 0), |(made, delta)| (Some(made), delta));
                    entry = made;
                    delta
                }
            };
            assert_eq!(delta, expected, "{change:?}");
        }
        let entry = entry.expect("something was written");
        assert_eq!(entry.key(), key);
        assert_eq!(parts(entry.state(nodes), hash), parts(State::Large(&model), hash));
        assert_eq!(entry.holds_data(), model.holds_data());
    }

    /// Writers and deadlines: none, before the stamp, in whole seconds after it (up to the last that fits), in others,
    /// and as far away as can be.
    const DEADLINES: [(u64, Option<Millis>); 8] = [
        (7, None),
        (0, Some(0)),
        (8, Some(u64::MAX)),
        (7, Some(1_000)),
        (7, Some(1_001)),
        (8, Some(((1 << 24) - 1) * 1_000)),
        (8, Some((1 << 24) * 1_000)),
        (0, Some(u64::MAX / 1_000 * 1_000)),
    ];

    #[test]
    fn an_entry_is_the_state_it_stands_for() {
        let nodes = Nodes::new();
        let lengths = [0, 1, 16, 254, 255, 256, 70_000];
        for key in lengths.map(|length| vec![b'k'; length]) {
            for first in lengths.map(|length| vec![b'a'; length]) {
                for second in lengths.map(|length| vec![b'b'; length]) {
                    for (node, deadline) in DEADLINES {
                        let first = put(10, 7, &first, None);
                        let second = put(20, node, &second, deadline);
                        check(&nodes, &key, &[first.clone(), second.clone()]);
                        check(&nodes, &key, &[given_back(&second), first.clone(), second.clone()]);
                        check(&nodes, &key, &[put(20, node, b"twin", deadline), second.clone()]);
                        check(
                            &nodes,
                            &key,
                            &[second.clone(), first.clone(), put(30, 7, b"", deadline)],
                        );
                        check(&nodes, &key, &[first, add(15), second.clone(), add(25), second]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_and_key_of_16_bytes_take_48_with_namespace_and_deadline() {
        for (deadline, size) in [(None, 45), (Some(100_000_000), 48), (Some(100_000_001), 53)] {
            let change = put(10, 7, &[b'v'; 16], deadline);
            let reset = Reset::of(&change).expect("a put");
            let nodes = Nodes::new();
            let small = Packed::new(&nodes, &[b'k'; 17], &reset).expect("fits");
            assert_eq!(small.size(), size);
        }
        assert_eq!(size_of::<Entry>(), 8);
    }

    #[test]
    fn processes_without_a_short_name_are_written_out() {
        let nodes = Nodes::new();
        let mut unnamed = 0;
        for node in 1..20_000 {
            let node = NodeId(node);
            unnamed += usize::from(nodes.name(node).is_none());
            let change = put(10, node.0, b"v", None);
            let (entry, _) = Entry::made_by(&nodes, b"k", KeyHash::of(b"k"), &change).expect("a put");
            let State::Reset(reset) = entry.state(&nodes) else {
                panic!("a put alone is small")
            };
            assert_eq!(reset.horizon.stamp.node, node);
        }
        assert!(unnamed > 10_000);
    }
}
