//! What the server has promised to whom: followed packet by packet at the moment when a shard reads or writes it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use stillwire::clock::Millis;
use stillwire::topic::matches;
use stillwire::topic::scope::bare;
use stillwire::wire::{Connect, Publish, Qos, ReasonCode, SubscribeOptions, Version};

/// A moment: how many calls the shards have had.
pub(crate) type Step = u64;

/// A message, named by the number in its payload.
pub(crate) struct Message {
    /// None: a will.
    pub(crate) publisher: Option<usize>,
    pub(crate) topic: String,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) expires: bool,
    /// When a shard took it first.
    pub(crate) taken: Option<Step>,
    /// When it was acknowledged with success.
    pub(crate) acked: Option<Step>,
    /// Its publisher sent it twice.
    pub(crate) again: bool,
    /// Deliveries because of a shared subscription.
    pub(crate) shared: usize,
    /// A session that had it ended, so that another member may have got it.
    pub(crate) regrouped: bool,
}

/// A subscription, from SUBSCRIBE to UNSUBSCRIBE.
#[derive(Clone, Debug)]
pub(crate) struct Sub {
    pub(crate) path: String,
    pub(crate) group: Option<String>,
    pub(crate) options: SubscribeOptions,
    pub(crate) from: Step,
    /// The SUBACK was sent.
    pub(crate) granted: Option<Step>,
    pub(crate) until: Option<Step>,
}

/// A message in flight to a client.
pub(crate) struct Flight {
    pub(crate) id: u16,
    pub(crate) number: u32,
    /// The connection on which it was sent last.
    pub(crate) conn: usize,
}

/// What a CONNACK has told a client that no crash may undo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing, or what it has asked for since may have changed.
    #[default]
    Nothing,
    /// It has a session that outlives the connection.
    Has,
    /// It had none, and got none that does.
    None,
}

/// A client's session at the server.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) since: Step,
    pub(crate) exists: bool,
    pub(crate) conn: Option<usize>,
    pub(crate) expiry: u32,
    pub(crate) offline_since: Millis,
    pub(crate) subs: Vec<Sub>,
    /// Sent at least once.
    pub(crate) sent: BTreeSet<u32>,
    pub(crate) live_sent: BTreeSet<u32>,
    /// The server has died since: a message may be sent with DUP that was not sent before.
    pub(crate) crashed: bool,
    /// Its end was lost with the power, so that nothing is known of its subscriptions.
    pub(crate) revived: bool,
    /// Its client has not been told that it has begun.
    pub(crate) secret: bool,
    pub(crate) heard: Heard,
    /// The client has got it.
    pub(crate) got: BTreeSet<u32>,
    pub(crate) got_twice: BTreeMap<u32, u32>,
    pub(crate) flights: Vec<Flight>,
    /// How many of `flights` have been sent again on this connection, for their order.
    pub(crate) cursor: usize,
    /// Last first delivery of each (publisher, topic, QoS as published, QoS as delivered).
    pub(crate) order: HashMap<(usize, String, Qos, Qos), u32>,
    /// The newest live message of each (publisher, topic, QoS as delivered) with RETAIN, and when it was sent.
    pub(crate) live: HashMap<(usize, String, Qos), (u32, Step)>,
    /// Packet identifiers of the client's own messages.
    pub(crate) publishing: HashMap<u16, u32>,
}

impl Session {
    /// Whether a message may come through shared subscriptions of which the model does not know.
    pub(crate) fn may_share(&self, topic: &str) -> bool {
        let plain = |sub: &Sub| sub.group.is_none() && matches(&sub.path, topic);
        let is_inbox = bare(topic).starts_with("$inbox/");
        self.revived && !is_inbox && !self.subs.iter().any(plain)
    }
}

/// A connection as the server sees it.
pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) window: usize,
    pub(crate) will: Option<(u32, u32)>,
    pub(crate) aliases: HashMap<u16, String>,
    /// Acknowledgements owed, by QoS.
    owed: [VecDeque<u16>; 3],
    /// The subscriptions of each SUBSCRIBE without SUBACK, as indices.
    subscribing: HashMap<u16, Vec<usize>>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) messages: Vec<Message>,
    pub(crate) sessions: Vec<Session>,
    /// Subscriptions of sessions that have ended; without an end, if the server may not know of that.
    pub(crate) past: Vec<Sub>,
    pub(crate) links: HashMap<usize, Link>,
    pub(crate) step: Step,
    pub(crate) followed: Option<u32>,
    /// A limit may drop what is acknowledged.
    pub(crate) lossy: bool,
    /// What the server puts before the names of each client, whose tenant that is: here all names have it.
    pub(crate) prefixes: Vec<&'static str>,
}

