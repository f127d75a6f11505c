//! What was published so far, so that a phone knows what it is owed. Written by the publisher, read by the driver threads.
//!
//! When several processes share a run, one of them publishes the broadcasts. The others learn of each when the first of their phones gets
//! it ([`Ledger::heard`]). They can't know of one that none of their phones got, nor when it was planned; whoever got ready before it finds
//! the gap with the next one.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::clock;
use crate::verify::Floor;

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
    /// Broadcasts came that another process published.
    foreign: AtomicBool,
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
///
/// A round is taken over by a later one while threads count in it, so nothing in it is ever set back: the times only grow, and the count
/// stands in one word with the sequence it is of.
#[derive(Debug, Default)]
pub struct Round {
    sequence_received: AtomicU64,
    planned: AtomicU64,
    last: AtomicU64,
}

impl Round {
    fn sequence(&self) -> u32 {
        (self.sequence_received.load(Acquire) >> 32) as u32
    }

    /// Makes this the round of a sequence, unless it is already, or that of a later one. False: a later one's.
    fn begin(&self, sequence: u32, planned: u64) -> bool {
        let mut present = self.sequence_received.load(Acquire);
        while (present >> 32) as u32 != sequence {
            if (present >> 32) as u32 > sequence {
                return false;
            }
            self.planned.fetch_max(planned, Relaxed);
            let begun = u64::from(sequence) << 32;
            match self
                .sequence_received
                .compare_exchange(present, begun, Release, Acquire)
            {
                Ok(_) => return true,
                Err(other) => present = other,
            }
        }
        true
    }

    /// A phone received it at that moment.
    pub fn arrived(&self, now: u64) {
        self.last.fetch_max(now, Relaxed);
        self.sequence_received.fetch_add(1, Relaxed);
    }

    /// How many phones have it.
    pub fn received(&self) -> u32 {
        self.sequence_received.load(Relaxed) as u32
    }

    /// Microseconds from its planned time to the last arrival so far.
    pub fn slowest_micros(&self) -> u64 {
        let planned = self.planned.load(Relaxed);
        self.last.load(Relaxed).saturating_sub(planned) / 1000
    }
}

/// Milliseconds, as the ledger keeps them: they wrap after 49 days.
fn millis(now: u64) -> u32 {
    (now / clock::MILLI) as u32
}

