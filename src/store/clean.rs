//! Gives space back: what lives in the oldest segment moves to the end of the log, and the segment goes.
//!
//! Done when the log is about twice as large as what lives in it. A turn moves about as much as it is told to, or as the log's growth since the last
//! time asks for, so that the log stays bounded whatever comes in.

use super::entry::{Entry, Held, Place};
use super::fan::{self, FanEntry};
use super::format::{self, Kind, Position};
use super::log::{Record, Urgency};
use super::{Refused, Store, View, header};
use crate::ids::{SessionId, SessionIdx};
use crate::limits::{CLEAN_PER_BYTE, CLEAN_SLACK};

/// How far it is.
#[derive(Debug)]
pub(super) struct Cleaner {
    /// Dead bytes that nobody minds.
    slack: u64,
    /// Where it goes on in the oldest segment.
    at: Option<Position>,
    /// Something in that segment could not be read.
    is_damaged: bool,
    /// A pass over the whole log ends here; 0: none is begun.
    pass_end: Position,
    /// The last pass has not given back enough: none begins before the log is larger than this.
    floor: u64,
    /// Bytes appended since it was last called.
    grown: usize,
    /// The last call found nothing to do.
    idle: bool,
    /// Payloads that are made here.
    pub(super) scratch: Vec<u8>,
    fan: Vec<FanEntry>,
}

impl Default for Cleaner {
    fn default() -> Self {
        Self {
            slack: CLEAN_SLACK,
            at: None,
            is_damaged: false,
            pass_end: Position(0),
            floor: 0,
            grown: 0,
            idle: true,
            scratch: Vec::new(),
            fan: Vec::new(),
        }
    }
}

impl Cleaner {
    pub(super) fn grown(&mut self, bytes: usize) {
        self.grown += bytes;
    }
}

/// A record that the cleaner looks at: what it needs to know when the log is appended to.
struct Found {
    at: Position,
    bytes: usize,
    header: format::Header,
}

