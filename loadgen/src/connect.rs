//! How a run begins: what is looked at before the first packet, and the first connect of all phones.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock::{self, SECOND};
use crate::fleet::{Fleet, FleetError};
use crate::name::Name;
use crate::orders::FleetPlan;
use crate::preflight::{Machine, Need, Shortage};
use crate::publisher::{PublishError, Publisher};
use crate::report::Report;
use crate::sampling::Server;
use crate::tickets::AskError;
use crate::watch::{Ended, Watch};

/// A connection that isn't ready after this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// After the last planned connect, how long stragglers are waited for: two failures with their back-off.
const STRAGGLERS: Duration = Duration::from_secs(30);

/// Seconds that no ramp takes.
const A_YEAR: f64 = 365.0 * 86_400.0;

/// Why a scenario didn't begin.
#[derive(Debug)]
pub enum BeginError {
    /// The machine hasn't enough of something.
    Machine(Vec<Shortage>),
    /// Nobody answers there.
    NoBroker(SocketAddr, io::Error),
    /// The server's process isn't there.
    NoProcess(Server, io::Error),
    /// The lookup gives no ticket.
    NoTicket(SocketAddr, AskError),
    /// /proc couldn't be read.
    Proc(io::Error),
    /// Threads.
    Fleet(FleetError),
    /// The broker doesn't take the publisher.
    Publish(PublishError),
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(shortages) => {
                f.write_str("this machine hasn't enough for that:")?;
                shortages
                    .iter()
                    .try_for_each(|shortage| write!(f, "\n  {shortage}"))
            }
            Self::NoBroker(addr, error) => write!(
                f,
                "no broker at {addr} ({error}); start one there, or name another with --addr"
            ),
            Self::NoProcess(pid, error) => write!(
                f,
                "can't watch the process {pid} ({error}); give the server's to --pid, or leave it out"
            ),
            Self::NoTicket(addr, error) => write!(
                f,
                "no ticket from the lookup at {addr}: {error}; name another one with --lookup, or leave it out"
            ),
            Self::Proc(error) => write!(f, "can't read the machine's limits: {error}"),
            Self::Fleet(error) => error.fmt(f),
            Self::Publish(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BeginError {}

/// Finds out, before the first packet, whether the machine has what the plan needs, a broadcast to all included, and somebody listens
/// at each address.
pub fn preflight(machine: &Machine, plan: &FleetPlan) -> Result<(), BeginError> {
    check(machine, plan, true)
}

/// The same, knowing if something is sent to all.
pub fn check(machine: &Machine, plan: &FleetPlan, broadcasts: bool) -> Result<(), BeginError> {
    let shortages = machine.check(&Need::of(plan, broadcasts));
    if !shortages.is_empty() {
        return Err(BeginError::Machine(shortages));
    }
    if let Some(tickets) = &plan.tickets {
        // One question finds out all that could be wrong with it.
        return match tickets.fetch(Name::of(plan.first).client_id()) {
            Ok(_) | Err(AskError::Status(429 | 503, _)) => Ok(()),
            Err(error) => Err(BeginError::NoTicket(tickets.lookup, error)),
        };
    }
    for &target in &plan.targets {
        TcpStream::connect_timeout(&target, Duration::from_secs(3))
            .map_err(|error| BeginError::NoBroker(target, error))?;
    }
    Ok(())
}

/// How the first connect of all phones went.
#[derive(Clone, Copy, Debug)]
pub struct Ramp {
    /// How waiting for it ended.
    pub ended: Ended,
    /// Seconds it took.
    pub seconds: f64,
    /// Phones ready then.
    pub ready: u64,
    rate: f64,
}

/// Connects all phones at a rate and waits until they are ready.
pub fn ramp_up(fleet: &Fleet, rate: f64, watch: &mut Watch) -> Ramp {
    ramp(fleet, None, rate, watch)
}

/// The same, with a publisher that is there already.
pub fn ramp(fleet: &Fleet, publisher: Option<&Publisher>, rate: f64, watch: &mut Watch) -> Ramp {
    watch.phase("connect");
    let phones = u64::from(fleet.plan().phones);
    let began = clock::now();
    fleet.connect(rate);
    let longest = Duration::from_secs_f64((phones as f64 / rate).min(A_YEAR)) + STRAGGLERS;
    let ended = watch.until(fleet, publisher, longest, |totals| totals.ready() >= phones);
    Ramp {
        ended,
        seconds: (clock::now() - began) as f64 / SECOND as f64,
        ready: fleet.totals().ready(),
        rate,
    }
}

impl Ramp {
    /// Tells the report.
    pub fn note(&self, report: &mut Report) {
        report.ramp(self.seconds, self.ready, self.rate);
    }
}
