//! Who comes too often: connects and failed connects, by address and by client id, in a fixed amount of memory.
//!
//! A meter is the generic cell rate algorithm: a cell holds the time at which all that came before is paid for, each one costs an interval, and what
//! would have to be paid more than one period ahead has to wait. Each key has a cell in two rows, and the lesser of both counts (a count-min
//! sketch): strangers that share one cell with a key don't hurt it, those that share both do. The hash is seeded, so that nobody can choose them.
//!
//! All reactors share it without a lock. Two that take from one key in the same nanoseconds may be counted as one; nothing else is lost.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Millis;
use crate::config::resolved;
use crate::limits;

const SECOND: u64 = 1_000_000;

/// All meters. Those that are off cost nothing.
#[derive(Debug)]
pub struct Throttle {
    hasher: RandomState,
    address_connects: Option<Meter>,
    address_failures: Option<Meter>,
    client_connects: Option<Meter>,
    client_failures: Option<Meter>,
}

/// Too many: how long to wait, in whole seconds, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub u32);

impl Throttle {
    /// With the limits of a configuration.
    pub fn new(config: &resolved::Access) -> Self {
        Self {
            hasher: RandomState::new(),
            address_connects: Meter::new(config.address_connects, SECOND),
            address_failures: Meter::new(config.address_failures, 60 * SECOND),
            client_connects: Meter::new(config.client_connects, SECOND),
            client_failures: Meter::new(config.client_failures, 60 * SECOND),
        }
    }

    /// Whether it ever says no. False: nobody needs to ask.
    pub fn is_on(&self) -> bool {
        [
            &self.address_connects,
            &self.address_failures,
            &self.client_connects,
            &self.client_failures,
        ]
        .into_iter()
        .any(Option::is_some)
    }

    /// Whether connects count by themselves, and not only those that fail.
    pub fn counts_connects(&self) -> bool {
        self.address_connects.is_some() || self.client_connects.is_some()
    }

    /// An address connects. An IPv6 address stands for its /64, which is what one customer has.
    pub fn admit(&self, address: IpAddr, now: Millis) -> Result<(), RetryAfter> {
        self.enter(
            self.address_failures.as_ref(),
            self.address_connects.as_ref(),
            network(address),
            now,
        )
    }

    /// A client id connects: whatever stands for it together with its tenant.
    pub fn admit_client(&self, client: impl Hash, now: Millis) -> Result<(), RetryAfter> {
        self.enter(
            self.client_failures.as_ref(),
            self.client_connects.as_ref(),
            client,
            now,
        )
    }

    /// A connect that was admitted here was refused for its credentials. That is for wrong ones: a token that has ended, or a gate that can't
    /// say, is what honest phones meet too, many of them behind one address.
    pub fn failed(&self, address: IpAddr, client: impl Hash, now: Millis) {
        let now = micros(now);
        if let Some(meter) = &self.address_failures {
            // At the limit already: then the next one is not admitted.
            _ = meter.take(self.hasher.hash_one(network(address)), now);
        }
        if let Some(meter) = &self.client_failures {
            _ = meter.take(self.hasher.hash_one(client), now);
        }
    }

    fn enter(
        &self,
        failures: Option<&Meter>,
        connects: Option<&Meter>,
        key: impl Hash,
        now: Millis,
    ) -> Result<(), RetryAfter> {
        // As long as nobody has failed, there is nothing to look for.
        let failures = failures.filter(|meter| meter.cells.get().is_some());
        if failures.is_none() && connects.is_none() {
            return Ok(());
        }
        let (hash, now) = (self.hasher.hash_one(key), micros(now));
        failures.map_or(Ok(()), |meter| meter.look(hash, now))?;
        connects.map_or(Ok(()), |meter| meter.take(hash, now))
    }
}

/// What an address is counted as.
fn network(address: IpAddr) -> (bool, u64) {
    match address.to_canonical() {
        IpAddr::V4(address) => (false, u64::from(address.to_bits())),
        IpAddr::V6(address) => (true, (address.to_bits() >> 64) as u64),
    }
}

