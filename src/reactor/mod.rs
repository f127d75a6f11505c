//! A reactor: one thread that holds connections, drives a shard with what they say, and writes what it answers.
//!
//! It owns its poller, listeners, slots, wheel, outbox and shard, its fd table too where one is too small for all, and shares nothing but
//! mailboxes, hand-over pairs, seats and counters. It knows packets only by their first bytes: what they mean is the shard's business, and the shard never sees a socket.
//!
//! | file | its idea |
//! |---|---|
//! | `turn` | the loop, and the order of work in it |
//! | `accept`, `appetite`, `steering`, `handover`, `lent`, `seats` | a connection comes in, goes home, finds a place or is refused |
//! | `admit` | as whom it comes in |
//! | `serve`, `hear` | from a socket to the shard; from several in a row |
//! | `connections` | what a shard may do with them; closing; deadlines |
//! | `outbox`, `output` | from the shard to the sockets |
//! | `slots`, `token` | 64 bytes a connection; its name towards the poller |
//! | `mailbox` | mail between shards |

pub mod accept;
mod admit;
pub mod appetite;
pub mod connections;
pub mod handover;
mod hear;
pub mod lent;
pub mod mailbox;
pub mod outbox;
mod output;
pub mod seats;
mod serve;
pub mod slots;
pub mod steering;
pub mod token;
pub mod trouble;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll};

use crate::access::throttle::Throttle;
use crate::access::{Access, Identity};
use crate::clock::{Millis, Tick};
use crate::gate::Gate;
use crate::ids::ReactorId;
use crate::limits;
use crate::logs::Logs;
use crate::routing::{Kept, Shard, Shared};
use crate::store::files::OpenError;
use crate::sys;
use crate::sys::pass::{Receiver, Sender};
use accept::{Listener, Pause};
use appetite::Appetite;
use connections::{Connections, Io};
use handover::{ArrivalBuffer, Departures, Letter};
use lent::Lending;
use mailbox::{Mailbox, Post};
use seats::Seats;
use steering::Steering;

/// What the server wants its reactors to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Go on.
    Run,
    /// Say goodbye to everybody, then end.
    Drain,
    /// End.
    Stop,
}

/// What connects the reactors. Everything with a descriptor in it is made before the threads part with their common fd table, and dropped
/// after they have ended.
#[derive(Debug)]
pub struct Lines {
    /// Each reactor's mailbox.
    pub boxes: Arc<[Mailbox<Letter>]>,
    /// Each reactor's pair for handed-over connections: the ends that send.
    pub senders: Arc<[Sender]>,
    /// The ends that receive; each is kept by its reactor alone.
    pub receivers: Vec<Receiver>,
    /// The reactors use one fd table, that of the thread that starts them.
    pub common_table: bool,
    /// Where each has its own, and the kernel allows it: for sockets that one takes out of another's.
    pub loans: Arc<lent::Returns>,
    /// The zero of everybody's clock, by [`sys::clock::nanos`].
    pub epoch: u64,
    /// The same moment in Unix milliseconds, for what outlives the process.
    pub unix_epoch: u64,
    order: AtomicU8,
}

impl Lines {
    /// Lines between so many reactors.
    pub fn new(reactors: usize, common_table: bool) -> io::Result<Self> {
        let mut boxes = Vec::with_capacity(reactors);
        let mut senders = Vec::with_capacity(reactors);
        let mut receivers = Vec::with_capacity(reactors);
        for _ in 0..reactors {
            boxes.push(Mailbox::new(
                limits::MAILBOX_BATCHES,
                sys::wake::Wake::new()?,
            ));
            let (sender, receiver) = sys::pass::pair()?;
            senders.push(sender);
            receivers.push(receiver);
        }
        let lends = !common_table && sys::lend::is_possible(boxes[0].wake().as_raw_fd());
        Ok(Self {
            loans: Arc::new(lent::Returns::new(if lends { reactors } else { 0 })),
            boxes: boxes.into(),
            senders: senders.into(),
            receivers,
            common_table,
            epoch: sys::clock::nanos(),
            unix_epoch: sys::clock::unix_millis(),
            order: AtomicU8::new(Order::Run as u8),
        })
    }

    /// The protocol's time at a moment of the clock.
    fn moment(&self, nanos: u64) -> Millis {
        Millis(nanos.saturating_sub(self.epoch) / 1_000_000)
    }

