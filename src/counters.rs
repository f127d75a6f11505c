//! What each reactor counts: one block of counters a reactor, written by that reactor alone, read by whoever wants a sum.
//!
//! The shard counts what the protocol does, the reactor what happens at the sockets; `$SYS`, the log and the metrics read the sums. Never a
//! place for a decision: the counts are relaxed and a reader sees them a little late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use crate::ids::ReactorId;

/// A number that one thread writes and all may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Add, from the one thread that owns the block: a load and a store, no locked instruction.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Take away, from the one thread that owns the block; for the gauges.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Set, from the one thread that owns the block; for the gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Read, from anywhere.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident),+ $(,)?) => {
        /// One reactor's counters.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])+ pub $name: Counter,)+
        }

        /// The counters of all reactors, added up.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Totals {
            fn add(&mut self, block: &Counters) {
                $(self.$name = self.$name.wrapping_add(block.$name.get());)+
            }

            /// Every counter with its name, in the order of the source.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }
        }
    };
}

counters! {
    // Connections; the reactor counts.
    /// Gauge: sockets that this reactor holds, with or without a session.
    connections,
    /// Sockets taken from the listeners.
    accepted,
    /// Connections turned away: limits, lack of file descriptors, a CONNECT that never came or was none.
    refused,
    /// CONNECTs whose credentials were not good enough, or could not be checked.
    connects_denied,
    /// CONNECTs of an address or client identifier that came too often.
    connects_throttled,
    /// Connections handed over to their home reactor.
    handed_over,
    /// Connections closed, by whichever side.
    closed,
    /// Of those closed: no packet within one and a half keep alives.
    closed_keep_alive,
    /// Of those closed: the peer did not take what was written.
    closed_slow,
    /// Sockets that came over in a hand-over and were lost, as the fd table had no room.
    handover_lost,
    /// Times that accepting had to stop, as no file descriptor was left.
    accept_pauses,

    // Bytes and the loop; the reactor counts.
    /// Bytes read from clients.
    bytes_in,
    /// Bytes written to clients.
    bytes_out,
    /// Turns of the loop.
    turns,
    /// Turns that poll was asked to wait for, that is, wake-ups from sleep.
    wakeups,
    /// Batches of mail posted to other reactors.
    mail_batches,
    /// Turns at whose end mail waited for a full mailbox.
    mail_waits,
    /// Longest turn since the last tick, in microseconds.
    turn_micros,
    /// How late the loop is, in microseconds: how late it saw the last tick, or its longest turn since the one before, if that is more.
    lag_micros,

    // The protocol; the shard counts.
    /// Packets received, PUBLISH included.
    packets_in,
    /// Packets sent, PUBLISH included.
    packets_out,
    /// PUBLISH packets received.
    publishes_in,
    /// PUBLISH packets sent.
    publishes_out,
    /// Gauge: sessions, connected or not.
    sessions,
    /// Gauge: sessions with a connection.
    sessions_online,
    /// Gauge: subscriptions.
    subscriptions,
    /// Gauge: retained messages.
    retained,
    /// Gauge: bytes of retained messages.
    retained_bytes,
    /// Gauge: messages in the queues of sessions.
    queued,
    /// QoS 0 messages not sent, as the connection's backlog was full.
    dropped_backlog,
    /// QoS 0 deliveries shed, as too many fan-outs waited.
    dropped_fanout,
    /// Messages not retained, as the limit was reached.
    dropped_retained,
    /// QoS 0 messages not forwarded, as another reactor's mailbox was full.
    dropped_mailbox,
    /// Messages dropped from a full session queue.
    dropped_queue,
    /// Messages that a store refused or could not read: the disk is full or failed.
    dropped_store,
    /// Messages whose expiry passed before they were sent.
    dropped_expired,
    /// Messages larger than the receiver's maximum packet size.
    dropped_too_large,
    /// Messages that somebody may not publish, or may not be given any more.
    dropped_forbidden,
    /// Messages over a limit of their publisher's tenant.
    dropped_quota,
    /// Clients cut off, as their token, client identifier or tenant was revoked.
    revoked,
    /// Sessions taken over by a new connection.
    takeovers,
    /// CONNECTs refused by the protocol.
    connects_refused,
    /// Packets that broke the protocol.
    protocol_errors,
    /// Wills published.
    wills,

    // The store; the shard counts.
    /// Gauge: bytes of records that are needed.
    store_live_bytes,
    /// Gauge: bytes of the log.
    store_log_bytes,
    /// Gauge: segments of the log.
    store_segments,
    /// Syncs of the log.
    store_syncs,
    /// Damaged stretches that were found and skipped at the start.
    store_damaged,
}

/// The blocks of all reactors. Cloned freely; everybody sees the same counters.
#[derive(Clone, Debug)]
pub struct AllCounters(Arc<[CachePadded<Counters>]>);

impl AllCounters {
    /// One block for each of so many reactors.
    pub fn new(reactors: usize) -> Self {
        Self((0..reactors).map(|_| CachePadded::default()).collect())
    }

    /// The block of one reactor; only that reactor may write to it.
    pub fn of(&self, reactor: ReactorId) -> &Counters {
        &self.0[reactor.index()]
    }

    /// The sums over all reactors, as of about now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for block in self.0.iter() {
            totals.add(block);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_the_blocks() {
        let all = AllCounters::new(3);
        for reactor in 0..3 {
            all.of(ReactorId(reactor))
                .accepted
                .add(u64::from(reactor) + 1);
            all.of(ReactorId(reactor)).connections.add(10);
        }
        all.of(ReactorId(1)).connections.sub(4);
        let totals = all.totals();
        assert_eq!((totals.accepted, totals.connections), (6, 26));
        assert!(totals.named().any(|(name, n)| name == "accepted" && n == 6));
    }
}
