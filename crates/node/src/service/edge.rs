//! How much the cache may take, and what a write does that would take more.
//!
//! What a host may take is one thing, what its peers may is another: each tells in its heartbeats how much room it has,
//! and the smallest of them is the limit of all. A write that does not fit is refused, or room is made by deleting keys.
//! Each partition is made room in by one node alone (rendezvous hashing over the synced nodes), so that several that
//! hold the same do not delete several times as much. Where the owners do not, because they are about to be found dead,
//! a writer that has waited for a while does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kvcache_core::cache::{Cache, Delta, Held, Key, Millis, NodeId, Partition, Usage, Victims, PARTITIONS};
use kvcache_core::durable::owns;
use kvcache_core::replica::PeerStatus;

use crate::time;

/// Room is made from this part of the limit on, and so much of it at a time.
pub(super) const SPARE: u64 = 64;
/// Bytes that are made room of at a time: some 20 ms of small keys.
const AT_ONCE: u64 = 512 << 10;
/// How long it is not looked again where all keys were looked at and none may go: that takes a walk of all of them.
const NOTHING_MS: Millis = 1_000;
/// Deletions of what is not there are not remembered beyond this part of the limit.
const DELETIONS: u64 = 4;

/// Bytes of a key beside its name and value, about.
const HEAD: usize = 24;
/// Bytes of what holds counters, lists and sets.
const COLLECTION: usize = 320;
/// Bytes of an element beside its own, about.
const ELEMENT: usize = 96;

/// How much a cache may take, and what happens then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EdgeConfig {
    /// Bytes of data; `None` for any number.
    pub max_bytes: Option<u64>,
    /// What a write does that does not fit.
    pub policy: Policy,
}

/// What a write does that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// It is refused.
    #[default]
    Refuse,
    /// Keys are deleted, the nearest deadline first; none without a deadline.
    EvictTtl,
    /// Keys are deleted, those first that are rarely read on any host.
    EvictLfu,
}

impl Policy {
    fn victims(self) -> Option<Victims> {
        match self {
            Policy::Refuse => None,
            Policy::EvictTtl => Some(Victims::NearestDeadline),
            Policy::EvictLfu => Some(Victims::LeastRead),
        }
    }
}

/// How much one caller may put where it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caps {
    /// Bytes of all keys of its namespace.
    pub namespace_bytes: u64,
    /// Keys of its namespace.
    pub namespace_keys: u64,
    /// Items of a list or members of a set.
    pub collection_items: usize,
}

impl Caps {
    /// Any number of everything.
    pub const NONE: Caps = Caps {
        namespace_bytes: u64::MAX,
        namespace_keys: u64::MAX,
        collection_items: usize::MAX,
    };

    /// Whether everything that these allow is allowed by `others`.
    pub fn are_within(&self, others: &Caps) -> bool {
        self.namespace_bytes <= others.namespace_bytes
            && self.namespace_keys <= others.namespace_keys
            && self.collection_items <= others.collection_items
    }
}

impl Default for Caps {
    fn default() -> Self {
        Caps::NONE
    }
}

/// The cap that a write would go beyond. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// Of this host.
    #[error(
        "the cache is full: {used} of MAX_MEMORY_BYTES={limit} are in use ({deletions} of them by deletions that are \
         remembered), and this write takes about {needed} more; nothing was changed"
    )]
    Memory {
        /// The cap in bytes.
        limit: u64,
        /// Bytes in use.
        used: u64,
        /// Those of deletions.
        deletions: u64,
        /// Bytes that the write would take.
        needed: u64,
    },
    /// Of another host.
    #[error(
        "the cache of host {host} is full: it has room for {limit} bytes (its MAX_MEMORY_BYTES), {used} are in use, and \
         this write takes about {needed} more; nothing was changed"
    )]
    Peer {
        /// The host.
        host: String,
        /// How many bytes fit there.
        limit: u64,
        /// Bytes in use here.
        used: u64,
        /// Bytes that the write would take.
        needed: u64,
    },
    /// Of the namespace, in bytes.
    #[error(
        "the keyspace is full: {used} of NAMESPACE_MAX_BYTES={limit} are in use, and this write takes about {needed} \
         more; nothing was changed"
    )]
    NamespaceBytes {
        /// The cap in bytes.
        limit: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes that the write would take.
        needed: u64,
    },
    /// Of the namespace, in keys.
    #[error("the keyspace is full: it has {used} keys, and NAMESPACE_MAX_KEYS={limit}; nothing was changed")]
    NamespaceKeys {
        /// The cap.
        limit: u64,
        /// Keys there.
        used: u64,
    },
    /// Of a list or set.
    #[error("the list or set is full: it has {used} items, and MAX_COLLECTION_ITEMS={limit}; nothing was changed")]
    CollectionItems {
        /// The cap.
        limit: usize,
        /// Items there.
        used: usize,
    },
}

