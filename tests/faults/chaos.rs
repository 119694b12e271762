//! The random run: load and faults side by side, then healing, then the comparison of everything.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;
use testkit::{NatsCluster, NatsServer, RedisKind, RedisServer, ServerLimits};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::books::Books;
use crate::content::{self, Content};
use crate::lab::{Lab, Stores};
use crate::load;
use crate::plan::{plan, Fault, Step, LONGEST_JUMP_SECS};

/// Two without a store, one with a file, two that share an engine.
const PROVIDERS: usize = 5;
const FIRST_WITH_STORE: usize = 2;
const SERVERS: usize = 3;
const SECONDS: u64 = 45;
/// After the last deadline, until nobody shows an expired value any more. A clock that was ahead has set later ones.
const EXPIRY_MARGIN: Duration = Duration::from_secs(1 + LONGEST_JUMP_SECS as u64);
/// Less than a subscriber under this load needs whenever it pauses, and far less than one large value.
const TINY: ServerLimits = ServerLimits {
    max_pending: Some(128 << 10),
    max_payload: Some(64 << 10),
    write_deadline: Some(Duration::from_secs(2)),
};

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: expected a whole number, found {text:?}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_leave_all_nodes_equal() {
    let _alone = crate::ALONE.lock().await;
    let rpc = testkit::server_or_skip!();
    let seed = number_from("FAULTS_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let seconds = number_from("FAULTS_SECONDS").unwrap_or(SECONDS);
    println!("\n{seconds} s of faults, seed {seed}");
    let mut steps = plan(seed, Duration::from_secs(seconds), PROVIDERS, SERVERS);
    if testkit::faketime_library().is_none() {
        testkit::skip_test("no clock jumps without libfaketime; install it with: scripts/install-tools.sh libfaketime");
        steps.retain(|step| !matches!(step.fault, Fault::ClockJump { .. }));
    }
    if let Err(missing) = RedisKind::Redis.find() {
        testkit::skip_test(&format!("files instead of an engine as a store: {missing}"));
        steps.retain(|step| !matches!(step.fault, Fault::KillStore { .. } | Fault::PauseStore { .. }));
    }
    let told: Vec<_> = steps.iter().map(ToString::to_string).collect();
    let (lab, books) = match start(rpc).await {
        Ok(lab) => (Arc::new(lab), Arc::new(Books::default())),
        Err(error) => panic!("before the first fault: {error:#}"),
    };
    if let Err(error) = run(&lab, &books, seed, Duration::from_secs(seconds), steps).await {
        println!("\nThe plan of seed {seed}:\n  {}", told.join("\n  "));
        lab.print_logs();
        println!("{books}\n{}", lab.traffic());
        panic!("seed {seed} fails (make faults SECONDS={seconds} SEED={seed} plans the same once more): {error:#}");
    }
}

async fn start(rpc: NatsServer) -> Result<Lab> {
    let servers = NatsCluster::start(SERVERS).await?.into_servers();
    let engine = match RedisKind::Redis.find() {
        // Each of its writes is on the disk before it is answered.
        Ok(_) => Some(RedisServer::start_persistent(RedisKind::Redis, &[]).await?),
        Err(_) => None,
    };
    let stores = Stores::new(FIRST_WITH_STORE, engine)?;
    Lab::start_with_stores(rpc, servers, PROVIDERS, json!({}), stores).await
}

async fn run(lab: &Arc<Lab>, books: &Arc<Books>, seed: u64, length: Duration, steps: Vec<Step>) -> Result<()> {
    let (stop_sender, stop) = watch::channel(false);
    let mut writers = load::start(lab, books, seed, &stop);
    let planned = Struck::default();
    steps.iter().for_each(|step| planned.count(step.fault.kind()));
    let struck = Arc::new(Struck::default());
    let mut faults = JoinSet::new();
    let started = tokio::time::Instant::now();
    let mut failure = None;
    for step in steps {
        tokio::select! {
            () = tokio::time::sleep_until(started + step.at) => {}
            error = first_error(&mut faults) => {
                failure = Some(error);
                break;
            }
        }
        let (lab, stop, struck) = (lab.clone(), stop.clone(), struck.clone());
        faults.spawn(async move {
            let told = step.fault.to_string();
            lab.note(&told);
            carry_out(&lab, &step.fault, stop, &struck)
                .await
                .with_context(|| told.clone())?;
            lab.note(format_args!("over: {told}"));
            struck.count(step.fault.kind());
            Ok(())
        });
    }
    if failure.is_none() {
        tokio::time::sleep_until(started + length).await;
    }

    // Every fault ends what it began; the writers end with their calls under way.
    stop_sender.send_replace(true);
    while let Some(ended) = faults.join_next().await {
        if let Err(error) = ended.context("a fault panicked")? {
            failure.get_or_insert(error);
        }
    }
    while let Some(ended) = writers.join_next().await {
        ended.context("a writer panicked")?;
    }
    if let Some(error) = failure {
        return Err(error);
    }
    for slot in 0..lab.slots() {
        lab.heal(slot).await?;
    }
    // A call that was given up may have been carried out by a process that has just been resumed.
    books.expires_in(Duration::from_secs((*load::SHORT.end()).into()));
    lab.note("everything healed");
    let healing = lab.converge().await?;
    lab.note(format_args!("all equal after {:.1} s", healing.as_secs_f64()));

    if let Some(over) = books.expiries_over() {
        tokio::time::sleep_until((over + EXPIRY_MARGIN).into()).await;
    }
    let keys = books.keys();
    let reading = Instant::now();
    let dump = lab.equal_dumps(&keys).await?;
    let reading = reading.elapsed();
    lab.converge().await.context("after the dumps")?;
    let checked = books.check(lab, &dump);
    for panic in lab.panics() {
        books.violation(format_args!("a provider panicked: {panic}"));
    }
    let violations = books.violations();
    if !violations.is_empty() {
        bail!("violations:\n  {}", violations.join("\n  "));
    }
    books.ensure_acknowledged(&load::OPERATIONS)?;
    checked.ensure_telling()?;
    ensure_struck(&planned, &struck, lab)?;
    let lives = lab.story_of_lives();
    come_back(lab, &keys, &dump).await?;

    println!("\nSummary of seed {seed}, {} s of faults", length.as_secs());
    println!("{struck}");
    println!("{books}");
    println!("{}", lab.traffic());
    println!(
        "{}; equal {:.1} s after the last fault was healed",
        lives,
        healing.as_secs_f64()
    );
    println!(
        "{} keys read through each provider in {:.1} s: all equal",
        keys.len(),
        reading.as_secs_f64()
    );
    println!("all providers killed at once: from each store alone everything came back");
    println!("{checked}\n");
    if std::env::var_os("FAULTS_LOGS").is_some() {
        lab.print_logs();
    }
    Ok(())
}

/// Kills all providers at once. From each of the stores alone everything comes back.
async fn come_back(lab: &Lab, keys: &[String], expected: &BTreeMap<String, Content>) -> Result<()> {
    lab.stored().await?;
    for slot in 0..lab.slots() {
        lab.kill_provider(slot).await?;
    }
    for slots in lab.sharing_stores() {
        for slot in &slots {
            lab.start_provider(*slot).await?;
        }
        for slot in &slots {
            let found = content::dump(&lab.kv(*slot)?, keys).await?;
            let differs = |(key, content): &(&String, &Content)| found.get(*key) != Some(*content);
            let lost: Vec<_> = expected.iter().filter(differs).map(|(key, _)| key.as_str()).collect();
            let some = &lost[..lost.len().min(20)];
            ensure!(
                lost.is_empty(),
                "provider {slot} from its store alone: {} keys differ, as {some:?}",
                lost.len()
            );
        }
        for slot in slots {
            lab.kill_provider(slot).await?;
        }
    }
    Ok(())
}

/// The first fault that could not be carried out; waits for ever when there is none.
async fn first_error(faults: &mut JoinSet<Result<()>>) -> anyhow::Error {
    loop {
        match faults.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error,
            Some(Err(error)) => return anyhow::Error::new(error).context("a fault panicked"),
            None => std::future::pending().await,
        }
    }
}

