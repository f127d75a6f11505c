//! The measurement of one broker: connects, idles, broadcasts and pushes, and reads what each cost the broker's process.
//!
//! CPU is the process's own time (schedstat, which is exact), split into user space and kernel by samples (see `samples`). What the kernel
//! does on behalf of the generator is the generator's, although on loopback a send runs the receiver's half too. A row is the whole phase
//! divided by the count.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use loadgen::connect::{self, BeginError};
use loadgen::fleet::{Churn, Fleet, FleetPlan, Shape};
use loadgen::ledger::Ledger;
use loadgen::machine::{self, CpuTime};
use loadgen::payload::Kind;
use loadgen::preflight::Machine;
use loadgen::publisher::{PublishError, Publisher, PublisherPlan, Stream};
use loadgen::report::{Broadcast, Latency};
use loadgen::script::Script;
use loadgen::sources::Sources;
use loadgen::stats::Count;
use loadgen::tickets::{Tickets, Url};
use loadgen::watch::{Ended, Watch};
use serde::Serialize;
use stillwire::wire::Version;

use crate::broker::{Broker, BrokerError};
use crate::samples::{Samples, Seen};

/// Bytes of a message.
const PAYLOAD: usize = 64;

/// Connections that publish.
const PUBLISHERS: usize = 4;

/// Memory is read this long after the last connect.
const SETTLE: Duration = Duration::from_secs(2);

/// Between two broadcasts, so that none waits for the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// Broadcasts and messages while the process is sampled.
const SAMPLED_BROADCASTS: u32 = 10;
const SAMPLED_MESSAGES: u64 = 100_000;

/// The longest wait for one broadcast, or for the end of a phase.
const PATIENCE: Duration = Duration::from_secs(20);

/// Microseconds of CPU for one of something.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    /// In all.
    pub(crate) all: f64,
    /// In user space.
    pub(crate) user: f64,
    /// What the kernel's network threads used meanwhile, for whomever; not part of `all`.
    pub(crate) softirq: f64,
    /// How many it is the mean of.
    pub(crate) count: u64,
}

/// What a broker is measured with.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    /// Phones, with two subscriptions each.
    pub(crate) connections: u32,
    /// Connects a second.
    pub(crate) rate: u64,
    /// Messages to all.
    pub(crate) broadcasts: u32,
    /// Messages to one phone, at each QoS.
    pub(crate) messages: u64,
    /// Of these, so many a second.
    pub(crate) message_rate: u64,
    /// How often all connections are replaced in the end; 0: they aren't.
    pub(crate) turnovers: u32,
}

/// Memory after churn, and when everybody has left.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Turnover {
    /// Bytes of user space (Pss) a connection, before the churn: with the buffers that messages have made grow.
    pub(crate) user_bytes_before: f64,
    /// The same after the churn.
    pub(crate) user_bytes: f64,
    /// Bytes of Pss when all phones have left.
    pub(crate) bytes_after: u64,
}

/// The figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) broker: String,
    pub(crate) connections: u64,
    /// Bytes of user space (Pss) a connection.
    pub(crate) user_bytes: f64,
    /// Bytes of Pss before the first connection.
    pub(crate) start_bytes: u64,
    /// Bytes of kernel slab a connection, both ends and all of the machine.
    pub(crate) slab_bytes: f64,
    pub(crate) connect: Cost,
    pub(crate) delivery: Cost,
    pub(crate) unicast0: Cost,
    pub(crate) unicast1: Cost,
    pub(crate) broadcasts: Vec<Broadcast>,
    pub(crate) turnover: Option<Turnover>,
    pub(crate) latency: Vec<Latency>,
    /// The broker didn't keep up with a phase: what follows wasn't measured.
    pub(crate) stopped: Option<String>,
    /// Phones that weren't ready, or messages that didn't come.
    pub(crate) lost: u64,
    /// Failed connections.
    pub(crate) failures: u64,
}

