//! Why a node is not well, and what is to be told of it. Causes only: what a person can do about one, and which setting
//! that takes, is known to those who start nodes.

use super::authenticator::Refusal;
use super::sync_state::{ClockFault, Refused, SyncState};
use crate::cache::{DeltaError, NodeId};

/// Why a [`SyncState`] is not a good one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The server does not let this node in.
    Connection {
        /// What the server said.
        said: String,
    },
    /// The server refuses what replication needs.
    Denied {
        /// What.
        what: Refused,
        /// The subject, or what the server said.
        subject: String,
    },
    /// A peer does not accept the issuer of this node.
    Disowned {
        /// The peer.
        by: NodeId,
    },
    /// Nodes are heard whose issuers are not accepted here.
    ForeignIssuers {
        /// Their public keys, as they say.
        issuers: Vec<String>,
    },
    /// Nodes are heard whose messages carry no proof that is accepted here, and name no issuer.
    ForeignMessages,
    /// Nodes are heard, and none of them answers.
    Unanswered {
        /// How many.
        nodes: usize,
    },
    /// Somebody takes requests and does not answer.
    Swallowed,
    /// Fewer peers are known than there have to be.
    TooFewPeers {
        /// So many are known.
        known: usize,
        /// So many there have to be.
        wanted: usize,
    },
    /// Deltas were refused, as their stamps lie in the future.
    FromTheFuture {
        /// How many.
        deltas: u64,
        /// Some of the hosts that hold them.
        hosts: Vec<String>,
    },
    /// The clock of this host.
    Clock(ClockFault),
}

/// Something that a person should know and can do something about. What needs nobody is logged where it happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The node is in another state than the one that was told last.
    State {
        /// The one before.
        before: SyncState,
        /// The present one.
        state: SyncState,
        /// Why.
        reason: Option<Reason>,
        /// Changes that were not told since the last one, as there were too many.
        suppressed: u64,
    },
    /// Something is wrong with the clock of this host; nothing any more if `None`.
    Clock(Option<ClockFault>),
    /// Deltas of a peer were refused.
    RefusedDelta {
        /// Why.
        error: DeltaError,
        /// The node that made it.
        author: NodeId,
        /// Its host, if it is known.
        host: Option<String>,
        /// The host, or else the node, that has sent it.
        sender: String,
        /// Others that were not told since the last one.
        suppressed: u64,
    },
    /// A message carries no proof that is accepted here.
    RefusedMessage {
        /// The node, as the message says.
        node: NodeId,
        /// Why.
        refusal: Refusal,
        /// Others that were not told since the last one.
        suppressed: u64,
    },
    /// A node of an issuer that is not accepted here is heard.
    ForeignIssuer {
        /// The node, as the message says.
        node: NodeId,
        /// The public key of the issuer.
        issuer: String,
    },
    /// A peer does not accept the issuer of this node.
    Disowned {
        /// The peer.
        by: NodeId,
        /// The public key of the issuer of this node.
        issuer: String,
    },
    /// A node of a version that this one does not speak is heard.
    ForeignVersion {
        /// The node, as the message says.
        node: NodeId,
        /// Its version.
        version: u8,
        /// The oldest and the newest version that this node speaks.
        spoken: (u8, u8),
    },
}
