//! The messages of the replication protocol and their one byte layout each (docs/PROTOCOL.md).
//!
//! A message is a header (version, kind, sender), one MessagePack array, and an authenticator. Decoding never allocates
//! by a length it has not checked against the bytes that are there; keys and values lie where they were received.
//!
//! Each family of messages has a file: the types, their layout, encoding and decoding. The layouts name
//!
//! | type | bytes |
//! | --- | --- |
//! | uint, flag | an integer of 64 bits without sign; one that is 0 or 1 |
//! | bin, text | a binary; a string of at most 256 bytes |
//! | hashes | a bin of integers of 64 bits, little endian, one after the other |
//! | array | an array of what is named after it |
//! | part, span, position, partitions, cursor | see [`Part`], `compare.rs`, `sketch.rs`, `bootstrap.rs` |
//! | deltas | see [`Encoder::delta`](crate::codec::Encoder::delta) |
//!
//! Of the outermost array and of a heartbeat, further elements are from a later release and stay unread.

mod ack;
mod bootstrap;
mod bounds;
mod chunk;
mod compare;
mod envelope;
mod error;
mod fields;
mod fragment;
mod frame;
mod gaps;
mod heartbeat;
mod hello;
mod kind;
mod request;
mod sketch;

pub use ack::FrameAck;
pub use bootstrap::{AnswerEnd, BootstrapDeltas, BootstrapRequest, Want};
pub(crate) use bounds::{MAX_BUDGET, MAX_FOREIGN_IN_HEARTBEAT, MAX_TEXT_BYTES};
pub use bounds::{MAX_HINTS, MAX_SYMBOLS};
pub(crate) use chunk::{Chunk, Chunker};
#[cfg(test)]
pub(crate) use compare::next_position;
pub use compare::{Compare, Fetch, Holding, RangeSplit, RangeSplits, SpanDigest, Unknown};
pub use envelope::{kind_of, Header, HEADER_BYTES, OLDEST_VERSION, VERSION};
pub(crate) use envelope::{ENVELOPE_BYTES, ISSUER_BYTES, MAX_AUTHENTICATOR_BYTES, SIGNATURE_BYTES, TAG_BYTES};
pub use error::WireError;
pub use fields::Part;
pub use fragment::Fragment;
pub use frame::Frame;
pub use gaps::{FramesGone, FramesRequest};
pub use heartbeat::{Heartbeat, HeartbeatState};
pub use hello::{Hello, Welcome};
pub use kind::Kind;
pub(crate) use request::Request;
pub use sketch::{partition_of, place, DigestRequest, Offer, Reconcile, Sketch, SketchRequest, Symbol};

use bytes::Bytes;

use crate::cache::{Blob, NodeId};
use crate::codec::{Decoder, Held};

/// Any message, and the subject it travels on. `B` is how the bytes of deltas are held, see
/// [`Delta`](crate::cache::Delta).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<B = Blob> {
    /// subject `deltas`, or `node.{id}` when it was asked for
    Frame(Frame<B>),
    /// subject `bootstrap` or `node.{id}`
    BootstrapRequest(BootstrapRequest),
    /// subject `node.{id}`
    BootstrapDeltas(BootstrapDeltas<B>),
    /// subject `node.{id}`
    AnswerEnd(AnswerEnd),
    /// subject `heartbeat`
    Heartbeat(Heartbeat),
    /// any subject
    Fragment(Fragment),
    /// subject `node.{id}`
    Compare(Compare),
    /// subject `node.{id}`
    RangeSplits(RangeSplits),
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
    Ack(FrameAck),
    /// subject `node.{id}`
    DigestRequest(DigestRequest),
    /// subject `node.{id}`
    Sketch(Sketch),
    /// subject `node.{id}`
    SketchRequest(SketchRequest),
    /// subject `node.{id}`
    Reconcile(Reconcile),
}

