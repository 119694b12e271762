//! Arguments and answers that are moved through a JetStream object store, as the host SDK does with those above 900
//! KiB.

use async_nats::jetstream::object_store::{Config, ObjectStore};
use async_nats::jetstream::{self, Context};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use kvcache_node::service::Millis;
use kvcache_node::time;

/// Above so many bytes arguments and answers are moved in chunks. Whoever sends decides, and sender and receiver are of
/// one SDK.
pub(super) const THRESHOLD: usize = 900 << 10;
/// Why a large answer cannot be sent.
pub(super) const NO_STORE: &str =
    "more than 900 KiB reach their caller through JetStream only, which this lattice does not \
                                   offer; ask for less at a time";
/// Longest name of an object: ids of calls have 32 bytes.
const MAX_ID_BYTES: usize = 256;
/// As long as a host waits for a call whose arguments are moved in chunks.
const LIMIT: Duration = Duration::from_secs(15);
/// For so long after it was missing JetStream is not asked for again.
const MISSING_FOR_MS: Millis = 2_000;

/// The object store of a lattice.
pub(super) struct Chunks {
    context: Context,
    lattice: String,
    max_argument: usize,
    /// Arguments that are being fetched, in KiB.
    fetching: Semaphore,
    /// Answers that are being stored, in KiB.
    storing: Semaphore,
    missing_until: AtomicU64,
}

impl Chunks {
    /// That of `lattice`. Arguments of more than `max_argument` bytes are refused. Twice as much may be under way, and
    /// twice `max_answer` of answers.
    pub fn new(client: async_nats::Client, lattice: &str, max_argument: usize, max_answer: usize) -> Self {
        Chunks {
            context: jetstream::new(client),
            lattice: lattice.into(),
            max_argument,
            fetching: Semaphore::new(2 * kib(max_argument)),
            storing: Semaphore::new(2 * kib(max_answer)),
            missing_until: AtomicU64::new(0),
        }
    }

    /// Whether large answers are known to have no way to the caller.
    pub fn are_missing(&self) -> bool {
        time::mono() < self.missing_until.load(Ordering::Relaxed)
    }

    /// Fetches the arguments of the call `id`, which are said to have `length` bytes.
    pub async fn fetch(&self, id: &str, length: u64) -> Result<Vec<u8>, String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.max_argument {
            return Err(format!(
                "arguments of {length} bytes are larger than the limit of {} bytes (setting MAX_VALUE_BYTES)",
                self.max_argument
            ));
        }
        let Ok(_permit) = self.fetching.try_acquire_many(kib(length) as u32) else {
            return Err("too many large arguments are on their way to this host".into());
        };
        let fetched = tokio::time::timeout(LIMIT, self.fetch_now(id, length)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("not within {} s", LIMIT.as_secs())));
        fetched.map_err(|error| format!("error receiving the arguments in chunks: {error}"))
    }

    async fn fetch_now(&self, id: &str, length: usize) -> Result<Vec<u8>, String> {
        let store = self.store(id).await?;
        // Looked at first: an object can be a link to others, and of any size.
        let info = store.info(id).await.map_err(|error| error.to_string())?;
        if info.options.is_some_and(|options| options.link.is_some()) || info.size > length {
            return Err(format!("expected {length} bytes, found another object"));
        }
        let mut object = store.get(id).await.map_err(|error| error.to_string())?;
        let mut bytes = Vec::with_capacity(length);
        let mut bounded = (&mut object).take(length as u64);
        bounded
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| error.to_string())?;
        let id = id.to_owned();
        tokio::spawn(async move {
            if let Err(error) = store.delete(&id).await {
                tracing::debug!(%error, "chunks of a call are not deleted");
            }
        });
        Ok(bytes)
    }

    /// Stores the answer to the call `id`. The error says why it has no way to the caller.
    pub async fn store_answer(&self, id: &str, answer: &[u8]) -> Result<(), String> {
        if self.are_missing() {
            return Err(NO_STORE.into());
        }
        let Ok(_permit) = self.storing.try_acquire_many(kib(answer.len()) as u32) else {
            return Err(
                "too many large answers are on their way to their callers; ask for less at a time, or less often"
                    .into(),
            );
        };
        let stored = tokio::time::timeout(LIMIT, async {
            let store = self.store(id).await?;
            let put = store.put(format!("{id}-r").as_str(), &mut &answer[..]).await;
            put.map(drop).map_err(|error| error.to_string())
        });
        let stored = stored.await;
        let stored = stored.unwrap_or_else(|_| Err(format!("not within {} s", LIMIT.as_secs())));
        stored.map_err(|error| {
            let until = time::mono() + MISSING_FOR_MS;
            self.missing_until.store(until, Ordering::Relaxed);
            format!("{NO_STORE} ({error})")
        })
    }

    async fn store(&self, id: &str) -> Result<ObjectStore, String> {
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(format!("an id of {} bytes names no object", id.len()));
        }
        if let Ok(store) = self.context.get_object_store(&self.lattice).await {
            return Ok(store);
        }
        let created = self.context.create_object_store(Config {
            bucket: self.lattice.clone(),
            ..Default::default()
        });
        created.await.map_err(|error| format!("no object store: {error}"))
    }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1 << 10)
}
