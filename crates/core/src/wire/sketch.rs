//! Finding what differs with sketches, and exchanging it.

use super::bounds::MAX_SYMBOLS;
use super::fields::Part;
use super::kind::Kind;
use crate::cache::{Delta, NodeId, Partition, StateDelta, Time, PARTITIONS};
use crate::codec::{CodecError, Decoder, Encoder};

/// Begins a comparison: asks for what the partitions hold whose digests differ from those given. The answer is a
/// [`Sketch`] if it looks as if little differed, else `RangeSplits`.
///
/// ```text
/// array of 5
///   uint   request
///   uint   from
///   bin    digests: 4 bytes each, little endian; from + their number is at most PARTITIONS
///   uint   settled_ms
///   uint   budget
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DigestRequest {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// First partition.
    pub from: Partition,
    /// The requester's digests of `from` and the partitions after it, shortened to 4 bytes by the number of the
    /// request.
    pub digests: Vec<u32>,
    /// If not 0: leave out partitions that changed at or after this time of the responder's clock, in milliseconds
    /// before now. They are in flux, and a difference there proves nothing.
    pub settled_ms: u64,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

impl DigestRequest {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::DigestRequest, 5);
        encoder.uints(&[self.request, self.from.0.into()]);
        let digests: Vec<u8> = self.digests.iter().flat_map(|digest| digest.to_le_bytes()).collect();
        encoder.bin(&digests);
        encoder.uints(&[self.settled_ms, self.budget]);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(5, Kind::DigestRequest.name())?;
        let request = decoder.uint("request")?;
        let (from, digests) =
            decoder.range(|decoder| decoder.records("digests", |bytes| u32::from_le_bytes(*bytes)))?;
        Ok(DigestRequest {
            request,
            from,
            digests,
            settled_ms: decoder.uint("settled")?,
            budget: decoder.uint("budget")?,
        })
    }
}

/// Bytes of a symbol of a sketch.
const SYMBOL_BYTES: usize = 14;

/// One symbol: what the items mixed into it have in common.
///
/// ```text
/// 8 bytes   sum, little endian, as are the others
/// 4 bytes   check
/// 2 bytes   count
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Symbol {
    /// The items, combined by exclusive or.
    pub sum: u64,
    /// Their checks, combined by exclusive or: tells a single item from a mix of several.
    pub check: u32,
    /// Number of items modulo 2^16. In a difference of two symbols: those only in the first less those only in the
    /// second.
    pub count: i16,
}

/// Symbols of all components of some partitions, in answer to a [`DigestRequest`] or a [`SketchRequest`].
///
/// ```text
/// array of 6
///   part         to, request, index
///   partitions   partitions
///   uint         first: first + the number of symbols is at most MAX_SYMBOLS
///   bin          symbols: 14 bytes each
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sketch {
    /// Which part of which answer this is.
    pub part: Part,
    /// The partitions, in ascending order.
    pub partitions: Vec<Partition>,
    /// Index of the first symbol. It is at most [`MAX_SYMBOLS`] together with their number.
    pub first: usize,
    /// The symbols.
    pub symbols: Vec<Symbol>,
}

impl Sketch {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Sketch, 6);
        encoder.part(self.part);
        encoder.partitions(&self.partitions);
        encoder.uint(self.first as u64);
        let mut symbols = Vec::with_capacity(self.symbols.len() * SYMBOL_BYTES);
        for symbol in &self.symbols {
            symbols.extend_from_slice(&symbol.sum.to_le_bytes());
            symbols.extend_from_slice(&symbol.check.to_le_bytes());
            symbols.extend_from_slice(&symbol.count.to_le_bytes());
        }
        encoder.bin(&symbols);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(6, Kind::Sketch.name())?;
        let part = decoder.part()?;
        let partitions = decoder.partitions()?;
        let symbol = |bytes: &[u8; SYMBOL_BYTES]| {
            let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, n0, n1] = *bytes;
            Symbol {
                sum: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
                check: u32::from_le_bytes([c0, c1, c2, c3]),
                count: i16::from_le_bytes([n0, n1]),
            }
        };
        let (first, symbols) = decoder.symbols(
            |decoder| decoder.records("symbols", symbol),
            |symbols| symbols.len() as u64,
        )?;
        Ok(Sketch {
            part,
            partitions,
            first,
            symbols,
        })
    }
}

/// Asks for symbols of partitions, because those that the requester has were too few.
///
/// ```text
/// array of 4
///   uint         request
///   partitions   partitions
///   uint         first: first + count is at most MAX_SYMBOLS
///   uint         count
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SketchRequest {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// The partitions, in ascending order.
    pub partitions: Vec<Partition>,
    /// Index of the first symbol. It is at most [`MAX_SYMBOLS`] together with their number.
    pub first: usize,
    /// How many symbols.
    pub count: usize,
}

impl SketchRequest {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::SketchRequest, 4);
        encoder.uint(self.request);
        encoder.partitions(&self.partitions);
        encoder.uints(&[self.first as u64, self.count as u64]);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(4, Kind::SketchRequest.name())?;
        let request = decoder.uint("request")?;
        let partitions = decoder.partitions()?;
        let (first, count) = decoder.symbols(|decoder| decoder.uint("number of symbols"), |count| *count)?;
        Ok(SketchRequest {
            request,
            partitions,
            first,
            count: count as usize,
        })
    }
}

