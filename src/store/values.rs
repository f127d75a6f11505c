//! Values by key: 20 bytes each, whatever the key. The keys stand in the log.

use super::entry::Place;
use crate::sys::prefetch;
use crate::topic::pool::Pool;
use crate::topic::table::Table;
use crate::topic::{TopicHash, TopicHasher};

/// A value's record, and half of its key's hash: so that the table can grow without reading any key.
#[derive(Debug, Default)]
struct Value {
    place: [u32; 2],
    hash: u32,
}

const _: () = assert!(size_of::<Value>() == 12);

/// See the module.
#[derive(Debug)]
pub(super) struct Values {
    hasher: TopicHasher,
    pool: Pool<Value>,
    by_key: Table,
}

impl Values {
    /// None. `seed` is not known to those who choose keys.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: TopicHasher::fixed(seed),
            pool: Pool::default(),
            by_key: Table::default(),
        }
    }

    /// Where the value of this key stands; `is_key` reads a record's key and compares.
    pub(super) fn find(&self, key: &[u8], is_key: impl FnMut(Place) -> bool) -> Option<Place> {
        let number = self.number(self.hash(key), is_key)?;
        Some(self.place(number))
    }

    /// Sets it; tells what was there before.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        place: Place,
        is_key: impl FnMut(Place) -> bool,
    ) -> Option<Place> {
        let hash = self.hash(key);
        if let Some(number) = self.number(hash, is_key) {
            let before = self.place(number);
            self.pool[number].place = place.halves();
            return Some(before);
        }
        let number = self.pool.insert(Value {
            place: place.halves(),
            hash,
        });
        let pool = &self.pool;
        self.by_key.insert(
            spread(hash),
            number,
            |number| prefetch::read(&pool[number]),
            |number| spread(pool[number].hash),
        );
        None
    }

    /// Takes it out; tells what was there.
    pub(super) fn remove(
        &mut self,
        key: &[u8],
        is_key: impl FnMut(Place) -> bool,
    ) -> Option<Place> {
        let hash = self.hash(key);
        let number = self.number(hash, is_key)?;
        let place = self.place(number);
        let pool = &self.pool;
        self.by_key
            .remove(spread(hash), number, |number| spread(pool[number].hash));
        self.pool.remove(number);
        Some(place)
    }

    /// Where all of them stand.
    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        self.by_key.iter().map(|number| self.place(number))
    }

    pub(super) fn len(&self) -> usize {
        self.pool.len()
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        self.pool.reserved() + self.by_key.reserved()
    }

    fn number(&self, hash: u32, mut is_key: impl FnMut(Place) -> bool) -> Option<u32> {
        let is_it = |number| self.pool[number].hash == hash && is_key(self.place(number));
        self.by_key.find(spread(hash), is_it)
    }

    fn place(&self, number: u32) -> Place {
        Place::from_halves(self.pool[number].place)
    }

    fn hash(&self, key: &[u8]) -> u32 {
        (self.hasher.hash_bytes(key).0 >> 32) as u32
    }

    pub(super) fn check_invariants(&self) {
        self.by_key
            .check_invariants(|number| spread(self.pool[number].hash));
        assert_eq!(self.by_key.len(), self.pool.len());
    }
}

/// 32 bits over all 64: the table takes its lines and its tags from different ones.
fn spread(hash: u32) -> TopicHash {
    TopicHash(u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::format::Position;
    use super::*;

    #[test]
    fn a_value_costs_twenty_bytes_and_keys_are_told_apart() {
        let mut values = Values::new(5);
        let mut keys = HashMap::new();
        for number in 0..100_000_u64 {
            let place = Place::new(Position(64 + 8 * number), 64);
            keys.insert(place.position(), number.to_le_bytes());
            let is_key = |place: Place| keys[&place.position()] == number.to_le_bytes();
            assert_eq!(values.insert(&number.to_le_bytes(), place, is_key), None);
        }
        assert!(values.reserved() < 21 * 100_000, "{}", values.reserved());
        values.check_invariants();
        let seven = 7_u64.to_le_bytes();
        let is_key = |place: Place| keys[&place.position()] == seven;
        let place = values.find(&seven, is_key).unwrap();
        assert_eq!(keys[&place.position()], seven);
        // Another key with the same hash is not it.
        assert_eq!(values.find(&seven, |_| false), None);
        assert_eq!(values.remove(&seven, is_key), Some(place));
        assert_eq!(values.remove(&seven, is_key), None);
        assert_eq!((values.len(), values.iter().count()), (99_999, 99_999));
        values.check_invariants();
    }
}
