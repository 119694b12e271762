//! A few bare replicas on a network that does what a test says, in virtual time and through the real codec.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nats_kvcache::cache::{Cache, Command, Key, Limits, Millis, NodeId};
use nats_kvcache::replica::{
    Ack, AckRequest, Config, Counters, Input, Keyring, Now, Numbers, Output, Replica, Status, SyncState, Target,
    Unconfirmed,
};

/// Wall clock at which all nodes start.
pub const START: Millis = 1_700_000_000_000;

/// Interval of beats.
pub const BEAT: Millis = 1_000;

pub fn pair(byte: u8) -> nkeys::KeyPair {
    nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::Cluster, [byte; 32]).expect("a key pair of any bytes")
}

/// What nodes of the cluster seed made of `byte` seal with; they accept the issuers of `others` as well.
pub fn keyring(byte: u8, others: &[u8]) -> Arc<Keyring> {
    let issuers: Vec<String> = others.iter().map(|byte| pair(*byte).public_key()).collect();
    let seed = pair(byte).seed().expect("a pair that has its seed");
    Arc::new(Keyring::new(&seed, &issuers, "root").expect("a valid seed"))
}

pub struct Node {
    pub cache: Arc<Cache>,
    pub replica: Replica,
    pub connected: bool,
    /// A stopped process does nothing; what is sent to it waits.
    pub stopped: bool,
    mailbox: VecDeque<Input>,
    /// Whether it is one of those that may be asked for a replay.
    pub answers: bool,
    pub acked: BTreeMap<u64, Result<(), Unconfirmed>>,
}

/// A message on the network.
#[derive(Clone)]
pub struct Sent {
    pub from: usize,
    pub to: Target,
    pub payload: Bytes,
}

impl Sent {
    /// Kind of the message, see docs/PROTOCOL.md.
    pub fn kind(&self) -> u8 {
        self.payload[1]
    }
}

type Drops = Box<dyn FnMut(&Sent, usize) -> bool>;

pub struct Net {
    pub nodes: Vec<Node>,
    pub now: Millis,
    pub max_payload: usize,
    pub limits: Limits,
    pub ring_bytes: usize,
    /// Everything that was sent.
    pub sent: Vec<Sent>,
    /// Messages for which this says true do not reach that node.
    drops: Drops,
    flying: VecDeque<(usize, Input)>,
}

impl Net {
    pub fn new() -> Self {
        Net {
            nodes: Vec::new(),
            now: 0,
            max_payload: 1 << 20,
            limits: Limits::default(),
            ring_bytes: 1 << 20,
            sent: Vec::new(),
            drops: Box::new(|_, _| false),
            flying: VecDeque::new(),
        }
    }

    /// A network of connected nodes of one seed that count each other as peers.
    pub fn of(count: usize) -> Self {
        let mut net = Net::new();
        for _ in 0..count {
            net.join(keyring(1, &[]));
        }
        net.settle();
        net
    }

    pub fn join(&mut self, keyring: Arc<Keyring>) -> usize {
        let cache = self.empty_cache();
        self.join_with(cache, keyring, Config::VERSIONS)
    }

    pub fn empty_cache(&self) -> Arc<Cache> {
        // Any distinct numbers that do not grow with the place.
        let id = (self.nodes.len() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Arc::new(Cache::new(NodeId(id), self.limits))
    }

    pub fn join_with(&mut self, cache: Arc<Cache>, keyring: Arc<Keyring>, versions: (u8, u8)) -> usize {
        let config = Config {
            host: format!("host{}", self.nodes.len()),
            release: "test".into(),
            beat_interval_ms: BEAT,
            sync_limit_ms: 10_000,
            keyring,
            ring_bytes: self.ring_bytes,
            versions,
        };
        self.nodes.push(Node {
            replica: Replica::new(cache.clone(), config, Numbers::default()),
            cache,
            connected: false,
            stopped: false,
            mailbox: VecDeque::new(),
            answers: false,
            acked: BTreeMap::new(),
        });
        let place = self.nodes.len() - 1;
        self.connect(place);
        place
    }

    pub fn connect(&mut self, node: usize) {
        self.nodes[node].connected = true;
        let max_payload = self.max_payload;
        self.input(node, Input::Connected { max_payload });
    }

    pub fn disconnect(&mut self, node: usize) {
        self.nodes[node].connected = false;
        self.input(node, Input::Disconnected);
    }

    /// From now on messages do not reach a node where this says true.
    pub fn drop_where(&mut self, drops: impl FnMut(&Sent, usize) -> bool + 'static) {
        self.drops = Box::new(drops);
    }

    pub fn drop_nothing(&mut self) {
        self.drop_where(|_, _| false);
    }

    pub fn clock(&self) -> Now {
        Now {
            wall: START + self.now,
            mono: self.now + 1,
        }
    }

    pub fn input(&mut self, node: usize, input: Input) {
        if self.nodes[node].stopped {
            self.nodes[node].mailbox.push_back(input);
            return;
        }
        let now = self.clock();
        self.nodes[node].replica.handle(now, input);
        self.perform(node);
    }

    fn perform(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].replica.poll_output() {
            match output {
                Output::AnswerReplays => self.nodes[node].answers = true,
                Output::LeaveReplays => self.nodes[node].answers = false,
                Output::Acked { id, result } => {
                    self.nodes[node].acked.insert(id, result);
                }
                Output::Publish { to, payload } => {
                    assert!(payload.len() <= self.max_payload, "{} bytes", payload.len());
                    self.publish(Sent {
                        from: node,
                        to,
                        payload,
                    });
                }
            }
        }
    }

