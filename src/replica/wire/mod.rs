//! The messages of the replication protocol and their one byte layout each (docs/PROTOCOL.md).
//!
//! A message is a version byte, a kind byte and one MessagePack array. Decoding never allocates by a length it has not
//! checked against the bytes that are there; keys and values are slices of the received message.

mod decode;
mod encode;

pub(in crate::replica) use encode::{Chunk, Chunker};

use bytes::Bytes;

use crate::cache::{Command, Digest, NodeId, Partition, Time};

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
