//! Writing messages.

use super::{Beat, BeatState, Kind, Message, Offer, Part, Split, Want, ENVELOPE_BYTES, MAX_SEAL_BYTES, SYMBOL_BYTES};
use crate::cache::{Command, Cursor, NodeId, Partition, Position, Span, Time};
use crate::codec::Encoder;

impl Encoder {
    fn message(version: u8, node: NodeId, kind: Kind, fields: u32) -> Self {
        let mut encoder = Encoder(Vec::with_capacity(256));
        encoder.0.extend_from_slice(&[version, kind.into()]);
        encoder.0.extend_from_slice(&node.0.to_le_bytes());
        encoder.array(fields);
        encoder
    }

    /// Each as its distance from the one before, which mostly takes one byte.
    fn partitions(&mut self, partitions: &[Partition]) {
        self.array(partitions.len() as u32);
        let mut next = 0;
        for partition in partitions {
            let number = u64::from(partition.0);
            self.uint(number.saturating_sub(next));
            next = number + 1;
        }
    }

    /// The upper end of a span mostly is the end of a key: nil, which is shorter.
    fn last(&mut self, position: Position) {
        self.uint(position.key);
        match position.element {
            u64::MAX => self.nil(),
            element => self.uint(element),
        }
    }

    fn span(&mut self, span: Span) {
        self.uints(&[span.first.key, span.first.element]);
        self.last(span.last);
    }

    fn split(&mut self, split: &Split) {
        self.array(5);
        self.span(split.span);
        self.array(split.parts.len() as u32);
        for part in &split.parts {
            self.array(4);
            self.last(part.last);
            self.uints(&[part.digest.0, part.count]);
        }
    }

    fn cursor(&mut self, cursor: Option<Cursor>) {
        match cursor {
            Some(cursor) => self.bin(&cursor.to_bytes()),
            None => self.nil(),
        }
    }

    fn part(&mut self, part: Part) {
        self.uints(&[part.to.0, part.request, part.index]);
    }

    fn beat(&mut self, beat: &Beat) {
        self.array(16);
        self.uints(&[
            beat.number,
            beat.seq,
            beat.digest.0,
            beat.keys,
            beat.clock.0,
            beat.floor.0,
            beat.contact.0,
            beat.since.0,
            beat.joined.0,
            beat.listening.0,
            beat.state.code(),
            beat.interval_ms,
            beat.wants_beats.into(),
            beat.versions.0.into(),
            beat.versions.1.into(),
        ]);
        self.array(beat.foreign.len() as u32);
        beat.foreign.iter().for_each(|issuer| self.text(issuer));
    }
}

/// Encoded commands that go into one message.
#[derive(Default)]
pub(crate) struct Chunk {
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

    /// The commands as a [`Frame`](super::Frame), in as many bytes as it takes: the ring keeps it.
    pub fn into_frame(self, version: u8, node: NodeId, seq: u64, wants_ack: bool, clock: Time) -> Vec<u8> {
        let mut message = self.head(version, node, Kind::Frame, &[seq, wants_ack.into(), clock.0]);
        message.reserve_exact(self.len() + MAX_SEAL_BYTES);
        message.extend_from_slice(&self.encoder.0);
        message
    }

    /// The commands as [`ReplayCommands`](super::ReplayCommands), where they lie: they are many, and gone when they are
    /// sent.
    pub fn into_replay(self, version: u8, node: NodeId, part: Part, clock: Time) -> Vec<u8> {
        let head = self.head(
            version,
            node,
            Kind::ReplayCommands,
            &[part.to.0, part.request, part.index, clock.0],
        );
        let mut message = self.encoder.0;
        message.reserve_exact(head.len() + MAX_SEAL_BYTES);
        message.splice(0..0, head);
        message
    }

    /// What stands before the commands in a message.
    fn head(&self, version: u8, node: NodeId, kind: Kind, fields: &[u64]) -> Vec<u8> {
        let mut head = Encoder::message(version, node, kind, fields.len() as u32 + 1);
        head.uints(fields);
        head.array(self.count);
        head.0
    }
}

