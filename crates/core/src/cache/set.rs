//! Sets: the members that are there, and apart from them those that were removed, each with its newest stamp.

use std::collections::BTreeMap;

use super::blob::Blob;
use super::component::Part;
use super::hash::{self, KeyHash};
use super::memory::of_tree;
use super::removed::Removed;
use super::stamp::{Stamp, Time};

/// Removed members in one piece of them, of which a short one has some fifty.
const FEW_IN_A_PIECE: usize = 8;

/// What is known of one member. Of two, the newer one counts; of equal stamps the one that is present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Membership {
    pub at: Stamp,
    pub present: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    /// Sorted, so that queries answer in order.
    present: BTreeMap<Blob, Stamp>,
    /// Queries do not see these.
    removed: Removed,
    /// Newest stamp among the members.
    pub newest: Stamp,
    /// Bytes that the members which are there take beside their place in the tree.
    member_bytes: usize,
    /// How many of them came after all others, and how many in all.
    in_order: (u32, u32),
}

impl Set {
    /// What is known of a member.
    pub fn part(&self, name: &[u8]) -> Option<Part<'_>> {
        if let Some((member, &at)) = self.present.get_key_value(name) {
            return Some(part(member, at, true));
        }
        let (member, at) = self.removed.get_entry(name)?;
        Some(part(member, at, false))
    }

    /// Merges the state of one member. Returns the change of the digest.
    pub fn merge(&mut self, key: KeyHash, member: &[u8], new: Membership) -> u64 {
        let known = self.known(member);
        if known.is_some_and(|known| known >= new) {
            return 0;
        }
        let of_member = |state: Membership| hash::of_member(key, member, state.at, state.present);
        match (known, new.present) {
            (Some(Membership { present: false, .. }), true) => self.removed.remove(member),
            (Some(Membership { present: true, .. }), false) => self.take_member(member),
            _ => {}
        }
        if !new.present {
            self.removed.insert(member, new.at);
        } else if let Some(at) = self.present.get_mut(member) {
            *at = new.at;
        } else {
            let member = Blob::new(member);
            self.member_bytes += member.heap_bytes();
            self.count_inserted(&member);
            self.present.insert(member, new.at);
        }
        self.newest = self.newest.max(new.at);
        of_member(new).wrapping_sub(known.map_or(0, of_member))
    }

    fn known(&self, member: &[u8]) -> Option<Membership> {
        if let Some(&at) = self.present.get(member) {
            return Some(Membership { at, present: true });
        }
        let at = self.removed.get(member)?;
        Some(Membership { at, present: false })
    }

    /// Drops a member that was added before `at`, without a mark that it was there. Returns the change of the digest.
    pub fn drop_member(&mut self, key: KeyHash, member: &[u8], at: Stamp) -> u64 {
        match self.present.get(member).copied() {
            Some(known) if known < at => {
                self.take_member(member);
                hash::of_member(key, member, known, true).wrapping_neg()
            }
            _ => 0,
        }
    }

    fn count_inserted(&mut self, member: &Blob) {
        let (in_order, in_all) = &mut self.in_order;
        if *in_all == u32::MAX {
            (*in_order, *in_all) = (*in_order / 2, *in_all / 2);
        }
        let last = self.present.last_key_value();
        *in_order += u32::from(last.is_none_or(|(last, _)| last < member));
        *in_all += 1;
    }

    fn take_member(&mut self, member: &[u8]) {
        if let Some((member, _)) = self.present.remove_entry(member) {
            self.member_bytes -= member.heap_bytes();
        }
    }

    /// Bytes that it takes beside itself.
    pub fn heap_bytes(&self) -> usize {
        let tree = of_tree(self.present.len(), size_of::<(Blob, Stamp)>(), self.in_order);
        tree + self.member_bytes + self.removed.heap_bytes()
    }

    /// Those of them that are left of removals.
    pub fn deletion_bytes(&self) -> usize {
        self.removed.heap_bytes()
    }

    /// Whether the sums that it keeps are those of what it holds.
    #[cfg(test)]
    pub fn sums_hold(&self) -> bool {
        let member_bytes: usize = self.present.keys().map(Blob::heap_bytes).sum();
        self.member_bytes == member_bytes && self.removed.sums_hold()
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        self.present.contains_key(member)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// At least about how many members something is known of.
    pub fn elements(&self) -> usize {
        self.present.len() + self.removed.pieces() * FEW_IN_A_PIECE
    }

    /// Whether nothing is known of any member.
    pub fn is_blank(&self) -> bool {
        self.present.is_empty() && self.removed.is_empty()
    }

    /// The members, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Blob> {
        self.present.keys()
    }

    /// Shows what is known of every member, there or removed.
    pub fn parts<'a>(&'a self, mut show: impl FnMut(Part<'a>)) {
        for (member, &at) in &self.present {
            show(part(member, at, true));
        }
        for (member, at) in self.removed.iter() {
            show(part(member, at, false));
        }
    }

    /// Drops what a reset at `horizon` covers. Returns the change of the digest.
    pub fn drop_covered(&mut self, key: KeyHash, horizon: Stamp) -> u64 {
        self.drop_where(key, |_, membership| membership.at <= horizon)
    }

    /// Forgets removals before `floor`. Returns the change of the digest.
    pub fn collect(&mut self, key: KeyHash, floor: Time) -> u64 {
        let mut delta = 0u64;
        self.removed.retain(|member, at| {
            let keep = at.time >= floor;
            if !keep {
                delta = delta.wrapping_sub(hash::of_member(key, member, at, false));
            }
            keep
        });
        // What is forgotten decides nothing any more, on no node.
        if delta != 0 {
            self.renew_newest();
        }
        delta
    }

    /// Drops members without a trace, as though they had never arrived. Returns the change of the digest.
    pub fn forget(&mut self, key: KeyHash, mut to_remove: impl FnMut(Part<'_>) -> bool) -> u64 {
        let delta = self.drop_where(key, |member, known| to_remove(part(member, known.at, known.present)));
        self.renew_newest();
        delta
    }

    fn renew_newest(&mut self) {
        let present = self.present.values().copied();
        let stamps = present.chain(self.removed.iter().map(|(_, at)| at));
        self.newest = stamps.max().unwrap_or_default();
    }

    fn drop_where(&mut self, key: KeyHash, mut gone: impl FnMut(&[u8], Membership) -> bool) -> u64 {
        let mut delta = 0u64;
        let mut keep = |member: &[u8], at: Stamp, present: bool| {
            let drop = gone(member, Membership { at, present });
            if drop {
                delta = delta.wrapping_sub(hash::of_member(key, member, at, present));
            }
            !drop
        };
        self.present.retain(|member, at| {
            let keep = keep(member, *at, true);
            self.member_bytes -= if keep { 0 } else { member.heap_bytes() };
            keep
        });
        self.removed.retain(|member, at| keep(member, at, false));
        delta
    }
}

fn part(member: &[u8], at: Stamp, present: bool) -> Part<'_> {
    Part::Member { member, at, present }
}
