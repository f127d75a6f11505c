//! What outlives the process: sessions' states, their queues, bodies that many queues share, and values by key.
//!
//! One [`Store`] a reactor, used by that reactor alone, over one [`log`]. It knows no MQTT: states, notes, metas, bodies and values are bytes, and
//! their owner says what they mean. It never reads a clock, never waits for a disk, and never decides what is dropped when there is too much.
//!
//! - [`format`]: the byte map. [`segment`], [`chain`], [`scan`], [`log`]: the log. [`damage`]: what was found broken. [`heap`]: a log without a disk.
//! - [`files`], [`syncer`], [`disk`]: a log in a directory, and the threads that wait for the disk. [`manifest`]: what must be known before a log is opened.
//! - `entry`, [`queue`], `resting`, `queues`, `sessions`, `bodies`, `values`: what is in memory, 8 bytes a queued message and 16 a session.
//! - `append`, `read`, `values`: what the owner does with it. `clean`: how space is given back. [`recovery`]: from a log to a store.
//!   [`rehome`]: from one store to others.
//!
//! A log is its own snapshot: a record is live as long as something in memory leads to it, and the cleaner moves what is live out of the oldest
//! segment. A session's records can stand in any order then, so each says whose it is, and of several that speak of the same thing the last one in
//! the log is right.

mod append;
mod bodies;
pub mod chain;
mod clean;
pub mod damage;
pub mod disk;
mod entry;
pub mod fan;
pub mod files;
pub mod format;
pub mod heap;
pub mod log;
pub mod manifest;
pub mod queue;
mod queues;
mod read;
pub mod recovery;
pub mod rehome;
mod resting;
mod ring;
pub mod scan;
pub mod segment;
mod sessions;
pub mod syncer;
mod values;

pub use bodies::Shared;
pub use damage::Damage;
pub use format::Position;
pub use log::Refused;
pub use queue::{Queue, State, View};
pub use recovery::Recovered;

use bodies::Bodies;
use clean::Cleaner;
use entry::{Entry, Held, Place};
use fan::Fan;
use format::{Header, Kind};
use log::{Log, Shape, Urgency};
use queues::Queues;
use recovery::Notes;
use sessions::{Sessions, Slot};
use values::Values;

use crate::ids::{SessionId, SessionIdx};
use crate::limits::OWED_PER_TICK;

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

/// Something that happened in memory and found no room in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    End(SessionId),
    Received(SessionId, u32),
    Done(SessionId, u32),
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    log: Log,
    sessions: Sessions,
    queues: Queues,
    bodies: Bodies,
    values: Values,
    /// Entries that are in their queues and not in the log yet.
    fan: Fan,
    owed: Vec<Owed>,
    cleaner: Cleaner,
    /// Until the owner has seen all states after a restart.
    notes: Option<Notes>,
    live: u64,
    session_count: usize,
    message_count: usize,
}

impl Store {
    /// An empty store over an empty log. `seed` is a random number that those who choose keys don't know.
    pub fn new(log: Log, seed: u64) -> Self {
        Self {
            log,
            sessions: Sessions::default(),
            queues: Queues::default(),
            bodies: Bodies::default(),
            values: Values::new(seed),
            fan: Fan::default(),
            owed: Vec::new(),
            cleaner: Cleaner::default(),
            notes: None,
            live: 0,
            session_count: 0,
            message_count: 0,
        }
    }

    /// A store on the heap, for simulations and tests: at most `limit` bytes of segments. What a crash leaves of it, [`Log::image`] tells.
    pub fn in_memory(limit: u64, key: u64) -> Self {
        Self::new(Log::in_memory(limit, key, 0, Shape::default()), key)
    }

    /// The log under it: for images, syncs on the heap, and for looking on.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The same, to hold syncs, let them fail, or fill a disk in a simulation. Whoever appends to it breaks the store.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    // ---- sessions ----

    /// Records a session's state. If this session is in the store, its state is replaced, with all notes, and its queue stays; another one that had
    /// the index is over. A serial must never come back within a log's life: [`Recovered::highest_serial`] says where to go on.
    pub fn create(&mut self, session: SessionId, state: &[u8]) -> Result<(), Refused> {
        self.put_state(session, state, Urgency::Message)
    }

    fn put_state(
        &mut self,
        session: SessionId,
        state: &[u8],
        urgency: Urgency,
    ) -> Result<(), Refused> {
        assert!(
            Sessions::is_index(session.idx.0),
            "{session:?} is no session"
        );
        let place = self.write(urgency, &header(Kind::State, session, 0), &[state])?;
        let slot = self.sessions.slot(session.idx);
        if slot.state.is_none() {
            self.session_count += 1;
        } else if slot.serial != session.serial {
            self.drop_queue(session.idx);
        }
        self.live = self.live - slot.state.bytes() + place.bytes();
        let slot = self.sessions.slot_mut(session.idx);
        (slot.state, slot.serial) = (place, session.serial);
        Ok(())
    }

