//! Every bound of the server, each with its reason. What a file needs of them it takes from here.

/// Reactors in one process. Masks are `MAX_REACTORS / 64` words; an operator passes a per-table fd limit of 20,000 with 1,024 of them.
pub const MAX_REACTORS: usize = 1024;

/// Length of a tick of the timing wheels. Keep alive is in seconds, so a quarter of one is exact enough and keeps the wheel small.
pub const TICK_MILLIS: u64 = 256;

// --- topic ---

/// Bits of a session's index in a subscriber entry; the other six are its options. 67 million sessions a shard, at 3.9 KB of kernel memory each,
/// are more than 256 GB.
pub const SESSION_BITS: u32 = 26;

/// Longest topic or filter in bytes: MQTT strings have a length of 16 bits (MQTT 5 section 1.5.4).
pub const MAX_TOPIC_BYTES: usize = u16::MAX as usize;

/// Bytes of a chunk of the topic arena. It holds the longest string, and is small enough for a reactor with a handful of topics.
pub const ARENA_CHUNK_BYTES: usize = 128 << 10;

/// Records of a page of the topic index: memory grows by pages, so that nothing is copied and at most one page is spare.
pub const POOL_PAGE_RECORDS: usize = 1024;

/// Parts of the table of filters. Each grows on its own, so that no rehash of a million filters stops a reactor: one of 16,000 takes under 1 ms.
pub const FILTER_TABLE_PARTS: usize = 64;

/// Subscriptions that a session keeps as a chain, which costs least; with more it gets a hash map of its own. Walking the chain is the price of
/// every subscribe and unsubscribe, so it has to stay short.
pub const CHAINED_SUBSCRIPTIONS: usize = 24;

const _: () = assert!(
    ARENA_CHUNK_BYTES >= MAX_TOPIC_BYTES + 2 + 8,
    "a chunk holds the longest string, its length, and rounding"
);
