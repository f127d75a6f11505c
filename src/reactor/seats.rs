//! How many connections there may be: in all, and at each reactor. Whoever accepts a connection takes its seat before it is handed over, so
//! a home that is full refuses at the door and not when the socket has travelled.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use crate::ids::ReactorId;

/// No seat is free, in all or at one reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The seats of the whole server; shared by all reactors.
#[derive(Debug)]
pub struct Seats {
    taken: CachePadded<AtomicU32>,
    max: u32,
    taken_at: Box<[CachePadded<AtomicU32>]>,
    max_each: u32,
}

impl Seats {
    /// `max` seats in all, `max_each` at each reactor.
    pub fn new(reactors: usize, max: u32, max_each: u32) -> Self {
        Self {
            taken: CachePadded::default(),
            max,
            taken_at: (0..reactors).map(|_| CachePadded::default()).collect(),
            max_each,
        }
    }

    /// Seats at each reactor.
    pub fn each(&self) -> u32 {
        self.max_each
    }

    /// Take a seat for a connection that was accepted at a reactor.
    pub fn enter(&self, at: ReactorId) -> Result<(), Full> {
        take(&self.taken, self.max)?;
        take(&self.taken_at[at.index()], self.max_each).inspect_err(|_| {
            self.taken.fetch_sub(1, Relaxed);
        })
    }

    /// Change from one reactor to another. If that is full the seat stays where it was.
    pub fn change(&self, from: ReactorId, to: ReactorId) -> Result<(), Full> {
        take(&self.taken_at[to.index()], self.max_each)?;
        self.taken_at[from.index()].fetch_sub(1, Relaxed);
        Ok(())
    }

    /// Give a seat back.
    pub fn leave(&self, at: ReactorId) {
        self.taken_at[at.index()].fetch_sub(1, Relaxed);
        self.taken.fetch_sub(1, Relaxed);
    }
}

fn take(count: &AtomicU32, max: u32) -> Result<(), Full> {
    // Added first and taken back: two that race for the last seat may both be refused, never both be let in.
    if count.fetch_add(1, Relaxed) >= max {
        count.fetch_sub(1, Relaxed);
        return Err(Full);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_in_all_and_at_each() {
        let seats = Seats::new(2, 3, 2);
        let (a, b) = (ReactorId(0), ReactorId(1));
        assert_eq!(
            (seats.enter(a), seats.enter(a), seats.enter(a)),
            (Ok(()), Ok(()), Err(Full))
        );
        assert_eq!((seats.enter(b), seats.enter(b)), (Ok(()), Err(Full)));
        assert_eq!(seats.change(a, b), Ok(()));
        assert_eq!(seats.change(a, b), Err(Full), "b has two");
        seats.leave(b);
        assert_eq!(seats.enter(a), Ok(()));
    }
}
