//! The phones of one run: some threads that hold them, and what the rest of the program can ask of them.

use std::cell::Cell;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed},
};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use crate::clock;
use crate::driver::{Driver, longest_wait};
use crate::ledger::Ledger;
use crate::orders::{Order, Shared, StormAccount};
use crate::stats::{Failure, Latencies, Tally, Totals, locked};

pub use crate::orders::{Back, Churn, FleetPlan, Leave, Shape, Storm, StormCourse};

/// Phones at work. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    tallies: Vec<Arc<Tally>>,
    /// What [`Fleet::drain`] took from the tallies.
    drained: Mutex<Latencies>,
    orders: Vec<Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
    /// When the last storm was ordered, and how many attempts had been refused until then.
    storm: Cell<Option<(u64, u64)>>,
}

/// Why a fleet didn't start.
#[derive(Debug)]
pub enum FleetError {
    /// A thread couldn't be made, or not be given its own table or poller.
    Thread(io::Error),
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Thread(error) = self;
        write!(f, "a generator thread didn't start: {error}")
    }
}

impl std::error::Error for FleetError {}

impl Fleet {
    /// Starts the threads. No phone connects before [`Fleet::connect`]; all memory of the phones is touched when this returns.
    pub fn start(plan: FleetPlan, ledger: Arc<Ledger>) -> Result<Self, FleetError> {
        let shared = Arc::new(Shared {
            plan,
            ledger,
            settled: AtomicUsize::new(0),
            storm: StormAccount::default(),
        });
        let count = shared.plan.threads.max(1);
        // Nobody opens a socket before everybody has a table of his own: a copied table would keep the socket open.
        let unshared = Arc::new(Barrier::new(count + 1));
        let mut fleet = Self {
            shared,
            tallies: Vec::new(),
            drained: Mutex::default(),
            orders: Vec::new(),
            threads: Vec::new(),
            storm: Cell::new(None),
        };
        let mut results = Vec::new();
        for index in 0..count {
            let (orders, inbox) = channel();
            let (tell, told) = channel();
            let (shared, tally) = (Arc::clone(&fleet.shared), Arc::new(Tally::default()));
            let (barrier, own) = (Arc::clone(&unshared), Arc::clone(&tally));
            let thread = std::thread::Builder::new()
                .name(format!("phones-{index}"))
                .spawn(move || {
                    let driver = crate::sys::unshare_files()
                        .and_then(|()| Driver::new(shared, own, inbox, index, count));
                    barrier.wait();
                    match driver {
                        Ok(mut driver) => {
                            drop(tell);
                            driver.run();
                        }
                        // Without a listener the fleet has given up already.
                        Err(error) => drop(tell.send(error)),
                    }
                });
            fleet.threads.push(thread.map_err(FleetError::Thread)?);
            fleet.tallies.push(tally);
            fleet.orders.push(orders);
            results.push(told);
        }
        unshared.wait();
        match results.iter().find_map(|told| told.recv().ok()) {
            Some(error) => Err(FleetError::Thread(error)),
            None => Ok(fleet),
        }
    }

    fn order(&self, order: Order) {
        for thread in &self.orders {
            // A thread only goes when it is told to, so there is somebody to hear it.
            let _heard = thread.send(order);
        }
    }

    /// All phones fetch their first tickets, as fast as the lookup gives them, and call later: [`Fleet::connect`] then finds them with tickets
    /// in hand. [`Count::Tickets`](crate::stats::Count::Tickets) tells how many have one. Without a lookup nothing happens.
    pub fn collect_tickets(&self) {
        self.order(Order::Collect);
    }

    /// Connects all phones at this rate, open-loop.
    pub fn connect(&self, per_second: f64) {
        self.order(Order::Connect {
            per_second,
            // By then every thread has heard of it.
            from: clock::now() + longest_wait(self.threads.len()) + 2 * clock::MILLI,
        });
    }

    /// From now on phones leave and come back like this; [`Churn::NONE`] ends it. Those that are away still come back.
    pub fn churn(&self, churn: Churn) {
        self.order(Order::Churn(churn));
    }

    /// Drops many phones at once. One storm at a time: the account of an earlier one is lost.
    pub fn storm(&self, storm: Storm) {
        let now = clock::now();
        self.shared.storm.clear();
        self.storm
            .set(Some((now, self.totals().failures_of(Failure::Refused))));
        self.order(Order::Storm(storm, now));
    }

    /// How the last storm went or goes, if there was one.
    pub fn last_storm(&self) -> Option<StormCourse> {
        let (began, refused) = self.storm.get()?;
        let account = &self.shared.storm;
        // Read in this order: a phone that is back was dropped before, and none is dropped after its thread is done.
        let done = account.threads_done.load(Acquire) == self.threads.len();
        let back = account.back.load(Relaxed);
        let dropped = account.dropped.load(Relaxed);
        Some(StormCourse {
            began,
            dropped,
            back,
            last_back: account.last_back.load(Relaxed),
            refused: self.totals().failures_of(Failure::Refused) - refused,
            over: done && back == dropped,
        })
    }

    /// Counts what every phone is owed and hasn't got as missing. To be called once, when nothing more is on its way.
    pub fn settle(&self) {
        self.order(Order::Settle);
        while self.shared.settled.load(Relaxed) < self.threads.len()
            && self.threads.iter().all(|t| !t.is_finished())
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        Totals::of(self.tallies.iter().map(AsRef::as_ref))
    }

    /// All latencies recorded so far.
    pub fn latencies(&self) -> Latencies {
        let mut sum = locked(&self.drained).clone();
        for tally in &self.tallies {
            sum.add(&locked(&tally.latency));
        }
        sum
    }

    /// What was recorded since the last time this was asked.
    pub fn drain(&self) -> Latencies {
        let mut recent = Latencies::default();
        for tally in &self.tallies {
            let mut latency = locked(&tally.latency);
            recent.add(&latency);
            latency.clear();
        }
        locked(&self.drained).add(&recent);
        recent
    }

    /// Forgets the latencies, so that the next phase is recorded alone.
    pub fn clear_latencies(&self) {
        locked(&self.drained).clear();
        for tally in &self.tallies {
            locked(&tally.latency).clear();
        }
    }

    /// What the fleet was told.
    pub fn plan(&self) -> &FleetPlan {
        &self.shared.plan
    }

    /// What was published to it.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.order(Order::End);
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed by the panic hook.
            drop(thread.join());
        }
    }
}
