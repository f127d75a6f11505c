//! The queue of one session: 8 bytes an entry, oldest first.

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has yet to reach the other side.
    Waiting,
    /// The other side has it and has yet to release it (QoS 2).
    Received,
    /// Done, or never there.
    Gone,
}

/// See the module. Numbers wrap: compare them by their distance from the head.
#[derive(Debug)]
pub struct Queue {
    /// The owner's: next to send on this connection. Never before the head, as the next two.
    pub sent: u32,
    /// The owner's: those before it were sent on an earlier connection (DUP).
    pub sent_before: u32,
    /// The owner's: those before it may be sent (in disk mode: are synced).
    pub ready: u32,
    /// The owner's: how many are in flight.
    pub flying: u32,
}

impl Queue {
    /// The oldest entry that is not done.
    pub fn head(&self) -> u32 {
        unimplemented!()
    }

    /// The number that comes after the last entry.
    pub fn tail(&self) -> u32 {
        unimplemented!()
    }

    /// Entries that are not done.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Never: a queue that has no entries is none.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bytes of their records and bodies, shared ones counted in full, rounded up by an eighth at most.
    pub fn bytes(&self) -> u64 {
        unimplemented!()
    }

    /// What became of an entry.
    pub fn state(&self, seq: u32) -> State {
        unimplemented!()
    }

    /// The number after this one: `u32::MAX` is left out.
    pub fn after(seq: u32) -> u32 {
        if seq >= u32::MAX - 1 { 0 } else { seq + 1 }
    }
}
