//! Shards under any sequence of packets, losses, mail and time: they never panic, keep their invariants, and send nothing but whole packets
//! that the client's version knows.
//!
//! The input is a script of operations; each takes the bytes it needs. Two shards, mail between them delivered when the script says so.
#![no_main]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use stillwire::clock::Millis;
use stillwire::config::resolved::Mqtt;
use stillwire::ids::{ConnId, ReactorId, SessionIdx};
use stillwire::routing::mail::Mail;
use stillwire::routing::port::{CloseCause, Port};
use stillwire::routing::{Attached, Shard, Shared, Verdict, home};
use stillwire::topic::{Scope, TopicHasher};
use stillwire::wire::{Connect, Version, decode, frame};

const SHARDS: usize = 2;
const CLIENTS: u8 = 6;
const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "$SYS/x", "$inbox/c1/x", "$inbox/c4/y/z", "b", "/"];
const FILTERS: [&str; 10] = ["a", "a/+", "#", "a/#", "+/b", "$share/g/a/b", "$share/g/#", "$share/h/a", "b", "$SYS/#"];

/// One shard's connections and letters.
struct Desk {
    me: ReactorId,
    open: HashMap<u32, Version>,
    post: VecDeque<(ReactorId, Mail)>,
    /// Connections that take no more bytes.
    full: bool,
}

impl Port for Desk {
    fn send(&mut self, conn: ConnId, packet: &[u8]) {
        let Some(version) = self.open.get(&conn.slot) else { return };
        let frame = frame::split(packet, u32::MAX).expect("a header").expect("a whole packet");
        assert_eq!(frame.len, packet.len(), "one packet at a time");
        decode(&frame, *version).expect("a packet that the client's version knows");
    }

    fn has_room(&self, conn: ConnId) -> bool {
        !self.full && self.open.contains_key(&conn.slot)
    }

    fn close(&mut self, conn: ConnId, _: CloseCause) {
        self.open.remove(&conn.slot);
    }

    fn pause(&mut self, _: ConnId, _: bool) {}

    fn post(&mut self, to: ReactorId, mail: Mail) {
        assert_ne!(to, self.me, "mail to itself");
        self.post.push_back((to, mail));
    }

    fn has_post_room(&self, _: ReactorId) -> bool {
        !self.full
    }
}

/// A client as the script knows it.
#[derive(Clone, Copy)]
struct Seat {
    shard: usize,
    conn: u32,
    session: SessionIdx,
    version: Version,
}

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }
}

struct World {
    shards: Vec<Shard>,
    desks: Vec<Desk>,
    seats: HashMap<u8, Seat>,
    hasher: TopicHasher,
    now: Millis,
    next: u32,
}

fuzz_target!(|input: &[u8]| {
    let mqtt = Mqtt {
        max_sessions: 16,
        queue_messages: 8,
        queue_bytes: 2000,
        max_inflight: 3,
        receive_maximum: 4,
        max_subscriptions: 8,
        max_retained: 6,
        max_retained_bytes: 4000,
        max_topic_levels: 8,
        sys_interval: 1,
        ..Mqtt::default()
    };
    let hasher = TopicHasher::fixed(11);
    let shared = Arc::new(Shared::new(SHARDS, 64, hasher.clone(), mqtt));
    let now = Millis(0);
    let of = |at: usize| ReactorId(at as u16);
    let mut world = World {
        shards: (0..SHARDS).map(|at| Shard::new(of(at), Arc::clone(&shared), 16, 5, now)).collect(),
        desks: (0..SHARDS).map(|at| Desk { me: of(at), open: HashMap::new(), post: VecDeque::new(), full: false }).collect(),
        seats: HashMap::new(),
        hasher,
        now,
        next: 1,
    };
    let mut script = Script(input);
    for step in 0..400 {
        if world.step(&mut script).is_none() {
            break;
        }
        // Each walk over everything costs as much as many steps.
        if step % 16 == 0 {
            world.check();
        }
    }
    world.settle();
});

