//! Sketches of sets: a rateless invertible Bloom lookup table over component hashes. (L. Yang, Y. Gilad, M. Alizadeh,
//! "Practical Rateless Set Reconciliation", SIGCOMM 2024.)
//!
//! Each item of a set is mixed into some of an endless row of symbols: into the first one, and into the one with index
//! i with probability 1 / (1 + i/2). Two nodes that mix their sets into the same symbols find what the sets do not have
//! in common from the differences of the symbols, if there are about 1.4 symbols per such item. More symbols can be
//! asked for; those that are there stay good.
//!
//! The items are component hashes, which are as good as random already.

use crate::cache::Digest;
use crate::wire::{Symbol, MAX_SYMBOLS};

impl Symbol {
    fn of(item: u64, count: i16) -> Self {
        Symbol {
            sum: item,
            check: check(item),
            count,
        }
    }

    fn add(&mut self, other: Symbol) {
        self.sum ^= other.sum;
        self.check ^= other.check;
        self.count = self.count.wrapping_add(other.count);
    }

    fn is_empty(&self) -> bool {
        *self == Symbol::default()
    }

    /// Whether this is a single item.
    fn is_single(&self) -> bool {
        self.count.unsigned_abs() == 1 && self.check == check(self.sum)
    }
}

/// How many symbols to begin with for about `differing` items in one set only; `None` if that is too many. Fewer than
/// one sketch of a hundred then is too small; a small one needs more per item than a large one.
pub(crate) fn symbols_for(differing: f64) -> Option<usize> {
    at_most(differing * 1.5 + 30.0)
}

/// What needs that many symbols; `None` if that is too many, or no number at all.
fn at_most(symbols: f64) -> Option<usize> {
    (symbols <= MAX_SYMBOLS as f64).then_some(symbols as usize)
}

/// How many items differ, about, if they are spread over `all` partitions by chance and make `differing` of these
/// differ.
pub(crate) fn spread_over(differing: usize, all: usize) -> f64 {
    let all = all as f64;
    -all * (1.0 - differing as f64 / all).ln()
}

/// A one-to-one mapping in which every bit of the result depends on every bit of `word`: the last step of SplitMix64.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn check(item: u64) -> u32 {
    (mix(item) >> 32) as u32
}

/// A digest in 4 bytes. Two digests that are shortened to the same by one request are not by the next one, most likely.
pub(crate) fn shortened(digest: Digest, request: u64) -> u32 {
    (mix(digest.0.wrapping_add(mix(request))) >> 32) as u32
}

/// The indices of the symbols below `end` that an item is mixed into, in ascending order.
///
/// Only operations are used that IEEE 754 defines to the last bit, so the indices are the same on all machines.
fn indices(item: u64, end: usize) -> impl Iterator<Item = usize> {
    let mut state = item;
    let following = move |index: &usize| {
        state = state.wrapping_mul(0xda94_2042_e4dd_58b5);
        let step = (*index as f64 + 1.5) * ((1u64 << 32) as f64 / (state as f64 + 1.0).sqrt() - 1.0);
        // A step is at most about 2^32 times the index, but 0 if the division rounds to 1.
        Some(index.saturating_add(step.ceil().max(1.0) as usize))
    };
    std::iter::successors(Some(0), following).take_while(move |index| *index < end)
}

/// Symbols of one set, from some index on.
pub(crate) struct Sketch {
    first: usize,
    symbols: Vec<Symbol>,
}

impl Sketch {
    /// The symbols `first..first + count` of the empty set.
    pub fn new(first: usize, count: usize) -> Self {
        Sketch {
            first,
            symbols: vec![Symbol::default(); count],
        }
    }

    /// Mixes an item in.
    pub fn add(&mut self, item: u64) {
        let symbol = Symbol::of(item, 1);
        for index in indices(item, self.first + self.symbols.len()) {
            if let Some(place) = index.checked_sub(self.first) {
                self.symbols[place].add(symbol);
            }
        }
    }

    /// The symbols.
    pub fn into_symbols(self) -> Vec<Symbol> {
        self.symbols
    }
}

