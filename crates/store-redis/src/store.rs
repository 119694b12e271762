//! The store: sections as hashes.

use futures::stream::{FuturesUnordered, TryStreamExt};
use kvcache_node::store::{Asked, Batch, CacheName, Record, Section, Sink, Store, StoreError, Written};
use redis::{cmd, Value};

use crate::answer::{bytes, field, found, number};
use crate::connection::{Connection, Link, UNDER_WAY};
use crate::key::Keys;
use crate::part::{parts, Part};
use crate::script::Script;

/// An answer of an HSCAN is to have so many bytes ...
const ANSWER_BYTES: usize = 256 << 10;
/// ... so it asks for so many records at first, and later for as many as that makes of the sizes seen so far.
const FIRST_COUNT: usize = 16;
const MAX_COUNT: usize = 1_000;

pub(crate) struct RedisStore {
    connection: Connection,
    keys: Keys,
    write: Script,
    remove: Script,
}

impl RedisStore {
    /// Connects, and looks whether all that is needed is allowed.
    pub async fn open(connection: Connection, cache: &CacheName) -> Result<Self, StoreError> {
        let store = RedisStore {
            connection,
            keys: Keys::of(cache),
            write: Script::write(),
            remove: Script::remove(),
        };
        let link = store.connection.link().await?;
        store.refuse_eviction(&link).await?;
        let head = store.keys.section(Section::HEAD);
        store.ask(&link, &scan(&head, 0, 1)).await?;
        store.ask(&link, &store.write.probe(&head)).await?;
        Ok(store)
    }

    async fn refuse_eviction(&self, link: &Link) -> Result<(), StoreError> {
        let mut question = cmd("INFO");
        question.arg("memory");
        // Who may not ask is told in the documentation.
        let answer = match self.ask(link, &question).await {
            Err(StoreError::Unusable(why)) if why.contains("NOPERM") => return Ok(()),
            answer => answer?,
        };
        let policy = field(&answer, "maxmemory_policy").unwrap_or_default();
        let is_bounded = field(&answer, "maxmemory").is_some_and(|bytes| bytes != "0");
        match is_bounded && policy.starts_with("allkeys") {
            false => Ok(()),
            true => Err(StoreError::Unusable(format!(
                "{}: it drops keys when its memory is full (maxmemory-policy {policy}), and with them parts of the \
                 cache: set maxmemory-policy noeviction, or one of those that begin with volatile",
                self.name()
            ))),
        }
    }

    async fn ask(&self, link: &Link, question: &redis::Cmd) -> Result<Value, StoreError> {
        let answer = self.connection.ask(link, question).await?;
        answer.map_err(|_| self.strange("a script"))
    }

    /// Runs a script over parts: several at a time, and large ones one after the other, for each is copied. Large ones go
    /// first: what a section says of itself is its last record, and small.
    async fn run(&self, script: &Script, parts: Vec<Part<'_>>) -> Result<u64, StoreError> {
        if parts.is_empty() {
            return Ok(0);
        }
        let link = &self.connection.link().await?;
        let (large, small): (Vec<_>, Vec<_>) = parts.into_iter().partition(Part::is_large);
        let mut sum = 0;
        for (parts, most) in [(large, 1), (small, UNDER_WAY)] {
            let mut under_way = FuturesUnordered::new();
            for part in parts {
                if under_way.len() == most {
                    sum += under_way.try_next().await?.unwrap_or(0);
                }
                under_way.push(self.run_one(link, script, part));
            }
            while let Some(number) = under_way.try_next().await? {
                sum += number;
            }
        }
        Ok(sum)
    }

    async fn run_one(&self, link: &Link, script: &Script, part: Part<'_>) -> Result<u64, StoreError> {
        let answer = match self.connection.ask(link, &script.by_hash(&self.keys, &part)).await? {
            Ok(answer) => answer,
            // It was started since, or somebody has emptied its cache of scripts.
            Err(_) => self.ask(link, &script.by_text(&self.keys, &part)).await?,
        };
        number(&answer).ok_or_else(|| self.strange("a script"))
    }

    async fn load_section(&self, link: &Link, section: Section, sink: Sink<'_>) -> Result<(), StoreError> {
        let key = self.keys.section(section);
        let (mut cursor, mut count) = (0, FIRST_COUNT);
        let (mut records_seen, mut bytes_seen) = (0, 0);
        loop {
            let answer = self.ask(link, &scan(&key, cursor, count)).await?;
            let found = found(answer).ok_or_else(|| self.strange("HSCAN"))?;
            for field in found.fields.chunks_exact(2) {
                let (Some(id), Some(value)) = (bytes(&field[0]), bytes(&field[1])) else {
                    return Err(self.strange("HSCAN"));
                };
                records_seen += 1;
                bytes_seen += id.len() + value.len();
                sink(section, Record { id, value });
            }
            if found.cursor == 0 {
                return Ok(());
            }
            cursor = found.cursor;
            let usual = bytes_seen.checked_div(records_seen).unwrap_or(0).max(1);
            count = (ANSWER_BYTES / usual).clamp(1, MAX_COUNT);
        }
    }

    fn strange(&self, to: &str) -> StoreError {
        StoreError::Unusable(format!("{}: an answer to {to} that Redis does not give", self.name()))
    }
}

fn scan(key: &str, cursor: u64, count: usize) -> redis::Cmd {
    let mut question = cmd("HSCAN");
    question.arg(key).arg(cursor).arg("COUNT").arg(count);
    question
}

impl Store for RedisStore {
    fn name(&self) -> &str {
        self.connection.name()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn load<'a>(&'a self, sections: &'a [Section], sink: Sink<'a>) -> Asked<'a, ()> {
        Box::pin(async move {
            let link = &self.connection.link().await?;
            let mut under_way = FuturesUnordered::new();
            for section in sections {
                if under_way.len() == UNDER_WAY {
                    under_way.try_next().await?;
                }
                under_way.push(self.load_section(link, *section, sink));
            }
            under_way.try_collect().await
        })
    }

    fn write<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, Written> {
        Box::pin(async move {
            let conflicts = self.run(&self.write, parts(batches)).await?;
            Ok(Written { conflicts })
        })
    }

    fn remove<'a>(&'a self, batch: &'a Batch) -> Asked<'a, ()> {
        Box::pin(async move {
            self.run(&self.remove, parts(std::slice::from_ref(batch)))
                .await
                .map(drop)
        })
    }

    fn close(&self) -> Asked<'_, ()> {
        Box::pin(async move {
            self.connection.close().await;
            Ok(())
        })
    }
}
