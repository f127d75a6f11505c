//! Text stored once and compactly: a string costs its length, two bytes, and rounding up to four.
//!
//! An arena may keep a few bytes of its owner's before each string (`HEAD`): what is wanted together with the text then lies in its cache line.
//!
//! Memory comes in chunks and never moves, so growing copies nothing. A freed block goes to the list of its size and is used again; a chunk
//! whose last string goes is given back whole. The arena does not look for equal strings; that is its owner's business.

use std::collections::BTreeMap;

use crate::limits::{ARENA_CHUNK_BYTES, CLIENT_ID_BYTES, MAX_TOPIC_BYTES};
use crate::sys::prefetch;
use crate::sys::text::plain;

/// Blocks are counted and addressed in units of this many bytes, so that 32 bits reach 16 GB.
const UNIT: usize = 4;
const CHUNK_UNITS: u32 = (ARENA_CHUNK_BYTES / UNIT) as u32;
/// The smallest block: it has to hold size and links when it is free.
const MIN_UNITS: u32 = 3;
/// Free blocks below this size have their list in an array; larger ones, rare, in a tree.
const SMALL: usize = 64;
const NONE: u32 = u32::MAX;

/// Where a string is. The default stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrRef(pub(super) u32);

/// The strings, each with a head of so many bytes.
#[derive(Debug)]
pub struct Arena<const HEAD: usize = 0> {
    /// None: given back; the number waits in `vacant`.
    chunks: Vec<Option<Chunk>>,
    vacant: Vec<u32>,
    /// The chunk that new blocks are cut from.
    current: u32,
    /// First free block by size in units.
    small: [u32; SMALL],
    /// Bit `i`: `small[i]` has a block.
    small_filled: u64,
    large: BTreeMap<u32, u32>,
    used_units: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Box<[u8]>,
    /// Units from the start that have been cut into blocks.
    cut: u32,
    /// Blocks in use.
    live: u32,
}

/// A free block's own words: its size in units and its neighbours in the list of that size.
#[derive(Clone, Copy)]
struct Free {
    units: u32,
    next: u32,
    prev: u32,
}

impl<const HEAD: usize> Default for Arena<HEAD> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            vacant: Vec::new(),
            current: NONE,
            small: [NONE; SMALL],
            small_filled: 0,
            large: BTreeMap::new(),
            used_units: 0,
        }
    }
}

const _: () = assert!(Arena::<0>::bytes_for(12) == CLIENT_ID_BYTES);

impl Arena<0> {
    /// Stores a string.
    ///
    /// # Panics
    /// When it is longer than [`MAX_TOPIC_BYTES`], or the arena has 16 GB.
    pub fn insert(&mut self, text: &[u8]) -> StrRef {
        self.insert_with([], text)
    }
}

impl<const HEAD: usize> Arena<HEAD> {
    /// Stores a string and its head.
    ///
    /// # Panics
    /// When it is longer than [`MAX_TOPIC_BYTES`], or the arena has 16 GB.
    pub fn insert_with(&mut self, head: [u8; HEAD], text: &[u8]) -> StrRef {
        assert!(text.len() <= MAX_TOPIC_BYTES, "{} bytes", text.len());
        let units = Self::units_for(text.len());
        let at = self.take(units);
        self.used_units += units as usize;
        let chunk = self.chunk_mut(at);
        chunk.live += 1;
        let offset = offset(at);
        let (len, rest) = chunk.bytes[offset..].split_at_mut(2);
        len.copy_from_slice(&(text.len() as u16).to_le_bytes());
        rest[..HEAD].copy_from_slice(&head);
        rest[HEAD..HEAD + text.len()].copy_from_slice(text);
        StrRef(at)
    }

    /// The string.
    pub fn get(&self, at: StrRef) -> &[u8] {
        let bytes = &self.chunk(at.0).bytes[offset(at.0)..];
        let len = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        &bytes[2 + HEAD..2 + HEAD + len]
    }

    /// A string will be looked at.
    pub fn expect(&self, at: StrRef) {
        prefetch::read(&self.chunk(at.0).bytes[offset(at.0)]);
    }

    /// The head of a string.
    pub fn head(&self, at: StrRef) -> [u8; HEAD] {
        let bytes = &self.chunk(at.0).bytes[offset(at.0) + 2..];
        bytes[..HEAD].try_into().expect("so many bytes")
    }

