//! What happens in a run, and what is on its way.

use bytes::Bytes;
use kvcache_core::cache::{Delta, Millis, StateDelta};
use kvcache_core::replica::{Input, Target};

pub(crate) enum Event {
    /// A message or a notice of the server arrives.
    Deliver { to: usize, session: u64, mail: Mail },
    /// A message arrives at the server.
    Route {
        sender: Sender,
        session: u64,
        to: Target,
        payload: Bytes,
    },
    /// A replica wants to be called, if it has not changed its mind about the time.
    Tick { node: usize, wake: Millis },
    /// The deltas of local writes reach the replica.
    Flush { node: usize, life: u64 },
    /// A client writes.
    Client,
    /// Something goes wrong.
    Fault,
    /// Something that went wrong is over, unless all has been made well since.
    End { epoch: u64, end: End },
    /// The caches are swept.
    Sweep,
    /// The keeper of a store does the next thing, if it has not changed its mind about the time.
    Keep { node: usize, turn: u64 },
    /// Engines sync what they have acknowledged.
    Sync,
}

/// Something that went wrong is over.
#[derive(Debug)]
pub(crate) enum End {
    /// A process starts.
    Down { node: usize },
    /// A node notices that its connection is lost.
    Unnoticed { node: usize, life: u64 },
    /// A node connects again.
    Cut { node: usize, life: u64 },
    /// The server is back.
    ServerDown,
    /// Nodes hear each other again: from one to another.
    Deaf { pairs: Vec<(usize, usize)> },
    /// A process goes on.
    Pause { node: usize, life: u64 },
    /// The server cuts a paused process off.
    Patience { node: usize, life: u64 },
    /// A slow consumer keeps up again.
    Slow { node: usize, life: u64 },
    /// The server refuses a node no longer.
    Refusal { node: usize, life: u64 },
    /// A store can be reached again.
    StoreDown { engine: usize },
    /// A wall clock is right again, about.
    FarClock { node: usize, life: u64 },
    /// The stranger sends so many further recordings: to a node or all, this one or any.
    Recordings {
        left: u32,
        to: Option<usize>,
        which: Option<usize>,
    },
    /// The stranger sends a node so many further notices that nobody listens.
    ForgedNotices { left: u32, to: usize },
}

/// Where something comes from that arrives at a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A node, which has sent it now.
    Node(Sender),
    /// A stranger. The node had sent it.
    Recording(Sender),
    /// A server, or a stranger in its name.
    Server,
}

/// What arrives at a node.
#[derive(Debug)]
pub(crate) struct Mail {
    pub origin: Origin,
    pub input: Input,
}

/// Who has sent a message, and what it held then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    pub place: usize,
    pub life: u64,
    /// Its sum, if it had a state to give.
    pub holds: Option<i64>,
    /// It is a heartbeat.
    pub heartbeat: bool,
    /// It shows that the node is there: a heartbeat, an answer to a challenge, or a frame that is sent for the first
    /// time.
    pub shows_life: bool,
    /// When it was sent.
    pub at: Millis,
}

/// About how many bytes a delta has on its way.
pub(crate) fn size(delta: &Delta) -> u64 {
    let value = match &delta.change {
        StateDelta::Put { value, seen, .. } => value.bytes().map_or(8, <[u8]>::len) + 40 * seen.len(),
        StateDelta::Delete { seen, .. } => 40 * seen.len(),
        StateDelta::ListPush { value, .. } => value.len(),
        StateDelta::SetAdd { member, .. } | StateDelta::SetRemove { member, .. } => member.len(),
        StateDelta::Add { .. } | StateDelta::ListRemove { .. } => 20,
    };
    (delta.key.len() + value + 40) as u64
}
