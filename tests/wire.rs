//! Golden bytes of every message, and what decoding does with bytes of strangers.
//!
//! The files in tests/golden are the protocol as released: they may be added to, never changed. `BLESS=1 cargo test
//! --test wire` writes those that do not exist yet.

use std::path::PathBuf;

use bytes::Bytes;
use nats_kvcache::cache::{Base, Change, Command, Digest, NodeId, Partition, SeenAdd, Stamp, Time};
use nats_kvcache::replica::wire::{
    Beat, BeatState, Fragment, Frame, Message, ReplayCommands, ReplayEnd, ReplayRequest, WireError, VERSION,
};
use proptest::prelude::*;

const NODE: NodeId = NodeId(0x0102_0304_0506_0708);
const OTHER: NodeId = NodeId(0xf1f2_f3f4_f5f6_f7f8);

fn stamp(millis: u64, counter: u64, node: NodeId) -> Stamp {
    Stamp {
        time: Time(Time::from_millis(millis).0 + counter),
        node,
    }
}

fn command(change: Change) -> Command {
    Command {
        key: Bytes::from_static(b"\0key"),
        change,
    }
}

fn seen() -> Vec<SeenAdd> {
    let base = Base {
        stamp: stamp(1_700_000_000_000, 1, OTHER),
        void: false,
        expired: true,
    };
    let start = Base {
        stamp: Stamp::default(),
        void: true,
        expired: false,
    };
    vec![
        SeenAdd {
            node: NODE,
            base,
            sum: -7,
        },
        SeenAdd {
            node: OTHER,
            base: start,
            sum: 1 << 40,
        },
    ]
}

fn changes() -> Vec<(&'static str, Change)> {
    let at = stamp(1_700_000_000_123, 7, NODE);
    let id = stamp(1_700_000_000_000, 0, OTHER);
    let value = Bytes::from_static(b"value");
    let put = |value, expires_at, seen| Change::Put {
        at,
        value,
        expires_at,
        seen,
    };
    vec![
        ("put", put(Some(value.clone()), None, Vec::new())),
        (
            "put_expiring",
            put(Some(value.clone()), Some(1_700_000_060_123), Vec::new()),
        ),
        ("put_expired", put(None, Some(1_700_000_000_124), Vec::new())),
        ("put_counter", put(Some(Bytes::from_static(b"0")), None, seen())),
        ("delete", Change::Delete { at, seen: Vec::new() }),
        ("delete_counter", Change::Delete { at, seen: seen() }),
        (
            "add",
            Change::Add {
                node: NODE,
                base: Base {
                    stamp: id,
                    void: true,
                    expired: false,
                },
                sum: -300,
                at,
            },
        ),
        (
            "list_push",
            Change::ListPush {
                id,
                value: value.clone(),
            },
        ),
        ("list_remove", Change::ListRemove { id, at }),
        (
            "set_add",
            Change::SetAdd {
                member: value.clone(),
                at,
            },
        ),
        (
            "set_remove",
            Change::SetRemove {
                member: Bytes::new(),
                at,
            },
        ),
    ]
}

fn messages() -> Vec<(String, Message)> {
    let clock = Time::from_millis(1_700_000_000_200);
    let frame = |commands| {
        Message::Frame(Frame {
            node: NODE,
            seq: 300,
            clock,
            commands,
        })
    };
    let mut all: Vec<(String, Message)> = changes()
        .into_iter()
        .map(|(name, change)| (format!("frame_{name}"), frame(vec![command(change)])))
        .collect();
    let every = changes()
        .into_iter()
        .map(|(_, change)| command(change))
        .collect::<Vec<_>>();
    let request = ReplayRequest {
        node: NODE,
        request: 9,
        from: Partition(256),
        digests: vec![Digest(0), Digest(1), Digest(u64::MAX)],
        settled_ms: 1_000,
    };
    let end = ReplayEnd {
        node: OTHER,
        request: 9,
        seq: 70_000,
        messages: 3,
        next: 1_024,
        digest: Digest(0xdead_beef),
    };
    let beat = Beat {
        node: NODE,
        host: "NHOST".into(),
        release: "0.1.0".into(),
        seq: 300,
        digest: Digest(0x1234_5678_9abc_def0),
        keys: 1_000_000,
        clock,
        floor: Time::from_millis(1_699_913_600_000),
        state: BeatState::Synced,
        interval_ms: 1_000,
    };
    let fragment = Fragment {
        node: NODE,
        id: 4,
        index: 1,
        total: 3,
        bytes: Bytes::from_static(&[0, 255, 1]),
    };
    all.extend([
        ("frame_empty".into(), frame(Vec::new())),
        ("frame_all".into(), frame(every.clone())),
        ("replay_request".into(), Message::ReplayRequest(request)),
        (
            "replay_commands".into(),
            Message::ReplayCommands(ReplayCommands {
                node: OTHER,
                request: 9,
                index: 2,
                clock,
                commands: every,
            }),
        ),
        ("replay_end".into(), Message::ReplayEnd(end)),
        ("beat".into(), Message::Beat(beat.clone())),
        (
            "beat_starting".into(),
            Message::Beat(Beat {
                state: BeatState::Starting,
                ..beat.clone()
            }),
        ),
        (
            "beat_leaving".into(),
            Message::Beat(Beat {
                state: BeatState::Leaving,
                ..beat
            }),
        ),
        ("fragment".into(), Message::Fragment(fragment)),
    ]);
    all
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("v{VERSION}_{name}.hex"))
}

