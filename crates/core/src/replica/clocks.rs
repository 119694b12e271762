//! The wall clock of this host beside those of its peers.
//!
//! A process whose wall clock ran ahead by more than clocks may differ has stamps that its peers refuse. So it says so,
//! forgets nothing that most others still remember, and when the clock is right again it goes on with that: the hybrid
//! clock is set back ([`crate::cache::Clock`]), and so are the times that it tells of itself.

use super::machine::Replica;
use super::status::ClockFault;
use super::Now;
use crate::cache::{Millis, Time};

/// A difference has to be seen so many times in a row, once in an interval of beats. A beat that waited on its way makes
/// its author look late.
const MIN_LOOKS: u32 = 3;

/// What is wrong with the clock is told again after this time.
const TELL_AGAIN_MS: Millis = 600_000;

/// And not more often than this, should it come and go.
const TELL_MS: Millis = 10_000;

/// What is known of this node's wall clock.
#[derive(Default)]
pub(super) struct Clocks {
    /// The wall clock less the monotonic one, when the replica was called last.
    offset: Option<i64>,
    /// How far the wall clock was ahead of those of most peers, if that is more than clocks may differ, and how often in
    /// a row it was.
    ahead_ms: i64,
    looks: u32,
    told: Option<Millis>,
}

impl Replica {
    /// The newest time that clocks can show which are right within the limits.
    fn newest_possible(&self, now: Now) -> Time {
        let newest = now.wall.saturating_add(self.cache.limits().max_clock_skew_ms);
        Time::from_millis(newest.saturating_add(1))
    }

    /// Sets back what was ahead, if the wall clock was ahead before and is not any more.
    pub(super) fn mend_clock(&mut self, now: Now) {
        let offset = now.wall as i64 - now.mono as i64;
        let before = self.clocks.offset.replace(offset).unwrap_or(offset);
        let newest = self.newest_possible(now);
        if [self.contact, self.joined, self.listening]
            .iter()
            .all(|time| *time < newest)
            && self.cache.clock().latest() < newest
        {
            return;
        }
        self.cache.clock().mend(now.wall);
        if self.cache.clock().latest() >= newest {
            // Most peers are ahead as well: the wall clock is behind.
            return;
        }
        // What was noted while the clock was ahead is so much earlier by the one that is right. A contact must not look
        // later than it was, lest this node bring back what was deleted and forgotten meanwhile.
        let back = Time::from_millis(before.saturating_sub(offset).max(0) as Millis);
        let present = self.hybrid_now(now);
        let corrected = |time: Time| match time < newest {
            true => time,
            false => Time(time.0.saturating_sub(back.0)).min(present),
        };
        (self.contact, self.joined) = (corrected(self.contact), corrected(self.joined));
        self.listening = corrected(self.listening);
        self.taken = self.taken.map(corrected);
        if self.since != Time(u64::MAX) {
            self.since = corrected(self.since);
        }
    }

    /// Looks what the clocks of the others say.
    pub(super) fn look_at_clocks(&mut self, now: Now) {
        let others = self.peers.clocks(now.mono).filter(|_| self.connected);
        self.cache.clock().compare_with(others.unwrap_or_default());
        let skew = self.cache.limits().max_clock_skew_ms;
        let (earliest, latest) = (now.wall.saturating_sub(skew), now.wall.saturating_add(skew));
        let ahead_of = |clock: Millis| now.wall as i64 - clock as i64;
        let ahead_ms = match others {
            Some([least, _]) if least < earliest => ahead_of(least),
            Some([_, most]) if most > latest => ahead_of(most),
            _ => 0,
        };
        let same = ahead_ms.signum() == self.clocks.ahead_ms.signum();
        self.clocks.looks = if same { self.clocks.looks.saturating_add(1) } else { 1 };
        self.clocks.ahead_ms = ahead_ms;
        self.tell_clock(now);
    }

    /// What is wrong with the clock of this host, or was when it wrote what its peers still refuse.
    pub(super) fn clock_fault(&self, now: Now) -> Option<ClockFault> {
        let Clocks { ahead_ms, looks, .. } = self.clocks;
        if ahead_ms != 0 && looks >= MIN_LOOKS {
            return Some(match ahead_ms > 0 {
                true => ClockFault::Ahead(ahead_ms.unsigned_abs()),
                false => ClockFault::Behind(ahead_ms.unsigned_abs()),
            });
        }
        let newest = self.newest_possible(now);
        let clock = self.cache.clock();
        if clock.latest() >= newest {
            return Some(ClockFault::Behind(clock.latest().millis().saturating_sub(now.wall)));
        }
        let stray = Some(clock.stray()).filter(|stray| *stray >= newest)?;
        Some(ClockFault::WasAhead {
            ahead_ms: stray.millis().saturating_sub(now.wall),
            refused_ms: stray.millis().saturating_sub(newest.millis()),
        })
    }

    fn tell_clock(&mut self, now: Now) {
        let fault = self.clock_fault(now);
        let since = self.clocks.told.map(|told| now.mono.saturating_sub(told));
        match (fault, since) {
            (Some(fault), since) if since.is_none_or(|since| since >= TELL_AGAIN_MS) => {
                tracing::warn!("{fault}");
                self.clocks.told = Some(now.mono);
            }
            (None, Some(since)) if since >= TELL_MS => {
                tracing::info!("nothing is wrong with the clock of this host any more");
                self.clocks.told = None;
            }
            _ => {}
        }
    }
}
