//! Section 8: what a lattice of many nodes costs each of them. Bare replicas in virtual time, without NATS.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use bytes::Bytes;
use kvcache_core::cache::{Cache, Limits, Millis, NodeId, Partition, PARTITIONS};
use kvcache_core::replica::{
    AckLevel, AckRequest, Input, Keyring, Now, Output, Replica, ReplicaConfig, Start, SyncState, Target,
};
use kvcache_node::time;

use crate::node;
use crate::report::{self, median, Line, Series};
use crate::table::number;
use crate::Arguments;

const SIZES: [usize; 3] = [16, 64, 256];

/// The first nodes of a lattice are peers of all others, and are what is measured. The others know only them: it is not
/// to take minutes until all have met.
const MEASURED: usize = 4;

/// The intervals of nodes with so many peers grow by one (`PEERS_PER_SLOWDOWN` of docs/PROTOCOL.md).
const PEERS_PER_SLOWDOWN: usize = 32;

const BEAT_MS: Millis = 1_000;

/// The replication task looks after its replica at least this often.
const TICK_MS: Millis = 250;

/// Frames per sample.
const FRAMES: usize = 4_096;

/// Writes per sample that all peers confirm.
const CONFIRMED: usize = 8;

/// Keys that are written.
const KEYS: usize = 1_024;

/// Virtual time in which all have met.
const MEETING_MS: Millis = 60_000;

/// One node as its replication task sees it.
struct Node {
    cache: Arc<Cache>,
    replica: Replica,
}

impl Node {
    fn new(place: usize, nodes: usize, keyring: &Arc<Keyring>) -> Self {
        // Those that know few peers heartbeat as if they knew all.
        let slowdown = match place < MEASURED {
            true => 1,
            false => 1 + (nodes - 1) / PEERS_PER_SLOWDOWN,
        };
        let config = ReplicaConfig {
            host: format!("host{place}"),
            release: "bench".into(),
            heartbeat_interval_ms: BEAT_MS * slowdown as Millis,
            sync_limit_ms: 30_000,
            min_peers: 0,
            keyring: keyring.clone(),
            ring_bytes: 64 << 10,
            versions: ReplicaConfig::VERSIONS,
        };
        let id = NodeId((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let cache = Arc::new(Cache::new(id, Limits::default()));
        Node {
            replica: Replica::new(cache.clone(), config, Start::Empty),
            cache,
        }
    }

    /// One input, and all that the replication task does around it but publishing.
    fn input(&mut self, now: Now, input: Input, outputs: &mut Vec<Output>) {
        self.replica.handle(now, input);
        self.after(now, outputs);
    }

    fn tick(&mut self, now: Now, outputs: &mut Vec<Output>) {
        self.replica.tick(now);
        self.after(now, outputs);
    }

    fn after(&mut self, now: Now, outputs: &mut Vec<Output>) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Answer(job) => {
                    let answered = job.run(&self.cache);
                    self.replica.handle(now, Input::Answered(answered));
                }
                output => outputs.push(output),
            }
        }
        std::hint::black_box(self.replica.current_until());
        std::hint::black_box(self.replica.sync_state(now));
        std::hint::black_box(self.replica.handover());
        std::hint::black_box(self.replica.poll_timeout());
    }

    /// A write of a client.
    fn write(&self, now: Now, number: usize, acks: Vec<AckRequest>) -> Input {
        let key = node::key(number % KEYS);
        let set = self.cache.set(&key, "value of 16 byte", 0, now.wall);
        Input::Local {
            deltas: vec![set.expect("within all limits")],
            acks,
        }
    }
}

struct Lattice {
    nodes: Vec<Node>,
    places: BTreeMap<NodeId, usize>,
    began: Millis,
    now: Millis,
}

impl Lattice {
    /// `count` nodes that have met.
    fn of(count: usize) -> Result<Self> {
        // Only its seed is needed, no server.
        let seed = testkit::Lattice::new("nats://127.0.0.1").cluster_seed()?;
        let keyring = Arc::new(Keyring::new(&seed, &[], "bench")?);
        let nodes: Vec<Node> = (0..count).map(|place| Node::new(place, count, &keyring)).collect();
        let places = nodes.iter().enumerate().map(|(place, node)| (node.cache.node(), place));
        let mut lattice = Lattice {
            places: places.collect(),
            nodes,
            began: time::wall(),
            now: 1,
        };
        lattice.meet()?;
        Ok(lattice)
    }

