//! From hash to number: the table of a million filters, or of client identifiers, that grows a line at a time.
//!
//! Linear hashing over lines of 64 bytes: 12 numbers, a byte of the hash for each, and the number of a line that has what did not fit. A lookup
//! is one cache miss, seldom two. With each few entries that come one more line is split off, so no rehash ever stops a reactor, and the table
//! is as full with a thousand entries as with a million. The owner knows the hashes and what the numbers stand for; the table keeps neither.

use super::hash::TopicHash;
use crate::limits::{
    TABLE_LINE_BYTES, TABLE_LINE_ENTRIES, TABLE_MAX_FILL, TABLE_MIN_FILL, TABLE_PAGE_LINES,
};
use crate::sys::{bytes, prefetch};

const NONE: u32 = u32::MAX;

/// One cache line. Entries stand at its beginning; a tag of 0 is no entry.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Line {
    tags: [u8; TABLE_LINE_ENTRIES],
    /// The line that goes on, among those that are over.
    next: u32,
    numbers: [u32; TABLE_LINE_ENTRIES],
}

const _: () = assert!(size_of::<Line>() == TABLE_LINE_BYTES);

impl Line {
    const EMPTY: Self = Self {
        tags: [0; TABLE_LINE_ENTRIES],
        next: NONE,
        numbers: [0; TABLE_LINE_ENTRIES],
    };

    /// Bit `i`: entry `i` has this tag.
    fn tagged(&self, tag: u8) -> u16 {
        let mut tags = [0; 16];
        tags[..TABLE_LINE_ENTRIES].copy_from_slice(&self.tags);
        bytes::same_as(tags, tag) & ((1 << TABLE_LINE_ENTRIES) - 1)
    }

    fn len(&self) -> usize {
        self.tagged(0)
            .trailing_zeros()
            .min(TABLE_LINE_ENTRIES as u32) as usize
    }
}

/// Lines by number, in pages, so that nothing moves when there are more.
#[derive(Debug, Default)]
struct Lines {
    pages: Vec<Box<[Line]>>,
    len: u32,
}

impl Lines {
    fn push(&mut self) -> u32 {
        let number = self.len;
        if number as usize == self.pages.len() * TABLE_PAGE_LINES {
            self.pages
                .push(vec![Line::EMPTY; TABLE_PAGE_LINES].into_boxed_slice());
        }
        self.len += 1;
        number
    }

    /// The last line, which is empty, goes; its page one page later, so that a table at the edge of one does not go back and forth.
    fn pop(&mut self) {
        self.len -= 1;
        let needed = (self.len as usize).div_ceil(TABLE_PAGE_LINES) + usize::from(self.len > 0);
        self.pages.truncate(needed);
    }

    fn at(&self, number: u32) -> &Line {
        &self.pages[number as usize / TABLE_PAGE_LINES][number as usize % TABLE_PAGE_LINES]
    }

    fn at_mut(&mut self, number: u32) -> &mut Line {
        &mut self.pages[number as usize / TABLE_PAGE_LINES][number as usize % TABLE_PAGE_LINES]
    }
}

/// A line of a chain: the first one, or one of those that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First(u32),
    Over(u32),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    first: Lines,
    /// Those that go on for a first one, in any order; none is empty.
    over: Lines,
    len: usize,
    scratch: Vec<u32>,
}

impl Table {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of this hash for which `is_it` says so.
    pub fn find(&self, hash: TopicHash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let tag = tag(hash);
        let mut line = self.first.at(self.home(hash));
        loop {
            let mut bits = line.tagged(tag);
            while bits != 0 {
                let number = line.numbers[bits.trailing_zeros() as usize];
                if is_it(number) {
                    return Some(number);
                }
                bits &= bits - 1;
            }
            if line.next == NONE {
                return None;
            }
            line = self.over.at(line.next);
        }
    }

    /// An entry of this hash will be looked for.
    pub fn expect(&self, hash: TopicHash) {
        if self.len > 0 {
            prefetch::read(self.first.at(self.home(hash)));
        }
    }

