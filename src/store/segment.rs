//! The memory of a segment: heap or mapped file behind one face. All unsafe code of the store stands here.
//!
//! One thread writes a segment, through `&mut`; whoever else looks at the file (the kernel, an inspecting process) sees a record's first
//! word only after the rest of it.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Mmap, MmapMut};

/// Bytes that are a multiple of 8 long and begin at a multiple of 8. Reads as a slice.
pub struct Segment(Memory);

enum Memory {
    Heap(Box<[u64]>),
    Written(MmapMut),
    Read(Mmap),
}

impl Segment {
    /// Zeroed memory of the heap; `size` is a multiple of 8.
    pub fn heap(size: usize) -> Self {
        assert!(size.is_multiple_of(8));
        Self(Memory::Heap(vec![0; size / 8].into_boxed_slice()))
    }

    /// A file that is to be written. The mapping must be of a file that nobody else writes and nobody makes shorter: the data
    /// directory's lock sees to the first, and the guard of `sys::bus` catches the second.
    pub fn written(map: MmapMut) -> Self {
        assert!(map.len().is_multiple_of(8));
        Self(Memory::Written(map))
    }

    /// A file that is only read; the same holds.
    pub fn read(map: Mmap) -> Self {
        assert!(map.len().is_multiple_of(8));
        Self(Memory::Read(map))
    }

    /// No more is written to it; a mapping is made read-only, so that a stray write is caught by the kernel.
    pub fn freeze(self) -> io::Result<Self> {
        Ok(Self(match self.0 {
            Memory::Written(map) => Memory::Read(map.make_read_only()?),
            memory => memory,
        }))
    }

    /// Puts bytes there.
    #[inline]
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Puts zeros there.
    #[inline]
    pub fn clear(&mut self, at: usize, len: usize) {
        self.bytes_mut()[at..at + len].fill(0);
    }

    /// Puts a word there after everything that was written before; `at` is a multiple of 8.
    #[inline]
    pub fn publish(&mut self, at: usize, word: u64) {
        let place = &mut self.bytes_mut()[at..at + 8];
        assert!(at.is_multiple_of(8));
        // SAFETY: `place` is 8 bytes that only this call may use, at a multiple of 8: the memory begins at one, and so does `at`.
        let atomic = unsafe { AtomicU64::from_ptr(place.as_mut_ptr().cast()) };
        atomic.store(word.to_le(), Ordering::Release);
    }

    /// The word there, before anything that is read after it; `at` is a multiple of 8.
    #[inline]
    pub fn word(&self, at: usize) -> u64 {
        let place = &self[at..at + 8];
        assert!(at.is_multiple_of(8));
        let atomic: *const AtomicU64 = place.as_ptr().cast();
        // SAFETY: 8 readable bytes at a multiple of 8, and a load writes nothing (of a read-only page neither: it is one plain move).
        let word = unsafe { (*atomic).load(Ordering::Acquire) };
        u64::from_le(word)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Heap(words) => {
                // SAFETY: the words are initialised memory of 8 times as many bytes, and any byte is a byte.
                unsafe {
                    std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 8)
                }
            }
            Memory::Written(map) => map,
            Memory::Read(_) => panic!("a frozen segment is not written"),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} bytes)", self.len())
    }
}

impl Deref for Segment {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Heap(words) => {
                // SAFETY: as in `bytes_mut`.
                unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) }
            }
            Memory::Written(map) => map,
            Memory::Read(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut segment = Segment::heap(64);
        segment.write(9, b"abc");
        segment.publish(16, 0x0102_0304_0506_0708);
        assert_eq!(
            &segment[8..24],
            b"\0abc\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01"
        );
        assert_eq!(segment.word(16), 0x0102_0304_0506_0708);
        segment.clear(9, 2);
        assert_eq!(&segment[8..12], b"\0\0\0c");
        assert_eq!(segment.freeze().unwrap().len(), 64);
    }

    #[test]
    fn a_mapping_reads_back_and_freezes() {
        let mut segment = Segment::written(MmapMut::map_anon(4096).unwrap());
        segment.write(0, b"x");
        segment.publish(8, 1);
        let segment = segment.freeze().unwrap();
        assert_eq!((segment[0], segment.word(8)), (b'x', 1));
    }
}
