//! Reading MessagePack that anybody may have sent.

use bytes::Bytes;
use rmp::decode;

use super::error::CodecError;
use crate::cache::Blob;

/// How a decoder holds the bytes it reads.
pub trait Held<'a> {
    /// `part` lies in `whole`.
    fn of(whole: &'a Bytes, part: &'a [u8]) -> Self;
}

impl<'a> Held<'a> for Bytes {
    fn of(whole: &'a Bytes, part: &'a [u8]) -> Self {
        whole.slice_ref(part)
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

/// Reads values one after the other. `what` names in errors what was to be read.
pub struct Decoder<'a> {
    whole: &'a Bytes,
    pub(crate) rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads `bytes` from their beginning.
    pub fn new(bytes: &'a Bytes) -> Self {
        Decoder::after(bytes, 0)
    }

    /// Reads what comes after the first `start` bytes, of which there are so many.
    pub(crate) fn after(bytes: &'a Bytes, start: usize) -> Self {
        Decoder {
            whole: bytes,
            rest: &bytes[start..],
        }
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An array of at least `fields` elements; more are from a later release and stay unread.
    pub(crate) fn array(&mut self, fields: u32, what: &'static str) -> Result<(), CodecError> {
        match decode::read_array_len(&mut self.rest) {
            Ok(length) if length >= fields => Ok(()),
            _ => Err(CodecError::Malformed(what)),
        }
    }

    // From here on inlined by hand what every delta needs several times: messages are read in other modules, and the
    // compiler would call it there (5 % of the instructions of `decode` in `make bench-instructions`).
    #[inline]
    pub(crate) fn length(&mut self, what: &'static str) -> Result<usize, CodecError> {
        decode::read_array_len(&mut self.rest)
            .map(|length| length as usize)
            .map_err(|_| CodecError::Malformed(what))
    }

    #[inline]
    pub(crate) fn uint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        decode::read_int(&mut self.rest).map_err(|_| CodecError::Malformed(what))
    }

    #[inline]
    pub(crate) fn int(&mut self, what: &'static str) -> Result<i64, CodecError> {
        decode::read_int(&mut self.rest).map_err(|_| CodecError::Malformed(what))
    }

    #[inline]
    fn take(&mut self, length: u32, what: &'static str) -> Result<&'a [u8], CodecError> {
        let Some((head, tail)) = self.rest.split_at_checked(length as usize) else {
            return Err(CodecError::Malformed(what));
        };
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn bin<B: Held<'a>>(&mut self, what: &'static str) -> Result<B, CodecError> {
        let length = decode::read_bin_len(&mut self.rest).map_err(|_| CodecError::Malformed(what))?;
        Ok(B::of(self.whole, self.take(length, what)?))
    }

    /// A text of at most `most` bytes.
    pub(crate) fn text(&mut self, most: usize, what: &'static str) -> Result<String, CodecError> {
        let length = decode::read_str_len(&mut self.rest).map_err(|_| CodecError::Malformed(what))?;
        let bytes = self.take(length, what)?;
        if bytes.len() > most {
            return Err(CodecError::Malformed(what));
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| CodecError::Malformed(what))
    }

    /// Whether a nil comes next, which is read then.
    #[inline]
    pub(crate) fn is_nil(&mut self) -> bool {
        let nil = self.rest.first() == Some(&rmp::Marker::Null.to_u8());
        if nil {
            self.rest = &self.rest[1..];
        }
        nil
    }

    /// Whether a bin comes next.
    #[inline]
    pub(crate) fn is_bin(&self) -> bool {
        let marker = self.rest.first().map(|marker| rmp::Marker::from_u8(*marker));
        matches!(
            marker,
            Some(rmp::Marker::Bin8 | rmp::Marker::Bin16 | rmp::Marker::Bin32)
        )
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, CodecError> {
        match self.uint(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Malformed(what)),
        }
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        u8::try_from(self.uint(what)?).map_err(|_| CodecError::Malformed(what))
    }

    /// A bin of records of `N` bytes each.
    pub(crate) fn records<const N: usize, T>(
        &mut self,
        what: &'static str,
        record: impl Fn(&[u8; N]) -> T,
    ) -> Result<Vec<T>, CodecError> {
        let bytes: &[u8] = self.bin(what)?;
        match bytes.as_chunks() {
            (records, []) => Ok(records.iter().map(record).collect()),
            _ => Err(CodecError::Malformed(what)),
        }
    }

    /// A bin of numbers of 8 bytes each.
    pub(crate) fn hashes(&mut self, what: &'static str) -> Result<Vec<u64>, CodecError> {
        self.records(what, |bytes| u64::from_le_bytes(*bytes))
    }

    /// A list whose elements are arrays of exactly `fields` fields.
    pub(crate) fn list<T>(
        &mut self,
        fields: usize,
        what: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let length = self.length(what)?;
        let mut list = Vec::with_capacity(length.min(self.rest.len() / (fields + 1)));
        for _ in 0..length {
            if self.length(what)? != fields {
                return Err(CodecError::Malformed(what));
            }
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// A list of pairs of numbers, one after the other.
    pub(crate) fn pairs(&mut self, what: &'static str) -> Result<Vec<(u64, u64)>, CodecError> {
        let length = self.length(what)?;
        if length % 2 != 0 {
            return Err(CodecError::Malformed(what));
        }
        let mut pairs = Vec::with_capacity(length.min(self.rest.len()) / 2);
        for _ in 0..length / 2 {
            pairs.push((self.uint(what)?, self.uint(what)?));
        }
        Ok(pairs)
    }
}
