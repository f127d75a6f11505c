//! The other side of a push: a thread with a few connections that publishes at planned times.
//!
//! It sleeps until the next message is due and writes each one alone, so that the broker sees them as separate publishers would send
//! them. All messages to one phone leave through the same connection: order holds per publisher and topic. At QoS 1 at most `WINDOW`
//! messages wait for their PUBACK on a connection; what is due beyond that waits its turn, and its latency counts from the planned time.

mod link;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use stillwire::wire::Version;

use crate::clock::{self, MILLI, SECOND};
use crate::ledger::Ledger;
use crate::pace::Pace;
use crate::payload::Kind;
use crate::tickets::{AskError, Tickets};
use link::Link;

/// Unacknowledged QoS 1 messages on one connection. Brokers commonly allow 20 and more.
pub(crate) const WINDOW: usize = 20;

/// The longest sleep while nothing is due: acknowledgements and orders wait no longer.
const LONGEST_SLEEP: u64 = MILLI;

/// What publishers are and where they call.
#[derive(Clone, Debug)]
pub struct PublisherPlan {
    /// Where the broker listens.
    pub targets: Vec<SocketAddr>,
    /// How many connections.
    pub connections: usize,
    /// MQTT 3.1.1 or 5.
    pub version: Version,
    /// Bytes of a payload; at least [`crate::payload::HEADER`].
    pub payload: usize,
    /// Seeds the choice of phones.
    pub seed: u64,
    /// Publishers have tickets too: where phones need them, they do.
    pub tickets: Option<Tickets>,
}

/// A paced stream of messages.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// To whom, at which QoS.
    pub kind: Kind,
    /// Messages a second.
    pub per_second: f64,
    /// How many at most.
    pub count: u64,
}

#[derive(Debug)]
enum Order {
    Run(Stream),
    Stop,
}

/// What the publisher did, for whoever watches.
#[derive(Debug, Default)]
struct Progress {
    published: [AtomicU64; 3],
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// Messages that should be out but wait for a window or a socket.
    waiting: AtomicU64,
    /// Orders taken, to tell "idle" from "not begun".
    taken: AtomicU64,
    idle: AtomicBool,
    broken: AtomicBool,
}

/// The publishing thread. Dropping it ends it.
#[derive(Debug)]
pub struct Publisher {
    orders: Option<Sender<Order>>,
    given: u64,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<(), PublishError>>>,
}

/// Why publishing failed.
#[derive(Debug)]
pub enum PublishError {
    /// A connection couldn't be made, or was lost.
    Connection(io::Error),
    /// The broker closed it.
    Closed,
    /// The lookup gives it no ticket.
    NoTicket(AskError),
    /// The broker doesn't let the publisher in; the CONNACK's reason code.
    NotAccepted(u8),
    /// What came isn't MQTT, or not what belongs here.
    Protocol,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "the publisher's connection: {error}"),
            Self::NoTicket(error) => write!(f, "the publisher gets no ticket: {error}"),
            Self::Closed => f.write_str("the broker closed the publisher's connection"),
            Self::NotAccepted(code) => {
                write!(f, "the broker refused the publisher with 0x{code:02x}")
            }
            Self::Protocol => {
                f.write_str("the broker sent the publisher something that doesn't belong there")
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl Publisher {
    /// Connects, and waits for orders.
    pub fn start(plan: &PublisherPlan, ledger: Arc<Ledger>) -> Result<Self, PublishError> {
        let progress = Arc::new(Progress::default());
        let (orders, inbox) = channel();
        let (tell, told) = channel();
        let (plan, own) = (plan.clone(), Arc::clone(&progress));
        let thread = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || {
                let links = connect_all(&plan, &ledger);
                let mut worker = match links {
                    Ok(links) => Worker::new(links, plan, ledger, own, inbox),
                    Err(error) => {
                        let _heard = tell.send(());
                        return Err(error);
                    }
                };
                drop(tell);
                let result = worker.run();
                worker.progress.broken.store(result.is_err(), Relaxed);
                result
            })
            .map_err(PublishError::Connection)?;
        let failed = told.recv().is_ok();
        let publisher = Self {
            orders: Some(orders),
            given: 0,
            progress,
            thread: Some(thread),
        };
        if failed {
            Err(publisher.finish().err().unwrap_or(PublishError::Protocol))
        } else {
            Ok(publisher)
        }
    }

    fn order(&mut self, order: Order) {
        self.given += 1;
        if let Some(orders) = &self.orders {
            // A thread that is gone has left its error for finish().
            drop(orders.send(order));
        }
    }

    /// Adds a stream of messages, to begin now.
    pub fn run(&mut self, stream: Stream) {
        self.order(Order::Run(stream));
    }

    /// One message to all, now.
    pub fn broadcast(&mut self) {
        self.run(Stream {
            kind: Kind::Broadcast,
            per_second: f64::INFINITY,
            count: 1,
        });
    }

    /// Ends all streams. What was due is still sent.
    pub fn stop(&mut self) {
        self.order(Order::Stop);
    }

    /// Everything that was ordered is sent and, at QoS 1, acknowledged.
    pub fn is_idle(&self) -> bool {
        self.progress.taken.load(Relaxed) == self.given && self.progress.idle.load(Relaxed)
    }

    /// The connection was lost; [`Publisher::finish`] says why.
    pub fn is_broken(&self) -> bool {
        self.progress.broken.load(Relaxed)
    }

    /// Messages published of one kind.
    pub fn published(&self, kind: Kind) -> u64 {
        self.progress.published[kind as usize].load(Relaxed)
    }

    /// Messages published of all kinds.
    pub fn published_in_all(&self) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.published(kind)).sum()
    }

    /// PUBACKs received.
    pub fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Relaxed)
    }

    /// PUBACKs with an error in them (MQTT 5).
    pub fn refused(&self) -> u64 {
        self.progress.refused.load(Relaxed)
    }

    /// Messages that should be out but wait for an acknowledgement or the socket.
    pub fn waiting(&self) -> u64 {
        self.progress.waiting.load(Relaxed)
    }

    /// Ends it, and says what went wrong if something did.
    pub fn finish(mut self) -> Result<(), PublishError> {
        self.orders = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // It panicked, and the panic hook has said where.
            Some(Err(_)) => Err(PublishError::Protocol),
            None => Ok(()),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Whoever wants the result calls finish().
            drop(thread.join());
        }
    }
}