impl Cost {
    /// Not measured.
    const NONE: Self = Self {
        all: f64::NAN,
        user: f64::NAN,
        softirq: f64::NAN,
        count: 0,
    };
}

impl Figures {
    /// All costs.
    pub(crate) const COSTS: [fn(&Self) -> Cost; 4] = [
        |figures| figures.connect,
        |figures| figures.delivery,
        |figures| figures.unicast0,
        |figures| figures.unicast1,
    ];

    pub(crate) fn is_valid(&self) -> bool {
        self.lost == 0 && self.stopped.is_none()
    }

    /// Microseconds of the slowest delivery of any broadcast.
    pub(crate) fn slowest(&self) -> u64 {
        self.broadcasts
            .iter()
            .map(|broadcast| broadcast.slowest)
            .max()
            .unwrap_or(0)
    }
}

/// Why there are no figures.
#[derive(Debug)]
pub(crate) enum MeasureError {
    Broker(BrokerError),
    Begin(BeginError),
    Publish(PublishError),
    Proc(io::Error),
    /// A phase ended otherwise than by being done.
    Ended(&'static str, Ended),
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::Begin(error) => error.fmt(f),
            Self::Publish(error) => error.fmt(f),
            Self::Proc(error) => write!(f, "can't read the broker's process: {error}"),
            Self::Ended(phase, Ended::Interrupted) => write!(f, "interrupted ({phase})"),
            Self::Ended(phase, _) => write!(f, "the broker didn't keep up ({phase})"),
        }
    }
}

impl std::error::Error for MeasureError {}

struct Bench {
    load: Load,
    // Dropped in this order: the phones hang up before the broker goes.
    fleet: Fleet,
    publisher: Publisher,
    broker: Broker,
    watch: Watch,
    latency: Vec<Latency>,
    samples: Option<Samples>,
}

/// Measures a broker, and ends it.
pub(crate) fn run(
    load: Load,
    broker: Broker,
    interrupted: &Arc<AtomicBool>,
) -> Result<Figures, MeasureError> {
    Bench::set_up(load, broker, Arc::clone(interrupted))?.measure()
}

/// Replaces the user-space parts with those of a run of its own, for which the process is sampled. Without permission to do so, they stay
/// what the timer tick says.
pub(crate) fn refine(
    figures: &mut Figures,
    load: Load,
    broker: Broker,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), MeasureError> {
    let Ok(samples) = Samples::of(broker.pid) else {
        return Ok(());
    };
    let mut bench = Bench::set_up(load.sampled(), broker, Arc::clone(interrupted))?;
    bench.samples = Some(samples);
    let sampled = bench.measure()?;
    figures.connect.user = sampled.connect.user;
    figures.delivery.user = sampled.delivery.user;
    figures.unicast0.user = sampled.unicast0.user;
    figures.unicast1.user = sampled.unicast1.user;
    figures.lost += sampled.lost;
    Ok(())
}

impl Load {
    /// At a part of the rates, with as many broadcasts and as many seconds of messages.
    pub(crate) fn slower(self, by: u64) -> Self {
        Self {
            rate: (self.rate / by).max(1),
            messages: (self.messages / by).max(1),
            message_rate: (self.message_rate / by).max(1),
            ..self
        }
    }

    /// A shorter one, of the same rates.
    fn sampled(self) -> Self {
        Self {
            broadcasts: self.broadcasts.min(SAMPLED_BROADCASTS),
            messages: self.messages.min(SAMPLED_MESSAGES),
            turnovers: 0,
            ..self
        }
    }
}

