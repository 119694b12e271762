//! The keys that sections have in Redis.

use kvcache_node::store::{CacheName, Section};

/// Format 1: see the documentation of the crate.
const FORMAT: &str = "nats-kvcache:1";

/// The keys of one cache.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub fn of(cache: &CacheName) -> Self {
        let (lattice, link) = (escaped(&cache.lattice), escaped(&cache.link));
        Keys {
            prefix: format!("{FORMAT}:{lattice}:{link}:"),
        }
    }

    pub fn section(&self, section: Section) -> String {
        format!("{}{}", self.prefix, section.number())
    }
}

/// What is left as it is has no meaning in keys, in patterns or in hash tags.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_caches_share_a_key() {
        let keys = |lattice: &str, link: &str| {
            Keys::of(&CacheName {
                lattice: lattice.into(),
                link: link.into(),
            })
            .section(Section::HEAD)
        };
        assert_eq!(keys("a.b", "default"), "nats-kvcache:1:a.b:default:1024");
        assert_eq!(keys("a:1", "{x}"), "nats-kvcache:1:a%3A1:%7Bx%7D:1024");
        assert_eq!(keys("ü", "%3A"), "nats-kvcache:1:%C3%BC:%253A:1024");
        assert_ne!(keys("a", "1:x"), keys("a:1", "x"));
        assert_ne!(keys("a", ""), keys("", "a"));
    }
}
