//! Nodes with a store in a file, and what the parts of the section have in common.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use kvcache_core::cache::Cache;
use kvcache_node::service::{Service, ServiceConfig};
use kvcache_node::store::file::FileOpener;
use kvcache_node::store::{CacheName, StoreConfig, StoreState, StoreStatus, StoreUrl};

use crate::node::{LibraryNode, LIMIT};

pub const SECTION: u8 = 15;

/// Keys of 16 bytes with values of as many.
pub const KEYS: usize = 1_000_000;
pub const VALUE_BYTES: usize = 16;

/// The defaults of the provider.
pub const FLUSH_MS: u64 = 100;

/// A cache of the lattice `bench`.
pub fn named(lattice: &str) -> CacheName {
    CacheName {
        lattice: lattice.into(),
        link: testkit::DEFAULT_LINK_NAME.into(),
    }
}

/// A node that does not replicate, with a store in a file of this folder or without any.
pub async fn node(cache: Arc<Cache>, folder: Option<(&Path, CacheName)>) -> Result<LibraryNode> {
    let store = folder.map(|(folder, name)| {
        anyhow::Ok(StoreConfig {
            opener: Arc::new(FileOpener),
            url: StoreUrl::parse(&format!("file:{}", folder.display()))?,
            cache: name,
            flush_ms: FLUSH_MS,
            required: true,
        })
    });
    let config = ServiceConfig {
        store: store.transpose()?,
        ..ServiceConfig::with(None)
    };
    let service = Service::start(cache.clone(), config).await?;
    service.first_sync().await;
    let node = LibraryNode { cache, service };
    if let Some(status) = node.service.status().store {
        ensure!(status.state == StoreState::Ready, "the store: {}", status.state);
    }
    Ok(node)
}

pub fn status(node: &LibraryNode) -> Result<StoreStatus> {
    node.service.status().store.context("a node with a store")
}

/// Waits until everything is in the store.
pub async fn flushed(node: &LibraryNode) -> Result<()> {
    let began = Instant::now();
    while status(node)?.dirty > 0 {
        ensure!(began.elapsed() < LIMIT, "the store does not take everything");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Waits until everything is in the store, and nothing there is written anew any more.
pub async fn at_rest(node: &LibraryNode) -> Result<()> {
    flushed(node).await?;
    let began = Instant::now();
    let mut writes = status(node)?.writes;
    loop {
        ensure!(began.elapsed() < LIMIT, "the store does not come to rest");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = status(node)?.writes;
        // One by one sections are looked at all the time; so many are not written anew for their size.
        if now - writes < (KEYS / 100) as u64 {
            return Ok(());
        }
        writes = now;
    }
}
