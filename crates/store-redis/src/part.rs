//! Records that one script takes.

use std::collections::HashMap;

use kvcache_node::store::{Batch, Record, Section};

/// A script blocks the server while it runs, for some tenths of a millisecond with so many records.
const MAX_RECORDS: usize = 256;

/// Bytes of ids and values, for the same reason, and so that those under way are through a slow network in time.
const MAX_BYTES: usize = 256 << 10;

/// Records that go to the server together; those that are larger than a part may be are alone.
#[derive(Default)]
pub(crate) struct Part<'a> {
    /// The sections they are of, with how many of the records are of each.
    pub sections: Vec<(Section, usize)>,
    /// Section by section.
    pub records: Vec<Record<'a>>,
    bytes: usize,
}

impl<'a> Part<'a> {
    /// Whether it is one large record.
    pub fn is_large(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.records.is_empty() || (self.records.len() < MAX_RECORDS && self.bytes + bytes <= MAX_BYTES)
    }

    fn push(&mut self, section: Section, record: Record<'a>, bytes: usize) {
        match self.sections.last_mut() {
            Some((last, count)) if *last == section => *count += 1,
            _ => self.sections.push((section, 1)),
        }
        self.records.push(record);
        self.bytes += bytes;
    }
}

/// Divides batches, and puts small ones together: a call costs more than a record. Of records with one id the largest is in
/// it: a script compares with what the server holds only.
pub(crate) fn parts(batches: &[Batch]) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for batch in batches {
        // A section that is new is written without a look; the second half of one is not new.
        let is_apart = parts.last().is_some_and(|part| {
            part.records.len() + batch.len() > MAX_RECORDS || !part.has_room_for(batch.as_bytes().len())
        });
        if is_apart {
            parts.push(Part::default());
        }
        for record in largest(batch) {
            let bytes = record.id.len() + record.value.len();
            if !parts.last().is_some_and(|part| part.has_room_for(bytes)) {
                parts.push(Part::default());
            }
            if let Some(part) = parts.last_mut() {
                part.push(batch.section(), record, bytes);
            }
        }
    }
    parts.retain(|part| !part.records.is_empty());
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
        let parts = parts(std::slice::from_ref(&batch));
        let records: Vec<Record<'_>> = parts.iter().flat_map(|part| part.records.iter().copied()).collect();
        assert_eq!(records, batch.iter().collect::<Vec<_>>());
        assert!(parts.iter().all(|part| part.records.len() <= MAX_RECORDS));
        assert!(parts
            .iter()
            .all(|part| part.records.len() == 1 || part.bytes <= MAX_BYTES));
        assert_eq!(parts.iter().filter(|part| part.is_large()).count(), 2);
        assert!(super::parts(&[Batch::new(Section::HEAD)]).is_empty());
    }

    #[test]
    fn small_batches_go_together_each_to_its_section() {
        let sections: Vec<Section> = (0..600).filter_map(Section::numbered).collect();
        let batches: Vec<Batch> = sections
            .iter()
            .map(|section| {
                let mut batch = Batch::new(*section);
                for n in 0..section.number() % 3 {
                    batch.push(Record {
                        id: &[n as u8],
                        value: &section.number().to_be_bytes(),
                    });
                }
                batch
            })
            .collect();
        let parts = parts(&batches);
        assert_eq!(parts.len(), 3, "600 records");
        let mut found = Vec::new();
        for part in &parts {
            let mut records = part.records.iter();
            for (section, count) in &part.sections {
                assert!(records
                    .by_ref()
                    .take(*count)
                    .all(|record| record.value == section.number().to_be_bytes()));
                found.extend(std::iter::repeat_n(*section, *count));
            }
            assert_eq!(records.count(), 0);
        }
        let expected = |section: &Section| std::iter::repeat_n(*section, usize::from(section.number() % 3));
        assert_eq!(found, sections.iter().flat_map(expected).collect::<Vec<_>>());
    }

    #[test]
    fn of_one_id_the_largest_value_is_sent() {
        let mut batch = Batch::new(Section::HEAD);
        for (id, value) in [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"2"), (b"b", b"1")] {
            batch.push(Record { id, value });
        }
        let batches = [batch];
        let parts = parts(&batches);
        let [part] = parts.as_slice() else {
            panic!("{} parts", parts.len())
        };
        let values: Vec<&[u8]> = part.records.iter().map(|record| record.value).collect();
        assert_eq!(values, [b"3", b"2"]);
    }
}
