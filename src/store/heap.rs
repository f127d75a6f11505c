//! Segments on the heap: a disk for simulations and tests, whose files can be seen as any crash would leave them.

use std::io;
use std::path::Path;

use super::chain::{Chunk, Part};
use super::format::{self, HEAD};
use super::segment::Segment;

/// What a crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process dies, the kernel lives: nothing.
    Process,
    /// The power fails. Of every page that has bytes after the last sync, the seed chooses whether it was written whole, in part, or not;
    /// and whether the last removed file is back.
    Power(u64),
}

/// The files of a log at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// In no particular order.
    pub files: Vec<ImageFile>,
}

/// See [`Image`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Names it.
    pub number: u64,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Image {
    /// Writes the files into a directory, as a server would have.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        for file in &self.files {
            std::fs::write(dir.join(format::file_name(file.number)), &file.bytes)?;
        }
        Ok(())
    }

    /// As segments, and the number of the next.
    pub(super) fn parts(&self) -> (Vec<Part>, u64) {
        let parts = self.files.iter().map(|file| {
            let len = file.bytes.len() & !7;
            let mut segment = Segment::heap(len);
            segment.write(0, &file.bytes[..len]);
            Part {
                segment,
                number: file.number,
                name: format::file_name(file.number),
            }
        });
        let next = self.files.iter().map(|file| file.number + 1).max();
        (parts.collect(), next.unwrap_or(0))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Heap {
    /// Bytes of all segments that may be there.
    limit: u64,
    used: u64,
    /// Number of the next segment.
    next: u64,
    synced: u64,
    wanted: u64,
    held: bool,
    failed: bool,
    /// Given up, and the position that has to be synced before they go.
    leaving: Vec<(Chunk, u64)>,
    /// The last that went: its removal may not have reached the disk.
    ghost: Option<Chunk>,
}

impl Heap {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            next: 0,
            synced: 0,
            wanted: 0,
            held: false,
            failed: false,
            leaving: Vec::new(),
            ghost: None,
        }
    }

    /// Goes on after the files of an image.
    pub(super) fn resume(&mut self, next: u64, chunks: &[Chunk]) {
        self.next = next;
        self.used = chunks.iter().map(|chunk| chunk.segment.len() as u64).sum();
    }

    /// A blank segment of `wanted` bytes, or as many as are needed.
    pub(super) fn take(&mut self, wanted: usize, needed: usize) -> Option<(u64, String, Segment)> {
        let size = wanted.max(needed.next_power_of_two());
        if self.used + size as u64 > self.limit {
            return None;
        }
        self.used += size as u64;
        self.next += 1;
        let number = self.next - 1;
        Some((number, format::file_name(number), Segment::heap(size)))
    }

    /// How many segments of this size could be taken.
    pub(super) fn spares(&self, size: usize) -> usize {
        (self.limit.saturating_sub(self.used) / size as u64) as usize
    }

    pub(super) fn remove(&mut self, chunk: Chunk, after: u64) {
        self.leaving.push((chunk, after));
    }

    pub(super) fn want(&mut self, end: u64) {
        self.wanted = self.wanted.max(end);
        if !self.held {
            self.complete();
        }
    }

    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    pub(super) fn complete(&mut self) {
        self.sync(self.wanted);
    }

    pub(super) fn sync(&mut self, end: u64) {
        if self.failed {
            return;
        }
        self.synced = self.synced.max(end);
        self.wanted = self.wanted.max(end);
        let synced = self.synced;
        for (chunk, _) in self.leaving.extract_if(.., |(_, after)| *after <= synced) {
            self.used -= chunk.segment.len() as u64;
            self.ghost = Some(chunk);
        }
    }

    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The files that a crash now leaves of these segments.
    pub(super) fn image<'a>(
        &'a self,
        chunks: impl Iterator<Item = &'a Chunk>,
        loss: Loss,
    ) -> Image {
        let mut dice = Dice(match loss {
            Loss::Process => 0,
            Loss::Power(seed) => seed,
        });
        let ghost = self
            .ghost
            .iter()
            .filter(|_| loss != Loss::Process && dice.roll().is_multiple_of(2));
        let leaving = self.leaving.iter().map(|(chunk, _)| chunk);
        let all: Vec<&Chunk> = chunks.chain(leaving).chain(ghost).collect();
        let files = all.into_iter().map(|chunk| {
            let mut bytes = chunk.segment.to_vec();
            if let Loss::Power(_) = loss {
                self.lose(chunk.base, &mut bytes, &mut dice);
            }
            ImageFile {
                number: chunk.number,
                bytes,
            }
        });
        Image {
            files: files.collect(),
        }
    }

    /// Takes back what was not synced, as the dice fall.
    fn lose(&self, base: u64, bytes: &mut [u8], dice: &mut Dice) {
        const PAGE: usize = 4096;
        const SECTOR: usize = 512;
        let len = bytes.len();
        let safe =
            usize::try_from(self.synced.saturating_sub(base)).map_or(len, |safe| safe.min(len));
        // What is written over once it has been synced comes out the same, so only what was zero can be lost. The heads were written when
        // the segment was begun.
        let end = if safe > 0 { len - HEAD } else { len };
        for page in (safe / PAGE * PAGE..len).step_by(PAGE) {
            let fate = dice.roll() % 3;
            for sector in (page..len.min(page + PAGE)).step_by(SECTOR) {
                let lost = match fate {
                    0 => false,
                    1 => true,
                    _ => dice.roll().is_multiple_of(2),
                };
                let from = sector.max(safe);
                let to = (sector + SECTOR).min(end);
                if lost && from < to {
                    bytes[from..to].fill(0);
                }
            }
        }
    }
}

/// A small generator (splitmix64): the same seed, the same crash.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
