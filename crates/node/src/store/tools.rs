//! What people do with stores: copy one into another, check one, write one out.

use std::collections::BTreeMap;

use kvcache_core::cache::{Cache, Digest, Key, Limits, Millis, NodeId, Partition, Time};
use kvcache_core::durable::{Batch, Record, Section, SectionState};

use super::head::Head;
use super::records::records_of;
use super::{CacheName, Store, StoreError};
use crate::time;

/// Sections that are read at a time.
const SECTIONS_AT_ONCE: usize = 16;

/// All sections of partitions.
fn sections() -> Vec<Section> {
    Partition::all().map(Section::of).collect()
}

async fn head(store: &dyn Store, cache: &CacheName) -> Result<Option<Head>, StoreError> {
    let head = records_of(store, &[Section::HEAD]).await?.remove(&Section::HEAD);
    Head::read(&head.unwrap_or_default(), store.name(), cache)
}

/// That a store holds nothing of this cache.
fn nothing(store: &dyn Store, cache: &CacheName) -> StoreError {
    let CacheName { lattice, link } = cache;
    StoreError::Unusable(format!(
        "{} holds nothing of link {link:?} of the lattice {lattice:?}",
        store.name()
    ))
}

// --- copy

/// What a copy has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    /// Records that were read, and written where the other store held nothing newer.
    pub records: u64,
    /// Records that the other store held newer ones of.
    pub conflicts: u64,
}

/// Writes all that a store holds of a cache into another one. What that holds stays where it is newer, so a copy may be
/// made again, and while the store is in use. `progress` is told how many of 1,024 sections are done.
pub async fn copy(
    from: &dyn Store,
    to: &dyn Store,
    cache: &CacheName,
    mut progress: impl FnMut(usize),
) -> Result<Copied, StoreError> {
    let read = head(from, cache).await?.ok_or_else(|| nothing(from, cache))?;
    // Refuses one of another cache before anything is written to it.
    let there = head(to, cache).await?;
    let mut copied = Copied::default();
    for (done, sections) in sections().chunks(SECTIONS_AT_ONCE).enumerate() {
        let mut batches = Vec::new();
        for (section, records) in records_of(from, sections).await? {
            let mut batch = Batch::new(section);
            for (id, value) in &records {
                batch.push(Record { id, value });
            }
            copied.records += batch.len() as u64;
            batches.push(batch);
        }
        copied.conflicts += to.write(&batches).await?.conflicts;
        progress((done + 1) * SECTIONS_AT_ONCE);
    }
    // Last: until it is there the other store holds nothing that anybody would begin with.
    let newest = kvcache_core::cache::Stamp {
        time: Time::from_millis(time::wall()),
        node: NodeId(0),
    };
    // It is a store of its own: nodes that write to one do not count on those that write to the other.
    let number = there.map_or_else(time::fresh_number, |there| there.number);
    to.write(&[Head { number, ..read }.write(newest, cache)]).await?;
    Ok(copied)
}

// --- verify

/// What a store holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Keys that hold data.
    pub keys: u64,
    /// Records, what is left of deletions included, and their bytes.
    pub records: u64,
    /// Bytes of ids and values.
    pub bytes: u64,
    /// Records that mean nothing any more: something newer covers them.
    pub covered: u64,
    /// Records that cannot be read.
    pub unreadable: u64,
    /// Partitions that hold something and have not said what.
    pub unsaid: Vec<Partition>,
    /// Partitions that hold other than they say: somebody writes just now, was interrupted, or they are damaged.
    pub differ: Vec<Partition>,
    /// Digest of all.
    pub digest: Digest,
    /// Up to when deletions are known everywhere, in milliseconds since the epoch.
    pub contact_ms: Millis,
}

