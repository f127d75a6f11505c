//! The names of things inside one process: reactors, connections, sessions.
//!
//! Each is a newtype, so that a slot can't be taken for a session. Those that are reused carry a generation or a serial.

/// A reactor, counted from 0. At most [`crate::limits::MAX_REACTORS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReactorId(pub u16);

impl ReactorId {
    /// As an index into a list with one entry a reactor.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A connection of one reactor: its slot, and the generation that tells it from whoever had the slot before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Index of the slot in the reactor's slab.
    pub slot: u32,
    /// Counts the connections that the reactor has taken; wraps after 2^32.
    pub generation: u32,
}

impl ConnId {
    /// In one word, for whoever hands it back.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// From [`ConnId::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self {
            slot: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// A session of one shard: its index in the shard's slab. Reused after the session ends; see [`SessionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionIdx(pub u32);

impl SessionIdx {
    /// As an index into the slab.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A session that may be gone by the time it is looked up: index and serial. Used in mail between shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Where it is, or was.
    pub idx: SessionIdx,
    /// Counts the sessions that the shard has created; wraps after 2^32.
    pub serial: u32,
}
