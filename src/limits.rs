//! Every bound of the server, each with its reason. What a file needs of them it takes from here.

/// Reactors in one process. Masks are `MAX_REACTORS / 64` words; an operator passes a per-table fd limit of 20,000 with 1,024 of them.
pub const MAX_REACTORS: usize = 1024;

/// Length of a tick of the timing wheels. Keep alive is in seconds, so a quarter of one is exact enough and keeps the wheel small.
pub const TICK_MILLIS: u64 = 256;
