//! The account of a run: plain data, shown as text, as JSON or as a page, and read again to join several.
//!
//! All counts and histograms are kept whole, so that results of several processes can be added; nothing is averaged.

pub mod course;
mod html;
mod json;
pub mod merge;
mod terminal;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::expect::Expectation;
use crate::fleet::Fleet;
use crate::histogram::FINE;
use crate::ledger::Ledger;
use crate::machine;
use crate::publisher::Publisher;
use crate::recording::Recorded;
use crate::stats::{Count, Latencies, PackedLatencies, Totals};
use course::{Moment, Phase, Storm, tenths};

/// Names the shape of the JSON; the number grows when a field changes its meaning or goes.
pub const SCHEMA: &str = "stillwire.loadgen/2";

/// A whole run, of one process or of several that were joined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Which scenario.
    pub scenario: String,
    /// Names the run; processes that share one have the same.
    pub run: u32,
    /// Milliseconds since 1970 at which it began.
    pub began: u64,
    /// Day and time of that, UTC.
    pub date: String,
    /// How long it took.
    pub seconds: f64,
    /// Cores, memory, kernel.
    pub machine: String,
    /// What was asked for, by name, as a reader of the report wants to know it.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The run was cut short; what is here is true all the same.
    pub interrupted: bool,
    /// The phones of each process: first number and how many.
    pub ranges: Vec<(u32, u32)>,
    /// The server's process, if it was watched.
    #[serde(default)]
    pub server_pid: Option<u32>,
    /// What the connections did.
    pub connections: Connections,
    /// What a connection costs, where it was measured.
    pub memory: Option<Memory>,
    /// The account of messages, if any were sent.
    pub messages: Option<Messages>,
    /// How phones found the server, if they asked a lookup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tickets: Option<Tickets>,
    /// Failed connections by kind.
    pub failures: BTreeMap<String, u64>,
    /// What was expected, and if it came so.
    pub expectations: Vec<Expectation>,
    /// Latency of each kind, from the planned time, over the whole run; 0.8 % exact.
    pub latency: PackedLatencies,
    /// Many that dropped at once.
    #[serde(default)]
    pub storms: Vec<Storm>,
    /// Broadcasts one by one.
    pub broadcasts: Vec<Broadcast>,
    /// The parts of the run.
    pub phases: Vec<Phase>,
    /// Seconds that each moment of the course stands for.
    pub interval: u64,
    /// The run from second to second, at most 300 moments.
    pub course: Vec<Moment>,
}

/// What the connections did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// Phones planned.
    pub planned: u64,
    /// Phones ready at the most.
    pub peak: u64,
    /// Phones ready at the end.
    pub ready: u64,
    /// Connection attempts in all.
    pub attempts: u64,
    /// Seconds from the first planned connect until all were ready.
    pub seconds: f64,
    /// Phones that became ready a second, meanwhile.
    pub per_second: f64,
    /// The rate that was asked for.
    pub planned_per_second: f64,
    /// Reconnects by plan: churn and burst.
    pub reconnects: u64,
    /// Pings sent.
    pub pings: u64,
    /// Pings without an answer in one keep alive.
    pub pings_unanswered: u64,
}

/// Bytes that a connection costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// User space of the server: growth of Pss over the state before the first connection, divided.
    pub user_bytes: f64,
    /// Kernel slab of both ends, since both are on this machine.
    pub slab_bytes: f64,
    /// The server is in the generator's own process; the phones' memory was all touched before, so it isn't in `user_bytes`.
    pub same_process: bool,
}

/// Percentiles in microseconds, a row of a table.
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
}

impl Latency {
    /// All kinds that have values.
    pub fn all(latencies: &Latencies) -> Vec<Self> {
        Self::rows(&latencies.packed(FINE))
    }

    /// All kinds that have values.
    pub fn rows(latencies: &PackedLatencies) -> Vec<Self> {
        latencies
            .named()
            .map(|(of, packed)| Self {
                of,
                count: packed.count,
                p50: packed.p50,
                p90: packed.p90,
                p99: packed.p99,
                p999: packed.p999,
                max: packed.max,
            })
            .collect()
    }
}

/// What was sent and what of it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Messages published; a broadcast is one.
    pub fn published(&self) -> u64 {
        self.published_unicast0 + self.published_unicast1 + self.published_broadcast
    }

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

/// How phones found the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tickets {
    /// Tickets that the lookup gave.
    pub fetched: u64,
    /// Questions without an answer that can be used.
    pub failed: u64,
    /// Questions that it put off: 429 and 503.
    pub put_off: u64,
    /// Calls with a ticket that was kept.
    pub cache_hits: u64,
    /// Calls with a ticket that was kept because the lookup gave no new one.
    pub cache_saves: u64,
    /// Calls to an address of a fallback list.
    pub fallbacks: u64,
    /// Phones that were told to wait before they call.
    pub paced: u64,
}

