//! Queues that rest: short ones from which nobody sends at present. 12 bytes a queue and 6 an entry, with no pointer and no room between.
//!
//! ```text
//! queue    0 index of its session | entries that it has room for << 26 u32   4 number of its first entry u32   8 its bytes / 8 u32
//!         12 entries, 6 bytes each, oldest first
//! ```
//! Queues of one size stand in a row; where one leaves it, the last of the row takes its place, so memory is what the queues need, in whatever order
//! they grow. A queue that rests is plain: no entry in its middle is gone, and its numbers don't begin anew. What is not plain is open ([`Queue`]).

use super::entry::Entry;
use super::queue::{Queue, View};
use super::ring::{PACKED_WORDS, Packed, pack, unpack};
use crate::ids::SessionIdx;
use crate::limits::{QUEUE_PAGE_WORDS, SESSION_BITS};

/// Words of 16 bits before the entries.
const HEAD_WORDS: usize = 6;
/// How many entries a queue of each row has room for: a queue of seven or more is within 8 bytes an entry.
const ROOMS: [usize; 29] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 112,
    128, 144, 160,
];
/// The longest queue that can rest.
const LONGEST: usize = ROOMS[ROOMS.len() - 1];
const LONGEST_WORDS: usize = HEAD_WORDS + LONGEST * PACKED_WORDS;
const _: () = assert!(LONGEST_WORDS <= QUEUE_PAGE_WORDS);

/// Marks the number of a queue that rests.
const RESTS: u32 = 1 << 31;
const _: () = assert!(SESSION_BITS == 26 && ROOMS.len() < 32);
const INDEX_MASK: u32 = (1 << SESSION_BITS) - 1;

/// Whether this is the number of a queue that rests, if it is one of a queue.
#[inline]
pub(super) fn rests(number: u32) -> bool {
    number & RESTS != 0
}

/// Another queue has moved: it has this number now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) owner: SessionIdx,
    pub(super) number: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Resting {
    rows: [Row; ROOMS.len()],
    /// A page that was given back last: a queue that comes and goes asks the allocator for nothing.
    spare: Option<Page>,
}

type Page = Box<[u16]>;

/// Queues of one size.
#[derive(Debug, Default)]
struct Row {
    pages: Vec<Page>,
    len: usize,
}

/// A queue in its row.
#[derive(Clone, Copy)]
struct Seat {
    row: usize,
    index: usize,
}

/// Words of a queue in each row.
const STRIDES: [u32; ROOMS.len()] = {
    let (mut strides, mut row) = ([0; ROOMS.len()], 0);
    while row < ROOMS.len() {
        strides[row] = (HEAD_WORDS + ROOMS[row] * PACKED_WORDS) as u32;
        row += 1;
    }
    strides
};

/// Queues in a page of each row.
const EACH: [u32; ROOMS.len()] = {
    let (mut each, mut row) = ([0; ROOMS.len()], 0);
    while row < ROOMS.len() {
        each[row] = QUEUE_PAGE_WORDS as u32 / STRIDES[row];
        row += 1;
    }
    each
};

fn stride(row: usize) -> usize {
    STRIDES[row] as usize
}

/// The row with the least room for so many entries.
fn row_for(entries: usize) -> usize {
    ROOMS.partition_point(|room| *room < entries)
}

impl Seat {
    fn of(number: u32) -> Self {
        Self {
            row: ((number & !RESTS) >> SESSION_BITS) as usize,
            index: (number & INDEX_MASK) as usize,
        }
    }

    fn number(self) -> u32 {
        RESTS | (self.row as u32) << SESSION_BITS | self.index as u32
    }

    /// Its page, and where it begins there.
    fn place(self) -> (usize, usize) {
        let (each, index) = (EACH[self.row], self.index as u32);
        let within = index % each * STRIDES[self.row];
        ((index / each) as usize, within as usize)
    }
}

fn long(words: &[u16], at: usize) -> u32 {
    u32::from(words[at]) | u32::from(words[at + 1]) << 16
}

fn set_long(words: &mut [u16], at: usize, number: u32) {
    (words[at], words[at + 1]) = (number as u16, (number >> 16) as u16);
}

