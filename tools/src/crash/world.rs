//! One server and its clients: load, death, restart, again and again. What happens is drawn from the seed; when, the machine has its part in.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use mio::{Events, Poll};

use super::Sabotage;
use super::fault::{Fault, Kind};
use super::launch::Launch;
use super::model::{Counts, Model};
use super::people::{self, DURABLE, PUBLISHERS};
use super::phone::Phone;
use super::reader;
use crate::process::{self, Process};

/// No packet for so long: the server doesn't answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lives between two rounds in which everything is delivered and counted.
const LIVES_A_ROUND: u32 = 8;

/// Acknowledgements of a server that isn't killed at all.
const WITHOUT_KILLS: u64 = 20_000;

/// What a world does.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) launch: Launch,
    /// Times to end the server.
    pub(super) ends: u32,
    /// SIGTERM instead of SIGKILL, always.
    pub(super) gently: bool,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) until: Option<Instant>,
}

/// How a world went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) plan: Plan,
    pub(super) counts: Counts,
    pub(super) ended: Ended,
    pub(super) restarts: Vec<Duration>,
    pub(super) faults: Vec<Fault>,
}

/// How often the server ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    /// Killed under load.
    pub(super) running: u32,
    /// Killed before it listened.
    pub(super) starting: u32,
    /// Killed with nothing to do.
    pub(super) idle: u32,
    /// Asked to end (SIGTERM).
    pub(super) asked: u32,
}

impl Ended {
    pub(super) fn all(&self) -> u32 {
        self.running + self.starting + self.idle + self.asked
    }
}

/// When a life ends: counted from its start.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After this share of the last start's time.
    Starting(f64),
    Acknowledged(u64),
    Bytes(u64),
    Delivered(u64),
    /// So many clients are back.
    Online(usize),
}

struct World<'a> {
    plan: Plan,
    random: Rng,
    model: Model,
    phones: Vec<Phone>,
    /// What each publisher may publish to: topic, QoS, retained.
    choices: Vec<Vec<(usize, u8, bool)>>,
    poll: Poll,
    events: Events,
    server: Option<Process>,
    reactors: usize,
    ended: Ended,
    restarts: Vec<Duration>,
    /// The first client isn't back yet.
    returning: bool,
    heard: Instant,
    stopping: bool,
    /// Of all worlds, for who watches.
    kills: &'a AtomicU64,
}

/// Runs a world to its end.
pub(super) fn run(
    plan: Plan,
    interrupted: &Arc<AtomicBool>,
    kills: &AtomicU64,
) -> io::Result<Outcome> {
    let mut world = World::new(plan, kills)?;
    let mut round = 0;
    while world.ended.all() < world.plan.ends
        && world.model.faults.is_empty()
        && !interrupted.load(Ordering::Relaxed)
        && world.plan.until.is_none_or(|until| Instant::now() < until)
    {
        round += 1;
        world.life(round % LIVES_A_ROUND == 0)?;
    }
    if world.model.faults.is_empty() {
        world.life(true)?;
    }
    if !world.model.faults.is_empty() {
        world
            .model
            .write_trace(&world.plan.launch.dir.join("trace"))?;
    }
    Ok(Outcome {
        counts: world.model.counts,
        ended: world.ended,
        restarts: world.restarts,
        faults: world.model.faults,
        plan: world.plan,
    })
}

impl<'a> World<'a> {
    fn new(plan: Plan, kills: &'a AtomicU64) -> io::Result<Self> {
        let mut random = Rng::with_seed(plan.seed);
        let reactors = plan.launch.reactors;
        let (model, phones, choices) = people::people(&mut random);
        Ok(Self {
            plan,
            random,
            model,
            phones,
            choices,
            poll: Poll::new()?,
            events: Events::with_capacity(256),
            server: None,
            reactors,
            ended: Ended::default(),
            restarts: Vec::new(),
            returning: false,
            heard: Instant::now(),
            stopping: false,
            kills,
        })
    }

    fn moment(&mut self) -> Moment {
        if self.plan.ends == 0 {
            return Moment::Acknowledged(WITHOUT_KILLS);
        }
        // Small numbers are as likely as large ones: what breaks, breaks early or late.
        let most = |random: &mut Rng, bits: u32| {
            let bits = random.u32(1..=bits);
            random.u64(1..1 << bits)
        };
        match self.random.u8(..100) {
            0..15 if !self.restarts.is_empty() => Moment::Starting(self.random.f64() * 1.5),
            0..70 => Moment::Acknowledged(most(&mut self.random, 10)),
            70..80 => Moment::Bytes(most(&mut self.random, 21)),
            80..90 => Moment::Delivered(most(&mut self.random, 12)),
            _ => Moment::Online(self.random.usize(1..PUBLISHERS + DURABLE)),
        }
    }

