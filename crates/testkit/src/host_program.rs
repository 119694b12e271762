//! A real wasmCloud host 0.8x. No registry has its program, so whoever runs it says where it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use rustix::process::{kill_process, Pid, Signal};
use tempfile::TempDir;
use wasmbus_rpc::wascap::prelude::KeyPair;

use crate::lattice::Lattice;
use crate::log::CapturedLog;
use crate::process::OwnedProcess;
use crate::registry::OciRegistry;

const START_LIMIT: Duration = Duration::from_secs(60);

/// A running host of a lattice, with caches of its own. Dropping it kills it and the providers that it has started.
#[derive(Debug)]
pub struct HostProgram {
    id: String,
    process: OwnedProcess,
    log: CapturedLog,
    _home: TempDir,
}

impl HostProgram {
    /// The program that the environment variable `HOST_BIN` names.
    pub fn given() -> Result<PathBuf> {
        let binary = std::env::var_os("HOST_BIN").map(PathBuf::from).unwrap_or_default();
        ensure!(
            binary.is_file(),
            "HOST_BIN={}: expected the program of a wasmCloud host 0.8x, as in \
             make test-real-host HOST_BIN=/path/to/wasmcloud",
            binary.display()
        );
        Ok(binary)
    }

    /// Starts a host that may fetch from `registry`, and waits until it is part of the lattice.
    pub async fn start(binary: &Path, lattice: &Lattice, registry: &OciRegistry, options: &[&str]) -> Result<Self> {
        let home = tempfile::tempdir().context("a folder for the host")?;
        let key = KeyPair::new_server();
        let (_, port) = lattice.nats_url().rsplit_once(':').context("a url with a port")?;
        let log = CapturedLog::default();
        let mut child = Command::new(binary)
            .args(["--nats-port", port, "--lattice-prefix", lattice.prefix()])
            .args(["--allowed-insecure", registry.address()])
            .args(options)
            .env_clear()
            .env("WASMCLOUD_CLUSTER_SEED", lattice.cluster_seed()?)
            .env("WASMCLOUD_HOST_SEED", key.seed().context("the seed of the host")?)
            // Here it keeps what it fetches.
            .envs([("TMPDIR", home.path()), ("HOME", home.path())])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        log.follow(child.stdout.take().context("standard output")?);
        log.follow(child.stderr.take().context("standard error")?);
        let host = Self {
            id: key.public_key(),
            process: OwnedProcess::new(child, "the host"),
            log,
            _home: home,
        };
        host.log.wait_for("wasmCloud host started", START_LIMIT).await?;
        Ok(host)
    }

    /// Its public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it and its providers have written.
    pub fn log(&self) -> &CapturedLog {
        &self.log
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// The process ids of the providers it runs.
    pub fn providers(&self) -> Result<Vec<u32>> {
        let mut children = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid())).context("the threads of the host")? {
            // A thread that has ended meanwhile has no children.
            let of_thread = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            for id in of_thread.split_whitespace() {
                children.push(id.parse().context("a process id")?);
            }
        }
        Ok(children)
    }

    /// The only provider it runs.
    pub fn only_provider(&self) -> Result<u32> {
        match self.providers()?[..] {
            [id] => Ok(id),
            ref others => bail!(
                "host {} runs {} providers; its log:\n{}",
                self.id,
                others.len(),
                self.log.tail(20)
            ),
        }
    }
}

impl Drop for HostProgram {
    /// A host that is killed leaves its providers behind, so they go first.
    fn drop(&mut self) {
        for id in self.providers().unwrap_or_default() {
            if let Some(provider) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                let _ = kill_process(provider, Signal::KILL);
            }
        }
    }
}
