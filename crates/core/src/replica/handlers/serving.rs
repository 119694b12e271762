//! What peers ask for: their requests, and the answers that the shell has made.

use crate::cache::{NodeId, Span};
use crate::replica::io::{Output, Target};
use crate::replica::machine::Replica;
use crate::replica::parts::held::Held;
use crate::replica::parts::jobs::{Answered, Job, Lacking};
use crate::replica::parts::lineage::NodeLineage;
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::schedule::Repair;
use crate::replica::parts::task::{FollowUp, Task};
use crate::wire::Request;

impl Replica {
    /// What an answer made now stands for. While this node waits for some that it has not met, those who take its state
    /// have to wait for them too.
    fn stands_for(&self) -> Vec<(NodeId, u64)> {
        let own = (self.cache.node(), self.own_frames.newest());
        let known = self
            .peers
            .all()
            .filter(|(_, peer)| peer.proven || self.bootstrap.settling().is_some());
        let peers = known.map(|(node, peer)| (node, peer.effective()));
        std::iter::once(own).chain(peers).collect()
    }

    /// Takes a request of a node, once. It is answered when the node has proven to be alive.
    pub(crate) fn handle_request(&mut self, now: Now, node: NodeId, request: Request, length: u64) {
        let number = request.number();
        let proven = self
            .peers
            .change(node, |peer| peer.takes_request(number).then_some(peer.proven));
        match proven.flatten() {
            Some(true) => self.serve(now, node, request),
            Some(false) => {
                self.peers.change(node, |peer| peer.park(request, length as usize));
            }
            None => self.counters.repeated += 1,
        }
    }

    pub(crate) fn serve(&mut self, now: Now, node: NodeId, request: Request) {
        match request {
            Request::Frames(request) => self.send_missing_frames(now, node, &request),
            request => self.jobs.add(node, request),
        }
        self.next_job(now);
    }

    /// Has the next answer made, if none is being made.
    fn next_job(&mut self, now: Now) {
        while let Some((node, mut request)) = self.jobs.next() {
            let bootstraps = self.bootstrap.serves(now.mono);
            let of_state = matches!(request, Request::Bootstrap(_) | Request::DigestRequest(_));
            if self.peers.proven(node).is_none() || of_state && !bootstraps {
                continue;
            }
            if let Request::DigestRequest(digest_request) = &mut request {
                // Who compares partitions at rest finds none: what differs here is about to come.
                if digest_request.settled_ms > 0 && self.frames_come_in() {
                    digest_request.settled_ms = u64::MAX;
                }
            }
            self.counters.replays_served += u64::from(of_state);
            let version = self.version_for(Target::Node(node));
            let job = Job::new((node, request), version, self.message_bytes(), self.stands_for(), now);
            self.jobs.begin();
            self.outbox.push(Output::Answer(job));
        }
    }

    /// An answer is made.
    pub(crate) fn handle_answered(&mut self, now: Now, answered: Answered) {
        self.jobs.end();
        let Answered {
            node,
            messages,
            lacking,
        } = answered;
        if self.peers.proven(node).is_some() {
            for message in messages {
                self.publish(Target::Node(node), message);
            }
            match lacking {
                Lacking::Nothing => {}
                Lacking::Spans(spans) => self.fetch_back(now, node, spans),
                Lacking::Named(named) if self.may_fetch_back(now, node) => {
                    self.pulls.add_reverse(node, vec![Task::Reconcile(named)], now.mono);
                }
                Lacking::Named(_) => {}
            }
        }
        self.next_job(now);
    }

    /// A peer that compares with this node has something that is missing here. One reconciliation so makes both equal.
    fn may_fetch_back(&self, now: Now, node: NodeId) -> bool {
        let paused = now.mono < self.schedule.next(Repair::Reverse) && !self.pulls.has_reverse();
        !paused && !self.frames_come_in() && self.bootstrap.is_synced() && self.may_take_from(node)
    }

    fn fetch_back(&mut self, now: Now, node: NodeId, spans: Vec<Span>) {
        if spans.is_empty() || !self.may_fetch_back(now, node) {
            return;
        }
        let mut follow = FollowUp::of(self.pulls.pace().budget());
        let mut held = Held::of(&self.cache);
        for span in spans {
            let here = held.components(span).len();
            follow.fetch(span, true, here * 8 + 2_048);
        }
        self.pulls.add_reverse(node, follow.tasks(), now.mono);
    }

    /// Whether a peer is known to have been away for so long that it has to take others' state first.
    pub(crate) fn is_outdated(&self, node: NodeId) -> bool {
        let heartbeat = self.peers.get(node).and_then(|peer| peer.heartbeat.as_ref());
        heartbeat
            .is_some_and(|heartbeat| NodeLineage::of_heartbeat(node, heartbeat).is_outdated_by(self.node_lineage()))
    }

    /// Whether a peer is synced, and not one that has to take others' state first.
    pub(crate) fn may_take_from(&self, node: NodeId) -> bool {
        self.peers.get(node).is_some_and(Peer::synced) && !self.is_outdated(node)
    }
}
