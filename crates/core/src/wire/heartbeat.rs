//! What each node tells all others at a fixed interval.

use super::bounds::{MAX_FOREIGN_IN_HEARTBEAT, MAX_HINTS, MAX_TEXT_BYTES};
use super::kind::Kind;
use crate::cache::{Digest, Hint, NodeId, Room, Time};
use crate::codec::{CodecError, Decoder, Encoder};

/// Fields of a heartbeat, of one without a store, and of one of a release that knows of neither that nor room.
const FIELDS: usize = 20;
const FIELDS_BEFORE_STORE: usize = 19;
const FIELDS_BEFORE_ROOM: usize = 16;

/// No cap.
const ANY: u64 = u64::MAX;

/// Sent to all peers at a fixed interval: membership, position and digest of a node.
///
/// ```text
/// array of 1
///   array of 20, or of the first 19 or 16 (there may be more fields in a later release)
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
///     flag    wants_heartbeats
///     uint    oldest version
///     uint    newest version
///     array   foreign: at most MAX_FOREIGN_IN_HEARTBEAT texts
///     uint    cap: bytes that data may take; 2^64 - 1 for any number
///     uint    used: bytes that data takes
///     array   hints: at most MAX_HINTS uints
///     uint    store: number of the store that the node shares with others; 0 for none
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Number of the heartbeat, from 1 for each process start.
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
    /// Since when the state it holds exists; a node takes it over with the bootstrap.
    pub since: Time,
    /// When its own bootstrap was done.
    pub joined: Time,
    /// Since when it has been listening without a break.
    pub listening: Time,
    /// What the node is doing.
    pub state: HeartbeatState,
    /// Milliseconds until the next heartbeat.
    pub interval_ms: u64,
    /// Peers are asked to send a heartbeat soon: the sender may have missed something.
    pub wants_heartbeats: bool,
    /// Oldest and newest version of the protocol the node understands.
    pub versions: (u8, u8),
    /// Issuers whose messages the node has heard but does not accept.
    pub foreign: Vec<String>,
    /// How much its cache may take, and does; `None` where it does not say.
    pub room: Option<Room>,
    /// Keys that were read often at the node since the last one that has any.
    pub hints: Vec<Hint>,
    /// Number of the store that it writes to with other nodes, or 0.
    pub store: u64,
}

impl Heartbeat {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Heartbeat, 1);
        encoder.heartbeat(self);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(1, Kind::Heartbeat.name())?;
        decoder.heartbeat()
    }
}

impl Encoder {
    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat) {
        // A node that says neither sends what an earlier release would.
        let says_more = heartbeat.room.is_some() || !heartbeat.hints.is_empty();
        let fields = match (says_more, heartbeat.store) {
            (false, 0) => FIELDS_BEFORE_ROOM,
            (true, 0) => FIELDS_BEFORE_STORE,
            _ => FIELDS,
        };
        self.array(fields as u32);
        self.uints(&[
            heartbeat.number,
            heartbeat.seq,
            heartbeat.digest.0,
            heartbeat.keys,
            heartbeat.clock.0,
            heartbeat.floor.0,
            heartbeat.contact.0,
            heartbeat.since.0,
            heartbeat.joined.0,
            heartbeat.listening.0,
            heartbeat.state.code(),
            heartbeat.interval_ms,
            heartbeat.wants_heartbeats.into(),
            heartbeat.versions.0.into(),
            heartbeat.versions.1.into(),
        ]);
        self.array(heartbeat.foreign.len() as u32);
        heartbeat.foreign.iter().for_each(|issuer| self.text(issuer));
        if fields == FIELDS_BEFORE_ROOM {
            return;
        }
        let room = heartbeat.room.unwrap_or(Room { cap: ANY, used: 0 });
        self.uints(&[room.cap, room.used]);
        self.array(heartbeat.hints.len() as u32);
        heartbeat.hints.iter().for_each(|hint| self.uints(&[hint.bits()]));
        if fields == FIELDS {
            self.uints(&[heartbeat.store]);
        }
    }
}

impl Decoder<'_> {
    pub(super) fn heartbeat(&mut self) -> Result<Heartbeat, CodecError> {
        let fields = self.length("heartbeat")?;
        if fields < FIELDS_BEFORE_ROOM {
            return Err(CodecError::Malformed("heartbeat"));
        }
        let mut heartbeat = self.heartbeat_before_room()?;
        if fields >= FIELDS_BEFORE_STORE {
            let (cap, used) = (self.uint("cap")?, self.uint("used")?);
            heartbeat.room = (cap != ANY).then_some(Room { cap, used });
            let hints = self.length("hints")?;
            if hints > MAX_HINTS {
                return Err(CodecError::Malformed("hints"));
            }
            heartbeat.hints = (0..hints)
                .map(|_| self.uint("hint").map(Hint::of_bits))
                .collect::<Result<_, _>>()?;
        }
        if fields >= FIELDS {
            heartbeat.store = self.uint("store")?;
        }
        Ok(heartbeat)
    }

    fn heartbeat_before_room(&mut self) -> Result<Heartbeat, CodecError> {
        Ok(Heartbeat {
            number: self.uint("number of a heartbeat")?,
            seq: self.seq()?,
            digest: Digest(self.uint("digest")?),
            keys: self.uint("keys")?,
            clock: self.time("clock")?,
            floor: self.time("floor")?,
            contact: self.time("contact")?,
            since: self.time("beginning")?,
            joined: self.time("joining")?,
            listening: self.time("listening")?,
            state: HeartbeatState::of_code(self.uint("state of a heartbeat")?)?,
            interval_ms: self.uint("interval")?,
            wants_heartbeats: self.flag("request for heartbeats")?,
            versions: (self.byte("oldest version")?, self.byte("newest version")?),
            foreign: {
                let length = self.length("foreign issuers")?;
                if length > MAX_FOREIGN_IN_HEARTBEAT {
                    return Err(CodecError::Malformed("foreign issuers"));
                }
                (0..length)
                    .map(|_| self.text(MAX_TEXT_BYTES, "foreign issuer"))
                    .collect::<Result<_, _>>()?
            },
            room: None,
            hints: Vec::new(),
            store: 0,
        })
    }
}

/// What a node says of itself in its [`Heartbeat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeartbeatState {
    /// Has not had its bootstrap, or is taking its peers' state after a long absence.
    Starting,
    /// Answers bootstrap requests.
    Synced,
    /// This is its last heartbeat.
    Leaving,
}

impl HeartbeatState {
    fn code(self) -> u64 {
        match self {
            HeartbeatState::Starting => 0,
            HeartbeatState::Synced => 1,
            HeartbeatState::Leaving => 2,
        }
    }

    fn of_code(code: u64) -> Result<Self, CodecError> {
        match code {
            0 => Ok(HeartbeatState::Starting),
            1 => Ok(HeartbeatState::Synced),
            2 => Ok(HeartbeatState::Leaving),
            _ => Err(CodecError::Malformed("state of a heartbeat")),
        }
    }
}