fn micros(now: Millis) -> u64 {
    now.0.saturating_mul(1000)
}

/// So many in a period.
#[derive(Debug)]
struct Meter {
    period: u64,
    /// What one costs.
    interval: u64,
    /// Both rows, one after the other; not there until the first one is counted.
    cells: OnceLock<Box<[AtomicU64]>>,
}

impl Meter {
    /// None where any number will do.
    fn new(count: u32, period: u64) -> Option<Self> {
        (count > 0).then(|| Self {
            period,
            interval: (period / u64::from(count)).max(1),
            cells: OnceLock::new(),
        })
    }

    /// The two cells of a key.
    fn of(cells: &[AtomicU64], hash: u64) -> (&AtomicU64, &AtomicU64) {
        let (one, two) = cells.split_at(limits::THROTTLE_CELLS);
        let at = |bits: u64, row: &[AtomicU64]| bits as usize % row.len();
        (&one[at(hash, one)], &two[at(hash >> 32, two)])
    }

    /// Counts one, if it may come.
    fn take(&self, hash: u64, now: u64) -> Result<(), RetryAfter> {
        let cells = self.cells.get_or_init(|| {
            (0..2 * limits::THROTTLE_CELLS)
                .map(|_| AtomicU64::new(0))
                .collect()
        });
        let (one, two) = Self::of(cells, hash);
        loop {
            let (first, second) = (one.load(Relaxed), two.load(Relaxed));
            let (paid, cell, other) = if first <= second {
                (first, one, two)
            } else {
                (second, two, one)
            };
            let next = self.next(paid, now)?;
            if cell.compare_exchange(paid, next, Relaxed, Relaxed).is_ok() {
                other.fetch_max(next, Relaxed);
                return Ok(());
            }
        }
    }

    /// Whether one could be counted.
    fn look(&self, hash: u64, now: u64) -> Result<(), RetryAfter> {
        let Some(cells) = self.cells.get() else {
            return Ok(());
        };
        let (one, two) = Self::of(cells, hash);
        let paid = one.load(Relaxed).min(two.load(Relaxed));
        self.next(paid, now).map(drop)
    }

