//! Whether a phone got every message once and in order.
//!
//! A [`Track`] follows one sequence at one phone in eight bytes. What is expected depends on the promise of the push:
//!
//! - QoS 1 to a session that is kept: every message since the session was made, whether the phone was there or not. A repetition with the
//!   DUP flag after a reconnect is the protocol's own ("redelivered"); any other is a duplicate.
//! - QoS 0, and QoS 1 to a session that ends with its connection: every message that was published while the phone was ready, from its SUBACK on. The [`Floor`] is the last sequence
//!   published before that: up to it nothing is owed, though it may come. What was published in the last moments before the phone
//!   left, and hadn't arrived, was in flight: it is counted as excused, not as missing.

/// Where a message stands in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The next one or a later one. `gap` messages before it, that are owed, haven't been seen yet.
    New {
        /// Messages that were skipped.
        gap: u32,
    },
    /// Seen for the first time, but after one that should have come later.
    Reordered {
        /// It was owed, so the gap it left was counted and is now filled.
        owed: bool,
    },
    /// Seen before, or so old that nobody can tell.
    Repeated,
}

/// One sequence as a phone sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// The highest sequence seen; they count from 1.
    highest: u32,
    /// Bit `i`: `highest - i` was seen.
    seen: u32,
}

/// The last sequence that isn't owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor(pub u32);

impl Track {
    /// Takes note of a message and says where it stands.
    pub fn take(&mut self, sequence: u32, floor: Floor) -> Place {
        if sequence > self.highest {
            let step = sequence - self.highest;
            let gap = sequence - 1 - self.highest.max(floor.0).min(sequence - 1);
            self.seen = self.seen.checked_shl(step).unwrap_or(0) | 1;
            self.highest = sequence;
            return Place::New { gap };
        }
        let bit = 1u32.checked_shl(self.highest - sequence).unwrap_or(0);
        if bit == 0 || self.seen & bit != 0 {
            return Place::Repeated;
        }
        self.seen |= bit;
        Place::Reordered {
            owed: sequence > floor.0,
        }
    }

    /// The highest sequence seen, or 0.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// How many owed messages at the end of the sequence haven't come, `sent` being the last one published.
    pub fn owed(&self, sent: u32, floor: Floor) -> u32 {
        sent.saturating_sub(self.highest.max(floor.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Floor = Floor(0);

    #[test]
    fn in_order_is_new_without_gap() {
        let mut track = Track::default();
        for sequence in 1..100 {
            assert_eq!(track.take(sequence, ALL), Place::New { gap: 0 });
        }
        assert_eq!(track.owed(99, ALL), 0);
        assert_eq!(track.owed(102, ALL), 3);
    }

    #[test]
    fn a_gap_is_missing_until_it_is_filled() {
        let mut track = Track::default();
        assert_eq!(track.take(1, ALL), Place::New { gap: 0 });
        assert_eq!(track.take(4, ALL), Place::New { gap: 2 });
        assert_eq!(track.take(3, ALL), Place::Reordered { owed: true });
        assert_eq!(track.take(3, ALL), Place::Repeated);
        assert_eq!(track.take(4, ALL), Place::Repeated);
        assert_eq!(track.take(1, ALL), Place::Repeated);
        assert_eq!(track.take(2, ALL), Place::Reordered { owed: true });
    }

    #[test]
    fn below_the_floor_nothing_is_owed() {
        let mut track = Track::default();
        assert_eq!(track.take(10, Floor(7)), Place::New { gap: 2 });
        assert_eq!(track.take(6, Floor(7)), Place::Reordered { owed: false });
        assert_eq!(track.owed(12, Floor(12)), 0);
        let mut early = Track::default();
        assert_eq!(early.take(5, Floor(9)), Place::New { gap: 0 });
        assert_eq!(early.take(10, Floor(9)), Place::New { gap: 0 });
    }

    #[test]
    fn the_window_slides_over_large_steps() {
        let mut track = Track::default();
        assert_eq!(track.take(1, ALL), Place::New { gap: 0 });
        assert_eq!(track.take(1000, ALL), Place::New { gap: 998 });
        assert_eq!(track.take(1, ALL), Place::Repeated);
        assert_eq!(track.take(969, ALL), Place::Reordered { owed: true });
        assert_eq!(track.take(968, ALL), Place::Repeated, "too old to tell");
    }

    #[test]
    fn against_a_set() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let (mut track, mut model) = (Track::default(), std::collections::HashSet::new());
            let (mut gaps, mut filled, mut highest) = (0, 0, 0);
            for _ in 0..200 {
                let sequence = (highest + 3u32).saturating_sub(rng.u32(0..20)).max(1);
                highest = highest.max(sequence);
                match track.take(sequence, ALL) {
                    Place::New { gap } => {
                        assert!(model.insert(sequence));
                        gaps += gap;
                    }
                    Place::Reordered { .. } => {
                        assert!(model.insert(sequence));
                        filled += 1;
                    }
                    Place::Repeated => assert!(model.contains(&sequence)),
                }
            }
            assert_eq!(gaps - filled, highest - model.len() as u32);
        }
    }
}
