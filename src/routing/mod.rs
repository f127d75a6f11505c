//! Routing: one shard's sessions, and the way of a message from a publisher to everybody who should have it.
//!
//! Each reactor owns one [`Shard`]. It is pure: it is driven with packets, mail and `now`, speaks through [`Port`], does no I/O, reads no
//! clock, and can be run by a simulation. Every client has one home shard; session, queue, subscriptions and connection live there.
//!
//! A message takes one hop at most: [`publish`] finds the shards with interest (`topic::interest`, `topic::routes`) and posts to them;
//! each of those finds its own subscribers ([`fanout`]) and offers the message to their sessions ([`deliver`]). A QoS 1 or 2 message is
//! acknowledged when everybody who was expected has taken it ([`Message::settle`]).
//!
//! | file | its idea |
//! |---|---|
//! | `port`, `mail` | what a shard says to its reactor, and to other shards |
//! | `greet` | a first packet, before its home is known |
//! | `connect`, `depart` | sessions begin, are taken over, wait, end; wills |
//! | `publish`, `acks` | messages from clients, and acknowledgements both ways |
//! | `fanout`, `deliver`, `frames` | to local subscribers, in slices; to one session; encoded once |
//! | `subscribe`, `groups`, `retained` | SUBSCRIBE and UNSUBSCRIBE; shared subscriptions; retained messages |
//! | `system`, `census` | `$SYS`; what a shard holds |

mod acks;
mod census;
mod connect;
mod deliver;
mod depart;
mod fanout;
mod frames;
pub mod greet;
mod groups;
pub mod mail;
pub mod port;
mod publish;
mod retained;
mod subscribe;
mod system;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{HashMap, HashTable};
use slab::Slab;

use crate::clock::Millis;
use crate::config::resolved::Mqtt;
use crate::counters::{AllCounters, Counters};
use crate::ids::{ConnId, ReactorId, SessionId, SessionIdx};
use crate::limits;
use crate::session::{Presence, Session};
use crate::topic::arena::Arena;
use crate::topic::{Entry, FilterId, Index, Marks, Masks, Own, Routes, TopicHasher};
use crate::wheel::{Link, Links, Wheel};
use crate::wire::{self, Disconnect, Frame, Packet, PacketType, Publish, ReasonCode, WireError};
use mail::Mail;
use port::{CloseCause, Port};

pub use census::Census;
pub use greet::{Greeting, greet, home};

/// What all shards of a server see: nothing but atomics and what never changes.
#[derive(Debug)]
pub struct Shared {
    /// Which reactors may have a subscriber to an exact topic.
    pub masks: Arc<Masks>,
    /// The hash that every reactor agrees on.
    pub hasher: TopicHasher,
    /// The protocol's limits.
    pub mqtt: Mqtt,
    /// Counters of all reactors.
    pub counters: AllCounters,
    /// Sessions over all shards, against [`Mqtt::max_sessions`].
    sessions: AtomicU64,
    /// Topics on which something was retained.
    retained_marks: Marks,
    retained: AtomicU64,
    retained_bytes: AtomicU64,
    reactors: usize,
}

impl Shared {
    /// `topics`: how many exact topics are expected, which sizes the masks.
    pub fn new(reactors: usize, topics: usize, hasher: TopicHasher, mqtt: Mqtt) -> Self {
        Self {
            masks: Arc::new(Masks::new(reactors, mask_rows(reactors, topics))),
            hasher,
            mqtt,
            counters: AllCounters::new(reactors),
            sessions: AtomicU64::new(0),
            retained_marks: Marks::new(topics.clamp(limits::MIN_MASK_ROWS, limits::MAX_MASK_BYTES)),
            retained: AtomicU64::new(0),
            retained_bytes: AtomicU64::new(0),
            reactors,
        }
    }
}

/// One row a topic, while the table stays small beside what the topics cost.
fn mask_rows(reactors: usize, topics: usize) -> usize {
    let most = limits::MAX_MASK_BYTES * 8 / reactors.next_power_of_two();
    topics.clamp(limits::MIN_MASK_ROWS, most)
}

