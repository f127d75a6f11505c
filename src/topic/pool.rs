//! Records of one kind or of one length, addressed by number. Memory grows by pages and never moves, so a million records are never copied at once.
//!
//! A freed record is its type's default until it is taken again; who holds which number is the owner's business.

use std::ops::{Index, IndexMut};

use crate::limits::POOL_PAGE_RECORDS;

/// The records.
#[derive(Debug)]
pub(crate) struct Pool<T> {
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
    pub(crate) fn insert(&mut self, record: T) -> u32 {
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
    pub(crate) fn remove(&mut self, number: u32) -> T {
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
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All records, those that are free as their default.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten()
    }

    /// Bytes taken from the allocator, without what the records themselves own.
    pub(crate) fn reserved(&self) -> usize {
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

/// Records of a few numbers each, all of one length. The free ones are linked through their first number.
#[derive(Debug)]
pub(super) struct Records {
    length: usize,
    pages: Vec<Box<[u32]>>,
    /// Records that were cut from the pages.
    cut: u32,
    free: u32,
    len: usize,
}

const NONE: u32 = u32::MAX;

impl Records {
    /// No records.
    pub(super) fn new(length: usize) -> Self {
        Self {
            length,
            pages: Vec::new(),
            cut: 0,
            free: NONE,
            len: 0,
        }
    }

    /// Stores a record, the rest of it filled up; tells its number.
    pub(super) fn insert(&mut self, numbers: &[u32], fill: u32) -> u32 {
        self.len += 1;
        let number = if self.free == NONE {
            if self.cut as usize == self.pages.len() * POOL_PAGE_RECORDS {
                self.pages
                    .push(vec![0; POOL_PAGE_RECORDS * self.length].into_boxed_slice());
            }
            self.cut += 1;
            self.cut - 1
        } else {
            let number = self.free;
            self.free = self.get(number)[0];
            number
        };
        let record = self.get_mut(number);
        record[..numbers.len()].copy_from_slice(numbers);
        record[numbers.len()..].fill(fill);
        number
    }

    /// Frees a record. With the last one all memory goes back but a page: many a record is there for a moment only, on its way to a longer one.
    pub(super) fn remove(&mut self, number: u32) {
        self.len -= 1;
        if self.len == 0 {
            self.pages.truncate(1);
            self.pages.shrink_to_fit();
            self.cut = 0;
            self.free = NONE;
        } else {
            self.get_mut(number)[0] = self.free;
            self.free = number;
        }
    }

    /// Records in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, number: u32) -> &[u32] {
        let at = number as usize % POOL_PAGE_RECORDS * self.length;
        &self.pages[number as usize / POOL_PAGE_RECORDS][at..at + self.length]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut [u32] {
        let at = number as usize % POOL_PAGE_RECORDS * self.length;
        &mut self.pages[number as usize / POOL_PAGE_RECORDS][at..at + self.length]
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        self.pages.len() * POOL_PAGE_RECORDS * self.length * size_of::<u32>()
            + self.pages.capacity() * size_of::<Box<[u32]>>()
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

    #[test]
    fn records_of_a_length_keep_what_they_were_given() {
        let mut records = Records::new(3);
        let numbers: Vec<u32> = (0..3000).map(|i| records.insert(&[i, i + 1], 7)).collect();
        records.remove(numbers[5]);
        records.remove(numbers[9]);
        assert_eq!(records.insert(&[1, 2, 3], 7), numbers[9]);
        assert_eq!(records.insert(&[4], 7), numbers[5]);
        assert_eq!(records.get(numbers[5]), [4, 7, 7]);
        assert_eq!(records.get(numbers[2999]), [2999, 3000, 7]);
        for number in numbers {
            records.remove(number);
        }
        assert_eq!((records.len(), records.pages.len()), (0, 1));
        assert_eq!(records.insert(&[1], 7), 0);
    }
}
