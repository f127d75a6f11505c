//! Sockets on loan: where each reactor has an fd table of its own, a connection that goes home alone is lent, and its home takes it out of the
//! acceptor's table (`sys::lend`).
//!
//! The letter names it; the home takes it, and puts its ticket down for the lender, who closes its own descriptor in its next turn: soon, for it
//! sleeps no longer than `limits::LOAN_MILLIS` meanwhile. Nobody is woken for that. A storm comes in batches, which cost less through a socket pair (`handover`), so
//! few loans are open at a time.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crossbeam::queue::ArrayQueue;
use slab::Slab;

use crate::ids::ReactorId;
use crate::limits;
use crate::sys::lend::{self, Lender};

/// What one reactor shows to the others: where they find it, and where they put down tickets.
#[derive(Debug)]
struct Shelf {
    /// Its thread; 0 until it has begun.
    thread: AtomicI32,
    /// Tickets of loans that were taken.
    taken: ArrayQueue<u32>,
}

/// Where reactors give back tickets. One for the whole server.
#[derive(Debug)]
pub struct Returns(Box<[Shelf]>);

impl Returns {
    /// For so many reactors; none lends where there is none.
    pub fn new(reactors: usize) -> Self {
        let shelf = |_| Shelf {
            thread: AtomicI32::new(0),
            taken: ArrayQueue::new(limits::LOANS),
        };
        Self((0..reactors).map(shelf).collect())
    }
}

/// A socket on loan.
#[derive(Debug)]
pub struct Loan {
    from: ReactorId,
    number: i32,
    ticket: u32,
}

/// One reactor's side: what it has lent, and whom it takes from.
#[derive(Debug)]
pub struct Lending {
    me: ReactorId,
    returns: Arc<Returns>,
    open: Slab<TcpStream>,
    lenders: Vec<Option<Lender>>,
}

impl Lending {
    /// Made by the reactor's thread, once it has its own table.
    pub fn new(me: ReactorId, returns: Arc<Returns>) -> Self {
        if let Some(shelf) = returns.0.get(me.index()) {
            shelf.thread.store(lend::thread_id(), Ordering::Release);
        }
        Self {
            me,
            open: Slab::new(),
            lenders: returns.0.iter().map(|_| None).collect(),
            returns,
        }
    }

    /// Whether another socket can be lent.
    pub fn has_room(&self) -> bool {
        !self.lenders.is_empty() && self.open.len() < limits::LOANS
    }

    /// Whether something is lent that may have been taken.
    pub fn is_lending(&self) -> bool {
        !self.open.is_empty()
    }

    /// Lends a socket; there is room.
    pub fn lend(&mut self, socket: TcpStream) -> Loan {
        let number = socket.as_raw_fd();
        let ticket = self.open.insert(socket) as u32;
        Loan {
            from: self.me,
            number,
            ticket,
        }
    }

    /// Takes what another reactor has lent.
    pub fn take(&mut self, loan: &Loan) -> io::Result<TcpStream> {
        let shelf = &self.returns.0[loan.from.index()];
        let taken = match &self.lenders[loan.from.index()] {
            Some(lender) => lender.take(loan.number),
            None => Lender::open(shelf.thread.load(Ordering::Acquire)).and_then(|lender| {
                let lender = self.lenders[loan.from.index()].insert(lender);
                lender.take(loan.number)
            }),
        };
        let put = shelf.taken.push(loan.ticket);
        debug_assert!(put.is_ok(), "more tickets than loans");
        taken
    }

    /// Closes what others have taken.
    pub fn close_taken(&mut self) {
        if self.open.is_empty() {
            return;
        }
        while let Some(ticket) = self.returns.0[self.me.index()].taken.pop() {
            drop(self.open.remove(ticket as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn a_loan_is_closed_once_it_was_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        if !lend::is_possible(listener.as_raw_fd()) {
            return;
        }
        let returns = Arc::new(Returns::new(2));
        let (lender, taker) = (ReactorId(0), ReactorId(1));
        let mut lends = Lending::new(lender, Arc::clone(&returns));
        let mut takes = Lending::new(taker, returns);
        let mut clients = Vec::new();
        let mut loans = Vec::new();
        while lends.has_room() {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            loans.push(lends.lend(listener.accept().unwrap().0));
        }
        assert_eq!(loans.len(), limits::LOANS);
        lends.close_taken();
        assert!(!lends.has_room(), "nobody has taken one");
        for (client, loan) in clients.iter_mut().zip(loans) {
            let socket = takes.take(&loan).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), client.local_addr().unwrap());
            drop(socket);
            // The lender has it still; now nobody has.
            lends.close_taken();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        assert!(!lends.is_lending() && lends.has_room());
    }

    #[test]
    fn who_shares_a_table_lends_nothing() {
        assert!(!Lending::new(ReactorId(0), Arc::new(Returns::new(0))).has_room());
    }
}
