//! A real redis-server or valkey-server of its own, with or without a primary, to measure beside.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::local_server::{LocalServer, Place, Program};
use crate::wait::promptly;
use crate::workspace::find_program;

/// Between two questions whether a replica has synced: each takes a little of its time.
const PAUSE: Duration = Duration::from_millis(5);
const SYNC_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
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

/// A redis-server or valkey-server. It writes nothing to disk and forgets all when it is killed, unless it was started
/// with [`RedisServer::start_persistent`].
pub type RedisServer = LocalServer<Redis, 1>;

/// How a server is started.
#[derive(Debug)]
pub struct Redis {
    kind: RedisKind,
    binary: PathBuf,
    /// After those that all get.
    options: Vec<String>,
}

/// Each write is on the disk before it is answered.
const KEEP_DATA: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

impl RedisServer {
    /// A redis-server without replicas, on a free port. Returns when it answers.
    pub async fn start() -> Result<Self> {
        Self::start_kind(RedisKind::Redis).await
    }

    /// As [`RedisServer::start`], of either program.
    pub async fn start_kind(kind: RedisKind) -> Result<Self> {
        Self::start_with(kind, &[]).await
    }

    /// One that keeps what it has answered, over [`LocalServer::kill`] and [`LocalServer::restart`] too. `options` are
    /// more of its arguments, for instance `["--requirepass", "secret"]`.
    pub async fn start_persistent(kind: RedisKind, options: &[&str]) -> Result<Self> {
        Self::start_with(kind, &[&KEEP_DATA, options].concat()).await
    }

    /// A replica of `primary`, by the same program. Returns when it holds what the primary holds.
    pub async fn replica_of(primary: &RedisServer) -> Result<Self> {
        let port = primary.port().to_string();
        let replica = Self::start_with(primary.kind(), &["--replicaof", "127.0.0.1", &port]).await?;
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
        self.place.ports[0]
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// For clients: `redis://127.0.0.1:PORT/`, with the password if there is one.
    pub fn url(&self) -> String {
        let login = self.program.password().map(|password| format!(":{password}@"));
        format!("redis://{}{}/", login.unwrap_or_default(), self.address())
    }

    fn kind(&self) -> RedisKind {
        self.program.kind
    }

    /// For instance `7.0.15`.
    pub async fn version(&self) -> Result<String> {
        self.info("server", self.kind().version_field()).await
    }

    /// Bytes that the server counts as allocated for data and all else (`used_memory`).
    pub async fn used_memory(&self) -> Result<u64> {
        self.number("memory", "used_memory").await
    }

    /// One field of a section of `INFO`.
    pub async fn info(&self, section: &str, field: &str) -> Result<String> {
        let text = self.command(&["INFO", section]).await?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .with_context(|| format!("no {field} in INFO {section} of {}", self.kind().program()))?;
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
        tokio::time::timeout(ANSWER_LIMIT, self.program.ask(self.port(), words))
            .await
            .context("no answer in time")?
            .with_context(|| format!("{} to {}", words.join(" "), self.kind().program()))
    }

    /// One with more arguments, for instance `["--appendonly", "yes"]`.
    pub async fn start_with(kind: RedisKind, options: &[&str]) -> Result<Self> {
        let binary = kind.find()?;
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self::start_program(Redis { kind, binary, options }).await
    }
}

impl Redis {
    fn password(&self) -> Option<&str> {
        let mut options = self.options.iter();
        options.find(|option| *option == "--requirepass")?;
        options.next().map(String::as_str)
    }

    /// Sends one command and reads its answer.
    async fn ask(&self, port: u16, words: &[&str]) -> Result<String> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
        if let Some(password) = self.password() {
            exchange(&mut stream, &["AUTH", password]).await?;
        }
        exchange(&mut stream, words).await
    }
}

impl Program<1> for Redis {
    const START_LIMIT: Duration = Duration::from_secs(20);

    fn name(&self) -> &'static str {
        self.kind.program()
    }

    fn command(&self, place: &Place<1>) -> Result<Command> {
        let mut command = Command::new(&self.binary);
        command
            .args(["--port", &place.ports[0].to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(place.home())
            .args(&self.options);
        Ok(command)
    }

    async fn ready(&self, place: &Place<1>, pid: u32) -> Result<()> {
        let answer = self.ask(place.ports[0], &["INFO"]).await?;
        let says = |line: &str| answer.lines().any(|other| other == line);
        ensure!(
            says(&format!("process_id:{pid}")),
            "another process answers on the port"
        );
        ensure!(says("loading:0"), "it reads what it has kept");
        Ok(())
    }
}

/// Path of redis-benchmark.
pub fn redis_benchmark() -> Result<PathBuf> {
    find_program("redis", "redis-benchmark")
}

async fn exchange(stream: &mut BufReader<TcpStream>, words: &[&str]) -> Result<String> {
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

    #[tokio::test]
    async fn a_persistent_server_keeps_what_it_has_answered() {
        if let Err(error) = RedisKind::Redis.find() {
            return skip_test(&error.to_string());
        }
        keeps(RedisKind::Redis).await;
        if RedisKind::Valkey.find().is_ok() {
            keeps(RedisKind::Valkey).await;
        }
    }

    async fn keeps(kind: RedisKind) {
        let mut server = RedisServer::start_persistent(kind, &["--requirepass", "secret"])
            .await
            .unwrap();
        let (port, first) = (server.port(), server.pid());
        assert_eq!(server.url(), format!("redis://:secret@127.0.0.1:{port}/"));
        server.command(&["SET", "key", "value"]).await.unwrap();
        server.kill().unwrap();
        server.command(&["PING"]).await.unwrap_err();
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), first);
        assert_eq!(server.command(&["GET", "key"]).await.unwrap(), "value");
        server.pause().unwrap();
        server.resume().unwrap();
        server.command(&["PING"]).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_does_not_start_shows_its_log() {
        if let Err(error) = RedisKind::Redis.find() {
            return skip_test(&error.to_string());
        }
        let error = RedisServer::start_persistent(RedisKind::Redis, &["--no-such-option", "1"])
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains("no-such-option"), "{error:#}");
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
