//! A stranger on the NATS account, without the seed: recordings, forged notices, floods.
//!
//! What is called a recording here is made with the seed of the test where waiting for thousands of real nodes would
//! take too long: it is what such nodes would have sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kvcache_core::cache::{Cache, Digest, Key, Limits, NodeId, Partition, Time};
use kvcache_core::replica::Keyring;
use kvcache_core::wire::{
    kind_of, BootstrapRequest, FramesRequest, Heartbeat, HeartbeatState, Kind, Message, SketchRequest, Want,
    MAX_SYMBOLS, VERSION,
};
use kvcache_node::service::Service;
use kvcache_node::settings::Subjects;
use kvcache_node::time;
use serde_json::{json, Value};
use testkit::{
    Actor, KeyValue, KeyValueClient, Lattice, NatsServer, ProviderOptions, ProviderProcess, DEFAULT_LINK_NAME,
};
use wasmbus_rpc::async_nats::{self, Client};

use crate::ALONE;

pub const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
pub const LIMIT: Duration = Duration::from_secs(30);

/// A few hosts of one lattice, and somebody else on its account.
pub struct Lab {
    pub lattice: Lattice,
    actor: Actor,
    config: Value,
    pub nodes: Vec<(ProviderProcess, KeyValue<KeyValueClient>)>,
    pub subjects: Subjects,
    /// The connection of the stranger.
    pub stranger: Client,
}

impl Lab {
    pub async fn start(server: &NatsServer, config: Value, count: usize) -> Self {
        let lattice = Lattice::new(server.url());
        let mut lab = Lab {
            subjects: Subjects::of(lattice.prefix(), DEFAULT_LINK_NAME),
            stranger: async_nats::connect(server.url()).await.unwrap(),
            lattice,
            actor: Actor::new(),
            config,
            nodes: Vec::new(),
        };
        for _ in 0..count {
            lab.join().await;
        }
        lab
    }

    /// Starts one more. Returns how long it took until all had met.
    pub async fn join(&mut self) -> Duration {
        let began = Instant::now();
        let options = ProviderOptions::new(BINARY)
            .link(&self.actor)
            .config(self.config.clone());
        let provider = self.lattice.start_ready(options, LIMIT).await.unwrap();
        let kv = provider.keyvalue(&self.actor).await.unwrap();
        self.nodes.push((provider, kv));
        self.meet().await;
        began.elapsed()
    }

    pub async fn meet(&mut self) {
        let others = self.nodes.len() as u64 - 1;
        for (provider, _) in &mut self.nodes {
            provider
                .wait_status(LIMIT, |status| status.peers >= others)
                .await
                .unwrap();
        }
    }

    pub fn kv(&self, node: usize) -> &KeyValue<KeyValueClient> {
        &self.nodes[node].1
    }

    pub async fn id(&self, node: usize) -> NodeId {
        let id = self.nodes[node].0.status().await.unwrap().node;
        NodeId(u64::from_str_radix(&id, 16).unwrap())
    }

    pub fn keyring(&self) -> Keyring {
        Keyring::new(&self.lattice.cluster_seed().unwrap(), &[], self.subjects.commands()).unwrap()
    }

    /// Publishes the messages over and over, so many per second, until that is aborted.
    pub fn flood(&self, messages: Vec<(String, Vec<u8>)>, per_second: usize) -> Flood {
        let client = self.stranger.clone();
        Flood(tokio::spawn(async move {
            let began = Instant::now();
            for (sent, (subject, payload)) in messages.iter().cycle().enumerate() {
                client.publish(subject.clone(), payload.clone().into()).await.unwrap();
                let due = Duration::from_secs_f64(sent as f64 / per_second as f64);
                if let Some(early) = due.checked_sub(began.elapsed()).filter(|early| early.as_millis() >= 5) {
                    tokio::time::sleep(early).await;
                }
            }
        }))
    }

    /// Writes at one node and waits until another one shows it, again and again. Returns how long it took at most, but
    /// for one of a hundred.
    pub async fn lag(&self, from: usize, to: usize, during: Duration) -> Duration {
        let mut lags = Vec::new();
        let end = Instant::now() + during;
        while Instant::now() < end {
            let (key, value) = (format!("lag{}", lags.len() % 10), lags.len().to_string());
            self.kv(from).set(&key, &value).await.unwrap();
            let written = Instant::now();
            while self.kv(to).get(&key).await.unwrap().as_deref() != Some(&value) {
                assert!(written.elapsed() < LIMIT, "a write has not arrived");
            }
            lags.push(written.elapsed());
        }
        worst(lags)
    }

