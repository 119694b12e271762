//! Whether what arrives here has waited in a queue on its way.
//!
//! After a burst of writes, a slow link carries for a long time what was sent long ago. The heartbeats of all peers
//! stand in the same queue, those of peers that have written nothing too: that nothing is heard of them means nothing.
//! Such a queue shows in a peer whose frames arrive one after the other while its heartbeats do not come when they
//! should. (Where frames are missing as well, the heartbeats may be lost, and nothing waits anywhere.)

use std::collections::BTreeMap;

use crate::cache::{Millis, NodeId};

/// A peer whose heartbeats are late by more than this has something wrong of its own, whatever else arrives of it.
const MAX_DELAY_MS: Millis = 120_000;

/// Two heartbeats are waited for no longer than this before something is asked for again: they may be sent as seldom as
/// a peer likes.
const MAX_WAIT_MS: Millis = 4_000;

/// So many frames in a row show that none is lost lately.
const IN_A_ROW: u32 = 3;

/// What has arrived of one peer.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// When its last heartbeat arrived, or was awaited from; and how much later the next one should.
    heartbeat: Millis,
    interval: Millis,
    /// When the one before that arrived, or was awaited from.
    before: Millis,
    /// No heartbeat has arrived since messages may have been missed.
    awaited: bool,
    /// When its last frame arrived, and how many have arrived one after the other since one was missing.
    frame: Millis,
    in_a_row: u32,
}

impl Stream {
    /// By how much a heartbeat that arrives at `now` is late, if that is much and frames arrived in its place.
    fn late(&self, now: Millis) -> Option<Millis> {
        let gap = now - self.heartbeat;
        let flowing = self.frame > self.heartbeat && now - self.frame <= self.interval && self.in_a_row >= IN_A_ROW;
        (flowing && gap > 2 * self.interval && gap <= MAX_DELAY_MS).then(|| gap - self.interval)
    }
}

#[derive(Default, Debug)]
pub(crate) struct Delay {
    streams: BTreeMap<NodeId, Stream>,
    until: Millis,
}

impl Delay {
    /// A new frame of a peer has arrived; `follows` says whether the one before it has, too.
    pub fn frame(&mut self, node: NodeId, follows: bool, now: Millis) {
        if let Some(stream) = self.streams.get_mut(&node) {
            stream.frame = now;
            stream.in_a_row = if follows { stream.in_a_row + 1 } else { 0 };
        }
    }

    /// A new heartbeat of a peer has arrived; the next one will be sent after `interval`.
    pub fn heartbeat(&mut self, node: NodeId, interval: Millis, now: Millis) {
        let interval = interval.min(MAX_DELAY_MS);
        let stream = self.streams.entry(node).or_insert(Stream {
            heartbeat: now,
            interval,
            before: now,
            awaited: false,
            frame: 0,
            in_a_row: 0,
        });
        // The next ones may take as long.
        let late = stream.late(now);
        (stream.before, stream.heartbeat) = (stream.heartbeat, now);
        (stream.interval, stream.awaited) = (interval, false);
        self.until = self.until.max(late.map_or(0, |late| now + late));
    }

    /// Messages may have been missed, and what arrives from now on was sent after `now`: heartbeats are awaited from
    /// here.
    pub fn listen_again(&mut self, now: Millis) {
        self.until = 0;
        for stream in self.streams.values_mut() {
            (stream.before, stream.heartbeat) = (now, now);
            (stream.frame, stream.awaited) = (0, true);
        }
    }

    pub fn gone(&mut self, node: NodeId) {
        self.streams.remove(&node);
    }

    /// Looks for heartbeats that are late at `now`.
    pub fn look(&mut self, now: Millis) {
        let late = self.streams.values().filter(|stream| stream.late(now).is_some());
        let until = late.map(|stream| now + stream.interval).max();
        self.until = self.until.max(until.unwrap_or(0));
    }

