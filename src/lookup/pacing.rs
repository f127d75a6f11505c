//! When a client may come: slots, one behind the other, so that arrivals stay under what the reactors can take. Pure: `now` is handed in.
//!
//! While nobody presses, every slot is now. In a storm each ticket gets the next free one, and its distance is the ticket's `connect_after`.
//! Slots reach as far as the horizon; who would be behind it is told to ask again.
//!
//! What the reactors can take is learned from what they took. While they are at ease and take what is sent, the rate rises by an eighth a look;
//! when their loops are late, or never sleep and fall behind, it falls to what they took. Nothing is learned while nobody comes.

use crate::limits;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// What an operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connects a second that are given in any case.
    pub floor: u32,
    /// Connects a second that are never exceeded.
    pub ceiling: u32,
    /// Seconds that a client is asked to wait at most.
    pub horizon: u32,
}

/// What the reactors did between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Nanoseconds between them.
    pub nanos: u64,
    /// Connections taken.
    pub accepted: u64,
    /// How late the slowest loop is.
    pub lag_micros: u64,
    /// A loop found more to do at the end of nearly every turn.
    pub is_busy: bool,
}

/// The slots of one node.
#[derive(Clone, Debug)]
pub struct Pacer {
    bounds: Bounds,
    /// Connects a second.
    rate: u32,
    /// The next free slot, in the nanoseconds of whoever calls.
    next: u64,
    /// Connections taken a second, smoothed.
    taken: u64,
}

/// No slot within the horizon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Seconds until there may be one.
    pub retry_after: u32,
}

impl Pacer {
    /// Begins carefully: at the floor.
    pub fn new(bounds: Bounds) -> Self {
        let floor = bounds.floor.clamp(1, bounds.ceiling.max(1));
        let bounds = Bounds { floor, ..bounds };
        Self {
            bounds,
            rate: floor,
            next: 0,
            taken: 0,
        }
    }

    /// The same bounds, and nothing learned.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self::new(self.bounds)
    }

    /// Milliseconds until the slot of a client that asks at `now`.
    pub fn slot(&mut self, now: u64) -> Result<u64, Full> {
        let at = self.next.max(now);
        let wait = at - now;
        let horizon = u64::from(self.bounds.horizon) * SECOND;
        if wait > horizon {
            let over = (wait - horizon).div_ceil(SECOND);
            return Err(Full {
                retry_after: u32::try_from(over).unwrap_or(u32::MAX),
            });
        }
        // Rounded up, so that a second never has more slots than the rate allows.
        self.next = at + SECOND.div_ceil(u64::from(self.rate));
        Ok(wait.div_ceil(1_000_000))
    }

    /// Whether a client that asks now would have to wait.
    pub fn is_pressed(&self, now: u64) -> bool {
        self.next > now
    }

    /// Learns from what the reactors did.
    pub fn observe(&mut self, sample: Sample) {
        if sample.nanos == 0 {
            return;
        }
        let taken = u128::from(sample.accepted) * u128::from(SECOND) / u128::from(sample.nanos);
        let taken = u64::try_from(taken).unwrap_or(u64::MAX);
        self.taken = self.taken.midpoint(taken);
        let (rate, taken) = (u64::from(self.rate), self.taken);
        let is_late = sample.lag_micros >= limits::PACE_LAG_MICROS;
        let next = if is_late {
            // Less than they took, so that what waits is worked off.
            rate.min(taken - taken / 4)
        } else if sample.is_busy {
            // Nobody who doesn't come tells what they could take.
            if taken < rate / 4 {
                rate
            } else {
                rate.min(taken)
            }
        } else if taken >= rate - rate / 4 {
            let shown = rate.max(taken);
            shown + (shown / 8).max(1)
        } else {
            rate
        };
        self.rate = u32::try_from(next)
            .unwrap_or(u32::MAX)
            .clamp(self.bounds.floor, self.bounds.ceiling.max(1));
    }

    /// The rate of a node that tells nothing: this one's, in proportion.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate.max(1);
    }

    /// Connects a second that are given now.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Connects a second that came of late.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

/// A limit of requests a second, of one second's worth at once.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: u32,
    /// The moment up to which what was taken is paid for.
    paid: u64,
}

impl Bucket {
    /// 0: no limit.
    pub fn new(rate: u32) -> Self {
        Self { rate, paid: 0 }
    }

