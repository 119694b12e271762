//! A linked actor: large answers, many names, crafted keys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvcache_core::cache::{Key, KeyHash, Partition};
use serde_json::json;
use testkit::{Actor, KeyValue, KeyValueClient, Lattice, NatsServer, ProviderOptions};

use crate::ALONE;

const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
const LIMIT: Duration = Duration::from_secs(30);
/// A host gives a call up after 2 s.
const PROMPT: Duration = Duration::from_millis(1_500);

async fn fill(kv: &KeyValue<KeyValueClient>, list: &str, items: usize, bytes: usize) {
    let value = "v".repeat(bytes);
    for _ in 0..items {
        kv.list_add(list, &value).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_reach_its_caller_is_an_error_that_names_the_limit() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let small = NatsServer::builder().max_payload(200_000).start().await.unwrap();
    let with_jetstream = NatsServer::builder().jetstream().start().await.unwrap();
    for (server, config, expected) in [
        (&server, json!({}), "JetStream"),
        (&small, json!({}), "max_payload"),
        (
            &with_jetstream,
            json!({ "MAX_ANSWER_BYTES": 300_000 }),
            "MAX_ANSWER_BYTES",
        ),
    ] {
        let actor = Actor::new();
        let options = ProviderOptions::new(BINARY).link(&actor).config(config);
        let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
        let kv = provider.keyvalue(&actor).await.unwrap();
        fill(&kv, "list", if expected == "JetStream" { 20 } else { 8 }, 50_000).await;
        for attempt in 0..3 {
            let started = Instant::now();
            let error = kv.list("list").await.unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}, {attempt}: {error}");
            assert!(started.elapsed() < PROMPT, "{expected}: {:?}", started.elapsed());
        }
        assert_eq!(kv.list_range("list", 0, 2).await.unwrap().len(), 3, "{expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_reads_do_not_delay_small_calls_and_peers_stay() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!(NatsServer::builder().jetstream());
    let [greedy, modest] = [Actor::new(), Actor::new()];
    let lattice = Lattice::new(server.url());
    let options = || ProviderOptions::new(BINARY).link(&greedy).link(&modest);
    let mut provider = lattice.start_ready(options(), LIMIT).await.unwrap();
    let peer = lattice.start_ready(options(), LIMIT).await.unwrap();
    provider.wait_status(LIMIT, |status| status.peers == 1).await.unwrap();
    // Shares the machine and the server, not the process: what they cost, it bears as well.
    let bystander = Lattice::new(server.url()).start_ready(options(), LIMIT).await.unwrap();
    let large = provider.keyvalue(&greedy).await.unwrap();
    fill(&large, "list", 40, 500_000).await;
    let (kv, aside) = (
        provider.keyvalue(&modest).await.unwrap(),
        bystander.keyvalue(&modest).await.unwrap(),
    );
    for kv in [&kv, &aside] {
        kv.set("key", "value").await.unwrap();
    }
    let [idle, _] = slowest_of_each([&kv, &aside], 400).await;

    let over = Arc::new(AtomicBool::new(false));
    // They ask as hosts do, but do not fetch the answers from the object store: that would keep this process busy.
    let connection = lattice.connection().await.unwrap();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (transport, connection, over) = (large.transport().clone(), connection.clone(), over.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !over.load(Ordering::Relaxed) {
                    let call = transport
                        .invocation("KeyValue.ListRange", &range_of_all("list"))
                        .unwrap();
                    let answer = connection.request(transport.subject(), call.into()).await.unwrap();
                    match testkit::answer_in(&answer.payload) {
                        Ok(_) => answered += 1,
                        Err(error) => assert!(error.to_string().contains("large answer"), "{error}"),
                    }
                }
                answered
            })
        })
        .collect();
    let [busy, elsewhere] = slowest_of_each([&kv, &aside], 800).await;
    over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for reader in readers {
        answered += reader.await.unwrap();
    }
    println!(
        "99th percentile of a get: {idle:?}, beside large reads {busy:?}, of which {answered} were answered; of another \
         process meanwhile {elsewhere:?}"
    );
    assert!(answered > 0, "no large read was answered");
    assert!(
        busy < 3 * elsewhere.max(idle),
        "{idle:?} became {busy:?}, of another process {elsewhere:?}"
    );
    for (provider, other) in [(&provider, &peer), (&peer, &provider)] {
        assert_eq!(provider.status().await.unwrap().peers, 1);
        let log = provider.log().text();
        assert!(
            !log.contains("silent") && !log.contains("gone"),
            "peers were lost: {log}\n{}",
            other.log().text()
        );
    }
}

fn range_of_all(list: &str) -> Vec<u8> {
    let arguments = json!({ "listName": list, "start": 0, "stop": -1 });
    wasmbus_rpc::common::serialize(&arguments).unwrap()
}

/// The 99th percentile of so many gets.
async fn slowest_of_many(kv: &KeyValue<KeyValueClient>, calls: usize) -> Duration {
    let [slowest] = slowest_of_each([kv], calls).await;
    slowest
}

