//! A child process that is signalled by its own id only.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process, waitid, Pid, Signal, WaitId, WaitIdOptions};

/// Owns a child: whoever drops it kills it (and nothing else).
#[derive(Debug)]
pub(crate) struct OwnedProcess {
    child: Child,
    what: String,
    status: Option<ExitStatus>,
}

impl OwnedProcess {
    pub(crate) fn new(child: Child, what: impl Into<String>) -> Self {
        Self {
            child,
            what: what.into(),
            status: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has ended.
    pub(crate) fn try_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .with_context(|| format!("waiting for {}", self.what))?;
        }
        Ok(self.status)
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_status()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} (process {}) still runs after {limit:?}", self.what, self.pid());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most that was resident at a time, in bytes.
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(what))
            .with_context(|| format!("no line {what}"))?;
        let kibibytes: u64 = line
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .with_context(|| format!("{what} is no number"))?;
        Ok(kibibytes * 1024)
    }

    fn id(&self) -> Result<Pid> {
        let id = i32::try_from(self.pid()).ok();
        id.and_then(Pid::from_raw).context("process id out of range")
    }

    /// SIGSTOP. Returns when the process has stopped: for a moment after the signal its threads go on.
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // Looks only: whoever waits for the end of the process still hears of it.
        let look = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.id()?), look).with_context(|| format!("waiting for {} to stop", self.what))?;
        Ok(())
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_status()? {
            bail!("{} has already ended with {status}", self.what);
        }
        let pid = self.id()?;
        kill_process(pid, signal).with_context(|| format!("signalling {} (process {})", self.what, self.pid()))
    }

    /// SIGKILL and reap. A process that has ended already is fine.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if self.try_status()?.is_none() {
            self.child.kill().with_context(|| format!("killing {}", self.what))?;
            self.status = Some(self.child.wait().with_context(|| format!("reaping {}", self.what))?);
        }
        Ok(())
    }
}

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
