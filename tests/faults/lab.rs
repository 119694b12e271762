//! Providers, the servers and proxies between them, and a server of their own for calls.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex as SyncMutex};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use futures::future::{join_all, try_join_all};
use serde_json::json;
use testkit::{
    eventually, faketime_library, Actor, CapturedLog, Direction, FaultyProxy, KeyValue, KeyValueClient, Lattice,
    NatsServer, ProviderOptions, ProviderProcess, RedisServer, Status, SyncState,
};
use tokio::sync::{watch, Mutex};
use wasmbus_rpc::common::Transport;

use crate::content::{self, Content};
use crate::plan::Refused;

const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
/// For everything that is waited for, healing included.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Subjects of messages to single nodes.
const NODES: &str = "lattice.*.kvcache.*.node.>";
/// A call that takes longer counts as one of which nobody knows whether it has happened.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// How long a provider without peers in reach waits for them before it serves.
const SYNC_TIMEOUT_SECS: u32 = 3;
/// Between two notes about a healing that takes its time.
const NOTE_INTERVAL: Duration = Duration::from_secs(3);
const LOG_LINES_OF_A_FAILURE: usize = 30;
const LIVES_OF_A_FAILURE: usize = 12;

pub type Kv = KeyValue<KeyValueClient>;

/// One life of a provider, from its start to its end. It has a provider key of its own, so a call is answered by this
/// life or not at all.
pub struct Life {
    pub number: u32,
    pub slot: usize,
    pub kv: Kv,
    killed: AtomicBool,
    pub log: CapturedLog,
}

impl Life {
    /// Set before the process is killed: what it acknowledges from then on counts as lost.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "life {} of provider {}", self.number, self.slot)
    }
}

/// The place of one provider: its process, its way to the servers.
struct Slot {
    path: Vec<FaultyProxy>,
    process: Mutex<Option<ProviderProcess>>,
    life: watch::Sender<Option<Arc<Life>>>,
}

/// Stores of providers: what starts in the place of one that was killed has what that had stored.
pub struct Stores {
    /// The places before this one have none; this one has a file.
    first: usize,
    /// Those after it share this engine. Without any they have a file each.
    engine: Option<Mutex<RedisServer>>,
    folder: tempfile::TempDir,
}

impl Stores {
    pub fn new(first: usize, engine: Option<RedisServer>) -> Result<Self> {
        Ok(Self {
            first,
            engine: engine.map(Mutex::new),
            folder: tempfile::tempdir()?,
        })
    }

    async fn url(&self, slot: usize) -> Option<String> {
        match &self.engine {
            _ if slot < self.first => None,
            Some(engine) if slot > self.first => Some(engine.lock().await.url()),
            _ => Some(format!("file:{}", self.folder.path().join(slot.to_string()).display())),
        }
    }
}

pub struct Lab {
    lattice: Lattice,
    actor: Actor,
    settings: serde_json::Value,
    slots: Vec<Slot>,
    /// For each provider a file that says how far its wall clock is off.
    clocks: tempfile::TempDir,
    stores: Stores,
    /// The servers of replication.
    pub servers: Vec<Mutex<NatsServer>>,
    lives: SyncMutex<Vec<Arc<Life>>>,
    next_life: AtomicU32,
    /// Processes that found nobody when they started, although there were others.
    alone: AtomicU32,
    started: Instant,
    /// Of the calls.
    _rpc: NatsServer,
}

impl Lab {
    /// `count` providers that see each other, each behind a proxy before every server.
    pub async fn start(rpc: NatsServer, servers: Vec<NatsServer>, count: usize) -> Result<Self> {
        Self::start_with(rpc, servers, count, json!({})).await
    }

    /// The same, with settings of the providers.
    pub async fn start_with(
        rpc: NatsServer,
        servers: Vec<NatsServer>,
        count: usize,
        settings: serde_json::Value,
    ) -> Result<Self> {
        Self::start_with_stores(rpc, servers, count, settings, Stores::new(count, None)?).await
    }