    /// Until when it cannot be known whether the answer of a peer that was asked at `asked` waits in a queue: for some
    /// heartbeats, if frames arrive of it meanwhile, or no heartbeat has come yet. The first heartbeat that comes may
    /// have been sent before the answer, and shows nothing; one that comes after it has overtaken the answer.
    pub fn unknown_until(&self, node: NodeId, asked: Millis) -> Millis {
        let flows = |stream: &&Stream| stream.awaited || stream.frame > asked && stream.in_a_row >= IN_A_ROW;
        let stream = self.streams.get(&node).filter(flows);
        stream.map_or(0, |stream| {
            let is_first = stream.before <= asked;
            let since = if is_first { stream.heartbeat.max(asked) } else { asked };
            since + (2 * stream.interval).min(MAX_WAIT_MS) + 1
        })
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
    fn heartbeats_that_frames_arrive_in_the_place_of_show_a_queue() {
        let mut delay = Delay::default();
        delay.heartbeat(NODE, 1_000, 1_000);
        for now in (1_100..7_000).step_by(200) {
            delay.frame(NODE, true, now);
            delay.look(now);
            assert_eq!(delay.until() > now, now > 3_000, "{now}");
        }
        // It comes after six seconds, and so may the next one.
        delay.heartbeat(NODE, 1_000, 7_000);
        assert_eq!(delay.until(), 12_000);
        for now in (8_000..20_000).step_by(1_000) {
            delay.frame(NODE, true, now);
            delay.heartbeat(NODE, 1_000, now);
            delay.look(now);
        }
        assert_eq!(delay.until(), 12_000, "heartbeats come when they should again");
    }

    #[test]
    fn heartbeats_that_are_lost_as_frames_are_show_no_queue() {
        let mut delay = Delay::default();
        delay.heartbeat(NODE, 1_000, 1_000);
        for now in (1_100..7_000).step_by(200) {
            delay.frame(NODE, now % 600 != 500, now);
            delay.look(now);
        }
        assert_eq!(delay.until(), 0);
    }

    /// The heartbeats that were sent before are gone, and the next ones stand behind what is sent meanwhile.
    #[test]
    fn a_queue_shows_after_a_reconnect_too() {
        let mut delay = Delay::default();
        delay.heartbeat(NODE, 1_000, 1_000);
        delay.listen_again(9_000);
        for now in (9_100..13_000).step_by(200) {
            delay.frame(NODE, true, now);
            delay.look(now);
            assert_eq!(delay.until() > now, now > 11_000, "{now}");
            assert_eq!(delay.unknown_until(NODE, 9_050), 11_051);
        }
        delay.heartbeat(NODE, 1_000, 13_000);
        assert_eq!(delay.unknown_until(NODE, 13_000), 0);
        delay.frame(NODE, true, 13_100);
        assert_eq!(delay.unknown_until(NODE, 13_050), 15_051);
        delay.heartbeat(NODE, 1_000, 14_000);
        delay.frame(NODE, true, 14_100);
        assert_eq!(
            delay.unknown_until(NODE, 13_050),
            16_001,
            "it may have been sent before"
        );
        delay.heartbeat(NODE, 1_000, 15_000);
        delay.frame(NODE, true, 15_100);
        assert_eq!(
            delay.unknown_until(NODE, 13_050),
            15_051,
            "no other heartbeat puts it off"
        );
        delay.frame(NODE, false, 15_200);
        assert_eq!(delay.unknown_until(NODE, 13_050), 0);
    }

    #[test]
    fn a_peer_that_sends_heartbeats_seldom_puts_nothing_off_for_long() {
        for interval in [3_600_000, Millis::MAX] {
            let mut delay = Delay::default();
            delay.heartbeat(NODE, interval, 1_000);
            (0..5).for_each(|n| delay.frame(NODE, true, 2_000 + n));
            delay.look(3_000);
            assert_eq!(delay.unknown_until(NODE, 1_500), 5_501);
            delay.listen_again(4_000);
            assert_eq!(delay.unknown_until(NODE, 4_500), 8_501);
        }
    }

    #[test]
    fn a_peer_of_which_nothing_arrives_is_silent() {
        let mut delay = Delay::default();
        delay.heartbeat(NODE, 1_000, 1_000);
        delay.frame(NODE, true, 1_500);
        delay.look(4_000);
        assert_eq!(delay.until(), 0);
    }

    #[test]
    fn heartbeats_that_never_come_show_no_queue() {
        let mut delay = Delay::default();
        delay.heartbeat(NODE, 1_000, 1_000);
        let last = (2_000..400_000).step_by(500).inspect(|now| {
            delay.frame(NODE, true, *now);
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