    /// Writes that all hosts confirm: each is there at once. Returns how long a write and a read took, as above.
    pub async fn confirmed(&self, during: Duration) -> Duration {
        let mut took = Vec::new();
        let end = Instant::now() + during;
        while Instant::now() < end {
            let (key, value) = (format!("confirmed{}", took.len() % 10), took.len().to_string());
            let (began, from) = (Instant::now(), took.len() % 2);
            self.kv(from).set(&key, &value).await.unwrap();
            let found = self.kv(1 - from).get(&key).await.unwrap();
            assert_eq!(found.as_deref(), Some(&*value), "a write that was confirmed");
            took.push(began.elapsed());
        }
        worst(took)
    }
}

fn worst(mut times: Vec<Duration>) -> Duration {
    times.sort();
    assert!(times.len() >= 10, "{times:?}");
    times[(times.len() - 1) * 99 / 100]
}

/// Ends with the test.
pub struct Flood(tokio::task::JoinHandle<()>);

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A heartbeat as a node would have sent it at `wall`.
pub fn heartbeat(node: u64, number: u64, wall: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        number,
        seq: 0,
        digest: Digest::default(),
        keys: 0,
        clock: Time::from_millis(wall),
        floor: Time::default(),
        contact: Time::default(),
        since: Time::default(),
        joined: Time::default(),
        listening: Time::default(),
        state: HeartbeatState::Synced,
        interval_ms: 1_000 + node % 2,
        wants_heartbeats: false,
        versions: (VERSION, VERSION),
        foreign: Vec::new(),
        room: None,
        hints: Vec::new(),
        store: 0,
    })
}

pub fn authenticated(keyring: &Keyring, node: u64, message: &Message) -> Vec<u8> {
    keyring
        .authenticate(message.encode(VERSION, NodeId(node)), true)
        .to_vec()
}

