//! `nats-kvcache store`: copies, checks and writes out what a cache is kept in.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use clap::{Args, Subcommand};
use kvcache_node::secret::cleaned;
use kvcache_node::settings::{Credentials, ServerAddress, Tls};
use kvcache_node::store::tools::{self, Content, Shown};
use kvcache_node::store::{CacheName, Opener, Store, StoreError, StoreUrl};
use serde_json::{json, Value};

use crate::stores;

/// Sections of a store.
const SECTIONS: usize = 1_024;

/// Work on stores, which URLs name as the setting STORE does.
#[derive(Subcommand)]
pub enum StoreCommand {
    /// Write all that a store holds of a cache into another one; what is newer there stays
    ///
    /// nats-kvcache store copy file:/var/lib/kvcache redis://10.0.0.5/0 --lattice default
    Copy {
        /// The store that is read
        from: String,
        /// The store that is written to
        to: String,
        #[command(flatten)]
        cache: OfCache,
    },
    /// Read all of a store and check it against what it says of itself; exit code 1 where something is wrong
    Verify {
        /// The store
        url: String,
        #[command(flatten)]
        cache: OfCache,
    },
    /// Write out all keys with what they hold, a JSON object a line
    Dump {
        /// The store
        url: String,
        #[command(flatten)]
        cache: OfCache,
    },
}

/// Whose a store is.
#[derive(Args)]
pub struct OfCache {
    /// Name of the lattice
    #[arg(long, default_value = "default")]
    lattice: String,
    /// Link name of the cache
    #[arg(long, default_value = "default")]
    link: String,
    /// NATS server of stores `jetstream:bucket`
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Credentials file for that server
    #[arg(long)]
    nats_creds: Option<PathBuf>,
}

impl OfCache {
    fn openers(&self) -> Result<Vec<Arc<dyn Opener>>, StoreError> {
        let servers = self.nats.parse::<ServerAddress>();
        let servers = servers.map_err(|error| StoreError::Unusable(format!("--nats: {error}")))?;
        Ok(stores::openers(stores::Nats {
            servers: vec![servers],
            credentials: self.nats_creds.clone().map_or(Credentials::None, Credentials::File),
            tls: Tls::default(),
        }))
    }

    fn name(&self) -> CacheName {
        CacheName {
            lattice: self.lattice.clone(),
            link: self.link.clone(),
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &StoreCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        // Engines may block their thread, which is this one.
        Ok(runtime) => runtime.block_on(perform(command)),
        Err(error) => Err(StoreError::Away(format!("no runtime: {error}"))),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("nats-kvcache store: {}", cleaned(&error.to_string()));
        ExitCode::from(2)
    })
}

async fn perform(command: &StoreCommand) -> Result<ExitCode, StoreError> {
    match command {
        StoreCommand::Copy { from, to, cache } => {
            let (from, to) = (open(from, cache).await?, open(to, cache).await?);
            let cache = cache.name();
            let mut bar = Bar::new("copying");
            let copied = tools::copy(&*from, &*to, &cache, |done| bar.at(done)).await?;
            bar.end();
            from.close().await?;
            to.close().await?;
            println!(
                "copied {} records from {} to {}; {} were newer there",
                copied.records,
                from.name(),
                to.name(),
                copied.conflicts
            );
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Verify { url, cache } => verify(url, cache).await,
        StoreCommand::Dump { url, cache } => dump(url, cache).await,
    }
}

async fn open(url: &str, of: &OfCache) -> Result<Arc<dyn Store>, StoreError> {
    let url = StoreUrl::parse(url).map_err(|error| StoreError::Unusable(format!("URL of a store: {error}")))?;
    let openers = of.openers()?;
    let opener = openers
        .iter()
        .find(|opener| opener.schemes().contains(&url.scheme.as_str()));
    let Some(opener) = opener else {
        let known: Vec<&str> = openers.iter().flat_map(|opener| opener.schemes()).copied().collect();
        let (scheme, known) = (&url.scheme, known.join(":, "));
        return Err(StoreError::Unusable(format!(
            "URL of a store: {scheme}: is none of {known}:"
        )));
    };
    opener
        .check(&url)
        .map_err(|error| StoreError::Unusable(format!("URL of a store: {error}")))?;
    opener.open(&url, &of.name()).await
}

async fn verify(url: &str, of: &OfCache) -> Result<ExitCode, StoreError> {
    let store = open(url, of).await?;
    let cache = &of.name();
    let mut bar = Bar::new("reading");
    let found = tools::verify(&*store, cache, |done| bar.at(done)).await?;
    bar.end();
    store.close().await?;
    let bad = found.unreadable > 0 || !found.differ.is_empty() || !found.unsaid.is_empty();
    println!(
        "{}\nformat nats-kvcache 1, link {:?} of the lattice {:?}\n\
         keys={} records={} bytes={} covered={} unreadable={} digest={} contact_ms={}",
        store.name(),
        cache.link,
        cache.lattice,
        found.keys,
        found.records,
        found.bytes,
        found.covered,
        found.unreadable,
        found.digest,
        found.contact_ms
    );
    for (what, partitions) in [
        ("hold other than they say", &found.differ),
        ("do not say what they hold", &found.unsaid),
    ] {
        if !partitions.is_empty() {
            let shown: Vec<String> = partitions
                .iter()
                .take(8)
                .map(|partition| partition.0.to_string())
                .collect();
            println!("{} partitions {what}: {}", partitions.len(), shown.join(", "));
        }
    }
    if !bad {
        println!("all {SECTIONS} partitions hold what they say");
    }
    Ok(ExitCode::from(u8::from(bad)))
}

async fn dump(url: &str, of: &OfCache) -> Result<ExitCode, StoreError> {
    let store = open(url, of).await?;
    let cache = &of.name();
    let mut out = BufWriter::new(io::stdout().lock());
    let unwritten = |error: io::Error| StoreError::Away(format!("standard output: {error}"));
    tools::dump(&*store, cache, |shown| {
        writeln!(out, "{}", line(&shown)).map_err(unwritten)
    })
    .await?;
    out.flush().map_err(unwritten)?;
    store.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// A key as JSON. Text is text; what is none is an object with its bytes in base64.
fn line(shown: &Shown) -> Value {
    let text = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    };
    let all = |items: &[Vec<u8>]| Value::Array(items.iter().map(text).collect());
    let (name, content) = match &shown.content {
        Content::Value(value) => ("value", text(value)),
        Content::List(items) => ("list", all(items)),
        Content::Set(members) => ("set", all(members)),
    };
    let mut line = json!({ "key": text(&shown.key) });
    if !shown.namespace.is_empty() {
        line["namespace"] = text(&shown.namespace);
    }
    line[name] = content;
    line
}

/// How far something is, on standard error: drawn on a terminal, told in quarters elsewhere.
struct Bar {
    what: &'static str,
    terminal: bool,
    told: usize,
}

impl Bar {
    fn new(what: &'static str) -> Self {
        Bar {
            what,
            terminal: io::stderr().is_terminal(),
            told: 0,
        }
    }

    fn at(&mut self, done: usize) {
        const WIDTH: usize = 32;
        let percent = done * 100 / SECTIONS;
        if self.terminal {
            let filled = done * WIDTH / SECTIONS;
            eprint!(
                "\r{} [{}{}] {percent:>3} %",
                self.what,
                "#".repeat(filled),
                " ".repeat(WIDTH - filled)
            );
        } else if percent >= self.told + 25 {
            self.told = percent;
            eprintln!("{} {percent} %", self.what);
        }
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
