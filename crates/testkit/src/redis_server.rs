//! A real redis-server of its own, with or without a primary, to measure beside.

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

/// A running redis-server on 127.0.0.1 that writes nothing to disk. Dropping it kills its process.
#[derive(Debug)]
pub struct RedisServer {
    process: OwnedProcess,
    port: u16,
    _home: TempDir,
}

impl RedisServer {
    /// A server without replicas, on a free port. Returns when it answers.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// A replica of `primary`. Returns when it holds what the primary holds.
    pub async fn replica_of(primary: &RedisServer) -> Result<Self> {
        let port = primary.port.to_string();
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &port]).await?;
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
        self.info("server", "redis_version").await
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
            .with_context(|| format!("no {field} in INFO {section} of redis-server"))?;
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
            .with_context(|| format!("{} to redis-server", words.join(" ")))
    }

    async fn start_with(options: &[&str]) -> Result<Self> {
        let binary = find_program("redis-server")?;
        let mut attempts = START_ATTEMPTS;
        loop {
            let home = tempfile::tempdir().context("a folder for redis-server")?;
            let error = match launch(&binary, home.path(), options).await {
                Ok((process, port)) => {
                    let _home = home;
                    return Ok(Self { process, port, _home });
                }
                Err(error) => error,
            };
            attempts -= 1;
            let log = std::fs::read_to_string(home.path().join(LOG)).unwrap_or_default();
            if attempts == 0 || !log.contains("Address already in use") {
                return Err(error.context(format!("redis-server did not start; its log:\n{log}")));
            }
        }
    }
}

async fn launch(binary: &Path, home: &Path, options: &[&str]) -> Result<(OwnedProcess, u16)> {
    let port = free_port()?;
    let log = std::fs::File::create(home.join(LOG)).context("creating the log of redis-server")?;
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
    let mut process = OwnedProcess::new(child, "redis-server");
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
    find_program("redis-benchmark")
}

fn find_program(name: &str) -> Result<PathBuf> {
    let installed = workspace_root().join(".tools/redis/bin").join(name);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&on_path).map(|folder| folder.join(name));
    std::iter::once(installed)
        .chain(candidates)
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("no {name} found (.tools/redis, PATH); install it with: scripts/install-tools.sh redis"))
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
        if let Err(error) = find_program("redis-server").and(redis_benchmark()) {
            return skip_test("a_replica_holds_what_its_primary_holds", &error.to_string());
        }
        let primary = RedisServer::start().await.unwrap();
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
