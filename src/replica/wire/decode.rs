//! Reading messages of strangers.

use bytes::Bytes;
use rmp::decode;

use super::{Beat, BeatState, Fragment, Frame, Message, ReplayCommands, ReplayEnd, ReplayRequest, WireError, VERSION};
use crate::cache::{Base, Change, Command, Digest, NodeId, Partition, SeenAdd, Stamp, Time, PARTITIONS};

impl Message {
    /// Reads a message. Fields that a later release appends to an array are ignored.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let (version, kind) = match bytes[..] {
            [version, kind, ..] => (version, kind),
            _ => return Err(WireError::Malformed("shorter than two bytes")),
        };
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let mut decoder = Decoder {
            message: &bytes,
            rest: &bytes[2..],
        };
        match kind {
            1 => decoder.frame().map(Message::Frame),
            2 => decoder.replay_request().map(Message::ReplayRequest),
            3 => decoder.replay_commands().map(Message::ReplayCommands),
            4 => decoder.replay_end().map(Message::ReplayEnd),
            5 => decoder.beat().map(Message::Beat),
            6 => decoder.fragment().map(Message::Fragment),
            other => Err(WireError::Kind(other)),
        }
    }
}

impl BeatState {
    fn from_code(code: u64) -> Result<Self, WireError> {
        match code {
            0 => Ok(BeatState::Starting),
            1 => Ok(BeatState::Synced),
            2 => Ok(BeatState::Leaving),
            _ => Err(WireError::Malformed("state of a beat")),
        }
    }
}

/// Smallest encoding of a command, to bound what is reserved for an announced number of them.
const MIN_COMMAND_BYTES: usize = 8;

/// Longest host name or release text that is kept of a beat.
const MAX_TEXT_BYTES: usize = 256;

struct Decoder<'a> {
    message: &'a Bytes,
    rest: &'a [u8],
}

