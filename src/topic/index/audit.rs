//! What the index takes, and whether its sides agree.

use super::super::filter::has_wildcard;
use super::super::list::List;
use super::super::subscription::{Entry, FilterId, Memory};
use super::{Index, Who};
use crate::ids::SessionIdx;

impl Index {
    /// What it takes.
    pub fn memory(&self) -> Memory {
        let lists: usize = self.lists.iter().map(List::allocated).sum();
        // All entries but those that stand before their filter's text.
        let listed = self.len() - (self.count - self.lists.len());
        let ids = size_of::<((SessionIdx, FilterId), u32)>() * self.ids.len();
        Memory {
            reserved: self.table.reserved()
                + self.filters.reserved()
                + self.lists.reserved()
                + lists
                + self.wildcards.reserved()
                + self.holdings.reserved()
                + self.ids.allocation_size(),
            used: self.table.used()
                + self.filters.used()
                + self.lists.len() * size_of::<List>()
                + listed * size_of::<Entry>()
                + self.wildcards.used()
                + self.holdings.used()
                + ids,
        }
    }

    /// Walks everything, and compares the sides.
    ///
    /// # Panics
    /// When they disagree.
    pub fn check_invariants(&self) {
        self.filters.check_invariants();
        self.wildcards.check_invariants();
        self.holdings.check_invariants();
        self.table
            .check_invariants(|number| self.hasher.hash(self.path(FilterId(number))));
        let (mut filters, mut wildcards, mut entries, mut ids, mut lists) = (0, 0, 0, 0, 0);
        for number in self.table.iter() {
            let filter = FilterId(number);
            let path = self.path(filter);
            assert_eq!(self.lookup(self.hasher.hash(path), path), Some(filter));
            filters += 1;
            if has_wildcard(path) {
                assert_eq!(self.wildcards.get(path), Some(number));
                wildcards += 1;
            }
            if let Who::Many(list) = self.who(filter) {
                self.lists[list].check_invariants();
                lists += 1;
            }
            assert_eq!(self.subscribers(filter).count(), self.audience(filter));
            for entry in self.subscribers(filter) {
                assert!(
                    self.holdings
                        .iter(entry.session())
                        .any(|held| held == filter)
                );
                assert_eq!(
                    self.ids.contains_key(&(entry.session(), filter)),
                    entry.has_id()
                );
                entries += 1;
                ids += usize::from(entry.has_id());
            }
        }
        assert_eq!((filters, wildcards), (self.count, self.wildcards.len()));
        assert_eq!((entries, ids), (self.len(), self.ids.len()));
        assert_eq!(lists, self.lists.len());
    }
}