    /// Another head for a string.
    pub fn set_head(&mut self, at: StrRef, head: [u8; HEAD]) {
        let offset = offset(at.0) + 2;
        self.chunk_mut(at.0).bytes[offset..offset + HEAD].copy_from_slice(&head);
    }

    /// The string, where only text was put in.
    ///
    /// # Panics
    /// When it is not UTF-8: then `at` is stale.
    pub fn text(&self, at: StrRef) -> &str {
        let bytes = self.get(at);
        plain(bytes)
            .or_else(|| std::str::from_utf8(bytes).ok())
            .expect("an arena of text holds text")
    }

    /// Forgets a string.
    pub fn remove(&mut self, at: StrRef) {
        let units = Self::units_for(self.get(at).len());
        self.used_units -= units as usize;
        self.push_free(at.0, units);
        let chunk = self.chunk_mut(at.0);
        chunk.live -= 1;
        if chunk.live == 0 {
            self.empty_chunk(at.0 / CHUNK_UNITS);
        }
    }

    /// Bytes taken from the allocator.
    pub fn reserved(&self) -> usize {
        (self.chunks.len() - self.vacant.len()) * ARENA_CHUNK_BYTES
            + self.chunks.capacity() * size_of::<Option<Chunk>>()
    }

    /// Bytes of the blocks in use.
    pub fn used(&self) -> usize {
        self.used_units * UNIT
    }

    /// A block of exactly this size: a free one, a new one, or, before a chunk is added, one cut from a larger.
    fn take(&mut self, units: u32) -> u32 {
        if let Some(at) = self.first_free(units) {
            self.unlink_free(at);
            return at;
        }
        if self.current == NONE || CHUNK_UNITS - self.chunk(self.current * CHUNK_UNITS).cut < units
        {
            if let Some(at) = self.larger_free(units) {
                let rest = self.unlink_free(at) - units;
                self.push_free(at + units, rest);
                return at;
            }
            self.add_chunk();
        }
        let current = self.current;
        let chunk = self.chunk_mut(current * CHUNK_UNITS);
        let at = current * CHUNK_UNITS + chunk.cut;
        chunk.cut += units;
        at
    }

    fn first_free(&self, units: u32) -> Option<u32> {
        let head = match self.small.get(units as usize) {
            Some(&head) => head,
            None => self.large.get(&units).copied().unwrap_or(NONE),
        };
        (head != NONE).then_some(head)
    }

    /// A free block large enough that the rest is a block too.
    fn larger_free(&self, units: u32) -> Option<u32> {
        let least = units + MIN_UNITS;
        if (least as usize) < SMALL {
            let sizes = self.small_filled >> least;
            if sizes != 0 {
                return Some(self.small[(least + sizes.trailing_zeros()) as usize]);
            }
        }
        self.large.range(least..).next().map(|(_, &head)| head)
    }

    /// What is left of the current chunk becomes a free block, and another chunk the current one.
    fn add_chunk(&mut self) {
        if self.current != NONE {
            let first = self.current * CHUNK_UNITS;
            let chunk = self.chunk_mut(first);
            let (at, rest) = (first + chunk.cut, CHUNK_UNITS - chunk.cut);
            if rest >= MIN_UNITS {
                chunk.cut = CHUNK_UNITS;
                self.push_free(at, rest);
            }
        }
        let chunk = Chunk {
            bytes: vec![0; ARENA_CHUNK_BYTES].into_boxed_slice(),
            cut: 0,
            live: 0,
        };
        self.current = if let Some(number) = self.vacant.pop() {
            self.chunks[number as usize] = Some(chunk);
            number
        } else {
            assert!(
                self.chunks.len() < (u32::MAX / CHUNK_UNITS) as usize,
                "16 GB of topics"
            );
            self.chunks.push(Some(chunk));
            self.chunks.len() as u32 - 1
        };
    }

    /// Nothing in the chunk is in use: its free blocks leave their lists. The current chunk is kept, and begins anew. Each block walked here was
    /// cut since the chunk was empty last, so this costs no more than the cutting did.
    fn empty_chunk(&mut self, number: u32) {
        let first = number * CHUNK_UNITS;
        let end = first + self.chunk(first).cut;
        let mut at = first;
        // A last unit that is too small for a block is in no list.
        while at + MIN_UNITS <= end {
            at += self.unlink_free(at);
        }
        if number == self.current {
            self.chunk_mut(first).cut = 0;
        } else {
            self.chunks[number as usize] = None;
            self.vacant.push(number);
        }
    }

