//! What a node can say about its replication.

use std::fmt;

use crate::cache::{Digest, Millis, NodeId};

/// How far this node is with its first replay, and whether it can reach the lattice. The reason for a bad one is in
/// [`Status::reason`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncState {
    /// Waiting for the connection, or for somebody to answer.
    Starting,
    /// The state of a peer is on its way: in the first replay, or because this node was alone and has met others.
    Syncing {
        /// How much of the keyspace has been gone through.
        percent: u8,
    },
    /// Has the state of a peer.
    Synced,
    /// Has proved with patience that there is nobody whose state it could have.
    Alone,
    /// The server refuses what replication needs, or others are there that do not accept this node, or it not them.
    Isolated,
    /// Others are there, and none of them answers.
    Unreachable,
    /// What a peer holds cannot be taken yet, for its stamps lie in the future.
    Refused,
    /// The first replay took longer than the limit: serves what it has, and goes on trying.
    Unsynced,
    /// Was away for longer than deletions are remembered, and takes the state of its peers. Serves what it has.
    Resyncing,
    /// Was synced; NATS is away. Serves what it has, and reconciles when NATS is back.
    Disconnected,
}

impl SyncState {
    /// Whether nothing is known to be missing here.
    pub fn is_whole(self) -> bool {
        matches!(self, SyncState::Synced | SyncState::Alone)
    }

    /// Whether the first replay may still end well by itself: what waits for it waits on.
    pub fn is_under_way(self) -> bool {
        matches!(self, SyncState::Starting | SyncState::Syncing { .. })
    }

    /// Whether somebody has to do something about it.
    pub fn is_bad(self) -> bool {
        matches!(self, SyncState::Isolated | SyncState::Unreachable | SyncState::Refused)
    }
}

impl fmt::Display for SyncState {
    /// One word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyncState::Starting => "starting",
            SyncState::Syncing { .. } => "syncing",
            SyncState::Synced => "synced",
            SyncState::Alone => "alone",
            SyncState::Isolated => "isolated",
            SyncState::Unreachable => "unreachable",
            SyncState::Refused => "refused",
            SyncState::Unsynced => "unsynced",
            SyncState::Resyncing => "resyncing",
            SyncState::Disconnected => "disconnected",
        })
    }
}

/// What a server refuses to a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refused {
    /// Messages on subjects of this kind.
    Publish(Channel),
    /// A subscription to subjects of this kind.
    Subscribe(Channel),
    /// A further subscription: the account or connection may have no more.
    Subscriptions,
    /// The connection itself: too many, not authorized, or not any more.
    Connection,
}

/// The kinds of subjects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Channel {
    /// Frames.
    Commands,
    /// Beats.
    Beat,
    /// Replay requests.
    Replay,
    /// Messages to single nodes.
    Node,
}

/// What is wrong with the clock of this host, or was when it wrote. Each by more than clocks may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockFault {
    /// The wall clock is so many milliseconds ahead of those of most peers, which refuse what is written here.
    Ahead(Millis),
    /// It is so far behind those of most peers, and this node refuses what they write.
    Behind(Millis),
    /// The wall clock was ahead when something was written.
    WasAhead {
        /// How far it was ahead of what it is now.
        ahead_ms: Millis,
        /// For how long peers still refuse what was written then.
        refused_ms: Millis,
    },
}

impl ClockFault {
    /// How far the clock is, or was, ahead, in seconds.
    pub fn ahead_secs(self) -> i64 {
        match self {
            ClockFault::Ahead(ms) | ClockFault::WasAhead { ahead_ms: ms, .. } => ms as i64 / 1_000,
            ClockFault::Behind(ms) => -(ms as i64 / 1_000),
        }
    }
}

