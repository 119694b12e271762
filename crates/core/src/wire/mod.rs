//! The messages of the replication protocol and their one byte layout each (docs/PROTOCOL.md).
//!
//! A message is a header (version, kind, sender), one MessagePack array, and a seal. Decoding never
//! allocates by a length it has not checked against the bytes that are there; keys and values lie where they were
//! received.

mod decode;
mod encode;
mod error;
mod kind;

pub(crate) use decode::MAX_FOREIGN;
pub(crate) use encode::{Chunk, Chunker};
pub use error::WireError;
pub use kind::Kind;

use bytes::Bytes;

use crate::cache::{Blob, Change, Command, Cursor, Digest, NodeId, Partition, Position, Span, Time};

/// Newest version of the protocol that this release speaks: the first byte of every message.
pub const VERSION: u8 = 2;

/// Oldest version of the protocol that this release understands.
pub const OLDEST_VERSION: u8 = 2;

/// Bytes of the header: version, kind, node id (little endian). All versions from 2 on begin with it.
pub const HEADER_BYTES: usize = 10;

/// Bytes of the keyed hash of a seal that travel.
pub(crate) const TAG_BYTES: usize = 16;

/// Bytes of an issuer's public key, which as text (`C...`) is their base 32: prefix, key and checksum.
pub(crate) const ISSUER_BYTES: usize = 35;

/// Bytes of an ed25519 signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Bytes a seal adds to a message, at most.
pub(crate) const MAX_SEAL_BYTES: usize = TAG_BYTES + ISSUER_BYTES + SIGNATURE_BYTES + 1;

/// Most symbols of a sketch. A difference that needs more is found span by span.
pub const MAX_SYMBOLS: usize = 4_096;

/// Bytes of a symbol of a sketch.
const SYMBOL_BYTES: usize = 14;

/// Bytes of a message beside its commands, spans or piece, at most.
pub(crate) const ENVELOPE_BYTES: usize = HEADER_BYTES + MAX_SEAL_BYTES + 64;

/// What every message begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Protocol version of the message.
    pub version: u8,
    /// Number of the kind of message. Another version may have kinds that this one does not know.
    pub kind: u8,
    /// The sender.
    pub node: NodeId,
}

/// Versions go no further than this for as long as the header stays what it is: text begins with a larger byte.
const MAX_VERSION: u8 = 31;

impl Header {
    /// Whether the message can be one of this protocol, in whatever version.
    pub fn is_plausible(self) -> bool {
        (1..=MAX_VERSION).contains(&self.version)
    }

    /// The header of a message of any version; `None` if it is too short to have one.
    pub fn of(message: &[u8]) -> Option<Self> {
        let (head, _) = message.split_first_chunk::<HEADER_BYTES>()?;
        let [version, kind, node @ ..] = *head;
        Some(Header {
            version,
            kind,
            node: NodeId(u64::from_le_bytes(node)),
        })
    }

    /// The kind, if this release knows it.
    pub fn known_kind(self) -> Result<Kind, WireError> {
        Kind::try_from(self.kind)
    }
}

/// Kind of a message of a version this release understands, if it has one.
pub fn kind_of(message: &[u8]) -> Option<Kind> {
    Header::of(message)?.known_kind().ok()
}

/// A batch of commands in the order in which their author made them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<B = Blob> {
    /// Number of the frame, from 1 for each process start.
    pub seq: u64,
    /// Every receiver says when it has applied the frame.
    pub wants_ack: bool,
    /// The author's hybrid clock.
    pub clock: Time,
    /// The commands.
    pub commands: Vec<Command<B>>,
}

/// Asks for what the partitions hold whose digests differ from those given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayRequest {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// First partition.
    pub from: Partition,
    /// The requester's digests of `from` and the partitions after it.
    pub digests: Vec<Digest>,
    /// What the answer holds of partitions that differ: all their commands, or how they split into spans.
    pub want: Want,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
    /// Where the answer begins in the first partition: what [`ReplayEnd::rest`] of an answer of this node said.
    pub rest: Option<Cursor>,
}

/// How a [`ReplayRequest`] wants its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// [`ReplayCommands`]: the requester has little or nothing.
    Commands,
    /// [`Splits`]: the requester has most of it.
    Splits,
}

