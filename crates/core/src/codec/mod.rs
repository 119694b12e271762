//! Deltas as bytes, below messages: what a message carries, and what can be kept outside of the process.
//!
//! An [`Encoder`] writes deltas one after the other, a [`Decoder`] reads them back. Both speak MessagePack; the
//! layout of a delta is told at [`Encoder::delta`]. Decoding trusts nothing: it never allocates by a length it has
//! not checked against the bytes that are there, and keys and values can stay where they lie.
//!
//! ```
//! use kvcache_core::cache::{Blob, StateDelta, Delta, NodeId, Stamp, Time};
//! use kvcache_core::codec::{Decoder, Encoder};
//!
//! let at = Stamp { time: Time::from_millis(1_700_000_000_000), node: NodeId(1) };
//! let delete = Delta { key: Blob::from("key"), change: StateDelta::Delete { at, seen: Vec::new() } };
//!
//! let mut encoder = Encoder::default();
//! encoder.delta(&delete);
//! let bytes = encoder.into_bytes().into();
//!
//! let mut decoder = Decoder::new(&bytes);
//! while !decoder.is_empty() {
//!     assert_eq!(decoder.delta::<Blob>(), Ok(delete.clone()));
//! }
//! ```

mod decoder;
mod delta;
mod encoder;
mod error;

pub use decoder::{Decoder, Held};
pub use encoder::Encoder;
pub use error::CodecError;
