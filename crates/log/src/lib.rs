//! What the process writes: to standard error, a line per event, by a thread of its own. For the binary, and for front
//! ends that live in the process of somebody else.
#![warn(missing_docs)]

mod last_words;
mod lines;

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::EnvFilter;

pub use last_words::say;
pub use lines::{dropped, end, flush};
use lines::{Bounded, Lines};

/// Logs as the SDK of wasmbus hosts would set it up: at the wanted level or by these directives, as text or as a line
/// of JSON per event.
pub fn init(wanted: &str, structured: bool) {
    let parsed = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse(directives(wanted));
    let (filter, misunderstood) = match parsed {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(directives("")), Some(error)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines);
    if structured {
        last_words::are_structured();
    }
    let result = if structured {
        builder.json().finish().with(Bounded).try_init()
    } else {
        let colours = std::io::stderr().is_terminal();
        builder.with_ansi(colours).finish().with(Bounded).try_init()
    };
    if let Err(error) = result {
        say(&format!("cannot set up logging: {error}"));
    }
    if let Some(error) = misunderstood {
        tracing::warn!("log level '{wanted}' is not understood ({error}); logging at level info");
    }
}

/// The directives for a wanted log level. What the client library says at these levels, this project says once and in
/// its own words.
fn directives(wanted: &str) -> String {
    match wanted.to_ascii_lowercase().as_str() {
        "" => "info,async_nats=off".into(),
        level @ ("info" | "warn" | "error") => format!("{level},async_nats=off"),
        _ => wanted.into(),
    }
}

/// Panics go where all lines go: the hook of the standard library would wait for standard error.
pub fn set_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        say(&format!("thread '{}' {panic}", thread.name().unwrap_or("?")));
    }));
}

#[cfg(test)]
mod tests {
    use super::directives;

    #[test]
    fn plain_levels_quieten_the_client_library_and_others_are_taken_as_they_are() {
        for (wanted, expected) in [
            ("", "info,async_nats=off"),
            ("INFO", "info,async_nats=off"),
            ("warn", "warn,async_nats=off"),
            ("debug", "debug"),
            ("info,async_nats=trace", "info,async_nats=trace"),
        ] {
            assert_eq!(directives(wanted), expected, "{wanted:?}");
        }
    }
}
