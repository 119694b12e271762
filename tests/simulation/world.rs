//! One simulated cluster.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nats_kvcache::cache::{Cache, Key, Limits, Millis, NodeId};
use nats_kvcache::replica::{Config, Input, Now, Numbers, Output, Replica, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{checked_digest, commands, perform, seen, Seen, Write, START};

/// Virtual time in which clients write and faults happen.
const TROUBLE_MS: Millis = 20_000;

/// Virtual time in which everything has to be equal after the last fault.
const HEALING_MS: Millis = 60_000;

/// What happened in a run; equal for equal seeds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub writes: u64,
    pub messages: u64,
    pub lost: u64,
    pub repeated: u64,
    pub crashes: u64,
    pub cuts: u64,
    /// Virtual milliseconds from the last fault until all nodes were equal.
    pub healing_ms: u64,
    /// Hash over everything that was delivered, in order.
    pub trace: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Outcome) {
        self.writes += other.writes;
        self.messages += other.messages;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.healing_ms = self.healing_ms.max(other.healing_ms);
        self.trace = self.trace.rotate_left(1) ^ other.trace;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes, {} messages, {} lost, {} repeated, {} crashes, {} cuts, longest healing {} ms, trace {:016x}",
            self.writes, self.messages, self.lost, self.repeated, self.crashes, self.cuts, self.healing_ms, self.trace
        )
    }
}

/// How bad the network of a run is.
struct Weather {
    loss: f64,
    repeat: f64,
    max_delay: Millis,
    max_payload: usize,
}

enum Event {
    Deliver { to: usize, life: u64, input: Input },
    Tick { node: usize },
    Client,
    Trouble,
}

struct Node {
    cache: Arc<Cache>,
    replica: Replica,
    connected: bool,
    answers: bool,
    started: bool,
    /// Number of its process start; messages to an earlier one are not delivered.
    life: u64,
    skew: i64,
    /// What this process acknowledged, as far as it has to be there at the end.
    added: i64,
    only_here: BTreeMap<Key, Option<Bytes>>,
}

pub struct World {
    rng: StdRng,
    now: Millis,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    nodes: Vec<Node>,
    lives: u64,
    weather: Weather,
    /// Sum of all increments of the shared counter, those of crashed processes included.
    added: i64,
    outcome: Outcome,
    story: bool,
}

fn counter() -> Key {
    Key::shared(b"only ever incremented")
}

impl World {
    pub fn new(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(2..=6);
        let calm = rng.random_bool(0.2);
        let weather = Weather {
            loss: if calm { 0.0 } else { rng.random_range(0.0..0.6) },
            repeat: rng.random_range(0.0..0.3),
            max_delay: rng.random_range(1..800),
            max_payload: if rng.random_bool(0.3) { 1_024 } else { 1 << 20 },
        };
        let mut world = World {
            rng,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            nodes: Vec::new(),
            lives: 0,
            weather,
            added: 0,
            outcome: Outcome::default(),
            story,
        };
        for place in 0..count {
            let node = world.fresh_node();
            world.nodes.push(node);
            let start = world.rng.random_range(0..3_000);
            world.at(start, Event::Tick { node: place });
        }
        world.at(0, Event::Client);
        world.at(1_000, Event::Trouble);
        world
    }

    fn fresh_node(&mut self) -> Node {
        self.lives += 1;
        let id = NodeId(self.rng.random_range(1..u64::MAX));
        let cache = Arc::new(Cache::new(id, Limits::default()));
        let config = Config {
            host: format!("host{}", self.lives),
            release: "simulated".into(),
            beat_interval_ms: 1_000,
            sync_limit_ms: 10_000,
        };
        Node {
            replica: Replica::new(cache.clone(), config, Numbers::default()),
            cache,
            connected: false,
            answers: false,
            started: false,
            life: self.lives,
            skew: self.rng.random_range(-120_000..120_000),
            added: 0,
            only_here: BTreeMap::new(),
        }
    }

