//! What an operation on the cache can refuse, in the words of Redis where it has some.

/// Why an operation was refused. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CacheError {
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// The stored text is no canonical decimal integer.
    #[error("value is not an integer or out of range")]
    NotAnInteger,
    /// The sum leaves the range that the caller can take.
    #[error("increment of {value} by {amount} would leave the range of numbers; nothing changed")]
    OutOfRange {
        /// The number as it is.
        value: i64,
        /// The refused addition.
        amount: i64,
    },
    /// A length does not fit the contract's result type.
    #[error("list would grow beyond 4294967295 items; nothing changed")]
    ListTooLong,
    /// A list or set has as many items as it may have.
    #[error("the list or set has {items} items, and may have {limit} at most; nothing changed")]
    CollectionFull {
        /// How many it has.
        items: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A set operation over no sets.
    #[error("at least one set name is required, got an empty list")]
    NoKeys,
    /// A read whose answer would be too large; it is given up where that shows.
    #[error("the answer would be larger than the limit of {limit} bytes")]
    AnswerTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// An argument is larger than the configured limit.
    #[error("{what} of {length} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The argument.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}
