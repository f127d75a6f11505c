//! What a run does: every named scenario, with its flags and its file, becomes one [`Scenario`], and one runner runs it.
//!
//! A flag overrides the file, the file overrides the defaults of the named scenario. Nothing here calls anybody.

pub mod file;
pub mod runner;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use stillwire::wire::Version;

use crate::cli::{Protocol, Return, Shared};
use crate::expect::{self, Expectation};
use crate::orders::{Back, Churn, Leave, Shape, Storm};
use crate::sampling::Server;
use crate::tickets::{Tickets, UrlError};
use crate::units::grouped;
use file::{File, FileError, Session, StormKeys};

/// The named scenarios, each with what is typed for it alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Connect and hold.
    Connect,
    /// Reconnects all the time: this share of all phones a second, if it is typed.
    Churn(Option<f64>),
    /// All drop at once, and come back like this.
    Storm(Option<Return>),
    /// One message to all, so often a second.
    Fanout(Option<f64>),
    /// Messages to random phones, so many a second.
    Unicast(Option<f64>),
    /// All of it, with so many deliveries a second.
    Mixed(Option<f64>),
    /// As the demo has it: with so many messages to random phones a second.
    Demo(Option<f64>),
}

impl Kind {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Churn(_) => "churn",
            Self::Storm(_) => "storm",
            Self::Fanout(_) => "fanout",
            Self::Unicast(_) => "unicast",
            Self::Mixed(_) => "mixed",
            Self::Demo(_) => "demo",
        }
    }
}

/// Deliveries of `mixed` a second, unless others are named.
const MIXED_RATE: f64 = 2000.0;

/// How `mixed` divides its deliveries, unless other weights are named.
const MIXED_WEIGHTS: [f64; 3] = [45.0, 45.0, 10.0];

/// Messages of `unicast` and of the demo a second.
const UNICAST_RATE: f64 = 2000.0;

/// How long the phones of a storm with jitter take to come back, unless another time is named.
const JITTER: Duration = Duration::from_secs(5);

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// `connect`, `churn` and so on.
    pub name: String,
    /// Where the broker listens.
    pub targets: Vec<SocketAddr>,
    /// The phones of this process.
    pub phones: Range<u32>,
    /// Planned connects a second.
    pub connects: f64,
    /// MQTT version.
    pub version: Version,
    /// Seconds between pings; 0: none.
    pub keep_alive: u16,
    /// The broker keeps the session of a phone that is away.
    pub persistent: bool,
    /// Bytes of a message.
    pub payload: usize,
    /// Connections that publish.
    pub publishers: usize,
    /// Threads; chosen if nobody says.
    pub threads: Option<usize>,
    /// Source addresses; chosen if empty.
    pub sources: Vec<IpAddr>,
    /// A connection that isn't ready after this long has failed.
    pub patience: Duration,
    /// A message that takes longer is late.
    pub late: Duration,
    /// The longest wait for stragglers at the end.
    pub last_ones: Duration,
    /// Names the run in its payloads; chosen if nobody says. Processes that share a scenario must have the same.
    pub run: Option<u32>,
    /// Show nothing while it runs.
    pub quiet: bool,
    /// The server's process.
    pub server: Option<Server>,
    /// Phones ask a lookup where to call; `targets` is then the fallback list that their app was delivered with.
    pub tickets: Option<Tickets>,
    /// What happens once all are connected.
    pub phases: Vec<Phase>,
    /// What decides the exit code.
    pub expect: Vec<Expectation>,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// As the report has it.
    pub name: String,
    /// How long; a phase with a storm goes on until all are back.
    pub time: Duration,
    /// Reconnects.
    pub churn: Option<Churn>,
    /// Messages to random phones a second at QoS 0.
    pub unicast0: f64,
    /// The same at QoS 1.
    pub unicast1: f64,
    /// Messages to all.
    pub fanout: Fanout,
    /// Many drop at its beginning.
    pub storm: Option<PlannedStorm>,
}

/// Messages to all phones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fanout {
    /// None.
    Never,
    /// One, in the middle of the phase.
    Once,
    /// So many a second.
    Rate(f64),
}

