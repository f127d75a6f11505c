//! Waits while a run goes on: shows it, keeps its course second by second, and ends early when it is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::chart::sparkline;
use crate::clock::{self, SECOND};
use crate::fleet::Fleet;
use crate::live::Live;
use crate::machine;
use crate::publisher::Publisher;
use crate::recording::{Reading, Recorded, Recording};
use crate::report::course::Moment;
use crate::sampling::{Sampler, Server};
use crate::stats::{Count, Totals};
use crate::units::{grouped, micros, short};

/// How often the condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What was waited for is there.
    Met,
    /// The time is over.
    TimedOut,
    /// Ctrl-C, or SIGTERM.
    Interrupted,
    /// The publisher lost its connection.
    Broken,
}

/// The view of one run.
#[derive(Debug)]
pub struct Watch {
    live: Live,
    interrupted: Arc<AtomicBool>,
    began: u64,
    recording: Recording,
    sampler: Sampler,
    phase: String,
    /// The phase has a new name that the recording doesn't know yet.
    renamed: bool,
}

impl Watch {
    /// Begins now. `interrupted` is set by whoever catches the signals.
    pub fn new(quiet: bool, interrupted: Arc<AtomicBool>) -> Self {
        Self {
            live: Live::new(quiet),
            interrupted,
            began: clock::now(),
            recording: Recording::new(machine::unix_nanos()),
            sampler: Sampler::new(),
            phase: String::new(),
            renamed: false,
        }
    }

    /// Watches the server's process too.
    pub fn server(&mut self, server: &Server) -> std::io::Result<()> {
        self.sampler.watch_server(server)
    }

    /// The server's process id, if it is watched.
    pub fn server_pid(&self) -> Option<u32> {
        self.sampler.server()
    }

    /// Seconds since the run began.
    pub fn seconds(&self) -> f64 {
        self.elapsed() as f64 / SECOND as f64
    }

    fn elapsed(&self) -> u64 {
        clock::now() - self.began
    }

    /// Names what goes on from here; it is recorded from the next look on, at once in practice.
    pub fn phase(&mut self, name: &str) {
        if self.phase != name {
            name.clone_into(&mut self.phase);
            self.renamed = true;
        }
    }

    /// Shows a line that stays.
    pub fn note(&mut self, text: &str) {
        self.live.note(text);
    }

    /// The run was interrupted.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    /// Waits for a condition on the totals, at most so long.
    pub fn until(
        &mut self,
        fleet: &Fleet,
        publisher: Option<&Publisher>,
        longest: Duration,
        mut met: impl FnMut(&Totals) -> bool,
    ) -> Ended {
        let end = clock::now() + clock::nanos(longest);
        loop {
            let totals = fleet.totals();
            self.look(fleet, publisher, &totals);
            if met(&totals) {
                return Ended::Met;
            }
            if self.is_interrupted() {
                return Ended::Interrupted;
            }
            if publisher.is_some_and(Publisher::is_broken) {
                return Ended::Broken;
            }
            if clock::now() >= end {
                return Ended::TimedOut;
            }
            std::thread::sleep(STEP);
        }
    }

    /// Waits so long.
    pub fn rest(&mut self, fleet: &Fleet, publisher: Option<&Publisher>, time: Duration) -> Ended {
        match self.until(fleet, publisher, time, |_| false) {
            Ended::TimedOut => Ended::Met,
            other => other,
        }
    }

    fn look(&mut self, fleet: &Fleet, publisher: Option<&Publisher>, totals: &Totals) {
        let now = self.elapsed();
        self.recording.see(totals.ready());
        if std::mem::take(&mut self.renamed) {
            let reading = reading(fleet, publisher);
            self.recording.phase(now, &reading, &self.phase);
        }
        if self.recording.is_due(now) {
            let (reading, sample) = (reading(fleet, publisher), self.sampler.sample());
            self.recording.moment(now, &reading, sample);
        }
        if self.live.is_due() {
            let [head, ready, received, plain] = self.lines(fleet, totals);
            self.live.show([&head, &ready, &received], &plain);
        }
    }

    /// Three lines for a terminal, and all in one without it.
    fn lines(&self, fleet: &Fleet, totals: &Totals) -> [String; 4] {
        let nothing = Moment::default();
        let recent = self.recording.course().last().unwrap_or(&nothing);
        let head = format!(
            "{:6.1} s  {:<12} {} of {} ready",
            self.seconds(),
            self.phase,
            grouped(totals.ready()),
            grouped(u64::from(fleet.plan().phones)),
        );
        let mut connects = format!(
            "  {}/s connects",
            short(recent.per_second(recent.counts.connects))
        );
        if fleet.plan().tickets.is_some() {
            let per_second = short(recent.per_second(recent.counts.tickets));
            connects += &["  ", &per_second, "/s tickets"].concat();
            let without = totals.get(Count::TicketsFailed) + totals.get(Count::TicketsPutOff);
            if without > 0 {
                connects += &["  not had ", &grouped(without)].concat();
            }
        }
        if totals.failed() > 0 {
            connects += &["  failures ", &grouped(totals.failed())].concat();
        }
        let mut received = format!(
            "  {}/s received",
            short(recent.per_second(recent.counts.received))
        );
        if let Some(delivery) = recent.latency.delivery() {
            received += &["  p99 ", &micros(delivery.histogram().at(0.99))].concat();
        }
        if totals.missing() > 0 {
            received += &["  not yet in ", &grouped(totals.missing())].concat();
        }
        let plain = [head.as_str(), &connects, &received].concat();
        [
            head,
            format!(
                "  {:<30}{connects}",
                self.line(|moment| moment.ready.last as f64)
            ),
            format!(
                "  {:<30}{received}",
                self.line(|moment| moment.per_second(moment.counts.received))
            ),
            plain,
        ]
    }

    fn line(&self, value: impl Fn(&Moment) -> f64) -> String {
        sparkline(
            &self
                .recording
                .course()
                .iter()
                .map(value)
                .collect::<Vec<_>>(),
            30,
        )
    }

    /// Takes the live view away and hands out the course of the run. The fleet's latencies are all in it, and in
    /// [`Fleet::latencies`].
    pub fn finish(&mut self, fleet: &Fleet, publisher: Option<&Publisher>) -> Recorded {
        self.live.clear();
        let (now, sample) = (self.elapsed(), self.sampler.sample());
        let recording = std::mem::replace(&mut self.recording, Recording::new(0));
        Recorded {
            server_pid: self.sampler.server(),
            ..recording.finish(now, &reading(fleet, publisher), sample)
        }
    }
}

fn reading(fleet: &Fleet, publisher: Option<&Publisher>) -> Reading {
    Reading {
        totals: fleet.totals(),
        published: publisher.map_or(0, Publisher::published_in_all),
        latency: fleet.drain(),
    }
}