pub(crate) fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

impl Model {
    /// Prints what happens to the message that `STILLWIRE_FOLLOW` names.
    pub(crate) fn follow(&self, number: u32, what: std::fmt::Arguments<'_>) {
        if self.followed == Some(number) {
            eprintln!("step {}: message {number} {what}", self.step);
        }
    }

    /// A name that a client has given or heard, with its tenant's before it.
    pub(crate) fn scoped(&self, client: usize, name: &str) -> String {
        [self.prefixes[client], name].concat()
    }

    pub(crate) fn message(
        &mut self,
        publisher: Option<usize>,
        topic: &str,
        qos: Qos,
        retain: bool,
        expires: bool,
    ) -> u32 {
        self.messages.push(Message {
            publisher,
            topic: topic.to_owned(),
            qos,
            retain,
            expires,
            taken: None,
            acked: None,
            again: false,
            shared: 0,
            regrouped: false,
        });
        self.messages.len() as u32 - 1
    }

    /// Connections that the server holds, with their clients.
    pub(crate) fn connections(&self) -> Vec<(usize, usize)> {
        let mut all: Vec<_> = self
            .links
            .iter()
            .map(|(conn, link)| (*conn, link.client))
            .collect();
        all.sort_unstable();
        all
    }

    /// The server has died and is back: sessions that outlive their connection go on without one; those that don't are gone.
    /// `power`: what was not synced is lost, and nobody waits for that with wills.
    pub(crate) fn crashed(&mut self, now: Millis, power: bool) {
        for message in &mut self.messages {
            if message.taken.is_some() && message.publisher.is_none() {
                // Nobody was promised that a will arrives.
                message.acked = None;
                message.regrouped = true;
            }
        }
        for (conn, client) in self.connections() {
            let stays = self.sessions[client].expiry > 0;
            if let Some((will, _)) = self.links[&conn].will {
                // Of a session that was to end now, but had outlived a connection before, it may come.
                self.messages[will as usize].taken = Some(self.step);
            }
            self.closed(conn, stays, now);
        }
        let wills = |message: &&mut Message| message.publisher.is_none();
        for will in self.messages.iter_mut().filter(wills).filter(|_| power) {
            // It may come that it was taken back, or published before, is lost; and it may be lost itself.
            (will.taken, will.acked) = (will.taken.or(Some(self.step)), None);
            will.again = true;
        }
        for sub in &mut self.past {
            sub.until = None;
        }
        for session in &mut self.sessions {
            session.crashed = true;
            // The one before it may be back.
            session.revived |= session.secret;
            // An UNSUBACK may not have been sent, and then the subscription is still there.
            session.revived |= power && session.subs.iter().any(|sub| sub.until.is_some());
        }
    }

    fn session_ended(&mut self, client: usize) {
        let session = std::mem::take(&mut self.sessions[client]);
        self.sessions[client].crashed = session.crashed;
        if session.heard == Heard::None {
            self.sessions[client].heard = session.heard;
        }
        if session.expiry == 0 {
            // What it had through a group was in memory alone, and the server may die before another member has it.
            let shared = |message: &&mut Message| {
                let fits = |sub: &Sub| sub.group.is_some() && matches(&sub.path, &message.topic);
                session.subs.iter().any(fits)
            };
            for message in self.messages.iter_mut().filter(shared) {
                message.regrouped = true;
            }
        }
        for number in session.sent {
            self.follow(
                number,
                format_args!("was sent to client {client}, whose session ends"),
            );
            self.messages[number as usize].regrouped = true;
        }
        let ended = session.subs.into_iter().map(|sub| Sub {
            until: sub.until.or(Some(self.step)),
            ..sub
        });
        self.past.extend(ended);
    }

