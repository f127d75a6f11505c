//! The subscribers of one filter, two or more, in the order of their sessions.
//!
//! A short list is one piece of memory. A long one has pages, so that a million subscribers are never moved at once and nothing doubles. The
//! order makes each findable without a record of its place, and a fan-out goes through the sessions as they lie in memory.

use super::subscription::Entry;
use crate::ids::SessionIdx;
use crate::limits::{COMMON_TOPIC_BYTES, LIST_PAGE_ENTRIES};

const _: () = assert!(
    (size_of::<Entry>() * LIST_PAGE_ENTRIES + size_of::<(Vec<Entry>, SessionIdx)>() * 2)
        .div_ceil(LIST_PAGE_ENTRIES)
        == COMMON_TOPIC_BYTES,
    "a full page, and its place in lists that have just doubled"
);

/// The subscribers of a filter.
#[derive(Debug)]
pub(super) enum List {
    Short(Vec<Entry>),
    /// Boxed, for a list of two is the usual one.
    Long(Box<Pages>),
}

/// None is empty; each entry of a page is before those of the next.
#[derive(Debug)]
pub(super) struct Pages {
    entries: Vec<Vec<Entry>>,
    /// The first session of each page: finding the page touches no page.
    firsts: Vec<SessionIdx>,
    len: usize,
}

impl Default for List {
    fn default() -> Self {
        Self::Short(Vec::new())
    }
}

impl List {
    /// Two entries of different sessions.
    pub(super) fn of_two(one: Entry, other: Entry) -> Self {
        let mut both = vec![one, other];
        both.sort_unstable_by_key(|entry| entry.session());
        Self::Short(both)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Short(entries) => entries.len(),
            Self::Long(pages) => pages.len,
        }
    }

    /// The entry that is left, if it is the only one.
    pub(super) fn only(&self) -> Option<Entry> {
        match self {
            Self::Short(entries) if entries.len() == 1 => Some(entries[0]),
            _ => None,
        }
    }

    pub(super) fn find(&self, session: SessionIdx) -> Option<Entry> {
        let page = match self {
            Self::Short(entries) => entries,
            Self::Long(pages) => &pages.entries[pages.page_of(session)],
        };
        place(page, session).ok().map(|at| page[at])
    }

    /// Another entry for a session that is there; false: it is not.
    pub(super) fn replace(&mut self, entry: Entry) -> bool {
        let page = match self {
            Self::Short(entries) => entries,
            Self::Long(pages) => {
                let page = pages.page_of(entry.session());
                &mut pages.entries[page]
            }
        };
        let place = place(page, entry.session());
        if let Ok(at) = place {
            page[at] = entry;
        }
        place.is_ok()
    }

    /// Adds an entry of a session that is not there.
    pub(super) fn insert(&mut self, entry: Entry) {
        match self {
            Self::Short(entries) if entries.len() < LIST_PAGE_ENTRIES => {
                let at = place(entries, entry.session()).unwrap_or_else(|at| at);
                entries.insert(at, entry);
            }
            Self::Short(entries) => {
                let mut pages = Pages {
                    len: entries.len(),
                    firsts: vec![entries[0].session()],
                    entries: vec![std::mem::take(entries)],
                };
                pages.insert(entry);
                *self = Self::Long(Box::new(pages));
            }
            Self::Long(pages) => pages.insert(entry),
        }
    }

    /// Takes a session out; false: it is not there.
    pub(super) fn remove(&mut self, session: SessionIdx) -> bool {
        match self {
            Self::Short(entries) => {
                let Ok(at) = place(entries, session) else {
                    return false;
                };
                entries.remove(at);
                if entries.len() < entries.capacity() / 4 {
                    entries.shrink_to(entries.len() * 2);
                }
                true
            }
            Self::Long(pages) => {
                let removed = pages.remove(session);
                if removed && pages.entries.len() == 1 {
                    *self = Self::Short(pages.entries.pop().expect("one page"));
                }
                removed
            }
        }
    }

    /// The entries in pieces, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[Entry]> {
        let (short, long) = match self {
            Self::Short(entries) => (Some(entries), None),
            Self::Long(pages) => (None, Some(&pages.entries)),
        };
        short
            .into_iter()
            .chain(long.into_iter().flatten())
            .map(Vec::as_slice)
    }

    /// Bytes that it has taken from the allocator.
    pub(super) fn allocated(&self) -> usize {
        match self {
            Self::Short(entries) => entries.capacity() * size_of::<Entry>(),
            Self::Long(pages) => {
                let entries: usize = pages.entries.iter().map(Vec::capacity).sum();
                entries * size_of::<Entry>()
                    + pages.entries.capacity() * size_of::<Vec<Entry>>()
                    + pages.firsts.capacity() * size_of::<SessionIdx>()
                    + size_of::<Pages>()
            }
        }
    }

    /// # Panics
    /// When the parts disagree.
    pub(super) fn check_invariants(&self) {
        let all: Vec<SessionIdx> = self
            .pieces()
            .flatten()
            .map(|entry| entry.session())
            .collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "out of order");
        assert_eq!(all.len(), self.len());
        assert!(all.len() > 1);
        if let Self::Long(pages) = self {
            assert!(pages.entries.len() > 1);
            assert_eq!(pages.entries.len(), pages.firsts.len());
            for (page, &first) in pages.entries.iter().zip(&pages.firsts) {
                assert_eq!(page[0].session(), first);
                assert!(page.len() <= LIST_PAGE_ENTRIES);
            }
        }
    }
}

