//! What is counted as memory beside what the process takes, on the allocator of the provider: within a tenth.

use std::process::Command;

use kvcache_allocator::Allocator;
use kvcache_core::cache::{Cache, Key, Limits, NodeId};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Set for a process that fills a cache, to what it fills it with.
const CASE: &str = "KVCACHE_ACCOUNTING_CASE";
const NOW: u64 = 1_700_000_000_000;

type Fill = fn(&Cache);

const CASES: [(&str, Fill); 12] = [
    ("small keys", |cache| {
        for n in 0..1_000_000 {
            cache.set(&key(n), &[b'v'; 16][..], 0, NOW).unwrap();
        }
    }),
    ("small keys that expire, in a namespace", |cache| {
        for n in 0..300_000 {
            let key = Key::new("namespace", format!("key {n:012}").as_bytes()).unwrap();
            cache.set(&key, &[b'v'; 30][..], 60, NOW).unwrap();
        }
    }),
    ("10,000 values of 10 kB", |cache| values(cache, 10_000, 10_000)),
    ("2,000 values of 100 kB", |cache| values(cache, 2_000, 100_000)),
    ("values of many sizes", |cache| {
        for n in 0..30_000 {
            let value = vec![b'v'; 1 << (n % 14)];
            cache.set(&key(n), &value[..], 0, NOW).unwrap();
        }
    }),
    ("counters", |cache| {
        for n in 0..200_000 {
            cache.increment(&key(n), 1, NOW).unwrap();
        }
    }),
    ("a list of 1,000,000 items", |cache| {
        for _ in 0..1_000_000 {
            cache.list_push(&key(0), "an item", NOW).unwrap();
        }
    }),
    ("1,000 lists of 200 long items", |cache| {
        for n in 0..200_000 {
            cache.list_push(&key(n % 1_000), &[b'v'; 100][..], NOW).unwrap();
        }
    }),
    ("a set of 500,000 members in any order", |cache| {
        for n in 0..500_000u64 {
            cache
                .set_add(&key(0), format!("{:x}", scattered(n)).as_str(), NOW)
                .unwrap();
        }
    }),
    ("a set of 500,000 members in order", |cache| {
        for n in 0..500_000u64 {
            cache.set_add(&key(0), format!("member{n:08}").as_str(), NOW).unwrap();
        }
    }),
    ("1,000 sets of 300 members", |cache| {
        for n in 0..300_000u64 {
            let member = format!("member with a long name {n:08}");
            cache.set_add(&key(n % 1_000), member.as_str(), NOW).unwrap();
        }
    }),
    ("deletions", |cache| {
        for n in 0..500_000 {
            cache.set(&key(n), &[b'v'; 100][..], 0, NOW).unwrap();
            cache.delete(&key(n), NOW).unwrap();
        }
        for n in 0..300_000u64 {
            let member = format!("{:x}", scattered(n));
            cache.set_add(&key(1_000_000), member.as_str(), NOW).unwrap();
            cache.set_remove(&key(1_000_000), member.as_str(), NOW).unwrap();
        }
    }),
];

fn key(n: u64) -> Key {
    Key::shared(format!("key {n:012}").as_bytes())
}

fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn values(cache: &Cache, number: u64, bytes: usize) {
    let value = vec![b'v'; bytes];
    for n in 0..number {
        cache.set(&key(n), &value[..], 0, NOW).unwrap();
    }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    resident * 4_096
}

/// In a process of its own: what others have freed would be used first.
fn in_this_process(case: &str) {
    let (_, fill) = CASES.iter().find(|(name, _)| *name == case).unwrap();
    let cache = Cache::new(NodeId(1), Limits::default());
    let before = resident_bytes();
    fill(&cache);
    kvcache_allocator::give_back_now();
    println!("{} {}", cache.memory_bytes(), resident_bytes() - before);
}

#[test]
fn what_is_counted_is_within_a_tenth_of_what_the_process_takes() {
    if let Ok(case) = std::env::var(CASE) {
        return in_this_process(&case);
    }
    if !std::path::Path::new("/proc/self/statm").exists() {
        eprintln!("not tested: this system does not say what a process takes");
        return;
    }
    let mut wrong = Vec::new();
    for (case, _) in CASES {
        let name = "what_is_counted_is_within_a_tenth_of_what_the_process_takes";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CASE, case)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers = text.lines().find_map(|line| {
            let (counted, resident) = line.split_once(' ')?;
            Some((counted.parse::<u64>().ok()?, resident.parse::<u64>().ok()?))
        });
        let (counted, resident) = numbers.unwrap_or_else(|| panic!("{case}: {text}"));
        let ratio = counted as f64 / resident as f64;
        println!("{case}: {counted} counted, {resident} resident: {ratio:.3}");
        if !(0.9..=1.1).contains(&ratio) {
            wrong.push(format!("{case}: {ratio:.3}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