/// Milliseconds since a moment; 0 if it is yet to come, as the publisher's clock may be read a little later than the driver's.
fn age(now: u64, at: &AtomicU32) -> u32 {
    let age = millis(now).wrapping_sub(at.load(Relaxed));
    if age > u32::MAX / 2 { 0 } else { age }
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
            foreign: AtomicBool::new(false),
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

    /// The next sequence to all. One publisher alone may ask.
    pub fn next_broadcast(&self, planned: u64, now: u64) -> u32 {
        let sequence = self.broadcasts.load(Relaxed) + 1;
        self.round(sequence).begin(sequence, planned);
        self.broadcast_at.store(millis(now), Relaxed);
        self.broadcasts.store(sequence, Release);
        sequence
    }

    /// A broadcast came: learns of it, if another process published it. Returns its account, if that is still kept.
    pub fn heard(&self, sequence: u32, planned: u64) -> Option<&Round> {
        let round = self.round(sequence);
        if round.sequence() == sequence {
            return Some(round);
        }
        if !round.begin(sequence, planned) {
            return None;
        }
        self.foreign.store(true, Relaxed);
        if self.broadcasts.fetch_max(sequence, Release) < sequence {
            self.broadcast_at.store(millis(planned), Relaxed);
        }
        Some(round)
    }

    /// The last broadcast that a phone isn't owed, that is ready since that moment and expects all between `floor` and `next`. Of one's
    /// own it is the floor. Of another process's it is the last one that was planned before, or of which nobody knows.
    pub fn broadcast_floor(&self, floor: Floor, next: u32, since: u64) -> Floor {
        if !self.foreign.load(Relaxed) {
            return floor;
        }
        let owed = |sequence: u32| {
            let round = self.round(sequence);
            round.sequence() == sequence && round.planned.load(Relaxed) >= since
        };
        let last = (floor.0 + 1..next).rev().find(|&sequence| !owed(sequence));
        last.map_or(floor, Floor)
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
        self.broadcasts.load(Acquire)
    }

    /// Milliseconds since the last QoS 0 message to this phone was published.
    pub fn unicast0_age(&self, phone: u32, now: u64) -> u32 {
        age(now, &self.sent(phone).unicast0_at)
    }

    /// Milliseconds since the last QoS 1 message to this phone was published.
    pub fn unicast1_age(&self, phone: u32, now: u64) -> u32 {
        age(now, &self.sent(phone).unicast1_at)
    }

    /// Milliseconds since the last broadcast was sent, or since a phone last got it: to a million phones it is on its way for seconds.
    pub fn broadcast_age(&self, now: u64) -> u32 {
        let last = self.round(self.broadcasts()).last.load(Relaxed);
        let arrived = u32::try_from(now.saturating_sub(last) / clock::MILLI).unwrap_or(u32::MAX);
        age(now, &self.broadcast_at).min(arrived)
    }

    /// The account of one broadcast.
    pub fn round(&self, sequence: u32) -> &Round {
        &self.rounds[sequence as usize % ROUNDS]
    }

    /// The accounts of the broadcasts so far that are still followed.
    pub fn rounds(&self) -> impl Iterator<Item = (u32, &Round)> {
        let last = self.broadcasts();
        let first = last.saturating_sub(ROUNDS as u32 - 1).max(1);
        (first..=last)
            .map(|sequence| (sequence, self.round(sequence)))
            .filter(|(sequence, round)| round.sequence() == *sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_published_is_learnt_from_what_comes() {
        let ledger = Ledger::new(1, 0, 1);
        for sequence in [5, 8, 7] {
            ledger.heard(sequence, u64::from(sequence) * 10).unwrap();
        }
        assert_eq!(ledger.broadcasts(), 8);
        let heard: Vec<u32> = ledger.rounds().map(|(sequence, _)| sequence).collect();
        assert_eq!(heard, [5, 7, 8]);
        // Ready since 75: only 8 was planned later; nobody knows of 6, so what is before it isn't owed either.
        assert_eq!(ledger.broadcast_floor(Floor(0), 9, 75), Floor(7));
        assert_eq!(ledger.broadcast_floor(Floor(0), 9, 20), Floor(6));
        assert_eq!(ledger.broadcast_floor(Floor(6), 9, 20), Floor(6));
        assert_eq!(ledger.broadcast_floor(Floor(8), 9, 20), Floor(8));
    }

    #[test]
    fn of_its_own_a_process_knows_all() {
        let ledger = Ledger::new(1, 0, 1);
        assert_eq!(ledger.next_broadcast(10, 11), 1);
        assert_eq!(ledger.next_broadcast(20, 21), 2);
        assert!(ledger.heard(2, 20).is_some());
        assert_eq!(ledger.broadcast_floor(Floor(0), 3, 15), Floor(0));
    }

    #[test]
    fn a_round_that_a_later_one_took_is_not_counted_in() {
        let ledger = Ledger::new(1, 0, 1);
        let round = ledger.heard(1, 1_000_000).unwrap();
        round.arrived(3_000_000);
        assert_eq!((round.received(), round.slowest_micros()), (1, 2000));
        let later = 1 + ROUNDS as u32;
        let round = ledger.heard(later, 9_000_000).unwrap();
        assert_eq!((round.received(), round.slowest_micros()), (0, 0));
        assert!(ledger.heard(1, 1_000_000).is_none());
    }

    #[test]
    fn ages_outlive_the_wrap() {
        let at = AtomicU32::new(u32::MAX - 1);
        let wrapped = (u64::from(u32::MAX) + 10) * clock::MILLI;
        assert_eq!(age(wrapped, &at), 11);
        assert_eq!(age(u64::from(u32::MAX - 5) * clock::MILLI, &at), 0);
    }
}
