//! `loadgen demo`: a server and its phones in one process, half a minute of connects, churn and pushes, every message verified.
//!
//! What has to hold, or the exit code says so: every phone gets ready and is so at the end; no connection fails but those that the
//! churn drops; every message at QoS 1 arrives, and every one at QoS 0 that was published while its phone was ready (see
//! [`crate::verify`]); none twice, none out of order, none damaged; no session is lost while its phone is away.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::broker::Broker;
use crate::cli;
use crate::connect::{self, BeginError};

use crate::expect;
use crate::fleet::{Back, Churn, Fleet, FleetPlan, Leave, Storm};
use crate::ledger::Ledger;
use crate::machine;
use crate::payload::{HEADER, Kind};
use crate::preflight::{Fit, Machine};
use crate::publisher::{PublishError, Publisher, PublisherPlan, Stream};
use crate::report::{Memory, Report};
use crate::script::Script;
use crate::sources::Sources;
use crate::stats::Count;
use crate::units::grouped;
use crate::watch::{Ended, Watch};

/// Fraction of the phones that reconnect each second.
const CHURN: f64 = 0.001;

/// Fraction of the phones that drop at once, in the middle.
const BURST: f64 = 0.05;

/// They come back within this time.
const BURST_RETURN: Duration = Duration::from_secs(2);

/// Time between two broadcasts.
const BROADCAST_EVERY: Duration = Duration::from_secs(3);

/// A push that takes longer is counted as late.
const LATE: Duration = Duration::from_secs(1);

/// The longest wait for stragglers at the end.
const LAST_ONES: Duration = Duration::from_secs(10);

/// Memory settles for this long before it is read.
const SETTLE: Duration = Duration::from_secs(1);

const PAYLOAD: usize = 64;
const _: () = assert!(PAYLOAD >= HEADER);

