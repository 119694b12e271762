//! How long Cassandra takes to be written and read by the store, beside a plain client of the same driver that keeps no rule:
//! `cargo run --release -p kvcache-store-cassandra --example cassandra_figures`. With an address (`host:9042`) as its argument
//! it uses that server, else one of its own.

// It measures in real time.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{ensure, Result};
use futures::{stream, StreamExt, TryStreamExt};
use kvcache_core::cache::Partition;
use kvcache_node::store::{Batch, Opener, Record, Section, StoreUrl};
use kvcache_store_cassandra::CassandraOpener;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::batch::{Batch as Statements, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use testkit::{cache_name, CassandraServer};

const RECORDS: usize = 100_000;
const SECTIONS: usize = 1_024;
const ROUNDS: usize = 5;
/// Requests that the plain client has in flight.
const SINGLES: usize = 256;
const BATCHES: usize = 16;

/// Ids and values of one section.
type OfSection = (i32, Vec<(Vec<u8>, Vec<u8>)>);
type Rows = Vec<OfSection>;

#[tokio::main]
async fn main() -> Result<()> {
    let own = match std::env::args().nth(1) {
        Some(_) => None,
        None => Some(CassandraServer::start().await?),
    };
    let address = match (&own, std::env::args().nth(1)) {
        (Some(server), _) => server.address(),
        (None, address) => address.unwrap_or_default(),
    };
    let url = StoreUrl::parse(&format!(
        "cassandra://{address}/figures?replication_factor=1&consistency=ONE"
    ))?;
    let opener = CassandraOpener::new();
    // Makes the keyspace.
    opener.open(&url, &cache_name("figures", "0")).await?;
    let plain = Plain::open(&address).await?;
    let mut took = [const { Vec::new() }; 5];
    // The first round warms up the server and does not count.
    for round in 0..=ROUNDS {
        let rows = rows(round as u64);
        let mut batches = Vec::new();
        for (section, records) in &rows {
            let mut batch = Batch::new(Section::of(Partition(*section as u16)));
            records.iter().for_each(|(id, value)| batch.push(Record { id, value }));
            batches.push(batch);
        }
        let store = opener.open(&url, &cache_name("figures", &round.to_string())).await?;
        let sections: Vec<Section> = batches.iter().map(Batch::section).collect();
        let found = AtomicUsize::new(0);
        let cache = format!("plain {round}");
        let write = || timed(store.write(&batches));
        let count = |_: Section, _: Record<'_>| {
            found.fetch_add(1, Relaxed);
        };
        let load = || timed(store.load(&sections, &count));
        let singly = timed(plain.write_one_by_one(&format!("{cache} singly"), &rows)).await?;
        // Who comes first finds other work of the server going on than who comes second: by turns.
        let (written, plainly, loaded, plainly_loaded) = if round % 2 == 0 {
            let written = write().await?;
            let plainly = timed(plain.write_in_batches(&cache, &rows)).await?;
            let loaded = load().await?;
            (written, plainly, loaded, timed(plain.load(&cache, &rows)).await?)
        } else {
            let plainly = timed(plain.write_in_batches(&cache, &rows)).await?;
            let written = write().await?;
            let plainly_loaded = timed(plain.load(&cache, &rows)).await?;
            (written, plainly, load().await?, plainly_loaded)
        };
        let times = [written, singly, plainly, loaded, plainly_loaded];
        ensure!(found.load(Relaxed) == RECORDS, "all are loaded");
        if round > 0 {
            took.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        }
    }
    let names = [
        "written by the store",
        "written plainly, one by one",
        "written plainly, in batches",
        "loaded by the store",
        "loaded plainly",
    ];
    println!("{RECORDS} records in {SECTIONS} sections, medians of {ROUNDS}:");
    for (name, times) in names.iter().zip(&mut took) {
        times.sort_by(f64::total_cmp);
        let (least, most) = (times[0], times[ROUNDS - 1]);
        println!("{name:<28} {:>7.3} s   ({least:.3} to {most:.3})", times[ROUNDS / 2]);
    }
    Ok(())
}

