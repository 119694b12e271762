//! Cassandra: a row for each record, written in batches of a section and read by section.

use std::sync::Arc;

use anyhow::Result;
use futures::{stream, StreamExt, TryStreamExt};
use kvcache_node::store::{Batch, Opener, Store, StoreUrl};
use kvcache_store_cassandra::CassandraOpener;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::batch::{Batch as Statements, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use testkit::{cache_name, CassandraServer};

use super::engine::{Engine, SECTIONS};

/// Batches, or sections, that the plain client has under way.
const UNDER_WAY: usize = 16;

pub struct Cassandra {
    url: StoreUrl,
    opener: CassandraOpener,
    session: Session,
    insert: PreparedStatement,
    select: PreparedStatement,
    _server: CassandraServer,
}

impl Cassandra {
    pub async fn start() -> Result<Self> {
        let server = CassandraServer::start().await?;
        let address = server.address();
        let parameters = "replication_factor=1&consistency=ONE";
        let url = StoreUrl::parse(&format!("cassandra://{address}/bench?{parameters}"))?;
        let opener = CassandraOpener::new();
        // Makes the keyspace.
        opener.open(&url, &cache_name("bench", "first")).await?;
        let session = SessionBuilder::new().known_node(&address).build().await?;
        let columns = "cache text, section int, id blob, value blob, PRIMARY KEY ((cache, section), id)";
        let create = format!("CREATE TABLE IF NOT EXISTS bench.plain ({columns})");
        session.query_unpaged(create, ()).await?;
        let insert = "INSERT INTO bench.plain (cache, section, id, value) VALUES (?, ?, ?, ?)";
        let select = "SELECT id, value FROM bench.plain WHERE cache = ? AND section = ?";
        Ok(Cassandra {
            url,
            opener,
            insert: session.prepare(insert).await?,
            select: session.prepare(select).await?,
            session,
            _server: server,
        })
    }

    async fn write(&self, cache: &str, batch: &Batch) -> Result<()> {
        let statements = vec![BatchStatement::PreparedStatement(self.insert.clone()); batch.len()];
        let statements = Statements::new_with_statements(BatchType::Unlogged, statements);
        let section = i32::from(batch.section().number());
        let values: Vec<_> = batch
            .iter()
            .map(|record| (cache, section, record.id, record.value))
            .collect();
        self.session.batch(&statements, values).await?;
        Ok(())
    }

    async fn read(&self, cache: &str, section: i32) -> Result<usize> {
        let mut records = 0;
        let mut from = PagingState::start();
        loop {
            let page = self.session.execute_single_page(&self.select, (cache, section), from);
            let (rows, next) = page.await?;
            for row in rows.into_rows_result()?.rows::<(&[u8], &[u8])>()? {
                row?;
                records += 1;
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(records),
            }
        }
    }
}

/// Rows of other rounds stay; nobody reads over them.
fn cache(round: usize) -> String {
    format!("plain {round}")
}

impl Engine for Cassandra {
    fn name(&self) -> &str {
        "Cassandra"
    }

    async fn store(&mut self, round: usize) -> Result<Arc<dyn Store>> {
        Ok(self
            .opener
            .open(&self.url, &cache_name("bench", &round.to_string()))
            .await?)
    }

    async fn clear(&mut self, _round: usize) -> Result<()> {
        Ok(())
    }

    async fn flush(&mut self, round: usize, batches: &[Batch]) -> Result<()> {
        let cache = cache(round);
        let writing: Vec<_> = batches.iter().map(|batch| self.write(&cache, batch)).collect();
        let writing = stream::iter(writing).buffer_unordered(UNDER_WAY);
        writing.try_for_each(|()| async { Ok(()) }).await
    }

    async fn load(&mut self, round: usize) -> Result<usize> {
        let cache = cache(round);
        let reading: Vec<_> = (0..SECTIONS as i32).map(|section| self.read(&cache, section)).collect();
        let reading = stream::iter(reading).buffer_unordered(UNDER_WAY);
        let records: Vec<usize> = reading.try_collect().await?;
        Ok(records.into_iter().sum())
    }
}
