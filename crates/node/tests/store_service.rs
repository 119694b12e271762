//! The service with a store behind it.
#![cfg(feature = "store-file")]

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use kvcache_node::service::{self, AckLevel, AckPolicy, Limits, Scope, Service, ServiceConfig};
use kvcache_node::store::file::FileOpener;
use kvcache_node::store::{CacheName, StoreConfig, StoreState, StoreUrl};
use tempfile::TempDir;

fn store_in(folder: &TempDir) -> Result<StoreConfig> {
    Ok(StoreConfig {
        opener: Arc::new(FileOpener),
        url: StoreUrl::parse(&format!("file:{}", folder.path().display()))?,
        cache: CacheName {
            lattice: "lattice".into(),
            link: "default".into(),
        },
        flush_ms: 20,
        required: true,
    })
}

async fn start(store: StoreConfig) -> Result<Service> {
    let config = ServiceConfig {
        store: Some(store),
        ..ServiceConfig::with(None)
    };
    let service = Service::start(service::empty_cache(Limits::default()), config).await?;
    service.first_sync().await;
    Ok(service)
}

fn scope(stored: bool) -> Scope<'static> {
    Scope {
        acks: AckPolicy {
            wanted: AckLevel::Local,
            stored,
            timeout_ms: 5_000,
        },
        ..Scope::shared("test")
    }
}

async fn get(service: &Service, key: &str) -> Result<Option<String>> {
    let answer = service.get(&scope(false), key.as_bytes(), |value| value).await?;
    Ok(answer.content.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_as_stored_is_there_after_a_crash_and_all_of_it_after_a_stop() -> Result<()> {
    let folder = TempDir::new()?;
    let service = start(store_in(&folder)?).await?;
    let stored = scope(true);
    for n in 0..100 {
        service
            .set(&stored, format!("key {n}").as_bytes(), &b"value"[..], 0)
            .await?;
    }
    for _ in 0..5 {
        service.increment(&stored, b"counter", 7).await?;
        service.list_push(&stored, b"list", &b"item"[..]).await?;
    }
    service.set_add(&stored, b"set", &b"one"[..]).await?;
    service.set_add(&stored, b"set", &b"two"[..]).await?;
    service.set_remove(&stored, b"set", &b"one"[..]).await?;
    service.delete(&stored, b"key 3").await?;
    let status = service.status().store.context("there is a store")?;
    ensure!(status.state == StoreState::Ready && status.writes > 100, "{status:?}");
    service.set(&scope(false), b"later", &b"value"[..], 0).await?;
    service.stop().await;
    drop(service);

    let service = start(store_in(&folder)?).await?;
    ensure!(get(&service, "key 99").await?.as_deref() == Some("value"));
    ensure!(get(&service, "key 3").await?.is_none());
    ensure!(get(&service, "counter").await?.as_deref() == Some("35"));
    ensure!(get(&service, "later").await?.as_deref() == Some("value"));
    let members = service.set_members(&scope(false), b"set", |members| members).await?;
    ensure!(members.content == ["two"], "{:?}", members.content);
    let items = service
        .list_range(&scope(false), b"list", (0, -1), |items| items)
        .await?;
    ensure!(items.content.len() == 5);
    ensure!(service.increment(&stored, b"counter", 1).await? == 36);
    service.stop().await;
    Ok(())
}
