//! Why a store did not do what it was asked for.

/// Texts are for people: they name what was tried and what to do, on one line, and hold no secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, takes too long, or refuses for now. Worth trying again.
    #[error("{0}")]
    Away(String),
    /// It will not do before somebody changes something: no permission, a keyspace that is missing, another format.
    #[error("{0}")]
    Unusable(String),
    /// What it holds was damaged, or is not ours. Nothing of that is used.
    #[error("{0}")]
    Damaged(String),
}
