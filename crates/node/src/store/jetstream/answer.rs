//! What JetStream answers.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::Value;

/// Numbers of errors that JetStream answers with.
pub(super) mod code {
    pub const JETSTREAM_NOT_ENABLED: u64 = 10_076;
    pub const JETSTREAM_NOT_ENABLED_FOR_ACCOUNT: u64 = 10_039;
    pub const RESOURCE_LIMITS_EXCEEDED: u64 = 10_002;
    pub const NO_MESSAGE_FOUND: u64 = 10_037;
    pub const SEQUENCE_NOT_FOUND: u64 = 10_043;
    pub const NAME_IN_USE: u64 = 10_058;
    pub const STREAM_NOT_FOUND: u64 = 10_059;
    pub const REPLICAS_NOT_SUPPORTED: u64 = 10_074;
    pub const MAX_BYTES_REQUIRED: u64 = 10_113;
    pub const WRONG_LAST_SEQUENCE: [u64; 2] = [10_071, 10_164];
}

/// An error in an answer of JetStream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    /// As of HTTP.
    pub status: u64,
    pub code: u64,
    pub text: String,
}

/// Reads an answer: JSON, with an error in it or without.
pub(super) fn read(answer: &[u8]) -> Option<Result<Value, Refused>> {
    let value: Value = serde_json::from_slice(answer).ok()?;
    match value.get("error") {
        None => Some(Ok(value)),
        Some(error) => Some(Err(Refused {
            status: error["code"].as_u64().unwrap_or(0),
            code: error["err_code"].as_u64().unwrap_or(0),
            text: error["description"]
                .as_str()
                .unwrap_or("an error without a name")
                .into(),
        })),
    }
}

/// A message that a stream keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub sequence: u64,
    /// When it was stored, as RFC 3339.
    pub time: String,
    pub payload: Bytes,
    /// It says that its key was deleted.
    pub is_marker: bool,
}

impl Kept {
    /// Of the answer to a direct get.
    pub fn of(answer: &Message) -> Option<Self> {
        let headers = answer.headers.as_ref();
        Some(Kept {
            sequence: header(headers, "Nats-Sequence")?.parse().ok()?,
            time: header(headers, "Nats-Time-Stamp").unwrap_or_default().into(),
            payload: answer.payload.clone(),
            is_marker: is_marker(headers),
        })
    }

    /// Of JSON, where payload and headers are in base 64.
    pub fn read(message: &Value) -> Option<Self> {
        let bytes = |name: &str| {
            BASE64
                .decode(message[name].as_str().unwrap_or_default().as_bytes())
                .ok()
        };
        let headers = bytes("hdrs")?;
        let headers = String::from_utf8_lossy(&headers);
        Some(Kept {
            sequence: message["seq"].as_u64()?,
            time: message["time"].as_str().unwrap_or_default().into(),
            payload: bytes("data")?.into(),
            is_marker: MARKERS.iter().any(|name| headers.contains(name)),
        })
    }
}

/// Headers of messages that say that a key was deleted.
const MARKERS: [&str; 2] = ["KV-Operation", "Nats-Marker-Reason"];

/// Whether a message says that somebody has deleted a key of the bucket.
pub(super) fn is_marker(headers: Option<&HeaderMap>) -> bool {
    MARKERS.iter().any(|name| header(headers, name).is_some())
}

pub(super) fn header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get(name).map(|value| value.as_str())
}

/// Where a message stands in its consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Delivery {
    /// In its stream.
    pub sequence: u64,
    /// In its consumer, counted from 1.
    pub number: u64,
}

/// Reads that from the subject that a message is to be acknowledged on:
///
/// ```text
/// $JS.ACK.                stream.consumer.delivered.sequence.number.time.pending
/// $JS.ACK.domain.account. stream.consumer.delivered.sequence.number.time.pending.random
/// ```
pub(super) fn delivery(message: &Message) -> Option<Delivery> {
    let reply = message.reply.as_ref()?.as_str();
    let first = match reply.bytes().filter(|byte| *byte == b'.').count() + 1 {
        9 => 2,
        11.. => 4,
        _ => return None,
    };
    let mut tokens = reply.split('.').skip(first + 3);
    Some(Delivery {
        sequence: tokens.next()?.parse().ok()?,
        number: tokens.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_from_answers() {
        let refused = read(br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"}}"#);
        let refused = refused.unwrap().unwrap_err();
        assert_eq!((refused.status, refused.code), (400, code::WRONG_LAST_SEQUENCE[0]));
        assert_eq!(read(b"{\"seq\":7}").unwrap().unwrap()["seq"], 7);
        assert_eq!(read(b"seven"), None);
    }

    #[test]
    fn messages_are_read_from_json() {
        let message = serde_json::json!({
            "subject": "s", "seq": 7, "data": "dGV4dA==", "hdrs": "TkFUUy8xLjANCktWLU9wZXJhdGlvbjogREVMDQoNCg==",
            "time": "2026-11-28T12:00:00Z",
        });
        let kept = Kept::read(&message).unwrap();
        assert_eq!(
            (kept.sequence, &kept.payload[..], kept.is_marker),
            (7, &b"text"[..], true)
        );
        let empty = Kept::read(&serde_json::json!({ "subject": "s", "seq": 8, "time": "" })).unwrap();
        assert_eq!((empty.sequence, empty.payload.len(), empty.is_marker), (8, 0, false));
        assert_eq!(Kept::read(&serde_json::json!({ "seq": 8, "data": "?" })), None);
    }

    #[test]
    fn deliveries_are_read_with_and_without_a_domain() {
        let of = |reply: &str| {
            delivery(&Message {
                subject: "s".into(),
                reply: Some(reply.into()),
                payload: Default::default(),
                headers: None,
                status: None,
                description: None,
                length: 0,
            })
        };
        let expected = Some(Delivery {
            sequence: 77,
            number: 8,
        });
        assert_eq!(of("$JS.ACK.KV_b.c.1.77.8.1234567.5"), expected);
        assert_eq!(of("$JS.ACK.hub.ACCOUNT.KV_b.c.1.77.8.1234567.5.xyz"), expected);
        assert_eq!(of("$JS.ACK.KV_b.c.1.77.8"), None);
        assert_eq!(of("_INBOX.x.1"), None);
    }
}
