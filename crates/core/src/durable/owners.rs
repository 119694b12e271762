//! Which node does what one of them has to do for a partition: writes it to a store that all share, makes room in it.

use crate::cache::{NodeId, Partition};

/// Whether `node` is the one of `nodes` that owns a partition: the one with the highest weight for it (rendezvous
/// hashing; Thaler, Ravishankar, 1996). A node that comes or goes changes the owner of its own share alone.
pub fn owns(node: NodeId, nodes: &[NodeId], partition: Partition) -> bool {
    let own = weight(node, partition);
    nodes
        .iter()
        .all(|other| *other == node || weight(*other, partition) < own)
}

/// A mixture of both (the finalizer of MurmurHash3), and the node where two are equal.
fn weight(node: NodeId, partition: Partition) -> (u64, NodeId) {
    let mut mixed = node.0 ^ u64::from(partition.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(multiplier);
    }
    (mixed ^ (mixed >> 33), node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_one_owner_and_a_node_that_goes_leaves_the_others_what_they_have() {
        let nodes: Vec<NodeId> = (1..=5).map(|n| NodeId(n * 0x1234_5678_9abc_def1)).collect();
        let owner = |nodes: &[NodeId], partition| {
            let owners: Vec<NodeId> = nodes
                .iter()
                .filter(|node| owns(**node, nodes, partition))
                .copied()
                .collect();
            assert_eq!(owners.len(), 1);
            owners[0]
        };
        let mut shares = [0; 5];
        for partition in Partition::all() {
            let of_all = owner(&nodes, partition);
            shares[nodes.iter().position(|node| *node == of_all).unwrap()] += 1;
            let of_four = owner(&nodes[..4], partition);
            assert!(of_all == of_four || of_all == nodes[4]);
        }
        assert!(shares.iter().all(|share| (140..270).contains(share)), "{shares:?}");
    }
}
