//! What goes into queues, and out of them.

use super::entry::{Entry, Held, Place};
use super::fan::{ENTRY_BYTES, FanEntry};
use super::format::{Header, Kind};
use super::log::Urgency;
use super::read::{self, Weight};
use super::{Owed, Queue, Refused, Shared, Store, View, header};
use crate::ids::{SessionId, SessionIdx};

impl Store {
    /// Appends a message with a body of its own, and a meta of at most 65,535 bytes; tells its number. Numbers count up, by one; `start` is the first
    /// one if the queue is empty. The number `u32::MAX` is left out, so that a number modulo 65,535 goes on evenly after the last one too.
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
        // What is collected comes before it: a queue must not be without its middle, however the process ends.
        if !self.fan.is_empty() {
            self.flush_fan()?;
        }
        let seq = self.next(session, start)?;
        let header = Header {
            aux: u16::try_from(meta.len()).expect("a meta has a length of 16 bits"),
            ..header(Kind::Message, session, seq)
        };
        let place = self.write_two(Urgency::Message, &header, meta, body)?;
        self.push(session, seq, Entry::message(place), place.bytes());
        self.live += place.bytes();
        Ok(seq)
    }

    /// Records a body for many queues. The caller holds it until [`Store::release`]; each entry holds it too.
    pub fn share(&mut self, body: &[&[u8]]) -> Result<Shared, Refused> {
        // The end of the log moves with each record, and never back.
        let id = self.log.end().0;
        let header = Header::new(Kind::Body);
        let place = self.write_two(Urgency::Message, &header, &id.to_le_bytes(), body)?;
        self.live += place.bytes();
        Ok(self.bodies.insert(id, place))
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
        assert!(tag < 4, "a tag has two bits");
        if let Some(refused) = self.log.refuses(Urgency::Message) {
            return Err(refused);
        }
        if !self.fan.takes(body) {
            self.flush_fan()?;
        }
        let seq = self.next(session, start)?;
        let it = self.bodies.at_mut(body);
        it.holders += 1;
        let bytes = it.place.bytes();
        self.push(session, seq, Entry::fan(body, tag), bytes);
        self.fan.push(body, FanEntry { session, seq, tag });
        self.live += ENTRY_BYTES as u64;
        Ok(seq)
    }

    /// Appends an entry with a shared body and a meta of its own.
    pub fn append_reference(
        &mut self,
        session: SessionId,
        start: u32,
        meta: &[u8],
        body: Shared,
    ) -> Result<u32, Refused> {
        // Entries of the same message are in other queues, so their order means nothing.
        if !self.fan.takes(body) {
            self.flush_fan()?;
        }
        let seq = self.next(session, start)?;
        let id = self.bodies.at(body).id.to_le_bytes();
        let header = header(Kind::Reference, session, seq);
        let place = self.write(Urgency::Message, &header, &[&id, meta])?;
        let it = self.bodies.at_mut(body);
        it.holders += 1;
        let bytes = it.place.bytes() + place.bytes();
        self.push(session, seq, Entry::reference(place), bytes);
        self.live += place.bytes();
        Ok(seq)
    }

    /// The caller of [`Store::share`] needs it no more.
    pub fn release(&mut self, body: Shared) {
        self.live -= self.bodies.release(body);
    }

    /// A session's queue, to look at; none if it is empty.
    #[inline]
    pub fn queue(&self, idx: SessionIdx) -> Option<View<'_>> {
        self.queues.view(self.sessions.slot(idx))
    }

    /// The same, open, for the owner's cursors. They are gone with the last entry. An open queue takes more memory until [`Store::rest`].
    #[inline]
    pub fn queue_mut(&mut self, idx: SessionIdx) -> Option<&mut Queue> {
        let end = self.units();
        self.queues.open(&mut self.sessions, idx, end)
    }

    /// Nobody sends from a session's queue for now: it takes less memory, unless it is long or part of it was sent.
    pub fn rest(&mut self, idx: SessionIdx) {
        self.queues.rest(&mut self.sessions, idx);
    }

    /// The other side has the message (PUBREC): the body may go, the entry stays until it is done. In memory in any case; on an error that is not
    /// recorded yet, and [`Store::commit`] tries again.
    pub fn received(&mut self, session: SessionId, seq: u32) -> Result<(), Refused> {
        let entry = self.entry(session, seq);
        if matches!(entry.held(), Held::Gone | Held::Received(_)) {
            return Ok(());
        }
        let weight = self.weigh(entry);
        let slot = self.sessions.slot(session.idx);
        let received = Entry::received(Place::NONE);
        self.queues.replace(slot, seq, received, weight.queue, 0);
        self.unhold(weight);
        self.record_or_owe(Owed::Received(session, seq))
    }

    /// The entry is over: acknowledged, expired, or dropped. In memory in any case; on an error that is not recorded yet, and [`Store::commit`] tries
    /// again.
    pub fn done(&mut self, session: SessionId, seq: u32) -> Result<(), Refused> {
        let entry = self.entry(session, seq);
        if entry.is_gone() {
            return Ok(());
        }
        let weight = self.weigh(entry);
        let end = self.units();
        let gone = (seq, weight.queue);
        self.queues
            .remove(&mut self.sessions, session.idx, gone, end);
        self.message_count -= 1;
        self.unhold(weight);
        self.record_or_owe(Owed::Done(session, seq))
    }

    /// The number of the next entry of a session.
    #[inline]
    fn next(&self, session: SessionId, start: u32) -> Result<u32, Refused> {
        let slot = self.sessions.find(session);
        let slot = slot.expect("who appends has recorded the session");
        if self.queues.is_full(slot) {
            return Err(Refused::Full);
        }
        let queue = self.queues.view(slot);
        Ok(queue.map_or_else(|| Queue::new(start).tail(), |queue| queue.tail()))
    }

    #[inline]
    pub(super) fn push(&mut self, session: SessionId, seq: u32, entry: Entry, bytes: u64) {
        let end = self.units();
        let new = (seq, entry, bytes);
        self.queues.push(&mut self.sessions, session.idx, new, end);
        self.message_count += 1;
    }

    /// A session's queue is over, in memory.
    pub(super) fn drop_queue(&mut self, idx: SessionIdx) {
        let end = self.units();
        let Some(queue) = self.queues.take(&mut self.sessions, idx, end) else {
            return;
        };
        self.message_count -= queue.len();
        for (_, entry) in queue.iter() {
            self.unhold(self.weigh(entry));
        }
    }

    fn weigh(&self, entry: Entry) -> Weight {
        read::weigh(&self.log, &self.bodies, entry)
    }

    fn unhold(&mut self, weight: Weight) {
        self.live -= weight.live;
        if let Some(body) = weight.body {
            self.live -= self.bodies.release(body);
        }
    }

    /// Records the entries that were collected. Those that are over already are left out: what says so stands before, and the last record is right.
    pub(super) fn flush_fan(&mut self) -> Result<(), Refused> {
        let Some(body) = self.fan.body() else {
            return Ok(());
        };
        let mut entries = std::mem::take(&mut self.fan.entries);
        entries.retain(|it| self.entry(it.session, it.seq) == Entry::fan(body, it.tag));
        let recorded = if entries.is_empty() {
            Ok(())
        } else {
            self.write_fan(Urgency::Control, body, &entries)
        };
        if recorded.is_ok() {
            entries.clear();
        }
        self.fan.entries = entries;
        recorded
    }

    pub(super) fn write_fan(
        &mut self,
        urgency: Urgency,
        body: Shared,
        entries: &[FanEntry],
    ) -> Result<(), Refused> {
        let mut bytes = std::mem::take(&mut self.cleaner.scratch);
        bytes.clear();
        bytes.extend_from_slice(&self.bodies.at(body).id.to_le_bytes());
        bytes.extend(entries.iter().flat_map(|entry| entry.encode()));
        let written = self.append_record(urgency, &Header::new(Kind::Fan), &[&bytes]);
        self.cleaner.scratch = bytes;
        written.map(drop)
    }
}
