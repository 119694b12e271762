//! A few bare replicas on a network that does what a test says, in virtual time and through the real codec.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use kvcache_core::cache::{Cache, Delta, Key, Limits, Millis, NodeId};
use kvcache_core::replica::{
    AckLevel, AckRequest, Counters, Input, Keyring, Now, Output, Refused, Replica, ReplicaConfig, Start, Status,
    SyncState, Target, Unconfirmed,
};
use kvcache_core::wire::{self, Kind};

/// Wall clock at which all nodes start.
pub const START: Millis = 1_700_000_000_000;

/// Interval of heartbeats.
pub const HEARTBEAT: Millis = 1_000;

pub fn pair(byte: u8) -> nkeys::KeyPair {
    nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::Cluster, [byte; 32]).expect("a key pair of any bytes")
}

/// What nodes of the cluster seed made of `byte` authenticate with; they accept the issuers of `others` as well.
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
    /// Whether it is one of those that may be asked for a bootstrap.
    pub answers: bool,
    pub acked: BTreeMap<u64, Result<(), Unconfirmed>>,
    /// Subscriptions it asked to be made again.
    pub subscribed_again: Vec<Refused>,
}

/// A message on the network.
#[derive(Clone)]
pub struct Sent {
    pub from: usize,
    pub to: Target,
    pub payload: Bytes,
}

impl Sent {
    /// Kind of the message.
    pub fn kind(&self) -> Kind {
        wire::kind_of(&self.payload).expect("a message of a node")
    }
}

/// The way between one node and its server. What does not fit waits, in order.
#[derive(Clone, Copy, Default)]
pub struct Link {
    /// Bytes per millisecond, each way. 0: any number.
    pub rate: u64,
    /// Milliseconds, each way.
    pub delay: Millis,
    /// Until when it is busy, from the server and to it.
    busy: [Millis; 2],
    /// Bytes that came from the server.
    pub carried: u64,
}

impl Link {
    pub fn of(rate: u64, delay: Millis) -> Self {
        Link {
            rate,
            delay,
            ..Link::default()
        }
    }

    /// Something else is in front until `until`.
    pub fn hold(&mut self, until: Millis) {
        self.busy[0] = until;
    }

    /// When the last of so many bytes arrives that are sent at `now`.
    fn carry(&mut self, direction: usize, bytes: usize, now: Millis) -> Millis {
        let takes = (bytes as u64).checked_div(self.rate).unwrap_or(0);
        self.busy[direction] = self.busy[direction].max(now) + takes;
        self.busy[direction] + self.delay
    }
}

type Drops = Box<dyn FnMut(&Sent, usize) -> bool>;

type Order = Box<dyn FnMut(usize) -> usize>;

pub struct Net {
    pub nodes: Vec<Node>,
    pub now: Millis,
    pub max_payload: usize,
    pub limits: Limits,
    pub ring_bytes: usize,
    /// What the nodes that join from now on have as their setting.
    pub min_peers: usize,
    /// What the names of hosts begin with.
    pub host: String,
    /// Whether the server knows who answers bootstraps.
    group_known: bool,
    /// Somebody says to each request that nobody listens, in the name of the server.
    pub forge_no_responders: bool,
    /// Everything that was sent.
    pub sent: Vec<Sent>,
    /// Messages for which this says true do not reach that node.
    drops: Drops,
    /// Which of so many messages that are on their way arrives next.
    order: Order,
    flying: VecDeque<(usize, Input)>,
    /// Links of nodes that have a slow one.
    links: BTreeMap<usize, Link>,
    /// What is on its way over links, by the time when it arrives and by number.
    on_links: BTreeMap<(Millis, usize), (usize, Bytes)>,
    number: usize,
    /// By how many milliseconds the wall clock of a node is ahead.
    ahead: BTreeMap<usize, i64>,
}

