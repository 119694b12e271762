//! Which fault strikes when: follows from the seed alone.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::Direction;

/// A phase with tiny buffers per so much of the plan.
const PHASE_PERIOD: Duration = Duration::from_secs(100);
const LONGEST_PHASE: Duration = Duration::from_secs(15);

/// In a run of this length some stalls last so long that the client gives its connection up.
const LONG_RUN: Duration = Duration::from_secs(200);

/// What servers refuse.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// To publish to single nodes.
    PublishToNodes,
    /// To hear what is sent to it alone.
    SubscribeToNode,
    /// To publish anything.
    PublishAnything,
    Everything,
}

/// Seconds by which clocks jump at most.
pub const LONGEST_JUMP_SECS: i64 = 15;

/// A fault; it ends by itself after `lasts`.
#[derive(Clone, Debug)]
pub enum Fault {
    /// SIGKILL of a provider, in the middle of what it writes to its store, if it has one; another starts in its place,
    /// empty or with what was stored. Provider 0 is spared: what it has acknowledged in the whole run must be there in
    /// the end.
    KillProvider { slot: usize, lasts: Duration },
    /// SIGSTOP, then SIGCONT.
    PauseProvider { slot: usize, lasts: Duration },
    /// All connections of a provider closed, new ones refused.
    Cut { slot: usize, lasts: Duration },
    /// All connections of a provider closed.
    DropConnections { slot: usize },
    /// Bytes of a provider arrive later.
    Delay {
        slot: usize,
        delay: [Duration; 2],
        lasts: Duration,
    },
    /// The link of a provider carries little, from the server and to it.
    SlowLink {
        slot: usize,
        bytes_per_second: u64,
        lasts: Duration,
    },
    /// Connections of a provider stay open and carry nothing; in the end they are closed, or go on.
    Stall {
        slot: usize,
        directions: Vec<Direction>,
        lasts: Duration,
        then_dropped: bool,
    },
    /// SIGKILL of a nats-server; it starts again.
    KillServer { server: usize, lasts: Duration },
    /// SIGSTOP of a nats-server, then SIGCONT.
    PauseServer { server: usize, lasts: Duration },
    /// The wall clock of a provider jumps, and back again.
    ClockJump { slot: usize, seconds: i64, lasts: Duration },
    /// The servers refuse a provider some of what replication needs.
    Refuse {
        slot: usize,
        what: Refused,
        lasts: Duration,
    },
    /// SIGKILL of the engine that some providers write behind to; it starts again.
    KillStore { lasts: Duration },
    /// SIGSTOP of the engine, then SIGCONT.
    PauseStore { lasts: Duration },
    /// One server after the other starts again with a tiny `max_pending`, later with its own again.
    TinyPending { lasts: Duration },
}

impl Fault {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillProvider { .. } => "provider killed",
            Self::PauseProvider { .. } => "provider paused",
            Self::Cut { .. } => "cut",
            Self::DropConnections { .. } => "connections dropped",
            Self::Delay { .. } => "delay",
            Self::SlowLink { .. } => "slow link",
            Self::Stall { .. } => "stall",
            Self::KillServer { .. } => "nats-server killed",
            Self::PauseServer { .. } => "nats-server paused",
            Self::ClockJump { .. } => "clock jump",
            Self::Refuse { .. } => "refusal",
            Self::KillStore { .. } => "store killed",
            Self::PauseStore { .. } => "store paused",
            Self::TinyPending { .. } => "tiny max_pending",
        }
    }

    pub fn lasts(&self) -> Duration {
        match self {
            Self::DropConnections { .. } => Duration::ZERO,
            Self::KillProvider { lasts, .. }
            | Self::PauseProvider { lasts, .. }
            | Self::Cut { lasts, .. }
            | Self::Delay { lasts, .. }
            | Self::SlowLink { lasts, .. }
            | Self::Stall { lasts, .. }
            | Self::KillServer { lasts, .. }
            | Self::PauseServer { lasts, .. }
            | Self::ClockJump { lasts, .. }
            | Self::Refuse { lasts, .. }
            | Self::KillStore { lasts }
            | Self::PauseStore { lasts }
            | Self::TinyPending { lasts } => *lasts,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        match self {
            Self::KillProvider { slot, .. }
            | Self::PauseProvider { slot, .. }
            | Self::Cut { slot, .. }
            | Self::DropConnections { slot } => write!(f, " (provider {slot})")?,
            Self::Delay { slot, delay, .. } => write!(f, " (provider {slot}, {delay:?} to and from the server)")?,
            Self::SlowLink {
                slot, bytes_per_second, ..
            } => write!(f, " (provider {slot}, {bytes_per_second} B/s)")?,
            Self::Stall {
                slot,
                directions,
                then_dropped,
                ..
            } => {
                let end = if *then_dropped { ", then dropped" } else { "" };
                write!(f, " (provider {slot}, {directions:?}{end})")?;
            }
            Self::KillServer { server, .. } | Self::PauseServer { server, .. } => write!(f, " (server {server})")?,
            Self::ClockJump { slot, seconds, .. } => write!(f, " (provider {slot}, {seconds:+} s)")?,
            Self::Refuse { slot, what, .. } => write!(f, " (provider {slot}, {what:?})")?,
            Self::KillStore { .. } | Self::PauseStore { .. } | Self::TinyPending { .. } => {}
        }
        match self.lasts() {
            Duration::ZERO => Ok(()),
            lasts => write!(f, " for {:.1} s", lasts.as_secs_f64()),
        }
    }
}