async fn timed<E>(work: impl Future<Output = Result<impl Sized, E>>) -> Result<f64, E> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64())
}

/// A key of 16 bytes with its length, a value of 16 bytes behind its stamp and its kind.
fn rows(round: u64) -> Rows {
    let mut rows: Rows = (0..SECTIONS as i32).map(|section| (section, Vec::new())).collect();
    for n in 0..RECORDS {
        let id = format!("\u{10}key-{n:012}").into_bytes();
        let stamp = (((1_790_000_000_000 + round) << 16) | (n as u64 & 0xffff)).to_be_bytes();
        let value = [
            &stamp[..],
            &7u64.to_be_bytes(),
            &[0],
            format!("value-{n:010}").as_bytes(),
        ]
        .concat();
        rows[n % SECTIONS].1.push((id, value));
    }
    rows
}

struct Plain {
    session: Arc<Session>,
    insert: PreparedStatement,
    select: PreparedStatement,
}

impl Plain {
    async fn open(address: &str) -> Result<Self> {
        let session = SessionBuilder::new().known_node(address).build().await?;
        let columns = "cache text, section int, id blob, value blob, PRIMARY KEY ((cache, section), id)";
        session
            .query_unpaged(format!("CREATE TABLE IF NOT EXISTS figures.plain ({columns})"), ())
            .await?;
        let insert = "INSERT INTO figures.plain (cache, section, id, value) VALUES (?, ?, ?, ?)";
        let select = "SELECT id, value FROM figures.plain WHERE cache = ? AND section = ?";
        Ok(Plain {
            insert: session.prepare(insert).await?,
            select: session.prepare(select).await?,
            session: session.into(),
        })
    }

    async fn write_one_by_one(&self, cache: &str, rows: &Rows) -> Result<()> {
        let mut writing = Vec::new();
        for (section, records) in rows {
            for (id, value) in records {
                writing.push(self.session.execute_unpaged(&self.insert, (cache, section, id, value)));
            }
        }
        let writing = stream::iter(writing).buffer_unordered(SINGLES);
        writing.try_for_each(|_| async { Ok(()) }).await?;
        Ok(())
    }

    async fn write_in_batches(&self, cache: &str, rows: &Rows) -> Result<()> {
        let write = |(section, records): &OfSection| {
            let statements = vec![BatchStatement::PreparedStatement(self.insert.clone()); records.len()];
            let batch = Statements::new_with_statements(BatchType::Unlogged, statements);
            let values: Vec<_> = records
                .iter()
                .map(|(id, value)| (cache.to_owned(), *section, id.clone(), value.clone()))
                .collect();
            let session = self.session.clone();
            async move { session.batch(&batch, values).await }
        };
        let writing: Vec<_> = rows.iter().map(write).collect();
        let writing = stream::iter(writing).buffer_unordered(BATCHES);
        writing.try_for_each(|_| async { Ok(()) }).await?;
        Ok(())
    }

    async fn load(&self, cache: &str, rows: &Rows) -> Result<()> {
        let reading: Vec<_> = rows
            .iter()
            .map(|(section, _)| self.load_section(cache, *section))
            .collect();
        let found: Vec<usize> = stream::iter(reading).buffer_unordered(BATCHES).try_collect().await?;
        ensure!(found.iter().sum::<usize>() == RECORDS, "all are loaded plainly");
        Ok(())
    }

    async fn load_section(&self, cache: &str, section: i32) -> Result<usize> {
        let mut found = 0;
        let mut from = PagingState::start();
        loop {
            let (rows, next) = self
                .session
                .execute_single_page(&self.select, (cache, section), from)
                .await?;
            let rows = rows.into_rows_result()?;
            for row in rows.rows::<(&[u8], &[u8])>()? {
                row?;
                found += 1;
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(found),
            }
        }
    }
}