/// A client that a shard has taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its session; the reactor names it with every packet.
    pub session: SessionIdx,
    /// Seconds; 0: none. The reactor allows one and a half times as much.
    pub keep_alive: u16,
}

/// Whether a connection goes on after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Continue,
    /// The shard has called [`Port::close`] and let go of it.
    Closed,
}

/// The client broke the protocol: what to tell it.
#[derive(Clone, Copy, Debug)]
struct Fault {
    reason: ReasonCode,
    cause: CloseCause,
}

impl Fault {
    const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            cause: CloseCause::Protocol,
        }
    }

    const fn quota() -> Self {
        Self {
            reason: ReasonCode::QUOTA_EXCEEDED,
            cause: CloseCause::Quota,
        }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::new(error.reason())
    }
}

/// The sessions of a shard. A type of its own, so that the wheel can borrow the links alone.
#[derive(Debug)]
struct Sessions(Slab<Session>);

impl Links for Sessions {
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize].link
    }
}

impl std::ops::Index<SessionIdx> for Sessions {
    type Output = Session;

    fn index(&self, idx: SessionIdx) -> &Session {
        &self.0[idx.index()]
    }
}

impl std::ops::IndexMut<SessionIdx> for Sessions {
    fn index_mut(&mut self, idx: SessionIdx) -> &mut Session {
        &mut self.0[idx.index()]
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    me: ReactorId,
    shared: Arc<Shared>,
    sessions: Sessions,
    /// Client identifiers, and the table that finds a session by one.
    ids: Arena,
    by_id: HashTable<u32>,
    serial: u32,
    wheel: Wheel,
    index: Index,
    own: Own,
    routes: Routes,
    groups: groups::Groups,
    retained: retained::Store,
    /// Sessions to which retained messages are being sent, and those of them that go on next.
    watches: HashMap<SessionIdx, retained::Watch>,
    asking: VecDeque<SessionId>,
    ticket: u32,
    /// The last [`Receipt`](crate::session::message::Receipt) given.
    receipts: u32,
    subacks: Slab<subscribe::PendingSuback>,
    /// Wildcard filters that not every shard knows of yet, with how many SUBACKs wait for that.
    spreading: HashMap<Arc<str>, u32>,
    /// Clients that can only be told by closing their connection that a message was refused.
    doomed: Vec<(SessionId, ConnId, Fault)>,
    fanouts: fanout::Fanouts,
    /// Deliveries at once since the last [`Shard::work`].
    spent: usize,
    frames: frames::Frames,
    sys: system::System,
    random: u64,
    slices: Slices,
    scratch: Scratch,
}

/// How much of what takes many turns is done in one.
#[derive(Clone, Copy, Debug)]
pub struct Slices {
    /// Deliveries of a fan-out.
    pub fanout: usize,
    /// Retained messages in a part of an answer.
    pub retained: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Self {
            fanout: limits::FANOUT_SLICE,
            retained: limits::RETAINED_PART,
        }
    }
}

/// Buffers that would otherwise be allocated for each packet. Each is taken, used and put back by one function.
#[derive(Debug, Default)]
struct Scratch {
    matched: Vec<FilterId>,
    entries: Vec<Entry>,
    ids: Vec<u32>,
    packet: Vec<u8>,
    due: Vec<u32>,
}

impl Shard {
    /// A shard without sessions. `capacity`: how many sessions to reserve address space for. `seed`: for choices that may be guessed but
    /// must be spread (assigned client identifiers, members of a group).
    pub fn new(
        me: ReactorId,
        shared: Arc<Shared>,
        capacity: usize,
        seed: u64,
        now: Millis,
    ) -> Self {
        let hasher = shared.hasher.clone();
        Self {
            me,
            sessions: Sessions(Slab::with_capacity(capacity)),
            ids: Arena::default(),
            by_id: HashTable::new(),
            serial: 0,
            wheel: Wheel::new(limits::SESSION_WHEEL_BUCKETS, now.tick()),
            index: Index::new(hasher.clone()),
            own: Own::new(me, Arc::clone(&shared.masks)),
            routes: Routes::new(hasher),
            groups: groups::Groups::default(),
            retained: retained::Store::default(),
            watches: HashMap::new(),
            asking: VecDeque::new(),
            ticket: 0,
            receipts: 0,
            subacks: Slab::new(),
            spreading: HashMap::new(),
            doomed: Vec::new(),
            fanouts: fanout::Fanouts::default(),
            spent: 0,
            frames: frames::Frames::default(),
            sys: system::System::new(now),
            random: seed,
            slices: Slices::default(),
            scratch: Scratch::default(),
            shared,
        }
    }