    fn push_free(&mut self, at: u32, units: u32) {
        let next = self.first_free(units).unwrap_or(NONE);
        self.write_free(
            at,
            Free {
                units,
                next,
                prev: NONE,
            },
        );
        if next != NONE {
            let neighbour = self.read_free(next);
            self.write_free(
                next,
                Free {
                    prev: at,
                    ..neighbour
                },
            );
        }
        self.set_first_free(units, at);
    }

    /// Takes a free block out of its list; tells its size.
    fn unlink_free(&mut self, at: u32) -> u32 {
        let free = self.read_free(at);
        if free.next != NONE {
            let next = self.read_free(free.next);
            self.write_free(
                free.next,
                Free {
                    prev: free.prev,
                    ..next
                },
            );
        }
        if free.prev == NONE {
            self.set_first_free(free.units, free.next);
        } else {
            let prev = self.read_free(free.prev);
            self.write_free(
                free.prev,
                Free {
                    next: free.next,
                    ..prev
                },
            );
        }
        free.units
    }

    fn set_first_free(&mut self, units: u32, at: u32) {
        if let Some(head) = self.small.get_mut(units as usize) {
            *head = at;
            self.small_filled &= !(1 << units);
            self.small_filled |= u64::from(at != NONE) << units;
        } else if at == NONE {
            self.large.remove(&units);
        } else {
            self.large.insert(units, at);
        }
    }

    fn read_free(&self, at: u32) -> Free {
        let bytes = &self.chunk(at).bytes[offset(at)..][..12];
        let word =
            |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Free {
            units: word(0),
            next: word(4),
            prev: word(8),
        }
    }

    fn write_free(&mut self, at: u32, free: Free) {
        let bytes = &mut self.chunk_mut(at).bytes[offset(at)..][..12];
        bytes[..4].copy_from_slice(&free.units.to_le_bytes());
        bytes[4..8].copy_from_slice(&free.next.to_le_bytes());
        bytes[8..].copy_from_slice(&free.prev.to_le_bytes());
    }

    fn chunk(&self, at: u32) -> &Chunk {
        self.chunks[(at / CHUNK_UNITS) as usize]
            .as_ref()
            .expect("a block lies in a chunk")
    }

    fn chunk_mut(&mut self, at: u32) -> &mut Chunk {
        self.chunks[(at / CHUNK_UNITS) as usize]
            .as_mut()
            .expect("a block lies in a chunk")
    }

    /// Walks all chunks and lists.
    ///
    /// # Panics
    /// When they disagree.
    pub fn check_invariants(&self) {
        let mut free = BTreeMap::new();
        let small = self
            .small
            .iter()
            .enumerate()
            .map(|(units, &head)| (units as u32, head));
        for (units, head) in small.chain(self.large.iter().map(|(&units, &head)| (units, head))) {
            if (units as usize) < SMALL {
                assert_eq!(
                    self.small_filled >> units & 1 == 1,
                    head != NONE,
                    "bit of size {units}"
                );
            }
            let (mut prev, mut at) = (NONE, head);
            while at != NONE {
                let block = self.read_free(at);
                assert_eq!((block.units, block.prev), (units, prev), "free block {at}");
                assert!(free.insert(at, units).is_none(), "block {at} is free twice");
                (prev, at) = (at, block.next);
            }
        }
        let mut used = 0;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk else {
                assert!(self.vacant.contains(&(number as u32)));
                continue;
            };
            let first = number as u32 * CHUNK_UNITS;
            let (mut at, mut live) = (first, 0);
            while at + MIN_UNITS <= first + chunk.cut {
                at += free.remove(&at).unwrap_or_else(|| {
                    let units = Self::units_for(self.get(StrRef(at)).len());
                    live += 1;
                    used += units as usize;
                    units
                });
            }
            assert_eq!(live, chunk.live, "live blocks of chunk {number}");
            assert!(
                live > 0 || number as u32 == self.current,
                "empty chunk {number} is kept"
            );
        }
        assert!(free.is_empty(), "free blocks outside of the chunks");
        assert_eq!(used, self.used_units);
    }

    /// Bytes that a string of this length takes.
    pub const fn bytes_for(len: usize) -> usize {
        Self::units_for(len) as usize * UNIT
    }

    const fn units_for(len: usize) -> u32 {
        let units = (len + 2 + HEAD).div_ceil(UNIT) as u32;
        if units < MIN_UNITS { MIN_UNITS } else { units }
    }
}

