//! The store: records as rows.

use std::future::ready;

use futures::{stream, StreamExt, TryStreamExt};
use kvcache_node::store::{Asked, Batch, Record, Section, Sink, Store, StoreError, Written};
use scylla::response::PagingState;

use crate::layout::{self, of_section, row_id, stored, timestamp, Owner, Row, Stored};
use crate::parts::{self, PartsOf};
use crate::statements::{NewRow, Statements, IDS};

/// A message with rows has no more bytes than this, or one row.
const MESSAGE: usize = 64 << 10;
/// What a row takes in a message beside its id and value and the name of the cache.
const ROW: usize = 40;
/// Sections that are read or written at a time. What is in flight in all the statements bound.
const SECTIONS: usize = 16;
/// Rows of the first page of a section, in which each may be as large as a row gets; and of all others, of which one
/// knows how large they are.
const FIRST_PAGE: i32 = 250;
const LARGEST_PAGE: i32 = 5_000;
const PAGE: usize = 2 << 20;
/// A value is read again so many times if its row says other parts by then.
const READINGS: usize = 4;
/// Where rights are tried: a partition that holds nothing.
const NOWHERE: i32 = i32::MAX;

/// A cache in a keyspace.
pub(crate) struct CassandraStore {
    statements: Statements,
    cache: String,
    name: String,
}

impl CassandraStore {
    /// The store of a cache.
    pub(crate) fn new(statements: Statements, cache: String, keyspace: &str) -> Self {
        CassandraStore {
            name: format!("{}, keyspace {keyspace}", statements.place().server),
            statements,
            cache,
        }
    }

    /// Whether it may be read and written: what is missing is better said when it is opened. What is deleted here was
    /// never there.
    pub(crate) async fn try_rights(&self) -> Result<(), StoreError> {
        let read = self.statements.rows_with(&self.cache, NOWHERE, &[b""]).await;
        read?;
        self.statements.delete(&self.cache, NOWHERE, &[(b"", 0)]).await
    }

