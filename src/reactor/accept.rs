//! Taking connections in: accept, read the CONNECT before anything else is done, and send the connection home.
//!
//! With `TCP_DEFER_ACCEPT` the CONNECT is nearly always there at accept. Then a connection whose home is elsewhere costs this reactor an
//! accept and a read; one that is at home is watched at once. Who sends no CONNECT waits in a slot, with a deadline.

use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Reactor;
use super::admit::{self, As};
use super::appetite::Appetite;
use super::handover::{Arrival, Letter, Passage};
use super::slots::Flags;
use super::token;
use crate::access::{Identity, Question};
use crate::ids::{ConnId, ReactorId};
use crate::limits;
use crate::routing::greet::refusal;
use crate::routing::port::CloseCause;
use crate::routing::{Greeting, greet};
use crate::sys;
use crate::transport::tcp::{self, Reading};
use crate::wire::{Connect, ReasonCode, Version};

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket, watched by level: see [`crate::sys::watch`].
    pub socket: mio::net::TcpListener,
    /// Connections wait.
    pub ready: bool,
    /// How many of them to take.
    pub appetite: Appetite,
}

/// When accepting stands still.
#[derive(Debug, Default)]
pub struct Pause {
    until: Option<Instant>,
    logged: Option<Instant>,
}

/// How often a lack of file descriptors is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What becomes of a connection that has just been accepted.
#[allow(clippy::large_enum_variant, reason = "lives on the stack for one call")]
pub(super) enum Next<'a> {
    /// It waits for the rest of its CONNECT.
    Wait,
    /// It is at home here: what it asks for, the bytes of that, and as whom it comes in.
    Stay(Connect<'a>, usize, As),
    /// Its home is elsewhere.
    Go(ReactorId, Version, As),
    /// The gate is to say whether it may come in.
    Ask(Question),
    /// It is closed after these words.
    Refuse(Vec<u8>),
}

impl Reactor {
    /// Accept from each listener that is ready, a bounded number. If more wait, the poller says so again.
    pub(super) fn accept(&mut self) {
        if let Some(until) = self.pause.until {
            if Instant::now() < until {
                return;
            }
            self.pause.until = None;
            self.watch_listeners(true);
        }
        for index in 0..self.listeners.len() {
            let listener = &mut self.listeners[index];
            if !std::mem::take(&mut listener.ready) {
                continue;
            }
            let tries = listener.appetite.whet(self.turns, limits::ACCEPTS_PER_TURN);
            for _ in 0..tries {
                match self.listeners[index].socket.accept() {
                    Ok((socket, address)) => {
                        self.accepted(TcpStream::from(OwnedFd::from(socket)), address.ip());
                    }
                    Err(error) => {
                        self.not_accepted(index, &error);
                        break;
                    }
                }
            }
            if self.pause.until.is_some() {
                return;
            }
        }
    }

    /// Have the poller tell of connections that wait, or not.
    fn watch_listeners(&self, on: bool) {
        for (index, listener) in self.listeners.iter().enumerate() {
            let fd = listener.socket.as_raw_fd();
            if let Err(error) = sys::watch::set(&self.poll, fd, token::listener(index), on) {
                tracing::warn!(reactor = self.me.0, %error, "a listener can't be watched");
            }
        }
    }

