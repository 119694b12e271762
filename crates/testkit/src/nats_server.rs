//! A real nats-server of its own for each test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use crate::http::request;
use crate::process::OwnedProcess;
use crate::wait::eventually;
use crate::workspace::{installed_or_on_path, skip_test};

const START_LIMIT: Duration = Duration::from_secs(20);
const INSTALL_HINT: &str =
    "no nats-server found (NATS_SERVER, .tools/nats-server, PATH); install one with: scripts/install-tools.sh nats-server";

/// How to start a server; see [`NatsServer::builder`].
#[derive(Clone, Debug, Default)]
pub struct NatsServerBuilder {
    jetstream: bool,
    monitoring: bool,
    port: Option<u16>,
    limits: ServerLimits,
    cluster: Option<ClusterMember>,
    extra_config: String,
}

/// Limits of a server; what is `None` is the server's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes that may wait for one client; beyond it the server closes the connection of that slow consumer.
    pub max_pending: Option<u64>,
    /// Longest message in bytes; the server refuses to start when it is more than `max_pending`.
    pub max_payload: Option<u64>,
    /// How long one write to a client may take.
    pub write_deadline: Option<Duration>,
}

/// The place of a server in a cluster, see [`crate::NatsCluster`].
#[derive(Clone, Debug)]
pub(crate) struct ClusterMember {
    pub name: String,
    /// Cluster ports of the other servers.
    pub routes: Vec<u16>,
}

impl NatsServerBuilder {
    /// JetStream with a store in a temporary folder (the SDK needs it for arguments above 900 KiB), which is there again
    /// after [`NatsServer::kill`] and [`NatsServer::restart`].
    pub fn jetstream(mut self) -> Self {
        self.jetstream = true;
        self
    }

    /// The HTTP monitoring endpoint, see [`NatsServer::monitor`].
    pub fn monitoring(mut self) -> Self {
        self.monitoring = true;
        self
    }

    /// A port of the caller's choice instead of a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Limits other than the server's own defaults.
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The most bytes that may wait for one client before the server drops it as a slow consumer.
    pub fn max_pending(mut self, bytes: u64) -> Self {
        self.limits.max_pending = Some(bytes);
        self
    }

    /// The longest message.
    pub fn max_payload(mut self, bytes: u64) -> Self {
        self.limits.max_payload = Some(bytes);
        self
    }

    /// How long one write to a client may take before it counts as a slow consumer.
    pub fn write_deadline(mut self, limit: Duration) -> Self {
        self.limits.write_deadline = Some(limit);
        self
    }

    pub(crate) fn cluster(mut self, member: ClusterMember) -> Self {
        self.cluster = Some(member);
        self
    }

    /// Text for the configuration file, for instance an `authorization` block.
    pub fn config(mut self, text: impl AsRef<str>) -> Self {
        self.extra_config.push_str(text.as_ref());
        self.extra_config.push('\n');
        self
    }

    /// Starts the server and waits until it answers.
    pub async fn start(self) -> Result<NatsServer> {
        let binary = find_binary()?;
        let home = tempfile::tempdir().context("a folder for nats-server")?;
        let mut server = NatsServer {
            builder: self,
            binary,
            home,
            running: None,
            ports: Ports::default(),
        };
        server.launch().await?;
        Ok(server)
    }

    /// Like [`Self::start`]; when no server is installed the test is skipped (a failure in CI).
    ///
    /// # Panics
    /// When an installed server does not start.
    pub async fn start_or_skip(self) -> Option<NatsServer> {
        if let Err(error) = find_binary() {
            skip_test(&error.to_string());
            return None;
        }
        Some(self.start().await.expect("nats-server starts"))
    }
}

/// The first line of a test on a real server: a plain one on a free port, or the one that a builder makes. Where none
/// is installed the test is skipped loudly, which is a failure in CI, and returns.
///
/// # Panics
/// When an installed server does not start.
#[macro_export]
macro_rules! server_or_skip {
    () => {
        $crate::server_or_skip!($crate::NatsServer::builder())
    };
    ($builder:expr) => {
        match $builder.start_or_skip().await {
            Some(server) => server,
            None => return,
        }
    };
}

