//! What strangers can send: any bytes. What is understood is written again and understood the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nats_kvcache::replica::wire::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Message::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(Message::decode(message.encode()), Ok(message));
    }
});