    /// What [`Table::find`] will look at first.
    pub fn likely(&self, hash: TopicHash) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let line = self.first.at(self.home(hash));
        let bits = line.tagged(tag(hash));
        (bits != 0).then(|| line.numbers[bits.trailing_zeros() as usize])
    }

    /// So many entries will come into the empty table: it gets three quarters of the lines that they fill, so that few are split off as they come. With
    /// what is over it ends a tenth larger at most than if it had grown.
    pub fn reserve(&mut self, entries: usize) {
        assert!(self.len == 0, "no line is split off here");
        let lines = (entries * 100).div_ceil(TABLE_LINE_ENTRIES * TABLE_MAX_FILL);
        while (self.first.len as usize) < lines * 3 / 4 {
            self.first.push();
        }
    }

    /// Adds an entry that is not there. `rehash` tells the hash of those that are, and `expect` asks for the memory that it will look at: where a
    /// line is split off, all its entries are waited for at once.
    pub fn insert(
        &mut self,
        hash: TopicHash,
        number: u32,
        expect: impl Fn(u32),
        rehash: impl Fn(u32) -> TopicHash,
    ) {
        if self.first.len == 0 {
            self.first.push();
        }
        self.put(self.home(hash), tag(hash), number);
        self.len += 1;
        while self.len * 100 > self.lines() * TABLE_LINE_ENTRIES * TABLE_MAX_FILL {
            let new = self.first.push();
            self.redistribute(parent(new), &expect, &rehash);
        }
    }

    /// Takes an entry out; false: it was not there.
    pub fn remove(
        &mut self,
        hash: TopicHash,
        number: u32,
        rehash: impl Fn(u32) -> TopicHash,
    ) -> bool {
        if self.len == 0 || !self.cut(self.home(hash), tag(hash), number, &rehash) {
            return false;
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        while self.first.len > 1
            && self.len * 100 < self.lines() * TABLE_LINE_ENTRIES * TABLE_MIN_FILL
        {
            let last = self.first.len - 1;
            let mut entries = self.drain(last, &rehash);
            self.first.pop();
            for number in entries.drain(..) {
                let hash = rehash(number);
                self.put(self.home(hash), tag(hash), number);
            }
            self.scratch = entries;
        }
        true
    }

    /// All numbers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.first.len).flat_map(|at| self.chain(at))
    }

    /// Bytes taken from the allocator.
    pub fn reserved(&self) -> usize {
        let of = |lines: &Lines| {
            lines.pages.len() * TABLE_PAGE_LINES * size_of::<Line>()
                + lines.pages.capacity() * size_of::<Box<[Line]>>()
        };
        of(&self.first) + of(&self.over) + self.scratch.capacity() * size_of::<u32>()
    }

    /// Bytes of the entries.
    pub fn used(&self) -> usize {
        self.len * (size_of::<u32>() + 1)
    }

    /// Lines that are in use.
    fn lines(&self) -> usize {
        self.first.len as usize + self.over.len as usize
    }

    /// The first line of a hash: by as many bits as there are lines, by one less where that line is not split off yet. The lowest bits are
    /// not used, for a client's home was chosen by them.
    fn home(&self, hash: TopicHash) -> u32 {
        let bits = (hash.0 >> 16) as u32;
        let all = self.first.len.next_power_of_two() - 1;
        let at = bits & all;
        if at < self.first.len {
            at
        } else {
            at & (all >> 1)
        }
    }

    fn line(&self, place: Place) -> &Line {
        match place {
            Place::First(at) => self.first.at(at),
            Place::Over(at) => self.over.at(at),
        }
    }

    fn line_mut(&mut self, place: Place) -> &mut Line {
        match place {
            Place::First(at) => self.first.at_mut(at),
            Place::Over(at) => self.over.at_mut(at),
        }
    }

    /// The numbers of a chain.
    fn chain(&self, first: u32) -> impl Iterator<Item = u32> {
        let next = |line: &&Line| (line.next != NONE).then(|| self.over.at(line.next));
        std::iter::successors(Some(self.first.at(first)), next)
            .flat_map(|line| line.numbers[..line.len()].iter().copied())
    }

    /// The last line of a chain, and the one before it.
    fn last_of(&self, first: u32) -> (Place, Option<Place>) {
        let (mut at, mut before) = (Place::First(first), None);
        loop {
            let next = self.line(at).next;
            if next == NONE {
                return (at, before);
            }
            before = Some(at);
            at = Place::Over(next);
        }
    }

    fn put(&mut self, first: u32, tag: u8, number: u32) {
        let (mut last, _) = self.last_of(first);
        let mut len = self.line(last).len();
        if len == TABLE_LINE_ENTRIES {
            let next = self.over.push();
            self.line_mut(last).next = next;
            last = Place::Over(next);
            len = 0;
        }
        let line = self.line_mut(last);
        line.tags[len] = tag;
        line.numbers[len] = number;
    }

    /// The entry's place is filled with the chain's last.
    fn cut(
        &mut self,
        first: u32,
        tag: u8,
        number: u32,
        rehash: &impl Fn(u32) -> TopicHash,
    ) -> bool {
        let mut at = Place::First(first);
        let index = loop {
            let line = self.line(at);
            let is_it = |&at: &usize| line.tags[at] == tag && line.numbers[at] == number;
            if let Some(index) = (0..TABLE_LINE_ENTRIES).find(is_it) {
                break index;
            }
            if line.next == NONE {
                return false;
            }
            at = Place::Over(line.next);
        };
        let (last, before) = self.last_of(first);
        let end = self.line(last).len() - 1;
        let line = self.line_mut(last);
        let moved = (line.tags[end], line.numbers[end]);
        line.tags[end] = 0;
        if (at, index) != (last, end) {
            let line = self.line_mut(at);
            (line.tags[index], line.numbers[index]) = moved;
        }
        if end == 0
            && let (Place::Over(number), Some(before)) = (last, before)
        {
            self.line_mut(before).next = NONE;
            self.free(number, rehash);
        }
        true
    }

    /// Empties a chain; the list is the scratch one.
    fn drain(&mut self, first: u32, rehash: &impl Fn(u32) -> TopicHash) -> Vec<u32> {
        let mut entries = std::mem::take(&mut self.scratch);
        entries.clear();
        entries.extend(self.chain(first));
        // Long chains are rare: they come of equal hashes.
        let mut over = Vec::new();
        let mut next = std::mem::replace(self.first.at_mut(first), Line::EMPTY).next;
        while next != NONE {
            over.push(next);
            next = self.over.at(next).next;
        }
        // From the highest, so that what takes a place is never of this chain.
        over.sort_unstable_by(|a, b| b.cmp(a));
        for number in over {
            self.free(number, rehash);
        }
        entries
    }

    /// A line was split off from this one.
    fn redistribute(
        &mut self,
        first: u32,
        expect: &impl Fn(u32),
        rehash: &impl Fn(u32) -> TopicHash,
    ) {
        let mut entries = self.drain(first, rehash);
        for &number in &entries {
            expect(number);
        }
        for number in entries.drain(..) {
            let hash = rehash(number);
            self.put(self.home(hash), tag(hash), number);
        }
        self.scratch = entries;
    }

    /// A line that is over and in no chain goes; the last one takes its place.
    fn free(&mut self, number: u32, rehash: &impl Fn(u32) -> TopicHash) {
        let last = self.over.len - 1;
        let moved = std::mem::replace(self.over.at_mut(last), Line::EMPTY);
        if number != last {
            let mut at = Place::First(self.home(rehash(moved.numbers[0])));
            while self.line(at).next != last {
                at = Place::Over(self.line(at).next);
            }
            self.line_mut(at).next = number;
            *self.over.at_mut(number) = moved;
        }
        self.over.pop();
    }

    /// Walks everything.
    ///
    /// # Panics
    /// When an entry is not where its hash says.
    pub fn check_invariants(&self, hash_of: impl Fn(u32) -> TopicHash) {
        let (mut entries, mut over) = (0, 0);
        for first in 0..self.first.len {
            for number in self.chain(first) {
                let hash = hash_of(number);
                assert_eq!(self.home(hash), first, "{number} is in another line");
                assert_eq!(self.find(hash, |other| other == number), Some(number));
                entries += 1;
            }
            let mut at = self.first.at(first).next;
            while at != NONE {
                over += 1;
                at = self.over.at(at).next;
            }
            let (last, _) = self.last_of(first);
            assert!(
                matches!(last, Place::First(_)) || self.line(last).len() > 0,
                "an empty line at the end of a chain"
            );
        }
        assert_eq!((entries, over), (self.len, self.over.len));
    }
}