    /// Take one; false: there is none.
    pub fn take(&mut self, now: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let paid = self.paid.max(now.saturating_sub(SECOND)) + SECOND / u64::from(self.rate);
        let is_there = paid <= now;
        if is_there {
            self.paid = paid;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        floor: 1000,
        ceiling: 50_000,
        horizon: 60,
    };
    const LOOK: u64 = SECOND / 4;

    fn sample(accepted: u64, lag_micros: u64, is_busy: bool) -> Sample {
        Sample {
            nanos: LOOK,
            accepted,
            lag_micros,
            is_busy,
        }
    }

    /// No window of a second has more arrivals than the rate, and one for each window's own first.
    fn assert_paced(arrivals: &[u64], rate: u64) {
        let mut from = 0;
        for (at, arrival) in arrivals.iter().enumerate() {
            while arrivals[from] + 1000 < *arrival {
                from += 1;
            }
            // Slots are told in whole milliseconds: a window may take in what belongs to the one at its edge.
            let most = rate + rate.div_ceil(1000) + 1;
            assert!((at - from) as u64 <= most, "at {arrival} ms");
        }
    }

    #[test]
    fn a_storm_of_200_000_gets_slots_in_order_under_the_rate_and_within_the_horizon() {
        let mut pacer = Pacer::new(BOUNDS);
        let mut arrivals = Vec::new();
        let mut refused = 0;
        // They ask within 20 seconds, and come again when they are told to.
        let mut asks: std::collections::BinaryHeap<std::cmp::Reverse<u64>> = (0..200_000u64)
            .map(|n| std::cmp::Reverse(n * 100_000))
            .collect();
        while let Some(std::cmp::Reverse(now)) = asks.pop() {
            match pacer.slot(now) {
                Ok(wait) => {
                    assert!(wait <= 60_000, "{wait} ms");
                    arrivals.push(now.div_ceil(1_000_000) + wait);
                }
                Err(full) => {
                    refused += 1;
                    assert!(full.retry_after >= 1);
                    asks.push(std::cmp::Reverse(
                        now + u64::from(full.retry_after) * SECOND,
                    ));
                }
            }
        }
        assert_eq!(arrivals.len(), 200_000, "nobody is left out for good");
        assert!(refused > 0, "the horizon holds 60,000 of them");
        // Within the millisecond to which an answer is rounded, the order is that of the asking.
        assert!(arrivals.windows(2).all(|two| two[0] <= two[1] + 1));
        arrivals.sort_unstable();
        assert_paced(&arrivals, 1000);
    }

    #[test]
    fn who_comes_alone_need_not_wait() {
        let mut pacer = Pacer::new(BOUNDS);
        for second in 0..100 {
            let now = second * SECOND;
            assert!(!pacer.is_pressed(now));
            assert_eq!(pacer.slot(now), Ok(0));
        }
    }

    #[test]
    fn the_rate_rises_while_all_is_taken_with_ease_up_to_the_ceiling() {
        let mut pacer = Pacer::new(BOUNDS);
        let mut rates = Vec::new();
        for _ in 0..60 {
            pacer.observe(sample(u64::from(pacer.rate()) / 4, 3_000, false));
            rates.push(pacer.rate());
        }
        assert!(rates.is_sorted(), "{rates:?}");
        assert_eq!(rates.last(), Some(&50_000));
    }

    #[test]
    fn it_falls_to_what_was_taken_and_stays_above_the_floor() {
        let risen = || {
            let mut pacer = Pacer::new(BOUNDS);
            for _ in 0..60 {
                pacer.observe(sample(u64::from(pacer.rate()) / 4, 0, false));
            }
            pacer
        };
        let mut late = risen();
        for _ in 0..20 {
            late.observe(sample(5_000, limits::PACE_LAG_MICROS, false));
        }
        assert_eq!(late.rate(), 15_000, "three quarters of what they took");
        let mut busy = risen();
        for _ in 0..20 {
            busy.observe(sample(5_000, 3_000, true));
        }
        assert!((19_900..=20_100).contains(&busy.rate()), "{}", busy.rate());
        for _ in 0..20 {
            busy.observe(sample(0, 1_000_000, true));
        }
        assert_eq!(busy.rate(), 1000);
    }

    #[test]
    fn nothing_is_learned_while_nobody_comes() {
        let mut pacer = Pacer::new(BOUNDS);
        for _ in 0..20 {
            pacer.observe(sample(u64::from(pacer.rate()) / 4, 0, false));
        }
        let learned = pacer.rate();
        for is_busy in [false, true] {
            for _ in 0..100 {
                pacer.observe(sample(0, 0, is_busy));
            }
        }
        assert!(
            pacer.rate() >= learned / 2 && learned > 5_000,
            "{learned} {}",
            pacer.rate()
        );
    }

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::new(100);
        let mut given = 0;
        for n in 0..100_000u64 {
            given += u32::from(bucket.take(10 * SECOND + n * SECOND / 10_000));
        }
        // One second's worth at once, and ten seconds.
        assert!((1090..=1101).contains(&given), "{given}");
        assert!((0..1000).all(|_| Bucket::new(0).take(0)));
    }

    proptest! {
        #[test]
        fn whatever_happens_slots_are_ordered_paced_and_near(
            steps in proptest::collection::vec((0u64..20_000_000, 0u64..30_000, 0u64..100_000, any::<bool>()), 1..400),
            floor in 1u32..2000,
            ceiling in 1u32..5000,
            horizon in 0u32..20,
        ) {
            let bounds = Bounds { floor, ceiling, horizon };
            let mut pacer = Pacer::new(bounds);
            let mut now = 0;
            let mut last = 0;
            let mut arrivals = Vec::new();
            for (at, (pause, accepted, lag, is_busy)) in steps.into_iter().enumerate() {
                now += pause;
                for _ in 0..10 {
                    match pacer.slot(now) {
                        Ok(wait) => {
                            prop_assert!(wait <= u64::from(horizon) * 1000);
                            let arrival = now.div_ceil(1_000_000) + wait;
                            prop_assert!(last <= arrival + 1, "order");
                            last = arrival;
                            arrivals.push(arrival);
                        }
                        Err(full) => prop_assert!(full.retry_after >= 1),
                    }
                }
                if at % 7 == 0 {
                    pacer.observe(sample(accepted, lag, is_busy));
                }
                prop_assert!(pacer.rate() <= ceiling && pacer.rate() >= floor.min(ceiling));
            }
            arrivals.sort_unstable();
            assert_paced(&arrivals, u64::from(ceiling));
        }
    }
}
