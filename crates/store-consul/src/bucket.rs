//! A bucket: some records of a section in one value of Consul, and what a write makes of it.
//!
//! ```text
//! a bucket    ids and what is stored for them, as a batch has records, in the order of the ids
//! id          that of the record, if it is no longer than 1 KiB and does not begin with the mark;
//!             else the mark and the SHA-256 of the id
//! stored      0 and the value, if it is no longer than 2 KiB and the id stands here; else
//!             1, index (8), length (8), SHA-256 (32), and the first 64 bytes of the value
//! ```
//!
//! The length and the hash are those of the whole: the record as a batch has it, id and value, which stands in parts.
//! Their name is the hash and the index of the bucket when the record was put in. So no two writes have the same parts
//! unless they write the same at one time, and once the bucket has been changed no other can come to need them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kvcache_node::store::{Batch, Record, Section};
use sha2::{Digest, Sha256};

const MAX_ID: usize = 1 << 10;
/// What ids begin with that stand for longer ones.
const LONG_ID: &[u8] = b"\xff\xffnats-kvcache\xff\xff";
/// The larger ones would be written anew with every other record of their bucket.
pub(crate) const MAX_VALUE: usize = 2 << 10;
/// A transaction takes 512 KiB with its values in base64.
pub(crate) const MAX_BYTES: usize = 350_000;
const BEGINNING: usize = 64;

const HERE: u8 = 0;
const IN_PARTS: u8 = 1;

/// What a bucket holds.
#[derive(Default, Debug)]
pub(crate) struct Bucket {
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A record as a bucket holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stored<'a> {
    Here(Record<'a>),
    InParts(Whole<'a>),
}

/// The whole of a record that is in parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Whole<'a> {
    id: &'a [u8],
    index: u64,
    /// Bytes of all parts.
    pub(crate) length: u64,
    hash: &'a [u8],
    beginning: &'a [u8],
}

/// What changing a bucket has to do beside writing it.
#[derive(Default, Debug)]
pub(crate) struct Draft {
    pub(crate) has_changed: bool,
    /// Records that were smaller than what is there.
    pub(crate) conflicts: u64,
    /// To be written before it: parts by their names.
    pub(crate) added: Vec<(String, Batch)>,
    /// Names of the parts that it no longer needs.
    pub(crate) dropped: Vec<String>,
}

impl Bucket {
    /// Reads one. `None` if no release of ours has written it.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut stored = BTreeMap::new();
        for entry in Batch::read(bytes) {
            let entry = entry?;
            read(entry)?;
            stored.insert(entry.id.to_vec(), entry.value.to_vec());
        }
        Some(Bucket { stored })
    }

    /// It as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut batch = Batch::new(Section::HEAD);
        for (id, value) in &self.stored {
            batch.push(Record { id, value });
        }
        batch.as_bytes().to_vec()
    }

    /// Whether it needs these parts.
    pub(crate) fn needs(&self, name: &str) -> bool {
        self.wholes().any(|whole| whole.name() == name)
    }

    /// What of it is in parts.
    pub(crate) fn wholes(&self) -> impl Iterator<Item = Whole<'_>> {
        let entries = self.stored.iter().filter_map(|(id, value)| read(Record { id, value }));
        entries.filter_map(|stored| match stored {
            Stored::InParts(whole) => Some(whole),
            Stored::Here(_) => None,
        })
    }

    /// What is stored under an id of the bucket.
    pub(crate) fn get(&self, id: &[u8]) -> Option<Stored<'_>> {
        let (id, value) = self.stored.get_key_value(id)?;
        read(Record { id, value })
    }

    /// Puts a record in unless a larger one is there. `index` is that of the bucket.
    pub(crate) fn put(&mut self, record: Record<'_>, index: u64, draft: &mut Draft) {
        let id = id_in_bucket(record.id);
        match self.get(&id).map(|held| order(&record, &held)) {
            Some(Ordering::Equal) => return,
            Some(Ordering::Less) => {
                draft.conflicts += 1;
                return;
            }
            _ => {}
        }
        let value = match is_small(&record) {
            true => [&[HERE], record.value].concat(),
            false => {
                let whole = whole(&record);
                let value = [
                    &[IN_PARTS],
                    &index.to_be_bytes()[..],
                    &(whole.as_bytes().len() as u64).to_be_bytes(),
                    &Sha256::digest(whole.as_bytes()),
                    &record.value[..record.value.len().min(BEGINNING)],
                ]
                .concat();
                if let Some(Stored::InParts(parts)) = read(Record { id: &id, value: &value }) {
                    draft.added.push((parts.name(), whole));
                }
                value
            }
        };
        self.drop_parts(&id, draft);
        self.stored.insert(id, value);
        draft.has_changed = true;
    }

    /// Takes a record out if it is this one.
    pub(crate) fn take(&mut self, record: Record<'_>, draft: &mut Draft) {
        let id = id_in_bucket(record.id);
        if self.get(&id).map(|held| order(&record, &held)) == Some(Ordering::Equal) {
            self.drop_parts(&id, draft);
            self.stored.remove(&id);
            draft.has_changed = true;
        }
    }

    fn drop_parts(&self, id: &[u8], draft: &mut Draft) {
        let Some(Stored::InParts(whole)) = self.get(id) else {
            return;
        };
        let name = whole.name();
        // Of two of one id in one batch the first need not be written.
        let before = draft.added.len();
        draft.added.retain(|(added, _)| *added != name);
        if draft.added.len() == before {
            draft.dropped.push(name);
        }
    }
}

