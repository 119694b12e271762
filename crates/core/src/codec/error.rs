//! Why bytes were not understood.

/// Why bytes were not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// A delta this version does not have.
    #[error("unknown delta {0}")]
    Delta(u64),
    /// The bytes end too early or hold something else than expected.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}
