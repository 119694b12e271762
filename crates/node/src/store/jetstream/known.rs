//! What was written last of a record, of some records: what is written often is not read each time before it is replaced.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

/// Records that are remembered, twice over: 3 MB.
const RECORDS: usize = 16_384;
/// Bytes of a value that are remembered: its stamp, and the sum of a counter. Values that are shorter are none.
const BEGINNING: usize = 24;

/// The last token of the subject of a record is its hash, so sections and hashes tell records apart.
pub(super) type RecordName = (u16, [u8; 16]);

#[derive(Clone, Copy)]
struct Written {
    sequence: u64,
    beginning: [u8; BEGINNING],
}

/// The records that were written last. Others may have replaced them since: then their subject has another sequence.
#[derive(Default)]
pub(super) struct Known {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    newer: HashMap<RecordName, Written>,
    older: HashMap<RecordName, Written>,
}

impl Known {
    /// A value was written, whole in one message.
    pub fn wrote(&self, record: RecordName, value: &[u8], sequence: u64) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(beginning) = value.first_chunk() else {
            generations.forget(&record);
            return;
        };
        if generations.newer.len() == RECORDS {
            generations.older = mem::take(&mut generations.newer);
        }
        let written = Written {
            sequence,
            beginning: *beginning,
        };
        generations.newer.insert(record, written);
    }

    /// The sequence of what was written, if a value is larger for certain.
    pub fn replaced_by(&self, record: &RecordName, value: &[u8]) -> Option<u64> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let written = generations
            .newer
            .get(record)
            .or_else(|| generations.older.get(record))?;
        (value > &written.beginning[..] && !value.starts_with(&written.beginning)).then_some(written.sequence)
    }

    /// What is there now is not known.
    pub fn forget(&self, record: &RecordName) {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(record);
    }
}

impl Generations {
    fn forget(&mut self, record: &RecordName) {
        self.newer.remove(record);
        self.older.remove(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(beginning: u8, rest: &[u8]) -> Vec<u8> {
        [&[beginning; BEGINNING], rest].concat()
    }

    #[test]
    fn only_what_is_larger_for_certain_replaces_without_a_look() {
        let (known, one) = (Known::default(), (1, [1; 16]));
        assert_eq!(known.replaced_by(&one, &value(9, b"")), None, "never written");
        known.wrote(one, &value(5, b"b"), 7);
        assert_eq!(known.replaced_by(&one, &value(6, b"")), Some(7));
        for not_certain in [&value(5, b"c")[..], &value(5, b"a"), &value(4, b""), b"\x05\x05", b""] {
            assert_eq!(known.replaced_by(&one, not_certain), None, "{not_certain:?}");
        }
        assert_eq!(known.replaced_by(&one, b"\x06"), Some(7), "short and larger");
        assert_eq!(
            known.replaced_by(&(2, [1; 16]), &value(6, b"")),
            None,
            "of another section"
        );
        known.wrote(one, b"short", 8);
        assert_eq!(known.replaced_by(&one, &value(9, b"")), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Known::default();
        let name = |n: usize| (0, (n as u128).to_be_bytes());
        for n in 0..3 * RECORDS {
            known.wrote(name(n), &value(1, b""), n as u64);
        }
        let is_known = |n: usize| known.replaced_by(&name(n), &value(2, b"")) == Some(n as u64);
        assert!(is_known(3 * RECORDS - 1) && is_known(RECORDS) && !is_known(RECORDS - 1));
        known.forget(&name(RECORDS));
        assert!(!is_known(RECORDS));
    }
}
