//! Handing connections over to their homes: sockets with the bytes that were read from them.
//!
//! Where the reactors have one fd table in common, a connection goes by mail ([`Letter`]) and costs no system call. Where each has its own, it goes by
//! mail too, on loan ([`super::lent`]), while few do. In a storm, on kernels that know no loans, and where much was read at once, it goes in a batch. A batch is one message on the home's socket pair (`sys::pass`): a count, the length of each connection's bytes, then the bytes. A pair
//! that is full refuses; the batch waits and is tried again each turn, and a storm that outruns a home for too long is turned away at the door.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::sync::Arc;

use super::lent::Loan;
use crate::access::Access;
use crate::gate::Answer;
use crate::ids::ReactorId;
use crate::limits;
use crate::routing::mail::Mail;
use crate::sys::pass::{self, Receiver, Sender};

/// Bytes of the header: the count, and each length.
const HEADER: usize = 4 * (1 + pass::MAX_BATCH);

#[derive(Debug, Default)]
struct Batch {
    sockets: Vec<TcpStream>,
    lengths: Vec<u32>,
    bytes: Vec<u8>,
}

impl Batch {
    fn has_room_for(&self, bytes: usize) -> bool {
        self.sockets.len() < pass::MAX_BATCH && self.bytes.len() + bytes <= limits::HANDOVER_BYTES
    }

    fn send(&self, to: &Sender) -> io::Result<()> {
        let mut header = Vec::with_capacity(4 * (1 + self.lengths.len()));
        for word in std::iter::once(&(self.lengths.len() as u32)).chain(&self.lengths) {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        to.send(
            &[IoSlice::new(&header), IoSlice::new(&self.bytes)],
            &self.sockets,
        )
    }
}

/// What reactors tell each other.
#[derive(Debug)]
pub enum Letter {
    /// From shard to shard.
    Mail(Mail),
    /// A connection goes home.
    Arrival(Arrival),
    /// The gate has found out about a connection that waits here.
    Answer(Box<Answer>),
    /// Other rules hold from now on.
    Access(Arc<Access>),
}

/// The socket of a connection that goes home by mail.
#[derive(Debug)]
pub enum Passage {
    /// Of the fd table that both reactors use.
    Common(TcpStream),
    /// Of the acceptor's table, out of which its home takes it.
    Lent(Loan),
}

/// A connection that has gone home by mail, whose seat there is taken.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket.
    pub socket: Passage,
    /// As whom it was admitted, encoded, and all that was read from it.
    pub bytes: Box<[u8]>,
}

/// One reactor's outgoing connections.
#[derive(Debug)]
pub struct Departures {
    lines: Arc<[Sender]>,
    /// For each home: batches, oldest first; the last is being filled.
    waiting: Vec<VecDeque<Batch>>,
    touched: Vec<ReactorId>,
}

/// Sockets that could not be sent, and whose seats at a home are to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The home.
    pub home: ReactorId,
    /// How many.
    pub sockets: usize,
}

impl Departures {
    /// `lines`: the sending end of every reactor's pair.
    pub fn new(lines: Arc<[Sender]>) -> Self {
        let waiting = lines.iter().map(|_| VecDeque::new()).collect();
        Self {
            lines,
            waiting,
            touched: Vec::new(),
        }
    }

    /// False while too much waits for a home: a connection for it is refused.
    pub fn has_room(&self, home: ReactorId) -> bool {
        self.waiting[home.index()].len() < limits::HANDOVER_BACKLOG
    }

    /// Send a connection home, with this turn's batch. `identity`: as whom it was admitted, encoded; `bytes`: all that was read from it.
    pub fn add(&mut self, home: ReactorId, socket: TcpStream, identity: &[u8], bytes: &[u8]) {
        let len = identity.len() + bytes.len();
        debug_assert!(
            len <= limits::HANDOVER_BYTES,
            "a connection's bytes are bounded before it is handed over"
        );
        let batches = &mut self.waiting[home.index()];
        if batches.is_empty() {
            self.touched.push(home);
        }
        if !batches.back().is_some_and(|batch| batch.has_room_for(len)) {
            batches.push_back(Batch::default());
        }
        let batch = batches.back_mut().expect("one was just added");
        batch.sockets.push(socket);
        batch.lengths.push(len as u32);
        batch.bytes.extend_from_slice(identity);
        batch.bytes.extend_from_slice(bytes);
    }

