//! The table of sessions: 16 bytes each, by index.

use super::entry::Place;
use crate::ids::{SessionId, SessionIdx};
use crate::limits::{SESSION_BITS, SESSIONS_PAGE};

/// No queue.
pub(super) const NO_QUEUE: u32 = u32::MAX;

/// What is known of the session at an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Its newest state record; none: no session.
    pub(super) state: Place,
    pub(super) serial: u32,
    /// The number of its queue.
    pub(super) queue: u32,
}

const _: () = assert!(size_of::<Slot>() == crate::limits::DURABLE_SESSION_BYTES);

impl Slot {
    pub(super) const EMPTY: Self = Self {
        state: Place::NONE,
        serial: 0,
        queue: NO_QUEUE,
    };
}

/// See the module. Memory grows by pages, so that nothing is ever copied.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pages: Vec<Option<Box<[Slot]>>>,
}

impl Sessions {
    /// Whether an index may be one.
    pub(super) fn is_index(idx: u32) -> bool {
        idx < 1 << SESSION_BITS
    }

    /// What is known of this index; empty if there never was a session near it.
    pub(super) fn slot(&self, idx: SessionIdx) -> Slot {
        let page = self.pages.get(idx.index() / SESSIONS_PAGE);
        match page {
            Some(Some(page)) => page[idx.index() % SESSIONS_PAGE],
            _ => Slot::EMPTY,
        }
    }

    /// To change it. The index is one.
    pub(super) fn slot_mut(&mut self, idx: SessionIdx) -> &mut Slot {
        let number = idx.index() / SESSIONS_PAGE;
        if number >= self.pages.len() {
            self.pages.resize_with(number + 1, || None);
        }
        let page = self.pages[number]
            .get_or_insert_with(|| vec![Slot::EMPTY; SESSIONS_PAGE].into_boxed_slice());
        &mut page[idx.index() % SESSIONS_PAGE]
    }

    /// This session, if it is in the store.
    pub(super) fn find(&self, session: SessionId) -> Option<Slot> {
        let slot = self.slot(session.idx);
        (!slot.state.is_none() && slot.serial == session.serial).then_some(slot)
    }

    /// Every slot that is not empty.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionIdx, Slot)> {
        let pages = self.pages.iter().enumerate();
        pages
            .filter_map(|(number, page)| Some((number * SESSIONS_PAGE, page.as_deref()?)))
            .flat_map(|(first, page)| {
                page.iter()
                    .enumerate()
                    .map(move |(at, slot)| (first + at, *slot))
            })
            .filter(|(_, slot)| !slot.state.is_none() || slot.queue != NO_QUEUE)
            .map(|(idx, slot)| (SessionIdx(idx as u32), slot))
    }

    /// Every slot, to change it.
    pub(super) fn for_each_mut(&mut self, mut change: impl FnMut(SessionIdx, &mut Slot)) {
        for (number, page) in self.pages.iter_mut().enumerate() {
            for (at, slot) in page.iter_mut().flat_map(|page| page.iter_mut().enumerate()) {
                change(SessionIdx((number * SESSIONS_PAGE + at) as u32), slot);
            }
        }
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        let pages = self.pages.iter().flatten().count();
        pages * SESSIONS_PAGE * size_of::<Slot>()
            + self.pages.capacity() * size_of::<Option<Box<[Slot]>>>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Position;
    use super::*;

    #[test]
    fn a_session_costs_sixteen_bytes() {
        let mut sessions = Sessions::default();
        let state = Place::new(Position(64), 32);
        for idx in 0..100_000 {
            let slot = sessions.slot_mut(SessionIdx(idx));
            (slot.state, slot.serial) = (state, idx + 1);
        }
        assert!(sessions.reserved() <= 100_000 * 16 + (64 << 10));
        assert_eq!(sessions.iter().count(), 100_000);
        let id = |serial| SessionId {
            idx: SessionIdx(77),
            serial,
        };
        assert!(sessions.find(id(78)).is_some());
        assert!(sessions.find(id(77)).is_none());
        assert!(sessions.slot(SessionIdx(40 << 20)).state.is_none());
        assert!(!Sessions::is_index(1 << SESSION_BITS));
    }
}
