//! Lines that are no events of the log: why the process ends, and panics. They are written at any log level.

use std::sync::atomic::{AtomicBool, Ordering};

use kvcache_node::secret::cleaned;
use serde_json::json;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::lines::line;

/// As many characters fit into a line of the log, however they are written.
const MAX_CHARS: usize = 8 << 10;

static STRUCTURED: AtomicBool = AtomicBool::new(false);

/// From now on each line is a JSON object, as the events are.
pub(crate) fn are_structured() {
    STRUCTURED.store(true, Ordering::Relaxed);
}

/// Writes a line that is no event, at any level: why a process ends, a panic.
pub fn say(text: &str) {
    match STRUCTURED.load(Ordering::Relaxed) {
        false => line(&format!("nats-kvcache: {text}")),
        true => line(&event(text)),
    }
}

/// The line of an event that says `text`.
fn event(text: &str) -> String {
    // Before it is encoded: what is taken out of the line later may take the end of the object with it.
    let message: String = cleaned(text).chars().take(MAX_CHARS).collect();
    let mut timestamp = String::new();
    // Without a time it says as much.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let event = json!({
        "timestamp": timestamp,
        "level": "ERROR",
        "fields": { "message": message },
        "target": "nats_kvcache",
    });
    event.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::event;

    #[test]
    fn whatever_is_said_makes_one_object_of_bounded_length() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIIB";
        for text in ["a \"b\" \\ c\nd\u{2028}", key, &"\u{1}".repeat(1 << 20)] {
            let line = event(text);
            let object: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(!line.contains("MIIB") && line.len() < 64 << 10, "{line}");
            assert!(object["fields"]["message"].is_string() && object["timestamp"].as_str().unwrap().len() > 10);
        }
    }
}