    /// Send what the pairs take. True: some waits. `undelivered` is told of what can never be sent.
    pub fn flush(&mut self, mut undelivered: impl FnMut(Undelivered, io::Error)) -> bool {
        if self.touched.is_empty() {
            return false;
        }
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|&home| {
            let batches = &mut self.waiting[home.index()];
            while let Some(batch) = batches.front() {
                match batch.send(&self.lines[home.index()]) {
                    Ok(()) => {}
                    Err(error) if is_full(&error) => return true,
                    Err(error) => {
                        let sockets = batch.sockets.len();
                        undelivered(Undelivered { home, sockets }, error);
                    }
                }
                batches.pop_front();
            }
            false
        });
        self.touched = touched;
        !self.touched.is_empty()
    }
}

/// The pair's buffer is full, or too many sockets of this process are on their way.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(
            error.raw_os_error(),
            Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM | libc::EINTR)
        )
}

/// What has come over at once.
#[derive(Debug)]
pub struct Arrivals {
    /// Each with its bytes, as a range of the buffer.
    pub connections: Vec<(TcpStream, std::ops::Range<usize>)>,
    /// Connections that were lost, as the fd table had no room.
    pub lost: usize,
}

/// The receiving side's buffer; holds the largest message. The default one holds nothing: it stands in while the real one is in use.
#[derive(Debug, Default)]
pub struct ArrivalBuffer(Vec<u8>);

impl ArrivalBuffer {
    /// Address space; used once something arrives.
    pub fn new() -> Self {
        Self(vec![0; HEADER + limits::HANDOVER_BYTES])
    }

    /// Receive one batch; None: there is none.
    pub fn receive(&mut self, from: &Receiver) -> io::Result<Option<Arrivals>> {
        let received = match from.receive(&mut self.0) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let word = |i: usize| {
            let bytes = self.0[..received.len].get(4 * i..4 * i + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().expect("four bytes")) as usize)
        };
        // Only reactors hold the sending ends, so a message that does not add up is a fault of ours.
        let count = word(0).expect("a batch begins with its count");
        let mut at = 4 * (1 + count);
        let mut connections = Vec::with_capacity(received.sockets.len());
        let lost = count - received.sockets.len();
        debug_assert!(lost == 0 || received.truncated);
        for (i, socket) in received.sockets.into_iter().enumerate() {
            let len = word(1 + i).expect("a batch has a length for each connection");
            connections.push((socket, at..at + len));
            at += len;
        }
        Ok(Some(Arrivals { connections, lost }))
    }

    /// The bytes of one connection.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.0[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn socket(listener: &TcpListener) -> TcpStream {
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Taken off the listener's queue, which would fill up.
        drop(listener.accept().unwrap());
        socket
    }

    #[test]
    fn connections_arrive_in_order_with_their_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (sender, receiver) = pass::pair().unwrap();
        let home = ReactorId(0);
        let mut departures = Departures::new([sender].into_iter().collect());
        let mut sent = Vec::new();
        // More than one batch by count, and then by bytes.
        let sizes = (0..300)
            .map(|i| i % 5)
            .chain([70_000, 70_000, limits::HANDOVER_BYTES, 0]);
        for (i, size) in sizes.enumerate() {
            let socket = socket(&listener);
            sent.push((socket.local_addr().unwrap(), vec![i as u8; size]));
            // Where the identity ends is the reader's business.
            let (identity, bytes) = sent[i].1.split_at(sent[i].1.len() / 3);
            departures.add(home, socket, identity, bytes);
        }
        let mut buffer = ArrivalBuffer::new();
        let mut got = Vec::new();
        let mut waits = true;
        while waits || got.len() < sent.len() {
            waits = departures.flush(|lost, error| panic!("{lost:?} {error}"));
            while let Some(arrivals) = buffer.receive(&receiver).unwrap() {
                assert_eq!(arrivals.lost, 0);
                for (socket, range) in arrivals.connections {
                    got.push((socket.local_addr().unwrap(), buffer.bytes(range).to_vec()));
                }
            }
        }
        assert!(got == sent, "{} of {}", got.len(), sent.len());
    }

    #[test]
    fn a_home_that_takes_nothing_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (sender, _receiver) = pass::pair().unwrap();
        let home = ReactorId(0);
        let mut departures = Departures::new([sender].into_iter().collect());
        let mut count = 0;
        while departures.has_room(home) {
            departures.add(home, socket(&listener), &[0], &vec![1; 60_000]);
            departures.flush(|lost, error| panic!("{lost:?} {error}"));
            count += 1;
            assert!(count < 1000, "the pair never filled up");
        }
    }
}
