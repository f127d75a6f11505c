//! From a socket to the shard: one bounded read, and the packets in it.
//!
//! What is read stands in the reactor's one buffer; the shard handles packets from there. Only what is left, a part of a packet or what a
//! bound or a pause leaves unhandled, is kept with the connection.

use super::Reactor;
use super::slots::{Flags, State};
use crate::ids::{ConnId, SessionIdx};
use crate::limits;
use crate::routing::Verdict;
use crate::routing::port::CloseCause;
use crate::topic::Scope;
use crate::transport::tcp::{self, Reading};
use crate::wire::{Connect, frame};

/// Why the packets of a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// What is left is no whole packet.
    Incomplete,
    /// What is left may be one.
    Unhandled,
    /// The connection is closed or lost.
    Gone,
}

impl Reactor {
    /// The poller has an event for a connection.
    pub(super) fn on_event(&mut self, conn: ConnId, readable: bool, ended: bool, writable: bool) {
        if writable {
            self.io.connections.writable(conn);
        }
        let Some(slot) = self.io.connections.slots.get_mut(conn) else {
            return;
        };
        if readable || ended {
            slot.flags.put(Flags::READABLE, true);
        }
        if ended {
            slot.flags.put(Flags::ENDED, true);
        }
        // A connection that waits for its turn is served then; an event must not serve it twice.
        if (readable || ended) && !slot.flags.has(Flags::QUEUED) {
            if slot.state == State::Attached && slot.is_plainly_readable() && !self.is_spent() {
                self.hear(conn);
            } else {
                // It reads into the buffer where the others' bytes stand.
                self.handle_heard();
                self.serve(conn);
            }
        }
    }

    /// Read from a connection once, and handle what it holds.
    pub(super) fn serve(&mut self, conn: ConnId) {
        let Some(slot) = self.io.connections.slots.get(conn) else {
            return;
        };
        if slot.flags.has(Flags::BROKEN) {
            return;
        }
        match slot.state {
            State::Greeting => self.serve_greeting(conn),
            State::Attached if slot.flags.has(Flags::PAUSED) => {}
            State::Attached if self.is_spent() => self.io.connections.serve_later(conn),
            State::Attached => self.serve_attached(conn, slot.session),
            State::Closing if slot.flags.has(Flags::ENDED) => self.io.connections.free(conn),
            State::Closing => {}
            State::Lingering => self.discard(conn),
        }
    }

