//! The store in a file, on a disk that loses its power: at every operation, with any part of what was not synced.
#![cfg(feature = "store-file")]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{bail, ensure, Context, Result};
use futures::executor::block_on;
use kvcache_core::cache::Partition;
use kvcache_core::durable::{Batch, Record, Section};
use kvcache_node::store::file::FileStore;
use kvcache_node::store::{Store, StoreError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

/// What is asked of the store before its power fails.
const FLUSHES: usize = 36;

/// Losses of power that are tried at each operation: nothing survives, all does, and so many at random.
const AT_RANDOM: u64 = 1;

/// A disk writes so much at once: what is torn is torn there.
const SECTOR: usize = 512;

/// What a disk is asked for, and when the store had acknowledged something.
#[derive(Clone, Debug)]
enum Event {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
    Acknowledged,
}

impl Event {
    fn change(&self, bytes: &mut Vec<u8>) {
        match self {
            Event::Write(at, data) => {
                let end = at + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(data);
            }
            Event::Length(length) => bytes.resize(*length, 0),
            Event::Sync | Event::Acknowledged => {}
        }
    }
}

/// A disk that remembers all that it was asked for, and may fail once.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    events: Arc<Mutex<Vec<Event>>>,
    /// Operations until one that fails; 0 for none.
    fails_in: Arc<AtomicUsize>,
}

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        Disk {
            bytes: Arc::new(Mutex::new(bytes)),
            ..Disk::default()
        }
    }

    fn store(&self) -> Result<FileStore, StoreError> {
        let disk = self.clone();
        FileStore::on(move || disk.clone())
    }

    fn note(&self, event: Event) -> io::Result<()> {
        let left = self.fails_in.load(Ordering::Relaxed);
        self.fails_in.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            return Err(io::Error::other("a disk that fails"));
        }
        event.change(&mut self.bytes.lock().unwrap());
        self.events.lock().unwrap().push(event);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = self.bytes.lock().unwrap();
        let from = offset as usize;
        let read = bytes.get(from..from + out.len());
        out.copy_from_slice(read.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.note(Event::Length(len as usize))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.note(Event::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.note(Event::Write(offset as usize, data.to_vec()))
    }
}

type Content = BTreeMap<(Section, Vec<u8>), Vec<u8>>;

/// What the store is asked for.
enum Asked {
    Write(Vec<Batch>),
    Replace(Vec<Batch>),
}

impl Asked {
    fn any(rng: &mut StdRng) -> Self {
        let replaces = rng.random_bool(0.2);
        let mut sections: Vec<u16> = (0..rng.random_range(1..4)).map(|_| rng.random_range(0..6)).collect();
        sections.sort_unstable();
        sections.dedup();
        let batch = |number: u16, rng: &mut StdRng| {
            let section = match number {
                5 if !replaces => Section::HEAD,
                number => Section::of(Partition(number * 200)),
            };
            let mut batch = Batch::new(section);
            for _ in 0..rng.random_range(1..5) {
                let id = [b'k', rng.random_range(0..8)];
                let length = if rng.random_bool(0.04) {
                    70_000
                } else {
                    rng.random_range(1..300)
                };
                let value: Vec<u8> = (0..length).map(|_| rng.random()).collect();
                batch.push(Record { id: &id, value: &value });
            }
            batch
        };
        let batches = sections.into_iter().map(|number| batch(number, rng)).collect();
        match replaces {
            true => Asked::Replace(batches),
            false => Asked::Write(batches),
        }
    }

    /// What a store holds after it.
    fn applied(&self, before: &Content) -> Content {
        let mut after = before.clone();
        let (batches, replaces) = match self {
            Asked::Write(batches) => (batches, false),
            Asked::Replace(batches) => (batches, true),
        };
        for batch in batches {
            if replaces {
                after.retain(|(section, _), _| *section != batch.section());
            }
            for record in batch.iter() {
                let held = after.entry((batch.section(), record.id.to_vec())).or_default();
                if held[..] < *record.value {
                    *held = record.value.to_vec();
                }
            }
        }
        after
    }

    fn ask(&self, store: &FileStore) -> Result<(), StoreError> {
        match self {
            Asked::Write(batches) => block_on(store.write(batches)).map(drop),
            Asked::Replace(batches) => block_on(store.replace(batches)),
        }
    }
}

/// All that a store holds.
fn content(store: &FileStore) -> Result<Content, StoreError> {
    let sections: Vec<Section> = (0..=1_024).filter_map(Section::numbered).collect();
    let held: Mutex<Content> = Mutex::default();
    let sink = |section: Section, record: Record<'_>| {
        let mut held = held.lock().unwrap();
        let value = held.entry((section, record.id.to_vec())).or_default();
        if value[..] < *record.value {
            *value = record.value.to_vec();
        }
    };
    block_on(store.load(&sections, &sink))?;
    Ok(held.into_inner().unwrap())
}

