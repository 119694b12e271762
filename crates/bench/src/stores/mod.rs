//! Section 15: what a store costs, beside what Redis takes to be as durable, and beside plain clients of the engines.
//!
//! Files of both sides lie in the folder for temporary files, which has to be on a disk for the figures to mean anything.

mod calls;
mod disk;
mod engines;
mod restart;
mod sets;
mod stored;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use kvcache_core::cache::Cache;
use kvcache_node::service::{Service, ServiceConfig};
use kvcache_node::store::file::FileOpener;
use kvcache_node::store::{CacheName, StoreConfig, StoreState, StoreStatus, StoreUrl};

use crate::node::{LibraryNode, LIMIT};
use crate::report::Line;
use crate::Arguments;

const SECTION: u8 = 15;

/// Keys of 16 bytes with values of as many.
const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 16;

/// The defaults of the provider.
const FLUSH_MS: u64 = 100;

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let mut lines = sets::lines(arguments).await?;
    lines.extend(stored::lines(arguments).await?);
    lines.extend(restart::lines(arguments).await?);
    lines.extend(disk::lines().await?);
    lines.extend(engines::lines(arguments).await?);
    lines.extend(calls::lines(arguments).await?);
    Ok(lines)
}

/// A cache of the lattice `bench`.
fn named(lattice: &str) -> CacheName {
    CacheName {
        lattice: lattice.into(),
        link: testkit::DEFAULT_LINK_NAME.into(),
    }
}

/// A node that does not replicate, with a store in a file of this folder or without any.
async fn node(cache: Arc<Cache>, folder: Option<(&Path, CacheName)>) -> Result<LibraryNode> {
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

fn status(node: &LibraryNode) -> Result<StoreStatus> {
    node.service.status().store.context("a node with a store")
}

/// Waits until everything is in the store.
async fn flushed(node: &LibraryNode) -> Result<()> {
    let began = Instant::now();
    while status(node)?.dirty > 0 {
        ensure!(began.elapsed() < LIMIT, "the store does not take everything");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Waits until everything is in the store, and nothing there is written anew any more.
async fn at_rest(node: &LibraryNode) -> Result<()> {
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
