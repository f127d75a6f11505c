//! The slots: one cache line a connection, in a slab that is reserved once.
//!
//! A slot owns its socket. What only some connections have, unread or unwritten bytes, is boxed and there only while it is needed.

use std::net::TcpStream;

use slab::Slab;

use super::outbox::Chain;
use crate::clock::Tick;
use crate::ids::{ConnId, SessionIdx};
use crate::limits;
use crate::sys::prefetch;
use crate::wheel::{Link, Links};

/// One connection.
#[derive(Debug)]
#[repr(align(64))]
pub struct Slot {
    /// The socket; dropping the slot closes it.
    pub socket: TcpStream,
    /// Tells the connection from the one that had the slot before. Never 0.
    pub generation: u32,
    /// The session, while the state is [`State::Attached`].
    pub session: SessionIdx,
    /// Place in the reactor's wheel.
    pub link: Link,
    /// When bytes arrived last.
    pub last_seen: Tick,
    /// This turn's packets in the outbox.
    pub chain: Chain,
    /// Bytes that wait: read but not handled, or not taken by the peer.
    pub pending: Option<Box<Pending>>,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// Where in its life the connection is.
    pub state: State,
    /// See [`Flags`].
    pub flags: Flags,
}

/// The entry of a slab, as `slab` has it: the vacant one finds place in the slot's niches.
enum Entry {
    _Vacant(usize),
    _Occupied(Slot),
}

const _: () = assert!(
    size_of::<Slot>() == limits::SLOT_BYTES && size_of::<Entry>() == limits::SLOT_BYTES,
    "one cache line a connection"
);

/// Where in its life a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No whole CONNECT has arrived.
    Greeting,
    /// It has a session.
    Attached,
    /// The shard has let go of it; what is queued is still written.
    Closing,
    /// Everything is written and the peer was told so; its end, or a short time, is waited for, as closing with bytes unread would
    /// reset the connection and take our last words from it.
    Lingering,
}

/// Yes-or-no facts of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The kernel may have bytes that were not read.
    pub const READABLE: Self = Self(1);
    /// The peer has ended its side, or the socket is broken; behind the bytes that are still there.
    pub const ENDED: Self = Self(2);
    /// Bytes that were read may hold a whole packet.
    pub const UNHANDLED: Self = Self(4);
    /// The shard wants nothing from it for now, or the gate is asked whether it may come in.
    pub const PAUSED: Self = Self(8);
    /// It stands in the list of those to be served without an event.
    pub const QUEUED: Self = Self(16);
    /// The poller tells when it can be written to.
    pub const WATCHED_FOR_ROOM: Self = Self(32);
    /// The unwritten bytes reached their limit and did not fall under half of it since.
    pub const FULL: Self = Self(64);
    /// Broken: neither read nor written any more, only to be reported and closed.
    pub const BROKEN: Self = Self(128);

    /// True if all of `flag` is set.
    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    /// True if any of `flags` is set.
    pub fn any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Set or clear.
    pub fn put(&mut self, flag: Self, on: bool) {
        if on {
            self.0 |= flag.0;
        } else {
            self.0 &= !flag.0;
        }
    }
}

/// Bytes that wait.
#[derive(Debug, Default)]
pub struct Pending {
    /// Read, but not handled: a part of a packet, or what waits for a pause to end.
    pub input: Vec<u8>,
    /// Queued, but not written; the first `written` bytes of it are.
    output: Vec<u8>,
    written: usize,
    /// When the peer took something last.
    pub progress: Tick,
}

impl Pending {
    /// Bytes that the peer has yet to take.
    pub fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// Queue more.
    pub fn push_output(&mut self, bytes: &[u8]) {
        if self.written > self.output.len() / 2 {
            self.output.drain(..self.written);
            self.written = 0;
        }
        self.output.extend_from_slice(bytes);
    }

    /// So many bytes were taken.
    pub fn taken(&mut self, bytes: usize) {
        self.written += bytes;
        debug_assert!(self.written <= self.output.len());
        if self.written == self.output.len() {
            self.output = Vec::new();
            self.written = 0;
        }
    }

    fn is_empty(&self) -> bool {
        self.input.is_empty() && self.output.is_empty()
    }
}

impl Slot {
    /// Bytes that a write left over.
    pub fn unwritten(&self) -> usize {
        self.pending
            .as_ref()
            .map_or(0, |pending| pending.output().len())
    }

    /// The box for bytes that wait, made if it isn't there.
    pub fn pending_mut(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    /// Take out what was read and not handled.
    pub fn take_input(&mut self) -> Vec<u8> {
        let input = self
            .pending
            .as_mut()
            .map(|pending| std::mem::take(&mut pending.input))
            .unwrap_or_default();
        self.drop_empty_pending();
        input
    }

    /// Let go of the box if nothing is in it.
    pub fn drop_empty_pending(&mut self) {
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.is_empty())
        {
            self.pending = None;
        }
    }

