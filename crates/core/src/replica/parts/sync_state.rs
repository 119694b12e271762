//! The states a node can be in, and what keeps it from a good one.

use std::fmt;

use crate::cache::Millis;

/// How far this node is with its bootstrap, and whether it can reach the lattice. The reason for a bad one is in
/// [`Status::reason`](super::status::Status::reason).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncState {
    /// Waiting for the connection, or for somebody to answer.
    Starting,
    /// The state of a peer is on its way: in the bootstrap, or because this node was alone and has met others.
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
    /// The bootstrap took longer than the limit: serves what it has, and goes on trying.
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

    /// Whether the bootstrap may still end well by itself: what waits for it waits on.
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
    Deltas,
    /// Heartbeats.
    Heartbeat,
    /// Bootstrap requests.
    Bootstrap,
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
