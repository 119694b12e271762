//! The byte layout of a delta.

use super::decoder::{Decoder, Held};
use super::encoder::Encoder;
use super::error::CodecError;
use crate::cache::{Base, Delta, NodeId, SeenAdd, Stamp, StateDelta, Time, Value};

/// Smallest encoding of a delta, to bound what is reserved for an announced number of them.
const MIN_DELTA_BYTES: usize = 8;

/// What a delta does, as a number.
const PUT: u64 = 0;
const DELETE: u64 = 1;
const ADD: u64 = 2;
const LIST_PUSH: u64 = 3;
const LIST_REMOVE: u64 = 4;
const SET_ADD: u64 = 5;
const SET_REMOVE: u64 = 6;

impl Encoder {
    /// Writes a delta.
    ///
    /// ```text
    /// array of so many fields (a decoder takes no other number):
    ///   uint   code
    ///   bin    key
    ///   ...    by code
    ///
    /// code  fields
    ///   0   7  Put          stamp at, value, expires_at, seen
    ///   1   5  Delete       stamp at, seen
    ///   2   9  Add          uint node, base, int sum, stamp at
    ///   3   5  ListPush     stamp id, bin value
    ///   4   6  ListRemove   stamp id, stamp at
    ///   5   5  SetAdd       stamp at, bin member
    ///   6   5  SetRemove    stamp at, bin member
    ///
    /// stamp        uint time, uint node: 2 fields
    /// base         stamp, uint flags: 3 fields; of the flags, 1 is void and 2 is expired
    /// value        bin, or uint: the content hash of one that was given back
    /// expires_at   uint, or nil for none
    /// seen         array of arrays of 5: uint node, base, int sum
    /// ```
    pub fn delta<B: AsRef<[u8]>>(&mut self, delta: &Delta<B>) {
        let head = |encoder: &mut Encoder, fields, code| {
            encoder.array(fields);
            encoder.uint(code);
            encoder.bin(delta.key.as_ref());
        };
        match &delta.change {
            StateDelta::Put {
                at,
                value,
                expires_at,
                seen,
            } => {
                head(self, 7, PUT);
                self.stamp(*at);
                match value {
                    Value::Held(value) => self.bin(value.as_ref()),
                    Value::GivenBack(hash) => self.uint(*hash),
                }
                match expires_at {
                    Some(deadline) => self.uint(*deadline),
                    None => self.nil(),
                }
                self.seen(seen);
            }
            StateDelta::Delete { at, seen } => {
                head(self, 5, DELETE);
                self.stamp(*at);
                self.seen(seen);
            }
            StateDelta::Add { node, base, sum, at } => {
                head(self, 9, ADD);
                self.uint(node.0);
                self.base(*base);
                self.int(*sum);
                self.stamp(*at);
            }
            StateDelta::ListPush { id, value } => {
                head(self, 5, LIST_PUSH);
                self.stamp(*id);
                self.bin(value.as_ref());
            }
            StateDelta::ListRemove { id, at } => {
                head(self, 6, LIST_REMOVE);
                self.stamp(*id);
                self.stamp(*at);
            }
            StateDelta::SetAdd { member, at } => {
                head(self, 5, SET_ADD);
                self.stamp(*at);
                self.bin(member.as_ref());
            }
            StateDelta::SetRemove { member, at } => {
                head(self, 5, SET_REMOVE);
                self.stamp(*at);
                self.bin(member.as_ref());
            }
        }
    }

    fn stamp(&mut self, stamp: Stamp) {
        self.uint(stamp.time.0);
        self.uint(stamp.node.0);
    }

    fn base(&mut self, base: Base) {
        self.stamp(base.stamp);
        self.uint(u64::from(base.void) | u64::from(base.expired) << 1);
    }

    fn seen(&mut self, seen: &[SeenAdd]) {
        self.array(seen.len() as u32);
        for entry in seen {
            self.array(5);
            self.uint(entry.node.0);
            self.base(entry.base);
            self.int(entry.sum);
        }
    }
}