/// Commands in answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayCommands<B = Blob> {
    /// Which part of which answer this is.
    pub part: Part,
    /// The responder's hybrid clock.
    pub clock: Time,
    /// The commands.
    pub commands: Vec<Command<B>>,
}

/// Names one part of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The node that asked.
    pub to: NodeId,
    /// The number it gave its request.
    pub request: u64,
    /// Number of this part, from 0.
    pub index: u64,
}

/// End of the answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayEnd {
    /// The node that asked.
    pub to: NodeId,
    /// Which request is answered.
    pub request: u64,
    /// How many parts the answer had.
    pub parts: u64,
    /// How much of the request was answered: for a [`ReplayRequest`] or [`Survey`] partitions below this one, else so many
    /// spans or partitions. The rest has to be asked for again.
    pub next: u64,
    /// Up to where partition `next` was answered as well, if that is not from its beginning. Only the responder can go on
    /// from there. Only in answer to a [`ReplayRequest`] that wants commands.
    pub rest: Option<Cursor>,
    /// What the answer stands for: the effect of all frames of these nodes up to these numbers, the responder first.
    pub seqs: Vec<(NodeId, u64)>,
}

/// Compares spans: the answer splits those whose digest differs ([`Splits`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// Spans, with the digest of what the requester holds there.
    pub spans: Vec<(Span, Digest)>,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

/// A span cut into parts of about equal size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// The whole.
    pub span: Span,
    /// Its parts in order. They cover it: each begins after the one before, the last ends with the whole.
    pub parts: Vec<SpanDigest>,
}

/// What the responder holds in a part of a [`Split`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanDigest {
    /// Last position of the part.
    pub last: Position,
    /// Sum of the component hashes there.
    pub digest: Digest,
    /// Number of components there.
    pub count: u64,
}

/// Answer to a [`Compare`], a [`Survey`], or a [`ReplayRequest`] that wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Splits {
    /// Which part of which answer this is.
    pub part: Part,
    /// The spans that differ, split.
    pub splits: Vec<Split>,
}

/// Asks for the commands of spans, less those whose component hashes the requester has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// The requester was away for longer than deletions are remembered: it takes the responder's state, and nothing is
    /// to be taken from it. The answer names the hashes that the responder does not have ([`Unknown`]).
    pub yields: bool,
    /// What the requester holds.
    pub holdings: Vec<Holding>,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

/// What the sender of a [`Fetch`] holds in a span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Where.
    pub span: Span,
    /// The component hashes it has there. `None`: it wants nothing, but has something that the receiver lacks.
    pub hashes: Option<Vec<u64>>,
}

/// Component hashes of an [`Exchange`] or of a yielding [`Fetch`] that the responder does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unknown {
    /// Which part of which answer this is.
    pub part: Part,
    /// The hashes.
    pub hashes: Vec<u64>,
}

/// Begins a comparison: asks for what the partitions hold whose digests differ from those given. The answer is a
/// [`Sketch`] if it looks as if little differed, else [`Splits`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// First partition.
    pub from: Partition,
    /// The requester's digests of `from` and the partitions after it, shortened to 4 bytes by the number of the request.
    pub digests: Vec<u32>,
    /// If not 0: leave out partitions that changed at or after this time of the responder's clock, in milliseconds
    /// before now. They are in flux, and a difference there proves nothing.
    pub settled_ms: u64,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

/// One symbol: what the items mixed into it have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Symbol {
    /// The items, combined by exclusive or.
    pub sum: u64,
    /// Their checks, combined by exclusive or: tells a single item from a mix of several.
    pub check: u32,
    /// Number of items modulo 2^16. In a difference of two symbols: those only in the first less those only in the
    /// second.
    pub count: i16,
}

/// Symbols of all components of some partitions, in answer to a [`Survey`] or a [`SketchRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sketch {
    /// Which part of which answer this is.
    pub part: Part,
    /// The partitions, in ascending order.
    pub partitions: Vec<Partition>,
    /// Index of the first symbol. It is at most [`MAX_SYMBOLS`] together with their number.
    pub first: usize,
    /// The symbols.
    pub symbols: Vec<Symbol>,
}

/// Asks for symbols of partitions, because those that the requester has were too few.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SketchRequest {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// The partitions, in ascending order.
    pub partitions: Vec<Partition>,
    /// Index of the first symbol. It is at most [`MAX_SYMBOLS`] together with their number.
    pub first: usize,
    /// How many symbols.
    pub count: usize,
}

