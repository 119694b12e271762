//! Spreads what many nodes do at the same time.

use crate::cache::NodeId;

/// A number that looks random but is the same for the same pair (the finalizer of SplitMix64).
pub(crate) fn spread_of(node: NodeId, other: u64) -> u64 {
    let mut mixed = node.0 ^ other.rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
