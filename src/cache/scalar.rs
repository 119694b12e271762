//! Scalars and counters: the value of the newest reset, its deadline, and what nodes added to it.

use super::blob::Blob;
use super::command::{Base, SeenAdd};
use super::hash::{self, KeyHash};
use super::stamp::{Millis, NodeId, Stamp, Time};
use super::state::Horizon;

/// Cumulative sum of what one node added while it saw one horizon; merged by newest stamp.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AddEntry {
    pub node: NodeId,
    pub base: Base,
    pub last: Stamp,
    pub sum: i64,
}

impl AddEntry {
    /// Whether this entry still means something above `horizon`.
    pub fn survives(&self, horizon: Horizon) -> bool {
        self.base.horizon() >= horizon || self.last > horizon.stamp
    }
}

/// A scalar with anything beyond its bare value: a deadline, counter entries, or what its reset had seen of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Scalar {
    /// The value of the reset; `None` after a delete, or when it expired and was given back.
    pub value: Option<Blob>,
    /// Deadline of the value. A view of the state, never a change of it: what the key shows depends on the clock,
    /// what is merged and hashed does not. So nodes that sweep at different times stay equal.
    pub expires_at: Option<Millis>,
    pub seen: Vec<SeenAdd>,
    /// Sorted by `(node, base)`.
    pub adds: Vec<AddEntry>,
}

/// When a key is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    pub now: Millis,
    /// Deletions stamped before this time are forgotten.
    pub floor: Time,
}

/// How a reader counts entries at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    /// The base on which entries count fully.
    pub current: Base,
    /// Entries on older bases count if they were added to after this.
    pub after: Stamp,
    /// The value's deadline has passed.
    pub expired: bool,
    /// Resets stamped before this time do not arrive any more.
    pub floor: Time,
}

impl Reading {
    /// Whether all that was ever added on `base` counts.
    pub fn in_full(self, base: Base) -> bool {
        base == self.current || base.stamp > self.after && self.stands_alone(base)
    }

    /// Of a base newer than the horizon: no reset made it, or one that is forgotten.
    fn stands_alone(self, base: Base) -> bool {
        base.is_fresh() || base.stamp.time < self.floor
    }

    /// Whether additions on `base` that are newer than the last reset or deadline count.
    fn in_part(self, base: Base) -> bool {
        base < self.current || base.stamp > self.current.stamp && self.stands_alone(base)
    }
}

/// What a reader sees of a scalar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum View<'a> {
    Nothing,
    Text(&'a [u8]),
    /// Sum of a canonical integer (or nothing) and of the additions that count.
    Number(i64),
}

