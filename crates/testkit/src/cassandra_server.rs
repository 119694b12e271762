//! A real Apache Cassandra of its own: one node.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::local_server::{LocalServer, Place, Program};
use crate::workspace::{on_path, workspace_root};

/// The only one of the versions that Cassandra 5.0 runs on which the flags in `jvm17.options` are for.
const JAVA: &str = "17";
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest answer to a statement of the kit, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A Cassandra of one node. What it has answered survives [`LocalServer::kill`] and [`LocalServer::restart`]. A start
/// takes five to twelve seconds, and the process some 900 MB.
pub type CassandraServer = LocalServer<Cassandra, 2>;

/// How Cassandra is started.
#[derive(Debug)]
pub struct Cassandra {
    /// The folder of its jars.
    jars: PathBuf,
    java: PathBuf,
    /// Whether clients have to log in, and may do only what is granted to them.
    passwords: bool,
}

impl CassandraServer {
    /// The user who may do everything where clients have to log in, see [`Self::start_with_passwords`].
    pub const USER: &str = "cassandra";
    /// The password of [`Self::USER`].
    pub const PASSWORD: &str = "cassandra";

    /// The folder it is installed in. The program is `java`, which has to be there too.
    pub fn find() -> Result<PathBuf> {
        let home = workspace_root().join(".tools/cassandra");
        ensure!(
            home.join("lib").is_dir() && java().is_some(),
            "no cassandra found (.tools/cassandra, and java {JAVA} on PATH); install it with: \
             scripts/install-tools.sh cassandra"
        );
        Ok(home)
    }

    /// One that asks nobody for a password. Returns when it answers CQL.
    pub async fn start() -> Result<Self> {
        Self::start_with(false).await
    }

    /// One that clients have to log in to, as [`Self::USER`] or as somebody who may do what that one has granted.
    pub async fn start_with_passwords() -> Result<Self> {
        Self::start_with(true).await
    }

    /// The port for CQL.
    pub fn port(&self) -> u16 {
        self.place.ports[0]
    }

    /// `127.0.0.1:PORT`, for CQL.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Has one statement carried out, on a connection of its own. Gives the body of the answer (`RESULT` of version 4
    /// of the protocol), in which the values stand as they are.
    pub async fn cql(&self, statement: &str) -> Result<Vec<u8>> {
        let answer = async {
            let mut connection = Connection::open(self.port(), self.program.passwords).await?;
            connection.query(statement).await
        };
        tokio::time::timeout(ANSWER_LIMIT, answer)
            .await
            .context("no answer in time")?
            .with_context(|| format!("{statement} to cassandra"))
    }

    async fn start_with(passwords: bool) -> Result<Self> {
        let jars = Self::find()?.join("lib");
        let java = java().context("no java")?;
        Self::start_program(Cassandra { jars, java, passwords }).await
    }
}

fn java() -> Option<PathBuf> {
    let java = on_path("java")?;
    let output = Command::new(&java).arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.contains(&format!("version \"{JAVA}.")).then_some(java)
}