impl World {
    fn step(&mut self, script: &mut Script<'_>) -> Option<()> {
        match script.byte()? % 12 {
            0 => {
                let (who, how) = (script.byte()?, script.byte()?);
                self.connect(who % CLIENTS, how);
            }
            1 => {
                let (who, filter, options) = (script.byte()?, script.byte()?, script.byte()?);
                let filter = FILTERS[usize::from(filter) % FILTERS.len()].as_bytes();
                self.send(who, 0x82, |v5| {
                    let mut body = vec![0, 1];
                    if v5 {
                        // With an identifier or without.
                        if options & 0x80 != 0 { body.extend([2, 0x0b, 1 + (options >> 4 & 7)]) } else { body.push(0) }
                    }
                    body.extend([0, filter.len() as u8]);
                    body.extend(filter);
                    body.push(if v5 { options & 0x2f } else { options & 3 });
                    body
                });
            }
            2 => {
                let (who, filter) = (script.byte()?, script.byte()?);
                let filter = FILTERS[usize::from(filter) % FILTERS.len()].as_bytes();
                self.send(who, 0xa2, |v5| {
                    let mut body = vec![0, 1];
                    body.extend(v5.then_some(0));
                    body.extend([0, filter.len() as u8]);
                    body.extend(filter);
                    body
                });
            }
            3 => {
                let (who, topic, flags, id, len) = (script.byte()?, script.byte()?, script.byte()?, script.byte()?, script.byte()?);
                let topic = TOPICS[usize::from(topic) % TOPICS.len()].as_bytes();
                let first = 0x30 | flags & 0x0f;
                self.send(who, first, |v5| {
                    let mut body = vec![0, topic.len() as u8];
                    body.extend(topic);
                    if first & 6 != 0 {
                        body.extend([0, id % 8]);
                    }
                    if v5 {
                        match flags >> 4 {
                            0 => body.extend([5, 0x02, 0, 0, 0, id % 4]),
                            1 => body.extend([3, 0x23, 0, id % 20]),
                            2 => body.extend([7, 0x26, 0, 1, b'k', 0, 1, b'v']),
                            _ => body.push(0),
                        }
                    }
                    body.extend(std::iter::repeat_n(b'x', usize::from(len) * 2));
                    body
                });
            }
            4 => {
                let (who, kind, id, code) = (script.byte()?, script.byte()?, script.byte()?, script.byte()?);
                let kind = 4 + kind % 4;
                self.send(who, kind << 4 | if kind == 6 { 2 } else { 0 }, |v5| {
                    let mut body = vec![0, id % 8];
                    if v5 && code >= 0x80 {
                        body.push(code);
                    }
                    body
                });
            }
            5 => {
                let who = script.byte()? % CLIENTS;
                if let Some(seat) = self.seats.remove(&who) {
                    let desk = &mut self.desks[seat.shard];
                    if desk.open.remove(&seat.conn).is_some() {
                        let conn = ConnId { slot: seat.conn, generation: 0 };
                        self.shards[seat.shard].lost(seat.session, conn, CloseCause::PeerGone, self.now, desk);
                    }
                }
            }
            6 => {
                self.now = Millis(self.now.0 + u64::from(script.byte()?) * 40);
                for at in 0..SHARDS {
                    self.shards[at].tick(self.now, &mut self.desks[at]);
                }
            }
            7 => self.mail(usize::from(script.byte()?)),
            8 => self.work(),
            9 => {
                let (who, count) = (script.byte()?, script.byte()?);
                let bytes = script.bytes(usize::from(count));
                self.raw(who % CLIENTS, bytes);
            }
            10 => {
                let full = script.byte()?;
                for at in 0..SHARDS {
                    self.desks[at].full = full >> at & 1 == 1;
                }
                for seat in self.open() {
                    if !self.desks[seat.shard].full {
                        self.shards[seat.shard].drained(seat.session, self.now, &mut self.desks[seat.shard]);
                    }
                }
            }
            _ => {
                let (who, reason) = (script.byte()?, script.byte()?);
                self.send(who, 0xe0, |v5| if v5 { vec![reason] } else { Vec::new() });
            }
        }
        Some(())
    }

    fn check(&self) {
        for shard in &self.shards {
            shard.check_invariants();
        }
    }

    fn open(&self) -> Vec<Seat> {
        self.seats.values().copied().filter(|seat| self.desks[seat.shard].open.contains_key(&seat.conn)).collect()
    }