/// A running (or stopped, or paused) nats-server. Dropping it kills its process and removes its store.
#[derive(Debug)]
pub struct NatsServer {
    builder: NatsServerBuilder,
    binary: PathBuf,
    home: TempDir,
    running: Option<OwnedProcess>,
    ports: Ports,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    client: Option<u16>,
    monitoring: Option<u16>,
    cluster: Option<u16>,
}

impl NatsServer {
    /// A server with nothing but core NATS on a free port.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    pub fn builder() -> NatsServerBuilder {
        NatsServerBuilder::default()
    }

    pub fn port(&self) -> u16 {
        self.ports.client.expect("known since the first start")
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The process id, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(OwnedProcess::pid)
    }

    /// The version the binary reports, for instance `2.10.1`.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(&self.binary)
            .arg("--version")
            .output()
            .context("nats-server --version")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.trim().rsplit([' ', 'v']).next().unwrap_or_default();
        Ok(version.to_owned())
    }

    /// What the server has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// SIGKILL: connections break without a word.
    pub fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(mut process) => process.kill(),
            None => bail!("nats-server does not run"),
        }
    }

    /// SIGTERM: an orderly end.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.running.take().context("nats-server does not run")?;
        process.signal(Signal::TERM)?;
        process.wait(START_LIMIT).await.map(drop)
    }

    /// Starts again on the same port with the same store; a server that still runs is killed first.
    pub async fn restart(&mut self) -> Result<()> {
        drop(self.running.take());
        // Between the two lives another process may hold the port for a moment, if only as the source of a connection.
        let mut attempts = 5;
        loop {
            match self.launch().await {
                Err(error) if attempts > 1 && self.log().contains("address already in use") => {
                    attempts -= 1;
                    eprintln!("nats-server: {error:#}; trying again");
                }
                result => return result,
            }
        }
    }

    /// SIGSTOP: the server is there but answers nothing.
    pub fn pause(&mut self) -> Result<()> {
        self.running.as_mut().context("nats-server does not run")?.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.running
            .as_mut()
            .context("nats-server does not run")?
            .signal(Signal::CONT)
    }

    /// Limits from the next start on, see [`Self::restart`].
    pub fn set_limits(&mut self, limits: ServerLimits) {
        self.builder.limits = limits;
    }

    /// Text for the configuration file instead of the one given so far, from the next start or [`Self::reload`] on.
    pub fn set_config(&mut self, text: impl Into<String>) {
        self.builder.extra_config = text.into();
    }

    /// Makes a running server read its configuration again, with what has changed since it started.
    pub async fn reload(&mut self) -> Result<()> {
        let reloaded = |server: &Self| server.log().matches("Reloaded server configuration").count();
        let before = reloaded(self);
        let text = self.config_text(&self.home.path().join("ports"));
        std::fs::write(self.config_path(), text).context("writing nats-server.conf")?;
        let process = self.running.as_mut().context("nats-server does not run")?;
        process.signal(Signal::HUP)?;
        eventually(START_LIMIT, || async {
            ensure!(
                reloaded(self) > before,
                "nats-server has not read its configuration again; its log:\n{}",
                self.log()
            );
            Ok(())
        })
        .await
    }

    pub(crate) fn set_cluster(&mut self, member: ClusterMember) {
        self.builder.cluster = Some(member);
    }

    pub(crate) fn cluster_port(&self) -> Option<u16> {
        self.ports.cluster
    }

    /// How many clients the server has dropped because they took their messages too slowly.
    pub async fn slow_consumers(&self) -> Result<u64> {
        let answer = self.monitor("/varz").await?;
        answer["slow_consumers"]
            .as_u64()
            .context("no slow_consumers in the answer of /varz")
    }

    /// Clients that are connected now.
    pub async fn clients(&self) -> Result<u64> {
        let answer = self.monitor("/varz").await?;
        answer["connections"]
            .as_u64()
            .context("no connections in the answer of /varz")
    }

    /// Asks the monitoring endpoint, for instance for `/varz` or `/subsz?subs=1`.
    pub async fn monitor(&self, path: &str) -> Result<Value> {
        let port = self
            .ports
            .monitoring
            .context("this nats-server was started without monitoring")?;
        let answer = request(port, "GET", path, &[], b"").await;
        answer
            .and_then(|answer| answer.json())
            .with_context(|| format!("asking nats-server for {path}"))
    }

    /// The subjects of all subscriptions of all clients.
    pub async fn subscriptions(&self) -> Result<Vec<String>> {
        let answer = self.monitor("/connz?subs=1&limit=4096").await?;
        let connections = answer["connections"]
            .as_array()
            .context("no connections in the answer of /connz")?;
        let lists = connections
            .iter()
            .filter_map(|connection| connection["subscriptions_list"].as_array());
        Ok(lists
            .flatten()
            .filter_map(|subject| subject.as_str().map(str::to_owned))
            .collect())
    }

    async fn launch(&mut self) -> Result<()> {
        let ports_folder = self.home.path().join("ports");
        reset_folder(&ports_folder)?;
        std::fs::write(self.config_path(), self.config_text(&ports_folder)).context("writing nats-server.conf")?;
        let log = std::fs::File::create(self.log_path()).context("creating the log of nats-server")?;
        let child = Command::new(&self.binary)
            .arg("-c")
            .arg(self.config_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let mut process = OwnedProcess::new(child, "nats-server");
        match self.wait_until_ready(&mut process, &ports_folder).await {
            Ok(ports) => {
                self.ports = ports;
                self.running = Some(process);
                Ok(())
            }
            Err(error) => Err(error.context(format!("nats-server did not start; its log:\n{}", self.log()))),
        }
    }

    fn config_text(&self, ports_folder: &Path) -> String {
        let port = self.ports.client.or(self.builder.port).map_or(-1, i32::from);
        let mut text = format!("host: 127.0.0.1\nport: {port}\nports_file_dir: {ports_folder:?}\n");
        if self.builder.monitoring {
            let port = self.ports.monitoring.map_or(-1, i32::from);
            text.push_str(&format!("http: \"127.0.0.1:{port}\"\n"));
        }
        if self.builder.jetstream {
            text.push_str(&format!(
                "jetstream {{ store_dir: {:?} }}\n",
                self.home.path().join("store")
            ));
        }
        text + &self.builder.limits.config_text() + &self.cluster_text() + &self.builder.extra_config
    }

    fn cluster_text(&self) -> String {
        let Some(member) = &self.builder.cluster else {
            return String::new();
        };
        let port = self.ports.cluster.map_or(-1, i32::from);
        let routes: Vec<_> = member
            .routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        // Clients are not told of the other servers: they would go round the proxies.
        format!(
            "server_name: \"{}-{}\"\ncluster {{\n  name: {:?}\n  listen: \"127.0.0.1:{port}\"\n  no_advertise: true\n  \
             routes: {routes:?}\n}}\n",
            member.name,
            self.home.path().file_name().unwrap_or_default().to_string_lossy(),
            member.name,
        )
    }

    async fn wait_until_ready(&self, process: &mut OwnedProcess, ports_folder: &Path) -> Result<Ports> {
        let ready = eventually(START_LIMIT, || async {
            let ports = read_ports_file(ports_folder)?;
            read_info(ports.client.context("no client port yet")?).await?;
            Ok(ports)
        });
        tokio::select! {
            ended = process.wait(START_LIMIT) => bail!("the process ended with {}", ended?),
            ports = ready => ports,
        }
    }

    fn config_path(&self) -> PathBuf {
        self.home.path().join("nats-server.conf")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("nats-server.log")
    }
}

