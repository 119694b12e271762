//! Members that were removed from a set, packed: they are kept for as long as deletions are remembered, and nobody
//! reads them but a merge.
//!
//! They lie in order, one after the other, in pieces of about a kilobyte. A record is the stamp of the removal (time
//! and node, 8 bytes each), the length of the member (7 bits a byte, the lowest first, the upper bit says that more
//! follow), and the member.

use std::cmp::Ordering;
use std::ops::Range;

use super::memory::allocated_or_none;
use super::stamp::{NodeId, Stamp, Time};

/// A piece that takes more is cut in two, unless it is a single record.
const PIECE_BYTES: usize = 1_024;

const STAMP_BYTES: usize = 16;

#[derive(Clone, Debug, Default)]
pub(super) struct Removed {
    /// None is empty.
    pieces: Vec<Vec<u8>>,
    /// Bytes that the pieces take, each by itself.
    piece_bytes: usize,
}

impl Removed {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that they take.
    pub fn heap_bytes(&self) -> usize {
        allocated_or_none(self.pieces.capacity() * size_of::<Vec<u8>>()) + self.piece_bytes
    }

    /// Whether the sum that it keeps is that of what it holds.
    #[cfg(test)]
    pub fn sums_hold(&self) -> bool {
        self.piece_bytes == self.pieces.iter().map(heap_bytes).sum::<usize>()
    }

    /// In how many pieces they lie.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// When a member was removed.
    pub fn get(&self, member: &[u8]) -> Option<Stamp> {
        self.get_entry(member).map(|(_, stamp)| stamp)
    }

    /// The same, with the member where it lies here.
    pub fn get_entry(&self, member: &[u8]) -> Option<(&[u8], Stamp)> {
        let piece = &self.pieces[self.piece_of(member)?];
        let record = find(piece, member).ok()?;
        let Record { member, stamp, .. } = Record::at(piece, record.start);
        Some((member, stamp))
    }

    /// All members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Stamp)> {
        let records = self.pieces.iter().flat_map(|piece| records(piece));
        records.map(|record| (record.member, record.stamp))
    }

    /// Notes that a member was removed; an older note is replaced.
    pub fn insert(&mut self, member: &[u8], stamp: Stamp) {
        let number = self.piece_of(member).unwrap_or(0);
        if self.pieces.is_empty() {
            self.pieces.push(Vec::new());
        }
        let piece = &mut self.pieces[number];
        self.piece_bytes -= heap_bytes(piece);
        match find(piece, member) {
            Ok(record) => piece[record.start..record.start + STAMP_BYTES].copy_from_slice(&bytes_of(stamp)),
            Err(place) => {
                let record = record_of(member, stamp);
                piece.reserve_exact(record.len());
                piece.splice(place..place, record);
                if piece.len() > PIECE_BYTES {
                    self.cut(number);
                }
            }
        }
        self.piece_bytes += heap_bytes(&self.pieces[number]);
    }

    /// Takes a member out.
    pub fn remove(&mut self, member: &[u8]) {
        let Some(number) = self.piece_of(member) else { return };
        let piece = &mut self.pieces[number];
        let Ok(record) = find(piece, member) else { return };
        self.piece_bytes -= heap_bytes(piece);
        piece.drain(record);
        piece.shrink_to_fit();
        self.piece_bytes += heap_bytes(piece);
        if piece.is_empty() {
            self.pieces.remove(number);
        }
    }

    /// Keeps the members that `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], Stamp) -> bool) {
        for piece in &mut self.pieces {
            let mut kept = Vec::new();
            for record in records(piece) {
                if keep(record.member, record.stamp) {
                    kept.extend_from_slice(&piece[record.place]);
                }
            }
            if kept.len() < piece.len() {
                kept.shrink_to_fit();
                self.piece_bytes = self.piece_bytes - heap_bytes(piece) + heap_bytes(&kept);
                *piece = kept;
            }
        }
        self.pieces.retain(|piece| !piece.is_empty());
    }

    /// The piece in which a member is, or belongs; `None` if there are none.
    fn piece_of(&self, member: &[u8]) -> Option<usize> {
        let up_to = |piece: &Vec<u8>| Record::at(piece, 0).member <= member;
        let pieces = self.pieces.partition_point(up_to);
        (!self.pieces.is_empty()).then(|| pieces.saturating_sub(1))
    }

    fn cut(&mut self, number: usize) {
        let piece = &mut self.pieces[number];
        let starts = records(piece).map(|record| record.place.start).skip(1);
        let middle = piece.len() / 2;
        if let Some(cut) = starts.min_by_key(|start| start.abs_diff(middle)) {
            let mut upper = piece.split_off(cut);
            piece.shrink_to_fit();
            upper.shrink_to_fit();
            self.piece_bytes += heap_bytes(&upper);
            self.pieces.insert(number + 1, upper);
        }
    }
}

