//! Which filters each session subscribes to.
//!
//! A session with a few subscriptions has a record as long as it needs, of 4 bytes each; one with many has a hash set, so that neither a gateway
//! with 100,000 subscriptions nor whoever shares a filter with it pays for long walks. Who subscribes to a filter is the index's.

use hashbrown::HashSet;

use super::pool::{Pool, Records};
use super::subscription::FilterId;
use crate::ids::SessionIdx;
use crate::limits::{HEAD_BYTES, HOLDING_BYTES, POOL_PAGE_RECORDS, RECORDED_SUBSCRIPTIONS};

/// Lengths of records. Phones have two or three subscriptions, so those are exact.
const LENGTHS: [usize; 10] = [1, 2, 3, 4, 6, 8, 10, 12, 16, RECORDED_SUBSCRIPTIONS];

/// A head: the kind in the upper bits, the number of a record of that length or of a set in the rest.
const NUMBER_BITS: u32 = 28;
/// The kind that means a set; smaller ones are places in [`LENGTHS`].
const SET: u32 = 15;
/// The head of a session without subscriptions; and in a record, a place that is free.
const NONE: u32 = u32::MAX;

const _: () = assert!(LENGTHS.len() < SET as usize);
const _: () = assert!(size_of::<u32>() == HEAD_BYTES && size_of::<FilterId>() == HOLDING_BYTES);

/// The subscriptions of all sessions, by session.
#[derive(Debug)]
pub(super) struct Holdings {
    /// By session index. Sessions are numbered densely, so a table by number is the smallest.
    heads: Vec<Box<[u32]>>,
    records: [Records; LENGTHS.len()],
    sets: Pool<HashSet<FilterId>>,
    len: usize,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            heads: Vec::new(),
            records: LENGTHS.map(Records::new),
            sets: Pool::default(),
            len: 0,
        }
    }
}

