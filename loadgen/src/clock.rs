//! Time as the generator sees it: nanoseconds by the clock that nobody sets, the same in every process of a machine, so that one process
//! can tell how long ago another one planned what it receives.

use std::time::Duration;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub const MILLI: u64 = 1_000_000;

/// Now, in nanoseconds.
pub fn now() -> u64 {
    stillwire::sys::clock::nanos()
}

/// A duration in nanoseconds.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
