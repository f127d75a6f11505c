//! The memory of a segment: heap or mapped file behind one face. All unsafe code of the store stands here.
//!
//! One thread writes a segment, through `&mut`; whoever else looks at the file (the kernel, an inspecting process) sees a record's first
//! word only after the rest of it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions, UncheckedAdvice};

use crate::sys::bus::Watched;

/// Bytes that are a multiple of 8 long and begin at a multiple of 8. Reads as a slice.
pub struct Segment {
    /// Stands before the memory, so that it is dropped before.
    watched: Option<Watched>,
    frozen: bool,
    memory: Memory,
}

enum Memory {
    Heap(Box<[u64]>),
    Written(MmapMut),
    Read(Mmap),
}

impl Segment {
    /// Zeroed memory of the heap; `size` is a multiple of 8.
    pub fn heap(size: usize) -> Self {
        assert!(size.is_multiple_of(8));
        Self {
            watched: None,
            frozen: false,
            memory: Memory::Heap(vec![0; size / 8].into_boxed_slice()),
        }
    }

    /// A file that is written through its mapping, up to the last multiple of 8. The file must stay as long as it is, and nobody else may
    /// write it: the data directory's lock sees to that among servers, and a page that is cut off all the same becomes zeros
    /// ([`crate::sys::bus`]). The file may be closed.
    pub fn map(file: &File) -> io::Result<Self> {
        let len = length(file)?;
        if len == 0 {
            return Ok(Self::heap(0));
        }
        // SAFETY: the memory is only used through this type, which lends it as `&` and `&mut` as any buffer. That the file is not changed
        // from outside is the data directory's promise; bytes that change all the same are data whose checksum is looked at, never
        // lengths that are believed.
        let map = unsafe { MmapOptions::new().len(len).map_mut(file)? };
        Ok(Self {
            watched: Some(Watched::new(&map)?),
            frozen: false,
            memory: Memory::Written(map),
        })
    }

    /// A file that is only read, here; a server may go on writing it.
    pub fn view(file: &File) -> io::Result<Self> {
        let len = length(file)?;
        if len == 0 {
            return Ok(Self::heap(0));
        }
        // SAFETY: as in `map`. A writer beside writes only behind what has been read as written (`Segment::word`).
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        Ok(Self {
            watched: Some(Watched::new(&map)?),
            frozen: true,
            memory: Memory::Read(map),
        })
    }

    /// Has every page of a mapping ready for writing, so that the writer waits for none. An error: the file system has no room for it.
    pub fn populate(&self) -> io::Result<()> {
        match &self.memory {
            Memory::Written(map) => map.advise(Advice::PopulateWrite),
            _ => Ok(()),
        }
    }

    /// No more is written to it; a mapping is made read-only, so that a stray write is caught by the kernel.
    pub fn freeze(&mut self) {
        self.frozen = true;
        if let Memory::Written(map) = &mut self.memory {
            // SAFETY: the whole of a mapping that is ours, and from here on `bytes_mut` hands none of it out. If it fails, it stays as it was.
            unsafe { libc::mprotect(map.as_mut_ptr().cast(), map.len(), libc::PROT_READ) };
        }
    }

    /// Has everything that was written to a mapping on the disk when it returns.
    pub fn flush(&self) -> io::Result<()> {
        match &self.memory {
            Memory::Written(map) => map.flush(),
            _ => Ok(()),
        }
    }

    /// The pages of a mapping are the page cache's again, not this process's, until they are looked at.
    pub fn let_go(&self) {
        // SAFETY: a shared mapping of a file: the pages that come back are the file's, and what was written is in them. A page that the
        // guard had made zeros is so again.
        _ = unsafe {
            match &self.memory {
                Memory::Heap(_) => Ok(()),
                Memory::Written(map) => map.unchecked_advise(UncheckedAdvice::DontNeed),
                Memory::Read(map) => map.unchecked_advise(UncheckedAdvice::DontNeed),
            }
        };
    }

    /// Whether a page of it could not be read or written and has become zeros.
    #[inline]
    pub fn damaged(&self) -> bool {
        self.watched.as_ref().is_some_and(Watched::damaged)
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

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(!self.frozen, "a frozen segment is not written");
        match &mut self.memory {
            Memory::Heap(words) => {
                // SAFETY: the words are initialised memory of 8 times as many bytes, and any byte is a byte.
                unsafe {
                    std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 8)
                }
            }
            Memory::Written(map) => map,
            Memory::Read(_) => unreachable!("it was made frozen"),
        }
    }
}

/// Bytes of a file that can be mapped.
fn length(file: &File) -> io::Result<usize> {
    let len = file.metadata()?.len() & !7;
    usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge.into())
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
        match &self.memory {
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
        segment.freeze();
        assert_eq!(segment.len(), 64);
    }

    #[test]
    fn a_mapping_is_its_file() {
        let path = std::env::temp_dir().join(format!("stillwire-segment-{}", std::process::id()));
        std::fs::write(&path, [1; 8195]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut segment = Segment::map(&file).unwrap();
        assert_eq!(segment.len(), 8192);
        segment.populate().unwrap();
        segment.write(0, b"x");
        segment.publish(8, 2);
        let seen = Segment::view(&file).unwrap();
        assert_eq!((seen[0], seen.word(8), seen[16]), (b'x', 2, 1));
        segment.freeze();
        segment.let_go();
        assert_eq!(&segment[..], &std::fs::read(&path).unwrap()[..8192]);
        // What is cut off reads as zeros, and nothing dies.
        file.set_len(4096).unwrap();
        assert_eq!((segment[4095], segment[4096]), (1, 0));
        assert!(segment.damaged());
        std::fs::remove_file(&path).unwrap();
    }
}
