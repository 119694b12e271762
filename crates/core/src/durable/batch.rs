//! Records of one section, one after the other in one piece of memory.

use super::length::{read_part, write_length};
use super::record::Record;
use super::section::Section;
use crate::cache::Delta;

/// Records that are written together. As bytes:
///
/// ```text
/// of each record:  length of the id, the id, length of the value, the value
/// length           7 bits a byte, the lowest first; the highest bit says that more follow (LEB128)
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    section: Section,
    records: usize,
    bytes: Vec<u8>,
}

impl Batch {
    /// An empty one.
    pub fn new(section: Section) -> Self {
        Batch {
            section,
            records: 0,
            bytes: Vec::new(),
        }
    }

    /// The section that its records belong to.
    pub fn section(&self) -> Section {
        self.section
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether it is what a section says of itself, and nothing else.
    pub fn is_state(&self) -> bool {
        self.records == 1 && self.first().is_some_and(|record| record.id.is_empty())
    }

    /// The records as bytes, for engines that keep them as they are.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record<'_>) {
        self.put(record.id.len(), |bytes| bytes.extend_from_slice(record.id));
        self.put(record.value.len(), |bytes| bytes.extend_from_slice(record.value));
        self.records += 1;
    }

    /// Adds the record of the component that a delta writes out.
    pub fn push_delta<B: AsRef<[u8]>>(&mut self, delta: &Delta<B>) {
        self.put(Record::id_bytes(delta), |bytes| Record::write_id(delta, bytes));
        self.put(Record::value_bytes(delta), |bytes| Record::write_value(delta, bytes));
        self.records += 1;
    }

    /// The first record.
    pub fn first(&self) -> Option<Record<'_>> {
        self.iter().next()
    }

    /// The record of a delta, which takes the place of all others.
    pub(super) fn only<B: AsRef<[u8]>>(&mut self, delta: &Delta<B>) -> Record<'_> {
        self.bytes.clear();
        self.records = 0;
        self.push_delta(delta);
        self.first().expect("just written")
    }

    fn put(&mut self, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
        write_length(&mut self.bytes, length);
        let before = self.bytes.len();
        write(&mut self.bytes);
        debug_assert_eq!(self.bytes.len() - before, length, "as announced");
    }

    /// The records.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        Batch::read(&self.bytes).map_while(|record| record)
    }

    /// Reads records out of bytes as [`Batch::as_bytes`] gives them. `None` comes last, where they are cut or damaged.
    pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = Option<Record<'_>>> {
        let mut broken = false;
        std::iter::from_fn(move || {
            if bytes.is_empty() || broken {
                return None;
            }
            let record = read_part(&mut bytes).zip(read_part(&mut bytes));
            broken = record.is_none();
            Some(record.map(|(id, value)| Record { id, value }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Partition;

    #[test]
    fn records_come_back_as_they_were_and_what_is_cut_is_seen() {
        let long = vec![7; 100_000];
        let records = [
            Record { id: b"", value: b"" },
            Record {
                id: b"id",
                value: &long,
            },
            Record {
                id: &long[..300],
                value: b"v",
            },
        ];
        let mut batch = Batch::new(Section::of(Partition(5)));
        records.iter().for_each(|record| batch.push(*record));
        assert_eq!(batch.iter().collect::<Vec<_>>(), records);
        assert_eq!((batch.len(), batch.section().number()), (3, 5));
        let bytes = batch.as_bytes();
        for end in 0..bytes.len() {
            let read: Vec<_> = Batch::read(&bytes[..end]).collect();
            let whole = read.iter().flatten().count();
            assert!(read.iter().take(whole).flatten().eq(&records[..whole]));
            let ends_between_records = read.len() == whole;
            assert_eq!(
                ends_between_records,
                [0, 2, 2 + 3 + 3 + long.len()].contains(&end),
                "{end}"
            );
        }
    }
}