    fn serve_attached(&mut self, conn: ConnId, session: SessionIdx) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let connections = &mut self.io.connections;
        let Some(slot) = connections.slots.get_mut(conn) else {
            self.buffer = buffer;
            return;
        };
        let mut kept = slot.take_input();
        let mut fresh: &[u8] = &[];
        // What was read before comes first, and nothing more is read until it is handled.
        if !slot.flags.has(Flags::UNHANDLED) && slot.flags.has(Flags::READABLE) {
            self.shard.expect(session);
            match tcp::read(&slot.socket, &mut buffer) {
                Reading::Bytes(n) => {
                    slot.flags.put(Flags::READABLE, n == buffer.len());
                    slot.last_seen = self.now.tick();
                    connections.counters().bytes_in.add(n as u64);
                    fresh = &buffer[..n];
                }
                Reading::Empty => slot.flags.put(Flags::READABLE, false),
                Reading::End | Reading::Broken => {
                    self.buffer = buffer;
                    self.report_lost(conn, CloseCause::PeerGone);
                    return;
                }
            }
        }
        if kept.is_empty() {
            let (used, stop) = self.packets(conn, session, fresh);
            if used < fresh.len() {
                kept.extend_from_slice(&fresh[used..]);
            }
            self.buffer = buffer;
            self.after_packets(conn, kept, stop);
        } else {
            kept.extend_from_slice(fresh);
            self.buffer = buffer;
            let (used, stop) = self.packets(conn, session, &kept);
            kept.drain(..used);
            if kept.capacity() > 4 * kept.len() {
                kept.shrink_to_fit();
            }
            self.after_packets(conn, kept, stop);
        }
    }

    /// Packets should wait: they have led to enough deliveries in this turn, or to more mail than leaves.
    pub(super) fn is_spent(&self) -> bool {
        self.shard.is_spent() || self.io.post.is_crowded()
    }

    /// Give the shard the packets at the start of `bytes`; how many bytes they are, and why it ended.
    pub(super) fn packets(
        &mut self,
        conn: ConnId,
        session: SessionIdx,
        bytes: &[u8],
    ) -> (usize, Stop) {
        let max = self.io.connections.mqtt().max_packet_size;
        let mut used = 0;
        for at in 0..limits::PACKETS_PER_TURN {
            let rest = &bytes[used..];
            match frame::split(rest, max) {
                Ok(None) => return (used, Stop::Incomplete),
                Ok(Some(frame)) => {
                    if at % limits::LOOK_AHEAD == 0 && frame.len < rest.len() {
                        self.shard.expect_packets(rest, &self.io);
                    }
                    used += frame.len;
                    if self.shard.packet(session, &frame, self.now, &mut self.io) == Verdict::Closed
                    {
                        return (used, Stop::Gone);
                    }
                }
                Err(error) => {
                    self.shard.fault(session, error, self.now, &mut self.io);
                    return (used, Stop::Gone);
                }
            }
            match self.io.connections.slots.get(conn) {
                Some(slot) if slot.flags.any(Flags::PAUSED.and(Flags::BROKEN)) => {
                    return (used, Stop::Unhandled);
                }
                Some(slot) if slot.state == State::Attached => {}
                _ => return (used, Stop::Gone),
            }
            if self.is_spent() {
                break;
            }
        }
        (used, Stop::Unhandled)
    }

    /// Keep what is left, and see that the connection is served again if there may be more.
    pub(super) fn after_packets(&mut self, conn: ConnId, kept: Vec<u8>, stop: Stop) {
        let Some(slot) = self.io.connections.slots.get_mut(conn) else {
            return;
        };
        if stop == Stop::Gone {
            return;
        }
        let unhandled = stop == Stop::Unhandled && !kept.is_empty();
        slot.flags.put(Flags::UNHANDLED, unhandled);
        if !kept.is_empty() {
            slot.pending_mut().input = kept;
        }
        if slot.flags.has(Flags::PAUSED) {
            return;
        }
        if unhandled || slot.flags.has(Flags::READABLE) {
            self.io.connections.serve_later(conn);
        } else if slot.flags.has(Flags::ENDED) {
            // The end was seen before the read that drained the socket: nothing can follow.
            self.report_lost(conn, CloseCause::PeerGone);
        }
    }

    /// The shard takes a client in, or not. `rest` came behind its CONNECT.
    pub(super) fn admit(&mut self, conn: ConnId, connect: &Connect<'_>, rest: &[u8]) {
        let Some(attached) =
            self.shard
                .connect(conn, connect, Scope::DEFAULT, self.now, &mut self.io)
        else {
            return;
        };
        self.io.connections.attach(conn, attached);
        self.io.connections.log_opened(conn, connect.client_id);
        if rest.is_empty() {
            return;
        }
        let (used, stop) = match self.io.connections.slots.get(conn) {
            Some(slot) if slot.flags.any(Flags::PAUSED.and(Flags::BROKEN)) => (0, Stop::Unhandled),
            Some(slot) if slot.state == State::Attached => {
                self.packets(conn, attached.session, rest)
            }
            _ => return,
        };
        self.after_packets(conn, rest[used..].to_vec(), stop);
    }

    /// Tell the shard that a connection is gone, and forget it.
    pub(super) fn report_lost(&mut self, conn: ConnId, cause: CloseCause) {
        let Some(slot) = self.io.connections.slots.get(conn) else {
            return;
        };
        if slot.state == State::Attached {
            let session = slot.session;
            self.shard
                .lost(session, conn, cause, self.now, &mut self.io);
            if cause == CloseCause::KeepAlive {
                // The client may still listen: it is told why, and the close waits for that.
                self.io.connections.begin_close(conn, cause);
                return;
            }
        }
        self.io.connections.drop_lost(conn, cause);
    }

    /// A peer that was said goodbye to still sends: read and forget, until it ends.
    fn discard(&mut self, conn: ConnId) {
        let connections = &mut self.io.connections;
        let Some(slot) = connections.slots.get_mut(conn) else {
            return;
        };
        match tcp::read(&slot.socket, &mut self.buffer) {
            Reading::Bytes(n) if n == self.buffer.len() => connections.serve_later(conn),
            Reading::Bytes(_) if slot.flags.has(Flags::ENDED) => connections.free(conn),
            Reading::Bytes(_) | Reading::Empty => {}
            Reading::End | Reading::Broken => connections.free(conn),
        }
    }
}