/// A storm, and what belongs to it beyond what the phones are told.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStorm {
    /// What the phones are told.
    pub storm: Storm,
    /// The server is restarted, by this command or by the operator.
    pub restart: Option<Restart>,
    /// The longest wait, after the time of the phase, for all to be back.
    pub patience: Duration,
}

/// Who restarts the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The shell, with this.
    Command(String),
    /// Whoever sits there.
    Operator,
}

impl Phase {
    fn new(name: &str, seconds: u64) -> Self {
        Self {
            name: name.into(),
            time: Duration::from_secs(seconds),
            churn: None,
            unicast0: 0.0,
            unicast1: 0.0,
            fanout: Fanout::Never,
            storm: None,
        }
    }

    /// It sends something.
    pub fn publishes(&self) -> bool {
        self.unicast0 + self.unicast1 > 0.0 || self.fanout != Fanout::Never
    }

    fn unicast(&mut self, per_second: f64, qos1: f64) {
        self.unicast1 = per_second * qos1;
        self.unicast0 = per_second - self.unicast1;
    }

    /// In words, for whoever reads the report.
    fn in_words(&self) -> String {
        let mut parts = vec![format!("{} s", self.time.as_secs_f64())];
        if let Some(churn) = &self.churn {
            parts.push(format!(
                "churn {} %/s",
                tidy(churn.fraction_per_second * 100.0)
            ));
        }
        if self.unicast0 + self.unicast1 > 0.0 {
            parts.push(format!(
                "{} messages/s to single phones ({} % QoS 1)",
                tidy(self.unicast0 + self.unicast1),
                tidy(self.unicast1 / (self.unicast0 + self.unicast1) * 100.0)
            ));
        }
        match self.fanout {
            Fanout::Never => {}
            Fanout::Once => parts.push("one message to all".into()),
            Fanout::Rate(rate) => parts.push(format!("{}/s to all", tidy(rate))),
        }
        if let Some(planned) = &self.storm {
            let share = tidy(planned.storm.fraction * 100.0);
            parts.push(match (&planned.restart, planned.storm.back) {
                (Some(_), _) => "the server restarts".into(),
                (None, Back::Within(time)) => format!(
                    "{share} % drop at once and are back within {} s",
                    time.as_secs_f64()
                ),
                (None, _) => format!("{share} % drop at once and come back at once"),
            });
        }
        parts.join(", ")
    }
}

