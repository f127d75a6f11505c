//! What a fleet can be told: plain data, without a thread or a socket in it.
//!
//! A [`FleetPlan`] is what a fleet is, [`Churn`] and [`Storm`] are what happens to its phones, and [`StormCourse`] is how a storm went.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::SECOND;
use crate::ledger::Ledger;
use crate::script::Script;
use crate::sources::Sources;
use crate::tickets::Tickets;

/// What a fleet does. All of it is plain data.
#[derive(Clone, Debug)]
pub struct FleetPlan {
    /// Where the broker listens; several addresses are called in turn.
    pub targets: Vec<SocketAddr>,
    /// The first phone's number.
    pub first: u32,
    /// How many phones.
    pub phones: u32,
    /// How many threads hold them, each with its own table of file descriptors.
    pub threads: usize,
    /// Where they call from.
    pub sources: Sources,
    /// How they introduce themselves.
    pub script: Script,
    /// A connection that isn't ready this long after it was begun has failed.
    pub patience: Duration,
    /// A failed connection is tried again, with back-off and jitter.
    pub retry: bool,
    /// A message that takes longer than this is late.
    pub late: Duration,
    /// Phones ask a lookup where to call; `targets` is then the fallback list that their app was delivered with.
    pub tickets: Option<Tickets>,
}

/// Steady reconnects: a share of all phones each second, in the shape of a mobile network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// This fraction of all phones leaves each second.
    pub fraction_per_second: f64,
    /// How they leave and when they are back.
    pub shape: Shape,
}

/// How phones leave, and when they come back. The weights need no particular sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Weight of those that send DISCONNECT and close.
    pub clean: f64,
    /// Weight of those whose connection is reset.
    pub reset: f64,
    /// Weight of those that fall silent: no FIN, no RST, and no answer to anything.
    pub vanish: f64,
    /// Weight of those that connect again with the same client id while the old connection still stands.
    pub takeover: f64,
    /// The shortest absence.
    pub away_min: Duration,
    /// The longest absence; each is drawn between the two. A takeover has none.
    pub away_max: Duration,
    /// The longest pause between two failed tries. Pauses double from a second up to it, with full jitter.
    pub longest_backoff: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            clean: 0.35,
            reset: 0.30,
            vanish: 0.25,
            takeover: 0.10,
            away_min: Duration::from_millis(200),
            away_max: Duration::from_secs(5),
            longest_backoff: Duration::from_secs(16),
        }
    }
}

impl Default for Churn {
    fn default() -> Self {
        Self {
            fraction_per_second: 0.001,
            shape: Shape::default(),
        }
    }
}

impl Churn {
    /// Nobody leaves any more.
    pub const NONE: Self = Self {
        fraction_per_second: 0.0,
        shape: Shape {
            clean: 1.0,
            reset: 0.0,
            vanish: 0.0,
            takeover: 0.0,
            away_min: Duration::ZERO,
            away_max: Duration::ZERO,
            longest_backoff: Duration::from_secs(16),
        },
    };
}

/// How the phones of a storm leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// With DISCONNECT.
    Clean,
    /// With a reset.
    Reset,
}

/// When the phones of a storm come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// All of them, at the same moment.
    AtOnce,
    /// Each at a random moment within this time.
    Within(Duration),
    /// All phones, whatever the fraction, as soon as the broker takes a connection again: it restarts, and ends the connections itself. Phones
    /// that were away already wait for it too.
    WhenListening,
}

/// Many phones drop at once and come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Storm {
    /// This fraction of the phones.
    pub fraction: f64,
    /// How they leave.
    pub leave: Leave,
    /// When they come back.
    pub back: Back,
}

/// How the last storm went, or goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StormCourse {
    /// When it was ordered, by [`crate::clock::now`].
    pub began: u64,
    /// Phones it took away.
    pub dropped: u64,
    /// Of these, the phones that are ready again.
    pub back: u64,
    /// When the last one of them got ready.
    pub last_back: u64,
    /// Attempts that were refused since it began.
    pub refused: u64,
    /// Every phone has been dropped that should be, and every one of these is back.
    pub over: bool,
}

impl StormCourse {
    /// From its beginning to the last phone that is back.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.last_back.saturating_sub(self.began))
    }

    /// The same in seconds.
    pub fn seconds(&self) -> f64 {
        self.last_back.saturating_sub(self.began) as f64 / SECOND as f64
    }
}

/// What a thread is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Have all phones that are away fetch the tickets that they lack, and do nothing with them yet.
    Collect,
    /// Connect all phones, so many a second over all threads, beginning at that moment.
    Connect { per_second: f64, from: u64 },
    /// Let phones reconnect all the time.
    Churn(Churn),
    /// Drop phones at once; the moment is the one of the order.
    Storm(Storm, u64),
    /// Count what is owed and hasn't come.
    Settle,
    /// Drop all connections and end.
    End,
}

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: FleetPlan,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) settled: AtomicUsize,
    pub(crate) storm: StormAccount,
}

/// The account of the storm under way, written by all threads.
#[derive(Debug, Default)]
pub(crate) struct StormAccount {
    pub(crate) dropped: AtomicU64,
    pub(crate) back: AtomicU64,
    pub(crate) last_back: AtomicU64,
    /// Threads that have dropped all they should.
    pub(crate) threads_done: AtomicUsize,
}

impl StormAccount {
    /// Forgets the storm before.
    pub(crate) fn clear(&self) {
        self.dropped.store(0, Relaxed);
        self.back.store(0, Relaxed);
        self.last_back.store(0, Relaxed);
        self.threads_done.store(0, Relaxed);
    }
}