impl Scalar {
    pub fn expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|deadline| now >= deadline)
    }

    /// How a reader counts entries under `horizon`, which is the reset that wrote `self.value`.
    pub fn reading(&self, horizon: Horizon, moment: Moment) -> Reading {
        let expired = self.expired(moment.now);
        let after = match self.expires_at.filter(|_| expired) {
            Some(deadline) => Stamp {
                time: Time::from_millis(deadline),
                node: NodeId(0),
            },
            None => horizon.stamp,
        };
        Reading {
            current: horizon.base(expired),
            after,
            expired,
            floor: moment.floor,
        }
    }

    /// The value under `horizon`, which is the reset that wrote `self.value`.
    pub fn view(&self, horizon: Horizon, moment: Moment) -> View<'_> {
        let reading = self.reading(horizon, moment);
        let value = if reading.expired { None } else { self.value.as_deref() };
        let Some(added) = self.added(reading) else {
            return value.map_or(View::Nothing, View::Text);
        };
        match value {
            None => View::Number(clamp(added)),
            Some(text) => match parse_integer(text) {
                Some(start) => View::Number(clamp(i128::from(start) + added)),
                // A concurrent writer put a text there; one server would have refused the additions.
                None => View::Text(text),
            },
        }
    }

    /// Sum of the entries that count, or `None` if none does.
    pub fn added(&self, reading: Reading) -> Option<i128> {
        self.adds
            .iter()
            .filter_map(|entry| self.counted(entry, reading))
            .reduce(|total, counted| total + counted)
    }

    /// How much of an entry counts, if it does. One on the current horizon counts fully, and so does one on a newer base
    /// that waits for no reset; one on an older base that was added to after the horizon counts less what the reset had
    /// seen of it (observed reset).
    pub fn counted(&self, entry: &AddEntry, reading: Reading) -> Option<i128> {
        if reading.in_full(entry.base) {
            Some(entry.sum.into())
        } else if reading.in_part(entry.base) && entry.last > reading.after {
            Some(i128::from(entry.sum) - i128::from(self.seen_sum(entry.node, entry.base)))
        } else {
            None
        }
    }

    /// What the reset had seen of an entry.
    pub fn seen_sum(&self, node: NodeId, base: Base) -> i64 {
        let same = |seen: &&SeenAdd| seen.node == node && seen.base == base;
        self.seen.iter().find(same).map_or(0, |seen| seen.sum)
    }

    pub fn find(&self, node: NodeId, base: Base) -> Result<usize, usize> {
        self.adds
            .binary_search_by(|entry| (entry.node, entry.base).cmp(&(node, base)))
    }

    /// The newest of the entries of `node` that count in full.
    pub fn entry_of(&self, node: NodeId, reading: Reading) -> Option<&AddEntry> {
        // Sorted by base within a node.
        let own = self.adds.iter().rev().filter(|entry| entry.node == node);
        own.into_iter().find(|entry| reading.in_full(entry.base))
    }

    /// Merges an entry by newest stamp. Returns the change of the digest.
    pub fn merge(&mut self, key: KeyHash, entry: AddEntry) -> u64 {
        let new_hash = hash::of_add(key, entry.node, entry.base, entry.last);
        match self.find(entry.node, entry.base) {
            Err(place) => {
                self.adds.insert(place, entry);
                new_hash
            }
            Ok(place) if self.adds[place].last < entry.last => {
                let old = std::mem::replace(&mut self.adds[place], entry);
                new_hash.wrapping_sub(hash::of_add(key, old.node, old.base, old.last))
            }
            Ok(_) => 0,
        }
    }

    /// Drops the entries that `horizon` covers. Returns the change of the digest.
    pub fn drop_covered(&mut self, key: KeyHash, horizon: Horizon) -> u64 {
        self.drop_where(key, |entry| !entry.survives(horizon))
    }

    /// Drops entries. Returns the change of the digest.
    pub fn drop_where(&mut self, key: KeyHash, mut gone: impl FnMut(&AddEntry) -> bool) -> u64 {
        let mut delta = 0u64;
        self.adds.retain(|entry| {
            let drop = gone(entry);
            if drop {
                delta = delta.wrapping_sub(hash::of_add(key, entry.node, entry.base, entry.last));
            }
            !drop
        });
        delta
    }

    /// Stamp of the newest addition, or the zero stamp.
    pub fn newest_add(&self) -> Stamp {
        self.adds.iter().map(|entry| entry.last).max().unwrap_or_default()
    }

    pub fn seen_now(&self) -> Vec<SeenAdd> {
        self.adds
            .iter()
            .map(|entry| SeenAdd {
                node: entry.node,
                base: entry.base,
                sum: entry.sum,
            })
            .collect()
    }
}

fn clamp(number: i128) -> i64 {
    number.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// A canonical decimal integer as Redis INCRBY takes it: `-?[1-9][0-9]*` or `0`, within i64.
pub(super) fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_integer;

    #[test]
    fn only_canonical_integers_count() {
        for (text, number) in [
            ("0", 0),
            ("7", 7),
            ("-7", -7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            "+5",
            "007",
            "-0",
            " 12",
            "12 ",
            "3.5",
            "1e3",
            "0x1",
            "9223372036854775808",
            "\u{0665}",
        ] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
    }
}
