//! The account of a run: plain data, shown as text or written as JSON.

mod terminal;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::Ledger;
use crate::publisher::Publisher;
use crate::stats::{Count, Latencies, Totals};
use crate::watch::Moment;

/// Names the shape of the JSON; the number grows when a field changes its meaning or goes.
pub const SCHEMA: &str = "stillwire.loadgen/1";

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Which scenario.
    pub scenario: &'static str,
    /// Cores, memory, kernel.
    pub machine: String,
    /// Day of the run, UTC.
    pub date: String,
    /// The run was cut short; what is here is true all the same.
    pub interrupted: bool,
    /// What the connections did.
    pub connections: Connections,
    /// What a connection costs, where it was measured.
    pub memory: Option<Memory>,
    /// Latency of each kind, from the planned time.
    pub latency: Vec<Latency>,
    /// The account of messages, if any were sent.
    pub messages: Option<Messages>,
    /// Broadcasts one by one.
    pub broadcasts: Vec<Broadcast>,
    /// Failed connections by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// What was expected, and if it came so.
    pub expectations: Vec<Expectation>,
    /// The run second by second.
    pub course: Vec<Moment>,
}

/// What the connections did.
#[derive(Debug, Serialize)]
pub struct Connections {
    /// Phones planned.
    pub planned: u32,
    /// Phones ready at the most.
    pub peak: u64,
    /// Phones ready at the end.
    pub ready: u64,
    /// Seconds from the first planned connect until all were ready.
    pub seconds: f64,
    /// Phones that became ready a second, meanwhile.
    pub per_second: f64,
    /// The rate that was asked for.
    pub planned_per_second: f64,
    /// Reconnects by plan: churn and burst.
    pub reconnects: u64,
    /// Pings sent, and not answered.
    pub pings: u64,
    /// Pings without an answer in one keep alive.
    pub pings_unanswered: u64,
}

/// Bytes that a connection costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// User space of the server: growth of Pss over the state before the first connection, divided.
    pub user_bytes: f64,
    /// Kernel slab of both ends, since both are on this machine.
    pub slab_bytes: f64,
    /// The server is in the generator's own process; the phones' memory was all touched before, so it isn't in `user_bytes`.
    pub same_process: bool,
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Of what.
    pub of: &'static str,
    /// How many were recorded.
    pub count: u64,
    /// Half were faster.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
    /// The distribution: the upper bound of each class (1, 2, 5, 10 and so on) and how many fell into it.
    pub classes: Vec<(u64, u64)>,
}

impl Latency {
    /// `None` without a value.
    pub fn new(of: &'static str, histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        let mut classes = Vec::new();
        let mut low = 0;
        for high in (0..).flat_map(|power| [1, 2, 5].map(|step| step * 10u64.pow(power))) {
            if low > histogram.max() {
                break;
            }
            // The histogram joins neighbouring values, so a value is put where its representative falls.
            classes.push((
                high,
                histogram
                    .iter_recorded()
                    .filter(|value| (low..high).contains(&value.value_iterated_to()))
                    .map(|value| value.count_at_value())
                    .sum(),
            ));
            low = high;
        }
        Some(Self {
            of,
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            classes,
        })
    }

    /// All kinds that have values.
    pub fn all(latencies: &Latencies) -> Vec<Self> {
        [
            ("connect to ready", &latencies.ready),
            ("push, QoS 0", &latencies.unicast0),
            ("push, QoS 1", &latencies.unicast1),
            ("broadcast", &latencies.broadcast),
            ("waited for its phone", &latencies.waited),
        ]
        .into_iter()
        .filter_map(|(of, histogram)| Self::new(of, histogram))
        .collect()
    }
}

/// What was sent and what of it came.
#[derive(Clone, Debug, Serialize)]
pub struct Messages {
    /// Pushes to one phone at QoS 0.
    pub published_unicast0: u64,
    /// Pushes to one phone at QoS 1.
    pub published_unicast1: u64,
    /// Broadcasts.
    pub published_broadcast: u64,
    /// PUBACKs to the publisher.
    pub acknowledged: u64,
    /// PUBACKs that said no.
    pub refused: u64,
    /// Messages received, each counted once.
    pub received: u64,
    /// Owed and never received.
    pub missing: u64,
    /// Received twice against the rules.
    pub duplicates: u64,
    /// Received after a later one.
    pub reordered: u64,
    /// Took longer than the limit.
    pub late: u64,
    /// Sent again at QoS 1 after a reconnect, marked as such: allowed.
    pub redelivered: u64,
    /// QoS 0, in flight to a phone that just left: not owed.
    pub excused: u64,
    /// Unreadable, or for somebody else.
    pub damaged: u64,
    /// Of an earlier run.
    pub foreign: u64,
    /// Sessions that the broker should have kept.
    pub sessions_lost: u64,
}

impl Messages {
    /// From the counters.
    pub fn of(totals: &Totals, publisher: &Publisher) -> Self {
        use crate::payload::Kind;
        Self {
            published_unicast0: publisher.published(Kind::Unicast0),
            published_unicast1: publisher.published(Kind::Unicast1),
            published_broadcast: publisher.published(Kind::Broadcast),
            acknowledged: publisher.acknowledged(),
            refused: publisher.refused(),
            received: totals.received(),
            missing: totals.missing(),
            duplicates: totals.get(Count::Duplicates),
            reordered: totals.get(Count::Reordered),
            late: totals.get(Count::Late),
            redelivered: totals.get(Count::Redelivered),
            excused: totals.get(Count::Excused),
            damaged: totals.get(Count::Damaged),
            foreign: totals.get(Count::Foreign),
            sessions_lost: totals.get(Count::SessionLost),
        }
    }
}

/// One broadcast.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Broadcast {
    /// Phones that received it.
    pub received: u32,
    /// Microseconds until the last one had it.
    pub slowest: u64,
}

impl Broadcast {
    /// The broadcasts of a run.
    pub fn all(ledger: &Ledger) -> Vec<Self> {
        ledger
            .rounds()
            .map(|(_, round)| Self {
                received: round.received(),
                slowest: round.slowest_micros(),
            })
            .collect()
    }
}

/// Something that was expected.
#[derive(Clone, Debug, Serialize)]
pub struct Expectation {
    /// In words.
    pub text: &'static str,
    /// How far off it is; 0 is met.
    pub off_by: u64,
}

impl Report {
    /// Everything came as expected.
    pub fn is_as_expected(&self) -> bool {
        self.expectations
            .iter()
            .all(|expectation| expectation.off_by == 0)
    }

    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .unwrap_or_else(|_| unreachable!("plain data with string keys"));
        text.push('\n');
        text
    }

    /// As text, the headline last.
    pub fn to_text(&self) -> String {
        terminal::text(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_classes_hold_every_value() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).unwrap();
        assert!(Latency::new("test", &histogram).is_none());
        for value in [1, 15, 16, 17, 5000, 90_000] {
            histogram.record(value).unwrap();
        }
        let latency = Latency::new("test", &histogram).unwrap();
        assert_eq!(
            latency.classes.iter().map(|&(_, n)| n).sum::<u64>(),
            latency.count
        );
        assert_eq!(
            latency.classes[..5],
            [(1, 0), (2, 1), (5, 0), (10, 0), (20, 3)]
        );
    }
}
