//! A coarse timing wheel, threaded through records that others own.
//!
//! Owns one list head a bucket and nothing else: the links stand in the records (12 bytes each), so a timer costs no allocation and
//! setting, moving and cancelling one is a handful of stores. One level: a deadline beyond the wheel's span stays in its bucket and is
//! looked at once a round. Never reads a clock, never calls back.

use crate::clock::Tick;

/// No record: the end of nothing, as the lists are rings.
const NIL: u32 = u32::MAX;

/// The place of a record in a wheel. `Default` is "not in it".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The next record of the ring; the record itself when it is alone; [`NIL`] when it is in no wheel.
    next: u32,
    /// The record before.
    prev: u32,
    /// When it is due; also tells the bucket.
    due: Tick,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            next: NIL,
            prev: NIL,
            due: Tick(0),
        }
    }
}

impl Link {
    /// Whether the record is in a wheel.
    pub fn is_linked(&self) -> bool {
        self.next != NIL
    }

    /// When it is due, if it is in a wheel.
    pub fn due(&self) -> Option<Tick> {
        self.is_linked().then_some(self.due)
    }
}

/// Where the links are: a slab of slots, a slab of sessions.
pub trait Links {
    /// The link of a record that exists. The wheel asks only for indices that it was given and that were not cancelled since.
    fn link(&mut self, index: u32) -> &mut Link;
}

/// The wheel: rings of records by the low bits of the tick at which they are due.
#[derive(Debug)]
pub struct Wheel {
    /// First record of each bucket's ring, or [`NIL`].
    heads: Box<[u32]>,
    /// What is left of the bucket that [`Wheel::expire`] was in when its budget ended.
    expiring: u32,
    /// The first tick whose bucket was not opened yet.
    next: Tick,
    /// Records in the wheel.
    len: usize,
}

impl Wheel {
    /// A wheel of `buckets` (a power of two) ticks' span that starts at `now`.
    ///
    /// # Panics
    /// If `buckets` is not a power of two: a constant of ours is wrong.
    pub fn new(buckets: usize, now: Tick) -> Self {
        assert!(buckets.is_power_of_two(), "the bucket is picked by a mask");
        Self {
            heads: vec![NIL; buckets].into_boxed_slice(),
            expiring: NIL,
            next: now,
            len: 0,
        }
    }

    /// How many records are in the wheel.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no record is in the wheel.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Put a record in, or move it, so that it comes out of [`Wheel::expire`] at `due`; a `due` that is over means the next tick.
    pub fn schedule(&mut self, links: &mut impl Links, index: u32, due: Tick) {
        debug_assert_ne!(index, NIL, "the highest index is the list's end");
        self.cancel(links, index);
        let due = due.max(self.next);
        links.link(index).due = due;
        self.push(links, index);
        self.len += 1;
    }

    /// Take a record out, if it is in.
    pub fn cancel(&mut self, links: &mut impl Links, index: u32) {
        let link = *links.link(index);
        if link.is_linked() {
            self.unlink(links, index, link);
            self.len -= 1;
        }
    }

    /// Take out what is due at `now` and append it to `due`, looking at no more than `budget` records. True: the budget ended first,
    /// there may be more. Of one tick, those that were scheduled first come first.
    pub fn expire(
        &mut self,
        links: &mut impl Links,
        now: Tick,
        budget: usize,
        due: &mut Vec<u32>,
    ) -> bool {
        // After a long stop one round finds everything: every bucket is opened once, and what it holds is measured against `now`.
        let span = self.heads.len() as u32;
        if self.next.0.saturating_add(span) <= now.0 {
            self.next = Tick(now.0 - span + 1);
        }
        let mut left = budget;
        loop {
            while self.expiring != NIL {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let index = self.expiring;
                let link = *links.link(index);
                self.unlink(links, index, link);
                if link.due <= now {
                    self.len -= 1;
                    due.push(index);
                } else {
                    self.push(links, index);
                }
            }
            if self.next > now {
                return false;
            }
            let bucket = self.bucket(self.next);
            self.expiring = std::mem::replace(&mut self.heads[bucket], NIL);
            self.next.0 += 1;
        }
    }

    /// Check every ring against the links: both ways round, in the right bucket, and as many as were counted.
    ///
    /// # Panics
    /// If the wheel is broken.
    pub fn check_invariants(&self, links: &mut impl Links) {
        let mut seen = 0;
        for (bucket, &head) in self.heads.iter().chain([&self.expiring]).enumerate() {
            if head == NIL {
                continue;
            }
            let mut at = head;
            loop {
                let link = *links.link(at);
                assert!(
                    link.is_linked(),
                    "record {at} is in a ring and says it is not"
                );
                assert_eq!(
                    links.link(link.next).prev,
                    at,
                    "the ring is torn behind {at}"
                );
                if bucket < self.heads.len() {
                    assert_eq!(
                        self.bucket(link.due),
                        bucket,
                        "record {at} is in a wrong bucket"
                    );
                }
                seen += 1;
                assert!(
                    seen <= self.len,
                    "a ring has more records than were counted"
                );
                at = link.next;
                if at == head {
                    break;
                }
            }
        }
        assert_eq!(
            seen, self.len,
            "records in the rings, against those counted"
        );
    }

    fn bucket(&self, tick: Tick) -> usize {
        tick.0 as usize & (self.heads.len() - 1)
    }

