//! What is expected of a run, as an operator types it: `p99<20ms,missing=0,ready>=99.9%`.
//!
//! An expectation compares one figure of the report with a bound. It knows its own text, so that it can be kept in a report, read
//! again and judged anew when reports are joined.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::histogram;
use crate::report::course::Usage;
use crate::report::{Messages, Report, Tickets};
use crate::stats::Failure;
use crate::units;

/// How a figure stands to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

impl Relation {
    /// The longer signs first, so that `<=` isn't read as `<`.
    const ALL: [(&'static str, Self); 6] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("==", Self::Equal),
        ("<", Self::Below),
        (">", Self::Above),
        ("=", Self::Equal),
    ];

    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
            // Both come from whole numbers, or from the same division.
            Self::Equal => (value - bound).abs() <= bound.abs() * 1e-9,
            Self::AtLeast => value >= bound,
            Self::Above => value > bound,
        }
    }
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Count,
    Micros,
    Bytes,
    /// Per cent of a core.
    Cpu,
}

/// Which latency a percentile is taken of, by the word before the dot.
const LATENCIES: [&str; 10] = [
    "delivery",
    "ready",
    "ping",
    "unicast",
    "unicast0",
    "unicast1",
    "broadcast",
    "waited",
    "ticket",
    "paced",
];

/// A figure's name, what it is, and its unit.
type Named = (&'static str, &'static str, Unit);

/// Figures that aren't percentiles.
const FIGURES: [Named; 31] = [
    ("missing", "messages owed and never received", Unit::Count),
    ("duplicates", "messages received twice", Unit::Count),
    (
        "reordered",
        "messages received after a later one",
        Unit::Count,
    ),
    (
        "late",
        "messages that took longer than the limit",
        Unit::Count,
    ),
    (
        "damaged",
        "messages unreadable or for somebody else",
        Unit::Count,
    ),
    ("published", "messages published", Unit::Count),
    ("received", "messages received", Unit::Count),
    (
        "unacknowledged",
        "QoS 1 messages without a good PUBACK",
        Unit::Count,
    ),
    (
        "sessions_lost",
        "sessions the broker should have kept",
        Unit::Count,
    ),
    (
        "refused",
        "attempts refused by TCP, CONNACK or SUBACK",
        Unit::Count,
    ),
    ("timeouts", "attempts not ready in time", Unit::Count),
    ("resets", "connections reset by the broker", Unit::Count),
    ("closed", "connections closed by the broker", Unit::Count),
    ("failed", "failed connections of all kinds", Unit::Count),
    ("pings_unanswered", "pings without an answer", Unit::Count),
    ("tickets", "tickets that the lookup gave", Unit::Count),
    (
        "tickets_failed",
        "questions to the lookup without an answer",
        Unit::Count,
    ),
    (
        "tickets_put_off",
        "questions that the lookup put off",
        Unit::Count,
    ),
    (
        "cache_hits",
        "calls with a ticket that was kept",
        Unit::Count,
    ),
    (
        "cache_saves",
        "calls with a kept ticket because there was no new one",
        Unit::Count,
    ),
    ("fallbacks", "calls to the fallback list", Unit::Count),
    ("ready", "phones ready at the end", Unit::Count),
    ("unready", "phones not ready at the end", Unit::Count),
    ("never_ready", "phones planned beyond the peak", Unit::Count),
    ("peak", "phones ready at the most", Unit::Count),
    (
        "rate",
        "connects a second until all were ready",
        Unit::Count,
    ),
    (
        "back",
        "time until all were back after the slowest storm",
        Unit::Micros,
    ),
    ("bytes", "user-space bytes a connection", Unit::Bytes),
    (
        "slab",
        "kernel slab bytes a connection, both ends here",
        Unit::Bytes,
    ),
    ("memory", "the server's memory at its peak", Unit::Bytes),
    (
        "cpu",
        "the server's CPU on average, per cent of a core",
        Unit::Cpu,
    ),
];

/// A figure that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    /// Which latency, and how many per cent of all values it covers.
    Percentile(&'static str, f64),
    Named(Named),
}

