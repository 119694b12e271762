//! What leaves a node: authenticated, cut to what the server takes.

use crate::cache::Millis;
use crate::replica::io::{Output, Target};
use crate::replica::machine::Replica;
use crate::replica::parts::fragments;
use crate::replica::parts::outbox::MAX_FRAME_BYTES;
use crate::replica::parts::spread::spread_of;
use crate::wire::Message;
use bytes::Bytes;

impl Replica {
    /// Publishes a message in the version that all peers understand.
    pub(crate) fn send(&mut self, to: Target, message: &Message) {
        let bytes = message.encode(self.version_for(to), self.cache.node());
        self.publish(to, bytes);
    }

    /// Publishes a message of membership in the oldest version this node speaks, which most others understand, with a
    /// signature that other issuers can check.
    pub(crate) fn introduce(&mut self, to: Target, message: &Message) {
        let bytes = message.encode(self.config.versions.0, self.cache.node());
        self.publish_authenticated(to, bytes, true);
    }

    /// Publishes an encoded message.
    pub(crate) fn publish(&mut self, to: Target, message: Vec<u8>) {
        let signed = self.signs(to);
        self.publish_authenticated(to, message, signed);
    }

    fn publish_authenticated(&mut self, to: Target, message: Vec<u8>, signed: bool) {
        if !self.connected {
            return;
        }
        let most = self.outbox.max_bare();
        if message.len() <= most {
            let payload = self.config.keyring.authenticate(message, signed);
            return self.output(to, payload);
        }
        let (id, node, version) = (self.outbox.fresh_id(), self.cache.node(), message[0]);
        for fragment in fragments::split(id, &Bytes::from(message), most) {
            let bytes = Message::Fragment(fragment).encode(version, node);
            let payload = self.config.keyring.authenticate(bytes, signed);
            self.output(to, payload);
        }
    }

    fn output(&mut self, to: Target, payload: Bytes) {
        match to {
            Target::Node(_) | Target::Bootstrap { .. } => self.counters.repair_bytes_sent += payload.len() as u64,
            Target::Deltas | Target::Heartbeat => {}
        }
        self.outbox.push(Output::Publish { to, payload });
    }

    /// Whether those who are to read it need a signature.
    fn signs(&self, to: Target) -> bool {
        match to {
            Target::Node(node) => self.peers.get(node).is_none_or(|peer| peer.other_issuer),
            Target::Bootstrap { .. } => self.config.keyring.accepts_others(),
            Target::Deltas | Target::Heartbeat => self.config.keyring.accepts_others() && self.peers.any_other_issuer(),
        }
    }

    /// The newest version that those understand who are to read it; the oldest where nobody knows who they are.
    pub(crate) fn version_for(&self, to: Target) -> u8 {
        match to {
            Target::Deltas | Target::Heartbeat => self.version(),
            Target::Node(node) if self.peers.get(node).is_some_and(|peer| peer.proven) => self.version(),
            Target::Node(_) | Target::Bootstrap { .. } => self.config.versions.0,
        }
    }

    /// The newest version that this node and all its peers understand.
    fn version(&self) -> u8 {
        let (oldest, newest) = self.config.versions;
        self.peers.version().unwrap_or(newest).min(newest).max(oldest)
    }

    /// Bytes of deltas that go into one message.
    pub(crate) fn message_bytes(&self) -> usize {
        self.outbox.max_content().clamp(1, MAX_FRAME_BYTES)
    }

    /// A share of `most` milliseconds that differs between nodes, so that many do not do the same at once.
    pub(crate) fn spread(&self, most: Millis) -> Millis {
        spread_of(self.cache.node(), 0) % most.max(1)
    }
}
