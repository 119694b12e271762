//! The table of `make bench`.

use serde::{Deserialize, Serialize};

/// Which way a bar points.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Limit {
    /// Reported only.
    None,
    /// The judged number has to be at least this.
    AtLeast(f64),
    /// The judged number has to be at most this.
    AtMost(f64),
}

/// One line of the table. What is judged is the ratio ours / peer where there is a peer, else our median.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Number of the bar in the table, 1 to 10.
    pub bar: u8,
    /// What was measured, with its parameters.
    pub what: String,
    /// Unit of `ours` and `peer`.
    pub unit: String,
    /// Our samples, in the order in which they were taken.
    pub ours: Vec<f64>,
    /// Who we are compared with.
    pub peer: Option<Peer>,
    /// The bar.
    pub limit: Limit,
}

/// The other side of a comparison.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// For example `redis-server 7.0.15, one replica`.
    pub name: String,
    /// Its samples; sample `n` was taken right before or after our sample `n`.
    pub samples: Vec<f64>,
}

impl Line {
    /// A comparison: judged is the median of the ratios ours / peer, pair by pair.
    pub fn against(
        bar: u8,
        what: impl Into<String>,
        unit: &str,
        ours: Vec<f64>,
        name: impl Into<String>,
        samples: Vec<f64>,
        limit: Limit,
    ) -> Line {
        let name = name.into();
        let peer = Some(Peer { name, samples });
        let (what, unit) = (what.into(), unit.into());
        Line {
            bar,
            what,
            unit,
            ours,
            peer,
            limit,
        }
    }

    /// A figure of its own: judged is its median.
    pub fn alone(bar: u8, what: impl Into<String>, unit: &str, ours: Vec<f64>, limit: Limit) -> Line {
        let (what, unit) = (what.into(), unit.into());
        Line {
            bar,
            what,
            unit,
            ours,
            peer: None,
            limit,
        }
    }
}

/// Prints the table.
pub fn print(lines: &[Line]) {
    for line in lines {
        let peer = line.peer.as_ref().map(|peer| crate::sample::median(&peer.samples));
        let ours = crate::sample::median(&line.ours);
        println!(
            "{} | {} | {ours:.3} {} | {peer:.3?} | {:.3?} | {:?}",
            line.bar,
            line.what,
            line.unit,
            peer.map(|peer| ours / peer),
            line.limit
        );
    }
}
