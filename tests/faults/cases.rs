//! Single faults, each of them to the point.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use futures::future::try_join_all;
use testkit::{eventually, Direction, NatsCluster, NatsServer};

use crate::content::Content;
use crate::lab::{Lab, LIMIT};

/// Waits until all are equal, reads everything everywhere, and compares with `expected`.
async fn expect_equal(lab: &Lab, expected: &[(String, Content)]) -> Result<()> {
    let healing = lab.converge().await?;
    lab.note(format_args!("all equal after {:.1} s", healing.as_secs_f64()));
    let keys: Vec<_> = expected.iter().map(|(key, _)| key.clone()).collect();
    let dump = lab.equal_dumps(&keys).await?;
    for (key, content) in expected {
        let found = &dump[key];
        ensure!(found == content, "{key} holds {found}, expected {content}");
    }
    let panics = lab.panics();
    ensure!(panics.is_empty(), "a provider panicked: {}", panics.join("\n"));
    Ok(())
}

/// Shows the logs of all providers if the test has failed.
fn conclude(lab: &Lab, result: Result<()>) {
    if let Err(error) = result {
        lab.print_logs();
        panic!("{error:#}");
    }
}

/// One large value through each of `slots` and the same key, then a small one of each kind.
async fn write_some(lab: &Lab, slots: &[usize], name: &str, length: usize) -> Result<Vec<(String, Content)>> {
    let mut written = Vec::new();
    for slot in slots {
        let kv = lab.kv(*slot)?;
        let unit = format!("{name} of provider {slot}; ");
        let value: String = unit.chars().cycle().take(length).collect();
        let key = format!("{name}/{slot}/text");
        kv.set(&key, &value).await.with_context(|| format!("writing {key}"))?;
        written.push((key, Content::text(&value)));
        let key = format!("{name}/{slot}/list");
        for item in ["a", "b", "a"] {
            kv.list_add(&key, item)
                .await
                .with_context(|| format!("writing {key}"))?;
        }
        kv.list_del(&key, "a").await.with_context(|| format!("writing {key}"))?;
        written.push((key, Content::list(&["b".to_owned(), "a".to_owned()])));
        let key = format!("{name}/{slot}/set");
        kv.set_add(&key, "member")
            .await
            .with_context(|| format!("writing {key}"))?;
        written.push((key, Content::set(&["member".to_owned()])));
        kv.increment(&format!("{name}/count"), 7)
            .await
            .context("incrementing")?;
    }
    written.push((format!("{name}/count"), Content::text(&(7 * slots.len()).to_string())));
    Ok(written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_too_slow_for_the_server_catches_up() {
    let _alone = crate::ALONE.lock().await;
    let rpc = testkit::server_or_skip!();
    let server = NatsServer::builder()
        .monitoring()
        .max_pending(512 << 10)
        .max_payload(128 << 10)
        .start()
        .await
        .expect("the server with little room starts");
    let lab = Lab::start(rpc, vec![server], 3).await.expect("three providers");
    let result = async {
        let before = lab.servers[0].lock().await.slow_consumers().await?;
        lab.pause_provider(2).await?;
        // The kernel and the proxy hold some megabytes for the frozen process; then the room of the server is used up.
        let value = "flood ".repeat(20_000);
        let mut expected = Vec::new();
        let flooding = Instant::now();
        while lab.servers[0].lock().await.slow_consumers().await? == before {
            ensure!(flooding.elapsed() < LIMIT, "the server has dropped nobody");
            let round = expected.len();
            let writes = (0..8).map(|number| {
                let key = format!("flood/{}", round + number);
                let value = format!("{key} {value}");
                let kv = lab.kv(number % 2);
                async move {
                    kv?.set(&key, &value).await.with_context(|| format!("writing {key}"))?;
                    anyhow::Ok((key, Content::text(&value)))
                }
            });
            expected.extend(try_join_all(writes).await?);
        }
        lab.note(format_args!(
            "a slow consumer was dropped after {} values",
            expected.len()
        ));
        expected.extend(write_some(&lab, &[0, 1], "after", 1_000).await?);
        lab.resume_provider(2).await?;
        expect_equal(&lab, &expected).await
    };
    conclude(&lab, result.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_servers_loses_one() {
    let _alone = crate::ALONE.lock().await;
    let rpc = testkit::server_or_skip!();
    let cluster = NatsCluster::start(3).await.expect("a cluster of three servers");
    let lab = Lab::start(rpc, cluster.into_servers(), 4)
        .await
        .expect("four providers");
    let result = async {
        let mut expected = write_some(&lab, &[0, 1, 2, 3], "before", 10_000).await?;
        // The one that most providers use.
        let mut clients = Vec::new();
        for server in &lab.servers {
            clients.push(server.lock().await.clients().await?);
        }
        let loser = (0..clients.len())
            .max_by_key(|server| clients[*server])
            .unwrap_or_default();
        ensure!(clients[loser] >= 2, "four providers share three servers: {clients:?}");
        lab.note(format_args!(
            "clients of the servers: {clients:?}; killing server {loser}"
        ));
        lab.servers[loser].lock().await.kill()?;
        expected.extend(write_some(&lab, &[0, 1, 2, 3], "during", 200_000).await?);
        // With two of three, for good.
        expect_equal(&lab, &expected).await?;
        lab.servers[loser].lock().await.restart().await?;
        expected.extend(write_some(&lab, &[3, 2, 1, 0], "after", 10_000).await?);
        expect_equal(&lab, &expected).await
    };
    conclude(&lab, result.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_survived() {
    let _alone = crate::ALONE.lock().await;
    const STALL: Duration = Duration::from_secs(15);
    let rpc = testkit::server_or_skip!();
    let server = NatsServer::start().await.expect("the server of replication");
    let lab = Lab::start(rpc, vec![server], 3).await.expect("three providers");
    let result = async {
        let mut expected = write_some(&lab, &[0, 1, 2], "before", 1_000).await?;
        lab.converge().await?;
        let stalled = Instant::now();
        lab.stall(1, &Direction::BOTH);
        let mut rounds = 0;
        while stalled.elapsed() < STALL {
            rounds += 1;
            // The provider behind the stalled line goes on to take writes.
            expected.extend(write_some(&lab, &[0, 1, 2], &format!("round {rounds}"), 3_000).await?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seen = lab.status(0).await?.peers;
        lab.note(format_args!("{rounds} rounds of writes; provider 0 sees {seen} others"));
        ensure!(seen == 1, "a provider silent for {STALL:?} counts as gone");
        lab.heal(1).await?;
        expect_equal(&lab, &expected).await
    };
    conclude(&lab, result.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_larger_than_max_payload_arrive_although_connections_drop() {
    let _alone = crate::ALONE.lock().await;
    // The host moves arguments of this size through JetStream.
    let rpc = testkit::server_or_skip!(NatsServer::builder().jetstream());
    let server = NatsServer::builder()
        .max_payload(64 << 10)
        .start()
        .await
        .expect("a server of small messages");
    let lab = Lab::start(rpc, vec![server], 3).await.expect("three providers");
    let result = async {
        let mut expected = Vec::new();
        for round in 0..6 {
            let name = format!("round {round}");
            let dropping = async {
                for slot in [0, 1, 2, 0, 2] {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    lab.drop_connections(slot).await?;
                }
                anyhow::Ok(())
            };
            let writing = write_some(&lab, &[0, 1, 2], &name, 1 << 20);
            let (dropped, written) = tokio::join!(dropping, writing);
            dropped?;
            expected.extend(written?);
        }
        expect_equal(&lab, &expected).await
    };
    conclude(&lab, result.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_noticed_and_healed() {
    let _alone = crate::ALONE.lock().await;
    let rpc = testkit::server_or_skip!();
    let server = NatsServer::start().await.expect("the server of replication");
    let lab = Lab::start(rpc, vec![server], 3).await.expect("three providers");
    let result = async {
        let mut expected = write_some(&lab, &[0, 1, 2], "before", 1_000).await?;
        lab.cut(0).await?;
        expected.extend(write_some(&lab, &[0, 1, 2], "during", 100_000).await?);
        eventually(LIMIT, || async {
            let (cut, other) = (lab.status(0).await?, lab.status(1).await?);
            ensure!(
                cut.sync == testkit::SyncState::Disconnected,
                "the one that is cut off: {cut}"
            );
            ensure!(other.peers == 1, "one of the others: {other}");
            Ok(())
        })
        .await?;
        lab.heal(0).await?;
        expect_equal(&lab, &expected).await
    };
    conclude(&lab, result.await);
}

/// A server, if there is one, and if the clocks of processes can be moved.
async fn server_and_clocks_or_skip() -> Option<NatsServer> {
    let server = NatsServer::builder().start_or_skip().await?;
    if testkit::faketime_library().is_none() {
        testkit::skip_test("no libfaketime; install it with: scripts/install-tools.sh libfaketime");
        return None;
    }
    Some(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_far_ahead_has_written_is_taken_when_its_time_has_come() {
    let _alone = crate::ALONE.lock().await;
    let Some(rpc) = server_and_clocks_or_skip().await else {
        return;
    };
    let server = NatsServer::start().await.expect("the server of replication");
    let settings = serde_json::json!({ "MAX_CLOCK_SKEW_SECS": 5 });
    let lab = Lab::start_with(rpc, vec![server], 3, settings)
        .await
        .expect("three providers");
    let result = async {
        let mut expected = write_some(&lab, &[0, 1, 2], "before", 1_000).await?;
        lab.set_clock(2, 25)?;
        // The host sees it soon, and tells so when some heartbeats of the others have shown it as well.
        eventually(LIMIT, || async {
            let pairs = lab.status(2).await?.pairs;
            ensure!(pairs.contains_key("clock"), "{pairs:?}");
            Ok(())
        })
        .await?;
        expected.extend(write_some(&lab, &[2], "ahead", 1_000).await?);
        lab.set_clock(2, 0)?;
        let refusing = Instant::now();
        expected.extend(write_some(&lab, &[0, 1], "meanwhile", 1_000).await?);
        expect_equal(&lab, &expected).await?;
        let took = refusing.elapsed();
        ensure!(
            took >= Duration::from_secs(10),
            "nobody refused what was 25 s ahead: {took:?}"
        );
        Ok(())
    };
    conclude(&lab, result.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_was_a_day_ahead_writes_on_at_once_and_is_named() {
    let _alone = crate::ALONE.lock().await;
    let Some(rpc) = server_and_clocks_or_skip().await else {
        return;
    };
    let server = NatsServer::start().await.expect("the server of replication");
    let lab = Lab::start(rpc, vec![server], 3).await.expect("three providers");
    let result = async {
        let expected = write_some(&lab, &[0, 1, 2], "before", 1_000).await?;
        expect_equal(&lab, &expected).await?;
        lab.set_clock(2, 86_400)?;
        // The clock that the library moves is looked at once a second.
        eventually(LIMIT, || async {
            lab.kv(2)?.set("ahead", "value").await?;
            let clock = lab.status(2).await?.pairs.get("clock").cloned();
            ensure!(
                clock.as_deref() == Some("+86400") || clock.as_deref() == Some("+86399"),
                "{clock:?}"
            );
            Ok(())
        })
        .await?;
        lab.set_clock(2, 0)?;
        // It says how far it was ahead when it wrote, once that is over.
        eventually(LIMIT, || async {
            let reason = lab.status(2).await?.reason.unwrap_or_default();
            ensure!(reason.contains("was 8"), "{reason}");
            Ok(())
        })
        .await?;
        let writing = Instant::now();
        lab.kv(2)?.set("back", "value").await?;
        for key in ["before/0/text", "before/2/text"] {
            lab.kv(2)?.del(key).await?;
        }
        eventually(LIMIT, || async {
            for slot in [0, 1] {
                ensure!(
                    lab.kv(slot)?.get("back").await?.is_some(),
                    "provider {slot} lacks the key"
                );
                for key in ["before/0/text", "before/2/text"] {
                    ensure!(!lab.kv(slot)?.contains(key).await?, "provider {slot} has {key}");
                }
            }
            Ok(())
        })
        .await?;
        let took = writing.elapsed();
        ensure!(took < Duration::from_secs(2), "took {took:?}");
        ensure!(
            lab.kv(2)?.get("ahead").await?.is_some(),
            "what was written is not there"
        );
        for slot in [0, 1] {
            let status = lab.status(slot).await?;
            ensure!(status.sync == testkit::SyncState::Refused, "provider {slot}: {status}");
            ensure!(
                !status.pairs.contains_key("clock"),
                "provider {slot}: {:?}",
                status.pairs
            );
        }
        // Their log names the host, as they know it.
        let named = |line: &String| line.contains("check the clock of its host") && line.contains("host=N");
        let lives = lab.all_lives();
        let mut others = lives.iter().filter(|life| life.slot != 2);
        ensure!(
            others.all(|life| life.log.matching("refused a delta").iter().any(named)),
            "the host is not named"
        );
        Ok(())
    };
    conclude(&lab, result.await);
}
