//! The wall clock of this host beside those of its peers.
//!
//! A process whose wall clock ran ahead by more than clocks may differ has stamps that its peers refuse. So it says so,
//! forgets nothing that most others still remember, and when the clock is right again it goes on with that: the hybrid
//! clock is set back ([`crate::cache::Clock`]), and so are the times that it tells of itself.

use crate::cache::{Millis, Time};
use crate::replica::machine::Replica;
use crate::replica::parts::now::Now;
use crate::replica::parts::sync_state::ClockFault;

impl Replica {
    /// The newest time that clocks can show which are right within the limits.
    fn newest_possible(&self, now: Now) -> Time {
        let newest = now.wall.saturating_add(self.cache.limits().max_clock_skew_ms);
        Time::from_millis(newest.saturating_add(1))
    }

    /// Sets back what was ahead, if the wall clock was ahead before and is not any more.
    pub(crate) fn mend_clock(&mut self, now: Now) {
        let back = Time::from_millis(self.clocks.note(now.wall, now.mono));
        let newest = self.newest_possible(now);
        if self.lineage.is_possible(newest) && self.cache.clock().latest() < newest {
            return;
        }
        self.cache.clock().mend(now.wall);
        if self.cache.clock().latest() >= newest {
            // Most peers are ahead as well: the wall clock is behind.
            return;
        }
        // What was noted while the clock was ahead is so much earlier by the one that is right. A contact must not look
        // later than it was, lest this node bring back what was deleted and forgotten meanwhile.
        let present = self.hybrid_now(now);
        self.lineage.correct(|time: Time| match time < newest {
            true => time,
            false => Time(time.0.saturating_sub(back.0)).min(present),
        });
    }

    /// Looks what the clocks of the others say.
    pub(crate) fn look_at_clocks(&mut self, now: Now) {
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
        self.clocks.look(ahead_ms);
        let notice = self.clocks.tell(self.clock_fault(now), now.mono);
        self.outbox.tell(notice);
    }

    /// What is wrong with the clock of this host, or was when it wrote what its peers still refuse.
    pub(crate) fn clock_fault(&self, now: Now) -> Option<ClockFault> {
        if let Some(fault) = self.clocks.fault() {
            return Some(fault);
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
}
