//! What is asked of Cassandra: each statement, and how many at a time.

use std::time::Duration;

use kvcache_node::store::StoreError;
use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::errors::{is_confused, Place};
use crate::layout::{Parts, PART, TABLE};

/// Requests at one time. More make no server faster, and each may hold a part of a large value.
const IN_FLIGHT: usize = 16;
/// Ids that are asked for at one time: ScyllaDB refuses more than 100.
pub(crate) const IDS: usize = 64;
/// Rows of a page with parts: as many as make a message of some MiB.
const PARTS_PAGE: i32 = ((4 << 20) / PART) as i32;
const KEYS_PAGE: i32 = 5_000;

/// A table that somebody else makes is in the schema a little before it can be used.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSES: usize = 20;

/// A row that is to be written.
pub(crate) struct NewRow<'a> {
    pub(crate) id: std::borrow::Cow<'a, [u8]>,
    pub(crate) value: Vec<u8>,
    pub(crate) timestamp: i64,
}

/// Prepared statements, and the session that executes them.
pub(crate) struct Statements {
    session: Session,
    place: Place,
    permits: Semaphore,
    insert: PreparedStatement,
    rows: PreparedStatement,
    rows_with: PreparedStatement,
    ids: PreparedStatement,
    range: PreparedStatement,
    delete: PreparedStatement,
    delete_range: PreparedStatement,
}

impl Statements {
    /// Prepares them all.
    pub(crate) async fn prepare(session: Session, keyspace: &str, place: Place) -> Result<Self, StoreError> {
        let table = format!("\"{keyspace}\".{TABLE}");
        let prepared = |text: String| {
            let (session, place) = (&session, &place);
            async move {
                let mut pauses = 0;
                let mut statement = loop {
                    match session.prepare(&*text).await {
                        Err(error) if pauses < PAUSES && is_confused(&error) => pauses += 1,
                        prepared => break prepared.map_err(|error| place.error("preparing a statement", error))?,
                    }
                    tokio::time::sleep(PAUSE).await;
                };
                // Twice is as good as once: every write and every deletion has its timestamp.
                statement.set_is_idempotent(true);
                Ok(statement)
            }
        };
        let partition = "cache = ? AND section = ?";
        let (insert, rows, rows_with, mut ids) = futures::try_join!(
            prepared(format!(
                "INSERT INTO {table} (cache, section, id, value) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
            )),
            prepared(format!("SELECT id, value FROM {table} WHERE {partition}")),
            prepared(format!("SELECT id, value FROM {table} WHERE {partition} AND id IN ?")),
            prepared(format!("SELECT id FROM {table} WHERE {partition}")),
        )?;
        let (mut range, delete, delete_range) = futures::try_join!(
            prepared(format!(
                "SELECT id, value FROM {table} WHERE {partition} AND id >= ? AND id <= ?"
            )),
            prepared(format!(
                "DELETE FROM {table} USING TIMESTAMP ? WHERE {partition} AND id = ?"
            )),
            prepared(format!(
                "DELETE FROM {table} USING TIMESTAMP ? WHERE {partition} AND id >= ? AND id <= ?"
            )),
        )?;
        ids.set_page_size(KEYS_PAGE);
        range.set_page_size(PARTS_PAGE);
        Ok(Statements {
            session,
            place,
            permits: Semaphore::new(IN_FLIGHT),
            insert,
            rows,
            rows_with,
            ids,
            range,
            delete,
            delete_range,
        })
    }

