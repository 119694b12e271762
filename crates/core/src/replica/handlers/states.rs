//! What a node says of itself.

use crate::cache::{Millis, NodeId};
use crate::replica::machine::Replica;
use crate::replica::parts::bootstrap::Phase;
use crate::replica::parts::notice::{Notice, Reason};
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::search::{MIN_HEARD_MS, QUIET_MS};
use crate::replica::parts::sync_state::SyncState;

/// A pull that has not got on for this long has stalled.
const STALLED_MS: Millis = 10_000;

/// Hosts that are named in a reason.
const MAX_NAMED: usize = 3;

impl Replica {
    /// Progress of the bootstrap, and whether the lattice can be reached.
    pub fn sync_state(&self, now: Now) -> SyncState {
        self.state_of_sync(now.mono).0
    }

    /// What is wrong.
    pub(crate) fn reason(&self, now: Now) -> Option<Reason> {
        let fault = || self.clock_fault(now).map(Reason::Clock);
        self.state_of_sync(now.mono).1.or_else(fault)
    }

    /// Whether this node may answer as though it had all that its peers have confirmed.
    pub(crate) fn is_whole(&self) -> bool {
        self.state_of_sync(self.calls.last()).0.is_whole()
    }

    fn state_of_sync(&self, now: Millis) -> (SyncState, Option<Reason>) {
        let waited = self.calls.running_for(now);
        let late = waited >= self.config.sync_limit_ms;
        let waiting = if late { SyncState::Unsynced } else { SyncState::Starting };
        if !self.connected {
            let said = self.search.denied_connection().map(String::from);
            let reason = said.map(|said| Reason::Connection { said });
            let state = match self.bootstrap.phase() {
                Phase::Synced | Phase::Resyncing => SyncState::Disconnected,
                Phase::Bootstrapping | Phase::Settling => waiting,
            };
            return (state, reason);
        }
        if let Some(reason) = self.refused_by_server() {
            return (SyncState::Isolated, Some(reason));
        }
        if let Some(by) = self.search.disowned_by(now) {
            return (SyncState::Isolated, Some(Reason::Disowned { by }));
        }
        match self.bootstrap.phase() {
            Phase::Resyncing => (SyncState::Resyncing, None),
            Phase::Bootstrapping => self.state_of_bootstrap(waiting, now),
            Phase::Settling if self.search.is_alone() => (waiting, None),
            Phase::Settling => (SyncState::Syncing { percent: 100 }, None),
            Phase::Synced => self.state_when_synced(waiting, now),
        }
    }

    fn state_of_bootstrap(&self, waiting: SyncState, now: Millis) -> (SyncState, Option<Reason>) {
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

    fn state_when_synced(&self, waiting: SyncState, now: Millis) -> (SyncState, Option<Reason>) {
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
        if has_peers || search.unverified() > 0 {
            return (SyncState::Syncing { percent: 0 }, None);
        }
        if search.is_foreign(now) {
            let issuers = self.foreign.issuers(now);
            let reason = match issuers.is_empty() {
                true => Reason::ForeignMessages,
                false => Reason::ForeignIssuers { issuers },
            };
            return (SyncState::Isolated, Some(reason));
        }
        if search.is_swallowed() {
            return (SyncState::Unreachable, Some(Reason::Swallowed));
        }
        (SyncState::Alone, None)
    }

    /// What of the peers' state was refused, if anything was.
    fn refused_deltas(&self) -> Option<Reason> {
        let withheld = |(_, peer): (NodeId, &Peer)| peer.withheld.map_or(0, |withheld| withheld.deltas);
        let most = self.peers.withholding().map(withheld).max().unwrap_or(0);
        let refused = self.search.refused().max(most);
        if refused == 0 {
            return None;
        }
        let from_future = self.peers.withholding().filter(|peer| withheld(*peer) > 0);
        let hosts = from_future
            .take(MAX_NAMED)
            .filter_map(|(node, _)| self.peers.host(node))
            .collect();
        Some(Reason::FromTheFuture { deltas: refused, hosts })
    }

    fn unreachable(&self) -> Reason {
        Reason::Unanswered {
            nodes: self.search.unverified() + self.peers.synced().count(),
        }
    }

    fn too_few_peers(&self) -> Option<Reason> {
        let (known, wanted) = (self.peers.len(), self.config.min_peers);
        (!self.search.has_known_enough() && known < wanted).then_some(Reason::TooFewPeers { known, wanted })
    }

    fn refused_by_server(&self) -> Option<Reason> {
        let (what, subject) = self.search.denied()?;
        Some(Reason::Denied {
            what,
            subject: subject.into(),
        })
    }

    /// Tells a state that is new.
    pub(crate) fn tell(&mut self, now: Now) {
        let (state, reason) = self.state_of_sync(now.mono);
        let before = std::mem::replace(&mut self.told, state);
        let same = std::mem::discriminant(&before) == std::mem::discriminant(&state);
        if same || (state.is_under_way() && before.is_under_way()) {
            return;
        }
        // Good ones tell how it ended.
        let suppressed = match self.logs.state.pass(now.mono) {
            Some(suppressed) => suppressed,
            None if !state.is_bad() => 0,
            None => return,
        };
        self.outbox.tell(Notice::State {
            before,
            state,
            reason,
            suppressed,
        });
    }
}
