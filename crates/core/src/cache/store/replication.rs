//! What replication reads: digests, components, and how much there is.

use super::Cache;
use crate::cache::component::{Component, Part, Position, Span};
use crate::cache::delta::Delta;
use crate::cache::hash::{KeyHash, Partition};
use crate::cache::stamp::Millis;
use crate::cache::state::State;
use crate::cache::table::{Digest, Entry, PartitionStats};

impl Cache {
    /// All components in the span, sorted. Of a whole partition their hashes add up (wrapping) to its digest.
    pub fn components(&self, span: Span) -> Vec<Component> {
        let mut found = Vec::new();
        self.visit(span, |_| false, |_, component, _| found.push(component));
        found.sort_unstable();
        found
    }

    /// The hashes of all components of a partition, in any order.
    pub fn component_hashes(&self, partition: Partition) -> Vec<u64> {
        let mut found = Vec::new();
        let span = Span::of(partition);
        self.visit(span, |_| false, |_, component, _| found.push(component.hash));
        found
    }

    /// Writes out the components in the span whose hash `wanted` accepts, each as one delta that brings it to a
    /// cache that lacks it, but for what the next sweep drops ([`Cache::deltas`]). Both functions are called with the
    /// partition locked.
    pub fn select(&self, span: Span, wanted: impl FnMut(u64) -> bool, mut emit: impl FnMut(Delta<&[u8]>)) {
        self.select_components(span, wanted, |_, delta| emit(delta));
    }

    /// As [`Cache::select`], with the component that each delta is of.
    pub fn select_components(
        &self,
        span: Span,
        mut wanted: impl FnMut(u64) -> bool,
        mut emit: impl FnMut(Component, Delta<&[u8]>),
    ) {
        let moment = self.latest_moment();
        let forgotten = |state: State<'_>| state.is_forgotten(moment);
        self.visit(span, forgotten, |key, component, part| {
            if !wanted(component.hash) {
                return;
            }
            let change = part.change();
            emit(component, Delta { key, change });
        });
    }

    /// Shows the components in the span with their keys, key after key, but for keys that `skip` names.
    fn visit(&self, span: Span, skip: impl Fn(State<'_>) -> bool, mut show: impl FnMut(&[u8], Component, Part<'_>)) {
        self.tables.visit(span.partition(), |entry| {
            let key = entry.key();
            let hash = KeyHash::of(key);
            let Some(elements) = span.elements(hash) else {
                return;
            };
            let state = self.tables.state(entry);
            if skip(state) {
                return;
            }
            state.parts(|part| {
                let element = part.element();
                if elements.contains(&element) {
                    let position = Position {
                        key: hash.path(),
                        element,
                    };
                    let hash = part.hash(hash);
                    show(key, Component { position, hash }, part);
                }
            });
        });
    }

    /// Digest of one partition.
    pub fn digest(&self, partition: Partition) -> Digest {
        self.tables.stats(partition).digest()
    }

    /// Digest of the whole cache: the wrapping sum over all partitions.
    pub fn root_digest(&self) -> Digest {
        self.tables.all_stats().iter().map(PartitionStats::digest).sum()
    }

    /// When a partition last changed, as the caller's wall clock said.
    pub fn changed_at(&self, partition: Partition) -> Millis {
        self.tables.stats(partition).changed_at()
    }

    /// The digest of the whole cache, computed anew from the state. For tests and diagnosis.
    pub fn recomputed_digest(&self) -> Digest {
        let of_entry = |entry: &Entry| Digest(self.tables.state(entry).digest(KeyHash::of(entry.key())));
        let mut digests = Vec::new();
        Partition::all().for_each(|partition| self.tables.visit(partition, |entry| digests.push(of_entry(entry))));
        digests.into_iter().sum()
    }

    /// Number of keys that hold data.
    pub fn keys(&self) -> u64 {
        self.tables
            .all_stats()
            .iter()
            .map(PartitionStats::keys)
            .fold(0, u64::wrapping_add)
    }

    /// Number of keys of a partition that hold data.
    pub fn keys_in(&self, partition: Partition) -> u64 {
        self.tables.stats(partition).keys()
    }

    /// Number of entries in memory, tombstones included.
    pub fn entries(&self) -> usize {
        self.tables.entries()
    }
}
