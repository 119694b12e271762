//! Asking the processor for memory before it is needed.

use std::collections::VecDeque;

/// How far ahead of the element at hand memory is asked for: about as many fetches as a core has under way at once.
pub(super) const AHEAD: usize = 16;

/// Asks for the memory at `address`, which need not be valid.
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing and is part of every x86_64.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    // Elsewhere the standard library has no stable way to say so.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// All elements in order, each of which `fetch` saw [`AHEAD`] of them before its turn.
pub(super) fn ahead<T>(elements: impl Iterator<Item = T>, fetch: impl Fn(&T)) -> impl Iterator<Item = T> {
    let mut elements = elements.inspect(fetch);
    let mut fetched: VecDeque<T> = elements.by_ref().take(AHEAD).collect();
    std::iter::from_fn(move || {
        let next = fetched.pop_front()?;
        fetched.extend(elements.next());
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_elements_come_in_order() {
        for count in [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD] {
            assert!(ahead(0..count, |_| ()).eq(0..count));
        }
    }
}
