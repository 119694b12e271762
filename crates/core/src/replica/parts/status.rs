//! What a node can say about its replication.

use std::fmt;

use super::notice::Reason;
use super::sync_state::{ClockFault, SyncState};
use crate::cache::{Digest, NodeId, Room};

/// Counted since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames published.
    pub frames_sent: u64,
    /// Deltas published.
    pub commands_sent: u64,
    /// Deltas not published because NATS was away; peers fetch them by digest later.
    pub commands_unsent: u64,
    /// Deltas not published because a newer one that was queued after them says as much.
    pub commands_merged: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Deltas received, in frames and bootstraps.
    pub commands_received: u64,
    /// Bytes received in bootstraps.
    pub replay_bytes_received: u64,
    /// Deltas received in bootstraps.
    pub replay_commands_received: u64,
    /// Bootstraps and repairs completed by this node.
    pub pulls: u64,
    /// Bootstrap requests answered.
    pub replays_served: u64,
    /// Bytes sent to single nodes: bootstraps, repairs, confirmations.
    pub repair_bytes_sent: u64,
    /// Requests for missing frames.
    pub frames_asked: u64,
    /// Frames sent again.
    pub frames_resent: u64,
    /// Messages that had been taken before, or answer nothing that was asked.
    pub repeated: u64,
    /// Frames with deltas older than the deletions this node remembers.
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
    /// Deltas refused for impossible stamps or stamps too far in the future.
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
    /// Keys it held at its last heartbeat.
    pub keys: u64,
    /// Its digest at its last heartbeat.
    pub digest: Digest,
    /// Whether it answers bootstraps.
    pub synced: bool,
    /// The number of its last heartbeat, and how much its cache might take then, and did, where it says so.
    pub heartbeat: u64,
    /// See there.
    pub room: Option<Room>,
    /// Number of the store that it writes to with others, or 0.
    pub store: u64,
}

/// State of replication, for health answers and tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Progress of the bootstrap.
    pub sync: SyncState,
    /// What is wrong.
    pub reason: Option<Reason>,
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