    /// Records a change of the state, to be applied after it, in order, when the log is read again. For a session that is not in the store it does
    /// nothing. After a power failure any of those that were not synced may be missing.
    pub fn note(&mut self, session: SessionId, note: &[u8]) -> Result<(), Refused> {
        if self.sessions.find(session).is_none() {
            return Ok(());
        }
        let header = header(Kind::Note, session, 0);
        let position = self.append_record(Urgency::Control, &header, &[note])?;
        if let Some(notes) = &mut self.notes {
            notes.push(session.idx, position);
        }
        Ok(())
    }

    /// The session is over: state, notes, queue. If that can't be recorded now, [`Store::commit`] tries again.
    pub fn remove(&mut self, session: SessionId) {
        let Some(slot) = self.sessions.find(session) else {
            return;
        };
        self.drop_queue(session.idx);
        self.live -= slot.state.bytes();
        self.session_count -= 1;
        *self.sessions.slot_mut(session.idx) = Slot::EMPTY;
        // An error is only that it is owed.
        _ = self.record_or_owe(Owed::End(session));
    }

    /// The session that is in the store at this index.
    pub fn session(&self, idx: SessionIdx) -> Option<SessionId> {
        let slot = self.sessions.slot(idx);
        (!slot.state.is_none()).then_some(SessionId {
            idx,
            serial: slot.serial,
        })
    }

    /// Whether a session is in the store at this index.
    pub fn has(&self, idx: SessionIdx) -> bool {
        !self.sessions.slot(idx).state.is_none()
    }

    // ---- values ----

    /// Records the value of a key of at most 65,535 bytes, instead of an older one.
    pub fn keep(&mut self, key: &[u8], value: &[&[u8]]) -> Result<(), Refused> {
        let header = Header {
            aux: u16::try_from(key.len()).expect("a key has a length of 16 bits"),
            ..Header::new(Kind::Value)
        };
        let place = self.write_two(Urgency::Message, &header, key, value)?;
        let is_key = |place| read::key_at(&self.log, place) == Some(key);
        let before = self.values.insert(key, place, is_key);
        self.live = self.live - before.map_or(0, Place::bytes) + place.bytes();
        Ok(())
    }

    /// The key has no value any more. On an error it still has.
    pub fn forget(&mut self, key: &[u8]) -> Result<(), Refused> {
        let is_key = |place| read::key_at(&self.log, place) == Some(key);
        if self.values.find(key, is_key).is_none() {
            return Ok(());
        }
        self.append_record(Urgency::Control, &Header::new(Kind::Forget), &[key])?;
        let is_key = |place| read::key_at(&self.log, place) == Some(key);
        let before = self.values.remove(key, is_key);
        self.live -= before.map_or(0, Place::bytes);
        Ok(())
    }

    // ---- time ----

    /// Records what was collected, and a part of what found no room. Called before anything that was appended is acknowledged; on an error that must
    /// wait, and the next call tries again. Costs nothing if there is nothing.
    #[inline]
    pub fn commit(&mut self) -> Result<(), Refused> {
        if self.owed.is_empty() && self.fan.is_empty() {
            return Ok(());
        }
        self.flush_fan()?;
        self.pay_owed()
    }

    /// Whether something has happened in memory that found no room, and is not recorded yet.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Where the log ends: what is recorded up to now stands before it. What is collected is not yet: see [`Store::commit`].
    pub fn end(&self) -> Position {
        self.log.end()
    }

    /// What stands before it outlives a power failure.
    pub fn synced(&self) -> Position {
        self.log.synced()
    }

    /// Asks for a sync up to the present end.
    pub fn want_sync(&mut self) {
        self.log.want_sync();
    }

    /// Whether messages, states and values are refused at present, and why.
    pub fn refuses(&self) -> Option<Refused> {
        self.log.refuses(Urgency::Message)
    }