/// What memory is used for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryStatus {
    /// Bytes of all data, deletions and tables included.
    pub bytes: u64,
    /// Those of deletions that are remembered.
    pub deletions: u64,
    /// How many bytes may be used: the smallest cap of all hosts; `None` for any number.
    pub limit: Option<u64>,
    /// The host whose cap that is, if it is another one.
    pub smallest: Option<String>,
    /// Keys that this host has deleted to make room.
    pub evicted: u64,
    /// Writes that this host has refused.
    pub refused: u64,
}

/// What a write adds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Adds {
    /// A value of so many bytes in place of what was there.
    Value(usize),
    /// Something to a counter.
    Number,
    /// An item or member of so many bytes.
    Element(usize),
    /// Nothing.
    Nothing,
}

impl Adds {
    /// About how many bytes more the key takes after the write.
    pub fn bytes(self, key: &Key, held: Held) -> u64 {
        let of = |bytes: usize| bytes + bytes / 16 + 16;
        let name = key.as_bytes().len();
        let new_collection = if held.is_small || held.bytes == 0 {
            COLLECTION + name
        } else {
            0
        };
        let after = match self {
            Adds::Nothing => 0,
            // As long as before, or shorter: however well the estimate fits, that does not grow.
            Adds::Value(value) if held.value_length.is_some_and(|length| value <= length) => 0,
            Adds::Value(value) => of(HEAD + name + value),
            Adds::Number if new_collection == 0 => 0,
            Adds::Number => new_collection,
            Adds::Element(element) => new_collection + ELEMENT + of(element) + held.bytes,
        };
        after.saturating_sub(held.bytes) as u64
    }
}

/// What this node owns, of the partitions in which room is made.
#[derive(Debug, Default)]
pub(super) struct Own {
    nodes: Vec<NodeId>,
    partitions: Vec<Partition>,
    /// Which part of all keys that is.
    share: f64,
    /// Which of them is looked at next.
    turn: usize,
    /// Until when it is not looked again for keys that may go, in what this node owns and anywhere: there were none.
    nothing_until: [Millis; 2],
}

impl Own {
    /// Among these nodes.
    pub fn among(&mut self, node: NodeId, mut nodes: Vec<NodeId>) {
        nodes.sort_unstable();
        if nodes == self.nodes {
            return;
        }
        let is_one = nodes.contains(&node);
        let owned = Partition::all().filter(|partition| is_one && owns(node, &nodes, *partition));
        self.partitions = owned.collect();
        self.share = self.partitions.iter().map(|partition| share_of(*partition)).sum();
        self.nodes = nodes;
    }
}

/// The part of all keys that is in a partition, on average: later partitions have more ([`Partition::of`]).
fn share_of(partition: Partition) -> f64 {
    let keys_before = |number: u16| 2.0 - (4.0 - 3.0 * f64::from(number) / PARTITIONS as f64).sqrt();
    keys_before(partition.0 + 1) - keys_before(partition.0)
}

