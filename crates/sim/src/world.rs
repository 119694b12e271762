//! One simulated cluster: its events in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use kvcache_core::cache::{Millis, NodeId};
use kvcache_core::replica::{Input, Now};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::books::Books;
use crate::client::START;
use crate::engine::Engine;
use crate::event::{End, Event, Sender};
use crate::node::{local, Acknowledged, Node};
use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// More events than any run needs; a run that gets there goes round in circles.
const MAX_EVENTS: u64 = 3_000_000;

/// How often caches are swept, and how many partitions of each: as the provider does.
const SWEEP_MS: Millis = 100;
const SWEEP_PARTITIONS: usize = 8;

/// An event and when it happens. Of two at one time, the one that was made first comes first.
struct Entry {
    time: Millis,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.number).cmp(&(other.time, other.number))
    }
}

/// One run.
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) rng: StdRng,
    pub(crate) now: Millis,
    events: BinaryHeap<Reverse<Entry>>,
    numbers: u64,
    pub(crate) nodes: Vec<Node>,
    /// Processes started so far.
    lives: u64,
    /// Connections made so far.
    pub(crate) sessions: u64,
    /// Faults of an earlier epoch are over.
    pub(crate) epoch: u64,
    /// Whether clients write and faults happen.
    pub(crate) trouble: bool,
    pub(crate) server_down: bool,
    pub(crate) max_payload: usize,
    /// Whether messages from one node (row) do not reach another (column).
    pub(crate) deaf: Vec<bool>,
    /// Whether, in addition, the server of the one does not know of the other.
    pub(crate) split: Vec<bool>,
    /// When one node (row) was last heard by another (column), both synced.
    pub(crate) heard: Vec<Millis>,
    /// When the two of a pair had first heard each other so; 0 before.
    pub(crate) met: Vec<Millis>,
    /// Since when one node (row) has been heard by another (column) again and again, and when last; 0 if never.
    pub(crate) touch: Vec<(Millis, Millis)>,
    /// No fault before this time.
    pub(crate) rest_until: Millis,
    /// Sum of all increments of the shared counter, those of dead processes included.
    pub(crate) added: i64,
    /// What processes that left in order have told their clients.
    pub(crate) departed: Vec<Acknowledged>,
    /// When something other than a heartbeat was sent last.
    pub(crate) busy_at: Millis,
    /// Bytes of all that clients wrote.
    pub(crate) written_bytes: u64,
    /// Until then two nodes may be out of contact that others could bring together.
    pub(crate) apart_until: Millis,
    /// Messages that waited for a process which did nothing, when all was well again, and recordings that came later.
    pub(crate) waiting: u64,
    /// What the stranger has recorded, and how many messages he has seen.
    pub(crate) recorded: Vec<(Sender, Bytes)>,
    pub(crate) seen: usize,
    /// Writes so far that are to be confirmed.
    pub(crate) to_confirm: u64,
    /// Heartbeats sent.
    pub(crate) heartbeats: u64,
    /// Calls of `tick`.
    pub(crate) ticks: u64,
    /// The stores: of each place, or the one of all; none in runs without.
    pub(crate) engines: Vec<Engine>,
    /// Things that keepers of stores have planned so far.
    pub(crate) turns: u64,
    /// What processes that are gone had stored.
    pub(crate) closed: Vec<Books>,
    /// What processes that are gone had stored may have been given up.
    pub(crate) gave_up: bool,
    pub(crate) outcome: Outcome,
    pub(crate) story: bool,
}

impl World {
    /// The run of a scenario; `story` prints what happens.
    pub fn new(scenario: Scenario, story: bool) -> Self {
        let places = scenario.nodes;
        let mut world = World {
            rng: StdRng::seed_from_u64(scenario.seed),
            now: 0,
            events: BinaryHeap::new(),
            numbers: 0,
            nodes: Vec::with_capacity(places),
            lives: 0,
            sessions: 0,
            epoch: 0,
            trouble: true,
            server_down: false,
            max_payload: scenario.max_payload,
            deaf: vec![false; places * places],
            split: vec![false; places * places],
            heard: vec![0; places * places],
            met: vec![0; places * places],
            touch: vec![(0, 0); places * places],
            rest_until: 0,
            added: 0,
            departed: Vec::new(),
            busy_at: 0,
            written_bytes: 0,
            apart_until: 0,
            waiting: 0,
            recorded: Vec::new(),
            seen: 0,
            to_confirm: 0,
            heartbeats: 0,
            ticks: 0,
            engines: scenario.engines(),
            turns: 0,
            closed: Vec::new(),
            gave_up: false,
            outcome: Outcome {
                nodes: places as u64,
                ..Outcome::default()
            },
            story,
            scenario,
        };
        world.tell(|| format!("{:#?}", world.scenario));
        // All at once after a power cut, or one after the other, some much later.
        let together = world.rng.random_bool(0.2);
        let latest = if together { 50 } else { 3_000 };
        for place in 0..places {
            let node = world.fresh_node();
            world.nodes.push(node);
            let late = !together && world.rng.random_bool(0.1);
            let latest = if late { world.scenario.trouble_ms } else { latest };
            let start = world.rng.random_range(0..latest);
            world.end_at(start, End::Down { node: place });
        }
        world.at(0, Event::Client);
        world.at(1_000, Event::Fault);
        if world.scenario.sync_ms > 0 {
            world.at(world.scenario.sync_ms, Event::Sync);
        }
        if world.scenario.sweep {
            world.at(SWEEP_MS, Event::Sweep);
        }
        world
    }

