//! What each session subscribes to: filters, and the session's position in each filter's list of subscribers.
//!
//! A session with a few subscriptions has them as a chain of 12-byte records; one with many has a hash map, so that neither a gateway with
//! 100,000 subscriptions nor whoever shares a filter with it pays for long walks. The lists themselves are the index's.

use hashbrown::HashMap;

use super::pool::Pool;
use super::subscription::FilterId;
use crate::ids::SessionIdx;
use crate::limits::{CHAINED_SUBSCRIPTIONS, POOL_PAGE_RECORDS};

/// No record: the end of a chain, or a session without subscriptions.
const NONE: u32 = u32::MAX;
/// In a head: the rest is the number of a map.
const MAP: u32 = 1 << 31;

/// One subscription of one session.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    filter: FilterId,
    position: u32,
    /// The session's next.
    next: u32,
}

const _: () = assert!(size_of::<Holding>() == 12);

/// The subscriptions of all sessions, by session.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// By session index: the first record of its chain, or its map. Sessions are numbered densely, so a table by number is the smallest.
    heads: Vec<Box<[u32]>>,
    records: Pool<Holding>,
    maps: Pool<HashMap<FilterId, u32>>,
    len: usize,
}

enum Head {
    Chain(u32),
    Map(u32),
}

impl Holdings {
    /// Subscriptions of all sessions.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Subscriptions of one session.
    pub(super) fn count(&self, session: SessionIdx) -> usize {
        match self.head(session) {
            Head::Chain(first) => self.chain(first).count(),
            Head::Map(map) => self.maps[map].len(),
        }
    }

    /// A session's position in the list of a filter.
    pub(super) fn find(&self, session: SessionIdx, filter: FilterId) -> Option<u32> {
        match self.head(session) {
            Head::Chain(first) => self
                .chain(first)
                .find(|&(_, held)| held.filter == filter)
                .map(|(_, held)| held.position),
            Head::Map(map) => self.maps[map].get(&filter).copied(),
        }
    }

    /// All of a session, in no order: filter and position.
    pub(super) fn iter(&self, session: SessionIdx) -> impl Iterator<Item = (FilterId, u32)> {
        let (chain, map) = match self.head(session) {
            Head::Chain(first) => (first, None),
            Head::Map(map) => (NONE, Some(&self.maps[map])),
        };
        let of_map = map
            .into_iter()
            .flatten()
            .map(|(&filter, &position)| (filter, position));
        self.chain(chain)
            .map(|(_, held)| (held.filter, held.position))
            .chain(of_map)
    }

