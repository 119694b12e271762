//! A plugin without a host: loaded and called as the host does it.

use anyhow::{anyhow, Context, Result};
use serde_json::{json, Value};
use wasmcloud_nats_kvcache::NatsReplicatedKVProvider;
use wasmcloud_provider_core::{CapabilityProvider, NullDispatcher};

use crate::{answer, command, text};

type Create = unsafe fn() -> *mut dyn CapabilityProvider;

/// The classic cache, or that of a library.
pub fn load(which: &str) -> Result<Box<dyn CapabilityProvider>> {
    let plugin = match which {
        "classic" => Box::new(NatsReplicatedKVProvider::new()),
        // RTLD_NOW | RTLD_NODELETE, as `native_host.rs` of the host.
        library => unsafe {
            let library = libloading::os::unix::Library::open(Some(library), 0x2 | 0x1000).context("loading")?;
            let create = library.get::<Create>(b"__capability_provider_create")?;
            Box::from_raw(create())
        },
    };
    let configured = plugin.configure_dispatch(Box::new(NullDispatcher::new()));
    configured.map_err(|error| anyhow!("{}", error))?;
    Ok(plugin)
}

/// Commands: `{"actor": ..., "op": ..., "args": ...}` calls, `{"bytes": [...]}` instead of `args` calls with just these,
/// `{"stop": true}` stops.
pub fn serve(plugin: Box<dyn CapabilityProvider>) -> Result<()> {
    while let Some(command) = command()? {
        answer(perform(&*plugin, &command))?;
    }
    Ok(())
}

fn perform(plugin: &dyn CapabilityProvider, command: &Value) -> Result<Value> {
    if command["stop"] == true {
        plugin.stop();
        return Ok(Value::Null);
    }
    let argument = match &command["bytes"] {
        Value::Null => to_bytes(&command["args"])?,
        bytes => serde_json::from_value(bytes.clone())?,
    };
    call(plugin, text(command, "actor")?, text(command, "op")?, &argument)
}

pub fn call(plugin: &dyn CapabilityProvider, actor: &str, operation: &str, argument: &[u8]) -> Result<Value> {
    let answered = plugin.handle_call(actor, operation, argument);
    from_bytes(&answered.map_err(|error| anyhow!("{}", error))?)
}

/// The link by which a host configures its cache: its environment `KVCACHE_*` without the prefix.
pub fn bind(plugin: &dyn CapabilityProvider) -> Result<()> {
    let values = std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix("KVCACHE_")?.to_owned(), value)));
    let values: std::collections::HashMap<String, String> = values.collect();
    let link = to_bytes(&json!({ "module": "system", "values": values }))?;
    call(plugin, "system", "BindActor", &link).map(drop)
}

pub fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    wasmcloud_actor_core::serialize(value).map_err(|error| anyhow!("{}", error))
}

pub fn from_bytes(bytes: &[u8]) -> Result<Value> {
    match bytes {
        [] => Ok(Value::Null),
        bytes => rmp_serde::from_slice(bytes).context("an answer that is no MessagePack"),
    }
}
