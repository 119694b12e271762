//! The store in a file: one per node and cache, kept by redb.
//!
//! What is written goes to a *log*, a value per flush and 64 KiB, in the order of time. Section by section, what the node
//! holds is written anew as its *base*, which makes all that the log has of the section superfluous; a value of the log
//! that no section needs any more is dropped. So there is one place that is written to, whatever has changed, and the
//! file stays within a few times of what it holds. Such a log over a copy-on-write tree is the idea of log-structured
//! file systems (Rosenblum, Ousterhout, 1991): the rewriting of a section is its cleaner.
//!
//! ```text
//! table   key              value
//! log     number           index, sum, blob of runs: section, length, bytes of a batch
//! base    section, part    number of the log that it makes superfluous, twice; sum, blob: bytes of a batch
//! sum     XXH3-64 of the blob, 8 bytes; the blob is compressed (LZ4, length before it)
//! index   number of sections, the sections, XXH3-64 of both: which values are needed is known without reading blobs
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvcache_core::cache::PARTITIONS;
use kvcache_core::durable::{Batch, Record, Section};
use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use xxhash_rust::xxh3::xxh3_64;

use super::{Asked, CacheName, Opener, Sink, Store, StoreError, StoreUrl, UrlError, Written};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const BASE: TableDefinition<'_, (u16, u32), &[u8]> = TableDefinition::new("base");

/// Bytes of records in one value, before they are compressed. Larger records have one for themselves.
const VALUE_BYTES: usize = 64 << 10;

/// Pages that the engine keeps in memory. All that is read is read once, at the start.
const PAGES_BYTES: usize = 16 << 20;

/// For each byte of the log a third of one of some base is written anew: so the log holds about three times what there
/// is, at most.
const LOG_TO_BASE: usize = 3;

/// A log of so many bytes is left alone, however little there is.
const SMALL_LOG_BYTES: usize = 1 << 20;

/// Sections that are written anew at once, at most.
const MOST_OVERGROWN: usize = 64;

/// Of a name, what stands in a path as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Longest part of a path.
const PART_BYTES: usize = 200;

/// The name of the file, after the names of lattice and link.
const SUFFIX: &str = ".redb";

/// Opens stores `file:/folder`.
#[derive(Debug, Default)]
pub struct FileOpener;

impl Opener for FileOpener {
    fn schemes(&self) -> &'static [&'static str] {
        &["file"]
    }

    fn check(&self, url: &StoreUrl) -> Result<(), UrlError> {
        url.only_parameters(&[])?;
        match !url.hosts.is_empty() || url.path.is_empty() {
            true => Err(UrlError("expected file:/path/of/a/folder".into())),
            false => Ok(()),
        }
    }

    fn open<'a>(&'a self, url: &'a StoreUrl, cache: &'a CacheName) -> Asked<'a, Arc<dyn Store>> {
        Box::pin(async move {
            let store = FileStore::open(Path::new(&url.path), cache)?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}

/// A store in a file.
pub struct FileStore {
    name: String,
    /// Opens the database again, as it has to be after an error of the disk.
    opener: Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    /// `None` after an error.
    database: Option<Database>,
    log: Log,
}

/// What is known of the log.
#[derive(Default)]
struct Log {
    /// The number of the next value.
    next: u64,
    /// Bytes of each value.
    values: BTreeMap<u64, usize>,
    /// Sections with anything in the log that their base does not make superfluous: where that begins.
    begins: HashMap<Section, u64>,
    /// Bytes of the base of each section.
    base: HashMap<Section, usize>,
    /// Bytes that have been written to the log since bases were rewritten for them.
    credit: usize,
}

impl Log {
    fn bytes(&self) -> usize {
        self.values.values().sum()
    }

    /// The values that no section needs once these have new bases.
    fn superfluous_after(&self, replaced: &[Batch]) -> Vec<u64> {
        let is_replaced = |section: &Section| replaced.iter().any(|batch| batch.section() == *section);
        let left = self.begins.iter().filter(|(section, _)| !is_replaced(section));
        let needed = left.map(|(_, begins)| *begins).min().unwrap_or(self.next);
        self.values.range(..needed).map(|(number, _)| *number).collect()
    }
}

/// A run of records in a value of the log.
struct Run<'a> {
    section: Section,
    bytes: &'a [u8],
}

impl FileStore {
    /// Opens the store of a cache in a folder, which is made if it is not there.
    pub fn open(folder: &Path, cache: &CacheName) -> Result<Self, StoreError> {
        let path = path_of(folder, cache);
        let name = format!("the file {}", path.display());
        let opener = move || open_file(&path);
        FileStore::opened_by(name, Box::new(opener))
    }