pub struct Step {
    pub at: Duration,
    pub fault: Fault,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.3} {}", self.at.as_secs_f64(), self.fault)
    }
}

/// What a fault needs for itself; faults of different things may overlap.
#[derive(Clone, Copy)]
enum Thing {
    Process(usize),
    Path(usize),
    /// All servers: at most one of them is disturbed at a time.
    Servers,
    Store,
}

struct Planner {
    rng: StdRng,
    length: Duration,
    providers: usize,
    servers: usize,
    process_free: Vec<Duration>,
    path_free: Vec<Duration>,
    servers_free: Duration,
    store_free: Duration,
    /// At most one provider is dead at a time, and the next one dies when its successor has had time to be filled.
    kill_free: Duration,
}

pub fn plan(seed: u64, length: Duration, providers: usize, servers: usize) -> Vec<Step> {
    Planner {
        rng: StdRng::seed_from_u64(seed),
        length,
        providers,
        servers,
        process_free: vec![Duration::ZERO; providers],
        path_free: vec![Duration::ZERO; providers],
        servers_free: Duration::ZERO,
        store_free: Duration::ZERO,
        kill_free: Duration::ZERO,
    }
    .plan()
}

impl Planner {
    fn plan(mut self) -> Vec<Step> {
        let mut phases = self.phases();
        let mut steps = Vec::new();
        let mut at = self.seconds(0.5, 1.5);
        while at < self.length {
            // No other fault of a server may reach into the phase.
            if let Some((start, lasts)) = phases.first().copied().filter(|(start, _)| at >= *start) {
                phases.remove(0);
                let at = start.max(self.servers_free);
                self.servers_free = at + lasts + Duration::from_secs(2);
                steps.push(Step {
                    at,
                    fault: Fault::TinyPending { lasts },
                });
                continue;
            }
            let fault = self.fault();
            if self.take(&fault, at) {
                steps.push(Step { at, fault });
                at += self.seconds(0.2, 2.2);
            } else {
                at += Duration::from_millis(50);
            }
        }
        steps.sort_by_key(|step| step.at);
        steps
    }

    fn phases(&self) -> Vec<(Duration, Duration)> {
        let count = (self.length.as_secs_f64() / PHASE_PERIOD.as_secs_f64())
            .round()
            .max(1.0);
        let period = self.length.div_f64(count);
        let lasts = period.mul_f64(0.2).min(LONGEST_PHASE);
        (0..count as u32)
            .map(|number| (period * number + period.mul_f64(0.5), lasts))
            .collect()
    }

    fn seconds(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_millis(self.rng.random_range((from * 1e3) as u64..(to * 1e3) as u64))
    }

