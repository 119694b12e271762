//! Any writes at three replicas on a network that loses, reorders and cuts as it likes: when it does so no longer, all
//! of them come to hold and show the same.
#![no_main]

use std::sync::Arc;

use kvcache_core::replica::{Input, Keyring};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The network of the tests of the protocol.
#[path = "../../crates/core/tests/replica/net.rs"]
#[allow(dead_code)]
mod net;
mod support;

use net::{Net, HEARTBEAT};
use support::{keys, perform, seen, write};

const NODES: usize = 3;
const MOST_STEPS: usize = 60;

/// Bytes that decide about messages, over and over.
fn chances(input: &mut Unstructured<'_>) -> Result<impl FnMut() -> u8 + 'static> {
    let bytes = <[u8; 16]>::try_from(input.bytes(16)?).expect("16 bytes");
    let mut place = 0;
    Ok(move || {
        place = (place + 1) % bytes.len();
        bytes[place]
    })
}

fn step(net: &mut Net, input: &mut Unstructured<'_>) -> Result<()> {
    let node = input.choose_index(NODES)?;
    match input.int_in_range(0..=11)? {
        0..=4 => {
            let key = &keys()[input.choose_index(2)?];
            let write = write(input, true)?;
            let now = net.clock_of(node).wall;
            // A write that is refused, for the type of the key, is none.
            let delta = perform(&net.nodes[node].cache, key, &write, now).ok().flatten();
            // One in a few is lost before it leaves.
            if let Some(delta) = delta.filter(|_| input.ratio(7, 8).unwrap_or(true)) {
                net.send(node, vec![delta]);
            }
        }
        5 => net.run(input.int_in_range(0..=3 * HEARTBEAT)?),
        6 => {
            let (mut chance, of_256) = (chances(input)?, input.int_in_range(0..=255)?);
            net.drop_where(move |_, _| chance() < of_256);
        }
        7 => {
            let mut chance = chances(input)?;
            net.deliver_in_order(move |waiting| usize::from(chance()) % waiting);
        }
        8 if net.nodes[node].connected => net.disconnect(node),
        8 => net.connect(node),
        9 if net.nodes[node].stopped => net.go_on(node),
        9 => net.stop(node),
        10 => net.input(node, Input::MessagesLost),
        _ => net.sweep(node),
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let mut net = Net::new();
    for _ in 0..NODES {
        net.join(Arc::new(Keyring::disabled()));
    }
    for _ in 0..MOST_STEPS {
        if input.is_empty() || step(&mut net, &mut input).is_err() {
            break;
        }
    }
    net.drop_nothing();
    for node in 0..NODES {
        if net.nodes[node].stopped {
            net.go_on(node);
        }
        if !net.nodes[node].connected {
            net.connect(node);
        }
    }
    net.settle();
    net.wait_equal();
    let now = net.clock().wall;
    for key in keys() {
        let shown = seen(&net.nodes[0].cache, &key, now);
        for node in &net.nodes[1..] {
            assert_eq!(seen(&node.cache, &key, now), shown, "{key:?}");
        }
    }
});
