//! Finding what differs span by span, and fetching it.

use super::fields::Part;
use super::kind::Kind;
use crate::cache::{Digest, NodeId, Position, Span};
use crate::codec::{CodecError, Decoder, Encoder};

/// Compares spans: the answer splits those whose digest differs ([`RangeSplits`]).
///
/// ```text
/// array of 3
///   uint    request
///   array   spans, each an array of 5
///     span  (4 fields)
///     uint  digest
///   uint    budget
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// Spans, with the digest of what the requester holds there.
    pub spans: Vec<(Span, Digest)>,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

impl Compare {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Compare, 3);
        encoder.uint(self.request);
        encoder.array(self.spans.len() as u32);
        for (span, digest) in &self.spans {
            encoder.array(5);
            encoder.span(*span);
            encoder.uint(digest.0);
        }
        encoder.uint(self.budget);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(3, Kind::Compare.name())?;
        Ok(Compare {
            request: decoder.uint("request")?,
            spans: decoder.list(5, "spans", |decoder| {
                Ok((decoder.span()?, Digest(decoder.uint("digest")?)))
            })?,
            budget: decoder.uint("budget")?,
        })
    }
}

/// A span cut into parts of about equal size.
///
/// ```text
/// array of 5
///   span     (4 fields)
///   array    parts
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeSplit {
    /// The whole.
    pub span: Span,
    /// Its parts in order. They cover it: each begins after the one before, the last ends with the whole.
    pub parts: Vec<SpanDigest>,
}

impl RangeSplit {
    /// The parts as spans. `None` if they do not cover the whole in order.
    pub fn spans(&self) -> Option<Vec<(Span, SpanDigest)>> {
        let mut spans = Vec::with_capacity(self.parts.len());
        let mut first = Some(self.span.first);
        for part in &self.parts {
            let span = Span::new(first?, part.last).filter(|span| span.last <= self.span.last)?;
            spans.push((span, *part));
            first = next_position(part.last);
        }
        (spans.last()?.0.last == self.span.last).then_some(spans)
    }
}

/// The position after `position`, if there is one.
pub(crate) fn next_position(position: Position) -> Option<Position> {
    match position.element.checked_add(1) {
        Some(element) => Some(Position { element, ..position }),
        None => position.key.checked_add(1).map(|key| Position { key, element: 0 }),
    }
}

/// What the responder holds in a part of a [`RangeSplit`].
///
/// ```text
/// array of 4
///   position   last (2 fields)
///   uint       digest
///   uint       count
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanDigest {
    /// Last position of the part.
    pub last: Position,
    /// Sum of the component hashes there.
    pub digest: Digest,
    /// Number of components there.
    pub count: u64,
}

/// Answer to a [`Compare`], a `DigestRequest`, or a `BootstrapRequest` that wants it.
///
/// ```text
/// array of 4
///   part    to, request, index
///   array   splits
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeSplits {
    /// Which part of which answer this is.
    pub part: Part,
    /// The spans that differ, split.
    pub splits: Vec<RangeSplit>,
}

impl RangeSplits {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::RangeSplits, 4);
        encoder.part(self.part);
        encoder.array(self.splits.len() as u32);
        for split in &self.splits {
            encoder.array(5);
            encoder.span(split.span);
            encoder.array(split.parts.len() as u32);
            for part in &split.parts {
                encoder.array(4);
                encoder.last(part.last);
                encoder.uints(&[part.digest.0, part.count]);
            }
        }
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(4, Kind::RangeSplits.name())?;
        Ok(RangeSplits {
            part: decoder.part()?,
            splits: decoder.list(5, "splits", |decoder| {
                Ok(RangeSplit {
                    span: decoder.span()?,
                    parts: decoder.list(4, "parts of a split", |decoder| {
                        Ok(SpanDigest {
                            last: decoder.last()?,
                            digest: Digest(decoder.uint("digest")?),
                            count: decoder.uint("count")?,
                        })
                    })?,
                })
            })?,
        })
    }
}

/// Asks for the deltas of spans, less those whose component hashes the requester has.
///
/// ```text
/// array of 4
///   uint           request
///   flag           resyncs
///   array          holdings, each an array of 5
///     span         (4 fields)
///     hashes|nil   hashes
///   uint           budget
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// The requester was away for longer than deletions are remembered: it takes the responder's state, and nothing is
    /// to be taken from it. The answer names the hashes that the responder does not have ([`Unknown`]).
    pub resyncs: bool,
    /// What the requester holds.
    pub holdings: Vec<Holding>,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
}

/// What the sender of a [`Fetch`] holds in a span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Where.
    pub span: Span,
    /// The component hashes it has there. `None`: it wants nothing, but has something that the receiver lacks.
    pub hashes: Option<Vec<u64>>,
}

impl Fetch {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Fetch, 4);
        encoder.uints(&[self.request, self.resyncs.into()]);
        encoder.array(self.holdings.len() as u32);
        for holding in &self.holdings {
            encoder.array(5);
            encoder.span(holding.span);
            match &holding.hashes {
                Some(hashes) => encoder.hashes(hashes),
                None => encoder.nil(),
            }
        }
        encoder.uint(self.budget);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(4, Kind::Fetch.name())?;
        Ok(Fetch {
            request: decoder.uint("request")?,
            resyncs: decoder.flag("resyncs")?,
            holdings: decoder.list(5, "holdings", |decoder| {
                Ok(Holding {
                    span: decoder.span()?,
                    hashes: if decoder.is_nil() {
                        None
                    } else {
                        Some(decoder.hashes("hashes")?)
                    },
                })
            })?,
            budget: decoder.uint("budget")?,
        })
    }
}

/// Component hashes of a `Reconcile` or of a resyncing [`Fetch`] that the responder does not have.
///
/// ```text
/// array of 4
///   part     to, request, index
///   hashes   hashes
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unknown {
    /// Which part of which answer this is.
    pub part: Part,
    /// The hashes.
    pub hashes: Vec<u64>,
}

impl Unknown {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Unknown, 4);
        encoder.part(self.part);
        encoder.hashes(&self.hashes);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(4, Kind::Unknown.name())?;
        Ok(Unknown {
            part: decoder.part()?,
            hashes: decoder.hashes("hashes")?,
        })
    }
}

impl Encoder {
    /// Four fields: both of the first position, both of the last one.
    fn span(&mut self, span: Span) {
        self.uints(&[span.first.key, span.first.element]);
        self.last(span.last);
    }

    /// Two fields, key and element. The upper end of a span mostly is the end of a key: nil, which is shorter.
    fn last(&mut self, position: Position) {
        self.uint(position.key);
        match position.element {
            u64::MAX => self.nil(),
            element => self.uint(element),
        }
    }
}

impl Decoder<'_> {
    fn span(&mut self) -> Result<Span, CodecError> {
        let first = Position {
            key: self.uint("position")?,
            element: self.uint("position")?,
        };
        let last = self.last()?;
        Span::new(first, last).ok_or(CodecError::Malformed("span"))
    }

    fn last(&mut self) -> Result<Position, CodecError> {
        let key = self.uint("position")?;
        let element = if self.is_nil() {
            u64::MAX
        } else {
            self.uint("position")?
        };
        Ok(Position { key, element })
    }
}
