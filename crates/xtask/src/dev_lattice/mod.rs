//! `make run`: three hosts' worth of providers on a nats-server of their own, and replication to watch.

mod killed;
mod store;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::Args;
use serde_json::json;
use tempfile::TempDir;
use testkit::{
    eventually, workspace_root, Actor, KeyValue, KeyValueClient, Lattice, NatsServer, ProviderOptions, ProviderProcess,
    Status, SyncState, Workload, DEFAULT_LINK_NAME,
};
use tokio::signal::unix::{signal, SignalKind};

use crate::dev_state::{DevNode, DevState};

use store::Store;

const READY_LIMIT: Duration = Duration::from_secs(30);
const EQUAL_LIMIT: Duration = Duration::from_secs(30);
/// Enough keys to make the bootstrap more than one message, few enough to be written in a second or two.
const BULK_KEYS: usize = 5_000;
const NAMES: [&str; 3] = ["A", "B", "C"];

#[derive(Args)]
pub struct DevLatticeArguments {
    /// The provider binary
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Leave the lattice up until Ctrl-C and tell how to talk to it
    #[arg(long)]
    keep: bool,
    /// What the hosts keep their data in: `file`, or the URL of a store that they share. They are all killed at once then
    #[arg(long, value_name = "STORE")]
    store: Option<Store>,
    /// Where to write what `xtask kv` needs to talk to the lattice
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Show what the providers write to their logs at this level when something goes wrong
    #[arg(long, default_value = "info")]
    log_level: String,
}

/// Plays the demonstration; an error when anything was unequal or took too long.
pub async fn run(arguments: DevLatticeArguments) -> Result<()> {
    let binary = arguments
        .binary
        .clone()
        .unwrap_or_else(|| workspace_root().join("target/release/nats-kvcache"));
    ensure!(
        binary.is_file(),
        "{} does not exist; build it with: cargo build --release --locked",
        binary.display()
    );

    // Whatever ends this function drops the lattice, and with it every process it started.
    let mut lattice = unless_interrupted(DevLattice::start(binary, &arguments)).await?;
    let told = match arguments.store {
        None => unless_interrupted(lattice.tell()).await,
        Some(_) => unless_interrupted(lattice.tell_with_store()).await,
    };
    if let Err(error) = told {
        lattice.print_logs();
        return Err(error);
    }
    if arguments.keep {
        lattice
            .keep(arguments.state.unwrap_or_else(DevState::default_path))
            .await?;
    }
    Ok(())
}

struct DevLattice {
    server: NatsServer,
    lattice: Lattice,
    actor: Actor,
    nodes: Vec<Node>,
    /// Of the stores of hosts; it goes with the lattice, after them.
    _folder: TempDir,
}

struct Node {
    name: &'static str,
    provider: ProviderProcess,
    kv: KeyValue<KeyValueClient>,
}

impl DevLattice {
    async fn start(binary: PathBuf, arguments: &DevLatticeArguments) -> Result<Self> {
        heading("A lattice of three hosts");
        let server = NatsServer::builder().jetstream().start().await?;
        println!("  nats-server {} at {}", server.version()?, server.url());
        let lattice = Lattice::new(server.url());
        println!("  lattice prefix {}, link name {DEFAULT_LINK_NAME}", lattice.prefix());
        let folder = TempDir::with_prefix("nats-kvcache-").context("a folder for the stores")?;
        if let Some(store) = &arguments.store {
            println!("  store: {}", store.describe(folder.path()));
        }
        let actor = Actor::new();
        let mut nodes = Vec::new();
        for name in NAMES {
            let mut options = ProviderOptions::new(&binary)
                .link(&actor)
                .log_level(&arguments.log_level);
            if let Some(store) = &arguments.store {
                options = options.config(json!({ "STORE": store.of_host(name, folder.path()) }));
            }
            nodes.push(Node::start(name, &lattice, options, &actor).await?);
        }
        let mut dev_lattice = Self {
            server,
            lattice,
            actor,
            nodes,
            _folder: folder,
        };
        dev_lattice.wait_peers().await?;
        Ok(dev_lattice)
    }