    /// A shard takes a CONNECT. What Session Present has to be, if that is certain.
    pub(crate) fn connect(
        &mut self,
        client: usize,
        conn: usize,
        connect: &Connect<'_>,
        now: Millis,
    ) -> Option<bool> {
        let session = &mut self.sessions[client];
        let mut present = Some(false);
        if session.exists && !connect.clean_start {
            let (left, limit) = (
                now.since(session.offline_since),
                u64::from(session.expiry) * 1000,
            );
            present = match session.conn {
                Some(_) => Some(session.expiry > 0),
                None if left + 10 < limit => Some(true),
                None if left > limit + 10_000 => Some(false),
                None => None,
            };
        }
        if let Some(old) = session.conn {
            self.closed(old, true, now);
        }
        let session = &mut self.sessions[client];
        session.conn = Some(conn);
        session.expiry = match connect.version {
            Version::V5 => connect.session_expiry,
            _ if connect.clean_start => 0,
            _ => u32::MAX,
        };
        // Until it is told.
        session.heard = Heard::Nothing;
        session.cursor = 0;
        session.live.clear();
        self.links.insert(
            conn,
            Link {
                client,
                window: usize::from(connect.receive_maximum),
                will: connect
                    .will
                    .as_ref()
                    .map(|will| (number(will.payload), will.delay)),
                aliases: HashMap::new(),
                owed: Default::default(),
                subscribing: HashMap::new(),
            },
        );
        present
    }

    /// A session has begun, and its client is told later.
    pub(crate) fn begun_in_secret(&mut self, client: usize) {
        self.connected(client, false);
        self.sessions[client].secret = true;
    }

    /// After a power failure a session may be gone of which nobody was told, and one may be back whose end was not synced.
    pub(crate) fn found(
        &mut self,
        client: usize,
        present: bool,
        expected: Option<bool>,
        heard: Heard,
    ) {
        let session = &mut self.sessions[client];
        if expected == Some(true) && !present {
            assert!(
                session.crashed && heard != Heard::Has,
                "the session of client {client} is lost"
            );
        }
        if expected == Some(false) && present {
            assert!(
                session.crashed && heard != Heard::None,
                "a session of client {client} is back"
            );
            // Or its CONNACK was never sent, which is how the model learns of it.
            (session.revived, session.exists, session.since) = (true, true, self.step);
        }
    }

    /// The CONNACK says whether there was a session.
    pub(crate) fn connected(&mut self, client: usize, present: bool) {
        if self.followed.is_some() {
            eprintln!(
                "step {}: client {client} connected present {present}",
                self.step
            );
        }
        let (conn, expiry) = (self.sessions[client].conn, self.sessions[client].expiry);
        if !present {
            self.session_ended(client);
            let session = &mut self.sessions[client];
            (session.conn, session.expiry, session.exists, session.since) =
                (conn, expiry, true, self.step);
        }
    }

    /// A client hears of its session.
    pub(crate) fn told(&mut self, client: usize, present: bool) {
        self.connected(client, present);
        let session = &mut self.sessions[client];
        session.secret = false;
        session.heard = match session.expiry {
            0 if present => Heard::Nothing,
            0 => Heard::None,
            _ => Heard::Has,
        };
    }

    /// The server let go of a connection.
    pub(crate) fn closed(&mut self, conn: usize, with_will: bool, now: Millis) {
        let Some(link) = self.links.remove(&conn) else {
            return;
        };
        if let Some((will, delay)) = link.will {
            let message = &mut self.messages[will as usize];
            if with_will {
                message.taken = Some(self.step);
                if delay == 0 || self.sessions[link.client].expiry == 0 {
                    // Nobody is told when it has arrived: it is due to those who stay.
                    message.acked = Some(Step::MAX);
                }
            }
        }
        let session = &mut self.sessions[link.client];
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        session.offline_since = now;
        if session.expiry == 0 {
            self.session_ended(link.client);
        }
    }