/// The words of one queue, as they stand in its row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a>(&'a [u16]);

impl Words<'_> {
    fn owner(self) -> SessionIdx {
        SessionIdx(long(self.0, 0) & INDEX_MASK)
    }

    pub(super) fn head(self) -> u32 {
        long(self.0, 2)
    }

    pub(super) fn bytes(self) -> u64 {
        u64::from(long(self.0, 4)) * 8
    }

    /// Entries.
    pub(super) fn len(self) -> usize {
        let has_room_for = (long(self.0, 0) >> SESSION_BITS) as usize;
        (self.0.len() - HEAD_WORDS) / PACKED_WORDS - has_room_for
    }

    fn entries(self) -> impl Iterator<Item = Packed> {
        let (entries, _) = self.0[HEAD_WORDS..].as_chunks::<PACKED_WORDS>();
        entries[..self.len()].iter().copied()
    }

    /// The entry with this number, but for the upper bits of its position.
    pub(super) fn packed(self, seq: u32) -> Option<Packed> {
        let at = seq.wrapping_sub(self.head()) as usize;
        let from = HEAD_WORDS + at * PACKED_WORDS;
        (at < self.len()).then(|| [self.0[from], self.0[from + 1], self.0[from + 2]])
    }
}

impl Default for Resting {
    fn default() -> Self {
        Self {
            rows: std::array::from_fn(|_| Row::default()),
            spare: None,
        }
    }
}