    /// Whether nothing but what its socket has is to be handled.
    pub fn is_plainly_readable(&self) -> bool {
        let has_input = |pending: &Pending| !pending.input.is_empty();
        self.flags.has(Flags::READABLE)
            && !self
                .flags
                .any(Flags::PAUSED.and(Flags::UNHANDLED).and(Flags::BROKEN))
            && !self.pending.as_deref().is_some_and(has_input)
    }

    /// Whether packets may be queued for it.
    pub fn takes_output(&self) -> bool {
        matches!(self.state, State::Greeting | State::Attached) && !self.flags.has(Flags::BROKEN)
    }
}

/// The slots of one reactor.
#[derive(Debug)]
pub struct Slots {
    slab: Slab<Slot>,
    capacity: usize,
    generation: u32,
    place: prefetch::List<Slot>,
}

impl Slots {
    /// Reserve address space for so many; memory is used as they fill.
    pub fn new(capacity: usize) -> Self {
        Self {
            slab: Slab::with_capacity(capacity),
            capacity,
            generation: 0,
            place: prefetch::List::default(),
        }
    }

    /// Take a socket in, which waits for its CONNECT. Gives it back if every slot is taken.
    pub fn insert(&mut self, socket: TcpStream, now: Tick) -> Result<ConnId, TcpStream> {
        if self.slab.len() >= self.capacity {
            return Err(socket);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let slot = self.slab.insert(Slot {
            socket,
            generation: self.generation,
            session: SessionIdx(u32::MAX),
            link: Link::default(),
            last_seen: now,
            chain: Chain::default(),
            pending: None,
            keep_alive: 0,
            state: State::Greeting,
            flags: Flags::default(),
        });
        self.place = prefetch::List::with(&self.slab[slot], slot);
        Ok(ConnId {
            slot: slot as u32,
            generation: self.generation,
        })
    }

    /// A connection will be looked at.
    pub fn expect(&self, conn: ConnId) {
        self.place.element(conn.slot as usize);
    }

    /// The slot, unless the connection is gone.
    pub fn get(&self, conn: ConnId) -> Option<&Slot> {
        self.slab
            .get(conn.slot as usize)
            .filter(|slot| slot.generation == conn.generation)
    }

    /// The slot, unless the connection is gone.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.slab
            .get_mut(conn.slot as usize)
            .filter(|slot| slot.generation == conn.generation)
    }

    /// Take it out, unless it is gone. It must not be in a wheel.
    pub fn remove(&mut self, conn: ConnId) -> Option<Slot> {
        self.get(conn)?;
        let slot = self.slab.remove(conn.slot as usize);
        debug_assert!(!slot.link.is_linked(), "the wheel would find a vacant slot");
        Some(slot)
    }

    /// Lets go of the memory of slots that were in use once, if none is now.
    pub fn give_back(&mut self) {
        if self.slab.is_empty() {
            self.slab = Slab::with_capacity(self.capacity);
        }
    }

    /// The connection in a slot, if there is one.
    pub fn conn_at(&self, index: u32) -> Option<ConnId> {
        self.slab.get(index as usize).map(|slot| ConnId {
            slot: index,
            generation: slot.generation,
        })
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Links for Slots {
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.slab[index as usize].link
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn sockets(n: usize) -> Vec<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (0..n)
            .map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn a_late_name_does_not_reach_a_newcomer() {
        let mut slots = Slots::new(2);
        let mut sockets = sockets(4).into_iter();
        let first = slots.insert(sockets.next().unwrap(), Tick(0)).unwrap();
        slots.insert(sockets.next().unwrap(), Tick(0)).unwrap();
        assert!(
            slots.insert(sockets.next().unwrap(), Tick(0)).is_err(),
            "a third of two"
        );
        assert!(slots.remove(first).is_some());
        let newcomer = slots.insert(sockets.next().unwrap(), Tick(0)).unwrap();
        assert_eq!(newcomer.slot, first.slot);
        assert!(
            slots.get(first).is_none()
                && slots.get_mut(first).is_none()
                && slots.remove(first).is_none()
        );
        assert!(slots.get(newcomer).is_some());
    }

    #[test]
    fn unwritten_bytes_keep_their_order_and_leave_nothing_behind() {
        let mut pending = Pending::default();
        let mut expected = Vec::new();
        for round in 0..50_u8 {
            let bytes = vec![round; 7];
            pending.push_output(&bytes);
            expected.extend_from_slice(&bytes);
            pending.taken(5);
            expected.drain(..5);
            assert_eq!(pending.output(), expected);
        }
        pending.taken(expected.len());
        assert!(pending.is_empty() && pending.output.capacity() == 0);
    }
}