/// Asks for components by their hashes, and offers others. The answer are their deltas, and `Unknown`.
///
/// ```text
/// array of 5
///   uint         request
///   partitions   partitions
///   hashes       wanted
///   hashes       offers: hash, place, time of each
///   uint         budget
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reconcile {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// Where the wanted components are, in ascending order.
    pub partitions: Vec<Partition>,
    /// Hashes of the components wanted.
    pub wanted: Vec<u64>,
    /// What the requester has that the receiver seems to lack.
    pub offers: Vec<Offer>,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

/// A component that the sender of a [`Reconcile`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Its hash.
    pub hash: u64,
    /// Its [`place`].
    pub place: u64,
    /// Its newest stamp. What the receiver holds at this place from before it need not be sent.
    pub time: Time,
}

impl Reconcile {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Reconcile, 5);
        encoder.uint(self.request);
        encoder.partitions(&self.partitions);
        encoder.hashes(&self.wanted);
        let words = |offer: &Offer| [offer.hash, offer.place, offer.time.0];
        let offers: Vec<u64> = self.offers.iter().flat_map(words).collect();
        encoder.hashes(&offers);
        encoder.uint(self.budget);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(5, Kind::Reconcile.name())?;
        Ok(Reconcile {
            request: decoder.uint("request")?,
            partitions: decoder.partitions()?,
            wanted: decoder.hashes("wanted")?,
            offers: {
                let words = decoder.hashes("offers")?;
                let offer = |words: &[u64; 3]| Offer {
                    hash: words[0],
                    place: words[1],
                    time: Time(words[2]),
                };
                match words.as_chunks() {
                    (offers, []) => offers.iter().map(offer).collect(),
                    _ => return Err(CodecError::Malformed("offers")),
                }
            },
            budget: decoder.uint("budget")?,
        })
    }
}

/// What a component is about, in 8 bytes: the partition in the upper bits, and a hash of key and identity. It depends
/// on the request, so that nobody can make components in advance that look like one.
pub fn place<B: AsRef<[u8]>>((node, request): (NodeId, u64), partition: Partition, delta: &Delta<B>) -> u64 {
    let mut key = [0; blake3::KEY_LEN];
    key[..8].copy_from_slice(&node.0.to_le_bytes());
    key[8..16].copy_from_slice(&request.to_le_bytes());
    let mut hasher = blake3::Hasher::new_keyed(&key);
    let bytes = delta.key.as_ref();
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    let mut words = |words: &[u64]| {
        for word in words {
            hasher.update(&word.to_le_bytes());
        }
    };
    match &delta.change {
        StateDelta::Put { .. } | StateDelta::Delete { .. } => {}
        StateDelta::Add { node, base, .. } => {
            let kind = 2 | u64::from(base.void) << 8 | u64::from(base.expired) << 9;
            words(&[kind, base.stamp.time.0, base.stamp.node.0, node.0]);
        }
        StateDelta::ListPush { id, .. } | StateDelta::ListRemove { id, .. } => words(&[3, id.time.0, id.node.0]),
        StateDelta::SetAdd { member, .. } | StateDelta::SetRemove { member, .. } => {
            words(&[4]);
            hasher.update(member.as_ref());
        }
    }
    let mut hash = [0; 8];
    hasher.finalize_xof().fill(&mut hash);
    u64::from(partition.0) << 54 | u64::from_le_bytes(hash) >> 10
}

/// The partition of a [`place`].
pub fn partition_of(place: u64) -> Partition {
    Partition((place >> 54) as u16)
}

impl Encoder {
    /// An array of partitions in ascending order, each as its distance from the one before, which mostly takes one
    /// byte.
    fn partitions(&mut self, partitions: &[Partition]) {
        self.array(partitions.len() as u32);
        let mut next = 0;
        for partition in partitions {
            let number = u64::from(partition.0);
            self.uint(number.saturating_sub(next));
            next = number + 1;
        }
    }
}

impl Decoder<'_> {
    fn partitions(&mut self) -> Result<Vec<Partition>, CodecError> {
        let length = self.length("partitions")?;
        let mut partitions = Vec::with_capacity(length.min(self.rest.len()).min(PARTITIONS));
        let mut next = 0u64;
        for _ in 0..length {
            let number = next.saturating_add(self.uint("partitions")?);
            if number >= PARTITIONS as u64 {
                return Err(CodecError::Malformed("partitions"));
            }
            partitions.push(Partition(number as u16));
            next = number + 1;
        }
        Ok(partitions)
    }

    /// The index of the first symbol and the number of symbols, `count` of which is read after it.
    fn symbols<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, CodecError>,
        count: impl Fn(&T) -> u64,
    ) -> Result<(usize, T), CodecError> {
        let first = self.uint("first symbol")?;
        let symbols = read(self)?;
        if first.saturating_add(count(&symbols)) > MAX_SYMBOLS as u64 {
            return Err(CodecError::Malformed("symbols"));
        }
        Ok((first as usize, symbols))
    }
}