impl Decoder<'_> {
    /// An array of at least `fields` elements; more are from a later release and stay unread.
    fn array(&mut self, fields: u32, what: &'static str) -> Result<(), WireError> {
        match decode::read_array_len(&mut self.rest) {
            Ok(length) if length >= fields => Ok(()),
            _ => Err(WireError::Malformed(what)),
        }
    }

    fn length(&mut self, what: &'static str) -> Result<usize, WireError> {
        decode::read_array_len(&mut self.rest)
            .map(|length| length as usize)
            .map_err(|_| WireError::Malformed(what))
    }

    fn uint(&mut self, what: &'static str) -> Result<u64, WireError> {
        decode::read_int(&mut self.rest).map_err(|_| WireError::Malformed(what))
    }

    fn int(&mut self, what: &'static str) -> Result<i64, WireError> {
        decode::read_int(&mut self.rest).map_err(|_| WireError::Malformed(what))
    }

    fn take(&mut self, length: u32, what: &'static str) -> Result<Bytes, WireError> {
        let Some((head, tail)) = self.rest.split_at_checked(length as usize) else {
            return Err(WireError::Malformed(what));
        };
        self.rest = tail;
        Ok(self.message.slice_ref(head))
    }

    fn bin(&mut self, what: &'static str) -> Result<Bytes, WireError> {
        let length = decode::read_bin_len(&mut self.rest).map_err(|_| WireError::Malformed(what))?;
        self.take(length, what)
    }

    fn text(&mut self, what: &'static str) -> Result<String, WireError> {
        let length = decode::read_str_len(&mut self.rest).map_err(|_| WireError::Malformed(what))?;
        let bytes = self.take(length, what)?;
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(WireError::Malformed(what));
        }
        String::from_utf8(bytes.into()).map_err(|_| WireError::Malformed(what))
    }

    fn is_nil(&mut self) -> bool {
        let nil = self.rest.first() == Some(&rmp::Marker::Null.to_u8());
        if nil {
            self.rest = &self.rest[1..];
        }
        nil
    }

    fn node(&mut self) -> Result<NodeId, WireError> {
        self.uint("node").map(NodeId)
    }

    fn time(&mut self, what: &'static str) -> Result<Time, WireError> {
        self.uint(what).map(Time)
    }

    fn stamp(&mut self) -> Result<Stamp, WireError> {
        Ok(Stamp {
            time: self.time("time of a stamp")?,
            node: self.node()?,
        })
    }

    fn base(&mut self) -> Result<Base, WireError> {
        let stamp = self.stamp()?;
        match self.uint("flags of a base")? {
            flags @ 0..=3 => Ok(Base {
                stamp,
                void: flags & 1 != 0,
                expired: flags & 2 != 0,
            }),
            _ => Err(WireError::Malformed("flags of a base")),
        }
    }

    fn seen(&mut self) -> Result<Vec<SeenAdd>, WireError> {
        let length = self.length("seen")?;
        let mut seen = Vec::with_capacity(length.min(self.rest.len() / MIN_COMMAND_BYTES));
        for _ in 0..length {
            // Nothing can be skipped inside a message, so the number of fields is fixed.
            if self.length("seen entry")? != 5 {
                return Err(WireError::Malformed("number of fields of a seen entry"));
            }
            seen.push(SeenAdd {
                node: self.node()?,
                base: self.base()?,
                sum: self.int("seen sum")?,
            });
        }
        Ok(seen)
    }

    fn command(&mut self) -> Result<Command, WireError> {
        let fields = self.length("command")?;
        let code = self.uint("code of a command")?;
        let expected = match code {
            0 => 7,
            1 | 3 | 5 | 6 => 5,
            2 => 9,
            4 => 6,
            _ => return Err(WireError::Command(code)),
        };
        if fields != expected {
            return Err(WireError::Malformed("number of fields of a command"));
        }
        let key = self.bin("key")?;
        let change = match code {
            0 => {
                let at = self.stamp()?;
                let value = if self.is_nil() { None } else { Some(self.bin("value")?) };
                let expires_at = if self.is_nil() {
                    None
                } else {
                    Some(self.uint("deadline")?)
                };
                Change::Put {
                    at,
                    value,
                    expires_at,
                    seen: self.seen()?,
                }
            }
            1 => Change::Delete {
                at: self.stamp()?,
                seen: self.seen()?,
            },
            2 => Change::Add {
                node: self.node()?,
                base: self.base()?,
                sum: self.int("sum")?,
                at: self.stamp()?,
            },
            3 => Change::ListPush {
                id: self.stamp()?,
                value: self.bin("item")?,
            },
            4 => Change::ListRemove {
                id: self.stamp()?,
                at: self.stamp()?,
            },
            5 => Change::SetAdd {
                at: self.stamp()?,
                member: self.bin("member")?,
            },
            _ => Change::SetRemove {
                at: self.stamp()?,
                member: self.bin("member")?,
            },
        };
        Ok(Command { key, change })
    }

    fn commands(&mut self) -> Result<Vec<Command>, WireError> {
        let length = self.length("commands")?;
        let mut commands = Vec::with_capacity(length.min(self.rest.len() / MIN_COMMAND_BYTES));
        for _ in 0..length {
            commands.push(self.command()?);
        }
        Ok(commands)
    }

    fn frame(&mut self) -> Result<Frame, WireError> {
        self.array(4, "frame")?;
        Ok(Frame {
            node: self.node()?,
            seq: self.uint("sequence number")?,
            clock: self.time("clock")?,
            commands: self.commands()?,
        })
    }

    fn replay_request(&mut self) -> Result<ReplayRequest, WireError> {
        self.array(5, "replay request")?;
        let (node, request) = (self.node()?, self.uint("request")?);
        let from = self.uint("first partition")?;
        let digests = self.bin("digests")?;
        let count = digests.len() / 8;
        if digests.len() % 8 != 0 || from.saturating_add(count as u64) > PARTITIONS as u64 {
            return Err(WireError::Malformed("range of partitions"));
        }
        let digests = digests
            .chunks_exact(8)
            .map(|bytes| Digest(u64::from_le_bytes(bytes.try_into().expect("chunks of 8 bytes"))))
            .collect();
        Ok(ReplayRequest {
            node,
            request,
            from: Partition(from as u16),
            digests,
            settled_ms: self.uint("settled")?,
        })
    }

    fn replay_commands(&mut self) -> Result<ReplayCommands, WireError> {
        self.array(5, "replay commands")?;
        Ok(ReplayCommands {
            node: self.node()?,
            request: self.uint("request")?,
            index: self.uint("index")?,
            clock: self.time("clock")?,
            commands: self.commands()?,
        })
    }

    fn replay_end(&mut self) -> Result<ReplayEnd, WireError> {
        self.array(6, "replay end")?;
        let (node, request) = (self.node()?, self.uint("request")?);
        let (seq, messages) = (self.uint("sequence number")?, self.uint("number of messages")?);
        let next = match self.uint("next partition")? {
            next if next <= PARTITIONS as u64 => next as u16,
            _ => return Err(WireError::Malformed("next partition")),
        };
        Ok(ReplayEnd {
            node,
            request,
            seq,
            messages,
            next,
            digest: Digest(self.uint("digest")?),
        })
    }

    fn beat(&mut self) -> Result<Beat, WireError> {
        self.array(10, "beat")?;
        Ok(Beat {
            node: self.node()?,
            host: self.text("host")?,
            release: self.text("release")?,
            seq: self.uint("sequence number")?,
            digest: Digest(self.uint("digest")?),
            keys: self.uint("keys")?,
            clock: self.time("clock")?,
            floor: self.time("floor")?,
            state: BeatState::from_code(self.uint("state of a beat")?)?,
            interval_ms: self.uint("interval")?,
        })
    }

    fn fragment(&mut self) -> Result<Fragment, WireError> {
        self.array(5, "fragment")?;
        Ok(Fragment {
            node: self.node()?,
            id: self.uint("id of a fragment")?,
            index: self.uint("index of a fragment")?,
            total: self.uint("number of fragments")?,
            bytes: self.bin("bytes of a fragment")?,
        })
    }
}