    fn clock(&self) -> Now {
        Now {
            wall: self.began + self.now,
            mono: self.now,
        }
    }

    /// Who receives what a node sends.
    fn receivers(&self, from: usize, to: Target) -> Vec<usize> {
        let reach = |other: &usize| *other != from && (from < MEASURED || *other < MEASURED);
        match to {
            Target::Deltas | Target::Heartbeat => (0..self.nodes.len()).filter(reach).collect(),
            Target::Node(id) => self.places.get(&id).copied().filter(reach).into_iter().collect(),
            Target::Bootstrap { .. } => Vec::new(),
        }
    }

    /// Gives inputs to nodes, and what they send in turn to others, until nothing is on its way.
    fn deliver(&mut self, inputs: impl IntoIterator<Item = (usize, Input)>) {
        let now = self.clock();
        let mut flying: VecDeque<(usize, Input)> = inputs.into_iter().collect();
        let mut outputs = Vec::new();
        while let Some((place, input)) = flying.pop_front() {
            self.nodes[place].input(now, input, &mut outputs);
            self.send(place, &mut outputs, &mut flying);
        }
    }

    fn send(&self, from: usize, outputs: &mut Vec<Output>, flying: &mut VecDeque<(usize, Input)>) {
        for output in outputs.drain(..) {
            let Output::Publish { to, payload } = output else {
                continue;
            };
            if let Target::Bootstrap { request } = to {
                // All begin with nothing, so all are in sync.
                flying.push_back((from, Input::NoResponders { request }));
            }
            for place in self.receivers(from, to) {
                flying.push_back((place, Input::Message(payload.clone())));
            }
        }
    }

    fn tick_all(&mut self) {
        let now = self.clock();
        let mut outputs = Vec::new();
        let mut flying = VecDeque::new();
        for place in 0..self.nodes.len() {
            if self.nodes[place].replica.poll_timeout() <= now.mono {
                self.nodes[place].tick(now, &mut outputs);
                self.send(place, &mut outputs, &mut flying);
            }
        }
        self.deliver(flying);
    }

    fn meet(&mut self) -> Result<()> {
        let connected = |place| (place, Input::Connected { max_payload: 1 << 20 });
        self.deliver((0..self.nodes.len()).map(connected));
        while !self.have_met() {
            ensure!(self.now < MEETING_MS, "the nodes do not get in sync");
            self.now += 10;
            self.tick_all();
        }
        Ok(())
    }

    fn have_met(&self) -> bool {
        self.nodes[..MEASURED].iter().all(|node| {
            let status = node.replica.status(self.clock());
            status.sync == SyncState::Synced
                && status.peers.iter().filter(|peer| peer.synced).count() == self.nodes.len() - 1
                && node.replica.current_until() > self.now
        })
    }

    /// The interval in which all nodes heartbeat once.
    fn interval_ms(&self) -> Millis {
        BEAT_MS * (1 + (self.nodes.len() - 1) / PEERS_PER_SLOWDOWN) as Millis
    }

    /// Lets all nodes heartbeat for two intervals. Returns microseconds of a node in one, and bytes it received in it.
    fn heartbeats(&mut self) -> Result<(f64, f64)> {
        let (mut spent, mut bytes) = (Duration::ZERO, 0);
        let end = self.now + 2 * self.interval_ms();
        while self.now < end {
            self.now += TICK_MS;
            let now = self.clock();
            let mut sent: Vec<(usize, Output)> = Vec::new();
            let mut outputs = Vec::new();
            for (place, node) in self.nodes.iter_mut().enumerate() {
                let started = Instant::now();
                node.tick(now, &mut outputs);
                if place < MEASURED {
                    std::hint::black_box(node.replica.status(now));
                    spent += started.elapsed();
                }
                sent.extend(outputs.drain(..).map(|output| (place, output)));
            }
            for (from, output) in sent {
                let Output::Publish { to, payload } = output else {
                    continue;
                };
                for place in self.receivers(from, to) {
                    let started = Instant::now();
                    self.nodes[place].input(now, Input::Message(payload.clone()), &mut outputs);
                    if place < MEASURED {
                        spent += started.elapsed();
                        bytes += payload.len();
                    }
                }
            }
            ensure!(outputs.is_empty(), "nodes that are equal answer a heartbeat");
        }
        let intervals = (2 * MEASURED) as f64;
        Ok((spent.as_secs_f64() * 1e6 / intervals, bytes as f64 / intervals))
    }

