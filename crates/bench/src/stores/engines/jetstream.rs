//! JetStream: a message for each record, of which some hundred wait to be acknowledged.

use std::future::IntoFuture;
use std::sync::Arc;

use anyhow::{ensure, Result};
use async_nats::jetstream::consumer::{pull, AckPolicy};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use kvcache_node::store::jetstream::JetStreamOpener;
use kvcache_node::store::{Batch, Opener, Store, StoreUrl};
use testkit::{cache_name, NatsServer};

use super::engine::Engine;

/// Acknowledgements that the plain client waits for at a time.
const UNDER_WAY: usize = 256;
const BUCKET: &str = "bench";

pub struct JetStream {
    name: String,
    server: NatsServer,
    plain: Context,
}

impl JetStream {
    pub async fn start() -> Result<Self> {
        let server = NatsServer::builder().jetstream().start().await?;
        let options = async_nats::ConnectOptions::new().client_capacity(1_024);
        let plain = jetstream::new(options.connect(server.url()).await?);
        let name = format!("JetStream {}", server.version()?);
        Ok(JetStream { name, server, plain })
    }

    async fn open(&self) -> Result<Arc<dyn Store>> {
        let servers = vec![self.server.url().parse()?];
        let opener = JetStreamOpener::new(servers, Default::default(), Default::default());
        let url = StoreUrl::parse(&format!("jetstream:{BUCKET}"))?;
        Ok(opener.open(&url, &cache_name("bench", "default")).await?)
    }
}

impl Engine for JetStream {
    fn name(&self) -> &str {
        &self.name
    }

    async fn store(&mut self, round: usize) -> Result<Arc<dyn Store>> {
        let store = self.open().await?;
        self.clear(round).await?;
        Ok(store)
    }

    async fn clear(&mut self, _round: usize) -> Result<()> {
        self.plain.get_stream(format!("KV_{BUCKET}")).await?.purge().await?;
        Ok(())
    }

    async fn flush(&mut self, _round: usize, batches: &[Batch]) -> Result<()> {
        let mut under_way = FuturesUnordered::new();
        for record in batches.iter().flat_map(Batch::iter) {
            if under_way.len() == UNDER_WAY {
                under_way.try_next().await?;
            }
            let key = String::from_utf8_lossy(&record.id[1..]);
            let subject = format!("$KV.{BUCKET}.plain.{key}");
            let acknowledged = self
                .plain
                .publish(subject, Bytes::copy_from_slice(record.value))
                .await?;
            under_way.push(acknowledged.into_future());
        }
        while under_way.try_next().await?.is_some() {}
        Ok(())
    }

    async fn load(&mut self, _round: usize) -> Result<usize> {
        let stream = self.plain.get_stream(format!("KV_{BUCKET}")).await?;
        let config = pull::Config {
            filter_subject: format!("$KV.{BUCKET}.plain.>"),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut messages = consumer.stream().max_messages_per_batch(1_024).messages().await?;
        let (mut records, mut bytes) = (0, 0);
        while let Some(message) = messages.next().await {
            let message = message?;
            records += 1;
            bytes += message.payload.len();
            if message.info().is_ok_and(|info| info.pending == 0) {
                break;
            }
        }
        ensure!(bytes > 0, "values were read");
        Ok(records)
    }
}