    /// Tell every reactor.
    pub fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Release);
        for mailbox in self.boxes.iter() {
            mailbox.rouse();
        }
    }

    fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Run,
            1 => Order::Drain,
            _ => Order::Stop,
        }
    }

    /// The descriptors that one reactor's table keeps.
    fn kept_by(&self, me: ReactorId) -> Vec<RawFd> {
        let wakes = self.boxes.iter().map(|mailbox| mailbox.wake().as_raw_fd());
        let senders = self.senders.iter().map(AsRawFd::as_raw_fd);
        wakes
            .chain(senders)
            .chain([self.receivers[me.index()].as_raw_fd()])
            .collect()
    }
}

/// What a reactor is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which one it is.
    pub me: ReactorId,
    /// What connects it to the others.
    pub lines: Arc<Lines>,
    /// What all shards see.
    pub shared: Arc<Shared>,
    /// How many connections there may be.
    pub seats: Arc<Seats>,
    /// Who may come in, and what they may do.
    pub access: Arc<Access>,
    /// Finds out what takes long.
    pub gate: Option<Arc<Gate>>,
    /// Who comes too often, if anybody asks.
    pub throttle: Option<Arc<Throttle>>,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// The core it runs on.
    pub core: Option<usize>,
    /// Connections are steered to the core that they come in on.
    pub steering: Option<Arc<Steering>>,
    /// A seed for its shard.
    pub seed: u64,
    /// Where its log is; none: its store ends with it.
    pub logs: Option<Arc<Logs>>,
    /// What is promised waits for the disk.
    pub disk: bool,
    /// Log each connection.
    pub log_connections: bool,
    /// How long a drain may take.
    pub drain_timeout: Duration,
}

/// Why a reactor can't start.
#[derive(Debug)]
pub enum SetupError {
    /// No fd table of its own.
    Table(io::Error),
    /// It can't be pinned.
    Pin(usize, io::Error),
    /// An address can't be listened on.
    Listen(SocketAddr, io::Error),
    /// No poller, or it does not take what is to be watched.
    Poll(io::Error),
    /// Its log can't be opened.
    Log(OpenError),
}

/// See the module. Made on its own thread.
#[derive(Debug)]
pub struct Reactor {
    me: ReactorId,
    reactors: usize,
    lines: Arc<Lines>,
    shared: Arc<Shared>,
    seats: Arc<Seats>,
    access: Arc<Access>,
    gate: Option<Arc<Gate>>,
    throttle: Option<Arc<Throttle>>,
    /// As whom everybody comes to an open server; made once.
    nobody: Identity,
    poll: Poll,
    listeners: Vec<Listener>,
    pause: Pause,
    departures: Departures,
    lending: Lending,
    arrivals: ArrivalBuffer,
    arrivals_ready: bool,
    arrivals_appetite: Appetite,
    /// What is left of a batch of mail.
    inbox: VecDeque<Letter>,
    shard: Shard,
    io: Io,
    /// The one buffer that sockets are read into.
    buffer: Vec<u8>,
    /// What was read into it and is yet to be handled.
    heard: Vec<hear::Heard>,
    /// Counts the turns.
    turns: u64,
    /// The moment of this turn.
    now: Millis,
    /// Unix milliseconds at the last tick: tokens are held against the clock that others set, too, and it may be set anew.
    unix_millis: u64,
    /// The last tick whose timers were looked at, and whether some were left.
    ticked: Tick,
    timers_left: bool,
    due: Vec<u32>,
    /// Nanoseconds of the longest turn of this tick that met a bound.
    longest_turn: u64,
    /// What was said about the log.
    trouble: trouble::Watch,
    crowd: Crowd,
    drain_timeout: Duration,
    /// How far a drain has come through the slots.
    drained_to: u32,
    drained_at: Tick,
}

/// How many connections there were, to see when they have gone.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    /// The most since memory was last given back.
    most: usize,
    /// There was a crowd, and some of it is left.
    came: bool,
    /// Ticks in which memory is given back yet.
    echoes: u32,
}