    /// A shard takes a SUBSCRIBE.
    pub(crate) fn subscribe<'a>(
        &mut self,
        conn: usize,
        id: u16,
        filters: impl Iterator<Item = (&'a str, SubscribeOptions)>,
    ) {
        let link = self.links.get_mut(&conn).expect("held");
        let prefix = self.prefixes[link.client];
        let session = &mut self.sessions[link.client];
        let names = link.subscribing.entry(id).or_default();
        for (text, options) in filters {
            let (group, path) = match text.strip_prefix("$share/") {
                Some(rest) => {
                    let (group, path) = rest.split_once('/').unwrap();
                    (Some(group.to_owned()), [prefix, path].concat())
                }
                None => (None, [prefix, text].concat()),
            };
            let mut granted = None;
            for old in &mut session.subs {
                if old.until.is_none() && old.path == path && old.group == group {
                    old.until = Some(self.step);
                    // It goes on without a gap, if nothing about what it promises has changed.
                    let same = old.options.no_local == options.no_local
                        && old.options.qos.min(options.qos) > Qos::AtMostOnce;
                    granted = old.granted.filter(|_| same);
                }
            }
            names.push(session.subs.len());
            session.subs.push(Sub {
                path,
                group,
                options,
                from: self.step,
                granted,
                until: None,
            });
        }
    }

    /// A shard sends a SUBACK.
    pub(crate) fn suback(&mut self, conn: usize, id: u16, codes: &[u8]) {
        let link = self.links.get_mut(&conn).expect("held");
        let names = link.subscribing.remove(&id).expect("a SUBACK for nothing");
        assert_eq!(names.len(), codes.len(), "a code for each filter");
        for (at, code) in names.into_iter().zip(codes) {
            let sub = &mut self.sessions[link.client].subs[at];
            assert!(*code <= 2, "{} was refused with {code:#x}", sub.path);
            sub.granted.get_or_insert(self.step);
        }
    }

    /// A shard takes an UNSUBSCRIBE.
    pub(crate) fn unsubscribe<'a>(&mut self, conn: usize, filters: impl Iterator<Item = &'a str>) {
        let session = &mut self.sessions[self.links[&conn].client];
        for text in filters {
            for sub in &mut session.subs {
                let path = bare(&sub.path);
                let whole = match &sub.group {
                    Some(group) => format!("$share/{group}/{path}"),
                    None => path.to_owned(),
                };
                if whole == text && sub.until.is_none() {
                    sub.until = Some(self.step);
                }
            }
        }
    }

    /// A shard takes a PUBLISH.
    pub(crate) fn publish(&mut self, conn: usize, publish: &Publish<'_>) {
        let number = number(publish.payload);
        let client = self.links[&conn].client;
        self.follow(
            number,
            format_args!(
                "published by client {client} on {} with {:?}, id {:?}, dup {}",
                publish.topic, publish.qos, publish.packet_id, publish.dup
            ),
        );
        let link = self.links.get_mut(&conn).expect("held");
        let message = &mut self.messages[number as usize];
        if message.taken.is_none() {
            message.taken = Some(self.step);
        } else {
            message.again = true;
        }
        if let Some(id) = publish.packet_id {
            link.owed[publish.qos as usize].push_back(id.get());
            self.sessions[link.client]
                .publishing
                .insert(id.get(), number);
        }
    }

    /// A shard sends PUBACK or PUBREC.
    pub(crate) fn acked(&mut self, conn: usize, id: u16, qos: Qos, reason: ReasonCode) {
        let step = self.step;
        let link = self.links.get_mut(&conn).expect("held");
        let first = link.owed[qos as usize].pop_front();
        assert_eq!(
            first,
            Some(id),
            "{qos:?}: acknowledgements leave in the order of the messages"
        );
        let number = self.sessions[link.client].publishing[&id];
        self.follow(number, format_args!("acknowledged with {}", reason.name()));
        if !reason.is_error() {
            self.messages[number as usize].acked.get_or_insert(step);
        }
    }

    /// A shard sends PUBREL.
    pub(crate) fn released(&mut self, conn: usize, id: u16) {
        let session = &mut self.sessions[self.links[&conn].client];
        if let Some(flight) = session.flights.iter_mut().find(|flight| flight.id == id) {
            flight.conn = conn;
        }
    }

    /// A shard takes PUBACK or PUBCOMP.
    pub(crate) fn landed(&mut self, conn: usize, id: u16) {
        let session = &mut self.sessions[self.links[&conn].client];
        if let Some(at) = session.flights.iter().position(|flight| flight.id == id) {
            session.flights.remove(at);
            if at < session.cursor {
                session.cursor -= 1;
            }
        }
    }
}