/// At most four digits after the point, and no zeros at the end.
fn tidy(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Scenario {
    /// From the flags, the file if they name one, and the defaults. The lookup's name is resolved here, and never again.
    pub fn of(kind: Kind, shared: &Shared) -> Result<Self, ScenarioError> {
        let file = match &shared.scenario {
            Some(path) => file::read(path).map_err(ScenarioError::File)?,
            None => File::default(),
        };
        let mut scenario = Self::from(kind, shared, &file);
        let tickets = file.tickets.clone().unwrap_or_default();
        scenario.tickets = tickets
            .plan(shared.lookup.as_ref())
            .map_err(ScenarioError::Lookup)?;
        let says_what_to_expect = shared.show.expect.is_some() || file.expect.is_some();
        let storms = |phase: &Phase| phase.storm.is_some();
        if scenario.tickets.is_some() && !says_what_to_expect && !scenario.phases.iter().any(storms)
        {
            scenario.expect.extend(expect::of_tickets());
        }
        Ok(scenario)
    }

    fn from(kind: Kind, shared: &Shared, file: &File) -> Self {
        let defaults = Defaults::of(kind);
        // The rates of a file are those of the whole scenario; a process that has a part of its phones does that part of them.
        let own = shared.connections.as_ref();
        let (phones, part) = match (own.map(|own| &own.range), &file.phones) {
            (Some(own), Some(all)) if own.start >= all.0.start && own.end <= all.0.end => {
                (own.clone(), own.len() as f64 / all.0.len() as f64)
            }
            (Some(own), _) => (own.clone(), 1.0),
            (None, Some(all)) => (all.0.clone(), 1.0),
            (None, None) => (0..defaults.phones, 1.0),
        };
        // A plain count is another size of the scenario, at the rates it has.
        let is_part = own.is_some_and(|own| own.part);
        let part = if is_part { part } else { 1.0 };
        let phases = phases(kind, shared.time, file, phones.len() as f64, part);
        let typed = shared.show.expect.clone();
        let expect = typed
            .or_else(|| file.expect.as_ref().map(|expect| expect.0.clone()))
            .unwrap_or_else(|| usual(&phases));
        Self {
            name: kind.name().into(),
            targets: shared
                .addr
                .clone()
                .or_else(|| file.addr.clone().map(|addr| addr.0))
                .unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 1883))]),
            connects: shared
                .rate
                .unwrap_or_else(|| file.rate.map_or(defaults.connects, |rate| rate.0 * part)),
            phones,
            version: file.protocol.unwrap_or(Protocol::V311).into(),
            keep_alive: file.keep_alive.unwrap_or(defaults.keep_alive),
            persistent: file
                .session
                .map_or(defaults.persistent, |session| session == Session::Kept),
            payload: file.payload.map_or(64, |payload| payload.0),
            publishers: file.publishers.map_or(4, std::num::NonZeroUsize::get),
            threads: file.threads.map(std::num::NonZeroUsize::get),
            sources: file.source.clone().unwrap_or_default(),
            patience: time(file.patience, 10),
            late: time(file.late, 1),
            last_ones: time(file.last_ones, 10),
            // Parts of one run must carry one number without a word between their processes.
            run: file.run.or(is_part.then_some(1)),
            quiet: file.quiet.unwrap_or(false),
            server: shared.pid.clone(),
            tickets: None,
            phases,
            expect,
        }
    }

    /// Something is sent in it.
    pub fn publishes(&self) -> bool {
        self.phases.iter().any(Phase::publishes)
    }

    /// Something is sent to all at once.
    pub fn broadcasts(&self) -> bool {
        self.phases
            .iter()
            .any(|phase| phase.fanout != Fanout::Never)
    }

    /// What was asked for, by name, for the report.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let Range { start, end } = self.phones;
        let mut settings = BTreeMap::from([
            (
                "phones".into(),
                match start {
                    0 => grouped(u64::from(end)),
                    _ => format!("{}..{}", grouped(u64::from(start)), grouped(u64::from(end))),
                },
            ),
            (
                "connects".into(),
                format!("{}/s", grouped(self.connects.round() as u64)),
            ),
            (
                "protocol".into(),
                match self.version {
                    Version::V5 => "MQTT 5".into(),
                    Version::V311 => "MQTT 3.1.1".into(),
                    Version::V31 => "MQTT 3.1".into(),
                },
            ),
            ("keep alive".into(), format!("{} s", self.keep_alive)),
            (
                "session".into(),
                if self.persistent { "kept" } else { "clean" }.into(),
            ),
        ]);
        if self.publishes() {
            settings.insert("payload".into(), format!("{} B", self.payload));
        }
        if let Some(tickets) = &self.tickets {
            let not = |is: bool, what: &str| {
                if is {
                    what.into()
                } else {
                    format!("no {what}")
                }
            };
            settings.insert(
                "tickets".into(),
                format!(
                    "from {}, {}, {}",
                    tickets.url,
                    not(tickets.cache, "cache"),
                    not(tickets.pacing, "pacing")
                ),
            );
        }
        for (at, phase) in self.phases.iter().enumerate() {
            settings.insert(format!("phase {} {}", at + 1, phase.name), phase.in_words());
        }
        settings
    }
}

