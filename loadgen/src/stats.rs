//! What the threads count, and how the rest of the program reads it while they run.
//!
//! Each thread has a [`Tally`] that it alone writes. Counters are relaxed atomics; the histograms stand behind a lock that the
//! thread takes once a turn of its loop and a reader a few times a second.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::histogram::{self, Histogram, Packed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count { $($(#[$doc])* $name),* }

        const COUNTS: usize = [$(Count::$name),*].len();
    };
}

counters! {
    /// Connection attempts.
    Attempts,
    /// Phones that became ready: CONNACK and SUBACK received.
    Readied,
    /// Phones that stopped being ready, whoever closed.
    Unreadied,
    /// Connections that the scenario closed.
    HungUp,
    /// QoS 0 messages to one phone, received for the first time.
    Unicast0,
    /// QoS 1 messages to one phone, received for the first time.
    Unicast1,
    /// Broadcast messages received for the first time.
    Broadcast,
    /// Owed messages that were skipped, or hadn't come at the end. Those filled later count under `Filled` too.
    Gaps,
    /// Messages that filled a gap after a later one had come.
    Filled,
    /// Messages that came after a later one, owed or not.
    Reordered,
    /// Messages that came twice against the rules.
    Duplicates,
    /// QoS 1 messages sent again after a reconnect, with the DUP flag, as the protocol has it.
    Redelivered,
    /// Messages that took longer than the limit.
    Late,
    /// QoS 0 messages in flight to a phone that just left.
    Excused,
    /// Payloads that couldn't be read, or were for somebody else.
    Damaged,
    /// Messages of an earlier run.
    Foreign,
    /// A broker that should have kept the session says it has none (session present 0).
    SessionLost,
    /// PINGREQ sent.
    Pings,
    /// PINGRESP received.
    Pongs,
    /// A ping that had no answer when the next was due.
    PingsUnanswered,
    /// Phones that fell silent without closing their connection.
    Vanished,
    /// Phones that connected again while the old connection stood.
    Takeovers,
    /// Old connections that the broker should have closed after a takeover, and didn't.
    TakeoversStood,
    /// Tickets that the lookup gave.
    Tickets,
    /// Questions to the lookup that brought neither a ticket nor a time to come again.
    TicketsFailed,
    /// Questions that it put off: 429 and 503.
    TicketsPutOff,
    /// Calls with a ticket that was kept.
    CacheHits,
    /// Calls with a ticket that was kept because the lookup gave no new one.
    CacheSaves,
    /// Calls to an address of a fallback list.
    Fallbacks,
    /// Phones that `connect_after` made wait.
    Paced,
}

macro_rules! failures {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// Why a connection failed or ended against the plan.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failure {
            $(#[doc = $text] $name),*
        }

        impl Failure {
            /// All kinds.
            pub const ALL: [Self; [$(Failure::$name),*].len()] = [$(Self::$name),*];

            /// In words, as a report shows it.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

failures! {
    Refused = "connection refused",
    Timeout = "not ready in time",
    Reset = "reset by the broker",
    Closed = "closed by the broker",
    NotAccepted = "CONNACK said no",
    NotSubscribed = "SUBACK said no",
    Disconnected = "DISCONNECT from the broker",
    Protocol = "not the protocol",
    NoPort = "no source port left",
    NoFile = "no file descriptor left",
    Other = "another system error",
}

/// One thread's counters and histograms.
#[derive(Debug)]
pub struct Tally {
    counts: [AtomicU64; COUNTS],
    failures: [AtomicU64; Failure::ALL.len()],
    /// Latencies, in microseconds.
    pub latency: Mutex<Latencies>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Latency histograms in microseconds, all from the planned time.
        #[derive(Clone, Debug, Default)]
        pub struct Latencies { $($(#[$doc])* pub $name: Histogram),* }

        impl Latencies {
            /// Adds what another thread recorded.
            pub fn add(&mut self, other: &Self) {
                $(self.$name.add(&other.$name);)*
            }

            /// Forgets everything.
            pub fn clear(&mut self) {
                $(self.$name.clear();)*
            }

            /// The same in the form of a report, with 2^`precision` classes an octave.
            pub fn packed(&self, precision: u8) -> PackedLatencies {
                PackedLatencies { $($name: Packed::of(&self.$name, precision)),* }
            }
        }

        /// Latencies as a report carries them; kinds without a value are left out.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct PackedLatencies {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<Packed>),*
        }

        impl PackedLatencies {
            /// Adds another's.
            pub fn join(&mut self, other: &Self) {
                $(self.$name = histogram::join(&self.$name, &other.$name);)*
            }
        }
    };
}

kinds! {
    /// From the planned connect to CONNACK and SUBACK.
    ready,
    /// From the planned publish to the phone, one phone, QoS 0.
    unicast0,
    /// The same at QoS 1.
    unicast1,
    /// From the planned publish to each phone, all phones.
    broadcast,
    /// From PINGREQ to PINGRESP.
    ping,
    /// What was published before the phone was ready, and waited for it: mostly the phone's own absence.
    waited,
    /// From the planned question to the ticket.
    ticket,
    /// What `connect_after` made phones wait.
    paced,
}

impl PackedLatencies {
    /// All kinds that have values, in words.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Packed)> {
        [
            ("connect to ready", &self.ready),
            ("push, QoS 0", &self.unicast0),
            ("push, QoS 1", &self.unicast1),
            ("broadcast", &self.broadcast),
            ("ping", &self.ping),
            ("waited for its phone", &self.waited),
            ("ticket", &self.ticket),
            ("told to wait", &self.paced),
        ]
        .into_iter()
        .filter_map(|(of, packed)| Some((of, packed.as_ref()?)))
    }

    /// Publish to receive of all messages whose phone was there.
    pub fn delivery(&self) -> Option<Packed> {
        histogram::join(
            &histogram::join(&self.unicast0, &self.unicast1),
            &self.broadcast,
        )
    }
}

/// Locks the latencies; a thread that panicked while it recorded left them whole.
pub fn locked(latency: &Mutex<Latencies>) -> std::sync::MutexGuard<'_, Latencies> {
    latency
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Records a duration in nanoseconds, as microseconds.
pub fn record(histogram: &mut Histogram, nanos: u64) {
    histogram.record((nanos / 1000).max(1));
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            failures: std::array::from_fn(|_| AtomicU64::new(0)),
            latency: Mutex::new(Latencies::default()),
        }
    }
}

