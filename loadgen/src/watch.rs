//! Waits while a run goes on: shows it, keeps its course second by second, and ends early when it is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use crate::chart::sparkline;
use crate::clock::{self, SECOND};
use crate::fleet::Fleet;
use crate::live::Live;
use crate::publisher::Publisher;
use crate::stats::{Count, Totals};
use crate::units::{grouped, short};

/// How often the condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Moment {
    /// Seconds since the run began.
    pub second: f64,
    /// Phones ready.
    pub ready: u64,
    /// Phones that became ready, a second.
    pub connects: f64,
    /// Messages published, a second.
    pub published: f64,
    /// Messages received, a second.
    pub received: f64,
    /// Failures so far.
    pub failures: u64,
}

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
    course: Vec<Moment>,
    last: (u64, Totals, u64),
    phase: &'static str,
}

impl Watch {
    /// Begins now. `interrupted` is set by whoever catches the signals.
    pub fn new(quiet: bool, interrupted: Arc<AtomicBool>) -> Self {
        let now = clock::now();
        Self {
            live: Live::new(quiet),
            interrupted,
            began: now,
            course: Vec::new(),
            last: (now, Totals::default(), 0),
            phase: "",
        }
    }

    /// Names what goes on from here.
    pub fn phase(&mut self, name: &'static str) {
        self.phase = name;
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
        let now = clock::now();
        if now - self.last.0 >= SECOND {
            self.keep(now, publisher, totals);
        }
        if self.live.is_due() {
            let lines = self.lines(fleet, totals);
            self.live.show([&lines[0], &lines[1], &lines[2]]);
        }
    }

    fn keep(&mut self, now: u64, publisher: Option<&Publisher>, totals: &Totals) {
        let seconds = (now - self.last.0) as f64 / SECOND as f64;
        let published = publisher.map_or(0, Publisher::published_in_all);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        self.course.push(Moment {
            second: (now - self.began) as f64 / SECOND as f64,
            ready: totals.ready(),
            connects: rate(totals.get(Count::Readied), self.last.1.get(Count::Readied)),
            published: rate(published, self.last.2),
            received: rate(totals.received(), self.last.1.received()),
            failures: totals.failed(),
        });
        self.last = (now, totals.clone(), published);
    }

    fn lines(&self, fleet: &Fleet, totals: &Totals) -> [String; 3] {
        let seconds = (clock::now() - self.began) as f64 / SECOND as f64;
        let phones = fleet.plan().phones;
        let recent = self.course.last().copied().unwrap_or_default();
        let ready = totals.ready();
        let errors = match totals.failed() {
            0 => String::new(),
            n => format!("  failures {}", grouped(n)),
        };
        let missing = match totals.missing() {
            0 => String::new(),
            n => format!("  not yet in {}", grouped(n)),
        };
        [
            format!(
                "{seconds:6.1} s  {:<12} {} of {} ready  {}/s connects  {}/s received{missing}{errors}",
                self.phase,
                grouped(ready),
                grouped(u64::from(phones)),
                short(recent.connects),
                short(recent.received),
            ),
            format!("  ready     {}", self.line(|moment| moment.ready as f64)),
            format!("  received  {}", self.line(|moment| moment.received)),
        ]
    }

    fn line(&self, value: impl Fn(&Moment) -> f64) -> String {
        sparkline(&self.course.iter().map(value).collect::<Vec<_>>(), 60)
    }

    /// Takes the live view away and hands out the course of the run, second by second.
    pub fn finish(mut self) -> Vec<Moment> {
        self.live.clear();
        self.course
    }
}
