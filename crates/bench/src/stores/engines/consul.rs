//! Consul: a key for each section, written in transactions and read by prefix.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use base64::prelude::{Engine as _, BASE64_STANDARD};
use futures::{stream, StreamExt, TryStreamExt};
use kvcache_node::store::{Batch, Opener, Store, StoreUrl};
use kvcache_store_consul::ConsulOpener;
use serde_json::{json, Value};
use testkit::{cache_name, ConsulServer};

use super::engine::{Engine, SECTIONS};

/// Transactions, or answers, that the plain client has under way.
const UNDER_WAY: usize = 4;
/// Operations of a transaction, and its bytes: Consul takes half a megabyte.
const OPERATIONS: usize = 64;
const TRANSACTION_BYTES: usize = 480_000;
/// What an operation takes beside its key and value.
const OPERATION_BYTES: usize = 80;
/// Sections with one prefix of their keys, in hex, which the plain client reads at a time.
const SECTIONS_READ: usize = 16;

pub struct Consul {
    opener: ConsulOpener,
    address: String,
    client: reqwest::Client,
    _server: ConsulServer,
}

impl Consul {
    pub async fn start() -> Result<Self> {
        let server = ConsulServer::start().await?;
        let client = reqwest::Client::builder().tls_backend_preconfigured(no_tls()?);
        Ok(Consul {
            opener: ConsulOpener::new(),
            address: server.address(),
            client: client.build()?,
            _server: server,
        })
    }

    async fn send(&self, body: String) -> Result<()> {
        let url = format!("http://{}/v1/txn", self.address);
        let answer = self.client.put(url).body(body).send().await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
        answer.bytes().await.context("an answer")?;
        Ok(())
    }

    async fn read(&self, folder: &str, part: usize) -> Result<usize> {
        let url = format!("http://{}/v1/kv/{folder}/{part:03x}?recurse&consistent", self.address);
        let answer = self.client.get(url).send().await?.bytes().await?;
        let mut records = 0;
        for key in &serde_json::from_slice::<Vec<Value>>(&answer)? {
            let value = BASE64_STANDARD.decode(key["Value"].as_str().context("a value")?)?;
            records += Batch::read(&value).flatten().count();
        }
        Ok(records)
    }

    async fn forget(&self, folder: &str) -> Result<()> {
        let url = format!("http://{}/v1/kv/{folder}?recurse", self.address);
        self.client.delete(url).send().await?.error_for_status()?;
        Ok(())
    }
}

/// The address is one of plain HTTP.
fn no_tls() -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = builder.with_root_certificates(rustls::RootCertStore::empty());
    Ok(config.with_no_client_auth())
}

/// Keys and values as transactions.
fn transactions(folder: &str, batches: &[Batch]) -> Vec<String> {
    let key = |batch: &Batch| format!("{folder}/{:04x}", batch.section().number());
    let mut rest = batches;
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(OPERATIONS).take_while(|batch| {
            bytes += OPERATION_BYTES + key(batch).len() + batch.as_bytes().len().div_ceil(3) * 4;
            bytes < TRANSACTION_BYTES
        });
        // One that is too large alone would be refused by name.
        let (some, more) = rest.split_at(fitting.count().max(1));
        rest = more;
        let operation = |batch: &Batch| {
            let value = BASE64_STANDARD.encode(batch.as_bytes());
            json!({ "KV": { "Verb": "set", "Key": key(batch), "Value": value } })
        };
        bodies.push(Value::from_iter(some.iter().map(operation)).to_string());
    }
    bodies
}

fn folder(round: usize) -> String {
    format!("plain-{round}")
}

impl Engine for Consul {
    fn name(&self) -> &str {
        "Consul"
    }

    async fn store(&mut self, round: usize) -> Result<Arc<dyn Store>> {
        let url = StoreUrl::parse(&format!("consul://{}/bench", self.address))?;
        Ok(self.opener.open(&url, &cache_name("bench", &round.to_string())).await?)
    }

    async fn clear(&mut self, round: usize) -> Result<()> {
        match round.checked_sub(1) {
            Some(before) => self.forget(&folder(before)).await,
            None => Ok(()),
        }
    }

    async fn flush(&mut self, round: usize, batches: &[Batch]) -> Result<()> {
        let bodies = transactions(&folder(round), batches);
        let sending: Vec<_> = bodies.into_iter().map(|body| self.send(body)).collect();
        let sending = stream::iter(sending).buffer_unordered(UNDER_WAY);
        sending.try_for_each(|()| async { Ok(()) }).await
    }

    async fn load(&mut self, round: usize) -> Result<usize> {
        let folder = folder(round);
        let reading: Vec<_> = (0..SECTIONS / SECTIONS_READ)
            .map(|part| self.read(&folder, part))
            .collect();
        let reading = stream::iter(reading).buffer_unordered(UNDER_WAY);
        let records: Vec<usize> = reading.try_collect().await?;
        Ok(records.into_iter().sum())
    }
}
