//! What a wasmCloud host does with a provider: start it, link actors, ask for health, shut it down.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{json, Value};
use wasmbus_rpc::core::{HealthCheckRequest, HealthCheckResponse, HostData, LinkDefinition};
use wasmbus_rpc::wascap::prelude::KeyPair;

use crate::client::{Actor, KeyValueClient};
use crate::keyvalue::KeyValue;
use crate::lattice::{Lattice, CONTRACT_ID};
use crate::log::CapturedLog;
use crate::process::OwnedProcess;
use crate::status::{Status, SyncState};
use crate::wait::eventually;

/// The link name where nothing else is asked for.
pub const DEFAULT_LINK_NAME: &str = "default";
/// With this host id the SDK expects links and answers health as JSON instead of MessagePack.
pub const TEST_HOST_ID: &str = "_TEST_";

const CONTROL_LIMIT: Duration = Duration::from_secs(10);
/// Between two health requests while a state is waited for.
const STATUS_PAUSE: Duration = Duration::from_millis(20);
const LOG_LINES_OF_A_FAILURE: usize = 30;

impl Lattice {
    /// The health message of a provider that need not be a process of this kit.
    pub async fn status_of(&self, provider_key: &str, link_name: &str) -> Result<Status> {
        let request = wasmbus_rpc::common::serialize(&HealthCheckRequest {})?;
        let answer = self.control(provider_key, link_name, "health", request).await?;
        status_in(wasmbus_rpc::common::deserialize(&answer)?)
    }

    async fn control(&self, provider_key: &str, link_name: &str, what: &str, payload: Vec<u8>) -> Result<Vec<u8>> {
        let connection = self.connection().await?;
        let request = connection.request(self.control_subject(provider_key, link_name, what), payload.into());
        let answer = tokio::time::timeout(CONTROL_LIMIT, request)
            .await
            .context("no answer in time")?;
        Ok(answer.context("no answer")?.payload.to_vec())
    }

    fn control_subject(&self, provider_key: &str, link_name: &str, what: &str) -> String {
        format!("wasmbus.rpc.{}.{provider_key}.{link_name}.{what}", self.prefix())
    }

    /// The host data with which a host of this lattice starts a provider.
    pub fn host_data(&self, options: &ProviderOptions) -> Result<HostData> {
        let mut data = HostData::default();
        data.host_id = options.host_id.clone().unwrap_or_else(|| self.host_id.clone());
        data.lattice_rpc_prefix = self.prefix().to_owned();
        data.lattice_rpc_url = self.nats_url().to_owned();
        if let Some(user) = &self.user {
            data.lattice_rpc_user_jwt = user.jwt.clone();
            data.lattice_rpc_user_seed = user.seed.clone();
        }
        data.link_name = options.link_name.clone();
        data.provider_key = options.provider_key.clone();
        data.invocation_seed = self.cluster_seed()?;
        data.cluster_issuers = vec![self.issuer()];
        data.cluster_issuers.extend(self.other_issuers.clone());
        data.instance_id = wasmbus_rpc::rpc_client::make_uuid();
        data.link_definitions = options.links.iter().map(|link| options.definition(link)).collect();
        data.config_json = options.config_json.clone();
        data.log_level = Some(options.log_level.clone());
        if let Some(change) = options.adjust {
            change(&mut data);
        }
        Ok(data)
    }

    /// Starts a provider as a host does. It need not be ready yet: see [`ProviderProcess::wait_healthy`].
    pub async fn start(&self, options: ProviderOptions) -> Result<ProviderProcess> {
        let data = self.host_data(&options)?;
        let host_id = data.host_id.clone();
        let log = CapturedLog::default();
        let (mut child, mut stdin, unread) = spawn(&options, &log)?;
        // A provider that ends before it has read its host data closes the pipe; its log then says why.
        if let Err(error) = stdin
            .write_all(encode_host_data(&data)?.as_bytes())
            .and_then(|()| stdin.flush())
        {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "the provider did not read its host data ({error}); its log:\n{}",
                log.text()
            );
        }
        Ok(ProviderProcess {
            lattice: self.clone(),
            process: OwnedProcess::new(child, "the provider"),
            _stdin: stdin,
            log,
            unread: Mutex::new(unread),
            host_id,
            options,
        })
    }

    /// Starts a provider and waits until it is healthy and synced (or standalone).
    pub async fn start_ready(&self, options: ProviderOptions, limit: Duration) -> Result<ProviderProcess> {
        let mut provider = self.start(options).await?;
        provider.wait_ready(limit).await?;
        Ok(provider)
    }
}