    pub(crate) fn fresh_node(&mut self) -> Node {
        self.lives += 1;
        let id = NodeId(self.rng.random_range(1..u64::MAX));
        let skew = self.random_skew();
        Node::new(&self.scenario, self.lives, id, skew)
    }

    pub(crate) fn random_skew(&mut self) -> i64 {
        let most = self.scenario.max_skew_ms as i64;
        self.rng.random_range(-most..=most)
    }

    /// The places where a process is or will be.
    pub(crate) fn living(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&place| !self.nodes[place].gone)
    }

    pub(crate) fn at(&mut self, time: Millis, event: Event) {
        self.numbers += 1;
        let number = self.numbers;
        self.events.push(Reverse(Entry { time, number, event }));
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.story {
            println!("{:>7} ms  {}", self.now, what());
        }
    }

    pub(crate) fn clock(&self, node: usize) -> Now {
        let wall = (START + self.now) as i64 + self.nodes[node].skew;
        Now {
            wall: wall as Millis,
            mono: self.now,
        }
    }

    /// Runs to the end: trouble, healing, and the check that all is well.
    pub fn run(mut self) -> Outcome {
        self.run_until(self.scenario.trouble_ms);
        self.heal();
        self.check();
        self.outcome.virtual_ms = self.now;
        self.outcome
    }

    pub(crate) fn run_until(&mut self, end: Millis) {
        while self.events.peek().is_some_and(|entry| entry.0.time <= end) {
            let Some(Reverse(Entry { time, number, event })) = self.events.pop() else {
                break;
            };
            assert!(number < MAX_EVENTS, "{number} events: the run goes round in circles");
            self.now = self.now.max(time);
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, session, mail } => self.deliver(to, session, mail),
            Event::Route {
                sender,
                session,
                to,
                payload,
            } => self.route(sender, session, to, payload),
            Event::Tick { node, wake } => self.tick(node, wake),
            Event::Flush { node, life } if self.nodes[node].life == life && self.nodes[node].active() => {
                self.flush(node);
            }
            Event::Client if self.trouble => self.client(),
            Event::Fault if self.trouble => self.fault(),
            Event::End { epoch, end } if self.epoch == epoch => self.end(end),
            Event::Sweep => self.sweep(),
            Event::Keep { node, turn } => self.keep(node, turn),
            Event::Sync => {
                self.sync_engines();
                self.at(self.now + self.scenario.sync_ms, Event::Sync);
            }
            Event::Flush { .. } | Event::Client | Event::Fault | Event::End { .. } => {}
        }
    }

    /// Gives an input to a replica, and does what comes of it.
    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let now = self.clock(node);
        self.nodes[node].replica.handle(now, input);
        self.perform(node);
        self.check_claims(node);
        self.schedule(node);
    }

    /// Makes sure that the replica is ticked when it wants to be.
    pub(crate) fn schedule(&mut self, node: usize) {
        let due = self.nodes[node].replica.poll_timeout().max(self.now);
        if due < self.nodes[node].wake {
            // A real timer is a little late.
            let wake = due.saturating_add(self.rng.random_range(0..3));
            self.nodes[node].wake = wake;
            self.at(wake, Event::Tick { node, wake });
        }
    }

    fn tick(&mut self, node: usize, wake: Millis) {
        if self.nodes[node].wake != wake || !self.nodes[node].active() {
            return;
        }
        self.nodes[node].wake = Millis::MAX;
        self.tick_now(node);
        self.schedule(node);
    }

    /// Ticks the replica if that is due.
    pub(crate) fn tick_now(&mut self, node: usize) {
        if self.nodes[node].replica.poll_timeout() <= self.now {
            self.ticks += 1;
            let now = self.clock(node);
            self.nodes[node].replica.tick(now);
            self.perform(node);
            self.check_claims(node);
            let next = self.nodes[node].replica.poll_timeout();
            assert!(
                next > self.now,
                "node {node} wants to be ticked at {next} again, now is {}",
                self.now
            );
        }
    }

    /// Gives the deltas of local writes to the replica.
    pub(crate) fn flush(&mut self, node: usize) {
        if !self.nodes[node].queue.is_empty() {
            let deltas = std::mem::take(&mut self.nodes[node].queue);
            let acks = std::mem::take(&mut self.nodes[node].asked);
            self.input(node, local(deltas, acks));
        }
    }

    fn sweep(&mut self) {
        for place in 0..self.nodes.len() {
            if self.nodes[place].active() {
                let wall = self.clock(place).wall;
                self.nodes[place].cache.sweep(SWEEP_PARTITIONS, wall);
            }
        }
        self.at(self.now + SWEEP_MS, Event::Sweep);
    }
}
