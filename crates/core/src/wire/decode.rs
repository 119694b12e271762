//! Reading messages of strangers.

use bytes::Bytes;
use rmp::decode;

use super::{
    Ack, Beat, BeatState, Compare, Exchange, Fetch, Fragment, Frame, FramesGone, FramesRequest, Header, Hello, Holding,
    Kind, Message, Offer, Part, ReplayCommands, ReplayEnd, ReplayRequest, Sketch, SketchRequest, SpanDigest, Split,
    Splits, Survey, Symbol, Unknown, Want, Welcome, WireError, HEADER_BYTES, MAX_SYMBOLS, SYMBOL_BYTES,
};
use crate::cache::{
    Base, Blob, Change, Command, Cursor, Digest, NodeId, Partition, Position, SeenAdd, Span, Stamp, Time, Value,
    PARTITIONS,
};

/// Bytes of a message as its commands hold them.
pub(crate) trait Held<'a> {
    /// `part` lies in `message`.
    fn of(message: &'a Bytes, part: &'a [u8]) -> Self;
}

impl<'a> Held<'a> for Bytes {
    fn of(message: &'a Bytes, part: &'a [u8]) -> Self {
        message.slice_ref(part)
    }
}

impl<'a> Held<'a> for Blob {
    fn of(_: &'a Bytes, part: &'a [u8]) -> Self {
        Blob::new(part)
    }
}

impl<'a> Held<'a> for &'a [u8] {
    fn of(_: &'a Bytes, part: &'a [u8]) -> Self {
        part
    }
}

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
        let mut decoder = Decoder {
            message: bytes,
            rest: &bytes[HEADER_BYTES..],
        };
        match header.known_kind()? {
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
        }
    }
}

impl BeatState {
    fn from_code(code: u64) -> Result<Self, WireError> {
        match code {
            0 => Ok(BeatState::Starting),
            1 => Ok(BeatState::Synced),
            2 => Ok(BeatState::Leaving),
            _ => Err(WireError::Malformed("state of a beat")),
        }
    }
}

/// Smallest encoding of a command, to bound what is reserved for an announced number of them.
const MIN_COMMAND_BYTES: usize = 8;

/// Longest host name, release text or issuer that is kept.
const MAX_TEXT_BYTES: usize = 256;

/// Most foreign issuers a beat names.
pub(crate) const MAX_FOREIGN: usize = 4;

/// Largest number of a frame that is believed: nobody gets that far, and there is room to count on from it.
const MAX_SEQ: u64 = u64::MAX >> 1;