    fn parts(&self, section: Section) -> PartsOf<'_> {
        PartsOf {
            statements: &self.statements,
            cache: &self.cache,
            section,
        }
    }

    async fn write_batches(&self, batches: &[Batch]) -> Result<(), StoreError> {
        let writing: Vec<_> = batches.iter().map(|batch| self.write_batch(batch)).collect();
        let writing = stream::iter(writing).buffer_unordered(SECTIONS).try_collect::<()>();
        writing.await?;
        // What others add from now on is found the next time.
        let with_parts = parts::sections(&self.statements, &self.cache).await?;
        for batch in batches {
            if with_parts.contains(&layout::with_parts(batch.section())[..]) {
                self.parts(batch.section()).remove_left_behind(batch).await?;
            }
        }
        Ok(())
    }

    async fn write_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for record in batch.iter() {
            let id = row_id(record.id);
            let value = match layout::row(record) {
                Row::Here(value) => value,
                Row::InParts(whole, content) => {
                    let parts = whole.parts(Owner::of(&id));
                    self.parts(batch.section()).write(&parts, content.as_bytes()).await?;
                    whole.value()
                }
            };
            let row_bytes = ROW + self.cache.len() + id.len() + value.len();
            if bytes + row_bytes > MESSAGE {
                self.insert(batch.section(), &mut rows).await?;
                bytes = 0;
            }
            bytes += row_bytes;
            rows.push(NewRow {
                id,
                value,
                timestamp: timestamp(record.value),
            });
        }
        self.insert(batch.section(), &mut rows).await
    }

    async fn insert(&self, section: Section, rows: &mut Vec<NewRow<'_>>) -> Result<(), StoreError> {
        self.statements.insert(&self.cache, of_section(section), rows).await?;
        rows.clear();
        Ok(())
    }

    /// Shows a section. Gives the number of records that are not whole.
    async fn load_section(&self, section: Section, sink: Sink<'_>) -> Result<usize, StoreError> {
        let mut torn = 0;
        let mut page = FIRST_PAGE;
        let mut next = Some(PagingState::start());
        while let Some(from) = next.take() {
            let (rows, then) = self
                .statements
                .page(&self.cache, of_section(section), page, from)
                .await?;
            for (id, value) in rows.iter() {
                match stored(id, value) {
                    Some(Stored::Here(value)) => sink(section, Record { id, value }),
                    Some(Stored::InParts(_)) => torn += self.load_large(section, id, value, sink).await?,
                    None => torn += 1,
                }
            }
            let (number, bytes) = rows.size();
            let mean = (bytes / number.max(1)).max(1);
            page = ((PAGE / mean) as i32).clamp(1, LARGEST_PAGE);
            next = then;
        }
        Ok(torn)
    }

    /// Shows a record that is in parts; 1 if it is not whole. It may be written, or removed, while it is read.
    async fn load_large(&self, section: Section, id: &[u8], value: &[u8], sink: Sink<'_>) -> Result<usize, StoreError> {
        let mut value = value.to_vec();
        for _ in 0..READINGS {
            let whole = match stored(id, &value) {
                Some(Stored::InParts(whole)) => whole,
                Some(Stored::Here(value)) => {
                    sink(section, Record { id, value });
                    return Ok(0);
                }
                None => return Ok(1),
            };
            let content = self.parts(section).read(id, &whole).await?;
            if let Some(record) = content.as_ref().and_then(|content| whole.record(id, content)) {
                sink(section, record);
                return Ok(0);
            }
            let rows = self
                .statements
                .rows_with(&self.cache, of_section(section), &[id])
                .await?;
            let now = rows.iter().next().map(|(_, value)| value.to_vec());
            match now {
                None => return Ok(0),
                Some(now) if now == value => return Ok(1),
                Some(now) => value = now,
            }
        }
        Ok(1)
    }

    async fn remove_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        let section = batch.section();
        let records: Vec<Record<'_>> = batch.iter().collect();
        for some in records.chunks(IDS) {
            let rows: Vec<_> = some
                .iter()
                .map(|record| (row_id(record.id), layout::row(*record)))
                .collect();
            let ids: Vec<&[u8]> = rows.iter().map(|(id, _)| &**id).collect();
            let now = self
                .statements
                .rows_with(&self.cache, of_section(section), &ids)
                .await?;
            let mut gone = Vec::new();
            let mut parts = Vec::new();
            for (id, value) in now.iter() {
                for (given, row) in &rows {
                    match row {
                        Row::Here(given_value) if **given == *id && given_value == value => {}
                        Row::InParts(whole, _) if **given == *id && whole.value() == value => parts.push((id, whole)),
                        _ => continue,
                    }
                    gone.push((id, timestamp(value)));
                }
            }
            self.statements.delete(&self.cache, of_section(section), &gone).await?;
            for (id, whole) in parts {
                self.parts(section).remove(id, whole).await?;
            }
        }
        Ok(())
    }
}

impl Store for CassandraStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn load<'a>(&'a self, sections: &'a [Section], sink: Sink<'a>) -> Asked<'a, ()> {
        Box::pin(async move {
            let loading: Vec<_> = sections
                .iter()
                .map(|section| self.load_section(*section, sink))
                .collect();
            let loading = stream::iter(loading).buffer_unordered(SECTIONS);
            match loading
                .try_fold(0, |torn, of_section| ready(Ok(torn + of_section)))
                .await?
            {
                0 => {}
                torn => tracing::warn!("{}: {torn} records are not whole; they are left out", self.name),
            }
            Ok(())
        })
    }

    /// Plain writes: nobody sees what they lose against.
    fn tells_conflicts(&self) -> bool {
        false
    }

    fn write<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, Written> {
        Box::pin(async move {
            self.write_batches(batches).await?;
            Ok(Written::default())
        })
    }

    fn remove<'a>(&'a self, batch: &'a Batch) -> Asked<'a, ()> {
        Box::pin(self.remove_batch(batch))
    }

    /// The connections end with the store.
    fn close(&self) -> Asked<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
