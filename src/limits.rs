//! Every bound of the server, each with its reason. What a file needs of them it takes from here.

/// Reactors in one process. Masks are `MAX_REACTORS / 64` words; an operator passes a per-table fd limit of 20,000 with 1,024 of them.
pub const MAX_REACTORS: usize = 1024;

/// Length of a tick of the timing wheels. Keep alive is in seconds, so a quarter of one is exact enough and keeps the wheel small.
pub const TICK_MILLIS: u64 = 256;

// Configuration and capacity.

/// Connections of one process that the configuration accepts: 16 Mi. Slots are reserved as virtual memory at start, 1 GiB for these; no
/// machine's kernel holds more (3.9 KB each are 65 GB).
pub const MAX_CONNECTIONS: u64 = 1 << 24;

/// Addresses one server listens on. Every reactor opens each of them.
pub const MAX_LISTENERS: usize = 16;

/// Largest MQTT packet there is: 268,435,455 bytes after a fixed header of 5 (MQTT 5 section 2.1.4).
pub const LARGEST_PACKET: u64 = 268_435_455 + 5;

/// Largest configuration file that is read; what is larger isn't one.
pub const CONFIG_FILE_BYTES: u64 = 1 << 20;

/// Kernel memory of an idle TCP connection with its file: measured, and the same for every server.
pub const KERNEL_BYTES_PER_CONNECTION: u64 = 3_900;

/// User-space memory of an idle connection with its session and two subscriptions, as the capacity report counts it.
pub const USER_BYTES_PER_CONNECTION: u64 = 256;

/// File descriptors of each reactor's table that are not for connections: files that were open when the table was split off, and
/// for every reactor its poller, waker and hand-over sockets, of which each table has a copy.
pub const fn reserved_files(reactors: usize) -> u64 {
    64 + 4 * reactors as u64
}

/// Homes are chosen by a hash, so reactors don't fill evenly: a table keeps this many standard deviations free. With 1,024 reactors
/// the fullest one exceeds five about once in 3,000 fillings.
pub const UNEVEN_HOMES_SIGMA: f64 = 5.0;
