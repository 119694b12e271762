//! A child process that is signalled by its own id only.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process, Pid, Signal};

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

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_status()? {
            bail!("{} has already ended with {status}", self.what);
        }
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("process id out of range")?;
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