/// Never 0, and of bits that don't choose the line.
fn tag(hash: TopicHash) -> u8 {
    ((hash.0 >> 56) as u8).max(1)
}

/// The line that a new last line is split off from: its number without the highest bit.
fn parent(line: u32) -> u32 {
    line & !(1 << line.ilog2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stand-in for the hash of what a number stands for (`SplitMix64`).
    fn hash(number: u32) -> TopicHash {
        let z = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        TopicHash(z ^ (z >> 31))
    }

    fn filled(count: u32) -> Table {
        let mut table = Table::default();
        fill(&mut table, count);
        table
    }

    fn fill(table: &mut Table, count: u32) {
        for number in 0..count {
            table.insert(hash(number), number, |_| {}, hash);
        }
    }

    #[test]
    fn an_entry_costs_eight_bytes_whatever_their_number() {
        for count in [
            7_500, 10_000, 13_000, 16_667, 19_200, 40_000, 100_000, 300_000, 1_000_000,
        ] {
            let grown = filled(count);
            costs_eight_bytes(&grown);
            let mut table = Table::default();
            table.reserve(count as usize);
            let lines = table.first.len;
            fill(&mut table, count);
            println!("{} of {lines} lines split off", table.first.len - lines);
            assert!(table.reserved() as f64 <= 1.1 * grown.reserved() as f64);
        }
    }

    fn costs_eight_bytes(table: &Table) {
        let count = table.len();
        let bytes = table.reserved() as f64 / count as f64;
        // Lines that are looked at until an entry is found.
        let looked: usize = (0..table.first.len)
            .flat_map(|at| (0..table.chain(at).count()).map(|at| at / TABLE_LINE_ENTRIES + 1))
            .sum();
        let mean = looked as f64 / count as f64;
        println!("{count}: {bytes:.2} bytes, {mean:.2} lines a lookup");
        assert!(bytes < 8.0, "{bytes} bytes an entry with {count}");
        assert!(mean < 1.5, "{mean} lines");
    }

    #[test]
    fn a_table_that_was_reserved_is_as_any_other() {
        for (reserved, count) in [
            (0, 500),
            (1, 1),
            (10_000, 10_000),
            (10_000, 30_000),
            (30_000, 10),
        ] {
            let mut table = Table::default();
            table.reserve(reserved);
            assert_eq!(table.find(hash(1), |_| true), None);
            fill(&mut table, count);
            table.check_invariants(hash);
            for number in 0..count {
                assert!(table.remove(hash(number), number, hash));
            }
            assert_eq!(table.reserved(), Table::default().reserved());
        }
    }

    #[test]
    fn memory_goes_back() {
        let mut table = filled(100_000);
        let full = table.reserved();
        for number in 0..90_000 {
            assert!(table.remove(hash(number), number, hash));
        }
        table.check_invariants(hash);
        assert!(
            table.reserved() < full / 4,
            "{} of {full}",
            table.reserved()
        );
        for number in 90_000..100_000 {
            assert!(table.remove(hash(number), number, hash));
            assert!(!table.remove(hash(number), number, hash));
        }
        assert_eq!((table.len(), table.reserved()), (0, 0));
        assert_eq!(table.find(hash(1), |_| true), None);
    }

    proptest! {
        /// Against a set, with hashes of which many are equal.
        #[test]
        fn keeps_what_it_was_given(
            steps in prop::collection::vec((0u32..400, any::<bool>()), 1..600),
            spread in prop::sample::select(vec![1u32, 7, 400]),
        ) {
            let hash = |number: u32| hash(number % spread);
            let mut table = Table::default();
            let mut model = std::collections::BTreeSet::new();
            for (number, add) in steps {
                if add {
                    if model.insert(number) {
                        table.insert(hash(number), number, |_| {}, hash);
                    }
                } else {
                    prop_assert_eq!(table.remove(hash(number), number, hash), model.remove(&number));
                }
                prop_assert_eq!(table.find(hash(number), |other| other == number).is_some(), model.contains(&number));
            }
            table.check_invariants(hash);
            let mut all: Vec<u32> = table.iter().collect();
            all.sort_unstable();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }
}
