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

    /// The value at `now` under `horizon`, which is the reset that wrote `self.value`.
    pub fn view(&self, horizon: Horizon, now: Millis) -> View<'_> {
        let expired = self.expired(now);
        let value = if expired { None } else { self.value.as_deref() };
        let Some(added) = self.added(horizon, expired) else {
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

    /// Sum of the entries that count, or `None` if none does. An entry on the current horizon counts fully; one on an
    /// older horizon that was added to afterwards counts less what the reset had seen of it (observed reset).
    fn added(&self, horizon: Horizon, expired: bool) -> Option<i128> {
        let current = horizon.base(expired);
        let after = match self.expires_at.filter(|_| expired) {
            Some(deadline) => Stamp {
                time: Time::from_millis(deadline),
                node: NodeId(0),
            },
            None => horizon.stamp,
        };
        self.adds.iter().fold(None, |total, entry| {
            let counted = if entry.base == current {
                i128::from(entry.sum)
            } else if entry.base < current && entry.last > after {
                i128::from(entry.sum) - i128::from(self.seen_sum(entry))
            } else {
                return total;
            };
            Some(total.unwrap_or(0) + counted)
        })
    }

    fn seen_sum(&self, entry: &AddEntry) -> i64 {
        let same = |seen: &&SeenAdd| seen.node == entry.node && seen.base == entry.base;
        self.seen.iter().find(same).map_or(0, |seen| seen.sum)
    }

    fn find(&self, node: NodeId, base: Base) -> Result<usize, usize> {
        self.adds
            .binary_search_by(|entry| (entry.node, entry.base).cmp(&(node, base)))
    }

    /// What `node` has added on `base` so far.
    pub fn sum_of(&self, node: NodeId, base: Base) -> i64 {
        self.find(node, base).map_or(0, |place| self.adds[place].sum)
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
        let mut delta = 0u64;
        self.adds.retain(|entry| {
            let keep = entry.survives(horizon);
            if !keep {
                delta = delta.wrapping_sub(hash::of_add(key, entry.node, entry.base, entry.last));
            }
            keep
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