/// Asks for components by their hashes, and offers others. The answer are their commands, and [`Unknown`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// Where the wanted components are, in ascending order.
    pub partitions: Vec<Partition>,
    /// Hashes of the components wanted.
    pub wanted: Vec<u64>,
    /// What the requester has that the receiver seems to lack.
    pub offers: Vec<Offer>,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

/// A component that the sender of an [`Exchange`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Its hash.
    pub hash: u64,
    /// Its [`place`].
    pub place: u64,
    /// Its newest stamp. What the receiver holds at this place from before it need not be sent.
    pub time: Time,
}

/// What a component is about, in 8 bytes: the partition in the upper bits, and a hash of key and identity. It depends on the
/// request, so that nobody can make components in advance that look like one.
pub fn place<B: AsRef<[u8]>>((node, request): (NodeId, u64), partition: Partition, command: &Command<B>) -> u64 {
    let mut key = [0; blake3::KEY_LEN];
    key[..8].copy_from_slice(&node.0.to_le_bytes());
    key[8..16].copy_from_slice(&request.to_le_bytes());
    let mut hasher = blake3::Hasher::new_keyed(&key);
    let bytes = command.key.as_ref();
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    let mut words = |words: &[u64]| {
        for word in words {
            hasher.update(&word.to_le_bytes());
        }
    };
    match &command.change {
        Change::Put { .. } | Change::Delete { .. } => {}
        Change::Add { node, base, .. } => {
            let kind = 2 | u64::from(base.void) << 8 | u64::from(base.expired) << 9;
            words(&[kind, base.stamp.time.0, base.stamp.node.0, node.0]);
        }
        Change::ListPush { id, .. } | Change::ListRemove { id, .. } => words(&[3, id.time.0, id.node.0]),
        Change::SetAdd { member, .. } | Change::SetRemove { member, .. } => {
            words(&[4]);
            hasher.update(member.as_ref());
        }
    }
    let mut hash = [0; 8];
    hasher.finalize_xof().fill(&mut hash);
    u64::from(partition.0) << 54 | u64::from_le_bytes(hash) >> 10
}

/// The partition of a [`place`].
pub fn partition_of(place: u64) -> Partition {
    Partition((place >> 54) as u16)
}

/// Asks the author for frames. The answer are the frames themselves, or [`FramesGone`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FramesRequest {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// First and last number of each run of missing frames.
    pub missing: Vec<(u64, u64)>,
    /// About how many bytes the frames may have.
    pub budget: u64,
}

/// Frames that were asked for are no longer kept: they have to be replaced by a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramesGone {
    /// The node that asked.
    pub to: NodeId,
    /// Oldest frame that is kept, or the next one if none is.
    pub oldest: u64,
}

/// Asks a node to prove that it is alive. Its answer holds a number that nobody could know before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The node asked.
    pub to: NodeId,
    /// Number of the challenge, never used twice by the sender.
    pub number: u64,
    /// The sender counts the receiver as a peer, and only asks whether that is so the other way round.
    pub knows_you: bool,
}

/// Answer to a [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The node that asked.
    pub to: NodeId,
    /// The number it asked with.
    pub number: u64,
    /// The sender has had such an answer from the receiver, and counts it as a peer.
    pub knows_you: bool,
    /// The host that runs the sender.
    pub host: String,
    /// Release of its software.
    pub release: String,
    /// A beat of this moment.
    pub beat: Beat,
}

/// Says that frames were applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The author of the frames.
    pub to: NodeId,
    /// This frame was applied ...
    pub seq: u64,
    /// ... and all up to this one.
    pub contiguous: u64,
}

/// Sent to all peers at a fixed interval: membership, position and digest of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Number of the beat, from 1 for each process start.
    pub number: u64,
    /// Newest frame sent.
    pub seq: u64,
    /// Digest of the whole cache.
    pub digest: Digest,
    /// Keys that hold data.
    pub keys: u64,
    /// Hybrid time at which it was sent.
    pub clock: Time,
    /// Deletions before this time are forgotten.
    pub floor: Time,
    /// When the node last was in contact with a synced peer.
    pub contact: Time,
    /// Since when the state it holds exists; a node takes it over with the first replay.
    pub since: Time,
    /// When its own first replay was done.
    pub joined: Time,
    /// Since when it has been listening without a break.
    pub listening: Time,
    /// What the node is doing.
    pub state: BeatState,
    /// Milliseconds until the next beat.
    pub interval_ms: u64,
    /// Peers are asked to send a beat soon: the sender may have missed something.
    pub wants_beats: bool,
    /// Oldest and newest version of the protocol the node understands.
    pub versions: (u8, u8),
    /// Issuers whose messages the node has heard but does not accept.
    pub foreign: Vec<String>,
}