fn hex(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    lines.join("\n") + "\n"
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect::<Vec<u8>>().into()
}

#[test]
fn every_message_has_its_golden_bytes() {
    for (name, message) in messages() {
        let path = golden(&name);
        if std::env::var_os("BLESS").is_some() && !path.exists() {
            std::fs::write(&path, hex(&message.encode())).unwrap();
        }
        let released = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; new messages need BLESS=1", path.display()));
        assert_eq!(
            hex(&message.encode()),
            released,
            "{name}: the bytes of a released message have changed"
        );
        assert_eq!(
            Message::decode(unhex(&released)),
            Ok(message),
            "{name}: released bytes are no longer understood"
        );
    }
}

#[test]
fn every_golden_file_has_its_message() {
    let known: Vec<PathBuf> = messages().iter().map(|(name, _)| golden(name)).collect();
    for entry in std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap() {
        let path = entry.unwrap().path();
        assert!(known.contains(&path), "{} is not tested", path.display());
    }
}

#[test]
fn fields_a_later_release_appends_are_ignored() {
    // The beat is an array of 10 (0x9a); a later one may have 11.
    let (_, beat) = messages().into_iter().find(|(name, _)| name == "beat").unwrap();
    let mut bytes = beat.encode().to_vec();
    assert_eq!(bytes[2], 0x9a);
    bytes[2] = 0x9b;
    bytes.extend_from_slice(&[0xa3, b'n', b'e', b'w']);
    assert_eq!(Message::decode(bytes.into()), Ok(beat));
}

#[test]
fn other_versions_and_kinds_are_named() {
    assert_eq!(
        Message::decode(Bytes::from_static(&[2, 1, 0x90])),
        Err(WireError::Version(2))
    );
    assert_eq!(
        Message::decode(Bytes::from_static(&[VERSION, 99, 0x90])),
        Err(WireError::Kind(99))
    );
    assert!(matches!(Message::decode(Bytes::new()), Err(WireError::Malformed(_))));
    assert!(matches!(
        Message::decode(Bytes::from_static(&[VERSION])),
        Err(WireError::Malformed(_))
    ));
}

#[test]
fn announced_lengths_are_checked_against_what_is_there() {
    // A frame that announces 2^32-1 commands, and a key that announces 2^32-1 bytes.
    let head = [VERSION, 1, 0x94, 1, 1, 1];
    for tail in [
        &[0xdd, 255, 255, 255, 255][..],
        &[0x91, 0x95, 3, 0xc6, 255, 255, 255, 255][..],
    ] {
        let bytes: Vec<u8> = head.iter().chain(tail).copied().collect();
        assert!(matches!(Message::decode(bytes.into()), Err(WireError::Malformed(_))));
    }
    // Partitions beyond the last one.
    let request = [VERSION, 2, 0x95, 1, 1, 0xcd, 4, 0, 0xc4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        Message::decode(Bytes::copy_from_slice(&request)),
        Err(WireError::Malformed("range of partitions"))
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..8) {
        let _ = Message::decode(bytes.clone().into());
        let framed: Vec<u8> = [VERSION, kind].into_iter().chain(bytes).collect();
        let _ = Message::decode(framed.into());
    }

    #[test]
    fn damaged_messages_never_panic(which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(),
        byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let all = messages();
        let mut bytes = which.get(&all).1.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = Message::decode(bytes.clone().into());
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = Message::decode(bytes.into());
    }
}
