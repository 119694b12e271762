//! What strangers can send: any bytes. What is understood is written again and understood the same.
#![no_main]

use bytes::Bytes;
use kvcache_core::wire::{Header, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let (Some(header), Ok(message)) = (Header::of(data), Message::decode(Bytes::copy_from_slice(data))) {
        let again = Message::decode(message.encode(header.version, header.node).into());
        assert_eq!(again, Ok(message));
    }
});
