//! Writing MessagePack to memory.

use rmp::encode;

/// Writes values one after the other. Writes to memory cannot fail, hence the `expect`s.
#[derive(Default)]
pub struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn array(&mut self, length: u32) {
        encode::write_array_len(&mut self.0, length).expect("writes to memory");
    }

    pub(crate) fn uint(&mut self, value: u64) {
        encode::write_uint(&mut self.0, value).expect("writes to memory");
    }

    pub(crate) fn int(&mut self, value: i64) {
        encode::write_sint(&mut self.0, value).expect("writes to memory");
    }

    pub(crate) fn bin(&mut self, bytes: &[u8]) {
        encode::write_bin(&mut self.0, bytes).expect("writes to memory");
    }

    pub(crate) fn text(&mut self, text: &str) {
        encode::write_str(&mut self.0, text).expect("writes to memory");
    }

    pub(crate) fn nil(&mut self) {
        encode::write_nil(&mut self.0).expect("writes to memory");
    }

    pub(crate) fn uints(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.uint(*value));
    }

    /// A bin of numbers of 8 bytes each.
    pub(crate) fn hashes(&mut self, hashes: &[u64]) {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        self.bin(&bytes);
    }
}
