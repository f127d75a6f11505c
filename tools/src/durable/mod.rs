//! `tools durable`: what sessions and messages cost that wait for phones which are away.
//!
//! One run on one broker: sessions begin and leave (`crowd`), messages are queued for them (`feed`), the broker is killed and started again,
//! and all come back for what is theirs. Each step is timed, and counted in the CPU of the broker's process, in its memory and on disk.

mod crowd;
mod feed;
mod launch;
mod page;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use loadgen::machine::{self, CpuTime};
use serde::Serialize;
use stillwire::sys::{capacity, rlimit};

use crate::broker::{self, BrokerError};
use crate::cli::Durable;
use crate::process::Process;

use crowd::{Crowd, Task};
use feed::{Bystander, Publisher};
use launch::Launch;

pub(crate) use launch::Broker;

/// Names the shape of the JSON.
const SCHEMA: &str = "stillwire.durable/1";

/// Memory is read so long after the last packet.
const SETTLE: Duration = Duration::from_secs(1);

/// All runs.
#[derive(Debug, Serialize)]
pub(crate) struct Runs {
    schema: &'static str,
    machine: String,
    date: String,
    load_before: f64,
    subscriptions: u32,
    /// Topics of their own, or common ones.
    own_topics: bool,
    qos: u8,
    figures: Vec<Figures>,
}

/// What one run gave. Times in seconds, CPU in microseconds.
#[derive(Debug, Default, Serialize)]
struct Figures {
    broker: String,
    sessions: u32,
    /// Messages for each session alone.
    each: u32,
    /// Connect, subscribe, leave: of a session.
    enroll_cpu: f64,
    enroll_seconds: f64,
    session_memory: f64,
    session_disk: f64,
    /// Of a message to one session.
    enqueue_cpu: f64,
    enqueue_rate: f64,
    message_memory: f64,
    message_disk: f64,
    /// One message to all sessions: the slowest.
    broadcast_seconds: f64,
    broadcast_cpu: f64,
    broadcast_disk: f64,
    /// The longest a ping waited meanwhile, and without any broadcast.
    ping_seconds: f64,
    quiet_ping_seconds: f64,
    /// From the start of the process after its end.
    listening_seconds: f64,
    first_connack_seconds: f64,
    first_puback_seconds: f64,
    restarted_memory: u64,
    log_bytes: u64,
    /// All come back.
    replay_cpu: f64,
    replay_rate: f64,
    replay_seconds: f64,
    wait_p50: f64,
    wait_p99: f64,
    wait_max: f64,
    received: u64,
    missing: u64,
    twice: u64,
    disordered: u64,
    sessions_lost: u64,
    late: u64,
    /// What kept it from going on.
    stopped: Option<String>,
}

/// Why there are no figures.
#[derive(Debug)]
pub(crate) enum DurableError {
    Broker(BrokerError),
    Io(io::Error),
}

impl fmt::Display for DurableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for DurableError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Runs {
    pub(crate) fn is_valid(&self) -> bool {
        self.figures.iter().all(Figures::is_valid)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|_| unreachable!("plain data")) + "\n"
    }
}

impl Figures {
    fn is_valid(&self) -> bool {
        let wrong = self.missing + self.twice + self.disordered + self.sessions_lost + self.late;
        wrong == 0 && self.stopped.is_none()
    }
}

/// Runs all.
pub(crate) fn run(args: &Durable) -> Result<Runs, DurableError> {
    // The brokers inherit it.
    rlimit::raise_open_files()?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => broker::built().map_err(DurableError::Broker)?,
    };
    let mut runs = Runs {
        schema: SCHEMA,
        machine: machine::describe(),
        date: machine::today(),
        load_before: machine::load(),
        subscriptions: args.subscriptions,
        own_topics: args.own_topics,
        qos: args.qos,
        figures: Vec::new(),
    };
    let mut brokers = args.broker.clone();
    if brokers.is_empty() {
        brokers.push(Broker::Stillwire);
    }
    for broker in brokers {
        let durabilities = match broker {
            Broker::Stillwire => args.durability.words(),
            Broker::Mosquitto | Broker::NatsServer => &["process"],
        };
        for &durability in durabilities {
            for &sessions in &args.sessions {
                let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
                let own = dir.join(format!("stillwire-durable-{}", std::process::id()));
                // Each kept number of sessions has a directory of its own.
                let kept = args.keep.as_ref();
                let kept = kept.map(|dir| dir.join(format!("{durability}-{sessions}")));
                let launch = Launch {
                    broker,
                    binary: binary.clone(),
                    keeps: kept.is_some(),
                    dir: kept.unwrap_or(own),
                    reactors: reactors(args, sessions),
                    durability,
                    sessions,
                };
                eprintln!("{}: {sessions} sessions", launch.name());
                runs.figures.push(one(args, &launch));
                if !launch.keeps {
                    std::fs::remove_dir_all(&launch.dir)?;
                }
            }
        }
    }
    Ok(runs)
}

