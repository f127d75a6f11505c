//! What outlives the process: sessions' states, their queues, bodies that many queues share, and values by key.
//!
//! One [`Store`] a reactor, used by that reactor alone, over one log (`log`). It knows no MQTT: states, notes, metas, bodies and values are
//! bytes, and their owner says what they mean. It never reads a clock, never waits for a disk, and never decides what is dropped when there
//! is too much.

mod entry;
mod queue;
mod recovery;

pub use queue::{Queue, State};
pub use recovery::{Damage, Recovered};

use crate::ids::{SessionId, SessionIdx};

/// A place in a log, as the bytes that were ever written before it. Never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Why something was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The disk, or the limit that the operator gave, has no room; it may have some later.
    Full,
    /// The disk failed to write or to sync. Nothing is recorded any more until the server is started again; what is there can be read.
    Failed,
}

/// A body that many queue entries share. In memory only: after a restart the store counts its holders anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shared(pub(super) u32);

/// An entry of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// What was appended, or shared.
    pub body: &'a [u8],
    /// What is this entry's own; empty for one that has a tag.
    pub meta: &'a [u8],
    /// Of an entry that was made by [`Store::append_shared`].
    pub tag: Option<u8>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of records that are needed, each rounded up by an eighth at most.
    pub live: u64,
    /// Bytes of all segments.
    pub log: u64,
    /// Segments.
    pub segments: usize,
    /// Sessions.
    pub sessions: usize,
    /// Entries of queues that are not done.
    pub messages: usize,
    /// Bodies that are shared.
    pub bodies: usize,
    /// Values.
    pub values: usize,
    /// Bytes of memory for all of that, without the log's.
    pub memory: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// A store on the heap, for simulations and tests: at most `limit` bytes of segments. What a crash leaves of it is [`Store::image`].
    pub fn in_memory(limit: u64, key: u64) -> Self {
        unimplemented!()
    }

    // ---- sessions ----

    /// Records a session's state. If this session is in the store, its state is replaced, with all notes, and its queue stays; another one that had
    /// the index is over. A serial must never come back within a log's life: [`Recovered::highest_serial`] says where to go on.
    pub fn create(&mut self, session: SessionId, state: &[u8]) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Records a change of the state, to be applied after it, in order, when the log is read again. For a session that is not in the store it does
    /// nothing.
    pub fn note(&mut self, session: SessionId, note: &[u8]) -> Result<(), Refused> {
        unimplemented!()
    }

    /// The session is over: state, notes, queue. If that can't be recorded now, [`Store::commit`] tries again.
    pub fn remove(&mut self, session: SessionId) {
        unimplemented!()
    }

    /// The session that is in the store at this index.
    pub fn session(&self, idx: SessionIdx) -> Option<SessionId> {
        unimplemented!()
    }

    /// Whether a session is in the store at this index.
    pub fn has(&self, idx: SessionIdx) -> bool {
        self.session(idx).is_some()
    }

    // ---- queues ----

    /// Appends a message with a body of its own; tells its number. Numbers count up, by one; `start` is the first one if the queue is empty. The
    /// number `u32::MAX` is left out, so that a number modulo 65,535 goes on evenly after the last one too.
    ///
    /// # Panics
    /// When the session is not in the store. The same holds for all that append.
    pub fn append(
        &mut self,
        session: SessionId,
        start: u32,
        meta: &[u8],
        body: &[&[u8]],
    ) -> Result<u32, Refused> {
        unimplemented!()
    }

    /// Records a body for many queues. The caller holds it until [`Store::release`]; each entry holds it too.
    pub fn share(&mut self, body: &[&[u8]]) -> Result<Shared, Refused> {
        unimplemented!()
    }

    /// Appends an entry with a shared body; `tag` is below 4. Those of one body are collected and recorded together, so nothing may be acknowledged
    /// before [`Store::commit`] has said that they are.
    pub fn append_shared(
        &mut self,
        session: SessionId,
        start: u32,
        tag: u8,
        body: Shared,
    ) -> Result<u32, Refused> {
        unimplemented!()
    }

    /// Appends an entry with a shared body and a meta of its own.
    pub fn append_reference(
        &mut self,
        session: SessionId,
        start: u32,
        meta: &[u8],
        body: Shared,
    ) -> Result<u32, Refused> {
        unimplemented!()
    }

    /// The caller of [`Store::share`] needs it no more.
    pub fn release(&mut self, body: Shared) {
        unimplemented!()
    }

    /// A session's queue; none if it is empty.
    pub fn queue(&self, idx: SessionIdx) -> Option<&Queue> {
        unimplemented!()
    }

    /// The same, for the owner's cursors. They are gone with the last entry.
    pub fn queue_mut(&mut self, idx: SessionIdx) -> Option<&mut Queue> {
        unimplemented!()
    }

    /// An entry that waits. None: it does not, or what was recorded can't be read any more; then the owner calls it done.
    pub fn item(&self, idx: SessionIdx, seq: u32) -> Option<Item<'_>> {
        unimplemented!()
    }

    /// The other side has the message (PUBREC): the body may go, the entry stays until it is done. In memory in any case; an error means that it is
    /// not recorded.
    pub fn received(&mut self, session: SessionId, seq: u32) -> Result<(), Refused> {
        unimplemented!()
    }

    /// The entry is over: acknowledged, expired, or dropped. In memory in any case; an error means that it is not recorded, and will be back after a
    /// restart.
    pub fn done(&mut self, session: SessionId, seq: u32) -> Result<(), Refused> {
        unimplemented!()
    }

    // ---- values ----

    /// Records the value of a key, instead of an older one.
    pub fn keep(&mut self, key: &[u8], value: &[&[u8]]) -> Result<(), Refused> {
        unimplemented!()
    }

    /// The key has no value any more. On an error it still has.
    pub fn forget(&mut self, key: &[u8]) -> Result<(), Refused> {
        unimplemented!()
    }

    /// The value of a key.
    pub fn value(&self, key: &[u8]) -> Option<&[u8]> {
        unimplemented!()
    }

    // ---- time ----

    /// Records what was collected. Called before anything that was appended is acknowledged; on an error that must wait, and the next call tries
    /// again. Costs nothing if nothing was collected.
    pub fn commit(&mut self) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Where the log ends: what is recorded up to now stands before it.
    pub fn end(&self) -> Position {
        unimplemented!()
    }

    /// What stands before it outlives a power failure.
    pub fn synced(&self) -> Position {
        unimplemented!()
    }

    /// Asks for a sync up to the present end.
    pub fn want_sync(&mut self) {
        unimplemented!()
    }

    /// Gives space back, if a good part of the log is dead: reads about `budget` bytes of its oldest segment and appends what lives. `describe`
    /// writes a session's present state, which must hold all that its notes said. True: there is more to do now. Does nothing until the notes of the
    /// last run are forgotten ([`Store::forget_notes`]).
    pub fn clean(&mut self, budget: usize, describe: impl FnMut(SessionId, &mut Vec<u8>)) -> bool {
        unimplemented!()
    }

    /// Whether messages, states and values are refused at present, and why.
    pub fn refuses(&self) -> Option<Refused> {
        unimplemented!()
    }

    /// What it holds.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    // ---- after a restart ----

    /// The sessions that are in the store.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        std::iter::empty()
    }

    /// A session's state, and its notes in the order in which they were recorded. For sessions that were found in the log, until
    /// [`Store::forget_notes`]. None: there is none, or it can't be read any more.
    pub fn state(&self, idx: SessionIdx) -> Option<(&[u8], Vec<&[u8]>)> {
        unimplemented!()
    }

    /// The owner has seen all states: the places of notes are forgotten, and [`Store::clean`] may begin.
    pub fn forget_notes(&mut self) {
        unimplemented!()
    }

    /// All keys with their values.
    pub fn values(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        std::iter::empty()
    }

    /// Every queue entry that still stands in the log, done or not, with its body as far as that stands too. Reads the whole log.
    pub fn walk_entries(&self, seen: impl FnMut(SessionId, u32, Item<'_>)) {
        unimplemented!()
    }

    /// Walks everything.
    ///
    /// # Panics
    /// When two of its parts disagree.
    pub fn check_invariants(&self) {
        unimplemented!()
    }
}
