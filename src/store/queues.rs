//! The queues of all sessions: those that rest, and those that are open because somebody sends from them, or because they are long.

use super::entry::Entry;
use super::queue::{Queue, View};
use super::resting::{Moved, Resting, rests};
use super::sessions::{NO_QUEUE, Sessions, Slot};
use crate::ids::SessionIdx;
use crate::topic::pool::Pool;

/// See the module. `end`, wherever it is asked for, is the end of the log in units of 8 bytes.
#[derive(Debug, Default)]
pub(super) struct Queues {
    open: Pool<Queue>,
    resting: Resting,
}

/// Where a queue is.
enum Seen<'a> {
    Open(&'a Queue),
    Resting(u32),
}

impl Queues {
    fn seen(&self, slot: Slot) -> Option<Seen<'_>> {
        match slot.queue {
            NO_QUEUE => None,
            number if rests(number) => Some(Seen::Resting(number)),
            number => Some(Seen::Open(&self.open[number])),
        }
    }

    /// A session's queue, to look at.
    #[inline]
    pub(super) fn view(&self, slot: Slot) -> Option<View<'_>> {
        Some(match self.seen(slot)? {
            Seen::Open(queue) => queue.view(),
            Seen::Resting(number) => self.resting.view(number),
        })
    }

    /// The entry with this number in a session's queue.
    #[inline]
    pub(super) fn get(&self, slot: Slot, seq: u32, end: u64) -> Entry {
        match self.seen(slot) {
            None => Entry::GONE,
            Some(Seen::Open(queue)) => queue.get(seq),
            Some(Seen::Resting(number)) => self.resting.get(number, seq, end),
        }
    }

    /// The entries of a session's queue that are not gone, with their numbers.
    pub(super) fn entries(&self, slot: Slot, end: u64) -> impl Iterator<Item = (u32, Entry)> {
        let (open, resting) = match self.seen(slot) {
            None => (None, None),
            Some(Seen::Open(queue)) => (Some(queue.iter()), None),
            Some(Seen::Resting(number)) => (None, Some(self.resting.iter(number, end))),
        };
        open.into_iter()
            .flatten()
            .chain(resting.into_iter().flatten())
    }

    /// Whether another entry would make a session's queue longer than a queue may be.
    #[inline]
    pub(super) fn is_full(&self, slot: Slot) -> bool {
        matches!(self.seen(slot), Some(Seen::Open(queue)) if queue.is_full())
    }

    /// Appends an entry that counts so many bytes. It has the number that is the queue's next, or any if there was no queue.
    #[inline]
    pub(super) fn push(
        &mut self,
        sessions: &mut Sessions,
        idx: SessionIdx,
        (seq, entry, bytes): (u32, Entry, u64),
        end: u64,
    ) {
        let number = sessions.slot(idx).queue;
        if number == NO_QUEUE {
            sessions.slot_mut(idx).queue = self.resting.insert(idx, seq, entry, bytes);
            return;
        }
        if rests(number)
            && let Some((to, moved)) = self.resting.push(number, entry, bytes)
        {
            if to != number {
                sessions.slot_mut(idx).queue = to;
            }
            follow(sessions, moved);
            return;
        }
        let queue = self.open(sessions, idx, end);
        queue.expect("it has a number").push(entry, bytes);
    }

    /// Puts another entry that is not gone in the place of one that is not.
    pub(super) fn replace(&mut self, slot: Slot, seq: u32, entry: Entry, before: u64, after: u64) {
        if rests(slot.queue) {
            self.resting.replace(slot.queue, seq, entry, before, after);
        } else {
            self.open[slot.queue].replace(seq, entry, before, after);
        }
    }

    /// An entry that is not gone, and counted so many bytes, is over. With the last one the queue is.
    pub(super) fn remove(
        &mut self,
        sessions: &mut Sessions,
        idx: SessionIdx,
        (seq, bytes): (u32, u64),
        end: u64,
    ) {
        let number = sessions.slot(idx).queue;
        if rests(number) && self.resting.view(number).head() == seq {
            let (left, moved) = self.resting.pop_front(number, bytes);
            sessions.slot_mut(idx).queue = left.unwrap_or(NO_QUEUE);
            follow(sessions, moved);
            return;
        }
        let queue = self.open(sessions, idx, end);
        let queue = queue.expect("it has an entry");
        queue.remove(seq, bytes);
        if queue.is_empty() {
            let slot = sessions.slot_mut(idx);
            self.open
                .remove(std::mem::replace(&mut slot.queue, NO_QUEUE));
        }
    }

    /// Takes a session's queue away.
    pub(super) fn take(
        &mut self,
        sessions: &mut Sessions,
        idx: SessionIdx,
        end: u64,
    ) -> Option<Queue> {
        let number = std::mem::replace(&mut sessions.slot_mut(idx).queue, NO_QUEUE);
        if number == NO_QUEUE {
            return None;
        }
        if !rests(number) {
            return Some(self.open.remove(number));
        }
        let (queue, moved) = self.resting.take(number, end);
        follow(sessions, moved);
        Some(queue)
    }

    /// A session's queue, open.
    pub(super) fn open(
        &mut self,
        sessions: &mut Sessions,
        idx: SessionIdx,
        end: u64,
    ) -> Option<&mut Queue> {
        let mut number = sessions.slot(idx).queue;
        if number == NO_QUEUE {
            return None;
        }
        if rests(number) {
            let (queue, moved) = self.resting.take(number, end);
            number = self.open.insert(queue);
            sessions.slot_mut(idx).queue = number;
            follow(sessions, moved);
        }
        Some(&mut self.open[number])
    }

    /// Nobody sends from a session's queue any more: it rests, if it can.
    pub(super) fn rest(&mut self, sessions: &mut Sessions, idx: SessionIdx) {
        let slot = sessions.slot_mut(idx);
        if slot.queue != NO_QUEUE
            && !rests(slot.queue)
            && let Some(number) = self.resting.put(idx, &self.open[slot.queue])
        {
            self.open.remove(std::mem::replace(&mut slot.queue, number));
        }
    }

    /// Takes in the queue of a session that has none here: its number.
    pub(super) fn insert(&mut self, idx: SessionIdx, queue: Queue) -> u32 {
        let number = self.resting.put(idx, &queue);
        number.unwrap_or_else(|| self.open.insert(queue))
    }

    /// Queues.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.resting.len()
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        let rings: usize = self.open.iter().map(Queue::reserved).sum();
        self.open.reserved() + rings + self.resting.reserved()
    }

    pub(super) fn check_invariants(&self, idx: SessionIdx, slot: Slot) {
        match self.seen(slot) {
            None => {}
            Some(Seen::Open(queue)) => queue.check_invariants(),
            Some(Seen::Resting(number)) => self.resting.check_invariants(number, idx),
        }
    }
}

/// A queue has moved: its session knows where.
#[inline]
fn follow(sessions: &mut Sessions, moved: Option<Moved>) {
    if let Some(Moved { owner, number }) = moved {
        sessions.slot_mut(owner).queue = number;
    }
}
