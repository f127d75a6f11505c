//! The hash of a topic: computed once per publish, used for the masks between reactors and for the table of filters.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// What [`TopicHasher`] made of a topic. Equal on all reactors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicHash(pub u64);

/// A seeded hash function. Clones agree, so that every reactor finds the same row for a topic.
#[derive(Clone, Debug)]
pub struct TopicHasher(SeedableRandomState);

impl TopicHasher {
    /// Seeded by the machine, anew in each process: whoever chooses topics can't choose collisions.
    pub fn random() -> Self {
        Self(SeedableRandomState::random())
    }

    /// The same hashes in every run: for simulations and tests.
    pub fn fixed(seed: u64) -> Self {
        Self(SeedableRandomState::with_seed(
            seed,
            SharedSeed::global_fixed(),
        ))
    }

    /// The hash of a topic or filter.
    pub fn hash(&self, topic: &str) -> TopicHash {
        self.hash_bytes(topic.as_bytes())
    }

    /// The same of text that stands as bytes.
    pub fn hash_bytes(&self, topic: &[u8]) -> TopicHash {
        let mut hasher = self.0.build_hasher();
        hasher.write(topic);
        TopicHash(hasher.finish())
    }

    /// The hash of a level under a node of a trie.
    pub(crate) fn level(&self, parent: u32, label: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u32(parent);
        hasher.write(label);
        hasher.finish()
    }
}
