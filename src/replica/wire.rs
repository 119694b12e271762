//! The messages of the replication protocol and their one byte layout each (docs/PROTOCOL.md).
//!
//! A message is a version byte, a kind byte and one MessagePack array. Decoding never allocates by a length it has not
//! checked against the bytes that are there; keys and values are slices of the received message.

use bytes::Bytes;
use rmp::{decode, encode};

use crate::cache::{Base, Change, Command, Digest, NodeId, Partition, SeenAdd, Stamp, Time, PARTITIONS};

/// Version of the protocol: the first byte of every message.
pub const VERSION: u8 = 1;

/// Bytes of a frame or replay message beside its commands, at most.
pub(super) const ENVELOPE_BYTES: usize = 64;

/// Why a message was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// Another protocol version.
    #[error("protocol version {0}, this node speaks {VERSION}")]
    Version(u8),
    /// A kind this version does not have.
    #[error("unknown message kind {0}")]
    Kind(u8),
    /// A command this version does not have.
    #[error("unknown command {0}")]
    Command(u64),
    /// The message ends too early or holds something else than expected.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
}

/// A batch of commands in the order in which their author made them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The author.
    pub node: NodeId,
    /// Number of the frame, from 1 for each process start.
    pub seq: u64,
    /// The author's hybrid clock.
    pub clock: Time,
    /// The commands.
    pub commands: Vec<Command>,
}

/// Asks for the commands of a range of partitions whose digests differ from those given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayRequest {
    /// Who asks; answers go to its own subject.
    pub node: NodeId,
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// First partition.
    pub from: Partition,
    /// The requester's digests of `from` and the partitions after it.
    pub digests: Vec<Digest>,
    /// If not 0: leave out partitions that changed at or after this time of the responder's clock, in milliseconds
    /// before now. They are in flux, and a difference there proves nothing.
    pub settled_ms: u64,
}

/// A part of the answer to a [`ReplayRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayCommands {
    /// The responder.
    pub node: NodeId,
    /// Which request is answered.
    pub request: u64,
    /// Number of this part, from 0.
    pub index: u64,
    /// The responder's hybrid clock.
    pub clock: Time,
    /// The commands.
    pub commands: Vec<Command>,
}

/// End of the answer to a [`ReplayRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayEnd {
    /// The responder.
    pub node: NodeId,
    /// Which request is answered.
    pub request: u64,
    /// The answer holds the effect of the responder's frames up to this one.
    pub seq: u64,
    /// How many [`ReplayCommands`] the answer had.
    pub messages: u64,
    /// Partitions below this one were answered; the rest has to be asked for again.
    pub next: u16,
    /// Wrapping sum of the responder's digests of the partitions answered.
    pub digest: Digest,
}

/// Sent to all peers at a fixed interval: membership, position and digest of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Who.
    pub node: NodeId,
    /// The host that runs it.
    pub host: String,
    /// Release of the software.
    pub release: String,
    /// Newest frame sent.
    pub seq: u64,
    /// Digest of the whole cache.
    pub digest: Digest,
    /// Keys that hold data.
    pub keys: u64,
    /// Hybrid clock.
    pub clock: Time,
    /// Deletions before this time are forgotten.
    pub floor: Time,
    /// What the node is doing.
    pub state: BeatState,
    /// Milliseconds until the next beat.
    pub interval_ms: u64,
}

/// What a node says of itself in its [`Beat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeatState {
    /// Has not had its first replay.
    Starting,
    /// Answers replay requests.
    Synced,
    /// This is its last beat.
    Leaving,
}

/// A piece of a message that is larger than the server's `max_payload`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The sender.
    pub node: NodeId,
    /// Number of the fragmented message, unique at the sender.
    pub id: u64,
    /// Number of this piece, from 0.
    pub index: u64,
    /// Number of pieces.
    pub total: u64,
    /// The piece.
    pub bytes: Bytes,
}

