//! The six figures of README.

use crate::report::{Line, Run};
use crate::table::{self, number};

/// One of them.
struct Headline {
    /// For a reader who has not seen the other figures.
    name: &'static str,
    section: u8,
    /// Part of what was measured, as the line names it.
    what: &'static str,
    /// How the name of its baseline begins; nothing where it has none.
    beside: Option<&'static str>,
}

const HEADLINES: [Headline; 6] = [
    Headline {
        name: "get through the whole path of a call, 128 B, 64 at once",
        section: 1,
        what: "RPC get, 128 B, 64 at once: throughput",
        beside: Some("a provider on redis-server"),
    },
    Headline {
        name: "a write on one node is readable on another, idle, p50",
        section: 2,
        what: "p50",
        beside: Some("raw NATS"),
    },
    Headline {
        name: "live replication, one writer to two nodes",
        section: 4,
        what: "live replication",
        beside: Some("Redis SET, one replica, 50 clients"),
    },
    Headline {
        name: "cold start of an empty process, 1,000,000 keys",
        section: 5,
        what: "cold start",
        beside: Some("Redis"),
    },
    Headline {
        name: "memory of the whole process per key, 16 B + 16 B",
        section: 6,
        what: "16 B + 16 B",
        beside: Some("Redis"),
    },
    Headline {
        name: "100 of 1,000,000 keys differ: bytes to repair them",
        section: 7,
        what: "100 differing of 1,000,000 keys: bytes sent by both, the 100 deltas apart",
        beside: None,
    },
];

impl Headline {
    fn line<'a>(&self, run: &'a Run) -> Option<&'a Line> {
        run.lines.iter().find(|line| {
            let baseline = line.baseline.as_ref().map(|baseline| baseline.name.as_str());
            let beside = match (baseline, self.beside) {
                (Some(name), Some(begin)) => name.starts_with(begin),
                (baseline, beside) => baseline == beside,
            };
            line.section == self.section && line.what.contains(self.what) && beside
        })
    }

    fn row(&self, run: &Run) -> String {
        let Some(line) = self.line(run) else {
            return format!("| {} | {} | - | - |\n", self.name, table::NOT_MEASURED);
        };
        let (ours, baseline) = (table::ours(line), table::baseline(line));
        let ratio = line
            .baseline
            .as_ref()
            .and_then(|_| line.result())
            .map_or("-".into(), number);
        format!("| {} | {ours} | {baseline} | {ratio} |\n", self.name)
    }
}

/// Those that a run holds.
pub fn lines(run: &Run) -> impl Iterator<Item = &Line> {
    HEADLINES.iter().filter_map(|headline| headline.line(run))
}

/// All six in Markdown.
pub fn table(run: &Run) -> String {
    let rows: String = HEADLINES.iter().map(|headline| headline.row(run)).collect();
    format!("| what | this cache | baseline | ratio |\n| --- | --- | --- | --- |\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Target;
    use crate::table::tests::run;

    #[test]
    fn what_a_run_holds_is_shown_and_what_it_lacks_is_said() {
        let mut run = run();
        let what = "cold start: 1,000,000 keys";
        for baseline in ["the same bytes raw over NATS", "Redis full sync"] {
            run.lines.push(Line::against(
                5,
                what,
                "s",
                vec![0.2],
                baseline,
                vec![1.0],
                Target::None,
            ));
        }
        let text = table(&run);
        assert!(
            text.contains(
                "| cold start of an empty process, 1,000,000 keys | 0.200 s | 1.00 s (Redis full sync) | 0.200 |"
            ),
            "{text}"
        );
        assert!(
            text.contains("| live replication, one writer to two nodes | not measured in the stored run | - | - |"),
            "{text}"
        );
        assert_eq!(lines(&run).count(), 1);
    }
}
