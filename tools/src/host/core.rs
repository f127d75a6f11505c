//! What a core does: how far memory is away, and what the kernel takes for a call, a switch and a wake-up.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use stillwire::sys::affinity;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Core {
    /// A system call that does nothing (getppid).
    pub(crate) call_nanos: f64,
    /// From one thread to another on the same core and into its read: half a round trip over a socket pair.
    pub(crate) switch_micros: f64,
    /// The same to another core; none if there is one core.
    pub(crate) wake_micros: Option<f64>,
    /// Nanoseconds to a cache line somewhere in so much memory.
    pub(crate) chases: Vec<Chase>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chase {
    pub(crate) within: String,
    pub(crate) nanos: f64,
}

impl Core {
    /// Microseconds of one of the chases.
    pub(super) fn chase(&self, within: &str) -> Option<f64> {
        self.chases
            .iter()
            .find(|chase| chase.within == within)
            .map(|chase| chase.nanos / 1e3)
    }
}

/// The least of several tries: what is on top of it is somebody else's.
fn least(tries: usize, mut measure: impl FnMut() -> io::Result<f64>) -> io::Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..tries {
        least = least.min(measure()?);
    }
    Ok(least)
}

pub(super) fn measure() -> io::Result<Core> {
    let cores = affinity::cores()?;
    let last = cores[cores.len() - 1];
    let sizes = [
        ("32 KB", 32 << 10),
        ("1 MB", 1 << 20),
        ("16 MB", 16 << 20),
        ("256 MB", 256 << 20),
    ];
    let chase = |(within, bytes): (&str, usize)| Chase {
        within: within.to_owned(),
        nanos: chase(bytes),
    };
    Ok(Core {
        call_nanos: least(5, || Ok(call_nanos()))?,
        switch_micros: least(5, || {
            round_trip_micros(cores[0], cores[0]).map(|micros| micros / 2.0)
        })?,
        wake_micros: if last == cores[0] {
            None
        } else {
            Some(least(5, || {
                round_trip_micros(cores[0], last).map(|micros| micros / 2.0)
            })?)
        },
        chases: sizes.map(chase).into(),
    })
}

fn call_nanos() -> f64 {
    const CALLS: u32 = 500_000;
    let began = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
    began.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

/// Words of a cache line.
const LINE: usize = 16;

/// Follows a cycle through all cache lines of so much memory in random order: each step waits for the one before.
fn chase(bytes: usize) -> f64 {
    let lines = bytes / 64;
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut random = fastrand::Rng::with_seed(7);
    // Sattolo's shuffle: one cycle.
    for at in (1..lines).rev() {
        order.swap(at, random.usize(..at));
    }
    let mut memory = vec![0u32; lines * LINE];
    for (at, &next) in order.iter().enumerate() {
        memory[at * LINE] = next;
    }
    drop(order);
    let mut at = 0;
    let mut walk = |steps: usize| {
        for _ in 0..steps {
            at = memory[at as usize * LINE];
        }
        std::hint::black_box(at);
    };
    walk(lines.min(1 << 20));
    let steps = 2 << 20;
    let began = Instant::now();
    walk(steps);
    began.elapsed().as_nanos() as f64 / steps as f64
}

/// A byte to a thread on the other core and back.
fn round_trip_micros(here: usize, there: usize) -> io::Result<f64> {
    const TRIPS: u32 = 10_000;
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        affinity::pin(there)?;
        let mut byte = [0];
        while theirs.read(&mut byte)? == 1 {
            theirs.write_all(&byte)?;
        }
        Ok(())
    });
    let asker = std::thread::spawn(move || -> io::Result<f64> {
        affinity::pin(here)?;
        let mut byte = [0];
        let mut trip = || {
            ours.write_all(&[1])
                .and_then(|()| ours.read_exact(&mut byte))
        };
        trip()?;
        let began = Instant::now();
        for _ in 0..TRIPS {
            trip()?;
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(TRIPS))
    });
    let panicked = |_| io::Error::other("a thread panicked");
    let micros = asker.join().map_err(panicked)?;
    echo.join().map_err(panicked)??;
    micros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_time_takes_some() {
        assert!(call_nanos() > 1.0);
        assert!(chase(32 << 10) > 0.1);
        let core = affinity::cores().unwrap()[0];
        assert!(round_trip_micros(core, core).unwrap() > 0.1);
    }
}