impl Message {
    /// The bytes of the message from `node` without its authenticator.
    pub fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        match self {
            Message::Frame(frame) => frame.encode(version, node),
            Message::BootstrapRequest(request) => request.encode(version, node),
            Message::BootstrapDeltas(bootstrap) => bootstrap.encode(version, node),
            Message::AnswerEnd(end) => end.encode(version, node),
            Message::Heartbeat(heartbeat) => heartbeat.encode(version, node),
            Message::Fragment(fragment) => fragment.encode(version, node),
            Message::Compare(compare) => compare.encode(version, node),
            Message::RangeSplits(splits) => splits.encode(version, node),
            Message::Fetch(fetch) => fetch.encode(version, node),
            Message::Unknown(unknown) => unknown.encode(version, node),
            Message::FramesRequest(request) => request.encode(version, node),
            Message::FramesGone(gone) => gone.encode(version, node),
            Message::Hello(hello) => hello.encode(version, node),
            Message::Welcome(welcome) => welcome.encode(version, node),
            Message::Ack(ack) => ack.encode(version, node),
            Message::DigestRequest(digest_request) => digest_request.encode(version, node),
            Message::Sketch(sketch) => sketch.encode(version, node),
            Message::SketchRequest(request) => request.encode(version, node),
            Message::Reconcile(reconcile) => reconcile.encode(version, node),
        }
    }

    /// Reads a message without its authenticator, of a version this release understands. Fields that a later release
    /// appends to an array are ignored.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        Message::read(&bytes)
    }
}

impl<'a> Message<&'a [u8]> {
    /// As [`Message::decode`] reads it, without a copy of each key and value.
    pub fn borrow(bytes: &'a Bytes) -> Result<Self, WireError> {
        Message::read(bytes)
    }
}

impl<B> Message<B> {
    fn read<'a>(bytes: &'a Bytes) -> Result<Self, WireError>
    where
        B: Held<'a>,
    {
        let header = Header::of(bytes).ok_or(WireError::Malformed("shorter than its header"))?;
        let mut decoder = Decoder::after(bytes, HEADER_BYTES);
        let message = match header.known_kind()? {
            Kind::Frame => Frame::decode(&mut decoder).map(Message::Frame),
            Kind::BootstrapRequest => BootstrapRequest::decode(&mut decoder).map(Message::BootstrapRequest),
            Kind::BootstrapDeltas => BootstrapDeltas::decode(&mut decoder).map(Message::BootstrapDeltas),
            Kind::AnswerEnd => AnswerEnd::decode(&mut decoder).map(Message::AnswerEnd),
            Kind::Heartbeat => Heartbeat::decode(&mut decoder).map(Message::Heartbeat),
            Kind::Fragment => Fragment::decode(&mut decoder).map(Message::Fragment),
            Kind::Compare => Compare::decode(&mut decoder).map(Message::Compare),
            Kind::RangeSplits => RangeSplits::decode(&mut decoder).map(Message::RangeSplits),
            Kind::Fetch => Fetch::decode(&mut decoder).map(Message::Fetch),
            Kind::Unknown => Unknown::decode(&mut decoder).map(Message::Unknown),
            Kind::FramesRequest => FramesRequest::decode(&mut decoder).map(Message::FramesRequest),
            Kind::FramesGone => FramesGone::decode(&mut decoder).map(Message::FramesGone),
            Kind::Hello => Hello::decode(&mut decoder).map(Message::Hello),
            Kind::Welcome => Welcome::decode(&mut decoder).map(Message::Welcome),
            Kind::Ack => FrameAck::decode(&mut decoder).map(Message::Ack),
            Kind::DigestRequest => DigestRequest::decode(&mut decoder).map(Message::DigestRequest),
            Kind::Sketch => Sketch::decode(&mut decoder).map(Message::Sketch),
            Kind::SketchRequest => SketchRequest::decode(&mut decoder).map(Message::SketchRequest),
            Kind::Reconcile => Reconcile::decode(&mut decoder).map(Message::Reconcile),
        };
        message.map_err(WireError::from)
    }
}
