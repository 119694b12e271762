//! What each node tells all others at a fixed interval.

use super::bounds::{MAX_FOREIGN_IN_BEAT, MAX_TEXT_BYTES};
use super::kind::Kind;
use crate::cache::{Digest, NodeId, Time};
use crate::codec::{CodecError, Decoder, Encoder};

/// Sent to all peers at a fixed interval: membership, position and digest of a node.
///
/// ```text
/// array of 1
///   array of 16 (both may have more fields in a later release)
///     uint    number
///     uint    seq
///     uint    digest
///     uint    keys
///     uint    clock
///     uint    floor
///     uint    contact
///     uint    since
///     uint    joined
///     uint    listening
///     uint    state: 0 starting, 1 synced, 2 leaving
///     uint    interval_ms
///     flag    wants_beats
///     uint    oldest version
///     uint    newest version
///     array   foreign: at most MAX_FOREIGN_IN_BEAT texts
/// ```
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

impl Beat {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Beat, 1);
        encoder.beat(self);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(1, Kind::Beat.name())?;
        decoder.beat()
    }
}

impl Encoder {
    pub(super) fn beat(&mut self, beat: &Beat) {
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

impl Decoder<'_> {
    pub(super) fn beat(&mut self) -> Result<Beat, CodecError> {
        self.array(16, "beat")?;
        Ok(Beat {
            number: self.uint("number of a beat")?,
            seq: self.seq()?,
            digest: Digest(self.uint("digest")?),
            keys: self.uint("keys")?,
            clock: self.time("clock")?,
            floor: self.time("floor")?,
            contact: self.time("contact")?,
            since: self.time("beginning")?,
            joined: self.time("joining")?,
            listening: self.time("listening")?,
            state: BeatState::of_code(self.uint("state of a beat")?)?,
            interval_ms: self.uint("interval")?,
            wants_beats: self.flag("request for beats")?,
            versions: (self.byte("oldest version")?, self.byte("newest version")?),
            foreign: {
                let length = self.length("foreign issuers")?;
                if length > MAX_FOREIGN_IN_BEAT {
                    return Err(CodecError::Malformed("foreign issuers"));
                }
                (0..length)
                    .map(|_| self.text(MAX_TEXT_BYTES, "foreign issuer"))
                    .collect::<Result<_, _>>()?
            },
        })
    }
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

impl BeatState {
    fn code(self) -> u64 {
        match self {
            BeatState::Starting => 0,
            BeatState::Synced => 1,
            BeatState::Leaving => 2,
        }
    }

    fn of_code(code: u64) -> Result<Self, CodecError> {
        match code {
            0 => Ok(BeatState::Starting),
            1 => Ok(BeatState::Synced),
            2 => Ok(BeatState::Leaving),
            _ => Err(CodecError::Malformed("state of a beat")),
        }
    }
}
