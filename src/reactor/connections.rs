//! A reactor's connections and what a shard may do with them: the [`Port`] over real sockets.
//!
//! Everything a shard asks for is noted here and carried out by the turn: packets wait in the outbox, closes and losses in lists. So a call
//! from the shard never comes back into the shard.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::handover::Letter;
use super::mailbox::Post;
use super::outbox::Outbox;
use super::seats::Seats;
use super::slots::{Flags, Slots, State};
use super::token;
use crate::clock::{Millis, Tick};
use crate::config::resolved::Mqtt;
use crate::counters::Counters;
use crate::ids::{ConnId, ReactorId};
use crate::limits;
use crate::routing::Shared;
use crate::routing::mail::Mail;
use crate::routing::port::{CloseCause, Port};
use crate::wheel::Wheel;

/// See the module.
#[derive(Debug)]
pub struct Connections {
    me: ReactorId,
    pub(super) shared: Arc<Shared>,
    seats: Arc<Seats>,
    pub(super) registry: Registry,
    /// The slots; by the turn they are read from and attached.
    pub slots: Slots,
    wheel: Wheel,
    /// The moment of this turn.
    pub(super) now: Millis,
    pub(super) outbox: Outbox,
    /// Bytes of unfinished CONNECTs, against their bound.
    greeting_bytes: usize,
    /// Those to be served without an event: a full read buffer, a bound reached, a pause that ended.
    leftovers: VecDeque<ConnId>,
    /// Those that the shard closed, or nearly so; each goes once its output is written.
    closing: VecDeque<(ConnId, CloseCause)>,
    /// Those that turned out to be broken or deaf, to be reported to the shard.
    lost: VecDeque<(ConnId, CloseCause)>,
    /// Those whose backlog fell under half of its limit, to be reported to the shard.
    pub(super) drained: Vec<ConnId>,
    log: bool,
}

impl Connections {
    /// Lets go of the memory of connections that have gone.
    pub fn give_back(&mut self) {
        self.slots.give_back();
        self.outbox.give_back();
        self.leftovers.shrink_to_fit();
        self.closing.shrink_to_fit();
        self.lost.shrink_to_fit();
        self.drained.shrink_to_fit();
    }

    /// Without any connection.
    pub fn new(
        me: ReactorId,
        shared: Arc<Shared>,
        seats: Arc<Seats>,
        registry: Registry,
        log: bool,
        now: Millis,
    ) -> Self {
        Self {
            me,
            slots: Slots::new(seats.each() as usize),
            wheel: Wheel::new(limits::SLOT_WHEEL_BUCKETS, now.tick()),
            shared,
            seats,
            registry,
            now,
            outbox: Outbox::default(),
            greeting_bytes: 0,
            leftovers: VecDeque::new(),
            closing: VecDeque::new(),
            lost: VecDeque::new(),
            drained: Vec::new(),
            log,
        }
    }

    /// This reactor's counters.
    pub fn counters(&self) -> &Counters {
        self.shared.counters.of(self.me)
    }

    /// The protocol's limits.
    pub fn mqtt(&self) -> &Mqtt {
        &self.shared.mqtt
    }

    /// A turn begins.
    pub fn set_now(&mut self, now: Millis) {
        self.now = now;
    }

    /// Take a socket in whose seat is taken, and watch it. None: it was closed. Whoever has no whole CONNECT from it sets a deadline for that
    /// ([`Connections::await_connect`]); one that is admitted at once needs none.
    pub fn add(&mut self, socket: TcpStream) -> Option<ConnId> {
        let fd = socket.as_raw_fd();
        let Ok(conn) = self.slots.insert(socket, self.now.tick()) else {
            // The seats are as many as the slots, so this takes a broken count.
            debug_assert!(false, "a seat without a slot");
            self.seats.leave(self.me);
            return None;
        };
        self.counters().connections.set(self.slots.len() as u64);
        if let Err(error) =
            self.registry
                .register(&mut SourceFd(&fd), token::of(conn), Interest::READABLE)
        {
            // Out of kernel memory or of the user's epoll watches.
            tracing::warn!(reactor = self.me.0, %error, "a connection can't be watched and is closed");
            self.counters().refused.add(1);
            self.free(conn);
            return None;
        }
        Some(conn)
    }

