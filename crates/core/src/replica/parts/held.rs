//! What a cache holds, as repair looks at it: components in spans, their digests, splits and symbols.

use super::sketch::Sketch;
use crate::cache::{Cache, Component, Digest, Partition, Position, Span};
use crate::wire::{RangeSplit, SpanDigest, Symbol};

/// Components per part of a split, about.
const PART_COMPONENTS: usize = 32;

/// Most parts of a split.
const MAX_PARTS: usize = 64;

/// What a cache holds in spans. Those of one partition are asked for one after the other, and it is walked once for all
/// of them.
pub(crate) struct Held<'a> {
    cache: &'a Cache,
    partition: Option<Partition>,
    components: Vec<Component>,
}

impl<'a> Held<'a> {
    pub fn of(cache: &'a Cache) -> Self {
        Held {
            cache,
            partition: None,
            components: Vec::new(),
        }
    }

    /// The components in the span, in order.
    pub fn components(&mut self, span: Span) -> &[Component] {
        let partition = span.partition();
        if self.partition != Some(partition) {
            self.partition = Some(partition);
            self.components = self.cache.components(Span::of(partition));
        }
        let start = self
            .components
            .partition_point(|component| component.position < span.first);
        let end = self
            .components
            .partition_point(|component| component.position <= span.last);
        &self.components[start..end]
    }
}

/// Symbols of all components in the partitions.
pub(crate) fn symbols_of(cache: &Cache, partitions: &[Partition], first: usize, count: usize) -> Vec<Symbol> {
    let mut sketch = Sketch::new(first, count);
    for partition in partitions {
        // Collected first: nobody has to wait for the partition meanwhile.
        for hash in cache.component_hashes(*partition) {
            sketch.add(hash);
        }
    }
    sketch.into_symbols()
}

/// Sum of the component hashes.
pub(crate) fn digest_of(components: &[Component]) -> Digest {
    Digest(
        components
            .iter()
            .fold(0, |sum, component| sum.wrapping_add(component.hash)),
    )
}

/// Cuts a span into parts of about equal numbers of components, given those it holds in order. (Range-based set
/// reconciliation: A. Meyer, "Range-Based Set Reconciliation", SRDS 2023.)
pub(crate) fn split(span: Span, components: &[Component]) -> RangeSplit {
    let parts = (components.len() / PART_COMPONENTS).clamp(1, MAX_PARTS);
    let size = components.len().div_ceil(parts).max(1);
    let mut split = RangeSplit {
        span,
        parts: Vec::with_capacity(parts),
    };
    let mut rest = components;
    while rest.len() > size {
        // Components at one position are not torn apart.
        let cut = rest.partition_point(|component| component.position <= rest[size - 1].position);
        if cut == rest.len() {
            break;
        }
        let (part, tail) = rest.split_at(cut);
        split.parts.push(part_of(part, last_before(tail[0].position)));
        rest = tail;
    }
    split.parts.push(part_of(rest, span.last));
    split
}

fn part_of(components: &[Component], last: Position) -> SpanDigest {
    SpanDigest {
        last,
        digest: digest_of(components),
        count: components.len() as u64,
    }
}

/// The last position before `position`, which is not the first of all: the end of the key before it if it begins one.
fn last_before(position: Position) -> Position {
    match position.element.checked_sub(1) {
        Some(element) => Position { element, ..position },
        None => Position {
            key: position.key.saturating_sub(1),
            element: u64::MAX,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::next_position;

    fn component(key: u64, element: u64) -> Component {
        Component {
            position: Position { key, element },
            hash: key.wrapping_mul(31) ^ element,
        }
    }

    fn check(span: Span, components: &[Component]) -> RangeSplit {
        let split = split(span, components);
        let spans = split.spans().expect("parts that cover the whole");
        assert!(split.parts.len() <= MAX_PARTS);
        for (part, digest) in &spans {
            let inside: Vec<_> = components
                .iter()
                .filter(|c| part.contains(c.position))
                .copied()
                .collect();
            assert_eq!((digest_of(&inside), inside.len() as u64), (digest.digest, digest.count));
        }
        assert_eq!(
            spans.iter().map(|(_, part)| part.count).sum::<u64>(),
            components.len() as u64
        );
        split
    }

    #[test]
    fn parts_cover_the_span_and_are_about_equal() {
        let span = Span::of(Partition(3));
        assert_eq!(check(span, &[]).parts.len(), 1);
        let many: Vec<_> = (0..1_000).map(|n| component(span.first.key + n * 7, 0)).collect();
        let parts = check(span, &many).parts;
        assert!((20..=32).contains(&parts.len()), "{}", parts.len());
        assert!(parts.iter().all(|part| part.count <= 40));
    }

    #[test]
    fn one_large_key_is_split_inside_and_one_position_never() {
        let span = Span::of(Partition(3));
        let set: Vec<_> = (0..100_000).map(|n| component(span.first.key + 5, n * 3)).collect();
        assert_eq!(check(span, &set).parts.len(), MAX_PARTS);
        let same: Vec<_> = (0..500).map(|_| component(span.first.key + 5, 9)).collect();
        assert_eq!(check(span, &same).parts.len(), 1);
    }

    #[test]
    fn the_position_after_the_last_before_is_the_position() {
        for position in [Position { key: 5, element: 0 }, Position { key: 5, element: 9 }] {
            assert_eq!(next_position(last_before(position)), Some(position));
        }
    }
}