impl Tickets {
    /// From the counters.
    pub fn of(totals: &Totals) -> Self {
        Self {
            fetched: totals.get(Count::Tickets),
            failed: totals.get(Count::TicketsFailed),
            put_off: totals.get(Count::TicketsPutOff),
            cache_hits: totals.get(Count::CacheHits),
            cache_saves: totals.get(Count::CacheSaves),
            fallbacks: totals.get(Count::Fallbacks),
            paced: totals.get(Count::Paced),
        }
    }

    /// Adds another process's.
    pub fn add(&mut self, other: &Self) {
        self.fetched += other.fetched;
        self.failed += other.failed;
        self.put_off += other.put_off;
        self.cache_hits += other.cache_hits;
        self.cache_saves += other.cache_saves;
        self.fallbacks += other.fallbacks;
        self.paced += other.paced;
    }

    /// All of it in words, as a report shows it.
    pub fn in_words(&self) -> [(u64, &'static str); 7] {
        [
            (self.fetched, "tickets fetched"),
            (self.cache_hits, "calls with a ticket that was kept"),
            (
                self.cache_saves,
                "calls with a kept ticket because there was no new one",
            ),
            (self.fallbacks, "calls to the fallback list"),
            (self.paced, "phones told to wait before they call"),
            (self.put_off, "questions put off (429, 503)"),
            (self.failed, "questions without an answer"),
        ]
    }
}

/// One broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

impl Report {
    /// What the counters, the ledger and the recording tell. The scenario adds what it alone knows: the ramp's time and rate
    /// ([`Report::ramp`]), settings, memory, storms and whether it was interrupted; and then what was expected
    /// ([`Report::judge`]).
    pub fn of(
        scenario: &str,
        fleet: &Fleet,
        publisher: Option<&Publisher>,
        recorded: Recorded,
    ) -> Self {
        let totals = fleet.totals();
        let plan = fleet.plan();
        let sent = publisher.filter(|publisher| publisher.published_in_all() > 0);
        Self {
            schema: SCHEMA.into(),
            scenario: scenario.into(),
            run: fleet.ledger().run,
            began: recorded.began,
            date: machine::date_time(recorded.began / 1000),
            seconds: recorded.seconds,
            machine: machine::describe(),
            settings: BTreeMap::new(),
            interrupted: false,
            ranges: vec![(plan.first, plan.phones)],
            server_pid: recorded.server_pid,
            connections: Connections {
                planned: u64::from(plan.phones),
                peak: recorded
                    .course
                    .iter()
                    .map(|moment| moment.ready.most)
                    .max()
                    .unwrap_or(0)
                    .max(totals.ready()),
                ready: totals.ready(),
                attempts: totals.get(Count::Attempts),
                reconnects: totals.get(Count::HungUp),
                pings: totals.get(Count::Pings),
                pings_unanswered: totals.get(Count::PingsUnanswered),
                ..Connections::default()
            },
            memory: None,
            messages: sent.map(|publisher| Messages::of(&totals, publisher)),
            tickets: plan.tickets.as_ref().map(|_| Tickets::of(&totals)),
            failures: totals
                .failures()
                .map(|(failure, n)| (failure.text().into(), n))
                .collect(),
            expectations: Vec::new(),
            latency: fleet.latencies().packed(FINE),
            storms: Vec::new(),
            broadcasts: Broadcast::all(fleet.ledger()),
            phases: recorded.phases,
            interval: recorded.interval,
            course: recorded.course,
        }
    }

    /// How the first connect of all phones went: seconds, phones ready then, and the rate that was asked for.
    pub fn ramp(&mut self, seconds: f64, ready: u64, planned_per_second: f64) {
        let connections = &mut self.connections;
        connections.seconds = course::thousandths(seconds);
        connections.per_second = tenths(ready as f64 / seconds.max(1e-3));
        connections.planned_per_second = planned_per_second;
        connections.peak = connections.peak.max(ready);
    }

    /// Compares with what is expected, and keeps the result.
    pub fn judge(&mut self, expected: &[Expectation]) {
        self.expectations = expected
            .iter()
            .map(|expectation| expectation.judged(self))
            .collect();
    }

    /// Everything came as expected.
    pub fn is_as_expected(&self) -> bool {
        self.expectations.iter().all(|expectation| expectation.met)
    }

    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// As one page that needs nothing else.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// As text, the headline last.
    pub fn to_text(&self) -> String {
        terminal::text(self)
    }
}
