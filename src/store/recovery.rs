//! From a log to a store: one scan, in the order of the log.
//!
//! A session's records stand in any order, for the cleaner moves each alone. What the scan relies on is that nothing that speaks of a session stands
//! behind what ends it, and that a copy of a record stands before whatever made it void. So the last record of a thing is right, and the serial says
//! whether it belongs to the session that has the index in the end. After a power failure any records that were not synced may be missing: what
//! has lost its session or its body then is an orphan, and counted.

use std::collections::HashMap;

use super::bodies::Bodies;
use super::damage::Damage;
use super::entry::{Entry, Held, Place};
use super::fan::{self, ENTRY_BYTES};
use super::format::{Kind, Position};
use super::log::{Log, Opened, Record};
use super::queues::Queues;
use super::sessions::{NO_QUEUE, Sessions, Slot};
use super::values::Values;
use super::{Queue, Store, read};
use crate::ids::SessionIdx;
use crate::limits::NOTES_PAGE;
use crate::topic::pool::Pool;

/// A store as it was found. [`Store::sessions`], [`Store::state`], [`Store::queue`] and [`Store::values`] tell what is in it; when the owner has
/// taken up all states it says [`Store::forget_notes`].
#[derive(Debug)]
pub struct Recovered {
    /// With everything in it.
    pub store: Store,
    /// The newest serial of all that stand in the log: the owner goes on behind it.
    pub highest_serial: u32,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Records whose session is not there, and queue entries whose body is not: lost by damage, or never synced before a power failure.
    pub orphans: u64,
    /// Records that were read.
    pub records: u64,
}

impl Recovered {
    /// Damaged stretches that may have held something that was promised.
    pub fn losses(&self) -> u64 {
        self.damage.iter().filter(|damage| damage.is_loss()).count() as u64
    }

    /// Reads a log. `seed` is as for [`Store::new`].
    pub fn read(opened: Opened, seed: u64) -> Self {
        let mut store = Store::new(opened.log, seed);
        let mut damage = opened.damage;
        let mut notes = Notes::default();
        let mut scan = Scan {
            log: &store.log,
            sessions: &mut store.sessions,
            open: Pool::default(),
            queues: &mut store.queues,
            bodies: &mut store.bodies,
            values: &mut store.values,
            notes: &mut notes,
            strangers: HashMap::new(),
            highest_serial: None,
            orphans: 0,
        };
        let mut records = 0;
        for found in scan.log.records() {
            match found {
                Ok(record) => {
                    records += 1;
                    scan.take(&record);
                }
                Err(what) => damage.push(what),
            }
        }
        scan.finish();
        let (highest_serial, orphans) = (scan.highest_serial.unwrap_or(0), scan.orphans);
        store.notes = Some(notes);
        store.count();
        Self {
            store,
            highest_serial,
            damage,
            orphans,
            records,
        }
    }
}

impl Store {
    /// Counts what a scan has found.
    fn count(&mut self) {
        for (_, slot) in self.sessions.iter() {
            self.session_count += 1;
            self.live += slot.state.bytes();
            let end = self.log.end().0 / 8;
            for (_, entry) in self.queues.entries(slot, end) {
                self.message_count += 1;
                self.live += match entry.held() {
                    Held::Fan(..) => ENTRY_BYTES as u64,
                    Held::Message(place) | Held::Reference(place) | Held::Received(place) => {
                        place.bytes()
                    }
                    Held::Gone => 0,
                };
            }
        }
        let bodies = self.bodies.iter().map(|(_, body)| body.place.bytes());
        self.live += bodies.sum::<u64>() + self.values.iter().map(Place::bytes).sum::<u64>();
    }
}

/// The parts of a store while its log is read.
struct Scan<'a> {
    log: &'a Log,
    sessions: &'a mut Sessions,
    /// Until all is read, in a place of their own: most of them rest then.
    open: Pool<Queue>,
    queues: &'a mut Queues,
    bodies: &'a mut Bodies,
    values: &'a mut Values,
    notes: &'a mut Notes,
    /// Queues of sessions whose index another one has so far. Only where records were lost: a session's state comes before what follows it, or is
    /// moved behind it when all of the session before it is gone.
    strangers: HashMap<(u32, u32), Queue>,
    highest_serial: Option<u32>,
    orphans: u64,
}

