//! One component of a key, as a store keeps it.

use super::length::{read_length, read_part, write_length};
use crate::cache::{Base, Delta, NodeId, SeenAdd, Slot, Stamp, StateDelta, Time, Value};

/// Which component of its key: the byte after the key. Nothing follows the key of a reset.
const ADD: u8 = 1;
const ITEM: u8 = 2;
const MEMBER: u8 = 3;

/// What a reset has left; the larger of two with one stamp is the one that counts.
const PUT: u8 = 0;
const PUT_WITH_DEADLINE: u8 = 1;
const GIVEN_BACK: u8 = 2;
const DELETED: u8 = 3;

/// What has become of an item: it is removed once and for all.
const ITEM_THERE: u8 = 0;
const ITEM_REMOVED: u8 = 1;

/// What has become of a member: of two equal stamps the one counts that has it.
const MEMBER_REMOVED: u8 = 0;
const MEMBER_THERE: u8 = 1;

const STAMP_BYTES: usize = 16;
const BASE_BYTES: usize = STAMP_BYTES + 1;
const SEEN_BYTES: usize = 8 + BASE_BYTES + 8;

/// A component in a store. Of two with one id the one with the larger value stays, byte by byte.
///
/// ```text
/// id        nothing: a record about the section itself; else
///           length of the key (LEB128), the key, and by component
///   reset     nothing more
///   entry     1, node, base          of a counter
///   item      2, stamp               of a list
///   member    3, the member          of a set
///
/// value     newest stamp of the component, then
///   reset     byte, number of entries seen (LEB128), of each: node, base, sum; then
///               0 the value
///               1 deadline, the value
///               2 deadline, content hash of a value that was given back
///               3 nothing: deleted
///   entry     sum
///   item      0 and the item, or 1 where it was removed
///   member    1 where it is one, 0 where it was removed
///
/// stamp     time, node: 8 bytes each; all numbers have 8 bytes, the highest first, but for
/// base      stamp, byte: 1 for void, 2 for expired
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Record<'a> {
    /// What it is about.
    pub id: &'a [u8],
    /// Stamp and content.
    pub value: &'a [u8],
}

