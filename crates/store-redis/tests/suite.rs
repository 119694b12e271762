//! The suite of all engines, against Redis and Valkey.

use anyhow::Result;
use async_trait::async_trait;
use kvcache_node::store::Opener;
use kvcache_store_redis::RedisOpener;
use testkit::{run_store_suite, skip_test, RedisKind, RedisServer, StoreEngine};

struct Engine(RedisServer);

#[async_trait]
impl StoreEngine for Engine {
    fn opener(&self) -> &dyn Opener {
        &RedisOpener
    }

    fn url(&self) -> String {
        self.0.url()
    }

    async fn kill(&mut self) -> Result<()> {
        self.0.kill()
    }

    async fn restart(&mut self) -> Result<()> {
        self.0.restart().await
    }

    async fn freeze(&mut self) -> Result<bool> {
        self.0.pause().map(|()| true)
    }

    async fn thaw(&mut self) -> Result<()> {
        self.0.resume()
    }
}

async fn suite(kind: RedisKind) {
    if let Err(error) = kind.find() {
        return skip_test(&error.to_string());
    }
    let server = RedisServer::start_persistent(kind, &[]).await.unwrap();
    if let Err(error) = run_store_suite(&mut Engine(server)).await {
        panic!("{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_does_what_a_store_has_to() {
    suite(RedisKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_does_what_a_store_has_to() {
    suite(RedisKind::Valkey).await;
}
