//! Records of one section that one script takes.

use std::collections::HashMap;

use kvcache_node::store::{Batch, Record, Section};

/// A script blocks the server while it runs, for some tenths of a millisecond with so many records.
const MAX_RECORDS: usize = 256;

/// Bytes of ids and values, for the same reason, and so that those under way are through a slow network in time.
const MAX_BYTES: usize = 256 << 10;

/// Records that go to the server together; those that are larger than a part may be are alone.
pub(crate) struct Part<'a> {
    pub section: Section,
    pub records: Vec<Record<'a>>,
    bytes: usize,
}

impl<'a> Part<'a> {
    /// Whether it is one large record.
    pub fn is_large(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    fn of(section: Section) -> Self {
        Part {
            section,
            records: Vec::new(),
            bytes: 0,
        }
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.records.is_empty() || (self.records.len() < MAX_RECORDS && self.bytes + bytes <= MAX_BYTES)
    }
}

/// Divides a batch. Of records with one id the largest is in it: a script compares with what the server holds only.
pub(crate) fn parts(batch: &Batch) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for record in largest(batch) {
        let bytes = record.id.len() + record.value.len();
        if !parts.last().is_some_and(|part| part.has_room_for(bytes)) {
            parts.push(Part::of(batch.section()));
        }
        if let Some(part) = parts.last_mut() {
            part.records.push(record);
            part.bytes += bytes;
        }
    }
    parts
}

fn largest(batch: &Batch) -> Vec<Record<'_>> {
    let mut records: Vec<Record<'_>> = Vec::with_capacity(batch.len());
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(batch.len());
    for record in batch.iter() {
        let place = *places.entry(record.id).or_insert(records.len());
        match records.get_mut(place) {
            Some(other) => *other = record.max(*other),
            None => records.push(record),
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_and_lose_nothing() {
        let mut batch = Batch::new(Section::HEAD);
        let large = vec![1; MAX_BYTES + 1];
        let half = vec![2; MAX_BYTES / 2];
        let ids: Vec<[u8; 4]> = (0..1_000u32).map(u32::to_be_bytes).collect();
        for (n, id) in ids.iter().enumerate() {
            let value = match n {
                10 | 20 => &large,
                30..=33 => &half,
                _ => &b"value"[..].to_vec(),
            };
            batch.push(Record { id, value });
        }
        let parts = parts(&batch);
        let records: Vec<Record<'_>> = parts.iter().flat_map(|part| part.records.iter().copied()).collect();
        assert_eq!(records, batch.iter().collect::<Vec<_>>());
        assert!(parts.iter().all(|part| part.records.len() <= MAX_RECORDS));
        assert!(parts
            .iter()
            .all(|part| part.records.len() == 1 || part.bytes <= MAX_BYTES));
        assert_eq!(parts.iter().filter(|part| part.is_large()).count(), 2);
        assert!(super::parts(&Batch::new(Section::HEAD)).is_empty());
    }

    #[test]
    fn of_one_id_the_largest_value_is_sent() {
        let mut batch = Batch::new(Section::HEAD);
        for (id, value) in [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"2"), (b"b", b"1")] {
            batch.push(Record { id, value });
        }
        let parts = parts(&batch);
        let [part] = parts.as_slice() else {
            panic!("{} parts", parts.len())
        };
        let values: Vec<&[u8]> = part.records.iter().map(|record| record.value).collect();
        assert_eq!(values, [b"3", b"2"]);
    }
}