fn heap_bytes(piece: &Vec<u8>) -> usize {
    allocated_or_none(piece.capacity())
}

/// The place of the record of a member in a piece, or where it belongs.
fn find(piece: &[u8], member: &[u8]) -> Result<Range<usize>, usize> {
    for record in records(piece) {
        match record.member.cmp(member) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(record.place),
            Ordering::Greater => return Err(record.place.start),
        }
    }
    Err(piece.len())
}

fn records(piece: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let record = (start < piece.len()).then(|| Record::at(piece, start))?;
        start = record.place.end;
        Some(record)
    })
}

struct Record<'a> {
    place: Range<usize>,
    stamp: Stamp,
    member: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record that begins at `start`, which has to be the start of one.
    fn at(piece: &'a [u8], start: usize) -> Self {
        let word = |at: usize| u64::from_le_bytes(piece[at..at + 8].try_into().expect("8 bytes"));
        let stamp = Stamp {
            time: Time(word(start)),
            node: NodeId(word(start + 8)),
        };
        let mut at = start + STAMP_BYTES;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = piece[at];
            length |= usize::from(byte & 0x7f) << shift;
            at += 1;
            if byte < 0x80 {
                break;
            }
            shift += 7;
        }
        Record {
            place: start..at + length,
            stamp,
            member: &piece[at..at + length],
        }
    }
}

fn bytes_of(stamp: Stamp) -> [u8; STAMP_BYTES] {
    let mut bytes = [0; STAMP_BYTES];
    bytes[..8].copy_from_slice(&stamp.time.0.to_le_bytes());
    bytes[8..].copy_from_slice(&stamp.node.0.to_le_bytes());
    bytes
}

fn record_of(member: &[u8], stamp: Stamp) -> Vec<u8> {
    let mut record = Vec::with_capacity(STAMP_BYTES + 5 + member.len());
    record.extend_from_slice(&bytes_of(stamp));
    let mut length = member.len();
    while length >= 0x80 {
        record.push(length as u8 | 0x80);
        length >>= 7;
    }
    record.push(length as u8);
    record.extend_from_slice(member);
    record
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp {
            time: Time(number),
            node: NodeId(!number),
        }
    }

    /// Members of all lengths at which something changes, in an order of their own for each seed.
    fn members(count: usize) -> Vec<Vec<u8>> {
        let lengths = [0, 1, 3, 20, 127, 128, 300, 2_000, 20_000];
        let member = |number: usize| {
            let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut member = mixed.to_be_bytes().repeat(2_500);
            member.truncate(lengths[number % lengths.len()]);
            member
        };
        (0..count).map(member).collect()
    }

    #[test]
    fn a_map_that_is_packed_is_a_map() {
        let (mut packed, mut plain) = (Removed::default(), BTreeMap::new());
        let same = |packed: &Removed, plain: &BTreeMap<Vec<u8>, Stamp>| {
            assert!(packed.iter().eq(plain.iter().map(|(member, at)| (&member[..], *at))));
            assert_eq!(packed.is_empty(), plain.is_empty());
        };
        let members = members(2_000);
        for (number, member) in members.iter().enumerate() {
            let at = stamp(number as u64);
            packed.insert(member, at);
            plain.insert(member.clone(), at);
            assert_eq!(packed.get(member), Some(at));
        }
        same(&packed, &plain);
        for (number, member) in members.iter().enumerate() {
            if number % 3 == 0 {
                packed.remove(member);
                plain.remove(member);
            }
            assert_eq!(packed.get(member), plain.get(member).copied());
        }
        same(&packed, &plain);
        packed.retain(|_, at| at.time.0 % 5 == 0);
        plain.retain(|_, at| at.time.0 % 5 == 0);
        same(&packed, &plain);
        packed.retain(|_, _| false);
        assert!(packed.is_empty());
    }

    #[test]
    fn a_removed_member_takes_little_more_than_its_bytes_and_its_stamp() {
        let mut packed = Removed::default();
        const COUNT: usize = 100_000;
        for number in 0..COUNT {
            // Twenty bytes in an order that is none.
            let member = format!("{:020}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            packed.insert(member.as_bytes(), stamp(number as u64));
        }
        let pieces = packed.pieces.iter();
        let bytes: usize = pieces.map(|piece| piece.capacity() + size_of::<Vec<u8>>()).sum();
        assert!(bytes / COUNT <= 45, "{} bytes", bytes / COUNT);
    }
}
