//! A real redis-server or valkey-server of its own, with or without a primary, to measure beside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::process::OwnedProcess;
use crate::wait::{eventually, promptly};
use crate::workspace::workspace_root;

const START_LIMIT: Duration = Duration::from_secs(20);
/// Between two questions whether a replica has synced: each takes a little of its time.
const PAUSE: Duration = Duration::from_millis(5);
const SYNC_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Between the choice of a free port and its use another process may take it.
const START_ATTEMPTS: usize = 5;
const LOG: &str = "redis.log";
/// Longest answer to a command of the kit, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Which program serves. They speak one protocol and take the same options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedisKind {
    Redis,
    Valkey,
}

impl RedisKind {
    pub const ALL: [RedisKind; 2] = [RedisKind::Redis, RedisKind::Valkey];

    /// As its users call it.
    pub fn name(self) -> &'static str {
        match self {
            RedisKind::Redis => "Redis",
            RedisKind::Valkey => "Valkey",
        }
    }

    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            RedisKind::Redis => "redis-server",
            RedisKind::Valkey => "valkey-server",
        }
    }

    /// What `scripts/install-tools.sh` calls it.
    fn tool(self) -> &'static str {
        match self {
            RedisKind::Redis => "redis",
            RedisKind::Valkey => "valkey",
        }
    }

    /// Where `INFO server` has the version. Valkey's `redis_version` is that of the Redis it came from.
    fn version_field(self) -> &'static str {
        match self {
            RedisKind::Redis => "redis_version",
            RedisKind::Valkey => "valkey_version",
        }
    }

    /// Path of the program.
    pub fn find(self) -> Result<PathBuf> {
        find_program(self.tool(), self.program())
    }
}

/// A running server on 127.0.0.1 that writes nothing to disk. Dropping it kills its process.
#[derive(Debug)]
pub struct RedisServer {
    kind: RedisKind,
    process: OwnedProcess,
    port: u16,
    _home: TempDir,
}

impl RedisServer {
    /// A redis-server without replicas, on a free port. Returns when it answers.
    pub async fn start() -> Result<Self> {
        Self::start_kind(RedisKind::Redis).await
    }

    /// As [`RedisServer::start`], of either program.
    pub async fn start_kind(kind: RedisKind) -> Result<Self> {
        Self::start_with(kind, &[]).await
    }

    /// A replica of `primary`, by the same program. Returns when it holds what the primary holds.
    pub async fn replica_of(primary: &RedisServer) -> Result<Self> {
        let port = primary.port.to_string();
        let replica = Self::start_with(primary.kind, &["--replicaof", "127.0.0.1", &port]).await?;
        replica.wait_in_sync(primary).await?;
        Ok(replica)
    }

