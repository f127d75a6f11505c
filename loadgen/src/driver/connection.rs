//! A phone's connection: calling, reading, writing, hanging up. What the packets mean is in `delivery`.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use socket2::{Domain, Protocol, Socket, Type};
use stillwire::sys::socket::{receive, send};
use stillwire::wire::frame;

use super::{Driver, IN_FLIGHT_MILLIS};
use crate::clock::{self, MILLI, SECOND};
use crate::phone::{Spill, Stage};
use crate::stats::{Count, Failure, Latencies};

/// The kind of a failed system call.
fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted => Failure::Reset,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Failure::NoPort,
        io::ErrorKind::TimedOut => Failure::Timeout,
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Failure::NoFile,
        _ => Failure::Other,
    }
}

impl Driver {
    /// Begins a connection to that address, planned for that moment.
    pub(super) fn dial(&mut self, at: u32, target: SocketAddr, planned: u64) {
        self.tally.count(Count::Attempts);
        let number = self.number(at);
        let phone = &mut self.phones[at as usize];
        phone.since = planned;
        phone.generation = phone.generation.wrapping_add(1);
        phone.pinged = None;
        phone.stage = Stage::Away;
        self.dialled.push_back(super::Dialled {
            when: clock::now(),
            at,
            generation: phone.generation,
        });
        match call(target, self.shared.plan.sources.towards(target, number)) {
            Ok(stream) => {
                phone.stream = Some(stream);
                phone.stage = Stage::Calling;
            }
            Err(error) => return self.fail(at, failure(&error), clock::now()),
        }
        // On loopback the handshake is over by now, which saves an event. Elsewhere the socket tells when it is writable.
        let interest = match self.greet(at) {
            Ok(true) => Interest::READABLE,
            Ok(false) => Interest::READABLE | Interest::WRITABLE,
            Err(error) => return self.fail(at, failure(&error), clock::now()),
        };
        let token = self.token(at);
        let Some(stream) = &self.phones[at as usize].stream else {
            return;
        };
        if let Err(error) =
            self.poll
                .registry()
                .register(&mut SourceFd(&stream.as_raw_fd()), token, interest)
        {
            self.fail(at, failure(&error), clock::now());
        }
    }

    /// Sends CONNECT. False: the TCP handshake isn't over.
    fn greet(&mut self, at: u32) -> io::Result<bool> {
        self.out.clear();
        let name = self.name(at);
        let token = self
            .finding
            .as_ref()
            .and_then(|finding| finding.credentials(at, clock::now()));
        self.shared.plan.script.connect(&name, token, &mut self.out);
        let phone = &mut self.phones[at as usize];
        let Some(stream) = &phone.stream else {
            return Ok(false);
        };
        match send(stream.as_fd(), &self.out) {
            Ok(n) if n == self.out.len() => {
                phone.stage = Stage::Greeting;
                Ok(true)
            }
            // A new connection takes the first kilobytes whole.
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    || error.kind() == io::ErrorKind::NotConnected =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Something happened to the connection that the token names, if that is still the phone's.
    pub(super) fn event(
        &mut self,
        token: Token,
        readable: bool,
        writable: bool,
        closed: bool,
        latency: &mut Latencies,
    ) {
        if super::finding::is_desk(token) {
            return self.desk_event(token, latency);
        }
        let at = token.0 as u32;
        if closed && token != self.token(at) {
            self.behind_closed(token);
        }
        if token != self.token(at) || self.phones[at as usize].stream.is_none() {
            return;
        }
        if writable && !self.writable(at) {
            return;
        }
        if readable && self.phones[at as usize].stream.is_some() {
            self.readable(at, latency);
        }
    }

    /// False: the connection is gone.
    fn writable(&mut self, at: u32) -> bool {
        if self.phones[at as usize].stage == Stage::Calling
            && let Err(error) = self.greet(at)
        {
            self.fail(at, failure(&error), clock::now());
            return false;
        }
        if self.phones[at as usize].spill.is_some() {
            self.out.clear();
            return self.send_out(at, clock::now());
        }
        true
    }

    /// Reads until the socket is empty (edge-triggered: it won't tell again).
    fn readable(&mut self, at: u32, latency: &mut Latencies) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(stream) = &self.phones[at as usize].stream {
            let n = match receive(stream.as_fd(), &mut scratch) {
                Ok(0) => {
                    self.fail(at, Failure::Closed, clock::now());
                    break;
                }
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.fail(at, failure(&error), clock::now());
                    break;
                }
            };
            let now = clock::now();
            if let Err(failure) = self.bytes(at, &scratch[..n], now, latency) {
                self.fail(at, failure, now);
                break;
            }
            // A short read of a stream socket means that it is empty (epoll(7)), and what comes now makes a new event.
            if n < scratch.len() {
                break;
            }
        }
        self.scratch = scratch;
    }

    /// Takes the packets out of what was read, after what the last event left over.
    fn bytes(
        &mut self,
        at: u32,
        read: &[u8],
        now: u64,
        latency: &mut Latencies,
    ) -> Result<(), Failure> {
        let spill = &mut self.phones[at as usize].spill;
        let Some(older) = spill.as_mut().filter(|spill| !spill.input.is_empty()) else {
            let left = self.packets(at, read, now, latency)?;
            if !left.is_empty() {
                self.phones[at as usize]
                    .spill
                    .get_or_insert_default()
                    .input
                    .extend_from_slice(left);
            }
            return Ok(());
        };
        let mut whole = std::mem::take(&mut older.input);
        whole.extend_from_slice(read);
        let left = self.packets(at, &whole, now, latency)?.len();
        whole.drain(..whole.len() - left);
        self.set_input(at, whole);
        Ok(())
    }