    /// Microseconds per frame of one delta: at a receiver, and at its author.
    fn frames(&mut self) -> (f64, f64) {
        let start = self.clock();
        let mut outputs = Vec::new();
        let others = MEASURED..self.nodes.len();
        // Each of them writes once in a millisecond.
        let time_of = |frame: usize| {
            let passed = (frame / others.len()) as Millis;
            Now {
                wall: start.wall + passed,
                mono: start.mono + passed,
            }
        };
        for (frame, place) in others.clone().cycle().take(FRAMES).enumerate() {
            let now = time_of(frame);
            let write = self.nodes[place].write(now, frame, Vec::new());
            self.nodes[place].input(now, write, &mut outputs);
        }
        let frames = payloads(&mut outputs);
        let received: Vec<f64> = (0..MEASURED)
            .map(|place| {
                let node = &mut self.nodes[place];
                let frames = frames.clone();
                let started = Instant::now();
                for (number, frame) in frames.into_iter().enumerate() {
                    node.input(time_of(number), Input::Message(frame), &mut outputs);
                }
                started.elapsed().as_secs_f64() * 1e6 / FRAMES as f64
            })
            .collect();
        self.now = time_of(FRAMES).mono;
        let now = self.clock();
        let author = &mut self.nodes[0];
        let writes: Vec<Input> = (0..FRAMES)
            .map(|number| author.write(now, number, Vec::new()))
            .collect();
        let started = Instant::now();
        for write in writes {
            author.input(now, write, &mut outputs);
        }
        let sent = started.elapsed().as_secs_f64() * 1e6 / FRAMES as f64;
        // All have to be equal again for the next sample.
        let frames = payloads(&mut outputs);
        for place in 1..self.nodes.len() {
            for frame in &frames {
                self.nodes[place].input(now, Input::Message(frame.clone()), &mut outputs);
            }
        }
        self.make_equal();
        (median(&received).unwrap_or(f64::NAN), sent)
    }

    /// The nodes that do not know each other have not got each other's writes.
    fn make_equal(&mut self) {
        let wall = self.clock().wall;
        let (first, others) = self.nodes.split_at_mut(1);
        for node in others {
            for partition in (0..PARTITIONS as u16).map(Partition) {
                first[0].cache.deltas(partition, |delta| {
                    node.cache.apply(&delta, wall).expect("an honest delta");
                });
            }
        }
    }

    /// Microseconds of an author per confirmation, where all peers confirm each of several writes.
    fn confirmations(&mut self) -> Result<f64> {
        let now = self.clock();
        let mut outputs = Vec::new();
        for id in 0..CONFIRMED as u64 {
            let acks = vec![AckRequest {
                id,
                wanted: AckLevel::All,
                deadline: now.mono + 60_000,
            }];
            let write = self.nodes[0].write(now, id as usize, acks);
            self.nodes[0].input(now, write, &mut outputs);
        }
        let frames = payloads(&mut outputs);
        for place in 1..self.nodes.len() {
            for frame in &frames {
                self.nodes[place].input(now, Input::Message(frame.clone()), &mut outputs);
            }
        }
        let confirmations = payloads(&mut outputs);
        let count = confirmations.len();
        let started = Instant::now();
        for confirmation in confirmations {
            self.nodes[0].input(now, Input::Message(confirmation), &mut outputs);
        }
        let spent = started.elapsed().as_secs_f64() * 1e6 / count as f64;
        let confirmed = outputs
            .iter()
            .filter(|output| matches!(output, Output::Acked { result: Ok(()), .. }));
        ensure!(confirmed.count() == CONFIRMED, "not all writes are confirmed");
        Ok(spent)
    }
}

fn payloads(outputs: &mut Vec<Output>) -> Vec<Bytes> {
    let publish = |output| match output {
        Output::Publish { payload, .. } => Some(payload),
        _ => None,
    };
    outputs.drain(..).filter_map(publish).collect()
}