/// Begins the fault, waits for its time or for the end of the run, and ends it.
async fn carry_out(lab: &Lab, fault: &Fault, mut stop: watch::Receiver<bool>, struck: &Struck) -> Result<()> {
    let mut lasts = async || {
        tokio::select! {
            () = tokio::time::sleep(fault.lasts()) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    };
    match fault {
        Fault::KillProvider { slot, .. } => {
            lab.kill_provider(*slot).await?;
            lasts().await;
            lab.start_provider(*slot).await
        }
        Fault::PauseProvider { slot, .. } => {
            lab.pause_provider(*slot).await?;
            lasts().await;
            lab.resume_provider(*slot).await
        }
        Fault::Cut { slot, .. } => {
            lab.cut(*slot).await?;
            lasts().await;
            lab.heal(*slot).await
        }
        Fault::DropConnections { slot } => lab.drop_connections(*slot).await,
        Fault::Delay { slot, delay, .. } => {
            lab.delay(*slot, *delay);
            lasts().await;
            lab.heal(*slot).await
        }
        Fault::SlowLink {
            slot, bytes_per_second, ..
        } => {
            lab.limit(*slot, *bytes_per_second);
            lasts().await;
            lab.heal(*slot).await
        }
        Fault::Stall {
            slot,
            directions,
            then_dropped,
            ..
        } => {
            lab.stall(*slot, directions);
            lasts().await;
            if *then_dropped {
                lab.drop_connections(*slot).await?;
            }
            lab.heal(*slot).await
        }
        Fault::KillServer { server, .. } => {
            lab.servers[*server].lock().await.kill()?;
            lasts().await;
            lab.servers[*server].lock().await.restart().await
        }
        Fault::PauseServer { server, .. } => {
            lab.servers[*server].lock().await.pause()?;
            lasts().await;
            lab.servers[*server].lock().await.resume()
        }
        Fault::KillStore { .. } => {
            lab.store_engine()?.lock().await.kill()?;
            lasts().await;
            lab.store_engine()?.lock().await.restart().await
        }
        Fault::PauseStore { .. } => {
            lab.store_engine()?.lock().await.pause()?;
            lasts().await;
            lab.store_engine()?.lock().await.resume()
        }
        Fault::ClockJump { slot, seconds, .. } => {
            lab.set_clock(*slot, *seconds)?;
            lasts().await;
            lab.set_clock(*slot, 0)
        }
        Fault::Refuse { slot, what, .. } => {
            lab.refuse(Some((*slot, *what))).await?;
            lasts().await;
            lab.refuse(None).await
        }
        Fault::TinyPending { .. } => {
            restart_servers(lab, TINY).await?;
            lasts().await;
            for (number, server) in lab.servers.iter().enumerate() {
                let dropped = server.lock().await.slow_consumers().await?;
                lab.note(format_args!("server {number} has dropped {dropped} slow consumers"));
                struck.slow_consumers.fetch_add(dropped, Ordering::Relaxed);
            }
            restart_servers(lab, ServerLimits::default()).await
        }
    }
}

/// Fails unless every planned fault has struck, and shows where that can be seen from outside.
fn ensure_struck(planned: &Struck, struck: &Struck, lab: &Lab) -> Result<()> {
    let (planned, struck) = (planned.kinds(), struck.kinds());
    ensure!(planned == struck, "planned were {planned:?}, carried out {struck:?}");
    let count = |fault: &str| planned.get(fault).copied().unwrap_or(0);
    let lives = lab.all_lives();
    let killed = lives.iter().filter(|life| life.is_killed()).count();
    ensure!(
        killed == count("provider killed") as usize,
        "{killed} lives were killed"
    );
    ensure!(lives.len() == lab.slots() + killed, "{} lives", lives.len());
    if count("cut") + count("connections dropped") > 0 {
        ensure!(lab.dropped() > 0, "no proxy has dropped a connection");
    }
    Ok(())
}

/// One after the other.
async fn restart_servers(lab: &Lab, limits: ServerLimits) -> Result<()> {
    for server in &lab.servers {
        let mut server = server.lock().await;
        server.set_limits(limits);
        server.restart().await?;
    }
    Ok(())
}

/// Faults by kind.
#[derive(Default)]
struct Struck {
    kinds: Mutex<BTreeMap<&'static str, u32>>,
    /// Dropped by servers with a tiny `max_pending`.
    slow_consumers: AtomicU64,
}

impl Struck {
    fn count(&self, kind: &'static str) {
        let mut kinds = self.kinds.lock().expect("nobody panics with the count");
        *kinds.entry(kind).or_default() += 1;
    }

    fn kinds(&self) -> BTreeMap<&'static str, u32> {
        self.kinds.lock().expect("nobody panics with the count").clone()
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kinds();
        let told: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        write!(
            f,
            "{} faults: {}; {} slow consumers dropped by servers with a tiny max_pending",
            kinds.values().sum::<u32>(),
            told.join(", "),
            self.slow_consumers.load(Ordering::Relaxed)
        )
    }
}
