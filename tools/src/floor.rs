//! A bare epoll server: what the same traffic costs if a server does nothing but the system calls that nobody can leave out. Every figure
//! of `measure` is a ratio to it, in the same run.
//!
//! What is done, for one of each:
//! - connect and subscribe: `accept4` (deferred, so the CONNECT is there), `recv` CONNECT, `send` CONNACK, `epoll_ctl`, and when the SUBSCRIBE
//!   is there, `recv` and `send` SUBACK. Six, and a share of `epoll_wait`.
//! - a message to one phone: a share of `epoll_wait` and of the `recv` of the publisher's connection, and one `send`: the very bytes that
//!   came. At QoS 1 also a share of one `send` for the PUBACKs of all that one `recv` brought, and the `recv` of the phone's PUBACK.
//! - a message to all: one `send` a phone of the same bytes; each thread serves its own phones.
//!
//! What is left out: sessions, queues and retries, keep alive and all other timers, checks of packets and names beyond the framing, client
//! identifiers and takeover, packet identifiers of its own, topics (the phone's number in the topic is the index into an array), statistics,
//! and a socket that takes less than it is given (its connection is ended). Two messages to one phone in one turn are two writes: with
//! thousands of phones that hardly happens.
//!
//! What a server could still save, and this one doesn't: it is made of epoll and plain sockets, as Stillwire is. `io_uring` isn't looked at.
//!
//! Threads share one table of descriptors, and any thread writes to any connection. Only when that table is too small has each its own
//! (`--own-tables`); then a message for a phone of another thread goes through a queue, with one `eventfd` write a batch.
//!
//! It serves our own generator on loopback and nobody else: whoever sends it rubbish gets rubbish.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use loadgen::name::SHARED_TOPIC;
use stillwire::sys::{affinity, listen, rlimit, table};

use crate::sys::{self, Bell, Epoll, Event, Read, Watch};

/// Descriptors of a table that are no connections.
const OTHER_FILES: u64 = 128;

/// Bytes read at once, as in Stillwire.
const SCRATCH: usize = 64 << 10;

/// Events taken at once, as in Stillwire.
const EVENTS: usize = 1024;

/// Seconds of `TCP_DEFER_ACCEPT`.
const DEFER: u32 = 3;

/// Where a phone's connection is: the thread in the upper bits, the descriptor in the lower. Descriptor 0 is never a connection.
const FD_BITS: u32 = 22;

/// The descriptor of a letter that is for all.
const ALL: u32 = u32::MAX;

/// No phone.
const NOBODY: u32 = u32::MAX;

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

/// What is fixed before the first connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) listen: SocketAddr,
    /// Phone numbers are below this.
    pub(crate) phones: u32,
    pub(crate) threads: usize,
    /// A table of descriptors for each thread, even if one would do.
    pub(crate) own_tables: bool,
}

struct Shared {
    lines: Vec<Line>,
    /// By phone number.
    homes: Vec<AtomicU32>,
    own_tables: bool,
}

/// How other threads reach one.
struct Line {
    /// Letters: descriptor (or [`ALL`]), length, and the bytes of the packet.
    letters: Mutex<Vec<u8>>,
    bell: Bell,
}