impl Net {
    pub fn new() -> Self {
        Net {
            nodes: Vec::new(),
            now: 0,
            max_payload: 1 << 20,
            limits: Limits::default(),
            ring_bytes: 1 << 20,
            min_peers: 0,
            host: "host".into(),
            group_known: true,
            forge_no_responders: false,
            sent: Vec::new(),
            drops: Box::new(|_, _| false),
            order: Box::new(|_| 0),
            flying: VecDeque::new(),
            links: BTreeMap::new(),
            on_links: BTreeMap::new(),
            number: 0,
            ahead: BTreeMap::new(),
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
        self.join_with(cache, keyring, ReplicaConfig::VERSIONS)
    }

    pub fn empty_cache(&self) -> Arc<Cache> {
        // Any distinct numbers that do not grow with the place.
        let id = (self.nodes.len() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Arc::new(Cache::new(NodeId(id), self.limits))
    }

    pub fn join_with(&mut self, cache: Arc<Cache>, keyring: Arc<Keyring>, versions: (u8, u8)) -> usize {
        self.join_from(Start::Empty, cache, keyring, versions)
    }

    pub fn join_from(&mut self, start: Start, cache: Arc<Cache>, keyring: Arc<Keyring>, versions: (u8, u8)) -> usize {
        let config = ReplicaConfig {
            host: format!("{}{}", self.host, self.nodes.len()),
            release: "test".into(),
            heartbeat_interval_ms: HEARTBEAT,
            sync_limit_ms: 10_000,
            min_peers: self.min_peers,
            keyring,
            ring_bytes: self.ring_bytes,
            versions,
        };
        self.nodes.push(Node {
            replica: Replica::new(cache.clone(), config, start),
            cache,
            connected: false,
            stopped: false,
            mailbox: VecDeque::new(),
            answers: false,
            acked: BTreeMap::new(),
            subscribed_again: Vec::new(),
        });
        let place = self.nodes.len() - 1;
        self.connect(place);
        place
    }

    /// A node whose server does not know of the others yet.
    pub fn join_cut_off(&mut self) -> usize {
        let new = self.nodes.len();
        self.drop_where(move |sent, to| sent.from == new || to == new);
        self.group_is_known(false);
        self.join(keyring(1, &[]))
    }

    pub fn group_is_known(&mut self, known: bool) {
        self.group_known = known;
    }

    pub fn connect(&mut self, node: usize) {
        self.nodes[node].connected = true;
        let max_payload = self.max_payload;
        self.input(node, Input::Connected { max_payload });
    }

    /// What waits on the link of the node is lost.
    pub fn disconnect(&mut self, node: usize) {
        self.on_links.retain(|_, (to, _)| *to != node);
        if let Some(link) = self.links.get_mut(&node) {
            link.busy = [self.now; 2];
        }
        self.nodes[node].connected = false;
        self.input(node, Input::Disconnected);
    }

    /// From now on the node is behind this link.
    pub fn link(&mut self, node: usize, link: Link) {
        self.links.insert(node, link);
    }

    /// From now on the node's link carries so many bytes per millisecond. What waits on it arrives that much later.
    pub fn slow_down(&mut self, node: usize, rate: u64) {
        let Some(link) = self.links.get_mut(&node) else { return };
        link.rate = rate;
        link.busy = [self.now; 2];
        let to_node = |(to, _): &(usize, Bytes)| *to == node;
        let waiting: Vec<_> = self
            .on_links
            .iter()
            .filter(|(_, sent)| to_node(sent))
            .map(|(at, _)| *at)
            .collect();
        for at in waiting {
            if let Some(sent) = self.on_links.remove(&at) {
                let arrives = link.carry(0, sent.1.len(), self.now);
                self.on_links.insert((arrives, at.1), sent);
            }
        }
    }

    /// Bytes that came over the node's link.
    pub fn carried(&self, node: usize) -> u64 {
        self.links[&node].carried
    }

    /// Milliseconds of messages that wait on the node's link, from the server and to it.
    pub fn queues(&self, node: usize) -> [Millis; 2] {
        self.links[&node].busy.map(|until| until.saturating_sub(self.now))
    }

    /// From now on messages do not reach a node where this says true.
    pub fn drop_where(&mut self, drops: impl FnMut(&Sent, usize) -> bool + 'static) {
        self.drops = Box::new(drops);
    }

    pub fn drop_nothing(&mut self) {
        self.drop_where(|_, _| false);
    }

    /// From now on what waits arrives in this order: `order` names the place of the next one among so many.
    pub fn deliver_in_order(&mut self, order: impl FnMut(usize) -> usize + 'static) {
        self.order = Box::new(order);
    }

    pub fn clock(&self) -> Now {
        Now {
            wall: START + self.now,
            mono: self.now + 1,
        }
    }

    /// As a node sees it.
    pub fn clock_of(&self, node: usize) -> Now {
        let now = self.clock();
        let ahead = self.ahead.get(&node).copied().unwrap_or(0);
        Now {
            wall: now.wall.saturating_add_signed(ahead),
            ..now
        }
    }

    /// From now on the wall clock of a node is so many milliseconds ahead.
    pub fn set_clock(&mut self, node: usize, ahead: i64) {
        self.ahead.insert(node, ahead);
    }

    pub fn input(&mut self, node: usize, input: Input) {
        if self.nodes[node].stopped {
            self.nodes[node].mailbox.push_back(input);
            return;
        }
        let now = self.clock_of(node);
        self.nodes[node].replica.handle(now, input);
        self.perform(node);
    }

    fn perform(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].replica.poll_output() {
            match output {
                Output::AnswerBootstraps => self.nodes[node].answers = true,
                Output::LeaveBootstraps => self.nodes[node].answers = false,
                Output::Answer(job) => {
                    let (answered, now) = (job.run(&self.nodes[node].cache), self.clock_of(node));
                    self.nodes[node].replica.handle(now, Input::Answered(answered));
                }
                Output::SubscribeAgain(what) => self.nodes[node].subscribed_again.push(what),
                Output::Tell(_) => {}
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
            Target::Deltas | Target::Heartbeat => others.collect(),
            Target::Node(id) => others.filter(|&other| self.nodes[other].cache.node() == id).collect(),
            Target::Bootstrap { request } => {
                let known = |&other: &usize| self.group_known && self.nodes[other].answers;
                let group: Vec<usize> = others.filter(known).collect();
                if group.is_empty() {
                    self.flying.push_back((sent.from, Input::NoResponders { request }));
                }
                group.into_iter().take(1).collect()
            }
        };
        if self.forge_no_responders {
            for request in 0..1_000 {
                self.flying.push_back((sent.from, Input::NoResponders { request }));
            }
        }
        let (bytes, now) = (sent.payload.len(), self.now);
        let at_server = self
            .links
            .get_mut(&sent.from)
            .map_or(now, |link| link.carry(1, bytes, now));
        for to in receivers {
            if (self.drops)(&sent, to) {
                continue;
            }
            let arrives = match self.links.get_mut(&to) {
                Some(link) => {
                    link.carried += bytes as u64;
                    link.carry(0, bytes, at_server)
                }
                None => at_server,
            };
            if arrives > now {
                self.number += 1;
                self.on_links.insert((arrives, self.number), (to, sent.payload.clone()));
            } else {
                self.flying.push_back((to, Input::Message(sent.payload.clone())));
            }
        }
        self.sent.push(sent);
    }

    fn next_arrival(&mut self) -> Option<(usize, Input)> {
        let place = match self.flying.len() {
            0 | 1 => 0,
            waiting => (self.order)(waiting),
        };
        self.flying.remove(place)
    }

    /// Lets time pass.
    pub fn run(&mut self, ms: Millis) {
        let end = self.now + ms;
        loop {
            while self
                .on_links
                .first_key_value()
                .is_some_and(|((at, _), _)| *at <= self.now)
            {
                if let Some((_, (to, payload))) = self.on_links.pop_first() {
                    self.flying.push_back((to, Input::Message(payload)));
                }
            }
            while let Some((to, input)) = self.next_arrival() {
                if self.nodes[to].connected {
                    self.input(to, input);
                }
            }
            let wake = |node: &Node| node.replica.poll_timeout().saturating_sub(1).min(self.now + 250);
            let awake = self.nodes.iter().filter(|node| !node.stopped);
            let arrives = self.on_links.first_key_value().map_or(end, |((at, _), _)| *at);
            let next = awake.map(wake).min().unwrap_or(end).min(arrives).max(self.now + 1);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            for node in 0..self.nodes.len() {
                if !self.nodes[node].stopped {
                    let now = self.clock_of(node);
                    self.nodes[node].replica.tick(now);
                    self.perform(node);
                }
            }
        }
    }

    /// Lets time pass until `done`, at most a minute. Returns how long it took.
    pub fn run_until(&mut self, what: &str, done: impl Fn(&Net) -> bool) -> Millis {
        self.run_until_within(what, 60_000, done)
    }

    fn run_until_within(&mut self, what: &str, limit: Millis, done: impl Fn(&Net) -> bool) -> Millis {
        let began = self.now;
        while !done(self) {
            assert!(
                self.now < began + limit,
                "{what}: not within {limit} ms; {:#?}",
                self.statuses()
            );
            self.run(20);
        }
        self.now - began
    }

    /// Waits until all connected nodes are synced and count each other as peers.
    pub fn settle(&mut self) -> Millis {
        self.settle_within(60_000)
    }

    pub fn settle_within(&mut self, limit: Millis) -> Millis {
        self.run_until_within("all nodes are synced and know each other", limit, |net| {
            let connected = || (0..net.nodes.len()).filter(|&node| net.nodes[node].connected);
            connected().all(|node| {
                let status = net.status(node);
                let alone = connected().count() == 1 && status.sync == SyncState::Alone;
                (status.sync == SyncState::Synced || alone) && status.peers.len() == connected().count() - 1
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
        self.nodes[node].replica.status(self.clock_of(node))
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
    pub fn set_silently(&self, node: usize, key: &str, value: &str) -> Delta {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let now = self.clock_of(node).wall;
        self.nodes[node]
            .cache
            .set(&name(key), value, 0, now)
            .expect("a small value")
    }

    pub fn set(&mut self, node: usize, key: &str, value: &str) {
        let delta = self.set_silently(node, key, value);
        self.send(node, vec![delta]);
    }

    pub fn delete(&mut self, node: usize, key: &str) {
        let now = self.clock_of(node).wall;
        let (_, delta) = self.nodes[node].cache.delete(&name(key), now).unwrap();
        self.send(node, vec![delta]);
    }

    pub fn send(&mut self, node: usize, deltas: Vec<Delta>) {
        self.input(
            node,
            Input::Local {
                deltas,
                acks: Vec::new(),
            },
        );
    }

    /// A write that wants to be confirmed.
    pub fn set_acked(&mut self, node: usize, key: &str, value: &str, id: u64, wanted: AckLevel, within: Millis) {
        let deltas = vec![self.set_silently(node, key, value)];
        let acks = vec![AckRequest {
            id,
            wanted,
            deadline: self.clock_of(node).mono + within,
        }];
        self.input(node, Input::Local { deltas, acks });
    }

    pub fn get(&self, node: usize, key: &str) -> Option<String> {
        let value = self.nodes[node]
            .cache
            .get(&name(key), self.clock_of(node).wall)
            .expect("a scalar");
        value.map(|value| String::from_utf8(value.into()).expect("text"))
    }

    /// Sweeps all of a node's cache.
    pub fn sweep(&self, node: usize) {
        self.nodes[node].cache.sweep(1_024, self.clock_of(node).wall);
    }

    /// Bytes sent since `from` to single nodes: all but frames and heartbeats.
    pub fn repair_bytes(&self, from: usize) -> usize {
        let directed = |sent: &&Sent| matches!(sent.to, Target::Node(_) | Target::Bootstrap { .. });
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
