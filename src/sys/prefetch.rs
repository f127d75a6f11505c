//! Memory that will be needed soon is asked for early, so that it comes while there is other work.
//!
//! A hint and nothing else: no address is wrong, and no result depends on it. The kernel's way of a packet leaves the caches with its own data, so
//! that what a message needs of ours comes from far away, one thing after the other; each wait is as long as 200 instructions.

/// Where the elements of a list begin, for elements that can't be looked at without waiting for them. Old news is harmless.
#[derive(Clone, Copy, Debug)]
pub struct List<T> {
    begin: *const T,
}

// SAFETY: the address is never read from or written to; it is only told to `line`.
unsafe impl<T> Send for List<T> {}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            begin: std::ptr::null(),
        }
    }
}

impl<T> List<T> {
    /// The list in which `element` stands at `index`.
    pub fn with(element: &T, index: usize) -> Self {
        Self {
            begin: std::ptr::from_ref(element).wrapping_sub(index),
        }
    }

    /// The element at `index` will be needed.
    pub fn element(&self, index: usize) {
        line(self.begin.wrapping_add(index));
    }
}

/// The beginning of `what` will be needed: its first cache line.
pub fn read<T>(what: &T) {
    line(std::ptr::from_ref(what));
}

/// Asks for the cache line at an address.
fn line<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it neither reads nor faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_their_own_addresses() {
        let list = [[0_u64; 8]; 5];
        let known = List::with(&list[3], 3);
        assert_eq!(known.begin, list.as_ptr());
        // No address is wrong.
        (0..1 << 20).for_each(|index| known.element(index));
        List::<u64>::default().element(7);
        read(&list[4]);
    }
}
