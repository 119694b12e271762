//! Values that are too large for one row: written in parts before their row, read after it, and removed once their row
//! has another value.

use std::collections::{BTreeMap, BTreeSet};

use futures::{stream, StreamExt, TryStreamExt};
use kvcache_node::store::{Batch, Section, StoreError};
use scylla::response::PagingState;

use crate::layout::{of_parts, of_section, row_id, with_parts, Owner, Parts, Whole, PART, WITH_PARTS};
use crate::statements::{NewRow, Statements, IDS};

/// Parts of one value that are written at a time.
const AT_A_TIME: usize = 4;

/// The rows of the sections that have or had parts, see [`with_parts`].
pub(crate) async fn sections(statements: &Statements, cache: &str) -> Result<BTreeSet<Vec<u8>>, StoreError> {
    let ids = all_ids(statements, cache, WITH_PARTS).await?;
    Ok(ids.into_iter().collect())
}

async fn all_ids(statements: &Statements, cache: &str, section: i32) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut all = Vec::new();
    let mut next = Some(PagingState::start());
    while let Some(from) = next.take() {
        let (rows, then) = statements.ids(cache, section, from).await?;
        all.extend(rows.ids().map(<[u8]>::to_vec));
        next = then;
    }
    Ok(all)
}

/// The parts of a section.
#[derive(Clone, Copy)]
pub(crate) struct PartsOf<'a> {
    pub(crate) statements: &'a Statements,
    pub(crate) cache: &'a str,
    pub(crate) section: Section,
}

impl PartsOf<'_> {
    /// Writes the parts of a value. Its row is not yet there.
    pub(crate) async fn write<'a>(&self, parts: &Parts, bytes: &'a [u8]) -> Result<(), StoreError> {
        let section = NewRow {
            id: with_parts(self.section).to_vec().into(),
            value: Vec::new(),
            timestamp: 0,
        };
        self.statements.insert(self.cache, WITH_PARTS, &[section]).await?;
        let write = |(number, part): (u32, &'a [u8])| async move {
            let row = NewRow {
                id: parts.id(number).into(),
                value: part.to_vec(),
                timestamp: parts.timestamp(),
            };
            self.statements.insert(self.cache, of_parts(self.section), &[row]).await
        };
        let writing: Vec<_> = (0..).zip(bytes.chunks(PART)).map(write).collect();
        stream::iter(writing).buffer_unordered(AT_A_TIME).try_collect().await
    }

    /// Puts the parts of a value together. `None` where some are missing: they are not there any more, or were lost.
    pub(crate) async fn read(&self, row: &[u8], whole: &Whole) -> Result<Option<Vec<u8>>, StoreError> {
        let parts = whole.parts(Owner::of(row));
        let mut bytes = Vec::new();
        let mut number = 0;
        let mut next = Some(PagingState::start());
        while let Some(from) = next.take() {
            let (rows, then) = self
                .statements
                .parts(self.cache, of_parts(self.section), &parts, from)
                .await?;
            for (id, part) in rows.iter() {
                if id != parts.id(number) || bytes.len() as u64 + part.len() as u64 > whole.length() {
                    return Ok(None);
                }
                bytes.extend_from_slice(part);
                number += 1;
            }
            next = then;
        }
        Ok((bytes.len() as u64 == whole.length()).then_some(bytes))
    }

    /// Removes the parts of one value.
    pub(crate) async fn remove(&self, row: &[u8], whole: &Whole) -> Result<(), StoreError> {
        let parts = whole.parts(Owner::of(row));
        self.statements
            .delete_parts(self.cache, of_parts(self.section), &parts)
            .await
    }

    /// Removes what the records of a batch that was written have left behind.
    pub(crate) async fn remove_left_behind(&self, batch: &Batch) -> Result<(), StoreError> {
        let ids = all_ids(self.statements, self.cache, of_parts(self.section)).await?;
        let all: BTreeSet<Parts> = ids.iter().filter_map(|id| Parts::with(id)).collect();
        let mut of_owners: BTreeMap<Owner, Vec<&Parts>> = BTreeMap::new();
        for parts in &all {
            of_owners.entry(parts.owner()).or_default().push(parts);
        }
        let rows: Vec<_> = batch
            .iter()
            .map(|record| row_id(record.id))
            .filter(|row| of_owners.contains_key(&Owner::of(row)))
            .collect();
        for some in rows.chunks(IDS) {
            let ids: Vec<&[u8]> = some.iter().map(|row| &**row).collect();
            let now = self
                .statements
                .rows_with(self.cache, of_section(self.section), &ids)
                .await?;
            for (row, value) in now.iter() {
                let theirs = of_owners.get(&Owner::of(row)).into_iter().flatten();
                for parts in theirs.filter(|parts| parts.are_left_behind_by(value)) {
                    self.statements
                        .delete_parts(self.cache, of_parts(self.section), parts)
                        .await?;
                }
            }
        }
        Ok(())
    }
}
