//! Interest in exact topics: a shared table of bit masks that says which reactors may have a subscriber.
//!
//! A row belongs to all topics of one hash class. A set bit means that the reactor has at least one entry in the row, so a publisher reads one row
//! and sends to the reactors found there; a false positive costs one useless hop, a false negative does not exist. Each reactor sets and clears
//! its own bit alone, and counts its entries in private ([`Own`]). Nothing here knows the topics themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;

use super::hash::TopicHash;
use crate::ids::ReactorId;
use crate::limits::MAX_REACTORS;
use crate::sys::prefetch;

const WORDS: usize = MAX_REACTORS / 64;

/// A set of reactors: where a message goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReactorSet {
    words: [u64; WORDS],
    /// Words from here on are 0: few servers have more than 64 reactors, and the set is walked for each message.
    used: usize,
}

impl PartialEq for ReactorSet {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for ReactorSet {}

impl ReactorSet {
    /// Puts one in.
    pub fn insert(&mut self, reactor: ReactorId) {
        let word = reactor.index() / 64;
        self.words[word] |= 1 << (reactor.index() % 64);
        self.used = self.used.max(word + 1);
    }

    /// Takes one out.
    pub fn remove(&mut self, reactor: ReactorId) {
        self.words[reactor.index() / 64] &= !(1 << (reactor.index() % 64));
    }

    /// Whether it is in.
    pub fn contains(&self, reactor: ReactorId) -> bool {
        self.words[reactor.index() / 64] & (1 << (reactor.index() % 64)) != 0
    }

    /// Whether none is in.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many are in.
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Adds all of another set.
    pub fn union(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words[..other.used]) {
            *word |= other;
        }
        self.used = self.used.max(other.used);
    }

    /// Those that are in, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ReactorId> {
        Members {
            rest: &self.words[..self.used],
            word: 0,
            next: 0,
        }
    }
}

/// See [`ReactorSet::iter`].
#[derive(Debug)]
struct Members<'a> {
    /// The words that were not looked at.
    rest: &'a [u64],
    /// What is left of the word before them.
    word: u64,
    /// The first reactor of `rest`.
    next: u16,
}

impl Iterator for Members<'_> {
    type Item = ReactorId;

    fn next(&mut self) -> Option<ReactorId> {
        while self.word == 0 {
            let (&word, rest) = self.rest.split_first()?;
            self.rest = rest;
            self.word = word;
            self.next += 64;
        }
        let bit = self.word.trailing_zeros();
        // Drops the lowest bit.
        self.word &= self.word - 1;
        Some(ReactorId(self.next - 64 + bit as u16))
    }
}

/// The shared table. A row has as many bits as there are reactors, rounded up to a power of two, so with
/// a few reactors many rows share a word: a million rows of two reactors are 256 KB.
#[derive(Debug)]
pub struct Masks {
    words: Box<[AtomicU64]>,
    row_mask: u64,
    /// A row has `1 << row_shift` bits.
    row_shift: u32,
}

impl Masks {
    /// A table for `reactors` reactors with `rows` rows, rounded up to a power of two.
    ///
    /// # Panics
    /// With no reactor, or more than [`MAX_REACTORS`].
    pub fn new(reactors: usize, rows: usize) -> Self {
        assert!(
            (1..=MAX_REACTORS).contains(&reactors),
            "{reactors} reactors"
        );
        let rows = rows.next_power_of_two();
        let row_bits = reactors.next_power_of_two();
        let words = (rows * row_bits).div_ceil(64);
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            row_mask: rows as u64 - 1,
            row_shift: row_bits.trailing_zeros(),
        }
    }

    /// The reactors that may have a subscriber to a topic are added to `to`.
    pub fn collect(&self, hash: TopicHash, to: &mut ReactorSet) {
        let first_bit = self.row(hash) << self.row_shift;
        if self.row_shift < 6 {
            let bits = self.words[first_bit / 64].load(Ordering::Acquire) >> (first_bit % 64);
            to.words[0] |= bits & ((1 << (1 << self.row_shift)) - 1);
            to.used = to.used.max(1);
            return;
        }
        let row = &self.words[first_bit / 64..][..1 << (self.row_shift - 6)];
        for (word, bits) in to.words.iter_mut().zip(row) {
            *word |= bits.load(Ordering::Acquire);
        }
        to.used = to.used.max(row.len());
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.words)
    }

    fn row(&self, hash: TopicHash) -> usize {
        (hash.0 & self.row_mask) as usize
    }

    /// The word with a reactor's bit of a row, and the bit.
    fn bit(&self, row: usize, reactor: ReactorId) -> (&AtomicU64, u64) {
        debug_assert!(reactor.index() < 1 << self.row_shift);
        let at = (row << self.row_shift) + reactor.index();
        (&self.words[at / 64], 1 << (at % 64))
    }
}

/// One reactor's side of the table: it alone writes its bit of each row.
#[derive(Debug)]
pub struct Own {
    me: ReactorId,
    masks: Arc<Masks>,
    /// Entries beyond the first, for the rows that have them. The first is the bit itself.
    more: HashMap<u32, u32>,
}

impl Own {
    /// A reactor without entries.
    pub fn new(me: ReactorId, masks: Arc<Masks>) -> Self {
        Self {
            me,
            masks,
            more: HashMap::new(),
        }
    }

    /// An entry of this hash will be counted, or asked for.
    pub fn expect(&self, hash: TopicHash) {
        prefetch::read(self.masks.bit(self.masks.row(hash), self.me).0);
    }

