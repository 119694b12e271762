//! What records look like in the table: names, timestamps, and how values that are too large for one row are cut.
//!
//! ```text
//! table     nats_kvcache_1 (cache text, section int, id blob, value blob, PRIMARY KEY ((cache, section), id))
//!
//! id        that of the record, if it is no longer than 60,000 bytes and does not begin with the mark;
//!           else the mark and the SHA-256 of the id
//! value     that of the record and a zero, if it is no longer than 64 KiB and the id stands in the row;
//!           else the beginning of the value (16 bytes), the SHA-256 of the whole (32), its length (8), and a one
//! timestamp the time that the value begins with, in microseconds
//! ```
//!
//! The whole of a value that does not stand in its row is the record as a batch has it, id and value. It is cut into
//! parts, which are rows of another partition: that of the section -1 for 0, -2 for 1, and so on.
//!
//! ```text
//! id        the first half of the SHA-256 of the record's id (16), the beginning of the value (16),
//!           the SHA-256 of the whole (32), number of the part (4)
//! value     the part
//! timestamp that of the record
//! ```
//!
//! One more partition, with the smallest number, has a row for each section that has or had parts: its number (2 bytes),
//! and an empty value.

use kvcache_node::store::{Batch, CacheName, Record, Section};
use sha2::{Digest, Sha256};

/// The table. The number is that of this layout.
pub(crate) const TABLE: &str = "nats_kvcache_1";

/// A key of Cassandra takes 65,535 bytes.
const MAX_ID: usize = 60_000;
/// What ids begin with that stand for longer ones.
const LONG_ID: &[u8] = b"\xff\xffnats-kvcache\xff\xff";
/// A server answers with a page of rows, whatever they hold: larger ones would make pages that are too large for it.
const MAX_VALUE: usize = 64 << 10;
/// A message must be smaller than half a segment of the commit log, which is 8 MiB on the smallest servers.
pub(crate) const PART: usize = 512 << 10;

/// Last byte of a value in its row.
const HERE: u8 = 0;
const IN_PARTS: u8 = 1;

const BEGINNING: usize = 16;
const HASH: usize = 32;
const OWNER: usize = 16;
/// What the id of a part has beside its number.
const PREFIX: usize = OWNER + BEGINNING + HASH;

/// The name of a cache in the table. `/` stands between the two parts of it and nowhere else.
pub(crate) fn cache(name: &CacheName) -> String {
    let part = |text: &str| text.replace('%', "%25").replace('/', "%2F");
    format!("{}/{}", part(&name.lattice), part(&name.link))
}

/// The section as the table has it.
pub(crate) fn of_section(section: Section) -> i32 {
    i32::from(section.number())
}

/// The partition that holds the parts of a section's values.
pub(crate) fn of_parts(section: Section) -> i32 {
    -1 - of_section(section)
}

/// The partition that says which sections have or had parts.
pub(crate) const WITH_PARTS: i32 = i32::MIN;

/// The row of a section in [`WITH_PARTS`].
pub(crate) fn with_parts(section: Section) -> [u8; 2] {
    section.number().to_be_bytes()
}

/// The timestamp of a value: the time that it begins with, in microseconds. It never falls where the value grows; of two
/// values with one timestamp Cassandra compares all bytes, so those that it leaves out are not lost. What is too short
/// counts as if zeros followed.
///
/// Microseconds are what Cassandra counts in: a `DELETE` by hand is newer than what it is to delete, and ScyllaDB, which
/// refuses timestamps days ahead of its clock, takes these. All times fit: 64 bits, less 16, times a thousand.
pub(crate) fn timestamp(value: &[u8]) -> i64 {
    let mut time = [0; 8];
    let length = value.len().min(time.len());
    time[..length].copy_from_slice(&value[..length]);
    let time = u128::from(u64::from_be_bytes(time));
    ((time * 1_000) >> 16) as i64
}

/// The id of the row of a record.
pub(crate) fn row_id(id: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    match stands_in_row(id) {
        true => id.into(),
        false => [LONG_ID, Sha256::digest(id).as_slice()].concat().into(),
    }
}

fn stands_in_row(id: &[u8]) -> bool {
    id.len() <= MAX_ID && !id.starts_with(LONG_ID)
}

/// What the value of a row says.
pub(crate) enum Stored<'a> {
    /// The value of the record; its id is that of the row.
    Here(&'a [u8]),
    /// It is in parts.
    InParts(Whole),
}

