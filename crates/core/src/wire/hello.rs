//! Challenges: who answers one is alive, and no recording.

use super::bounds::MAX_TEXT_BYTES;
use super::heartbeat::Heartbeat;
use super::kind::Kind;
use crate::cache::NodeId;
use crate::codec::{CodecError, Decoder, Encoder};

/// Asks a node to prove that it is alive. Its answer holds a number that nobody could know before.
///
/// ```text
/// array of 3
///   uint   to
///   uint   number
///   flag   knows_you
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The node asked.
    pub to: NodeId,
    /// Number of the challenge, never used twice by the sender.
    pub number: u64,
    /// The sender counts the receiver as a peer, and only asks whether that is so the other way round.
    pub knows_you: bool,
}

impl Hello {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Hello, 3);
        encoder.uints(&[self.to.0, self.number, self.knows_you.into()]);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(3, Kind::Hello.name())?;
        Ok(Hello {
            to: decoder.node()?,
            number: decoder.uint("number of a challenge")?,
            knows_you: decoder.flag("knows you")?,
        })
    }
}

/// Answer to a [`Hello`].
///
/// ```text
/// array of 6
///   uint    to
///   uint    number
///   flag    knows_you
///   text    host
///   text    release
///   array   heartbeat: the fields of a heartbeat; the last field, so that they can become more
/// ```
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
    /// A heartbeat of this moment.
    pub heartbeat: Heartbeat,
}

impl Welcome {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Welcome, 6);
        encoder.uints(&[self.to.0, self.number, self.knows_you.into()]);
        encoder.text(&self.host);
        encoder.text(&self.release);
        encoder.heartbeat(&self.heartbeat);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(6, Kind::Welcome.name())?;
        Ok(Welcome {
            to: decoder.node()?,
            number: decoder.uint("number of a challenge")?,
            knows_you: decoder.flag("knows you")?,
            host: decoder.text(MAX_TEXT_BYTES, "host")?,
            release: decoder.text(MAX_TEXT_BYTES, "release")?,
            heartbeat: decoder.heartbeat()?,
        })
    }
}