    /// Its CONNECT has to be whole within `connect_timeout`.
    pub fn await_connect(&mut self, conn: ConnId) {
        let wait = u64::from(self.mqtt().connect_timeout) * 1000;
        let due = self.now.tick().after_millis(wait);
        self.wheel.schedule(&mut self.slots, conn.slot, due);
    }

    /// The connection has a session from now on.
    pub fn attach(&mut self, conn: ConnId, attached: crate::routing::Attached) {
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        if slot.state == State::Greeting {
            slot.state = State::Attached;
            slot.session = attached.session;
            slot.keep_alive = attached.keep_alive;
            self.arm(conn);
        }
    }

    /// Forget a connection that has no session, but not its socket: it goes to another reactor, which has its seat already.
    pub fn release(&mut self, conn: ConnId) -> Option<TcpStream> {
        self.wheel.cancel(&mut self.slots, conn.slot);
        let slot = self.slots.remove(conn)?;
        self.counters().connections.set(self.slots.len() as u64);
        // The socket lives on elsewhere, so closing our copy would not take it from our poller.
        if let Err(error) = self
            .registry
            .deregister(&mut SourceFd(&slot.socket.as_raw_fd()))
        {
            tracing::warn!(reactor = self.me.0, %error, "a connection that moves is still watched");
        }
        Some(slot.socket)
    }

    /// Keep the first bytes of a CONNECT. False: too many keep theirs already.
    pub fn keep_greeting(&mut self, conn: ConnId, bytes: Vec<u8>) -> bool {
        let Some(slot) = self.slots.get_mut(conn) else {
            return true;
        };
        debug_assert_eq!(slot.state, State::Greeting);
        if self.greeting_bytes + bytes.len() > limits::GREETING_BYTES {
            return false;
        }
        if !bytes.is_empty() {
            self.greeting_bytes += bytes.len();
            slot.pending_mut().input = bytes;
        }
        true
    }

    /// Take out the first bytes of a CONNECT; none of a connection that has a session.
    pub fn take_greeting(&mut self, conn: ConnId) -> Vec<u8> {
        match self.slots.get_mut(conn) {
            Some(slot) if slot.state == State::Greeting => {
                let bytes = slot.take_input();
                self.greeting_bytes -= bytes.len();
                bytes
            }
            _ => Vec::new(),
        }
    }

    /// Close at once and forget.
    pub fn free(&mut self, conn: ConnId) {
        if self.slots.get(conn).is_none() {
            return;
        }
        drop(self.take_greeting(conn));
        self.wheel.cancel(&mut self.slots, conn.slot);
        drop(self.slots.remove(conn));
        self.seats.leave(self.me);
        let counters = self.counters();
        counters.connections.set(self.slots.len() as u64);
        counters.closed.add(1);
    }

    /// Close once everything queued is written. The shard knows of it, or never knew of the connection.
    pub fn begin_close(&mut self, conn: ConnId, cause: CloseCause) {
        drop(self.take_greeting(conn));
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        if matches!(slot.state, State::Closing | State::Lingering) {
            return;
        }
        slot.state = State::Closing;
        slot.flags.put(Flags::UNHANDLED, false);
        drop(slot.take_input());
        self.count_cause(conn, cause);
        self.closing.push_back((conn, cause));
    }

    /// Note that a connection is broken or deaf; the shard hears of it between other calls.
    pub fn lose(&mut self, conn: ConnId, cause: CloseCause) {
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        if !slot.flags.has(Flags::BROKEN) {
            slot.flags.put(
                Flags::BROKEN,
                cause == CloseCause::PeerGone || cause == CloseCause::SlowReader,
            );
            self.lost.push_back((conn, cause));
        }
    }

    /// The next connection that is lost.
    pub fn next_lost(&mut self) -> Option<(ConnId, CloseCause)> {
        self.lost.pop_front()
    }

