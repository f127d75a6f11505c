//! Bytes out: from the outbox to the sockets, and what a socket doesn't take.
//!
//! A connection's packets leave in the order in which they were queued: from the outbox while nothing waits, behind the backlog while
//! something does. A backlog is bounded: at `write_backlog` the shard is told that there is no room, so QoS 0 is shed and QoS 1 and 2 stay
//! queued with the session; a client that goes on asking and does not read is closed at twice that, and one that takes nothing for
//! `write_timeout` too.

use std::io::IoSlice;
use std::os::fd::AsRawFd;

use mio::Interest;
use mio::unix::SourceFd;

use super::connections::Connections;
use super::outbox::Chain;
use super::slots::{Flags, State};
use super::token;
use crate::ids::ConnId;
use crate::limits;
use crate::routing::port::CloseCause;
use crate::transport::tcp::{self, Writing};

impl Connections {
    /// Queue one packet for a connection, behind whatever waits for it.
    pub fn send(&mut self, conn: ConnId, packet: &[u8]) {
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        if !slot.takes_output() {
            return;
        }
        if slot.unwritten() > 0 {
            self.push_backlog(conn, packet);
            return;
        }
        if packet.len() >= limits::DIRECT_WRITE {
            self.flush_one(conn);
            match self.slots.get(conn).filter(|slot| slot.takes_output()) {
                Some(slot) if slot.unwritten() == 0 => self.write_directly(conn, packet),
                Some(_) => self.push_backlog(conn, packet),
                None => {}
            }
            return;
        }
        self.outbox.push(conn, &mut slot.chain, packet);
        if slot.chain.bytes >= limits::OUTBOX_BYTES_PER_CONNECTION {
            self.flush_one(conn);
        }
        if self.outbox.bytes() >= limits::OUTBOX_BYTES {
            self.flush();
        }
    }

    /// The socket can be written to again.
    pub fn writable(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        let Some(pending) = &mut slot.pending else {
            return;
        };
        let mut total = 0;
        // Until it is full again: the poller tells only of changes.
        while !pending.output().is_empty() {
            match tcp::write(&slot.socket, pending.output()) {
                Writing::Taken(0) => break,
                Writing::Taken(n) => {
                    pending.taken(n);
                    pending.progress = self.now.tick();
                    total += n;
                }
                Writing::Broken => {
                    self.lose(conn, CloseCause::PeerGone);
                    return;
                }
            }
        }
        let rest = pending.output().len();
        slot.drop_empty_pending();
        if slot.flags.has(Flags::FULL) && rest <= self.shared.mqtt.write_backlog as usize / 2 {
            slot.flags.put(Flags::FULL, false);
            if slot.state == State::Attached {
                self.drained.push(conn);
            }
        }
        if rest == 0 && slot.state == State::Closing {
            self.linger(conn);
        }
        self.counters().bytes_out.add(total as u64);
    }

    /// Write what the outbox has, one system call a connection.
    pub fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let touched = self.outbox.take_touched();
        for (at, &conn) in touched.iter().enumerate() {
            if let Some(&next) = touched.get(at + 1) {
                self.slots.expect(next);
            }
            self.flush_one(conn);
        }
        self.outbox.clear(touched);
    }

    /// Write what the outbox has for one connection; what the socket doesn't take becomes its backlog.
    fn flush_one(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        let mut chain = std::mem::take(&mut slot.chain);
        if chain.is_empty() || slot.flags.has(Flags::BROKEN) {
            return;
        }
        debug_assert_eq!(slot.unwritten(), 0, "packets behind a backlog go there");
        if let Some(bytes) = self.outbox.whole(chain) {
            // One piece, as nearly all are.
            let (len, written) = (bytes.len(), tcp::write(&slot.socket, bytes));
            match written {
                Writing::Taken(taken) => {
                    self.counters().bytes_out.add(taken as u64);
                    if taken < len {
                        self.keep_rest(conn, chain, taken);
                    }
                }
                Writing::Broken => self.lose(conn, CloseCause::PeerGone),
            }
            return;
        }
        // A chain may have more pieces than one write takes. Only what a full socket left over may become a backlog: the poller tells
        // of room only where there was none.
        while !chain.is_empty() {
            let Some(slot) = self.slots.get(conn) else {
                return;
            };
            let mut pieces = [IoSlice::new(&[]); limits::WRITE_PIECES];
            let (count, rest) = self.outbox.gather(chain, &mut pieces);
            let Writing::Taken(taken) = tcp::write_all_of(&slot.socket, &pieces[..count]) else {
                self.lose(conn, CloseCause::PeerGone);
                return;
            };
            self.counters().bytes_out.add(taken as u64);
            if taken < (chain.bytes - rest.bytes) as usize {
                self.keep_rest(conn, chain, taken);
                return;
            }
            chain = rest;
        }
    }

    /// Keep the packets of a chain, but for the first `taken` bytes, until the socket has room.
    fn keep_rest(&mut self, conn: ConnId, chain: Chain, mut taken: usize) {
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        let pending = slot.pending_mut();
        for piece in self.outbox.pieces(chain) {
            let skip = taken.min(piece.len());
            taken -= skip;
            pending.push_output(&piece[skip..]);
        }
        self.wait_for_room(conn);
    }

    /// A backlog has come to be: have the poller tell when it can go on, and see that it does within `write_timeout`.
    fn wait_for_room(&mut self, conn: ConnId) {
        let limit = self.mqtt().write_backlog as usize;
        let now = self.now.tick();
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        slot.pending_mut().progress = now;
        let unwritten = slot.unwritten();
        slot.flags.put(Flags::FULL, unwritten >= limit);
        if !slot.flags.has(Flags::WATCHED_FOR_ROOM) {
            slot.flags.put(Flags::WATCHED_FOR_ROOM, true);
            let fd = slot.socket.as_raw_fd();
            let both = Interest::READABLE | Interest::WRITABLE;
            if self
                .registry
                .reregister(&mut SourceFd(&fd), token::of(conn), both)
                .is_err()
            {
                self.lose(conn, CloseCause::PeerGone);
                return;
            }
        }
        self.arm(conn);
    }

    /// Queue a packet behind a backlog.
    fn push_backlog(&mut self, conn: ConnId, packet: &[u8]) {
        let limit = self.mqtt().write_backlog as usize;
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        if slot.unwritten() >= limit.saturating_mul(limits::BACKLOG_CLOSES_AT) {
            self.lose(conn, CloseCause::SlowReader);
            return;
        }
        slot.pending_mut().push_output(packet);
        if slot.unwritten() >= limit {
            slot.flags.put(Flags::FULL, true);
        }
    }

    /// Write a large packet from where it is; what the socket doesn't take becomes the backlog.
    fn write_directly(&mut self, conn: ConnId, packet: &[u8]) {
        let Some(slot) = self.slots.get_mut(conn) else {
            return;
        };
        match tcp::write(&slot.socket, packet) {
            Writing::Broken => self.lose(conn, CloseCause::PeerGone),
            Writing::Taken(taken) => {
                if taken < packet.len() {
                    slot.pending_mut().push_output(&packet[taken..]);
                    self.wait_for_room(conn);
                }
                self.counters().bytes_out.add(taken as u64);
            }
        }
    }
}
