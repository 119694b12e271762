//! Ends a process that another library started and would leave behind.

use rustix::process::{kill_process, Pid, Signal};

/// Kills the process with this id when dropped. Only for a child of this process that nobody has waited for: until
/// then the id cannot belong to another process.
#[derive(Debug)]
pub struct KillOnDrop {
    pid: u32,
}

impl KillOnDrop {
    pub fn new(pid: u32) -> Self {
        Self { pid }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
