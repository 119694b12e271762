//! The allocator of the process, and memory that is not needed any more.
//!
//! A room of its own: it knows neither cache nor nodes, and programs that are compared with the provider use it as
//! well. How long memory has lain unused is its own matter, so it reads a clock of its own.
#![warn(missing_docs)]
#![allow(clippy::disallowed_methods)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_long;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use libmimalloc_sys as mi;

/// Milliseconds.
type Millis = u64;

/// Of a clock that never goes back.
fn mono() -> Millis {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed().as_millis() as Millis
}

/// A thread gives memory back no more often than this.
const INTERVAL_MS: Millis = 1_000;

/// A thread that has something to do so many times in an interval needs again what it frees, and gives it back after so
/// many intervals only, unless the cache grows fast.
const BUSY_PARKS: u32 = 100;
const BUSY_INTERVALS: u32 = 10;

/// A thread that is woken has found the task that wakes it after far fewer turns.
const YIELDS: usize = 64;

/// Every block of at least this size is aligned to it (`MI_MAX_ALIGN_SIZE` of mimalloc).
const NATURAL_ALIGN: usize = 16;

/// mimalloc, asked for an alignment only where it does not give it anyway.
///
/// The allocator of the crate `mimalloc` always asks, and gets blocks that are one size class larger: entries of 48
/// bytes would take 64.
pub struct Allocator;

/// How long freed memory is kept for the next who needs some: as long as mimalloc keeps it by itself. Much shorter, and
/// what each call needs has to be mapped anew.
const PURGE_DELAY_MS: c_long = 1_000;

/// How long while the cache grows fast: later, the buffers of a bootstrap would be used again for pages of keys, and
/// with them stay for ever.
const PURGE_DELAY_GROWING_MS: c_long = 50;

/// The cache grows fast with so many keys more per second.
const FAST_GROWTH: u64 = 50_000;

/// For how long after it has grown fast the shorter delay holds.
const GROWTH_LASTS_MS: Millis = 2_000;

/// `mi_option_purge_delay` of mimalloc 3, which the crate does not name.
const PURGE_DELAY: mi::mi_option_t = 15;

impl Allocator {
    /// Sets that freed memory is kept for a short time, for the whole process: for a cache that is about to be filled.
    /// To be called before anything else is done.
    pub fn configure() {
        keep_freed_for(PURGE_DELAY_GROWING_MS);
    }
}

/// Whether the cache grows fast.
static GROWING: AtomicBool = AtomicBool::new(true);

#[allow(unsafe_code)]
fn keep_freed_for(delay: c_long) {
    // SAFETY: mimalloc lets any thread set an option at any time (one aligned word), and checks its number.
    unsafe { mi::mi_option_set(PURGE_DELAY, delay) }
}

/// Sets how long freed memory is kept by how fast a cache grows.
#[derive(Default)]
pub struct Growth {
    looked: Millis,
    keys: u64,
    fast_until: Millis,
}

impl Growth {
    /// To be called several times a second, with the keys that are there.
    pub fn look(&mut self, keys: u64) {
        self.look_at(keys, mono());
    }

    fn look_at(&mut self, keys: u64, now: Millis) {
        if self.fast_until == 0 || self.is_fast(keys, now) {
            self.fast_until = now + GROWTH_LASTS_MS;
        }
        (self.keys, self.looked) = (keys, now);
        let growing = now < self.fast_until;
        GROWING.store(growing, Ordering::Relaxed);
        keep_freed_for(if growing {
            PURGE_DELAY_GROWING_MS
        } else {
            PURGE_DELAY_MS
        });
    }

    fn is_fast(&self, keys: u64, now: Millis) -> bool {
        keys.saturating_sub(self.keys) * 1_000 > FAST_GROWTH * now.saturating_sub(self.looked)
    }
}

fn is_natural(layout: Layout) -> bool {
    layout.align() <= NATURAL_ALIGN && layout.align() <= layout.size()
}