/// One link of an actor and its values.
#[derive(Clone, Debug)]
struct Link {
    actor: String,
    values: HashMap<String, String>,
}

/// How a provider is started.
#[derive(Clone, Debug)]
pub struct ProviderOptions {
    binary: PathBuf,
    link_name: String,
    provider_key: String,
    host_id: Option<String>,
    links: Vec<Link>,
    config_json: Option<String>,
    log_level: String,
    environment: Vec<(String, String)>,
    unread: bool,
    adjust: Option<fn(&mut HostData)>,
}

impl ProviderOptions {
    /// A provider with a key of its own, link name `default` and no links.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            link_name: DEFAULT_LINK_NAME.to_owned(),
            provider_key: KeyPair::new_service().public_key(),
            host_id: None,
            links: Vec::new(),
            config_json: None,
            log_level: "info".to_owned(),
            environment: Vec::new(),
            unread: false,
            adjust: None,
        }
    }

    /// Adds a link of the host data.
    pub fn link(self, actor: &Actor) -> Self {
        self.link_with(actor, &[])
    }

    /// Adds a link with values to the host data.
    pub fn link_with(mut self, actor: &Actor, values: &[(&str, &str)]) -> Self {
        self.links.push(Link {
            actor: actor.id().to_owned(),
            values: to_map(values),
        });
        self
    }

    pub fn link_name(mut self, name: impl Into<String>) -> Self {
        self.link_name = name.into();
        self
    }

    /// Replaces the random service key, for instance to share the calls of one provider.
    pub fn provider_key(mut self, key: impl Into<String>) -> Self {
        self.provider_key = key.into();
        self
    }

    pub fn key(&self) -> &str {
        &self.provider_key
    }

    /// Another host than that of the lattice; [`TEST_HOST_ID`] switches the SDK to JSON.
    pub fn host_id(mut self, id: impl Into<String>) -> Self {
        self.host_id = Some(id.into());
        self
    }

    /// The settings as a JSON object.
    pub fn config(self, settings: Value) -> Self {
        self.config_text(settings.to_string())
    }

    /// The settings as raw text, to try out what is no JSON.
    pub fn config_text(mut self, text: impl Into<String>) -> Self {
        self.config_json = Some(text.into());
        self
    }

    pub fn log_level(mut self, level: impl Into<String>) -> Self {
        self.log_level = level.into();
        self
    }

    /// Adds a variable to the environment, which is otherwise empty as under a host.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Nobody reads standard error until [`ProviderProcess::read_log`].
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Changes the host data at last, for what no other method gives.
    pub fn adjust(mut self, change: fn(&mut HostData)) -> Self {
        self.adjust = Some(change);
        self
    }

    fn definition(&self, link: &Link) -> LinkDefinition {
        let mut definition = LinkDefinition::default();
        definition.actor_id = link.actor.clone();
        definition.provider_id = self.provider_key.clone();
        definition.link_name = self.link_name.clone();
        definition.contract_id = CONTRACT_ID.to_owned();
        definition.values = link.values.clone();
        definition
    }
}

/// A provider started by [`Lattice::start`]. Dropping it kills the process; in a panic the end of its log is printed.
#[derive(Debug)]
pub struct ProviderProcess {
    lattice: Lattice,
    options: ProviderOptions,
    host_id: String,
    process: OwnedProcess,
    /// Some hosts keep the pipe open for as long as the provider runs; 0.81 closes it.
    _stdin: ChildStdin,
    log: CapturedLog,
    unread: Mutex<Option<ChildStderr>>,
}

impl ProviderProcess {
    pub fn lattice(&self) -> &Lattice {
        &self.lattice
    }

    /// To start the same provider once more.
    pub fn options(&self) -> &ProviderOptions {
        &self.options
    }

    pub fn provider_key(&self) -> &str {
        &self.options.provider_key
    }

