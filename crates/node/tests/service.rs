//! The service over a real server.

use std::time::Duration;

use kvcache_node::service::{self, Error, Limits, ReplicatorConfig, Scope, Service};
use kvcache_node::settings::Subjects;
use testkit::{eventually, Lattice};

const LIMIT: Duration = Duration::from_secs(20);

const SCOPE: Scope<'static> = Scope::shared("test");

async fn node(lattice: &Lattice) -> Service {
    let cache = service::empty_cache(Limits::default());
    lattice.node(cache, lattice.nats_url()).await.unwrap()
}

/// As a node of the lattice replicates.
fn replication(lattice: &Lattice, service: &Service) -> ReplicatorConfig {
    lattice.replication(service.status().node, lattice.nats_url()).unwrap()
}

async fn value(service: &Service, key: &str) -> Option<String> {
    let text = |value: Option<bytes::Bytes>| value.map(|value| String::from_utf8(value.to_vec()).unwrap());
    service.get(&SCOPE, key.as_bytes(), text).await.unwrap().content
}

async fn arrives(service: &Service, key: &str, expected: &str) {
    let arrived = eventually(LIMIT, || async {
        let found = value(service, key).await;
        anyhow::ensure!(found.as_deref() == Some(expected), "{key} is {found:?}");
        Ok(())
    });
    arrived.await.unwrap();
}

async fn two_that_replicate(lattice: &Lattice) -> [Service; 2] {
    let (one, two) = (node(lattice).await, node(lattice).await);
    one.set(&SCOPE, b"before", "1".as_bytes(), 0).await.unwrap();
    arrives(&two, "before", "1").await;
    [one, two]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_leaves_replication_as_it_was() {
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let [one, two] = two_that_replicate(&lattice).await;
    let replication = replication(&lattice, &one);

    let mut bad = replication.clone();
    bad.tls.authorities = Some("/nowhere/ca.pem".into());
    let error = one.reconfigure(Some(bad)).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
    one.set(&SCOPE, b"after", "2".as_bytes(), 0).await.unwrap();
    arrives(&two, "after", "2").await;
    two.set(&SCOPE, b"back", "3".as_bytes(), 0).await.unwrap();
    arrives(&one, "back", "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_while_replication_is_reconfigured() {
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let one = node(&lattice).await;
    let replication = replication(&lattice, &one);
    let two = node(&lattice).await;
    let writer = tokio::spawn({
        let one = one.clone();
        async move {
            for number in 0..2_000 {
                one.increment(&SCOPE, b"counter", 1).await.unwrap();
                if number % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    for _ in 0..3 {
        one.reconfigure(Some(replication.clone())).await.unwrap();
    }
    writer.await.unwrap();
    arrives(&two, "counter", "2000").await;
    // Another cache, whose peers are others, takes along what is there.
    let mut elsewhere = replication;
    elsewhere.subjects = Subjects::of(lattice.prefix(), "elsewhere");
    one.reconfigure(Some(elsewhere)).await.unwrap();
    one.set(&SCOPE, b"apart", "1".as_bytes(), 0).await.unwrap();
    two.set(&SCOPE, b"stays", "1".as_bytes(), 0).await.unwrap();
    eventually(LIMIT, || async {
        let peers = two.status().replication.map(|status| status.peers.len());
        anyhow::ensure!(peers == Some(0), "{peers:?} peers");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(value(&two, "apart").await, None);
}

/// Peers take messages with numbers that were used before for recordings.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_did_not_replicate_for_a_while_goes_on_after_the_numbers_it_has_used() {
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let [one, two] = two_that_replicate(&lattice).await;
    let replication = replication(&lattice, &one);
    for round in ["2", "3"] {
        one.reconfigure(None).await.unwrap();
        one.set(&SCOPE, b"alone", round.as_bytes(), 0).await.unwrap();
        one.reconfigure(Some(replication.clone())).await.unwrap();
        one.set(&SCOPE, b"after", round.as_bytes(), 0).await.unwrap();
        arrives(&two, "after", round).await;
        arrives(&two, "alone", round).await;
    }
    // With used numbers it is heard some seconds later all the same: tens of its messages are dropped until then.
    let repeated = two.status().replication.expect("it replicates").counters.repeated;
    assert!(repeated < 10, "{repeated} messages were taken for recordings");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_stopped_says_so() {
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let one = node(&lattice).await;
    one.stop().await;
    let refused = one.set(&SCOPE, b"key", "1".as_bytes(), 0).await;
    assert_eq!(refused, Err(Error::Stopping));
    one.reconfigure(None).await.unwrap();
    one.set(&SCOPE, b"key", "2".as_bytes(), 0).await.unwrap();
    assert_eq!(value(&one, "key").await.as_deref(), Some("2"));
    assert!(one.status().replication.is_none());
}
