//! Marks on topics: whether anything was ever retained on a topic of this hash class. Shared by all reactors; a mark is set and stays.
//!
//! A subscriber to an unmarked topic asks nobody for retained messages. A mark that means nothing any more costs one useless question.

use std::sync::atomic::{AtomicU64, Ordering};

use super::hash::TopicHash;

/// One bit a hash class.
#[derive(Debug)]
pub struct Marks {
    bits: Box<[AtomicU64]>,
    mask: u64,
}

impl Marks {
    /// `classes` of them at least, none marked.
    pub fn new(classes: usize) -> Self {
        let classes = classes.next_power_of_two().max(64);
        Self {
            bits: (0..classes / 64).map(|_| AtomicU64::new(0)).collect(),
            mask: classes as u64 - 1,
        }
    }

    /// Marks a topic. Whoever hears of the message afterwards sees the mark.
    pub fn set(&self, hash: TopicHash) {
        let (word, bit) = self.word(hash);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Whether a topic may be marked.
    pub fn has(&self, hash: TopicHash) -> bool {
        let (word, bit) = self.word(hash);
        word.load(Ordering::Acquire) & bit != 0
    }

    fn word(&self, hash: TopicHash) -> (&AtomicU64, u64) {
        let class = hash.0 & self.mask;
        (&self.bits[(class / 64) as usize], 1 << (class % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_for_its_class_alone() {
        let marks = Marks::new(100);
        marks.set(TopicHash(5));
        assert!(marks.has(TopicHash(5)));
        assert!(marks.has(TopicHash(5 + 128)), "128 classes");
        assert!(
            (0..128)
                .filter(|class| marks.has(TopicHash(*class)))
                .eq([5])
        );
    }
}