/// The 99th percentile of so many gets of each, which are asked in turns.
async fn slowest_of_each<const N: usize>(kvs: [&KeyValue<KeyValueClient>; N], calls: usize) -> [Duration; N] {
    let mut times = [(); N].map(|()| Vec::with_capacity(calls));
    for _ in 0..calls {
        for (kv, times) in kvs.iter().zip(&mut times) {
            let started = Instant::now();
            assert_eq!(kv.get("key").await.unwrap().as_deref(), Some("value"));
            times.push(started.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[calls * 99 / 100]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_checks_the_length_of_its_key() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let actor = Actor::new();
    let options = ProviderOptions::new(BINARY)
        .link(&actor)
        .config(json!({ "MAX_VALUE_BYTES": 1_000 }));
    let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    let key = "k".repeat(1_001);
    let key = key.as_str();
    let refused = [
        ("Contains", kv.contains(key).await.err()),
        ("Del", kv.del(key).await.err()),
        ("Get", kv.get(key).await.err()),
        ("Increment", kv.increment(key, 1).await.err()),
        ("ListAdd", kv.list_add(key, "v").await.err()),
        ("ListClear", kv.list_clear(key).await.err()),
        ("ListDel", kv.list_del(key, "v").await.err()),
        ("ListRange", kv.list(key).await.err()),
        ("Set", kv.set(key, "v").await.err()),
        ("SetAdd", kv.set_add(key, "v").await.err()),
        ("SetClear", kv.set_clear(key).await.err()),
        ("SetDel", kv.set_del(key, "v").await.err()),
        ("SetIntersection", kv.set_intersection(&["s", key]).await.err()),
        ("SetQuery", kv.set_query(key).await.err()),
        ("SetUnion", kv.set_union(&["s", key]).await.err()),
    ];
    for (operation, error) in refused {
        let error = error
            .unwrap_or_else(|| panic!("{operation} takes a key that is too long"))
            .to_string();
        assert!(error.contains("MAX_VALUE_BYTES"), "{operation}: {error}");
    }
    assert_eq!(provider.status().await.unwrap().keys, 0);
}

/// Names of keys that all fall into one partition: anybody can tell which does.
fn of_one_partition(count: usize) -> Vec<String> {
    let names = (0..).map(|n| format!("{n:x}"));
    let here = |name: &String| Partition::of(KeyHash::of(Key::shared(name.as_bytes()).as_bytes())) == Partition(700);
    names.filter(here).take(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_one_partition_delay_neither_others_nor_a_join() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let [greedy, modest] = [Actor::new(), Actor::new()];
    let lattice = Lattice::new(server.url());
    let options = || ProviderOptions::new(BINARY).link(&greedy).link(&modest);
    let provider = lattice.start_ready(options(), LIMIT).await.unwrap();
    let kv = provider.keyvalue(&modest).await.unwrap();
    kv.set("key", "value").await.unwrap();
    let idle = slowest_of_many(&kv, 200).await;

    // 8 MB in one partition, which is more than several answers hold.
    let (crowd, value) = (provider.keyvalue(&greedy).await.unwrap(), "v".repeat(4_000));
    for names in of_one_partition(2_000).chunks(20) {
        let writes = names.iter().map(|name| crowd.set(name, &value));
        futures::future::try_join_all(writes).await.unwrap();
    }
    let began = Instant::now();
    let joining = lattice.start_ready(options(), LIMIT);
    let (peer, busy) = futures::future::join(joining, slowest_of_many(&kv, 400)).await;
    let mut peer = peer.unwrap();
    peer.wait_status(LIMIT, |status| status.keys == 2_001).await.unwrap();
    let took = began.elapsed();
    println!("99th percentile of a get: {idle:?}, beside the join {busy:?}; the join took {took:?}");
    assert!(busy < 3 * idle + Duration::from_millis(50), "{idle:?} became {busy:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_left_do_not_slow_reads() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let actor = Actor::new();
    let options = ProviderOptions::new(BINARY).link(&actor);
    let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    let (kv, member) = (&kv, |n: usize| format!("member {n:06}"));
    for first in (0..4_000).step_by(20) {
        let joins = (first..first + 20).map(|n| async move { kv.set_add("old", &member(n)).await });
        futures::future::try_join_all(joins).await.unwrap();
        let leaves = (first..first + 20).map(|n| async move { kv.set_del("old", &member(n)).await });
        futures::future::try_join_all(leaves).await.unwrap();
    }
    for n in 0..10 {
        kv.set_add("old", &member(n)).await.unwrap();
        kv.set_add("new", &member(n)).await.unwrap();
    }
    let mut medians = Vec::new();
    for set in ["new", "old"] {
        let mut times = Vec::new();
        for _ in 0..200 {
            let started = Instant::now();
            assert_eq!(kv.set_query(set).await.unwrap().len(), 10);
            times.push(started.elapsed());
        }
        times.sort_unstable();
        medians.push(times[times.len() / 2]);
    }
    println!("a set of 10: {:?}, after 4,000 have left {:?}", medians[0], medians[1]);
    assert!(medians[1] < 2 * medians[0] + Duration::from_millis(1), "{medians:?}");
}