    /// The story: live replication, a crash, writes meanwhile, bootstrap.
    async fn tell(&mut self) -> Result<()> {
        heading("Writes through one host, reads through the others");
        self.write_a_little().await?;
        self.expect_everywhere(&[
            ("get greeting", "hello"),
            ("get visits", "12"),
            ("list queue", "first second third"),
            ("set tags", "blue green red"),
            ("get note", "written by B"),
        ])
        .await?;
        self.write_bulk().await?;
        self.expect_equal_digests().await?;

        heading("Host C dies (SIGKILL); writes go on");
        let [a, b, c] = &mut self.nodes[..] else {
            bail!("three hosts were started")
        };
        println!("  C: kill process {}", c.provider.pid());
        c.provider.kill()?;
        let killed = Instant::now();
        c_is_away(&a.kv, &b.kv).await?;
        for node in [a, b] {
            let noticed = node.provider.wait_status(READY_LIMIT, |status| status.peers == 1).await;
            noticed.with_context(|| format!("host {} does not notice that C is gone", node.name))?;
        }
        println!(
            "  A and B have noticed after {:.1} s that C is gone",
            killed.elapsed().as_secs_f64()
        );

        heading("Host C starts again, empty, and gets the present state from a peer");
        self.restart("C").await?;
        self.expect_everywhere(&[
            ("get greeting", "hello again"),
            ("get visits", "112"),
            ("list queue", "second third fourth"),
            ("set tags", "blue red yellow"),
            ("get note", "(none)"),
        ])
        .await?;
        self.expect_equal_digests().await?;
        Workload::new(BULK_KEYS)
            .verify(&self.node("C")?.kv, 7)
            .await
            .context("reading the bulk through C")?;
        println!("  C: a sample of the {BULK_KEYS} keys reads as written");

        heading("Summary");
        let status = self.node("A")?.provider.status().await?;
        println!(
            "  3 hosts, {} keys each, digest {} on all of them: all equal",
            status.keys, status.digest
        );
        Ok(())
    }

    async fn wait_peers(&mut self) -> Result<()> {
        let others = NAMES.len() as u64 - 1;
        for node in &mut self.nodes {
            let seen = node
                .provider
                .wait_status(READY_LIMIT, |status| status.peers == others)
                .await;
            seen.with_context(|| format!("host {} does not see exactly the two others", node.name))?;
        }
        println!("  every host sees the two others");
        Ok(())
    }

    async fn write_a_little(&self) -> Result<()> {
        let [a, b, c] = &self.nodes[..] else {
            bail!("three hosts were started")
        };
        a.kv.set("greeting", "hello").await?;
        println!("  A: set greeting hello");
        b.kv.set("note", "written by B").await?;
        println!("  B: set note 'written by B'");
        let sums = tokio::try_join!(a.kv.increment("visits", 5), b.kv.increment("visits", 7))?;
        println!(
            "  A and B at once: increment visits by 5 and by 7 (answers {} and {})",
            sums.0, sums.1
        );
        for item in ["first", "second", "third"] {
            c.kv.list_add("queue", item).await?;
        }
        println!("  C: add first, second, third to list queue");
        for (node, member) in [(a, "red"), (b, "green"), (c, "blue")] {
            node.kv.set_add("tags", member).await?;
        }
        println!("  A, B, C: add red, green, blue to set tags");
        Ok(())
    }

