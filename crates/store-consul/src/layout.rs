//! Where things stand in Consul.
//!
//! ```text
//! base              prefix/nats-kvcache/1/lattice:link/     names percent-encoded
//! a bucket          base b/section/bucket                   section in 4 hex digits, bucket in 1
//! a part            base p/section/bucket/name/number       number in 8 hex digits
//! ```
//!
//! A record is in the bucket that the hash of its id names. Buckets are never deleted, so that the index at which one was
//! last changed only grows.

use kvcache_node::store::{CacheName, Section};
use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use sha2::{Digest, Sha256};

/// Buckets of a section. With more of them a change of one record writes less; with fewer all are written sooner: 100,000
/// records in 0.22, 0.36 and 0.5 s with one, two and four.
pub(crate) const BUCKETS: u8 = 2;
/// A value takes 512 KiB, and a transaction no more with its value in base64.
pub(crate) const PART: usize = 256 << 10;

const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// What all keys of all caches with this prefix begin with.
pub(crate) fn all_caches(prefix: &str) -> String {
    match prefix {
        "" => "nats-kvcache/".into(),
        prefix => format!("{prefix}/nats-kvcache/"),
    }
}

/// The keys of a cache.
pub(crate) struct Keys {
    base: String,
}

impl Keys {
    /// Those of a cache. `:` stands between the two parts of its name and nowhere else.
    pub(crate) fn of(prefix: &str, name: &CacheName) -> Self {
        let part = |text: &str| utf8_percent_encode(text, NAME).to_string();
        let base = format!("{}1/{}:{}/", all_caches(prefix), part(&name.lattice), part(&name.link));
        Keys { base }
    }

    /// A key that never is.
    pub(crate) fn none(&self) -> String {
        format!("{}none", self.base)
    }

    /// What the keys of a section's buckets begin with.
    pub(crate) fn section(&self, section: Section) -> String {
        format!("{}b/{:04x}/", self.base, section.number())
    }

    /// A bucket.
    pub(crate) fn bucket(&self, at: At) -> String {
        format!("{}{:x}", self.section(at.section), at.bucket)
    }

    /// What the keys of all parts begin with.
    pub(crate) fn all_parts(&self) -> String {
        format!("{}p/", self.base)
    }

    /// What the keys of the parts of one value begin with.
    pub(crate) fn parts(&self, at: At, name: &str) -> String {
        format!(
            "{}{:04x}/{:x}/{name}/",
            self.all_parts(),
            at.section.number(),
            at.bucket
        )
    }

    /// A part.
    pub(crate) fn part(&self, at: At, name: &str, number: usize) -> String {
        format!("{}{number:08x}", self.parts(at, name))
    }

    /// Which bucket a key is of.
    pub(crate) fn at(&self, bucket: &str) -> Option<At> {
        let rest = bucket.strip_prefix(&self.base)?.strip_prefix("b/")?;
        let (section, bucket) = rest.split_once('/')?;
        At::read(section, bucket)
    }

    /// Which value a part is of: where it is, and its name.
    pub(crate) fn owner<'a>(&self, part: &'a str) -> Option<(At, &'a str)> {
        let mut steps = part.strip_prefix(&self.all_parts())?.split('/');
        let at = At::read(steps.next()?, steps.next()?)?;
        Some((at, steps.next()?))
    }
}

/// A bucket of a section.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct At {
    pub(crate) section: Section,
    bucket: u8,
}

impl At {
    /// The bucket of a record.
    pub(crate) fn of(section: Section, id: &[u8]) -> Self {
        let bucket = Sha256::digest(id)[0] % BUCKETS;
        At { section, bucket }
    }

    fn read(section: &str, bucket: &str) -> Option<Self> {
        let number = (section.len() == 4).then(|| u16::from_str_radix(section, 16).ok())??;
        let bucket = (bucket.len() == 1).then(|| u8::from_str_radix(bucket, 16).ok())??;
        Some(At {
            section: Section::numbered(number)?,
            bucket,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lattice: &str, link: &str) -> Keys {
        let name = CacheName {
            lattice: lattice.into(),
            link: link.into(),
        };
        Keys::of("team/x", &name)
    }

    #[test]
    fn keys_say_what_they_are_of() {
        let keys = keys("default", "a/b");
        let at = At::of(Section::HEAD, b"id");
        let bucket = keys.bucket(at);
        assert!(
            bucket.starts_with("team/x/nats-kvcache/1/default:a%2Fb/b/0400/"),
            "{bucket}"
        );
        assert!(bucket.starts_with(&keys.section(Section::HEAD)));
        assert_eq!(keys.at(&bucket), Some(at));
        let part = keys.part(at, "name", 17);
        assert!(
            part.starts_with(&keys.parts(at, "name")) && part.ends_with("/00000011"),
            "{part}"
        );
        assert_eq!(keys.owner(&part), Some((at, "name")));
        for strange in ["", "b/0400/0", &keys.none(), &format!("{}b/0401/0", keys.base)] {
            assert_eq!(keys.at(strange), None, "{strange}");
            assert_eq!(keys.owner(strange), None, "{strange}");
        }
    }

    #[test]
    fn names_of_caches_do_not_meet() {
        let names = [
            ("a:b", "c"),
            ("a", "b:c"),
            ("a%3Ab", "c"),
            ("a", ""),
            ("", "a"),
            ("a/b", "c"),
            ("..", "."),
        ];
        let mut bases: Vec<String> = names.iter().map(|(lattice, link)| keys(lattice, link).base).collect();
        bases.sort();
        for pair in bases.windows(2) {
            assert!(!pair[1].starts_with(&pair[0]), "{pair:?}");
        }
    }
}