/// Serves until a thread fails, which none does; `ready` is told the address.
pub(crate) fn run(plan: Plan, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let files = rlimit::raise_open_files()?.saturating_sub(OTHER_FILES);
    let threads = plan.threads.max(1);
    let mut lines = Vec::new();
    lines.resize_with(threads, || {
        Bell::new().map(|bell| Line {
            letters: Mutex::default(),
            bell,
        })
    });
    let mut homes = Vec::new();
    homes.resize_with(plan.phones as usize, AtomicU32::default);
    let shared = Shared {
        lines: lines.into_iter().collect::<io::Result<_>>()?,
        homes,
        own_tables: plan.own_tables || u64::from(plan.phones) > files,
    };
    let claim = listen::Claim::take(plan.listen)?;
    let cores = affinity::cores()?;
    // All descriptors that threads share exist before the first thread has its own table.
    let mut workers = Vec::new();
    for me in 0..threads {
        let listener = listen::listen(claim.address(), i32::from(u16::MAX), DEFER)?;
        let worker = Worker {
            shared: &shared,
            me,
            epoll: Epoll::new()?,
            listener,
            // All of it now, so that a connection grows nothing.
            phones: Vec::with_capacity((u64::from(plan.phones) + OTHER_FILES).min(files) as usize),
            partial: HashMap::new(),
            out: vec![Vec::new(); threads],
            replies: Vec::new(),
        };
        worker
            .epoll
            .add(worker.listener.as_raw_fd(), Watch::Level)?;
        worker
            .epoll
            .add(shared.lines[me].bell.as_raw_fd(), Watch::Edge)?;
        workers.push(worker);
    }
    ready(claim.address());
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let core = cores[worker.me % cores.len()];
                scope.spawn(move || worker.run(core))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}

struct Worker<'a> {
    shared: &'a Shared,
    me: usize,
    epoll: Epoll,
    listener: TcpListener,
    /// By descriptor: the phone that has it, if it has subscribed.
    phones: Vec<u32>,
    /// The beginnings of packets, of publishers that write much.
    partial: HashMap<RawFd, Vec<u8>>,
    /// Letters of this turn, by thread.
    out: Vec<Vec<u8>>,
    /// What the connection that is read from gets.
    replies: Vec<u8>,
}