    /// From a start to the end that follows. A full one goes on until everything that is owed has come.
    fn life(&mut self, full: bool) -> io::Result<()> {
        let moment = self.moment();
        if self.random.u8(..5) == 0 {
            self.plan.launch.reactors = self.random.usize(1..=4);
        }
        self.reactors = self.plan.launch.reactors;
        let mut server = self.plan.launch.start()?;
        self.model.note(
            "the server",
            format_args!("starts, {} reactors, to end at {moment:?}", self.reactors),
        );
        if let (Moment::Starting(share), false) = (moment, full) {
            let last = self.restarts.last().copied().unwrap_or_default();
            let until = server.began + last.mul_f64(share);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            server.kill();
            self.ended.starting += 1;
            self.kills.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let addr = match server.ready() {
            Ok(addr) => addr,
            Err(what) => {
                self.model.fault(Kind::Server, "the server", what);
                return Ok(());
            }
        };
        for complaint in server.complaints() {
            self.model.fault(Kind::Server, "its log", complaint);
        }
        self.server = Some(server);
        self.returning = true;
        self.heard = Instant::now();
        let before = self.model.counts;
        if self.random.u8(..3) == 0 {
            self.read_retained(addr);
        }
        for number in 0..self.phones.len() {
            if number < PUBLISHERS || self.random.u8(..10) < 6 {
                self.call(number, addr);
            }
        }
        while !self.is_over(moment, &before) && self.is_well() {
            self.step(Some(addr))?;
        }
        if full {
            self.settle_up(addr)?;
        }
        self.end(full)
    }

    fn is_over(&self, moment: Moment, before: &Counts) -> bool {
        let now = &self.model.counts;
        let sum = |counts: &Counts| counts.acknowledged.iter().sum::<u64>();
        match moment {
            Moment::Starting(_) => !self.returning,
            Moment::Acknowledged(count) => sum(now) - sum(before) >= count,
            Moment::Bytes(count) => now.bytes - before.bytes >= count,
            Moment::Delivered(count) => now.delivered - before.delivered >= count,
            Moment::Online(count) => {
                self.phones.iter().filter(|phone| phone.is_online()).count() >= count
            }
        }
    }

    /// Nothing is wrong so far, and the server answers.
    fn is_well(&mut self) -> bool {
        if self.model.faults.is_empty() && self.heard.elapsed() > PATIENCE {
            let what = format!(
                "no answer for {} s{}",
                PATIENCE.as_secs(),
                self.last_words()
            );
            self.model.fault(Kind::Server, "the server", what);
        }
        self.model.faults.is_empty()
    }

    fn last_words(&self) -> String {
        self.server
            .as_ref()
            .map_or(String::new(), Process::last_words)
    }

    fn call(&mut self, number: usize, addr: std::net::SocketAddr) {
        let phone = &mut self.phones[number];
        if phone.is_away()
            && let Err(error) = phone.call(addr, self.poll.registry(), &mut self.model)
        {
            let what = format!("a connect failed: {error}{}", self.last_words());
            self.model
                .fault(Kind::Server, &format!("phone-{number}"), what);
        }
    }

    /// A turn: what came is read, what is due is sent, and with an address something changes.
    fn step(&mut self, change: Option<std::net::SocketAddr>) -> io::Result<()> {
        if let Err(error) = self
            .poll
            .poll(&mut self.events, Some(Duration::from_millis(1)))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for number in ready {
            self.heard = Instant::now();
            self.read(number);
        }
        if self.returning && self.phones.iter().any(Phone::is_online) {
            self.returning = false;
            let took = self.server.as_ref().map(|server| server.began.elapsed());
            self.restarts.extend(took);
        }
        if let Some(addr) = change {
            self.publish();
            self.change(addr);
        }
        for phone in &mut self.phones {
            phone.answer_some(&mut self.random, &mut self.model);
            phone.flush();
        }
        Ok(())
    }

    fn read(&mut self, number: usize) {
        let phone = &mut self.phones[number];
        if !phone.read(&mut self.model) {
            return;
        }
        phone.vanish();
        if self.stopping {
            return;
        }
        let how = match self.server.as_mut().and_then(Process::ended) {
            Some(status) => format!("the server ended by itself: {status}"),
            None => "the server closed the connection".into(),
        };
        let what = how + &self.last_words();
        self.model
            .fault(Kind::Server, &format!("phone-{number}"), what);
    }

    fn publish(&mut self) {
        for number in 0..PUBLISHERS {
            for _ in 0..self.random.u8(..6) {
                if !self.phones[number].may_publish() {
                    break;
                }
                let (topic, qos, retain) = *self
                    .random
                    .choice(&self.choices[number])
                    .unwrap_or_else(|| unreachable!("every publisher has topics"));
                let cleared = retain && self.random.u8(..8) == 0;
                let len = (!cleared).then(|| size(&mut self.random));
                self.phones[number].publish(topic, qos, retain, len, &mut self.model);
            }
        }
    }

    /// Now and then a client comes, goes, vanishes, changes a subscription, or ends its session.
    fn change(&mut self, addr: std::net::SocketAddr) {
        if self.random.u8(..8) > 0 {
            return;
        }
        let number = self.random.usize(..self.phones.len());
        if self.phones[number].is_away() {
            self.call(number, addr);
            return;
        }
        if !self.phones[number].is_online() {
            return;
        }
        let phone = &mut self.phones[number];
        match self.random.u8(..100) {
            0..20 => phone.leave(),
            // Some come back before the server has seen that they are gone: a takeover.
            20..40 => phone.vanish(),
            40..45 => phone.wipe(),
            _ if phone.nature.filters.is_empty() => phone.vanish(),
            _ => {
                let hold = self.random.usize(..phone.nature.filters.len());
                phone.turn(hold, &mut self.model);
            }
        }
        if self.random.bool() {
            self.call(number, addr);
        }
    }

    /// Nobody publishes any more, everybody who has a session comes, and all that is owed must arrive.
    fn settle_up(&mut self, addr: std::net::SocketAddr) -> io::Result<()> {
        self.phones.iter_mut().for_each(|phone| phone.quiet = true);
        let mut settled = false;
        while !settled && self.is_patient() {
            for number in 0..self.phones.len() {
                if self.phones[number].nature.durable {
                    self.call(number, addr);
                }
            }
            for _ in 0..10 {
                self.step(None)?;
            }
            let done = |phone: &Phone| phone.is_away() || (phone.is_online() && phone.is_settled());
            settled = self.phones.iter().all(done)
                && (0..self.phones.len()).all(|number| {
                    let phone = &self.phones[number];
                    !phone.nature.durable || (phone.is_online() && !self.model.waits(number))
                });
        }
        if self.model.faults.is_empty() {
            self.model.settle_up();
        }
        if self.model.faults.is_empty() {
            self.read_retained(addr);
        }
        self.phones.iter_mut().for_each(|phone| phone.quiet = false);
        Ok(())
    }

    fn is_patient(&self) -> bool {
        self.model.faults.is_empty() && self.heard.elapsed() < PATIENCE
    }

    fn read_retained(&mut self, addr: std::net::SocketAddr) {
        let version = if self.random.bool() { 5 } else { 4 };
        if let Err(what) = reader::check(addr, version, &mut self.model) {
            let what = what + &self.last_words();
            self.model
                .fault(Kind::Stale, "a reader of retained messages", what);
        }
    }

    /// The server's death, and what follows from it.
    fn end(&mut self, idle: bool) -> io::Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        // A little later than the event that was waited for, so that it isn't always between two reads.
        for _ in 0..self.random.u32(..20_000) {
            std::hint::spin_loop();
        }
        self.model.note("the server", format_args!("ends"));
        if self.plan.gently || self.random.u8(..12) == 0 {
            self.ended.asked += 1;
            self.stop(server)?;
        } else {
            server.kill();
            if idle {
                self.ended.idle += 1;
            } else {
                self.ended.running += 1;
            }
            self.kills.fetch_add(1, Ordering::Relaxed);
        }
        self.model.note("the server", format_args!("is gone"));
        for phone in &mut self.phones {
            phone.read(&mut self.model);
            phone.bereaved(&mut self.model);
        }
        if self.model.faults.is_empty() {
            self.sabotage()?;
        }
        Ok(())
    }

