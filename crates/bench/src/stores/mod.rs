//! Section 15: what a store costs, beside what Redis takes to be as durable, and beside plain clients of the engines.
//!
//! Files of both sides lie in the folder for temporary files, which has to be on a disk for the figures to mean anything.

mod calls;
mod disk;
mod engines;
mod kept;
mod restart;
mod sets;
mod stored;

use anyhow::Result;

use crate::report::Line;
use crate::Arguments;

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let mut lines = sets::lines(arguments).await?;
    lines.extend(stored::lines(arguments).await?);
    lines.extend(restart::lines(arguments).await?);
    lines.extend(disk::lines().await?);
    lines.extend(engines::lines(arguments).await?);
    lines.extend(calls::lines(arguments).await?);
    Ok(lines)
}