    fn fault(&mut self) -> Fault {
        let slot = self.rng.random_range(0..self.providers);
        let server = self.rng.random_range(0..self.servers);
        match self.rng.random_range(0..29) {
            0..2 => Fault::KillProvider {
                slot: self.rng.random_range(1..self.providers),
                lasts: self.seconds(0.0, 3.0),
            },
            2..5 => Fault::PauseProvider {
                slot,
                lasts: self.seconds(1.0, 8.0),
            },
            5..8 => Fault::Cut {
                slot,
                lasts: self.seconds(0.1, 8.0),
            },
            8..12 => Fault::DropConnections { slot },
            12..14 => {
                let mut delays = [Duration::ZERO; 2];
                let towards = self.rng.random_range(1..4);
                for (number, delay) in delays.iter_mut().enumerate() {
                    if towards >> number & 1 == 1 {
                        *delay = Duration::from_millis(self.rng.random_range(5..=300));
                    }
                }
                Fault::Delay {
                    slot,
                    delay: delays,
                    lasts: self.seconds(2.0, 10.0),
                }
            }
            14..17 => Fault::Stall {
                slot,
                directions: match self.rng.random_range(0..4) {
                    0 => vec![Direction::ToServer],
                    1 => vec![Direction::ToClient],
                    _ => Direction::BOTH.to_vec(),
                },
                lasts: if self.length >= LONG_RUN && self.rng.random_bool(0.2) {
                    self.seconds(25.0, 45.0)
                } else {
                    self.seconds(1.0, 12.0)
                },
                then_dropped: self.rng.random_bool(0.3),
            },
            17..19 => Fault::KillServer {
                server,
                lasts: self.seconds(0.0, 5.0),
            },
            19..21 => Fault::SlowLink {
                slot,
                bytes_per_second: self.rng.random_range(30_000..500_000),
                lasts: self.seconds(3.0, 12.0),
            },
            21..23 => {
                let seconds = self.rng.random_range(2..=LONGEST_JUMP_SECS);
                Fault::ClockJump {
                    slot,
                    seconds: if self.rng.random_bool(0.5) { seconds } else { -seconds },
                    lasts: self.seconds(2.0, 8.0),
                }
            }
            23..25 => Fault::Refuse {
                slot,
                what: match self.rng.random_range(0..4) {
                    0 => Refused::PublishToNodes,
                    1 => Refused::SubscribeToNode,
                    2 => Refused::PublishAnything,
                    _ => Refused::Everything,
                },
                lasts: self.seconds(1.0, 10.0),
            },
            25..26 => Fault::PauseServer {
                server,
                lasts: self.seconds(1.0, 8.0),
            },
            26..28 => Fault::KillStore {
                lasts: self.seconds(0.0, 6.0),
            },
            _ => Fault::PauseStore {
                lasts: self.seconds(1.0, 10.0),
            },
        }
    }

    /// Takes what the fault needs, unless something of it is taken.
    fn take(&mut self, fault: &Fault, at: Duration) -> bool {
        let thing = match fault {
            Fault::KillProvider { slot, .. } | Fault::PauseProvider { slot, .. } | Fault::ClockJump { slot, .. } => {
                Thing::Process(*slot)
            }
            Fault::Cut { slot, .. }
            | Fault::DropConnections { slot }
            | Fault::Delay { slot, .. }
            | Fault::SlowLink { slot, .. }
            | Fault::Stall { slot, .. } => Thing::Path(*slot),
            Fault::KillServer { .. } | Fault::PauseServer { .. } | Fault::Refuse { .. } | Fault::TinyPending { .. } => {
                Thing::Servers
            }
            Fault::KillStore { .. } | Fault::PauseStore { .. } => Thing::Store,
        };
        let kills = matches!(fault, Fault::KillProvider { .. });
        let free = match thing {
            Thing::Process(slot) => &mut self.process_free[slot],
            Thing::Path(slot) => &mut self.path_free[slot],
            Thing::Servers => &mut self.servers_free,
            Thing::Store => &mut self.store_free,
        };
        if *free > at || (kills && self.kill_free > at) {
            return false;
        }
        // A start takes a moment, of a server as of a provider.
        *free = at + fault.lasts() + Duration::from_secs(1);
        if kills {
            *free += Duration::from_secs(4);
            self.kill_free = *free;
        }
        true
    }
}

#[test]
fn the_same_seed_is_the_same_plan() {
    let told = |seed| {
        let steps = plan(seed, Duration::from_secs(600), 4, 3);
        steps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(1), told(1));
    assert_ne!(told(1), told(2));
    let kinds: std::collections::BTreeSet<_> = plan(1, Duration::from_secs(600), 4, 3)
        .iter()
        .map(|step| step.fault.kind())
        .collect();
    assert_eq!(kinds.len(), 14, "{kinds:?}");
}
