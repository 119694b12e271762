//! The process of the host that has started this one.
//!
//! A host that is killed ends none of its providers: they would go on beside those of its successor, and share their
//! calls. Only the parent of the process tells. Standard input does not, as hosts (0.81) close it when they have written
//! the host data; nor does the signal that Linux sends on request, as it comes at the end of the thread that has started
//! this process, which is one of many of a host.

use std::time::Duration;

use rustix::process::{getppid, Pid};

/// How often the parent is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The parent of this process at its start. It can be one that cannot be seen, outside of the container.
#[derive(Clone, Copy)]
pub(super) struct HostProcess(Option<Pid>);

impl HostProcess {
    /// To be called at the start: what ends before that is not noticed.
    pub fn at_start() -> Self {
        HostProcess(getppid())
    }

    /// Waits until the host is gone: then this process has been given another parent. Never where the host is process 1
    /// of a container, with which all others end.
    pub async fn gone(self) {
        let mut interval = tokio::time::interval(INTERVAL);
        while getppid() == self.0 {
            interval.tick().await;
        }
    }
}