impl Figure {
    fn parse(name: &str) -> Option<Self> {
        if let Some(&named) = FIGURES.iter().find(|(known, ..)| *known == name) {
            return Some(Self::Named(named));
        }
        let (of, which) = LATENCIES
            .into_iter()
            .find_map(|of| Some((of, name.strip_prefix(of)?.strip_prefix('.')?)))
            .unwrap_or((LATENCIES[0], name));
        let percent = match which.strip_prefix('p') {
            None if which == "max" => 100.0,
            Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => {
                digits.parse().ok()?
            }
            _ => return None,
        };
        (percent <= 100.0).then_some(Self::Percentile(of, percent))
    }

    fn unit(&self) -> Unit {
        match self {
            Self::Percentile(..) => Unit::Micros,
            Self::Named((_, _, unit)) => *unit,
        }
    }

    /// `None`: it wasn't measured in this run.
    fn value(&self, report: &Report) -> Option<f64> {
        let name = match *self {
            Self::Percentile(of, percent) => return percentile(report, of, percent),
            Self::Named((name, ..)) => name,
        };
        let connections = &report.connections;
        let messages = |count: fn(&Messages) -> u64| {
            // Nothing sent is nothing missing.
            Some(report.messages.as_ref().map_or(0, count) as f64)
        };
        let tickets = |count: fn(&Tickets) -> u64| {
            // Whoever asks nobody gets no wrong answer either.
            Some(report.tickets.as_ref().map_or(0, count) as f64)
        };
        let failures = |kinds: &[Failure]| {
            let n: u64 = kinds
                .iter()
                .filter_map(|kind| report.failures.get(kind.text()))
                .sum();
            Some(n as f64)
        };
        let unready = |ready: u64| Some(connections.planned.saturating_sub(ready) as f64);
        match name {
            "missing" => messages(|m| m.missing),
            "duplicates" => messages(|m| m.duplicates),
            "reordered" => messages(|m| m.reordered),
            "late" => messages(|m| m.late),
            "damaged" => messages(|m| m.damaged),
            "published" => messages(Messages::published),
            "received" => messages(|m| m.received),
            "unacknowledged" => {
                messages(|m| m.published_unicast1.saturating_sub(m.acknowledged) + m.refused)
            }
            "sessions_lost" => messages(|m| m.sessions_lost),
            "refused" => failures(&[
                Failure::Refused,
                Failure::NotAccepted,
                Failure::NotSubscribed,
            ]),
            "timeouts" => failures(&[Failure::Timeout]),
            "resets" => failures(&[Failure::Reset]),
            "closed" => failures(&[Failure::Closed]),
            "failed" => failures(&Failure::ALL),
            "pings_unanswered" => Some(connections.pings_unanswered as f64),
            "tickets" => tickets(|t| t.fetched),
            "tickets_failed" => tickets(|t| t.failed),
            "tickets_put_off" => tickets(|t| t.put_off),
            "cache_hits" => tickets(|t| t.cache_hits),
            "cache_saves" => tickets(|t| t.cache_saves),
            "fallbacks" => tickets(|t| t.fallbacks),
            "ready" => Some(connections.ready as f64),
            "unready" => unready(connections.ready),
            "never_ready" => unready(connections.peak),
            "peak" => Some(connections.peak as f64),
            "rate" => Some(connections.per_second),
            "back" => report
                .storms
                .iter()
                .map(|storm| storm.back_after.map_or(f64::INFINITY, |s| s * 1e6))
                .reduce(f64::max),
            "bytes" => report.memory.map(|memory| memory.user_bytes),
            "slab" => report.memory.map(|memory| memory.slab_bytes),
            "memory" => usage(report)
                .map(|(_, usage)| usage.pss.unwrap_or(usage.rss) as f64)
                .reduce(f64::max),
            "cpu" => {
                let (time, seconds) = usage(report).fold((0.0, 0.0), |sum, (seconds, usage)| {
                    (sum.0 + usage.cpu * seconds, sum.1 + seconds)
                });
                (seconds > 0.0).then(|| time / seconds)
            }
            _ => None,
        }
    }