fn confirmed_by_all() -> Value {
    json!({ "ACK": "all", "ACK_TIMEOUT_MS": 10_000 })
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_of_nodes_that_are_gone_hold_up_nobody() {
    let _alone = ALONE.lock().await;
    let name = "recordings_of_nodes_that_are_gone_hold_up_nobody";
    let server = testkit::server_or_skip!();
    let mut lab = Lab::start(&server, confirmed_by_all(), 2).await;
    let (keyring, hour) = (lab.keyring(), 3_600_000);
    let recorded = |n: u64| {
        authenticated(
            &keyring,
            1_000_000 + n,
            &heartbeat(1_000_000 + n, 7, time::wall() - hour),
        )
    };
    let recordings = (0..4_200).map(|n| (lab.subjects.beat(), recorded(n))).collect();
    let flood = lab.flood(recordings, 4_000);
    let took = lab.confirmed(Duration::from_secs(6)).await;
    println!("{name}: a confirmed write and a read took {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let joined = lab.join().await;
    println!("{name}: a third host joined in {joined:?}");
    assert!(joined < Duration::from_secs(8), "{joined:?}");
    drop(flood);
    for (provider, _) in &lab.nodes {
        assert_eq!(
            provider.status().await.unwrap().peers,
            2,
            "nobody else, and nobody was lost"
        );
        assert_eq!(provider.log().matching("counts as gone").len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_challenges_hold_up_no_reads() {
    let _alone = ALONE.lock().await;
    let name = "recorded_challenges_hold_up_no_reads";
    let server = testkit::server_or_skip!();
    let mut lab = Lab::start(&server, confirmed_by_all(), 1).await;
    let mut tap = lab
        .stranger
        .subscribe(format!("lattice.{}.>", lab.lattice.prefix()))
        .await
        .unwrap();
    lab.stranger.flush().await.unwrap();
    lab.join().await;
    let mut recorded = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(1), tap.next()).await {
        if kind_of(&message.payload) == Some(Kind::Hello) {
            recorded.push((message.subject.to_string(), message.payload.to_vec()));
        }
        if kind_of(&message.payload) == Some(Kind::Heartbeat) && recorded.len() >= 2 {
            break;
        }
    }
    drop(tap);
    assert!(recorded.len() >= 2, "each has asked the other");
    let before = lab.confirmed(Duration::from_secs(1)).await;
    let _flood = lab.flood(recorded, 1_000);
    let during = lab.confirmed(Duration::from_secs(4)).await;
    println!("{name}: a confirmed write and a read took {before:?} before and {during:?} meanwhile");
    assert!(
        during < before * 3 + Duration::from_millis(100),
        "{before:?}, {during:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_a_stranger_cost_next_to_nothing() {
    let _alone = ALONE.lock().await;
    let name = "signatures_of_a_stranger_cost_next_to_nothing";
    let server = testkit::server_or_skip!();
    let lab = Lab::start(&server, json!({}), 2).await;
    let before = lab.lag(0, 1, Duration::from_secs(1)).await;
    // Issuers that nobody knows, and the cluster's own in the name of a peer, each with a signature that fits or not.
    let mut messages = Vec::new();
    let (own, peer) = (lab.keyring(), lab.id(0).await);
    for n in 0..1_000u64 {
        let seed = nkeys::KeyPair::new_cluster().seed().unwrap();
        let stranger = Keyring::new(&seed, &[], lab.subjects.commands()).unwrap();
        messages.push((
            lab.subjects.beat(),
            authenticated(&stranger, n + 1, &heartbeat(n, n, time::wall())),
        ));
        let mut forged = authenticated(&own, peer.0, &heartbeat(n, u64::MAX - n, time::wall()));
        forged[20] ^= 1;
        messages.push((lab.subjects.beat(), forged));
    }
    let _flood = lab.flood(messages, 5_000);
    let during = lab.lag(0, 1, Duration::from_secs(4)).await;
    println!("{name}: lag {before:?} before, {during:?} meanwhile");
    assert!(during < Duration::from_millis(500), "{during:?}");
    let status = lab.nodes[1].0.status().await.unwrap();
    let named = status
        .pairs
        .get("foreign")
        .map_or(0, |foreign| foreign.split(',').count());
    assert!((1..=16).contains(&named), "{named} issuers are named");
    assert_eq!(status.peers, 1);
    let lines = lab.nodes[1].0.log().matching("is not accepted here").len();
    assert!(lines <= 12, "{lines} lines in the log");
}

/// A node in this process that has `keys` keys.
pub async fn full_node(lattice: &Lattice, keys: usize) -> (Arc<Cache>, Service) {
    let cache = Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
    for n in 0..keys {
        let key = Key::shared(format!("key{n}").as_bytes());
        cache
            .set(&key, bytes::Bytes::from_static(b"value of 16 byte"), 0, time::wall())
            .unwrap();
    }
    let service = lattice.node(cache.clone(), lattice.nats_url()).await.unwrap();
    (cache, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_requests_are_answered_once_and_hold_up_nobody() {
    let _alone = ALONE.lock().await;
    let name = "recorded_requests_are_answered_once_and_hold_up_nobody";
    let server = testkit::server_or_skip!();
    let mut lab = Lab::start(&server, json!({}), 0).await;
    let keys = 100_000;
    let (cache, filled) = full_node(&lab.lattice, keys).await;
    let root = format!("lattice.{}.>", lab.lattice.prefix());
    let mut tap = lab.stranger.subscribe(root.clone()).await.unwrap();
    lab.stranger.flush().await.unwrap();
    lab.join().await;
    lab.join().await;
    let mut recorded = Vec::new();
    let node = |id| lab.subjects.node(id);
    let (first, second) = (lab.id(0).await, lab.id(1).await);
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), tap.next()).await {
        if kind_of(&message.payload) == Some(Kind::BootstrapRequest) {
            for id in [first, second] {
                recorded.push((node(id), message.payload.to_vec()));
            }
        }
        if kind_of(&message.payload) == Some(Kind::Heartbeat) && recorded.len() >= 8 {
            break;
        }
    }
    drop(tap);
    assert!(recorded.len() >= 8, "{} requests", recorded.len());
    // What nodes that are gone have asked.
    let keyring = lab.keyring();
    let all: Vec<Partition> = (0..1_024).map(Partition).collect();
    for n in 0..100u64 {
        let requests = [
            Message::FramesRequest(FramesRequest {
                request: n,
                missing: vec![(1, 1_000)],
                budget: u64::MAX,
            }),
            Message::SketchRequest(SketchRequest {
                request: n,
                partitions: all.clone(),
                first: 0,
                count: MAX_SYMBOLS,
            }),
            Message::BootstrapRequest(BootstrapRequest {
                request: n,
                from: Partition(0),
                digests: vec![Digest::default(); 1_024],
                want: Want::Deltas,
                budget: 1 << 20,
                rest: None,
            }),
        ];
        for request in requests {
            recorded.push((node(first), authenticated(&keyring, 77 + n % 5, &request)));
        }
    }
    let mut tap = lab.stranger.subscribe(root).await.unwrap();
    lab.stranger.flush().await.unwrap();
    let before = lab.lag(0, 1, Duration::from_secs(1)).await;
    let flood = lab.flood(recorded, 2_000);
    let during = lab.lag(0, 1, Duration::from_secs(5)).await;
    drop(flood);
    println!("{name}: lag {before:?} before, {during:?} meanwhile");
    assert!(
        during < before * 3 + Duration::from_millis(300),
        "{before:?}, {during:?}"
    );
    let (mut answers, mut bytes) = (0, 0);
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(300), tap.next()).await {
        let is_answer = matches!(
            kind_of(&message.payload),
            Some(Kind::BootstrapDeltas | Kind::AnswerEnd | Kind::RangeSplits | Kind::Sketch)
        );
        if is_answer {
            answers += 1;
            bytes += message.payload.len();
        }
        if kind_of(&message.payload) == Some(Kind::Heartbeat) && answers > 10_000 {
            break;
        }
    }
    println!("{name}: {answers} messages of answers, {bytes} bytes");
    // Each real request once at the node that it was not sent to, while it is fresh.
    assert!(bytes < 12 << 20, "{bytes} bytes of answers in {answers} messages");
    assert!(cache.keys() >= keys as u64);
    filled.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_of_a_stream_is_no_message() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let lab = Lab::start(&server, json!({}), 1).await;
    let node = lab.subjects.node(lab.id(0).await);
    let text = br#"{"stream":"EVERYTHING","seq":12345}"#;
    for subject in [format!("{node}.5"), node] {
        lab.stranger.publish(subject, text.to_vec().into()).await.unwrap();
    }
    lab.stranger.flush().await.unwrap();
    // A message of another version after it: when that is counted, so are they.
    let later = [&[7, Kind::Frame as u8][..], &[9; 40]].concat();
    lab.stranger.publish(lab.subjects.beat(), later.into()).await.unwrap();
    let counted = testkit::eventually(LIMIT, || async {
        let pairs = lab.nodes[0].0.status().await?.pairs;
        let count = |name: &str| pairs[name].clone();
        let (versions, malformed) = (count("unknown_versions"), count("malformed"));
        anyhow::ensure!(
            (versions.as_str(), malformed.as_str()) == ("1", "1"),
            "{versions} of other versions, {malformed} malformed"
        );
        Ok(())
    });
    counted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_among_those_who_answer_bootstraps_delay_a_join_little() {
    let _alone = ALONE.lock().await;
    let name = "strangers_among_those_who_answer_bootstraps_delay_a_join_little";
    let server = testkit::server_or_skip!();
    let mut lab = Lab::start(&server, json!({}), 1).await;
    for n in 0..20 {
        lab.kv(0).set(&format!("key{n}"), "value").await.unwrap();
    }
    let before = lab.join().await;
    let group = format!("replay.{VERSION}.{}", lab.keyring().domain());
    let mut strangers = Vec::new();
    for _ in 0..100 {
        let subject = lab.subjects.replay().to_owned();
        strangers.push(lab.stranger.queue_subscribe(subject, group.clone()).await.unwrap());
    }
    lab.stranger.flush().await.unwrap();
    let during = lab.join().await;
    println!("{name}: a join took {before:?} before, {during:?} meanwhile");
    assert!(during < before + Duration::from_millis(1_500), "{before:?}, {during:?}");
    assert_eq!(lab.nodes[2].0.status().await.unwrap().keys, 20);
}
