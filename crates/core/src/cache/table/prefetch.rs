//! Asking the processor for memory before it is needed.

use std::collections::VecDeque;

/// For so many elements memory is asked for at once, and before it is needed: about as many requests as a core has
/// under way at once. To ask takes time too, since a processor waits until it has looked up the page; but it looks up
/// several pages at a time if the requests come one after the other, without other work between them.
pub(super) const AT_ONCE: usize = 8;

/// Asks for the memory at `address`, which need not be valid.
#[allow(unsafe_code)]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, of which the processor ignores any address that it cannot read: so callers need not keep it
    // valid. It is part of every x86_64 (SSE).
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    // Elsewhere the standard library has no stable way to say so.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// All elements in order, each of which `fetch` saw at least [`AT_ONCE`] of them before its turn.
pub(super) fn ahead<T>(elements: impl Iterator<Item = T>, fetch: impl Fn(&T)) -> impl Iterator<Item = T> {
    let mut elements = elements.inspect(fetch).fuse();
    let mut fetched: VecDeque<T> = VecDeque::with_capacity(2 * AT_ONCE);
    std::iter::from_fn(move || {
        if fetched.len() <= AT_ONCE {
            fetched.extend(elements.by_ref().take(2 * AT_ONCE - fetched.len()));
        }
        fetched.pop_front()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_elements_come_in_order() {
        for count in [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 1, 5 * AT_ONCE] {
            assert!(ahead(0..count, |_| ()).eq(0..count));
        }
    }
}