/// What two sets do not have in common.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Difference {
    /// Only in the set of the peer.
    pub there: Vec<u64>,
    /// Only in the own set.
    pub here: Vec<u64>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.there.is_empty() && self.here.is_empty()
    }
}

/// Finds the difference from the symbols of a peer and the own ones, both from index 0 on. If they are too few for
/// that, it tells how many items differ, about.
///
/// Symbols of a peer may hold anything. Each step ends with one symbol empty, and there are no more steps than symbols.
pub(crate) fn decode(theirs: &[Symbol], ours: &[Symbol]) -> Result<Difference, f64> {
    let negative = |symbol: &Symbol| Symbol {
        count: symbol.count.wrapping_neg(),
        ..*symbol
    };
    let mut symbols = theirs.to_vec();
    for (symbol, own) in symbols.iter_mut().zip(ours) {
        symbol.add(negative(own));
    }
    let differing = estimate(&symbols);
    let mut difference = Difference::default();
    let mut singles: Vec<usize> = (0..symbols.len()).filter(|place| symbols[*place].is_single()).collect();
    let mut steps = 0;
    while let Some(place) = singles.pop() {
        let single = symbols[place];
        if !single.is_single() {
            continue;
        }
        if steps == symbols.len() {
            return Err(differing);
        }
        steps += 1;
        match single.count {
            1 => difference.there.push(single.sum),
            _ => difference.here.push(single.sum),
        }
        let taken = negative(&single);
        for index in indices(single.sum, symbols.len()) {
            symbols[index].add(taken);
            if symbols[index].is_single() {
                singles.push(index);
            }
        }
        // An item that stands where it was not mixed in.
        if !symbols[place].is_empty() {
            return Err(differing);
        }
    }
    match symbols.iter().all(Symbol::is_empty) {
        true => Ok(difference),
        false => Err(differing),
    }
}

/// How many items are in one of the sets only, about. Each adds 1 or -1 to the count of a symbol with a known
/// probability, so how far the counts are from what is to be expected tells their number.
fn estimate(symbols: &[Symbol]) -> f64 {
    let net = symbols.first().map_or(0.0, |symbol| f64::from(symbol.count));
    let (mut squares, mut variances) = (0.0, 0.0);
    for (index, symbol) in symbols.iter().enumerate().skip(1) {
        let chance = 1.0 / (1.0 + index as f64 / 2.0);
        squares += (f64::from(symbol.count) - net * chance).powi(2);
        variances += chance * (1.0 - chance);
    }
    squares / f64::max(variances, 1.0)
}

