//! Bounds of what anybody can cause: log lines and work.

use super::throttle::{Budget, Throttle};

/// Limits the log lines that strangers can cause as often as they like.
pub(crate) struct Logs {
    pub malformed: Throttle,
    pub refused: Throttle,
    pub unauthenticated: Throttle,
    pub full: Throttle,
    /// Foreign nodes that are named.
    pub foreign: Budget,
    pub state: Throttle,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            malformed: Throttle::default(),
            refused: Throttle::default(),
            unauthenticated: Throttle::default(),
            full: Throttle::default(),
            foreign: Budget::new(6, 8),
            state: Throttle::default(),
        }
    }
}

/// Limits the work that nodes can cause which have not proven to be alive, and may be recordings.
pub(crate) struct Budgets {
    /// Challenges.
    pub challenges: Budget,
    /// Answers to theirs.
    pub welcomes: Budget,
    /// Signatures checked of messages that claim to be of this moment, and of others.
    pub signatures: Budget,
    pub old_signatures: Budget,
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets {
            challenges: Budget::per_second(200, 400),
            welcomes: Budget::per_second(200, 400),
            signatures: Budget::per_second(200, 400),
            old_signatures: Budget::per_second(20, 40),
        }
    }
}