    /// Counts an entry. When this returns, every reactor sees the interest.
    pub fn add(&mut self, hash: TopicHash) {
        let row = self.masks.row(hash);
        let (word, bit) = self.masks.bit(row, self.me);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            *self.more.entry(row as u32).or_insert(0) += 1;
        }
    }

    /// Whether a topic of this hash may have an entry.
    pub fn has(&self, hash: TopicHash) -> bool {
        let (word, bit) = self.masks.bit(self.masks.row(hash), self.me);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// Takes an entry away that was added.
    pub fn remove(&mut self, hash: TopicHash) {
        let row = self.masks.row(hash);
        let (word, bit) = self.masks.bit(row, self.me);
        debug_assert!(
            word.load(Ordering::Relaxed) & bit != 0,
            "an entry that was never added"
        );
        match self.more.get_mut(&(row as u32)) {
            Some(1) => {
                self.more.remove(&(row as u32));
                if self.more.is_empty() {
                    self.more = HashMap::new();
                }
            }
            Some(more) => *more -= 1,
            None => {
                word.fetch_and(!bit, Ordering::AcqRel);
            }
        }
    }

    /// Compares with the entries this reactor really has.
    ///
    /// # Panics
    /// When the table or the counts say something else.
    pub fn check_invariants(&self, entries: impl Iterator<Item = TopicHash>) {
        let mut expected: HashMap<usize, u32> = HashMap::new();
        for hash in entries {
            *expected.entry(self.masks.row(hash)).or_insert(0) += 1;
        }
        for row in 0..=self.masks.row_mask as usize {
            let (word, bit) = self.masks.bit(row, self.me);
            let set = u32::from(word.load(Ordering::Relaxed) & bit != 0);
            let counted = set + self.more.get(&(row as u32)).copied().unwrap_or(0);
            assert_eq!(
                counted,
                expected.get(&row).copied().unwrap_or(0),
                "row {row}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(masks: &Masks, hash: u64) -> Vec<u16> {
        let mut set = ReactorSet::default();
        masks.collect(TopicHash(hash), &mut set);
        set.iter().map(|reactor| reactor.0).collect()
    }

    #[test]
    fn a_set_lists_its_reactors_in_order() {
        let mut set = ReactorSet::default();
        assert!(set.is_empty());
        for id in [1023, 64, 0, 63] {
            set.insert(ReactorId(id));
        }
        assert_eq!(
            set.iter().map(|r| r.0).collect::<Vec<_>>(),
            [0, 63, 64, 1023]
        );
        assert_eq!(set.len(), 4);
        set.remove(ReactorId(64));
        assert!(!set.contains(ReactorId(64)) && set.contains(ReactorId(63)));
        let mut other = ReactorSet::default();
        other.insert(ReactorId(5));
        set.union(&other);
        assert_eq!(set.len(), 4);
    }

    #[test]
    fn rows_are_as_wide_as_the_reactors_need() {
        assert_eq!(Masks::new(2, 1 << 20).bytes(), 256 << 10);
        assert_eq!(Masks::new(64, 1024).bytes(), 8 << 10);
        assert_eq!(Masks::new(1, 1).bytes(), 8);
        assert_eq!(Masks::new(1024, 3).bytes(), 4 * 128);
    }

    #[test]
    fn the_last_entry_of_a_row_clears_the_bit() {
        let masks = Arc::new(Masks::new(3, 4));
        let mut own = Own::new(ReactorId(2), Arc::clone(&masks));
        own.add(TopicHash(1));
        own.add(TopicHash(5)); // the same row
        assert_eq!(found(&masks, 1), [2]);
        assert!(found(&masks, 2).is_empty());
        own.remove(TopicHash(1));
        assert_eq!(found(&masks, 9), [2]);
        own.remove(TopicHash(5));
        assert!(found(&masks, 1).is_empty());
        assert!(own.more.is_empty());
    }

    proptest! {
        /// Any number of reactors adding and removing: a row shows exactly those with an entry in it.
        #[test]
        fn rows_show_who_has_entries(
            reactors in prop::sample::select(vec![1usize, 2, 3, 7, 33, 64, 65, 200, 1024]),
            rows in 1usize..20,
            steps in prop::collection::vec((any::<u16>(), 0u64..40, any::<bool>()), 0..200),
        ) {
            let masks = Arc::new(Masks::new(reactors, rows));
            let row_mask = rows.next_power_of_two() as u64 - 1;
            let mut owns: Vec<Own> =
                (0..reactors).map(|id| Own::new(ReactorId(id as u16), Arc::clone(&masks))).collect();
            let mut entries: Vec<(usize, u64)> = Vec::new();
            for (reactor, hash, add) in steps {
                let reactor = usize::from(reactor) % reactors;
                if add {
                    owns[reactor].add(TopicHash(hash));
                    entries.push((reactor, hash));
                } else if let Some(at) = entries.iter().position(|entry| entry.0 == reactor) {
                    let (_, hash) = entries.swap_remove(at);
                    owns[reactor].remove(TopicHash(hash));
                }
                for row in 0..=row_mask {
                    let mut expected: Vec<u16> = entries
                        .iter()
                        .filter(|entry| entry.1 & row_mask == row)
                        .map(|entry| entry.0 as u16)
                        .collect();
                    expected.sort_unstable();
                    expected.dedup();
                    prop_assert_eq!(found(&masks, row), expected);
                }
            }
            for (reactor, own) in owns.iter().enumerate() {
                let mine = entries.iter().filter(|entry| entry.0 == reactor);
                own.check_invariants(mine.map(|entry| TopicHash(entry.1)));
            }
        }
    }
}
