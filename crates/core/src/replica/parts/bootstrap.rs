//! How far a node is with the state of the lattice.

use crate::cache::Millis;

/// How long a node waits after its bootstrap for what peers have sent meanwhile.
const SETTLING_MS: Millis = 1_500;

/// How long requests are left to others after an absence that may have been too long.
const HOLD_BACK_MS: Millis = 1_000;

/// How far a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The bootstrap is under way.
    Bootstrapping,
    /// The bootstrap is done; what peers sent meanwhile is still being sorted out.
    Settling,
    Synced,
    /// It was away for longer than deletions are remembered and takes its peers' state.
    Resyncing,
}

/// The way from the bootstrap to being synced. Times are of the monotonic clock.
pub(crate) struct Bootstrap {
    phase: Phase,
    /// When it, or a resync, began.
    began: Millis,
    /// Until when all known nodes are waited for at most, after the bootstrap. Until then nothing is confirmed and
    /// this node is not current, synced or not.
    settling: Option<Millis>,
    /// Until when bootstrap requests are left to others.
    serves_from: Millis,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap {
            phase: Phase::Bootstrapping,
            began: 0,
            settling: None,
            serves_from: 0,
        }
    }
}

impl Bootstrap {
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn is_synced(&self) -> bool {
        self.phase == Phase::Synced
    }

    /// Whether the state of another is being taken as a whole.
    pub fn is_taking(&self) -> bool {
        matches!(self.phase, Phase::Bootstrapping | Phase::Resyncing)
    }

    pub fn began(&self) -> Millis {
        self.began
    }

    pub fn settling(&self) -> Option<Millis> {
        self.settling
    }

    /// Whether bootstrap requests are answered.
    pub fn serves(&self, now: Millis) -> bool {
        self.is_synced() && now >= self.serves_from
    }

    /// The bootstrap begins, perhaps once more.
    pub fn begin(&mut self, now: Millis) {
        self.began = now;
    }

    /// The bootstrap is done.
    pub fn arrived(&mut self, now: Millis) {
        self.phase = Phase::Settling;
        self.settling = Some(now + SETTLING_MS);
    }

    /// Nobody is waited for any more.
    pub fn settled(&mut self) {
        self.settling = None;
    }

    pub fn synced(&mut self) {
        self.phase = Phase::Synced;
    }

    /// The state of a peer is taken instead of this node's own.
    pub fn resyncs(&mut self, now: Millis) {
        self.phase = Phase::Resyncing;
        self.began = now;
    }

    /// That did not work out.
    pub fn resync_failed(&mut self, now: Millis) {
        self.phase = Phase::Synced;
        self.hold_back(now);
    }

    /// Others answer bootstrap requests first.
    pub fn hold_back(&mut self, now: Millis) {
        self.serves_from = now + HOLD_BACK_MS;
    }
}
