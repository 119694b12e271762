//! The bounded queue of commands between local writers and the replication task.

use std::sync::Arc;

use tokio::sync::{mpsc, OwnedSemaphorePermit, Semaphore};

use crate::cache::{Change, Command};

/// Unit in which the memory of queued commands is counted.
const UNIT_BYTES: usize = 1_024;

/// Memory of queued commands, in units. A writer waits when it is used up.
const CAPACITY: usize = 64 << 10;

/// A command on its way to the peers, and its share of the queue's memory.
pub(super) struct Queued {
    pub command: Command,
    _share: OwnedSemaphorePermit,
}

/// The writers' end.
#[derive(Clone)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Queued>,
    memory: Arc<Semaphore>,
}

impl Queue {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Queue {
                sender,
                memory: Arc::new(Semaphore::new(CAPACITY)),
            },
            receiver,
        )
    }

    /// Queues a command; waits while the queue is full. Returns false when replication has stopped.
    pub async fn push(&self, command: Command) -> bool {
        let units = (size(&command) / UNIT_BYTES).clamp(1, CAPACITY) as u32;
        let Ok(share) = self.memory.clone().acquire_many_owned(units).await else {
            return false;
        };
        self.sender.send(Queued { command, _share: share }).is_ok()
    }
}

fn size(command: &Command) -> usize {
    let value = match &command.change {
        Change::Put { value, seen, .. } => value.as_ref().map_or(0, |value| value.len()) + seen.len() * 64,
        Change::Delete { seen, .. } => seen.len() * 64,
        Change::ListPush { value, .. } => value.len(),
        Change::SetAdd { member, .. } | Change::SetRemove { member, .. } => member.len(),
        Change::Add { .. } | Change::ListRemove { .. } => 0,
    };
    command.key.len() + value
}
