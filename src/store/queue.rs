//! The queue of one session, open: 6 bytes an entry, oldest first, and how far its owner is with it. And what a queue looks like, open or not.

use super::entry::{Entry, Held};
use super::resting::Words;
use super::ring::{Ring, low_bits};
use crate::limits::QUEUE_SPAN;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has yet to reach the other side.
    Waiting,
    /// The other side has it and has yet to release it (QoS 2).
    Received,
    /// Done, or never there.
    Gone,
}

impl State {
    fn of(entry: Entry) -> Self {
        match entry.held() {
            Held::Gone => Self::Gone,
            Held::Received(_) => Self::Received,
            _ => Self::Waiting,
        }
    }
}

/// See the module. Numbers wrap: compare them by their distance from the head.
#[derive(Debug, Default)]
pub struct Queue {
    /// The owner's: next to send on this connection. Never before the head, as the next two; in a new queue all are at the head.
    pub sent: u32,
    /// The owner's: those before it were sent on an earlier connection (DUP).
    pub sent_before: u32,
    /// The owner's: those before it may be sent (in disk mode: are synced).
    pub ready: u32,
    /// The owner's: how many are in flight.
    pub flying: u32,
    head: u32,
    /// Entries that are not done.
    len: u32,
    /// From the head on.
    entries: Ring,
    bytes: u64,
}

const _: () = assert!(size_of::<Queue>() == 64, "one cache line");

impl Queue {
    /// An empty one, whose first entry has this number.
    pub(super) fn new(start: u32) -> Self {
        let start = if start == u32::MAX { 0 } else { start };
        Self {
            sent: start,
            sent_before: start,
            ready: start,
            head: start,
            ..Self::default()
        }
    }

    /// One that rested: its entries from the head on, none of them gone.
    pub(super) fn waking(head: u32, entries: impl Iterator<Item = Entry>, bytes: u64) -> Self {
        let mut queue = Self::new(head);
        for entry in entries {
            queue.push(entry, 0);
        }
        queue.bytes = bytes;
        queue
    }

    /// Whether it is as a new one, but for its entries: none is gone, none was sent, and their numbers don't begin anew.
    pub(super) fn is_plain(&self) -> bool {
        self.len() == self.entries.len()
            && self.sent == self.head
            && self.sent_before == self.head
            && self.head <= u32::MAX - self.len
    }