    pub fn link_name(&self) -> &str {
        &self.options.link_name
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Standard output and error so far.
    pub fn log(&self) -> &CapturedLog {
        &self.log
    }

    /// Begins to read standard error, see [`ProviderOptions::unread`].
    pub fn read_log(&self) {
        let unread = self
            .unread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(stderr) = unread {
            self.log.follow(stderr);
        }
    }

    pub async fn wait_for_log(&self, pattern: &str, limit: Duration) -> Result<String> {
        self.log.wait_for(pattern, limit).await
    }

    /// SIGKILL: nothing that is still queued leaves the process.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// SIGTERM, which a host sends when the shutdown request had no effect.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Waits for the process to end by itself.
    pub async fn exit_status(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit).await
    }

    /// The shutdown request of the host; waits for the process to end.
    pub async fn shutdown(&mut self) -> Result<ExitStatus> {
        let message = serde_json::to_vec(&json!({ "host_id": self.host_id }))?;
        self.request("shutdown", message)
            .await
            .context("asking the provider to shut down")?;
        self.exit_status(CONTROL_LIMIT).await
    }

    /// Publishes a link, as the host does when an operator links an actor. There is no acknowledgement.
    pub async fn put_link(&self, actor: &Actor, values: &[(&str, &str)]) -> Result<()> {
        self.publish_link("linkdefs.put", actor, values).await
    }

    /// Publishes the end of a link. There is no acknowledgement.
    pub async fn delete_link(&self, actor: &Actor) -> Result<()> {
        self.publish_link("linkdefs.del", actor, &[]).await
    }

    /// The answer to a health request.
    pub async fn health(&self) -> Result<HealthCheckResponse> {
        let request = self.encode(&HealthCheckRequest {})?;
        let answer = self
            .request("health", request)
            .await
            .context("asking the provider for its health")?;
        self.decode(&answer)
    }

    /// The health message in parts; a provider that does not replicate any more is an error.
    pub async fn status(&self) -> Result<Status> {
        status_in(self.health().await?)
    }

    /// Waits until the provider answers that it is healthy.
    pub async fn wait_healthy(&mut self, limit: Duration) -> Result<Status> {
        self.wait_status(limit, |_| true).await
    }

    /// Waits until the provider is synced or alone, or runs without peers on purpose.
    pub async fn wait_ready(&mut self, limit: Duration) -> Result<Status> {
        self.wait_status(limit, |status| {
            matches!(
                status.sync,
                SyncState::Synced | SyncState::Alone | SyncState::Standalone
            )
        })
        .await
    }

    /// Waits until the health message satisfies `wanted`; gives up at once when the process has ended.
    pub async fn wait_status(&mut self, limit: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let deadline = Instant::now() + limit;
        loop {
            let reason = match self.status().await {
                Ok(status) if wanted(&status) => return Ok(status),
                Ok(status) => format!("the provider says: {status}"),
                Err(error) => format!("{error:#}"),
            };
            let tail = || self.log.tail(LOG_LINES_OF_A_FAILURE);
            if let Some(status) = self.process.try_status()? {
                bail!("the provider has ended with {status}; its log ends with:\n{}", tail());
            }
            if Instant::now() >= deadline {
                bail!(
                    "not within {limit:?}: {reason}; the log of the provider ends with:\n{}",
                    tail()
                );
            }
            tokio::time::sleep(STATUS_PAUSE).await;
        }
    }

    /// A client that sends signed invocations of `actor` to this provider.
    pub async fn client(&self, actor: &Actor) -> Result<KeyValueClient> {
        self.lattice
            .client_of(actor, self.provider_key(), self.link_name())
            .await
    }

    /// The operations of the contract in the name of `actor`.
    pub async fn keyvalue(&self, actor: &Actor) -> Result<KeyValue<KeyValueClient>> {
        Ok(KeyValue::via(self.client(actor).await?))
    }

    /// Waits until calls of `actor` are accepted.
    pub async fn wait_linked(&self, actor: &Actor, limit: Duration) -> Result<()> {
        let keyvalue = self.keyvalue(actor).await?;
        eventually(limit, || async { Ok(keyvalue.contains("").await.map(drop)?) }).await
    }

