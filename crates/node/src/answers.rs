//! What all front ends of one contract say of the service: its errors as their callers are told, its state as health.

use std::ops::RangeInclusive;

use kvcache_core::cache::CacheError;
use kvcache_core::replica::{AckLevel, SyncState, Unconfirmed};

use crate::service::{Error, MemoryStatus, Status};
use crate::store::StoreStatus;
use crate::words;

/// Whether a node is healthy, and what it says of itself: pairs `name=value`, see docs/OPERATIONS.md. It may hold what
/// peers and servers have said, as they said it.
pub fn health(status: &Status) -> (bool, String) {
    let Status {
        node,
        keys,
        digest,
        running,
        replication,
        store,
        memory,
    } = status;
    let (sync, peers) = match replication {
        Some(status) => (status.sync.to_string(), status.peers.len()),
        None => ("standalone".into(), 0),
    };
    let mut message = format!("node={node} keys={keys} peers={peers} sync={sync} digest={digest}");
    let mut bad = !running;
    if let Some(status) = replication {
        if let SyncState::Syncing { percent } = status.sync {
            message += &format!(" percent={percent}");
        }
        message += &format!(" {}", status.counters);
        if !status.foreign.is_empty() {
            message += &format!(" foreign={}", status.foreign.join(","));
        }
        if let Some(fault) = status.clock {
            message += &format!(" clock={:+}", fault.ahead_secs());
            bad = true;
        }
        if let Some(why) = &status.reason {
            message += &format!(" reason={}", quoted(&words::reason(why)));
        }
        bad |= status.sync.is_bad();
    }
    message += &format!(" {}", of_memory(memory));
    if let Some(store) = store {
        message += &format!(" {}", of_store(store));
        bad |= store.is_bad();
    }
    if !running {
        message += " error=replication-stopped";
    }
    (!bad, message)
}

/// What health says of memory.
fn of_memory(memory: &MemoryStatus) -> String {
    let mut message = format!(
        "memory_bytes={} memory_deletions={} evicted={} full={}",
        memory.bytes, memory.deletions, memory.evicted, memory.refused
    );
    if let Some(limit) = memory.limit {
        message += &format!(" memory_limit={limit}");
    }
    if let Some(host) = &memory.smallest {
        message += &format!(" memory_smallest={}", quoted(host));
    }
    message
}

/// What health says of a store.
fn of_store(store: &StoreStatus) -> String {
    format!(
        "store={} store_state={} store_hosts={} store_dirty={} store_lag_ms={} store_writes={} store_conflicts={} store_errors={} \
         store_audits={} store_repairs={} store_unreadable={}",
        quoted(&store.name),
        quoted(&store.state.to_string()),
        store.hosts,
        store.dirty,
        store.lag_ms,
        store.writes,
        store.conflicts,
        store.errors,
        store.audits,
        store.repairs,
        store.unreadable
    )
}

/// A value that may hold spaces, and what peers and servers said: in quotes, backslashes before what would end it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

/// What a caller is told of a call that fails. Numbers of his contract have this range.
pub fn failure(error: &Error, numbers: &RangeInclusive<i64>) -> String {
    match error {
        Error::Refused(CacheError::TooLarge { .. }) => format!("{error} (setting MAX_VALUE_BYTES)"),
        Error::Refused(CacheError::AnswerTooLarge { .. }) => format!("{error} (setting MAX_ANSWER_BYTES)"),
        Error::Refused(CacheError::OutOfRange { value, amount }) => format!(
            "increment of {value} by {amount} would leave the range of {} ({} to {}); nothing changed",
            if numbers.end() > &i32::MAX.into() { "i64" } else { "i32" },
            numbers.start(),
            numbers.end(),
        ),
        Error::OutOfContact(state) => format!(
            "this host is out of contact with the lattice ({state}) and may have missed writes that all others have confirmed; \
             ACK=all does not allow to answer from what it has; nothing was changed"
        ),
        Error::CannotBeConfirmed { .. } => format!("{error}, and ACK asks for that; nothing was changed"),
        Error::Unconfirmed {
            wanted,
            timeout_ms,
            unconfirmed,
        } => not_confirmed(*wanted, *timeout_ms, unconfirmed),
        Error::StoreMissing { .. } => format!("{error}; nothing was changed (STORE_REQUIRED=off answers without it)"),
        Error::Loading { .. } => format!("{error}; nothing was changed"),
        Error::NoStore | Error::CannotBeStored(_) => format!("{error}, and ACK asks for that; nothing was changed"),
        Error::NotStored(_) => format!("{error}; it goes on replicating, and nothing was undone"),
        Error::NotStoredInTime { .. } => {
            format!("{error} (ACK_TIMEOUT_MS); it goes on replicating, and nothing was undone")
        }
        Error::Stopping => {
            "the provider is shutting down: the write was applied on this host only and not replicated".into()
        }
        error => error.to_string(),
    }
}

/// Says what was done and what was not.
fn not_confirmed(ack: AckLevel, timeout_ms: u64, unconfirmed: &Unconfirmed) -> String {
    let wanted = match ack {
        AckLevel::Local => "none".into(),
        AckLevel::Peers(number) => number.to_string(),
        AckLevel::All => "all".into(),
    };
    let missing = if unconfirmed.disconnected {
        "NATS is away".into()
    } else if unconfirmed.missing.is_empty() {
        "no other peer is there".into()
    } else {
        format!("no confirmation of {}", unconfirmed.missing.join(", "))
    };
    format!(
        "the write is applied on this host and goes on replicating, but within {timeout_ms} ms (ACK_TIMEOUT_MS) only {} \
         peers have confirmed it where ACK={wanted} asks for more: {missing}; nothing was undone, so do not repeat what \
         must not happen twice",
        unconfirmed.confirmed
    )
}
