//! What the writer of a store knows of each section.

use std::collections::VecDeque;

use crate::cache::{Millis, Partition, Time};

/// What is known of a section.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Up to when deletions are in the section or forgotten, as it says itself; `None` where that was not read.
    contact: Option<Time>,
    /// It may hold what was deleted and forgotten: it was out of reach for long, somebody else has written it, or something
    /// has gone from the cache without a mark. Until it was compared it must not say that it goes further than before: who
    /// believes that takes from it what the cache lacks.
    doubted: bool,
    /// It waits to be compared.
    queued: bool,
    /// It may hold records. One that never had any holds nothing that is forgotten.
    holds_any: bool,
    /// When it was last written what it says of itself, by the clock of the writer.
    said_at: Option<Millis>,
    /// It has changed since then.
    owes: bool,
}

/// What is known of all sections.
#[derive(Debug)]
pub(super) struct Sections {
    known: Vec<Known>,
    /// Of which little is known, or which were out of reach.
    urgent: VecDeque<Partition>,
    /// From which something has gone, as it does all the time where much is deleted.
    queue: VecDeque<Partition>,
    /// The next of those that are compared in turn.
    next: u16,
}

impl Default for Sections {
    fn default() -> Self {
        Sections {
            known: Partition::all().map(|_| Known::default()).collect(),
            urgent: VecDeque::new(),
            queue: VecDeque::new(),
            next: 0,
        }
    }
}

impl Sections {
    fn known(&mut self, partition: Partition) -> &mut Known {
        &mut self.known[usize::from(partition.0)]
    }

    /// The section was read, and said how far it goes.
    pub fn read(&mut self, partition: Partition, contact: Option<Time>) {
        let known = self.known(partition);
        (known.contact, known.holds_any) = (contact, true);
    }

    /// Somebody else has written it: what it says of itself is not known here.
    pub fn taken_over(&mut self, partition: Partition) {
        let known = self.known(partition);
        (known.contact, known.holds_any) = (None, true);
        self.was_out_of_reach(partition);
    }

    /// It may lack deletions that are forgotten by now. It is going to be compared soon.
    pub fn was_out_of_reach(&mut self, partition: Partition) {
        self.known(partition).doubted = true;
        if !self.urgent.contains(&partition) {
            self.urgent.push_back(partition);
        }
    }

    /// Records of it are about to be written. `vanished`: since those before, something has gone from the cache without a
    /// mark. If it may be there it is going to be compared some time.
    pub fn writes(&mut self, partition: Partition, vanished: bool) {
        let known = self.known(partition);
        let held_any = std::mem::replace(&mut known.holds_any, true);
        if vanished && held_any {
            self.doubt(partition);
        }
    }

    fn doubt(&mut self, partition: Partition) {
        let known = self.known(partition);
        known.doubted = true;
        if !std::mem::replace(&mut known.queued, true) {
            self.queue.push_back(partition);
        }
    }

    /// It holds what the cache holds, and nothing else, and is about to say so.
    pub fn compared(&mut self, partition: Partition) {
        let known = self.known(partition);
        (known.doubted, known.owes, known.holds_any) = (false, false, true);
    }

    /// Up to when it may say that deletions are known, given that they are known here up to `contact`; `None` where it is
    /// to say what it said before.
    pub fn says(&mut self, partition: Partition, contact: Time) -> Option<Time> {
        let known = self.known(partition);
        if !known.doubted {
            known.contact = Some(contact);
        }
        known.contact
    }

    /// Records of it are about to be written: whether with what it says of itself. It says so with its first records, and
    /// after that every `interval`: until then it owes it.
    pub fn has_to_say(&mut self, partition: Partition, now: Millis, interval: Millis) -> bool {
        let known = self.known(partition);
        let due = known.said_at.is_none_or(|at| now.saturating_sub(at) >= interval);
        known.owes = !due;
        if due {
            known.said_at = Some(now);
        }
        due
    }

    /// Whether it is to say now what it owes.
    pub fn is_owed(&self, partition: Partition, now: Millis, interval: Millis) -> bool {
        let known = &self.known[usize::from(partition.0)];
        known.owes && known.said_at.is_none_or(|at| now.saturating_sub(at) >= interval)
    }

    /// It says what it owed.
    pub fn has_said(&mut self, partition: Partition, now: Millis) {
        let known = self.known(partition);
        (known.said_at, known.owes) = (Some(now), false);
    }

    /// What was written is not there: what it said neither.
    pub fn has_not_said(&mut self, partition: Partition) {
        let known = self.known(partition);
        (known.said_at, known.owes) = (None, true);
    }

    /// Whether it owes something.
    pub fn owes(&self, partition: Partition) -> bool {
        self.known[usize::from(partition.0)].owes
    }

    /// The next section that has to be compared soon.
    pub fn next_urgent(&mut self) -> Option<Partition> {
        self.urgent.pop_front()
    }

    /// The next section that has to be compared some time.
    pub fn next_doubted(&mut self) -> Option<Partition> {
        let partition = self.queue.pop_front()?;
        self.known(partition).queued = false;
        Some(partition)
    }

    /// The next of all in turn.
    pub fn next_in_turn(&mut self) -> Partition {
        let partition = Partition(self.next);
        self.next = (self.next + 1) % self.known.len() as u16;
        partition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_is_doubted_says_no_more_than_before_until_it_was_compared() {
        let mut sections = Sections::default();
        let one = Partition(7);
        sections.writes(one, true);
        assert_eq!(sections.says(one, Time(5)), Some(Time(5)), "it was empty before");
        assert_eq!(sections.next_doubted(), None);
        sections.writes(one, true);
        sections.writes(one, true);
        assert_eq!(sections.says(one, Time(9)), Some(Time(5)));
        assert_eq!((sections.next_doubted(), sections.next_doubted()), (Some(one), None));
        assert_eq!(sections.says(one, Time(9)), Some(Time(5)), "it is being compared");
        sections.compared(one);
        assert_eq!(sections.says(one, Time(9)), Some(Time(9)));
        sections.taken_over(one);
        sections.taken_over(one);
        assert_eq!(sections.says(one, Time(10)), None);
        assert_eq!((sections.next_urgent(), sections.next_urgent()), (Some(one), None));
        let turns: Vec<Partition> = (0..1_025).map(|_| sections.next_in_turn()).collect();
        assert_eq!(
            (turns[0], turns[1_023], turns[1_024]),
            (Partition(0), Partition(1_023), Partition(0))
        );
    }
}
