//! Routing: one shard's sessions, and the way of a message from a publisher to everybody who should have it.
//!
//! Each reactor owns one [`Shard`]. It is pure: it is driven with packets, mail and `now`, speaks through [`port::Port`], does no I/O, reads no
//! clock, and can be run by a simulation. Every client has one home shard; session, queue, subscriptions and connection live there.
//!
//! A message takes one hop at most: `publish` finds the shards with interest (`topic::interest`, `topic::routes`) and posts to them;
//! each of those finds its own subscribers (`fanout`) and offers the message to their sessions (`deliver`). A QoS 1 or 2 message is
//! acknowledged when everybody who was expected has taken it ([`Message::settle`](crate::session::message::Message::settle)).
//!
//! | file | its idea |
//! |---|---|
//! | `drive` | what comes in: packets, mail, ticks |
//! | `port`, `mail` | what goes out: to its reactor, and to other shards |
//! | `greet` | a first packet, before its home is known |
//! | `connect`, `depart`, `leaving` | sessions begin, are taken over, wait, end; wills; what goes on to others when one has ended |
//! | `ahead` | memory that is asked for early |
//! | `publish`, `acks` | messages from clients, and acknowledgements both ways |
//! | `fanout`, `deliver`, `frames` | to local subscribers, in slices; to one session; encoded once |
//! | `keep`, `stored`, `sending`, `waits`, `restore` | durable sessions: their records; what goes into their queues, and out; what waits for the disk; after a restart |
//! | `doubts` | QoS 2 messages that come again if the server dies, and who had them |
//! | `subscribe`, `groups`, `retained` | SUBSCRIBE and UNSUBSCRIBE; shared subscriptions; retained messages |
//! | `passes`, `tenants` | as whom a session is and what it may do; what its tenant may have |
//! | `system`, `census` | `$SYS`; what a shard holds |

mod acks;
mod ahead;
mod census;
mod connect;
mod deliver;
mod depart;
mod doubts;
mod drive;
mod fanout;
mod frames;
pub mod greet;
mod groups;
mod keep;
mod leaving;
pub mod mail;
mod passes;
pub mod port;
mod publish;
mod restore;
mod retained;
mod sending;
mod stored;
mod subscribe;
mod system;
mod tenants;
mod waits;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;
use hashbrown::HashMap;
use slab::Slab;

use crate::clock::{Millis, Tick};
use crate::config::resolved::Mqtt;
use crate::counters::{AllCounters, Counters};
use crate::ids::{ConnId, ReactorId, SessionId, SessionIdx};
use crate::limits;
use crate::session::Session;
use crate::store::Store;
use crate::sys::prefetch;
use crate::topic::arena::Arena;
use crate::topic::table::Table;
use crate::topic::{
    Entry, FilterId, Index, Marks, Masks, Own, Routes, Scope, TopicHash, TopicHasher,
};
use crate::wheel::{Link, Links, Wheel};
use crate::wire::{ReasonCode, WireError};
use port::CloseCause;

pub use census::Census;
pub use greet::{Greeting, greet, home};
pub use restore::Kept;

/// What all shards of a server see: atomics, what never changes, and little else.
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
    /// Some client is not the default tenant's: whose a session is has to be looked at.
    tenants: AtomicBool,
    all_tenants: tenants::Tenants,
    /// Sessions over all shards, against [`Mqtt::max_sessions`]. What is written at every connect or message has a line of its own, so that whoever
    /// reads the rest doesn't wait for it.
    sessions: CachePadded<AtomicU64>,
    /// Topics on which something was retained.
    retained_marks: Marks,
    retained: AtomicU64,
    retained_bytes: AtomicU64,
    /// Messages in the queues of durable sessions, and their bytes.
    queued: CachePadded<AtomicU64>,
    queued_bytes: CachePadded<AtomicU64>,
    /// Shards that have not loaded the subscriptions of their sessions.
    loading: AtomicUsize,
    /// Messages that their publishers send again if the server dies.
    doubts: CachePadded<doubts::Doubts>,
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
            tenants: AtomicBool::new(false),
            all_tenants: tenants::Tenants::default(),
            sessions: CachePadded::default(),
            retained_marks: Marks::new(topics.clamp(limits::MIN_MASK_ROWS, limits::MAX_MASK_BYTES)),
            retained: AtomicU64::new(0),
            retained_bytes: AtomicU64::new(0),
            queued: CachePadded::default(),
            queued_bytes: CachePadded::default(),
            loading: AtomicUsize::new(0),
            doubts: CachePadded::default(),
            reactors,
        }
    }
}

