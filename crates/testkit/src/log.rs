//! What a child process writes to its output, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{bail, Result};

use crate::wait::eventually;

/// The captured lines of a process; clones see the same lines.
#[derive(Clone, Debug, Default)]
pub struct CapturedLog {
    lines: Arc<Mutex<Vec<String>>>,
    open_sources: Arc<AtomicUsize>,
}

impl CapturedLog {
    /// Reads `source` to its end on a thread of its own.
    pub(crate) fn follow(&self, source: impl Read + Send + 'static) {
        let log = self.clone();
        log.open_sources.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                // The SDK writes a carriage return whenever it flushes its log.
                let text = String::from_utf8_lossy(&line).trim_matches(['\r', '\n']).to_owned();
                log.lock().push(text);
                line.clear();
            }
            log.open_sources.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// Everything so far, as one text.
    pub fn text(&self) -> String {
        self.lock().join("\n")
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lock();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// The lines that contain `pattern`.
    pub fn matching(&self, pattern: &str) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|line| line.contains(pattern))
            .cloned()
            .collect()
    }

    /// Waits for a line that contains `pattern` and returns it.
    pub async fn wait_for(&self, pattern: &str, limit: Duration) -> Result<String> {
        eventually(limit, || async {
            match self.matching(pattern).into_iter().next() {
                Some(line) => Ok(line),
                None => bail!("no line with {pattern:?} in the log; it ends with\n{}", self.tail(10)),
            }
        })
        .await
    }

    /// Waits until everything that an ended process wrote has been read.
    pub(crate) async fn wait_closed(&self, limit: Duration) -> Result<()> {
        eventually(limit, || async {
            match self.open_sources.load(Ordering::SeqCst) {
                0 => Ok(()),
                open => bail!("{open} outputs of the process are still open"),
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().expect("no reader of the log panics")
    }
}
