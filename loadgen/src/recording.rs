//! Keeps the course of a run while it goes on: adds up what is read from the threads by second and by phase.
//!
//! Pure: time and readings are given to it, it reads no clock and no thread.

use crate::report::course::{
    Counts, MOMENT_PRECISION, MOMENTS, Moment, PHASE_PRECISION, Phase, Ready, Sample, pool,
    thousandths,
};
use crate::stats::{Latencies, Totals};

const SECOND: u64 = 1_000_000_000;

/// An interval shorter than this is added to its neighbour: a rate over it would mean nothing.
const SHORTEST: u64 = SECOND / 2;

/// What was read from the threads.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Counters since the run began.
    pub totals: Totals,
    /// Messages published since the run began.
    pub published: u64,
    /// Latencies recorded since the last reading.
    pub latency: Latencies,
}

/// Counters at the beginning of a stretch, and what was recorded since.
#[derive(Clone, Debug, Default)]
struct Stretch {
    /// Nanoseconds after the run began.
    from: u64,
    totals: Totals,
    published: u64,
    latency: Latencies,
}

impl Stretch {
    fn counts(&self, reading: &Reading) -> Counts {
        Counts::between(
            &self.totals,
            &reading.totals,
            reading.published.saturating_sub(self.published),
        )
    }

    fn begin(&mut self, from: u64, reading: &Reading) {
        self.latency.clear();
        self.from = from;
        self.totals = reading.totals.clone();
        self.published = reading.published;
    }
}

/// The course so far. All times are nanoseconds after the run began.
#[derive(Debug)]
pub struct Recording {
    /// Nanoseconds since 1970 at which the run began.
    began: u64,
    interval: u64,
    course: Vec<Moment>,
    phases: Vec<Phase>,
    phase: String,
    moment: Stretch,
    phase_so_far: Stretch,
    ready: Option<Ready>,
}

/// What is left of a recording in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// Milliseconds since 1970 at which the run began.
    pub began: u64,
    /// Seconds from the beginning to the end.
    pub seconds: f64,
    /// Seconds that each moment stands for.
    pub interval: u64,
    /// The moments.
    pub course: Vec<Moment>,
    /// The phases.
    pub phases: Vec<Phase>,
    /// The server's process, if it was watched.
    pub server_pid: Option<u32>,
}

impl Recording {
    /// Begins at so many nanoseconds since 1970.
    pub fn new(began: u64) -> Self {
        Self {
            began,
            interval: 1,
            course: Vec::new(),
            phases: Vec::new(),
            phase: String::new(),
            moment: Stretch::default(),
            phase_so_far: Stretch::default(),
            ready: None,
        }
    }

    /// A second of the wall clock is over, so it is time for [`Recording::moment`].
    pub fn is_due(&self, now: u64) -> bool {
        let second = (self.began + now) / SECOND * SECOND;
        second.saturating_sub(self.began + self.moment.from) >= SHORTEST
    }

    /// Notes how many phones are ready between two moments.
    pub fn see(&mut self, ready: u64) {
        let seen = self.ready.get_or_insert(Ready {
            last: ready,
            least: ready,
            most: ready,
        });
        *seen = Ready {
            last: ready,
            least: seen.least.min(ready),
            most: seen.most.max(ready),
        };
    }

    fn take(&mut self, reading: &Reading) {
        self.see(reading.totals.ready());
        self.moment.latency.add(&reading.latency);
        self.phase_so_far.latency.add(&reading.latency);
    }

    /// Ends a moment.
    pub fn moment(&mut self, now: u64, reading: &Reading, sample: Sample) {
        self.take(reading);
        let moment = self.close(now, reading, sample);
        self.course.push(moment);
        if self.course.len() > MOMENTS {
            self.interval *= 2;
            pool(&mut self.course, self.interval);
        } else if self.interval > 1 {
            pool(&mut self.course, self.interval);
        }
    }

    fn close(&mut self, now: u64, reading: &Reading, sample: Sample) -> Moment {
        // It is due a little after a full second, and is named after the second before that.
        let second = ((self.began + now) / SECOND)
            .saturating_sub(1)
            .max((self.began + self.moment.from) / SECOND);
        let moment = Moment {
            at: second - second % self.interval,
            seconds: thousandths(now.saturating_sub(self.moment.from) as f64 / SECOND as f64),
            phase: self.phase.clone(),
            ready: self.ready.take().unwrap_or_default(),
            counts: self.moment.counts(reading),
            sample,
            latency: self.moment.latency.packed(MOMENT_PRECISION),
        };
        self.moment.begin(now, reading);
        moment
    }

