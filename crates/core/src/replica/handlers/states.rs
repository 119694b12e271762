//! What a node says of itself.

use crate::cache::{Millis, NodeId};
use crate::replica::machine::Replica;
use crate::replica::parts::bootstrap::Phase;
use crate::replica::parts::now::Now;
use crate::replica::parts::peers::Peer;
use crate::replica::parts::search::{MIN_HEARD_MS, QUIET_MS};
use crate::replica::parts::status::{Refused, SyncState};

/// A pull that has not got on for this long has stalled.
const STALLED_MS: Millis = 10_000;

/// Hosts that are named in a reason.
const MAX_NAMED: usize = 3;

impl Replica {
    /// Progress of the first replay, and whether the lattice can be reached.
    pub fn sync_state(&self, now: Now) -> SyncState {
        self.state_of_sync(now.mono).0
    }

    /// What is wrong, in words.
    pub(crate) fn reason(&self, now: Now) -> Option<String> {
        let fault = || self.clock_fault(now).map(|fault| fault.to_string());
        self.state_of_sync(now.mono).1.or_else(fault)
    }

    /// Whether this node may answer as though it had all that its peers have confirmed.
    pub(crate) fn is_whole(&self) -> bool {
        self.state_of_sync(self.calls.last()).0.is_whole()
    }

    fn state_of_sync(&self, now: Millis) -> (SyncState, Option<String>) {
        let waited = self.calls.running_for(now);
        let late = waited >= self.config.sync_limit_ms;
        let waiting = if late { SyncState::Unsynced } else { SyncState::Starting };
        if !self.connected {
            let reason = self.search.denied_connection().map(String::from);
            let state = match self.bootstrap.phase() {
                Phase::Synced | Phase::Yielding => SyncState::Disconnected,
                Phase::Replaying | Phase::Settling => waiting,
            };
            return (state, reason);
        }
        if let Some(reason) = self.refused_by_server() {
            return (SyncState::Isolated, Some(reason));
        }
        if let Some(who) = self.search.disowned_by(now) {
            let reason = format!("node {who} does not accept the issuer of this host; list it there");
            return (SyncState::Isolated, Some(reason));
        }
        match self.bootstrap.phase() {
            Phase::Yielding => (SyncState::Resyncing, None),
            Phase::Replaying => self.state_of_bootstrap(waiting, now),
            Phase::Settling if self.search.is_alone() => (waiting, None),
            Phase::Settling => (SyncState::Syncing { percent: 100 }, None),
            Phase::Synced => self.state_when_synced(waiting, now),
        }
    }

    fn state_of_bootstrap(&self, waiting: SyncState, now: Millis) -> (SyncState, Option<String>) {
        let search = &self.search;
        let pull = self.pulls.own().filter(|pull| pull.answered);
        let stalled = |since: Millis| now.saturating_sub(since) >= STALLED_MS;
        let syncing = pull.map(|pull| SyncState::Syncing {
            percent: pull.percent(),
        });
        if let Some(syncing) = syncing.filter(|_| !search.progress().is_none_or(stalled)) {
            return (syncing, None);
        }
        let synced = self.peers.synced().next().is_some();
        let in_vain = synced && stalled(search.progress().unwrap_or(self.bootstrap.began()));
        if in_vain || search.hears_in_vain(QUIET_MS, now) {
            return (SyncState::Unreachable, Some(self.unreachable()));
        }
        (syncing.unwrap_or(waiting), self.too_few_peers())
    }

    fn state_when_synced(&self, waiting: SyncState, now: Millis) -> (SyncState, Option<String>) {
        let search = &self.search;
        if let Some(reason) = self.too_few_peers() {
            return (waiting, Some(reason));
        }
        if let Some(reason) = self.refused_deltas() {
            return (SyncState::Refused, Some(reason));
        }
        let has_peers = self.peers.iter().next().is_some();
        if !has_peers && search.hears_in_vain(if search.is_alone() { QUIET_MS } else { MIN_HEARD_MS }, now) {
            return (SyncState::Unreachable, Some(self.unreachable()));
        }
        if !search.is_alone() {
            return (SyncState::Synced, None);
        }
        if has_peers || search.strangers() > 0 {
            return (SyncState::Syncing { percent: 0 }, None);
        }
        if search.is_foreign(now) {
            let reason = match &self.strangers.foreign(now)[..] {
                [] => "nodes are heard whose messages are not accepted here; set FRAME_AUTH alike on all hosts".into(),
                foreign => format!("nodes of other issuers are heard: {}", foreign.join(", ")),
            };
            return (SyncState::Isolated, Some(reason));
        }
        if search.is_swallowed() {
            let reason = "somebody takes requests and does not answer".into();
            return (SyncState::Unreachable, Some(reason));
        }
        (SyncState::Alone, None)
    }

    /// What of the peers' state was refused, if anything was.
    fn refused_deltas(&self) -> Option<String> {
        let withheld = |(_, peer): (NodeId, &Peer)| peer.withheld.map_or(0, |withheld| withheld.commands);
        let most = self.peers.withholding().map(withheld).max().unwrap_or(0);
        let refused = self.search.refused().max(most);
        if refused == 0 {
            return None;
        }
        let from_future = self.peers.withholding().filter(|peer| withheld(*peer) > 0);
        let hosts: Vec<String> = from_future
            .take(MAX_NAMED)
            .filter_map(|(node, _)| self.peers.host(node))
            .collect();
        let of = match &hosts[..] {
            [] => String::new(),
            hosts => format!(", held by {}", hosts.join(", ")),
        };
        Some(format!(
            "{refused} deltas from the future{of}; look at the clocks of the hosts"
        ))
    }

    fn unreachable(&self) -> String {
        let synced = self.peers.synced().count();
        match self.search.strangers() + synced {
            1 => "1 node heard, it does not answer".into(),
            heard => format!("{heard} nodes heard, none answers"),
        }
    }

    fn too_few_peers(&self) -> Option<String> {
        let (known, wanted) = (self.peers.len(), self.config.min_peers);
        (!self.search.has_known_enough() && known < wanted)
            .then(|| format!("{known} of {wanted} peers known (SYNC_MIN_PEERS)"))
    }

    fn refused_by_server(&self) -> Option<String> {
        let (what, subject) = self.search.denied()?;
        Some(match what {
            Refused::Publish(_) => format!("publishing to {subject} is refused"),
            Refused::Subscribe(_) => format!("subscribing to {subject} is refused"),
            Refused::Subscriptions | Refused::Connection => format!("the server says: {subject}"),
        })
    }

    /// Logs a state that is new.
    pub(crate) fn tell(&mut self, now: Now) {
        let (state, reason) = self.state_of_sync(now.mono);
        let before = std::mem::replace(&mut self.told, state);
        let same = std::mem::discriminant(&before) == std::mem::discriminant(&state);
        if same || (state.is_under_way() && before.is_under_way()) {
            return;
        }
        let reason = reason.unwrap_or_default();
        let reason = reason.escape_debug();
        match self.logs.state.pass(now.mono) {
            Some(suppressed) if state.is_bad() => tracing::warn!(%before, %state, %reason, suppressed, "state"),
            // Those that are good tell how it ended.
            _ if !state.is_bad() => tracing::info!(%before, %state, %reason, "state"),
            _ => {}
        }
    }
}