    /// What it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            live: self.live,
            log: self.log.size(),
            segments: self.log.segments(),
            sessions: self.session_count,
            messages: self.message_count,
            bodies: self.bodies.len(),
            values: self.values.len(),
            memory: self.sessions.reserved()
                + self.queues.reserved()
                + self.bodies.reserved()
                + self.values.reserved()
                + self.fan.reserved()
                + self.notes.as_ref().map_or(0, Notes::reserved),
        }
    }

    // ---- records ----

    /// Appends a record, and has the cleaner know that the log has grown.
    #[inline]
    fn append_record(
        &mut self,
        urgency: Urgency,
        header: &Header,
        parts: &[&[u8]],
    ) -> Result<Position, Refused> {
        let position = self.log.append(urgency, header, parts)?;
        let payload: usize = parts.iter().map(|part| part.len()).sum();
        self.cleaner.grown(format::footprint(payload));
        Ok(position)
    }

    /// The same for what memory leads to.
    #[inline]
    fn write(
        &mut self,
        urgency: Urgency,
        header: &Header,
        parts: &[&[u8]],
    ) -> Result<Place, Refused> {
        let payload: usize = parts.iter().map(|part| part.len()).sum();
        let position = self.append_record(urgency, header, parts)?;
        Ok(Place::new(position, format::footprint(payload)))
    }

    /// The same with a part before the others.
    #[inline]
    fn write_two(
        &mut self,
        urgency: Urgency,
        header: &Header,
        first: &[u8],
        rest: &[&[u8]],
    ) -> Result<Place, Refused> {
        match rest {
            [] => self.write(urgency, header, &[first]),
            [one] => self.write(urgency, header, &[first, one]),
            [one, two] => self.write(urgency, header, &[first, one, two]),
            [one, two, three] => self.write(urgency, header, &[first, one, two, three]),
            _ => {
                let mut parts = Vec::with_capacity(rest.len() + 1);
                parts.push(first);
                parts.extend_from_slice(rest);
                self.write(urgency, header, &parts)
            }
        }
    }

    /// Records what has happened in memory; if there is no room, [`Store::commit`] tries again.
    fn record_or_owe(&mut self, owed: Owed) -> Result<(), Refused> {
        let recorded = self.record(owed);
        if recorded == Err(Refused::Full) {
            self.owed.push(owed);
        }
        recorded
    }

    fn record(&mut self, owed: Owed) -> Result<(), Refused> {
        let header = match owed {
            Owed::End(session) => header(Kind::End, session, 0),
            Owed::Done(session, seq) => header(Kind::Done, session, seq),
            Owed::Received(session, seq) => {
                let header = header(Kind::Received, session, seq);
                let place = self.write(Urgency::Control, &header, &[])?;
                self.replace(session, seq, Entry::received(place));
                self.live += place.bytes();
                return Ok(());
            }
        };
        self.append_record(Urgency::Control, &header, &[]).map(drop)
    }

    #[cold]
    fn pay_owed(&mut self) -> Result<(), Refused> {
        for _ in 0..OWED_PER_TICK {
            let Some(&owed) = self.owed.last() else {
                break;
            };
            // What came since may have made it void: then it must not be recorded, for the last record is right.
            let still = match owed {
                Owed::End(session) => self.sessions.find(session).is_none(),
                Owed::Done(session, seq) => self.entry(session, seq).held() == Held::Gone,
                Owed::Received(session, seq) => {
                    self.entry(session, seq).held() == Held::Received(Place::NONE)
                }
            };
            if still {
                self.record(owed)?;
            }
            self.owed.pop();
        }
        if self.owed.is_empty() {
            self.owed = Vec::new();
        }
        Ok(())
    }

    /// The entry with this number.
    fn entry(&self, session: SessionId, seq: u32) -> Entry {
        let slot = self.sessions.find(session);
        slot.map_or(Entry::GONE, |slot| self.queues.get(slot, seq, self.units()))
    }

    /// An entry that is not gone leads elsewhere, and counts as much as before.
    fn replace(&mut self, session: SessionId, seq: u32, entry: Entry) {
        let slot = self.sessions.slot(session.idx);
        self.queues.replace(slot, seq, entry, 0, 0);
    }

    /// The end of the log in units of 8 bytes: what an entry of a queue leads to stands before it.
    #[inline]
    fn units(&self) -> u64 {
        self.log.end().0 / 8
    }

    /// Walks everything.
    ///
    /// # Panics
    /// When two of its parts disagree.
    pub fn check_invariants(&self) {
        self.log.check_invariants();
        self.bodies.check_invariants();
        self.values.check_invariants();
        let (mut live, mut sessions, mut messages, mut queues) = (0, 0, 0, 0);
        let mut held = std::collections::HashMap::new();
        for (idx, slot) in self.sessions.iter() {
            assert!(!slot.state.is_none(), "{idx:?}: a queue without a session");
            sessions += 1;
            live += slot.state.bytes();
            let Some(queue) = self.queues.view(slot) else {
                continue;
            };
            self.queues.check_invariants(idx, slot);
            queues += 1;
            messages += queue.len();
            let mut bytes = 0;
            for (_, entry) in self.queues.entries(slot, self.units()) {
                let weight = read::weigh(&self.log, &self.bodies, entry);
                (live, bytes) = (live + weight.live, bytes + weight.queue);
                if let Some(body) = weight.body {
                    *held.entry(body).or_insert(0) += 1;
                }
            }
            assert!(bytes <= queue.bytes(), "{idx:?} counts too few bytes");
        }
        for (body, it) in self.bodies.iter() {
            assert!(!it.place.is_none() && it.holders > 0);
            // Whoever shared it holds it too, and so do references that can't be read any more.
            assert!(it.holders >= held.remove(&body).unwrap_or(0));
            live += it.place.bytes();
        }
        assert!(held.is_empty(), "an entry leads to a body that is gone");
        live += self.values.iter().map(Place::bytes).sum::<u64>();
        assert_eq!(
            (live, sessions, messages, queues),
            (
                self.live,
                self.session_count,
                self.message_count,
                self.queues.len()
            )
        );
    }
}

/// A header that speaks of a session.
fn header(kind: Kind, session: SessionId, seq: u32) -> Header {
    Header {
        session: session.idx.0,
        serial: session.serial,
        seq,
        ..Header::new(kind)
    }
}

#[cfg(test)]
#[path = "fixture_tests.rs"]
mod fixture;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model;

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
mod disk_tests;

#[cfg(test)]
mod figures;
