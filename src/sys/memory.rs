//! Where this process's memory comes from: the allocator, and how the kernel backs it.

use std::alloc::{GlobalAlloc, Layout};
use std::io;

use mimalloc::MiMalloc;

use super::check;

/// mimalloc, asked for an alignment only where it matters.
///
/// Asked for one, mimalloc takes a block of the next size and aligns within it, by a slow path, unless the size is a power of two: 96 bytes became
/// 112, and a quarter of what a QoS 1 delivery costs was spent there. What any block has anyway needs no question.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

/// The alignment of every block that is at least as large (`MI_MAX_ALIGN_SIZE`).
const MI_ALIGNMENT: usize = 16;

impl Allocator {
    /// A block that is not smaller than its alignment has it, up to that of all blocks.
    fn is_plain(layout: Layout) -> bool {
        layout.align() <= MI_ALIGNMENT && layout.align() <= layout.size()
    }
}

// SAFETY: all blocks are mimalloc's, which frees and moves them however they were asked for. A plain block of it is as aligned as the layout asks:
// a block of 16 bytes or more to 16, a smaller one to its own size rounded up to 8.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::is_plain(layout) {
            // SAFETY: any size may be asked for.
            return unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::is_plain(layout) {
            // SAFETY: any size may be asked for.
            return unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise. For 8 and less mimalloc asks for no alignment itself.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

/// Asks for small pages throughout (`PR_SET_THP_DISABLE`).
///
/// The allocator asks for huge pages, which pays for large blocks. A server of small records touches few bytes in many of them: 15,000
/// connections on two reactors took 1,091 bytes each with huge pages and 295 without (2026-11-21).
pub fn use_small_pages() -> io::Result<()> {
    // SAFETY: plain integers, and no memory of ours is passed.
    check(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }).map(drop)
}

/// Has the allocator give the calling thread's free memory back to the system. It does so by itself only while it is at work; a server that
/// a crowd has left is not. Without mimalloc as the global allocator this does nothing.
pub fn give_back() {
    // SAFETY: the call has no precondition; it frees nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_as_aligned_as_it_was_asked_for() {
        let mut blocks = Vec::new();
        for size in (1..300).chain([1 << 10, 5000, 100_000, 3 << 20]) {
            for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the size is not 0, and each block is freed with its layout.
                let (block, zeroed) =
                    unsafe { (Allocator.alloc(layout), Allocator.alloc_zeroed(layout)) };
                assert_eq!((block as usize % align, zeroed as usize % align), (0, 0));
                // SAFETY: `size` bytes are ours.
                let bytes = unsafe { std::slice::from_raw_parts(zeroed, size) };
                assert!(bytes.iter().all(|byte| *byte == 0));
                blocks.push((block, layout));
                blocks.push((zeroed, layout));
            }
        }
        for (block, layout) in blocks {
            let larger = Layout::from_size_align(layout.size() * 2, layout.align()).unwrap();
            // SAFETY: it came from there, with this layout.
            let block = unsafe { Allocator.realloc(block, layout, larger.size()) };
            assert_eq!(block as usize % layout.align(), 0);
            // SAFETY: and now it has this one.
            unsafe { Allocator.dealloc(block, larger) };
        }
    }
}