/// Samples of one size.
#[derive(Default)]
struct Samples {
    /// Microseconds of a node per interval of heartbeats.
    heartbeats: Vec<f64>,
    /// Bytes of heartbeats that a node receives per second.
    heartbeat_bytes: Vec<f64>,
    /// Microseconds per frame of one delta, at a receiver.
    received: Vec<f64>,
    /// The same at its author.
    sent: Vec<f64>,
    /// Microseconds per confirmation, at the author of what is confirmed.
    confirmed: Vec<f64>,
}

impl Samples {
    fn take(&mut self, lattice: &mut Lattice) -> Result<()> {
        let (received, sent) = lattice.frames();
        self.received.push(received);
        self.sent.push(sent);
        self.confirmed.push(lattice.confirmations()?);
        let (spent, bytes) = lattice.heartbeats()?;
        self.heartbeats.push(spent);
        self.heartbeat_bytes.push(bytes * 1e3 / lattice.interval_ms() as f64);
        Ok(())
    }
}

/// Measures its part of the section.
pub fn lines(arguments: &Arguments) -> Result<(Vec<Line>, Vec<Series>)> {
    let mut lattices = SIZES.map(Lattice::of).into_iter().collect::<Result<Vec<_>>>()?;
    let mut samples: [Samples; 3] = Default::default();
    for _ in 0..arguments.runs() {
        for (lattice, samples) in lattices.iter_mut().zip(&mut samples) {
            samples.take(lattice)?;
        }
    }
    let [few, _, many] = &samples;
    let [least, .., most] = SIZES;
    let interval_ms = lattices.last().map_or(BEAT_MS, Lattice::interval_ms);
    let compared = |what: &str, many: &[f64], few: &[f64]| {
        let what = format!("{what}, with {most} nodes");
        let few_nodes = format!("{least} nodes");
        Line::against(
            8,
            what,
            "us",
            many.to_vec(),
            few_nodes,
            few.to_vec(),
            report::Target::AtMost(2.0),
        )
    };
    let share = median(&many.heartbeats).unwrap_or(f64::NAN) / interval_ms as f64 / 10.0;
    let lines = vec![
        compared("a frame of one delta, per receiver", &many.received, &few.received).note(format!(
            "Bare replicas without NATS, in virtual time and one process. Measured are {MEASURED} nodes that are peers of all \
             others."
        )),
        compared("a frame of one delta, at its author", &many.sent, &few.sent),
        compared("a confirmation, at the author of the write", &many.confirmed, &few.confirmed),
        Line::alone(
            8,
            format!("heartbeats and membership: processor time of a node in one interval of heartbeats ({interval_ms} ms), with {most} nodes"),
            "us",
            many.heartbeats.clone(),
            report::Target::None,
        )
        .note(format!(
            "That is {} % of a core, for {} heartbeats of nodes of one seed, which check a keyed hash. A heartbeat of another \
             issuer costs a check of its signature more (section 13).",
            number(share),
            most - 1
        )),
        Line::alone(
            8,
            format!("heartbeats received by a node per second, with {most} nodes"),
            "B",
            many.heartbeat_bytes.clone(),
            report::Target::None,
        ),
    ];
    let series = |name: &str, unit: &str, of: &dyn Fn(&Samples) -> Option<f64>| Series {
        section: 8,
        name: name.into(),
        size: "nodes".into(),
        unit: unit.into(),
        points: SIZES
            .into_iter()
            .zip(&samples)
            .filter_map(|(size, samples)| Some((size as f64, of(samples)?)))
            .collect(),
    };
    let per_second = |samples: &Samples, size: usize| {
        let interval_s = (1 + (size - 1) / PEERS_PER_SLOWDOWN) as f64;
        median(&samples.heartbeats).map(|spent| spent / interval_s)
    };
    let heartbeats = Series {
        points: SIZES
            .into_iter()
            .zip(&samples)
            .filter_map(|(size, samples)| Some((size as f64, per_second(samples, size)?)))
            .collect(),
        ..series("heartbeats and membership", "us per second", &|_| None)
    };
    Ok((
        lines,
        vec![
            series("frame, per receiver", "us", &|samples| median(&samples.received)),
            series("frame, at its author", "us", &|samples| median(&samples.sent)),
            series("confirmation, at the author", "us", &|samples| {
                median(&samples.confirmed)
            }),
            heartbeats,
            series("heartbeats received", "B per second", &|samples| {
                median(&samples.heartbeat_bytes)
            }),
        ],
    ))
}
