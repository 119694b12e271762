//! A provider that answers with constants: what is left is the price of the wasmbus path itself.
//!
//! Same SDK, same runtime and same allocator as ours, and started in the same way, by host data on standard input.

use wasmbus_rpc::provider::prelude::*;
use wasmcloud_interface_keyvalue::{
    GetResponse, IncrementRequest, KeyValue, KeyValueReceiver, ListAddRequest, ListDelRequest, ListRangeRequest,
    SetAddRequest, SetDelRequest, SetRequest, StringList,
};

#[path = "../only_get_and_set.rs"]
mod only_get_and_set;
use only_get_and_set::only_get_and_set;
#[path = "../value.rs"]
mod value;

// That of the provider's main.rs.
#[global_allocator]
static ALLOCATOR: kvcache_allocator::Allocator = kvcache_allocator::Allocator;

#[derive(Clone, Provider)]
#[services(KeyValue)]
struct NoopProvider;

impl ProviderDispatch for NoopProvider {}
impl ProviderHandler for NoopProvider {}

only_get_and_set!(NoopProvider {
    async fn get<TS: ToString + ?Sized + Sync>(&self, _: &Context, _: &TS) -> RpcResult<GetResponse> {
        Ok(GetResponse { exists: true, value: value::VALUE.to_owned() })
    }

    async fn set(&self, _: &Context, _: &SetRequest) -> RpcResult<()> {
        Ok(())
    }
});

fn main() -> Result<(), Box<dyn std::error::Error>> {
    provider_main(NoopProvider, Some("noop-provider".into()))
}
