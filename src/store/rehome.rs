//! From one store to others: for a server that starts with another number of reactors.
//!
//! The owner reads each old log ([`super::Recovered::read`]), decides for each session which new store gets it and under which index, merges its
//! state with its notes, and lets this move its queue. Values it hands over itself, with [`Store::values`] and [`Store::keep`].

use std::collections::HashMap;

use super::entry::Held;
use super::{Owed, Refused, Shared, Store};
use crate::ids::{SessionId, SessionIdx};

/// The shared bodies of one old store that are in one new store already.
#[derive(Debug, Default)]
pub struct Moved {
    bodies: HashMap<Shared, Shared>,
}

impl Moved {
    /// Puts the queue of a session of the old store at the end of nothing: the session is in the new one, without a queue. Numbers, what is received,
    /// and the order stay; entries that can't be read any more are left out. A body that several queues share is in the new store once.
    pub fn queue(
        &mut self,
        from: &Store,
        idx: SessionIdx,
        to: &mut Store,
        session: SessionId,
    ) -> Result<(), Refused> {
        let slot = from.sessions.slot(idx);
        for (seq, entry) in from.queues.entries(slot, from.units()) {
            match entry.held() {
                Held::Gone => {}
                Held::Received(_) => to.append_received(session, seq)?,
                Held::Message(_) => {
                    if let Some(item) = from.item(idx, seq) {
                        to.skip_to(session, seq);
                        to.append(session, seq, item.meta, &[item.body])?;
                    }
                }
                Held::Reference(_) | Held::Fan(..) => {
                    let Some(body) = from.body_of(entry) else {
                        continue;
                    };
                    let (Some(item), Some(body)) =
                        (from.item(idx, seq), self.body(from, body, to)?)
                    else {
                        continue;
                    };
                    to.skip_to(session, seq);
                    match item.tag {
                        Some(tag) => to.append_shared(session, seq, tag, body)?,
                        None => to.append_reference(session, seq, item.meta, body)?,
                    };
                }
            }
        }
        Ok(())
    }

    /// The body in the new store that is this one of the old.
    fn body(
        &mut self,
        from: &Store,
        body: Shared,
        to: &mut Store,
    ) -> Result<Option<Shared>, Refused> {
        if let Some(&moved) = self.bodies.get(&body) {
            return Ok(Some(moved));
        }
        let Some(bytes) = from.body(body) else {
            return Ok(None);
        };
        let moved = to.share(&[bytes])?;
        self.bodies.insert(body, moved);
        Ok(Some(moved))
    }

    /// All queues of the old store are moved: the bodies are held by their entries alone.
    pub fn finish(self, to: &mut Store) -> Result<(), Refused> {
        let committed = to.commit();
        for body in self.bodies.into_values() {
            to.release(body);
        }
        committed
    }
}

impl Store {
    /// The next entry of a queue that has one gets this number; those before it never were.
    fn skip_to(&mut self, session: SessionId, seq: u32) {
        let next = self.queue(session.idx).map(|queue| queue.tail());
        if next.is_some_and(|next| next != seq)
            && let Some(queue) = self.queue_mut(session.idx)
        {
            queue.skip_to(seq);
        }
    }

    /// An entry that is received from the start.
    fn append_received(&mut self, session: SessionId, seq: u32) -> Result<(), Refused> {
        self.skip_to(session, seq);
        self.push(session, seq, super::Entry::received(super::Place::NONE), 0);
        self.record_or_owe(Owed::Received(session, seq))
    }
}