    async fn write_bulk(&self) -> Result<()> {
        let started = Instant::now();
        let writers: Vec<_> = self.nodes.iter().map(|node| node.kv.clone()).collect();
        Workload::new(BULK_KEYS).write(&writers).await?;
        println!(
            "  A, B, C: {BULK_KEYS} keys of all types in {:.1} s",
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    async fn restart(&mut self, name: &'static str) -> Result<()> {
        let position = self
            .nodes
            .iter()
            .position(|node| node.name == name)
            .context("no such host")?;
        let dead = self.nodes.remove(position);
        let options = dead.provider.options().clone();
        drop(dead);
        let node = Node::start(name, &self.lattice, options, &self.actor).await?;
        for line in node
            .provider
            .log()
            .matching("kvcache_core::replica")
            .into_iter()
            .take(3)
        {
            println!("  {name} logs: {}", message_of(&line));
        }
        self.nodes.insert(position, node);
        self.wait_peers().await
    }

    /// Every answer on every host, waiting for messages that are under way.
    async fn expect_everywhere(&self, expected: &[(&str, &str)]) -> Result<()> {
        for (question, answer) in expected {
            for node in &self.nodes {
                let read = eventually(EQUAL_LIMIT, || async {
                    let found = ask(&node.kv, question).await?;
                    ensure!(found == *answer, "it answers {found:?}, expected {answer:?}");
                    Ok(())
                });
                read.await
                    .with_context(|| format!("{question} through host {}", node.name))?;
            }
            println!("  A, B, C: {question} = {answer}");
        }
        Ok(())
    }

    /// Waits until all hosts hold the same, and says what that is.
    async fn expect_equal_digests(&self) -> Result<Status> {
        let reached = eventually(EQUAL_LIMIT, || async {
            let statuses = self.statuses().await?;
            let equal = statuses
                .windows(2)
                .all(|pair| pair[0].digest == pair[1].digest && pair[0].keys == pair[1].keys);
            ensure!(equal, "{}", self.describe(&statuses));
            Ok(statuses)
        });
        let mut statuses = reached.await.context("the hosts did not become equal")?;
        println!("{}", self.describe(&statuses));
        Ok(statuses.swap_remove(0))
    }

    async fn statuses(&self) -> Result<Vec<Status>> {
        let mut statuses = Vec::new();
        for node in &self.nodes {
            statuses.push(
                node.provider
                    .status()
                    .await
                    .with_context(|| format!("health of host {}", node.name))?,
            );
        }
        Ok(statuses)
    }

    fn describe(&self, statuses: &[Status]) -> String {
        let lines = self
            .nodes
            .iter()
            .zip(statuses)
            .map(|(node, status)| format!("  {}: {status}", node.name));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("no host {name}"))
    }

    fn print_logs(&self) {
        for node in &self.nodes {
            eprintln!(
                "--- log of host {} ends with:\n{}",
                node.name,
                node.provider.log().tail(15)
            );
        }
    }

    async fn keep(&self, path: PathBuf) -> Result<()> {
        let nodes = self.nodes.iter().map(|node| DevNode {
            name: node.name.to_owned(),
            provider_key: node.provider.provider_key().to_owned(),
        });
        DevState::new(&self.lattice, DEFAULT_LINK_NAME, &self.actor, nodes.collect())?.save(&path)?;
        heading("The lattice stays up");
        println!("  nats url        {}", self.server.url());
        println!("  lattice prefix  {}", self.lattice.prefix());
        println!("  link name       {DEFAULT_LINK_NAME}");
        println!("  actor           {}", self.actor.id());
        for node in &self.nodes {
            println!(
                "  provider {}      {} (process {})",
                node.name,
                node.provider.provider_key(),
                node.provider.pid()
            );
        }
        println!("  state file      {}", path.display());
        println!("\nTalk to it from another terminal:");
        // This program, which is built; another profile would build everything once more.
        let program = std::env::current_exe().context("finding this program")?;
        let (program, state) = (program.display(), path.display());
        for example in [
            "--node A set color blue",
            "--node B get color",
            "--node C incr visits 1",
            "health",
        ] {
            println!("  {program} kv --state {state} {example}");
        }
        println!("\nCtrl-C stops everything.");
        interrupted().await?;
        println!("\nStopping.");
        std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }
}

impl Node {
    async fn start(name: &'static str, lattice: &Lattice, options: ProviderOptions, actor: &Actor) -> Result<Self> {
        let started = Instant::now();
        let mut provider = lattice.start(options).await?;
        let status = provider
            .wait_status(READY_LIMIT, |status| {
                matches!(status.sync, SyncState::Synced | SyncState::Alone)
            })
            .await
            .with_context(|| format!("host {name} did not become ready"))?;
        println!(
            "  host {name}: process {}, ready after {:.2} s with {} keys",
            provider.pid(),
            started.elapsed().as_secs_f64(),
            status.keys
        );
        let kv = provider.keyvalue(actor).await?;
        Ok(Self { name, provider, kv })
    }
}

async fn c_is_away(a: &KeyValue<KeyValueClient>, b: &KeyValue<KeyValueClient>) -> Result<()> {
    a.set("greeting", "hello again").await?;
    println!("  A: set greeting 'hello again'");
    b.increment("visits", 100).await?;
    println!("  B: increment visits by 100");
    ensure!(a.list_del("queue", "first").await?, "first was in list queue");
    a.list_add("queue", "fourth").await?;
    println!("  A: remove first from list queue, add fourth");
    ensure!(b.set_del("tags", "green").await? == 1, "green was in set tags");
    b.set_add("tags", "yellow").await?;
    println!("  B: remove green from set tags, add yellow");
    ensure!(b.del("note").await?, "there was a note");
    println!("  B: delete note");
    Ok(())
}

/// A line of the log without its time, level and module.
fn message_of(line: &str) -> &str {
    line.split_once("machine: ").map_or(line, |(_, message)| message).trim()
}

/// Answers "get KEY", "list KEY" and "set KEY".
async fn ask(kv: &KeyValue<KeyValueClient>, question: &str) -> Result<String> {
    let (operation, key) = question
        .split_once(' ')
        .context("a question is an operation and a key")?;
    Ok(match operation {
        "get" => kv.get(key).await?.unwrap_or_else(|| "(none)".to_owned()),
        "list" => kv.list(key).await?.join(" "),
        "set" => kv.set_query(key).await?.join(" "),
        other => bail!("unknown operation {other}"),
    })
}

async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        stop = interrupted() => {
            stop?;
            bail!("interrupted")
        }
    }
}

/// Ctrl-C or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn heading(text: &str) {
    println!("\n{text}");
}