    /// The same; some providers have stores that they write behind to.
    pub async fn start_with_stores(
        rpc: NatsServer,
        mut servers: Vec<NatsServer>,
        count: usize,
        settings: serde_json::Value,
        stores: Stores,
    ) -> Result<Self> {
        for server in &mut servers {
            server.set_config(users(count, None));
            // With the ports that it has now: a server that was to choose them does not read its configuration again.
            server.restart().await?;
        }
        let mut slots = Vec::with_capacity(count);
        for _ in 0..count {
            slots.push(Slot {
                path: try_join_all(servers.iter().map(FaultyProxy::before)).await?,
                process: Mutex::new(None),
                life: watch::Sender::new(None),
            });
        }
        let lab = Self {
            lattice: Lattice::new(rpc.url()),
            actor: Actor::new(),
            settings,
            slots,
            clocks: tempfile::tempdir()?,
            stores,
            servers: servers.into_iter().map(Mutex::new).collect(),
            lives: SyncMutex::default(),
            next_life: AtomicU32::new(1),
            alone: AtomicU32::new(0),
            started: Instant::now(),
            _rpc: rpc,
        };
        try_join_all((0..count).map(|slot| lab.start_provider(slot))).await?;
        lab.converge().await.context("before the first fault")?;
        Ok(lab)
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Tells what happens, with the time since the start.
    pub fn note(&self, what: impl fmt::Display) {
        println!("{:8.3} {what}", self.started.elapsed().as_secs_f64());
    }

    /// The life of a provider as it changes; none while the process is dead.
    pub fn life_of(&self, slot: usize) -> watch::Receiver<Option<Arc<Life>>> {
        self.slots[slot].life.subscribe()
    }

    pub fn all_lives(&self) -> Vec<Arc<Life>> {
        self.lives.lock().expect("nobody panics with the lives").clone()
    }

    /// A client of the present life.
    pub fn kv(&self, slot: usize) -> Result<Kv> {
        let life = self.slots[slot].life.borrow();
        Ok(life
            .as_ref()
            .with_context(|| format!("provider {slot} is dead"))?
            .kv
            .clone())
    }

    /// Starts a process in an empty slot and waits until it serves.
    pub async fn start_provider(&self, slot: usize) -> Result<()> {
        let place = &self.slots[slot];
        let mut process = place.process.lock().await;
        ensure!(process.is_none(), "provider {slot} runs already");
        let url = |proxy: &FaultyProxy| {
            proxy
                .url()
                .replace("nats://", &format!("nats://provider{slot}:provider@"))
        };
        let urls: Vec<_> = place.path.iter().map(url).collect();
        let mut settings = self.settings.clone();
        settings["NATS_URL"] = urls.join(",").into();
        settings["SYNC_TIMEOUT_SECS"] = SYNC_TIMEOUT_SECS.into();
        if let Some(url) = self.stores.url(slot).await {
            settings["STORE"] = url.into();
        }
        let mut options = ProviderOptions::new(BINARY).config(settings).link(&self.actor);
        if let Some(library) = faketime_library() {
            self.set_clock(slot, 0)?;
            let clock = self.clock_file(slot);
            options = options
                .env("LD_PRELOAD", library.display().to_string())
                .env("FAKETIME_TIMESTAMP_FILE", clock.display().to_string())
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                // How often the file is read, in seconds.
                .env("FAKETIME_CACHE_DURATION", "1");
        }
        let mut started = self.lattice.start(options).await?;
        let ready = async {
            started.wait_healthy(LIMIT).await?;
            started.wait_linked(&self.actor, LIMIT).await
        };
        ready.await.with_context(|| format!("starting provider {slot}"))?;
        let client = started.client(&self.actor).await?;
        client.set_timeout(CALL_LIMIT);
        let number = self.next_life.fetch_add(1, Ordering::SeqCst);
        // No failure, for the network may be broken just then; but worth to be known.
        if number > self.slots.len() as u32 && !started.log().matching("first node of the lattice").is_empty() {
            self.note(format_args!(
                "provider {slot} starts and finds nobody: it counts itself as the first"
            ));
            self.alone.fetch_add(1, Ordering::SeqCst);
        }
        let life = Arc::new(Life {
            number,
            slot,
            kv: KeyValue::via(client),
            killed: AtomicBool::new(false),
            log: started.log().clone(),
        });
        self.lives
            .lock()
            .expect("nobody panics with the lives")
            .push(life.clone());
        place.life.send_replace(Some(life));
        *process = Some(started);
        Ok(())
    }

    fn clock_file(&self, slot: usize) -> std::path::PathBuf {
        self.clocks.path().join(slot.to_string())
    }

    /// From now on the wall clock of a provider is off by so many seconds.
    pub fn set_clock(&self, slot: usize, seconds: i64) -> Result<()> {
        if faketime_library().is_none() {
            self.note("*** NO CLOCK JUMPS: run scripts/install-tools.sh libfaketime");
            return Ok(());
        }
        let (file, new) = (self.clock_file(slot), self.clock_file(slot).with_extension("new"));
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        std::fs::rename(new, file).context("setting a clock")
    }

    /// From now on the servers refuse a provider this, and all others nothing.
    pub async fn refuse(&self, refused: Option<(usize, Refused)>) -> Result<()> {
        for server in &self.servers {
            let mut server = server.lock().await;
            server.set_config(users(self.slots.len(), refused));
            server.reload().await?;
        }
        Ok(())
    }

    /// The engine that providers share as a store.
    pub fn store_engine(&self) -> Result<&Mutex<RedisServer>> {
        self.stores.engine.as_ref().context("no engine as a store")
    }

    /// Providers that start with the same store, those of each store.
    pub fn sharing_stores(&self) -> Vec<Vec<usize>> {
        let (first, count) = (self.stores.first, self.slots.len());
        match &self.stores.engine {
            Some(_) if first + 1 < count => vec![vec![first], (first + 1..count).collect()],
            _ => (first..count).map(|slot| vec![slot]).collect(),
        }
    }

    /// Waits until the stores have what their providers hold.
    pub async fn stored(&self) -> Result<()> {
        eventually(LIMIT, || async {
            for slot in self.stores.first..self.slots() {
                let status = self.status(slot).await?;
                let pair = |name: &str| status.pairs.get(name).map(String::as_str);
                let is_stored = (pair("store_state"), pair("store_dirty")) == (Some("ready"), Some("0"));
                ensure!(is_stored, "provider {slot}: {status}");
            }
            Ok(())
        })
        .await
    }

    pub async fn kill_provider(&self, slot: usize) -> Result<()> {
        let place = &self.slots[slot];
        let mut process = place.process.lock().await;
        if let Some(life) = place.life.send_replace(None) {
            life.killed.store(true, Ordering::SeqCst);
        }
        let mut running = process.take().with_context(|| format!("provider {slot} is dead"))?;
        running.kill()
    }

    /// SIGSTOP.
    pub async fn pause_provider(&self, slot: usize) -> Result<()> {
        let mut process = self.slots[slot].process.lock().await;
        process
            .as_mut()
            .with_context(|| format!("provider {slot} is dead"))?
            .pause()
    }

    /// SIGCONT.
    pub async fn resume_provider(&self, slot: usize) -> Result<()> {
        let mut process = self.slots[slot].process.lock().await;
        process
            .as_mut()
            .with_context(|| format!("provider {slot} is dead"))?
            .resume()
    }

    pub async fn cut(&self, slot: usize) -> Result<()> {
        try_join_all(self.slots[slot].path.iter().map(FaultyProxy::cut)).await?;
        Ok(())
    }

    pub async fn heal(&self, slot: usize) -> Result<()> {
        try_join_all(self.slots[slot].path.iter().map(FaultyProxy::heal)).await?;
        Ok(())
    }

    pub async fn drop_connections(&self, slot: usize) -> Result<()> {
        try_join_all(self.slots[slot].path.iter().map(FaultyProxy::drop_connections)).await?;
        Ok(())
    }

    pub fn delay(&self, slot: usize, delay: [Duration; 2]) {
        for (proxy, direction) in self.slots[slot]
            .path
            .iter()
            .flat_map(|proxy| Direction::BOTH.map(|direction| (proxy, direction)))
        {
            proxy.delay(direction, delay[direction as usize]);
        }
    }

    /// From now on its links carry so many bytes per second, each way.
    pub fn limit(&self, slot: usize, bytes_per_second: u64) {
        for proxy in &self.slots[slot].path {
            for direction in Direction::BOTH {
                proxy.limit(direction, bytes_per_second);
            }
        }
    }

    pub fn stall(&self, slot: usize, directions: &[Direction]) {
        for proxy in &self.slots[slot].path {
            proxy.stall(directions.iter().copied());
        }
    }

    fn proxies(&self) -> impl Iterator<Item = &FaultyProxy> {
        self.slots.iter().flat_map(|slot| &slot.path)
    }

    /// Connections that were dropped by proxies.
    pub fn dropped(&self) -> u64 {
        self.proxies().map(|proxy| proxy.stats().dropped).sum()
    }

    /// Connections made and dropped, and bytes carried, over all proxies.
    pub fn traffic(&self) -> String {
        let all = self.proxies().map(FaultyProxy::stats);
        let (mut accepted, mut dropped, mut bytes) = (0, 0, 0);
        for stats in all {
            accepted += stats.accepted;
            dropped += stats.dropped;
            bytes += stats.bytes_to_server + stats.bytes_to_client;
        }
        format!(
            "{accepted} connections, {dropped} of them dropped, {:.1} MB through the proxies",
            bytes as f64 / 1e6
        )
    }

    pub async fn status(&self, slot: usize) -> Result<Status> {
        let mut process = self.slots[slot].process.lock().await;
        let process = process.as_mut().with_context(|| format!("provider {slot} is dead"))?;
        if let Ok(end) = process.exit_status(Duration::ZERO).await {
            bail!("provider {slot} has ended by itself: {end}");
        }
        process.status().await.with_context(|| format!("provider {slot}"))
    }

    /// Waits until all providers are synced, see all others, and have equal digests; how long that took.
    ///
    /// Counts of keys are not compared: an expired value counts until the sweep of each node has come by.
    pub async fn converge(&self) -> Result<Duration> {
        let started = Instant::now();
        let others = self.slots.len() as u64 - 1;
        let next_note = SyncMutex::new(started + NOTE_INTERVAL);
        eventually(LIMIT, || async {
            let statuses = join_all((0..self.slots.len()).map(|slot| self.status(slot))).await;
            let told = || {
                let tell = |status: &Result<Status>| match status {
                    Ok(status) => status.to_string(),
                    Err(error) => format!("{error:#}"),
                };
                statuses.iter().map(tell).collect::<Vec<_>>().join(" | ")
            };
            let first = statuses[0].as_ref().ok();
            let equal = statuses.iter().all(|status| match (status, first) {
                (Ok(status), Some(first)) => {
                    (status.sync, status.peers, &status.digest) == (SyncState::Synced, others, &first.digest)
                }
                _ => false,
            });
            if !equal {
                let mut next_note = next_note.lock().expect("nobody panics with a time");
                if *next_note <= Instant::now() {
                    *next_note += NOTE_INTERVAL;
                    self.note(format_args!("not equal yet: {}", told()));
                }
            }
            ensure!(equal, "{}", told());
            Ok(())
        })
        .await
        .context("the providers did not become equal")?;
        Ok(started.elapsed())
    }

    /// Reads `keys` through every provider; all must answer the same, which is returned.
    pub async fn equal_dumps(&self, keys: &[String]) -> Result<BTreeMap<String, Content>> {
        let dumps = (0..self.slots.len()).map(|slot| async move {
            content::dump(&self.kv(slot)?, keys)
                .await
                .with_context(|| format!("reading everything through provider {slot}"))
        });
        let mut dumps = try_join_all(dumps).await?;
        let first = dumps.remove(0);
        let mut differences = Vec::new();
        for (slot, dump) in dumps.iter().enumerate() {
            for (key, content) in &first {
                let other = &dump[key];
                if other != content {
                    differences.push(format!(
                        "{key}: provider 0 has {content}, provider {} has {other}",
                        slot + 1
                    ));
                }
            }
        }
        ensure!(
            differences.is_empty(),
            "{} differences between full dumps:\n  {}",
            differences.len(),
            differences[..differences.len().min(20)].join("\n  ")
        );
        Ok(first)
    }

    /// How many lives there were, and how many of them believed to be the first.
    pub fn story_of_lives(&self) -> String {
        format!(
            "{} lives of {} providers, {} of them found nobody at their start",
            self.all_lives().len(),
            self.slots.len(),
            self.alone.load(Ordering::SeqCst)
        )
    }

    /// What no life may have logged.
    pub fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for life in self.all_lives() {
            let lines = life.log.matching("panicked");
            found.extend(lines.iter().map(|line| format!("{life}: {line}")));
        }
        found
    }

