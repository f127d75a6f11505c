//! The virtual network: connections with limited room, and mail that is in order between two shards and in no order otherwise.

use std::collections::VecDeque;

use stillwire::ids::{ConnId, ReactorId, SessionIdx};
use stillwire::routing::mail::Mail;
use stillwire::routing::port::{CloseCause, Port};
use stillwire::wire::Version;

use super::random::Random;

/// One connection, both ends.
pub(crate) struct Conn {
    pub(crate) reactor: ReactorId,
    pub(crate) client: usize,
    pub(crate) version: Version,
    /// Packets from the client that the server has not read.
    pub(crate) up: VecDeque<Vec<u8>>,
    /// Packets from the server that the client has not read.
    pub(crate) down: VecDeque<Vec<u8>>,
    down_bytes: usize,
    /// Bytes of `down` past which there is no room.
    capacity: usize,
    was_full: bool,
    /// The server does not read.
    pub(crate) paused: bool,
    /// The server holds it.
    pub(crate) held: bool,
    /// The session it is bound to.
    pub(crate) session: Option<SessionIdx>,
    /// The client has dropped it.
    pub(crate) gone: bool,
    /// The server will notice that only by the keep alive.
    pub(crate) silent: bool,
}

/// See the module.
pub(crate) struct Network {
    reactors: usize,
    pub(crate) conns: Vec<Conn>,
    active: Vec<usize>,
    /// One queue for each pair: `from * reactors + to`.
    mail: Vec<VecDeque<Mail>>,
    pub(crate) letters: usize,
    /// Letters of a pair past which QoS 0 is shed.
    mailbox: usize,
    /// What shards have sent and closed since the last look, in order.
    pub(crate) seen: Vec<Seen>,
}

/// What a shard did to a connection.
pub(crate) enum Seen {
    Sent(usize, Vec<u8>),
    Closed(usize, CloseCause),
}

impl Network {
    pub(crate) fn new(reactors: usize, mailbox: usize) -> Self {
        Self {
            reactors,
            conns: Vec::new(),
            active: Vec::new(),
            mail: (0..reactors * reactors).map(|_| VecDeque::new()).collect(),
            letters: 0,
            mailbox,
            seen: Vec::new(),
        }
    }

    pub(crate) fn open(
        &mut self,
        reactor: ReactorId,
        client: usize,
        version: Version,
        capacity: usize,
    ) -> usize {
        self.conns.push(Conn {
            reactor,
            client,
            version,
            up: VecDeque::new(),
            down: VecDeque::new(),
            down_bytes: 0,
            capacity,
            was_full: false,
            paused: false,
            held: true,
            session: None,
            gone: false,
            silent: false,
        });
        self.active.push(self.conns.len() - 1);
        self.conns.len() - 1
    }

    /// Connections that one of the two sides has not left.
    pub(crate) fn active(&mut self) -> Vec<usize> {
        let conns = &self.conns;
        self.active.retain(|at| conns[*at].held || !conns[*at].gone);
        self.active.clone()
    }

    /// The name that shards know a connection by.
    pub(crate) fn id(at: usize) -> ConnId {
        ConnId {
            slot: at as u32,
            generation: (at as u32).wrapping_mul(0x9E37_79B1),
        }
    }

    /// The client reads a packet. True: room came back, and the shard is to be told.
    pub(crate) fn read(&mut self, at: usize) -> Option<(Vec<u8>, bool)> {
        let conn = &mut self.conns[at];
        let packet = conn.down.pop_front()?;
        conn.down_bytes -= packet.len();
        let drained = conn.was_full && conn.down_bytes < conn.capacity / 2;
        if drained {
            conn.was_full = false;
        }
        Some((packet, drained && conn.held))
    }

    /// What the client has not read is lost.
    pub(crate) fn lose_down(&mut self, at: usize) {
        self.conns[at].down.clear();
        self.conns[at].down_bytes = 0;
    }

    /// The server has died: every connection of it ends, with what it had written so far; letters are gone.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        for conn in self.conns.iter_mut().filter(|conn| conn.held) {
            conn.held = false;
            conn.session = None;
            conn.up.clear();
            let arrives = random.below(conn.down.len() + 1);
            conn.down.truncate(arrives);
            conn.down_bytes = conn.down.iter().map(Vec::len).sum();
        }
        self.mail.iter_mut().for_each(VecDeque::clear);
        self.letters = 0;
        self.seen.clear();
    }

    /// Takes the oldest letter from one shard to another.
    pub(crate) fn letter(&mut self, from: usize, to: usize) -> Option<Mail> {
        let mail = self.mail[from * self.reactors + to].pop_front()?;
        self.letters -= 1;
        Some(mail)
    }

    /// A random pair that has mail.
    pub(crate) fn busy_pair(&self, start: usize) -> Option<(usize, usize)> {
        let pairs = self.mail.len();
        (0..pairs)
            .map(|step| (start + step) % pairs)
            .find(|at| !self.mail[*at].is_empty())
            .map(|at| (at / self.reactors, at % self.reactors))
    }
}

/// The network as one shard sees it.
pub(crate) struct Wires<'a> {
    pub(crate) network: &'a mut Network,
    pub(crate) me: usize,
}

impl Wires<'_> {
    fn conn(&self, id: ConnId) -> Option<usize> {
        let at = id.slot as usize;
        assert_eq!(Network::id(at), id, "a connection that never was");
        assert_eq!(
            self.network.conns[at].reactor.index(),
            self.me,
            "another reactor's connection"
        );
        self.network.conns[at].held.then_some(at)
    }
}

impl Port for Wires<'_> {
    fn send(&mut self, id: ConnId, packet: &[u8]) {
        let Some(at) = self.conn(id) else { return };
        let conn = &mut self.network.conns[at];
        conn.down_bytes += packet.len();
        conn.was_full |= conn.down_bytes >= conn.capacity;
        conn.down.push_back(packet.to_vec());
        self.network.seen.push(Seen::Sent(at, packet.to_vec()));
    }

    fn has_room(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(|at| {
            let conn = &self.network.conns[at];
            conn.down_bytes < conn.capacity
        })
    }

    fn close(&mut self, id: ConnId, cause: CloseCause) {
        let Some(at) = self.conn(id) else { return };
        self.network.conns[at].held = false;
        self.network.seen.push(Seen::Closed(at, cause));
    }

    fn pause(&mut self, id: ConnId, paused: bool) {
        if let Some(at) = self.conn(id) {
            self.network.conns[at].paused = paused;
        }
    }

    fn post(&mut self, to: ReactorId, mail: Mail) {
        assert_ne!(to.index(), self.me, "mail to oneself");
        self.network.letters += 1;
        self.network.mail[self.me * self.network.reactors + to.index()].push_back(mail);
    }

    fn has_post_room(&self, to: ReactorId) -> bool {
        self.network.mail[self.me * self.network.reactors + to.index()].len() < self.network.mailbox
    }
}