/// What is on a disk whose power has failed: all that was synced, and of the rest what `survives`; one of these may be
/// torn.
fn after_the_loss(synced: &[u8], unsynced: &[Event], seed: u64) -> Vec<u8> {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut bytes = synced.to_vec();
    let share = match seed {
        0 => 0.0,
        1 => 1.0,
        _ => rng.random_range(0.1..0.9),
    };
    let torn = rng.random_range(0..unsynced.len().max(1));
    for (number, event) in unsynced.iter().enumerate() {
        match event {
            Event::Write(at, data) if seed > 1 && number == torn => {
                let sectors = rng.random_range(0..=data.len() / SECTOR);
                Event::Write(*at, data[..sectors * SECTOR].to_vec()).change(&mut bytes);
            }
            event if rng.random_bool(share) => event.change(&mut bytes),
            _ => {}
        }
    }
    bytes
}

#[test]
fn what_was_synced_outlives_a_loss_of_power_at_every_operation_and_nothing_torn_is_served() -> Result<()> {
    let disk = Disk::default();
    let store = disk.store()?;
    let rng = &mut StdRng::seed_from_u64(7);
    // What the store holds after so many acknowledged requests.
    let mut states = vec![Content::new()];
    for _ in 0..FLUSHES {
        let asked = Asked::any(rng);
        asked.ask(&store)?;
        disk.events.lock().unwrap().push(Event::Acknowledged);
        states.push(asked.applied(&states[states.len() - 1]));
    }
    // The last thing the disk hears: the store is not closed.
    let events = std::mem::take(&mut *disk.events.lock().unwrap());
    ensure!(events.len() > 300, "a short history of {} operations", events.len());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let found: Vec<Result<usize>> = std::thread::scope(|scope| {
        let work = || {
            let mut went_on = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= events.len() {
                    return Ok(went_on);
                }
                went_on += loses_power_after(&events[..=number], &states)?;
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended.map(|ended| ended.unwrap_or_else(|_| bail!("a panic"))).collect()
    });
    let went_on = found.into_iter().sum::<Result<usize>>()?;
    println!(
        "{} operations; {went_on} times what was not acknowledged was there",
        events.len()
    );
    ensure!(went_on > FLUSHES, "what survives is never enough");
    Ok(())
}

/// The power fails after the last of these operations, in several ways. How often the store then holds what it had not
/// acknowledged yet.
fn loses_power_after(events: &[Event], states: &[Content]) -> Result<usize> {
    let last_sync = events.iter().rposition(|event| matches!(event, Event::Sync));
    let (before, unsynced) = events.split_at(last_sync.map_or(0, |sync| sync + 1));
    let mut synced = Vec::new();
    before.iter().for_each(|event| event.change(&mut synced));
    let is_acknowledged = |event: &&Event| matches!(event, Event::Acknowledged);
    let acknowledged = events.iter().filter(is_acknowledged).count();
    let mut went_on = 0;
    for way in 0..2 + AT_RANDOM {
        let seed = if way < 2 {
            way
        } else {
            way + events.len() as u64 * AT_RANDOM
        };
        let opened = Disk::holding(after_the_loss(&synced, unsynced, seed)).store();
        let held = opened.as_ref().map_err(Clone::clone).and_then(content);
        let it = || format!("power lost after operation {}, seed {seed}", events.len());
        match held {
            Ok(held) if held == states[acknowledged] => {}
            Ok(held) if states.get(acknowledged + 1) == Some(&held) => went_on += 1,
            Ok(_) => bail!("{}: neither what was there nor what came next", it()),
            // Nothing was ever acknowledged: that is said, and nothing is served.
            Err(StoreError::Damaged(_)) if acknowledged == 0 => {}
            Err(error) => return Err(error).with_context(it),
        }
    }
    Ok(went_on)
}

#[test]
fn a_disk_that_fails_once_loses_nothing_that_was_acknowledged() -> Result<()> {
    for fails_at in (1..200).step_by(3) {
        let disk = Disk::default();
        let store = disk.store()?;
        disk.fails_in.store(fails_at, Ordering::Relaxed);
        let rng = &mut StdRng::seed_from_u64(fails_at as u64);
        let (mut state, mut failures) = (Content::new(), 0);
        while disk.fails_in.load(Ordering::Relaxed) > 0 {
            let asked = Asked::any(rng);
            // As the node does: until it is done.
            while let Err(error) = asked.ask(&store) {
                failures += 1;
                ensure!(failures < 3, "at {fails_at}: {error}");
            }
            state = asked.applied(&state);
        }
        ensure!(content(&store)? == state, "at {fails_at}");
        drop(store);
        ensure!(content(&disk.store()?)? == state, "opened again, at {fails_at}");
    }
    Ok(())
}
