//! Short names of processes, so that a stamp in memory takes 9 or 10 bytes instead of 16.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::stamp::NodeId;

/// Processes that have a short name. Those that come later are written out in full, which costs 8 bytes per key.
const SLOTS: usize = 8_192;

/// The first slots, whose names fit into a byte. A process gets one of those if it can.
const FIRST_SLOTS: usize = 256;

/// Slots that are looked at for one process among the first, and then among all.
const PROBES: usize = 8;

/// A hash table of process ids with open addressing, in which a process keeps its place for good; the place is its
/// name. It never grows and nothing is ever taken out: a lattice restarted thousands of times, or a peer that invents
/// process ids, fills it up and then costs memory per key as though it were not there.
pub(in crate::cache) struct Nodes(Box<[AtomicU64]>);

impl Nodes {
    pub fn new() -> Self {
        Nodes((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// The short name of a process; `None` where the table has no place for it.
    pub fn name(&self, node: NodeId) -> Option<u16> {
        // 0 marks a free slot.
        if node.0 == 0 {
            return None;
        }
        // Fibonacci hashing (Knuth, TAOCP 6.4): the upper bits of the product.
        let place = (node.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize;
        let probes = |slots: usize| (place..place + PROBES).map(move |slot| slot % slots);
        for slot in probes(FIRST_SLOTS).chain(probes(SLOTS)) {
            let known = match self.0[slot].load(Ordering::Relaxed) {
                0 => match self.0[slot].compare_exchange(0, node.0, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => node.0,
                    Err(quicker) => quicker,
                },
                known => known,
            };
            if known == node.0 {
                return Some(slot as u16);
            }
        }
        None
    }

    /// The process with this name. Names travel between threads under the lock of a partition, which orders the two.
    pub fn node(&self, name: u16) -> NodeId {
        NodeId(self.0[usize::from(name) % SLOTS].load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_its_process() {
        let nodes = Nodes::new();
        let mut named = 0;
        for id in (1..20_000u64).map(|n| n.wrapping_mul(0x1234_5678_9abc_def1)) {
            let Some(name) = nodes.name(NodeId(id)) else { continue };
            named += 1;
            assert_eq!(nodes.node(name), NodeId(id));
            assert_eq!(nodes.name(NodeId(id)), Some(name));
        }
        assert!((SLOTS * 9 / 10..=SLOTS).contains(&named), "{named} of {SLOTS}");
    }

    #[test]
    fn the_first_processes_have_names_of_one_byte() {
        let nodes = Nodes::new();
        let names = (1..=128u64).map(|n| nodes.name(NodeId(n.wrapping_mul(0x1234_5678_9abc_def1))));
        let mut names = names.map(|name| name.map_or(SLOTS, usize::from));
        assert!(names.all(|name| name < FIRST_SLOTS));
        assert_eq!(nodes.name(NodeId(0)), None);
    }
}
