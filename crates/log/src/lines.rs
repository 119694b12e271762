//! The queue of lines, and the thread that writes them.
//!
//! Whoever logs never waits. Lines go through a bounded queue; when nobody takes them (standard error is a pipe that is
//! not read) they are dropped and counted, and the count is told as soon as lines are taken again. Every line passes
//! [`hidden`] and [`escaped`]: this is the one place where text leaves the process.
//!
//! Events of one place in the code are written some times per interval, and then counted: many can be caused by others
//! as often as they like.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};

use kvcache_node::secret::{escaped, hidden};
use kvcache_node::service::Millis;
use kvcache_node::time;

/// Bytes that may wait to be written.
const QUEUE_BYTES: usize = 1 << 20;

/// A longer line is cut.
const MAX_LINE_BYTES: usize = 64 << 10;

/// How long the last lines may take before the process ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Lines of one place in the code per interval.
const LINES_PER_INTERVAL: u64 = 100;
const INTERVAL_MS: Millis = 10_000;

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Default)]
struct Log {
    queue: Mutex<Queue>,
    /// Something is queued.
    filled: Condvar,
    /// Nothing is queued or being written.
    idle: Condvar,
    dropped: AtomicU64,
    /// Of these, those that the log has been told of.
    told: AtomicU64,
    colours: bool,
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
    writing: bool,
    /// Somebody writes what is queued, until he is told to end.
    written: bool,
    ending: bool,
}

/// Events of one place in the code.
struct Place {
    metadata: &'static Metadata<'static>,
    since: Millis,
    passed: u64,
    suppressed: u64,
}

/// Lines that were dropped so far because nobody took them.
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.dropped.load(Ordering::Relaxed))
}

/// Writes a line.
pub fn line(text: &str) {
    log().push(text);
}

/// Waits until everything is written, for a bounded time: nobody may be there to read it.
pub fn flush() {
    let log = log();
    let busy = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
    let waited = log.idle.wait_timeout_while(log.queue(), FLUSH_LIMIT, busy);
    drop(waited);
}

/// Writes what is left, for a bounded time, and ends the thread. The next line starts another: a library may be used
/// again after its host has stopped it.
pub fn end() {
    flush();
    log().queue().ending = true;
    log().filled.notify_all();
}

fn log() -> &'static Log {
    LOG.get_or_init(|| Log {
        colours: io::stderr().is_terminal(),
        ..Log::default()
    })
}

/// Writes what is queued. Without the thread lines are dropped, and counted.
fn start_writer() -> bool {
    let thread = std::thread::Builder::new().name("log".into());
    let started = thread.spawn(|| match own_stderr() {
        Ok(target) => log().write_to(target),
        Err(_) => log().write_to(io::sink()),
    });
    started.is_ok()
}

/// Not by way of the standard library's handle: whoever waits there holds its lock.
fn own_stderr() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

impl Log {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what is one line; cleans it.
    fn push(&self, text: &str) {
        let text = text.trim_end_matches(['\n', '\r']);
        let mut line = escaped(&hidden(text), self.colours).into_owned();
        if line.len() > MAX_LINE_BYTES {
            let end = (0..=MAX_LINE_BYTES).rev().find(|at| line.is_char_boundary(*at));
            line.truncate(end.unwrap_or_default());
            line.push_str("...");
        }
        line.push('\n');
        let mut queue = self.queue();
        if queue.bytes + line.len() > QUEUE_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        if self.is_of_process() && !queue.written {
            queue.written = start_writer();
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Whether it is the one whose lines leave the process. Tests have others.
    fn is_of_process(&self) -> bool {
        LOG.get().is_some_and(|log| std::ptr::eq(log, self))
    }

    /// Writes lines as they come.
    fn write_to(&self, mut target: impl Write) {
        while !self.has_ended() {
            let (line, is_last) = self.next();
            if let Some(line) = line {
                // Where nobody is left to read there is nobody to tell.
                let _ = target.write_all(line.as_bytes());
            }
            if let Some(lines) = self.untold().filter(|_| is_last) {
                tracing::warn!(lines, "lines of this log were dropped, as nobody took them");
                self.told.fetch_add(lines, Ordering::Relaxed);
            }
            self.tell_suppressed();
        }
    }

    /// Whether the thread is to end, and has written all.
    fn has_ended(&self) -> bool {
        let mut queue = self.queue();
        let ends = queue.ending && queue.lines.is_empty();
        if ends {
            (queue.ending, queue.written, queue.writing) = (false, false, false);
            self.idle.notify_all();
        }
        ends
    }

    /// Lines that were dropped, and nobody has been told.
    fn untold(&self) -> Option<u64> {
        let lines = self.dropped.load(Ordering::Relaxed) - self.told.load(Ordering::Relaxed);
        (lines > 0).then_some(lines)
    }

    /// The next line, if there is one within an interval, and whether it is the last one for now.
    fn next(&self) -> (Option<String>, bool) {
        let mut queue = self.queue();
        queue.writing = false;
        if queue.lines.is_empty() {
            self.idle.notify_all();
        }
        let limit = Duration::from_millis(INTERVAL_MS);
        let waited = self
            .filled
            .wait_timeout_while(queue, limit, |queue| queue.lines.is_empty() && !queue.ending);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let line = queue.lines.pop_front();
        if let Some(line) = &line {
            queue.bytes -= line.len();
            queue.writing = true;
        }
        (line, queue.lines.is_empty())
    }

    /// Whether an event may be written.
    fn passes(&self, metadata: &'static Metadata<'static>, now: Millis) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(metadata.callsite()).or_insert(Place {
            metadata,
            since: now,
            passed: 0,
            suppressed: 0,
        });
        if now >= place.since + INTERVAL_MS && place.suppressed == 0 {
            (place.since, place.passed) = (now, 0);
        }
        if place.passed >= LINES_PER_INTERVAL {
            place.suppressed += 1;
            return false;
        }
        place.passed += 1;
        true
    }

    /// Says what was left out in intervals that have passed.
    fn tell_suppressed(&self) {
        let now = time::mono();
        let mut told = Vec::new();
        for place in self.places.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            if place.suppressed > 0 && now >= place.since + INTERVAL_MS {
                told.push((place.metadata, place.suppressed));
                (place.since, place.passed, place.suppressed) = (now, 0, 0);
            }
        }
        for (place, lines) in told {
            let (target, at) = (place.target(), place.line().unwrap_or_default());
            tracing::warn!(
                lines,
                "more lines like those of {target} (line {at} of its source) were left out"
            );
        }
    }
}

