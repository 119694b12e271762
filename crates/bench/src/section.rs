//! The sections of a run: what belongs together in the report.

use std::fmt::Write as _;

use anyhow::{bail, Result};

/// What belongs together.
pub struct Section {
    /// For `ONLY=`, and at the beginning of every line.
    pub number: u8,
    /// For the heading.
    pub title: &'static str,
    /// How it is measured, for the page.
    pub about: &'static str,
    /// Programs beside which a complete run has measured it: how names of baselines begin. The page says which of them
    /// a stored run lacks.
    pub beside: &'static [&'static str],
}

/// All of them, in the order in which they are measured.
pub const ALL: [Section; 16] = [
    Section {
        number: 1,
        title: "Calls",
        about: "Signed invocations through NATS, as the host of an actor sends them, to the release binary with its \
                default configuration. The provider of constants has the same SDK, runtime and allocator and stores \
                nothing: what it takes is the price of the path. The other one keeps its values in Redis over one \
                multiplexed connection. All three are called in turns, in slices of 150 ms.",
        beside: &["a provider of constants", "a provider on redis-server"],
    },
    Section {
        number: 2,
        title: "Replication lag",
        about: "From just before a write on one node until a reader on another node sees it, on a system that is \
                otherwise at rest; beside one NATS message of the same value.",
        beside: &["raw NATS"],
    },
    Section {
        number: 3,
        title: "Merging",
        about: "What a node does with the writes of others, in process and on one thread; beside a plain map.",
        beside: &["insert into DashMap"],
    },
    Section {
        number: 4,
        title: "Live replication",
        about:
            "One writer to two nodes at full speed, until all three hold the same; beside SET on a primary with one \
                replica, by redis-benchmark with 16 requests under way per client.",
        beside: &["Redis", "Valkey"],
    },
    Section {
        number: 5,
        title: "Cold start",
        about:
            "An empty process is filled by the lattice, from its start; beside a full sync of an empty replica, and \
                beside the same bytes sent as raw NATS messages.",
        beside: &["Redis", "Valkey", "the same bytes raw over NATS"],
    },
    Section {
        number: 6,
        title: "Memory",
        about: "Resident memory of a whole process that was filled by the lattice, beside that of a replica that was \
                filled by a full sync.",
        beside: &["Redis", "Valkey"],
    },
    Section {
        number: 7,
        title: "Repair",
        about: "Two nodes of which some keys differ, because they were written behind the back of replication, half \
                here and half there.",
        beside: &[],
    },
    Section {
        number: 8,
        title: "Growth",
        about: "The same figure at a large and at a small size. The target says how much worse the large one may be.",
        beside: &[],
    },
    Section {
        number: 9,
        title: "Reads under a flood",
        about: "Reads on a node that takes in 500,000 writes of a peer a second.",
        beside: &[],
    },
    Section {
        number: 10,
        title: "Start and size",
        about: "The release binary, and the archive that hosts take it from.",
        beside: &[],
    },
    Section {
        number: 11,
        title: "Slow links",
        about: "An empty process is filled over a link with a limit, beside what the link takes for the bytes alone.",
        beside: &["the bytes alone"],
    },
    Section {
        number: 12,
        title: "Churn",
        about:
            "Distinct keys are created and deleted, 50,000 a second of a virtual clock; deletions are remembered for \
                10 s. Resident memory of a process with nothing but the cache.",
        beside: &[],
    },
    Section {
        number: 13,
        title: "Authentication",
        about: "Live replication as in section 4, with messages that prove the cluster seed; in turns with \
                FRAME_AUTH=off. With two issuers each message carries a signature as well.",
        beside: &["FRAME_AUTH=off"],
    },
    Section {
        number: 14,
        title: "Acknowledgement",
        about: "Writes on one of three nodes that wait until others have confirmed them; beside writes that wait for \
                nobody.",
        beside: &["ACK=0"],
    },
    Section {
        number: 15,
        title: "Stores",
        about:
            "A cache that is written behind to a store: what that costs beside a cache without one and beside Redis \
                where it keeps as much; and each engine as a store beside a plain client of it, which writes the same \
                records in pipelines and compares nothing. All servers keep their defaults but for what is named.",
        beside: &["no store", "Redis", "a plain pipelined client"],
    },
    Section {
        number: 16,
        title: "Eviction",
        about: "Three nodes in process, each of which reads other keys most (Zipf, 0.99), with room for a fifth of the \
                keys, not counting the deletions that are remembered; a read that misses writes the key. Beside moka, one \
                W-TinyLFU of as many keys that sees all reads.",
        beside: &["moka"],
    },
];

/// Refuses numbers that no section has.
pub fn check(numbers: &[u8]) -> Result<()> {
    for number in numbers {
        if !ALL.iter().any(|section| section.number == *number) {
            bail!("--only {number}: no such section; expected some of these:{}", list());
        }
    }
    Ok(())
}

/// All of them, a line each.
fn list() -> String {
    ALL.iter().fold(String::new(), |mut text, section| {
        let _ = write!(text, "\n  {:>2}  {}", section.number, section.title);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_numbered_from_one_on() {
        let numbers = ALL.iter().map(|section| usize::from(section.number));
        assert!(numbers.eq(1..=ALL.len()));
    }

    #[test]
    fn a_section_that_does_not_exist_is_named() {
        assert!(check(&[1, 8]).is_ok());
        let error = check(&[1, 99]).expect_err("there is no such section").to_string();
        assert!(error.contains("--only 99") && error.contains(" 8  Growth"), "{error}");
    }
}
