//! A provider that keeps its values in Redis, as the wasmCloud project's own does: get and set over one multiplexed
//! connection that reconnects by itself. `URL` in `config_json` says where.
//!
//! Same SDK, same runtime and same allocator as ours, and started in the same way, by host data on standard input.

use anyhow::{anyhow, Context as _};
use redis::aio::ConnectionManager;
use redis::AsyncCommands;
use serde::Deserialize;
use wasmbus_rpc::core::HostData;
use wasmbus_rpc::provider::prelude::*;
use wasmcloud_interface_keyvalue::{
    GetResponse, IncrementRequest, KeyValue, KeyValueReceiver, ListAddRequest, ListDelRequest, ListRangeRequest,
    SetAddRequest, SetDelRequest, SetRequest, StringList,
};

#[path = "../only_get_and_set.rs"]
mod only_get_and_set;
use only_get_and_set::only_get_and_set;

// That of the provider's main.rs.
#[global_allocator]
static ALLOCATOR: kvcache_allocator::Allocator = kvcache_allocator::Allocator;

#[derive(Clone, Provider)]
#[services(KeyValue)]
struct RedisProvider {
    connection: ConnectionManager,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "URL")]
    url: String,
}

impl ProviderDispatch for RedisProvider {}
impl ProviderHandler for RedisProvider {}

impl RedisProvider {
    async fn connect(host_data: &HostData) -> anyhow::Result<Self> {
        let config = host_data.config_json.as_deref().unwrap_or_default();
        let config: Config = serde_json::from_str(config).context("config_json: expected an object with URL")?;
        let client = redis::Client::open(config.url).context("config_json: URL")?;
        let connection = client.get_connection_manager().await.context("connecting to Redis")?;
        Ok(Self { connection })
    }
}

fn failed(error: redis::RedisError) -> RpcError {
    RpcError::Other(format!("Redis: {error}"))
}

only_get_and_set!(RedisProvider {
    async fn get<TS: ToString + ?Sized + Sync>(&self, _: &Context, key: &TS) -> RpcResult<GetResponse> {
        let value: Option<String> = self.connection.clone().get(key.to_string()).await.map_err(failed)?;
        Ok(GetResponse { exists: value.is_some(), value: value.unwrap_or_default() })
    }

    async fn set(&self, _: &Context, request: &SetRequest) -> RpcResult<()> {
        let mut connection = self.connection.clone();
        let (key, value) = (request.key.as_str(), request.value.as_str());
        match request.expires {
            0 => connection.set(key, value).await,
            seconds => connection.set_ex(key, value, seconds.into()).await,
        }
        .map_err(failed)
    }
});

fn main() -> anyhow::Result<()> {
    let host_data = load_host_data().map_err(|error| anyhow!("host data: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let provider = RedisProvider::connect(&host_data).await?;
        let ended = provider_run(provider, host_data, Some("redis-provider".into())).await;
        ended.map_err(|error| anyhow!("{error}"))
    })
}