    /// What 100 % of it are.
    fn whole(&self, report: &Report) -> Option<f64> {
        let Self::Named((name, ..)) = *self else {
            return None;
        };
        let whole = match name {
            "ready" | "unready" | "never_ready" | "peak" => report.connections.planned,
            "missing" | "duplicates" | "reordered" | "late" | "damaged" | "received" => report
                .messages
                .as_ref()
                .map_or(0, |messages| messages.received + messages.missing),
            "unacknowledged" => report.messages.as_ref().map_or(0, |m| m.published_unicast1),
            "refused" | "timeouts" | "resets" | "closed" | "failed" => report.connections.attempts,
            "pings_unanswered" => report.connections.pings,
            "tickets_failed" | "tickets_put_off" => report
                .tickets
                .map_or(0, |t| t.fetched + t.failed + t.put_off),
            _ => return None,
        };
        Some(whole as f64)
    }

    fn has_whole(&self) -> bool {
        self.whole(&Report::default()).is_some()
    }
}

fn usage(report: &Report) -> impl Iterator<Item = (f64, Usage)> {
    report
        .course
        .iter()
        .filter_map(|moment| Some((moment.seconds, moment.sample.server?)))
}

fn percentile(report: &Report, of: &str, percent: f64) -> Option<f64> {
    let latency = &report.latency;
    let packed = match of {
        "delivery" => latency.delivery(),
        "unicast" => histogram::join(&latency.unicast0, &latency.unicast1),
        "ready" => latency.ready.clone(),
        "ping" => latency.ping.clone(),
        "unicast0" => latency.unicast0.clone(),
        "unicast1" => latency.unicast1.clone(),
        "broadcast" => latency.broadcast.clone(),
        "waited" => latency.waited.clone(),
        "ticket" => latency.ticket.clone(),
        "paced" => latency.paced.clone(),
        _ => None,
    }?;
    Some(packed.histogram().at(percent / 100.0) as f64)
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Named((name, ..)) => f.write_str(name),
            Self::Percentile(of, percent) => {
                if of != LATENCIES[0] {
                    write!(f, "{of}.")?;
                }
                write!(f, "p{percent}")
            }
        }
    }
}

/// An expectation as it was typed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Parsed {
    figure: Figure,
    relation: Relation,
    /// In the figure's unit, or per cent of the whole.
    bound: f64,
    percent: bool,
}

impl Parsed {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (at, sign, relation) = Relation::ALL
            .into_iter()
            .filter_map(|(sign, relation)| Some((text.find(sign)?, sign, relation)))
            // Of those that begin first, the first of the table, which is the longest.
            .min_by_key(|&(at, ..)| at)
            .ok_or_else(|| format!("`{text}` compares nothing; write p99<20ms or missing=0"))?;
        let name = text[..at].trim();
        let figure = Figure::parse(name).ok_or_else(|| unknown(name))?;
        let typed = text[at + sign.len()..].trim();
        let percent = figure.unit() == Unit::Count && typed.ends_with('%');
        if percent && !figure.has_whole() {
            return Err(format!("`{text}`: {name} has no whole to take per cent of"));
        }
        let bound = bound(typed, figure.unit()).map_err(|error| format!("`{text}`: {error}"))?;
        Ok(Self {
            figure,
            relation,
            bound,
            percent,
        })
    }

    fn judge(&self, report: &Report) -> (String, bool) {
        let Some(value) = self.figure.value(report) else {
            return ("not measured".into(), false);
        };
        let (value, shown) = if self.percent {
            let whole = self.figure.whole(report).unwrap_or(0.0);
            let share = if whole > 0.0 {
                value / whole * 100.0
            } else {
                0.0
            };
            (share, format!("{} %", significant(share)))
        } else {
            (value, show(value, self.figure.unit()))
        };
        (shown, self.relation.holds(value, self.bound))
    }
}

/// Enough digits of a share, near 0 and near 100.
fn significant(share: f64) -> String {
    let text = format!("{share:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Micros if value.is_infinite() => "never".into(),
        Unit::Micros => units::micros(value as u64),
        Unit::Bytes => units::bytes(value),
        Unit::Cpu => format!("{value:.1} %"),
        Unit::Count => units::grouped(value.round() as u64),
    }
}

