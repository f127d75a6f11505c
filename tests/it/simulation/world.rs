//! The world: shards, network and clients, one random step after the other, and the model told of each.

use std::sync::Arc;

use stillwire::access::Identity;
use stillwire::clock::Millis;
use stillwire::config::resolved::{Mqtt, QueueFull};
use stillwire::routing::port::CloseCause;
use stillwire::routing::{Shard, Shared, Slices, Verdict};
use stillwire::store::Recovered;
use stillwire::store::log::{Log, Opened};
use stillwire::topic::{Scope, TopicHasher};
use stillwire::wire::{self, Connect, Packet, Qos, ReasonCode, Version, frame};

use super::Profile;
use super::client::{Client, Heard, resolve};
use super::crash::{self, Crash};
use super::deliveries::Delivered;
use super::model::Model;
use super::network::{Network, Seen, Wires};
use super::random::Random;

/// See the module.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Millis,
    pub(crate) shards: Vec<Shard>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    pub(crate) model: Model,
    pub(crate) profile: Profile,
    pub(crate) crash: Crash,
    pub(crate) seed: u64,
    pub(crate) slices: Slices,
    /// The cleaner has taken segments away.
    pub(crate) cleaned: bool,
    /// Messages that a limit dropped before the last crash.
    pub(crate) dropped_before: u64,
    /// Nothing new is begun any more.
    pub(crate) draining: bool,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        reactors: usize,
        profile: Profile,
        crash: Crash,
        tenants: &'static [&'static str],
    ) -> Self {
        let mut random = Random::new(seed);
        let hasher = TopicHasher::fixed(seed);
        let tight = profile == Profile::Tight;
        let mqtt = Mqtt {
            receive_maximum: if tight { 4 } else { 16 },
            max_inflight: if tight { 3 } else { 8 },
            queue_messages: if tight { 4 } else { 100_000 },
            queue_bytes: 1 << 24,
            queue_full: if random.percent(50) {
                QueueFull::DropOldest
            } else {
                QueueFull::Refuse
            },
            sys_interval: 0,
            max_session_expiry: u32::MAX,
            ..Mqtt::default()
        };
        let shared = Arc::new(Shared::new(reactors, 1000, hasher, mqtt));
        let slices = Slices {
            fanout: random.pick(&[1, 2, 512]),
            retained: random.pick(&[1, 2, 128]),
            load: random.pick(&[1, 2, 512]),
        };
        let mut model = Model {
            lossy: tight,
            followed: super::number("STILLWIRE_FOLLOW").map(|number| number as u32),
            ..Model::default()
        };
        // Where there are tenants, the same names are in all of them.
        let clients: Vec<_> = (0..14)
            .map(|at| {
                let version = random.pick(&[Version::V311, Version::V5, Version::V5]);
                Client::new(format!("client-{}", at / tenants.len()), version)
            })
            .collect();
        model.prefixes = (0..clients.len())
            .map(|at| tenants[at % tenants.len()])
            .collect();
        model.sessions.resize_with(clients.len(), Default::default);
        // Number 0 is nobody's, so that "greater than the last" holds for the first.
        model.message(None, "", Qos::AtMostOnce, false, false);
        let mut world = Self {
            network: Network::new(reactors, if tight { 8 } else { 100_000 }),
            now: Millis(0),
            random,
            shards: Vec::new(),
            shared,
            clients,
            model,
            profile,
            crash,
            seed,
            slices,
            cleaned: false,
            dropped_before: 0,
            draining: false,
        };
        let logs = (0..reactors).map(|at| {
            let key = seed ^ at as u64;
            let log = Log::in_memory(crash::LIMIT, key, at as u32, crash::shape());
            let damage = Vec::new();
            Recovered::read(Opened { log, damage }, key)
        });
        world.shards = crash::start(&world, logs.collect(), crash == Crash::Power);
        world
    }

    /// One random thing happens.
    pub(crate) fn step(&mut self) {
        if self.crash != Crash::Never && self.random.below(700) == 0 {
            self.crash();
        }
        if self.crash == Crash::Power && self.random.percent(10) {
            self.disks_sync();
        }
        match self.random.below(100) {
            0..20 => self.act(),
            20..45 => {
                let _ = self.server_reads();
            }
            45..65 => {
                let _ = self.client_reads();
            }
            65..75 => {
                let _ = self.client_answers();
            }
            75..92 => {
                let _ = self.letter_arrives();
            }
            92..96 => {
                let _ = self.work();
            }
            96..98 => {
                let _ = self.notice_losses();
            }
            _ => self.time_passes(),
        }
    }

    /// Calls a shard, tells the model what came out, and checks the shard.
    pub(crate) fn call<T>(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut Shard, Millis, &mut Wires<'_>) -> T,
    ) -> T {
        self.model.step += 1;
        let mut wires = Wires {
            network: &mut self.network,
            me: at,
        };
        let done = run(&mut self.shards[at], self.now, &mut wires);
        for seen in std::mem::take(&mut self.network.seen) {
            match seen {
                Seen::Sent(conn, bytes) => self.saw_sent(conn, &bytes),
                Seen::Closed(conn, cause) => {
                    let clean = cause == CloseCause::Disconnected;
                    assert!(
                        self.profile == Profile::Tight
                            || cause != CloseCause::Protocol && cause != CloseCause::Quota,
                        "client cut off: {cause:?}"
                    );
                    assert_ne!(
                        cause,
                        CloseCause::Protocol,
                        "nobody breaks the protocol here"
                    );
                    self.model.closed(conn, !clean, self.now);
                }
            }
        }
        self.shards[at].check_invariants();
        done
    }

    fn saw_sent(&mut self, conn: usize, bytes: &[u8]) {
        let frame = frame::split(bytes, u32::MAX)
            .expect("well-formed")
            .expect("whole");
        assert_eq!(frame.len, bytes.len(), "one packet at a time");
        let packet = wire::decode(&frame, self.network.conns[conn].version)
            .expect("the server sends what decodes");
        if !self.model.links.contains_key(&conn) {
            return;
        }
        match packet {
            Packet::Suback(suback) => self
                .model
                .suback(conn, suback.packet_id.get(), suback.codes),
            Packet::Puback(ack) => {
                self.model
                    .acked(conn, ack.packet_id.get(), Qos::AtLeastOnce, ack.reason)
            }
            Packet::Pubrec(ack) => {
                self.model
                    .acked(conn, ack.packet_id.get(), Qos::ExactlyOnce, ack.reason)
            }
            Packet::Pubrel(ack) => self.model.released(conn, ack.packet_id.get()),
            Packet::Publish(publish) => {
                let link = self.model.links.get_mut(&conn).expect("looked up above");
                let (client, topic) = (link.client, resolve(&mut link.aliases, &publish));
                let topic = self.model.scoped(client, &topic);
                let delivered = Delivered {
                    topic: &topic,
                    payload: publish.payload,
                    qos: publish.qos,
                    retain: publish.retain,
                    dup: publish.dup,
                    id: publish.packet_id.map(wire::PacketId::get),
                };
                self.model.sent(conn, &delivered);
            }
            Packet::Connack(connack) => {
                let client = self.model.links[&conn].client;
                self.model.told(client, connack.session_present);
            }
            _ => {}
        }
    }

    // ---- the server's side ----

    fn random_conn(&mut self, wanted: impl Fn(&World, usize) -> bool) -> Option<usize> {
        let active = self.network.active();
        if active.is_empty() {
            return None;
        }
        let start = self.random.below(active.len());
        let mut turns = active[start..].iter().chain(&active[..start]);
        turns.find(|at| wanted(self, **at)).copied()
    }

    pub(crate) fn server_reads(&mut self) -> bool {
        let ready = |world: &World, at: usize| {
            let conn = &world.network.conns[at];
            conn.held && !conn.paused && !conn.up.is_empty()
        };
        let Some(at) = self.random_conn(ready) else {
            return false;
        };
        let reactor = self.network.conns[at].reactor.index();
        if self.profile == Profile::Tight && self.shards[reactor].has_work() {
            // It may be about to cut this client off: then it doesn't read the packet, which the model could not know.
            self.call(reactor, |shard, now, port| shard.work(now, port));
            return true;
        }
        let conn = &mut self.network.conns[at];
        let bytes = conn.up.pop_front().expect("looked at above");
        let frame = frame::split(&bytes, u32::MAX).unwrap().unwrap();
        let (reactor, client, version, session) = (
            conn.reactor.index(),
            conn.client,
            conn.version,
            conn.session,
        );
        let Some(session) = session else {
            self.server_connects(at, client, reactor, frame.body);
            return true;
        };
        // What this call makes happen, happens after what it says.
        self.model.step += 1;
        match wire::decode(&frame, version).expect("clients send what decodes") {
            Packet::Publish(publish) => self.model.publish(at, &publish),
            Packet::Subscribe(subscribe) => {
                self.model
                    .subscribe(at, subscribe.packet_id.get(), subscribe.filters.iter())
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.model.unsubscribe(at, unsubscribe.filters.iter())
            }
            Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                self.model.landed(at, ack.packet_id.get())
            }
            Packet::Disconnect(disconnect) => {
                self.model
                    .closed(at, disconnect.reason != ReasonCode::SUCCESS, self.now)
            }
            _ => {}
        }
        let verdict = self.call(reactor, |shard, now, port| {
            shard.packet(session, &frame, now, port)
        });
        assert_eq!(
            verdict == Verdict::Closed,
            !self.network.conns[at].held,
            "the verdict says what was done"
        );
        true
    }

    fn server_connects(&mut self, at: usize, client: usize, reactor: usize, body: &[u8]) {
        let connect = Connect::decode(body).expect("clients send what decodes");
        let old = self.model.sessions[client].conn;
        let heard = self.model.sessions[client].heard;
        let expected = self.model.connect(client, at, &connect, self.now);
        let tenant = Scope::of(self.model.prefixes[client]).tenant();
        let identity = Identity {
            tenant: tenant.into(),
            ..Identity::default()
        };
        let newest = self.shards[reactor].store().sessions();
        let newest = newest.map(|id| id.serial).max();
        let attached = self.call(reactor, |shard, now, port| {
            shard.connect(Network::id(at), &connect, &identity, now, port)
        });
        let attached = attached.expect("nobody is refused here");
        self.network.conns[at].session = Some(attached.session);
        if let Some(old) = old {
            assert!(!self.network.conns[old].held, "taken over, but not closed");
        }
        let connack = self.network.conns[at].down.front();
        // Where the disk is waited for, it may come later.
        assert!(connack.is_some() || self.crash == Crash::Power, "a CONNACK");
        let mut stored = self.shards[reactor].store().sessions();
        let stored = stored.find(|id| id.idx == attached.session);
        let present = match connack {
            Some(packet) => packet[2] & 1 == 1,
            None => stored.is_some_and(|id| Some(id.serial) <= newest),
        };
        if connack.is_none() && !present {
            self.model.begun_in_secret(client);
        }
        if !present {
            self.clients[client].forget();
            // A CONNECT that was late took the session from the client's newest connection: what is under way there is of the old session.
            if let Some(newest) = self.clients[client].conn.filter(|newest| *newest != at) {
                self.network.lose_down(newest);
            }
        }
        if self.crash == Crash::Power {
            // What nobody was told may be lost with the power: that a session began, or that it ended.
            self.model.found(client, present, expected, heard);
        } else if let Some(expected) = expected {
            assert_eq!(present, expected, "session present of client {client}");
        }
    }

    pub(crate) fn letter_arrives(&mut self) -> bool {
        let start = self.random.below(self.shards.len() * self.shards.len());
        let Some((from, to)) = self.network.busy_pair(start) else {
            return false;
        };
        for _ in 0..=self.random.below(3) {
            let Some(mail) = self.network.letter(from, to) else {
                break;
            };
            self.call(to, |shard, now, port| shard.mail(mail, now, port));
        }
        true
    }

    pub(crate) fn work(&mut self) -> bool {
        let at = self.random.below(self.shards.len());
        self.shards[at].has_work() && {
            self.call(at, |shard, now, port| shard.work(now, port));
            true
        }
    }

    /// Syncs that were asked for are done.
    pub(crate) fn disks_sync(&mut self) -> bool {
        let mut done = false;
        for shard in &mut self.shards {
            let before = shard.store().synced();
            shard.store_mut().log_mut().complete_sync();
            done |= shard.store().synced() > before;
        }
        done
    }

    pub(crate) fn time_passes(&mut self) {
        let millis = if self.random.percent(3) { 5_000 } else { 40 };
        self.now = Millis(self.now.0 + self.random.next() % millis);
        for at in 0..self.shards.len() {
            self.call(at, |shard, now, port| shard.tick(now, port));
        }
    }

    /// The server finds out about connections that clients have dropped.
    pub(crate) fn notice_losses(&mut self) -> bool {
        let draining = self.draining;
        let lost = |world: &World, at: usize| {
            let conn = &world.network.conns[at];
            conn.held
                && conn.gone
                && (conn.up.is_empty() || conn.paused)
                && (!conn.silent || draining)
        };
        let Some(at) = self.random_conn(lost) else {
            return false;
        };
        let conn = &mut self.network.conns[at];
        let Some(session) = conn.session else {
            conn.held = false;
            return true;
        };
        let (reactor, cause) = (
            conn.reactor.index(),
            if conn.silent {
                CloseCause::KeepAlive
            } else {
                CloseCause::PeerGone
            },
        );
        self.model.step += 1;
        self.model.closed(at, true, self.now);
        self.call(reactor, |shard, now, port| {
            shard.lost(session, Network::id(at), cause, now, port)
        });
        self.network.conns[at].held = false;
        true
    }

    // ---- the clients' side ----

    pub(crate) fn client_reads(&mut self) -> bool {
        let ready = |world: &World, at: usize| {
            let conn = &world.network.conns[at];
            !conn.gone && (!conn.down.is_empty() || !conn.held)
        };
        let Some(at) = self.random_conn(ready) else {
            return false;
        };
        let client = self.network.conns[at].client;
        let Some((bytes, drained)) = self.network.read(at) else {
            // The end of the stream.
            self.network.conns[at].gone = true;
            if self.clients[client].conn == Some(at) {
                self.clients[client].conn = None;
                self.clients[client].online = false;
            }
            return true;
        };
        let (reactor, session) = (
            self.network.conns[at].reactor.index(),
            self.network.conns[at].session,
        );
        if drained && let Some(session) = session {
            self.call(reactor, |shard, now, port| {
                shard.drained(session, now, port)
            });
        }
        if self.clients[client].conn != Some(at) {
            return true;
        }
        let frame = frame::split(&bytes, u32::MAX).unwrap().unwrap();
        let packet = wire::decode(&frame, self.clients[client].version).unwrap();
        match self.clients[client].hear(&packet) {
            Heard::Message {
                topic,
                payload,
                qos,
                retain,
                dup,
                again,
            } => {
                let topic = self.model.scoped(client, &topic);
                let delivered = Delivered {
                    topic: &topic,
                    payload: &payload,
                    qos,
                    retain,
                    dup,
                    id: None,
                };
                self.model.got(client, &delivered, again);
            }
            Heard::Connected { present: true } => {
                let again = self.clients[client].resend();
                self.network.conns[at].up.extend(again);
            }
            _ => {}
        }
        true
    }

    pub(crate) fn client_answers(&mut self) -> bool {
        let count = self.clients.len();
        let start = self.random.below(count);
        let ready = |client: &Client| !client.lazy && client.online && !client.replies.is_empty();
        let Some(at) = (0..count)
            .map(|step| (start + step) % count)
            .find(|at| ready(&self.clients[*at]))
        else {
            return false;
        };
        let conn = self.clients[at].conn.expect("online");
        for _ in 0..=self.random.below(4) {
            if let Some(reply) = self.clients[at].replies.pop_front() {
                self.network.conns[conn].up.push_back(reply);
            }
        }
        true
    }
}
