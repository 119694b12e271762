//! What a run is like: size, network, clocks, faults. Drawn from the seed.

use kvcache_core::cache::Millis;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::engine::Engine;

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A process dies, and another starts in its place with a new id.
    Crash,
    /// A process leaves in order, and another starts in its place, or none.
    Leave,
    /// A replica ends, and another of the same process takes over its cache and its numbers.
    Handover,
    /// A node loses its connection, which it may notice late.
    Cut,
    /// The server is gone for all, and comes back.
    ServerDown,
    /// The nodes fall into two halves that do not hear each other; all stay connected.
    RangeSplit,
    /// Some nodes do not hear some others; all stay connected.
    OneWay,
    /// A process does nothing for a while.
    Pause,
    /// The wall clock of a node jumps.
    ClockJump,
    /// Messages to a node are dropped, and it is told.
    SlowConsumer,
    /// A node is told that messages were dropped although none was.
    FalseAlarm,
    /// The server refuses a node to publish or to subscribe to some kinds of subjects.
    Refusal,
    /// A stranger sends messages that he has recorded, once or in floods.
    Recordings,
    /// A stranger says in the name of the server that nobody listens to requests.
    ForgedNotices,
    /// The wall clock of a node is off by more than the others put up with, for a while.
    FarClock,
    /// All processes die at once. Of runs with stores, as those that follow.
    CrashAll,
    /// Several processes die at once.
    CrashSome,
    /// A store cannot be reached.
    StoreDown,
    /// A store loses what it has not synced, and cannot be reached.
    StoreCrash,
}

/// Where nodes keep their state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stores {
    /// Each in a store of its own.
    Own,
    /// All in the same.
    Shared,
}

const FAULTS: [Fault; 15] = [
    Fault::Crash,
    Fault::Leave,
    Fault::Handover,
    Fault::Cut,
    Fault::ServerDown,
    Fault::RangeSplit,
    Fault::OneWay,
    Fault::Pause,
    Fault::ClockJump,
    Fault::SlowConsumer,
    Fault::FalseAlarm,
    Fault::Refusal,
    Fault::Recordings,
    Fault::ForgedNotices,
    Fault::FarClock,
];

