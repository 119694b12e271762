//! Words for what a replica says: the causes are the core's, the settings and remedies are named here. Front ends with
//! words of their own match the causes.

use kvcache_core::replica::{ClockFault, Notice, Reason, Refusal, Refused, SyncState};

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