struct Decoder<'a> {
    message: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// An array of at least `fields` elements; more are from a later release and stay unread.
    fn array(&mut self, fields: u32, what: &'static str) -> Result<(), WireError> {
        match decode::read_array_len(&mut self.rest) {
            Ok(length) if length >= fields => Ok(()),
            _ => Err(WireError::Malformed(what)),
        }
    }

    fn length(&mut self, what: &'static str) -> Result<usize, WireError> {
        decode::read_array_len(&mut self.rest)
            .map(|length| length as usize)
            .map_err(|_| WireError::Malformed(what))
    }

    fn uint(&mut self, what: &'static str) -> Result<u64, WireError> {
        decode::read_int(&mut self.rest).map_err(|_| WireError::Malformed(what))
    }

    fn int(&mut self, what: &'static str) -> Result<i64, WireError> {
        decode::read_int(&mut self.rest).map_err(|_| WireError::Malformed(what))
    }

    fn take(&mut self, length: u32, what: &'static str) -> Result<&'a [u8], WireError> {
        let Some((head, tail)) = self.rest.split_at_checked(length as usize) else {
            return Err(WireError::Malformed(what));
        };
        self.rest = tail;
        Ok(head)
    }

    fn bin<B: Held<'a>>(&mut self, what: &'static str) -> Result<B, WireError> {
        let length = decode::read_bin_len(&mut self.rest).map_err(|_| WireError::Malformed(what))?;
        Ok(B::of(self.message, self.take(length, what)?))
    }

    fn text(&mut self, what: &'static str) -> Result<String, WireError> {
        let length = decode::read_str_len(&mut self.rest).map_err(|_| WireError::Malformed(what))?;
        let bytes = self.take(length, what)?;
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(WireError::Malformed(what));
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Malformed(what))
    }

    fn is_nil(&mut self) -> bool {
        let nil = self.rest.first() == Some(&rmp::Marker::Null.to_u8());
        if nil {
            self.rest = &self.rest[1..];
        }
        nil
    }

    fn node(&mut self) -> Result<NodeId, WireError> {
        self.uint("node").map(NodeId)
    }

    fn time(&mut self, what: &'static str) -> Result<Time, WireError> {
        self.uint(what).map(Time)
    }

    fn stamp(&mut self) -> Result<Stamp, WireError> {
        Ok(Stamp {
            time: self.time("time of a stamp")?,
            node: self.node()?,
        })
    }

    fn base(&mut self) -> Result<Base, WireError> {
        let stamp = self.stamp()?;
        match self.uint("flags of a base")? {
            flags @ 0..=3 => Ok(Base {
                stamp,
                void: flags & 1 != 0,
                expired: flags & 2 != 0,
            }),
            _ => Err(WireError::Malformed("flags of a base")),
        }
    }

    fn seen(&mut self) -> Result<Vec<SeenAdd>, WireError> {
        let length = self.length("seen")?;
        let mut seen = Vec::with_capacity(length.min(self.rest.len() / MIN_COMMAND_BYTES));
        for _ in 0..length {
            // Nothing can be skipped inside a message, so the number of fields is fixed.
            if self.length("seen entry")? != 5 {
                return Err(WireError::Malformed("number of fields of a seen entry"));
            }
            seen.push(SeenAdd {
                node: self.node()?,
                base: self.base()?,
                sum: self.int("seen sum")?,
            });
        }
        Ok(seen)
    }

    fn command<B: Held<'a>>(&mut self) -> Result<Command<B>, WireError> {
        let fields = self.length("command")?;
        let code = self.uint("code of a command")?;
        let expected = match code {
            0 => 7,
            1 | 3 | 5 | 6 => 5,
            2 => 9,
            4 => 6,
            _ => return Err(WireError::Command(code)),
        };
        if fields != expected {
            return Err(WireError::Malformed("number of fields of a command"));
        }
        let key = self.bin("key")?;
        let change = match code {
            0 => {
                let at = self.stamp()?;
                let value = self.value()?;
                let expires_at = if self.is_nil() {
                    None
                } else {
                    Some(self.uint("deadline")?)
                };
                Change::Put {
                    at,
                    value,
                    expires_at,
                    seen: self.seen()?,
                }
            }
            1 => Change::Delete {
                at: self.stamp()?,
                seen: self.seen()?,
            },
            2 => Change::Add {
                node: self.node()?,
                base: self.base()?,
                sum: self.int("sum")?,
                at: self.stamp()?,
            },
            3 => Change::ListPush {
                id: self.stamp()?,
                value: self.bin("item")?,
            },
            4 => Change::ListRemove {
                id: self.stamp()?,
                at: self.stamp()?,
            },
            5 => Change::SetAdd {
                at: self.stamp()?,
                member: self.bin("member")?,
            },
            _ => Change::SetRemove {
                at: self.stamp()?,
                member: self.bin("member")?,
            },
        };
        Ok(Command { key, change })
    }

    /// The bytes of a value, or a number: the content hash of one that was given back.
    fn value<B: Held<'a>>(&mut self) -> Result<Value<B>, WireError> {
        match self.rest.first().map(|marker| rmp::Marker::from_u8(*marker)) {
            Some(rmp::Marker::Bin8 | rmp::Marker::Bin16 | rmp::Marker::Bin32) => Ok(Value::Held(self.bin("value")?)),
            _ => Ok(Value::GivenBack(self.uint("value")?)),
        }
    }

    fn commands<B: Held<'a>>(&mut self) -> Result<Vec<Command<B>>, WireError> {
        let length = self.length("commands")?;
        let mut commands = Vec::with_capacity(length.min(self.rest.len() / MIN_COMMAND_BYTES));
        for _ in 0..length {
            commands.push(self.command()?);
        }
        Ok(commands)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.uint(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Malformed(what)),
        }
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, WireError> {
        u8::try_from(self.uint(what)?).map_err(|_| WireError::Malformed(what))
    }

    fn seq(&mut self) -> Result<u64, WireError> {
        match self.uint("sequence number")? {
            seq @ 0..=MAX_SEQ => Ok(seq),
            _ => Err(WireError::Malformed("sequence number")),
        }
    }

    /// A bin of records of `N` bytes each.
    fn records<const N: usize, T>(
        &mut self,
        what: &'static str,
        record: impl Fn(&[u8; N]) -> T,
    ) -> Result<Vec<T>, WireError> {
        let bytes: &[u8] = self.bin(what)?;
        match bytes.as_chunks() {
            (records, []) => Ok(records.iter().map(record).collect()),
            _ => Err(WireError::Malformed(what)),
        }
    }

    fn hashes(&mut self, what: &'static str) -> Result<Vec<u64>, WireError> {
        self.records(what, |bytes| u64::from_le_bytes(*bytes))
    }

    /// The first partition of a range, and what is given for it and those after it.
    fn range<T>(
        &mut self,
        digests: impl Fn(&mut Self) -> Result<Vec<T>, WireError>,
    ) -> Result<(Partition, Vec<T>), WireError> {
        let from = self.uint("first partition")?;
        let digests = digests(self)?;
        if from.saturating_add(digests.len() as u64) > PARTITIONS as u64 {
            return Err(WireError::Malformed("range of partitions"));
        }
        Ok((Partition(from as u16), digests))
    }

    /// Partitions in ascending order, each as its distance from the one before.
    fn partitions(&mut self) -> Result<Vec<Partition>, WireError> {
        let length = self.length("partitions")?;
        let mut partitions = Vec::with_capacity(length.min(self.rest.len()).min(PARTITIONS));
        let mut next = 0u64;
        for _ in 0..length {
            let number = next.saturating_add(self.uint("partitions")?);
            if number >= PARTITIONS as u64 {
                return Err(WireError::Malformed("partitions"));
            }
            partitions.push(Partition(number as u16));
            next = number + 1;
        }
        Ok(partitions)
    }

    /// The index of the first symbol and the number of symbols, `count` of which is read after it.
    fn symbols<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, WireError>,
        count: impl Fn(&T) -> u64,
    ) -> Result<(usize, T), WireError> {
        let first = self.uint("first symbol")?;
        let symbols = read(self)?;
        if first.saturating_add(count(&symbols)) > MAX_SYMBOLS as u64 {
            return Err(WireError::Malformed("symbols"));
        }
        Ok((first as usize, symbols))
    }

    fn last(&mut self) -> Result<Position, WireError> {
        let key = self.uint("position")?;
        let element = if self.is_nil() {
            u64::MAX
        } else {
            self.uint("position")?
        };
        Ok(Position { key, element })
    }

    fn span(&mut self) -> Result<Span, WireError> {
        let first = Position {
            key: self.uint("position")?,
            element: self.uint("position")?,
        };
        let last = self.last()?;
        Span::new(first, last).ok_or(WireError::Malformed("span"))
    }

    /// A list whose elements are arrays of exactly `fields` fields.
    fn list<T>(
        &mut self,
        fields: usize,
        what: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let length = self.length(what)?;
        let mut list = Vec::with_capacity(length.min(self.rest.len() / (fields + 1)));
        for _ in 0..length {
            if self.length(what)? != fields {
                return Err(WireError::Malformed(what));
            }
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// A list of pairs of numbers, one after the other.
    fn pairs(&mut self, what: &'static str) -> Result<Vec<(u64, u64)>, WireError> {
        let length = self.length(what)?;
        if length % 2 != 0 {
            return Err(WireError::Malformed(what));
        }
        let mut pairs = Vec::with_capacity(length.min(self.rest.len()) / 2);
        for _ in 0..length / 2 {
            pairs.push((self.uint(what)?, self.uint(what)?));
        }
        Ok(pairs)
    }

    fn part(&mut self) -> Result<Part, WireError> {
        Ok(Part {
            to: self.node()?,
            request: self.uint("request")?,
            index: self.uint("index")?,
        })
    }

    fn frame<B: Held<'a>>(&mut self) -> Result<Frame<B>, WireError> {
        self.array(4, "frame")?;
        Ok(Frame {
            seq: self.seq()?,
            wants_ack: self.flag("acknowledgement flag")?,
            clock: self.time("clock")?,
            commands: self.commands()?,
        })
    }

    fn replay_request(&mut self) -> Result<ReplayRequest, WireError> {
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
                _ => return Err(WireError::Malformed("wanted answer")),
            },
            budget: self.uint("budget")?,
            rest: self.cursor()?,
        })
    }

    fn cursor(&mut self) -> Result<Option<Cursor>, WireError> {
        if self.is_nil() {
            return Ok(None);
        }
        let bytes = self.bin::<&[u8]>("rest")?;
        let bytes = bytes.try_into().map_err(|_| WireError::Malformed("rest"))?;
        Ok(Some(Cursor::of_bytes(bytes)))
    }

    fn replay_commands<B: Held<'a>>(&mut self) -> Result<ReplayCommands<B>, WireError> {
        self.array(5, "replay commands")?;
        Ok(ReplayCommands {
            part: self.part()?,
            clock: self.time("clock")?,
            commands: self.commands()?,
        })
    }

    fn replay_end(&mut self) -> Result<ReplayEnd, WireError> {
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
                    return Err(WireError::Malformed("sequence number"));
                }
                pairs.into_iter().map(|(node, seq)| (NodeId(node), seq)).collect()
            },
        })
    }

    fn beat_message(&mut self) -> Result<Beat, WireError> {
        self.array(1, "beat")?;
        self.beat()
    }

    fn beat(&mut self) -> Result<Beat, WireError> {
        let fields = self.length("beat")?;
        if fields < 16 {
            return Err(WireError::Malformed("beat"));
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
                    return Err(WireError::Malformed("foreign issuers"));
                }
                (0..length)
                    .map(|_| self.text("foreign issuer"))
                    .collect::<Result<_, _>>()?
            },
        })
    }

    fn fragment(&mut self) -> Result<Fragment, WireError> {
        self.array(4, "fragment")?;
        Ok(Fragment {
            id: self.uint("id of a fragment")?,
            index: self.uint("index of a fragment")?,
            total: self.uint("number of fragments")?,
            bytes: self.bin("bytes of a fragment")?,
        })
    }

    fn compare(&mut self) -> Result<Compare, WireError> {
        self.array(3, "compare")?;
        Ok(Compare {
            request: self.uint("request")?,
            spans: self.list(5, "spans", |decoder| {
                Ok((decoder.span()?, Digest(decoder.uint("digest")?)))
            })?,
            budget: self.uint("budget")?,
        })
    }

    fn splits(&mut self) -> Result<Splits, WireError> {
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

    fn fetch(&mut self) -> Result<Fetch, WireError> {
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

    fn unknown(&mut self) -> Result<Unknown, WireError> {
        self.array(4, "unknown")?;
        Ok(Unknown {
            part: self.part()?,
            hashes: self.hashes("hashes")?,
        })
    }

    fn frames_request(&mut self) -> Result<FramesRequest, WireError> {
        self.array(3, "frames request")?;
        Ok(FramesRequest {
            request: self.uint("request")?,
            missing: self.pairs("missing frames")?,
            budget: self.uint("budget")?,
        })
    }

    fn frames_gone(&mut self) -> Result<FramesGone, WireError> {
        self.array(2, "frames gone")?;
        Ok(FramesGone {
            to: self.node()?,
            oldest: self.uint("oldest frame")?,
        })
    }

    fn hello(&mut self) -> Result<Hello, WireError> {
        self.array(3, "hello")?;
        Ok(Hello {
            to: self.node()?,
            number: self.uint("number of a challenge")?,
            knows_you: self.flag("knows you")?,
        })
    }

    fn welcome(&mut self) -> Result<Welcome, WireError> {
        self.array(6, "welcome")?;
        Ok(Welcome {
            to: self.node()?,
            number: self.uint("number of a challenge")?,
            knows_you: self.flag("knows you")?,
            host: self.text("host")?,
            release: self.text("release")?,
            beat: self.beat()?,
        })
    }

    fn ack(&mut self) -> Result<Ack, WireError> {
        self.array(3, "ack")?;
        Ok(Ack {
            to: self.node()?,
            seq: self.seq()?,
            contiguous: self.seq()?,
        })
    }

    fn survey(&mut self) -> Result<Survey, WireError> {
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

    fn sketch(&mut self) -> Result<Sketch, WireError> {
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

    fn sketch_request(&mut self) -> Result<SketchRequest, WireError> {
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

    fn exchange(&mut self) -> Result<Exchange, WireError> {
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
                    _ => return Err(WireError::Malformed("offers")),
                }
            },
            budget: self.uint("budget")?,
        })
    }
}