    /// A store on a disk of somebody's own, for tests of what a failing one does.
    pub fn on<B: StorageBackend>(backend: impl Fn() -> B + Send + Sync + 'static) -> Result<Self, StoreError> {
        let opener = move || {
            let database = builder().create_with_backend(backend());
            database.map_err(|error| wrong_database("the disk", &error))
        };
        FileStore::opened_by("a disk for tests".into(), Box::new(opener))
    }

    fn opened_by(
        name: String,
        opener: Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>,
    ) -> Result<Self, StoreError> {
        let database = opener()?;
        let log = read_log(&database, &name)?;
        let state = State {
            database: Some(database),
            log,
        };
        Ok(FileStore {
            name,
            opener,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is known of the log changes when a transaction has been committed, and is read anew after an error.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the database, which is opened again after an error of the disk.
    fn with<T>(&self, ask: impl FnOnce(&Database, &mut Log) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut state = self.state();
        let State { database, log } = &mut *state;
        if database.is_none() {
            let opened = (self.opener)()?;
            *log = read_log(&opened, &self.name)?;
            *database = Some(opened);
        }
        let Some(opened) = database else {
            return Err(StoreError::Away(format!("{} is closed", self.name)));
        };
        ask(opened, log).map_err(|error| {
            // It takes no more writes after one that has failed.
            *database = None;
            wrong(&self.name, &error)
        })
    }

    fn write_log(&self, batches: &[Batch]) -> Result<(), StoreError> {
        let runs = batches.iter().filter(|batch| batch.section() != Section::HEAD);
        let values = packed(runs);
        let heads: Vec<&Batch> = batches
            .iter()
            .filter(|batch| batch.section() == Section::HEAD)
            .collect();
        self.with(|database, log| {
            let write = database.begin_write()?;
            let mut written = Vec::new();
            {
                let mut table = write.open_table(LOG)?;
                for (number, value) in (log.next..).zip(&values) {
                    table.insert(number, &*value.bytes)?;
                    written.push((number, value));
                }
                let mut base = write.open_table(BASE)?;
                for head in &heads {
                    write_head(&mut base, head)?;
                }
            }
            write.commit()?;
            for (number, value) in written {
                log.next = number + 1;
                log.credit += value.bytes.len();
                log.values.insert(number, value.bytes.len());
                for section in &value.sections {
                    log.begins.entry(*section).or_insert(number);
                }
            }
            Ok(())
        })
    }

    fn write_base(&self, batches: &[Batch]) -> Result<(), StoreError> {
        self.with(|database, log| {
            let write = database.begin_write()?;
            let superfluous = log.superfluous_after(batches);
            let mut replaced = Vec::new();
            {
                let mut base = write.open_table(BASE)?;
                for batch in batches {
                    let (section, until) = (batch.section().number(), log.next);
                    base.retain_in((section, 0)..=(section, u32::MAX), |_, _| false)?;
                    let mut bytes = 0;
                    for (part, value) in (0..).zip(parts(batch, until)) {
                        bytes += value.len();
                        base.insert((section, part), &*value)?;
                    }
                    replaced.push((batch.section(), bytes));
                }
                let mut table = write.open_table(LOG)?;
                for number in &superfluous {
                    table.remove(number)?;
                }
            }
            write.commit()?;
            for (section, bytes) in replaced {
                log.begins.remove(&section);
                log.base.insert(section, bytes);
                log.credit = log.credit.saturating_sub(bytes * LOG_TO_BASE);
            }
            log.values
                .retain(|number, _| superfluous.binary_search(number).is_err());
            Ok(())
        })
    }

    fn read(&self, sections: &[Section], sink: Sink<'_>) -> Result<(), StoreError> {
        let (read, numbers, begins) = self.with(|database, log| {
            let numbers: Vec<u64> = log.values.keys().copied().collect();
            Ok((database.begin_read()?, numbers, log.begins.clone()))
        })?;
        let wanted: HashMap<Section, u64> = sections
            .iter()
            .map(|section| (*section, begins.get(section).copied().unwrap_or(u64::MAX)))
            .collect();
        let first = wanted.values().min().copied().unwrap_or(u64::MAX);
        let numbers: Vec<u64> = numbers.into_iter().filter(|number| *number >= first).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (next_section, next_value) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let damaged = |what: &str| StoreError::Damaged(format!("{} is damaged: {what}", self.name));
        let failed = |error: redb::Error| wrong(&self.name, &error);
        let work = || -> Result<(), StoreError> {
            let base = opened(read.open_table(BASE)).map_err(failed)?;
            while let Some(section) = sections.get(next_section.fetch_add(1, Ordering::Relaxed)) {
                let number = section.number();
                let Some(base) = &base else { break };
                let parts = base.range((number, 0)..=(number, u32::MAX));
                for part in parts.map_err(|error| failed(error.into()))? {
                    let (_, value) = part.map_err(|error| failed(error.into()))?;
                    let (_, sealed) = based(value.value()).ok_or_else(|| damaged("a base"))?;
                    let records = checked(sealed).ok_or_else(|| damaged("a base"))?;
                    show(*section, &records, sink).ok_or_else(|| damaged("records of a base"))?;
                }
            }
            let log = opened(read.open_table(LOG)).map_err(failed)?;
            while let Some(number) = numbers.get(next_value.fetch_add(1, Ordering::Relaxed)) {
                let Some(value) = log
                    .as_ref()
                    .map(|log| log.get(number))
                    .transpose()
                    .map_err(|error| failed(error.into()))?
                    .flatten()
                else {
                    continue;
                };
                let (_, sealed) = indexed(value.value()).ok_or_else(|| damaged("the index of a value of the log"))?;
                let blob = checked(sealed).ok_or_else(|| damaged("a value of the log"))?;
                for run in runs(&blob) {
                    let run = run.ok_or_else(|| damaged("a run of the log"))?;
                    if wanted.get(&run.section).is_some_and(|begins| number >= begins) {
                        show(run.section, run.bytes, sink).ok_or_else(|| damaged("records of the log"))?;
                    }
                }
            }
            Ok(())
        };
        if threads == 1 || sections.len() == 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                let ended = worker.join();
                ended.unwrap_or_else(|_| Err(damaged("what is there made reading it fail")))
            })
        })
    }
}