    /// Waits until calls of `actor` are refused because it is not linked.
    pub async fn wait_unlinked(&self, actor: &Actor, limit: Duration) -> Result<()> {
        let keyvalue = self.keyvalue(actor).await?;
        eventually(limit, || async {
            match keyvalue.contains("").await {
                Err(error) if error.to_string().contains("unlinked actor") => Ok(()),
                other => bail!("a call of the unlinked actor gave {other:?}"),
            }
        })
        .await
    }

    /// Resident memory of the process.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    async fn publish_link(&self, what: &str, actor: &Actor, values: &[(&str, &str)]) -> Result<()> {
        let link = Link {
            actor: actor.id().to_owned(),
            values: to_map(values),
        };
        let payload = self.encode(&self.options.definition(&link))?;
        let subject = self
            .lattice
            .control_subject(self.provider_key(), self.link_name(), what);
        let connection = self.lattice.connection().await?;
        connection
            .publish(subject, payload.into())
            .await
            .with_context(|| format!("publishing {what}"))?;
        connection.flush().await.with_context(|| format!("flushing {what}"))
    }

    async fn request(&self, what: &str, payload: Vec<u8>) -> Result<Vec<u8>> {
        self.lattice
            .control(self.provider_key(), self.link_name(), what, payload)
            .await
    }

    fn encode(&self, message: &impl Serialize) -> Result<Vec<u8>> {
        if self.host_id == TEST_HOST_ID {
            Ok(serde_json::to_vec(message)?)
        } else {
            Ok(wasmbus_rpc::common::serialize(message)?)
        }
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        if self.host_id == TEST_HOST_ID {
            Ok(serde_json::from_slice(bytes)?)
        } else {
            Ok(wasmbus_rpc::common::deserialize(bytes)?)
        }
    }
}

impl Drop for ProviderProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (pid, tail) = (self.pid(), self.log.tail(LOG_LINES_OF_A_FAILURE));
            eprintln!("--- log of provider process {pid} ends with:\n{tail}\n---");
        }
    }
}

fn status_in(health: HealthCheckResponse) -> Result<Status> {
    let message = health.message.unwrap_or_default();
    let status: Status = message.parse().with_context(|| format!("unhealthy: {message}"))?;
    // Other states are unhealthy as well, and say why.
    if status.pairs.contains_key("error") {
        bail!("unhealthy: {message}");
    }
    Ok(status)
}

/// The line a host writes to the standard input of a provider.
pub fn encode_host_data(data: &HostData) -> Result<String> {
    Ok(STANDARD.encode(serde_json::to_vec(data)?) + "\r\n")
}

/// Runs `binary` with `stdin` as its whole input and returns its end and everything it wrote.
pub async fn run_to_end(binary: &Path, stdin: &[u8], limit: Duration) -> Result<(ExitStatus, String)> {
    let log = CapturedLog::default();
    let (child, mut pipe, _) = spawn(&ProviderOptions::new(binary), &log)?;
    let mut process = OwnedProcess::new(child, "the provider");
    // It may well end before it has read everything: what counts is how.
    let _ = pipe.write_all(stdin);
    drop(pipe);
    let status = process
        .wait(limit)
        .await
        .with_context(|| format!("its output:\n{}", log.text()))?;
    log.wait_closed(CONTROL_LIMIT).await?;
    Ok((status, log.text()))
}

fn spawn(options: &ProviderOptions, log: &CapturedLog) -> Result<(Child, ChildStdin, Option<ChildStderr>)> {
    let mut command = Command::new(&options.binary);
    command.env_clear();
    command.envs(std::env::var_os("RUST_LOG").map(|level| ("RUST_LOG", level)));
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", options.binary.display()))?;
    log.follow(child.stdout.take().context("no standard output")?);
    let stderr = child.stderr.take().context("no standard error")?;
    let stdin = child.stdin.take().context("no standard input")?;
    if options.unread {
        // The smallest there is, so that little fills it.
        rustix::pipe::fcntl_setpipe_size(&stderr, 4 << 10).context("a small pipe")?;
        return Ok((child, stdin, Some(stderr)));
    }
    log.follow(stderr);
    Ok((child, stdin, None))
}

fn to_map(values: &[(&str, &str)]) -> HashMap<String, String> {
    values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