    /// How long accepting still stands still.
    pub(super) fn accept_resumes_in(&self) -> Option<Duration> {
        self.pause
            .until
            .map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn not_accepted(&mut self, index: usize, error: &std::io::Error) {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                // The connection stays in the kernel's queue, so trying at once would only spin.
                let now = Instant::now();
                self.pause.until = Some(now + Duration::from_millis(limits::ACCEPT_PAUSE_MILLIS));
                self.watch_listeners(false);
                self.io.connections.counters().accept_pauses.add(1);
                if self.pause.logged.is_none_or(|at| now - at >= LOG_INTERVAL) {
                    self.pause.logged = Some(now);
                    tracing::warn!(reactor = self.me.0, %error, "accepting stands still: raise the limit of open files or the number of reactors");
                }
            }
            // All are in.
            _ if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.listeners[index].appetite.still();
            }
            // A connection that broke before it was accepted (accept(2), ECONNABORTED and network errors): the next one.
            _ => {}
        }
    }

    fn accepted(&mut self, socket: TcpStream, address: IpAddr) {
        self.io.connections.counters().accepted.add(1);
        let mut buffer = std::mem::take(&mut self.buffer);
        let bytes = match tcp::read(&socket, &mut buffer) {
            Reading::Bytes(n) => &buffer[..n],
            Reading::Empty => &[],
            Reading::End | Reading::Broken => {
                self.io.connections.counters().refused.add(1);
                self.buffer = buffer;
                return;
            }
        };
        self.io
            .connections
            .counters()
            .bytes_in
            .add(bytes.len() as u64);
        // Should there be more to read than was read, the poller tells so as soon as it watches the socket.
        match self.next(bytes, || Some(address)) {
            Next::Refuse(words) => self.turn_away(&socket, &words),
            Next::Go(home, version, identity) => {
                let identity = admit::encode(identity.as_deref());
                let len = identity.len() + bytes.len();
                if self.has_way(home, len) && self.seats.enter(home).is_ok() {
                    self.depart(home, socket, &identity, bytes);
                } else {
                    self.turn_away(&socket, &refusal(version, ReasonCode::QUOTA_EXCEEDED));
                }
            }
            Next::Stay(connect, len, identity) if self.seats.enter(self.me).is_ok() => {
                self.shard.expect_client(connect.client_id);
                if let Some(conn) = self.io.connections.add(socket) {
                    self.admit(conn, &connect, identity.as_deref(), &bytes[len..]);
                }
            }
            Next::Ask(question) if self.seats.enter(self.me).is_ok() => {
                if let Some(conn) = self.io.connections.add(socket) {
                    self.io.connections.await_connect(conn);
                    self.keep_greeting(conn, bytes.to_vec());
                    self.ask(conn, question);
                }
            }
            Next::Wait if self.seats.enter(self.me).is_ok() => {
                if let Some(conn) = self.io.connections.add(socket) {
                    self.io.connections.await_connect(conn);
                    self.keep_greeting(conn, bytes.to_vec());
                }
            }
            Next::Stay(Connect { version, .. }, ..) => {
                self.turn_away(&socket, &refusal(version, ReasonCode::QUOTA_EXCEEDED));
            }
            Next::Wait | Next::Ask(_) => self.turn_away(&socket, &[]),
        }
        self.buffer = buffer;
    }

    /// More bytes of a connection that waits for its CONNECT.
    pub(super) fn serve_greeting(&mut self, conn: ConnId) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let connections = &mut self.io.connections;
        let mut kept = connections.take_greeting(conn);
        let Some(slot) = connections.slots.get_mut(conn) else {
            self.buffer = buffer;
            return;
        };
        let reading = tcp::read(&slot.socket, &mut buffer);
        let ended = slot.flags.has(Flags::ENDED);
        if let Reading::Bytes(n) = reading {
            slot.flags.put(Flags::READABLE, n == buffer.len());
            kept.extend_from_slice(&buffer[..n]);
            connections.counters().bytes_in.add(n as u64);
        }
        self.buffer = buffer;
        match reading {
            Reading::Bytes(_) => {}
            Reading::Empty => {
                self.keep_greeting(conn, kept);
                return;
            }
            Reading::End | Reading::Broken => {
                self.io.connections.drop_lost(conn, CloseCause::Refused);
                return;
            }
        }
        let slot = self.io.connections.slots.get(conn);
        let address = slot.and_then(|slot| slot.socket.peer_addr().ok());
        match self.next(&kept, || Some(address?.ip())) {
            Next::Wait if ended => self.io.connections.drop_lost(conn, CloseCause::Refused),
            Next::Wait => self.keep_greeting(conn, kept),
            Next::Ask(question) => {
                self.keep_greeting(conn, kept);
                self.ask(conn, question);
            }
            next => self.go_on(conn, next, &kept),
        }
    }

    /// A connection that had to wait, with what was read from it, goes on.
    pub(super) fn go_on(&mut self, conn: ConnId, next: Next<'_>, kept: &[u8]) {
        match next {
            Next::Wait | Next::Ask(_) => {}
            Next::Stay(connect, len, identity) => {
                let more = self
                    .io
                    .connections
                    .slots
                    .get(conn)
                    .is_some_and(|slot| slot.flags.any(Flags::READABLE.and(Flags::ENDED)));
                self.admit(conn, &connect, identity.as_deref(), &kept[len..]);
                if more {
                    self.io.connections.serve_later(conn);
                }
            }
            Next::Refuse(words) => self.refuse(conn, &words),
            Next::Go(home, version, identity) => {
                let identity = admit::encode(identity.as_deref());
                match self.reserve(home, identity.len() + kept.len()) {
                    Ok(()) => {
                        if let Some(socket) = self.io.connections.release(conn) {
                            self.depart(home, socket, &identity, kept);
                        }
                    }
                    Err(()) => self.refuse(conn, &refusal(version, ReasonCode::QUOTA_EXCEEDED)),
                }
            }
        }
    }

    fn keep_greeting(&mut self, conn: ConnId, kept: Vec<u8>) {
        if !self.io.connections.keep_greeting(conn, kept) {
            self.io.connections.drop_lost(conn, CloseCause::Refused);
            return;
        }
        let slot = self.io.connections.slots.get(conn);
        if slot.is_some_and(|slot| slot.flags.has(Flags::READABLE)) {
            self.io.connections.serve_later(conn);
        }
    }

    fn refuse(&mut self, conn: ConnId, words: &[u8]) {
        use crate::routing::port::Port;
        self.io.send(conn, words);
        self.io.connections.begin_close(conn, CloseCause::Refused);
    }

    /// What the first bytes ask for, and whether they get it.
    fn next<'a>(&self, bytes: &'a [u8], address: impl FnOnce() -> Option<IpAddr>) -> Next<'a> {
        match greet(bytes, self.largest_connect()) {
            Greeting::Incomplete => Next::Wait,
            Greeting::Refuse(words) => Next::Refuse(words),
            Greeting::Connect { connect, len } => self.rule(connect, len, address),
        }
    }

    /// Take a seat at a home, in exchange for the one here.
    fn reserve(&self, home: ReactorId, bytes: usize) -> Result<(), ()> {
        if !self.has_way(home, bytes) {
            return Err(());
        }
        self.seats.change(self.me, home).map_err(|_| ())
    }

    fn depart(&mut self, home: ReactorId, socket: TcpStream, identity: &[u8], bytes: &[u8]) {
        self.io.connections.counters().handed_over.add(1);
        if self.goes_by_mail(identity.len() + bytes.len()) {
            let bytes = [identity, bytes].concat().into();
            let socket = if self.lines.common_table {
                Passage::Common(socket)
            } else {
                Passage::Lent(self.lending.lend(socket))
            };
            let letter = Letter::Arrival(Arrival { socket, bytes });
            self.io.post.post(home, letter);
        } else {
            self.departures.add(home, socket, identity, bytes);
        }
    }

    /// Whether a connection is handed over as a letter, and not through a socket pair.
    fn goes_by_mail(&self, bytes: usize) -> bool {
        (self.lines.common_table || self.lending.has_room())
            && bytes <= limits::ARRIVAL_LETTER_BYTES
    }

    /// Whether a connection of which so much was read can be handed over now.
    fn has_way(&self, home: ReactorId, bytes: usize) -> bool {
        if self.goes_by_mail(bytes) {
            self.io.post.has_room(home)
        } else {
            self.departures.has_room(home)
        }
    }

    /// The socket of a connection that has come by mail. None: it is lost.
    pub(super) fn land(&mut self, passage: Passage) -> Option<TcpStream> {
        match passage {
            Passage::Common(socket) => Some(socket),
            Passage::Lent(loan) => match self.lending.take(&loan) {
                Ok(socket) => Some(socket),
                Err(error) => {
                    tracing::debug!(reactor = self.me.0, %error, "a socket on loan can't be taken");
                    self.lost_arrivals(1);
                    None
                }
            },
        }
    }

    /// A connection that another reactor accepted and let in, and whose home is here: as whom, a whole CONNECT, and what came with it, stand in
    /// `bytes`.
    pub(super) fn arrived(&mut self, socket: TcpStream, bytes: &[u8]) {
        let (identity, bytes) = match bytes.split_first() {
            Some((&admit::NOBODY, bytes)) => (None, bytes),
            _ => match Identity::decode_from(bytes) {
                Some((identity, bytes)) => (Some(identity), bytes),
                None => (None, &[][..]),
            },
        };
        let Greeting::Connect { connect, len } = greet(bytes, self.largest_connect()) else {
            // It was one where it was accepted; the same bytes are one here.
            debug_assert!(false, "a connection was handed over without its CONNECT");
            self.seats.leave(self.me);
            return;
        };
        self.shard.expect_client(connect.client_id);
        if let Some(conn) = self.io.connections.add(socket) {
            self.admit(conn, &connect, identity.as_ref(), &bytes[len..]);
        }
    }

    /// Close a connection that has no slot, after a word if there is one. What such a word takes always fits an empty socket.
    fn turn_away(&self, socket: &TcpStream, words: &[u8]) {
        let counters = self.io.connections.counters();
        counters.refused.add(1);
        if !words.is_empty()
            && let tcp::Writing::Taken(n) = tcp::write(socket, words)
        {
            counters.bytes_out.add(n as u64);
        }
    }

    /// Connections that came through the socket pair. If more wait, the poller says so again.
    pub(super) fn arrive(&mut self) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let tries = self
            .arrivals_appetite
            .whet(self.turns, limits::HANDOVERS_PER_TURN);
        let mut taken = 0;
        for _ in 0..tries {
            if taken >= limits::ARRIVALS_PER_TURN {
                break;
            }
            match arrivals.receive(&self.lines.receivers[self.me.index()]) {
                Ok(Some(batch)) => {
                    taken += batch.connections.len();
                    for (socket, range) in batch.connections {
                        self.arrived(socket, arrivals.bytes(range));
                    }
                    if batch.lost > 0 {
                        self.lost_arrivals(batch.lost);
                    }
                }
                Ok(None) => {
                    self.arrivals_appetite.still();
                    break;
                }
                Err(error) => {
                    tracing::error!(reactor = self.me.0, %error, "handed-over connections can't be received");
                    break;
                }
            }
        }
        self.arrivals = arrivals;
    }

    fn lost_arrivals(&self, lost: usize) {
        (0..lost).for_each(|_| self.seats.leave(self.me));
        let counters = self.io.connections.counters();
        counters.handover_lost.add(lost as u64);
        tracing::error!(
            reactor = self.me.0,
            lost,
            "handed-over connections were lost, as no file descriptor was left: lower max_connections or raise the limit of open files"
        );
    }

    /// Send off what was handed over in this turn. True: some waits for its home.
    pub(super) fn send_departures(&mut self) -> bool {
        let (seats, me, counters) = (&self.seats, self.me, self.io.connections.counters());
        self.departures.flush(|undelivered, error| {
            (0..undelivered.sockets).for_each(|_| seats.leave(undelivered.home));
            counters.handover_lost.add(undelivered.sockets as u64);
            tracing::error!(reactor = me.0, home = undelivered.home.0, %error, lost = undelivered.sockets, "connections can't be handed over");
        })
    }

    /// The largest CONNECT that is taken.
    pub(super) fn largest_connect(&self) -> u32 {
        self.io
            .connections
            .mqtt()
            .max_connect_size
            .min(limits::LARGEST_CONNECT)
    }
}
