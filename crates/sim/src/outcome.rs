//! What happened in a run, and the sum over many.

use std::fmt;

use kvcache_core::cache::Millis;

/// What happened in a run; equal for equal seeds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Processes at the start.
    pub nodes: u64,
    /// Writes that clients were told have happened.
    pub writes: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Messages that did not arrive: lost, cut off, dropped before a slow or paused receiver.
    pub lost: u64,
    /// Exchanges of components that sketches have shown to differ.
    pub reconciliations: u64,
    /// Messages that tell how spans split that differ.
    pub splits: u64,
    /// Messages that arrived once more.
    pub repeated: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Processes that left in order.
    pub leaves: u64,
    /// Replicas that handed their cache to another of the same process.
    pub handovers: u64,
    /// Lost connections of one node, all nodes, or between two halves.
    pub cuts: u64,
    /// Faults that let one node no longer hear another, but not the other way round.
    pub one_way_cuts: u64,
    /// Processes that did nothing for a while.
    pub pauses: u64,
    /// Wall clocks that jumped.
    pub clock_jumps: u64,
    /// Times a node was told that messages to it had to be dropped.
    pub slow_consumers: u64,
    /// Times a server refused a node something.
    pub refusals: u64,
    /// Recordings that a stranger sent.
    pub recordings: u64,
    /// Notices that nobody listens, forged by a stranger.
    pub forged_notices: u64,
    /// Such notices that were true and did not arrive.
    pub lost_notices: u64,
    /// Longest that a message waited before a slow link.
    pub backlog_ms: Millis,
    /// Writes that clients were told have been confirmed.
    pub confirmed: u64,
    /// Processes that have shown to have the state of one that had it before.
    pub merged: u64,
    /// Power cuts of all processes.
    pub power_cuts: u64,
    /// Stores that could not be reached for a while, or lost what was not synced.
    pub store_faults: u64,
    /// Operations of stores that failed.
    pub store_errors: u64,
    /// Processes that began with what their store held.
    pub loaded: u64,
    /// Sections that were compared with a cache.
    pub audits: u64,
    /// Virtual time.
    pub virtual_ms: Millis,
    /// Virtual milliseconds from the last fault until all nodes were equal.
    pub healing_ms: Millis,
    /// Virtual milliseconds from then until nothing but heartbeats was sent.
    pub settling_ms: Millis,
    /// Messages other than heartbeats sent after the last fault; the most of a run.
    pub repair_messages: u64,
    /// Bytes of these; the most of a run.
    pub repair_bytes: u64,
    /// Most bytes that a replica queued in one call.
    pub queued_bytes: u64,
    /// Hash over everything that was delivered, in order.
    pub trace: u64,
}

impl Outcome {
    /// Adds a run to a sum. The order of the runs does not matter.
    pub fn add(&mut self, other: &Outcome) {
        self.nodes += other.nodes;
        self.writes += other.writes;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.reconciliations += other.reconciliations;
        self.splits += other.splits;
        self.repeated += other.repeated;
        self.crashes += other.crashes;
        self.leaves += other.leaves;
        self.handovers += other.handovers;
        self.cuts += other.cuts;
        self.one_way_cuts += other.one_way_cuts;
        self.pauses += other.pauses;
        self.clock_jumps += other.clock_jumps;
        self.slow_consumers += other.slow_consumers;
        self.refusals += other.refusals;
        self.recordings += other.recordings;
        self.forged_notices += other.forged_notices;
        self.lost_notices += other.lost_notices;
        self.backlog_ms = self.backlog_ms.max(other.backlog_ms);
        self.confirmed += other.confirmed;
        self.merged += other.merged;
        self.power_cuts += other.power_cuts;
        self.store_faults += other.store_faults;
        self.store_errors += other.store_errors;
        self.loaded += other.loaded;
        self.audits += other.audits;
        self.virtual_ms += other.virtual_ms;
        self.healing_ms = self.healing_ms.max(other.healing_ms);
        self.settling_ms = self.settling_ms.max(other.settling_ms);
        self.repair_messages = self.repair_messages.max(other.repair_messages);
        self.repair_bytes = self.repair_bytes.max(other.repair_bytes);
        self.queued_bytes = self.queued_bytes.max(other.queued_bytes);
        self.trace = self.trace.wrapping_add(other.trace);
    }
}

/// The table that stands at the end of many runs.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("nodes", self.nodes),
            ("writes", self.writes),
            ("messages", self.messages),
            ("bytes", self.bytes),
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("reconciliations after a sketch", self.reconciliations),
            ("messages with splits", self.splits),
            ("crashes", self.crashes),
            ("leaves", self.leaves),
            ("handovers", self.handovers),
            ("cuts", self.cuts),
            ("one-way cuts", self.one_way_cuts),
            ("pauses", self.pauses),
            ("clock jumps", self.clock_jumps),
            ("slow consumers", self.slow_consumers),
            ("refusals by the server", self.refusals),
            ("recordings by a stranger", self.recordings),
            ("forged notices of no responders", self.forged_notices),
            ("lost notices of no responders", self.lost_notices),
            ("longest wait for a slow link, ms", self.backlog_ms),
            ("confirmed writes", self.confirmed),
            ("processes that took the state in", self.merged),
            ("power cuts of all processes", self.power_cuts),
            ("faults of stores", self.store_faults),
            ("failed operations of stores", self.store_errors),
            ("processes that loaded a store", self.loaded),
            ("sections compared with a cache", self.audits),
            ("hours of virtual time", self.virtual_ms / 3_600_000),
            ("longest healing, ms", self.healing_ms),
            ("longest settling, ms", self.settling_ms),
            ("most messages of repair in a run", self.repair_messages),
            ("most bytes of repair in a run", self.repair_bytes),
            ("most bytes queued in one call", self.queued_bytes),
        ];
        for (name, number) in lines {
            writeln!(f, "{name:<34} {:>19}", grouped(number))?;
        }
        write!(f, "{:<34} {:>19}", "trace", format!("{:016x}", self.trace))
    }
}

/// A number with a comma every three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