impl Resting {
    fn words(&self, seat: Seat) -> Words<'_> {
        let (page, from) = seat.place();
        Words(&self.rows[seat.row].pages[page][from..from + stride(seat.row)])
    }

    fn words_mut(&mut self, seat: Seat) -> &mut [u16] {
        let (page, from) = seat.place();
        &mut self.rows[seat.row].pages[page][from..from + stride(seat.row)]
    }

    /// A queue, to look at.
    #[inline]
    pub(super) fn view(&self, number: u32) -> View<'_> {
        View::resting(self.words(Seat::of(number)))
    }

    /// Its entries with their numbers. `end` is the end of the log in units of 8 bytes: no entry leads behind it.
    pub(super) fn iter(&self, number: u32, end: u64) -> impl Iterator<Item = (u32, Entry)> {
        let words = self.words(Seat::of(number));
        let head = words.head();
        let numbered = move |(at, packed): (usize, Packed)| (head + at as u32, unpack(packed, end));
        words.entries().enumerate().map(numbered)
    }

    /// The entry with this number; `end` as in [`Resting::iter`].
    #[inline]
    pub(super) fn get(&self, number: u32, seq: u32, end: u64) -> Entry {
        let packed = self.words(Seat::of(number)).packed(seq);
        packed.map_or(Entry::GONE, |packed| unpack(packed, end))
    }

    /// A new queue of one entry, which has this number.
    #[inline]
    pub(super) fn insert(&mut self, owner: SessionIdx, seq: u32, entry: Entry, bytes: u64) -> u32 {
        let seat = self.sit(0, owner, seq, (bytes / 8) as u32);
        self.write(seat, 0, entry);
        seat.number()
    }

    /// Has an open queue rest, if it is plain and short: its number.
    pub(super) fn put(&mut self, owner: SessionIdx, queue: &Queue) -> Option<u32> {
        if !queue.is_plain() || queue.len() > LONGEST {
            return None;
        }
        let units = u32::try_from(queue.bytes() / 8).ok()?;
        let row = row_for(queue.len());
        let seat = self.sit(row, owner, queue.head(), units);
        let room = (ROOMS[row] - queue.len()) as u32;
        let words = self.words_mut(seat);
        set_long(words, 0, owner.0 | room << SESSION_BITS);
        for (at, (_, entry)) in queue.iter().enumerate() {
            self.write(seat, at, entry);
        }
        Some(seat.number())
    }

    /// Appends an entry: the queue's number from then on, and who had to move for it. None: it is not for a queue that rests.
    #[inline]
    pub(super) fn push(
        &mut self,
        number: u32,
        entry: Entry,
        bytes: u64,
    ) -> Option<(u32, Option<Moved>)> {
        let seat = Seat::of(number);
        let words = self.words(seat);
        let len = words.len();
        let (owner, head) = (words.owner(), words.head());
        let units = u32::try_from((words.bytes() + bytes) / 8).ok()?;
        // The number of the last but one is the last that an entry may have.
        if len == LONGEST || head > u32::MAX - 1 - len as u32 {
            return None;
        }
        let (seat, moved) = if len < ROOMS[seat.row] {
            (seat, None)
        } else {
            let to = self.sit(seat.row + 1, owner, head, units);
            self.copy_entries(seat, 0, to, len);
            (to, self.leave(seat))
        };
        let room = (ROOMS[seat.row] - len - 1) as u32;
        let words = self.words_mut(seat);
        set_long(words, 0, owner.0 | room << SESSION_BITS);
        set_long(words, 4, units);
        self.write(seat, len, entry);
        Some((seat.number(), moved))
    }

    /// Puts another entry that is not gone in the place of one.
    pub(super) fn replace(&mut self, number: u32, seq: u32, entry: Entry, before: u64, after: u64) {
        let seat = Seat::of(number);
        let words = self.words(seat);
        let at = seq.wrapping_sub(words.head()) as usize;
        let bytes = words.bytes() - before + after;
        assert!(at < words.len());
        set_long(self.words_mut(seat), 4, (bytes / 8) as u32);
        self.write(seat, at, entry);
    }

    /// The oldest entry, which counted so many bytes, is over: the number from then on; with the last one there is none, and no queue.
    pub(super) fn pop_front(&mut self, number: u32, bytes: u64) -> (Option<u32>, Option<Moved>) {
        let seat = Seat::of(number);
        let words = self.words(seat);
        let (owner, head, len) = (words.owner(), words.head(), words.len());
        let units = ((words.bytes() - bytes) / 8) as u32;
        if len == 1 {
            return (None, self.leave(seat));
        }
        let row = row_for(len - 1);
        let (seat, moved) = if row == seat.row {
            self.words_mut(seat)
                .copy_within(HEAD_WORDS + PACKED_WORDS.., HEAD_WORDS);
            (seat, None)
        } else {
            let to = self.sit(row, owner, head, units);
            self.copy_entries(seat, 1, to, len - 1);
            (to, self.leave(seat))
        };
        let room = (ROOMS[row] - (len - 1)) as u32;
        let words = self.words_mut(seat);
        set_long(words, 0, owner.0 | room << SESSION_BITS);
        set_long(words, 2, head + 1);
        set_long(words, 4, units);
        (Some(seat.number()), moved)
    }

    /// It rests no more.
    pub(super) fn take(&mut self, number: u32, end: u64) -> (Queue, Option<Moved>) {
        let seat = Seat::of(number);
        let words = self.words(seat);
        let entries = self.iter(number, end).map(|(_, entry)| entry);
        let queue = Queue::waking(words.head(), entries, words.bytes());
        (queue, self.leave(seat))
    }

    /// Queues.
    pub(super) fn len(&self) -> usize {
        self.rows.iter().map(|row| row.len).sum()
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        let pages = self.rows.iter().map(|row| row.pages.len()).sum::<usize>();
        let lists = self.rows.iter().map(|row| row.pages.capacity());
        (pages + usize::from(self.spare.is_some())) * QUEUE_PAGE_WORDS * size_of::<u16>()
            + lists.sum::<usize>() * size_of::<Page>()
    }

    /// A seat at the end of a row.
    #[inline]
    fn sit(&mut self, row: usize, owner: SessionIdx, head: u32, units: u32) -> Seat {
        let index = self.rows[row].len;
        let seat = Seat { row, index };
        let (page, _) = seat.place();
        let it = &mut self.rows[row];
        it.len += 1;
        if page == it.pages.len() {
            let new = || vec![0; QUEUE_PAGE_WORDS].into_boxed_slice();
            it.pages.push(self.spare.take().unwrap_or_else(new));
        }
        let words = self.words_mut(seat);
        set_long(words, 0, owner.0);
        set_long(words, 2, head);
        set_long(words, 4, units);
        seat
    }

    /// The last of the row takes the place of one that leaves it.
    #[inline]
    fn leave(&mut self, seat: Seat) -> Option<Moved> {
        let row = &mut self.rows[seat.row];
        row.len -= 1;
        let last = Seat {
            row: seat.row,
            index: row.len,
        };
        let stride = stride(seat.row);
        let ((from_page, from), (page, to)) = (last.place(), seat.place());
        let moved = (last.index != seat.index).then(|| {
            if from_page == page {
                row.pages[page].copy_within(from..from + stride, to);
            } else {
                let (before, behind) = row.pages.split_at_mut(from_page);
                before[page][to..to + stride].copy_from_slice(&behind[0][from..from + stride]);
            }
            Moved {
                owner: Words(&row.pages[page][to..to + stride]).owner(),
                number: seat.number(),
            }
        });
        if from == 0 {
            self.spare = row.pages.pop();
            if row.len == 0 {
                row.pages = Vec::new();
            }
        }
        moved
    }

    /// So many entries of one queue, from one of them on, are the first of another, in another row.
    #[inline]
    fn copy_entries(&mut self, from: Seat, first: usize, to: Seat, entries: usize) {
        let ((from_page, from_at), (to_page, to_at)) = (from.place(), to.place());
        let words = entries * PACKED_WORDS;
        let from_at = from_at + HEAD_WORDS + first * PACKED_WORDS;
        let to_at = to_at + HEAD_WORDS;
        let [source, target] = self
            .rows
            .get_disjoint_mut([from.row, to.row])
            .expect("two rows");
        target.pages[to_page][to_at..to_at + words]
            .copy_from_slice(&source.pages[from_page][from_at..from_at + words]);
    }

    #[inline]
    fn write(&mut self, seat: Seat, at: usize, entry: Entry) {
        let from = HEAD_WORDS + at * PACKED_WORDS;
        self.words_mut(seat)[from..from + PACKED_WORDS].copy_from_slice(&pack(entry));
    }

    pub(super) fn check_invariants(&self, number: u32, owner: SessionIdx) {
        let seat = Seat::of(number);
        assert!(
            seat.index < self.rows[seat.row].len,
            "no queue has this number"
        );
        let words = self.words(seat);
        assert_eq!(words.owner(), owner);
        assert_eq!(
            row_for(words.len()),
            seat.row,
            "it is in the row of its size"
        );
        let is_gone = |packed| unpack(packed, u64::MAX >> Entry::POSITION_SHIFT).is_gone();
        assert!(!words.entries().any(is_gone), "a queue that rests is plain");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::entry::Place;
    use super::super::format::Position;
    use super::*;

    const END: u64 = 1 << 38;
    const OWNERS: usize = 36;

    /// Queues as anybody would write them, by owner, and the numbers that they have.
    #[derive(Default)]
    struct Model {
        queues: Vec<(u32, VecDeque<Entry>)>,
        numbers: Vec<Option<u32>>,
    }

    impl Model {
        fn follow(&mut self, moved: Option<Moved>) {
            if let Some(Moved { owner, number }) = moved {
                self.numbers[owner.index()] = Some(number);
            }
        }

        fn check(&self, resting: &Resting) {
            for (owner, number) in self.numbers.iter().enumerate() {
                let Some(number) = *number else { continue };
                let (head, entries) = &self.queues[owner];
                resting.check_invariants(number, SessionIdx(owner as u32));
                let found: Vec<(u32, Entry)> = resting.iter(number, END).collect();
                let wanted = entries
                    .iter()
                    .zip(0..)
                    .map(|(entry, at)| (head + at, *entry));
                assert_eq!(found, wanted.collect::<Vec<_>>());
                let view = resting.view(number);
                assert_eq!((view.head(), view.len()), (*head, entries.len()));
                assert_eq!(view.bytes(), 32 * entries.len() as u64);
                let last = head + entries.len() as u32 - 1;
                assert_eq!(Some(&resting.get(number, last, END)), entries.back());
                assert_eq!(resting.get(number, last + 1, END), Entry::GONE);
                assert_eq!(resting.get(number, head - 1, END), Entry::GONE);
            }
        }
    }

    fn entry(number: u64) -> Entry {
        // On both sides of where the kept bits of a position begin anew.
        let unit = END - 1 - number % (1 << 36);
        Entry::message(Place::new(Position(unit * 8), 32))
    }

    #[test]
    fn queues_of_all_lengths_come_grow_shrink_and_go() {
        let (mut resting, mut model) = (Resting::default(), Model::default());
        model.queues.resize_with(OWNERS, || (0, VecDeque::new()));
        model.numbers.resize(OWNERS, None);
        let (mut dice, mut refused) = (1_u64, 0);
        for step in 0..60_000_u64 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (owner, what) = ((dice >> 33) as usize % OWNERS, dice >> 60);
            let idx = SessionIdx(owner as u32);
            let entry = entry(dice >> 20);
            // Long runs of growing, then of shrinking.
            let grows = step / 12_000 % 2 == 0;
            match model.numbers[owner] {
                None => {
                    let number = resting.insert(idx, 7 + owner as u32, entry, 32);
                    model.numbers[owner] = Some(number);
                    model.queues[owner] = (7 + owner as u32, VecDeque::from([entry]));
                }
                Some(number) if what < 2 => {
                    let at = (dice >> 40) as usize % model.queues[owner].1.len();
                    let (head, entries) = &mut model.queues[owner];
                    entries[at] = entry;
                    resting.replace(number, *head + at as u32, entry, 32, 32);
                }
                Some(number) if what == 2 => {
                    let (queue, moved) = resting.take(number, END);
                    model.follow(moved);
                    model.numbers[owner] = Some(resting.put(idx, &queue).unwrap());
                }
                Some(number) if (what < 13) == grows => {
                    let pushed = resting.push(number, entry, 32);
                    assert_eq!(pushed.is_none(), model.queues[owner].1.len() == LONGEST);
                    refused += u32::from(pushed.is_none());
                    if let Some((number, moved)) = pushed {
                        model.numbers[owner] = Some(number);
                        model.follow(moved);
                        model.queues[owner].1.push_back(entry);
                    }
                }
                Some(number) => {
                    let (number, moved) = resting.pop_front(number, 32);
                    model.numbers[owner] = number;
                    model.follow(moved);
                    let (head, entries) = &mut model.queues[owner];
                    entries.pop_front();
                    *head += 1;
                }
            }
            if step % 32 == 0 {
                model.check(&resting);
            }
            let there = model.numbers.iter().flatten().count();
            assert_eq!(resting.len(), there);
        }
        assert!(refused > 0, "some were as long as they may be");
        for owner in 0..OWNERS {
            if let Some(number) = model.numbers[owner].take() {
                model.follow(resting.take(number, END).1);
            }
        }
        assert_eq!(resting.len(), 0);
        assert!(resting.reserved() <= QUEUE_PAGE_WORDS * 2, "one spare page");
    }

    #[test]
    fn only_plain_queues_rest() {
        let mut resting = Resting::default();
        let idx = SessionIdx(3);
        let filled = |start: u32, entries: u32| {
            let each = (0..entries).map(|at| entry(u64::from(at)));
            Queue::waking(start, each, 8)
        };
        assert!(resting.put(idx, &filled(0, LONGEST as u32)).is_some());
        assert!(resting.put(idx, &filled(0, LONGEST as u32 + 1)).is_none());
        let mut sent = filled(9, 3);
        sent.sent = 10;
        assert!(resting.put(idx, &sent).is_none());
        let mut sent = filled(9, 3);
        sent.sent_before = 10;
        assert!(resting.put(idx, &sent).is_none());
        let mut holed = filled(9, 3);
        holed.remove(10, 0);
        assert!(resting.put(idx, &holed).is_none());
        // Up to the last number, and not beyond: the one behind it is left out.
        let number = resting.put(idx, &filled(u32::MAX - 2, 2)).unwrap();
        assert_eq!(resting.view(number).tail(), 0);
        assert!(resting.push(number, entry(1), 8).is_none());
        assert!(resting.put(idx, &filled(u32::MAX - 2, 3)).is_none());
        // More bytes than fit.
        let number = resting.insert(idx, 5, entry(1), 8);
        assert!(resting.push(number, entry(1), 8 << 32).is_none());
    }
}
