//! `loadgen connect`: holds connections against any broker, and says how long they took to be ready.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::cli;
use crate::clock::{self, SECOND};
use crate::expect;
use crate::fleet::{Fleet, FleetError, FleetPlan};
use crate::ledger::Ledger;
use crate::preflight::{Machine, Need, Shortage};
use crate::report::Report;
use crate::script::Script;
use crate::sources::Sources;
use crate::units::grouped;
use crate::watch::{Ended, Watch};

/// A connection that isn't ready after this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// After the last planned connect, how long stragglers are waited for: two failures with their back-off.
const STRAGGLERS: Duration = Duration::from_secs(30);

/// Why a scenario didn't begin.
#[derive(Debug)]
pub enum BeginError {
    /// The machine hasn't enough of something.
    Machine(Vec<Shortage>),
    /// Nobody answers there.
    NoBroker(SocketAddr, io::Error),
    /// /proc couldn't be read.
    Proc(io::Error),
    /// Threads.
    Fleet(FleetError),
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
            Self::Proc(error) => write!(f, "can't read the machine's limits: {error}"),
            Self::Fleet(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BeginError {}

/// Finds out, before the first packet, whether the machine has what the plan needs and somebody listens at each address.
pub fn preflight(machine: &Machine, plan: &FleetPlan) -> Result<(), BeginError> {
    let need = Need {
        phones: plan.phones,
        threads: plan.threads,
        sources: plan.sources.clone(),
        broker_here: plan.targets.iter().any(|target| target.ip().is_loopback()),
    };
    let shortages = machine.check(&need);
    if !shortages.is_empty() {
        return Err(BeginError::Machine(shortages));
    }
    for &target in &plan.targets {
        TcpStream::connect_timeout(&target, Duration::from_secs(3))
            .map_err(|error| BeginError::NoBroker(target, error))?;
    }
    Ok(())
}

/// Runs it.
pub fn run(args: &cli::Connect, interrupted: Arc<AtomicBool>) -> Result<Report, BeginError> {
    let machine = Machine::read().map_err(BeginError::Proc)?;
    let plan = FleetPlan {
        targets: args.addr.clone(),
        first: args.first,
        phones: args.connections,
        threads: args
            .threads
            .unwrap_or_else(|| machine.threads_for(args.connections)),
        sources: Sources::choose(&args.addr, args.source.clone()),
        script: Script {
            version: args.protocol.into(),
            persistent: false,
            keep_alive: args.keep_alive,
        },
        patience: PATIENCE,
        retry: true,
        late: SECOND_LATE,
    };
    preflight(&machine, &plan)?;
    let mut watch = Watch::new(args.quiet, interrupted);
    watch.note(&format!(
        "{} phones to {} at {}/s from {} threads, two subscriptions each; held {} s",
        grouped(u64::from(plan.phones)),
        plan.targets
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        grouped(args.rate),
        plan.threads,
        args.hold.as_secs_f64(),
    ));
    let ledger = Arc::new(Ledger::new(fastrand::u32(..), plan.first, plan.phones));
    let fleet = Fleet::start(plan, ledger).map_err(BeginError::Fleet)?;
    let rate = args.rate.max(1) as f64;
    let ramp = ramp_up(&fleet, rate, &mut watch);
    let mut ended = ramp.ended;
    if ended != Ended::Interrupted {
        watch.phase("hold");
        ended = watch.until(&fleet, None, args.hold, |_| false);
    }
    let recorded = watch.finish(&fleet, None);
    let mut report = Report::of("connect", &fleet, None, recorded);
    ramp.note(&mut report);
    report.interrupted = ended == Ended::Interrupted;
    args.show.judge(&mut report, &expect::usual());
    Ok(report)
}

/// Messages over this are late; `connect` sends none.
const SECOND_LATE: Duration = Duration::from_secs(1);

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
    watch.phase("connect");
    let phones = u64::from(fleet.plan().phones);
    let began = clock::now();
    fleet.connect(rate);
    let longest = Duration::from_secs_f64(phones as f64 / rate) + STRAGGLERS;
    let ended = watch.until(fleet, None, longest, |totals| totals.ready() >= phones);
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
