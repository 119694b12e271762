//! A real host of the 0.18 line as a process, and the plugin of its lattice cache without one. Both are the program of
//! `hosts/plugin-0-18/host`, which takes a line of JSON per command.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::log::CapturedLog;
use crate::process::OwnedProcess;
use crate::workspace::{cargo, skip_test, workspace_root};

/// What a host can be asked is answered within this time, the pull of its cache included.
const LIMIT: Duration = Duration::from_secs(60);
const LOG_LINES_OF_A_FAILURE: usize = 30;

/// How often a host is started that panics by itself while it starts.
const STARTS: usize = 5;
/// What such a panic says: claims of another host that arrive before it has its cache, for one
/// (`messagebus/handlers.rs`: `self.latticecache.clone().unwrap()`). No plugin can help that.
const PANIC_OF_THE_HOST: &str = "/wasmcloud-host-0.18.2/src/messagebus/";

/// The program of the host. Where there is none, the test is skipped.
pub fn host_0_18() -> Option<PathBuf> {
    let program = workspace_root().join(".tools/host-0.18/bin/host-0-18");
    if program.is_file() {
        return Some(program);
    }
    skip_test("no host of the 0.18 line (.tools/host-0.18); install it with: scripts/install-tools.sh host-0.18");
    None
}

/// The plugin, built once per run into a target folder of its own.
pub fn plugin_0_18() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_plugin().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build_plugin() -> Result<PathBuf> {
    let root = workspace_root();
    let target = root.join("target/plugin-0.18");
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "--manifest-path"]);
    command.arg(root.join("hosts/plugin-0-18/Cargo.toml"));
    command.arg("--target-dir").arg(&target);
    let output = command.output().context("cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the plugin cannot be built: {said}");
    Ok(target.join("debug/libnats_kvcache_plugin.so"))
}

/// How a host is started.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl HostOptions {
    pub fn new() -> Self {
        Self::default()
    }

    /// The cache of this reference, in a registry without TLS. The classic one is built in.
    pub fn cache(self, reference: &str) -> Self {
        let registry = reference.split('/').next().unwrap_or_default().to_owned();
        self.option("--cache", reference).option("--insecure", &registry)
    }

    /// The lattice's calls go over this server.
    pub fn rpc(self, url: &str) -> Self {
        self.option("--rpc", url)
    }

    /// The lattice it belongs to.
    pub fn namespace(self, name: &str) -> Self {
        self.option("--namespace", name)
    }

    /// A setting of the cache, without its prefix.
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((format!("KVCACHE_{name}"), value.into()));
        self
    }

    fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Starts a host, and waits until it has pulled its cache and the bootstrap is over. One that panics by itself
    /// meanwhile is started again.
    pub async fn start(&self, program: &Path) -> Result<Commanded> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut command = Command::new(program);
            command.arg("host").args(&self.arguments);
            let mut host = Commanded::spawn(command, &self.environment)?;
            let Err(error) = host.started().await else {
                return Ok(host);
            };
            // A host that has ended has written more than was read so far, maybe.
            let _ = host.log.wait_closed(LIMIT / 10).await;
            let panics = host.log.matching("panicked at");
            let own = panics.iter().find(|line| line.contains(PANIC_OF_THE_HOST));
            match own {
                Some(line) if attempt < STARTS => {
                    eprintln!("*** the host itself panicked at its start, and is started again: {line}");
                }
                _ => return Err(error.context("a host starts")),
            }
        }
    }
}

/// A process that takes commands. Dropping it kills it; in a panic the end of its log is printed.
#[derive(Debug)]
pub struct Commanded {
    process: OwnedProcess,
    stdin: Option<ChildStdin>,
    answers: mpsc::UnboundedReceiver<String>,
    log: CapturedLog,
    /// Hosts keep what they have pulled and unpacked in there, and never look whether it has changed.
    _temporary: TempDir,
}

