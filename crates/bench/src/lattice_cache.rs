//! The lattice cache of hosts 0.18: the classic one, which they have built in, and the plugin, alternately. The tables
//! of docs/WHY.md.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use testkit::{host_0_18, Commanded, HostOptions, NatsServer, OciRegistry};

use crate::report::median;

const PAGE: &str = "docs/WHY.md";
const BEGIN: &str = "<!-- lattice-cache: begin -->\n";
const END: &str = "<!-- lattice-cache: end -->\n";

const RUNS: usize = 7;
const LINKS: u64 = 1_000;
/// Set while one host sleeps.
const MORE_LINKS: u64 = 100;
const SLEEP: Duration = Duration::from_secs(3);
/// What has not arrived by then is taken for lost: without a fault, milliseconds are enough.
const SETTLED: Duration = Duration::from_secs(5);
const CONTRACT: &str = "wasmcloud:keyvalue";

/// Measures, prints the tables, and with `write` puts them into docs/WHY.md.
pub async fn run(library: &Path, archive: &Path, write: bool) -> Result<()> {
    let place = Place::new(library, archive).await?;
    let tables = format!(
        "\n{}\n{}\n`make bench-lattice-cache` on {}, nats-server {}; medians where nothing else is said.\n\n",
        place.links().await?,
        place.figures().await?,
        crate::machine::Machine::here().cpu,
        place.server.version()?,
    );
    print!("{tables}");
    if write {
        let page = std::fs::read_to_string(PAGE).context(PAGE)?;
        let (before, rest) = page.split_once(BEGIN).context("a mark where the tables begin")?;
        let (_, after) = rest.split_once(END).context("a mark where the tables end")?;
        std::fs::write(PAGE, [before, BEGIN, &tables, END, after].concat())?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Classic,
    Ours,
}

struct Place {
    program: PathBuf,
    library: PathBuf,
    reference: String,
    server: NatsServer,
    _registry: OciRegistry,
}

/// What one run of three hosts shows.
struct Links {
    ms_per_link: f64,
    /// At the second and the third host.
    arrived: [u64; 2],
    /// At the second one, after it slept while more were set.
    after_sleep: u64,
    /// Of a fourth host.
    late_start: Duration,
    late_found: u64,
    resident: u64,
}

impl Place {
    async fn new(library: &Path, archive: &Path) -> Result<Self> {
        let program = host_0_18().context("a host of the 0.18 line")?;
        let registry = OciRegistry::start_or_skip("").await?.context("a registry")?;
        let reference = registry.reference("nats-kvcache:bench");
        let mut push = Command::new("cargo");
        push.args([
            "run", "--quiet", "--locked", "-p", "xtask", "--", "par", "push", "--ref", &reference,
        ]);
        ensure!(
            push.arg("--file").arg(archive).status()?.success(),
            "the plugin cannot be pushed"
        );
        Ok(Place {
            program,
            library: library.to_owned(),
            reference,
            server: NatsServer::start().await?,
            _registry: registry,
        })
    }

    fn options(&self, kind: Kind) -> HostOptions {
        match kind {
            Kind::Classic => HostOptions::new(),
            Kind::Ours => HostOptions::new().cache(&self.reference),
        }
    }

    /// A host in a lattice of its own for each run.
    async fn start(&self, kind: Kind, lattice: &str) -> Result<Commanded> {
        let subject = |what: &str| format!("{lattice}.{what}");
        let options = self
            .options(kind)
            .rpc(&self.server.url())
            .namespace(lattice)
            .setting("NATS_URL", self.server.url())
            .setting("STATE_REPL_SUBJECT", subject("events"))
            .setting("REPLAY_REQ_SUBJECT", subject("replay"));
        options.start(&self.program).await
    }

    async fn links(&self) -> Result<String> {
        let (mut classic, mut ours) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            eprintln!("three hosts, run {} of {RUNS}", run + 1);
            classic.push(self.three_hosts(Kind::Classic, &format!("classic{run}")).await?);
            ours.push(self.three_hosts(Kind::Ours, &format!("ours{run}")).await?);
        }
        Ok(table_of_links(&classic, &ours))
    }

    /// Links are set in a row on one of three hosts, without any fault; then some more while another one sleeps.
    async fn three_hosts(&self, kind: Kind, lattice: &str) -> Result<Links> {
        let mut a = self.start(kind, lattice).await?;
        let mut b = self.start(kind, lattice).await?;
        let mut c = self.start(kind, lattice).await?;
        let begun = Instant::now();
        set_links(&mut a, 0, LINKS).await?;
        let ms_per_link = begun.elapsed().as_secs_f64() * 1_000.0 / LINKS as f64;
        let arrived = [settled(&mut b, LINKS).await?, settled(&mut c, LINKS).await?];
        b.pause()?;
        set_links(&mut a, LINKS, MORE_LINKS).await?;
        tokio::time::sleep(SLEEP).await;
        b.resume()?;
        let after_sleep = settled(&mut b, LINKS + MORE_LINKS).await?;
        let resident = a.resident_bytes()?;
        let begun = Instant::now();
        let mut late = self.start(kind, lattice).await?;
        let late_found = count(&mut late).await?;
        Ok(Links {
            ms_per_link,
            arrived,
            after_sleep,
            late_start: begun.elapsed(),
            late_found,
            resident,
        })
    }

    async fn figures(&self) -> Result<String> {
        let mut table = String::from("| what | classic | this one | ratio |\n| --- | --- | --- | --- |\n");
        for keys in [1_000, 10_000] {
            let [classic, ours] = self.in_process(keys)?;
            for what in ["sets", "gets"] {
                let rate = |samples: &[Value]| {
                    let samples: Vec<f64> = samples.iter().filter_map(|sample| sample[what].as_f64()).collect();
                    median(&samples).context("a rate")
                };
                let (classic, ours) = (rate(&classic)?, rate(&ours)?);
                table += &format!(
                    "| {what} per second on the thread of the host, {keys} keys | {classic:.0} | {ours:.0} | {:.2} |\n",
                    ours / classic
                );
            }
        }
        let (classic, ours) = (self.alone(Kind::Classic).await?, self.alone(Kind::Ours).await?);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        table += &format!(
            "| memory of a host that stands alone, without a link | {:.1} MiB | {:.1} MiB | {:.2} |\n",
            mib(classic),
            mib(ours),
            ours as f64 / classic as f64
        );
        Ok(table)
    }

    /// Both alternately, each in processes of its own.
    fn in_process(&self, keys: u64) -> Result<[Vec<Value>; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        for run in 0..3 {
            eprintln!("{keys} keys in process, run {} of 3", run + 1);
            for (samples, which) in found.iter_mut().zip([Path::new("classic"), &self.library]) {
                let mut command = Command::new(&self.program);
                let output = command.arg("bench").arg(which).arg(keys.to_string()).output()?;
                let text = String::from_utf8(output.stdout)?;
                let line = text.lines().find(|line| line.starts_with('{')).context("no figures")?;
                let mut answer: Value = serde_json::from_str(line)?;
                samples.push(answer["ok"].take());
            }
        }
        Ok(found)
    }

    /// Memory of a host without a server.
    async fn alone(&self, kind: Kind) -> Result<u64> {
        let mut host = self.options(kind).start(&self.program).await?;
        count(&mut host).await?;
        host.resident_bytes()
    }
}

