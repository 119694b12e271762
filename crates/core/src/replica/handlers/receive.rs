//! Messages as they arrive: whether they are authentic, whether they were taken before, and which part of the protocol
//! each belongs to.

use bytes::Bytes;

use crate::cache::{Millis, NodeId, Time};
use crate::replica::machine::Replica;
use crate::replica::parts::authenticator::{Proof, Refusal, Verified};
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::recordings::Sent;
use crate::wire::{BootstrapDeltas, Header, Message, RangeSplits, Request, Sketch, Unknown, WireError};

/// A message of this age, by its sender's clock, may be of this moment.
const FRESH_MS: Millis = 5_000;

impl Replica {
    pub(crate) fn handle_message(&mut self, now: Now, authenticated: Bytes) {
        let Some(header) = Header::of(&authenticated) else {
            return self.malformed(now, &WireError::Malformed("shorter than its header"));
        };
        if header.node == self.cache.node() {
            // This node's own messages, should they come back.
            return;
        }
        if !(self.config.versions.0..=self.config.versions.1).contains(&header.version) {
            return match header.is_plausible() {
                true => self.unknown_version(now, header),
                false => self.malformed(now, &WireError::Malformed("no version of this protocol")),
            };
        }
        let length = authenticated.len();
        let keyring = self.config.keyring.clone();
        let (bytes, proof) = match keyring.verify(&authenticated) {
            Ok(Verified::Accepted(bytes, proof)) => (bytes, proof),
            Ok(Verified::Signed(bytes, signature)) => {
                if !self.may_check_signature(now, header.node, &bytes) {
                    return;
                }
                if !signature.fits(&bytes) {
                    return self.refused_message(now, header, &Refusal::Forged);
                }
                (bytes, Proof::OtherIssuer)
            }
            Err(refusal) => return self.refused_message(now, header, &refusal),
        };
        match Message::borrow(&bytes) {
            Ok(Message::Fragment(fragment)) => {
                // A message in fragments is no fragment itself, so this goes no deeper than one level.
                let Some(whole) = self.assembler.add(header.node, fragment, now.mono) else {
                    return;
                };
                let length = whole.len();
                match (Header::of(&whole), Message::borrow(&whole)) {
                    (Some(inner), Ok(message))
                        if inner.node == header.node && !matches!(message, Message::Fragment(_)) =>
                    {
                        self.handle_understood(now, header.node, proof, message, (length, length));
                    }
                    (_, Err(error)) => self.malformed(now, &error),
                    _ => self.malformed(now, &WireError::Malformed("whole of fragments")),
                }
            }
            Ok(message) => self.handle_understood(now, header.node, proof, message, (bytes.len(), length)),
            Err(error) => self.malformed(now, &error),
        }
    }

