//! Sets: per member the newest stamp and whether it is present.

use std::collections::BTreeMap;

use super::blob::Blob;
use super::hash::{self, KeyHash};
use super::stamp::{Stamp, Time};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Membership {
    pub at: Stamp,
    pub present: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Set {
    /// Sorted, so that queries answer in order.
    pub members: BTreeMap<Blob, Membership>,
    /// How many are present.
    pub present: usize,
    /// Newest stamp among the members.
    pub newest: Stamp,
}

impl Set {
    /// Merges the state of one member by newest stamp. Returns the change of the digest.
    pub fn merge(&mut self, key: KeyHash, member: &[u8], new: Membership) -> u64 {
        let new_hash = hash::of_member(key, member, new.at, new.present);
        let delta = match self.members.get_mut(member) {
            None => {
                self.members.insert(Blob::new(member), new);
                new_hash
            }
            Some(known) if known.at < new.at => {
                let old = std::mem::replace(known, new);
                self.present -= usize::from(old.present);
                new_hash.wrapping_sub(hash::of_member(key, member, old.at, old.present))
            }
            Some(_) => return 0,
        };
        self.present += usize::from(new.present);
        self.newest = self.newest.max(new.at);
        delta
    }

    /// Drops a member that was added before `at`, without a mark that it was there. Returns the change of the digest.
    pub fn drop_member(&mut self, key: KeyHash, member: &[u8], at: Stamp) -> u64 {
        match self.members.get(member).copied() {
            Some(known) if known.present && known.at < at => {
                self.members.remove(member);
                self.present -= 1;
                hash::of_member(key, member, known.at, true).wrapping_neg()
            }
            _ => 0,
        }
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        self.members.get(member).is_some_and(|membership| membership.present)
    }

    /// The members that are present, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Blob> {
        self.members
            .iter()
            .filter(|(_, membership)| membership.present)
            .map(|(member, _)| member)
    }

    /// Drops what a reset at `horizon` covers. Returns the change of the digest.
    pub fn drop_covered(&mut self, key: KeyHash, horizon: Stamp) -> u64 {
        self.drop_where(key, |_, membership| membership.at <= horizon)
    }

    /// Forgets removals before `floor`. Returns the change of the digest.
    pub fn collect(&mut self, key: KeyHash, floor: Time) -> u64 {
        let delta = self.drop_where(key, |_, membership| !membership.present && membership.at.time < floor);
        // What is forgotten decides nothing any more, on no node.
        if delta != 0 {
            self.renew_newest();
        }
        delta
    }

    /// Drops members without a trace, as though they had never arrived. Returns the change of the digest.
    pub fn forget(&mut self, key: KeyHash, doomed: impl FnMut(&Blob, &Membership) -> bool) -> u64 {
        let delta = self.drop_where(key, doomed);
        self.renew_newest();
        delta
    }

    fn renew_newest(&mut self) {
        let stamps = self.members.values().map(|membership| membership.at);
        self.newest = stamps.max().unwrap_or_default();
    }

    fn drop_where(&mut self, key: KeyHash, mut gone: impl FnMut(&Blob, &Membership) -> bool) -> u64 {
        let mut delta = 0u64;
        let mut present = self.present;
        self.members.retain(|member, membership| {
            let drop = gone(member, membership);
            if drop {
                delta = delta.wrapping_sub(hash::of_member(key, member, membership.at, membership.present));
                present -= usize::from(membership.present);
            }
            !drop
        });
        self.present = present;
        delta
    }
}
