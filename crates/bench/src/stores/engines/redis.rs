//! Redis and Valkey: a hash for each section, written and read in pipelines.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Result};
use kvcache_node::store::{Batch, Opener, Store, StoreUrl};
use kvcache_store_redis::RedisOpener;
use redis::aio::MultiplexedConnection;
use redis::{pipe, Client, Value};
use testkit::{cache_name, RedisKind, RedisServer};

use super::engine::{Engine, SECTIONS};

/// Commands of the plain client that are sent together.
const PIPELINE: usize = 64;

pub struct Redis {
    name: String,
    server: RedisServer,
    plain: MultiplexedConnection,
}

impl Redis {
    pub async fn start(kind: RedisKind) -> Result<Self> {
        let server = RedisServer::start_kind(kind).await?;
        let mut plain = Client::open(server.url())?.get_multiplexed_async_connection().await?;
        plain.set_response_timeout(Duration::from_secs(60));
        let name = format!("{} {}", kind.name(), server.version().await?);
        Ok(Redis { name, server, plain })
    }
}

fn key(section: usize) -> String {
    format!("plain:{section}")
}

impl Engine for Redis {
    fn name(&self) -> &str {
        &self.name
    }

    async fn store(&mut self, round: usize) -> Result<Arc<dyn Store>> {
        self.clear(round).await?;
        let url = StoreUrl::parse(&self.server.url())?;
        Ok(RedisOpener.open(&url, &cache_name("bench", "default")).await?)
    }

    async fn clear(&mut self, _round: usize) -> Result<()> {
        self.server.command(&["FLUSHALL"]).await?;
        Ok(())
    }

    async fn flush(&mut self, _round: usize, batches: &[Batch]) -> Result<()> {
        for batches in batches.chunks(PIPELINE) {
            let mut pipeline = pipe();
            for batch in batches {
                pipeline.cmd("HSET").arg(key(batch.section().number().into()));
                for record in batch.iter() {
                    pipeline.arg(record.id).arg(record.value);
                }
            }
            pipeline.exec_async(&mut self.plain).await?;
        }
        Ok(())
    }

    async fn load(&mut self, _round: usize) -> Result<usize> {
        let (mut records, mut bytes) = (0, 0);
        let sections: Vec<usize> = (0..SECTIONS).collect();
        for sections in sections.chunks(PIPELINE) {
            let mut pipeline = pipe();
            for section in sections {
                pipeline.cmd("HGETALL").arg(key(*section));
            }
            let answers: Vec<Value> = pipeline.query_async(&mut self.plain).await?;
            for answer in answers {
                let Value::Array(fields) = answer else {
                    bail!("an answer to HGETALL that Redis does not give")
                };
                records += fields.len() / 2;
                for field in fields {
                    if let Value::BulkString(field) = field {
                        bytes += field.len();
                    }
                }
            }
        }
        ensure!(bytes > 0, "values were read");
        Ok(records)
    }
}