impl Pages {
    /// Where a session is, or would be.
    fn page_of(&self, session: SessionIdx) -> usize {
        if self.firsts.last().is_some_and(|&first| first <= session) {
            // Of a crowd that comes, each is behind all others.
            return self.firsts.len() - 1;
        }
        self.firsts
            .partition_point(|&first| first <= session)
            .saturating_sub(1)
    }

    fn insert(&mut self, entry: Entry) {
        let mut page = self.page_of(entry.session());
        let mut at = place(&self.entries[page], entry.session()).unwrap_or_else(|at| at);
        if self.entries[page].len() == LIST_PAGE_ENTRIES {
            // Who comes behind all others, as a crowd does, leaves full pages behind it; in between two halves are made of one.
            let is_end = page + 1 == self.entries.len() && at == LIST_PAGE_ENTRIES;
            let cut = if is_end { at } else { LIST_PAGE_ENTRIES / 2 };
            let mut rest = Vec::with_capacity(LIST_PAGE_ENTRIES);
            rest.extend(self.entries[page].drain(cut..));
            let first = rest
                .first()
                .map_or(entry.session(), |entry| entry.session());
            self.entries.insert(page + 1, rest);
            self.firsts.insert(page + 1, first);
            if at > cut || is_end {
                page += 1;
                at -= cut;
            }
        }
        self.entries[page].insert(at, entry);
        if at == 0 {
            self.firsts[page] = entry.session();
        }
        self.len += 1;
    }

    fn remove(&mut self, session: SessionIdx) -> bool {
        let page = self.page_of(session);
        let Ok(at) = place(&self.entries[page], session) else {
            return false;
        };
        self.entries[page].remove(at);
        self.len -= 1;
        // A page joins one beside it when both fit into three quarters of one.
        let is_empty = self.entries[page].is_empty();
        let fits = |a: usize, b: usize| {
            is_empty || self.entries[a].len() + self.entries[b].len() <= LIST_PAGE_ENTRIES * 3 / 4
        };
        if page > 0 && fits(page - 1, page) {
            self.join(page - 1);
        } else if page + 1 < self.entries.len() && fits(page, page + 1) {
            self.join(page);
        } else if at == 0 {
            self.firsts[page] = self.entries[page][0].session();
        }
        true
    }

    /// Page and the one behind it become one.
    fn join(&mut self, page: usize) {
        let behind = self.entries.remove(page + 1);
        self.firsts.remove(page + 1);
        self.entries[page].extend_from_slice(&behind);
        self.firsts[page] = self.entries[page][0].session();
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.firsts.shrink_to(self.firsts.len() * 2);
        }
    }
}

fn place(page: &[Entry], session: SessionIdx) -> Result<usize, usize> {
    if page.last().is_some_and(|last| last.session() < session) {
        return Err(page.len());
    }
    page.binary_search_by_key(&session, |entry| entry.session())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::subscription::SubOptions;
    use super::*;

    fn entry(session: u32) -> Entry {
        Entry::new(SessionIdx(session), SubOptions::default(), false)
    }

    fn sessions(list: &List) -> Vec<u32> {
        list.pieces()
            .flatten()
            .map(|entry| entry.session().0)
            .collect()
    }

    #[test]
    fn a_crowd_that_comes_in_order_fills_its_pages() {
        let mut list = List::of_two(entry(1), entry(0));
        for session in 2..100_000 {
            list.insert(entry(session));
        }
        list.check_invariants();
        assert!(list.allocated() < 100_000 * 9 / 2, "{}", list.allocated());
        for session in 2..100_000 {
            assert!(list.remove(SessionIdx(session)));
        }
        list.check_invariants();
        assert!(list.allocated() < 2048, "{}", list.allocated());
    }

    proptest! {
        /// Against a set, long enough for several pages.
        #[test]
        fn keeps_its_order(
            first in 2u32..1500,
            steps in prop::collection::vec((0u32..3000, any::<bool>(), 1u32..200), 1..60),
        ) {
            let mut list = List::of_two(entry(0), entry(10_000));
            let mut model = BTreeSet::from([0, 10_000]);
            for session in 1..first {
                list.insert(entry(session * 2));
                model.insert(session * 2);
            }
            for (from, add, count) in steps {
                for session in from..from + count {
                    if add && model.insert(session) {
                        list.insert(entry(session));
                    } else if !add && session > 0 {
                        prop_assert_eq!(list.remove(SessionIdx(session)), model.remove(&session));
                    }
                }
                list.check_invariants();
                prop_assert_eq!(list.find(SessionIdx(from)), model.contains(&from).then(|| entry(from)));
            }
            prop_assert_eq!(sessions(&list), model.into_iter().collect::<Vec<_>>());
        }
    }
}
