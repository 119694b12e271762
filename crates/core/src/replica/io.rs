//! What goes into a replica and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;

use super::parts::authenticator::Keyring;
use super::parts::jobs::{Answered, Job};
use super::parts::lineage::Lineage;
use super::parts::notice::Notice;
use super::parts::pending_writes::{AckRequest, Unconfirmed};
use super::parts::sync_state::Refused;
use crate::cache::{Delta, Millis, NodeId};

/// What a replica has to know from the start.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Name of the host, for peers to show: its first 256 bytes.
    pub host: String,
    /// Release of this software, for peers to show.
    pub release: String,
    /// Interval of heartbeats in milliseconds.
    pub heartbeat_interval_ms: Millis,
    /// After how many milliseconds without a finished bootstrap the node says that it is not synced.
    pub sync_limit_ms: Millis,
    /// So many peers have to have been known before the node calls itself synced or alone.
    pub min_peers: usize,
    /// What messages are authenticated with.
    pub keyring: Arc<Keyring>,
    /// Bytes of recent frames kept for peers that missed some.
    pub ring_bytes: usize,
    /// Oldest and newest version of the protocol this node speaks. Anything but [`ReplicaConfig::VERSIONS`] is for
    /// tests of nodes of other releases.
    pub versions: (u8, u8),
}

impl ReplicaConfig {
    /// The versions this release speaks.
    pub const VERSIONS: (u8, u8) = (crate::wire::OLDEST_VERSION, crate::wire::VERSION);
}

/// What a replica begins with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Start {
    /// A cache that holds nothing of others: it is empty, or was only written here.
    #[default]
    Empty,
    /// It takes over from another replica of the same process and cache.
    Handover(Handover),
    /// A cache whose state comes from somewhere else, a store for example, with the lineage that was kept beside it.
    /// Such a state was not in contact just now: what its peers have deleted and forgotten since then is not brought
    /// back.
    Loaded(Lineage),
}

/// What a replica leaves behind: the numbers it has used, and how far back its state goes. One that takes over for
/// another of the same process goes on after them, so that no number of a frame, heartbeat or request is used twice
/// under one node id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Handover {
    /// Newest frame.
    pub seq: u64,
    /// Newest heartbeat, request, challenge or fragmented message.
    pub id: u64,
    /// The lineage of its state.
    pub lineage: Lineage,
}

/// What the shell tells the replica.
#[derive(Debug)]
pub enum Input {
    /// The connection is there and all subscriptions are made (they precede anything sent from now on).
    Connected {
        /// Largest message the server takes, in bytes.
        max_payload: usize,
    },
    /// The connection is lost. Messages may be lost with it.
    Disconnected,
    /// The client library had to drop messages: as if the connection had been lost for a moment.
    MessagesLost,
    /// A message of any subject.
    Message(Bytes),
    /// Nobody listens where the bootstrap request `request` was sent. The word of a server, or of whoever may publish
    /// on the reply subject.
    NoResponders {
        /// Number of the request.
        request: u64,
    },
    /// The server refuses something that replication needs.
    Refused {
        /// What.
        what: Refused,
        /// The subject, or what the server said.
        subject: String,
    },
    /// Deltas of local writes, in order. They are in the cache already.
    Local {
        /// The deltas.
        deltas: Vec<Delta>,
        /// Who wants to know when all of them are confirmed.
        acks: Vec<AckRequest>,
    },
    /// What came of an [`Output::Answer`].
    Answered(Answered),
    /// This process ends; nothing follows.
    Leaving,
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// All peers: deltas.
    Deltas,
    /// All peers: heartbeats.
    Heartbeat,
    /// Any one synced peer. The server has to tell [`Input::NoResponders`] with this number if there is none.
    Bootstrap {
        /// Number of the request.
        request: u64,
    },
    /// One peer.
    Node(NodeId),
}

/// What the shell has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Publish a message.
    Publish {
        /// Where to.
        to: Target,
        /// The message.
        payload: Bytes,
    },
    /// Join the group of those who answer bootstrap requests.
    AnswerBootstraps,
    /// Leave that group.
    LeaveBootstraps,
    /// Make an answer to a peer ([`Job::run`]), and give it back as [`Input::Answered`]. It may take a tenth of a
    /// second, and nothing need wait for it. There is one at a time.
    Answer(Job),
    /// Make subscriptions again that the server has refused: those to one kind of subjects, or all with a new
    /// connection.
    SubscribeAgain(Refused),
    /// Tell people.
    Tell(Notice),
    /// Answer to an [`AckRequest`].
    Acked {
        /// Its number.
        id: u64,
        /// Whether the deltas were confirmed in time.
        result: Result<(), Unconfirmed>,
    },
}
