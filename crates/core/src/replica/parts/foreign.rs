//! Nodes that cannot be peers: of issuers that are not accepted here, or of versions that are not spoken here.

use crate::cache::{Millis, NodeId};
use crate::wire;

/// Foreign issuers that are remembered.
const MAX_FOREIGN: usize = 16;

/// Nodes of unknown versions that are remembered.
const MAX_UNKNOWN: usize = 64;

/// A node that was silent for so long is forgotten.
const SILENCE_MS: Millis = 60_000;

/// A node takes the place of another this often at most, where there is no room for more.
const TURN_MS: Millis = 1_000;

/// Foreign nodes heard of late. Anybody can invent them: those that came first keep their places for as long as they
/// are heard, and the last place changes hands, so that each is named now and then.
struct Recent<T> {
    /// With the time at which each was heard last, in the order in which they came.
    names: Vec<(T, Millis)>,
    most: usize,
    next_turn: Millis,
}

impl<T: PartialEq + Clone> Recent<T> {
    fn of(most: usize) -> Self {
        Recent {
            names: Vec::new(),
            most,
            next_turn: 0,
        }
    }

    /// Takes note of one. Returns whether it is named from now on and was not before; `None` if there is no room.
    fn heard(&mut self, name: &T, now: Millis) -> Option<bool> {
        if let Some((_, heard)) = self.names.iter_mut().find(|(known, _)| known == name) {
            *heard = now;
            return Some(false);
        }
        self.names.retain(|(_, heard)| now.saturating_sub(*heard) < SILENCE_MS);
        if self.names.len() >= self.most {
            if now < self.next_turn {
                return None;
            }
            self.names.pop();
        }
        self.next_turn = now + TURN_MS;
        self.names.push((name.clone(), now));
        Some(true)
    }

    fn names(&self, now: Millis) -> impl Iterator<Item = &T> {
        let recent = move |(_, heard): &&(T, Millis)| now.saturating_sub(*heard) < SILENCE_MS;
        self.names.iter().filter(recent).map(|(name, _)| name)
    }
}

/// Nodes that cannot be peers.
pub(crate) struct ForeignNodes {
    issuers: Recent<String>,
    /// Version and node.
    unknown: Recent<(u8, NodeId)>,
}

impl Default for ForeignNodes {
    fn default() -> Self {
        ForeignNodes {
            issuers: Recent::of(MAX_FOREIGN),
            unknown: Recent::of(MAX_UNKNOWN),
        }
    }
}

impl ForeignNodes {
    /// A message of this issuer was heard. Returns whether it is to be named; `None` if there is no room for it.
    pub fn hears_issuer(&mut self, issuer: &String, now: Millis) -> Option<bool> {
        self.issuers.heard(issuer, now)
    }

    /// A message of this version was heard of a node, likewise.
    pub fn hears_version(&mut self, version: u8, node: NodeId, now: Millis) -> Option<bool> {
        self.unknown.heard(&(version, node), now)
    }

    /// Public keys of issuers that are not accepted here, as their messages say. Whether these hold their seeds is not
    /// looked at.
    pub fn issuers(&self, now: Millis) -> Vec<String> {
        self.issuers.names(now).cloned().collect()
    }

    /// As many of them as a heartbeat may name, others with each heartbeat.
    pub fn issuers_for_heartbeat(&self, number: u64, now: Millis) -> Vec<String> {
        let all = self.issuers(now);
        let first = number as usize % all.len().max(1);
        all.iter()
            .cycle()
            .skip(first)
            .take(all.len().min(wire::MAX_FOREIGN_IN_HEARTBEAT))
            .cloned()
            .collect()
    }
}