    /// SIGTERM: the clients go on reading until it is gone.
    fn stop(&mut self, server: Process) -> io::Result<()> {
        server.stop()?;
        self.stopping = true;
        self.server = Some(server);
        self.heard = Instant::now();
        let status = loop {
            self.step(None)?;
            if let Some(status) = self.server.as_mut().and_then(Process::ended) {
                break status;
            }
            if !self.is_well() {
                return Ok(());
            }
        };
        if !status.success() {
            let what = format!("SIGTERM ends it with {status}{}", self.last_words());
            self.model.fault(Kind::Server, "the server", what);
        }
        self.stopping = false;
        self.server = None;
        Ok(())
    }

    /// Breaks what the server has kept, to see that the checker finds it.
    fn sabotage(&mut self) -> io::Result<()> {
        let (data, old) = (self.plan.launch.data(), self.plan.launch.dir.join("old"));
        match self.plan.sabotage {
            Some(Sabotage::Wipe) if self.ended.all() % 4 == 3 => fs::remove_dir_all(data),
            Some(Sabotage::Stale) if self.ended.all() % 4 == 1 => process::copy(&data, &old),
            Some(Sabotage::Stale) if self.ended.all() % 4 == 3 => {
                fs::remove_dir_all(&data)?;
                fs::rename(old, data)
            }
            _ => Ok(()),
        }
    }
}

/// Bytes of a message: most are small.
fn size(random: &mut Rng) -> usize {
    match random.u16(..2000) {
        0..1400 => random.usize(24..120),
        1400..1850 => random.usize(120..2000),
        1850..1990 => random.usize(2000..20_000),
        1990..1999 => random.usize(100_000..300_000),
        _ => random.usize(1_000_000..1_300_000),
    }
}