/// The parameters of one run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where all randomness of the run comes from.
    pub seed: u64,
    /// Number of places for processes.
    pub nodes: usize,
    /// Virtual time in which clients write and faults happen.
    pub trouble_ms: Millis,
    /// Which faults happen.
    pub faults: Vec<Fault>,
    /// Longest time from one fault to the next.
    pub fault_gap_ms: Millis,
    /// Share of messages that do not arrive.
    pub loss: f64,
    /// Share of messages that arrive twice.
    pub repeat: f64,
    /// Messages take up to this long, each on its own: they overtake each other.
    pub max_delay_ms: Millis,
    /// Bytes per second that the link of a node carries each way, if it is slow.
    pub rate: Option<u64>,
    /// Share of the notices that nobody listens to a request that do not arrive.
    pub lost_notices: f64,
    /// Largest message the server takes.
    pub max_payload: usize,
    /// Messages that wait for a paused process before more are dropped.
    pub mailbox: usize,
    /// Interval of heartbeats.
    pub heartbeat_interval_ms: Millis,
    /// Longest time from one write to the next.
    pub write_gap_ms: Millis,
    /// Deltas of local writes wait up to this long before the replica gets them.
    pub queue_ms: Millis,
    /// Largest value.
    pub max_value: usize,
    /// Wall clocks are off by up to this much.
    pub max_skew_ms: Millis,
    /// How far ahead of its own clock a node takes stamps, if less than the default.
    pub max_clock_skew_ms: Option<Millis>,
    /// By how much a clock is off that is far off.
    pub far_ms: Millis,
    /// Share of the calls of clients that want to be confirmed.
    pub confirmed: f64,
    /// Whether caches are swept as the provider does.
    pub sweep: bool,
    /// How long deletions are remembered, if shorter than the default.
    pub tombstone_ttl_ms: Option<Millis>,
    /// Nodes may be away for longer than deletions are remembered. Matters only with a short `tombstone_ttl_ms`.
    pub long_absences: bool,
    /// How long nothing but heartbeats has to be sent at the end.
    pub quiet_ms: Millis,
    /// Where nodes keep their state, if anywhere. What follows matters only then.
    pub stores: Option<Stores>,
    /// Longest time that an operation of a store takes.
    pub store_ms: Millis,
    /// Share of these that fail.
    pub store_failures: f64,
    /// How often a store syncs what it has acknowledged; 0 for one that does before it acknowledges.
    pub sync_ms: Millis,
    /// How often changes are written.
    pub flush_ms: Millis,
    /// Bytes of records that are written at once.
    pub round_bytes: usize,
    /// Whether a node that cannot read its store waits for the state of a peer before it answers.
    pub store_required: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn from_seed(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x5ce7_a210_0000_0000);
        let nodes = match rng.random_range(0..100) {
            0..80 => rng.random_range(2..=4),
            80..95 => rng.random_range(5..=7),
            _ => rng.random_range(8..=12),
        };
        let loss = match rng.random_range(0..10) {
            0..2 => 0.0,
            2..6 => rng.random_range(0.0..0.1),
            _ => rng.random_range(0.1..0.6),
        };
        let max_payload = match rng.random_range(0..10) {
            0..3 => 1 << 10,
            3..6 => spread(rng, 1 << 10, 64 << 10) as usize,
            _ => 1 << 20,
        };
        let max_value = match rng.random_range(0..10) {
            0 => (max_payload * 3).min(64 << 10),
            1..4 => 5_000,
            _ => 40,
        };
        // Every run has its own mix of faults: with all of them always, none would ever be alone.
        let mut faults: Vec<Fault> = FAULTS.into_iter().filter(|_| rng.random_bool(0.5)).collect();
        if faults.is_empty() {
            faults.push(FAULTS[rng.random_range(0..FAULTS.len())]);
        }
        let mut scenario = Scenario {
            seed,
            nodes,
            trouble_ms: spread(rng, 3_000, 20_000),
            faults,
            fault_gap_ms: spread(rng, 500, 4_000),
            loss,
            repeat: if rng.random_bool(0.3) {
                0.0
            } else {
                rng.random_range(0.0..0.3)
            },
            max_delay_ms: spread(rng, 1, 800),
            rate: None,
            lost_notices: 0.0,
            max_payload,
            mailbox: spread(rng, 4, 2_000) as usize,
            heartbeat_interval_ms: if rng.random_bool(0.7) {
                1_000
            } else {
                spread(rng, 300, 2_000)
            },
            write_gap_ms: spread(rng, 20, 800),
            queue_ms: if rng.random_bool(0.5) {
                0
            } else {
                rng.random_range(1..50)
            },
            max_value,
            max_skew_ms: if rng.random_bool(0.3) {
                0
            } else {
                spread(rng, 10, 300_000)
            },
            max_clock_skew_ms: None,
            far_ms: 0,
            confirmed: 0.0,
            sweep: rng.random_bool(0.3),
            tombstone_ttl_ms: None,
            long_absences: false,
            quiet_ms: 20_000,
            stores: None,
            store_ms: 0,
            store_failures: 0.0,
            sync_ms: 0,
            flush_ms: 0,
            round_bytes: 0,
            store_required: true,
        };
        match rng.random_range(0..100) {
            0..6 => scenario.forgetful(rng),
            // Long enough for the longest pauses and for peers that count as gone.
            6..9 => {
                scenario.nodes = scenario.nodes.min(5);
                scenario.trouble_ms = spread(rng, 30_000, 300_000);
                scenario.write_gap_ms = spread(rng, 200, 2_000);
                scenario.fault_gap_ms = spread(rng, 2_000, 30_000);
            }
            _ => {}
        }
        scenario.confirmed = if rng.random_bool(0.5) { 0.2 } else { 0.0 };
        scenario.lost_notices = if rng.random_bool(0.7) {
            0.0
        } else {
            rng.random_range(0.1..1.0)
        };
        if rng.random_bool(0.15) {
            scenario.slow_links(rng);
        }
        if scenario.tombstone_ttl_ms.is_none() && rng.random_bool(0.1) {
            scenario.far_clocks(rng);
        }
        if scenario.max_clock_skew_ms.is_none() {
            scenario.faults.retain(|fault| *fault != Fault::FarClock);
        }
        if scenario.faults.is_empty() {
            scenario.faults.push(Fault::Crash);
        }
        scenario
    }

    /// The scenario of a seed, with stores: they fail, and all processes die at once.
    pub fn with_stores(seed: u64) -> Self {
        let mut scenario = Scenario::from_seed(seed);
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x5702_e500_0000_0000);
        scenario.stores = Some(match rng.random_bool(0.5) {
            true => Stores::Own,
            false => Stores::Shared,
        });
        scenario.nodes = scenario.nodes.min(5);
        scenario.store_ms = spread(rng, 1, 400);
        scenario.store_failures = [0.0, 0.02, 0.3][rng.random_range(0..3)];
        if scenario.stores == Some(Stores::Shared) && rng.random_bool(0.5) {
            scenario.sync_ms = spread(rng, 100, 4_000);
        }
        scenario.flush_ms = spread(rng, 20, 1_000);
        scenario.round_bytes = spread(rng, 100, 4 << 20) as usize;
        scenario.store_required = rng.random_bool(0.7);
        // A store with stamps from too far ahead is not read.
        if scenario.far_ms > 0 {
            (scenario.far_ms, scenario.max_clock_skew_ms) = (0, None);
            scenario.faults.retain(|fault| *fault != Fault::FarClock);
        }
        if scenario.tombstone_ttl_ms.is_none() && rng.random_bool(0.15) {
            scenario.forgetful(rng);
        }
        scenario.long_absences = false;
        let of_stores = [Fault::CrashAll, Fault::CrashSome, Fault::StoreDown, Fault::StoreCrash];
        scenario
            .faults
            .extend(of_stores.into_iter().filter(|_| rng.random_bool(0.6)));
        scenario
    }

    /// The stores as they are at first.
    pub(crate) fn engines(&self) -> Vec<Engine> {
        let number = match self.stores {
            None => 0,
            Some(Stores::Own) => self.nodes,
            Some(Stores::Shared) => 1,
        };
        (0..number).map(|_| Engine::new(self.sync_ms > 0)).collect()
    }

    /// Links that carry what is written, but for bursts, and what is repaired only after a while.
    fn slow_links(&mut self, rng: &mut StdRng) {
        self.rate = Some(spread(rng, 20_000, 1_000_000));
        self.max_value = self.max_value.min(5_000);
        self.write_gap_ms = self.write_gap_ms.max(100);
        self.nodes = self.nodes.min(5);
    }

    /// Stamps are taken from a little ahead only, and even those of a clock that is far off are taken before the run
    /// ends. The clocks of all others are good enough for that.
    fn far_clocks(&mut self, rng: &mut StdRng) {
        self.max_clock_skew_ms = Some(10_000);
        self.max_skew_ms = self.max_skew_ms.min(2_000);
        self.far_ms = spread(rng, 15_000, 600_000);
        self.faults.push(Fault::FarClock);
    }

    /// Deletions are forgotten while the run lasts. Clocks and repairs have to be good enough for that: whatever
    /// delays a deletion for longer than it is remembered is an absence. Half of these runs have some.
    fn forgetful(&mut self, rng: &mut StdRng) {
        let ttl = spread(rng, 30_000, 120_000);
        self.tombstone_ttl_ms = Some(ttl);
        self.sweep = true;
        self.nodes = self.nodes.min(4);
        self.trouble_ms = ttl * rng.random_range(1..=2) + 10_000;
        self.write_gap_ms = spread(rng, 200, 2_000);
        self.loss = self.loss.min(0.1);
        self.max_delay_ms = self.max_delay_ms.min(200);
        self.max_skew_ms = self.max_skew_ms.min(ttl / 20);
        self.heartbeat_interval_ms = self.heartbeat_interval_ms.min(1_000);
        self.long_absences = rng.random_bool(0.5);
    }
}

/// A random number from `low` to `high`, of every order of magnitude equally often.
pub(crate) fn spread(rng: &mut impl Rng, low: u64, high: u64) -> u64 {
    let doublings = (high / low).ilog2();
    let base = low << rng.random_range(0..=doublings);
    rng.random_range(base..base * 2).min(high)
}