/// Of a block in its chunk, in bytes.
fn offset(at: u32) -> usize {
    (at % CHUNK_UNITS) as usize * UNIT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_string_fits() {
        let mut arena: Arena = Arena::default();
        let long = vec![7; MAX_TOPIC_BYTES];
        let refs: Vec<_> = (0..5).map(|_| arena.insert(&long)).collect();
        arena.check_invariants();
        for at in refs {
            assert_eq!(arena.get(at), long);
            arena.remove(at);
            arena.check_invariants();
        }
        assert_eq!(arena.used(), 0);
    }

    #[test]
    fn a_short_string_costs_its_length_rounded() {
        let mut arena: Arena = Arena::default();
        arena.insert(b"phones/0123456789/in");
        assert_eq!(arena.used(), 24);
        arena.insert(b"");
        assert_eq!(arena.used(), 24 + 12);
    }

    #[test]
    fn a_head_stands_beside_its_string() {
        let mut arena = Arena::<4>::default();
        let (a, b) = (
            arena.insert_with(*b"head", b"text"),
            arena.insert_with([7; 4], &[9; 1000]),
        );
        arena.set_head(a, [5; 4]);
        assert_eq!((arena.head(a), arena.get(a)), ([5; 4], b"text".as_slice()));
        assert_eq!(
            (arena.head(b), arena.get(b)),
            ([7; 4], [9; 1000].as_slice())
        );
        arena.check_invariants();
        arena.remove(b);
        arena.remove(a);
        assert_eq!(arena.used(), 0);
    }

    #[test]
    fn chunks_go_back_when_their_strings_are_gone() {
        let mut arena: Arena = Arena::default();
        let refs: Vec<_> = (0..100_000)
            .map(|i| arena.insert(format!("phones/{i}/in").as_bytes()))
            .collect();
        assert!(arena.reserved() > 1 << 20);
        for (i, at) in refs.into_iter().enumerate() {
            assert_eq!(arena.get(at), format!("phones/{i}/in").as_bytes());
            arena.remove(at);
        }
        arena.check_invariants();
        assert!(
            arena.reserved() < ARENA_CHUNK_BYTES + 4096,
            "{}",
            arena.reserved()
        );
    }

    #[test]
    fn churn_does_not_grow() {
        let mut arena: Arena = Arena::default();
        let mut live = std::collections::VecDeque::new();
        let mut seed = 1u64;
        let mut peak_early = 0;
        for round in 0..400_000u32 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let len = (seed >> 33) as usize % 60;
            live.push_back(arena.insert(&vec![round as u8; len]));
            if live.len() > 20_000 {
                arena.remove(live.pop_front().unwrap());
            }
            if round == 100_000 {
                peak_early = arena.reserved();
            }
        }
        arena.check_invariants();
        assert!(arena.reserved() <= peak_early + 2 * ARENA_CHUNK_BYTES);
        assert!(arena.reserved() < 2 * arena.used());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Against a map: whatever is put in and taken out, each string stays what it was.
        #[test]
        fn keeps_what_it_was_given(steps in prop::collection::vec(
            (prop_oneof![8 => 0usize..80, 2 => 400usize..3000, 1 => 60_000usize..65_536], any::<u8>(), any::<u16>()), 1..150,
        )) {
            let mut arena: Arena = Arena::default();
            let mut model: Vec<(StrRef, Vec<u8>)> = Vec::new();
            for (len, byte, pick) in steps {
                if pick % 5 < 3 {
                    let text = vec![byte; len];
                    model.push((arena.insert(&text), text));
                } else if !model.is_empty() {
                    let (at, _) = model.swap_remove(usize::from(pick) % model.len());
                    arena.remove(at);
                }
                arena.check_invariants();
                for (at, text) in &model {
                    prop_assert!(arena.get(*at) == text);
                }
            }
            for (at, _) in model {
                arena.remove(at);
            }
            arena.check_invariants();
            prop_assert_eq!(arena.used(), 0);
        }
    }
}