/// What a node says of itself in its [`Beat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeatState {
    /// Has not had its first replay, or is taking its peers' state after a long absence.
    Starting,
    /// Answers replay requests.
    Synced,
    /// This is its last beat.
    Leaving,
}

/// A piece of a message that is larger than the server's `max_payload`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Number of the fragmented message, unique at the sender.
    pub id: u64,
    /// Number of this piece, from 0.
    pub index: u64,
    /// Number of pieces.
    pub total: u64,
    /// The piece. All pieces in order are a message without a seal.
    pub bytes: Bytes,
}

/// Any message, and the subject it travels on. `B` is how the bytes of commands are held, see [`Command`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<B = Blob> {
    /// subject `commands`, or `node.{id}` when it was asked for
    Frame(Frame<B>),
    /// subject `replay` or `node.{id}`
    ReplayRequest(ReplayRequest),
    /// subject `node.{id}`
    ReplayCommands(ReplayCommands<B>),
    /// subject `node.{id}`
    ReplayEnd(ReplayEnd),
    /// subject `beat`
    Beat(Beat),
    /// any subject
    Fragment(Fragment),
    /// subject `node.{id}`
    Compare(Compare),
    /// subject `node.{id}`
    Splits(Splits),
    /// subject `node.{id}`
    Fetch(Fetch),
    /// subject `node.{id}`
    Unknown(Unknown),
    /// subject `node.{id}`
    FramesRequest(FramesRequest),
    /// subject `node.{id}`
    FramesGone(FramesGone),
    /// subject `node.{id}`
    Hello(Hello),
    /// subject `node.{id}`
    Welcome(Welcome),
    /// subject `node.{id}`
    Ack(Ack),
    /// subject `node.{id}`
    Survey(Survey),
    /// subject `node.{id}`
    Sketch(Sketch),
    /// subject `node.{id}`
    SketchRequest(SketchRequest),
    /// subject `node.{id}`
    Exchange(Exchange),
}

/// Any message that wants an answer which is work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Replay(ReplayRequest),
    Compare(Compare),
    Fetch(Fetch),
    Survey(Survey),
    Symbols(SketchRequest),
    Exchange(Exchange),
    Frames(FramesRequest),
}

impl Request {
    /// Its number, which its sender never used before.
    pub fn number(&self) -> u64 {
        match self {
            Request::Replay(request) => request.request,
            Request::Compare(request) => request.request,
            Request::Fetch(request) => request.request,
            Request::Survey(request) => request.request,
            Request::Symbols(request) => request.request,
            Request::Exchange(request) => request.request,
            Request::Frames(request) => request.request,
        }
    }

    /// About how many bytes the answer may have, if it says so.
    pub fn budget(&self) -> Option<u64> {
        match self {
            Request::Replay(request) => Some(request.budget),
            Request::Compare(request) => Some(request.budget),
            Request::Fetch(request) => Some(request.budget),
            Request::Survey(request) => Some(request.budget),
            Request::Exchange(request) => Some(request.budget),
            Request::Frames(request) => Some(request.budget),
            Request::Symbols(_) => None,
        }
    }
}

impl Split {
    /// The parts as spans. `None` if they do not cover the whole in order.
    pub fn spans(&self) -> Option<Vec<(Span, SpanDigest)>> {
        let mut spans = Vec::with_capacity(self.parts.len());
        let mut first = Some(self.span.first);
        for part in &self.parts {
            let span = Span::new(first?, part.last).filter(|span| span.last <= self.span.last)?;
            spans.push((span, *part));
            first = next_position(part.last);
        }
        (spans.last()?.0.last == self.span.last).then_some(spans)
    }
}

/// The position after `position`, if there is one.
pub(crate) fn next_position(position: Position) -> Option<Position> {
    match position.element.checked_add(1) {
        Some(element) => Some(Position { element, ..position }),
        None => position.key.checked_add(1).map(|key| Position { key, element: 0 }),
    }
}