/// Collects commands into chunks of at most `max_bytes`; a single command that is larger stands alone.
pub(crate) struct Chunker {
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
    pub fn push<B: AsRef<[u8]>>(&mut self, command: &Command<B>) -> Option<Chunk> {
        let bytes = &mut self.current.encoder;
        let start = bytes.0.len();
        bytes.command(command);
        if start > 0 && bytes.0.len() > self.max_bytes {
            // Where there is one full chunk, others follow: room for another with a command too many, and the rest.
            let mut next = Vec::with_capacity(self.max_bytes + self.max_bytes / 8 + ENVELOPE_BYTES);
            next.extend_from_slice(&bytes.0[start..]);
            bytes.0.truncate(start);
            let encoder = Encoder(next);
            return Some(std::mem::replace(&mut self.current, Chunk { encoder, count: 1 }));
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
    /// The bytes of the message from `node` without its seal.
    pub fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let start = |kind, fields| Encoder::message(version, node, kind, fields);
        let encoder = match self {
            Message::Frame(frame) => {
                let chunk = one_chunk(&frame.commands);
                return chunk.into_frame(version, node, frame.seq, frame.wants_ack, frame.clock);
            }
            Message::ReplayCommands(replay) => {
                return one_chunk(&replay.commands).into_replay(version, node, replay.part, replay.clock);
            }
            Message::ReplayRequest(request) => {
                let mut encoder = start(Kind::ReplayRequest, 6);
                encoder.uints(&[request.request, request.from.0.into()]);
                let digests: Vec<u64> = request.digests.iter().map(|digest| digest.0).collect();
                encoder.hashes(&digests);
                encoder.uints(&[request.want.code(), request.budget]);
                encoder.cursor(request.rest);
                encoder
            }
            Message::ReplayEnd(end) => {
                let mut encoder = start(Kind::ReplayEnd, 6);
                encoder.uints(&[end.to.0, end.request, end.parts, end.next]);
                encoder.cursor(end.rest);
                encoder.array(2 * end.seqs.len() as u32);
                end.seqs.iter().for_each(|(node, seq)| encoder.uints(&[node.0, *seq]));
                encoder
            }
            Message::Beat(beat) => {
                let mut encoder = start(Kind::Beat, 1);
                encoder.beat(beat);
                encoder
            }
            Message::Fragment(fragment) => {
                let mut encoder = start(Kind::Fragment, 4);
                encoder.0.reserve(fragment.bytes.len() + ENVELOPE_BYTES);
                encoder.uints(&[fragment.id, fragment.index, fragment.total]);
                encoder.bin(&fragment.bytes);
                encoder
            }
            Message::Compare(compare) => {
                let mut encoder = start(Kind::Compare, 3);
                encoder.uint(compare.request);
                encoder.array(compare.spans.len() as u32);
                for (span, digest) in &compare.spans {
                    encoder.array(5);
                    encoder.span(*span);
                    encoder.uint(digest.0);
                }
                encoder.uint(compare.budget);
                encoder
            }
            Message::Splits(splits) => {
                let mut encoder = start(Kind::Splits, 4);
                encoder.part(splits.part);
                encoder.array(splits.splits.len() as u32);
                splits.splits.iter().for_each(|split| encoder.split(split));
                encoder
            }
            Message::Fetch(fetch) => {
                let mut encoder = start(Kind::Fetch, 4);
                encoder.uints(&[fetch.request, fetch.yields.into()]);
                encoder.array(fetch.holdings.len() as u32);
                for holding in &fetch.holdings {
                    encoder.array(5);
                    encoder.span(holding.span);
                    match &holding.hashes {
                        Some(hashes) => encoder.hashes(hashes),
                        None => encoder.nil(),
                    }
                }
                encoder.uint(fetch.budget);
                encoder
            }
            Message::Unknown(unknown) => {
                let mut encoder = start(Kind::Unknown, 4);
                encoder.part(unknown.part);
                encoder.hashes(&unknown.hashes);
                encoder
            }
            Message::FramesRequest(request) => {
                let mut encoder = start(Kind::FramesRequest, 3);
                encoder.uint(request.request);
                encoder.array(2 * request.missing.len() as u32);
                let runs = request.missing.iter();
                runs.for_each(|(first, last)| encoder.uints(&[*first, *last]));
                encoder.uint(request.budget);
                encoder
            }
            Message::FramesGone(gone) => {
                let mut encoder = start(Kind::FramesGone, 2);
                encoder.uints(&[gone.to.0, gone.oldest]);
                encoder
            }
            Message::Hello(hello) => {
                let mut encoder = start(Kind::Hello, 3);
                encoder.uints(&[hello.to.0, hello.number, hello.knows_you.into()]);
                encoder
            }
            Message::Welcome(welcome) => {
                let mut encoder = start(Kind::Welcome, 6);
                encoder.uints(&[welcome.to.0, welcome.number, welcome.knows_you.into()]);
                encoder.text(&welcome.host);
                encoder.text(&welcome.release);
                encoder.beat(&welcome.beat);
                encoder
            }
            Message::Ack(ack) => {
                let mut encoder = start(Kind::Ack, 3);
                encoder.uints(&[ack.to.0, ack.seq, ack.contiguous]);
                encoder
            }
            Message::Survey(survey) => {
                let mut encoder = start(Kind::Survey, 5);
                encoder.uints(&[survey.request, survey.from.0.into()]);
                let digests: Vec<u8> = survey.digests.iter().flat_map(|digest| digest.to_le_bytes()).collect();
                encoder.bin(&digests);
                encoder.uints(&[survey.settled_ms, survey.budget]);
                encoder
            }
            Message::Sketch(sketch) => {
                let mut encoder = start(Kind::Sketch, 6);
                encoder.part(sketch.part);
                encoder.partitions(&sketch.partitions);
                encoder.uint(sketch.first as u64);
                let mut symbols = Vec::with_capacity(sketch.symbols.len() * SYMBOL_BYTES);
                for symbol in &sketch.symbols {
                    symbols.extend_from_slice(&symbol.sum.to_le_bytes());
                    symbols.extend_from_slice(&symbol.check.to_le_bytes());
                    symbols.extend_from_slice(&symbol.count.to_le_bytes());
                }
                encoder.bin(&symbols);
                encoder
            }
            Message::SketchRequest(request) => {
                let mut encoder = start(Kind::SketchRequest, 4);
                encoder.uint(request.request);
                encoder.partitions(&request.partitions);
                encoder.uints(&[request.first as u64, request.count as u64]);
                encoder
            }
            Message::Exchange(exchange) => {
                let mut encoder = start(Kind::Exchange, 5);
                encoder.uint(exchange.request);
                encoder.partitions(&exchange.partitions);
                encoder.hashes(&exchange.wanted);
                let words = |offer: &Offer| [offer.hash, offer.place, offer.time.0];
                let offers: Vec<u64> = exchange.offers.iter().flat_map(words).collect();
                encoder.hashes(&offers);
                encoder.uint(exchange.budget);
                encoder
            }
        };
        encoder.0
    }
}

impl Want {
    fn code(self) -> u64 {
        match self {
            Want::Commands => 0,
            Want::Splits => 1,
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
