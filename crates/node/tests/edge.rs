//! How much the cache may take: caps, room that is made, over a real server where others are there.

use std::time::Duration;

use anyhow::{ensure, Result};
use kvcache_node::service::{
    self, Caps, EdgeConfig, Error, Full, Limits, Policy, Scope, Service, ServiceConfig, SyncState,
};
use testkit::{eventually, Lattice};

const LIMIT: Duration = Duration::from_secs(30);
const SCOPE: Scope<'static> = Scope::shared("test");
const CAP: u64 = 2 << 20;
const VALUE: &[u8] = &[b'v'; 1_000];

fn edge(max_bytes: u64, policy: Policy) -> EdgeConfig {
    EdgeConfig {
        max_bytes: Some(max_bytes),
        policy,
    }
}

async fn alone(edge: EdgeConfig) -> Result<Service> {
    let config = ServiceConfig {
        edge,
        ..ServiceConfig::with(None)
    };
    Ok(Service::start(service::empty_cache(Limits::default()), config).await?)
}

async fn node(lattice: &Lattice, edge: EdgeConfig) -> Result<Service> {
    let cache = service::empty_cache(Limits::default());
    let config = ServiceConfig {
        edge,
        ..ServiceConfig::with(Some(lattice.replication(cache.node(), lattice.nats_url())?))
    };
    let service = Service::start(cache, config).await?;
    let synced = service.first_sync().await.is_some_and(SyncState::is_whole);
    ensure!(synced, "a node does not get in sync");
    Ok(service)
}

fn used(service: &Service) -> u64 {
    service.status().memory.bytes
}

async fn equal(services: &[Service]) -> Result<()> {
    eventually(LIMIT, || async {
        let digests: Vec<_> = services.iter().map(|service| service.status().digest).collect();
        ensure!(digests.windows(2).all(|two| two[0] == two[1]), "{digests:?}");
        Ok(())
    })
    .await
}