    /// Whether the signature of a message is worth being checked: the message may count, and not too many have been
    /// checked of late. Anybody can send signatures that do not fit.
    fn may_check_signature(&mut self, now: Now, node: NodeId, bytes: &Bytes) -> bool {
        let message = match Message::borrow(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.malformed(now, &error);
                return false;
            }
        };
        let sent = self.sent(now, &message);
        if self.is_repeated(node, sent, &message) {
            self.counters.repeated += 1;
            return false;
        }
        let of_peer = |peer: &mut Peer| peer.proven.then(|| peer.signatures.take(now.mono));
        let checked = self.peers.change(node, of_peer).flatten().unwrap_or_else(|| {
            let oldest = now.wall.saturating_sub(FRESH_MS);
            match sent.clock.millis() >= oldest {
                true => self.budgets.signatures.take(now.mono),
                false => self.budgets.old_signatures.take(now.mono),
            }
        });
        self.counters.unauthenticated += u64::from(!checked);
        checked
    }

    /// Whether a message would change nothing if it were what it says it is.
    fn is_repeated(&self, node: NodeId, sent: Sent, message: &Message<&[u8]>) -> bool {
        let Some(peer) = self.peers.get(node) else {
            return self.peers.is_old(node, sent);
        };
        match message {
            Message::Heartbeat(heartbeat) => peer
                .heartbeat
                .as_ref()
                .is_some_and(|last| heartbeat.number <= last.number),
            Message::Frame(frame) => peer.proven && !peer.frames.takes(frame.seq) && !frame.wants_ack,
            Message::Hello(hello) => hello.to != self.cache.node() || !peer.challenges_anew(hello.number),
            Message::Welcome(welcome) => !peer.expects(welcome.number),
            Message::BootstrapRequest(_)
            | Message::Compare(_)
            | Message::Fetch(_)
            | Message::DigestRequest(_)
            | Message::SketchRequest(_)
            | Message::Reconcile(_)
            | Message::FramesRequest(_) => sent.number.is_some_and(|number| !peer.requests.takes(number)),
            _ => false,
        }
    }

    /// What a message tells about when it was sent.
    fn sent(&self, now: Now, message: &Message<&[u8]>) -> Sent {
        let present = self.hybrid_now(now);
        // A clock that is too far ahead says nothing.
        let newest = now.wall.saturating_add(self.cache.limits().max_clock_skew_ms);
        let possible = |clock: Time| match clock.millis() <= newest {
            true => clock.min(present),
            false => Time::default(),
        };
        let of = |number, clock| Sent {
            number: Some(number),
            clock,
            asked: false,
        };
        // It names a request that is under way, which is as good as an answer to a challenge.
        let asked = Sent {
            number: None,
            clock: present,
            asked: true,
        };
        match message {
            Message::Heartbeat(heartbeat) => of(heartbeat.number, possible(heartbeat.clock)),
            Message::Welcome(welcome) => of(welcome.heartbeat.number, possible(welcome.heartbeat.clock)),
            // It names this process, which only those can who have heard of it.
            Message::Hello(hello) if hello.to == self.cache.node() => of(hello.number, present),
            Message::Frame(frame) => Sent {
                clock: possible(frame.clock),
                ..Sent::default()
            },
            Message::BootstrapRequest(request) => of(request.request, Time::default()),
            Message::Compare(request) => of(request.request, Time::default()),
            Message::Fetch(request) => of(request.request, Time::default()),
            Message::DigestRequest(request) => of(request.request, Time::default()),
            Message::SketchRequest(request) => of(request.request, Time::default()),
            Message::Reconcile(request) => of(request.request, Time::default()),
            Message::FramesRequest(request) => of(request.request, Time::default()),
            Message::BootstrapDeltas(BootstrapDeltas { part, .. })
            | Message::RangeSplits(RangeSplits { part, .. })
            | Message::Sketch(Sketch { part, .. })
            | Message::Unknown(Unknown { part, .. })
                if self.pulls.has_request(part.request) =>
            {
                asked
            }
            Message::AnswerEnd(end) if self.pulls.has_request(end.request) => asked,
            _ => Sent::default(),
        }
    }

    /// A message that is accepted, and its length without and with its authenticator.
    fn handle_understood(
        &mut self,
        now: Now,
        node: NodeId,
        proof: Proof,
        message: Message<&[u8]>,
        (bare, length): (usize, usize),
    ) {
        let length = length as u64;
        let sent = self.sent(now, &message);
        let heard = self.taken_in(now);
        let known = self.peers.heard(node, proof == Proof::OtherIssuer, sent, heard);
        if known.is_none() {
            self.counters.repeated += 1;
        }
        if known == Some(false) {
            self.heard_unverified(now, node, &message);
        }
        match message {
            // What was asked for here names the request, which is as good as a challenge.
            Message::BootstrapDeltas(deltas) => self.handle_bootstrap_deltas(now, node, deltas, length),
            Message::RangeSplits(splits) => self.handle_splits(now, node, splits, length),
            Message::Sketch(sketch) => self.handle_sketch(now, node, sketch, length),
            Message::Unknown(unknown) => self.handle_unknown(now, node, &unknown, length),
            Message::AnswerEnd(end) => self.handle_answer_end(now, node, end),
            _ if known.is_none() => return,
            Message::BootstrapRequest(request) => self.handle_request(now, node, Request::Bootstrap(request), length),
            Message::Compare(request) => self.handle_request(now, node, Request::Compare(request), length),
            Message::Fetch(request) => self.handle_request(now, node, Request::Fetch(request), length),
            Message::DigestRequest(request) => self.handle_request(now, node, Request::DigestRequest(request), length),
            Message::SketchRequest(request) => self.handle_request(now, node, Request::Symbols(request), length),
            Message::Reconcile(request) => self.handle_request(now, node, Request::Reconcile(request), length),
            Message::FramesRequest(request) => self.handle_request(now, node, Request::Frames(request), length),
            Message::Hello(hello) => self.handle_hello(now, node, &hello),
            Message::Welcome(welcome) => self.handle_welcome(now, node, welcome),
            // All else counts only from those who are known to be alive.
            _ if known == Some(false) => {}
            Message::Frame(frame) => self.handle_frame(now, node, frame, bare),
            Message::Heartbeat(heartbeat) => self.handle_heartbeat(now, node, heartbeat),
            Message::FramesGone(gone) => self.handle_frames_gone(node, gone),
            Message::Ack(ack) => self.handle_ack(node, ack),
            _ => {}
        }
        self.challenge(now, node);
    }

    fn malformed(&mut self, now: Now, error: &WireError) {
        self.counters.malformed += 1;
        if let Some(suppressed) = self.logs.malformed.pass(now.mono) {
            tracing::warn!(%error, suppressed, "dropped a message that is not of this protocol");
        }
    }
}