    /// All of it, to look at.
    pub fn view(&self) -> View<'_> {
        View {
            sent: self.sent,
            sent_before: self.sent_before,
            ready: self.ready,
            flying: self.flying,
            head: self.head,
            tail: self.tail(),
            len: self.len(),
            bytes: self.bytes,
            entries: Entries::Open(self),
        }
    }

    /// The oldest entry that is not done.
    pub fn head(&self) -> u32 {
        self.head
    }

    /// The number that the next entry gets.
    pub fn tail(&self) -> u32 {
        let tail = self.end();
        if tail == u32::MAX { 0 } else { tail }
    }

    /// Entries that are not done.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Never, for who looks from outside: a queue without entries is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of their records and bodies, shared ones counted in full, rounded up by an eighth at most.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What became of an entry.
    pub fn state(&self, seq: u32) -> State {
        State::of(self.get(seq))
    }

    /// The number after this one: `u32::MAX` is left out.
    pub fn after(seq: u32) -> u32 {
        if seq >= u32::MAX - 1 { 0 } else { seq + 1 }
    }

    /// The number after the last entry, `u32::MAX` not left out.
    fn end(&self) -> u32 {
        self.head.wrapping_add(self.entries.len() as u32)
    }

    /// Whether another entry would make it longer than a queue may be.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= QUEUE_SPAN
    }

    pub(super) fn get(&self, seq: u32) -> Entry {
        let at = seq.wrapping_sub(self.head) as usize;
        self.entries.get(at).unwrap_or(Entry::GONE)
    }

    /// Appends an entry that counts so many bytes; it gets the number [`Queue::tail`].
    pub(super) fn push(&mut self, entry: Entry, bytes: u64) {
        if self.end() == u32::MAX {
            self.entries.push_back(Entry::GONE);
        }
        self.entries.push_back(entry);
        self.len += 1;
        self.bytes += bytes;
    }

    /// The next entry gets this number: those between never were. A number that is not before the tail, and not far behind it.
    pub(super) fn skip_to(&mut self, seq: u32) {
        while self.entries.len() < seq.wrapping_sub(self.head) as usize && !self.is_full() {
            self.entries.push_back(Entry::GONE);
        }
    }

    /// Puts another entry that is not gone in the place of one that is not.
    pub(super) fn replace(&mut self, seq: u32, entry: Entry, bytes_before: u64, bytes: u64) {
        let at = seq.wrapping_sub(self.head) as usize;
        self.entries.set(at, entry);
        self.bytes = self.bytes - bytes_before + bytes;
    }

    /// An entry that is not gone, and counted so many bytes, is over.
    pub(super) fn remove(&mut self, seq: u32, bytes: u64) {
        let at = seq.wrapping_sub(self.head) as usize;
        self.entries.set(at, Entry::GONE);
        self.len -= 1;
        self.bytes -= bytes;
        if at == 0 {
            self.trim();
        }
    }

    /// Those that are not gone, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Entry)> {
        let numbered = |(at, entry): (usize, Entry)| (self.head.wrapping_add(at as u32), entry);
        self.entries
            .iter()
            .enumerate()
            .map(numbered)
            .filter(|(_, entry)| !entry.is_gone())
    }

    /// While a log is read: what a record says of a number, in any order. What this counts is made by [`Queue::recount`]. False: it is too far
    /// from the others to be true.
    ///
    /// A queue in which nothing is left begins anew: numbers may go on elsewhere then, and what lies between would be filled for every session
    /// that had a message before and after.
    pub(super) fn set(&mut self, seq: u32, entry: Entry) -> bool {
        if self.entries.is_empty() {
            if entry.is_gone() {
                return true;
            }
            self.head = seq;
        }
        let (after, before) = (
            seq.wrapping_sub(self.head) as usize,
            self.head.wrapping_sub(seq) as usize,
        );
        let len = self.entries.len();
        if after < len {
            let was = self.entries.get(after).unwrap_or(Entry::GONE);
            self.entries.set(after, entry);
            self.len += u32::from(!entry.is_gone());
            self.len -= u32::from(!was.is_gone());
            if self.len == 0 {
                self.entries.clear();
            }
            return true;
        }
        // It never was in the queue, or is not any more.
        if entry.is_gone() {
            return true;
        }
        if after < QUEUE_SPAN {
            while self.entries.len() <= after {
                self.entries.push_back(Entry::GONE);
            }
            self.entries.set(after, entry);
        } else if before + len <= QUEUE_SPAN {
            for _ in 0..before {
                self.entries.push_front(Entry::GONE);
            }
            self.head = seq;
            self.entries.set(0, entry);
        } else {
            return false;
        }
        self.len += 1;
        true
    }

    /// After a log was read: keeps the entries for which `bytes_of` tells what they count, and counts.
    pub(super) fn recount(&mut self, mut bytes_of: impl FnMut(Entry) -> Option<u64>) {
        (self.len, self.bytes) = (0, 0);
        for at in 0..self.entries.len() {
            let entry = self.entries.get(at).unwrap_or(Entry::GONE);
            if entry.is_gone() {
                continue;
            }
            if let Some(bytes) = bytes_of(entry) {
                self.len += 1;
                self.bytes += bytes;
            } else {
                self.entries.set(at, Entry::GONE);
            }
        }
        self.trim();
        (self.sent, self.sent_before, self.ready) = (self.head, self.head, self.head);
    }

    /// The head goes on to the next entry that is not gone; cursors that it passes go with it.
    fn trim(&mut self) {
        let before = self.head;
        while self.entries.get(0).is_some_and(Entry::is_gone) {
            self.entries.pop_front();
            self.head = self.head.wrapping_add(1);
        }
        let passed = self.head.wrapping_sub(before);
        for cursor in [&mut self.sent, &mut self.sent_before, &mut self.ready] {
            if cursor.wrapping_sub(before) < passed {
                *cursor = self.head;
            }
        }
        self.entries.shrink();
    }

    /// Bytes of memory beside its own.
    pub(super) fn reserved(&self) -> usize {
        self.entries.reserved()
    }

    pub(super) fn check_invariants(&self) {
        let waiting = self.entries.iter().filter(|entry| !entry.is_gone()).count();
        assert_eq!(waiting, self.len as usize);
        assert!(
            self.entries.get(0).is_some_and(|entry| !entry.is_gone()),
            "the head is an entry"
        );
        assert!(self.entries.len() <= QUEUE_SPAN + 1);
        for cursor in [self.sent, self.sent_before, self.ready] {
            assert!(
                cursor.wrapping_sub(self.head) as usize <= self.entries.len() + 1,
                "cursor {cursor} of {}..{}",
                self.head,
                self.end()
            );
        }
    }
}