impl Worker<'_> {
    fn run(&mut self, core: usize) -> io::Result<()> {
        if self.shared.own_tables {
            let mut keep: Vec<RawFd> = self
                .shared
                .lines
                .iter()
                .map(|line| line.bell.as_raw_fd())
                .collect();
            keep.extend([self.epoll.as_raw_fd(), self.listener.as_raw_fd()]);
            table::make_own(&keep)?;
        }
        affinity::pin(core)?;
        let (listener, bell) = (
            self.listener.as_raw_fd(),
            self.shared.lines[self.me].bell.as_raw_fd(),
        );
        let mut scratch = vec![0; SCRATCH];
        let mut events: Vec<Event> = vec![sys::NO_EVENT; EVENTS];
        loop {
            let n = self.epoll.wait(&mut events)?;
            for event in &events[..n] {
                match event.u64 as RawFd {
                    fd if fd == listener => self.accept(listener, &mut scratch)?,
                    // Edge-triggered, so its count needn't be read.
                    fd if fd == bell => self.deliver_letters(),
                    fd => self.serve(fd, &mut scratch),
                }
            }
            self.send_letters();
        }
    }

    /// One a turn, as the poller goes on telling while more wait: the second `accept4` would mostly find nobody, and to find nobody costs it
    /// two microseconds.
    fn accept(&mut self, listener: RawFd, scratch: &mut [u8]) -> io::Result<()> {
        let Some(fd) = sys::accept(listener) else {
            return Ok(());
        };
        if self.phones.len() <= fd as usize {
            self.phones.resize(fd as usize + 1, NOBODY);
        }
        match sys::read(fd, scratch) {
            Read::Bytes(n) => self.bytes(fd, &scratch[..n]),
            Read::Empty => {}
            Read::End => {
                sys::close(fd);
                return Ok(());
            }
        }
        self.epoll.add(fd, Watch::Edge)
    }

    fn serve(&mut self, fd: RawFd, scratch: &mut [u8]) {
        loop {
            match sys::read(fd, scratch) {
                Read::Bytes(n) => {
                    self.bytes(fd, &scratch[..n]);
                    // A short read has emptied the socket, and what comes now makes a new event.
                    if n < scratch.len() {
                        return;
                    }
                }
                Read::Empty => return,
                Read::End => return self.close(fd),
            }
        }
    }

    fn close(&mut self, fd: RawFd) {
        let phone = std::mem::replace(&mut self.phones[fd as usize], NOBODY);
        if let Some(home) = self.shared.homes.get(phone as usize) {
            // Unless it has come back elsewhere meanwhile.
            let _moved = home.compare_exchange(self.home(fd), 0, Relaxed, Relaxed);
        }
        self.partial.remove(&fd);
        sys::close(fd);
    }

    fn home(&self, fd: RawFd) -> u32 {
        (self.me as u32) << FD_BITS | fd as u32
    }

    fn bytes(&mut self, fd: RawFd, read: &[u8]) {
        let kept = if self.partial.is_empty() {
            None
        } else {
            self.partial.remove(&fd)
        };
        let whole = kept.map(|mut kept| {
            kept.extend_from_slice(read);
            kept
        });
        let mut bytes = whole.as_deref().unwrap_or(read);
        while let Some((packet, body)) = split(bytes) {
            self.packet(fd, packet, body);
            bytes = &bytes[packet.len()..];
        }
        if !bytes.is_empty() {
            self.partial.insert(fd, bytes.to_vec());
        }
        if !self.replies.is_empty() {
            let replies = std::mem::take(&mut self.replies);
            send(fd, &replies);
            self.replies = replies;
            self.replies.clear();
        }
    }

    fn packet(&mut self, fd: RawFd, packet: &[u8], body: &[u8]) {
        match packet[0] >> 4 {
            1 => self.replies.extend_from_slice(&CONNACK),
            3 => self.publish(packet, body),
            8 => self.subscribe(fd, body),
            12 => self.replies.extend_from_slice(&PINGRESP),
            // PUBACK asks for nothing, and after DISCONNECT comes the end.
            _ => {}
        }
    }

    /// Two filters, the phone's own first, as our phones have.
    fn subscribe(&mut self, fd: RawFd, body: &[u8]) {
        let Some((&[high, low], rest)) = body.split_first_chunk() else {
            return;
        };
        self.replies.extend_from_slice(&[0x90, 4, high, low, 1, 0]);
        let phone = topic(rest).and_then(number);
        if let Some((phone, home)) =
            phone.and_then(|phone| Some((phone, self.shared.homes.get(phone as usize)?)))
        {
            home.store(self.home(fd), Relaxed);
            self.phones[fd as usize] = phone;
        }
    }

    fn publish(&mut self, packet: &[u8], body: &[u8]) {
        let Some(topic) = topic(body) else {
            return;
        };
        if packet[0] & 6 != 0
            && let Some(&[high, low]) = body[2 + topic.len()..].first_chunk()
        {
            self.replies.extend_from_slice(&[0x40, 2, high, low]);
        }
        if topic == SHARED_TOPIC.as_bytes() {
            for thread in 0..self.out.len() {
                self.post(thread, ALL, packet);
            }
            return;
        }
        let Some(home) = number(topic).and_then(|phone| self.shared.homes.get(phone as usize))
        else {
            return;
        };
        let home = home.load(Relaxed);
        let (thread, fd) = ((home >> FD_BITS) as usize, home & ((1 << FD_BITS) - 1));
        if home == 0 {
            // It is away.
        } else if thread == self.me || !self.shared.own_tables {
            // Should the phone leave at this moment, another may get its packet: the generator would tell.
            send(fd.cast_signed(), packet);
        } else {
            self.post(thread, fd, packet);
        }
    }

    fn post(&mut self, thread: usize, fd: u32, packet: &[u8]) {
        let out = &mut self.out[thread];
        out.extend_from_slice(&fd.to_ne_bytes());
        out.extend_from_slice(&(packet.len() as u32).to_ne_bytes());
        out.extend_from_slice(packet);
    }

    /// One batch and at most one wake-up a thread; this thread's own letters come last, when the others are at work.
    fn send_letters(&mut self) {
        for (thread, line) in self.shared.lines.iter().enumerate() {
            let out = &mut self.out[thread];
            if out.is_empty() || thread == self.me {
                continue;
            }
            let mut letters = line.letters.lock().unwrap_or_else(PoisonError::into_inner);
            let was_empty = letters.is_empty();
            if was_empty {
                std::mem::swap(out, &mut letters);
            } else {
                letters.append(out);
            }
            drop(letters);
            if was_empty {
                line.bell.ring();
            }
        }
        if !self.out[self.me].is_empty() {
            let own = std::mem::take(&mut self.out[self.me]);
            self.deliver(&own);
        }
    }

    fn deliver_letters(&mut self) {
        let letters = &self.shared.lines[self.me].letters;
        let taken = std::mem::take(&mut *letters.lock().unwrap_or_else(PoisonError::into_inner));
        self.deliver(&taken);
    }

    fn deliver(&self, mut letters: &[u8]) {
        while let Some((fd, len)) = word(letters).zip(letters.get(4..).and_then(word)) {
            let (packet, rest) = letters[8..].split_at(len as usize);
            letters = rest;
            if fd != ALL {
                send(fd.cast_signed(), packet);
                continue;
            }
            for (fd, &phone) in self.phones.iter().enumerate() {
                if phone != NOBODY {
                    send((fd as u32).cast_signed(), packet);
                }
            }
        }
    }
}

