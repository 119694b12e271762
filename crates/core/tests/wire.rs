//! Golden bytes of every message, and what decoding does with bytes of strangers.
//!
//! The files in tests/golden are the protocol as released: they may be added to, never changed. `BLESS=1 cargo test -p
//! kvcache-core --test wire` writes those that do not exist yet.

use std::path::PathBuf;

use bytes::Bytes;
use kvcache_core::cache::{
    Base, Blob, Cache, Component, Cursor, Delta, Digest, Hint, KeyHash, Limits, NodeId, Partition, Position, Room,
    SeenAdd, Span, Stamp, StateDelta, Time, Value,
};
use kvcache_core::codec::{CodecError, Decoder, Encoder};
use kvcache_core::wire::{
    place, AnswerEnd, BootstrapDeltas, BootstrapRequest, Compare, DigestRequest, Fetch, Fragment, Frame, FrameAck,
    FramesGone, FramesRequest, Header, Heartbeat, HeartbeatState, Hello, Holding, Kind, Message, Offer, Part,
    RangeSplit, RangeSplits, Reconcile, Sketch, SketchRequest, SpanDigest, Symbol, Unknown, Want, Welcome, WireError,
    HEADER_BYTES, MAX_SYMBOLS, VERSION,
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

fn delta(change: StateDelta) -> Delta {
    Delta {
        key: Blob::from("\0key"),
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

fn changes() -> Vec<(&'static str, StateDelta)> {
    let at = stamp(1_700_000_000_123, 7, NODE);
    let id = stamp(1_700_000_000_000, 0, OTHER);
    let value = Blob::from("value");
    let put = |value, expires_at, seen| StateDelta::Put {
        at,
        value,
        expires_at,
        seen,
    };
    vec![
        ("put", put(Value::Held(value.clone()), None, Vec::new())),
        (
            "put_expiring",
            put(Value::Held(value.clone()), Some(1_700_000_060_123), Vec::new()),
        ),
        (
            "put_expired",
            put(
                Value::Held(value.clone()).given_back(),
                Some(1_700_000_000_124),
                Vec::new(),
            ),
        ),
        ("put_counter", put(Value::Held(Blob::from("0")), None, seen())),
        ("delete", StateDelta::Delete { at, seen: Vec::new() }),
        ("delete_counter", StateDelta::Delete { at, seen: seen() }),
        (
            "add",
            StateDelta::Add {
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
            StateDelta::ListPush {
                id,
                value: value.clone(),
            },
        ),
        ("list_remove", StateDelta::ListRemove { id, at }),
        (
            "set_add",
            StateDelta::SetAdd {
                member: value.clone(),
                at,
            },
        ),
        (
            "set_remove",
            StateDelta::SetRemove {
                member: Blob::default(),
                at,
            },
        ),
    ]
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        number: 77,
        seq: 300,
        digest: Digest(0x1234_5678_9abc_def0),
        keys: 1_000_000,
        clock: Time::from_millis(1_700_000_000_200),
        floor: Time::from_millis(1_699_913_600_000),
        contact: Time::from_millis(1_700_000_000_100),
        since: Time::from_millis(1_690_000_000_000),
        joined: Time::from_millis(1_695_000_000_000),
        listening: Time::from_millis(1_696_000_000_000),
        state: HeartbeatState::Synced,
        interval_ms: 1_000,
        wants_heartbeats: false,
        versions: (2, 2),
        foreign: Vec::new(),
        room: None,
        hints: Vec::new(),
        store: 0,
    }
}

fn partitions() -> Vec<Partition> {
    [3, 4, 300, 1_023].map(Partition).to_vec()
}

fn messages() -> Vec<(String, Message)> {
    let clock = Time::from_millis(1_700_000_000_200);
    let frame = |deltas, wants_ack| {
        Message::Frame(Frame {
            seq: 300,
            wants_ack,
            clock,
            deltas,
        })
    };
    let mut all: Vec<(String, Message)> = changes()
        .into_iter()
        .map(|(name, change)| (format!("frame_{name}"), frame(vec![delta(change)], false)))
        .collect();
    let every = changes()
        .into_iter()
        .map(|(_, change)| delta(change))
        .collect::<Vec<_>>();
    let part = Part {
        to: NODE,
        request: 9,
        index: 2,
    };
    let request = |want| BootstrapRequest {
        request: 9,
        from: Partition(256),
        digests: vec![Digest(0), Digest(1), Digest(u64::MAX)],
        want,
        budget: 65_536,
        rest: None,
    };
    let end = AnswerEnd {
        to: NODE,
        request: 9,
        parts: 3,
        next: 1_024,
        rest: None,
        seqs: vec![(OTHER, 70_000), (NodeId(7), 0)],
    };
    let rest = Some(Cursor::of_bytes([
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    ]));
    let fragment = Fragment {
        id: 4,
        index: 1,
        total: 3,
        bytes: Bytes::from_static(&[0, 255, 1]),
    };
    let whole = Span::of(Partition(3));
    let middle = Position {
        key: whole.first.key + 1_000,
        element: 5,
    };
    let half = Span::new(whole.first, middle).expect("in order");
    let splits = RangeSplits {
        part,
        splits: vec![RangeSplit {
            span: whole,
            parts: vec![
                SpanDigest {
                    last: middle,
                    digest: Digest(1),
                    count: 32,
                },
                SpanDigest {
                    last: whole.last,
                    digest: Digest(u64::MAX),
                    count: 31,
                },
            ],
        }],
    };
    let fetch = |resyncs| Fetch {
        request: 9,
        resyncs,
        holdings: vec![
            Holding {
                span: half,
                hashes: Some(vec![1, u64::MAX]),
            },
            Holding {
                span: whole,
                hashes: None,
            },
        ],
        budget: 65_536,
    };
    let state = |state| Message::Heartbeat(Heartbeat { state, ..heartbeat() });
    all.extend([
        ("frame_empty".into(), frame(Vec::new(), false)),
        ("frame_all".into(), frame(every.clone(), true)),
        (
            "replay_request".into(),
            Message::BootstrapRequest(request(Want::Deltas)),
        ),
        (
            "replay_request_splits".into(),
            Message::BootstrapRequest(request(Want::RangeSplits)),
        ),
        (
            "replay_commands".into(),
            Message::BootstrapDeltas(BootstrapDeltas {
                part,
                clock,
                deltas: every,
            }),
        ),
        (
            "replay_request_rest".into(),
            Message::BootstrapRequest(BootstrapRequest {
                digests: vec![Digest(1)],
                rest,
                ..request(Want::Deltas)
            }),
        ),
        (
            "replay_end_rest".into(),
            Message::AnswerEnd(AnswerEnd {
                next: 17,
                rest,
                ..end.clone()
            }),
        ),
        ("replay_end".into(), Message::AnswerEnd(end)),
        ("beat".into(), Message::Heartbeat(heartbeat())),
        ("beat_starting".into(), state(HeartbeatState::Starting)),
        ("beat_leaving".into(), state(HeartbeatState::Leaving)),
        (
            "beat_foreign".into(),
            Message::Heartbeat(Heartbeat {
                wants_heartbeats: true,
                foreign: vec!["CISSUER".into()],
                ..heartbeat()
            }),
        ),
        (
            "beat_room".into(),
            Message::Heartbeat(Heartbeat {
                room: Some(Room {
                    cap: 1_000_000,
                    used: 300,
                }),
                hints: vec![Hint::of_bits(0x1234_5678_9abc_de07), Hint::of_bits(1)],
                ..heartbeat()
            }),
        ),
        (
            "beat_no_room".into(),
            Message::Heartbeat(Heartbeat {
                room: Some(Room {
                    cap: 1 << 20,
                    used: 1 << 21,
                }),
                ..heartbeat()
            }),
        ),
        (
            "beat_store".into(),
            Message::Heartbeat(Heartbeat {
                store: 0x0123_4567_89ab_cdef,
                ..heartbeat()
            }),
        ),
        ("fragment".into(), Message::Fragment(fragment)),
        (
            "compare".into(),
            Message::Compare(Compare {
                request: 9,
                spans: vec![(half, Digest(3)), (whole, Digest(0))],
                budget: 65_536,
            }),
        ),
        ("splits".into(), Message::RangeSplits(splits)),
        ("fetch".into(), Message::Fetch(fetch(false))),
        ("fetch_yields".into(), Message::Fetch(fetch(true))),
        (
            "unknown".into(),
            Message::Unknown(Unknown {
                part,
                hashes: vec![0, u64::MAX],
            }),
        ),
        (
            "frames_request".into(),
            Message::FramesRequest(FramesRequest {
                request: 9,
                missing: vec![(3, 3), (7, 70_000)],
                budget: 65_536,
            }),
        ),
        (
            "frames_gone".into(),
            Message::FramesGone(FramesGone { to: NODE, oldest: 8 }),
        ),
        (
            "hello".into(),
            Message::Hello(Hello {
                to: OTHER,
                number: 12,
                knows_you: false,
            }),
        ),
        (
            "welcome".into(),
            Message::Welcome(Welcome {
                to: OTHER,
                number: 12,
                knows_you: true,
                host: "NHOST".into(),
                release: "0.1.0".into(),
                heartbeat: heartbeat(),
            }),
        ),
        (
            "ack".into(),
            Message::Ack(FrameAck {
                to: OTHER,
                seq: 12,
                contiguous: 10,
            }),
        ),
        (
            "survey".into(),
            Message::DigestRequest(DigestRequest {
                request: 9,
                from: Partition(256),
                digests: vec![0, 1, u32::MAX],
                settled_ms: 1_000,
                budget: 65_536,
            }),
        ),
        (
            "sketch".into(),
            Message::Sketch(Sketch {
                part,
                partitions: partitions(),
                first: 0,
                symbols: vec![
                    Symbol {
                        sum: 0x0102_0304_0506_0708,
                        check: 0x090a_0b0c,
                        count: 300,
                    },
                    Symbol {
                        sum: u64::MAX,
                        check: 0,
                        count: -1,
                    },
                ],
            }),
        ),
        (
            "sketch_request".into(),
            Message::SketchRequest(SketchRequest {
                request: 9,
                partitions: partitions(),
                first: 330,
                count: 110,
            }),
        ),
        (
            "exchange".into(),
            Message::Reconcile(Reconcile {
                request: 9,
                partitions: partitions(),
                wanted: vec![1, u64::MAX],
                offers: vec![Offer {
                    hash: 2,
                    place: whole.first.key + 1_000,
                    time: clock,
                }],
                budget: 65_536,
            }),
        ),
    ]);
    all
}

fn encode(message: &Message) -> Vec<u8> {
    message.encode(VERSION, NODE)
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

/// The vectors of docs/PROTOCOL.md for digests and positions.
#[test]
fn the_published_digests_and_positions_hold() {
    // However its lines are broken.
    let published = include_str!("../../../docs/PROTOCOL.md")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let expect = |text: String| assert!(published.contains(&text), "{text}");
    let at = stamp(1_700_000_000_123, 7, NODE);
    expect(format!("`at` = (`{:016x}`, `{:016x}`)", at.time.0, at.node.0));
    let golden_change = |wanted: &str| {
        let found = changes().into_iter().find(|(name, _)| *name == wanted);
        found.expect("a change of that name").1
    };
    let list_push = |id| StateDelta::ListPush {
        id,
        value: Blob::default(),
    };
    let place = |wanted: &str| {
        let partition = Partition::of(KeyHash::of(b"\0key"));
        place((NODE, 9), partition, &delta(golden_change(wanted)))
    };
    expect(format!(
        "In the Reconcile 9 of node `{:016x}` the place of the component of `v2_frame_put.hex` is `{:016x}`, and that of \
         `v2_frame_set_add.hex` is `{:016x}`.",
        NODE.0,
        place("put"),
        place("set_add")
    ));
    for (state, change) in [
        ("Put at `at`", golden_change("put")),
        ("Delete at `at`", golden_change("delete")),
        ("SetAdd of member `value` at `at`", golden_change("set_add")),
        ("ListPush with id `at`", list_push(at)),
        ("Add as in `v2_frame_add.hex`", golden_change("add")),
        ("ListPush as in `v2_frame_list_push.hex`", golden_change("list_push")),
        (
            "ListRemove as in `v2_frame_list_remove.hex`",
            golden_change("list_remove"),
        ),
    ] {
        let cache = Cache::new(OTHER, Limits::default());
        cache.apply(&delta(change), at.time.millis()).unwrap();
        let hash = KeyHash::of(b"\0key");
        let partition = Partition::of(hash);
        let components = cache.components(Span::of(partition));
        let [Component { position, .. }] = components[..] else {
            panic!("{state}: {components:?}");
        };
        let element = match position.element {
            0 => "0".to_owned(),
            element => format!("`{element:016x}`"),
        };
        expect(format!("| {state} | `{}` | {element} |", cache.root_digest()));
        expect(format!(
            "key hash `{:016x}`, partition {}, key of its positions `{:016x}`",
            hash.0, partition.0, position.key
        ));
    }
}

#[test]
fn every_message_has_its_golden_bytes() {
    for (name, message) in messages() {
        let path = golden(&name);
        if std::env::var_os("BLESS").is_some() && !path.exists() {
            std::fs::write(&path, hex(&encode(&message))).unwrap();
        }
        let released = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; new messages need BLESS=1", path.display()));
        assert_eq!(
            hex(&encode(&message)),
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
fn deltas_are_read_back_without_a_message_around_them() {
    let deltas: Vec<Delta> = changes().into_iter().map(|(_, change)| delta(change)).collect();
    let mut encoder = Encoder::default();
    deltas.iter().for_each(|delta| encoder.delta(delta));
    let bytes = Bytes::from(encoder.into_bytes());
    let released = std::fs::read_to_string(golden("frame_all")).unwrap();
    assert!(unhex(&released).ends_with(&bytes), "a message holds the same bytes");
    let read = |bytes: &Bytes| -> Result<Vec<Delta>, CodecError> {
        let mut decoder = Decoder::new(bytes);
        let mut deltas = Vec::new();
        while !decoder.is_empty() {
            deltas.push(decoder.delta()?);
        }
        Ok(deltas)
    };
    assert_eq!(read(&bytes), Ok(deltas));
    let cut = bytes.slice(..bytes.len() - 1);
    assert_eq!(read(&cut), Err(CodecError::Malformed("member")));
    assert_eq!(read(&Bytes::from_static(&[0x92, 99])), Err(CodecError::Delta(99)));
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
fn the_header_of_any_version_names_its_sender() {
    let bytes = heartbeat_bytes();
    let header = Header::of(&bytes).expect("long enough");
    assert_eq!(
        (header.version, header.kind, header.node),
        (VERSION, Kind::Heartbeat as u8, NODE)
    );
    assert_eq!(Header::of(&bytes[..HEADER_BYTES - 1]), None);
}

fn heartbeat_bytes() -> Vec<u8> {
    encode(&Message::Heartbeat(heartbeat()))
}

#[test]
fn fields_a_later_release_appends_are_ignored() {
    // The message is an array of 1 (0x91) that holds the heartbeat, an array of 16 (0xdc 0 16); a later one may have
    // 17.
    let mut bytes = heartbeat_bytes();
    assert_eq!(bytes[HEADER_BYTES..HEADER_BYTES + 4], [0x91, 0xdc, 0, 16]);
    bytes[HEADER_BYTES + 3] = 17;
    bytes.extend_from_slice(&[0xa3, b'n', b'e', b'w']);
    assert_eq!(Message::decode(bytes.into()), Ok(Message::Heartbeat(heartbeat())));
}

fn message_of(kind: impl Into<u8>, body: &[u8]) -> Bytes {
    [&[VERSION, kind.into()], &NODE.0.to_le_bytes()[..], body]
        .concat()
        .into()
}

#[test]
fn kinds_are_numbered_as_published() {
    let published = include_str!("../../../docs/PROTOCOL.md");
    for number in 0..=u8::MAX {
        match Kind::try_from(number) {
            Ok(kind) => {
                assert_eq!(u8::from(kind), number);
                let row = format!("| {number} | {kind:?} |");
                assert!(published.contains(&row), "{row}");
            }
            Err(error) => assert_eq!(error, WireError::Kind(number)),
        }
    }
    assert_eq!(Kind::ALL.len(), 19);
}

#[test]
fn unknown_kinds_are_named() {
    assert_eq!(Message::decode(message_of(99u8, &[0x90])), Err(WireError::Kind(99)));
    for length in 0..HEADER_BYTES {
        let bytes = message_of(Kind::Frame, &[]).slice(..length);
        assert!(matches!(Message::decode(bytes), Err(WireError::Malformed(_))));
    }
}

#[test]
fn announced_lengths_are_checked_against_what_is_there() {
    // A frame that announces 2^32-1 deltas, and a key that announces 2^32-1 bytes.
    for tail in [
        &[0x94, 1, 0, 1, 0xdd, 255, 255, 255, 255][..],
        &[0x94, 1, 0, 1, 0x91, 0x95, 3, 0xc6, 255, 255, 255, 255][..],
    ] {
        assert!(matches!(
            Message::decode(message_of(Kind::Frame, tail)),
            Err(WireError::Malformed(_))
        ));
    }
    // Lists of spans, splits, holdings and partitions, and pairs of numbers.
    let long = [0xdd, 255, 255, 255, 255];
    for (kind, head) in [
        (Kind::Compare, &[0x93, 1][..]),
        (Kind::RangeSplits, &[0x94, 1, 1, 1]),
        (Kind::Fetch, &[0x94, 1, 0]),
        (Kind::FramesRequest, &[0x91]),
        (Kind::AnswerEnd, &[0x96, 1, 1, 1, 1, 0xc0]),
        (Kind::Sketch, &[0x96, 1, 1, 1]),
        (Kind::SketchRequest, &[0x94, 1]),
        (Kind::Reconcile, &[0x95, 1]),
    ] {
        let body = [head, &long].concat();
        assert!(
            matches!(Message::decode(message_of(kind, &body)), Err(WireError::Malformed(_))),
            "{kind}"
        );
    }
    // Partitions beyond the last one.
    let request = [0x96, 1, 0xcd, 4, 0, 0xc4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xc0];
    assert_eq!(
        Message::decode(message_of(Kind::BootstrapRequest, &request)),
        Err(WireError::Malformed("range of partitions"))
    );
    let digest_request = [0x95, 1, 0xcd, 4, 0, 0xc4, 4, 0, 0, 0, 0, 0, 1];
    assert_eq!(
        Message::decode(message_of(Kind::DigestRequest, &digest_request)),
        Err(WireError::Malformed("range of partitions"))
    );
    // 1,023 and the next one.
    let request = [0x94, 1, 0x92, 0xcd, 3, 255, 0, 0, 1];
    assert_eq!(
        Message::decode(message_of(Kind::SketchRequest, &request)),
        Err(WireError::Malformed("partitions"))
    );
}

#[test]
fn symbols_are_whole_and_not_too_many() {
    // Sketch, one byte less than a symbol; one more symbol than there may be.
    let sketch = |first: &[u8], bytes: u8| {
        [
            &[0x96, 1, 1, 1, 0x90],
            first,
            &[0xc4, bytes],
            &[0; 28][..bytes as usize],
        ]
        .concat()
    };
    let largest = (MAX_SYMBOLS as u16 - 1).to_be_bytes();
    let last = [0xcd, largest[0], largest[1]];
    for (first, bytes, sound) in [
        (&[0][..], 14, true),
        (&[0], 13, false),
        (&last, 14, true),
        (&last, 28, false),
    ] {
        let decoded = Message::decode(message_of(Kind::Sketch, &sketch(first, bytes)));
        assert_eq!(decoded.is_ok(), sound, "{first:?}, {bytes} bytes: {decoded:?}");
    }
    // Requests for one too many, and for as many as a number can say.
    for count in [&[2][..], &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]] {
        let request = [&[0x94, 1, 0x90], &last[..], count].concat();
        assert_eq!(
            Message::decode(message_of(Kind::SketchRequest, &request)),
            Err(WireError::Malformed("symbols"))
        );
    }
    // Two words of an offer.
    let offer = [&[0x95, 1, 0x90, 0xc4, 0, 0xc4, 16][..], &[0; 16]].concat();
    assert_eq!(
        Message::decode(message_of(Kind::Reconcile, &offer)),
        Err(WireError::Malformed("offers"))
    );
}

#[test]
fn spans_that_make_no_sense_are_refused() {
    // Compare, request 1, one span: first key 5, element 0; last key 4; digest 0.
    let reversed = [0x93, 1, 0x91, 0x95, 5, 0, 4, 0xc0, 0];
    assert_eq!(
        Message::decode(message_of(Kind::Compare, &reversed)),
        Err(WireError::Malformed("span"))
    );
    let whole = Span::of(Partition(3));
    let part = |last| SpanDigest {
        last,
        digest: Digest(0),
        count: 0,
    };
    let split = |parts| RangeSplit { span: whole, parts };
    let first = part(whole.first);
    for parts in [
        vec![],
        vec![first],
        vec![part(whole.last), first],
        vec![part(whole.last), part(whole.last)],
    ] {
        assert_eq!(split(parts.clone()).spans(), None, "{parts:?}");
    }
    let beyond = part(Span::of(Partition(4)).first);
    assert_eq!(split(vec![first, beyond]).spans(), None);
    assert_eq!(
        split(vec![first, part(whole.last)]).spans().map(|spans| spans.len()),
        Some(2)
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..Kind::ALL.len() as u8 + 2) {
        let _ = Message::decode(bytes.clone().into());
        if let Ok(Message::RangeSplits(splits)) = Message::decode(message_of(kind, &bytes)) {
            for split in splits.splits {
                let _ = split.spans();
            }
        }
    }

    #[test]
    fn damaged_messages_never_panic(which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(),
        byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let all = messages();
        let mut bytes = encode(&which.get(&all).1);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = Message::decode(bytes.clone().into());
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = Message::decode(bytes.into());
    }
}