/// How many symbols to go on to if `have` were not enough and about `differing` items differ; `None` if that is too
/// many. The estimate may be a quarter too low.
pub(crate) fn more_symbols(have: usize, differing: f64) -> Option<usize> {
    at_most(f64::max(differing * 2.0 + 30.0, have as f64 * 4.0 / 3.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn symbols(items: &[u64], first: usize, count: usize) -> Vec<Symbol> {
        let mut sketch = Sketch::new(first, count);
        items.iter().for_each(|item| sketch.add(*item));
        sketch.into_symbols()
    }

    /// Numbers that look random and are distinct.
    fn items(seed: u64, count: usize) -> Vec<u64> {
        (1..=count as u64).map(|n| mix((seed << 32) + n)).collect()
    }

    fn sorted(mut items: Vec<u64>) -> Vec<u64> {
        items.sort_unstable();
        items
    }

    fn found(there: &[u64], here: &[u64], count: usize) -> Result<Difference, f64> {
        let found = decode(&symbols(there, 0, count), &symbols(here, 0, count))?;
        Ok(Difference {
            there: sorted(found.there),
            here: sorted(found.here),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn two_symbols_per_difference_are_enough(seed in 0u64..1 << 31, common in 0usize..2_000, there in 0usize..300,
            here in 0usize..300) {
            let all = items(seed, common + there + here);
            let (theirs, ours) = (&all[..common + there], [&all[..common], &all[common + there..]].concat());
            let expected = Difference {
                there: sorted(all[common..common + there].to_vec()),
                here: sorted(all[common + there..].to_vec()),
            };
            let count = 2 * (there + here) + 40;
            prop_assert_eq!(found(theirs, &ours, count), Ok(expected));
        }

        #[test]
        fn symbols_of_a_stranger_end_somehow(mut symbols in prop::collection::vec((0u64..4, 0u32..2, -2i16..3), 0..64)) {
            // Small numbers, and the checks that fit, so that much of it looks like single items.
            let symbol = |(sum, fits, count): (u64, u32, i16)| Symbol { sum, check: check(sum) * fits, count };
            let theirs: Vec<Symbol> = symbols.drain(..).map(symbol).collect();
            if let Ok(difference) = decode(&theirs, &[]) {
                prop_assert!(difference.there.len() + difference.here.len() <= theirs.len());
            }
        }
    }

    #[test]
    fn the_first_symbols_for_an_estimate_are_nearly_always_enough() {
        for differing in [1, 2, 10, 40, 100, 200, 1_000] {
            let count = symbols_for(differing as f64).expect("not many");
            let failed = (0..200).filter(|run| {
                let all = items(*run, differing);
                let (there, here) = all.split_at(differing / 2);
                found(there, here, count).is_err()
            });
            assert!(failed.count() <= 4, "{differing} items, {count} symbols");
        }
        assert_eq!(symbols_for(1e12), None);
        assert_eq!(symbols_for(f64::INFINITY), None);
        assert_eq!(symbols_for(f64::NAN), None);
    }

    #[test]
    fn too_few_symbols_tell_how_many_are_needed() {
        for differing in [500, 1_500] {
            let all = items(1, differing);
            let (there, here) = all.split_at(differing / 2);
            let estimate = found(there, here, 100).expect_err("far too few");
            let next = more_symbols(100, estimate).expect("not too many");
            assert!(next < 4 * differing, "{next} for {differing}");
            // Those that were there stay good.
            let mut theirs = symbols(there, 0, 100);
            theirs.extend(symbols(there, 100, next - 100));
            assert_eq!(theirs, symbols(there, 0, next));
            let found = decode(&theirs, &symbols(here, 0, next)).expect("enough");
            assert_eq!(sorted(found.there), sorted(there.to_vec()));
        }
        assert_eq!(more_symbols(300, 10.0), Some(400));
        assert_eq!(more_symbols(4_000, 10.0), None);
        assert_eq!(more_symbols(100, 1e9), None);
    }

    #[test]
    fn an_item_whose_check_does_not_fit_is_no_item() {
        let mut theirs = symbols(&items(1, 1), 0, 32);
        theirs
            .iter_mut()
            .for_each(|symbol| symbol.check ^= u32::from(!symbol.is_empty()));
        assert!(decode(&theirs, &[]).is_err());
    }

    #[test]
    fn differing_items_are_estimated_from_differing_partitions() {
        assert_eq!(spread_over(0, 1_024), 0.0);
        assert!((1.0..1.001).contains(&spread_over(1, 1_024)));
        assert!((99.0..101.0).contains(&spread_over(95, 1_024)));
        assert_eq!(spread_over(1_024, 1_024), f64::INFINITY);
    }

    /// The vectors of docs/PROTOCOL.md.
    #[test]
    fn the_published_symbols_hold() {
        let published = include_str!("../../../../../docs/PROTOCOL.md")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let expect = |text: String| assert!(published.contains(&text), "{text}");
        for item in [0x4ccc_961c_8e29_d7ef, 0x8654_10b1_5e42_73d6] {
            let indices: Vec<String> = indices(item, 1_000).map(|index| index.to_string()).collect();
            expect(format!(
                "| `{item:016x}` | `{:08x}` | {} |",
                check(item),
                indices.join(", ")
            ));
        }
        expect(format!(
            "digest `4ccc961c8e29d7ef` in request 9 is `{:08x}`",
            shortened(Digest(0x4ccc_961c_8e29_d7ef), 9)
        ));
    }
}