impl Store for FileStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn is_read_at_once(&self) -> bool {
        true
    }

    fn load<'a>(&'a self, sections: &'a [Section], sink: Sink<'a>) -> Asked<'a, ()> {
        Box::pin(async move { self.read(sections, sink) })
    }

    fn write<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, Written> {
        Box::pin(async move {
            self.write_log(batches)?;
            Ok(Written::default())
        })
    }

    fn replace<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, ()> {
        Box::pin(async move { self.write_base(batches) })
    }

    fn overgrown(&self) -> Vec<Section> {
        let state = self.state();
        let log = &state.log;
        if log.bytes() < SMALL_LOG_BYTES {
            return Vec::new();
        }
        // The oldest first: they keep values of the log from being dropped.
        let mut sections: Vec<(u64, Section)> =
            log.begins.iter().map(|(section, begins)| (*begins, *section)).collect();
        sections.sort_unstable();
        let mut credit = log.credit / LOG_TO_BASE;
        let affordable = |(_, section): &(u64, Section)| {
            let enough = credit > 0;
            credit = credit.saturating_sub(log.base.get(section).copied().unwrap_or(0).max(1));
            enough
        };
        let due = sections.into_iter().take_while(affordable);
        due.map(|(_, section)| section).take(MOST_OVERGROWN).collect()
    }

    fn close(&self) -> Asked<'_, ()> {
        Box::pin(async move {
            match self.state().database.take() {
                Some(database) => database.close().map_err(|error| wrong_database(&self.name, &error)),
                None => Ok(()),
            }
        })
    }
}

// --- the file

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGES_BYTES);
    builder
}

/// The file of a cache. Different names never have one file.
fn path_of(folder: &Path, cache: &CacheName) -> PathBuf {
    let escaped = |name: &str| utf8_percent_encode(name, KEPT).to_string();
    let name = format!("{}.{}{SUFFIX}", escaped(&cache.lattice), escaped(&cache.link));
    let mut path = folder.to_owned();
    let mut rest = name.as_str();
    while rest.len() > PART_BYTES {
        let (part, longer) = rest.split_at(PART_BYTES);
        path.push(part);
        rest = longer;
    }
    path.push(rest);
    path
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    let shown = path.display();
    let away = |what: &str, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied
        | std::io::ErrorKind::NotADirectory
        | std::io::ErrorKind::ReadOnlyFilesystem => StoreError::Unusable(format!(
            "cannot {what} {shown}: {error}; the process needs a folder that it may write to"
        )),
        _ => StoreError::Away(format!("cannot {what} {shown}: {error}")),
    };
    if let Some(folder) = path.parent() {
        make_folder(folder).map_err(|error| away("make the folder of", error))?;
    }
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| away("open", error))?;
    let opened = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
    opened.map_err(|error| wrong_database(&shown.to_string(), &error))
}