impl Shared {
    /// What all tenants but the default one have together: connections, subscriptions, bytes in queues.
    pub fn tenants_have(&self) -> (u64, u64, u64) {
        self.all_tenants.sums()
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
    /// The shard has called [`port::Port::close`] and let go of it.
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

/// The sessions of a shard, and where they are.
#[derive(Debug)]
struct Sessions(Slab<Session>, prefetch::List<Session>);

impl Sessions {
    fn with_capacity(capacity: usize) -> Self {
        Self(Slab::with_capacity(capacity), prefetch::List::default())
    }

    fn insert(&mut self, session: Session) -> usize {
        let at = self.0.insert(session);
        self.1 = prefetch::List::with(&self.0[at], at);
        at
    }

    /// A session will be looked at.
    fn expect(&self, idx: SessionIdx) {
        self.1.element(idx.index());
    }
}

/// When a session without a connection is looked at again. Apart from the sessions, for those with a connection have none.
#[derive(Debug)]
struct Timer {
    link: Link,
    session: SessionIdx,
}

/// The timers of a shard. A type of its own, so that the wheel can borrow them alone.
#[derive(Debug, Default)]
struct Timers(Slab<Timer>);

impl Links for Timers {
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
    by_id: Table,
    serial: u32,
    wheel: Wheel,
    timers: Timers,
    /// More of them are due than one slice takes.
    more_due: bool,
    /// Connected clients for which publishers wait, in the order in which they are looked at.
    stalls: VecDeque<(Tick, SessionId, ConnId)>,
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
    frames: frames::Frames,
    sys: system::System,
    keep: keep::Keep,
    passes: passes::Passes,
    tenants: tenants::Locals,
    random: u64,
    slices: Slices,
    /// Deliveries since [`Shard::begin`], and filters and groups found for them.
    delivered: usize,
    spares: publish::Spares,
    scratch: Scratch,
}

/// How much of what takes many turns is done in one.
#[derive(Clone, Copy, Debug)]
pub struct Slices {
    /// Deliveries of a fan-out.
    pub fanout: usize,
    /// Retained messages in a part of an answer.
    pub retained: usize,
    /// Sessions whose subscriptions are loaded after a restart.
    pub load: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Self {
            fanout: limits::FANOUT_SLICE,
            retained: limits::RETAINED_PART,
            load: limits::LOAD_SLICE,
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
    codes: Vec<u8>,
    meta: Vec<u8>,
    due: Vec<u32>,
}

impl Shard {
    /// A shard without sessions, with a store that ends with it. `capacity`: how many sessions to reserve address space for. `seed`: for choices that may be guessed but
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
            sessions: Sessions::with_capacity(capacity),
            ids: Arena::default(),
            by_id: Table::default(),
            serial: 0,
            wheel: Wheel::new(limits::SESSION_WHEEL_BUCKETS, now.tick()),
            timers: Timers::default(),
            more_due: false,
            stalls: VecDeque::new(),
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
            frames: frames::Frames::default(),
            sys: system::System::new(now),
            keep: keep::Keep::new(Store::in_memory(limits::HEAP_STORE_BYTES, seed), false, 0),
            passes: passes::Passes::new(Arc::default()),
            tenants: tenants::Locals::default(),
            random: seed,
            slices: Slices::default(),
            delivered: 0,
            spares: publish::Spares::default(),
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
        self.find_by(self.shared.hasher.hash(client_id), client_id)
    }

    fn find_by(&self, hash: TopicHash, client_id: &str) -> Option<SessionIdx> {
        let found = self.by_id.find(hash, |at| {
            self.ids.get(self.sessions.0[at as usize].client_id) == client_id.as_bytes()
        });
        found.map(SessionIdx)
    }

    fn client_id(&self, idx: SessionIdx) -> &str {
        self.ids.text(self.sessions[idx].client_id)
    }

    /// Whose a session is.
    fn scope(&self, idx: SessionIdx) -> Scope<'_> {
        if self.shared.tenants.load(Ordering::Relaxed) {
            Scope::of(self.client_id(idx))
        } else {
            Scope::DEFAULT
        }
    }

    /// A name that a client has given, as the server has it. None: it is too long.
    fn scoped<'a>(&self, idx: SessionIdx, name: &'a str) -> Option<Cow<'a, str>> {
        self.scope(idx).name(name)
    }

    fn id_of(&self, idx: SessionIdx) -> SessionId {
        SessionId {
            idx,
            serial: self.sessions[idx].serial.get(),
        }
    }

    /// The session, unless it has ended since.
    fn live(&self, id: SessionId) -> Option<SessionIdx> {
        let session = self.sessions.0.get(id.idx.index())?;
        (session.serial.get() == id.serial).then_some(id.idx)
    }

    /// The connection of a session, for the reactor's own checks.
    pub fn connection(&self, idx: SessionIdx) -> Option<ConnId> {
        self.sessions.0.get(idx.index())?.conn()
    }

    /// Panics if the parts of the shard contradict each other.
    pub fn check_invariants(&self) {
        assert_eq!(
            self.by_id.len() + self.keep.leaving.len(),
            self.sessions.0.len(),
            "a session without its client identifier, or the reverse"
        );
        let mut online = 0;
        for (at, session) in &self.sessions.0 {
            let idx = SessionIdx(at as u32);
            assert_ne!(
                self.find(self.client_id(idx)) == Some(idx),
                self.keep.leaving.has(idx),
                "a client identifier leads to another session"
            );
            online += u64::from(session.conn().is_some());
            if let Some(timer) = session.timer() {
                let timer = self.timers.0.get(timer as usize);
                assert_eq!(
                    timer.map(|timer| timer.session),
                    Some(idx),
                    "another's timer"
                );
            } else if let Some(until) = session.until() {
                assert_eq!(
                    until,
                    Tick(u32::MAX),
                    "a session that ends, without a timer"
                );
            }
            let stored = self.keep.store.session(idx);
            assert_eq!(
                stored,
                session.is_durable().then(|| self.id_of(idx)),
                "a durable session that is not in the store, or the reverse"
            );
            if let Some(flow) = &session.flow {
                flow.check_invariants();
                assert!(
                    !session.is_durable() || flow.in_flight() == 0 && flow.queued() == flow.held(),
                    "a durable session's queue is in the store"
                );
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
            self.by_id.len() as u64,
            "sessions drifted"
        );
        self.by_id
            .check_invariants(|at| self.shared.hasher.hash(self.client_id(SessionIdx(at))));
        self.groups.check_invariants();
        self.index.check_invariants();
        self.keep.store.check_invariants();
    }

    /// Lets go of the memory that sessions took which have ended, if none is left; and of buffers that are kept from packet to packet. A small one
    /// that stays keeps a whole page of the allocator, full of what has gone, from going back.
    pub fn give_back(&mut self) {
        self.scratch = Scratch::default();
        self.spares = publish::Spares::default();
        self.fanouts.give_back();
        self.asking.shrink_to_fit();
        self.doomed.shrink_to_fit();
        self.watches.shrink_to_fit();
        self.spreading.shrink_to_fit();
        if self.sessions.0.is_empty() {
            self.sessions = Sessions::with_capacity(self.sessions.0.capacity());
            self.subacks.shrink_to_fit();
            self.ids = Arena::default();
            self.index.give_back();
            self.passes.give_back();
        }
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
