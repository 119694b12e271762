//! `make run STORE=...`: all three hosts are killed at once and come back with everything from their stores.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use testkit::{eventually, Workload};

use super::{heading, DevLattice, Node, BULK_KEYS, EQUAL_LIMIT};

/// Long enough for a start of all hosts to end before it.
const DEADLINE: Duration = Duration::from_secs(12);
/// How far a deadline may be off: it is looked at over a network, on a machine that is busy.
const TOLERANCE: Duration = Duration::from_secs(1);
/// Answers after all writes of the story.
const WRITTEN: [(&str, &str); 5] = [
    ("get greeting", "hello"),
    ("get visits", "12"),
    ("list queue", "first third"),
    ("set tags", "blue red"),
    ("get note", "(none)"),
];

impl DevLattice {
    /// The story with a store: everything dies at once, and comes back.
    pub(super) async fn tell_with_store(&mut self) -> Result<()> {
        heading("Writes through one host, reads through the others");
        self.write_a_little().await?;
        self.remove_a_little().await?;
        self.write_bulk().await?;
        let expires = self.write_deadline().await?;
        self.expect_everywhere(&WRITTEN).await?;
        let before = self.expect_equal_digests().await?;
        self.wait_stored().await?;

        heading("All three hosts die at once (SIGKILL)");
        for node in &mut self.nodes {
            node.provider.kill()?;
        }
        let killed: Vec<String> = self.nodes.iter().map(|node| node.provider.pid().to_string()).collect();
        println!("  processes {} are gone, and all memory with them", killed.join(", "));

        heading("They start again, with nothing but their stores");
        self.restart_all().await?;
        self.expect_everywhere(&WRITTEN).await?;
        let after = self.expect_equal_digests().await?;
        // Once it is past, the deadline has changed the digest.
        if expires.is_ahead() {
            ensure!(
                after.digest == before.digest,
                "digest {} before they were killed, {} after",
                before.digest,
                after.digest
            );
            println!("  the digest is that of before: {}", before.digest);
        }
        self.expect_counter_goes_on().await?;
        Workload::new(BULK_KEYS)
            .verify(&self.node("C")?.kv, 1)
            .await
            .context("reading the bulk through C")?;
        println!("  C: each of the {BULK_KEYS} keys reads as written");
        self.expect_deadline(&expires).await?;

        heading("Summary");
        let status = self.expect_equal_digests().await?;
        println!(
            "  3 hosts were killed at once, and came back with {} keys each from their stores: nothing is missing",
            status.keys
        );
        Ok(())
    }

    async fn remove_a_little(&self) -> Result<()> {
        // Whoever removes something has to know it.
        self.expect_everywhere(&[
            ("get note", "written by B"),
            ("list queue", "first second third"),
            ("set tags", "blue green red"),
        ])
        .await?;
        let (a, b, c) = (self.node("A")?, self.node("B")?, self.node("C")?);
        ensure!(c.kv.del("note").await?, "there was a note");
        ensure!(a.kv.list_del("queue", "second").await?, "second was in list queue");
        ensure!(b.kv.set_del("tags", "green").await? == 1, "green was in set tags");
        println!("  C: delete note; A: remove second from list queue; B: remove green from set tags");
        Ok(())
    }

    async fn write_deadline(&self) -> Result<Deadline> {
        let at = Instant::now() + DEADLINE;
        let seconds = DEADLINE.as_secs();
        let kv = &self.node("A")?.kv;
        kv.set_for("session", "short", seconds as u32).await?;
        println!("  A: set session short, with a deadline in {seconds} s");
        Ok(Deadline { at })
    }

    /// Until all that the hosts hold is where they keep it.
    async fn wait_stored(&self) -> Result<()> {
        for node in &self.nodes {
            let stored = eventually(EQUAL_LIMIT, || async {
                let status = node.provider.status().await?;
                let dirty = status.pairs.get("store_dirty").context("no store_dirty in health")?;
                ensure!(dirty == "0", "store_dirty={dirty}");
                Ok(())
            });
            stored
                .await
                .with_context(|| format!("host {} does not write everything to its store", node.name))?;
        }
        println!("  A, B, C: all of it is in their stores (store_dirty=0)");
        Ok(())
    }

    async fn restart_all(&mut self) -> Result<()> {
        let start = |node: &Node| {
            let options = node.provider.options().clone();
            Node::start(node.name, &self.lattice, options, &self.actor)
        };
        let [a, b, c] = &self.nodes[..] else {
            bail!("three hosts were started")
        };
        // At once, as they were killed.
        let (a, b, c) = tokio::try_join!(start(a), start(b), start(c))?;
        self.nodes = vec![a, b, c];
        self.wait_peers().await
    }

    /// A counter that had lost anything would answer less, and one that had counted twice more.
    async fn expect_counter_goes_on(&self) -> Result<()> {
        let sum = self.node("B")?.kv.increment("visits", 1).await?;
        ensure!(sum == 13, "visits was 12, and 1 more is {sum}");
        println!("  B: increment visits by 1 (answers {sum})");
        Ok(())
    }

    /// The deadline is neither forgotten nor begun anew.
    async fn expect_deadline(&self, expires: &Deadline) -> Result<()> {
        let kv = &self.node("A")?.kv;
        if expires.is_ahead() {
            let found = kv.get("session").await?;
            ensure!(
                found.is_some() || expires.is_near(),
                "session is gone {:.1} s before its deadline",
                expires.left().as_secs_f64()
            );
            println!("  A: get session = {}", found.as_deref().unwrap_or("(none)"));
        } else {
            println!("  the start took longer than session was to live");
        }
        let gone = eventually(DEADLINE + EQUAL_LIMIT, || async {
            let asked = Instant::now();
            let found = kv.get("session").await?.is_some();
            if found && asked > expires.at + TOLERANCE {
                // It would be there for good, or for another 12 s.
                return Ok(false);
            }
            ensure!(!found, "session is still there");
            Ok(true)
        });
        ensure!(gone.await?, "session outlives its deadline");
        ensure!(
            !expires.is_ahead() || expires.is_near(),
            "session is gone before its deadline"
        );
        println!(
            "  A: get session = (none), {} s after it was set: its deadline went on meanwhile",
            DEADLINE.as_secs()
        );
        Ok(())
    }
}

/// When a key expires.
struct Deadline {
    at: Instant,
}

impl Deadline {
    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    fn is_ahead(&self) -> bool {
        self.left() > Duration::ZERO
    }

    fn is_near(&self) -> bool {
        self.left() < TOLERANCE
    }
}