/// What a row says. `None` if no release of ours has written it.
pub(crate) fn stored<'a>(row_id: &[u8], value: &'a [u8]) -> Option<Stored<'a>> {
    match value.split_last()? {
        (&HERE, value) if stands_in_row(row_id) => Some(Stored::Here(value)),
        (&IN_PARTS, said) if said.len() == BEGINNING + HASH + 8 => {
            let (fixed, length) = said.split_at(BEGINNING + HASH);
            Some(Stored::InParts(Whole {
                fixed: fixed.try_into().ok()?,
                length: u64::from_be_bytes(length.try_into().ok()?),
            }))
        }
        _ => None,
    }
}

/// The row of a record: its value, and what has to be written in parts before it.
pub(crate) enum Row {
    /// All of it.
    Here(Vec<u8>),
    /// It says where the rest is.
    InParts(Whole, Batch),
}

/// How a record is stored.
pub(crate) fn row(record: Record<'_>) -> Row {
    if record.value.len() <= MAX_VALUE && stands_in_row(record.id) {
        let mut value = Vec::with_capacity(record.value.len() + 1);
        value.extend_from_slice(record.value);
        value.push(HERE);
        return Row::Here(value);
    }
    let mut whole = Batch::new(Section::HEAD);
    whole.push(record);
    let mut fixed = [0; BEGINNING + HASH];
    let beginning = record.value.len().min(BEGINNING);
    fixed[..beginning].copy_from_slice(&record.value[..beginning]);
    fixed[BEGINNING..].copy_from_slice(&Sha256::digest(whole.as_bytes()));
    let length = whole.as_bytes().len() as u64;
    Row::InParts(Whole { fixed, length }, whole)
}

/// The beginning of a value that is in parts, and the hash and the length of the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Whole {
    fixed: [u8; BEGINNING + HASH],
    length: u64,
}

impl Whole {
    /// The value of its row.
    pub(crate) fn value(&self) -> Vec<u8> {
        let mut value = self.fixed.to_vec();
        value.extend_from_slice(&self.length.to_be_bytes());
        value.push(IN_PARTS);
        value
    }

    /// What the ids of its parts begin with, if it is of this record.
    pub(crate) fn parts(&self, owner: Owner) -> Parts {
        let mut prefix = [0; PREFIX];
        prefix[..OWNER].copy_from_slice(&owner.0);
        prefix[OWNER..].copy_from_slice(&self.fixed);
        Parts(prefix)
    }

    /// Bytes of all parts.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether these bytes are the whole, all of it and unchanged, and of the record of this row.
    pub(crate) fn record<'a>(&self, id: &[u8], bytes: &'a [u8]) -> Option<Record<'a>> {
        if bytes.len() as u64 != self.length || Sha256::digest(bytes).as_slice() != &self.fixed[BEGINNING..] {
            return None;
        }
        let record = Batch::read(bytes).next()??;
        (row_id(record.id) == id).then_some(record)
    }
}

/// Whose parts they are: from the id of a record's row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Owner([u8; OWNER]);

impl Owner {
    /// The owner with this row.
    pub(crate) fn of(row_id: &[u8]) -> Self {
        let hash = Sha256::digest(row_id);
        let mut owner = [0; OWNER];
        owner.copy_from_slice(&hash[..OWNER]);
        Owner(owner)
    }
}

/// The parts of one value: what their ids begin with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Parts([u8; PREFIX]);

impl Parts {
    /// The value that a part with this id is of.
    pub(crate) fn with(id: &[u8]) -> Option<Self> {
        (id.len() == PREFIX + 4).then(|| id.first_chunk().copied().map(Parts))?
    }

    /// The record they belong to.
    pub(crate) fn owner(&self) -> Owner {
        let mut owner = [0; OWNER];
        owner.copy_from_slice(&self.0[..OWNER]);
        Owner(owner)
    }

    /// The timestamp of the record, and of its parts.
    pub(crate) fn timestamp(&self) -> i64 {
        timestamp(&self.0[OWNER..OWNER + BEGINNING])
    }

    /// The id of a part.
    pub(crate) fn id(&self, number: u32) -> Vec<u8> {
        [&self.0[..], &number.to_be_bytes()].concat()
    }

