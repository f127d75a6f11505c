//! One thread of phones: a poller, a list of phones, and a loop that does what is due and what has come.
//!
//! Everything planned is open-loop: a connect that is late because this thread was busy still counts its latency from the planned time.
//!
//! Connections end with a reset (`SO_LINGER` 0), also after a DISCONNECT. An orderly end would leave the source port in `TIME_WAIT` for a
//! minute on this side, and a storm would need twice the source addresses; phones that leave the network don't end in order either.

mod connection;
mod delivery;
mod finding;
mod leaving;

pub(crate) use leaving::reset;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::clock::{self, MILLI, SECOND};
use crate::name::Name;
use crate::orders::{Churn, Order, Shared};
use crate::pace::Pace;
use crate::phone::{Phone, Stage};
use crate::stats::{Count, Failure, Tally, locked};

/// Connects that are begun in one turn, so that events are served in between.
const DIALS_PER_TURN: usize = 128;

/// Pings that are sent in one turn.
const PINGS_PER_TURN: usize = 512;

/// How often all threads together look for orders, in nanoseconds: each looks the more seldom the more they are, within these bounds.
const ORDERS_EVERY: u64 = 2 * MILLI;
const ORDERS_BOUNDS: (u64, u64) = (10 * MILLI, 100 * MILLI);

/// Pings that are due within this time leave in one turn.
const PING_GRAIN: u64 = 10 * MILLI;

/// Bytes read at once; one buffer a thread.
const SCRATCH: usize = 64 << 10;

/// A QoS 0 message younger than this, in milliseconds, that hasn't come when its phone leaves was in flight.
const IN_FLIGHT_MILLIS: u32 = 2000;

/// The longest that one of so many threads waits before it looks for orders, in nanoseconds.
pub(crate) fn longest_wait(threads: usize) -> u64 {
    (ORDERS_EVERY * threads as u64).clamp(ORDERS_BOUNDS.0, ORDERS_BOUNDS.1)
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    orders: Receiver<Order>,
    poll: Poll,
    phones: Vec<Phone>,
    /// This thread has the phones `index`, `index + stride` and so on, counted from the fleet's first.
    index: u32,
    stride: u32,
    ramp: Option<Ramp>,
    /// Phones that come back, by time.
    returns: BinaryHeap<Reverse<(u64, u32)>>,
    churn: Churning,
    storm: Option<leaving::Storming>,
    gate: Option<leaving::Gate>,
    /// Which phones a storm took away; empty before the first one.
    in_storm: Vec<bool>,
    /// Connections that phones left without closing them.
    behind: HashMap<u32, Vec<leaving::Behind>>,
    /// Connections in the order they were begun, to find those that aren't ready in time.
    dialled: VecDeque<Dialled>,
    /// The next phone to ping, and when.
    ping: Sweep,
    /// When to look for connections that aren't getting ready.
    next_check: u64,
    rng: fastrand::Rng,
    scratch: Box<[u8]>,
    out: Vec<u8>,
    /// How phones find the server; not there where they call the plan's addresses.
    finding: Option<Box<finding::Finding>>,
    ending: bool,
}

/// The first connect of all phones: when each is planned, and the next one.
struct Ramp {
    pace: Pace,
    next: u32,
}

/// A connection that was begun.
struct Dialled {
    when: u64,
    at: u32,
    generation: u8,
}

/// Steady reconnects.
struct Churning {
    order: Churn,
    since: u64,
    due: f64,
}

