//! One place of the cluster and the process in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use nats_kvcache::cache::{Cache, Command, Key, Limits, Millis, NodeId};
use nats_kvcache::replica::{Config, Input, Keyring, Numbers, Replica};

use crate::client::Seen;
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

/// A process that does nothing for a while.
pub(crate) struct Pause {
    /// What waits for it.
    pub mailbox: VecDeque<Input>,
    /// Whether more came than there was room for.
    pub overflow: bool,
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
    /// By how much its wall clock is off.
    pub skew: i64,
    /// When it is ticked next.
    pub wake: Millis,
    /// Commands of local writes that the replica has not got yet.
    pub queue: Vec<Command>,
    pub acknowledged: Acknowledged,
    /// When it started.
    pub began: Millis,
    /// When a long absence of it ended.
    pub returned: Option<Millis>,
}

impl Node {
    /// A process that has not been started.
    pub fn new(scenario: &Scenario, life: u64, id: NodeId, skew: i64) -> Self {
        let mut limits = Limits::default();
        if let Some(ttl) = scenario.tombstone_ttl_ms {
            limits.tombstone_ttl_ms = ttl;
        }
        let cache = Arc::new(Cache::new(id, limits));
        Node {
            replica: Replica::new(cache.clone(), replica_config(scenario, life), Numbers::default()),
            cache,
            life,
            up: false,
            gone: false,
            session: None,
            told: false,
            max_payload: 0,
            answers: false,
            pause: None,
            slow: false,
            skew,
            wake: Millis::MAX,
            queue: Vec::new(),
            acknowledged: Acknowledged::default(),
            began: 0,
            returned: None,
        }
    }

    /// Whether the process runs and does something.
    pub fn active(&self) -> bool {
        self.up && self.pause.is_none()
    }
}

/// The configuration of a replica. The only place that makes one.
pub(crate) fn replica_config(scenario: &Scenario, life: u64) -> Config {
    Config {
        host: format!("host{life}"),
        release: "simulated".into(),
        beat_interval_ms: scenario.beat_interval_ms,
        sync_limit_ms: 10_000,
        keyring: Arc::new(Keyring::open()),
        ring_bytes: 64 << 10,
        versions: Config::VERSIONS,
    }
}

/// The input for commands of local writes. The only place that makes one.
pub(crate) fn local(commands: Vec<Command>) -> Input {
    Input::Local {
        commands,
        acks: Vec::new(),
    }
}