impl<'s> Whole<'s> {
    /// The id in the bucket.
    pub(crate) fn id(&self) -> &'s [u8] {
        self.id
    }

    /// The name of its parts.
    pub(crate) fn name(&self) -> String {
        let hash: String = self.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hash}-{:x}", self.index)
    }

    /// Whether these bytes are the whole, all of it and unchanged.
    pub(crate) fn record<'a>(&self, bytes: &'a [u8]) -> Option<Record<'a>> {
        if bytes.len() as u64 != self.length || Sha256::digest(bytes).as_slice() != self.hash {
            return None;
        }
        Batch::read(bytes).next()?
    }
}

/// What the bytes of a bucket hold, without making a bucket of them. `None` comes last, where no release of ours has
/// written them.
pub(crate) fn stored(bytes: &[u8]) -> impl Iterator<Item = Option<Stored<'_>>> {
    Batch::read(bytes).map(|entry| read(entry?))
}

/// The index in the name of parts: that of their bucket when they were written.
pub(crate) fn index_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.split_once('-')?.1, 16).ok()
}

fn read(entry: Record<'_>) -> Option<Stored<'_>> {
    let (kind, rest) = entry.value.split_first()?;
    match *kind {
        HERE => Some(Stored::Here(Record {
            id: entry.id,
            value: rest,
        })),
        IN_PARTS => {
            let (index, rest) = rest.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (hash, beginning) = rest.split_at_checked(32)?;
            Some(Stored::InParts(Whole {
                id: entry.id,
                index: u64::from_be_bytes(*index),
                length: u64::from_be_bytes(*length),
                hash,
                beginning,
            }))
        }
        _ => None,
    }
}

fn id_in_bucket(id: &[u8]) -> Vec<u8> {
    match id.len() <= MAX_ID && !id.starts_with(LONG_ID) {
        true => id.to_vec(),
        false => [LONG_ID, Sha256::digest(id).as_slice()].concat(),
    }
}

fn is_small(record: &Record<'_>) -> bool {
    record.id.len() <= MAX_ID && !record.id.starts_with(LONG_ID) && record.value.len() <= MAX_VALUE
}

fn whole(record: &Record<'_>) -> Batch {
    let mut whole = Batch::new(Section::HEAD);
    whole.push(*record);
    whole
}

/// The order of a record and what is held for its id: that of their values. Of a large one only the beginning is at hand,
/// which holds its stamp; if that is equal, so is the content, and if somebody has made two that differ, the hash says
/// which of them stays.
fn order(record: &Record<'_>, held: &Stored<'_>) -> Ordering {
    let of_beginnings = |held: &[u8]| {
        let beginning = |value: &[u8]| value[..value.len().min(BEGINNING)].to_vec();
        beginning(record.value).cmp(&beginning(held))
    };
    let hash = |record: &Record<'_>| Sha256::digest(whole(record).as_bytes());
    match held {
        Stored::Here(held) if is_small(record) => record.value.cmp(held.value),
        Stored::Here(held) => of_beginnings(held.value).then_with(|| hash(record).cmp(&hash(held))),
        Stored::InParts(held) => of_beginnings(held.beginning).then_with(|| hash(record).as_slice().cmp(held.hash)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(time: u8, content: &[u8]) -> Vec<u8> {
        [&[time; 16][..], content].concat()
    }

    fn put(bucket: &mut Bucket, id: &[u8], value: &[u8], index: u64) -> Draft {
        let mut draft = Draft::default();
        bucket.put(Record { id, value }, index, &mut draft);
        draft
    }

    #[test]
    fn the_larger_value_stays_whatever_its_size() {
        let values = [
            value(1, b""),
            value(1, b"\0"),
            value(1, b"z"),
            value(2, &[9; MAX_VALUE]),
            value(3, b"small"),
            value(4, &[1; 10_000]),
            value(5, &[0; 100_000]),
        ];
        for id in [&b"id"[..], &[7; 5_000], LONG_ID] {
            for (n, first) in values.iter().enumerate() {
                for (m, second) in values.iter().enumerate() {
                    let mut bucket = Bucket::default();
                    assert!(put(&mut bucket, id, first, 3).has_changed);
                    let draft = put(&mut bucket, id, second, 4);
                    let short = id.len() > 5 && (first[..16] == second[..16]);
                    if !short {
                        assert_eq!(draft.has_changed, m > n, "{n} {m}");
                    }
                    assert_eq!(draft.conflicts, u64::from(m != n && !draft.has_changed));
                    let again = Bucket::read(&bucket.bytes()).unwrap();
                    assert_eq!(again.stored, bucket.stored);
                }
            }
        }
    }

    #[test]
    fn what_is_in_parts_is_named_once_and_dropped_once() {
        let mut bucket = Bucket::default();
        let large = value(1, &[1; 10_000]);
        let draft = put(&mut bucket, b"id", &large, 7);
        let [(name, whole)] = &draft.added[..] else {
            panic!("{draft:?}");
        };
        assert!(bucket.needs(name) && index_of(name) == Some(7), "{name}");
        let Some(Stored::InParts(held)) = bucket.get(b"id") else {
            panic!("{bucket:?}");
        };
        let record = Record {
            id: b"id",
            value: &large,
        };
        assert_eq!(held.record(whole.as_bytes()), Some(record));
        assert_eq!(held.record(&whole.as_bytes()[1..]), None);
        // Again, at another index: nothing to do.
        let again = put(&mut bucket, b"id", &large, 8);
        assert!(!again.has_changed && again.added.is_empty() && again.dropped.is_empty());
        // By a larger one, and another one in the same batch.
        let mut draft = Draft::default();
        for time in [2, 3] {
            bucket.put(
                Record {
                    id: b"id",
                    value: &value(time, &[1; 10_000]),
                },
                9,
                &mut draft,
            );
        }
        assert_eq!((draft.added.len(), &draft.dropped[..]), (1, &[name.clone()][..]));
        let mut draft = Draft::default();
        bucket.take(record, &mut draft);
        assert!(!draft.has_changed, "another value");
        let newest = value(3, &[1; 10_000]);
        bucket.take(
            Record {
                id: b"id",
                value: &newest,
            },
            &mut draft,
        );
        assert!(draft.has_changed && draft.dropped.len() == 1 && stored(&bucket.bytes()).count() == 0);
    }

    #[test]
    fn what_is_no_bucket_is_seen() {
        let mut bucket = Bucket::default();
        put(&mut bucket, b"id", &value(1, b"x"), 0);
        let bytes = bucket.bytes();
        assert!(Bucket::read(&bytes).is_some() && Bucket::read(b"").is_some());
        assert!(Bucket::read(&bytes[..bytes.len() - 1]).is_none());
        assert!(Bucket::read(b"\x02id\x01\x09").is_none(), "another kind");
        assert!(Bucket::read(b"\x02id\x00").is_none(), "no kind");
        assert!(Bucket::read(b"hello").is_none());
    }
}