    /// Those of a session's filters that are in `filters`, which is in ascending order: place in `filters` and position in the filter's list.
    /// Ends early when `each` says false.
    pub(super) fn overlap(
        &self,
        session: SessionIdx,
        filters: &[FilterId],
        mut each: impl FnMut(usize, u32) -> bool,
    ) {
        match self.head(session) {
            Head::Chain(first) => {
                for (_, held) in self.chain(first) {
                    if let Ok(at) = filters.binary_search(&held.filter)
                        && !each(at, held.position)
                    {
                        return;
                    }
                }
            }
            Head::Map(map) => {
                for (at, filter) in filters.iter().enumerate() {
                    if let Some(&position) = self.maps[map].get(filter)
                        && !each(at, position)
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Adds a filter that the session does not have.
    pub(super) fn add(&mut self, session: SessionIdx, filter: FilterId, position: u32) {
        self.len += 1;
        match self.head(session) {
            Head::Chain(first) => {
                if self.chain(first).count() == CHAINED_SUBSCRIPTIONS {
                    let mut map: HashMap<FilterId, u32> = self.iter(session).collect();
                    self.free_chain(first);
                    map.insert(filter, position);
                    let map = self.maps.insert(map);
                    self.set_head(session, MAP | map);
                } else {
                    self.push(session, first, filter, position);
                }
            }
            Head::Map(map) => {
                self.maps[map].insert(filter, position);
            }
        }
    }

    /// The session has moved in the list of a filter that it has.
    pub(super) fn set_position(&mut self, session: SessionIdx, filter: FilterId, position: u32) {
        match self.head(session) {
            Head::Chain(first) => {
                let found = self.chain(first).find(|&(_, held)| held.filter == filter);
                let (number, _) = found.expect("a subscriber holds its filter");
                self.records[number].position = position;
            }
            Head::Map(map) => {
                self.maps[map].insert(filter, position);
            }
        }
    }

    /// Takes a filter from a session; tells the position that it had.
    pub(super) fn remove(&mut self, session: SessionIdx, filter: FilterId) -> Option<u32> {
        let position = match self.head(session) {
            Head::Chain(first) => self.remove_from_chain(session, first, filter)?,
            Head::Map(map) => self.remove_from_map(session, map, filter)?,
        };
        self.len -= 1;
        Some(position)
    }

    /// Takes all filters from a session.
    pub(super) fn take(&mut self, session: SessionIdx) -> Vec<(FilterId, u32)> {
        let all: Vec<_> = self.iter(session).collect();
        match self.head(session) {
            Head::Chain(first) => self.free_chain(first),
            Head::Map(map) => drop(self.maps.remove(map)),
        }
        if !all.is_empty() {
            self.set_head(session, NONE);
        }
        self.len -= all.len();
        all
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        let maps: usize = self.maps.iter().map(HashMap::allocation_size).sum();
        self.heads.len() * POOL_PAGE_RECORDS * size_of::<u32>()
            + self.records.reserved()
            + self.maps.reserved()
            + maps
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.len * size_of::<Holding>()
    }

    fn head(&self, session: SessionIdx) -> Head {
        let page = self.heads.get(session.index() / POOL_PAGE_RECORDS);
        match page.map_or(NONE, |page| page[session.index() % POOL_PAGE_RECORDS]) {
            NONE => Head::Chain(NONE),
            map if map & MAP != 0 => Head::Map(map & !MAP),
            first => Head::Chain(first),
        }
    }

    fn set_head(&mut self, session: SessionIdx, head: u32) {
        let page = session.index() / POOL_PAGE_RECORDS;
        while self.heads.len() <= page {
            self.heads
                .push(vec![NONE; POOL_PAGE_RECORDS].into_boxed_slice());
        }
        self.heads[page][session.index() % POOL_PAGE_RECORDS] = head;
    }

    /// The records of a chain with their numbers.
    fn chain(&self, first: u32) -> impl Iterator<Item = (u32, Holding)> {
        let record = |number: u32| (number != NONE).then(|| (number, self.records[number]));
        std::iter::successors(record(first), move |(_, held)| record(held.next))
    }

    fn push(&mut self, session: SessionIdx, first: u32, filter: FilterId, position: u32) {
        let record = self.records.insert(Holding {
            filter,
            position,
            next: first,
        });
        self.set_head(session, record);
    }

    fn free_chain(&mut self, mut at: u32) {
        while at != NONE {
            at = self.records.remove(at).next;
        }
    }

    fn remove_from_chain(
        &mut self,
        session: SessionIdx,
        first: u32,
        filter: FilterId,
    ) -> Option<u32> {
        let mut before = NONE;
        let (number, held) = self.chain(first).find(|&(number, held)| {
            let found = held.filter == filter;
            if !found {
                before = number;
            }
            found
        })?;
        if before == NONE {
            self.set_head(session, held.next);
        } else {
            self.records[before].next = held.next;
        }
        self.records.remove(number);
        Some(held.position)
    }

    fn remove_from_map(&mut self, session: SessionIdx, map: u32, filter: FilterId) -> Option<u32> {
        let position = self.maps[map].remove(&filter)?;
        // At half the bound, so that a session at the bound does not go back and forth.
        if self.maps[map].len() <= CHAINED_SUBSCRIPTIONS / 2 {
            let left = self.maps.remove(map);
            let mut first = NONE;
            for (filter, position) in left {
                first = self.records.insert(Holding {
                    filter,
                    position,
                    next: first,
                });
            }
            self.set_head(session, first);
        }
        Some(position)
    }

    /// Walks everything.
    ///
    /// # Panics
    /// When the parts disagree.
    pub(super) fn check_invariants(&self) {
        let (mut chained, mut mapped, mut maps) = (0, 0, 0);
        for session in 0..self.heads.len() * POOL_PAGE_RECORDS {
            let session = SessionIdx(session as u32);
            let mut filters: Vec<FilterId> = self.iter(session).map(|(filter, _)| filter).collect();
            filters.sort_unstable();
            assert!(
                filters.windows(2).all(|pair| pair[0] != pair[1]),
                "{session:?} has a filter twice"
            );
            match self.head(session) {
                Head::Chain(_) => {
                    assert!(filters.len() <= CHAINED_SUBSCRIPTIONS);
                    chained += filters.len();
                }
                Head::Map(_) => {
                    assert!(filters.len() > CHAINED_SUBSCRIPTIONS / 2);
                    mapped += filters.len();
                    maps += 1;
                }
            }
        }
        assert_eq!((chained, maps), (self.records.len(), self.maps.len()));
        assert_eq!(chained + mapped, self.len);
    }
}
