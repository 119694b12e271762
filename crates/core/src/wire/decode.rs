//! Reading messages of strangers.

use bytes::Bytes;

use super::{
    Ack, Beat, BeatState, Compare, Exchange, Fetch, Fragment, Frame, FramesGone, FramesRequest, Header, Hello, Holding,
    Kind, Message, Offer, Part, ReplayCommands, ReplayEnd, ReplayRequest, Sketch, SketchRequest, SpanDigest, Split,
    Splits, Survey, Symbol, Unknown, Want, Welcome, WireError, HEADER_BYTES, MAX_SYMBOLS, SYMBOL_BYTES,
};
use crate::cache::{Cursor, Digest, NodeId, Partition, Position, Span, Time, PARTITIONS};
use crate::codec::{CodecError, Decoder, Held};

impl Message {
    /// Reads a message without its seal, of a version this release understands. Fields that a later release appends to
    /// an array are ignored.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        Message::read(&bytes)
    }
}

impl<'a> Message<&'a [u8]> {
    /// As [`Message::decode`] reads it, without a copy of each key and value.
    pub fn borrow(bytes: &'a Bytes) -> Result<Self, WireError> {
        Message::read(bytes)
    }
}

impl<B> Message<B> {
    fn read<'a>(bytes: &'a Bytes) -> Result<Self, WireError>
    where
        B: Held<'a>,
    {
        let header = Header::of(bytes).ok_or(WireError::Malformed("shorter than its header"))?;
        let mut decoder = Decoder::after(bytes, HEADER_BYTES);
        let message = match header.known_kind()? {
            Kind::Frame => decoder.frame().map(Message::Frame),
            Kind::ReplayRequest => decoder.replay_request().map(Message::ReplayRequest),
            Kind::ReplayCommands => decoder.replay_commands().map(Message::ReplayCommands),
            Kind::ReplayEnd => decoder.replay_end().map(Message::ReplayEnd),
            Kind::Beat => decoder.beat_message().map(Message::Beat),
            Kind::Fragment => decoder.fragment().map(Message::Fragment),
            Kind::Compare => decoder.compare().map(Message::Compare),
            Kind::Splits => decoder.splits().map(Message::Splits),
            Kind::Fetch => decoder.fetch().map(Message::Fetch),
            Kind::Unknown => decoder.unknown().map(Message::Unknown),
            Kind::FramesRequest => decoder.frames_request().map(Message::FramesRequest),
            Kind::FramesGone => decoder.frames_gone().map(Message::FramesGone),
            Kind::Hello => decoder.hello().map(Message::Hello),
            Kind::Welcome => decoder.welcome().map(Message::Welcome),
            Kind::Ack => decoder.ack().map(Message::Ack),
            Kind::Survey => decoder.survey().map(Message::Survey),
            Kind::Sketch => decoder.sketch().map(Message::Sketch),
            Kind::SketchRequest => decoder.sketch_request().map(Message::SketchRequest),
            Kind::Exchange => decoder.exchange().map(Message::Exchange),
        };
        message.map_err(WireError::from)
    }
}

impl BeatState {
    fn from_code(code: u64) -> Result<Self, CodecError> {
        match code {
            0 => Ok(BeatState::Starting),
            1 => Ok(BeatState::Synced),
            2 => Ok(BeatState::Leaving),
            _ => Err(CodecError::Malformed("state of a beat")),
        }
    }
}

/// Longest host name, release text or issuer that is kept.
const MAX_TEXT_BYTES: usize = 256;

/// Most foreign issuers a beat names.
pub(crate) const MAX_FOREIGN: usize = 4;

/// Largest number of a frame that is believed: nobody gets that far, and there is room to count on from it.
const MAX_SEQ: u64 = u64::MAX >> 1;

impl<'a> Decoder<'a> {
    fn seq(&mut self) -> Result<u64, CodecError> {
        match self.uint("sequence number")? {
            seq @ 0..=MAX_SEQ => Ok(seq),
            _ => Err(CodecError::Malformed("sequence number")),
        }
    }

    /// The first partition of a range, and what is given for it and those after it.
    fn range<T>(
        &mut self,
        digests: impl Fn(&mut Self) -> Result<Vec<T>, CodecError>,
    ) -> Result<(Partition, Vec<T>), CodecError> {
        let from = self.uint("first partition")?;
        let digests = digests(self)?;
        if from.saturating_add(digests.len() as u64) > PARTITIONS as u64 {
            return Err(CodecError::Malformed("range of partitions"));
        }
        Ok((Partition(from as u16), digests))
    }

