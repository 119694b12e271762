//! Writing messages.

use bytes::Bytes;
use rmp::encode;

use super::{BeatState, Message, ENVELOPE_BYTES, VERSION};
use crate::cache::{Base, Change, Command, NodeId, SeenAdd, Stamp, Time};

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
pub(in crate::replica) struct Chunk {
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
pub(in crate::replica) struct Chunker {
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
}

impl BeatState {
    fn code(self) -> u64 {
        match self {
            BeatState::Starting => 0,
            BeatState::Synced => 1,
            BeatState::Leaving => 2,
        }
    }
}