impl ServerLimits {
    fn config_text(&self) -> String {
        let mut text = String::new();
        if let Some(bytes) = self.max_pending {
            text.push_str(&format!("max_pending: {bytes}\n"));
        }
        if let Some(bytes) = self.max_payload {
            text.push_str(&format!("max_payload: {bytes}\n"));
        }
        if let Some(limit) = self.write_deadline {
            text.push_str(&format!("write_deadline: \"{}ms\"\n", limit.as_millis()));
        }
        text
    }
}

pub(crate) fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(anyhow!("NATS_SERVER={} is no file", path.display()))
        };
    }
    installed_or_on_path("nats-server", "nats-server").ok_or_else(|| anyhow!(INSTALL_HINT))
}

fn reset_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}

/// The server chooses free ports itself and tells them in a file, so that tests cannot race for one.
fn read_ports_file(folder: &Path) -> Result<Ports> {
    let entry = std::fs::read_dir(folder)?.next().context("no ports file yet")??;
    let file: Value = serde_json::from_slice(&std::fs::read(entry.path())?).context("ports file not complete yet")?;
    let port = |kind: &str| -> Option<u16> { file[kind][0].as_str()?.rsplit(':').next()?.parse().ok() };
    Ok(Ports {
        client: port("nats"),
        monitoring: port("monitoring"),
        cluster: port("cluster"),
    })
}

