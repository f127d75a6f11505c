//! Bodies that many queue entries share: where each stands, and how many lead to it.
//!
//! In a log a body has a number of 64 bits that never comes back; in memory it has a slot, which does.

use super::entry::Place;
use crate::sys::prefetch;
use crate::topic::TopicHash;
use crate::topic::pool::Pool;
use crate::topic::table::Table;

/// A body that many queue entries share. In memory only: after a restart the store counts its holders anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shared(pub(super) u32);

#[derive(Debug, Default)]
pub(super) struct Body {
    /// Its record; none: not found yet, while a log is read.
    pub(super) place: Place,
    pub(super) id: u64,
    /// Entries that lead to it, and whoever shared it.
    pub(super) holders: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    pool: Pool<Body>,
    by_id: Table,
}

impl Bodies {
    /// Adds a body with a new id, and one holder.
    pub(super) fn insert(&mut self, id: u64, place: Place) -> Shared {
        let slot = self.pool.insert(Body {
            place,
            id,
            holders: 1,
        });
        let pool = &self.pool;
        self.by_id.insert(
            hash(id),
            slot,
            |slot| prefetch::read(&pool[slot]),
            |slot| hash(pool[slot].id),
        );
        Shared(slot)
    }

    /// The body with this id.
    pub(super) fn find(&self, id: u64) -> Option<Shared> {
        let found = self.by_id.find(hash(id), |slot| self.pool[slot].id == id);
        found.map(Shared)
    }

    /// The same; if there is none it is added without a place and without a holder.
    pub(super) fn find_or_expect(&mut self, id: u64) -> Shared {
        if let Some(body) = self.find(id) {
            return body;
        }
        let body = self.insert(id, Place::NONE);
        self.at_mut(body).holders = 0;
        body
    }

    pub(super) fn at(&self, body: Shared) -> &Body {
        &self.pool[body.0]
    }

    pub(super) fn at_mut(&mut self, body: Shared) -> &mut Body {
        &mut self.pool[body.0]
    }

    /// One holder less; with the last one it goes. Tells the bytes that this makes dead.
    pub(super) fn release(&mut self, body: Shared) -> u64 {
        let it = &mut self.pool[body.0];
        it.holders -= 1;
        if it.holders > 0 {
            return 0;
        }
        let bytes = it.place.bytes();
        self.remove(body);
        bytes
    }

    /// After a log was read: those that nobody holds, or that were not found, go; no entry leads to them.
    pub(super) fn drop_unheld(&mut self) {
        let unheld = |slot: &u32| {
            let body = &self.pool[*slot];
            body.holders == 0 || body.place.is_none()
        };
        let slots: Vec<u32> = self.by_id.iter().filter(unheld).collect();
        for slot in slots {
            self.remove(Shared(slot));
        }
    }

    fn remove(&mut self, body: Shared) {
        let pool = &self.pool;
        let removed = self
            .by_id
            .remove(hash(pool[body.0].id), body.0, |slot| hash(pool[slot].id));
        debug_assert!(removed, "every body has its id in the table");
        self.pool.remove(body.0);
    }

    pub(super) fn len(&self) -> usize {
        self.pool.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Shared, &Body)> {
        self.by_id
            .iter()
            .map(|slot| (Shared(slot), &self.pool[slot]))
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        self.pool.reserved() + self.by_id.reserved()
    }

    pub(super) fn check_invariants(&self) {
        self.by_id.check_invariants(|slot| hash(self.pool[slot].id));
        assert_eq!(self.by_id.len(), self.pool.len());
    }
}

/// `SplitMix64`'s last step: ids are places in the log, which nobody chooses.
fn hash(id: u64) -> TopicHash {
    let z = (id ^ (id >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    TopicHash(z ^ (z >> 31))
}

#[cfg(test)]
mod tests {
    use super::super::format::Position;
    use super::*;

    #[test]
    fn the_last_holder_frees_it() {
        let mut bodies = Bodies::default();
        let place = Place::new(Position(64), 96);
        let body = bodies.insert(9, place);
        bodies.at_mut(body).holders += 1;
        assert_eq!(bodies.find(9), Some(body));
        assert_eq!((bodies.release(body), bodies.len()), (0, 1));
        assert_eq!((bodies.release(body), bodies.len()), (96, 0));
        assert_eq!(bodies.find(9), None);
        bodies.check_invariants();
    }

    #[test]
    fn what_was_not_found_or_is_not_held_goes() {
        let mut bodies = Bodies::default();
        let place = Place::new(Position(64), 96);
        let kept = bodies.insert(1, place);
        let expected = bodies.find_or_expect(2);
        assert_eq!(bodies.find_or_expect(2), expected);
        bodies.at_mut(expected).holders = 3;
        let unheld = bodies.find_or_expect(3);
        bodies.at_mut(unheld).place = place;
        bodies.drop_unheld();
        let left: Vec<Shared> = bodies.iter().map(|(body, _)| body).collect();
        assert_eq!(left, [kept]);
        bodies.check_invariants();
    }
}
