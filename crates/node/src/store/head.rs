//! The head of a store: what it is, whose, and how far back it goes.

use kvcache_core::cache::{NodeId, Stamp, Time};
use kvcache_core::durable::{Batch, Held, Record, Section};
use kvcache_core::replica::Lineage;

use super::{CacheName, StoreError};

/// Names of the records. The values of all but the lineage begin with the zero stamp: they never change.
const FORMAT: &[u8] = b"format";
const CACHE: &[u8] = b"cache";
const LINEAGE: &[u8] = b"lineage";
/// The larger one of two stays, where two nodes began at one time.
const NUMBER: &[u8] = b"number";

/// What this release reads and writes.
const OUR_FORMAT: &str = "nats-kvcache 1";

const STAMP_BYTES: usize = 16;

/// The head of a store that belongs to a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// Since when the state exists.
    pub state_since: Time,
    /// A number of its own: nodes that read the same one share it.
    pub number: u64,
}

impl Head {
    /// What the head of a store says. `None` for a store that nothing was ever written to; an error where it is not of
    /// this cache, or of a format that this release does not read.
    pub fn read(records: &Held, store: &str, cache: &CacheName) -> Result<Option<Self>, StoreError> {
        let text = |name: &[u8]| {
            let value = records.get(name)?.get(STAMP_BYTES..)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let Some(format) = text(FORMAT) else {
            return match records.is_empty() {
                true => Ok(None),
                false => Err(StoreError::Unusable(format!(
                    "{store} holds something that is not of nats-kvcache"
                ))),
            };
        };
        if format != OUR_FORMAT {
            return Err(StoreError::Unusable(format!(
                "{store} holds format {format:?}; this release reads {OUR_FORMAT:?}"
            )));
        }
        let (held, ours) = (text(CACHE).unwrap_or_default(), named(cache));
        if held != ours {
            return Err(StoreError::Unusable(format!(
                "{store} is of the cache {held:?}, not of {ours:?}"
            )));
        }
        let number = |name: &[u8]| {
            let value = records.get(name).and_then(|value| value.get(STAMP_BYTES..));
            value
                .and_then(|value| value.try_into().ok())
                .map_or(0, u64::from_be_bytes)
        };
        Ok(Some(Head {
            state_since: Time(number(LINEAGE)),
            number: number(NUMBER),
        }))
    }

    /// The records that say so.
    pub fn write(self, at: Stamp, cache: &CacheName) -> Batch {
        let mut batch = Batch::new(Section::HEAD);
        let mut push = |name: &[u8], at: Stamp, content: &[u8]| {
            let value = [&at.time.0.to_be_bytes()[..], &at.node.0.to_be_bytes(), content].concat();
            batch.push(Record {
                id: name,
                value: &value,
            });
        };
        let never = Stamp {
            time: Time(0),
            node: NodeId(0),
        };
        push(FORMAT, never, OUR_FORMAT.as_bytes());
        push(CACHE, never, named(cache).as_bytes());
        push(NUMBER, never, &self.number.to_be_bytes());
        push(LINEAGE, at, &self.state_since.0.to_be_bytes());
        batch
    }

    /// The lineage of a state that was complete up to `contact`.
    pub fn lineage(self, contact: Time) -> Lineage {
        Lineage {
            state_since: self.state_since.min(contact),
            // It joins when its node is synced. Until then some time will do, but none is no state.
            joined_at: contact.max(Time(1)),
            last_contact: contact,
            taken_since: None,
        }
    }
}

fn named(cache: &CacheName) -> String {
    format!("{:?} of the lattice {:?}", cache.link, cache.lattice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(link: &str) -> CacheName {
        CacheName {
            lattice: "lattice".into(),
            link: link.into(),
        }
    }

    #[test]
    fn a_head_comes_back_and_others_are_refused_by_name() {
        let head = Head {
            state_since: Time(5 << 16),
            number: 77,
        };
        let at = Stamp {
            time: Time(9 << 16),
            node: NodeId(3),
        };
        let batch = head.write(at, &name("a"));
        let mut records: Held = batch
            .iter()
            .map(|record| (record.id.into(), record.value.into()))
            .collect();
        assert_eq!(Head::read(&Held::new(), "it", &name("a")), Ok(None));
        assert_eq!(Head::read(&records, "it", &name("a")), Ok(Some(head)));
        let error = Head::read(&records, "it", &name("b")).unwrap_err().to_string();
        assert!(
            error.contains("is of the cache") && error.contains("\\\"a\\\""),
            "{error}"
        );
        let later = [&records[FORMAT], &b"7"[..]].concat();
        records.insert(FORMAT.into(), later.into());
        let error = Head::read(&records, "it", &name("a")).unwrap_err().to_string();
        assert!(
            error.contains("nats-kvcache 17") && error.contains("this release reads"),
            "{error}"
        );
        records.remove(FORMAT);
        let error = Head::read(&records, "it", &name("a")).unwrap_err().to_string();
        assert!(error.contains("not of nats-kvcache"), "{error}");
        let lineage = head.lineage(Time(6 << 16));
        assert_eq!(
            (lineage.state_since, lineage.last_contact),
            (Time(5 << 16), Time(6 << 16))
        );
        assert_ne!(head.lineage(Time(0)).joined_at, Time(0), "a state that exists");
    }
}
