//! nats-kvcache as the lattice cache of wasmCloud hosts of the 0.18 line: `with_lattice_cache_provider(reference)`.
//!
//! The host loads this library, takes the plugin out of it and calls it on one thread. What it does, and what it relies
//! on, is told in docs/OPERATIONS.md ("Hosts of the 0.18 line"). Both have to be built by the same compiler: what goes
//! from one to the other are values of Rust.

mod exit;
mod keyvalue;
mod plugin;
mod serving;

use std::any::Any;
use std::error::Error;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use wasmcloud_provider_core::core::{OP_BIND_ACTOR, OP_HEALTH_REQUEST, OP_REMOVE_ACTOR, SYSTEM_ACTOR};
use wasmcloud_provider_core::{CapabilityProvider, Dispatcher};

use plugin::{Failure, Plugin};

/// Makes the plugin. A function of Rust, as the host calls it (`NativeCapability` of `wasmcloud-host` 0.18.2).
#[allow(unsafe_code, reason = "the host finds it by this name")]
#[no_mangle]
pub fn __capability_provider_create() -> *mut dyn CapabilityProvider {
    Box::into_raw(Box::new(LatticeCache::default()))
}

/// The plugin as the host sees it. Clones are the same one.
#[derive(Clone, Default)]
struct LatticeCache(Arc<Plugin>);

impl CapabilityProvider for LatticeCache {
    /// The cache calls no actor.
    fn configure_dispatch(&self, dispatcher: Box<dyn Dispatcher>) -> Result<(), Box<dyn Error + Send + Sync>> {
        drop(dispatcher);
        Ok(())
    }

    fn handle_call(&self, actor: &str, op: &str, msg: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let call = || match op {
            OP_BIND_ACTOR if actor == SYSTEM_ACTOR => self.0.bind(msg),
            OP_REMOVE_ACTOR if actor == SYSTEM_ACTOR => self.0.unbind(msg),
            OP_HEALTH_REQUEST if actor == SYSTEM_ACTOR => self.0.health(),
            _ => self.0.call(actor, op, msg),
        };
        guarded(call).map_err(|failure| failure.to_string().into())
    }

    fn stop(&self) {
        // Nobody is there to be told of a failure.
        let _ = guarded(|| {
            self.0.stop();
            Ok(())
        });
    }
}

/// Calls without unwinding into the host, which may be built to abort.
fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Failure::Panicked(said(&*panic))))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no reason is known".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_as_an_error_of_the_call() {
        let failed = guarded::<()>(|| panic!("number {}", 7));
        assert_eq!(failed, Err(Failure::Panicked("number 7".into())));
    }

    #[test]
    fn before_it_is_bound_every_call_is_an_error_and_health_says_so() {
        let plugin = LatticeCache::default();
        for op in ["Get", "Set", "NoSuchOperation"] {
            let error = plugin.handle_call(SYSTEM_ACTOR, op, b"\x80").unwrap_err();
            assert!(error.to_string().contains("BindActor"), "{op}: {error}");
        }
        let answer = plugin.handle_call(SYSTEM_ACTOR, OP_HEALTH_REQUEST, b"").unwrap();
        let health: wasmcloud_actor_core::HealthCheckResponse = wasmcloud_actor_core::deserialize(&answer).unwrap();
        assert!(!health.healthy && health.message.contains("BindActor"), "{health:?}");
        plugin.stop();
        plugin.stop();
        let error = plugin.handle_call(SYSTEM_ACTOR, "Get", b"").unwrap_err();
        assert!(error.to_string().contains("stopped"), "{error}");
    }
}
