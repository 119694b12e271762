//! Words for what a replica and the service say: the causes are theirs, the settings and remedies are named here. Front
//! ends with words of their own match the causes.

use std::ops::RangeInclusive;

use kvcache_core::cache::CacheError;
use kvcache_core::replica::{AckLevel, ClockFault, Notice, Reason, Refusal, Refused, SyncState, Unconfirmed};

use crate::service::{Error, Status};

/// One line for what is wrong. It may hold what peers and servers have said, as they said it.
pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Connection { said } => said.clone(),
        Reason::Denied { what, subject } => match what {
            Refused::Publish(_) => format!("publishing to {subject} is refused"),
            Refused::Subscribe(_) => format!("subscribing to {subject} is refused"),
            Refused::Subscriptions | Refused::Connection => format!("the server says: {subject}"),
        },
        Reason::Disowned { by } => format!("node {by} does not accept the issuer of this host; list it there"),
        Reason::ForeignIssuers { issuers } => format!("nodes of other issuers are heard: {}", issuers.join(", ")),
        Reason::ForeignMessages => {
            "nodes are heard whose messages are not accepted here; set FRAME_AUTH alike on all hosts".into()
        }
        Reason::Unanswered { nodes: 1 } => "1 node heard, it does not answer".into(),
        Reason::Unanswered { nodes } => format!("{nodes} nodes heard, none answers"),
        Reason::Swallowed => "somebody takes requests and does not answer".into(),
        Reason::TooFewPeers { known, wanted } => format!("{known} of {wanted} peers known (SYNC_MIN_PEERS)"),
        Reason::FromTheFuture { deltas, hosts } => {
            let of = match &hosts[..] {
                [] => String::new(),
                hosts => format!(", held by {}", hosts.join(", ")),
            };
            format!("{deltas} deltas from the future{of}; look at the clocks of the hosts")
        }
        Reason::Clock(fault) => clock(*fault),
    }
}

/// Whether a node is healthy, and what it says of itself: pairs `name=value`, see docs/OPERATIONS.md. It may hold what
/// peers and servers have said, as they said it.
pub fn health(status: &Status) -> (bool, String) {
    let Status {
        node,
        keys,
        digest,
        running,
        replication,
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
            message += &format!(" reason={}", quoted(&reason(why)));
        }
        bad |= status.sync.is_bad();
    }
    if !running {
        message += " error=replication-stopped";
    }
    (!bad, message)
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

/// What is wrong with the clock of this host.
fn clock(fault: ClockFault) -> String {
    match fault {
        ClockFault::Ahead(ms) => format!(
            "the clock of this host is {} s ahead of those of its peers, which refuse what it writes; set it right",
            ms / 1_000
        ),
        ClockFault::Behind(ms) => format!(
            "the clock of this host is {} s behind those of its peers, and what they write is refused here; set it right",
            ms / 1_000
        ),
        ClockFault::WasAhead { ahead_ms, refused_ms } => format!(
            "the clock of this host was {} s ahead when it wrote: for {} s more the peers refuse the keys that were \
             written then, and take all others",
            ahead_ms / 1_000,
            refused_ms.div_ceil(1_000)
        ),
    }
}

/// Logs what a replica wants people to know.
pub(crate) fn log(notice: &Notice) {
    match notice {
        Notice::State {
            before,
            state,
            reason: why,
            suppressed,
        } => log_state(*before, *state, why.as_ref(), *suppressed),
        Notice::Clock(Some(fault)) => tracing::warn!("{}", clock(*fault)),
        Notice::Clock(None) => tracing::info!("nothing is wrong with the clock of this host any more"),
        Notice::RefusedDelta {
            error,
            author,
            host,
            sender,
            suppressed,
        } => {
            let host = host.as_deref().unwrap_or("unknown").escape_debug();
            let sender = sender.escape_debug();
            tracing::warn!(
                %error, %author, %host, %sender, suppressed,
                "refused a delta of a peer; check the clock of its host"
            );
        }
        Notice::RefusedMessage {
            node,
            refusal,
            suppressed,
        } => {
            let remedy = match refusal {
                Refusal::Unauthenticated | Refusal::Authenticated => "set FRAME_AUTH alike on all hosts",
                _ => "all hosts need the same cluster seed, or list each other's issuer in cluster_issuers",
            };
            tracing::warn!(%node, suppressed, "ignored a message: {refusal}; {remedy}");
        }
        Notice::ForeignIssuer { node, issuer } => tracing::warn!(
            "node {node} is of issuer {issuer}, which is not accepted here: nothing is replicated between the two; \
             start its host with the same cluster seed, or list the issuers of both in cluster_issuers of both"
        ),
        Notice::Disowned { by, issuer } => {
            tracing::warn!(peer = %by, "the peer does not accept the issuer of this host, {issuer}; list it there");
        }
        Notice::ForeignVersion {
            node,
            version,
            spoken: (oldest, newest),
        } => tracing::warn!(
            "node {node} speaks version {version} of the protocol, this one {oldest} to {newest}: its messages are \
             ignored, and nothing is replicated between the two; run releases of nearby versions"
        ),
    }
}

fn log_state(before: SyncState, state: SyncState, why: Option<&Reason>, suppressed: u64) {
    let reason = why.map(reason).unwrap_or_default();
    let reason = reason.escape_debug();
    if state.is_bad() {
        tracing::warn!(%before, %state, %reason, suppressed, "state");
    } else {
        tracing::info!(%before, %state, %reason, "state");
    }
}
