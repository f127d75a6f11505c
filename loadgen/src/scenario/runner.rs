//! Runs a [`Scenario`]: preflight, ramp, phases, the last ones, and the account of it all.
//!
//! Whatever happens after the preflight, there is a report: an interruption ends the phases early, and a broker that goes away shows in
//! the counts.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::{Fanout, Phase, PlannedStorm, Restart, Scenario};
use crate::clock::{self, MILLI};
use crate::connect::{self, BeginError, Ramp};
use crate::fleet::Fleet;
use crate::ledger::Ledger;
use crate::machine;
use crate::orders::{Churn, FleetPlan, StormCourse};
use crate::payload::Kind;
use crate::preflight::Machine;
use crate::publisher::{Publisher, PublisherPlan, Stream};
use crate::report::course::Storm;
use crate::report::{Memory, Report};
use crate::script::Script;
use crate::sources::Sources;
use crate::stats::Count;
use crate::units::grouped;
use crate::watch::{Ended, Watch};

/// Memory settles for this long before it is read.
const SETTLE: Duration = Duration::from_secs(1);

/// Nothing may arrive for this long before a run counts as quiet.
const QUIET: u64 = 400 * MILLI;

/// Memory before the first connection, or after.
#[derive(Clone, Copy)]
struct Footprint {
    user: u64,
    slab: u64,
}

impl Footprint {
    fn read(server: u32) -> io::Result<Self> {
        Ok(Self {
            user: machine::pss(server)?,
            slab: machine::slab()?,
        })
    }

    fn per_connection(self, after: Self, phones: u64, same_process: bool) -> Memory {
        let each = |before: u64, after: u64| (after as f64 - before as f64) / phones.max(1) as f64;
        Memory {
            user_bytes: each(self.user, after.user),
            slab_bytes: each(self.slab, after.slab),
            same_process,
        }
    }
}

/// A run under way.
struct Runner<'a> {
    scenario: &'a Scenario,
    fleet: Fleet,
    publisher: Option<Publisher>,
    watch: &'a mut Watch,
    storms: Vec<Storm>,
    /// The command that restarts the server, while it runs.
    restarting: Option<Child>,
}

/// The plan of the phones.
pub fn fleet_plan(scenario: &Scenario, machine: &Machine) -> FleetPlan {
    let phones = scenario.phones.len() as u32;
    // Where tickets lead is not known yet; where the lookup is says whether it is this machine.
    let mut towards = scenario.targets.clone();
    towards.extend(scenario.tickets.as_ref().map(|tickets| tickets.lookup));
    FleetPlan {
        targets: scenario.targets.clone(),
        first: scenario.phones.start,
        phones,
        threads: scenario
            .threads
            .unwrap_or_else(|| machine.threads_for(phones)),
        sources: Sources::choose(&towards, scenario.sources.clone()),
        script: Script {
            version: scenario.version,
            persistent: scenario.persistent,
            keep_alive: scenario.keep_alive,
        },
        patience: scenario.patience,
        retry: true,
        late: scenario.late,
        tickets: scenario.tickets.clone(),
    }
}

/// Runs it. `machine` is what is left for the phones.
pub fn run(
    scenario: &Scenario,
    machine: &Machine,
    watch: &mut Watch,
) -> Result<Report, BeginError> {
    let plan = fleet_plan(scenario, machine);
    connect::check(machine, &plan, scenario.broadcasts())?;
    if let Some(server) = &scenario.server {
        watch
            .server(server)
            .map_err(|error| BeginError::NoProcess(server.clone(), error))?;
    }
    announce(scenario, &plan, watch);
    let publishers = PublisherPlan {
        targets: plan.targets.clone(),
        connections: scenario.publishers,
        version: plan.script.version,
        payload: scenario.payload,
        seed: fastrand::u64(..),
        tickets: plan.tickets.clone(),
    };
    let run = scenario.run.unwrap_or_else(|| fastrand::u32(..));
    let ledger = Arc::new(Ledger::new(run, plan.first, plan.phones));
    let fleet = Fleet::start(plan, Arc::clone(&ledger)).map_err(BeginError::Fleet)?;
    let publisher = scenario
        .publishes()
        .then(|| Publisher::start(&publishers, ledger).map_err(BeginError::Publish))
        .transpose()?;
    Runner {
        scenario,
        fleet,
        publisher,
        watch,
        storms: Vec::new(),
        restarting: None,
    }
    .run()
}