async fn set_links(host: &mut Commanded, first: u64, links: u64) -> Result<()> {
    let command = json!({
        "do": "set_links", "first": first, "count": links, "contract": CONTRACT,
        "provider": "VAHNM37G4ARHZ3CYHB3L34M6TYQWQR6IZ4QVYC4NYZWTJCJ2LWP7S6Z2",
    });
    host.ask(command).await.map(drop)
}

async fn count(host: &mut Commanded) -> Result<u64> {
    let count = host.ask(json!({ "do": "count_links" })).await?;
    count.as_u64().context("a number of links")
}

/// How many links a host has when all are there, or none has come for a while.
async fn settled(host: &mut Commanded, expected: u64) -> Result<u64> {
    let begun = Instant::now();
    loop {
        let found = count(host).await?;
        if found >= expected || begun.elapsed() >= SETTLED {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn table_of_links(classic: &[Links], ours: &[Links]) -> String {
    let row = |what: &str, of: &dyn Fn(&[Links]) -> String| format!("| {what} | {} | {} |\n", of(classic), of(ours));
    let arrived = |at: usize| move |runs: &[Links]| listed(runs, |run| run.arrived[at]);
    let mut table = format!(
        "| three real hosts, no fault: {LINKS} links set in a row on one of them, {RUNS} runs | classic (built into the host) | \
         this one |\n| --- | --- | --- |\n"
    );
    table += &row("links at the second host", &arrived(0));
    table += &row("links at the third host", &arrived(1));
    let more = format!(
        "the second one has slept for {} s while {MORE_LINKS} more were set: its links, of {}",
        SLEEP.as_secs(),
        LINKS + MORE_LINKS
    );
    table += &row(&more, &|runs| listed(runs, |run| run.after_sleep));
    table += &row("a fourth host starts: links it knows when it first answers", &|runs| {
        listed(runs, |run| run.late_found)
    });
    table += &row("its start until then, median", &|runs| {
        let of: Vec<f64> = runs.iter().map(|run| run.late_start.as_secs_f64()).collect();
        format!("{:.2} s", median(&of).unwrap_or_default())
    });
    table += &row("time to set a link, each run", &|runs| {
        let mut of: Vec<f64> = runs.iter().map(|run| run.ms_per_link).collect();
        of.sort_by(f64::total_cmp);
        format!("{:.1} to {:.1} ms", of[0], of[of.len() - 1])
    });
    table += &row("memory of the host that set them, median", &|runs| {
        let of: Vec<f64> = runs
            .iter()
            .map(|run| run.resident as f64 / f64::from(1 << 20))
            .collect();
        format!("{:.1} MiB", median(&of).unwrap_or_default())
    });
    table
}

/// Each run's number, or one if they are the same.
fn listed(runs: &[Links], of: impl Fn(&Links) -> u64) -> String {
    let mut numbers: Vec<u64> = runs.iter().map(of).collect();
    numbers.sort_unstable();
    match &numbers[..] {
        [first, .., last] if first == last => format!("{first} in all runs"),
        _ => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Where the release of the plugin lies.
pub fn built() -> Result<(PathBuf, PathBuf)> {
    let (library, archive) = (
        PathBuf::from("target/plugin-0.18/release/libnats_kvcache_plugin.so"),
        PathBuf::from("build/nats-kvcache-host-0.18.par.gz"),
    );
    for path in [&library, &archive] {
        if !path.is_file() {
            bail!("no {}; make bench-lattice-cache makes it", path.display());
        }
    }
    Ok((library.canonicalize()?, archive))
}
