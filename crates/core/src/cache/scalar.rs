//! Scalars and counters: the value of the newest reset, its deadline, and what nodes added to it.

use super::add_entry::{AddEntry, SeenAdd};
use super::adds::Adds;
use super::delta::Value;
use super::hash::KeyHash;
use super::horizon::{Base, Horizon};
use super::stamp::{Millis, NodeId, Stamp, Time};

/// A scalar with anything beyond its bare value: a deadline, counter entries, or what its reset had seen of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Scalar {
    /// The value of the reset; `None` after a delete.
    pub value: Option<Value>,
    /// Deadline of the value. A view of the state, never a change of it: what the key shows depends on the clock,
    /// what is merged and hashed does not. So nodes that sweep at different times stay equal.
    pub expires_at: Option<Millis>,
    /// Sorted by node and base.
    pub seen: Vec<SeenAdd>,
    pub adds: Adds,
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
    /// The value, unless it was given back.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.value.as_ref().and_then(Value::bytes)
    }

    pub fn expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|deadline| now >= deadline)
    }

    /// How a reader counts entries under `horizon`, which is the reset that wrote `self.value`.
    pub fn reading(&self, horizon: Horizon, moment: Moment) -> Reading {
        let expired = self.expired(moment.now);
        let after = match self.expires_at.filter(|_| expired) {
            Some(deadline) => {
                let at = Stamp {
                    time: Time::from_millis(deadline),
                    node: NodeId(0),
                };
                // A reset of a key that was written with a clock far ahead may be stamped after its own deadline.
                at.max(horizon.stamp)
            }
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
        let value = if reading.expired { None } else { self.bytes() };
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

    /// How much of an entry counts, if it does. One on the current horizon counts fully, and so does one on a newer
    /// base that waits for no reset; one on an older base that was added to after the horizon counts less what the
    /// reset had seen of it (observed reset).
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
        let place = |seen: &SeenAdd| (seen.node, seen.base);
        let found = self.seen.binary_search_by_key(&(node, base), place);
        found.map_or(0, |found| self.seen[found].sum)
    }

    /// The newest of the entries of `node` that count in full.
    pub fn entry_of(&self, node: NodeId, reading: Reading) -> Option<&AddEntry> {
        // Sorted by base within a node.
        let own = self.adds.iter().rev().filter(|entry| entry.node == node);
        own.into_iter().find(|entry| reading.in_full(entry.base))
    }

    /// Drops the entries that `horizon` covers. Returns the change of the digest.
    pub fn drop_covered(&mut self, key: KeyHash, horizon: Horizon) -> u64 {
        self.adds.drop_where(key, |entry| !entry.survives(horizon))
    }

    /// What a reset made now has seen.
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