/// A scenario that can't be run as it was asked for. The operator's to mend.
#[derive(Debug)]
pub enum ScenarioError {
    /// The file.
    File(FileError),
    /// The lookup's URL.
    Lookup(UrlError),
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Lookup(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ScenarioError {}

fn time(typed: Option<file::Time>, seconds: u64) -> Duration {
    typed.map_or(Duration::from_secs(seconds), |time| time.0)
}

/// What differs between the named scenarios.
struct Defaults {
    phones: u32,
    connects: f64,
    keep_alive: u16,
    persistent: bool,
}

impl Defaults {
    fn of(kind: Kind) -> Self {
        let (phones, connects, keep_alive, persistent) = match kind {
            Kind::Connect => (1000, 1000.0, 60, false),
            Kind::Demo(_) => (15_000, 3000.0, 20, true),
            _ => (1000, 1000.0, 60, true),
        };
        Self {
            phones,
            connects,
            keep_alive,
            persistent,
        }
    }
}

/// The phases of the file, or the one that the named scenario is; then what was typed.
fn phases(
    kind: Kind,
    typed_time: Option<Duration>,
    file: &File,
    phones: f64,
    part: f64,
) -> Vec<Phase> {
    let shape = file
        .churn
        .map_or_else(Shape::default, file::ChurnKeys::shape);
    let mut phases = match &file.phase {
        Some(written) => written
            .iter()
            .enumerate()
            .map(|(at, phase)| as_written(at, phase, shape, &file.storm, part))
            .collect(),
        None => of_its_own(kind, file, shape, phones),
    };
    let total: Duration = phases.iter().map(|phase| phase.time).sum();
    for phase in &mut phases {
        if let Some(time) = typed_time {
            // Of a file, each phase; of the defaults, all together.
            phase.time = match file.phase {
                Some(_) => time,
                None => time.mul_f64(phase.time.as_secs_f64() / total.as_secs_f64().max(1e-9)),
            };
        }
        override_with(kind, phase, file, phones);
    }
    phases
}

fn of_its_own(kind: Kind, file: &File, shape: Shape, phones: f64) -> Vec<Phase> {
    let churn = Some(Churn {
        shape,
        ..Churn::default()
    });
    match kind {
        Kind::Connect => vec![Phase::new("hold", 10)],
        Kind::Churn(_) => {
            let mut phase = Phase::new("churn", 30);
            phase.churn = churn;
            vec![phase]
        }
        Kind::Storm(_) => {
            let mut phase = Phase::new("storm", 10);
            phase.storm = Some(storm(&file.storm, &StormKeys::default(), 1.0, Return::Now));
            vec![phase]
        }
        Kind::Fanout(_) => {
            let mut phase = Phase::new("fan-out", 10);
            phase.fanout = Fanout::Rate(1.0);
            vec![phase]
        }
        Kind::Unicast(_) => {
            let mut phase = Phase::new("unicast", 10);
            phase.unicast(UNICAST_RATE, 0.5);
            vec![phase]
        }
        Kind::Mixed(_) | Kind::Demo(_) => {
            let seconds = if matches!(kind, Kind::Demo(_)) { 9 } else { 15 };
            let mut first = Phase::new("push, churn", seconds);
            first.churn = churn;
            if matches!(kind, Kind::Demo(_)) {
                first.unicast(UNICAST_RATE, 0.5);
                first.fanout = Fanout::Rate(1.0 / 3.0);
            } else {
                mix(&mut first, MIXED_RATE, file, phones);
            }
            let mut second = first.clone();
            second.name = "and a storm".into();
            let within = StormKeys {
                within: Some(file::Time(Duration::from_secs(2))),
                ..StormKeys::default()
            };
            second.storm = Some(storm(&within, &file.storm, 0.05, Return::Jitter));
            vec![first, second]
        }
    }
}

/// Divides deliveries a second by the weights.
fn mix(phase: &mut Phase, deliveries: f64, file: &File, phones: f64) {
    let weights = file.weights.map_or(MIXED_WEIGHTS, |w| {
        [
            w.unicast0.unwrap_or(0.0),
            w.unicast1.unwrap_or(0.0),
            w.broadcast.unwrap_or(0.0),
        ]
    });
    let sum: f64 = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let [unicast0, unicast1, broadcast] = weights.map(|weight| deliveries * weight / sum);
    phase.unicast0 = unicast0;
    phase.unicast1 = unicast1;
    phase.fanout = match broadcast / phones.max(1.0) {
        rate if rate > 0.0 => Fanout::Rate(rate),
        _ => Fanout::Never,
    };
}

/// `first` overrides `second`.
fn storm(
    second: &StormKeys,
    first: &StormKeys,
    default_share: f64,
    default_back: Return,
) -> PlannedStorm {
    let back = first.back.or(second.back).unwrap_or(default_back);
    let within = time_of(first.within.or(second.within), JITTER);
    let command = first.command.as_ref().or(second.command.as_ref());
    PlannedStorm {
        storm: Storm {
            fraction: first
                .share
                .or(second.share)
                .map_or(default_share, |share| share.0),
            leave: match first.leave.or(second.leave) {
                Some(file::Leaving::Clean) => Leave::Clean,
                Some(file::Leaving::Reset) | None => Leave::Reset,
            },
            back: match back {
                Return::Now => Back::AtOnce,
                Return::Jitter => Back::Within(within),
                Return::Restart => Back::WhenListening,
            },
        },
        restart: (back == Return::Restart)
            .then(|| command.map_or(Restart::Operator, |c| Restart::Command(c.clone()))),
        patience: time_of(first.patience.or(second.patience), Duration::from_secs(120)),
    }
}

fn time_of(typed: Option<file::Time>, default: Duration) -> Duration {
    typed.map_or(default, |time| time.0)
}

fn as_written(
    at: usize,
    written: &file::PhaseKeys,
    shape: Shape,
    storms: &StormKeys,
    part: f64,
) -> Phase {
    let mut phase = Phase::new("", 10);
    phase.name = written
        .name
        .clone()
        .unwrap_or_else(|| format!("phase {}", at + 1));
    phase.time = time(written.time, 10);
    phase.churn = written.churn.map(|share| Churn {
        fraction_per_second: share.0,
        shape,
    });
    if let Some(rate) = written.unicast {
        phase.unicast(rate.0 * part, written.qos1.map_or(0.5, |share| share.0));
    }
    phase.fanout = match written.broadcast {
        None => Fanout::Never,
        Some(file::Broadcasts::Once) => Fanout::Once,
        Some(file::Broadcasts::Rate(rate)) => Fanout::Rate(rate),
    };
    phase.storm = written
        .storm
        .as_ref()
        .map(|keys| storm(storms, keys, 1.0, Return::Now));
    phase
}

/// What was typed for this scenario alone goes to each phase that has such a thing.
fn override_with(kind: Kind, phase: &mut Phase, file: &File, phones: f64) {
    let unicasts = phase.unicast0 + phase.unicast1;
    match kind {
        Kind::Churn(Some(share)) => {
            if let Some(churn) = &mut phase.churn {
                churn.fraction_per_second = share;
            }
        }
        Kind::Storm(Some(back)) => {
            if let Some(planned) = &mut phase.storm {
                let keys = StormKeys {
                    back: Some(back),
                    share: Some(file::Share(planned.storm.fraction)),
                    patience: Some(file::Time(planned.patience)),
                    ..StormKeys::default()
                };
                *planned = storm(&file.storm, &keys, 1.0, back);
            }
        }
        Kind::Fanout(Some(rate)) if phase.fanout != Fanout::Never => {
            phase.fanout = Fanout::Rate(rate);
        }
        Kind::Unicast(Some(rate)) | Kind::Demo(Some(rate)) if unicasts > 0.0 => {
            phase.unicast(rate, phase.unicast1 / unicasts);
        }
        Kind::Mixed(Some(rate)) if phase.publishes() => mix(phase, rate, file, phones),
        _ => {}
    }
}

/// What is expected where nobody says: as always, but for what a storm or a restart brings with it.
fn usual(phases: &[Phase]) -> Vec<Expectation> {
    let storms = || phases.iter().filter_map(|phase| phase.storm.as_ref());
    let text = if storms().any(|planned| planned.restart.is_some()) {
        // What was in flight, and sessions that are kept in memory alone, go with the server.
        "never_ready=0,unready=0,duplicates=0,damaged=0"
    } else if storms().any(|planned| planned.storm.fraction > 0.5) {
        // Whoever is turned away comes again; that all are back at the end is what counts.
        "never_ready=0,unready=0,unacknowledged=0,missing=0,duplicates=0,reordered=0,damaged=0,sessions_lost=0"
    } else {
        return expect::usual();
    };
    Expectation::parse_all(text).unwrap_or_else(|_| unreachable!("a test reads them"))
}

#[cfg(test)]
mod tests;