/// A walk over all phones that takes one keep alive: every phone is pinged once in it, and the load is flat whatever came before.
struct Sweep {
    next: u32,
    since: u64,
    due: f64,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tally: Arc<Tally>,
        orders: Receiver<Order>,
        index: usize,
        threads: usize,
    ) -> io::Result<Self> {
        let (index, stride) = (index as u32, threads as u32);
        let count = shared.plan.phones.saturating_sub(index).div_ceil(stride);
        let mut phones = Vec::with_capacity(count as usize);
        phones.resize_with(count as usize, Phone::default);
        let mut rng = fastrand::Rng::new();
        let next = if count > 0 { rng.u32(0..count) } else { 0 };
        let now = clock::now();
        let finding = finding::Finding::of(&shared.plan, phones.len(), now).map(Box::new);
        Ok(Self {
            shared,
            tally,
            orders,
            poll: Poll::new()?,
            phones,
            index,
            stride,
            ramp: None,
            returns: BinaryHeap::new(),
            storm: None,
            gate: None,
            in_storm: Vec::new(),
            behind: HashMap::new(),
            dialled: VecDeque::new(),
            churn: Churning {
                order: Churn::NONE,
                since: now,
                due: 0.0,
            },
            ping: Sweep {
                next,
                since: now,
                due: 0.0,
            },
            next_check: now + SECOND,
            rng,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            out: Vec::with_capacity(256),
            finding,
            ending: false,
        })
    }

    /// The number of the phone at an index of the list.
    fn number(&self, at: u32) -> u32 {
        self.shared.plan.first + self.index + at * self.stride
    }

    fn name(&self, at: u32) -> Name {
        Name::of(self.number(at))
    }

    pub(crate) fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            self.take_orders();
            if self.ending {
                return;
            }
            let now = clock::now();
            let wait = self.do_what_is_due(now);
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The poller is this thread's own and well; if it fails, the fleet is broken.
                Err(error) => panic!("epoll_wait: {error}"),
            }
            // The lock is the thread's own but for a reader a few times a second.
            let tally = Arc::clone(&self.tally);
            let mut latency = locked(&tally.latency);
            for event in &events {
                self.event(
                    event.token(),
                    event.is_readable() || event.is_read_closed(),
                    event.is_writable(),
                    event.is_read_closed(),
                    &mut latency,
                );
            }
        }
    }

    fn take_orders(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Collect) => self.collect_tickets(),
                Ok(Order::Connect { per_second, from }) => {
                    let pace = Pace::new(per_second / f64::from(self.stride), from, &mut self.rng);
                    self.ramp = Some(Ramp { pace, next: 0 });
                }
                Ok(Order::Churn(order)) => {
                    self.churn = Churning {
                        order,
                        since: clock::now(),
                        due: 0.0,
                    };
                }
                Ok(Order::Storm(storm, began)) => self.begin_storm(storm, began),
                Ok(Order::Settle) => {
                    self.settle();
                    self.shared.settled.fetch_add(1, Relaxed);
                }
                Ok(Order::End) | Err(TryRecvError::Disconnected) => {
                    self.end();
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// Does what the time demands, a bounded part of it; returns how long nothing more is due.
    fn do_what_is_due(&mut self, now: u64) -> Duration {
        let mut next = now + longest_wait(self.stride as usize);
        next = next.min(self.dial_ramp(now)).min(self.dial_returns(now));
        next = next.min(self.do_churn(now)).min(self.do_storm(now));
        next = next.min(self.send_pings(now)).min(self.ask_lookup(now));
        if now >= self.next_check {
            self.next_check = now + SECOND;
            self.give_up_on_slow(now);
            self.close_behind(now);
        }
        Duration::from_nanos(next.saturating_sub(clock::now()))
    }

    /// Begins the planned connects whose time has come; returns when the next one is due.
    fn dial_ramp(&mut self, now: u64) -> u64 {
        let Some(mut ramp) = self.ramp.take() else {
            return u64::MAX;
        };
        for _ in 0..DIALS_PER_TURN {
            if ramp.next as usize == self.phones.len() {
                return u64::MAX;
            }
            let planned = ramp.pace.next();
            if planned > now {
                break;
            }
            self.set_out(ramp.next, planned);
            ramp.next += 1;
            ramp.pace.advance(&mut self.rng);
        }
        let next = ramp.pace.next();
        self.ramp = Some(ramp);
        next
    }

    /// Begins the connects of phones that come back.
    fn dial_returns(&mut self, now: u64) -> u64 {
        for _ in 0..DIALS_PER_TURN {
            match self.returns.peek() {
                Some(&Reverse((when, _))) if when > now => return when,
                None => return u64::MAX,
                Some(_) => {}
            }
            if let Some(Reverse((when, at))) = self.returns.pop()
                && self.phones[at as usize].stage == Stage::Returning
            {
                self.set_out(at, when);
            }
        }
        now
    }

    /// Pings the phones whose turn has come in the sweep.
    fn send_pings(&mut self, now: u64) -> u64 {
        let keep_alive = f64::from(self.shared.plan.script.keep_alive);
        if keep_alive == 0.0 || self.phones.is_empty() {
            return u64::MAX;
        }
        let per_nano = self.phones.len() as f64 / (keep_alive * SECOND as f64);
        self.ping.due += now.saturating_sub(self.ping.since) as f64 * per_nano;
        self.ping.since = now;
        for _ in 0..PINGS_PER_TURN {
            if self.ping.due < 1.0 {
                break;
            }
            self.ping.due -= 1.0;
            let at = self.ping.next;
            self.ping.next = (at + 1) % self.phones.len() as u32;
            self.ping_one(at, now);
        }
        if self.ping.due >= 1.0 {
            return now;
        }
        let until_one = ((1.0 - self.ping.due) / per_nano) as u64;
        now + until_one.max(PING_GRAIN)
    }

    fn ping_one(&mut self, at: u32, now: u64) {
        let phone = &mut self.phones[at as usize];
        if phone.stage != Stage::Ready {
            return;
        }
        // Once an hour a ping is a microsecond later than it says.
        let micros = NonZeroU32::new((now / 1000) as u32).unwrap_or(NonZeroU32::MAX);
        if phone.pinged.replace(micros).is_some() {
            self.tally.count(Count::PingsUnanswered);
        }
        self.tally.count(Count::Pings);
        self.out.clear();
        self.shared.plan.script.ping(&mut self.out);
        self.send_out(at, now);
    }

    fn give_up_on_slow(&mut self, now: u64) {
        let patience = clock::nanos(self.shared.plan.patience);
        while let Some(oldest) = self.dialled.front()
            && now.saturating_sub(oldest.when) > patience
        {
            let &Dialled { at, generation, .. } = oldest;
            self.dialled.pop_front();
            let phone = &self.phones[at as usize];
            if phone.generation == generation
                && !matches!(
                    phone.stage,
                    Stage::Away | Stage::Returning | Stage::Asking | Stage::Ready
                )
            {
                self.fail(at, Failure::Timeout, now);
            }
        }
    }

    fn end(&mut self) {
        let now = clock::now();
        for at in 0..self.phones.len() as u32 {
            if self.phones[at as usize].stream.is_some() {
                self.hang_up(at, false, now);
            }
        }
        self.ending = true;
    }

    /// The token of a phone's present connection.
    fn token(&self, at: u32) -> Token {
        Token(at as usize | usize::from(self.phones[at as usize].generation) << 32)
    }
}