    /// The same with other slices: small ones let a simulation see what happens between two of them.
    #[must_use]
    pub fn with_slices(mut self, slices: Slices) -> Self {
        self.slices = slices;
        self
    }

    fn counters(&self) -> &Counters {
        self.shared.counters.of(self.me)
    }

    fn mqtt(&self) -> &Mqtt {
        &self.shared.mqtt
    }

    fn reactors(&self) -> usize {
        self.shared.reactors
    }

    /// The other shards.
    fn others(&self) -> impl Iterator<Item = ReactorId> + use<> {
        let me = self.me;
        (0..self.shared.reactors as u16)
            .map(ReactorId)
            .filter(move |reactor| *reactor != me)
    }

    /// A pseudo-random number (`SplitMix64`): spread, not secret.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn find(&self, client_id: &str) -> Option<SessionIdx> {
        let hash = self.shared.hasher.hash(client_id);
        let found = self.by_id.find(hash.0, |&at| {
            self.ids.get(self.sessions.0[at as usize].client_id) == client_id.as_bytes()
        });
        found.map(|&at| SessionIdx(at))
    }

    fn client_id(&self, idx: SessionIdx) -> &str {
        self.ids.text(self.sessions[idx].client_id)
    }

    fn id_of(&self, idx: SessionIdx) -> SessionId {
        SessionId {
            idx,
            serial: self.sessions[idx].serial,
        }
    }

    /// The session, unless it has ended since.
    fn live(&self, id: SessionId) -> Option<SessionIdx> {
        let session = self.sessions.0.get(id.idx.index())?;
        (session.serial == id.serial).then_some(id.idx)
    }

    /// Handles one packet of an attached client.
    pub fn packet(
        &mut self,
        idx: SessionIdx,
        frame: &Frame<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Verdict {
        if !self.doomed.is_empty() {
            let session = self.id_of(idx);
            self.expel_doomed(now, port);
            if self.live(session).is_none() || self.sessions[idx].conn().is_none() {
                return Verdict::Closed;
            }
        }
        self.counters().packets_in.add(1);
        let version = self.sessions[idx].version;
        let done = if frame.packet_type() == Some(PacketType::Publish) {
            // By far the most frequent: past the large enum of all packets.
            match Publish::decode(frame, version) {
                Ok(publish) => self.publish(idx, &publish, now, port),
                Err(error) => Err(error.into()),
            }
        } else if frame.packet_type() == Some(PacketType::Connect) {
            // A second one, whatever it says (MQTT-3.1.0-2): its own errors have codes that a DISCONNECT doesn't know.
            Err(Fault::new(ReasonCode::PROTOCOL_ERROR))
        } else {
            match wire::decode(frame, version) {
                Ok(packet) => match self.control(idx, &packet, now, port) {
                    Ok(Verdict::Continue) => Ok(()),
                    Ok(Verdict::Closed) => return Verdict::Closed,
                    Err(fault) => Err(fault),
                },
                Err(error) => Err(error.into()),
            }
        };
        match done {
            Ok(()) => Verdict::Continue,
            Err(fault) => {
                self.expel(idx, fault, now, port);
                Verdict::Closed
            }
        }
    }

    /// Any packet but PUBLISH.
    fn control(
        &mut self,
        idx: SessionIdx,
        packet: &Packet<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<Verdict, Fault> {
        match packet {
            Packet::Pingreq => self.send(idx, &PINGRESP, port),
            Packet::Puback(ack) => self.puback(idx, ack, now, port)?,
            Packet::Pubrec(ack) => self.pubrec(idx, ack, now, port)?,
            Packet::Pubrel(ack) => self.pubrel(idx, ack, port),
            Packet::Pubcomp(ack) => self.pubcomp(idx, ack, now, port)?,
            Packet::Subscribe(subscribe) => self.subscribe(idx, subscribe, now, port)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(idx, unsubscribe, port),
            Packet::Disconnect(disconnect) => return self.disconnect(idx, disconnect, now, port),
            // A second CONNECT, AUTH without a method in CONNECT, and packets that only a server sends.
            Packet::Connect(_)
            | Packet::Auth(_)
            | Packet::Connack(_)
            | Packet::Publish(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => return Err(Fault::new(ReasonCode::PROTOCOL_ERROR)),
        }
        Ok(Verdict::Continue)
    }

    /// The reactor found bytes that are no packet.
    pub fn fault(&mut self, idx: SessionIdx, error: WireError, now: Millis, port: &mut impl Port) {
        self.expel(idx, error.into(), now, port);
    }

    /// Tells the client why (MQTT 5) and closes; the will is published.
    fn expel(&mut self, idx: SessionIdx, fault: Fault, now: Millis, port: &mut impl Port) {
        self.counters().protocol_errors.add(1);
        if let Some(conn) = self.sessions[idx].conn() {
            self.send_disconnect(idx, fault.reason, port);
            port.close(conn, fault.cause);
            self.detach(idx, true, now, port);
        }
    }

    /// Expels a client soon: whoever calls may be in the middle of something with this very session, and one expulsion may lead to the
    /// next. It gets no acknowledgement until then.
    fn doom(&mut self, idx: SessionIdx, fault: Fault) {
        if let Some(conn) = self.sessions[idx].conn() {
            self.sessions[idx].flow_mut().receipts.disconnected();
            self.doomed.push((self.id_of(idx), conn, fault));
        }
    }

    fn expel_doomed(&mut self, now: Millis, port: &mut impl Port) {
        for (session, conn, fault) in std::mem::take(&mut self.doomed) {
            if let Some(idx) = self.live(session)
                && self.sessions[idx].conn() == Some(conn)
            {
                self.expel(idx, fault, now, port);
            }
        }
    }

    /// Queues a packet that is not a PUBLISH.
    fn send(&self, idx: SessionIdx, packet: &[u8], port: &mut impl Port) {
        if let Some(conn) = self.sessions[idx].conn() {
            self.counters().packets_out.add(1);
            port.send(conn, packet);
        }
    }

    /// DISCONNECT is the server's to send in MQTT 5 alone (section 3.14).
    fn send_disconnect(&mut self, idx: SessionIdx, reason: ReasonCode, port: &mut impl Port) {
        let session = &self.sessions[idx];
        if !session.is_v5() {
            return;
        }
        let packet = Disconnect {
            reason,
            reason_string: session.wants_reasons().then(|| reason.name()),
            ..Disconnect::default()
        };
        let mut out = std::mem::take(&mut self.scratch.packet);
        out.clear();
        packet.encode(session.version, &mut out);
        if out.len() <= session.max_packet as usize {
            self.send(idx, &out, port);
        }
        self.scratch.packet = out;
    }

    /// A letter from another shard.
    pub fn mail(&mut self, mail: Mail, now: Millis, port: &mut impl Port) {
        match mail {
            Mail::Publish(message) => self.fan_out(message, now, port),
            Mail::Inbox(message) => self.inbox(&message, now, port),
            Mail::Group { message, key, hops } => {
                self.group_message(&message, &key, hops, now, port);
            }
            Mail::Settled {
                session,
                receipt,
                outcome,
            } => self.settled(session, receipt, outcome, port),
            Mail::Interest {
                path,
                from,
                wanted,
                known,
            } => {
                if wanted {
                    self.routes.add(&path, from);
                } else {
                    self.routes.remove(&path, from);
                }
                self.now_known(known, now, port);
            }
            Mail::Members {
                key,
                from,
                online,
                offline,
                known,
            } => {
                self.routes.set_group(&key, from, online, offline);
                self.now_known(known, now, port);
            }
            Mail::Known { suback } => self.suback_ready(suback, now, port),
            Mail::Retain(message) => self.retain(&message, port),
            Mail::RetainedQuery {
                path,
                after,
                from,
                query,
            } => {
                let (messages, resume) =
                    self.retained
                        .part(&path, after.as_deref(), self.slices.retained, now);
                port.post(
                    from,
                    Mail::RetainedPart {
                        query,
                        messages,
                        resume,
                    },
                );
            }
            Mail::RetainedPart {
                query,
                messages,
                resume,
            } => self.retained_part(query, &messages, resume, now, port),
        }
    }

    /// The connection's unwritten bytes fell under half of their limit: its queue goes on.
    pub fn drained(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        self.pump(idx, now, port);
    }

    /// Once a tick: sessions end, wills become due, counts are told.
    pub fn tick(&mut self, now: Millis, port: &mut impl Port) {
        self.frames.forget();
        let mut due = std::mem::take(&mut self.scratch.due);
        due.clear();
        self.wheel.expire(
            &mut self.sessions,
            now.tick(),
            limits::SESSION_TIMERS,
            &mut due,
        );
        for at in due.drain(..) {
            self.session_due(SessionIdx(at), now, port);
        }
        self.scratch.due = due;
        self.tell_members(port);
        self.sweep_retained(now);
        self.publish_sys(now, port);
    }

    /// One slice of the work that is too long for one turn. True: there is more.
    pub fn work(&mut self, now: Millis, port: &mut impl Port) -> bool {
        self.spent = 0;
        self.expel_doomed(now, port);
        let asking = self.ask_next(now, port);
        let fanning_out = self.fan_out_slice(now, port);
        fanning_out || asking || !self.doomed.is_empty()
    }

    /// True if this turn has delivered as much as one should: what is not urgent waits for the next.
    pub fn is_spent(&self) -> bool {
        self.spent >= limits::SPENT_PER_TURN
    }

    /// True if [`Shard::work`] has something to do.
    pub fn has_work(&self) -> bool {
        !self.fanouts.is_empty() || !self.asking.is_empty() || !self.doomed.is_empty()
    }

    /// The server ends: DISCONNECT 0x8B, the connection is closed, the will is not published.
    pub fn shutdown(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        if let Some(conn) = self.sessions[idx].conn() {
            self.send_disconnect(idx, ReasonCode::SERVER_SHUTTING_DOWN, port);
            port.close(conn, CloseCause::ServerShutdown);
            self.detach(idx, false, now, port);
        }
    }

    /// The connection of a session, for the reactor's own checks.
    pub fn connection(&self, idx: SessionIdx) -> Option<ConnId> {
        self.sessions.0.get(idx.index())?.conn()
    }

    /// Panics if the parts of the shard contradict each other.
    pub fn check_invariants(&self) {
        assert_eq!(
            self.by_id.len(),
            self.sessions.0.len(),
            "a session without its client identifier, or the reverse"
        );
        let mut online = 0;
        for (at, session) in &self.sessions.0 {
            let idx = SessionIdx(at as u32);
            assert_eq!(
                self.find(self.client_id(idx)),
                Some(idx),
                "a client identifier leads to another session"
            );
            online += u64::from(session.conn().is_some());
            if let Presence::Offline { .. } = session.presence {
                assert!(
                    session.expiry > 0,
                    "a session that should have ended with its connection"
                );
            }
            if let Some(flow) = &session.flow {
                flow.check_invariants();
                assert!(
                    flow.held() == 0 || session.conn().is_some(),
                    "publishers wait for an offline session"
                );
            }
        }
        assert_eq!(
            self.counters().sessions_online.get(),
            online,
            "sessions_online drifted"
        );
        assert_eq!(
            self.counters().sessions.get(),
            self.sessions.0.len() as u64,
            "sessions drifted"
        );
        self.groups.check_invariants();
        self.index.check_invariants();
    }

    fn take_session_place(&self) -> bool {
        let limit = u64::from(self.mqtt().max_sessions);
        let taken =
            self.shared
                .sessions
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                    (count < limit).then_some(count + 1)
                });
        taken.is_ok()
    }

    fn give_session_place(&self) {
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

const PINGRESP: [u8; 2] = [0xD0, 0];