    /// The connections whose queue may go on.
    pub fn take_drained(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.drained)
    }

    /// Serve a connection next turn without waiting for an event.
    pub fn serve_later(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(conn)
            && !slot.flags.has(Flags::QUEUED)
        {
            slot.flags.put(Flags::QUEUED, true);
            self.leftovers.push_back(conn);
        }
    }

    /// The next connection to be served without an event.
    pub fn next_leftover(&mut self) -> Option<ConnId> {
        let conn = self.leftovers.pop_front()?;
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.flags.put(Flags::QUEUED, false);
        }
        Some(conn)
    }

    /// How many are to be served without an event.
    pub fn leftovers(&self) -> usize {
        self.leftovers.len()
    }

    /// Whether the next turn has something to do without an event, where `crowded` says that packets wait.
    pub fn has_work(&self, crowded: bool) -> bool {
        !((crowded || self.leftovers.is_empty())
            && self.closing.is_empty()
            && self.lost.is_empty()
            && self.drained.is_empty())
    }

    /// Close what the shard let go of and what is written. True: there are more than one turn closes.
    pub fn close_finished(&mut self) -> bool {
        for _ in 0..self.closing.len().min(limits::CLOSES_PER_TURN) {
            let Some((conn, cause)) = self.closing.pop_front() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(conn) else {
                continue;
            };
            if slot.flags.has(Flags::BROKEN) {
                self.free(conn);
                continue;
            }
            let linger = matches!(
                cause,
                CloseCause::Refused
                    | CloseCause::Protocol
                    | CloseCause::TakenOver
                    | CloseCause::Quota
                    | CloseCause::SlowReader
            );
            if slot.unwritten() > 0 {
                self.arm(conn);
            } else if linger {
                self.linger(conn);
            } else {
                self.free(conn);
            }
        }
        !self.closing.is_empty()
    }

    /// Tell the peer that nothing more comes, and wait a little for it to have read that.
    pub(super) fn linger(&mut self, conn: ConnId) {
        let due = self.now.tick().after_millis(limits::LINGER_MILLIS);
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        if slot.flags.has(Flags::ENDED) || slot.socket.shutdown(std::net::Shutdown::Write).is_err()
        {
            self.free(conn);
            return;
        }
        slot.state = State::Lingering;
        slot.pending = None;
        self.wheel.schedule(&mut self.slots, conn.slot, due);
        // What it has sent in the meantime is read and forgotten.
        self.serve_later(conn);
    }

    /// The connections whose time has come; each is to be judged by [`Connections::overdue`]. True: there are more.
    pub fn expire(&mut self, due: &mut Vec<u32>) -> bool {
        self.wheel.expire(
            &mut self.slots,
            self.now.tick(),
            limits::TIMERS_PER_TURN,
            due,
        )
    }

    /// A connection's timer fired: what is to become of it. None: it had more time than the timer knew, which is set anew.
    pub fn overdue(&mut self, index: u32) -> Option<(ConnId, CloseCause)> {
        let conn = self.slots.conn_at(index)?;
        let now = self.now.tick();
        let write_deadline = self.write_deadline(conn);
        let slot = self.slots.get_mut(conn)?;
        if slot.flags.any(Flags::PAUSED.and(Flags::QUEUED)) {
            // It is not its fault that nothing was read.
            slot.last_seen = now;
        }
        match slot.state {
            State::Greeting => Some((conn, CloseCause::ConnectTimeout)),
            // These have been counted, and the shard knows.
            State::Lingering => {
                self.free(conn);
                None
            }
            State::Closing if write_deadline.is_none_or(|at| at <= now) => {
                self.free(conn);
                None
            }
            State::Attached if write_deadline.is_some_and(|at| at <= now) => {
                Some((conn, CloseCause::SlowReader))
            }
            State::Attached
                if keep_alive_deadline(slot.last_seen, slot.keep_alive)
                    .is_some_and(|at| at <= now) =>
            {
                Some((conn, CloseCause::KeepAlive))
            }
            State::Attached | State::Closing => {
                self.arm(conn);
                None
            }
        }
    }

    /// Set the timer of a connection to the next of its deadlines. Reading only notes the time, so the timer may fire early and is set anew.
    pub(super) fn arm(&mut self, conn: ConnId) {
        let write = self.write_deadline(conn);
        let Some(slot) = self.slots.get(conn) else {
            return;
        };
        let keep_alive = match slot.state {
            State::Attached => keep_alive_deadline(slot.last_seen, slot.keep_alive),
            _ => None,
        };
        match write.into_iter().chain(keep_alive).min() {
            Some(due) => self.wheel.schedule(&mut self.slots, conn.slot, due),
            None => self.wheel.cancel(&mut self.slots, conn.slot),
        }
    }

    /// When its backlog must have moved.
    fn write_deadline(&self, conn: ConnId) -> Option<Tick> {
        let slot = self.slots.get(conn)?;
        let pending = slot
            .pending
            .as_ref()
            .filter(|pending| !pending.output().is_empty())?;
        Some(
            pending
                .progress
                .after_millis(u64::from(self.mqtt().write_timeout) * 1000),
        )
    }

    fn peer(&self, conn: ConnId) -> Option<std::net::SocketAddr> {
        self.slots.get(conn)?.socket.peer_addr().ok()
    }

    fn count_cause(&self, conn: ConnId, cause: CloseCause) {
        let counters = self.counters();
        match cause {
            CloseCause::KeepAlive => counters.closed_keep_alive.add(1),
            CloseCause::SlowReader => counters.closed_slow.add(1),
            CloseCause::ConnectTimeout | CloseCause::Refused => counters.refused.add(1),
            _ => {}
        }
        if self.log {
            tracing::info!(
                reactor = self.me.0,
                peer = self.peer(conn).map(tracing::field::display),
                ?cause,
                "connection closed"
            );
        }
    }

    /// Forget a connection of which the shard has been told.
    pub fn drop_lost(&mut self, conn: ConnId, cause: CloseCause) {
        self.count_cause(conn, cause);
        self.free(conn);
    }

    /// Log that a client is in, where that is asked for.
    pub fn log_opened(&self, conn: ConnId, client_id: &str) {
        if self.log {
            tracing::info!(
                reactor = self.me.0,
                peer = self.peer(conn).map(tracing::field::display),
                client_id,
                "connection opened"
            );
        }
    }
}

