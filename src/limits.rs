//! Every bound of the server, each with its reason. What a file needs of them it takes from here.

/// Reactors in one process. Masks are `MAX_REACTORS / 64` words; an operator passes a per-table fd limit of 20,000 with 1,024 of them.
pub const MAX_REACTORS: usize = 1024;

/// Length of a tick of the timing wheels. Keep alive is in seconds, so a quarter of one is exact enough and keeps the wheel small.
pub const TICK_MILLIS: u64 = 256;

// wire

/// Topic filters in one SUBSCRIBE or UNSUBSCRIBE. Each costs an index operation and a byte of the answer within one turn; a megabyte of them
/// would be 262,144. Clients that subscribe to more than a few thousand topics send several packets.
pub const MAX_FILTERS_PER_PACKET: usize = 8192;