/// What a record that no release of ours writes has wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a record that cannot be read: {0}")]
pub struct RecordError(&'static str);

impl<'a> Record<'a> {
    /// The stamp that its value begins with; zero where that is shorter.
    pub fn stamp(&self) -> Stamp {
        let mut value = self.value;
        read_stamp(&mut value).unwrap_or_default()
    }

    /// The key that it is of; `None` for one about the section itself, or that cannot be read.
    pub fn key(&self) -> Option<&'a [u8]> {
        read_part(&mut { self.id })
    }

    /// Whether it is the newest reset of its key.
    pub(super) fn is_reset(&self) -> bool {
        let mut id = self.id;
        read_part(&mut id).is_some() && id.is_empty()
    }

    /// The delta that brings the component to a cache that lacks it.
    pub fn delta(&self) -> Result<Delta<&'a [u8]>, RecordError> {
        let mut id = self.id;
        let mut value = self.value;
        let key = read_part(&mut id).ok_or(RecordError("its key"))?;
        let at = read_stamp(&mut value).ok_or(RecordError("its stamp"))?;
        let change = match id.split_first() {
            None => read_reset(at, &mut value)?,
            Some((&ADD, mut place)) => {
                let node = read_node(&mut place).ok_or(RecordError("node of a counter entry"))?;
                let base = read_base(&mut place)?;
                let sum = read_u64(&mut value).ok_or(RecordError("sum of a counter entry"))? as i64;
                ended(place)?;
                StateDelta::Add { node, base, sum, at }
            }
            Some((&ITEM, mut place)) => {
                let id = read_stamp(&mut place).ok_or(RecordError("id of an item"))?;
                ended(place)?;
                match value.split_first() {
                    Some((&ITEM_THERE, item)) if id == at => {
                        value = &[];
                        StateDelta::ListPush { id, value: item }
                    }
                    Some((&ITEM_REMOVED, rest)) => {
                        value = rest;
                        StateDelta::ListRemove { id, at }
                    }
                    _ => return Err(RecordError("an item")),
                }
            }
            Some((&MEMBER, member)) => {
                let (what, rest) = value.split_first().ok_or(RecordError("a member"))?;
                value = rest;
                match *what {
                    MEMBER_THERE => StateDelta::SetAdd { member, at },
                    MEMBER_REMOVED => StateDelta::SetRemove { member, at },
                    _ => return Err(RecordError("a member")),
                }
            }
            Some(_) => return Err(RecordError("its kind of component")),
        };
        ended(value)?;
        Ok(Delta { key, change })
    }

    // --- writing

    pub(super) fn id_bytes<B: AsRef<[u8]>>(delta: &Delta<B>) -> usize {
        let key = delta.key.as_ref().len();
        length_bytes(key)
            + key
            + match delta.slot() {
                Slot::Reset => 0,
                Slot::Add(..) => 1 + 8 + BASE_BYTES,
                Slot::Item(_) => 1 + STAMP_BYTES,
                Slot::Member(member) => 1 + member.len(),
            }
    }

    pub(super) fn write_id<B: AsRef<[u8]>>(delta: &Delta<B>, bytes: &mut Vec<u8>) {
        let key = delta.key.as_ref();
        write_length(bytes, key.len());
        bytes.extend_from_slice(key);
        match delta.slot() {
            Slot::Reset => {}
            Slot::Add(node, base) => {
                bytes.push(ADD);
                write_u64(bytes, node.0);
                write_base(bytes, base);
            }
            Slot::Item(id) => {
                bytes.push(ITEM);
                write_stamp(bytes, id);
            }
            Slot::Member(member) => {
                bytes.push(MEMBER);
                bytes.extend_from_slice(member);
            }
        }
    }

    pub(super) fn value_bytes<B: AsRef<[u8]>>(delta: &Delta<B>) -> usize {
        let of_seen = |seen: &[SeenAdd]| length_bytes(seen.len()) + seen.len() * SEEN_BYTES;
        STAMP_BYTES
            + match &delta.change {
                StateDelta::Put {
                    value,
                    expires_at,
                    seen,
                    ..
                } => {
                    let deadline = if expires_at.is_some() { 8 } else { 0 };
                    1 + of_seen(seen) + deadline + value.bytes().map_or(8, <[u8]>::len)
                }
                StateDelta::Delete { seen, .. } => 1 + of_seen(seen),
                StateDelta::Add { .. } => 8,
                StateDelta::ListPush { value, .. } => 1 + value.as_ref().len(),
                StateDelta::ListRemove { .. } | StateDelta::SetAdd { .. } | StateDelta::SetRemove { .. } => 1,
            }
    }

    pub(super) fn write_value<B: AsRef<[u8]>>(delta: &Delta<B>, bytes: &mut Vec<u8>) {
        write_stamp(bytes, delta.newest());
        match &delta.change {
            StateDelta::Put {
                value,
                expires_at,
                seen,
                ..
            } => {
                bytes.push(match (value, expires_at) {
                    (Value::GivenBack(_), _) => GIVEN_BACK,
                    (Value::Held(_), Some(_)) => PUT_WITH_DEADLINE,
                    (Value::Held(_), None) => PUT,
                });
                write_seen(bytes, seen);
                if let Some(deadline) = expires_at {
                    write_u64(bytes, *deadline);
                }
                match value {
                    Value::Held(value) => bytes.extend_from_slice(value.as_ref()),
                    Value::GivenBack(hash) => write_u64(bytes, *hash),
                }
            }
            StateDelta::Delete { seen, .. } => {
                bytes.push(DELETED);
                write_seen(bytes, seen);
            }
            StateDelta::Add { sum, .. } => write_u64(bytes, *sum as u64),
            StateDelta::ListPush { value, .. } => {
                bytes.push(ITEM_THERE);
                bytes.extend_from_slice(value.as_ref());
            }
            StateDelta::ListRemove { .. } => bytes.push(ITEM_REMOVED),
            StateDelta::SetAdd { .. } => bytes.push(MEMBER_THERE),
            StateDelta::SetRemove { .. } => bytes.push(MEMBER_REMOVED),
        }
    }
}