    /// Append a record, whose `due` is set, to its bucket's ring.
    fn push(&mut self, links: &mut impl Links, index: u32) {
        let bucket = self.bucket(links.link(index).due);
        let head = self.heads[bucket];
        let (prev, next) = if head == NIL {
            self.heads[bucket] = index;
            (index, index)
        } else {
            let last = std::mem::replace(&mut links.link(head).prev, index);
            links.link(last).next = index;
            (last, head)
        };
        let link = links.link(index);
        link.prev = prev;
        link.next = next;
    }

    /// Take a record, whose link is `link`, out of its ring. The ring is its bucket's or the one that expires; whose head it is tells.
    fn unlink(&mut self, links: &mut impl Links, index: u32, link: Link) {
        let rest = if link.next == index { NIL } else { link.next };
        let bucket = self.bucket(link.due);
        if self.heads[bucket] == index {
            self.heads[bucket] = rest;
        } else if self.expiring == index {
            self.expiring = rest;
        }
        if rest != NIL {
            links.link(link.prev).next = link.next;
            links.link(link.next).prev = link.prev;
        }
        let own = links.link(index);
        own.next = NIL;
        own.prev = NIL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Records(Vec<Link>);

    impl Links for Records {
        fn link(&mut self, index: u32) -> &mut Link {
            &mut self.0[index as usize]
        }
    }

    fn records(n: usize) -> Records {
        Records(vec![Link::default(); n])
    }

    #[test]
    fn a_deadline_beyond_the_span_waits_for_its_round() {
        let mut links = records(2);
        let mut wheel = Wheel::new(8, Tick(100));
        wheel.schedule(&mut links, 0, Tick(100 + 8 * 5 + 3));
        wheel.schedule(&mut links, 1, Tick(103));
        let mut due = Vec::new();
        for now in 100..143 {
            assert!(!wheel.expire(&mut links, Tick(now), 100, &mut due));
            assert_eq!(due, if now < 103 { vec![] } else { vec![1] }, "at {now}");
        }
        wheel.expire(&mut links, Tick(143), 100, &mut due);
        assert_eq!(due, [1, 0]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn what_is_over_comes_at_the_next_tick() {
        let mut links = records(1);
        let mut wheel = Wheel::new(8, Tick(50));
        let mut due = Vec::new();
        wheel.expire(&mut links, Tick(60), 10, &mut due);
        wheel.schedule(&mut links, 0, Tick(1));
        assert!(!wheel.expire(&mut links, Tick(60), 10, &mut due));
        assert!(due.is_empty());
        wheel.expire(&mut links, Tick(61), 10, &mut due);
        assert_eq!(due, [0]);
    }

    #[test]
    fn a_record_may_leave_while_its_bucket_expires() {
        let mut links = records(3);
        let mut wheel = Wheel::new(4, Tick(0));
        for index in 0..3 {
            wheel.schedule(&mut links, index, Tick(2));
        }
        let mut due = Vec::new();
        assert!(wheel.expire(&mut links, Tick(2), 1, &mut due));
        wheel.cancel(&mut links, 1);
        wheel.check_invariants(&mut links);
        wheel.schedule(&mut links, 0, Tick(2));
        assert!(!wheel.expire(&mut links, Tick(2), 10, &mut due));
        assert_eq!(due, [0, 2]);
        wheel.expire(&mut links, Tick(3), 10, &mut due);
        assert_eq!(due, [0, 2, 0]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u32, u32),
        Cancel(u32),
        Pass(u32, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..24_u32, 0..90_u32).prop_map(|(index, after)| Step::Schedule(index, after)),
            1 => (0..24_u32).prop_map(Step::Cancel),
            2 => (0..40_u32, 0..9_usize).prop_map(|(ticks, budget)| Step::Pass(ticks, budget)),
        ]
    }

    proptest! {
        /// Against a map from record to tick. With a budget the wheel may be late, never early, and never forgets.
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec(step(), 0..120)) {
            let mut links = records(24);
            let mut wheel = Wheel::new(16, Tick(7));
            let mut model = BTreeMap::new();
            let mut now = Tick(7);
            let mut due = Vec::new();
            for step in steps {
                match step {
                    Step::Schedule(index, after) => {
                        wheel.schedule(&mut links, index, Tick(now.0 + after));
                        model.insert(index, Tick(now.0 + after));
                    }
                    Step::Cancel(index) => {
                        wheel.cancel(&mut links, index);
                        model.remove(&index);
                    }
                    Step::Pass(ticks, budget) => {
                        now.0 += ticks;
                        due.clear();
                        let more = wheel.expire(&mut links, now, budget, &mut due);
                        prop_assert!(due.len() <= budget);
                        for index in &due {
                            let at = model.remove(index);
                            prop_assert!(at.is_some_and(|at| at <= now), "{index} came early or twice");
                        }
                        if !more {
                            prop_assert!(model.values().all(|at| *at >= now), "one was forgotten");
                        }
                    }
                }
                wheel.check_invariants(&mut links);
                prop_assert_eq!(wheel.len(), model.len());
            }
            due.clear();
            while wheel.expire(&mut links, Tick(now.0 + 200), 5, &mut due) {}
            due.sort_unstable();
            prop_assert_eq!(due, model.into_keys().collect::<Vec<_>>());
            prop_assert!(wheel.is_empty());
        }
    }
}
