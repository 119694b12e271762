//! The life of the plugin: bound, serving, stopped.

use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};

use kvcache_log as log;
use kvcache_node::secret::cleaned;
use kvcache_node::settings::{RawSettings, SettingsError};
use wasmcloud_actor_core::{CapabilityConfiguration, HealthCheckResponse};
use wasmcloud_provider_core::core::SYSTEM_ACTOR;

use crate::exit::stop_at_exit;
use crate::serving::{Serving, StartError};

/// Why a call fails, in words for whoever reads the log of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nobody has said yet what to serve.
    Unbound,
    /// It cannot serve with the settings it was given.
    Refused(String),
    /// The host has stopped it.
    Stopped,
    /// The actor has no link.
    Unlinked(String),
    /// No operation of the contract.
    Unknown(String),
    /// The call cannot be read.
    Argument(String),
    /// What the service says.
    Failed(String),
    /// A fault of ours.
    Panicked(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Failure::Unbound => "the lattice cache has not been configured: expected BindActor first".into(),
            Failure::Refused(why) => format!("the lattice cache does not run: {why}"),
            Failure::Stopped => "the lattice cache has been stopped".into(),
            Failure::Unlinked(actor) => format!("unlinked actor: '{actor}'"),
            Failure::Unknown(operation) => format!("operation '{operation}' is none of wasmcloud:keyvalue"),
            Failure::Argument(error) => error.clone(),
            Failure::Failed(why) => why.clone(),
            Failure::Panicked(what) => format!("the lattice cache has a fault, see its log: {what}"),
        };
        // Names of actors and settings can be anything.
        f.write_str(&cleaned(&text))
    }
}

/// What there is to answer with.
#[derive(Default)]
enum State {
    #[default]
    Unbound,
    Refused(String),
    Serving(Arc<Serving>),
    Stopped,
}

/// One cache inside a host.
#[derive(Default)]
pub struct Plugin {
    state: RwLock<State>,
    /// One at a time binds or stops.
    changing: Mutex<()>,
}

impl Plugin {
    /// Starts with the settings that the first link carries: for the lattice cache the environment of the host. Later
    /// links are those of actors, and of the host again. Waits for the bootstrap.
    pub fn bind(self: &Arc<Self>, message: &[u8]) -> Result<Vec<u8>, Failure> {
        start_log();
        let link: CapabilityConfiguration = decoded("CapabilityConfiguration", message)?;
        let values = match link.module.as_str() {
            SYSTEM_ACTOR => RawSettings::from_environment(&link.values),
            _ => RawSettings::from_link(&link.values),
        };
        values.warn_unknown(match link.module.as_str() {
            SYSTEM_ACTOR => "the environment",
            _ => "the link values",
        });
        self.link_or_start(&link.module, values)?.wait_for_first_sync();
        Ok(Vec::new())
    }

    fn link_or_start(self: &Arc<Self>, module: &str, values: RawSettings) -> Result<Arc<Serving>, Failure> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.serving() {
            Ok(serving) => serving.link(module, &values).map_err(refused_link).map(|()| serving),
            Err(_) => self.start(module, values),
        }
    }

    fn start(self: &Arc<Self>, module: &str, values: RawSettings) -> Result<Arc<Serving>, Failure> {
        match Serving::start(module, values) {
            Ok(serving) => {
                let serving = Arc::new(serving);
                self.set(State::Serving(serving.clone()));
                stop_at_exit(self);
                Ok(serving)
            }
            Err(error) => {
                let why = why(&error);
                // The host says nothing of the answer to a link, and goes on.
                tracing::error!("the lattice cache does not run, and every call of it is an error: {why}");
                self.set(State::Refused(why.clone()));
                Err(Failure::Refused(why))
            }
        }
    }

    /// Ends the link of an actor. The data stays.
    pub fn unbind(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let link: CapabilityConfiguration = decoded("CapabilityConfiguration", message)?;
        self.serving()?.unlink(&link.module);
        Ok(Vec::new())
    }

    /// The truth, whatever it is: this is an answer also where all others are errors.
    pub fn health(&self) -> Result<Vec<u8>, Failure> {
        let (healthy, message) = match self.serving() {
            Ok(serving) => serving.health(),
            Err(failure) => (false, failure.to_string()),
        };
        let message = cleaned(&message).into_owned();
        encoded(&HealthCheckResponse { healthy, message })
    }

    /// Performs an operation of the contract.
    pub fn call(&self, actor: &str, operation: &str, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.serving()?.call(actor, operation, message)
    }

    /// Sends what is queued and ends all threads.
    pub fn stop(&self) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(serving) = self.serving() {
            tracing::info!("the host stops the lattice cache: sending what is queued, then ending");
            self.set(State::Stopped);
            serving.stop();
        }
        self.set(State::Stopped);
        log::end();
    }

    fn serving(&self) -> Result<Arc<Serving>, Failure> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Serving(serving) => Ok(serving.clone()),
            State::Unbound => Err(Failure::Unbound),
            State::Refused(why) => Err(Failure::Refused(why.clone())),
            State::Stopped => Err(Failure::Stopped),
        }
    }

    fn set(&self, state: State) {
        let before = std::mem::replace(&mut *self.state.write().unwrap_or_else(PoisonError::into_inner), state);
        drop(before);
    }
}

/// Logs to the standard error of the host, at the level of its `RUST_LOG`.
fn start_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Those of this library: the host has a standard library of its own.
        log::set_panic_hook();
        log::init(&std::env::var("RUST_LOG").unwrap_or_default(), false);
    });
}

fn why(error: &StartError) -> String {
    cleaned(&error.to_string()).into_owned()
}

fn refused_link(error: SettingsError) -> Failure {
    tracing::error!("link refused: {error}");
    Failure::Failed(format!("link refused: {error}"))
}

/// `what` is the type as the contract names it. The contract's own function takes the memory that a length asks for
/// before it looks at what is there, and an actor can ask for 4 GiB with nine bytes.
pub fn decoded<'a, T: serde::Deserialize<'a>>(what: &str, message: &'a [u8]) -> Result<T, Failure> {
    rmp_serde::from_slice(message).map_err(|error| Failure::Argument(format!("'{what}': {error}")))
}

/// What an answer has around its values.
pub const ROOM_FOR_NAMES: usize = 32;

pub fn encoded<T: serde::Serialize>(answer: &T) -> Result<Vec<u8>, Failure> {
    encoded_within(ROOM_FOR_NAMES, answer)
}

/// In so many bytes, if they are enough. As the contract does it: maps with names.
pub fn encoded_within<T: serde::Serialize>(room: usize, answer: &T) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::with_capacity(room);
    let written = answer.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
    written.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(bytes)
}