/// As many reactors as were asked for, or as it takes to hold all connections at once.
fn reactors(args: &Durable, sessions: u32) -> usize {
    let at_once = if args.no_return {
        args.at_once as u64
    } else {
        u64::from(sessions)
    };
    capacity::Machine::read()
        .ok()
        .and_then(|machine| capacity::reactors_for(&machine, at_once + 100))
        .map_or(args.reactors, |needed| needed.max(args.reactors))
}

/// One run. What stops it is among its figures.
fn one(args: &Durable, launch: &Launch) -> Figures {
    let mut figures = Figures {
        broker: launch.name(),
        sessions: launch.sessions,
        each: args.messages,
        ..Figures::default()
    };
    if let Err(error) = steps(args, launch, &mut figures) {
        figures.stopped = Some(error);
    }
    figures
}

/// The broker's process with what it takes of everything.
struct Taken {
    cpu: CpuTime,
    memory: u64,
    disk: u64,
}

impl Taken {
    fn of(process: &Process, data: &Path) -> io::Result<Self> {
        Ok(Self {
            cpu: CpuTime::of(process.pid())?,
            memory: machine::own_memory(process.pid())?,
            disk: launch::disk(data)?,
        })
    }

    fn cpu_since(&self, before: &Self) -> f64 {
        self.cpu.micros_since(&before.cpu).0
    }

    fn memory_since(&self, before: &Self) -> f64 {
        self.memory as f64 - before.memory as f64
    }

    fn disk_since(&self, before: &Self) -> f64 {
        self.disk as f64 - before.disk as f64
    }
}

