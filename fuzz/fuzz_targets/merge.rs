//! Any deltas that are accepted, each twice: nothing panics, and the digest kept in O(1) stays that of the state.
#![no_main]

use bytes::Bytes;
use kvcache_core::cache::{Cache, Limits, NodeId};
use kvcache_core::wire::{Kind, Message, VERSION};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_700_000_000_000;

fuzz_target!(|data: &[u8]| {
    let bytes = [&[VERSION, Kind::Frame as u8, 0, 0, 0, 0, 0, 0, 0, 0], data].concat();
    let Ok(Message::Frame(frame)) = Message::decode(Bytes::from(bytes)) else {
        return;
    };
    let forward = Cache::new(NodeId(1), Limits::default());
    for delta in &frame.deltas {
        let _ = forward.apply(delta, NOW);
        let _ = forward.apply(delta, NOW);
        assert_eq!(forward.root_digest(), forward.recomputed_digest());
    }
});
