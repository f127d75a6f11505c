//! Records of one kind, addressed by number. Memory grows by pages and never moves, so a million records are never copied at once.
//!
//! A freed record is its type's default until it is taken again; who holds which number is the owner's business.

use std::ops::{Index, IndexMut};

use crate::limits::POOL_PAGE_RECORDS;

/// The records.
#[derive(Debug)]
pub(super) struct Pool<T> {
    pages: Vec<Vec<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Default> Pool<T> {
    /// Stores a record; tells its number.
    pub(super) fn insert(&mut self, record: T) -> u32 {
        self.len += 1;
        if let Some(number) = self.free.pop() {
            self[number] = record;
            return number;
        }
        if self
            .pages
            .last()
            .is_none_or(|page| page.len() == POOL_PAGE_RECORDS)
        {
            self.pages.push(Vec::with_capacity(POOL_PAGE_RECORDS));
        }
        let number = self.len as u32 - 1;
        let page = self.pages.last_mut().expect("a page was just added");
        page.push(record);
        number
    }

    /// Frees a record. With the last one, all memory goes back.
    pub(super) fn remove(&mut self, number: u32) -> T {
        let record = std::mem::take(&mut self[number]);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else {
            self.free.push(number);
        }
        record
    }

    /// Records in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A record that may never have been stored; one that was freed is its default.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        self.pages
            .get(number / POOL_PAGE_RECORDS)?
            .get(number % POOL_PAGE_RECORDS)
    }

    /// All records, those that are free as their default.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten()
    }

    /// Bytes taken from the allocator, without what the records themselves own.
    pub(super) fn reserved(&self) -> usize {
        self.pages.len() * POOL_PAGE_RECORDS * size_of::<T>()
            + self.pages.capacity() * size_of::<Vec<T>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Pool<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.pages[number as usize / POOL_PAGE_RECORDS][number as usize % POOL_PAGE_RECORDS]
    }
}

impl<T> IndexMut<u32> for Pool<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.pages[number as usize / POOL_PAGE_RECORDS][number as usize % POOL_PAGE_RECORDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_memory_goes_back() {
        let mut pool = Pool::default();
        let numbers: Vec<u32> = (0..5000).map(|i| pool.insert(i)).collect();
        assert!(numbers.iter().all(|&number| pool[number] == number));
        assert_eq!(pool.remove(17), 17);
        assert_eq!(pool.insert(4), 17);
        assert_eq!(pool.len(), 5000);
        for number in numbers {
            pool.remove(number);
        }
        assert_eq!((pool.len(), pool.reserved()), (0, 0));
        assert_eq!(pool.insert(9), 0);
    }
}
