//! How a process's CPU time splits into user space and kernel.
//!
//! The kernel's own split (utime and stime) comes from the timer tick: 250 samples a second here, so that a user-space part of 5 % of a second
//! is known to a quarter. This module takes 10,000 a second of the process's running time with the kernel's sampling clock
//! (`perf_event_open`, cpu-clock): the same figure to a twentieth. The few instructions around a system call that run with interrupts off
//! count where they end, as they do with the tick.
//!
//! In a virtual machine that many interrupts make the kernel's part larger by a quarter. So what is sampled is a run of its own, of which only
//! the time in user space is used.

use std::io;
use std::os::fd::OwnedFd;

use stillwire::sys::affinity;

use crate::sys::{self, Ring};

/// Nanoseconds of running time between two samples of a thread; no part of the tick, so that the two don't march in step.
const PERIOD: u64 = 99_991;

/// `PERF_RECORD_SAMPLE`.
const SAMPLE: u32 = 9;

/// Where a sample fell (`PERF_RECORD_MISC_CPUMODE_MASK` and two of its values).
const MODE: u16 = 7;
const KERNEL: u16 = 1;
const USER: u16 = 2;

/// The clocks on one process.
#[derive(Debug)]
pub(crate) struct Samples {
    /// One a core.
    rings: Vec<Ring>,
    _clocks: Vec<OwnedFd>,
    seen: Seen,
}

/// Samples so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    user: u64,
    kernel: u64,
}

impl Samples {
    /// Begins to sample all threads of a process. Fails where the kernel or its `perf_event_paranoid` doesn't let us.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let (mut rings, mut clocks) = (Vec::new(), Vec::<OwnedFd>::new());
        for core in affinity::cores()? {
            let first = clocks.len();
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let tid = task?.file_name().to_string_lossy().parse();
                let tid = tid.map_err(|_| io::ErrorKind::InvalidData)?;
                let clock = sys::sample_thread(tid, core, PERIOD)?;
                match clocks.get(first) {
                    Some(first) => sys::share_ring(&clock, first)?,
                    None => rings.push(Ring::of(&clock)?),
                }
                clocks.push(clock);
            }
        }
        Ok(Self {
            rings,
            _clocks: clocks,
            seen: Seen::default(),
        })
    }

    /// Counts what has come.
    pub(crate) fn read(&mut self) -> Seen {
        let Self { rings, seen, .. } = self;
        for ring in rings {
            ring.drain(|kind, misc| match (kind, misc & MODE) {
                (SAMPLE, USER) => seen.user += 1,
                (SAMPLE, KERNEL) => seen.kernel += 1,
                _ => {}
            });
        }
        *seen
    }
}

impl Seen {
    /// The part of the time since `earlier` that was spent in user space, if there was any time.
    pub(crate) fn user_share_since(&self, earlier: &Self) -> Option<f64> {
        let (user, kernel) = (self.user - earlier.user, self.kernel - earlier.kernel);
        (user + kernel > 0).then(|| user as f64 / (user + kernel) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_is_seen_in_user_space() {
        // Not everywhere may one sample.
        let Ok(mut samples) = Samples::of(std::process::id()) else {
            return;
        };
        let before = samples.read();
        let mut sum = 0u64;
        let seen = loop {
            (0..100_000).for_each(|n| sum = std::hint::black_box(sum.wrapping_mul(31) + n));
            let seen = samples.read();
            if seen.user > 100 {
                break seen;
            }
        };
        assert!(seen.user_share_since(&before).unwrap() > 0.5);
        assert_eq!(Seen::default().user_share_since(&Seen::default()), None);
    }
}
