//! Why a message was not understood.

use crate::codec::CodecError;

/// Why a message was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// A kind this version does not have.
    #[error("unknown message kind {0}")]
    Kind(u8),
    /// A delta this version does not have.
    #[error("unknown delta {0}")]
    Delta(u64),
    /// The message ends too early or holds something else than expected.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
}

impl From<CodecError> for WireError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Delta(code) => WireError::Delta(code),
            CodecError::Malformed(what) => WireError::Malformed(what),
        }
    }
}