/// Lets events pass as often as [`Log::passes`] says. What is logged for debugging is as much as was asked for.
pub struct Bounded;

impl<S: Subscriber> Layer<S> for Bounded {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        *metadata.level() > Level::INFO || log().passes(metadata, time::mono())
    }
}

/// Where the formatter of events writes to.
pub struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = EventLine;

    fn make_writer(&'a self) -> EventLine {
        EventLine::default()
    }
}

/// One event, however many writes it takes.
#[derive(Default)]
pub struct EventLine(Vec<u8>);

impl Write for EventLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EventLine {
    fn drop(&mut self) {
        line(&String::from_utf8_lossy(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, Receiver, Sender};

    use super::*;

    /// Takes a write once it is allowed to.
    struct Gate(Receiver<()>, Sender<String>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a test nobody waits for what is written.
            let _ = self.0.recv();
            let _ = self.1.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_counted_and_the_others_keep_their_order() {
        let log: &'static Log = Box::leak(Box::default());
        let ((open, gate), (sender, written)) = (channel(), channel());
        std::thread::spawn(move || log.write_to(Gate(gate, sender)));
        let text = "x".repeat(10_000);
        for number in 0..1_000 {
            log.push(&format!("{number} {text}"));
        }
        let dropped = log.untold().expect("more than the queue holds");
        assert!((800..1_000).contains(&dropped), "{dropped}");
        for _ in 0..1_000 - dropped {
            open.send(()).unwrap();
        }
        for number in 0..1_000 - dropped {
            let line = written.recv().unwrap();
            assert!(
                line.starts_with(&format!("{number} ")) && line.ends_with("x\n"),
                "{number}"
            );
        }
        log.push("there is room again");
        open.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "there is room again\n");
    }

    #[test]
    fn a_line_is_one_line_without_secrets_and_of_bounded_length() {
        let log = Log::default();
        log.push("a\nSUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLM\r\n");
        log.push(&"\u{e4}".repeat(MAX_LINE_BYTES));
        let queue = log.queue();
        assert_eq!(queue.lines[0], "a\\n(hidden)\n");
        assert!(queue.lines[1].len() <= MAX_LINE_BYTES + 4 && queue.lines[1].ends_with("...\n"));
    }

    #[test]
    fn events_of_one_place_are_bounded_per_interval() {
        let log = Log::default();
        let place = || {
            static SITE: tracing::callsite::DefaultCallsite = tracing::callsite::DefaultCallsite::new(&META);
            static META: Metadata<'static> = tracing::metadata! {
                name: "place",
                target: "test",
                level: Level::WARN,
                fields: &[],
                callsite: &SITE,
                kind: tracing::metadata::Kind::EVENT,
            };
            &META
        };
        let passed = |now| (0..1_000).filter(|_| log.passes(place(), now)).count() as u64;
        let start = time::mono();
        assert_eq!(passed(start), LINES_PER_INTERVAL);
        assert_eq!(passed(start + 1), 0);
    }

    #[test]
    fn the_writer_ends_once_it_is_told_to_and_all_is_written() {
        let log: &'static Log = Box::leak(Box::default());
        let ((open, gate), (sender, written)) = (channel(), channel());
        log.push("last");
        log.queue().ending = true;
        let writer = std::thread::spawn(move || log.write_to(Gate(gate, sender)));
        open.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "last\n");
        writer.join().unwrap();
        assert!(!log.queue().ending, "the next one goes on");
    }
}
