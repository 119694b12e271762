//! The end of the host's process. `Host::stop` tells the plugin to stop, on a thread that the end of the process
//! overtakes half of the time; a `main` that returns does not tell it at all.

use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use crate::plugin::Plugin;

static PLUGINS: Mutex<Vec<Weak<Plugin>>> = Mutex::new(Vec::new());

/// Stops a plugin when the process ends in an orderly way, unless it has been stopped. If it is being stopped, the
/// process waits for that.
pub fn stop_at_exit(plugin: &Arc<Plugin>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(register);
    let mut plugins = PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
    plugins.retain(|other| other.strong_count() > 0);
    plugins.push(Arc::downgrade(plugin));
}

#[allow(unsafe_code, reason = "there is no other way to hear of it")]
fn register() {
    // SAFETY: the function stays, as the host never unloads the library (RTLD_NODELETE), and it does not unwind. Where
    // there is no room for one more, the process ends as it would without.
    unsafe { libc::atexit(at_exit) };
}

extern "C" fn at_exit() {
    let stopped = catch_unwind(|| {
        let plugins = std::mem::take(&mut *PLUGINS.lock().unwrap_or_else(PoisonError::into_inner));
        // What belongs to the thread that ends the process may be gone already.
        let stopping = std::thread::spawn(move || {
            plugins
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|plugin| plugin.stop());
        });
        stopping.join()
    });
    // Nobody is left to be told.
    drop(stopped);
}