/// A socket that doesn't take it all is ended: half a packet is of no use to anybody.
fn send(fd: RawFd, bytes: &[u8]) {
    if !sys::write(fd, bytes) {
        sys::shut_down(fd);
    }
}

/// The number at the start of a letter.
fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// The first packet and its body, if it is whole.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0;
    for at in 1..5 {
        let &byte = bytes.get(at)?;
        len |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let packet = bytes.get(..=at + len)?;
            return Some((packet, &packet[at + 1..]));
        }
    }
    None
}

/// A string with its length before it.
fn topic(bytes: &[u8]) -> Option<&[u8]> {
    let (&len, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(len)))
}

/// The phone's number at the end of its topic.
fn number(topic: &[u8]) -> Option<u32> {
    let digits: &[u8; 10] = topic.last_chunk()?;
    Some(digits.iter().fold(0, |number: u32, digit| {
        number
            .wrapping_mul(10)
            .wrapping_add(u32::from(digit.wrapping_sub(b'0')))
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::bench::{self, Load};
    use crate::broker::Broker;
    use crate::cli::Server;

    /// All phases of the measurement, which verifies each message, on a floor in this process.
    fn serves_the_fleet(own_tables: bool) {
        let (tell, told) = channel();
        let plan = Plan {
            listen: "127.0.0.1:0".parse().unwrap(),
            phones: 300,
            threads: 3,
            own_tables,
        };
        // It serves until the process ends.
        std::thread::spawn(move || run(plan, |addr| tell.send(addr).unwrap()));
        let server = Server {
            addr: Some(told.recv().unwrap()),
            pid: Some(std::process::id()),
            ..Server::default()
        };
        let load = Load {
            connections: 300,
            rate: 5000,
            broadcasts: 3,
            messages: 2000,
            message_rate: 10_000,
            turnovers: 1,
        };
        let broker = Broker::start(&server, load.connections).unwrap();
        let figures = bench::run(load, broker, &Arc::new(AtomicBool::new(false))).unwrap();
        assert!(figures.is_valid(), "{figures:?}");
        assert_eq!(figures.failures, 0, "{figures:?}");
        assert_eq!(figures.connections, 300);
        assert_eq!(figures.delivery.count, 900);
        assert_eq!(figures.unicast1.count, 2000);
        assert!(figures.turnover.is_some());
    }

    #[test]
    fn one_table_serves_the_fleet() {
        serves_the_fleet(false);
    }

    #[test]
    fn own_tables_serve_the_fleet() {
        serves_the_fleet(true);
    }

    #[test]
    fn packets_are_cut_out_of_what_was_read() {
        let mut bytes = vec![0x30, 0x80, 1];
        bytes.resize(3 + 128, 7);
        assert!(split(&bytes[..130]).is_none());
        bytes.push(0xC0);
        let (packet, body) = split(&bytes).unwrap();
        assert_eq!((packet.len(), body.len()), (131, 128));
        assert!(split(&[0xC0]).is_none());
        assert_eq!(number(b"push/ph0000000042"), Some(42));
        assert_eq!(number(b"all"), None);
    }
}
