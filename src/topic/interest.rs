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

const WORDS: usize = MAX_REACTORS / 64;

/// A set of reactors: where a message goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorSet {
    words: [u64; WORDS],
}

impl ReactorSet {
    /// Puts one in.
    pub fn insert(&mut self, reactor: ReactorId) {
        self.words[reactor.index() / 64] |= 1 << (reactor.index() % 64);
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
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Those that are in, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ReactorId> + use<> {
        self.words.into_iter().enumerate().flat_map(|(at, word)| {
            // Each step drops the lowest bit.
            std::iter::successors(Some(word), |&rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|&rest| rest != 0)
                .map(move |rest| ReactorId((at * 64) as u16 + rest.trailing_zeros() as u16))
        })
    }
}

/// The shared table.
#[derive(Debug)]
pub struct Masks {
    bits: Box<[AtomicU64]>,
    words_per_row: usize,
    row_mask: u64,
}

impl Masks {
    /// A table for `reactors` reactors with `rows` rows, rounded up to a power of two. All bits are clear, and untouched pages cost nothing.
    ///
    /// # Panics
    /// With more reactors than [`MAX_REACTORS`].
    pub fn new(reactors: usize, rows: usize) -> Self {
        assert!(
            (1..=MAX_REACTORS).contains(&reactors),
            "{reactors} reactors"
        );
        let rows = rows.next_power_of_two();
        let words_per_row = reactors.div_ceil(64);
        let bits = (0..rows * words_per_row)
            .map(|_| AtomicU64::new(0))
            .collect();
        Self {
            bits,
            words_per_row,
            row_mask: rows as u64 - 1,
        }
    }

    /// The reactors that may have a subscriber to a topic are added to `to`.
    pub fn collect(&self, hash: TopicHash, to: &mut ReactorSet) {
        let first = self.row(hash) * self.words_per_row;
        for (word, bits) in to
            .words
            .iter_mut()
            .zip(&self.bits[first..first + self.words_per_row])
        {
            *word |= bits.load(Ordering::Acquire);
        }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.bits)
    }

    fn row(&self, hash: TopicHash) -> usize {
        (hash.0 & self.row_mask) as usize
    }

    fn word(&self, row: usize, reactor: ReactorId) -> (&AtomicU64, u64) {
        (
            &self.bits[row * self.words_per_row + reactor.index() / 64],
            1 << (reactor.index() % 64),
        )
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

    /// Counts an entry. When this returns, every reactor sees the interest.
    pub fn add(&mut self, hash: TopicHash) {
        let row = self.masks.row(hash);
        let (word, bit) = self.masks.word(row, self.me);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            *self.more.entry(row as u32).or_insert(0) += 1;
        }
    }

    /// Takes an entry away that was added.
    pub fn remove(&mut self, hash: TopicHash) {
        let row = self.masks.row(hash);
        let (word, bit) = self.masks.word(row, self.me);
        debug_assert!(
            word.load(Ordering::Relaxed) & bit != 0,
            "an entry that was never added"
        );
        match self.more.get_mut(&(row as u32)) {
            Some(1) => {
                self.more.remove(&(row as u32));
            }
            Some(more) => *more -= 1,
            None => {
                word.fetch_and(!bit, Ordering::AcqRel);
            }
        }
    }
}