/// A queue as it is at a moment. Of one that rests, all that the owner has said is at the head.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// As in [`Queue`], and the next three.
    pub sent: u32,
    /// See there.
    pub sent_before: u32,
    /// See there.
    pub ready: u32,
    /// See there.
    pub flying: u32,
    head: u32,
    tail: u32,
    len: usize,
    bytes: u64,
    entries: Entries<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Entries<'a> {
    Open(&'a Queue),
    Resting(Words<'a>),
}

impl<'a> View<'a> {
    /// Of one that rests.
    #[inline]
    pub(super) fn resting(words: Words<'a>) -> Self {
        let (head, len) = (words.head(), words.len());
        let end = head + len as u32;
        Self {
            sent: head,
            sent_before: head,
            ready: head,
            flying: 0,
            head,
            tail: if end == u32::MAX { 0 } else { end },
            len,
            bytes: words.bytes(),
            entries: Entries::Resting(words),
        }
    }

    /// The oldest entry that is not done.
    pub fn head(&self) -> u32 {
        self.head
    }

    /// The number that the next entry gets.
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Entries that are not done.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a queue without entries is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As [`Queue::bytes`].
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What became of an entry.
    pub fn state(&self, seq: u32) -> State {
        match self.entries {
            Entries::Open(queue) => queue.state(seq),
            Entries::Resting(words) => {
                let packed = words.packed(seq);
                packed.map_or(State::Gone, |packed| State::of(low_bits(packed)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bodies::Shared;
    use super::super::entry::Place;
    use super::super::format::Position;
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry::message(Place::new(Position(64 + 8 * number), 32))
    }

    fn filled(start: u32, count: u32) -> Queue {
        let mut queue = Queue::new(start);
        for number in 0..count {
            queue.push(entry(u64::from(number)), 32);
        }
        queue
    }

    #[test]
    fn an_entry_costs_six_bytes_and_a_quarter_at_most() {
        for count in [1, 2, 3, 10, 100, 1000, 100_000] {
            let queue = filled(0, count);
            let bytes = queue.reserved();
            let entries = count as usize;
            assert!(bytes >= 6 * entries);
            assert!(
                bytes <= (6 * entries * 5 / 4).max(30),
                "{bytes} for {count}"
            );
            // What an operator may count on, the queue itself included.
            assert!(entries < 100 || bytes + size_of::<Queue>() <= 8 * entries);
        }
    }

    #[test]
    fn entries_go_in_any_order_and_memory_with_them() {
        let mut queue = filled(7, 1000);
        (queue.sent, queue.ready) = (20, 500);
        for seq in (8..900).chain([7]) {
            assert_eq!(queue.state(seq), State::Waiting);
            queue.remove(seq, 32);
            assert_eq!(queue.state(seq), State::Gone);
        }
        assert_eq!((queue.head(), queue.tail(), queue.len()), (900, 1007, 107));
        assert_eq!(
            (queue.sent, queue.sent_before, queue.ready),
            (900, 900, 900)
        );
        assert_eq!(queue.bytes(), 107 * 32);
        assert!(queue.reserved() <= 8 * 2 * 107);
        assert_eq!((queue.get(6), queue.get(1007)), (Entry::GONE, Entry::GONE));
        queue.check_invariants();
    }

    #[test]
    fn the_last_number_is_left_out() {
        let mut queue = filled(u32::MAX - 2, 2);
        assert_eq!(queue.tail(), 0);
        queue.push(entry(9), 32);
        assert_eq!((queue.get(0), queue.get(u32::MAX)), (entry(9), Entry::GONE));
        assert_eq!((queue.len(), queue.tail()), (3, 1));
        let numbers: Vec<u32> = queue.iter().map(|(seq, _)| seq).collect();
        assert_eq!(numbers, [u32::MAX - 2, u32::MAX - 1, 0]);
        assert_eq!(
            numbers.iter().map(|seq| seq % 65_535).collect::<Vec<_>>(),
            [65_533, 65_534, 0]
        );
        queue.remove(u32::MAX - 2, 32);
        queue.remove(u32::MAX - 1, 32);
        assert_eq!((queue.head(), queue.sent), (0, 0));
        assert_eq!(Queue::after(u32::MAX - 1), 0);
        assert_eq!(Queue::new(u32::MAX).tail(), 0);
    }

    #[test]
    fn records_are_found_in_any_order() {
        let mut queue = Queue::default();
        let fan = Entry::fan(Shared(3), 1);
        assert!(queue.set(4, Entry::GONE));
        for (seq, what) in [
            (50, entry(1)),
            (40, entry(2)),
            (60, fan),
            (41, entry(3)),
            (40, Entry::GONE),
            (60, Entry::GONE),
            (700, Entry::GONE),
        ] {
            assert!(queue.set(seq, what));
        }
        // Far too far, in both directions.
        assert!(!queue.set(50 + QUEUE_SPAN as u32, fan));
        assert!(!queue.set(50_u32.wrapping_sub(QUEUE_SPAN as u32), fan));
        queue.recount(|_| Some(32));
        assert_eq!((queue.head(), queue.tail(), queue.len()), (41, 61, 2));
        assert_eq!((queue.sent, queue.bytes()), (41, 64));
        queue.check_invariants();
        queue.recount(|held| (held != entry(3)).then_some(8));
        assert_eq!((queue.head(), queue.len(), queue.bytes()), (50, 1, 8));
    }

    #[test]
    fn numbers_that_begin_anew_take_no_room_between() {
        let mut queue = Queue::default();
        assert!(queue.set(40_000, entry(1)) && queue.set(40_000, Entry::GONE));
        assert!(queue.set(3, entry(2)) && queue.set(4, entry(3)));
        assert!(queue.reserved() <= 16 * 8, "{} bytes", queue.reserved());
        assert!(queue.set(3, Entry::GONE));
        queue.recount(|_| Some(32));
        assert_eq!((queue.head(), queue.tail(), queue.len()), (4, 5, 1));
        queue.check_invariants();
    }
}
