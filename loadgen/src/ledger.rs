//! What was published so far, so that a phone knows what it is owed. Written by the publisher, read by the driver threads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::clock;

/// Broadcasts of one run that are followed one by one; a later round takes the place of an old one.
const ROUNDS: usize = 1024;

/// What was published, per phone and to all.
#[derive(Debug)]
pub struct Ledger {
    /// The run that the payloads name.
    pub run: u32,
    first: u32,
    phones: Vec<Sent>,
    broadcasts: AtomicU32,
    broadcast_at: AtomicU32,
    rounds: Vec<Round>,
}

/// Published to one phone.
#[derive(Debug, Default)]
struct Sent {
    unicast0: AtomicU32,
    unicast0_at: AtomicU32,
    unicast1: AtomicU32,
    unicast1_at: AtomicU32,
}

/// One broadcast: how many phones have it, and how long the slowest waited.
#[derive(Debug, Default)]
pub struct Round {
    received: AtomicU32,
    slowest_micros: AtomicU64,
}

impl Round {
    /// A phone received it `micros` after its planned time. Returns how many have it now.
    pub fn arrived(&self, micros: u64) -> u32 {
        self.slowest_micros.fetch_max(micros, Relaxed);
        self.received.fetch_add(1, Relaxed) + 1
    }

    /// How many phones have it.
    pub fn received(&self) -> u32 {
        self.received.load(Relaxed)
    }

    /// Microseconds from its planned time to the last arrival so far.
    pub fn slowest_micros(&self) -> u64 {
        self.slowest_micros.load(Relaxed)
    }
}

/// Milliseconds, as the ledger keeps them: u32 lasts 49 days.
fn millis(now: u64) -> u32 {
    (now / clock::MILLI) as u32
}

impl Ledger {
    /// A ledger for `count` phones from number `first` on. All its memory is touched now, so that none of it looks like a server's later.
    pub fn new(run: u32, first: u32, count: u32) -> Self {
        let mut phones = Vec::with_capacity(count as usize);
        phones.resize_with(count as usize, Sent::default);
        let mut rounds = Vec::with_capacity(ROUNDS);
        rounds.resize_with(ROUNDS, Round::default);
        Self {
            run,
            first,
            phones,
            broadcasts: AtomicU32::new(0),
            broadcast_at: AtomicU32::new(0),
            rounds,
        }
    }

    /// The number of phones, and the first one's number.
    pub fn phones(&self) -> (u32, u32) {
        (self.first, self.phones.len() as u32)
    }

    fn sent(&self, phone: u32) -> &Sent {
        &self.phones[(phone - self.first) as usize]
    }

    /// The next sequence of QoS 0 to a phone. Noted before it is written, so that what arrives is never ahead of the ledger.
    pub fn next_unicast0(&self, phone: u32, now: u64) -> u32 {
        let sent = self.sent(phone);
        sent.unicast0_at.store(millis(now), Relaxed);
        sent.unicast0.fetch_add(1, Relaxed) + 1
    }

    /// The next sequence of QoS 1 to a phone.
    pub fn next_unicast1(&self, phone: u32, now: u64) -> u32 {
        let sent = self.sent(phone);
        sent.unicast1_at.store(millis(now), Relaxed);
        sent.unicast1.fetch_add(1, Relaxed) + 1
    }

    /// The next sequence to all.
    pub fn next_broadcast(&self, now: u64) -> u32 {
        self.broadcast_at.store(millis(now), Relaxed);
        let sequence = self.broadcasts.fetch_add(1, Relaxed) + 1;
        let round = self.round(sequence);
        round.received.store(0, Relaxed);
        round.slowest_micros.store(0, Relaxed);
        sequence
    }

    /// QoS 0 messages sent to a phone.
    pub fn unicast0(&self, phone: u32) -> u32 {
        self.sent(phone).unicast0.load(Relaxed)
    }

    /// QoS 1 messages sent to a phone.
    pub fn unicast1(&self, phone: u32) -> u32 {
        self.sent(phone).unicast1.load(Relaxed)
    }

    /// Broadcasts sent.
    pub fn broadcasts(&self) -> u32 {
        self.broadcasts.load(Relaxed)
    }

    /// Milliseconds since the last QoS 0 message to this phone was published.
    pub fn unicast0_age(&self, phone: u32, now: u64) -> u32 {
        millis(now).saturating_sub(self.sent(phone).unicast0_at.load(Relaxed))
    }

    /// Milliseconds since the last QoS 1 message to this phone was published.
    pub fn unicast1_age(&self, phone: u32, now: u64) -> u32 {
        millis(now).saturating_sub(self.sent(phone).unicast1_at.load(Relaxed))
    }

    /// Milliseconds since the last broadcast was published.
    pub fn broadcast_age(&self, now: u64) -> u32 {
        millis(now).saturating_sub(self.broadcast_at.load(Relaxed))
    }

    /// The account of one broadcast.
    pub fn round(&self, sequence: u32) -> &Round {
        &self.rounds[sequence as usize % ROUNDS]
    }

    /// The accounts of the broadcasts so far that are still followed.
    pub fn rounds(&self) -> impl Iterator<Item = (u32, &Round)> {
        let last = self.broadcasts();
        let first = last.saturating_sub(ROUNDS as u32 - 1).max(1);
        (first..=last).map(|sequence| (sequence, self.round(sequence)))
    }
}