    /// Until when all is paid for after one more, or how long that one has to wait.
    fn next(&self, paid: u64, now: u64) -> Result<u64, RetryAfter> {
        let next = paid.max(now).saturating_add(self.interval);
        let latest = now.saturating_add(self.period);
        match next.checked_sub(latest) {
            None | Some(0) => Ok(next),
            Some(wait) => Err(RetryAfter(
                u32::try_from(wait.div_ceil(SECOND)).unwrap_or(u32::MAX),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const START: Millis = Millis(1000);

    fn throttle(change: impl FnOnce(&mut resolved::Access)) -> Throttle {
        let mut config = resolved::Access {
            address_failures: 0,
            ..resolved::Access::default()
        };
        change(&mut config);
        Throttle::new(&config)
    }

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    fn v6(high: u64, low: u64) -> IpAddr {
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
    }

    #[test]
    fn so_many_a_second_and_then_one_at_a_time() {
        let throttle = throttle(|config| config.address_connects = 4);
        for _ in 0..4 {
            throttle.admit(v4(1), START).unwrap();
        }
        assert_eq!(throttle.admit(v4(1), START), Err(RetryAfter(1)));
        // A quarter of a second pays for one.
        let later = Millis(START.0 + 250);
        throttle.admit(v4(1), later).unwrap();
        assert_eq!(throttle.admit(v4(1), later), Err(RetryAfter(1)));
        // Others don't notice, and after a whole second all is as at first.
        throttle.admit(v4(2), later).unwrap();
        for _ in 0..4 {
            throttle.admit(v4(1), later.plus_secs(1)).unwrap();
        }
        assert!(throttle.admit(v4(1), later.plus_secs(1)).is_err());
        // A clock that stands before does no harm.
        assert!(throttle.admit(v4(1), Millis(0)).is_err());
        assert!(throttle.admit(v4(1), Millis(u64::MAX)).is_ok());
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused() {
        let throttle = throttle(|config| config.client_connects = 10);
        for turn in 0..1000 {
            throttle.admit_client("phone", Millis(turn * 100)).unwrap();
        }
    }

    #[test]
    fn failures_close_the_door_and_time_opens_it() {
        let throttle = throttle(|config| {
            config.address_failures = 3;
            config.client_failures = 2;
        });
        // Coming is free.
        for _ in 0..100 {
            throttle.admit(v4(1), START).unwrap();
            throttle.admit_client("a", START).unwrap();
        }
        throttle.failed(v4(1), "a", START);
        throttle.failed(v4(1), "a", START);
        throttle.admit(v4(1), START).unwrap();
        assert_eq!(throttle.admit_client("a", START), Err(RetryAfter(30)));
        throttle.admit_client("b", START).unwrap();
        throttle.failed(v4(1), "b", START);
        assert_eq!(throttle.admit(v4(1), START), Err(RetryAfter(20)));
        // More of them make it no longer.
        for _ in 0..1000 {
            throttle.failed(v4(1), "b", START);
        }
        assert_eq!(throttle.admit(v4(1), START), Err(RetryAfter(20)));
        assert!(throttle.admit(v4(1), START.plus_secs(19)).is_err());
        throttle.admit(v4(1), START.plus_secs(20)).unwrap();
        throttle.admit_client("a", START.plus_secs(30)).unwrap();
    }

    #[test]
    fn an_ipv6_network_is_one_and_a_mapped_address_is_its_ipv4() {
        let throttle = throttle(|config| config.address_connects = 1);
        throttle.admit(v6(7, 1), START).unwrap();
        assert!(throttle.admit(v6(7, u64::MAX), START).is_err());
        throttle.admit(v6(8, 1), START).unwrap();
        throttle.admit(v4(0x0102_0304), START).unwrap();
        let mapped = Ipv4Addr::from_bits(0x0102_0304).to_ipv6_mapped();
        assert!(throttle.admit(mapped.into(), START).is_err());
        // A /64 of the same number is somebody else.
        throttle.admit(v6(0x0102_0304, 0), START).unwrap();
    }

    #[test]
    fn off_is_off() {
        let throttle = throttle(|_| ());
        assert!(!throttle.is_on());
        for _ in 0..1000 {
            throttle.failed(v4(1), "a", START);
            throttle.admit(v4(1), START).unwrap();
            throttle.admit_client("a", START).unwrap();
        }
        assert!(Throttle::new(&resolved::Access::default()).is_on());
    }

    #[test]
    fn memory_is_bounded_and_strangers_are_rarely_taken_for_each_other() {
        let throttle = throttle(|config| config.address_connects = 1);
        // As many as a tenth of a row: both cells are shared by chance once in a hundred at the most.
        let refused = (0..limits::THROTTLE_CELLS as u32 / 10)
            .filter(|&n| throttle.admit(v4(n), START).is_err())
            .count();
        assert!(refused < limits::THROTTLE_CELLS / 10 / 50, "{refused}");
        // A flood of addresses takes no more than there is.
        for n in 0..10 * limits::THROTTLE_CELLS as u64 {
            _ = throttle.admit(v6(n, 0), START);
        }
        let cells = throttle.address_connects.unwrap().cells.into_inner();
        assert_eq!(cells.unwrap().len(), 2 * limits::THROTTLE_CELLS);
    }

    #[test]
    fn reactors_count_together() {
        let throttle = throttle(|config| config.address_connects = 1000);
        let admitted: usize = std::thread::scope(|scope| {
            let reactor = || {
                (0..2000)
                    .filter(|_| throttle.admit(v4(1), START).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(reactor)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        // 8,000 have tried. Where two came at once they may be one, and that is all.
        assert!((1000..4000).contains(&admitted), "{admitted}");
    }
}
