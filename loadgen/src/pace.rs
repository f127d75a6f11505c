//! Planned moments at a rate, open-loop: they don't wait for anybody.
//!
//! Each interval has one, at a random place. Evenly spaced ones would keep step with the kernel's tick, by which it samples who uses the
//! CPU, and a broker's user-space share would come out as nothing or as all.

use crate::clock::SECOND;

/// A sequence of planned moments.
#[derive(Clone, Debug)]
pub struct Pace {
    from: u64,
    interval: f64,
    slot: u64,
    next: u64,
}

impl Pace {
    /// So many a second, beginning then. An infinite rate plans all for the beginning.
    pub fn new(per_second: f64, from: u64, rng: &mut fastrand::Rng) -> Self {
        let interval = if per_second > 0.0 {
            SECOND as f64 / per_second
        } else {
            f64::INFINITY
        };
        let mut pace = Self {
            from,
            interval,
            slot: 0,
            next: 0,
        };
        pace.plan(rng);
        pace
    }

    /// The next moment.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self, rng: &mut fastrand::Rng) {
        self.slot += 1;
        self.plan(rng);
    }

    fn plan(&mut self, rng: &mut fastrand::Rng) {
        // A float that is too large becomes the largest integer: never.
        self.next = self
            .from
            .saturating_add(((self.slot as f64 + rng.f64()) * self.interval) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_each_interval() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut pace = Pace::new(1000.0, 500, &mut rng);
        for slot in 0..10_000u64 {
            let low = 500 + slot * 1_000_000;
            assert!((low..=low + 1_000_000).contains(&pace.next()), "{slot}");
            pace.advance(&mut rng);
        }
    }

    #[test]
    fn the_extremes() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut all = Pace::new(f64::INFINITY, 7, &mut rng);
        all.advance(&mut rng);
        assert_eq!(all.next(), 7);
        assert_eq!(Pace::new(0.0, 7, &mut rng).next(), u64::MAX);
    }
}