async fn read_info(port: u16) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream).take(64 * 1024);
    tokio::time::timeout(Duration::from_secs(2), reader.read_line(&mut line))
        .await
        .context("no INFO")??;
    if !line.starts_with("INFO ") {
        bail!("the server greets with {line:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_server_keeps_its_port_over_a_restart() {
        let mut server = crate::server_or_skip!(NatsServer::builder().jetstream().monitoring());
        let (port, first) = (server.port(), server.pid());
        assert!(server.version().unwrap().starts_with("2."), "{:?}", server.version());
        assert_eq!(server.monitor("/varz").await.unwrap()["port"], port);
        server.kill().unwrap();
        assert!(read_info(port).await.is_err());
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), first);
        server.pause().unwrap();
        assert!(read_info(port).await.is_err());
        server.resume().unwrap();
        read_info(port).await.unwrap();
        server.stop().await.unwrap();
        assert!(read_info(port).await.is_err());
    }

    #[tokio::test]
    async fn jetstream_keeps_what_it_has_stored() {
        let mut server = crate::server_or_skip!(NatsServer::builder().jetstream().monitoring());
        let stream = r#"{"name": "kit", "subjects": ["kit.>"]}"#;
        publish(&server, "$JS.API.STREAM.CREATE.kit answer", stream).await;
        jetstream_holds(&server, "streams", 1).await;
        publish(&server, "kit.word", "hello").await;
        jetstream_holds(&server, "messages", 1).await;
        server.kill().unwrap();
        server.restart().await.unwrap();
        jetstream_holds(&server, "messages", 1).await;
    }

    async fn publish(server: &NatsServer, subjects: &str, text: &str) {
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let message = format!("CONNECT {{}}\r\nPUB {subjects} {}\r\n{text}\r\n", text.len());
        client.write_all(message.as_bytes()).await.unwrap();
        let mut answers = BufReader::new(client).lines();
        // INFO, and `+OK` for each of the two.
        for start in ["INFO ", "+OK", "+OK"] {
            let line = answers.next_line().await.unwrap().unwrap();
            assert!(line.starts_with(start), "{line}");
        }
    }

    async fn jetstream_holds(server: &NatsServer, what: &str, wanted: u64) {
        let held = || async {
            let answer = server.monitor("/jsz").await?;
            ensure!(answer[what] == wanted, "JetStream holds {answer}");
            Ok(())
        };
        eventually(START_LIMIT, held).await.unwrap();
    }

    #[tokio::test]
    async fn limits_hold_from_the_next_start_on() {
        let mut server = crate::server_or_skip!(NatsServer::builder().monitoring());
        server.set_limits(ServerLimits {
            max_pending: Some(131_072),
            max_payload: Some(65_536),
            write_deadline: Some(Duration::from_secs(3)),
        });
        assert_eq!(server.monitor("/varz").await.unwrap()["max_payload"], 1_048_576);
        server.restart().await.unwrap();
        let varz = server.monitor("/varz").await.unwrap();
        assert_eq!(
            (&varz["max_payload"], &varz["max_pending"]),
            (&65_536.into(), &131_072.into())
        );
        assert_eq!(varz["write_deadline"], 3_000_000_000_u64);
        assert_eq!(server.slow_consumers().await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_server_that_cannot_start_shows_its_log() {
        let _present = crate::server_or_skip!();
        let error = NatsServer::builder()
            .config("no_such_setting: 1")
            .start()
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains("no_such_setting"), "{error:#}");
    }
}