impl Bench {
    fn set_up(
        load: Load,
        broker: Broker,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self, MeasureError> {
        let machine = Machine::read().map_err(MeasureError::Proc)?;
        let plan = FleetPlan {
            targets: vec![broker.addr],
            first: 0,
            phones: load.connections,
            threads: machine.threads_for(load.connections),
            sources: Sources::choose(&[broker.addr], Vec::new()),
            // No pings meanwhile: each phase has its own work alone.
            script: Script {
                version: Version::V311,
                persistent: false,
                keep_alive: 600,
            },
            patience: connect::PATIENCE,
            retry: true,
            late: Duration::from_secs(1),
            tickets: broker.lookup.map(tickets_of),
        };
        connect::preflight(&machine, &plan).map_err(MeasureError::Begin)?;
        let ledger = Arc::new(Ledger::new(fastrand::u32(..), 0, load.connections));
        let publishers = PublisherPlan {
            targets: plan.targets.clone(),
            connections: PUBLISHERS,
            version: Version::V311,
            payload: PAYLOAD,
            seed: 1,
            tickets: None,
        };
        let mut watch = Watch::new(false, interrupted);
        watch.note(&format!(
            "{}: {} connections, two subscriptions each",
            broker.name, load.connections
        ));
        let fleet = Fleet::start(plan, Arc::clone(&ledger))
            .map_err(|error| MeasureError::Begin(BeginError::Fleet(error)))?;
        let publisher = Publisher::start(&publishers, ledger).map_err(MeasureError::Publish)?;
        Ok(Self {
            load,
            broker,
            fleet,
            publisher,
            watch,
            latency: Vec::new(),
            samples: None,
        })
    }

    /// Phones that are to have a ticket get it now: asking for it is no part of a connect.
    fn collect_tickets(&mut self) -> Result<(), MeasureError> {
        if self.broker.lookup.is_none() {
            return Ok(());
        }
        self.watch.phase("tickets");
        self.fleet.collect_tickets();
        let phones = u64::from(self.load.connections);
        let ended = self.watch.until(&self.fleet, None, PATIENCE, |totals| {
            totals.get(Count::Tickets) >= phones
        });
        met("tickets", ended)
    }

    fn measure(mut self) -> Result<Figures, MeasureError> {
        self.collect_tickets()?;
        self.rest("start", SETTLE / 2)?;
        let (start_bytes, start_slab) = (self.pss()?, machine::slab().map_err(MeasureError::Proc)?);
        let before = self.cpu()?;
        let ramp = connect::ramp_up(&self.fleet, self.load.rate.max(1) as f64, &mut self.watch);
        if ramp.ended != Ended::Met {
            return Err(MeasureError::Ended("connect", ramp.ended));
        }
        let connect = self.cpu()?.cost_since(&before, ramp.ready);
        self.take_latencies();

        self.rest("settle", SETTLE)?;
        let each = |before: u64, after: u64| (after as f64 - before as f64) / ramp.ready as f64;
        let user_bytes = each(start_bytes, self.pss()?);
        let slab_bytes = each(start_slab, machine::slab().map_err(MeasureError::Proc)?);

        let mut figures = Figures {
            broker: self.broker.name.clone(),
            connections: ramp.ready,
            user_bytes,
            start_bytes,
            slab_bytes,
            connect,
            delivery: Cost::NONE,
            unicast0: Cost::NONE,
            unicast1: Cost::NONE,
            broadcasts: Vec::new(),
            turnover: None,
            latency: Vec::new(),
            stopped: None,
            lost: 0,
            failures: 0,
        };
        let mut churned = None;
        match self
            .messages(&mut figures)
            .and_then(|()| self.churn(start_bytes))
        {
            Ok(user_bytes) => {
                churned = user_bytes;
                self.fleet.settle();
                let totals = self.fleet.totals();
                let phones = u64::from(self.load.connections);
                figures.lost = phones.saturating_sub(totals.ready()) + totals.missing();
            }
            Err(error @ MeasureError::Ended(_, Ended::TimedOut | Ended::Broken)) => {
                figures.stopped = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        figures.failures = self.fleet.totals().failed();
        figures.latency = std::mem::take(&mut self.latency);
        if let Some([user_bytes_before, user_bytes]) = churned {
            figures.turnover = Some(Turnover {
                user_bytes_before,
                user_bytes,
                bytes_after: self.leave()?,
            });
        }
        Ok(figures)
    }

    fn messages(&mut self, figures: &mut Figures) -> Result<(), MeasureError> {
        (figures.delivery, figures.broadcasts) = self.fan_out(figures.connections)?;
        figures.unicast0 = self.unicast(Kind::Unicast0, "QoS 0")?;
        figures.unicast1 = self.unicast(Kind::Unicast1, "QoS 1")?;
        Ok(())
    }

    /// All connections are replaced as often as the plan says, at the rate of connects; returns the bytes of user space that a connection
    /// took before and takes then.
    fn churn(&mut self, start_bytes: u64) -> Result<Option<[f64; 2]>, MeasureError> {
        if self.load.turnovers == 0 {
            return Ok(None);
        }
        self.watch.phase("churn");
        let phones = u64::from(self.load.connections);
        let each = |pss: u64| (pss as f64 - start_bytes as f64) / phones as f64;
        let user_bytes = each(self.pss()?);
        let comings = u64::from(self.load.turnovers) * phones;
        let before = self.fleet.totals().get(Count::Readied);
        let rate = self.load.rate.max(1) as f64;
        self.fleet.churn(Churn {
            fraction_per_second: rate / phones as f64,
            // Connections that end: one that stands a while longer would count as memory of the churn.
            shape: Shape {
                vanish: 0.0,
                takeover: 0.0,
                away_max: Duration::from_secs(2),
                ..Shape::default()
            },
        });
        let longest = PATIENCE + Duration::from_secs_f64(2.0 * comings as f64 / rate);
        let ended = self.watch.until(&self.fleet, None, longest, |totals| {
            totals.get(Count::Readied) - before >= comings
        });
        self.fleet.churn(Churn::NONE);
        met("churn", ended)?;
        let ended = self.watch.until(&self.fleet, None, PATIENCE, |totals| {
            totals.ready() >= phones
        });
        met("churn", ended)?;
        self.rest("churn", SETTLE)?;
        Ok(Some([user_bytes, each(self.pss()?)]))
    }

    /// All phones leave, and the broker has time to give memory back; returns what it has then.
    fn leave(self) -> Result<u64, MeasureError> {
        drop(self.fleet);
        std::thread::sleep(SETTLE);
        machine::pss(self.broker.pid).map_err(MeasureError::Proc)
    }

    /// One broadcast after the other, the first one not counted: it grows buffers.
    fn fan_out(&mut self, phones: u64) -> Result<(Cost, Vec<Broadcast>), MeasureError> {
        self.watch.phase("fan-out");
        self.broadcast(phones)?;
        self.fleet.clear_latencies();
        let before = self.cpu()?;
        for _ in 0..self.load.broadcasts {
            self.broadcast(phones)?;
            self.rest("fan-out", PAUSE)?;
        }
        let delivery = self
            .cpu()?
            .cost_since(&before, phones * u64::from(self.load.broadcasts));
        self.take_latencies();
        Ok((delivery, Broadcast::all(self.fleet.ledger()).split_off(1)))
    }

    fn broadcast(&mut self, phones: u64) -> Result<(), MeasureError> {
        let ledger = Arc::clone(self.fleet.ledger());
        let sequence = ledger.broadcasts() + 1;
        self.publisher.broadcast();
        let ended = self
            .watch
            .until(&self.fleet, Some(&self.publisher), PATIENCE, |_| {
                ledger.broadcasts() == sequence
                    && u64::from(ledger.round(sequence).received()) >= phones
            });
        met("fan-out", ended)
    }

    fn unicast(&mut self, kind: Kind, phase: &'static str) -> Result<Cost, MeasureError> {
        let count = self.load.messages;
        self.watch.phase(phase);
        let received_before = self.fleet.totals().received();
        let before = self.cpu()?;
        self.publisher.run(Stream {
            kind,
            per_second: self.load.message_rate.max(1) as f64,
            count,
        });
        let longest =
            PATIENCE + Duration::from_secs_f64(count as f64 / self.load.message_rate.max(1) as f64);
        let publisher = &self.publisher;
        let ended = self
            .watch
            .until(&self.fleet, Some(publisher), longest, |totals| {
                totals.received() - received_before >= count && publisher.is_idle()
            });
        met(phase, ended)?;
        let cost = self.cpu()?.cost_since(&before, count);
        self.take_latencies();
        Ok(cost)
    }

    fn rest(&mut self, phase: &'static str, time: Duration) -> Result<(), MeasureError> {
        self.watch.phase(phase);
        met(
            phase,
            self.watch.rest(&self.fleet, Some(&self.publisher), time),
        )
    }

    fn take_latencies(&mut self) {
        self.latency.extend(Latency::all(&self.fleet.latencies()));
        self.fleet.clear_latencies();
    }

    fn cpu(&mut self) -> Result<Clocks, MeasureError> {
        let process = CpuTime::of(self.broker.pid).map_err(MeasureError::Proc)?;
        Ok(Clocks {
            process,
            softirq: machine::softirq_nanos().map_err(MeasureError::Proc)?,
            samples: self.samples.as_mut().map(Samples::read),
        })
    }

    fn pss(&self) -> Result<u64, MeasureError> {
        machine::pss(self.broker.pid).map_err(MeasureError::Proc)
    }
}

/// How phones ask for tickets at that address. They are measured at the rate that is wanted, so the lookup doesn't pace them.
fn tickets_of(lookup: SocketAddr) -> Tickets {
    let url = format!("http://{lookup}");
    let url: Url = url
        .parse()
        .unwrap_or_else(|_| unreachable!("the address of a socket"));
    let tickets = Tickets::at(url).unwrap_or_else(|_| unreachable!("nothing is to be resolved"));
    Tickets {
        pacing: false,
        ..tickets
    }
}

fn met(phase: &'static str, ended: Ended) -> Result<(), MeasureError> {
    if ended == Ended::Met {
        Ok(())
    } else {
        Err(MeasureError::Ended(phase, ended))
    }
}

/// CPU at one moment.
struct Clocks {
    process: CpuTime,
    softirq: u64,
    samples: Option<Seen>,
}

impl Clocks {
    fn cost_since(&self, earlier: &Self, count: u64) -> Cost {
        let (all, by_tick) = self.process.micros_since(&earlier.process);
        let share = (self.samples.as_ref().zip(earlier.samples.as_ref()))
            .and_then(|(now, earlier)| now.user_share_since(earlier));
        let user = share.map_or(by_tick, |share| all * share);
        let softirq = self.softirq.saturating_sub(earlier.softirq) as f64 / 1e3;
        let each = |micros: f64| micros / count.max(1) as f64;
        Cost {
            all: each(all),
            user: each(user),
            softirq: each(softirq),
            count,
        }
    }
}

#[cfg(test)]
impl Figures {
    /// Made up: `micros` for one of anything.
    pub(crate) fn made_up(broker: &str, micros: f64) -> Self {
        let cost = Cost {
            all: micros,
            user: micros / 10.0,
            softirq: 0.0,
            count: 1000,
        };
        Self {
            broker: broker.into(),
            connections: 1000,
            user_bytes: 200.0,
            start_bytes: 8_000_000,
            slab_bytes: 8000.0,
            connect: cost,
            delivery: cost,
            unicast0: cost,
            unicast1: cost,
            broadcasts: Vec::new(),
            turnover: None,
            latency: Vec::new(),
            stopped: None,
            lost: 0,
            failures: 0,
        }
    }

    /// It stopped before the messages to one phone.
    pub(crate) fn stopped(mut self) -> Self {
        (self.unicast0, self.unicast1) = (Cost::NONE, Cost::NONE);
        self.stopped = Some("the broker didn't keep up (QoS 0)".into());
        self
    }
}

#[cfg(test)]
impl Load {
    pub(crate) fn made_up() -> Self {
        Self {
            connections: 1000,
            rate: 8000,
            broadcasts: 3,
            messages: 1000,
            message_rate: 60_000,
            turnovers: 5,
        }
    }
}