/// What stays the same where sessions are made once for several runs.
fn what_is_made(args: &Durable, launch: &Launch) -> String {
    format!(
        "{} sessions of {} subscriptions{}, {} messages for each and {} to all, QoS {}, {} reactors",
        launch.sessions,
        args.subscriptions,
        if args.own_topics { " of their own" } else { "" },
        args.messages,
        args.broadcasts,
        args.qos,
        launch.reactors
    )
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn taken(launch: &Launch, process: &Process) -> Result<Taken, String> {
    Taken::of(process, &launch.data()).map_err(failed("its figures"))
}

fn steps(args: &Durable, launch: &Launch, figures: &mut Figures) -> Result<(), String> {
    let mut crowd = Crowd {
        addr: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        version: launch.broker.version(),
        qos: args.qos,
        sessions: launch.sessions,
        at_once: args.at_once,
    };
    let made = what_is_made(args, launch);
    if !launch.is_made(&made)? {
        make(args, launch, &mut crowd, figures)?;
        launch.note_made(&made).map_err(failed("what was made"))?;
    }
    let (process, back) = restart(args, launch, &mut crowd, figures)?;
    if args.no_return {
        return Ok(());
    }
    come_back(args, launch, &crowd, &process, &back, figures)
}

/// Sessions begin and leave, and messages are queued for them; then the broker ends.
fn make(
    args: &Durable,
    launch: &Launch,
    crowd: &mut Crowd,
    figures: &mut Figures,
) -> Result<(), String> {
    let mut process = launch.start().map_err(failed("start"))?;
    let addr = process.ready()?;
    crowd.addr = addr;
    let (version, sessions, each) = (crowd.version, launch.sessions, args.messages);
    let (count, queued) = (f64::from(sessions), f64::from(sessions) * f64::from(each));

    let start = taken(launch, &process)?;
    let task = Task::Enroll {
        subscriptions: args.subscriptions,
        own: args.own_topics,
    };
    let (done, held) = crowd.run(task).map_err(failed("enroll"))?;
    drop(held);
    if done.late > 0 {
        return Err(format!("{} sessions couldn't begin", done.late));
    }
    figures.enroll_seconds = done.took.as_secs_f64();
    std::thread::sleep(SETTLE);
    let enrolled = taken(launch, &process)?;
    figures.enroll_cpu = enrolled.cpu_since(&start) / count;
    figures.session_memory = enrolled.memory_since(&start) / count;
    figures.session_disk = enrolled.disk_since(&start) / count;

    if each > 0 {
        let took =
            feed::enqueue(addr, version, args.qos, sessions, each).map_err(failed("enqueue"))?;
        let fed = taken(launch, &process)?;
        figures.enqueue_rate = queued / took.as_secs_f64();
        figures.enqueue_cpu = fed.cpu_since(&enrolled) / queued;
        figures.message_memory = fed.memory_since(&enrolled) / queued;
        figures.message_disk = fed.disk_since(&enrolled) / queued;
    }
    broadcast(args, launch, &process, crowd, figures)
        .map_err(|error| format!("broadcast: {error}"))?;

    if launch.broker.survives_sigkill() {
        process.kill();
    } else {
        process.stop().map_err(failed("stop"))?;
        while process.ended().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// A new beginning, and what the broker took when it had everything.
fn restart(
    args: &Durable,
    launch: &Launch,
    crowd: &mut Crowd,
    figures: &mut Figures,
) -> Result<(Process, Taken), String> {
    figures.log_bytes = launch::disk(&launch.data()).map_err(failed("its disk"))?;
    let mut process = launch.start().map_err(failed("start again"))?;
    crowd.addr = process.ready()?;
    let began = process.began;
    let since = || began.elapsed().as_secs_f64();
    figures.listening_seconds = since();
    let mut first = Publisher::connect(crowd.addr, crowd.version, "first")
        .map_err(failed("a first connect"))?;
    figures.first_connack_seconds = since();
    // Only when all sessions are loaded is it known who must have it. Where sessions are kept it goes to nobody, so that the next run finds the same.
    let topic = if launch.keeps { "nobody" } else { crowd::ALL };
    first
        .send_all(topic, args.broadcasts, args.qos)
        .map_err(failed("a first message"))?;
    figures.first_puback_seconds = since();
    std::thread::sleep(SETTLE);
    let back = taken(launch, &process)?;
    figures.restarted_memory = back.memory;
    Ok((process, back))
}

/// All come back for what is theirs.
fn come_back(
    args: &Durable,
    launch: &Launch,
    crowd: &Crowd,
    process: &Process,
    back: &Taken,
    figures: &mut Figures,
) -> Result<(), String> {
    let task = Task::Return {
        own: args.messages,
        to_all: args.broadcasts + 1,
    };
    let (done, held) = crowd.run(task).map_err(failed("replay"))?;
    let replayed = taken(launch, process)?;
    drop(held);
    let received = done.received.max(1) as f64;
    figures.replay_cpu = replayed.cpu_since(back) / received;
    figures.replay_seconds = done.took.as_secs_f64();
    figures.replay_rate = received / figures.replay_seconds;
    let wait = |quantile| done.waits.at(quantile) as f64 / 1e6;
    (figures.wait_p50, figures.wait_p99) = (wait(0.5), wait(0.99));
    figures.wait_max = done.waits.max() as f64 / 1e6;
    figures.received = done.received;
    figures.missing = done.missing;
    figures.twice = done.twice;
    figures.disordered = done.disordered;
    figures.sessions_lost = done.sessions_lost;
    figures.late = done.late;
    Ok(())
}

/// Messages to all sessions, which are away, and what that does to somebody who isn't.
fn broadcast(
    args: &Durable,
    launch: &Launch,
    process: &Process,
    crowd: &Crowd,
    figures: &mut Figures,
) -> Result<(), String> {
    if args.broadcasts == 0 {
        return Ok(());
    }
    let failed = |error: io::Error| error.to_string();
    let (addr, version) = (crowd.addr, crowd.version);
    let mut publisher = Publisher::connect(addr, version, "to all").map_err(failed)?;
    let quiet = Bystander::start(addr, version).map_err(failed)?;
    std::thread::sleep(SETTLE);
    figures.quiet_ping_seconds = quiet.end().map_err(failed)?.as_secs_f64();
    let before = taken(launch, process)?;
    let bystander = Bystander::start(addr, version).map_err(failed)?;
    let began = Instant::now();
    for seq in 0..args.broadcasts {
        let took = publisher
            .send_all(crowd::ALL, seq, args.qos)
            .map_err(failed)?;
        figures.broadcast_seconds = figures.broadcast_seconds.max(took.as_secs_f64());
    }
    eprintln!(
        "  {} messages to all: {:.2} s",
        args.broadcasts,
        began.elapsed().as_secs_f64()
    );
    figures.ping_seconds = bystander.end().map_err(failed)?.as_secs_f64();
    let after = taken(launch, process)?;
    let copies = f64::from(args.broadcasts) * f64::from(figures.sessions);
    figures.broadcast_cpu = after.cpu_since(&before) / copies;
    figures.broadcast_disk = after.disk_since(&before) / copies;
    Ok(())
}
