//! Resets: a Put or a Delete, which does away with all that a key held before.

use super::add_entry::SeenAdd;
use super::delta::{StateDelta, Value};
use super::hash::{self, KeyHash};
use super::horizon::Horizon;
use super::stamp::{Millis, Stamp};

/// The newest reset of a key and what is left of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reset<'a> {
    pub horizon: Horizon,
    /// The scalar it wrote; `None` after a delete.
    pub value: Option<Value<&'a [u8]>>,
    /// Deadline of the value, see [`super::scalar::Scalar::expires_at`].
    pub expires_at: Option<Millis>,
    /// Counter entries its author had seen.
    pub seen: &'a [SeenAdd],
}

impl<'a> Reset<'a> {
    /// A reset that leaves nothing.
    pub fn void(stamp: Stamp, seen: &'a [SeenAdd]) -> Self {
        Reset {
            horizon: Horizon { stamp, void: true },
            value: None,
            expires_at: None,
            seen,
        }
    }

    /// The reset that a change is, if it is one.
    pub fn of<B: AsRef<[u8]>>(change: &'a StateDelta<B>) -> Option<Self> {
        match change {
            StateDelta::Put {
                at,
                value,
                expires_at,
                seen,
            } => Some(Reset {
                horizon: Horizon {
                    stamp: *at,
                    void: false,
                },
                value: Some(value.borrowed()),
                expires_at: *expires_at,
                seen,
            }),
            StateDelta::Delete { at, seen } => Some(Reset::void(*at, seen)),
            _ => None,
        }
    }

    /// The change that brings this reset to a state that lacks it.
    pub fn change(&self) -> StateDelta<&'a [u8]> {
        let (at, seen) = (self.horizon.stamp, self.seen.to_vec());
        let Some(value) = self.value.filter(|_| !self.horizon.void) else {
            return StateDelta::Delete { at, seen };
        };
        let expires_at = self.expires_at;
        StateDelta::Put {
            at,
            value,
            expires_at,
            seen,
        }
    }

    /// The content hash: the same whether the value was given back or not. Of two resets with one horizon, the one with
    /// the larger counts.
    pub fn content(&self) -> u64 {
        let value = self.value.as_ref().map_or(0, Value::hash);
        hash::of_content(value, self.expires_at, self.seen)
    }

    /// The component hash.
    pub fn hash(&self, key: KeyHash) -> u64 {
        hash::of_reset(key, self.horizon, self.content())
    }

    /// The bytes of the value, unless it was given back.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Some(Value::Held(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub fn expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|deadline| now >= deadline)
    }

    /// The value, as long as it shows.
    pub fn shown(&self, now: Millis) -> Option<&'a [u8]> {
        self.bytes().filter(|_| !self.expired(now))
    }
}
