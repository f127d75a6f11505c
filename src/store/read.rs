//! What can be read: entries, values, states.

use std::collections::HashMap;

use super::bodies::{Bodies, Shared};
use super::entry::{Entry, Held, Place};
use super::fan::{self, ENTRY_BYTES};
use super::format::{Kind, Position};
use super::log::{Log, Record};
use super::{Item, Store};
use crate::ids::{SessionId, SessionIdx};

/// What an entry counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    /// In its queue.
    pub(super) queue: u64,
    /// In the log, without its body.
    pub(super) live: u64,
    /// The body that it holds.
    pub(super) body: Option<Shared>,
}

/// What this entry counts.
pub(super) fn weigh(log: &Log, bodies: &Bodies, entry: Entry) -> Weight {
    let (live, body) = match entry.held() {
        Held::Gone => (0, None),
        Held::Message(place) | Held::Received(place) => (place.bytes(), None),
        Held::Reference(place) => (place.bytes(), reference_at(log, bodies, place)),
        Held::Fan(body, _) => (ENTRY_BYTES as u64, Some(body)),
    };
    // Of what is received nothing but a mark is left, whenever that is recorded.
    let own = match entry.held() {
        Held::Fan(..) | Held::Received(_) => 0,
        _ => live,
    };
    Weight {
        queue: own + body.map_or(0, |body| bodies.at(body).place.bytes()),
        live,
        body,
    }
}

/// The body that a reference leads to.
fn reference_at(log: &Log, bodies: &Bodies, place: Place) -> Option<Shared> {
    let record = log.read(place.position())?;
    let (id, _) = fan::id_and_rest(record.payload)?;
    bodies.find(id)
}

/// The key of a value.
pub(super) fn key_at(log: &Log, place: Place) -> Option<&[u8]> {
    Some(key_and_value(&log.read(place.position())?)?.0)
}

/// A value's record in its two parts.
pub(super) fn key_and_value<'a>(record: &Record<'a>) -> Option<(&'a [u8], &'a [u8])> {
    record
        .payload
        .split_at_checked(usize::from(record.header.aux))
}

/// A message's record in its two parts.
fn message<'a>(record: &Record<'a>) -> Option<Item<'a>> {
    let (meta, body) = record
        .payload
        .split_at_checked(usize::from(record.header.aux))?;
    Some(Item {
        body,
        meta,
        tag: None,
    })
}

impl Store {
    /// An entry that waits. None: it does not, or what was recorded can't be read any more; then the owner calls it done.
    pub fn item(&self, idx: SessionIdx, seq: u32) -> Option<Item<'_>> {
        let slot = self.sessions.slot(idx);
        let entry = self.queues.get(slot, seq, self.units());
        match entry.held() {
            Held::Gone | Held::Received(_) => None,
            Held::Message(place) => message(&self.log.read(place.position())?),
            Held::Reference(place) => {
                let record = self.log.read(place.position())?;
                let (id, meta) = fan::id_and_rest(record.payload)?;
                Some(Item {
                    body: self.body(self.bodies.find(id)?)?,
                    meta,
                    tag: None,
                })
            }
            Held::Fan(body, tag) => Some(Item {
                body: self.body(body)?,
                meta: &[],
                tag: Some(tag),
            }),
        }
    }

    /// The shared body that an entry leads to.
    pub(super) fn body_of(&self, entry: Entry) -> Option<Shared> {
        weigh(&self.log, &self.bodies, entry).body
    }

    /// A shared body; none if it can't be read any more.
    pub fn body(&self, body: Shared) -> Option<&[u8]> {
        let record = self.log.read(self.bodies.at(body).place.position())?;
        Some(fan::id_and_rest(record.payload)?.1)
    }

    /// The value of a key.
    pub fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let is_key = |place| key_at(&self.log, place) == Some(key);
        let place = self.values.find(key, is_key)?;
        Some(key_and_value(&self.log.read(place.position())?)?.1)
    }

    /// All keys with their values, in no order; without those that can't be read any more.
    pub fn values(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let read = |place: Place| key_and_value(&self.log.read(place.position())?);
        self.values.iter().filter_map(read)
    }

    /// The sessions that are in the store, by index.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().map(|(idx, slot)| SessionId {
            idx,
            serial: slot.serial,
        })
    }

    /// A session's state, and its notes in the order in which they were recorded. The notes are known from a restart until [`Store::forget_notes`].
    /// None: there is no such session, or its state can't be read any more.
    pub fn state(&self, idx: SessionIdx) -> Option<(&[u8], Vec<&[u8]>)> {
        let place = self.sessions.slot(idx).state;
        if place.is_none() {
            return None;
        }
        let state = self.log.read(place.position())?.payload;
        let since = place.position();
        let read = |at: Position| Some(self.log.read(at)?.payload);
        let notes = self.notes.as_ref();
        let mut notes: Vec<&[u8]> = notes
            .into_iter()
            .flat_map(|notes| notes.of(idx, since))
            .filter_map(read)
            .collect();
        notes.reverse();
        Some((state, notes))
    }

    /// The owner has seen all states after a restart: the places of the notes are forgotten, and [`Store::clean`] may begin.
    pub fn forget_notes(&mut self) {
        self.notes = None;
    }

    /// Every queue entry that still stands in the log, done or not, with its body as far as that stands too. Reads the whole log, twice.
    pub fn walk_entries(&self, mut seen: impl FnMut(SessionId, u32, Item<'_>)) {
        let mut bodies = HashMap::new();
        for record in self.log.records().filter_map(Result::ok) {
            if record.header.kind == Kind::Body
                && let Some((id, body)) = fan::id_and_rest(record.payload)
            {
                bodies.insert(id, body);
            }
        }
        for record in self.log.records().filter_map(Result::ok) {
            let header = record.header;
            let session = SessionId {
                idx: SessionIdx(header.session),
                serial: header.serial,
            };
            match header.kind {
                Kind::Message => {
                    if let Some(item) = message(&record) {
                        seen(session, header.seq, item);
                    }
                }
                Kind::Reference => {
                    if let Some((id, meta)) = fan::id_and_rest(record.payload)
                        && let Some(&body) = bodies.get(&id)
                    {
                        let tag = None;
                        seen(session, header.seq, Item { body, meta, tag });
                    }
                }
                Kind::Fan => {
                    let Some((id, entries)) = fan::decode(record.payload) else {
                        continue;
                    };
                    let Some(&body) = bodies.get(&id) else {
                        continue;
                    };
                    for entry in entries {
                        let (meta, tag): (&[u8], _) = (&[], Some(entry.tag));
                        seen(entry.session, entry.seq, Item { body, meta, tag });
                    }
                }
                _ => {}
            }
        }
    }
}
