//! What the message of a record holds.

use bytes::Bytes;

use super::subject::Nonce;
use crate::store::{Batch, Record, Section};

/// ```text
/// whole       1, 0, the record
/// in parts    1, 1, nonce (16), number of parts (4), their bytes in all (8), their hash (32), beginning of the value
///             the record is what its parts have, one after the other; numbers have the highest byte first
/// record      as a batch has it
/// ```
const FORMAT: u8 = 1;
const WHOLE: u8 = 0;
const IN_PARTS: u8 = 1;

/// So much of a value says mostly which of two is larger: its stamp, and a little more.
const BEGINNING: usize = 32;

/// So much longer than its parts no message of them is.
pub(super) const MANIFEST_BYTES: usize = 2 + 16 + 4 + 8 + 32 + BEGINNING;

/// The message of a record, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// All of it; see [`one_record`].
    Whole(Bytes),
    InParts(Manifest),
}

/// A record that is in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Manifest {
    pub nonce: Nonce,
    pub parts: u32,
    pub bytes: u64,
    pub hash: [u8; 32],
    /// Beginning of the value.
    pub beginning: Vec<u8>,
}

impl Form {
    /// Reads a message; `None` if it is none of ours.
    pub fn read(message: &Bytes) -> Option<Form> {
        let (head, rest) = message.split_first_chunk()?;
        match *head {
            [FORMAT, WHOLE] => Some(Form::Whole(message.slice(head.len()..))),
            [FORMAT, IN_PARTS] => Manifest::read(rest).map(Form::InParts),
            _ => None,
        }
    }
}

/// The message of a record that is whole.
pub(super) fn whole(record: Record<'_>) -> Vec<u8> {
    let bytes = record_bytes(record);
    [&[FORMAT, WHOLE][..], &bytes].concat()
}

/// A record as bytes, for its parts.
pub(super) fn record_bytes(record: Record<'_>) -> Vec<u8> {
    // Of which section is said by the subject.
    let mut batch = Batch::new(Section::HEAD);
    batch.push(record);
    batch.as_bytes().to_vec()
}

/// Bytes of the message of a record that is whole, or a little more.
pub(super) fn whole_bytes(record: Record<'_>) -> usize {
    const LENGTHS: usize = 2 * 10;
    2 + LENGTHS + record.id.len() + record.value.len()
}

/// The record that bytes hold.
pub(super) fn one_record(bytes: &[u8]) -> Option<Record<'_>> {
    let mut records = Batch::read(bytes);
    match (records.next(), records.next()) {
        (Some(record), None) => record,
        _ => None,
    }
}

impl Manifest {
    /// Of the parts of a record.
    pub fn of(nonce: Nonce, parts: u32, bytes: &[u8], value: &[u8]) -> Self {
        Manifest {
            nonce,
            parts,
            bytes: bytes.len() as u64,
            hash: *blake3::hash(bytes).as_bytes(),
            beginning: value[..value.len().min(BEGINNING)].to_vec(),
        }
    }

    /// Whether these are the bytes of its parts.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.bytes && *blake3::hash(bytes).as_bytes() == self.hash
    }

    pub fn write(&self) -> Vec<u8> {
        let mut message = vec![FORMAT, IN_PARTS];
        message.extend_from_slice(&self.nonce);
        message.extend_from_slice(&self.parts.to_be_bytes());
        message.extend_from_slice(&self.bytes.to_be_bytes());
        message.extend_from_slice(&self.hash);
        message.extend_from_slice(&self.beginning);
        message
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (nonce, bytes) = bytes.split_first_chunk()?;
        let (parts, bytes) = bytes.split_first_chunk()?;
        let (sum, bytes) = bytes.split_first_chunk()?;
        let (hash, beginning) = bytes.split_first_chunk()?;
        Some(Manifest {
            nonce: *nonce,
            parts: u32::from_be_bytes(*parts),
            bytes: u64::from_be_bytes(*sum),
            hash: *hash,
            beginning: beginning.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back_and_others_are_none_of_ours() {
        let record = Record {
            id: b"id",
            value: &[7; 100],
        };
        let message = Bytes::from(whole(record));
        assert_eq!(&message[..5], [1, 0, 2, b'i', b'd']);
        assert!(message.len() <= whole_bytes(record));
        let Some(Form::Whole(bytes)) = Form::read(&message) else {
            panic!("{message:?}")
        };
        assert_eq!(one_record(&bytes), Some(record));
        assert_eq!(one_record(&bytes[..50]), None);
        assert_eq!(one_record(&[bytes.clone(), bytes].concat()), None);
        let bytes = record_bytes(record);
        let manifest = Manifest::of([9; 16], 3, &bytes, record.value);
        let message = Bytes::from(manifest.write());
        assert_eq!(message.len(), MANIFEST_BYTES);
        assert_eq!(Form::read(&message), Some(Form::InParts(manifest.clone())));
        assert!(manifest.fits(&bytes) && !manifest.fits(&bytes[1..]));
        for other in [&b""[..], b"\x01", b"\x02\x00", b"\x01\x02", b"text", &message[..40]] {
            assert_eq!(Form::read(&Bytes::copy_from_slice(other)), None, "{other:?}");
        }
    }
}
