//! The suite of all stores, against a real Consul; and what only Consul has.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use kvcache_core::cache::Partition;
use kvcache_node::store::{Batch, Opener, Record, Section, Store, StoreError, StoreUrl};
use kvcache_store_consul::ConsulOpener;
use testkit::{batch, cache_name, load, run_store_suite, skip_test, ConsulServer, ServedStore};

const TOKEN: &str = "6f1c5a6e-8c8e-4d53-9b0e-0d8a35d3a1f4";
const STRANGER: &str = "6f1c5a6e-8c8e-4d53-9b0e-0d8a35d3a1f5";

#[tokio::test(flavor = "multi_thread")]
async fn consul_passes_the_suite_of_all_stores() -> Result<()> {
    if let Err(error) = ConsulServer::find() {
        skip_test(&error.to_string());
        return Ok(());
    }
    let server = ConsulServer::start().await?;
    let mut engine = ServedStore {
        opener: ConsulOpener::new(),
        url: format!("consul://{}/suite", server.address()),
        server,
        forgets_what_it_removes: true,
    };
    run_store_suite(&mut engine).await
}

async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    let url = StoreUrl::parse(url).expect("a URL");
    ConsulOpener::new().open(&url, &cache_name("own", "tests")).await
}

fn section(number: u16) -> Section {
    Section::of(Partition(number))
}

fn stamped(time: u64, content: &[u8]) -> Vec<u8> {
    [&(time << 16).to_be_bytes()[..], &7u64.to_be_bytes(), content].concat()
}

