//! The one file that reads clocks and entropy. Everything below the shell gets them passed in.
#![allow(clippy::disallowed_methods)]

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kvcache_core::cache::{Millis, NodeId};
use kvcache_core::replica::Now;

/// Milliseconds since the Unix epoch.
pub fn wall() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Millis)
}

/// Both clocks.
pub fn now() -> Now {
    Now {
        wall: wall(),
        mono: mono(),
    }
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Milliseconds of a clock that never goes back.
pub fn mono() -> Millis {
    origin().elapsed().as_millis() as Millis
}

/// The instant of a monotonic time, for timers.
pub(crate) fn instant(mono: Millis) -> tokio::time::Instant {
    (origin() + std::time::Duration::from_millis(mono)).into()
}

/// What nobody else knows of this process.
pub fn fresh_secret() -> [u64; 4] {
    rand::random()
}

/// A number that nothing else has, and not 0.
pub fn fresh_number() -> u64 {
    rand::random::<u64>().max(1)
}

/// A fresh identity for this process.
pub fn fresh_node_id() -> NodeId {
    // 0 is the node of "no stamp".
    NodeId(fresh_number())
}