impl Scan<'_> {
    fn take(&mut self, record: &Record<'_>) {
        let header = record.header;
        let place = || Place::new(record.at, record.footprint());
        let (idx, serial, seq) = (header.session, header.serial, header.seq);
        match header.kind {
            Kind::State => self.state(idx, serial, place()),
            Kind::Note => self.note(idx, serial, record.at),
            Kind::End => self.end(idx, serial),
            Kind::Message | Kind::Reference | Kind::Received => {
                if header.kind == Kind::Reference
                    && let Some((id, _)) = fan::id_and_rest(record.payload)
                {
                    self.bodies.find_or_expect(id);
                }
                let entry = match header.kind {
                    Kind::Message => Entry::message(place()),
                    Kind::Reference => Entry::reference(place()),
                    _ => Entry::received(place()),
                };
                self.set(idx, serial, seq, entry);
            }
            Kind::Done => self.set(idx, serial, seq, Entry::GONE),
            Kind::Body => {
                if let Some((id, _)) = fan::id_and_rest(record.payload) {
                    let body = self.bodies.find_or_expect(id);
                    self.bodies.at_mut(body).place = place();
                }
            }
            Kind::Fan => {
                if let Some((id, entries)) = fan::decode(record.payload) {
                    let body = self.bodies.find_or_expect(id);
                    for it in entries {
                        let entry = Entry::fan(body, it.tag);
                        self.set(it.session.idx.0, it.session.serial, it.seq, entry);
                    }
                }
            }
            Kind::Value => {
                if let Some((key, _)) = read::key_and_value(record) {
                    let is_key = |place| read::key_at(self.log, place) == Some(key);
                    self.values.insert(key, place(), is_key);
                }
            }
            Kind::Forget => {
                let key = record.payload;
                let is_key = |place| read::key_at(self.log, place) == Some(key);
                self.values.remove(key, is_key);
            }
            Kind::Seal => {}
        }
    }

    /// Notes a serial; false, and an orphan: the index can't be one.
    fn seen(&mut self, idx: u32, serial: u32) -> bool {
        if !Sessions::is_index(idx) {
            self.orphans += 1;
            return false;
        }
        if self
            .highest_serial
            .is_none_or(|highest| is_newer(serial, highest))
        {
            self.highest_serial = Some(serial);
        }
        true
    }

    fn state(&mut self, idx: u32, serial: u32, place: Place) {
        if !self.seen(idx, serial) {
            return;
        }
        let slot = self.sessions.slot_mut(SessionIdx(idx));
        if !is_vacant(*slot) && slot.serial != serial {
            let queue = slot.queue;
            if is_newer(serial, slot.serial) {
                // The older one is over: all of its records stand before this one.
                if queue != NO_QUEUE {
                    self.open.remove(queue);
                }
            } else if slot.state.is_none() {
                // The newer one's state is lost, so this one was not over; or it was moved and is yet to come.
                let queue = self.open.remove(queue);
                self.strangers.insert((idx, slot.serial), queue);
            } else {
                self.orphans += 1;
                return;
            }
            *slot = Slot::EMPTY;
        }
        slot.state = place;
        self.adopt(idx, serial);
    }

    fn note(&mut self, idx: u32, serial: u32, at: Position) {
        if !self.seen(idx, serial) {
            return;
        }
        let slot = self.sessions.slot(SessionIdx(idx));
        // A note without a state before it was made void by one that stands behind it.
        if !slot.state.is_none() && slot.serial == serial {
            self.notes.push(SessionIdx(idx), at);
        }
    }

    fn end(&mut self, idx: u32, serial: u32) {
        if !self.seen(idx, serial) {
            return;
        }
        self.strangers.remove(&(idx, serial));
        let slot = self.sessions.slot_mut(SessionIdx(idx));
        if slot.serial == serial && !is_vacant(*slot) {
            if slot.queue != NO_QUEUE {
                self.open.remove(slot.queue);
            }
            *slot = Slot::EMPTY;
        }
    }

    fn set(&mut self, idx: u32, serial: u32, seq: u32, entry: Entry) {
        if !self.seen(idx, serial) {
            return;
        }
        let slot = self.sessions.slot(SessionIdx(idx));
        if is_vacant(slot) {
            if entry.is_gone() && self.strangers.is_empty() {
                return;
            }
            self.adopt(idx, serial);
        }
        let slot = self.sessions.slot_mut(SessionIdx(idx));
        let queue = if slot.serial != serial {
            self.strangers.entry((idx, serial)).or_default()
        } else if slot.queue != NO_QUEUE {
            &mut self.open[slot.queue]
        } else if entry.is_gone() {
            return;
        } else {
            slot.queue = self.open.insert(Queue::default());
            &mut self.open[slot.queue]
        };
        if !queue.set(seq, entry) {
            self.orphans += 1;
        }
    }

    /// The index is this session's, with what was found of it while it was another's.
    fn adopt(&mut self, idx: u32, serial: u32) {
        let slot = self.sessions.slot_mut(SessionIdx(idx));
        slot.serial = serial;
        if let Some(queue) = self.strangers.remove(&(idx, serial)) {
            slot.queue = self.open.insert(queue);
        }
    }

    /// Drops what has no session and no body, and counts who holds which body.
    fn finish(&mut self) {
        for queue in self.strangers.values() {
            self.orphans += queue.iter().count() as u64;
        }
        let Self {
            open,
            queues,
            bodies,
            log,
            orphans,
            ..
        } = self;
        self.sessions.for_each_mut(|idx, slot| {
            if slot.queue == NO_QUEUE {
                return;
            }
            let mut queue = open.remove(std::mem::replace(&mut slot.queue, NO_QUEUE));
            if slot.state.is_none() {
                *orphans += queue.iter().count() as u64;
                *slot = Slot::EMPTY;
                return;
            }
            queue.recount(|entry| {
                let weight = read::weigh(log, bodies, entry);
                if let Some(body) = weight.body {
                    let it = bodies.at_mut(body);
                    if it.place.is_none() {
                        *orphans += 1;
                        return None;
                    }
                    it.holders += 1;
                }
                Some(weight.queue)
            });
            if !queue.is_empty() {
                slot.queue = queues.insert(idx, queue);
            }
        });
        self.bodies.drop_unheld();
    }
}