/// Readable by nobody else: it holds what actors have written.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn wrong_database(name: &str, error: &DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Unusable(format!(
            "{name} is in use by another process; each node needs a folder of its own"
        )),
        DatabaseError::UpgradeRequired(version) => StoreError::Unusable(format!(
            "{name} has version {version} of redb's file format, which this release does not read"
        )),
        DatabaseError::Storage(error) => wrong_storage(name, error),
        error => StoreError::Away(format!("{name}: {error}")),
    }
}

fn wrong_storage(name: &str, error: &redb::StorageError) -> StoreError {
    match error {
        redb::StorageError::Corrupted(what) => StoreError::Damaged(format!("{name} is damaged: {what}")),
        redb::StorageError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => StoreError::Damaged(
            format!("{name} is no file of this store, or its beginning is damaged: {error}"),
        ),
        error => StoreError::Away(format!("{name}: {error}")),
    }
}

fn wrong(name: &str, error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(what) => StoreError::Damaged(format!("{name} is damaged: {what}")),
        error => StoreError::Away(format!("{name}: {error}")),
    }
}

/// A table; `None` where nothing was ever written to it.
fn opened<T>(table: Result<T, redb::TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Finds out what the log holds.
fn read_log(database: &Database, name: &str) -> Result<Log, StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("{name} is damaged: {what}"));
    let failed = |error: redb::Error| wrong(name, &error);
    let mut log = Log::default();
    let mut made_superfluous: HashMap<Section, u64> = HashMap::new();
    let read = database.begin_read().map_err(|error| failed(error.into()))?;
    if let Some(base) = opened(read.open_table(BASE)).map_err(failed)? {
        for section in (0..=PARTITIONS as u16).filter_map(Section::numbered) {
            let parts = base.range((section.number(), 0)..=(section.number(), u32::MAX));
            for part in parts.map_err(|error| failed(error.into()))? {
                let (place, value) = part.map_err(|error| failed(error.into()))?;
                *log.base.entry(section).or_default() += value.value().len();
                if place.value().1 == 0 {
                    let (until, _) = based(value.value()).ok_or_else(|| damaged("a base"))?;
                    made_superfluous.insert(section, until);
                }
            }
        }
    }
    // Numbers go on after those that bases name, whose values may all be gone.
    log.next = made_superfluous.values().max().copied().unwrap_or(0);
    if let Some(table) = opened(read.open_table(LOG)).map_err(failed)? {
        for value in table.iter().map_err(|error| failed(error.into()))? {
            let (number, value) = value.map_err(|error| failed(error.into()))?;
            let number = number.value();
            let (sections, _) = indexed(value.value()).ok_or_else(|| damaged("the index of a value of the log"))?;
            log.next = log.next.max(number + 1);
            log.values.insert(number, value.value().len());
            for section in sections {
                if made_superfluous.get(&section).is_none_or(|until| number >= *until) {
                    log.begins.entry(section).or_insert(number);
                }
            }
        }
    }
    log.credit = log.bytes();
    Ok(log)
}

/// The head is small and written seldom: it is all base, so that nothing of it keeps the log.
fn write_head(base: &mut redb::Table<'_, (u16, u32), &[u8]>, batch: &Batch) -> Result<(), redb::Error> {
    let head = Section::HEAD.number();
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut add = |record: Record<'_>| {
        let held = records.entry(record.id.to_vec()).or_default();
        if held[..] < *record.value {
            *held = record.value.to_vec();
        }
    };
    for part in base.range((head, 0)..=(head, u32::MAX))? {
        let (_, value) = part?;
        let held = based(value.value()).and_then(|(_, sealed)| checked(sealed));
        Batch::read(&held.unwrap_or_default()).flatten().for_each(&mut add);
    }
    batch.iter().for_each(&mut add);
    let mut all = Batch::new(Section::HEAD);
    for (id, value) in &records {
        all.push(Record { id, value });
    }
    base.retain_in((head, 0)..=(head, u32::MAX), |_, _| false)?;
    for (part, value) in (0..).zip(parts(&all, 0)) {
        base.insert((head, part), &*value)?;
    }
    Ok(())
}

// --- values

/// A value of the log.
struct Value {
    bytes: Vec<u8>,
    sections: Vec<Section>,
}