/// Any message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// kind 1, subject `commands`
    Frame(Frame),
    /// kind 2, subject `replay` or `node.{id}`
    ReplayRequest(ReplayRequest),
    /// kind 3, subject `node.{id}`
    ReplayCommands(ReplayCommands),
    /// kind 4, subject `node.{id}`
    ReplayEnd(ReplayEnd),
    /// kind 5, subject `beat`
    Beat(Beat),
    /// kind 6, any subject
    Fragment(Fragment),
}

// --- encoding

/// Encoder of one message. Writes into memory cannot fail, hence the `expect`s.
#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn message(kind: u8, fields: u32) -> Self {
        let mut encoder = Encoder(Vec::with_capacity(128));
        encoder.0.extend_from_slice(&[VERSION, kind]);
        encoder.array(fields);
        encoder
    }

    fn array(&mut self, length: u32) {
        encode::write_array_len(&mut self.0, length).expect("writes to memory");
    }

    fn uint(&mut self, value: u64) {
        encode::write_uint(&mut self.0, value).expect("writes to memory");
    }

    fn int(&mut self, value: i64) {
        encode::write_sint(&mut self.0, value).expect("writes to memory");
    }

    fn bin(&mut self, bytes: &[u8]) {
        encode::write_bin(&mut self.0, bytes).expect("writes to memory");
    }

    fn text(&mut self, text: &str) {
        encode::write_str(&mut self.0, text).expect("writes to memory");
    }

    fn nil(&mut self) {
        encode::write_nil(&mut self.0).expect("writes to memory");
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

    fn command(&mut self, command: &Command) {
        let head = |encoder: &mut Encoder, fields, code| {
            encoder.array(fields);
            encoder.uint(code);
            encoder.bin(&command.key);
        };
        match &command.change {
            Change::Put {
                at,
                value,
                expires_at,
                seen,
            } => {
                head(self, 7, 0);
                self.stamp(*at);
                match value {
                    Some(value) => self.bin(value),
                    None => self.nil(),
                }
                match expires_at {
                    Some(deadline) => self.uint(*deadline),
                    None => self.nil(),
                }
                self.seen(seen);
            }
            Change::Delete { at, seen } => {
                head(self, 5, 1);
                self.stamp(*at);
                self.seen(seen);
            }
            Change::Add { node, base, sum, at } => {
                head(self, 9, 2);
                self.uint(node.0);
                self.base(*base);
                self.int(*sum);
                self.stamp(*at);
            }
            Change::ListPush { id, value } => {
                head(self, 5, 3);
                self.stamp(*id);
                self.bin(value);
            }
            Change::ListRemove { id, at } => {
                head(self, 6, 4);
                self.stamp(*id);
                self.stamp(*at);
            }
            Change::SetAdd { member, at } => {
                head(self, 5, 5);
                self.stamp(*at);
                self.bin(member);
            }
            Change::SetRemove { member, at } => {
                head(self, 5, 6);
                self.stamp(*at);
                self.bin(member);
            }
        }
    }
}

/// Encoded commands that go into one message.
#[derive(Default)]
pub(super) struct Chunk {
    encoder: Encoder,
    count: u32,
}

impl Chunk {
    /// Encoded bytes.
    pub fn len(&self) -> usize {
        self.encoder.0.len()
    }

    /// How many commands.
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// The commands as a [`Frame`].
    pub fn into_frame(self, node: NodeId, seq: u64, clock: Time) -> Bytes {
        self.into_message(1, &[node.0, seq, clock.0])
    }

    /// The commands as [`ReplayCommands`].
    pub fn into_replay(self, node: NodeId, request: u64, index: u64, clock: Time) -> Bytes {
        self.into_message(3, &[node.0, request, index, clock.0])
    }

    fn into_message(self, kind: u8, head: &[u64]) -> Bytes {
        let mut message = Encoder::message(kind, head.len() as u32 + 1);
        message.0.reserve(self.len() + ENVELOPE_BYTES);
        head.iter().for_each(|field| message.uint(*field));
        message.array(self.count);
        message.0.extend_from_slice(&self.encoder.0);
        message.0.into()
    }
}