    fn connect(&mut self, who: u8, how: u8) {
        let name = format!("c{who}");
        let shard = home(&self.hasher, &name, SHARDS).index();
        let version = [Version::V31, Version::V311, Version::V5][usize::from(how / 2 % 3)];
        let mut body = Vec::new();
        let protocol: &[u8] = if version == Version::V31 { b"MQIsdp" } else { b"MQTT" };
        body.extend([0, protocol.len() as u8]);
        body.extend(protocol);
        let will = how & 0x40 != 0;
        let flags = (how & 1) << 1 | if will { 0x04 | (how >> 4 & 1) << 3 } else { 0 };
        body.extend([how / 2 % 3 + 3, flags, 0, 60]);
        if version == Version::V5 {
            let mut props = vec![0x11, 0, 0, 0, how >> 3 & 3];
            if how & 0x20 != 0 {
                props.extend([0x21, 0, 2, 0x27, 0, 0, 0, 120, 0x22, 0, 3]);
            }
            body.push(props.len() as u8);
            body.extend(props);
        }
        body.extend([0, name.len() as u8]);
        body.extend(name.as_bytes());
        if will {
            if version == Version::V5 {
                body.extend([5, 0x18, 0, 0, 0, how & 3]);
            }
            body.extend([0, 1, b'a', 0, 1, b'w']);
        }
        let connect = Connect::decode(&body).expect("a CONNECT of our own");
        let conn = self.next;
        self.next += 1;
        let desk = &mut self.desks[shard];
        desk.open.insert(conn, version);
        let id = ConnId { slot: conn, generation: 0 };
        let attached = self.shards[shard].connect(id, &connect, Scope::DEFAULT, self.now, desk);
        if let Some(Attached { session, .. }) = attached {
            self.seats.insert(who, Seat { shard, conn, session, version });
        } else {
            assert!(!desk.open.contains_key(&conn), "a refused connection is closed");
        }
    }

    /// Sends one packet that is built for the client's version.
    fn send(&mut self, who: u8, first: u8, body: impl Fn(bool) -> Vec<u8>) {
        let who = who % CLIENTS;
        let Some(seat) = self.seats.get(&who) else { return };
        let body = body(seat.version == Version::V5);
        let mut bytes = vec![first];
        let mut len = body.len();
        loop {
            let low = (len % 128) as u8;
            len /= 128;
            bytes.push(if len > 0 { low | 0x80 } else { low });
            if len == 0 {
                break;
            }
        }
        bytes.extend(body);
        self.raw(who, &bytes);
    }

    /// What a reactor does with bytes from a socket.
    fn raw(&mut self, who: u8, bytes: &[u8]) {
        let Some(seat) = self.seats.get(&who).copied() else { return };
        let mut rest = bytes;
        while self.desks[seat.shard].open.contains_key(&seat.conn) {
            let desk = &mut self.desks[seat.shard];
            match frame::split(rest, 1 << 20) {
                Ok(Some(frame)) => {
                    let verdict = self.shards[seat.shard].packet(seat.session, &frame, self.now, desk);
                    rest = &rest[frame.len..];
                    if verdict == Verdict::Closed {
                        assert!(!desk.open.contains_key(&seat.conn), "closed, and not told");
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.shards[seat.shard].fault(seat.session, error, self.now, desk);
                    return;
                }
            }
        }
    }

    fn mail(&mut self, count: usize) {
        for at in 0..SHARDS {
            for _ in 0..count.min(self.desks[at].post.len()) {
                let (to, mail) = self.desks[at].post.pop_front().expect("a letter that was counted");
                self.shards[to.index()].mail(mail, self.now, &mut self.desks[to.index()]);
            }
        }
    }

    fn work(&mut self) {
        for at in 0..SHARDS {
            self.shards[at].work(self.now, &mut self.desks[at]);
        }
    }

    /// Everything under way arrives; then nothing is left to do.
    fn settle(&mut self) {
        for desk in &mut self.desks {
            desk.full = false;
        }
        for round in 0.. {
            self.mail(usize::MAX);
            self.work();
            if self.desks.iter().all(|desk| desk.post.is_empty()) && !self.shards.iter().any(Shard::has_work) {
                break;
            }
            assert!(round < 10_000, "the shards write each other for ever");
        }
        self.check();
    }
}
