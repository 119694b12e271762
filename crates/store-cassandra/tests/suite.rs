//! The suite of all stores, against a real Cassandra; and what only Cassandra has.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use kvcache_core::cache::Partition;
use kvcache_node::store::{Opener, Section, Store, StoreError, StoreUrl};
use kvcache_store_cassandra::CassandraOpener;
use testkit::{batch, cache_name, load, run_store_suite, skip_test, CassandraServer, ServedStore};

#[tokio::test(flavor = "multi_thread")]
async fn cassandra_passes_the_suite_of_all_stores() -> Result<()> {
    if let Err(error) = CassandraServer::find() {
        skip_test(&error.to_string());
        return Ok(());
    }
    let server = CassandraServer::start().await?;
    let mut engine = ServedStore {
        opener: CassandraOpener::new(),
        url: format!("cassandra://{}/suite?replication_factor=1", server.address()),
        server,
        // A tombstone of Cassandra's hides smaller values for as long as there is one.
        forgets_what_it_removes: false,
    };
    run_store_suite(&mut engine).await
}

async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    let url = StoreUrl::parse(url).expect("a URL");
    CassandraOpener::new().open(&url, &cache_name("own", "tests")).await
}

async fn why_unusable(url: &str) -> Result<String> {
    match open(url).await {
        Ok(store) => anyhow::bail!("{} was opened", store.name()),
        Err(StoreError::Unusable(text)) => Ok(text),
        Err(error) => anyhow::bail!("another kind of error: {error:?}"),
    }
}

fn section(number: u16) -> Section {
    Section::of(Partition(number))
}

fn stamped(time: u64, content: &[u8]) -> Vec<u8> {
    [&(time << 16).to_be_bytes()[..], &7u64.to_be_bytes(), content].concat()
}

/// One server for all of these: it takes some ten seconds to start.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_cassandra_has() -> Result<()> {
    if let Err(error) = CassandraServer::find() {
        skip_test(&error.to_string());
        return Ok(());
    }
    let server = CassandraServer::start_with_passwords().await?;
    keyspaces(&server).await.context("keyspaces")?;
    rights(&server).await.context("rights")?;
    tables_of_others(&server).await.context("tables of others")?;
    parts_of_large_values(&server).await.context("parts of large values")?;
    Ok(())
}

fn url(server: &CassandraServer, rest: &str) -> String {
    let (user, password) = (CassandraServer::USER, CassandraServer::PASSWORD);
    format!("cassandra://{user}:{password}@{}/{rest}", server.address())
}

async fn keyspaces(server: &CassandraServer) -> Result<()> {
    let text = why_unusable(&url(server, "keys")).await?;
    let statement = "CREATE KEYSPACE IF NOT EXISTS \"keys\" WITH replication = \
                     {'class': 'NetworkTopologyStrategy', 'replication_factor': 3}";
    ensure!(text.contains(statement), "{text}");
    // What is printed can be executed.
    server.cql(statement).await?;
    server.cql("DROP KEYSPACE keys").await?;
    // Several that make it at one time.
    let made = url(server, "keys?replication_factor=1");
    let opened = futures::future::join_all((0..4).map(|_| open(&made))).await;
    for store in opened {
        store?.close().await?;
    }
    // It is there now.
    open(&url(server, "keys")).await?.close().await?;
    // More copies than there are servers: it is made, and not enough of them answer.
    match open(&url(server, "many?replication_factor=3")).await {
        Err(StoreError::Away(text)) => ensure!(text.contains("required"), "{text}"),
        other => anyhow::bail!("{:?}", other.map(|store| store.name().to_owned())),
    }
    let text = why_unusable(&url(server, "keys?datacenter=nowhere")).await?;
    ensure!(text.contains("is there a datacenter \"nowhere\"?"), "{text}");
    open(&url(server, "keys?datacenter=datacenter1&consistency=ONE")).await?;
    Ok(())
}