    fn set_input(&mut self, at: u32, input: Vec<u8>) {
        let spill = &mut self.phones[at as usize].spill;
        if let Some(present) = spill {
            present.input = input;
            if present.is_empty() {
                *spill = None;
            }
        }
    }

    /// Returns what is left: the beginning of a packet, or nothing.
    fn packets<'b>(
        &mut self,
        at: u32,
        mut bytes: &'b [u8],
        now: u64,
        latency: &mut Latencies,
    ) -> Result<&'b [u8], Failure> {
        self.out.clear();
        while let Some(packet) = frame::split(bytes, u32::MAX).map_err(|_| Failure::Protocol)? {
            self.packet(at, &packet, now, latency)?;
            bytes = &bytes[packet.len..];
        }
        if !self.out.is_empty() {
            self.send_out(at, now);
        }
        Ok(bytes)
    }

    /// Writes `self.out` after what is waiting. False: the connection is gone.
    pub(super) fn send_out(&mut self, at: u32, now: u64) -> bool {
        let phone = &mut self.phones[at as usize];
        let Some(stream) = &phone.stream else {
            return false;
        };
        if let Some(spill) = &mut phone.spill
            && !spill.output.is_empty()
        {
            spill.output.extend_from_slice(&self.out);
            let result = send(stream.as_fd(), &spill.output);
            return match result {
                Ok(n) => {
                    spill.output.drain(..n);
                    if spill.is_empty() {
                        phone.spill = None;
                    }
                    true
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(error) => {
                    self.fail(at, failure(&error), now);
                    false
                }
            };
        }
        let written = match send(stream.as_fd(), &self.out) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                self.fail(at, failure(&error), now);
                return false;
            }
        };
        if written < self.out.len() {
            let spill: &mut Box<Spill> = phone.spill.get_or_insert_default();
            spill.output.extend_from_slice(&self.out[written..]);
            let fd = stream.as_raw_fd();
            let token = self.token(at);
            // Seldom: it may be registered for writing already, which does no harm.
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = self
                .poll
                .registry()
                .reregister(&mut SourceFd(&fd), token, interest)
            {
                self.fail(at, failure(&error), now);
                return false;
            }
        }
        true
    }

    /// The scenario ends the connection.
    pub(super) fn hang_up(&mut self, at: u32, clean: bool, now: u64) {
        if clean {
            self.out.clear();
            self.shared.plan.script.disconnect(&mut self.out);
            self.send_out(at, now);
        }
        if self.phones[at as usize].stream.is_some() {
            self.tally.count(Count::HungUp);
            self.leave(at, now);
        }
    }

    /// The connection failed, or ended against the plan: counted by kind, and tried again after a back-off with full jitter.
    pub(super) fn fail(&mut self, at: u32, failure: Failure, now: u64) {
        self.tally.fail(failure);
        let was_ready = self.phones[at as usize].stage == Stage::Ready;
        self.leave(at, now);
        let phone = &mut self.phones[at as usize];
        phone.failures = phone.failures.saturating_add(1);
        if let Some(finding) = &mut self.finding {
            finding.lost(at, was_ready);
        }
        if let Some(gate) = &mut self.gate
            && was_ready
        {
            gate.lost(now);
        }
        let failures = phone.failures;
        if self.shared.plan.retry {
            let back = now + self.back_off(at, failures);
            self.come_back(at, back);
        }
    }

    /// How long to wait after so many failures in a row: the longest time doubles with each, with full jitter.
    pub(super) fn back_off(&mut self, at: u32, failures: u8) -> u64 {
        let (least, first, longest) = self.finding.as_ref().map_or(
            (
                100 * MILLI,
                SECOND,
                clock::nanos(self.churn.order.shape.longest_backoff),
            ),
            |finding| finding.retry(at),
        );
        let most = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        least + self.rng.u64(0..=most.min(longest))
    }

    pub(super) fn leave(&mut self, at: u32, now: u64) {
        let number = self.number(at);
        let phone = &self.phones[at as usize];
        if phone.stage == Stage::Ready {
            self.tally.count(Count::Unreadied);
            let ledger = &self.shared.ledger;
            // A session that is kept goes on being owed what it wasn't given.
            let unicast1 = if self.shared.plan.script.persistent {
                0
            } else {
                phone
                    .unicast1
                    .owed(ledger.unicast1(number), phone.unicast1_floor)
            };
            let owed = [
                (unicast1, ledger.unicast1_age(number, now)),
                (
                    phone
                        .unicast0
                        .owed(ledger.unicast0(number), phone.unicast0_floor),
                    ledger.unicast0_age(number, now),
                ),
                (self.broadcasts_owed(at), ledger.broadcast_age(now)),
            ];
            for (owed, age) in owed {
                let fate = if age < IN_FLIGHT_MILLIS {
                    Count::Excused
                } else {
                    Count::Gaps
                };
                self.tally.add(fate, u64::from(owed));
            }
        }
        let phone = &mut self.phones[at as usize];
        phone.stage = Stage::Away;
        phone.spill = None;
        if let Some(stream) = phone.stream.take() {
            super::leaving::reset(stream);
        }
    }
}

/// A socket whose handshake has begun.
fn call(target: SocketAddr, source: Option<std::net::IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    // A phone that pings and acknowledges within a round trip would wait with the second packet.
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        crate::sys::bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
