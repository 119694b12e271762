//! The messages of the replication protocol and their one byte layout each (docs/PROTOCOL.md).
//!
//! A message is a header (version, kind, sender), one MessagePack array, and a seal. Decoding never allocates by a
//! length it has not checked against the bytes that are there; keys and values lie where they were received.
//!
//! Each family of messages has a file: the types, their layout, encoding and decoding. The layouts name
//!
//! | type | bytes |
//! | --- | --- |
//! | uint, flag | an integer of 64 bits without sign; one that is 0 or 1 |
//! | bin, text | a binary; a string of at most 256 bytes |
//! | hashes | a bin of integers of 64 bits, little endian, one after the other |
//! | array | an array of what is named after it |
//! | part, span, position, partitions, cursor | see [`Part`], `compare.rs`, `sketch.rs`, `replay.rs` |
//! | commands | see [`Encoder::command`](crate::codec::Encoder::command) |
//!
//! Of the outermost array and of a beat, further elements are from a later release and stay unread.

mod ack;
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
mod replay;
mod request;
mod sketch;

pub use ack::Ack;
pub use bounds::MAX_SYMBOLS;
pub(crate) use bounds::{MAX_BUDGET, MAX_FOREIGN_IN_BEAT, MAX_TEXT_BYTES};
pub(crate) use chunk::{Chunk, Chunker};
#[cfg(test)]
pub(crate) use compare::next_position;
pub use compare::{Compare, Fetch, Holding, SpanDigest, Split, Splits, Unknown};
pub use envelope::{kind_of, Header, HEADER_BYTES, OLDEST_VERSION, VERSION};
pub(crate) use envelope::{ENVELOPE_BYTES, ISSUER_BYTES, MAX_SEAL_BYTES, SIGNATURE_BYTES, TAG_BYTES};
pub use error::WireError;
pub use fields::Part;
pub use fragment::Fragment;
pub use frame::Frame;
pub use gaps::{FramesGone, FramesRequest};
pub use heartbeat::{Beat, BeatState};
pub use hello::{Hello, Welcome};
pub use kind::Kind;
pub use replay::{ReplayCommands, ReplayEnd, ReplayRequest, Want};
pub(crate) use request::Request;
pub use sketch::{partition_of, place, Exchange, Offer, Sketch, SketchRequest, Survey, Symbol};

use bytes::Bytes;

use crate::cache::{Blob, NodeId};
use crate::codec::{Decoder, Held};

/// Any message, and the subject it travels on. `B` is how the bytes of commands are held, see
/// [`Command`](crate::cache::Command).
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

impl Message {
    /// The bytes of the message from `node` without its seal.
    pub fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        match self {
            Message::Frame(frame) => frame.encode(version, node),
            Message::ReplayRequest(request) => request.encode(version, node),
            Message::ReplayCommands(replay) => replay.encode(version, node),
            Message::ReplayEnd(end) => end.encode(version, node),
            Message::Beat(beat) => beat.encode(version, node),
            Message::Fragment(fragment) => fragment.encode(version, node),
            Message::Compare(compare) => compare.encode(version, node),
            Message::Splits(splits) => splits.encode(version, node),
            Message::Fetch(fetch) => fetch.encode(version, node),
            Message::Unknown(unknown) => unknown.encode(version, node),
            Message::FramesRequest(request) => request.encode(version, node),
            Message::FramesGone(gone) => gone.encode(version, node),
            Message::Hello(hello) => hello.encode(version, node),
            Message::Welcome(welcome) => welcome.encode(version, node),
            Message::Ack(ack) => ack.encode(version, node),
            Message::Survey(survey) => survey.encode(version, node),
            Message::Sketch(sketch) => sketch.encode(version, node),
            Message::SketchRequest(request) => request.encode(version, node),
            Message::Exchange(exchange) => exchange.encode(version, node),
        }
    }

    /// Reads a message without its seal, of a version this release understands. Fields that a later release appends to
    /// an array are ignored.
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
            Kind::ReplayRequest => ReplayRequest::decode(&mut decoder).map(Message::ReplayRequest),
            Kind::ReplayCommands => ReplayCommands::decode(&mut decoder).map(Message::ReplayCommands),
            Kind::ReplayEnd => ReplayEnd::decode(&mut decoder).map(Message::ReplayEnd),
            Kind::Beat => Beat::decode(&mut decoder).map(Message::Beat),
            Kind::Fragment => Fragment::decode(&mut decoder).map(Message::Fragment),
            Kind::Compare => Compare::decode(&mut decoder).map(Message::Compare),
            Kind::Splits => Splits::decode(&mut decoder).map(Message::Splits),
            Kind::Fetch => Fetch::decode(&mut decoder).map(Message::Fetch),
            Kind::Unknown => Unknown::decode(&mut decoder).map(Message::Unknown),
            Kind::FramesRequest => FramesRequest::decode(&mut decoder).map(Message::FramesRequest),
            Kind::FramesGone => FramesGone::decode(&mut decoder).map(Message::FramesGone),
            Kind::Hello => Hello::decode(&mut decoder).map(Message::Hello),
            Kind::Welcome => Welcome::decode(&mut decoder).map(Message::Welcome),
            Kind::Ack => Ack::decode(&mut decoder).map(Message::Ack),
            Kind::Survey => Survey::decode(&mut decoder).map(Message::Survey),
            Kind::Sketch => Sketch::decode(&mut decoder).map(Message::Sketch),
            Kind::SketchRequest => SketchRequest::decode(&mut decoder).map(Message::SketchRequest),
            Kind::Exchange => Exchange::decode(&mut decoder).map(Message::Exchange),
        };
        message.map_err(WireError::from)
    }
}