fn is_vacant(slot: Slot) -> bool {
    slot.state.is_none() && slot.queue == NO_QUEUE
}

/// Serials wrap; those that live at a time are close together.
fn is_newer(serial: u32, than: u32) -> bool {
    serial.wrapping_sub(than).cast_signed() > 0
}

/// Where the notes of each session stand, as lists from the last to the first.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// By index of the session: the number of its last note, plus 1.
    last: Vec<u32>,
    /// In pages, so that nothing is copied when there are more.
    pages: Vec<Vec<Note>>,
}

#[derive(Debug)]
struct Note {
    /// Its position / 8, in halves so that a note is 12 bytes.
    at: [u32; 2],
    /// The number of the one before it, plus 1.
    before: u32,
}

impl Notes {
    pub(super) fn push(&mut self, idx: SessionIdx, at: Position) {
        if self.last.len() <= idx.index() {
            self.last.resize(idx.index() + 1, 0);
        }
        let at = at.0 / 8;
        if self
            .pages
            .last()
            .is_none_or(|page| page.len() == NOTES_PAGE)
        {
            self.pages.push(Vec::with_capacity(NOTES_PAGE));
        }
        let full = (self.pages.len() - 1) * NOTES_PAGE;
        let page = self.pages.last_mut().expect("one has room");
        page.push(Note {
            at: [at as u32, (at >> 32) as u32],
            before: self.last[idx.index()],
        });
        self.last[idx.index()] = (full + page.len()) as u32;
    }

    /// Those of a session that stand behind a position, last first.
    pub(super) fn of(&self, idx: SessionIdx, since: Position) -> impl Iterator<Item = Position> {
        let mut next = self.last.get(idx.index()).copied().unwrap_or(0);
        std::iter::from_fn(move || {
            let number = next.checked_sub(1)? as usize;
            let note = self
                .pages
                .get(number / NOTES_PAGE)?
                .get(number % NOTES_PAGE)?;
            next = note.before;
            let at = u64::from(note.at[0]) | u64::from(note.at[1]) << 32;
            (at * 8 > since.0).then_some(Position(at * 8))
        })
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        self.last.capacity() * size_of::<u32>()
            + self.pages.len() * NOTES_PAGE * size_of::<Note>()
            + self.pages.capacity() * size_of::<Vec<Note>>()
    }
}