fn read_reset<'a>(at: Stamp, value: &mut &'a [u8]) -> Result<StateDelta<&'a [u8]>, RecordError> {
    let (what, rest) = value.split_first().ok_or(RecordError("a reset"))?;
    *value = rest;
    let seen = read_seen(value)?;
    let mut deadline = || read_u64(value).ok_or(RecordError("a deadline"));
    let (expires_at, held) = match *what {
        DELETED => return Ok(StateDelta::Delete { at, seen }),
        PUT => (None, true),
        PUT_WITH_DEADLINE => (Some(deadline()?), true),
        GIVEN_BACK => (Some(deadline()?), false),
        _ => return Err(RecordError("a reset")),
    };
    let value = match held {
        true => Value::Held(std::mem::take(value)),
        false => Value::GivenBack(read_u64(value).ok_or(RecordError("hash of a value"))?),
    };
    Ok(StateDelta::Put {
        at,
        value,
        expires_at,
        seen,
    })
}

fn ended(rest: &[u8]) -> Result<(), RecordError> {
    match rest.is_empty() {
        true => Ok(()),
        false => Err(RecordError("bytes after its end")),
    }
}

fn length_bytes(length: usize) -> usize {
    (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize
}

fn write_u64(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn write_stamp(bytes: &mut Vec<u8>, stamp: Stamp) {
    write_u64(bytes, stamp.time.0);
    write_u64(bytes, stamp.node.0);
}

fn write_base(bytes: &mut Vec<u8>, base: Base) {
    write_stamp(bytes, base.stamp);
    bytes.push(u8::from(base.void) | u8::from(base.expired) << 1);
}

fn write_seen(bytes: &mut Vec<u8>, seen: &[SeenAdd]) {
    write_length(bytes, seen.len());
    for entry in seen {
        write_u64(bytes, entry.node.0);
        write_base(bytes, entry.base);
        write_u64(bytes, entry.sum as u64);
    }
}

fn read_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

fn read_node(bytes: &mut &[u8]) -> Option<NodeId> {
    read_u64(bytes).map(NodeId)
}

fn read_stamp(bytes: &mut &[u8]) -> Option<Stamp> {
    let time = Time(read_u64(bytes)?);
    let node = read_node(bytes)?;
    Some(Stamp { time, node })
}

fn read_base(bytes: &mut &[u8]) -> Result<Base, RecordError> {
    let stamp = read_stamp(bytes).ok_or(RecordError("base of a counter entry"))?;
    match bytes.split_first() {
        Some((flags @ 0..=3, rest)) => {
            *bytes = rest;
            Ok(Base {
                stamp,
                void: flags & 1 != 0,
                expired: flags & 2 != 0,
            })
        }
        _ => Err(RecordError("flags of a base")),
    }
}

fn read_seen(bytes: &mut &[u8]) -> Result<Vec<SeenAdd>, RecordError> {
    let broken = RecordError("entries that were seen");
    let number = read_length(bytes).ok_or(broken)?;
    if number > bytes.len() / SEEN_BYTES {
        return Err(broken);
    }
    let mut seen = Vec::with_capacity(number);
    for _ in 0..number {
        seen.push(SeenAdd {
            node: read_node(bytes).ok_or(broken)?,
            base: read_base(bytes)?,
            sum: read_u64(bytes).ok_or(broken)? as i64,
        });
    }
    Ok(seen)
}
