//! From several sockets to the shard: read in a row, then handled in a row.
//!
//! A system call leaves the caches full of the kernel's code and data. One packet between two of them finds nothing of ours there; a row of packets
//! pays for that once. Only connections with nothing left over from before come in here; what one says beyond its part is read in its turn (`serve`).

use super::Reactor;
use super::serve::Stop;
use super::slots::{Flags, State};
use crate::ids::{ConnId, SessionIdx};
use crate::limits::{HEARD_BYTES, HEARD_TOGETHER};
use crate::routing::port::CloseCause;
use crate::transport::tcp::{self, Reading};

/// What one connection said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    conn: ConnId,
    session: SessionIdx,
    len: usize,
}

impl Reactor {
    /// Reads once from a connection that the shard has taken in and that has nothing left over.
    pub(super) fn hear(&mut self, conn: ConnId) {
        let Some(slot) = self.io.connections.slots.get_mut(conn) else {
            return;
        };
        let session = slot.session;
        self.shard.expect(session);
        let from = self.heard.len() * HEARD_BYTES;
        match tcp::read(&slot.socket, &mut self.buffer[from..from + HEARD_BYTES]) {
            Reading::Bytes(len) => {
                slot.flags.put(Flags::READABLE, len == HEARD_BYTES);
                slot.last_seen = self.now.tick();
                self.heard.push(Heard { conn, session, len });
                if self.heard.len() == HEARD_TOGETHER {
                    self.handle_heard();
                }
            }
            Reading::Empty => {
                slot.flags.put(Flags::READABLE, false);
                self.after_packets(conn, Vec::new(), Stop::Incomplete);
            }
            Reading::End | Reading::Broken => self.report_lost(conn, CloseCause::PeerGone),
        }
    }

    /// Handles what was heard, in order.
    pub(super) fn handle_heard(&mut self) {
        if self.heard.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut heard = std::mem::take(&mut self.heard);
        let mut total = 0;
        for (part, said) in buffer.chunks_exact(HEARD_BYTES).zip(&heard) {
            total += said.len as u64;
            self.handle(*said, &part[..said.len]);
        }
        heard.clear();
        self.heard = heard;
        self.buffer = buffer;
        self.io.connections.counters().bytes_in.add(total);
    }

    fn handle(&mut self, said: Heard, bytes: &[u8]) {
        // Those before it may have ended or paused it.
        let (used, stop) = match self.io.connections.slots.get(said.conn) {
            Some(slot) if slot.state != State::Attached => return,
            Some(slot) if slot.flags.any(Flags::PAUSED.and(Flags::BROKEN)) => (0, Stop::Unhandled),
            Some(_) if self.is_spent() => (0, Stop::Unhandled),
            Some(_) => self.packets(said.conn, said.session, bytes),
            None => return,
        };
        self.after_packets(said.conn, bytes[used..].to_vec(), stop);
    }
}
