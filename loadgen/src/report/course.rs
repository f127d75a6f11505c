//! The course of a run: what happened in each interval, each phase and each storm, in a form that can be pooled and joined.
//!
//! Everything counted is a difference over the interval, so intervals and processes add up. Intervals are aligned to the wall clock, so
//! that those of several processes can be laid over each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::{Count, PackedLatencies, Totals};

/// Intervals that a report carries at most; beyond it they are pooled in pairs.
pub const MOMENTS: usize = 300;

/// 2^3 classes an octave in an interval's histograms: known to 12 % at worst, and mostly better, for a chart.
pub const MOMENT_PRECISION: u8 = 3;

/// 2^6 classes an octave in a phase's: 1.6 %.
pub const PHASE_PRECISION: u8 = 6;

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What was counted over a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Connection attempts.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u64,
    /// Phones that became ready.
    #[serde(skip_serializing_if = "is_zero")]
    pub connects: u64,
    /// Messages published; a broadcast is one.
    #[serde(skip_serializing_if = "is_zero")]
    pub published: u64,
    /// Messages received, each counted once.
    #[serde(skip_serializing_if = "is_zero")]
    pub received: u64,
    /// Messages that were found missing, less those that came after all.
    #[serde(skip_serializing_if = "is_zero")]
    pub missing: i64,
    /// Took longer than the limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub late: u64,
    /// Received twice against the rules.
    #[serde(skip_serializing_if = "is_zero")]
    pub duplicates: u64,
    /// Received after a later one.
    #[serde(skip_serializing_if = "is_zero")]
    pub reordered: u64,
    /// Tickets that the lookup gave.
    #[serde(skip_serializing_if = "is_zero")]
    pub tickets: u64,
    /// Questions that it put off.
    #[serde(skip_serializing_if = "is_zero")]
    pub tickets_put_off: u64,
    /// Questions without an answer that can be used.
    #[serde(skip_serializing_if = "is_zero")]
    pub tickets_failed: u64,
    /// Failed connections by kind.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures: BTreeMap<String, u64>,
}

impl Counts {
    /// What was counted from `before` to `now`.
    pub fn between(before: &Totals, now: &Totals, published: u64) -> Self {
        let grown = |what: Count| now.get(what).saturating_sub(before.get(what));
        let earlier: BTreeMap<&str, u64> = before.failures().map(|(f, n)| (f.text(), n)).collect();
        Self {
            attempts: grown(Count::Attempts),
            connects: grown(Count::Readied),
            published,
            received: now.received().saturating_sub(before.received()),
            missing: now.missing().cast_signed() - before.missing().cast_signed(),
            late: grown(Count::Late),
            duplicates: grown(Count::Duplicates),
            reordered: grown(Count::Reordered),
            tickets: grown(Count::Tickets),
            tickets_put_off: grown(Count::TicketsPutOff),
            tickets_failed: grown(Count::TicketsFailed),
            failures: now
                .failures()
                .map(|(failure, n)| {
                    let text = failure.text();
                    (
                        text.to_owned(),
                        n.saturating_sub(earlier.get(text).copied().unwrap_or(0)),
                    )
                })
                .filter(|&(_, n)| n > 0)
                .collect(),
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.connects += other.connects;
        self.published += other.published;
        self.received += other.received;
        self.missing += other.missing;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.tickets += other.tickets;
        self.tickets_put_off += other.tickets_put_off;
        self.tickets_failed += other.tickets_failed;
        for (kind, n) in &other.failures {
            *self.failures.entry(kind.clone()).or_default() += n;
        }
    }

    /// Failures of all kinds.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Phones that were ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// At the end of the interval.
    pub last: u64,
    /// At the least within it.
    pub least: u64,
    /// At the most within it.
    pub most: u64,
}

/// What a process used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU, per cent of one core.
    pub cpu: f64,
    /// The part of it in user space.
    pub user: f64,
    /// Resident bytes (RSS), read each second.
    pub rss: u64,
    /// Bytes with shared pages in proportion (Pss); read seldom, since the kernel walks all pages for it, and absent in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pss: Option<u64>,
}

impl Usage {
    /// This for `own` seconds and then that for `after` seconds.
    fn then(self, own: f64, next: Self, after: f64) -> Self {
        let mean = |a: f64, b: f64| tenths((a * own + b * after) / (own + after).max(1e-9));
        Self {
            cpu: mean(self.cpu, next.cpu),
            user: mean(self.user, next.user),
            rss: next.rss,
            pss: next.pss.or(self.pss),
        }
    }

