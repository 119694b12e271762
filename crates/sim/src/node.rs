//! One place of the cluster and the process in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kvcache_core::cache::{Cache, Delta, Key, Limits, Millis, NodeId};
use kvcache_core::durable::Keeper;
use kvcache_core::replica::{AckLevel, AckRequest, Input, Keyring, Replica, ReplicaConfig, Start};

use crate::books::Books;
use crate::client::Seen;
use crate::event::Mail;
use crate::kept::Keeping;
use crate::scenario::Scenario;

/// What a process told its clients has happened, as far as it has to be there at the end.
#[derive(Default)]
pub(crate) struct Acknowledged {
    /// Sum of its increments of the shared counter.
    pub added: i64,
    /// The keys that nobody else writes.
    pub keys: BTreeMap<Key, Own>,
}

/// A key that one process alone writes.
pub(crate) struct Own {
    /// What it holds when all deadlines have passed.
    pub holds: Seen,
    /// When the first of the writes was made that matter for this.
    pub since: Millis,
    /// The process took the state of others after a long absence, and may have given up some of these writes.
    pub given_up: bool,
}

/// The kinds of subjects.
#[derive(Clone, Copy)]
pub(crate) enum Subject {
    Deltas,
    Heartbeat,
    Bootstrap,
    Node,
}

/// What a server refuses to a node: for each kind of subject to publish there, and to subscribe to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Refusals {
    pub publish: [bool; 4],
    pub subscribe: [bool; 4],
}

/// A process that does nothing for a while.
pub(crate) struct Pause {
    /// What waits for it.
    pub mailbox: VecDeque<Mail>,
    /// Whether more came than there was room for.
    pub overflow: bool,
}

/// What a node was sent by another one that had a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub place: usize,
    pub life: u64,
    /// The least that it held when it sent something that has arrived.
    pub least: i64,
    /// When the last heartbeat of it was sent that nothing newer had overtaken, and when it arrived. An overtaken one
    /// says nothing.
    pub heartbeat: Option<(Millis, Millis)>,
    /// When the newest message was sent that has arrived.
    pub newest: Millis,
}

/// A write that a client wants to be confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub wanted: AckLevel,
    /// What its key counts.
    pub value: i64,
    pub at: Millis,
}

pub(crate) struct Node {
    pub cache: Arc<Cache>,
    pub replica: Replica,
    /// Number of its process start; events for an earlier one mean nothing to it.
    pub life: u64,
    /// Whether the process runs.
    pub up: bool,
    /// The last process here has left, and no other starts.
    pub gone: bool,
    /// The connection as the server sees it: messages of another one do not arrive.
    pub session: Option<u64>,
    /// Whether the replica believes that it is connected.
    pub told: bool,
    /// Largest message of the connection.
    pub max_payload: usize,
    pub answers: bool,
    pub pause: Option<Pause>,
    /// Messages to it are being dropped.
    pub slow: bool,
    /// What the server refuses it.
    pub refused: Refusals,
    /// Subscriptions that it has lost so, until it makes them again.
    pub unsubscribed: [bool; 4],
    /// Until when its link is busy, towards the server and back, in microseconds.
    pub busy_us: [u64; 2],
    /// By how much its wall clock is off.
    pub skew: i64,
    /// When it is ticked next.
    pub wake: Millis,
    /// Deltas of local writes that the replica has not got yet.
    pub queue: Vec<Delta>,
    /// Who wants to know when those are confirmed.
    pub asked: Vec<AckRequest>,
    /// Confirmations that clients wait for, by number.
    pub waiting: BTreeMap<u64, Waiting>,
    /// What it was sent by nodes that had a state.
    pub heard: Vec<Heard>,
    /// It has shown to have the state of one of them.
    pub merged: bool,
    pub acknowledged: Acknowledged,
    /// When it started.
    pub began: Millis,
    /// When its replica began.
    pub replica_since: Millis,
    /// Since when it is synced, as far as it was looked at.
    pub synced_since: Option<Millis>,
    /// When a long absence of it ended.
    pub returned: Option<Millis>,
    /// Its store, in runs with stores.
    pub keeping: Option<Keeping>,
    /// What it wrote, and how much of that is stored.
    pub books: Books,
}

impl Node {
    /// A process that has not been started.
    pub fn new(scenario: &Scenario, life: u64, id: NodeId, skew: i64) -> Self {
        let mut limits = Limits::default();
        if let Some(ttl) = scenario.tombstone_ttl_ms {
            limits.tombstone_ttl_ms = ttl;
        }
        if let Some(skew) = scenario.max_clock_skew_ms {
            limits.max_clock_skew_ms = skew;
        }
        let cache = Arc::new(Cache::new(id, limits));
        Node {
            replica: Replica::new(cache.clone(), replica_config(scenario, life), Start::Empty),
            life,
            up: false,
            gone: false,
            session: None,
            told: false,
            max_payload: 0,
            answers: false,
            pause: None,
            slow: false,
            refused: Refusals::default(),
            unsubscribed: [false; 4],
            busy_us: [0; 2],
            skew,
            wake: Millis::MAX,
            queue: Vec::new(),
            asked: Vec::new(),
            waiting: BTreeMap::new(),
            heard: Vec::new(),
            merged: false,
            acknowledged: Acknowledged::default(),
            began: 0,
            replica_since: 0,
            synced_since: None,
            returned: None,
            keeping: scenario.stores.map(|_| Keeping::new(Keeper::new(cache.clone()))),
            books: Books::default(),
            cache,
        }
    }

    /// Whether the process runs and does something.
    pub fn active(&self) -> bool {
        self.up && self.pause.is_none()
    }
}

/// The configuration of a replica. The only place that makes one.
pub(crate) fn replica_config(scenario: &Scenario, life: u64) -> ReplicaConfig {
    ReplicaConfig {
        host: format!("host{life}"),
        release: "simulated".into(),
        heartbeat_interval_ms: scenario.heartbeat_interval_ms,
        sync_limit_ms: 10_000,
        min_peers: 0,
        keyring: Arc::new(Keyring::disabled()),
        ring_bytes: 64 << 10,
        versions: ReplicaConfig::VERSIONS,
    }
}

/// The input for deltas of local writes. The only place that makes one.
pub(crate) fn local(deltas: Vec<Delta>, acks: Vec<AckRequest>) -> Input {
    Input::Local { deltas, acks }
}