    /// Partitions in ascending order, each as its distance from the one before.
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

    fn last(&mut self) -> Result<Position, CodecError> {
        let key = self.uint("position")?;
        let element = if self.is_nil() {
            u64::MAX
        } else {
            self.uint("position")?
        };
        Ok(Position { key, element })
    }

    fn span(&mut self) -> Result<Span, CodecError> {
        let first = Position {
            key: self.uint("position")?,
            element: self.uint("position")?,
        };
        let last = self.last()?;
        Span::new(first, last).ok_or(CodecError::Malformed("span"))
    }

    fn part(&mut self) -> Result<Part, CodecError> {
        Ok(Part {
            to: self.node()?,
            request: self.uint("request")?,
            index: self.uint("index")?,
        })
    }

    fn frame<B: Held<'a>>(&mut self) -> Result<Frame<B>, CodecError> {
        self.array(4, "frame")?;
        Ok(Frame {
            seq: self.seq()?,
            wants_ack: self.flag("acknowledgement flag")?,
            clock: self.time("clock")?,
            commands: self.commands()?,
        })
    }

    fn replay_request(&mut self) -> Result<ReplayRequest, CodecError> {
        self.array(6, "replay request")?;
        let request = self.uint("request")?;
        let (from, digests) = self.range(|decoder| decoder.hashes("digests"))?;
        Ok(ReplayRequest {
            request,
            from,
            digests: digests.into_iter().map(Digest).collect(),
            want: match self.uint("wanted answer")? {
                0 => Want::Commands,
                1 => Want::Splits,
                _ => return Err(CodecError::Malformed("wanted answer")),
            },
            budget: self.uint("budget")?,
            rest: self.cursor()?,
        })
    }

    fn cursor(&mut self) -> Result<Option<Cursor>, CodecError> {
        if self.is_nil() {
            return Ok(None);
        }
        let bytes = self.bin::<&[u8]>("rest")?;
        let bytes = bytes.try_into().map_err(|_| CodecError::Malformed("rest"))?;
        Ok(Some(Cursor::of_bytes(bytes)))
    }

    fn replay_commands<B: Held<'a>>(&mut self) -> Result<ReplayCommands<B>, CodecError> {
        self.array(5, "replay commands")?;
        Ok(ReplayCommands {
            part: self.part()?,
            clock: self.time("clock")?,
            commands: self.commands()?,
        })
    }

    fn replay_end(&mut self) -> Result<ReplayEnd, CodecError> {
        self.array(6, "replay end")?;
        Ok(ReplayEnd {
            to: self.node()?,
            request: self.uint("request")?,
            parts: self.uint("number of parts")?,
            next: self.uint("next")?,
            rest: self.cursor()?,
            seqs: {
                let pairs = self.pairs("sequence numbers")?;
                if pairs.iter().any(|(_, seq)| *seq > MAX_SEQ) {
                    return Err(CodecError::Malformed("sequence number"));
                }
                pairs.into_iter().map(|(node, seq)| (NodeId(node), seq)).collect()
            },
        })
    }

    fn beat_message(&mut self) -> Result<Beat, CodecError> {
        self.array(1, "beat")?;
        self.beat()
    }

    fn beat(&mut self) -> Result<Beat, CodecError> {
        let fields = self.length("beat")?;
        if fields < 16 {
            return Err(CodecError::Malformed("beat"));
        }
        Ok(Beat {
            number: self.uint("number of a beat")?,
            seq: self.seq()?,
            digest: Digest(self.uint("digest")?),
            keys: self.uint("keys")?,
            clock: self.time("clock")?,
            floor: self.time("floor")?,
            contact: self.time("contact")?,
            since: self.time("beginning")?,
            joined: self.time("joining")?,
            listening: self.time("listening")?,
            state: BeatState::from_code(self.uint("state of a beat")?)?,
            interval_ms: self.uint("interval")?,
            wants_beats: self.flag("request for beats")?,
            versions: (self.byte("oldest version")?, self.byte("newest version")?),
            foreign: {
                let length = self.length("foreign issuers")?;
                if length > MAX_FOREIGN {
                    return Err(CodecError::Malformed("foreign issuers"));
                }
                (0..length)
                    .map(|_| self.text(MAX_TEXT_BYTES, "foreign issuer"))
                    .collect::<Result<_, _>>()?
            },
        })
    }

    fn fragment(&mut self) -> Result<Fragment, CodecError> {
        self.array(4, "fragment")?;
        Ok(Fragment {
            id: self.uint("id of a fragment")?,
            index: self.uint("index of a fragment")?,
            total: self.uint("number of fragments")?,
            bytes: self.bin("bytes of a fragment")?,
        })
    }

    fn compare(&mut self) -> Result<Compare, CodecError> {
        self.array(3, "compare")?;
        Ok(Compare {
            request: self.uint("request")?,
            spans: self.list(5, "spans", |decoder| {
                Ok((decoder.span()?, Digest(decoder.uint("digest")?)))
            })?,
            budget: self.uint("budget")?,
        })
    }

    fn splits(&mut self) -> Result<Splits, CodecError> {
        self.array(4, "splits")?;
        Ok(Splits {
            part: self.part()?,
            splits: self.list(5, "splits", |decoder| {
                Ok(Split {
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

    fn fetch(&mut self) -> Result<Fetch, CodecError> {
        self.array(4, "fetch")?;
        Ok(Fetch {
            request: self.uint("request")?,
            yields: self.flag("yields")?,
            holdings: self.list(5, "holdings", |decoder| {
                Ok(Holding {
                    span: decoder.span()?,
                    hashes: if decoder.is_nil() {
                        None
                    } else {
                        Some(decoder.hashes("hashes")?)
                    },
                })
            })?,
            budget: self.uint("budget")?,
        })
    }

    fn unknown(&mut self) -> Result<Unknown, CodecError> {
        self.array(4, "unknown")?;
        Ok(Unknown {
            part: self.part()?,
            hashes: self.hashes("hashes")?,
        })
    }

    fn frames_request(&mut self) -> Result<FramesRequest, CodecError> {
        self.array(3, "frames request")?;
        Ok(FramesRequest {
            request: self.uint("request")?,
            missing: self.pairs("missing frames")?,
            budget: self.uint("budget")?,
        })
    }

    fn frames_gone(&mut self) -> Result<FramesGone, CodecError> {
        self.array(2, "frames gone")?;
        Ok(FramesGone {
            to: self.node()?,
            oldest: self.uint("oldest frame")?,
        })
    }

    fn hello(&mut self) -> Result<Hello, CodecError> {
        self.array(3, "hello")?;
        Ok(Hello {
            to: self.node()?,
            number: self.uint("number of a challenge")?,
            knows_you: self.flag("knows you")?,
        })
    }

    fn welcome(&mut self) -> Result<Welcome, CodecError> {
        self.array(6, "welcome")?;
        Ok(Welcome {
            to: self.node()?,
            number: self.uint("number of a challenge")?,
            knows_you: self.flag("knows you")?,
            host: self.text(MAX_TEXT_BYTES, "host")?,
            release: self.text(MAX_TEXT_BYTES, "release")?,
            beat: self.beat()?,
        })
    }

    fn ack(&mut self) -> Result<Ack, CodecError> {
        self.array(3, "ack")?;
        Ok(Ack {
            to: self.node()?,
            seq: self.seq()?,
            contiguous: self.seq()?,
        })
    }

    fn survey(&mut self) -> Result<Survey, CodecError> {
        self.array(5, "survey")?;
        let request = self.uint("request")?;
        let (from, digests) = self.range(|decoder| decoder.records("digests", |bytes| u32::from_le_bytes(*bytes)))?;
        Ok(Survey {
            request,
            from,
            digests,
            settled_ms: self.uint("settled")?,
            budget: self.uint("budget")?,
        })
    }

    fn sketch(&mut self) -> Result<Sketch, CodecError> {
        self.array(6, "sketch")?;
        let part = self.part()?;
        let partitions = self.partitions()?;
        let symbol = |bytes: &[u8; SYMBOL_BYTES]| {
            let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, n0, n1] = *bytes;
            Symbol {
                sum: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
                check: u32::from_le_bytes([c0, c1, c2, c3]),
                count: i16::from_le_bytes([n0, n1]),
            }
        };
        let (first, symbols) = self.symbols(
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

    fn sketch_request(&mut self) -> Result<SketchRequest, CodecError> {
        self.array(4, "sketch request")?;
        let request = self.uint("request")?;
        let partitions = self.partitions()?;
        let (first, count) = self.symbols(|decoder| decoder.uint("number of symbols"), |count| *count)?;
        Ok(SketchRequest {
            request,
            partitions,
            first,
            count: count as usize,
        })
    }

    fn exchange(&mut self) -> Result<Exchange, CodecError> {
        self.array(5, "exchange")?;
        Ok(Exchange {
            request: self.uint("request")?,
            partitions: self.partitions()?,
            wanted: self.hashes("wanted")?,
            offers: {
                let words = self.hashes("offers")?;
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
            budget: self.uint("budget")?,
        })
    }
}
