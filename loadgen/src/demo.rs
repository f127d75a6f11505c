//! `loadgen demo`: a server and its phones in one process, half a minute of connects, churn and pushes, every message verified.
//!
//! It is a scenario like the others, but that it brings its own server. What has to hold, or the exit code says so: every phone gets
//! ready and is so at the end; no connection fails but those that the churn drops; every message at QoS 1 arrives, and every one at
//! QoS 0 that was published while its phone was ready (see [`crate::verify`]); none twice, none out of order, none damaged; no session
//! is lost while its phone is away.

use std::fmt;

use crate::broker::Broker;
use crate::connect::BeginError;
use crate::preflight::{Fit, Machine};
use crate::report::Report;
use crate::sampling::Server;
use crate::scenario::{Scenario, runner};
use crate::units::grouped;
use crate::watch::Watch;

/// Why the demo didn't run, or not to its end.
#[derive(Debug)]
pub enum DemoError {
    /// It didn't begin.
    Begin(BeginError),
    /// The server didn't start.
    Server(stillwire::server::StartError),
    /// The server failed when it was told to end.
    End(std::io::Error),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            Self::Server(error) => error.fmt(f),
            Self::End(error) => write!(f, "the server didn't end well: {error}"),
        }
    }
}

impl std::error::Error for DemoError {}

/// Runs it, with fewer phones where the machine doesn't allow as many.
pub fn run(
    mut scenario: Scenario,
    mut machine: Machine,
    watch: &mut Watch,
) -> Result<Report, DemoError> {
    let wish = scenario.phones.len() as u32;
    let Fit {
        phones,
        reactors,
        limit,
    } = machine.fit(wish);
    if let Some(limit) = limit {
        watch.note(&format!(
            "This machine allows {} phones, not {}: limited by {limit}; {}.",
            grouped(u64::from(phones)),
            grouped(u64::from(wish)),
            limit.remedy(),
        ));
        scenario.phones.end = scenario.phones.start + phones;
    }
    let broker = Broker::start(reactors, phones).map_err(DemoError::Server)?;
    machine.beside_reactors(reactors);
    scenario.targets = broker.addresses().to_vec();
    scenario.server = Some(Server::Pid(std::process::id()));
    watch.note("A server in this process.");
    let report = runner::run(&scenario, &machine, watch).map_err(DemoError::Begin)?;
    broker.stop().map_err(DemoError::End)?;
    Ok(report)
}