    /// Of two processes together.
    fn and(self, other: Self) -> Self {
        Self {
            cpu: tenths(self.cpu + other.cpu),
            user: tenths(self.user + other.user),
            rss: self.rss + other.rss,
            pss: self.pss.zip(other.pss).map(|(a, b)| a + b),
        }
    }
}

/// Applies `both` where both are there, and takes the one that is otherwise.
fn either<T>(a: Option<T>, b: Option<T>, both: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(both(a, b)),
        (one, other) => one.or(other),
    }
}

/// Rounded, so that a report isn't full of digits that mean nothing.
pub(crate) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub(crate) fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// What the machine and the processes on it used at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The server, when its process id is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Usage>,
    /// The generator itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Usage>,
    /// Bytes of kernel slab of the whole machine.
    #[serde(default)]
    pub slab: u64,
    /// Bytes in TCP's buffers, of the whole machine.
    #[serde(default)]
    pub tcp: u64,
}

/// One interval of a run: a second, or several in a long run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since 1970 at which it begins, a multiple of the report's interval.
    pub at: u64,
    /// Seconds that were really counted: the first and the last interval are seldom whole.
    pub seconds: f64,
    /// What went on at its end.
    pub phase: String,
    /// Phones that were ready.
    pub ready: Ready,
    /// What was counted.
    pub counts: Counts,
    /// What was in use at its end; CPU is the mean.
    pub sample: Sample,
    /// Latencies, 12 % exact at worst.
    pub latency: PackedLatencies,
}

impl Moment {
    /// A count as a rate.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds.max(1e-3)
    }

    /// Appends the interval that follows.
    pub fn then(&mut self, next: &Self) {
        let usage =
            |a: Option<Usage>, b| either(a, b, |a, b| a.then(self.seconds, b, next.seconds));
        self.sample = Sample {
            server: usage(self.sample.server, next.sample.server),
            generator: usage(self.sample.generator, next.sample.generator),
            slab: next.sample.slab,
            tcp: next.sample.tcp,
        };
        self.seconds = thousandths(self.seconds + next.seconds);
        self.phase.clone_from(&next.phase);
        self.ready = Ready {
            last: next.ready.last,
            least: self.ready.least.min(next.ready.least),
            most: self.ready.most.max(next.ready.most),
        };
        self.counts.add(&next.counts);
        self.latency.join(&next.latency);
    }

    /// Adds the same interval of another process. `same_server`: both watched the same process, so it counts once.
    pub fn beside(&mut self, other: &Self, same_server: bool) {
        self.seconds = self.seconds.max(other.seconds);
        self.ready = Ready {
            last: self.ready.last + other.ready.last,
            least: self.ready.least + other.ready.least,
            most: self.ready.most + other.ready.most,
        };
        self.counts.add(&other.counts);
        self.latency.join(&other.latency);
        let (mine, theirs) = (self.sample, other.sample);
        self.sample = Sample {
            server: either(mine.server, theirs.server, |a, b| {
                if same_server { a } else { a.and(b) }
            }),
            generator: either(mine.generator, theirs.generator, Usage::and),
            slab: mine.slab.max(theirs.slab),
            tcp: mine.tcp.max(theirs.tcp),
        };
    }
}

/// Pools moments into intervals of `interval` seconds.
pub fn pool(course: &mut Vec<Moment>, interval: u64) {
    let mut pooled: Vec<Moment> = Vec::with_capacity(course.len());
    for mut moment in course.drain(..) {
        moment.at -= moment.at % interval.max(1);
        match pooled.last_mut() {
            Some(last) if last.at == moment.at => last.then(&moment),
            _ => pooled.push(moment),
        }
    }
    *course = pooled;
}

/// A part of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What went on.
    pub name: String,
    /// Seconds after the run began.
    pub begin: f64,
    /// Seconds after the run began.
    pub end: f64,
    /// What was counted in it.
    pub counts: Counts,
    /// What was recorded in it, 1.6 % exact.
    pub latency: PackedLatencies,
}

/// Many phones dropped at once, and came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// Seconds after the run began.
    pub at: f64,
    /// Phones that dropped.
    pub dropped: u64,
    /// Seconds until all were back; `None` if they weren't within the time that they had.
    pub back_after: Option<f64>,
    /// Attempts that were refused meanwhile.
    pub refused: u64,
}