    /// Ends the phase so far, and begins the next one.
    pub fn phase(&mut self, now: u64, reading: &Reading, name: &str) {
        self.take(reading);
        if !self.phase.is_empty() {
            let phase = &self.phase_so_far;
            self.phases.push(Phase {
                name: std::mem::take(&mut self.phase),
                begin: thousandths(phase.from as f64 / SECOND as f64),
                end: thousandths(now as f64 / SECOND as f64),
                counts: phase.counts(reading),
                latency: phase.latency.packed(PHASE_PRECISION),
            });
        }
        name.clone_into(&mut self.phase);
        self.phase_so_far.begin(now, reading);
    }

    /// The moments so far.
    pub fn course(&self) -> &[Moment] {
        &self.course
    }

    /// Ends it all.
    pub fn finish(mut self, now: u64, reading: &Reading, sample: Sample) -> Recorded {
        let phase = self.phase.clone();
        self.phase(now, reading, "");
        self.phase = phase;
        let rest = now.saturating_sub(self.moment.from);
        let mut last = self.close(now, reading, sample);
        // `take` was done with the phase; the latencies are in `moment` already.
        match self.course.last_mut() {
            Some(before) if rest < SHORTEST || before.at >= last.at => {
                if before.sample.server.is_some() && last.sample.server.is_none() {
                    last.sample = before.sample;
                }
                before.then(&last);
            }
            _ => self.course.push(last),
        }
        Recorded {
            began: self.began / 1_000_000,
            seconds: thousandths(now as f64 / SECOND as f64),
            interval: self.interval,
            course: self.course,
            phases: self.phases,
            server_pid: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: u64 = 1_000_000 * SECOND + 700_000_000;

    fn reading(micros: u64) -> Reading {
        let mut reading = Reading::default();
        reading.latency.ready.record(micros);
        reading
    }

    #[test]
    fn a_run_that_ends_at_once_is_a_moment() {
        let recorded = Recording::new(BEGAN).finish(0, &Reading::default(), Sample::default());
        assert_eq!((recorded.course.len(), recorded.phases.len()), (1, 0));
        assert!(recorded.course[0].per_second(5).is_finite());
    }

    #[test]
    fn moments_end_with_the_seconds_of_the_clock() {
        let mut recording = Recording::new(BEGAN);
        let mut ends = Vec::new();
        recording.phase(0, &Reading::default(), "ramp");
        for step in 0..350 {
            let now = step * SECOND / 100;
            if recording.is_due(now) {
                recording.moment(now, &reading(step), Sample::default());
                ends.push(step);
            }
        }
        // The first 0.3 s are too short to be a moment of their own.
        assert_eq!(ends, [130, 230, 330]);
        let recorded = recording.finish(SECOND * 34 / 10, &reading(9), Sample::default());
        let at: Vec<u64> = recorded.course.iter().map(|moment| moment.at).collect();
        assert_eq!(at, [1_000_001, 1_000_002, 1_000_003]);
        // The last tenth of a second belongs to the last moment.
        assert!((recorded.course[2].seconds - 1.1).abs() < 1e-9);
        let count = |packed: &crate::stats::PackedLatencies| packed.ready.as_ref().unwrap().count;
        assert_eq!(count(&recorded.course[2].latency), 2);
        assert_eq!(recorded.phases.len(), 1);
        assert_eq!(count(&recorded.phases[0].latency), 4);
    }

    #[test]
    fn phases_part_what_a_moment_joins() {
        let mut recording = Recording::new(BEGAN);
        recording.phase(0, &Reading::default(), "a");
        recording.phase(SECOND / 2, &reading(5), "b");
        let recorded = recording.finish(SECOND * 6 / 10, &reading(7), Sample::default());
        let names: Vec<&str> = recorded.phases.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(recorded.phases[1].latency.ready.as_ref().unwrap().max, 7);
        assert_eq!(recorded.course[0].latency.ready.as_ref().unwrap().count, 2);
    }
}
