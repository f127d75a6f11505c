//! `tools idle`: what connections cost that do nothing but ping, as a part of one core.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use loadgen::connect::{self, BeginError};
use loadgen::fleet::{Fleet, FleetPlan};
use loadgen::ledger::Ledger;
use loadgen::machine::{self, CpuTime};
use loadgen::preflight::Machine;
use loadgen::script::Script;
use loadgen::sources::Sources;
use loadgen::stats::Count;
use loadgen::watch::{Ended, Watch};
use serde::Serialize;
use stillwire::wire::Version;

use crate::bench::MeasureError;
use crate::broker::Broker;
use crate::cli::Idle;

/// Names the shape of the JSON.
const SCHEMA: &str = "stillwire.idle/1";

/// Connects a second.
const RATE: f64 = 8000.0;

/// After the last connect.
const SETTLE: Duration = Duration::from_secs(1);

/// Pings a second of a million connections that ping every 300 s, and what part of a core they may cost at most.
const MILLION: f64 = 1e6 / 300.0;
const BAR: f64 = 0.15;

/// The server's figures and the floor's.
#[derive(Debug, Serialize)]
pub(crate) struct Idled {
    schema: &'static str,
    machine: String,
    date: String,
    connections: u32,
    /// Seconds between two pings of a phone.
    ping: u16,
    /// The floor, then the server.
    brokers: [Pinged; 2],
}

/// What pings cost one broker.
#[derive(Debug, Serialize)]
struct Pinged {
    broker: String,
    pings: u64,
    unanswered: u64,
    /// Seconds.
    seconds: f64,
    /// Part of one core.
    core: f64,
    /// Microseconds for one ping and all that went on meanwhile.
    micros: f64,
}

impl Idled {
    pub(crate) fn is_valid(&self) -> bool {
        self.brokers.iter().all(|broker| broker.unanswered == 0)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|_| unreachable!("plain data")) + "\n"
    }
}

impl fmt::Display for Idled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{} connections that ping every {} s; {}; {}\n",
            self.connections, self.ping, self.machine, self.date
        )?;
        for broker in &self.brokers {
            writeln!(
                f,
                "{:<24} {:>6.0} pings/s  {:>6.2} % of a core  {:>6.2} us a ping  {} unanswered",
                broker.broker,
                broker.pings as f64 / broker.seconds,
                100.0 * broker.core,
                broker.micros,
                broker.unanswered
            )?;
        }
        let [floor, server] = &self.brokers;
        let million = server.micros * 1e-6 * MILLION;
        writeln!(
            f,
            "\n1,000,000 connections every 300 s at that cost: {:.1} % of a core, {:.2} times the floor; at most {:.0} %: {}",
            100.0 * million,
            server.micros / floor.micros,
            100.0 * BAR,
            if million > BAR { "over" } else { "met" }
        )
    }
}

/// Measures.
pub(crate) fn run(args: &Idle, interrupted: &Arc<AtomicBool>) -> Result<Idled, MeasureError> {
    let reactors = args.server.reactors(args.connections);
    let floor = Broker::floor(reactors, args.connections).map_err(MeasureError::Broker)?;
    let floor = pinged(args, &floor, interrupted)?;
    let server = Broker::start(&args.server, args.connections).map_err(MeasureError::Broker)?;
    let server = pinged(args, &server, interrupted)?;
    Ok(Idled {
        schema: SCHEMA,
        machine: machine::describe(),
        date: machine::today(),
        connections: args.connections,
        ping: args.ping,
        brokers: [floor, server],
    })
}

fn pinged(
    args: &Idle,
    broker: &Broker,
    interrupted: &Arc<AtomicBool>,
) -> Result<Pinged, MeasureError> {
    let machine = Machine::read().map_err(MeasureError::Proc)?;
    let plan = FleetPlan {
        targets: vec![broker.addr],
        first: 0,
        phones: args.connections,
        threads: machine.threads_for(args.connections),
        sources: Sources::choose(&[broker.addr], Vec::new()),
        script: Script {
            version: Version::V311,
            persistent: false,
            keep_alive: args.ping,
        },
        patience: connect::PATIENCE,
        retry: true,
        late: Duration::from_secs(1),
        tickets: None,
    };
    connect::preflight(&machine, &plan).map_err(MeasureError::Begin)?;
    let ledger = Arc::new(Ledger::new(fastrand::u32(..), 0, args.connections));
    let fleet = Fleet::start(plan, ledger)
        .map_err(|error| MeasureError::Begin(BeginError::Fleet(error)))?;
    let mut watch = Watch::new(false, Arc::clone(interrupted));
    watch.note(&format!(
        "{}: {} connections that ping every {} s",
        broker.name, args.connections, args.ping
    ));
    let cpu = || CpuTime::of(broker.pid).map_err(MeasureError::Proc);
    let ramp = connect::ramp_up(&fleet, RATE, &mut watch);
    if ramp.ended != Ended::Met {
        return Err(MeasureError::Ended("connect", ramp.ended));
    }
    let mut rest = |time| match watch.rest(&fleet, None, time) {
        Ended::Met => Ok(()),
        ended => Err(MeasureError::Ended("idle", ended)),
    };
    rest(SETTLE)?;
    let (before, pings) = (cpu()?, fleet.totals().get(Count::Pings));
    let began = std::time::Instant::now();
    rest(Duration::from_secs(args.seconds.max(1)))?;
    let (micros, _) = cpu()?.micros_since(&before);
    let seconds = began.elapsed().as_secs_f64();
    let totals = fleet.totals();
    let pings = totals.get(Count::Pings) - pings;
    Ok(Pinged {
        broker: broker.name.clone(),
        pings,
        unanswered: totals.get(Count::PingsUnanswered),
        seconds,
        core: micros * 1e-6 / seconds,
        micros: micros / pings.max(1) as f64,
    })
}
