//! From the bootstrap to being synced.

use crate::cache::{Millis, NodeId};
use crate::replica::io::Output;
use crate::replica::machine::Replica;
use crate::replica::parts::bootstrap::Phase;
use crate::replica::parts::lineage::NodeLineage;
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;

impl Replica {
    /// The bootstrap is done when everything that peers are known to have sent is here, and all of them know this node:
    /// from then on nothing they confirm can be missing here. A node of which only others have heard, and that does not
    /// answer, has most likely died: it does not delay that this node is synced. But it may be slow, and not count this
    /// node. So until it is heard or the time is up, this node neither counts as current nor confirms anything.
    pub(crate) fn settle(&mut self, now: Now) {
        let Some(until) = self.bootstrap.settling() else { return };
        let settled = now.mono >= until || self.peers.unsettled().next().is_none();
        if settled {
            self.bootstrap.settled();
        }
        let passes_over = || self.passes_over_at().is_some_and(|at| now.mono >= at);
        match self.bootstrap.phase() {
            Phase::Settling if settled || passes_over() => self.become_synced(now),
            Phase::Synced | Phase::Resyncing if settled => self.wait_for_peers(),
            _ => {}
        }
    }

    /// When this node is synced because the nodes it waits for are passed over.
    pub(crate) fn passes_over_at(&self) -> Option<Millis> {
        if self.bootstrap.phase() != Phase::Settling || !self.connected {
            return None;
        }
        let times: Option<Vec<Millis>> = self.peers.unsettled().map(Peer::passed_over_at).collect();
        times?.into_iter().max()
    }

    pub(crate) fn become_synced(&mut self, now: Now) {
        let took_ms = now.mono - self.bootstrap.began();
        tracing::info!(
            "synced keys={} took_ms={took_ms} digest={}",
            self.cache.keys(),
            self.cache.root_digest()
        );
        self.bootstrap.synced();
        self.lineage.rejoined(self.hybrid_now(now));
        if !self.lineage.has_joined() {
            // If that took long, this node may hold what was deleted and forgotten meanwhile.
            let complete = !self.contact_is_old(now) || self.has_missed_nothing();
            self.inherit_lineage();
            self.lineage.joined(self.hybrid_now(now), complete);
            self.leave_bootstraps_to_others(now);
        }
        self.heartbeats.hurry(now.mono);
        self.outbox.push(Output::AnswerBootstraps);
        self.wait_for_peers();
    }

    /// Whether a synced peer is there, and none has forgotten deletions this node has not heard of. Only the answer to
    /// a challenge says that since this node is listening: their heartbeats may be of before. To be asked before the
    /// states become one.
    fn has_missed_nothing(&self) -> bool {
        let mut synced = self.peers.synced().peekable();
        synced.peek().is_some()
            && synced.all(|(node, peer)| {
                let theirs = peer
                    .heartbeat
                    .as_ref()
                    .map(|heartbeat| NodeLineage::of_heartbeat(node, heartbeat));
                peer.knows_us && theirs.is_some_and(|theirs| !self.node_lineage().is_outdated_by(theirs))
            })
    }

    /// Writes that were made before this node knew all its peers wait for all of them.
    fn wait_for_peers(&mut self) {
        let peers: Vec<NodeId> = self.peers.iter().map(|(node, _)| node).collect();
        self.pending.also_wait_for(&peers);
        self.check_acks(u64::MAX);
    }
}