/// The limit of all hosts, and making room.
pub(super) struct Edge {
    pub config: EdgeConfig,
    /// The smallest cap of all hosts in bytes; [`u64::MAX`] for none.
    limit: AtomicU64,
    /// The peer whose cap that is.
    smallest: Mutex<Option<Arc<str>>>,
    pub own: Mutex<Own>,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl Edge {
    pub fn new(cache: &Cache, config: EdgeConfig) -> Self {
        let limit = config.max_bytes.unwrap_or(u64::MAX);
        cache.set_cap(limit);
        if config.policy == Policy::EvictLfu {
            cache.count_reads();
        }
        Edge {
            config,
            limit: AtomicU64::new(limit),
            smallest: Mutex::default(),
            own: Mutex::default(),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub fn status(&self, cache: &Cache) -> MemoryStatus {
        let limit = self.limit();
        MemoryStatus {
            bytes: cache.memory_bytes(),
            deletions: cache.usage().deletions,
            limit: (limit != u64::MAX).then_some(limit),
            smallest: self.smallest().map(|host| host.to_string()),
            evicted: self.evicted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    fn smallest(&self) -> Option<Arc<str>> {
        self.smallest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether so many bytes more fit.
    #[inline]
    pub fn has_room(&self, cache: &Cache, bytes: u64) -> bool {
        let limit = self.limit();
        limit == u64::MAX || cache.memory_bytes().saturating_add(bytes) <= limit
    }

    /// Whether a deletion of what is not there is better forgotten than remembered. A flood of them ends there.
    pub fn is_short(&self, cache: &Cache) -> bool {
        let limit = self.limit();
        limit != u64::MAX
            && (cache.usage().deletions > limit / DELETIONS || cache.memory_bytes() > limit - limit / SPARE)
    }

    /// The smallest cap of all hosts. `known` is what the last heartbeat of each peer came to.
    pub fn look_at_peers(&self, cache: &Cache, peers: &[PeerStatus], known: &mut HashMap<NodeId, (u64, u64)>) {
        let used = cache.memory_bytes();
        known.retain(|node, _| peers.iter().any(|peer| peer.node == *node));
        let mut limit = self.config.max_bytes.unwrap_or(u64::MAX);
        let mut smallest = None;
        for peer in peers {
            let Some(room) = peer.room else { continue };
            let (number, fits) = known.entry(peer.node).or_insert((0, u64::MAX));
            if *number != peer.heartbeat {
                // What is written here from now on arrives there. What others have written may be here already and not
                // there, or the other way round.
                let left = room.cap.saturating_sub(room.used);
                (*number, *fits) = (peer.heartbeat, used.saturating_add(left).min(room.cap));
            }
            if *fits < limit {
                (limit, smallest) = (*fits, Some(peer.host.as_str()));
            }
        }
        self.limit.store(limit, Ordering::Relaxed);
        let mut named = self.smallest.lock().unwrap_or_else(PoisonError::into_inner);
        if named.as_deref() != smallest {
            if let Some(host) = smallest {
                tracing::info!(host = ?host, bytes = limit, "the cap of another host is the smallest, and holds for all");
            }
            *named = smallest.map(Arc::from);
        }
    }

    /// Makes room of so many bytes beside what is spare, as far as it is up to this node, or with `all` wherever there
    /// is something. Returns the deletions; `None` while somebody else is at it.
    pub fn make_room(&self, cache: &Cache, bytes: u64, all: bool) -> Option<Vec<Delta>> {
        let Some(victims) = self.config.policy.victims() else {
            return Some(Vec::new());
        };
        let mut own = self.own.try_lock().ok()?;
        let limit = self.limit();
        let target = limit.saturating_sub(limit / SPARE).saturating_sub(bytes);
        let used = cache.memory_bytes();
        if used <= target {
            return Some(Vec::new());
        }
        let over = used - target;
        let Usage { bytes, deletions, .. } = cache.usage();
        let (partitions, over) = if all {
            (Partition::all().collect(), over)
        } else {
            // What this node owns is to take its share of what is to be left, and no less: others do the same.
            let left = bytes.saturating_sub(deletions).saturating_sub(over) as f64 * own.share;
            let held: u64 = own
                .partitions
                .iter()
                .map(|partition| cache.live_bytes(*partition))
                .sum();
            (own.partitions.clone(), over.min(held.saturating_sub(left as u64)))
        };
        let now = time::mono();
        if over == 0 || now < own.nothing_until[usize::from(all)] {
            return Some(Vec::new());
        }
        // What is left is made room of when it comes to the next look.
        let deltas = cache.evict(&partitions, &mut own.turn, over.min(AT_ONCE), victims, time::wall());
        if deltas.is_empty() {
            own.nothing_until[usize::from(all)] = now + NOTHING_MS;
        }
        self.evicted.fetch_add(deltas.len() as u64, Ordering::Relaxed);
        Some(deltas)
    }

    /// A write was refused.
    pub fn refuses(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn full(&self, cache: &Cache, needed: u64) -> Full {
        let (limit, used) = (self.limit(), cache.memory_bytes());
        match self.smallest() {
            Some(host) => Full::Peer {
                host: host.to_string(),
                limit,
                used,
                needed,
            },
            None => Full::Memory {
                limit,
                used,
                deletions: cache.usage().deletions,
                needed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use kvcache_core::cache::Room;

    use super::*;

    #[test]
    fn the_shares_of_all_partitions_are_one_and_those_of_three_nodes_nearly_equal() {
        let all: f64 = Partition::all().map(share_of).sum();
        assert!((all - 1.0).abs() < 1e-9, "{all}");
        let nodes: Vec<NodeId> = (1..=3).map(|n| NodeId(n * 0x1234_5678_9abc_def1)).collect();
        let shares = nodes.iter().map(|node| {
            let mut own = Own::default();
            own.among(*node, nodes.clone());
            own.share
        });
        let shares: Vec<f64> = shares.collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(shares.iter().all(|share| (0.28..0.39).contains(share)), "{shares:?}");
    }

    #[test]
    fn a_node_that_is_not_synced_owns_nothing() {
        let mut own = Own::default();
        own.among(NodeId(1), vec![NodeId(2)]);
        assert_eq!((own.partitions.len(), own.share), (0, 0.0));
        own.among(NodeId(1), vec![NodeId(1)]);
        assert_eq!(own.partitions.len(), PARTITIONS);
    }

    #[test]
    fn where_nothing_may_go_it_is_not_looked_again_at_once() {
        let cache = super::super::empty_cache(super::super::Limits::default());
        let config = EdgeConfig {
            max_bytes: Some(1 << 20),
            policy: Policy::EvictTtl,
        };
        let edge = Edge::new(&cache, config);
        edge.own
            .lock()
            .expect("nobody panics with it")
            .among(cache.node(), vec![cache.node()]);
        let set = |name: &str, seconds| {
            let key = Key::shared(name.as_bytes());
            cache
                .set(&key, &[0; 600_000][..], seconds, time::wall())
                .expect("a set");
        };
        set("keeps", 0);
        set("keeps as well", 0);
        assert_eq!(edge.make_room(&cache, 0, false), Some(Vec::new()));
        set("expires", 100);
        assert_eq!(
            edge.make_room(&cache, 0, false),
            Some(Vec::new()),
            "it was looked again"
        );
        // Others are looked at as well where nobody else makes room.
        assert_eq!(edge.make_room(&cache, 0, true).map(|deltas| deltas.len()), Some(1));
    }

    #[test]
    fn the_limit_is_the_smallest_cap_and_what_is_written_since_a_heartbeat_counts() {
        let cache = super::super::empty_cache(super::super::Limits::default());
        let config = EdgeConfig {
            max_bytes: Some(1 << 20),
            policy: Policy::Refuse,
        };
        let edge = Edge::new(&cache, config);
        let peer = |heartbeat, room| PeerStatus {
            store: 0,
            node: NodeId(7),
            host: "small".into(),
            release: String::new(),
            keys: 0,
            digest: Default::default(),
            synced: true,
            heartbeat,
            room,
        };
        let mut known = HashMap::new();
        edge.look_at_peers(&cache, &[peer(1, None)], &mut known);
        assert_eq!((edge.limit(), edge.smallest()), (1 << 20, None));
        let used = cache.memory_bytes();
        let room = Some(Room {
            cap: used + 14_000,
            used: used + 4_000,
        });
        edge.look_at_peers(&cache, &[peer(2, room)], &mut known);
        let limit = used + 10_000;
        assert_eq!((edge.limit(), edge.smallest().as_deref()), (limit, Some("small")));
        cache
            .set(&Key::shared(b"key"), &[0; 6_000][..], 0, time::wall())
            .expect("a set");
        edge.look_at_peers(&cache, &[peer(2, room)], &mut known);
        assert_eq!(edge.limit(), limit);
        assert!(edge.has_room(&cache, 2_000) && !edge.has_room(&cache, 6_000));
        // One that has less than this node has no more room than its cap.
        let room = Some(Room { cap: 9_000, used: 0 });
        edge.look_at_peers(&cache, &[peer(3, room)], &mut known);
        assert_eq!(edge.limit(), 9_000);
        edge.look_at_peers(&cache, &[], &mut known);
        assert_eq!((edge.limit(), edge.smallest()), (1 << 20, None));
    }
}
