//! The suite of all engines, against Redis and Valkey.

use kvcache_store_redis::RedisOpener;
use testkit::{run_store_suite, skip_test, RedisKind, RedisServer, ServedStore};

async fn suite(kind: RedisKind) {
    if let Err(error) = kind.find() {
        return skip_test(&error.to_string());
    }
    let server = RedisServer::start_persistent(kind, &[]).await.unwrap();
    let mut engine = ServedStore {
        opener: RedisOpener,
        url: server.url(),
        server,
        forgets_what_it_removes: true,
    };
    if let Err(error) = run_store_suite(&mut engine).await {
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