/// Puts batches into values of the log.
fn packed<'a>(batches: impl Iterator<Item = &'a Batch>) -> Vec<Value> {
    let mut values = Vec::new();
    let mut blob = Vec::new();
    let mut sections = Vec::new();
    let mut end = |blob: &mut Vec<u8>, sections: &mut Vec<Section>| {
        let sections = std::mem::take(sections);
        if !sections.is_empty() {
            let mut bytes = index_of(&sections);
            bytes.extend_from_slice(&sealed(blob));
            values.push(Value { bytes, sections });
        }
        blob.clear();
    };
    for batch in batches.filter(|batch| !batch.is_empty()) {
        let bytes = batch.as_bytes();
        if blob.len() + bytes.len() > VALUE_BYTES {
            end(&mut blob, &mut sections);
        }
        sections.push(batch.section());
        blob.extend_from_slice(&batch.section().number().to_be_bytes());
        blob.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        blob.extend_from_slice(bytes);
    }
    end(&mut blob, &mut sections);
    values
}

/// The index of a value of the log.
fn index_of(sections: &[Section]) -> Vec<u8> {
    let mut index = (sections.len() as u32).to_be_bytes().to_vec();
    for section in sections {
        index.extend_from_slice(&section.number().to_be_bytes());
    }
    let sum = xxh3_64(&index);
    index.extend_from_slice(&sum.to_be_bytes());
    index
}

/// The sections of a value of the log, and what comes after its index; `None` where that is not what it was.
fn indexed(value: &[u8]) -> Option<(impl Iterator<Item = Section> + '_, &[u8])> {
    let (number, _) = value.split_first_chunk()?;
    let end = usize::try_from(u32::from_be_bytes(*number))
        .ok()?
        .checked_mul(2)?
        .checked_add(4)?;
    let (index, rest) = value.split_at_checked(end)?;
    let (sum, rest) = rest.split_first_chunk()?;
    if xxh3_64(index) != u64::from_be_bytes(*sum) {
        return None;
    }
    let numbers = index[4..]
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    Some((numbers.filter_map(Section::numbered), rest))
}

/// The runs of a value of the log. `None` comes last where it is damaged.
fn runs(mut blob: &[u8]) -> impl Iterator<Item = Option<Run<'_>>> {
    let mut run = move || {
        let (section, rest) = blob.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        let (bytes, rest) = rest.split_at_checked(length)?;
        blob = rest;
        let section = Section::numbered(u16::from_be_bytes(*section))?;
        Some((Run { section, bytes }, blob.is_empty()))
    };
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let next = run();
        ended = next.as_ref().is_none_or(|(_, last)| *last);
        Some(next.map(|(run, _)| run))
    })
}

/// The values of a base that makes all of the log before number `until` superfluous. There is always one.
fn parts(batch: &Batch, until: u64) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut end = |part: &mut Batch| {
        // Twice, as it has no sum of its own: a wrong one would bring back what was replaced.
        let mut value = [until.to_be_bytes(), until.to_be_bytes()].concat();
        value.extend_from_slice(&sealed(part.as_bytes()));
        values.push(value);
        *part = Batch::new(batch.section());
    };
    let mut part = Batch::new(batch.section());
    for record in batch.iter() {
        part.push(record);
        if part.as_bytes().len() >= VALUE_BYTES {
            end(&mut part);
        }
    }
    if !part.is_empty() || batch.is_empty() {
        end(&mut part);
    }
    values
}

/// What a value of a base makes superfluous, and what comes after that.
fn based(value: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = value.split_first_chunk()?;
    let (second, rest) = rest.split_first_chunk()?;
    (first == second).then_some((u64::from_be_bytes(*first), rest))
}

/// A blob, compressed, with its sum before it.
fn sealed(blob: &[u8]) -> Vec<u8> {
    let compressed = lz4_flex::block::compress_prepend_size(blob);
    let mut value = xxh3_64(&compressed).to_be_bytes().to_vec();
    value.extend_from_slice(&compressed);
    value
}

/// What was sealed; `None` where it is not what it was.
fn checked(value: &[u8]) -> Option<Vec<u8>> {
    let (sum, compressed) = value.split_first_chunk()?;
    if xxh3_64(compressed) != u64::from_be_bytes(*sum) {
        return None;
    }
    lz4_flex::block::decompress_size_prepended(compressed).ok()
}

/// Shows records; `None` where they are damaged.
fn show(section: Section, bytes: &[u8], sink: Sink<'_>) -> Option<()> {
    for record in Batch::read(bytes) {
        sink(section, record?);
    }
    Some(())
}