/// What a session has.
enum Held<'a> {
    /// In a record; those at its end may be [`NONE`].
    Few(&'a [u32]),
    Many(&'a HashSet<FilterId>),
}

impl Holdings {
    /// Subscriptions of all sessions.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Subscriptions of one session.
    pub(super) fn count(&self, session: SessionIdx) -> usize {
        match self.held(session) {
            Held::Few(filters) => filters.len(),
            Held::Many(set) => set.len(),
        }
    }

    /// All of a session, in no order.
    pub(super) fn iter(&self, session: SessionIdx) -> impl Iterator<Item = FilterId> {
        let (few, many) = match self.held(session) {
            Held::Few(filters) => (filters, None),
            Held::Many(set) => ([].as_slice(), Some(set)),
        };
        few.iter()
            .map(|&filter| FilterId(filter))
            .chain(many.into_iter().flatten().copied())
    }

    /// Those of a session's filters that are in `filters`, which is in ascending order, are handed to `each`.
    pub(super) fn overlap(
        &self,
        session: SessionIdx,
        filters: &[FilterId],
        mut each: impl FnMut(FilterId),
    ) {
        match self.held(session) {
            Held::Few(held) => held
                .iter()
                .map(|&filter| FilterId(filter))
                .filter(|filter| filters.binary_search(filter).is_ok())
                .for_each(each),
            Held::Many(set) => {
                for &filter in filters.iter().filter(|filter| set.contains(*filter)) {
                    each(filter);
                }
            }
        }
    }

    /// Adds a filter that the session does not have.
    pub(super) fn add(&mut self, session: SessionIdx, filter: FilterId) {
        self.len += 1;
        let (kind, number) = self.head(session);
        match kind {
            SET => {
                self.sets[number].insert(filter);
            }
            NONE => self.record(session, &[filter.0]),
            _ => {
                let record = self.records[kind as usize].get_mut(number);
                if let Some(free) = record.iter_mut().find(|place| **place == NONE) {
                    *free = filter.0;
                    return;
                }
                let mut all = [NONE; RECORDED_SUBSCRIPTIONS + 1];
                let len = record.len();
                all[..len].copy_from_slice(record);
                all[len] = filter.0;
                self.records[kind as usize].remove(number);
                self.record(session, &all[..=len]);
            }
        }
    }

    /// Takes a filter from a session; false: it does not have it.
    pub(super) fn remove(&mut self, session: SessionIdx, filter: FilterId) -> bool {
        let (kind, number) = self.head(session);
        let removed = match kind {
            NONE => false,
            SET => self.remove_from_set(session, number, filter),
            _ => self.remove_from_record(session, kind, number, filter),
        };
        self.len -= usize::from(removed);
        removed
    }

    /// Takes all filters from a session.
    pub(super) fn take(&mut self, session: SessionIdx) -> Vec<FilterId> {
        let all: Vec<_> = self.iter(session).collect();
        self.free(session);
        self.len -= all.len();
        all
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        let sets: usize = self.sets.iter().map(HashSet::allocation_size).sum();
        let records: usize = self.records.iter().map(Records::reserved).sum();
        self.heads.len() * POOL_PAGE_RECORDS * size_of::<u32>()
            + records
            + self.sets.reserved()
            + sets
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.len * size_of::<FilterId>()
    }

    /// Lets go of the heads if nobody has a subscription.
    pub(super) fn give_back(&mut self) {
        if self.len == 0 {
            *self = Self::default();
        }
    }

    fn held(&self, session: SessionIdx) -> Held<'_> {
        match self.head(session) {
            (NONE, _) => Held::Few(&[]),
            (SET, number) => Held::Many(&self.sets[number]),
            (kind, number) => {
                let record = self.records[kind as usize].get(number);
                let len = record.iter().position(|&filter| filter == NONE);
                Held::Few(&record[..len.unwrap_or(record.len())])
            }
        }
    }

    /// Kind and number; [`NONE`] as the kind: nothing.
    fn head(&self, session: SessionIdx) -> (u32, u32) {
        let page = self.heads.get(session.index() / POOL_PAGE_RECORDS);
        match page.map_or(NONE, |page| page[session.index() % POOL_PAGE_RECORDS]) {
            NONE => (NONE, 0),
            head => (head >> NUMBER_BITS, head & ((1 << NUMBER_BITS) - 1)),
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

    /// Gives the session, which has nothing, a record or a set of these.
    fn record(&mut self, session: SessionIdx, filters: &[u32]) {
        let fits = |&length: &usize| length >= filters.len();
        let (kind, number) = if let Some(kind) = LENGTHS.iter().position(fits) {
            (kind as u32, self.records[kind].insert(filters, NONE))
        } else {
            let set = filters.iter().map(|&filter| FilterId(filter)).collect();
            (SET, self.sets.insert(set))
        };
        assert!(number < (1 << NUMBER_BITS) - 1, "268 million records");
        self.set_head(session, kind << NUMBER_BITS | number);
    }

    /// Lets go of what the session has.
    fn free(&mut self, session: SessionIdx) {
        match self.head(session) {
            (NONE, _) => return,
            (SET, number) => drop(self.sets.remove(number)),
            (kind, number) => self.records[kind as usize].remove(number),
        }
        self.set_head(session, NONE);
    }

    fn remove_from_record(
        &mut self,
        session: SessionIdx,
        kind: u32,
        number: u32,
        filter: FilterId,
    ) -> bool {
        let record = self.records[kind as usize].get_mut(number);
        let Some(at) = record.iter().position(|&held| held == filter.0) else {
            return false;
        };
        let len = record
            .iter()
            .position(|&held| held == NONE)
            .unwrap_or(record.len());
        record[at] = record[len - 1];
        record[len - 1] = NONE;
        // Two lengths below, so that a session at an edge does not go back and forth.
        if len == 1 {
            self.free(session);
        } else if kind > 1 && len - 1 <= LENGTHS[kind as usize - 2] {
            let mut left = [NONE; RECORDED_SUBSCRIPTIONS];
            left[..len - 1].copy_from_slice(&record[..len - 1]);
            self.free(session);
            self.record(session, &left[..len - 1]);
        }
        true
    }

    fn remove_from_set(&mut self, session: SessionIdx, number: u32, filter: FilterId) -> bool {
        let set = &mut self.sets[number];
        let removed = set.remove(&filter);
        // At half the bound, for the same reason.
        if set.len() <= RECORDED_SUBSCRIPTIONS / 2 {
            let left: Vec<u32> = set.iter().map(|filter| filter.0).collect();
            self.free(session);
            self.record(session, &left);
        }
        removed
    }

    /// Walks everything.
    ///
    /// # Panics
    /// When the parts disagree.
    pub(super) fn check_invariants(&self) {
        let (mut records, mut sets, mut len) = ([0; LENGTHS.len()], 0, 0);
        for session in 0..self.heads.len() * POOL_PAGE_RECORDS {
            let session = SessionIdx(session as u32);
            let mut filters: Vec<FilterId> = self.iter(session).collect();
            filters.sort_unstable();
            assert!(
                filters.windows(2).all(|pair| pair[0] != pair[1]),
                "{session:?} has a filter twice"
            );
            len += filters.len();
            match self.head(session) {
                (NONE, _) => {}
                (SET, _) => {
                    assert!(filters.len() > RECORDED_SUBSCRIPTIONS / 2);
                    sets += 1;
                }
                (kind, number) => {
                    assert!(!filters.is_empty());
                    let record = self.records[kind as usize].get(number);
                    assert!(record[filters.len()..].iter().all(|&held| held == NONE));
                    records[kind as usize] += 1;
                }
            }
        }
        assert_eq!(records, self.records.each_ref().map(Records::len));
        assert_eq!((sets, len), (self.sets.len(), self.len));
    }
}