    fn publish(&mut self, sent: Sent) {
        let others = (0..self.nodes.len()).filter(|&other| other != sent.from && self.nodes[other].connected);
        let receivers: Vec<usize> = match sent.to {
            Target::Commands | Target::Beat => others.collect(),
            Target::Node(id) => others.filter(|&other| self.nodes[other].cache.node() == id).collect(),
            Target::Replay { request } => {
                let group: Vec<usize> = others.filter(|&other| self.nodes[other].answers).collect();
                if group.is_empty() {
                    self.flying.push_back((sent.from, Input::NoResponders { request }));
                }
                group.into_iter().take(1).collect()
            }
        };
        for to in receivers {
            if !(self.drops)(&sent, to) {
                self.flying.push_back((to, Input::Message(sent.payload.clone())));
            }
        }
        self.sent.push(sent);
    }

    /// Lets time pass.
    pub fn run(&mut self, ms: Millis) {
        let end = self.now + ms;
        loop {
            while let Some((to, input)) = self.flying.pop_front() {
                if self.nodes[to].connected {
                    self.input(to, input);
                }
            }
            let wake = |node: &Node| node.replica.poll_timeout().saturating_sub(1).min(self.now + 250);
            let awake = self.nodes.iter().filter(|node| !node.stopped);
            let next = awake.map(wake).min().unwrap_or(end).max(self.now + 1);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            for node in 0..self.nodes.len() {
                if !self.nodes[node].stopped {
                    let now = self.clock();
                    self.nodes[node].replica.tick(now);
                    self.perform(node);
                }
            }
        }
    }

    /// Lets time pass until `done`, at most a minute. Returns how long it took.
    pub fn run_until(&mut self, what: &str, done: impl Fn(&Net) -> bool) -> Millis {
        let began = self.now;
        while !done(self) {
            assert!(
                self.now < began + 60_000,
                "{what}: not within a minute; {:#?}",
                self.statuses()
            );
            self.run(20);
        }
        self.now - began
    }

    /// Waits until all connected nodes are synced and count each other as peers.
    pub fn settle(&mut self) -> Millis {
        self.run_until("all nodes are synced and know each other", |net| {
            let connected = || (0..net.nodes.len()).filter(|&node| net.nodes[node].connected);
            connected().all(|node| {
                let status = net.status(node);
                status.sync == SyncState::Synced && status.peers.len() == connected().count() - 1
            })
        })
    }

    pub fn equal(&self) -> bool {
        let digests = self
            .nodes
            .iter()
            .filter(|node| node.connected)
            .map(|node| node.cache.root_digest());
        let digests: Vec<_> = digests.collect();
        digests.windows(2).all(|pair| pair[0] == pair[1])
    }

    pub fn wait_equal(&mut self) -> Millis {
        self.run_until("all nodes are equal", Net::equal)
    }

    pub fn status(&self, node: usize) -> Status {
        self.nodes[node].replica.status(self.clock())
    }

    pub fn counters(&self, node: usize) -> Counters {
        self.status(node).counters
    }

    fn statuses(&self) -> Vec<Status> {
        (0..self.nodes.len()).map(|node| self.status(node)).collect()
    }

    pub fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = true;
    }

    pub fn go_on(&mut self, node: usize) {
        self.nodes[node].stopped = false;
        for input in std::mem::take(&mut self.nodes[node].mailbox) {
            self.input(node, input);
        }
    }

    // --- clients

    /// A write at a node that is not replicated: as if all that was ever sent of it had been lost.
    pub fn set_silently(&self, node: usize, key: &str, value: &str) -> Command {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let now = self.clock().wall;
        self.nodes[node]
            .cache
            .set(&name(key), value, 0, now)
            .expect("a small value")
    }

    pub fn set(&mut self, node: usize, key: &str, value: &str) {
        let command = self.set_silently(node, key, value);
        self.send(node, vec![command]);
    }

    pub fn delete(&mut self, node: usize, key: &str) {
        let now = self.clock().wall;
        let (_, command) = self.nodes[node].cache.delete(&name(key), now).unwrap();
        self.send(node, vec![command]);
    }

    pub fn send(&mut self, node: usize, commands: Vec<Command>) {
        self.input(
            node,
            Input::Local {
                commands,
                acks: Vec::new(),
            },
        );
    }

    /// A write that wants to be confirmed.
    pub fn set_acked(&mut self, node: usize, key: &str, value: &str, id: u64, wanted: Ack, within: Millis) {
        let commands = vec![self.set_silently(node, key, value)];
        let acks = vec![AckRequest {
            id,
            wanted,
            deadline: self.clock().mono + within,
        }];
        self.input(node, Input::Local { commands, acks });
    }

    pub fn get(&self, node: usize, key: &str) -> Option<String> {
        let value = self.nodes[node]
            .cache
            .get(&name(key), self.clock().wall)
            .expect("a scalar");
        value.map(|value| String::from_utf8(value.into()).expect("text"))
    }

    /// Sweeps all of a node's cache.
    pub fn sweep(&self, node: usize) {
        self.nodes[node].cache.sweep(1_024, self.clock().wall);
    }

    /// Bytes sent since `from` to single nodes: all but frames and beats.
    pub fn repair_bytes(&self, from: usize) -> usize {
        let directed = |sent: &&Sent| matches!(sent.to, Target::Node(_) | Target::Replay { .. });
        self.sent[from..]
            .iter()
            .filter(directed)
            .map(|sent| sent.payload.len())
            .sum()
    }
}

pub fn name(key: &str) -> Key {
    Key::shared(key.as_bytes())
}