fn bound(typed: &str, unit: Unit) -> Result<f64, String> {
    let split = typed
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ',' | '_'))
        .unwrap_or(typed.len());
    let (digits, suffix) = typed.split_at(split);
    let number: f64 = digits
        .replace([',', '_'], "")
        .parse()
        .map_err(|_| format!("`{typed}` is no number"))?;
    let factor = match (unit, suffix.trim()) {
        (Unit::Count | Unit::Cpu, "" | "%") | (Unit::Micros, "us") | (Unit::Bytes, "" | "B") => 1.0,
        (Unit::Count, "k") | (Unit::Micros, "ms") => 1e3,
        (Unit::Count, "m") | (Unit::Micros, "s") => 1e6,
        (Unit::Micros, "m") => 60e6,
        (Unit::Micros, "") if number == 0.0 => 1.0,
        (Unit::Bytes, "KB") => 1024.0,
        (Unit::Bytes, "MB") => 1024.0 * 1024.0,
        (Unit::Bytes, "GB") => 1024.0 * 1024.0 * 1024.0,
        (Unit::Micros, _) => return Err(format!("`{typed}` is no time; write 850us, 20ms or 2s")),
        (Unit::Bytes, _) => return Err(format!("`{typed}` is no size; write 160, 512MB or 2GB")),
        (Unit::Count, _) => return Err(format!("`{typed}` is no count; write 0, 15k, 2m or 0.1%")),
        (Unit::Cpu, _) => return Err(format!("`{typed}` is no share of a core; write 15%")),
    };
    Ok(number * factor)
}

fn unknown(name: &str) -> String {
    let figures: Vec<&str> = FIGURES.iter().map(|&(name, ..)| name).collect();
    format!(
        "`{name}` is no figure. Known: p50, p99, p99.9 and so on and max, of delivery or as {}; {}",
        LATENCIES.map(|of| format!("{of}.p99")).join(", "),
        figures.join(", ")
    )
}

impl fmt::Display for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.relation {
            Relation::Below => "<",
            Relation::AtMost => "<=",
            Relation::Equal => "=",
            Relation::AtLeast => ">=",
            Relation::Above => ">",
        };
        write!(f, "{}{sign}", self.figure)?;
        let bound = self.bound;
        match self.figure.unit() {
            Unit::Micros if bound == 0.0 => f.write_str("0"),
            Unit::Micros if bound % 1e6 == 0.0 => write!(f, "{}s", bound / 1e6),
            Unit::Micros if bound % 1e3 == 0.0 => write!(f, "{}ms", bound / 1e3),
            Unit::Micros => write!(f, "{bound}us"),
            Unit::Cpu => write!(f, "{bound}%"),
            _ => write!(f, "{bound}{}", if self.percent { "%" } else { "" }),
        }
    }
}

/// Something that was expected, and how it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// As it would be typed.
    pub text: String,
    /// What it was; empty before it was judged.
    pub measured: String,
    /// It came so.
    pub met: bool,
}

impl Expectation {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: Parsed::parse(text)?.to_string(),
            measured: String::new(),
            met: false,
        })
    }

    /// Reads several with commas between them. A comma inside a number is one of them, so counts are written without.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(Self::parse)
            .collect()
    }

    /// Compared with a report.
    #[must_use]
    pub fn judged(&self, report: &Report) -> Self {
        let (measured, met) = match Parsed::parse(&self.text) {
            Ok(parsed) => parsed.judge(report),
            // Written by a later version, or by hand.
            Err(_) => ("not understood".into(), false),
        };
        Self {
            text: self.text.clone(),
            measured,
            met,
        }
    }

    /// In words, for those who don't know the figures' names: `messages owed and never received = 0`.
    pub fn in_words(&self) -> String {
        match Parsed::parse(&self.text) {
            Ok(Parsed {
                figure: Figure::Named((name, words, _)),
                ..
            }) => self.text.replacen(name, words, 1),
            _ => self.text.clone(),
        }
    }
}

/// What is expected where nobody says otherwise: all phones ready, no connection failed, and of what was sent nothing wrong.
pub fn usual() -> Vec<Expectation> {
    let usual = "never_ready=0,unready=0,failed=0,unacknowledged=0,missing=0,duplicates=0,reordered=0,damaged=0,sessions_lost=0";
    Expectation::parse_all(usual).unwrap_or_else(|_| unreachable!("a test reads them"))
}