impl Reactor {
    /// Set up on the calling thread, which becomes the reactor's: it gets an fd table of its own, if there is none in common, and is pinned.
    pub fn new(setup: Setup) -> Result<Self, SetupError> {
        let me = setup.me;
        let (lines, shared) = (Arc::clone(&setup.lines), Arc::clone(&setup.shared));
        let seats = Arc::clone(&setup.seats);
        if !lines.common_table {
            sys::table::make_own(&lines.kept_by(me)).map_err(SetupError::Table)?;
        }
        if let Some(core) = setup.core {
            sys::affinity::pin(core).map_err(|error| SetupError::Pin(core, error))?;
        }
        let poll = Poll::new().map_err(SetupError::Poll)?;
        let registry = poll.registry();
        let wake = lines.boxes[me.index()].wake().as_raw_fd();
        registry
            .register(&mut SourceFd(&wake), token::WAKE, Interest::READABLE)
            .map_err(SetupError::Poll)?;
        let receiver = lines.receivers[me.index()].as_raw_fd();
        sys::watch::add(&poll, receiver, token::ARRIVALS).map_err(SetupError::Poll)?;
        let mut listeners = Vec::with_capacity(setup.addresses.len());
        for (index, &address) in setup.addresses.iter().enumerate() {
            let defer = limits::DEFER_ACCEPT_SECONDS;
            let listen = || sys::listen::listen(address, limits::LISTEN_BACKLOG, defer);
            let socket = match (&setup.steering, setup.core) {
                (Some(steering), Some(core)) => steering.listen(index, core, listen),
                _ => listen(),
            }
            .map_err(|error| SetupError::Listen(address, error))?;
            let socket = mio::net::TcpListener::from_std(socket);
            sys::watch::add(&poll, socket.as_raw_fd(), token::listener(index))
                .map_err(SetupError::Poll)?;
            listeners.push(Listener {
                socket,
                ready: false,
                appetite: Appetite::default(),
            });
        }
        let capacity = seats.each() as usize;
        let mut shard = open_shard(&setup, &lines, &shared, capacity)?;
        shard.set_access(Arc::clone(&setup.access));
        let now = lines.moment(sys::clock::nanos());
        let registry = registry.try_clone().map_err(SetupError::Poll)?;
        Ok(Self {
            me,
            reactors: lines.boxes.len(),
            trouble: trouble::Watch::new(shard.store().log().trouble()),
            shard,
            io: Io {
                connections: Connections::new(
                    me,
                    Arc::clone(&shared),
                    Arc::clone(&seats),
                    registry,
                    setup.log_connections,
                    now,
                ),
                post: Post::new(Arc::clone(&lines.boxes)),
            },
            departures: Departures::new(Arc::clone(&lines.senders)),
            lending: Lending::new(me, Arc::clone(&lines.loans)),
            arrivals: ArrivalBuffer::new(),
            arrivals_ready: false,
            arrivals_appetite: Appetite::default(),
            inbox: VecDeque::new(),
            buffer: vec![0; limits::READ_BUFFER],
            heard: Vec::with_capacity(limits::HEARD_TOGETHER),
            turns: 0,
            now,
            unix_millis: sys::clock::unix_millis(),
            ticked: now.tick(),
            timers_left: false,
            due: Vec::new(),
            longest_turn: 0,
            crowd: Crowd::default(),
            drain_timeout: setup.drain_timeout,
            drained_to: 0,
            drained_at: now.tick(),
            pause: Pause::default(),
            lines,
            shared,
            seats,
            access: setup.access,
            gate: setup.gate,
            throttle: setup.throttle,
            nobody: Identity::default(),
            poll,
            listeners,
        })
    }

    /// Run until the server orders the end. All reactors have been set up.
    pub fn serve_until_ordered(mut self) {
        self.shard.restored();
        self.run();
    }
}

/// The reactor's shard, with what its log holds.
fn open_shard(
    setup: &Setup,
    lines: &Arc<Lines>,
    shared: &Arc<Shared>,
    capacity: usize,
) -> Result<Shard, SetupError> {
    let (me, seed, shared) = (setup.me, setup.seed, Arc::clone(shared));
    let Some(logs) = &setup.logs else {
        let now = lines.moment(sys::clock::nanos());
        return Ok(Shard::new(me, shared, capacity, seed, now));
    };
    let boxes = Arc::clone(&lines.boxes);
    let wake = move || boxes[me.index()].rouse();
    let found = logs.read(me, wake).map_err(SetupError::Log)?;
    shared.counters.of(me).store_damaged.add(found.losses());
    let now = lines.moment(sys::clock::nanos());
    let kept = Kept::new(found, setup.disk, lines.unix_epoch);
    Ok(Shard::restore(me, shared, capacity, seed, now, kept))
}