async fn rights(server: &CassandraServer) -> Result<()> {
    let address = server.address();
    for login in ["", "cassandra:wrong@", "nobody:secret@"] {
        let text = why_unusable(&format!("cassandra://{login}{address}/keys")).await?;
        ensure!(text.contains("user and password in the URL"), "{login:?}: {text}");
        ensure!(!text.contains("wrong") && !text.contains("secret"), "{text}");
    }
    let role = "CREATE ROLE reader WITH PASSWORD = 'r' AND LOGIN = true";
    server.cql(role).await?;
    let reader = format!("cassandra://reader:r@{address}/keys");
    let text = why_unusable(&reader).await?;
    ensure!(
        text.contains("GRANT SELECT ON KEYSPACE \"keys\" TO 'reader';"),
        "{text}"
    );
    server.cql("GRANT SELECT ON KEYSPACE \"keys\" TO 'reader'").await?;
    let text = why_unusable(&reader).await?;
    ensure!(
        text.contains("GRANT MODIFY ON KEYSPACE \"keys\" TO 'reader';"),
        "{text}"
    );
    server.cql("GRANT MODIFY ON KEYSPACE \"keys\" TO 'reader'").await?;
    let store = open(&reader).await?;
    store.write(&[batch(section(1), &[(b"id", &stamped(1, b"v"))])]).await?;
    // A keyspace without the table: to make it is another right.
    server
        .cql("CREATE KEYSPACE bare WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        .await?;
    let text = why_unusable(&format!("cassandra://reader:r@{address}/bare")).await?;
    ensure!(text.contains("GRANT CREATE ON KEYSPACE \"bare\""), "{text}");
    Ok(())
}

async fn tables_of_others(server: &CassandraServer) -> Result<()> {
    server
        .cql("CREATE TABLE bare.nats_kvcache_1 (cache text PRIMARY KEY, other int)")
        .await?;
    let text = why_unusable(&url(server, "bare")).await?;
    ensure!(
        text.contains("the table bare.nats_kvcache_1 is not of nats-kvcache") && text.contains("other int"),
        "{text}"
    );
    Ok(())
}

async fn parts_of_large_values(server: &CassandraServer) -> Result<()> {
    let store = open(&url(server, "keys")).await?;
    let at = section(2);
    let found = || async { Ok::<_, anyhow::Error>(load(&*store, &[at]).await?.remove(&at).unwrap_or_default()) };
    // About what one row takes, and what one part takes, with the stamp of 16 bytes and the id of 6.
    for size in [
        65_519,
        65_520,
        65_521,
        524_250,
        524_260,
        524_268,
        524_270,
        524_280,
        1 << 20,
    ] {
        let value = stamped(size as u64, &vec![size as u8; size]);
        store.write(&[batch(at, &[(b"limits", &value)])]).await?;
        ensure!(found().await?[&b"limits"[..]] == value, "{size} bytes");
    }
    // What was replaced leaves nothing: of the last one there are parts, 3 rows.
    ensure!(rows(server, -3).await? == 3, "{} parts", rows(server, -3).await?);
    // A smaller one that comes late leaves nothing either.
    let late = stamped(5, &[1; 3 << 20]);
    store.write(&[batch(at, &[(b"limits", &late)])]).await?;
    ensure!(
        rows(server, -3).await? == 3,
        "{} parts of a late one",
        rows(server, -3).await?
    );
    // Another node replaces it by a small one, and knows nothing of parts.
    let other = open(&url(server, "keys")).await?;
    let small = stamped(9_000_000, b"small");
    other.write(&[batch(at, &[(b"limits", &small)])]).await?;
    ensure!(
        rows(server, -3).await? == 0,
        "{} parts of none",
        rows(server, -3).await?
    );
    // A set that has lost a part is never shown.
    let torn = stamped(9_000_001, &[2; 2 << 20]);
    store
        .write(&[batch(at, &[(b"torn", &torn), (b"whole", &torn)])])
        .await?;
    ensure!(found().await?.len() == 3);
    server
        .cql("DELETE FROM keys.nats_kvcache_1 WHERE cache = 'own/tests' AND section = -3")
        .await?;
    ensure!(found().await?.len() == 1, "a value without its parts is shown");
    // Until it is written again, larger.
    let again = stamped(1 << 47, &[2; 2 << 20]);
    store.write(&[batch(at, &[(b"torn", &again)])]).await?;
    ensure!(found().await?[&b"torn"[..]] == again);
    store.remove(&batch(at, &[(b"torn", &again)])).await?;
    ensure!(
        !found().await?.contains_key(&b"torn"[..]) && rows(server, -3).await? == 0,
        "removed"
    );
    Ok(())
}

/// Rows of a partition of the cache of [`open`].
async fn rows(server: &CassandraServer, section: i32) -> Result<i64> {
    let query = format!("SELECT count(*) FROM keys.nats_kvcache_1 WHERE cache = 'own/tests' AND section = {section}");
    let answer = server.cql(&query).await?;
    // The only row has one column, which is last.
    let count = answer.last_chunk::<8>().context("a count")?;
    Ok(i64::from_be_bytes(*count))
}
