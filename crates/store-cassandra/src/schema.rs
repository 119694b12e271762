//! The keyspace and the table: found, or made.

use kvcache_node::store::StoreError;
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::unprepared::Statement;
use scylla::statement::Consistency;

use crate::errors::Place;
use crate::layout::TABLE;
use crate::options::Options;

/// Name, kind and type of each column.
const COLUMNS: [(&str, &str, &str); 4] = [
    ("cache", "partition_key", "text"),
    ("id", "clustering", "blob"),
    ("section", "partition_key", "int"),
    ("value", "regular", "blob"),
];
/// Two that make a table at one time may hinder each other on the way.
const ATTEMPTS: usize = 4;

/// Finds the keyspace and the table, and makes what is missing.
pub(crate) async fn prepare(session: &Session, options: &Options, place: &Place) -> Result<(), StoreError> {
    let schema = Schema {
        session,
        options,
        place,
    };
    if !schema.has_keyspace().await? {
        let statement = schema.keyspace();
        if options.replication_factor.is_none() {
            return Err(StoreError::Unusable(format!(
                "{}: there is no keyspace {:?}. Make it with: {statement}; or have it made, with \
                 ?replication_factor=N in the URL",
                place.server, options.keyspace
            )));
        }
        schema.make("making the keyspace", &statement).await?;
    }
    let mut failed = None;
    for _ in 0..ATTEMPTS {
        if schema.has_table().await? {
            return Ok(());
        }
        failed = schema.make("making the table", &schema.table()).await.err();
    }
    Err(failed.unwrap_or_else(|| {
        StoreError::Away(format!(
            "{}: the table {TABLE} was made and is not there yet",
            place.server
        ))
    }))
}

struct Schema<'a> {
    session: &'a Session,
    options: &'a Options,
    place: &'a Place,
}

impl Schema<'_> {
    fn keyspace(&self) -> String {
        let keyspace = &self.options.keyspace;
        let factor = self.options.replication_factor.unwrap_or(3);
        let where_to = match &self.options.datacenter {
            Some(name) => name.replace('\'', "''"),
            // In every datacenter.
            None => "replication_factor".into(),
        };
        format!(
            "CREATE KEYSPACE IF NOT EXISTS \"{keyspace}\" WITH replication = \
             {{'class': 'NetworkTopologyStrategy', '{where_to}': {factor}}}"
        )
    }

    /// Compaction and compression are those of the server: rows are written often and read once, when a node starts,
    /// which is what size tiers, and what has followed them, are best at. Where a replica has missed a deletion for
    /// longer than `gc_grace_seconds`, and was not repaired, a record that was replaced long ago could come back: so it
    /// is the time within which Cassandra asks for repairs anyway.
    fn table(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS \"{}\".{TABLE} (cache text, section int, id blob, value blob, \
             PRIMARY KEY ((cache, section), id)) WITH gc_grace_seconds = 864000 AND comment = 'nats-kvcache'",
            self.options.keyspace
        )
    }

    async fn has_keyspace(&self) -> Result<bool, StoreError> {
        let query = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let found: Vec<(String,)> = self.look(query, (&self.options.keyspace,)).await?;
        Ok(!found.is_empty())
    }

    /// Whether the table is there. One that is not ours is an error.
    async fn has_table(&self) -> Result<bool, StoreError> {
        let query =
            "SELECT column_name, kind, type FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?";
        let mut found: Vec<(String, String, String)> = self.look(query, (&self.options.keyspace, TABLE)).await?;
        found.sort();
        let ours = COLUMNS.map(|(name, kind, of)| (name.to_owned(), kind.to_owned(), of.to_owned()));
        if found.is_empty() || found == ours {
            return Ok(!found.is_empty());
        }
        let columns: Vec<String> = found.iter().map(|(name, _, of)| format!("{name} {of}")).collect();
        Err(StoreError::Unusable(format!(
            "{}: the table {}.{TABLE} is not of nats-kvcache: it has the columns {}; rename or drop it, or name another \
             keyspace",
            self.place.server,
            self.options.keyspace,
            columns.join(", ")
        )))
    }

    /// Every server has the schema: one is enough to ask.
    async fn look<T>(
        &self,
        query: &str,
        values: impl scylla::serialize::row::SerializeRow,
    ) -> Result<Vec<T>, StoreError>
    where
        T: for<'frame, 'metadata> scylla::deserialize::row::DeserializeRow<'frame, 'metadata>,
    {
        let tried = "reading the schema";
        let mut statement = Statement::new(query);
        statement.set_consistency(Consistency::One);
        statement.set_is_idempotent(true);
        let result = self.session.query_unpaged(statement, values).await;
        let rows = result.map_err(|error| self.place.error(tried, error))?;
        let damaged = |error: &dyn std::fmt::Display| {
            StoreError::Unusable(format!("{}: {tried}: unexpected: {error}", self.place.server))
        };
        let rows = rows.into_rows_result().map_err(|error| damaged(&error))?;
        let rows = rows.rows::<T>().map_err(|error| damaged(&error))?;
        rows.collect::<Result<_, _>>().map_err(|error| damaged(&error))
    }

    /// Returns when all servers agree on it.
    async fn make(&self, tried: &str, statement: &str) -> Result<(), StoreError> {
        match self.session.query_unpaged(statement, ()).await {
            // Another one was faster.
            Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::AlreadyExists { .. }, _))) => {
                let agreed = self.session.await_schema_agreement().await;
                agreed.map(drop).map_err(|error| self.place.error(tried, error))
            }
            made => made.map(drop).map_err(|error| self.place.error(tried, error)),
        }
    }
}
