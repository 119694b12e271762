//! The subjects of records, parts and caches in a bucket.

use crate::store::{CacheName, Section};

/// Longer names of a cache are hashed: subjects are bounded.
const MAX_NAME: usize = 120;

/// Bytes of the hash of an id: two with one hash are not to be found, by whoever chooses ids too.
const HASH_BYTES: usize = 16;

/// The subjects of one cache.
pub(super) struct Subjects {
    /// `$KV.bucket.`
    bucket: String,
    cache: String,
}

/// What tells the parts of one record from all others.
pub(super) type Nonce = [u8; 16];

impl Subjects {
    pub fn of(bucket: &str, cache: &CacheName) -> Self {
        Subjects {
            bucket: format!("$KV.{bucket}."),
            cache: cache_token(cache),
        }
    }

    /// Says which cache it is.
    pub fn name(&self) -> String {
        format!("{}n.{}", self.bucket, self.cache)
    }

    pub fn record(&self, section: Section, id: &[u8]) -> String {
        self.of_hash(section, &hash_of(id))
    }

    /// That of the record whose id has this hash.
    pub fn of_hash(&self, section: Section, hash: &[u8; HASH_BYTES]) -> String {
        format!("{}c.{}.{}.{}", self.bucket, self.cache, section.number(), hex(hash))
    }

    /// The records of a section.
    pub fn section(&self, section: Section) -> String {
        format!("{}c.{}.{}.*", self.bucket, self.cache, section.number())
    }

    /// What a reader of a section writes behind all that is there. It is no record.
    pub fn end(&self, section: Section) -> String {
        format!("{}c.{}.{}.end", self.bucket, self.cache, section.number())
    }

    /// The records of all sections.
    pub fn all(&self) -> String {
        format!("{}c.{}.>", self.bucket, self.cache)
    }

    /// The section that a record with this subject belongs to.
    pub fn section_of(&self, subject: &str) -> Option<Section> {
        let rest = subject.strip_prefix(&self.bucket)?.strip_prefix("c.")?;
        let (number, _) = rest.strip_prefix(&self.cache)?.strip_prefix('.')?.split_once('.')?;
        Section::numbered(number.parse().ok()?)
    }

    pub fn part(&self, section: Section, nonce: &Nonce, number: u32) -> String {
        format!("{}.{number}", self.parts_prefix(section, nonce))
    }

    /// The parts of one record.
    pub fn parts(&self, section: Section, nonce: &Nonce) -> String {
        format!("{}.*", self.parts_prefix(section, nonce))
    }

    /// The parts of all records.
    pub fn all_parts(&self) -> String {
        format!("{}p.{}.>", self.bucket, self.cache)
    }

    /// Which section and record a part is of.
    pub fn part_of(&self, subject: &str) -> Option<(Section, Nonce)> {
        let rest = subject.strip_prefix(&self.bucket)?.strip_prefix("p.")?;
        let rest = rest.strip_prefix(&self.cache)?.strip_prefix('.')?;
        let mut tokens = rest.split('.');
        let section = Section::numbered(tokens.next()?.parse().ok()?)?;
        let nonce = u128::from_str_radix(tokens.next()?, 16).ok()?;
        Some((section, nonce.to_be_bytes()))
    }

    fn parts_prefix(&self, section: Section, nonce: &Nonce) -> String {
        format!("{}p.{}.{}.{}", self.bucket, self.cache, section.number(), hex(nonce))
    }
}

/// The hash of the id of a record.
pub(super) fn hash_of(id: &[u8]) -> [u8; HASH_BYTES] {
    let hash = blake3::hash(id);
    std::array::from_fn(|n| hash.as_bytes()[n])
}

/// No two caches have one. What is hashed begins as no escaped name does.
fn cache_token(cache: &CacheName) -> String {
    let name = format!("{}/{}", escaped(&cache.lattice), escaped(&cache.link));
    match name.len() <= MAX_NAME {
        true => name,
        false => format!("=h{}", hex(blake3::hash(name.as_bytes()).as_bytes())),
    }
}

fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("={byte:02X}")),
        }
    }
    escaped
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(lattice: &str, link: &str) -> Subjects {
        let (lattice, link) = (lattice.into(), link.into());
        Subjects::of("b", &CacheName { lattice, link })
    }

    #[test]
    fn subjects_are_read_back_and_caches_do_not_mix() {
        let subjects = subjects("my.lattice", "default");
        let section = Section::numbered(77).unwrap();
        let record = subjects.record(section, b"id");
        assert_eq!(
            record,
            "$KV.b.c.my=2Elattice/default.77.23c7cdb118db77dddc3b1324a1af6f7a"
        );
        assert_eq!(subjects.section_of(&record), Some(section));
        assert_eq!(subjects.section_of("$KV.b.c.my=2Elattice/default2.77.x"), None);
        let nonce = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];
        let part = subjects.part(section, &nonce, 3);
        assert_eq!(
            part,
            "$KV.b.p.my=2Elattice/default.77.000102030405060708090a0b0c0d0eff.3"
        );
        assert_eq!(subjects.part_of(&part), Some((section, nonce)));
        assert_eq!(subjects.part_of(&record), None);
    }

    #[test]
    fn no_two_caches_have_one_name() {
        let long = "l".repeat(300);
        let names = [
            subjects("a/b", "c"),
            subjects("a", "b/c"),
            subjects("a", ""),
            subjects("", "a"),
            subjects("A", ""),
            subjects("=h", ""),
            subjects(&long, "a"),
            subjects(&long, "b"),
        ]
        .map(|subjects| subjects.name());
        for (n, name) in names.iter().enumerate() {
            assert!(!names[..n].contains(name), "{name}");
            assert!(name.len() < 160, "{name}");
            let key = name.strip_prefix("$KV.b.").unwrap();
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-/_=.".contains(c);
            assert!(key.chars().all(is_allowed), "{key}");
        }
    }
}