impl Tally {
    /// Counts one.
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Counts several. Only the owning thread writes, so a load and a store do.
    pub fn add(&self, what: Count, n: u64) {
        let counter = &self.counts[what as usize];
        counter.store(counter.load(Relaxed) + n, Relaxed);
    }

    /// Counts a failure.
    pub fn fail(&self, failure: Failure) {
        let counter = &self.failures[failure as usize];
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}

/// The sums over all threads at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    counts: [u64; COUNTS],
    failures: [u64; Failure::ALL.len()],
}

impl Totals {
    /// Adds up.
    pub fn of<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Self {
        let mut totals = Self::default();
        for tally in tallies {
            for (sum, counter) in totals.counts.iter_mut().zip(&tally.counts) {
                *sum += counter.load(Relaxed);
            }
            for (sum, counter) in totals.failures.iter_mut().zip(&tally.failures) {
                *sum += counter.load(Relaxed);
            }
        }
        totals
    }

    /// One counter.
    pub fn get(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    /// Phones ready now.
    pub fn ready(&self) -> u64 {
        self.get(Count::Readied)
            .saturating_sub(self.get(Count::Unreadied))
    }

    /// Messages received, each once.
    pub fn received(&self) -> u64 {
        self.get(Count::Unicast0) + self.get(Count::Unicast1) + self.get(Count::Broadcast)
    }

    /// Owed messages that haven't come.
    pub fn missing(&self) -> u64 {
        self.get(Count::Gaps)
            .saturating_sub(self.get(Count::Filled))
    }

    /// Failures of all kinds.
    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Failures of one kind.
    pub fn failures_of(&self, failure: Failure) -> u64 {
        self.failures[failure as usize]
    }

    /// Failures by kind, those that happened.
    pub fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        Failure::ALL
            .into_iter()
            .zip(self.failures)
            .filter(|&(_, n)| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up() {
        let (a, b) = (Tally::default(), Tally::default());
        a.add(Count::Readied, 5);
        b.add(Count::Readied, 2);
        b.count(Count::Unreadied);
        a.fail(Failure::Reset);
        b.fail(Failure::Reset);
        let totals = Totals::of([&a, &b]);
        assert_eq!(totals.ready(), 6);
        assert_eq!(totals.failures().collect::<Vec<_>>(), [(Failure::Reset, 2)]);
        assert_eq!(totals.failed(), 2);
    }

    #[test]
    fn latencies_are_added_not_averaged() {
        let (mut a, mut b) = (Latencies::default(), Latencies::default());
        record(&mut a.ready, 1_000_000);
        record(&mut b.ready, 3_000_000_000_000_000);
        a.add(&b);
        assert_eq!(a.ready.len(), 2);
        assert_eq!(a.ready.max(), histogram::LONGEST);
    }
}
