//! What the index takes, and whether its sides agree.

use hashbrown::HashTable;

use super::super::filter::has_wildcard;
use super::super::subscription::{Entry, FilterId, Memory};
use super::{FilterRecord, Index, Subscribers, part};
use crate::ids::SessionIdx;

impl Index {
    /// What it takes.
    pub fn memory(&self) -> Memory {
        let tables: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        // All entries but those that stand in their filter's record.
        let listed = self.len() - (self.filters.len() - self.lists.len());
        let ids = size_of::<((SessionIdx, FilterId), u32)>() * self.ids.len();
        Memory {
            reserved: tables
                + size_of_val(&*self.tables)
                + self.filters.reserved()
                + self.lists.reserved()
                + self.listed_capacity * size_of::<Entry>()
                + self.texts.reserved()
                + self.wildcards.reserved()
                + self.holdings.reserved()
                + self.ids.allocation_size(),
            used: self.filters.len() * (size_of::<FilterRecord>() + size_of::<u32>() + 1)
                + self.lists.len() * size_of::<Vec<Entry>>()
                + listed * size_of::<Entry>()
                + self.texts.used()
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
        self.texts.check_invariants();
        self.wildcards.check_invariants();
        self.holdings.check_invariants();
        let (mut filters, mut wildcards, mut entries, mut ids, mut lists) = (0, 0, 0, 0, 0);
        for (number, table) in self.tables.iter().enumerate() {
            for &id in table {
                let filter = FilterId(id);
                let path = self.path(filter);
                assert_eq!(
                    part(self.hasher.hash(path)),
                    number,
                    "{path} is in another part"
                );
                assert_eq!(self.lookup(self.hasher.hash(path), path), Some(filter));
                filters += 1;
                if has_wildcard(path) {
                    assert_eq!(self.wildcards.get(path), Some(id));
                    wildcards += 1;
                }
                let list = self.subscribers(filter);
                if let Subscribers::Many(_) = self.filters[id].subscribers {
                    assert!(list.len() > 1);
                    lists += 1;
                }
                assert!(!list.is_empty());
                for (position, entry) in list.iter().enumerate() {
                    assert_eq!(
                        self.holdings.find(entry.session(), filter),
                        Some(position as u32)
                    );
                    assert_eq!(
                        self.ids.contains_key(&(entry.session(), filter)),
                        entry.has_id()
                    );
                    entries += 1;
                    ids += usize::from(entry.has_id());
                }
            }
        }
        assert_eq!(
            (filters, wildcards),
            (self.filters.len(), self.wildcards.len())
        );
        assert_eq!((entries, ids), (self.len(), self.ids.len()));
        assert_eq!(lists, self.lists.len());
        assert_eq!(
            self.lists.iter().map(Vec::capacity).sum::<usize>(),
            self.listed_capacity
        );
    }
}
