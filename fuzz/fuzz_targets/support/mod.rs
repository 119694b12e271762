//! What the targets with caches and replicas have in common: the writes of clients, made of arbitrary bytes.
#![allow(dead_code)]

use kvcache_core::cache::Key;
use libfuzzer_sys::arbitrary::{Result, Unstructured};

/// Writes and reads as the simulator has them.
#[path = "../../../crates/sim/src/client.rs"]
mod client;
pub use client::*;

pub fn keys() -> [Key; 2] {
    [Key::shared(b"first"), Key::shared(b"second key, longer than 23 bytes")]
}

/// A write of a client, with a deadline for some values if `expiring`.
pub fn write(input: &mut Unstructured<'_>, expiring: bool) -> Result<Write> {
    let text = |input: &mut Unstructured<'_>| {
        let texts = ["a", "b", "", "value of more than 23 bytes"];
        input.choose(&texts).map(|text| (*text).to_owned())
    };
    Ok(match input.int_in_range(0..=11)? {
        0..=1 => Write::Set {
            value: match input.int_in_range(0..=4)? {
                0..=2 => input.int_in_range(-50..=50)?.to_string(),
                3 => "text".into(),
                _ => "007".into(),
            },
            expires: match expiring {
                true => input.int_in_range(0..=3)?,
                false => 0,
            },
        },
        2 => Write::Delete,
        3..=5 => Write::Increment(input.int_in_range(-9..=9)?),
        6..=7 => Write::Push(text(input)?),
        8 => Write::Remove(text(input)?),
        9..=10 => Write::Add(text(input)?),
        _ => Write::Drop(text(input)?),
    })
}