/// Keys of the cache of [`open`], without those of buckets that are empty.
async fn keys(server: &ConsulServer, kind: &str) -> Result<Vec<String>> {
    let path = format!("/v1/kv/own/nats-kvcache/1/own:tests/{kind}/?keys");
    let answer = server.request("GET", &path, b"").await?;
    match answer.status {
        404 => Ok(Vec::new()),
        _ => Ok(serde_json::from_value(answer.json()?)?),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_a_bucket_is_in_parts() -> Result<()> {
    if let Err(error) = ConsulServer::find() {
        skip_test(&error.to_string());
        return Ok(());
    }
    let server = ConsulServer::start().await?;
    let url = format!("consul://{}/own", server.address());
    let store = open(&url).await?;
    let at = section(2);
    let found = || async { Ok::<_, anyhow::Error>(load(&*store, &[at]).await?.remove(&at).unwrap_or_default()) };
    // About what stands in a bucket, and what one part takes, with the stamp of 16 bytes and the id of 6 and 4 bytes of
    // lengths.
    let sizes = [
        2_031,
        2_032,
        2_033,
        262_117,
        262_118,
        262_119,
        262_128,
        524_261,
        524_262,
        524_263,
        1 << 20,
    ];
    for (time, size) in (1..).zip(sizes) {
        let value = stamped(time, &vec![size as u8; size]);
        store.write(&[batch(at, &[(b"limits", &value)])]).await?;
        ensure!(found().await?[&b"limits"[..]] == value, "{size} bytes");
        let parts = keys(&server, "p").await?.len();
        let expected = if size + 16 > 2 << 10 {
            (size + 26).div_ceil(256 << 10)
        } else {
            0
        };
        ensure!(parts == expected, "{size} bytes: {parts} parts");
    }
    // A smaller one that comes late leaves nothing.
    let late = stamped(0, &[1; 3 << 20]);
    let written = store.write(&[batch(at, &[(b"limits", &late)])]).await?;
    ensure!(written.conflicts == 1 && keys(&server, "p").await?.len() == 5);
    // Another node replaces it by a small one.
    let small = stamped(1_000, b"small");
    open(&url).await?.write(&[batch(at, &[(b"limits", &small)])]).await?;
    ensure!(keys(&server, "p").await?.is_empty(), "parts of none");
    // A set that has lost a part is never shown.
    let torn = stamped(1_001, &[2; 1 << 20]);
    store.write(&[batch(at, &[(b"torn", &torn)])]).await?;
    let parts = keys(&server, "p").await?;
    ensure!(found().await?.len() == 2 && parts.len() == 5);
    server.request("DELETE", &format!("/v1/kv/{}", parts[2]), b"").await?;
    ensure!(found().await?.len() == 1, "a value without one of its parts is shown");
    // Until it is written again, larger; then what was left of it is gone.
    let again = stamped(1_002, &[2; 1 << 20]);
    store.write(&[batch(at, &[(b"torn", &again)])]).await?;
    ensure!(found().await?[&b"torn"[..]] == again && keys(&server, "p").await?.len() == 5);
    // What a writer has left behind that was killed before it wrote the bucket goes when somebody opens the store after
    // the bucket has changed; until then the writer may be there.
    let (folder, _) = parts[0].rsplit_once('/').context("a folder")?;
    let (folder, _) = folder.rsplit_once('-').context("an index")?;
    let answer = server.request("GET", "/v1/kv/own/?recurse", b"").await?.json()?;
    let indices = answer.as_array().context("keys")?.iter();
    let newest = indices
        .filter(|key| key["Key"].as_str().is_some_and(|key| key.contains("/b/")))
        .filter_map(|key| key["ModifyIndex"].as_u64())
        .max()
        .context("an index")?;
    let of_index = |index: u64| format!("/v1/kv/{folder}-{index:x}/00000000");
    for index in [newest - 1, newest] {
        server.request("PUT", &of_index(index), b"part").await?;
    }
    ensure!(keys(&server, "p").await?.len() == 7);
    open(&url).await?;
    let left = keys(&server, "p").await?;
    ensure!(left.len() == 6 && found().await?[&b"torn"[..]] == again, "{left:?}");
    store
        .remove(&batch(at, &[(b"torn", &again), (b"limits", &small)]))
        .await?;
    open(&url).await?;
    ensure!(
        found().await?.is_empty() && keys(&server, "p").await?.is_empty(),
        "removed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_stay_below_the_limits() -> Result<()> {
    if let Err(error) = ConsulServer::find() {
        skip_test(&error.to_string());
        return Ok(());
    }
    let server = ConsulServer::start().await?;
    let store = open(&format!("consul://{}/own", server.address())).await?;
    // 100 buckets with 32 of the largest values that stand in one: more bytes than a transaction takes; and 1,900 with a
    // few small ones: more operations than it takes.
    let mut batches = Vec::new();
    for number in 0..1_000 {
        let mut batch = Batch::new(section(number));
        for id in 0..64u32 {
            let size = if number < 50 { 2_000 } else { 1 };
            if number < 50 || id < 8 {
                let value = stamped(1, &vec![id as u8; size]);
                batch.push(Record {
                    id: &id.to_be_bytes(),
                    value: &value,
                });
            }
        }
        batches.push(batch);
    }
    store.write(&batches).await?;
    let sections: Vec<Section> = batches.iter().map(Batch::section).collect();
    let found = load(&*store, &sections).await?;
    let number: usize = found.values().map(|held| held.len()).sum();
    ensure!(number == 50 * 64 + 950 * 8, "{number} records");
    // One bucket, until it is full. That is said, and nothing is lost.
    let at = section(1_001);
    let mut kept = 0;
    let error = loop {
        let mut batch = Batch::new(at);
        for id in 0..40u32 {
            batch.push(Record {
                id: &(kept + id).to_be_bytes(),
                value: &stamped(1, &[1; 2_000]),
            });
        }
        match store.write(&[batch]).await {
            Ok(_) => kept += 40,
            Err(error) => break error,
        }
        ensure!(kept < 1_000, "it is never full");
    };
    ensure!(
        matches!(&error, StoreError::Unusable(text) if text.contains("too large for it")),
        "{error:?}"
    );
    let held = load(&*store, &[at]).await?;
    ensure!(
        held[&at].len() as u32 >= kept && kept > 200,
        "{} of {kept}",
        held[&at].len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_the_rule() -> Result<()> {
    if let Err(error) = ConsulServer::find() {
        skip_test(&error.to_string());
        return Ok(());
    }
    let server = ConsulServer::start_with_acl(TOKEN).await?;
    let url = format!("consul://{}/own", server.address());
    for parameters in [String::new(), format!("?token={STRANGER}")] {
        match open(&format!("{url}{parameters}")).await {
            Err(StoreError::Unusable(text)) => {
                let rule = "key_prefix \"own/nats-kvcache/\" { policy = \"write\" }";
                ensure!(text.contains(rule) && !text.contains(STRANGER), "{text}");
            }
            Err(error) => anyhow::bail!("{parameters:?}: another kind of error: {error:?}"),
            Ok(store) => anyhow::bail!("{parameters:?}: {} was opened", store.name()),
        }
    }
    // The rule that is told is enough.
    let policy = r#"{"Name": "kvcache", "Rules": "key_prefix \"own/nats-kvcache/\" { policy = \"write\" }"}"#;
    let made = server.request("PUT", "/v1/acl/policy", policy.as_bytes()).await?;
    ensure!(made.status == 200, "{}", String::from_utf8_lossy(&made.body));
    let token = r#"{"Policies": [{"Name": "kvcache"}]}"#;
    let token = server.request("PUT", "/v1/acl/token", token.as_bytes()).await?.json()?;
    let token = token["SecretID"].as_str().context("a token")?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), format!("{token}\n"))?;
    let store = open(&format!("{url}?token_file={}", file.path().display())).await?;
    let value = stamped(1, &[7; 1 << 20]);
    store.write(&[batch(section(1), &[(b"id", &value)])]).await?;
    ensure!(load(&*store, &[section(1)]).await?[&section(1)][&b"id"[..]] == value);
    let other = open(&format!("consul://{}/other?token={token}", server.address())).await;
    ensure!(matches!(other, Err(StoreError::Unusable(_))), "another prefix");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_there_is_found() -> Result<()> {
    if let Err(error) = ConsulServer::find() {
        skip_test(&error.to_string());
        return Ok(());
    }
    let server = ConsulServer::start().await?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let url = format!("consul://{nobody},{}/own", server.address());
    let store = open(&url).await?;
    store.write(&[batch(section(1), &[(b"id", &stamped(1, b"v"))])]).await?;
    Ok(())
}