impl<'a> Decoder<'a> {
    /// Reads what [`Encoder::delta`] writes.
    pub fn delta<B: Held<'a>>(&mut self) -> Result<Delta<B>, CodecError> {
        let fields = self.length("delta")?;
        let code = self.uint("code of a delta")?;
        let expected = match code {
            PUT => 7,
            DELETE | LIST_PUSH | SET_ADD | SET_REMOVE => 5,
            ADD => 9,
            LIST_REMOVE => 6,
            _ => return Err(CodecError::Delta(code)),
        };
        if fields != expected {
            return Err(CodecError::Malformed("number of fields of a delta"));
        }
        let key = self.bin("key")?;
        let change = match code {
            PUT => {
                let at = self.stamp()?;
                let value = self.value()?;
                let expires_at = if self.is_nil() {
                    None
                } else {
                    Some(self.uint("deadline")?)
                };
                StateDelta::Put {
                    at,
                    value,
                    expires_at,
                    seen: self.seen()?,
                }
            }
            DELETE => StateDelta::Delete {
                at: self.stamp()?,
                seen: self.seen()?,
            },
            ADD => StateDelta::Add {
                node: self.node()?,
                base: self.base()?,
                sum: self.int("sum")?,
                at: self.stamp()?,
            },
            LIST_PUSH => StateDelta::ListPush {
                id: self.stamp()?,
                value: self.bin("item")?,
            },
            LIST_REMOVE => StateDelta::ListRemove {
                id: self.stamp()?,
                at: self.stamp()?,
            },
            SET_ADD => StateDelta::SetAdd {
                at: self.stamp()?,
                member: self.bin("member")?,
            },
            _ => StateDelta::SetRemove {
                at: self.stamp()?,
                member: self.bin("member")?,
            },
        };
        Ok(Delta { key, change })
    }

    /// An array of deltas.
    pub(crate) fn deltas<B: Held<'a>>(&mut self) -> Result<Vec<Delta<B>>, CodecError> {
        let length = self.length("deltas")?;
        let mut deltas = Vec::with_capacity(length.min(self.rest.len() / MIN_DELTA_BYTES));
        for _ in 0..length {
            deltas.push(self.delta()?);
        }
        Ok(deltas)
    }

    pub(crate) fn node(&mut self) -> Result<NodeId, CodecError> {
        self.uint("node").map(NodeId)
    }

    pub(crate) fn time(&mut self, what: &'static str) -> Result<Time, CodecError> {
        self.uint(what).map(Time)
    }

    fn stamp(&mut self) -> Result<Stamp, CodecError> {
        Ok(Stamp {
            time: self.time("time of a stamp")?,
            node: self.node()?,
        })
    }

    fn base(&mut self) -> Result<Base, CodecError> {
        let stamp = self.stamp()?;
        match self.uint("flags of a base")? {
            flags @ 0..=3 => Ok(Base {
                stamp,
                void: flags & 1 != 0,
                expired: flags & 2 != 0,
            }),
            _ => Err(CodecError::Malformed("flags of a base")),
        }
    }

    /// The bytes of a value, or a number: the content hash of one that was given back.
    fn value<B: Held<'a>>(&mut self) -> Result<Value<B>, CodecError> {
        if self.is_bin() {
            Ok(Value::Held(self.bin("value")?))
        } else {
            Ok(Value::GivenBack(self.uint("value")?))
        }
    }

    fn seen(&mut self) -> Result<Vec<SeenAdd>, CodecError> {
        let length = self.length("seen")?;
        let mut seen = Vec::with_capacity(length.min(self.rest.len() / MIN_DELTA_BYTES));
        for _ in 0..length {
            // Nothing can be skipped inside a message, so the number of fields is fixed.
            if self.length("seen entry")? != 5 {
                return Err(CodecError::Malformed("number of fields of a seen entry"));
            }
            seen.push(SeenAdd {
                node: self.node()?,
                base: self.base()?,
                sum: self.int("seen sum")?,
            });
        }
        Ok(seen)
    }
}