impl fmt::Display for ClockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClockFault::Ahead(ms) => write!(
                f,
                "the clock of this host is {} s ahead of those of its peers, which refuse what it writes; set it right",
                ms / 1_000
            ),
            ClockFault::Behind(ms) => write!(
                f,
                "the clock of this host is {} s behind those of its peers, and what they write is refused here; set it right",
                ms / 1_000
            ),
            ClockFault::WasAhead { ahead_ms, refused_ms } => write!(
                f,
                "the clock of this host was {} s ahead when it wrote: for {} s more the peers refuse the keys that were \
                 written then, and take all others",
                ahead_ms / 1_000,
                refused_ms.div_ceil(1_000)
            ),
        }
    }
}

/// Counted since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames published.
    pub frames_sent: u64,
    /// Commands published.
    pub commands_sent: u64,
    /// Commands not published because NATS was away; peers fetch them by digest later.
    pub commands_unsent: u64,
    /// Commands not published because a newer one that was queued after them says as much.
    pub commands_merged: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Commands received, in frames and replays.
    pub commands_received: u64,
    /// Bytes received in replays.
    pub replay_bytes_received: u64,
    /// Commands received in replays.
    pub replay_commands_received: u64,
    /// Replays and repairs completed by this node.
    pub pulls: u64,
    /// Replay requests answered.
    pub replays_served: u64,
    /// Bytes sent to single nodes: replays, repairs, confirmations.
    pub repair_bytes_sent: u64,
    /// Requests for missing frames.
    pub frames_asked: u64,
    /// Frames sent again.
    pub frames_resent: u64,
    /// Messages that had been taken before, or answer nothing that was asked.
    pub repeated: u64,
    /// Frames with commands older than the deletions this node remembers.
    pub outdated: u64,
    /// How often the process did not run for a while.
    pub stops: u64,
    /// How often this node took its peers' state after a long absence.
    pub yields: u64,
    /// Counters written shorter.
    pub folded: u64,
    /// Differences found with a sketch.
    pub sketches: u64,
    /// Messages without a proof that is accepted here.
    pub unauthenticated: u64,
    /// Messages of protocol versions this node does not speak.
    pub unknown_versions: u64,
    /// Messages that were no valid protocol message.
    pub malformed: u64,
    /// Commands refused for impossible stamps or stamps too far in the future.
    pub refused: u64,
}

impl fmt::Display for Counters {
    /// `name=value` pairs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "commands_sent={} commands_unsent={} commands_merged={} commands_received={} replay_commands={} replay_bytes={} pulls={} \
             replays_served={} repair_bytes_sent={} frames_asked={} frames_resent={} repeated={} outdated={} stops={} \
             yields={} folded={} sketches={} unauthenticated={} unknown_versions={} malformed={} refused={}",
            self.commands_sent,
            self.commands_unsent,
            self.commands_merged,
            self.commands_received,
            self.replay_commands_received,
            self.replay_bytes_received,
            self.pulls,
            self.replays_served,
            self.repair_bytes_sent,
            self.frames_asked,
            self.frames_resent,
            self.repeated,
            self.outdated,
            self.stops,
            self.yields,
            self.folded,
            self.sketches,
            self.unauthenticated,
            self.unknown_versions,
            self.malformed,
            self.refused
        )
    }
}

/// What is known of one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Its process.
    pub node: NodeId,
    /// Its host.
    pub host: String,
    /// Its release.
    pub release: String,
    /// Keys it held at its last beat.
    pub keys: u64,
    /// Its digest at its last beat.
    pub digest: Digest,
    /// Whether it answers replays.
    pub synced: bool,
}

/// State of replication, for health answers and tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Progress of the first replay.
    pub sync: SyncState,
    /// What is wrong, for people; one line of what peers and servers may have said.
    pub reason: Option<String>,
    /// What is wrong with the clock of this host.
    pub clock: Option<ClockFault>,
    /// Live peers.
    pub peers: Vec<PeerStatus>,
    /// Issuers that were heard and are not accepted here, by their public keys.
    pub foreign: Vec<String>,
    /// Counters.
    pub counters: Counters,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            sync: SyncState::Starting,
            reason: None,
            clock: None,
            peers: Vec::new(),
            foreign: Vec::new(),
            counters: Counters::default(),
        }
    }
}