/// Reads all of a store and checks it against what its sections say of themselves.
pub async fn verify(
    store: &dyn Store,
    cache: &CacheName,
    mut progress: impl FnMut(usize),
) -> Result<Verified, StoreError> {
    head(store, cache).await?.ok_or_else(|| nothing(store, cache))?;
    let mut verified = Verified::default();
    let mut contact: Option<Time> = None;
    let mut digests = Vec::new();
    for (done, sections) in sections().chunks(SECTIONS_AT_ONCE).enumerate() {
        let scratch = empty();
        let mut said: BTreeMap<Section, SectionState> = BTreeMap::new();
        let mut held: BTreeMap<Section, u64> = BTreeMap::new();
        for (section, records) in records_of(store, sections).await? {
            for (id, value) in &records {
                let record = Record { id, value };
                if let Some(state) = SectionState::of(record) {
                    said.insert(section, state);
                    continue;
                }
                verified.records += 1;
                verified.bytes += (id.len() + value.len()) as u64;
                *held.entry(section).or_default() += 1;
                let read = record
                    .delta()
                    .is_ok_and(|delta| scratch.apply(&delta, time::wall()).is_ok());
                verified.unreadable += u64::from(!read);
            }
        }
        for section in sections {
            let Some(partition) = section.partition() else { continue };
            let (state, records) = (said.get(section), held.get(section).copied().unwrap_or(0));
            let mut components = 0;
            scratch.select(kvcache_core::cache::Span::of(partition), |_| true, |_| components += 1);
            verified.covered += records.saturating_sub(components);
            let digest = scratch.digest(partition);
            digests.push(digest);
            match state {
                None if records > 0 => verified.unsaid.push(partition),
                Some(state) if state.digest != digest => verified.differ.push(partition),
                _ => {}
            }
            contact = match (contact, state) {
                (Some(known), Some(state)) => Some(known.min(state.contact)),
                (known, state) => known.or(state.map(|state| state.contact)),
            };
        }
        verified.keys += scratch.keys();
        progress((done + 1) * SECTIONS_AT_ONCE);
    }
    verified.digest = digests.into_iter().sum();
    verified.contact_ms = contact.map_or(0, Time::millis);
    Ok(verified)
}

fn empty() -> Cache {
    // Nothing is too large or too late for somebody who only looks.
    let limits = Limits {
        max_value_bytes: usize::MAX,
        max_clock_skew_ms: 1 << 40,
        ..Limits::default()
    };
    Cache::with_secret(time::fresh_node_id(), limits, time::fresh_secret())
}

// --- dump

/// A key with what a reader sees of it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Keyspace; empty for the shared one.
    pub namespace: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// What it holds.
    pub content: Content,
}

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A scalar, or the sum of a counter.
    Value(Vec<u8>),
    /// A list, in order.
    List(Vec<Vec<u8>>),
    /// A set, sorted.
    Set(Vec<Vec<u8>>),
}

/// Shows all keys of a store that hold anything now.
pub async fn dump(
    store: &dyn Store,
    cache: &CacheName,
    mut show: impl FnMut(Shown) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    head(store, cache).await?.ok_or_else(|| nothing(store, cache))?;
    let now = time::wall();
    let mut shown = 0;
    for section in sections() {
        let scratch = empty();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for (id, value) in records_of(store, &[section]).await?.into_values().flatten() {
            let record = Record { id: &id, value: &value };
            let Ok(delta) = record.delta() else { continue };
            if scratch.apply(&delta, now).is_ok() && keys.last().is_none_or(|last| last != delta.key) {
                keys.push(delta.key.to_vec());
            }
        }
        keys.sort_unstable();
        keys.dedup();
        for bytes in keys {
            let Some((namespace, key)) = split(&bytes) else {
                continue;
            };
            let asked = String::from_utf8_lossy(namespace);
            let Ok(asked) = Key::new(&asked, key) else { continue };
            let Some(content) = content(&scratch, &asked, now) else {
                continue;
            };
            shown += 1;
            show(Shown {
                namespace: namespace.to_vec(),
                key: key.to_vec(),
                content,
            })?;
        }
    }
    Ok(shown)
}

/// Namespace and name of a key.
fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = key.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn content(cache: &Cache, key: &Key, now: Millis) -> Option<Content> {
    let owned = |items: Vec<bytes::Bytes>| items.iter().map(|item| item.to_vec()).collect();
    if let Ok(value) = cache.get(key, now) {
        return value.map(|value| Content::Value(value.to_vec()));
    }
    if let Ok(items) = cache.list_range(key, 0, -1, now, usize::MAX) {
        return Some(Content::List(owned(items)));
    }
    let members = cache.set_members(key, now, usize::MAX).ok()?;
    Some(Content::Set(owned(members)))
}
