use super::*;
use crate::expect::Expectation;
use crate::histogram::FINE;
use crate::recording::{Reading, Recording};
use crate::report::Tickets;
use crate::report::course::{Sample, Usage};
use crate::stats::{Count, Latencies, Tally, Totals};

const SECOND: u64 = 1_000_000_000;
const BEGAN: u64 = 1_795_237_710 * SECOND + 700_000_000;

/// One process, driven by hand.
struct Process {
    tally: Tally,
    recent: Latencies,
    all: Latencies,
    recording: Recording,
    published: u64,
}

impl Process {
    fn new() -> Self {
        Self {
            tally: Tally::default(),
            recent: Latencies::default(),
            all: Latencies::default(),
            recording: Recording::new(BEGAN),
            published: 0,
        }
    }

    fn value(&mut self, micros: u64) {
        self.tally.count(Count::Unicast1);
        self.published += 1;
        self.recent.unicast1.record(micros);
        self.all.unicast1.record(micros);
    }

    fn reading(&mut self) -> Reading {
        Reading {
            totals: Totals::of([&self.tally]),
            published: self.published,
            latency: std::mem::take(&mut self.recent),
        }
    }

    fn tick(&mut self, now: u64) {
        if self.recording.is_due(now) {
            let reading = self.reading();
            let usage = Usage {
                cpu: 50.0,
                ..Usage::default()
            };
            let sample = Sample {
                server: Some(usage),
                generator: Some(usage),
                ..Sample::default()
            };
            self.recording.moment(now, &reading, sample);
        }
    }

    fn phase(&mut self, now: u64, name: &str) {
        let reading = self.reading();
        self.recording.phase(now, &reading, name);
    }

    fn report(mut self, now: u64, range: (u32, u32)) -> Report {
        let reading = self.reading();
        let recorded = self.recording.finish(now, &reading, Sample::default());
        Report {
            schema: SCHEMA.into(),
            scenario: "unicast".into(),
            run: 7,
            began: recorded.began,
            seconds: recorded.seconds,
            ranges: vec![range],
            server_pid: Some(42),
            connections: Connections {
                planned: u64::from(range.1),
                ready: reading.totals.ready(),
                ..Connections::default()
            },
            messages: Some(Messages {
                received: reading.totals.received(),
                ..Messages::default()
            }),
            tickets: Some(Tickets::of(&reading.totals)),
            latency: self.all.packed(FINE),
            phases: recorded.phases,
            interval: recorded.interval,
            course: recorded.course,
            ..Report::default()
        }
    }
}

/// The same events recorded by two processes and by one. `seconds` long.
fn parts_and_whole(seconds: u64) -> (Vec<Report>, Report) {
    let mut rng = fastrand::Rng::with_seed(seconds);
    let (mut parts, mut whole) = ([Process::new(), Process::new()], Process::new());
    let step = SECOND / 10;
    for n in 0..seconds * 10 {
        let now = n * step;
        for process in parts.iter_mut().chain([&mut whole]) {
            process.tick(now);
            if n == 3 || n == seconds * 7 {
                process.phase(now, if n == 3 { "ramp" } else { "hold" });
            }
        }
        for _ in 0..20 {
            let value = 50 + (1 << rng.u32(0..20)) + rng.u64(0..500);
            parts[rng.usize(0..2)].value(value);
            whole.value(value);
        }
        let part = &mut parts[rng.usize(0..2)];
        for process in [part, &mut whole] {
            process.tally.count(Count::Readied);
            process.tally.count(Count::Tickets);
            process.tally.count(Count::CacheHits);
            process.recent.ticket.record(n + 1);
            process.all.ticket.record(n + 1);
            process.tally.fail(crate::stats::Failure::Reset);
        }
    }
    let end = seconds * SECOND;
    let [a, b] = parts;
    let parts = vec![a.report(end, (0, 500)), b.report(end, (500, 500))];
    (parts, whole.report(end, (0, 1000)))
}

#[test]
fn the_join_of_two_is_the_record_of_one() {
    for seconds in [1, 12, 700] {
        let (parts, mut whole) = parts_and_whole(seconds);
        assert!(whole.course.len() <= crate::report::course::MOMENTS);
        let mut joined = merge(parts).unwrap();
        assert_eq!(joined.latency, whole.latency);
        assert_eq!(joined.messages, whole.messages);
        assert_eq!(joined.tickets, whole.tickets);
        assert_eq!(joined.connections.ready, whole.connections.ready);
        assert_eq!(joined.phases, whole.phases);
        assert_eq!(joined.course.len(), whole.course.len());
        for (mine, theirs) in joined.course.iter_mut().zip(&mut whole.course) {
            // The sums of what each had at the least and at the most are bounds, not the figures.
            assert!(mine.ready.least <= theirs.ready.least);
            (mine.ready.least, theirs.ready.least) = (0, 0);
            (mine.ready.most, theirs.ready.most) = (0, 0);
            // Two generators, but one server.
            assert_eq!(mine.sample.server, theirs.sample.server);
            mine.sample.generator = theirs.sample.generator;
            assert_eq!(mine, theirs);
        }
    }
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let (_, mut whole) = parts_and_whole(12);
    whole.storms.push(Storm {
        at: 1.5,
        dropped: 7,
        back_after: None,
        refused: 2,
    });
    whole.judge(&crate::expect::usual());
    let read: Report = serde_json::from_str(&whole.to_json()).unwrap();
    assert_eq!(read, whole);
    let empty = Report::default();
    assert_eq!(
        serde_json::from_str::<Report>(&empty.to_json()).unwrap(),
        empty
    );
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (parts, _) = parts_and_whole(1);
    assert_eq!(merge(Vec::new()), Err(MergeError::Nothing));
    let changed = |change: fn(&mut Report)| {
        let mut parts = parts.clone();
        change(&mut parts[1]);
        merge(parts).unwrap_err()
    };
    assert_eq!(
        changed(|part| part.schema = "other".into()),
        MergeError::Schema("other".into())
    );
    assert_eq!(
        changed(|part| part.scenario = "churn".into()),
        MergeError::Scenarios("unicast".into(), "churn".into())
    );
    assert_eq!(changed(|part| part.run = 8), MergeError::Runs(7, 8));
    assert_eq!(
        changed(|part| part.ranges = vec![(499, 9)]),
        MergeError::Phones(499)
    );
}

#[test]
fn expectations_are_judged_over_all() {
    let (mut parts, _) = parts_and_whole(12);
    let all: u64 = parts.iter().map(|part| part.connections.ready).sum();
    parts[0].judge(&[Expectation::parse(&format!("ready={all}")).unwrap()]);
    assert!(!parts[0].is_as_expected());
    assert!(merge(parts).unwrap().is_as_expected());
}

#[test]
fn processes_of_different_length_are_laid_over_each_other() {
    let (parts, _) = parts_and_whole(12);
    let (longer, _) = parts_and_whole(700);
    let mut other = longer[1].clone();
    other.began += 5000;
    other.course.iter_mut().for_each(|moment| moment.at += 5);
    let received = [&parts[0], &other].map(|report| report.messages.as_ref().unwrap().received);
    let joined = merge(vec![parts[0].clone(), other]).unwrap();
    assert!(joined.course.is_sorted_by_key(|moment| moment.at));
    let counted: u64 = joined.course.iter().map(|m| m.counts.received).sum();
    assert_eq!(counted, received[0] + received[1]);
    assert!((joined.seconds - 705.0).abs() < 0.01);
    assert_eq!(joined.interval, 4);
}