impl Commanded {
    /// The plugin of a library, or the `classic` one, called on one thread as the host does it.
    pub fn plugin(program: &Path, library: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("plugin").arg(library);
        Self::spawn(command, &[])
    }

    fn spawn(mut command: Command, environment: &[(String, String)]) -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        let rust_log = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into());
        command.env_clear().envs(environment.iter().cloned());
        command.env("TMPDIR", temporary.path()).env("RUST_LOG", rust_log);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let log = CapturedLog::default();
        log.follow(child.stderr.take().context("no standard error")?);
        let answers = lines_of(child.stdout.take().context("no standard output")?);
        Ok(Commanded {
            stdin: child.stdin.take(),
            process: OwnedProcess::new(child, "the host"),
            answers,
            log,
            _temporary: temporary,
        })
    }

    async fn started(&mut self) -> Result<()> {
        let answer = self.answer().await?;
        answer["started"].as_str().context("no id of a host")?;
        Ok(())
    }

    /// Sends a command and waits for its answer.
    pub async fn ask(&mut self, command: Value) -> Result<Value> {
        self.send(&command)?;
        self.answer().await.with_context(|| command.to_string())
    }

    /// The error of a command that has to fail.
    pub async fn refused(&mut self, command: Value) -> Result<String> {
        match self.ask(command.clone()).await {
            Ok(answer) => bail!("{command} succeeded: {answer}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// Sends a command. Its answer is to be taken with [`Commanded::answer`].
    pub fn send(&mut self, command: &Value) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its standard input is closed")?;
        writeln!(stdin, "{command}").with_context(|| format!("its log:\n{}", self.log.text()))
    }

    /// The answer to a command that was sent.
    pub async fn answer(&mut self) -> Result<Value> {
        let line = tokio::time::timeout(LIMIT, self.answers.recv()).await;
        let line = line.ok().flatten();
        let line = line.with_context(|| format!("no answer; its log:\n{}", self.log.text()))?;
        let mut answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        match answer["error"].as_str() {
            Some(error) => Err(anyhow!("{error}")),
            None => Ok(answer["ok"].take()),
        }
    }

    /// Calls the plugin in the name of the host itself.
    pub async fn call(&mut self, op: &str, args: Value) -> Result<Value> {
        self.call_as("system", op, args).await
    }

    /// Calls the plugin in the name of an actor.
    pub async fn call_as(&mut self, actor: &str, op: &str, args: Value) -> Result<Value> {
        self.ask(serde_json::json!({ "actor": actor, "op": op, "args": args }))
            .await
    }

    /// What the plugin answers when it is linked to a module with these values.
    pub async fn bind(&mut self, module: &str, values: &[(&str, &str)]) -> Result<Value> {
        let values: serde_json::Map<String, Value> = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        let link = serde_json::json!({ "module": module, "values": values });
        self.call("BindActor", link).await
    }

    /// Standard error so far.
    pub fn log(&self) -> &CapturedLog {
        &self.log
    }

    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// The most memory that was resident at a time.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.process.peak_bytes()
    }

    /// Names of its threads.
    pub fn threads(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.process.pid()))? {
            // One that ends meanwhile is none.
            if let Ok(name) = std::fs::read_to_string(thread?.path().join("comm")) {
                names.push(name.trim().to_owned());
            }
        }
        Ok(names)
    }

    /// SIGKILL.
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

    /// Closes its standard input, and waits for it to end.
    pub async fn end(&mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        self.stdin = None;
        self.process.wait(limit).await
    }
}

impl Drop for Commanded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (pid, tail) = (self.process.pid(), self.log.tail(LOG_LINES_OF_A_FAILURE));
            eprintln!("--- log of process {pid} ends with:\n{tail}\n---");
        }
    }
}

fn lines_of(output: impl std::io::Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // The classic cache and the crates of the host print to standard output as well.
            if line.starts_with('{') && sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