/// Collects commands into chunks of at most `max_bytes`; a single command that is larger stands alone.
pub(super) struct Chunker {
    max_bytes: usize,
    current: Chunk,
}

impl Chunker {
    pub fn new(max_bytes: usize) -> Self {
        Chunker {
            max_bytes,
            current: Chunk::default(),
        }
    }

    /// Adds a command. Returns the commands before it once it no longer fits beside them.
    pub fn push(&mut self, command: &Command) -> Option<Chunk> {
        let bytes = &mut self.current.encoder;
        let start = bytes.0.len();
        bytes.command(command);
        if start > 0 && bytes.0.len() > self.max_bytes {
            let tail = Encoder(bytes.0.split_off(start));
            return Some(std::mem::replace(
                &mut self.current,
                Chunk {
                    encoder: tail,
                    count: 1,
                },
            ));
        }
        self.current.count += 1;
        None
    }

    /// Bytes not yet returned as a chunk.
    pub fn pending(&self) -> usize {
        self.current.len()
    }

    /// What is left.
    pub fn finish(self) -> Option<Chunk> {
        (self.current.count > 0).then_some(self.current)
    }
}

fn one_chunk(commands: &[Command]) -> Chunk {
    let mut chunk = Chunk::default();
    for command in commands {
        chunk.encoder.command(command);
        chunk.count += 1;
    }
    chunk
}

impl Message {
    /// The bytes of the message.
    pub fn encode(&self) -> Bytes {
        match self {
            Message::Frame(frame) => one_chunk(&frame.commands).into_frame(frame.node, frame.seq, frame.clock),
            Message::ReplayCommands(replay) => {
                one_chunk(&replay.commands).into_replay(replay.node, replay.request, replay.index, replay.clock)
            }
            Message::ReplayRequest(request) => {
                let mut encoder = Encoder::message(2, 5);
                encoder.uint(request.node.0);
                encoder.uint(request.request);
                encoder.uint(request.from.0.into());
                let digests: Vec<u8> = request
                    .digests
                    .iter()
                    .flat_map(|digest| digest.0.to_le_bytes())
                    .collect();
                encoder.bin(&digests);
                encoder.uint(request.settled_ms);
                encoder.0.into()
            }
            Message::ReplayEnd(end) => {
                let mut encoder = Encoder::message(4, 6);
                for field in [
                    end.node.0,
                    end.request,
                    end.seq,
                    end.messages,
                    end.next.into(),
                    end.digest.0,
                ] {
                    encoder.uint(field);
                }
                encoder.0.into()
            }
            Message::Beat(beat) => {
                let mut encoder = Encoder::message(5, 10);
                encoder.uint(beat.node.0);
                encoder.text(&beat.host);
                encoder.text(&beat.release);
                for field in [beat.seq, beat.digest.0, beat.keys, beat.clock.0, beat.floor.0] {
                    encoder.uint(field);
                }
                encoder.uint(beat.state.code());
                encoder.uint(beat.interval_ms);
                encoder.0.into()
            }
            Message::Fragment(fragment) => {
                let mut encoder = Encoder::message(6, 5);
                encoder.0.reserve(fragment.bytes.len() + ENVELOPE_BYTES);
                for field in [fragment.node.0, fragment.id, fragment.index, fragment.total] {
                    encoder.uint(field);
                }
                encoder.bin(&fragment.bytes);
                encoder.0.into()
            }
        }
    }

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
    fn code(self) -> u64 {
        match self {
            BeatState::Starting => 0,
            BeatState::Synced => 1,
            BeatState::Leaving => 2,
        }
    }

    fn from_code(code: u64) -> Result<Self, WireError> {
        match code {
            0 => Ok(BeatState::Starting),
            1 => Ok(BeatState::Synced),
            2 => Ok(BeatState::Leaving),
            _ => Err(WireError::Malformed("state of a beat")),
        }
    }
}

// --- decoding

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
            self.array(5, "seen entry")?;
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