// SAFETY: mimalloc does what malloc does, and null says that there is no memory. What `GlobalAlloc` asks of us beyond
// that is alignment. Its blocks are aligned to their size up to 16 bytes, since classes are 8 bytes and multiples of 16
// (`MI_MAX_ALIGN_SIZE`; a test looks at it); everything else is asked for with its alignment. Blocks of all its
// functions may be given to `mi_free` and to the functions that resize. Nothing here panics.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a size above 0 and an alignment that is a power of two, which `Layout` keeps;
        // mimalloc demands no more than the second.
        unsafe {
            if is_natural(layout) {
                mi::mi_malloc(layout.size()).cast()
            } else {
                mi::mi_malloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe {
            if is_natural(layout) {
                mi::mi_zalloc(layout.size()).cast()
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller promises that it is a block of this allocator, and does not use it any more.
        unsafe { mi::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`; a size above 0 is promised too, and the alignment is that of the layout.
        unsafe {
            if layout.align() <= NATURAL_ALIGN && layout.align() <= size {
                mi::mi_realloc(block.cast(), size).cast()
            } else {
                mi::mi_realloc_aligned(block.cast(), size, layout.align()).cast()
            }
        }
    }
}

thread_local! {
    static DUE: Cell<Millis> = const { Cell::new(0) };
    /// How often this thread has had nothing to do since then, and for how many intervals it has been busy.
    static PARKS: Cell<u32> = const { Cell::new(0) };
    static BUSY: Cell<u32> = const { Cell::new(0) };
}

/// Since when threads sleep that have not given back what they freed last; 0 for one that has, or that is awake.
static SLEEPERS: Mutex<Vec<Weak<AtomicU64>>> = Mutex::new(Vec::new());

thread_local! {
    /// That of this thread.
    static SLEEPS: Arc<AtomicU64> = {
        let sleeps = Arc::new(AtomicU64::new(0));
        SLEEPERS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&sleeps));
        sleeps
    };
}

/// Gives back what this thread has freed. The allocator does so by itself only while it is used, and a little at a
/// time: after a bootstrap or a burst of writes, when a process falls idle, their buffers would stay for ever. For a
/// thread of the runtime that has nothing to do.
pub fn give_back() {
    let now = mono();
    PARKS.set(PARKS.get() + 1);
    if now < DUE.get() {
        return sleeps(now);
    }
    DUE.set(now + INTERVAL_MS);
    let parks = PARKS.replace(0);
    let busy = match parks > BUSY_PARKS && !GROWING.load(Ordering::Relaxed) {
        true => BUSY.get() + 1,
        false => BUSY_INTERVALS,
    };
    BUSY.set(busy % BUSY_INTERVALS);
    if busy < BUSY_INTERVALS {
        return sleeps(now);
    }
    give_back_now();
}

fn sleeps(since: Millis) {
    SLEEPS.with(|sleeps| sleeps.store(since.max(1), Ordering::Relaxed));
}

/// For a thread of the runtime that has something to do.
pub fn wakes() {
    SLEEPS.with(|sleeps| sleeps.store(0, Ordering::Relaxed));
}

/// Whether a thread has slept for long with what it has freed.
fn anybody_keeps(now: Millis) -> bool {
    let sleepers = SLEEPERS.lock().unwrap_or_else(PoisonError::into_inner);
    let keeps = |sleeps: Arc<AtomicU64>| {
        let since = sleeps.load(Ordering::Relaxed);
        since > 0 && now.saturating_sub(since) >= INTERVAL_MS
    };
    sleepers.iter().filter_map(Weak::upgrade).any(keeps)
}

/// Wakes the threads of the runtime if one has slept for long with what it has freed: what one thread has allocated and
/// another one freed only the first can give back, and it may have nothing to do any more. To be called several times a
/// second, in the runtime.
pub fn wake_sleepers() {
    if !anybody_keeps(mono()) {
        return;
    }
    // One that is woken takes some of them from the one that wakes it, and wakes the next.
    for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
        tokio::spawn(async {
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Gives back what this thread has freed, at once: for one that has used much and does nothing for a while.
#[allow(unsafe_code)]
pub fn give_back_now() {
    // SAFETY: any thread may call it at any time, also where another allocator is in use; it frees nothing that is in
    // use.
    unsafe { mi::mi_collect(true) };
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn blocks_are_aligned_and_keep_their_content() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in [1, 2, 7, 8, 9, 15, 16, 17, 24, 40, 48, 49, 100, 5_000, 300_000] {
                let layout = Layout::from_size_align(size, align).expect("small");
                // SAFETY: the sizes are above 0, and blocks are used as they were asked for.
                unsafe {
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(!zeroed.is_null() && zeroed.addr().is_multiple_of(align), "{layout:?}");
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    let block = Allocator.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                    block.write_bytes(7, size);
                    let larger = Allocator.realloc(block, layout, 2 * size + 1);
                    assert!(!larger.is_null() && larger.addr().is_multiple_of(align), "{layout:?}");
                    assert!(std::slice::from_raw_parts(larger, size).iter().all(|byte| *byte == 7));
                    Allocator.dealloc(zeroed, layout);
                    Allocator.dealloc(larger, Layout::from_size_align(2 * size + 1, align).expect("small"));
                }
            }
        }
    }

    #[test]
    fn no_thread_sleeps_for_long_with_what_it_has_freed() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .on_thread_park(give_back)
            .on_thread_unpark(wakes)
            .build()
            .expect("threads");
        runtime.block_on(async {
            let look = tokio::spawn(async {
                loop {
                    wake_sleepers();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            // All of them are busy twice within a second: the second time nothing is given back.
            for _ in 0..2 {
                let work = (0..64).map(|_| tokio::task::spawn_blocking(|| ()));
                for task in work.collect::<Vec<_>>() {
                    tokio::spawn(task).await.expect("joined").expect("done");
                }
            }
            let began = mono();
            // It is so at any time, give or take how seldom that is looked at; here twice in a row.
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(2 * INTERVAL_MS)).await;
                while anybody_keeps(mono().saturating_sub(INTERVAL_MS)) {
                    assert!(mono() - began < 30_000, "a thread sleeps on");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            look.abort();
        });
    }

    #[test]
    fn freed_memory_is_kept_for_long_unless_the_cache_grows() {
        // SAFETY: only reads.
        let delay = || unsafe { mi::mi_option_get(PURGE_DELAY) };
        let before = delay();
        Allocator::configure();
        let after = delay();
        // A second is the default of this option alone, apart from MIMALLOC_PURGE_DELAY in the environment.
        assert_eq!((before, after), (1_000, PURGE_DELAY_GROWING_MS));

        let mut growth = Growth::default();
        let mut look = |keys, now| {
            growth.look_at(keys, now);
            delay()
        };
        assert_eq!(look(0, 10), PURGE_DELAY_GROWING_MS, "a bootstrap may be about to come");
        assert_eq!(look(10, 2_010), PURGE_DELAY_MS);
        assert_eq!(look(4_000, 2_110), PURGE_DELAY_MS, "40,000 keys a second");
        assert_eq!(look(14_000, 2_210), PURGE_DELAY_GROWING_MS, "100,000 keys a second");
        assert_eq!(look(14_000, 4_209), PURGE_DELAY_GROWING_MS);
        assert_eq!(look(14_000, 4_210), PURGE_DELAY_MS);
        assert_eq!(look(0, 4_310), PURGE_DELAY_MS);
    }

    #[test]
    fn an_entry_takes_the_size_class_it_fits() {
        let layout = Layout::from_size_align(48, 2).expect("small");
        // SAFETY: as above.
        let blocks: Vec<*mut u8> = (0..10_000).map(|_| unsafe { Allocator.alloc(layout) }).collect();
        for block in blocks {
            // SAFETY: a block of mimalloc.
            unsafe {
                assert_eq!(mi::mi_usable_size(block.cast()), 48);
                Allocator.dealloc(block, layout);
            }
        }
    }
}