    /// Whether no row can come to need them: the value of the row of their record is larger than theirs. Those of a
    /// larger one belong to somebody who has yet to write its row.
    pub(crate) fn are_left_behind_by(&self, row: &[u8]) -> bool {
        let theirs = &self.0[OWNER..];
        theirs < row && !row.starts_with(theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_never_fall_where_values_grow() {
        let mut values: Vec<Vec<u8>> = (0..=64)
            .map(|bit| (((1u128 << bit) - 1) as u64).to_be_bytes().to_vec())
            .collect();
        values.extend([
            vec![],
            vec![0],
            vec![0, 0, 1],
            vec![0xff],
            vec![0xff; 7],
            vec![0xff; 40],
        ]);
        values.sort();
        let timestamps: Vec<i64> = values.iter().map(|value| timestamp(value)).collect();
        assert!(timestamps.is_sorted() && timestamps[0] == 0, "{timestamps:?}");
        let now = 1_790_000_000_123u64;
        assert_eq!(timestamp(&(now << 16).to_be_bytes()), now as i64 * 1_000);
        assert_eq!(
            timestamp(&((now << 16) + 0xffff).to_be_bytes()),
            now as i64 * 1_000 + 999
        );
    }

    #[test]
    fn what_is_stored_is_in_the_order_of_values() {
        let mut stamp = vec![7; 16];
        let mut values = vec![stamp.clone()];
        for content in [&b"\0"[..], b"\0\0", b"\x01", b"z"] {
            values.push([&stamp[..], content].concat());
        }
        stamp[15] += 1;
        values.push([&stamp[..], &[0; 100_000]].concat());
        stamp[15] += 1;
        values.push(stamp.clone());
        let row_value = |value: &Vec<u8>| match row(Record { id: b"id", value }) {
            Row::Here(value) => value,
            Row::InParts(whole, _) => whole.value(),
        };
        let rows: Vec<Vec<u8>> = values.iter().map(row_value).collect();
        assert!(values.is_sorted() && rows.is_sorted());
    }

    #[test]
    fn ids_do_not_meet() {
        let marked = [LONG_ID, b"x"].concat();
        let long = vec![1; MAX_ID + 1];
        let ids: [&[u8]; 5] = [b"", b"x", &long[1..], &long, &marked];
        for id in ids {
            let row_id = row_id(id);
            assert!(row_id.len() <= MAX_ID, "a key of Cassandra");
            match row(Record { id, value: b"v" }) {
                Row::Here(value) => {
                    assert_eq!(row_id, id);
                    assert!(matches!(stored(id, &value), Some(Stored::Here(b"v"))));
                }
                Row::InParts(whole, bytes) => {
                    assert!(row_id.starts_with(LONG_ID));
                    assert!(matches!(stored(&row_id, &whole.value()), Some(Stored::InParts(same)) if same == whole));
                    let record = whole.record(&row_id, bytes.as_bytes());
                    assert_eq!(record, Some(Record { id, value: b"v" }));
                    assert_eq!(whole.record(b"another row", bytes.as_bytes()), None);
                }
            }
        }
        // Somebody's id that looks like a row of ours is not read as one.
        assert!(stored(&row_id(&long), b"v\0").is_none());
    }

    #[test]
    fn what_is_no_row_of_ours_is_seen() {
        for value in [&b""[..], &[9], &[0; 57][..56], &[1; 56], &[1; 58]] {
            assert!(!matches!(stored(b"id", value), Some(Stored::InParts(_))), "{value:?}");
        }
        assert!(stored(b"id", b"").is_none() && stored(b"id", &[9]).is_none());
        assert!(Parts::with(b"id").is_none());
    }

    #[test]
    fn parts_are_left_behind_only_by_larger_values() {
        let of = |time: u8, content: u8| {
            let value = [&[time; 16][..], &vec![content; MAX_VALUE + 1]].concat();
            match row(Record {
                id: b"id",
                value: &value,
            }) {
                Row::InParts(whole, _) => (whole.parts(Owner::of(b"id")), whole.value()),
                Row::Here(_) => panic!("too large for a row"),
            }
        };
        let ((old, old_row), (new, new_row)) = (of(1, 1), of(2, 0));
        assert!(old.are_left_behind_by(&new_row) && !new.are_left_behind_by(&old_row));
        assert!(!old.are_left_behind_by(&old_row) && !new.are_left_behind_by(&new_row));
        let Row::Here(small) = row(Record {
            id: b"id",
            value: &[2; 20],
        }) else {
            panic!("small");
        };
        assert!(old.are_left_behind_by(&small));
        let (one, two) = (of(3, 1), of(3, 2));
        assert_ne!(one.0.are_left_behind_by(&two.1), two.0.are_left_behind_by(&one.1));
        assert_eq!(Parts::with(&old.id(7)), Some(old));
        assert_eq!(old.owner(), Owner::of(b"id"));
        assert_eq!(old.timestamp(), timestamp(&[1; 16]));
    }

    #[test]
    fn names_of_caches_do_not_meet() {
        let names = [("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"), ("a/b/c", ""), ("", "a/b/c")];
        let mut caches: Vec<String> = names
            .iter()
            .map(|(lattice, link)| {
                cache(&CacheName {
                    lattice: (*lattice).into(),
                    link: (*link).into(),
                })
            })
            .collect();
        caches.sort();
        caches.dedup();
        assert_eq!(caches.len(), names.len(), "{caches:?}");
    }
}