/// One and a half times the keep alive after a client was seen last (MQTT 5 section 3.1.2.10).
fn keep_alive_deadline(last_seen: Tick, keep_alive: u16) -> Option<Tick> {
    (keep_alive > 0).then(|| last_seen.after_millis(u64::from(keep_alive) * 1500))
}

/// The whole [`Port`]: connections and outgoing mail.
#[derive(Debug)]
pub struct Io {
    /// The connections.
    pub connections: Connections,
    /// Mail to other reactors.
    pub post: Post<Letter>,
}

impl Port for Io {
    fn send(&mut self, conn: ConnId, packet: &[u8]) {
        self.connections.send(conn, packet);
    }

    fn expect(&self, conn: ConnId) {
        self.connections.slots.expect(conn);
    }

    fn has_room(&self, conn: ConnId) -> bool {
        let slot = self.connections.slots.get(conn);
        slot.is_some_and(|slot| slot.takes_output() && !slot.flags.has(Flags::FULL))
    }

    fn close(&mut self, conn: ConnId, cause: CloseCause) {
        self.connections.begin_close(conn, cause);
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        let Some(slot) = self.connections.slots.get_mut(conn) else {
            return;
        };
        slot.flags.put(Flags::PAUSED, paused);
        // It was not its fault that nothing was read: a timer that fires before the next read must not take it for silent.
        slot.last_seen = self.connections.now.tick();
        let waits = Flags::READABLE.and(Flags::UNHANDLED).and(Flags::ENDED);
        if !paused && slot.flags.any(waits) {
            self.connections.serve_later(conn);
        }
    }

    fn post(&mut self, to: ReactorId, mail: Mail) {
        self.post.post(to, Letter::Mail(mail));
    }

    fn has_post_room(&self, to: ReactorId) -> bool {
        self.post.has_room(to)
    }
}