/// Writes until something is refused. Returns how many were not.
async fn fill(service: &Service, scope: &Scope<'_>) -> (u32, Error) {
    for n in 0.. {
        if let Err(error) = service.set(scope, format!("key {n}").as_bytes(), VALUE, 0).await {
            return (n, error);
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_beyond_the_cap_is_refused_and_what_makes_room_is_not() -> Result<()> {
    let service = alone(edge(CAP, Policy::Refuse)).await?;
    let (keys, error) = fill(&service, &SCOPE).await;
    let Error::Full(Full::Memory {
        limit: CAP, used: full, ..
    }) = error
    else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains("MAX_MEMORY_BYTES=2097152"), "{error}");
    assert!((1_500..2_000).contains(&keys), "{keys} keys");
    assert!(full <= CAP && full > CAP - 2_000, "{full}");
    let before = service.status();
    let adds = [
        service.set(&SCOPE, b"another", VALUE, 0).await.err(),
        service.set_add(&SCOPE, b"set", VALUE).await.err(),
        service.list_push(&SCOPE, b"list", VALUE).await.err(),
        service
            .set(&SCOPE, b"key 1", &[VALUE, VALUE].concat()[..], 0)
            .await
            .err(),
    ];
    for refused in adds {
        assert!(matches!(refused, Some(Error::Full(Full::Memory { .. }))), "{refused:?}");
    }
    let after = service.status();
    assert_eq!(
        (after.digest, after.keys),
        (before.digest, before.keys),
        "something has changed"
    );
    assert_eq!(after.memory.refused, 5);

    // The same size, a smaller one, and deletions.
    service.set(&SCOPE, b"key 1", &[b'w'; 1_000][..], 0).await?;
    service.set(&SCOPE, b"key 2", "small", 0).await?;
    assert!(service.delete(&SCOPE, b"key 3").await?);
    service.set(&SCOPE, b"another", VALUE, 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_grow_passes_whatever_its_size_and_however_full_it_is() -> Result<()> {
    let service = alone(edge(CAP, Policy::Refuse)).await?;
    let lengths = [0, 1, 16, 30, 100, 1_000, 1_010, 4_070];
    for length in lengths {
        let key = format!("of {length}");
        service.set(&SCOPE, key.as_bytes(), &vec![b'v'; length][..], 0).await?;
    }
    service.set_add(&SCOPE, b"set", VALUE).await?;
    fill(&service, &SCOPE).await;
    // To the last byte.
    for n in 0.. {
        if service.set(&SCOPE, format!("{n}").as_bytes(), "v", 0).await.is_err() {
            break;
        }
    }
    for length in lengths {
        let key = format!("of {length}");
        let same = service.set(&SCOPE, key.as_bytes(), &vec![b'w'; length][..], 0).await;
        assert_eq!(same, Ok(()), "{length} bytes");
    }
    assert_eq!(service.set_add(&SCOPE, b"set", VALUE).await, Ok(false));
    assert!(service.set_add(&SCOPE, b"set", "another").await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_namespace_cannot_take_what_is_left_to_others() -> Result<()> {
    let service = alone(EdgeConfig::default()).await?;
    let bounded = Scope {
        namespace: "tenant",
        caps: Caps {
            namespace_bytes: 100_000,
            namespace_keys: 50,
            collection_items: 10,
        },
        ..SCOPE
    };
    let (keys, error) = fill(&service, &bounded).await;
    assert_eq!(
        (keys, error),
        (50, Error::Full(Full::NamespaceKeys { limit: 50, used: 50 }))
    );
    for n in 0..49 {
        service.delete(&bounded, format!("key {n}").as_bytes()).await?;
    }
    let error = service.set(&bounded, b"large", &[b'v'; 100_000][..], 0).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, Error::Full(Full::NamespaceBytes { limit: 100_000, .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("NAMESPACE_MAX_BYTES=100000"), "{error}");
    service.set(&SCOPE, b"large", &[b'v'; 100_000][..], 0).await?;

    // As many at once as there are: not one more gets in.
    let pushes = (0..40).map(|n| {
        let service = service.clone();
        tokio::spawn(async move {
            let scope = Scope {
                namespace: "tenant",
                ..bounded
            };
            let member = format!("member {n}");
            let added = service.set_add(&scope, b"set", member.as_str()).await.is_ok();
            let pushed = service.list_push(&scope, b"list", member.as_str()).await.is_ok();
            (u32::from(added), u32::from(pushed))
        })
    });
    let mut done = (0, 0);
    for pushed in pushes.collect::<Vec<_>>() {
        let (added, pushed) = pushed.await?;
        done = (done.0 + added, done.1 + pushed);
    }
    assert_eq!(done, (10, 10));
    let error = service.list_push(&bounded, b"list", "one more").await.unwrap_err();
    assert_eq!(error, Error::Full(Full::CollectionItems { limit: 10, used: 10 }));
    assert!(error.to_string().contains("MAX_COLLECTION_ITEMS=10"), "{error}");
    assert_eq!(service.status().memory.refused, 63, "each of them counts");
    // What is there already is no new one.
    let member = service
        .set_members(&bounded, b"set", |members| members[0].clone())
        .await?;
    assert!(!service.set_add(&bounded, b"set", member.content).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_of_what_never_was_do_not_fill_the_memory() -> Result<()> {
    let service = alone(edge(CAP, Policy::Refuse)).await?;
    service.set_add(&SCOPE, b"set", "member").await?;
    for n in 0..100_000 {
        assert!(!service.delete(&SCOPE, format!("never {n}").as_bytes()).await?);
        let member = format!("never {n}");
        assert!(!service.set_remove(&SCOPE, b"set", member.as_str()).await?);
    }
    let memory = service.status().memory;
    assert!(memory.bytes < CAP / 2, "{memory:?}");
    assert!(memory.deletions >= CAP / 4 && memory.deletions < CAP / 3, "{memory:?}");
    // Both kinds are still made of what is there.
    service.set(&SCOPE, b"key", VALUE, 0).await?;
    assert!(service.delete(&SCOPE, b"key").await?);
    assert!(service.set_remove(&SCOPE, b"set", "member").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_deadline_goes_and_when_there_is_none_a_write_is_refused() -> Result<()> {
    let service = alone(edge(CAP, Policy::EvictTtl)).await?;
    for n in 0..500 {
        service.set(&SCOPE, format!("keeps {n}").as_bytes(), VALUE, 0).await?;
    }
    for n in 0..5_000 {
        service
            .set(&SCOPE, format!("expires {n}").as_bytes(), VALUE, 100_000 - n)
            .await?;
    }
    let memory = service.status().memory;
    assert!(memory.bytes <= CAP && memory.evicted > 3_500, "{memory:?}");
    for n in 0..500 {
        assert!(service.contains(&SCOPE, format!("keeps {n}").as_bytes()).await?, "{n}");
    }
    // The last ones had the nearest deadlines, so each made room for the next.
    assert!(service.contains(&SCOPE, b"expires 0").await?);
    assert!(!service.contains(&SCOPE, b"expires 4000").await?);
    let (_, error) = fill(&service, &SCOPE).await;
    assert!(matches!(error, Error::Full(Full::Memory { .. })), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_nodes_make_room_once_and_what_any_of_them_reads_stays() {
    let server = testkit::server_or_skip!();
    make_room_on_three(&Lattice::new(server.url())).await.unwrap();
}

async fn make_room_on_three(lattice: &Lattice) -> Result<()> {
    let cap = 4 << 20;
    let mut services = Vec::new();
    for _ in 0..3 {
        services.push(node(lattice, edge(cap, Policy::EvictLfu)).await?);
    }
    eventually(LIMIT, || async {
        let peers = |service: &Service| service.status().replication.map_or(0, |status| status.peers.len());
        ensure!(services.iter().all(|service| peers(service) == 2));
        Ok(())
    })
    .await?;
    // Each has some of its own that it reads, all the time.
    for n in 0..300 {
        services[n % 3]
            .set(&SCOPE, format!("hot {n}").as_bytes(), VALUE, 0)
            .await?;
    }
    equal(&services).await?;
    for n in 0..20_000 {
        services[n % 3]
            .set(&SCOPE, format!("cold {n}").as_bytes(), VALUE, 0)
            .await?;
        if n % 100 == 0 {
            for hot in 0..300 {
                services[hot % 3]
                    .contains(&SCOPE, format!("hot {hot}").as_bytes())
                    .await?;
            }
            // Hints travel on heartbeats, and a heartbeat is a second apart.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for service in &services {
            assert!(
                used(service) <= cap + cap / 16,
                "{} of {cap} after {n} keys",
                used(service)
            );
        }
    }
    equal(&services).await?;
    let mut there = 0;
    for hot in 0..300 {
        there += u32::from(services[0].contains(&SCOPE, format!("hot {hot}").as_bytes()).await?);
    }
    let status = services[0].status();
    let evicted: u64 = services.iter().map(|service| service.status().memory.evicted).sum();
    let each: Vec<u64> = services.iter().map(|service| service.status().memory.evicted).collect();
    // As much as does not fit has gone, not three times that. Some may go twice: where a writer has waited for long, or
    // nodes do not agree for a moment about who is there.
    let do_not_fit = 20_300 - status.keys;
    assert!(
        evicted >= do_not_fit && evicted < do_not_fit * 5 / 4,
        "{each:?} where {do_not_fit} do not fit"
    );
    assert!(used(&services[0]) > cap * 7 / 8, "{status:?}");
    assert!(there >= 240, "{there} of 300 hot keys are there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_host_is_the_limit_of_all() {
    let server = testkit::server_or_skip!();
    fill_beside_a_small_one(&Lattice::new(server.url())).await.unwrap();
}

async fn fill_beside_a_small_one(lattice: &Lattice) -> Result<()> {
    let small = node(lattice, edge(CAP, Policy::Refuse)).await?;
    let services = [
        node(lattice, EdgeConfig::default()).await?,
        node(lattice, edge(8 * CAP, Policy::Refuse)).await?,
    ];
    eventually(LIMIT, || async {
        ensure!(services
            .iter()
            .all(|service| service.status().memory.limit.is_some_and(|limit| limit < 2 * CAP)));
        Ok(())
    })
    .await?;
    let all = [small.clone(), services[0].clone(), services[1].clone()];
    for (service, name) in services.iter().zip(["one", "two"]) {
        // What is on its way between hosts that write at the same time is known to none of them.
        equal(&all).await?;
        let scope = Scope {
            namespace: name,
            ..SCOPE
        };
        let (_, error) = fill(service, &scope).await;
        assert!(
            matches!(&error, Error::Full(Full::Peer { host, .. }) if host == "a test"),
            "{error:?}"
        );
        assert!(error.to_string().contains("MAX_MEMORY_BYTES"), "{error}");
    }
    equal(&all).await?;
    assert!(used(&small) <= CAP + CAP / 16, "{}", used(&small));
    // Deletions pass, and what a peer writes is merged however full it is.
    assert!(
        services[0]
            .delete(
                &Scope {
                    namespace: "one",
                    ..SCOPE
                },
                b"key 0"
            )
            .await?
    );
    equal(&all).await?;
    small.stop().await;
    drop(small);
    eventually(LIMIT, || async {
        let status = services[0].status().memory;
        ensure!(status.limit == Some(8 * CAP), "{status:?}");
        Ok(())
    })
    .await?;
    services[0].set(&SCOPE, b"after", VALUE, 0).await?;
    Ok(())
}