    fn at(&mut self, time: Millis, event: Event) {
        self.queue.push(Reverse((time, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.story {
            println!("{:>7} ms  {}", self.now, what());
        }
    }

    fn clock(&self, node: usize) -> Now {
        let wall = (START + self.now) as i64 + self.nodes[node].skew;
        Now {
            wall: wall as Millis,
            mono: self.now,
        }
    }

    /// Runs to the end: trouble, healing, and the check that all is well.
    pub fn run(mut self) -> Outcome {
        self.run_until(TROUBLE_MS, false);
        self.tell(|| "the network is well again".into());
        self.weather.loss = 0.0;
        for node in 0..self.nodes.len() {
            self.connect(node);
        }
        let healed = self.now;
        let limit = healed + HEALING_MS;
        while self.now < limit && !self.settled() {
            let next = self.now + 100;
            self.run_until(next, true);
        }
        self.outcome.healing_ms = self.now - healed;
        self.check();
        self.outcome
    }

    fn run_until(&mut self, end: Millis, well: bool) {
        while let Some(&Reverse((time, number))) = self.queue.peek() {
            if time > end {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(time);
            let event = self
                .events
                .remove(&number)
                .expect("an event for every entry of the queue");
            match event {
                Event::Deliver { to, life, input } => self.deliver(to, life, input),
                Event::Tick { node } => self.tick(node),
                Event::Client if !well => self.client(),
                Event::Trouble if !well => self.trouble(),
                Event::Client | Event::Trouble => {}
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, life: u64, input: Input) {
        let node = &self.nodes[to];
        if node.life != life || !node.connected {
            return;
        }
        if let Input::Message(bytes) = &input {
            self.outcome.messages += 1;
            let folded = bytes.iter().fold(self.now ^ to as u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            self.outcome.trace = self.outcome.trace.rotate_left(5) ^ folded;
        }
        self.input(to, input);
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.clock(node);
        self.nodes[node].replica.handle(now, input);
        self.perform(node);
    }

    fn tick(&mut self, node: usize) {
        // The first tick of a process is its start.
        if !std::mem::replace(&mut self.nodes[node].started, true) {
            self.connect(node);
        }
        let now = self.clock(node);
        self.nodes[node].replica.tick(now);
        self.perform(node);
        let wake = self.nodes[node]
            .replica
            .poll_timeout()
            .clamp(self.now + 1, self.now + 250);
        self.at(wake, Event::Tick { node });
    }

    fn connect(&mut self, node: usize) {
        if !self.nodes[node].connected {
            self.tell(|| format!("node {node} connects"));
            self.nodes[node].connected = true;
            let max_payload = self.weather.max_payload;
            self.input(node, Input::Connected { max_payload });
        }
    }

    fn disconnect(&mut self, node: usize) {
        if self.nodes[node].connected {
            self.tell(|| format!("node {node} is cut off"));
            self.outcome.cuts += 1;
            self.nodes[node].connected = false;
            self.input(node, Input::Disconnected);
        }
    }

    fn perform(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].replica.poll_output() {
            match output {
                Output::AnswerReplays => self.nodes[node].answers = true,
                Output::Publish { to, payload } => {
                    assert!(
                        payload.len() <= self.weather.max_payload,
                        "a message of {} bytes",
                        payload.len()
                    );
                    self.publish(node, to, payload);
                }
            }
        }
    }

    fn publish(&mut self, from: usize, to: Target, payload: Bytes) {
        let others = || (0..self.nodes.len()).filter(|&other| other != from && self.nodes[other].connected);
        let receivers: Vec<usize> = match to {
            Target::Commands | Target::Beat => others().collect(),
            Target::Node(id) => others().filter(|&other| self.nodes[other].cache.node() == id).collect(),
            Target::Replay { request } => {
                let group: Vec<usize> = others().filter(|&other| self.nodes[other].answers).collect();
                if group.is_empty() {
                    let life = self.nodes[from].life;
                    let input = Input::NoResponders { request };
                    return self.at(self.now, Event::Deliver { to: from, life, input });
                }
                vec![group[self.rng.random_range(0..group.len())]]
            }
        };
        for to in receivers {
            if self.rng.random_bool(self.weather.loss) {
                self.outcome.lost += 1;
                continue;
            }
            let copies = 1 + usize::from(self.rng.random_bool(self.weather.repeat));
            self.outcome.repeated += copies as u64 - 1;
            for _ in 0..copies {
                let arrival = self.now + self.rng.random_range(0..=self.weather.max_delay);
                let life = self.nodes[to].life;
                self.at(
                    arrival,
                    Event::Deliver {
                        to,
                        life,
                        input: Input::Message(payload.clone()),
                    },
                );
            }
        }
    }

    fn trouble(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        match self.rng.random_range(0..6) {
            0 => self.disconnect(node),
            1 | 2 => self.connect(node),
            3 => {
                self.tell(|| format!("node {node} crashes and starts again"));
                self.outcome.crashes += 1;
                self.nodes[node] = Node {
                    started: true,
                    ..self.fresh_node()
                };
                self.connect(node);
            }
            4 => self.input(node, Input::MessagesLost),
            _ => {}
        }
        let next = self.now + self.rng.random_range(100..2_000);
        self.at(next, Event::Trouble);
    }

    /// A client writes at some node: to keys that all fight about, to the shared counter, or to a key of its own.
    fn client(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        let now = self.clock(node).wall;
        let cache = self.nodes[node].cache.clone();
        let command = match self.rng.random_range(0..4) {
            0 => {
                let amount = self.rng.random_range(1..10);
                let (_, command) = cache.increment(&counter(), amount, now).expect("small numbers");
                self.nodes[node].added += i64::from(amount);
                self.added += i64::from(amount);
                Some(command)
            }
            1 => self.write_own_key(node, now),
            _ => {
                let key = Key::shared(format!("shared {}", self.rng.random_range(0..4)).as_bytes());
                let write = self.random_write();
                perform(&cache, &key, &write, now).ok().flatten()
            }
        };
        if let Some(command) = command {
            self.outcome.writes += 1;
            self.input(node, Input::Local(vec![command]));
        }
        let next = self.now + self.rng.random_range(1..200);
        self.at(next, Event::Client);
    }

    fn write_own_key(&mut self, node: usize, now: Millis) -> Option<nats_kvcache::cache::Command> {
        let life = self.nodes[node].life;
        let key = Key::shared(format!("own {life} {}", self.rng.random_range(0..5)).as_bytes());
        let cache = self.nodes[node].cache.clone();
        if self.rng.random_bool(0.3) {
            self.nodes[node].only_here.insert(key.clone(), None);
            return Some(cache.delete(&key, now).1);
        }
        let length = if self.rng.random_bool(0.1) { 5_000 } else { 8 };
        let value = Bytes::from(vec![b'x'; length]);
        self.nodes[node].only_here.insert(key.clone(), Some(value.clone()));
        cache.set(&key, value, 0, now).ok()
    }

    fn random_write(&mut self) -> Write {
        let text = ["a", "b", "a longer text than fits inline"][self.rng.random_range(0..3)].to_owned();
        match self.rng.random_range(0..9) {
            0 => Write::Set {
                value: "10".into(),
                expires: 0,
            },
            1 => Write::Set {
                value: text,
                expires: self.rng.random_range(1..4),
            },
            2 => Write::Delete,
            3 | 4 => Write::Increment(self.rng.random_range(-5..10)),
            5 => Write::Push(text),
            6 => Write::Remove(text),
            7 => Write::Add(text),
            _ => Write::Drop(text),
        }
    }

    fn settled(&self) -> bool {
        let digest = self.nodes[0].cache.root_digest();
        self.nodes.iter().all(|node| node.cache.root_digest() == digest)
    }

    fn check(&self) {
        for place in 0..self.nodes.len() {
            let (cache, status) = (
                &self.nodes[place].cache,
                self.nodes[place].replica.status(self.clock(place)),
            );
            self.tell(|| {
                format!(
                    "node {place} {} {} digest {} peers {}: {}",
                    cache.node(),
                    status.sync,
                    cache.root_digest(),
                    status.peers.len(),
                    status.counters
                )
            });
        }
        let first = &self.nodes[0];
        // All clocks have passed every deadline of a shared key by now.
        let later = START + self.now + 600_000;
        for (place, node) in self.nodes.iter().enumerate() {
            assert_eq!(
                checked_digest(&node.cache),
                checked_digest(&first.cache),
                "digest of node {place}"
            );
            assert_eq!(commands(&node.cache), commands(&first.cache), "state of node {place}");
        }
        let survived: i64 = self.nodes.iter().map(|node| node.added).sum();
        let total: i64 = match seen(&first.cache, &counter(), later) {
            Seen::Nothing => 0,
            Seen::Scalar(text) => std::str::from_utf8(&text).unwrap().parse().unwrap(),
            other => panic!("the counter is {other:?}"),
        };
        assert!(
            (survived..=self.added).contains(&total),
            "counter {total}, survivors added {survived} of {}",
            self.added
        );
        for (key, value) in self.nodes.iter().flat_map(|node| &node.only_here) {
            let expected = value.clone().map_or(Seen::Nothing, Seen::Scalar);
            assert_eq!(
                seen(&first.cache, key, later),
                expected,
                "{key:?} of a node that survived"
            );
        }
    }
}
