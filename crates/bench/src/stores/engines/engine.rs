//! What the engines have in common.

use std::sync::Arc;

use anyhow::Result;
use kvcache_node::store::{Batch, Store};

/// Records that are written and read, over so many sections.
pub const RECORDS: usize = 100_000;
pub const SECTIONS: usize = 1_024;

/// A server of its own that is used both ways.
pub trait Engine {
    /// As the table names it.
    fn name(&self) -> &str;

    /// A store that holds nothing. Nor does the engine hold anything that it would have to read over.
    async fn store(&mut self, round: usize) -> Result<Arc<dyn Store>>;

    /// The same for the plain client.
    async fn clear(&mut self, round: usize) -> Result<()>;

    /// The plain client writes the records, whatever is there.
    async fn flush(&mut self, round: usize, batches: &[Batch]) -> Result<()>;

    /// The plain client reads them. Returns their number.
    async fn load(&mut self, round: usize) -> Result<usize>;
}