/// What is expected besides, where phones have tickets: every question brings one.
pub fn of_tickets() -> Vec<Expectation> {
    Expectation::parse_all("tickets_failed=0,tickets_put_off=0")
        .unwrap_or_else(|_| unreachable!("a test reads them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use crate::histogram::{FINE, Packed};

    #[test]
    fn printed_and_read_again_it_is_the_same() {
        let mut rng = fastrand::Rng::with_seed(3);
        let numbers = [0.0, 0.25, 1.0, 17.0, 99.99, 1234.5, 250_000.0];
        let mut read = 0;
        for _ in 0..5000 {
            let figure = if rng.bool() {
                FIGURES[rng.usize(0..FIGURES.len())].0.to_owned()
            } else {
                let of = LATENCIES[rng.usize(0..LATENCIES.len())];
                let which = ["max", "p50", "p99.9", "p0", "p99.99"][rng.usize(0..5)];
                format!("{of}.{which}")
            };
            let sign = Relation::ALL[rng.usize(0..6)].0;
            let number = numbers[rng.usize(0..numbers.len())];
            let suffix = ["", "%", "k", "m", "us", "ms", "s", "B", "KB", "GB"][rng.usize(0..10)];
            let typed = format!(" {figure} {sign} {number}{suffix}");
            if let Ok(parsed) = Parsed::parse(&typed) {
                read += 1;
                assert_eq!(Parsed::parse(&parsed.to_string()), Ok(parsed), "{typed}");
            }
        }
        assert!(read > 500, "{read}");
    }

    fn report() -> Report {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.record(ms * 1000));
        let mut report = Report::default();
        report.latency.unicast1 = Packed::of(&histogram, FINE);
        report.connections.planned = 1000;
        report.connections.ready = 999;
        report.connections.attempts = 2000;
        report.failures.insert(Failure::Refused.text().into(), 2);
        report
    }

    fn judged(text: &str) -> (String, bool) {
        let expectation = Expectation::parse(text).unwrap().judged(&report());
        (expectation.measured, expectation.met)
    }

    #[test]
    fn figures_are_compared() {
        for met in [
            "p50<510ms",
            "unicast1.p99>=0.9s",
            "max=1s",
            "p99.9<=1s",
            "missing=0",
            "ready>=99.9%",
            "ready=999",
            "unready=1",
            "refused<=0.1%",
            "failed==2",
        ] {
            assert!(judged(met).1, "{met}: {}", judged(met).0);
        }
        let mut with_tickets = report();
        with_tickets.tickets = Some(Tickets {
            fetched: 90,
            put_off: 10,
            ..Tickets::default()
        });
        for (met, text) in [
            (true, "tickets=90"),
            (true, "tickets_put_off<=10%"),
            (true, "tickets_failed=0"),
            (false, "tickets_put_off=0"),
            (false, "ticket.p99<5ms"),
        ] {
            let judged = Expectation::parse(text).unwrap().judged(&with_tickets);
            assert_eq!(judged.met, met, "{text}: {}", judged.measured);
        }
        for unmet in ["p99<20ms", "ready=1k", "refused=0", "ready>99.9%"] {
            assert!(!judged(unmet).1, "{unmet}: {}", judged(unmet).0);
        }
        for unmeasured in ["broadcast.p99<1s", "bytes<256", "cpu<15%", "back<5s"] {
            assert_eq!(judged(unmeasured), ("not measured".into(), false));
        }
        assert_eq!(judged("ready>99%").0, "99.9 %");
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (wrong, says) in [
            ("p99", "compares nothing"),
            ("p99<20", "no time"),
            ("p101<2s", "no figure"),
            ("p-1<2s", "no figure"),
            ("speed>3", "sessions_lost"),
            ("missing=few", "no number"),
            ("missing=3ms", "no count"),
            ("rate>50%", "no whole"),
            ("bytes<3m", "no size"),
            ("cpu<3s", "no share"),
            ("ready.<3s", "no figure"),
            ("=", "no figure"),
            ("cache_hits>50%", "no whole"),
        ] {
            let error = Expectation::parse(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
        assert_eq!(
            Expectation::parse_all(" missing=0, ,p99<20ms ")
                .unwrap()
                .len(),
            2
        );
        assert_eq!((usual().len(), of_tickets().len()), (9, 2));
        assert!(usual()[4].in_words().starts_with("messages owed"));
    }
}