    /// What and where, for names and errors.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Writes rows of one partition, in one message. Each stays only where nothing larger is.
    pub(crate) async fn insert(&self, cache: &str, section: i32, rows: &[NewRow<'_>]) -> Result<(), StoreError> {
        let values: Vec<_> = rows
            .iter()
            .map(|row| (cache, section, &*row.id, row.value.as_slice(), row.timestamp))
            .collect();
        self.change("writing", &self.insert, &values).await
    }

    /// Deletes rows of one partition: what was written until these timestamps.
    pub(crate) async fn delete(&self, cache: &str, section: i32, ids: &[(&[u8], i64)]) -> Result<(), StoreError> {
        let values: Vec<_> = ids
            .iter()
            .map(|(id, timestamp)| (*timestamp, cache, section, *id))
            .collect();
        self.change("deleting", &self.delete, &values).await
    }

    /// Deletes the parts of one value.
    pub(crate) async fn delete_parts(&self, cache: &str, section: i32, parts: &Parts) -> Result<(), StoreError> {
        let (first, last) = (parts.id(0), parts.id(u32::MAX));
        let values = [(parts.timestamp(), cache, section, &first[..], &last[..])];
        self.change("deleting", &self.delete_range, &values).await
    }

    /// One page of the rows of a partition.
    pub(crate) async fn page(
        &self,
        cache: &str,
        section: i32,
        rows: i32,
        from: PagingState,
    ) -> Result<(Rows, Option<PagingState>), StoreError> {
        let mut statement = self.rows.clone();
        statement.set_page_size(rows);
        self.ask(&statement, (cache, section), from).await
    }

    /// The rows that there are of some ids, up to [`IDS`].
    pub(crate) async fn rows_with(&self, cache: &str, section: i32, ids: &[&[u8]]) -> Result<Rows, StoreError> {
        let (rows, _) = self
            .ask(&self.rows_with, (cache, section, ids), PagingState::start())
            .await?;
        Ok(rows)
    }

    /// One page of the ids of a partition.
    pub(crate) async fn ids(
        &self,
        cache: &str,
        section: i32,
        from: PagingState,
    ) -> Result<(Rows, Option<PagingState>), StoreError> {
        self.ask(&self.ids, (cache, section), from).await
    }

    /// One page of the parts of a value, in their order.
    pub(crate) async fn parts(
        &self,
        cache: &str,
        section: i32,
        parts: &Parts,
        from: PagingState,
    ) -> Result<(Rows, Option<PagingState>), StoreError> {
        let (first, last) = (parts.id(0), parts.id(u32::MAX));
        self.ask(&self.range, (cache, section, &first[..], &last[..]), from)
            .await
    }

    /// Executes a statement once for each of these values, which are all of one partition. So it is one change of
    /// Cassandra's, and no limit to the size of batches counts.
    async fn change<V: SerializeRow>(
        &self,
        tried: &str,
        statement: &PreparedStatement,
        values: &[V],
    ) -> Result<(), StoreError> {
        let _permit = self.permit().await;
        let changed: Result<QueryResult, ExecutionError> = match values {
            [] => return Ok(()),
            [values] => self.session.execute_unpaged(statement, values).await,
            _ => {
                let statements = vec![BatchStatement::PreparedStatement(statement.clone()); values.len()];
                let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
                batch.set_is_idempotent(true);
                self.session.batch(&batch, values).await
            }
        };
        changed.map(drop).map_err(|error| self.place.error(tried, error))
    }

    async fn ask(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        from: PagingState,
    ) -> Result<(Rows, Option<PagingState>), StoreError> {
        let _permit = self.permit().await;
        let answer = self.session.execute_single_page(statement, values, from).await;
        let (result, state) = answer.map_err(|error| self.place.error("reading", error))?;
        let rows = result.into_rows_result().map_err(|error| self.damaged(&error))?;
        let next = match state {
            PagingStateResponse::HasMorePages { state } => Some(state),
            PagingStateResponse::NoMorePages => None,
        };
        Ok((Rows(rows), next))
    }

    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.permits.acquire().await.ok()
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Damaged(format!(
            "{}: reading: an answer that cannot be read: {error}",
            self.place.server
        ))
    }
}

/// Rows of an answer.
pub(crate) struct Rows(QueryRowsResult);

impl Rows {
    /// How many there are, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.0.rows_num(), self.0.rows_bytes_size())
    }

    /// Ids and values. Those that have none are left out: nobody of ours writes them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let rows = self.0.rows::<(Option<&[u8]>, Option<&[u8]>)>().into_iter().flatten();
        rows.filter_map(|row| row.ok().and_then(|(id, value)| id.zip(value)))
    }

    /// Ids, where nothing else was asked for.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &[u8]> {
        let rows = self.0.rows::<(Option<&[u8]>,)>().into_iter().flatten();
        rows.filter_map(|row| row.ok().and_then(|(id,)| id))
    }
}