    /// Waits until this replica is linked to `primary` and has applied everything the primary has written by then.
    pub async fn wait_in_sync(&self, primary: &RedisServer) -> Result<()> {
        let wanted: u64 = primary.number("replication", "master_repl_offset").await?;
        promptly(PAUSE, SYNC_LIMIT, || async {
            let link = self.info("replication", "master_link_status").await?;
            ensure!(link == "up", "the link of the replica to its primary is {link}");
            let applied: u64 = self.number("replication", "slave_repl_offset").await?;
            ensure!(applied >= wanted, "the replica has applied {applied} of {wanted} bytes");
            Ok(())
        })
        .await
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For clients: `redis://127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// For instance `7.0.15`.
    pub async fn version(&self) -> Result<String> {
        self.info("server", self.kind.version_field()).await
    }

    /// Bytes that the server counts as allocated for data and all else (`used_memory`).
    pub async fn used_memory(&self) -> Result<u64> {
        self.number("memory", "used_memory").await
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// One field of a section of `INFO`.
    pub async fn info(&self, section: &str, field: &str) -> Result<String> {
        let text = self.command(&["INFO", section]).await?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .with_context(|| format!("no {field} in INFO {section} of {}", self.kind.program()))?;
        Ok(value.trim().to_owned())
    }

    async fn number(&self, section: &str, field: &str) -> Result<u64> {
        let value = self.info(section, field).await?;
        value
            .parse()
            .with_context(|| format!("{field} is {value:?}, no number"))
    }

    /// Any command that is answered with a string or a number, on a connection of its own.
    pub async fn command(&self, words: &[&str]) -> Result<String> {
        tokio::time::timeout(ANSWER_LIMIT, ask(self.port, words))
            .await
            .context("no answer in time")?
            .with_context(|| format!("{} to {}", words.join(" "), self.kind.program()))
    }

    async fn start_with(kind: RedisKind, options: &[&str]) -> Result<Self> {
        let (binary, program) = (kind.find()?, kind.program());
        let mut attempts = START_ATTEMPTS;
        loop {
            let home = tempfile::tempdir().with_context(|| format!("a folder for {program}"))?;
            let error = match launch(kind, &binary, home.path(), options).await {
                Ok((process, port)) => {
                    let _home = home;
                    return Ok(Self {
                        kind,
                        process,
                        port,
                        _home,
                    });
                }
                Err(error) => error,
            };
            attempts -= 1;
            let log = std::fs::read_to_string(home.path().join(LOG)).unwrap_or_default();
            if attempts == 0 || !log.contains("Address already in use") {
                return Err(error.context(format!("{program} did not start; its log:\n{log}")));
            }
        }
    }
}

async fn launch(kind: RedisKind, binary: &Path, home: &Path, options: &[&str]) -> Result<(OwnedProcess, u16)> {
    let port = free_port()?;
    let log = std::fs::File::create(home.join(LOG)).context("creating the log of a server")?;
    let child = Command::new(binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(home)
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))?;
    let mut process = OwnedProcess::new(child, kind.program());
    let pid = process.pid();
    // Another server may have taken the port first; then it is not ours that answers.
    let ready = eventually(START_LIMIT, || async {
        let answer = ask(port, &["INFO", "server"]).await?;
        let ours = answer.lines().any(|line| line == format!("process_id:{pid}"));
        ours.then_some(()).context("another process answers on the port")
    });
    tokio::select! {
        ended = process.wait(START_LIMIT) => bail!("the process ended with {}", ended?),
        ready = ready => ready?,
    }
    Ok((process, port))
}

/// Path of redis-benchmark.
pub fn redis_benchmark() -> Result<PathBuf> {
    find_program("redis", "redis-benchmark")
}

fn find_program(tool: &str, name: &str) -> Result<PathBuf> {
    let installed = workspace_root().join(".tools").join(tool).join("bin").join(name);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&on_path).map(|folder| folder.join(name));
    std::iter::once(installed)
        .chain(candidates)
        .find(|path| path.is_file())
        .ok_or_else(|| {
            anyhow!("no {name} found (.tools/{tool}, PATH); install it with: scripts/install-tools.sh {tool}")
        })
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Sends one command and reads its answer.
async fn ask(port: u16, words: &[&str]) -> Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(command.as_bytes()).await?;
    let mut head = String::new();
    stream.read_line(&mut head).await?;
    let head = head.trim_end();
    match head.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(text.to_owned()),
        Some(("-", error)) => bail!("it answers {error}"),
        Some(("$", length)) => {
            let length: usize = length.parse().context("it answers with nothing")?;
            ensure!(length <= MAX_ANSWER, "an answer of {length} bytes");
            let mut text = vec![0; length];
            stream.read_exact(&mut text).await?;
            Ok(String::from_utf8(text)?)
        }
        _ => bail!("it answers {head:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::skip_test;

    #[tokio::test]
    async fn a_replica_holds_what_its_primary_holds() {
        if let Err(error) = RedisKind::Redis.find().and(redis_benchmark()) {
            return skip_test(&error.to_string());
        }
        replicates(RedisKind::Redis).await;
        // Only measurements need the other one: the gate does without.
        if RedisKind::Valkey.find().is_ok() {
            replicates(RedisKind::Valkey).await;
        }
    }

    async fn replicates(kind: RedisKind) {
        let primary = RedisServer::start_kind(kind).await.unwrap();
        assert_eq!(primary.command(&["SET", "key", "value"]).await.unwrap(), "OK");
        let replica = RedisServer::replica_of(&primary).await.unwrap();
        assert_eq!(replica.command(&["GET", "key"]).await.unwrap(), "value");
        primary.command(&["INCR", "count"]).await.unwrap();
        replica.wait_in_sync(&primary).await.unwrap();
        assert_eq!(replica.command(&["GET", "count"]).await.unwrap(), "1");
        let error = replica.command(&["SET", "key", "other"]).await.unwrap_err();
        assert!(format!("{error:#}").contains("READONLY"), "{error:#}");
        assert!(primary.used_memory().await.unwrap() > 0 && primary.resident_bytes().unwrap() > 0);
        assert!(primary.version().await.unwrap().contains('.'));
    }
}
