//! What is known of the wall clock of this host beside those of its peers.

use super::notice::Notice;
use super::sync_state::ClockFault;
use crate::cache::Millis;

/// A difference has to be seen so many times in a row, once in an interval of heartbeats. A heartbeat that waited on
/// its way makes its author look late.
const MIN_LOOKS: u32 = 3;

/// What is wrong with the clock is told again after this time.
const TELL_AGAIN_MS: Millis = 600_000;

/// And not more often than this, should it come and go.
const TELL_MS: Millis = 10_000;

/// What is known of this node's wall clock.
#[derive(Default)]
pub(crate) struct Clocks {
    /// The wall clock less the monotonic one, when the replica was called last.
    offset: Option<i64>,
    /// How far the wall clock was ahead of those of most peers, if that is more than clocks may differ, and how often
    /// in a row it was.
    ahead_ms: i64,
    looks: u32,
    told: Option<Millis>,
}

impl Clocks {
    /// Notes both clocks. Returns by how much the wall clock was further ahead when they were noted before.
    pub fn note(&mut self, wall: Millis, mono: Millis) -> Millis {
        let offset = wall as i64 - mono as i64;
        let before = self.offset.replace(offset).unwrap_or(offset);
        before.saturating_sub(offset).max(0) as Millis
    }

    /// The wall clock is so far ahead of those of most peers, or behind if less than 0; 0 if by no more than clocks may
    /// differ.
    pub fn look(&mut self, ahead_ms: i64) {
        let same = ahead_ms.signum() == self.ahead_ms.signum();
        self.looks = if same { self.looks.saturating_add(1) } else { 1 };
        self.ahead_ms = ahead_ms;
    }

    /// What is wrong with the wall clock now, as was seen often enough.
    pub fn fault(&self) -> Option<ClockFault> {
        if self.ahead_ms == 0 || self.looks < MIN_LOOKS {
            return None;
        }
        Some(match self.ahead_ms > 0 {
            true => ClockFault::Ahead(self.ahead_ms.unsigned_abs()),
            false => ClockFault::Behind(self.ahead_ms.unsigned_abs()),
        })
    }

    /// What is to be told: a fault, now and then, or its end.
    pub fn tell(&mut self, fault: Option<ClockFault>, now: Millis) -> Option<Notice> {
        let since = self.told.map(|told| now.saturating_sub(told));
        match (fault, since) {
            (Some(fault), since) if since.is_none_or(|since| since >= TELL_AGAIN_MS) => {
                self.told = Some(now);
                Some(Notice::Clock(Some(fault)))
            }
            (None, Some(since)) if since >= TELL_MS => {
                self.told = None;
                Some(Notice::Clock(None))
            }
            _ => None,
        }
    }
}