impl Cassandra {
    fn config(&self, place: &Place<2>) -> String {
        let [cql, storage] = place.ports;
        let (authenticator, authorizer) = if self.passwords {
            ("PasswordAuthenticator", "CassandraAuthorizer")
        } else {
            ("AllowAllAuthenticator", "AllowAllAuthorizer")
        };
        // With `batch` nothing is answered that a kill could still undo, as it could with the default.
        format!(
            "cluster_name: testkit\n\
             num_tokens: 1\n\
             partitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
             endpoint_snitch: SimpleSnitch\n\
             seed_provider:\n\
             - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n  \
               parameters: [{{seeds: \"127.0.0.1:{storage}\"}}]\n\
             listen_address: 127.0.0.1\n\
             rpc_address: 127.0.0.1\n\
             storage_port: {storage}\n\
             native_transport_port: {cql}\n\
             commitlog_sync: batch\n\
             commitlog_segment_size: 8MiB\n\
             authenticator: {authenticator}\n\
             authorizer: {authorizer}\n\
             # What is granted counts at once.\n\
             permissions_validity: 0ms\n\
             roles_validity: 0ms\n"
        )
    }
}

const LOGBACK: &str = r#"<configuration>
  <appender name="log" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{HH:mm:ss,SSS} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="log"/></root>
</configuration>
"#;

impl Program<2> for Cassandra {
    const START_LIMIT: Duration = Duration::from_secs(120);

    fn name(&self) -> &'static str {
        "cassandra"
    }

    fn command(&self, place: &Place<2>) -> Result<Command> {
        let (home, jars) = (place.home().display(), self.jars.display());
        let write = |name: &str, text: &str| {
            std::fs::write(place.home().join(name), text).with_context(|| format!("writing {name}"))
        };
        write("cassandra.yaml", &self.config(place))?;
        write("logback.xml", LOGBACK)?;
        let options = workspace_root().join("scripts/cassandra/jvm17.options");
        let mut command = Command::new(&self.java);
        command
            .arg(format!("@{}", options.display()))
            .args(["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC"])
            // What it would leave in folders of the system when it is killed.
            .arg("-XX:-UsePerfData")
            .args([format!("-Djava.io.tmpdir={home}"), format!("-Djna.tmpdir={home}")])
            .arg("-Djava.security.manager=allow")
            .arg(format!("-javaagent:{jars}/jamm-0.4.0.jar"))
            .arg(format!("-Dcassandra.config=file://{home}/cassandra.yaml"))
            .arg(format!("-Dcassandra.storagedir={home}/data"))
            .arg(format!("-Dcassandra.logdir={home}"))
            .arg("-Dcassandra-foreground=yes")
            // There are no other nodes to wait for.
            .arg("-Dcassandra.skip_wait_for_gossip_to_settle=0")
            .arg("-Dcassandra.ring_delay_ms=100")
            .arg("-Dcassandra.superuser_setup_delay_ms=0")
            .args(["-cp", &format!("{home}:{jars}/*")])
            .arg("org.apache.cassandra.service.CassandraDaemon");
        Ok(command)
    }

    /// Its user comes to be some time after it listens.
    async fn ready(&self, place: &Place<2>, _pid: u32) -> Result<()> {
        let complete = place.log().contains("Startup complete");
        ensure!(complete, "it does not say that its startup is complete");
        Connection::open(place.ports[0], self.passwords).await.map(drop)
    }
}

/// Kinds of messages of CQL that the kit knows.
mod opcode {
    pub const ERROR: u8 = 0x00;
    pub const STARTUP: u8 = 0x01;
    pub const READY: u8 = 0x02;
    pub const AUTHENTICATE: u8 = 0x03;
    pub const OPTIONS: u8 = 0x05;
    pub const SUPPORTED: u8 = 0x06;
    pub const QUERY: u8 = 0x07;
    pub const RESULT: u8 = 0x08;
    pub const AUTH_RESPONSE: u8 = 0x0f;
    pub const AUTH_SUCCESS: u8 = 0x10;
}

/// As much of version 4 of the protocol as it takes to log in and have a statement carried out.
struct Connection {
    stream: TcpStream,
}

impl Connection {
    async fn open(port: u16, passwords: bool) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut connection = Self { stream };
        connection.exchange(opcode::OPTIONS, b"", opcode::SUPPORTED).await?;
        let version = b"\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0";
        if !passwords {
            connection.exchange(opcode::STARTUP, version, opcode::READY).await?;
            return Ok(connection);
        }
        connection
            .exchange(opcode::STARTUP, version, opcode::AUTHENTICATE)
            .await?;
        let login = format!("\0{}\0{}", CassandraServer::USER, CassandraServer::PASSWORD);
        connection
            .exchange(opcode::AUTH_RESPONSE, &long_string(&login)?, opcode::AUTH_SUCCESS)
            .await?;
        Ok(connection)
    }

    async fn query(&mut self, statement: &str) -> Result<Vec<u8>> {
        // Consistency ONE, and no parameters.
        let body = [&long_string(statement)?[..], &[0, 1, 0]].concat();
        self.exchange(opcode::QUERY, &body, opcode::RESULT).await
    }

    /// Sends a message and gives the body of the answer, which has to be of one kind.
    async fn exchange(&mut self, kind: u8, body: &[u8], wanted: u8) -> Result<Vec<u8>> {
        let length = u32::try_from(body.len())?.to_be_bytes();
        let message = [&[4, 0, 0, 0, kind][..], &length, body].concat();
        self.stream.write_all(&message).await?;
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [0x84, _, _, _, kind, length @ ..] = head else {
            bail!("it answers with version {:#x}", head[0]);
        };
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= MAX_ANSWER, "an answer of {length} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        match kind {
            kind if kind == wanted => Ok(body),
            // A number and the length of the text stand before it.
            opcode::ERROR => bail!(
                "it answers {}",
                String::from_utf8_lossy(body.get(6..).unwrap_or_default())
            ),
            _ => bail!("it answers with a message of kind {kind:#x}"),
        }
    }
}

/// Also the layout of what is called bytes.
fn long_string(text: &str) -> Result<Vec<u8>> {
    let length = u32::try_from(text.len())?.to_be_bytes();
    Ok([&length, text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::skip_test;

    #[tokio::test]
    async fn what_cassandra_has_answered_survives_its_death() {
        if let Err(error) = CassandraServer::find() {
            return skip_test(&error.to_string());
        }
        let mut server = CassandraServer::start_with_passwords().await.unwrap();
        let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
        for statement in [
            &format!("CREATE KEYSPACE kit WITH replication = {replication}"),
            "CREATE TABLE kit.words (key text PRIMARY KEY, word text)",
            "INSERT INTO kit.words (key, word) VALUES ('key', 'a word that stays')",
        ] {
            server.cql(statement).await.unwrap();
        }
        let (port, first) = (server.port(), server.pid());
        server.kill().unwrap();
        assert!(Connection::open(port, true).await.is_err());
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), first);
        let rows = server
            .cql("SELECT word FROM kit.words WHERE key = 'key'")
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&rows).contains("a word that stays"), "{rows:?}");
        let error = Connection::open(port, false).await.err().unwrap();
        assert!(error.to_string().contains("of kind 0x3"), "{error:#}");
    }
}