fn announce(scenario: &Scenario, plan: &FleetPlan, watch: &mut Watch) {
    let targets: Vec<String> = plan.targets.iter().map(ToString::to_string).collect();
    watch.note(&format!(
        "{} phones, each with its own client id and two subscriptions, from {} threads to {} at {}/s.",
        grouped(u64::from(plan.phones)),
        plan.threads,
        if plan.tickets.is_some() {
            "where their tickets say".into()
        } else {
            targets.join(", ")
        },
        grouped(scenario.connects.round() as u64),
    ));
    if let Some(tickets) = &plan.tickets {
        watch.note(&format!(
            "Tickets come from {} ({}).",
            tickets.url, tickets.lookup
        ));
    }
    for phase in &scenario.phases {
        watch.note(&format!("Then {}: {}.", phase.name, phase.in_words()));
    }
    if scenario.publishes() {
        watch.note("Every message is verified.");
    }
}

impl Runner<'_> {
    fn run(mut self) -> Result<Report, BeginError> {
        let (ramp, memory) = self.begin()?;
        let mut ended = ramp.ended;
        for phase in &self.scenario.phases {
            if ended == Ended::Interrupted {
                break;
            }
            ended = self.phase(phase);
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.stop();
        }
        self.fleet.churn(Churn::NONE);
        if ended != Ended::Interrupted && !self.scenario.phases.is_empty() {
            self.watch.phase("last ones");
            ended = self.quiet();
        }
        // A second interruption ends the process, so the wait for a quiet end can be had after the first one too.
        Ok(self.report(&ramp, memory, ended))
    }

    /// The ramp, and what a connection costs if the server's process is known.
    fn begin(&mut self) -> Result<(Ramp, Option<Memory>), BeginError> {
        let footprint = |server: Option<u32>| {
            server
                .map(Footprint::read)
                .transpose()
                .map_err(BeginError::Proc)
        };
        let server = self.watch.server_pid();
        if server.is_some() {
            self.watch.phase("start");
            self.watch
                .rest(&self.fleet, self.publisher.as_ref(), SETTLE / 2);
        }
        let before = footprint(server)?;
        let ramp = connect::ramp(
            &self.fleet,
            self.publisher.as_ref(),
            self.scenario.connects,
            self.watch,
        );
        let Some((before, server)) = before.zip(server).filter(|_| ramp.ended == Ended::Met) else {
            return Ok((ramp, None));
        };
        self.watch.phase("settle");
        self.watch
            .rest(&self.fleet, self.publisher.as_ref(), SETTLE);
        // It may be gone by now, which the connections show.
        let memory = Footprint::read(server).ok().map(|after| {
            let same_process = server == std::process::id();
            before.per_connection(after, self.fleet.totals().ready(), same_process)
        });
        Ok((ramp, memory))
    }

    fn phase(&mut self, phase: &Phase) -> Ended {
        self.watch.phase(&phase.name);
        self.fleet.churn(phase.churn.unwrap_or(Churn::NONE));
        self.publish(phase);
        if let Some(planned) = &phase.storm {
            return self.storm(phase, planned);
        }
        if phase.fanout == Fanout::Once {
            let ended = self.rest(phase.time / 2);
            if ended != Ended::Met {
                return ended;
            }
            self.broadcast();
            return self.rest(phase.time / 2);
        }
        self.rest(phase.time)
    }

    fn publish(&mut self, phase: &Phase) {
        let Some(publisher) = &mut self.publisher else {
            return;
        };
        publisher.stop();
        let fanout = match phase.fanout {
            Fanout::Rate(rate) => rate,
            Fanout::Never | Fanout::Once => 0.0,
        };
        for (kind, per_second) in [
            (Kind::Unicast0, phase.unicast0),
            (Kind::Unicast1, phase.unicast1),
            (Kind::Broadcast, fanout),
        ] {
            if per_second > 0.0 {
                publisher.run(Stream {
                    kind,
                    per_second,
                    count: u64::MAX,
                });
            }
        }
    }

    fn broadcast(&mut self) {
        if let Some(publisher) = &mut self.publisher {
            publisher.broadcast();
        }
    }

    fn rest(&mut self, time: Duration) -> Ended {
        self.watch.rest(&self.fleet, self.publisher.as_ref(), time)
    }

    fn storm(&mut self, phase: &Phase, planned: &PlannedStorm) -> Ended {
        let at = self.watch.seconds();
        self.fleet.storm(planned.storm);
        match &planned.restart {
            None => {}
            Some(Restart::Operator) => self.watch.note("Restart the server now."),
            Some(Restart::Command(command)) => self.restart(command),
        }
        let mut ended = match phase.fanout {
            Fanout::Once => {
                let first = self.rest(phase.time / 2);
                if first == Ended::Met {
                    self.broadcast();
                    self.rest(phase.time / 2)
                } else {
                    first
                }
            }
            _ => self.rest(phase.time),
        };
        if ended == Ended::Met {
            let fleet = &self.fleet;
            let publisher = self.publisher.as_ref();
            ended = self.watch.until(fleet, publisher, planned.patience, |_| {
                fleet.last_storm().is_some_and(|course| course.over)
            });
        }
        self.reap();
        if let Some(course) = self.fleet.last_storm() {
            self.storms.push(account(at, course));
        }
        ended
    }

    /// Runs the command that restarts the server, without waiting for it: it may be the server that it becomes.
    fn restart(&mut self, command: &str) {
        let child = Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => self.restarting = Some(child),
            Err(error) => self.watch.note(&format!(
                "can't run `{command}` ({error}); restart the server by hand"
            )),
        }
    }

    fn reap(&mut self) {
        if let Some(child) = &mut self.restarting
            && let Ok(Some(status)) = child.try_wait()
        {
            self.restarting = None;
            if !status.success() {
                self.watch.note(&format!(
                    "the command that restarts the server ended with {status}; mend storm.command in the scenario file"
                ));
            }
        }
    }

    /// Waits until all phones are back and nothing more arrives.
    fn quiet(&mut self) -> Ended {
        let phones = u64::from(self.fleet.plan().phones);
        let publisher = self.publisher.as_ref();
        let mut last = (0, clock::now());
        self.watch
            .until(&self.fleet, publisher, self.scenario.last_ones, |totals| {
                let (received, now) = (
                    totals.received() + totals.get(Count::Redelivered),
                    clock::now(),
                );
                if received != last.0 {
                    last = (received, now);
                }
                totals.ready() >= phones
                    && publisher.is_none_or(|publisher| {
                        totals.get(Count::Unicast1) == publisher.published(Kind::Unicast1)
                            && publisher.is_idle()
                            && now - last.1 > QUIET
                    })
            })
    }

    fn report(self, ramp: &Ramp, memory: Option<Memory>, ended: Ended) -> Report {
        self.fleet.settle();
        let recorded = self.watch.finish(&self.fleet, self.publisher.as_ref());
        let mut report = Report::of(
            &self.scenario.name,
            &self.fleet,
            self.publisher.as_ref(),
            recorded,
        );
        ramp.note(&mut report);
        report.settings = self.scenario.settings();
        report.memory = memory;
        report.storms = self.storms;
        report.interrupted = ended == Ended::Interrupted;
        report.judge(&self.scenario.expect);
        report
    }
}

fn account(at: f64, course: StormCourse) -> Storm {
    Storm {
        at,
        dropped: course.dropped,
        back_after: course.over.then(|| course.seconds()),
        refused: course.refused,
    }
}
