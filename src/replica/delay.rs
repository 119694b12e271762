//! Whether what arrives here has waited in a queue on its way.
//!
//! After a burst of writes, a slow link carries for a long time what was sent long ago. The beats of all peers stand in the
//! same queue, those of peers that have written nothing too: that nothing is heard of them means nothing. Such a queue
//! shows in a peer whose frames arrive while its beats do not come when they should.

use std::collections::BTreeMap;

use crate::cache::{Millis, NodeId};

/// A peer whose beats are late by more than this has something wrong of its own, whatever else arrives of it.
const MAX_DELAY_MS: Millis = 120_000;

/// What has arrived of one peer.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// When its last beat arrived, and how much later the next one should.
    beat: Millis,
    interval: Millis,
    /// When its last frame arrived.
    frame: Millis,
}

impl Stream {
    /// By how much a beat that arrives at `now` is late, if that is much and frames arrived in its place.
    fn late(&self, now: Millis) -> Option<Millis> {
        let gap = now - self.beat;
        let flowing = self.frame > self.beat && now - self.frame <= self.interval;
        (flowing && gap > 2 * self.interval && gap <= MAX_DELAY_MS).then(|| gap - self.interval)
    }
}

#[derive(Default, Debug)]
pub(super) struct Delay {
    streams: BTreeMap<NodeId, Stream>,
    until: Millis,
}

impl Delay {
    /// A new frame of a peer has arrived.
    pub fn frame(&mut self, node: NodeId, now: Millis) {
        if let Some(stream) = self.streams.get_mut(&node) {
            stream.frame = now;
        }
    }

    /// A new beat of a peer has arrived; the next one will be sent after `interval`.
    pub fn beat(&mut self, node: NodeId, interval: Millis, now: Millis) {
        let stream = self.streams.entry(node).or_insert(Stream {
            beat: now,
            interval,
            frame: 0,
        });
        // The next ones may take as long.
        let late = stream.late(now);
        (stream.beat, stream.interval) = (now, interval);
        self.until = self.until.max(late.map_or(0, |late| now + late));
    }

    pub fn gone(&mut self, node: NodeId) {
        self.streams.remove(&node);
    }

    /// Looks for beats that are late at `now`.
    pub fn look(&mut self, now: Millis) {
        let late = self.streams.values().filter(|stream| stream.late(now).is_some());
        let until = late.map(|stream| now + stream.interval).max();
        self.until = self.until.max(until.unwrap_or(0));
    }

    /// Until when what arrives has most likely been sent long before.
    pub fn until(&self) -> Millis {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    #[test]
    fn beats_that_frames_arrive_in_the_place_of_show_a_queue() {
        let mut delay = Delay::default();
        delay.beat(NODE, 1_000, 1_000);
        for now in (1_100..7_000).step_by(200) {
            delay.frame(NODE, now);
            delay.look(now);
            assert_eq!(delay.until() > now, now > 3_000, "{now}");
        }
        // It comes after six seconds, and so may the next one.
        delay.beat(NODE, 1_000, 7_000);
        assert_eq!(delay.until(), 12_000);
        for now in (8_000..20_000).step_by(1_000) {
            delay.frame(NODE, now);
            delay.beat(NODE, 1_000, now);
            delay.look(now);
        }
        assert_eq!(delay.until(), 12_000, "beats come when they should again");
    }

    #[test]
    fn a_peer_of_which_nothing_arrives_is_silent() {
        let mut delay = Delay::default();
        delay.beat(NODE, 1_000, 1_000);
        delay.frame(NODE, 1_500);
        delay.look(4_000);
        assert_eq!(delay.until(), 0);
    }

    #[test]
    fn beats_that_never_come_show_no_queue() {
        let mut delay = Delay::default();
        delay.beat(NODE, 1_000, 1_000);
        let last = (2_000..400_000).step_by(500).inspect(|now| {
            delay.frame(NODE, *now);
            delay.look(*now);
        });
        let last = last.last().unwrap();
        assert!(
            delay.until() < MAX_DELAY_MS + 4_000 && delay.until() < last,
            "{}",
            delay.until()
        );
    }
}