fn connect_all(plan: &PublisherPlan, ledger: &Ledger) -> Result<Vec<Link>, PublishError> {
    // Its own table, so that no phone's thread can take its descriptors away by copying them.
    crate::sys::unshare_files().map_err(PublishError::Connection)?;
    (0..plan.connections.max(1))
        .map(|index| {
            // Unlike that of another part of the run, on this machine or another.
            let (first, _) = ledger.phones();
            let id = format!("publisher-{}-{first}-{index}", std::process::id());
            let mut target = plan.targets[index % plan.targets.len()];
            let mut token = None;
            if let Some(tickets) = &plan.tickets {
                let answer = tickets.fetch(&id).map_err(PublishError::NoTicket)?;
                if let Some(endpoint) = answer.route.choose(index as u32, 0) {
                    target = endpoint.addr;
                }
                token = answer.token;
            }
            let user = plan.tickets.as_ref().map_or("", Tickets::user);
            let credentials = token.as_deref().map(|token| (user, token));
            Link::connect(target, plan.version, &id, credentials)
        })
        .collect()
}

/// A stream under way.
struct Running {
    stream: Stream,
    pace: Pace,
    /// When it was told to stop: what was planned until then is still to be sent.
    until: u64,
}

impl Running {
    fn is_over(&self) -> bool {
        self.stream.count == 0 || self.pace.next() > self.until
    }
}

struct Worker {
    links: Vec<Link>,
    plan: PublisherPlan,
    ledger: Arc<Ledger>,
    progress: Arc<Progress>,
    orders: Receiver<Order>,
    running: Vec<Running>,
    rng: fastrand::Rng,
}

impl Worker {
    fn new(
        links: Vec<Link>,
        plan: PublisherPlan,
        ledger: Arc<Ledger>,
        progress: Arc<Progress>,
        orders: Receiver<Order>,
    ) -> Self {
        let rng = fastrand::Rng::with_seed(plan.seed);
        Self {
            links,
            plan,
            ledger,
            progress,
            orders,
            running: Vec::new(),
            rng,
        }
    }

    fn run(&mut self) -> Result<(), PublishError> {
        loop {
            if !self.take_orders() {
                return Ok(());
            }
            let now = clock::now();
            let next = self.publish_what_is_due(now)?;
            let mut waiting = 0;
            for link in &mut self.links {
                let acks = link.work(&self.ledger, self.plan.payload)?;
                self.progress
                    .acknowledged
                    .fetch_add(acks.acknowledged, Relaxed);
                self.progress.refused.fetch_add(acks.refused, Relaxed);
                waiting += link.waiting();
            }
            self.progress.waiting.store(waiting as u64, Relaxed);
            self.progress.idle.store(
                self.running.is_empty() && self.links.iter().all(Link::is_idle),
                Relaxed,
            );
            let sleep = next.saturating_sub(clock::now()).min(LONGEST_SLEEP);
            if sleep > 0 {
                std::thread::sleep(Duration::from_nanos(sleep));
            }
        }
    }

    /// False: the owner is gone.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(order) => {
                    self.progress.idle.store(false, Relaxed);
                    match order {
                        Order::Run(stream) => {
                            let pace = Pace::new(stream.per_second, clock::now(), &mut self.rng);
                            self.running.push(Running {
                                stream,
                                pace,
                                until: u64::MAX,
                            });
                        }
                        Order::Stop => {
                            let now = clock::now();
                            for running in &mut self.running {
                                running.until = running.until.min(now);
                            }
                        }
                    }
                    self.progress.taken.fetch_add(1, Relaxed);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Returns when the next message is due.
    fn publish_what_is_due(&mut self, now: u64) -> Result<u64, PublishError> {
        let mut next = now + SECOND;
        let mut index = 0;
        while index < self.running.len() {
            // A stream that fell behind catches up in pieces, so that acknowledgements are read in between.
            for _ in 0..64 {
                let running = &mut self.running[index];
                if running.is_over() || running.pace.next() > now {
                    break;
                }
                let Running { stream, pace, .. } = running;
                let planned = pace.next();
                let kind = stream.kind;
                stream.count -= 1;
                pace.advance(&mut self.rng);
                self.publish(kind, planned)?;
            }
            if self.running[index].is_over() {
                self.running.swap_remove(index);
            } else {
                next = next.min(self.running[index].pace.next());
                index += 1;
            }
        }
        Ok(next)
    }

    fn publish(&mut self, kind: Kind, planned: u64) -> Result<(), PublishError> {
        self.progress.published[kind as usize].fetch_add(1, Relaxed);
        let (first, phones) = self.ledger.phones();
        let phone = if kind == Kind::Broadcast {
            0
        } else {
            first + self.rng.u32(0..phones)
        };
        let index = phone as usize % self.links.len();
        self.links[index].publish(kind, phone, planned, &self.ledger, self.plan.payload)
    }
}
