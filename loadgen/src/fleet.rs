//! The phones of one run: some threads that hold them, and what the rest of the program can ask of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use crate::driver::Driver;
use crate::ledger::Ledger;
use crate::script::Script;
use crate::sources::Sources;
use crate::stats::{Latencies, Tally, Totals, locked};

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
    /// A connection that isn't ready after this long has failed.
    pub patience: Duration,
    /// A failed connection is tried again, with back-off and jitter.
    pub retry: bool,
    /// A message that takes longer than this is late.
    pub late: Duration,
}

/// What a thread is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Connect all phones, so many a second over all threads, beginning at that moment.
    Connect { per_second: f64, from: u64 },
    /// Let this fraction of the phones reconnect each second.
    Churn { per_second: f64 },
    /// Drop this fraction of the phones at once; they come back over the time given.
    Burst { fraction: f64, within: Duration },
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
}

/// Phones at work. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    tallies: Vec<Arc<Tally>>,
    /// What [`Fleet::drain`] took from the tallies.
    drained: Mutex<Latencies>,
    orders: Vec<Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
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

    /// Connects all phones at this rate, open-loop.
    pub fn connect(&self, per_second: f64) {
        self.order(Order::Connect {
            per_second,
            from: crate::clock::now() + 2 * crate::clock::MILLI,
        });
    }

    /// From now on this fraction of the phones drops and comes back each second.
    pub fn churn(&self, per_second: f64) {
        self.order(Order::Churn { per_second });
    }

    /// Drops this fraction of the phones at once; each comes back at a random moment within the time given.
    pub fn burst(&self, fraction: f64, within: Duration) {
        self.order(Order::Burst { fraction, within });
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
