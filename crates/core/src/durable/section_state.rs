//! What a section says of itself.

use super::record::Record;
use crate::cache::{Digest, NodeId, Stamp, Time};

/// How a section of a partition is, as its writer has left it: a record without an id. The newest one stays, as of all
/// records.
///
/// ```text
/// value     when and by whom it was written (stamp), contact, floor, digest: 8 bytes a number, the highest byte first
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionState {
    /// When and by whom.
    pub written: Stamp,
    /// What was known of deletions then: those up to this time are in the section, or forgotten.
    pub contact: Time,
    /// Deletions before this time were forgotten then.
    pub floor: Time,
    /// Digest of the partition that it is of. What was covered by something newer, or is forgotten, may lie beside it.
    pub digest: Digest,
}

/// Bytes of its value.
const BYTES: usize = 40;

impl SectionState {
    /// The value of its record.
    pub fn to_bytes(self) -> [u8; BYTES] {
        let Stamp { time, node } = self.written;
        let numbers = [time.0, node.0, self.contact.0, self.floor.0, self.digest.0];
        let mut bytes = [0; BYTES];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// What a record says, if it is one of these.
    pub fn of(record: Record<'_>) -> Option<Self> {
        let bytes: &[u8; BYTES] = record.value.try_into().ok().filter(|_| record.id.is_empty())?;
        let number = |n: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[n * 8 + i]));
        Some(SectionState {
            written: Stamp {
                time: Time(number(0)),
                node: NodeId(number(1)),
            },
            contact: Time(number(2)),
            floor: Time(number(3)),
            digest: Digest(number(4)),
        })
    }
}