    pub fn print_logs(&self) {
        let lives = self.all_lives();
        for life in lives.iter().rev().take(LIVES_OF_A_FAILURE).rev() {
            let end = if life.is_killed() { "killed" } else { "alive" };
            println!("--- {life} ({end}); its log ends with");
            let text = life.log.text();
            // The host's library reports every refused call as an error.
            let lines: Vec<_> = text
                .lines()
                .filter(|line| !line.contains("Invocation failed"))
                .collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES_OF_A_FAILURE)..];
            println!("{}", tail.join("\n"));
        }
        println!("---");
    }
}

/// The users of all providers for the configuration of a server. Each has its own, so that it can be refused something.
fn users(count: usize, refused: Option<(usize, Refused)>) -> String {
    let denies = |what: &Refused| match what {
        Refused::PublishToNodes => (NODES, ""),
        Refused::SubscribeToNode => ("", NODES),
        Refused::PublishAnything => (">", ""),
        Refused::Everything => (">", ">"),
    };
    let user = |slot: usize| {
        let refused = refused.filter(|(other, _)| *other == slot);
        let permissions = refused.map(|(_, what)| {
            let (publish, subscribe) = denies(&what);
            let deny = |(name, subject): (&str, &str)| format!("{name}: {{ deny: {subject:?} }}");
            let denied = [("publish", publish), ("subscribe", subscribe)];
            let denied: Vec<_> = denied
                .into_iter()
                .filter(|(_, subject)| !subject.is_empty())
                .map(deny)
                .collect();
            format!(", permissions: {{ {} }}", denied.join(", "))
        });
        format!(
            "    {{ user: provider{slot}, password: provider{} }}\n",
            permissions.unwrap_or_default()
        )
    };
    let users: String = (0..count).map(user).collect();
    format!("authorization {{\n  users: [\n{users}  ]\n}}\n")
}