impl Store {
    /// Gives space back, if a good part of the log is dead: reads about `budget` bytes of its oldest segment, or a few times what was appended since
    /// the last call if that is more, and moves what lives. `describe` writes a session's present state, which must hold all that its notes said; it is
    /// shown the session's queue.
    /// True: there is more to do now. Does nothing until the notes of the last run are forgotten ([`Store::forget_notes`]).
    pub fn clean(
        &mut self,
        budget: usize,
        mut describe: impl FnMut(SessionId, Option<View<'_>>, &mut Vec<u8>),
    ) -> bool {
        let grown = std::mem::take(&mut self.cleaner.grown);
        // What came while there was nothing to clean is no debt: a burst would be paid for in one long call.
        let grown = if std::mem::take(&mut self.cleaner.idle) {
            0
        } else {
            grown
        };
        if self.notes.is_some() {
            return false;
        }
        let mut left = budget.max(grown * CLEAN_PER_BYTE);
        loop {
            let Some(oldest) = self.log.oldest() else {
                self.cleaner.idle = true;
                return false;
            };
            if self.cleaner.at.is_none() && !self.is_worth_cleaning(oldest.base) {
                self.cleaner.idle = true;
                return false;
            }
            let mut at = self.cleaner.at.unwrap_or(oldest.base);
            while at < oldest.end {
                self.cleaner.at = Some(at);
                if left == 0 {
                    return true;
                }
                let found = match self.log.walk(at).next() {
                    Some(Ok(record)) if record.at < oldest.end => found(&record),
                    Some(Err(damage)) if damage.position.is_some_and(|it| it < oldest.end) => {
                        self.cleaner.is_damaged = true;
                        let start = damage.position.map_or(at.0, |it| it.0);
                        at = Position(start + damage.len.max(8));
                        continue;
                    }
                    _ => break,
                };
                let before = self.cleaner.grown;
                if self.move_out(&found, &mut describe).is_err() {
                    // There is no room at all, or never again.
                    return false;
                }
                let moved = self.cleaner.grown - before;
                left = left.saturating_sub(found.bytes + moved);
                at = Position(found.at.0 + found.bytes as u64);
            }
            if std::mem::take(&mut self.cleaner.is_damaged)
                && self.rescue(oldest.base, oldest.end, &mut describe).is_err()
            {
                self.cleaner.is_damaged = true;
                return false;
            }
            self.cleaner.at = None;
            self.log.drop_oldest();
            // What it has moved itself is no growth.
            self.cleaner.grown = 0;
        }
    }

    /// So many dead bytes are left alone, beside as much as lives: for simulations, whose logs are small.
    pub fn set_slack(&mut self, bytes: u64) {
        self.cleaner.slack = bytes;
    }

    /// Whether a good part of the log is dead, and a pass over it can be expected to find it.
    fn is_worth_cleaning(&mut self, oldest: Position) -> bool {
        let size = self.log.size();
        if size <= 2 * self.live + self.cleaner.slack {
            self.cleaner.pass_end = Position(0);
            return false;
        }
        if self.cleaner.pass_end.0 != 0 && oldest >= self.cleaner.pass_end {
            // All of it was looked at: the rest is overhead that isn't counted.
            self.cleaner.pass_end = Position(0);
            self.cleaner.floor = size + size / 4;
        }
        if size <= self.cleaner.floor {
            return false;
        }
        if self.cleaner.pass_end.0 == 0 {
            self.cleaner.pass_end = self.log.end();
        }
        true
    }

    /// Appends a record anew if something leads to it.
    fn move_out(
        &mut self,
        found: &Found,
        describe: &mut impl FnMut(SessionId, Option<View<'_>>, &mut Vec<u8>),
    ) -> Result<(), Refused> {
        let session = SessionId {
            idx: SessionIdx(found.header.session),
            serial: found.header.serial,
        };
        match found.header.kind {
            Kind::State => {
                let lives = self.sessions.find(session);
                if lives.is_some_and(|slot| slot.state.is_at(found.at)) {
                    self.describe_anew(session, describe)?;
                }
            }
            Kind::Message | Kind::Reference | Kind::Received => {
                self.move_entry(session, found)?;
            }
            Kind::Body => self.move_body(found)?,
            Kind::Fan => self.move_fan(found)?,
            Kind::Value => self.move_value(found)?,
            // What they speak of stood before them, and is gone.
            Kind::Note | Kind::End | Kind::Done | Kind::Forget | Kind::Seal => {}
        }
        Ok(())
    }

    fn describe_anew(
        &mut self,
        session: SessionId,
        describe: &mut impl FnMut(SessionId, Option<View<'_>>, &mut Vec<u8>),
    ) -> Result<(), Refused> {
        let mut state = std::mem::take(&mut self.cleaner.scratch);
        state.clear();
        describe(session, self.queue(session.idx), &mut state);
        let put = self.put_state(session, &state, Urgency::Moved);
        self.cleaner.scratch = state;
        put
    }

    fn move_entry(&mut self, session: SessionId, found: &Found) -> Result<(), Refused> {
        let entry = self.entry(session, found.header.seq);
        let lives = match entry.held() {
            Held::Message(place) | Held::Reference(place) | Held::Received(place) => {
                place.is_at(found.at)
            }
            Held::Gone | Held::Fan(..) => false,
        };
        if !lives {
            return Ok(());
        }
        let Some(place) = self.copy(found)? else {
            return Ok(());
        };
        let entry = match found.header.kind {
            Kind::Message => Entry::message(place),
            Kind::Reference => Entry::reference(place),
            _ => Entry::received(place),
        };
        self.replace(session, found.header.seq, entry);
        Ok(())
    }

    fn move_body(&mut self, found: &Found) -> Result<(), Refused> {
        let id = self.log.read(found.at).and_then(|record| {
            let (id, _) = fan::id_and_rest(record.payload)?;
            Some(id)
        });
        let Some(body) = id.and_then(|id| self.bodies.find(id)) else {
            return Ok(());
        };
        if self.bodies.at(body).place.is_at(found.at)
            && let Some(place) = self.copy(found)?
        {
            self.bodies.at_mut(body).place = place;
        }
        Ok(())
    }

    fn move_fan(&mut self, found: &Found) -> Result<(), Refused> {
        let mut entries = std::mem::take(&mut self.cleaner.fan);
        entries.clear();
        let mut body = None;
        if let Some(record) = self.log.read(found.at)
            && let Some((id, all)) = fan::decode(record.payload)
        {
            body = self.bodies.find(id);
            let lives = |it: &FanEntry| {
                body.is_some_and(|body| self.entry(it.session, it.seq) == Entry::fan(body, it.tag))
            };
            entries.extend(all.filter(lives));
        }
        let written = match body {
            Some(body) if !entries.is_empty() => self.write_fan(Urgency::Moved, body, &entries),
            _ => Ok(()),
        };
        self.cleaner.fan = entries;
        written
    }

    fn move_value(&mut self, found: &Found) -> Result<(), Refused> {
        let is_it = |place: Place| place.is_at(found.at);
        let Some(key) = self.log.read(found.at).and_then(|record| {
            let (key, _) = super::read::key_and_value(&record)?;
            Some(key)
        }) else {
            return Ok(());
        };
        if self.values.find(key, is_it).is_none() {
            return Ok(());
        }
        let mut key_copy = std::mem::take(&mut self.cleaner.scratch);
        key_copy.clear();
        key_copy.extend_from_slice(key);
        let copied = self.copy(found);
        if let Ok(Some(place)) = copied {
            self.values.insert(&key_copy, place, is_it);
        }
        self.cleaner.scratch = key_copy;
        copied.map(drop)
    }

    /// Appends a copy of a record.
    fn copy(&mut self, found: &Found) -> Result<Option<Place>, Refused> {
        let copied = self.log.copy(Urgency::Moved, found.at)?;
        self.cleaner.grown += found.bytes;
        Ok(copied.map(|position| Place::new(position, found.bytes)))
    }

    /// Something between two positions could not be read any more. States are known to their owner, so they are not lost; what stands there of the
    /// rest is.
    #[cold]
    fn rescue(
        &mut self,
        from: Position,
        to: Position,
        describe: &mut impl FnMut(SessionId, Option<View<'_>>, &mut Vec<u8>),
    ) -> Result<(), Refused> {
        let lost =
            |place: Place| !place.is_none() && place.position() >= from && place.position() < to;
        let sessions: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, slot)| lost(slot.state))
            .map(|(idx, slot)| SessionId {
                idx,
                serial: slot.serial,
            })
            .collect();
        for session in sessions {
            self.describe_anew(session, describe)?;
        }
        // Only that it is received was recorded: that can be said again.
        let end = self.units();
        let received: Vec<(SessionId, u32)> = self
            .sessions
            .iter()
            .flat_map(|(idx, slot)| {
                let serial = slot.serial;
                let entries = self.queues.entries(slot, end);
                entries
                    .filter(
                        |(_, entry)| matches!(entry.held(), Held::Received(place) if lost(place)),
                    )
                    .map(move |(seq, _)| (SessionId { idx, serial }, seq))
            })
            .collect();
        for (session, seq) in received {
            let header = header(Kind::Received, session, seq);
            let place = self.write(Urgency::Moved, &header, &[])?;
            self.replace(session, seq, Entry::received(place));
        }
        Ok(())
    }
}

fn found(record: &Record<'_>) -> Found {
    Found {
        at: record.at,
        bytes: record.footprint(),
        header: record.header,
    }
}