/// Why the demo didn't run, or not to its end.
#[derive(Debug)]
pub enum DemoError {
    /// It didn't begin.
    Begin(BeginError),
    /// The server didn't start.
    Server(stillwire::server::StartError),
    /// The server failed when it was told to end.
    End(std::io::Error),
    /// The publisher failed.
    Publish(PublishError),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            Self::Server(error) => error.fmt(f),
            Self::End(error) => write!(f, "the server didn't end well: {error}"),
            Self::Publish(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DemoError {}

impl From<BeginError> for DemoError {
    fn from(error: BeginError) -> Self {
        Self::Begin(error)
    }
}

/// Memory before the first connection, or after.
#[derive(Clone, Copy)]
struct Footprint {
    user: u64,
    slab: u64,
}

impl Footprint {
    fn read() -> std::io::Result<Self> {
        Ok(Self {
            user: machine::pss(std::process::id())?,
            slab: machine::slab()?,
        })
    }

    fn per_connection(self, after: Self, phones: u64) -> Memory {
        let each = |before: u64, after: u64| (after as f64 - before as f64) / phones.max(1) as f64;
        Memory {
            user_bytes: each(self.user, after.user),
            slab_bytes: each(self.slab, after.slab),
            same_process: true,
        }
    }
}

/// Runs it.
pub fn run(args: &cli::Demo, interrupted: Arc<AtomicBool>) -> Result<Report, DemoError> {
    let mut machine = Machine::read().map_err(BeginError::Proc)?;
    let mut watch = Watch::new(args.quiet, interrupted);
    let Fit {
        phones,
        reactors,
        limit,
    } = machine.fit(args.connections);
    if let Some(limit) = limit {
        watch.note(&format!(
            "This machine allows {} phones, not {}: limited by {limit}; {}.",
            grouped(u64::from(phones)),
            grouped(u64::from(args.connections)),
            limit.remedy(),
        ));
    }
    let mut broker = Broker::start(args.addr, reactors, phones).map_err(DemoError::Server)?;
    machine.beside_reactors(reactors);
    let report = against(args, &machine, &broker, phones, &mut watch)?;
    broker.stop().map_err(DemoError::End)?;
    Ok(report)
}

fn fleet_plan(
    args: &cli::Demo,
    machine: &Machine,
    targets: Vec<SocketAddr>,
    phones: u32,
) -> FleetPlan {
    FleetPlan {
        first: 0,
        phones,
        threads: machine.threads_for(phones),
        sources: Sources::choose(&targets, Vec::new()),
        targets,
        script: Script {
            version: args.protocol.into(),
            persistent: true,
            keep_alive: 20,
        },
        patience: connect::PATIENCE,
        retry: true,
        late: LATE,
    }
}

fn against(
    args: &cli::Demo,
    machine: &Machine,
    broker: &Broker,
    phones: u32,
    watch: &mut Watch,
) -> Result<Report, DemoError> {
    let plan = fleet_plan(args, machine, broker.addresses(), phones);
    connect::preflight(machine, &plan)?;
    announce(args, &plan, broker, watch);
    let ledger = Arc::new(Ledger::new(fastrand::u32(..), plan.first, plan.phones));
    let publishers = PublisherPlan {
        targets: plan.targets.clone(),
        connections: 4,
        version: plan.script.version,
        payload: PAYLOAD,
        seed: fastrand::u64(..),
    };
    let fleet = Fleet::start(plan, Arc::clone(&ledger)).map_err(BeginError::Fleet)?;
    let mut publisher =
        Publisher::start(&publishers, Arc::clone(&ledger)).map_err(DemoError::Publish)?;
    watch.phase("start");
    watch.rest(&fleet, Some(&publisher), SETTLE / 2);
    let before = Footprint::read().map_err(BeginError::Proc)?;

    let ramp = connect::ramp_up(&fleet, args.rate.max(1) as f64, watch);
    let mut ended = ramp.ended;
    let mut memory = None;
    if ended == Ended::Met {
        watch.phase("settle");
        ended = watch.rest(&fleet, Some(&publisher), SETTLE);
        let after = Footprint::read().map_err(BeginError::Proc)?;
        // A broker in another process has its memory there.
        memory = broker
            .is_embedded()
            .then(|| before.per_connection(after, fleet.totals().ready()));
    }
    if ended != Ended::Interrupted {
        ended = push(args, &fleet, &mut publisher, watch);
    }
    if ended == Ended::Broken {
        return Err(DemoError::Publish(
            publisher.finish().err().unwrap_or(PublishError::Closed),
        ));
    }
    fleet.settle();
    let recorded = watch.finish(&fleet, Some(&publisher));
    let mut report = Report::of("demo", &fleet, Some(&publisher), recorded);
    ramp.note(&mut report);
    report.memory = memory;
    report.interrupted = ended == Ended::Interrupted;
    args.show.judge(&mut report, &expect::usual());
    Ok(report)
}

fn announce(args: &cli::Demo, plan: &FleetPlan, broker: &Broker, watch: &mut Watch) {
    watch.note(&format!(
        "{} phones, each with its own client id and two subscriptions, from {} threads to {}.",
        grouped(u64::from(plan.phones)),
        plan.threads,
        broker,
    ));
    watch.note(&format!(
        "Connect at {}/s; then for {:.0} s {} pushes/s to single phones (half QoS 0, half QoS 1), one to all every {:.0} s,\n\
         {:.1} % of the phones reconnecting each second and {:.0} % of them at once in the middle. Every message is verified.",
        grouped(args.rate),
        args.time.as_secs_f64(),
        grouped(args.pushes),
        BROADCAST_EVERY.as_secs_f64(),
        CHURN * 100.0,
        BURST * 100.0,
    ));
}

/// Pushes and churns, then waits until all is quiet.
fn push(args: &cli::Demo, fleet: &Fleet, publisher: &mut Publisher, watch: &mut Watch) -> Ended {
    let half = args.pushes as f64 / 2.0;
    for kind in [Kind::Unicast0, Kind::Unicast1] {
        if half > 0.0 {
            publisher.run(Stream {
                kind,
                per_second: half,
                count: u64::MAX,
            });
        }
    }
    publisher.run(Stream {
        kind: Kind::Broadcast,
        per_second: 1.0 / BROADCAST_EVERY.as_secs_f64(),
        count: u64::MAX,
    });
    fleet.churn(Churn {
        fraction_per_second: CHURN,
        ..Churn::default()
    });
    watch.phase("push, churn");
    let mut ended = watch.until(fleet, Some(publisher), args.time / 2, |_| false);
    if ended == Ended::TimedOut {
        fleet.storm(Storm {
            fraction: BURST,
            leave: Leave::Reset,
            back: Back::Within(BURST_RETURN),
        });
        watch.phase("burst");
        ended = watch.until(fleet, Some(publisher), args.time / 2, |_| false);
    }
    publisher.stop();
    fleet.churn(Churn::NONE);
    if matches!(ended, Ended::Broken) {
        return ended;
    }
    watch.phase("last ones");
    let complete = quiet(fleet, publisher, watch);
    // An interruption is what is reported; that the last ones didn't make it is in the counts.
    if ended == Ended::Interrupted {
        ended
    } else {
        complete
    }
}

/// Waits until all phones are back and nothing more arrives.
fn quiet(fleet: &Fleet, publisher: &Publisher, watch: &mut Watch) -> Ended {
    let phones = u64::from(fleet.plan().phones);
    let mut last = (0, crate::clock::now());
    watch.until(fleet, Some(publisher), LAST_ONES, |totals| {
        let (received, now) = (
            totals.received() + totals.get(Count::Redelivered),
            crate::clock::now(),
        );
        if received != last.0 {
            last = (received, now);
        }
        let all = totals.ready() == phones
            && totals.get(Count::Unicast1) == publisher.published(Kind::Unicast1);
        all && publisher.is_idle() && now - last.1 > 400 * crate::clock::MILLI
    })
}
