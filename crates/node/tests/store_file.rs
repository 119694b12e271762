//! The store in a file: the suite of all engines, and what is its own.
#![cfg(feature = "store-file")]

use anyhow::Result;
use async_trait::async_trait;
use kvcache_node::store::file::FileOpener;
use kvcache_node::store::Opener;
use tempfile::TempDir;
use testkit::{run_store_suite, StoreEngine};

struct File {
    folder: TempDir,
}

#[async_trait]
impl StoreEngine for File {
    fn opener(&self) -> &dyn Opener {
        &FileOpener
    }

    fn url(&self) -> String {
        format!("file:{}", self.folder.path().join("new/folder").display())
    }

    async fn kill(&mut self) -> Result<()> {
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        Ok(())
    }

    async fn freeze(&mut self) -> Result<bool> {
        Ok(false)
    }

    async fn thaw(&mut self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_engine_does() -> Result<()> {
    let folder = TempDir::new()?;
    run_store_suite(&mut File { folder }).await
}
