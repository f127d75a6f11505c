//! Every bound of the server, each with its reason. What a file needs of them it takes from here.

use std::time::Duration;

/// Reactors in one process. Masks are `MAX_REACTORS / 64` words; an operator passes a per-table fd limit of 20,000 with 1,024 of them.
pub const MAX_REACTORS: usize = 1024;

/// Length of a tick of the timing wheels. Keep alive is in seconds, so a quarter of one is exact enough and keeps the wheel small.
pub const TICK_MILLIS: u64 = 256;

// ---- sessions ----

/// QoS 2 messages that a client may leave unreleased. MQTT 5 clients are bound by our Receive Maximum; an MQTT 3 client has no such
/// rule, and one that never sends PUBREL would grow the list (and its search) without end.
pub const MAX_UNRELEASED: usize = 1024;

// ---- routing ----

/// Deliveries of a fan-out between two turns of the loop: at some 10 us each, 512 hold the others up for 5 ms at most.
pub const FANOUT_SLICE: usize = 512;

/// Deliveries after which a reactor handles no more mail, or no more packets, in a turn. A message to a few hundred subscribers is a small packet:
/// a full read buffer of those would hold everybody up for seconds. 2,048 take some 2 ms, and 20 ms if each is a write of its own.
pub const DELIVERIES_PER_TURN: usize = 2048;

/// Subscribers in all the fan-outs that wait on one shard, 4 bytes each. Past it QoS 0 fan-outs are shed; QoS 1 and 2 are bounded by their
/// publishers' windows.
pub const FANOUT_BACKLOG: usize = 16 << 20;

/// Wildcard filters and filters of shared subscriptions over all shards. Every shard has a copy of each, some 300 bytes: they are for
/// back ends, not for a filter a phone.
pub const MAX_ROUTES: usize = 100_000;

/// Bytes of the messages that wait in them, and past it the same: a few hundred subscribers make few entries, but each message may be large.
pub const FANOUT_BYTES: usize = 64 << 20;

/// Shared groups over all shards. Many may have the same filter, so that the filters alone don't bound them; a message to it goes to each.
pub const MAX_GROUPS: usize = 100_000;

/// Retained messages in one part of an answer, and how many a shard looks at to find them: both bound the work of one letter.
pub const RETAINED_PART: usize = 128;
/// See [`RETAINED_PART`].
pub const RETAINED_LOOK: usize = 4096;

/// Sessions that go on with their retained messages in one turn.
pub const RETAINED_ASKS: usize = 8;

/// Topics that a session which is being sent retained messages notes as heard of live, 8 bytes each. Past it a retained message may follow a newer
/// one, which the standard allows.
pub const RETAINED_SEEN: usize = 4096;

/// Retained messages that are looked at in a tick for an expiry that is over.
pub const RETAINED_SWEEP: usize = 256;

/// How often a message for a shared subscription is passed on when a shard has no member left.
pub const GROUP_HOPS: u8 = 3;

/// Sessions whose subscriptions are loaded in one turn after a restart: with ten each some 5 ms.
pub const LOAD_SLICE: usize = 512;

/// Sessions that get their places in the table of client identifiers together at a start: a core waits for some dozen lines of memory at a time.
pub const PLACES_TOGETHER: usize = 32;

/// Messages that may wait on a shard until all sessions are loaded before QoS 0 is shed.
pub const EARLY_BACKLOG: usize = 65_536;

/// Messages routed in one turn of those that waited until all sessions were loaded.
pub const EARLY_PER_TURN: usize = 256;

/// Bytes of the log's oldest segment that are looked at in one turn to give space back: at some 500 MB/s less than a millisecond.
pub const CLEAN_SLICE: usize = 256 << 10;

/// Acknowledgements and messages that go on in one turn after a sync.
pub const WAITS_PER_TURN: usize = 4096;

/// Bytes that stand around a message in the log: what says how it is to be delivered, beside its topic and payload.
pub const RECORD_MARGIN: usize = 4096;

/// Bytes of a store on the heap, which no server uses: for simulations and tests.
pub const HEAP_STORE_BYTES: u64 = 1 << 30;

/// Session timers (ends, wills) handled in one tick, and in one slice of the work that follows if more are due. A durable session with two
/// subscriptions ends in 2 us or so.
pub const SESSION_TIMERS: usize = 1024;

/// So many connections of one reactor are a crowd: when it leaves, memory is given back to the system.
pub const CROWD: usize = 1024;

/// Ticks for which it is given back then: the crowd's messages were made by one reactor and freed by others, a little later.
pub const CROWD_ECHOES: u32 = 16;

/// Emptied batches of mail that a reactor keeps to fill again, and the letters that one of them may have room for.
pub const SPARE_BATCHES: usize = 16;
/// See [`SPARE_BATCHES`].
pub const SPARE_LETTERS: usize = 64;

/// QoS 0 messages that a shard keeps to make others from, and the bytes that one of them may have room for: a push is small, and as many as
/// are on their way within a turn are made without asking for memory.
pub const SPARE_MESSAGES: usize = 64;
/// See [`SPARE_MESSAGES`].
pub const SPARE_MESSAGE_BYTES: usize = 512;

/// Messages for which memory is asked for at once: a core waits for a dozen lines at a time, and some are for what it does meanwhile.
pub const LOOK_AHEAD: usize = 8;

/// Mails that may wait for a full mailbox before QoS 0 to it is shed.
pub const POST_BACKLOG: usize = 65_536;

/// Letters that may wait at a reactor for all full mailboxes together before it handles no more packets until some have left. What can't be
/// shed is bounded by this: filters that come and go are told to every shard, and each client may change a thousand of them at once.
pub const POST_LETTERS: usize = 4 * POST_BACKLOG;

/// Buckets of a shard's wheel: sessions that end and wills; 4,096 ticks are 17 minutes, longer ones are looked at again.
pub const SESSION_WHEEL_BUCKETS: usize = 4096;

/// Rows of the interest masks: one a connection that the server may hold, a bit a reactor, but no fewer than these.
pub const MIN_MASK_ROWS: usize = 1 << 14;

/// Bytes of the interest masks at most: 16 a connection at 2,000,000 of them. Rows are shared beyond that, which costs useless hops and
/// nothing else.
pub const MAX_MASK_BYTES: usize = 32 << 20;

// ---- wire ----

/// Topic filters in one SUBSCRIBE or UNSUBSCRIBE. Each costs an index operation and a byte of the answer within one turn; a megabyte of them
/// would be 262,144. Clients that subscribe to more than a few thousand topics send several packets.
pub const MAX_FILTERS_PER_PACKET: usize = 8192;

// ---- configuration and capacity ----

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

/// User-space memory of a phone in the load generator: itself, its line in the ledger, and what a histogram or a heap adds.
pub const LOADGEN_BYTES_PER_PHONE: u64 = 128;

/// Descriptors of a table of the load generator that are not phones: standard streams, pollers, listeners that were copied, a reserve.
pub const LOADGEN_FILES_BESIDE: u64 = 128;

/// Files that a process has open before its reactors start, as the sums for a machine that is yet to be tuned take it.
pub const FILES_OPEN: u64 = 64;

/// Open files of everything else on a machine.
pub const SYSTEM_FILES_BESIDE: u64 = 65_536;

/// Microseconds of a core that a connect with its subscription costs in a storm, all told: 36 were measured with 200,000 phones on 11 reactors.
pub const STORM_CONNECT_MICROS: u64 = 40;

/// Seconds in which all phones are to be back after a storm; the cores that a machine should have follow from it. What they do between storms
/// is a tenth of that.
pub const STORM_SECONDS: u64 = 60;

// ---- what an idle connection costs: client identifier of 12 characters, one topic of its own, one that everybody has ----

/// A connection: one cache line (`reactor::slots`).
pub const SLOT_BYTES: usize = 64;

/// A session: half a cache line (`session`).
pub const SESSION_BYTES: usize = 32;

/// Its client identifier in the arena: a length of 2 bytes and 12 characters, rounded up to 4 (`topic::arena`).
pub const CLIENT_ID_BYTES: usize = 16;

/// An entry of a hash table: a place is 5 bytes and a third, and not more than `TABLE_MAX_FILL` of them are taken (`topic::table`).
pub const TABLE_ENTRY_BYTES: usize =
    (TABLE_LINE_BYTES * 100).div_ceil(TABLE_LINE_ENTRIES * TABLE_MAX_FILL);

/// A line of a hash table: one cache line.
pub const TABLE_LINE_BYTES: usize = 64;

/// The head of a session in the topic index, and its record of one subscription (`topic::holdings`).
pub const HEAD_BYTES: usize = 4;
/// See [`HEAD_BYTES`].
pub const HOLDING_BYTES: usize = 4;

/// A topic of its own, of 15 to 18 characters: a length, the word that says who subscribes, and the text (`topic::index`).
pub const OWN_TOPIC_BYTES: usize = 24;

/// Its entry among the subscribers of the common topic (`topic::list`): 4 bytes, and a part of what a page of them costs beside.
pub const COMMON_TOPIC_BYTES: usize = 5;

/// The sum; kept under what the capacity report counts.
pub const IDLE_CONNECTION_BYTES: usize = SLOT_BYTES
    + SESSION_BYTES
    + (CLIENT_ID_BYTES + TABLE_ENTRY_BYTES)
    + (HEAD_BYTES + 2 * HOLDING_BYTES)
    + (OWN_TOPIC_BYTES + TABLE_ENTRY_BYTES)
    + COMMON_TOPIC_BYTES;

const _: () = assert!(IDLE_CONNECTION_BYTES == 169);

/// A durable session costs so much more: where its state and its queue are (`store::sessions`).
pub const DURABLE_SESSION_BYTES: usize = 16;
const _: () = assert!(IDLE_CONNECTION_BYTES as u64 <= USER_BYTES_PER_CONNECTION);

/// Pages of the allocator that a reactor keeps when a crowd has left, 64 KiB each: a small record that stays holds the page that it shared with
/// what has gone. Measured: 8 to 10 after 30,000 connections and their messages on four reactors.
pub const ALLOCATOR_PAGES_KEPT: usize = 12;

/// What a reactor keeps whoever has left: its read buffer, its outbox with the list of pieces, emptied batches of mail, the buckets of its two
/// wheels, and pages of the allocator.
pub const REACTOR_RESERVED_BYTES: usize = READ_BUFFER
    + 2 * OUTBOX_BYTES
    + SPARE_BATCHES * SPARE_LETTERS * 64
    + 4 * (SLOT_WHEEL_BUCKETS + SESSION_WHEEL_BUCKETS)
    + ALLOCATOR_PAGES_KEPT * (64 << 10);

/// File descriptors of each reactor's table that are not for connections: files that were open when the table was split off, and
/// for every reactor its poller, waker and hand-over sockets, of which each table has a copy.
pub const fn reserved_files(reactors: usize) -> u64 {
    64 + 4 * reactors as u64
}

/// Homes are chosen by a hash, so reactors don't fill evenly: a table keeps this many standard deviations free. With 1,024 reactors
/// the fullest one exceeds five about once in 3,000 fillings.
pub const UNEVEN_HOMES_SIGMA: f64 = 5.0;

// --- topic ---

/// Bits of a session's index in a subscriber entry; the other six are its options. 67 million sessions a shard, at 3.9 KB of kernel memory each,
/// are more than 256 GB.
pub const SESSION_BITS: u32 = 26;

/// Longest topic or filter in bytes: MQTT strings have a length of 16 bits (MQTT 5 section 1.5.4).
pub const MAX_TOPIC_BYTES: usize = u16::MAX as usize;

/// Parts of a second's worth that a shard takes of a tenant's rate at a time: with 64, messages that a shard doesn't get to are 1.6 % of it.
pub const RATE_LEASES: u64 = 64;

/// Tenants that are told of themselves in one tick, five figures each.
pub const TENANTS_TOLD: usize = 64;

/// Sessions that are looked at again in one turn after the rules have been read anew: each costs its subscriptions.
pub const RECHECK_SLICE: usize = 256;

/// Bytes of a chunk of the topic arena. It holds the longest string, and is small enough for a reactor with a handful of topics.
pub const ARENA_CHUNK_BYTES: usize = 128 << 10;

/// Records of a page of the topic index: memory grows by pages, so that nothing is copied and at most one page is spare.
pub const POOL_PAGE_RECORDS: usize = 1024;

/// Entries in a line of a hash table (`topic::table`): what fits into a cache line.
pub const TABLE_LINE_ENTRIES: usize = 12;

/// Lines of a page of a hash table: 4 KB.
pub const TABLE_PAGE_LINES: usize = 64;

/// Percent of a hash table's places that are taken before it grows by a line: 5.33 bytes a place are 7.1 an entry. A lookup sees 1.3 lines then;
/// at 85 it were 1.6.
pub const TABLE_MAX_FILL: usize = 75;

/// Percent below which it loses a line. Far enough from the other that coming and going does not move lines.
pub const TABLE_MIN_FILL: usize = 50;

/// Entries in a page of a long list of subscribers, and how long a list is before it is paged: what is moved when one comes between others.
pub const LIST_PAGE_ENTRIES: usize = 256;

/// Subscriptions that a session keeps in a record of its own, which costs least; with more it gets a hash set. Looking through the record is the
/// price of every unsubscribe, so it has to stay short.
pub const RECORDED_SUBSCRIPTIONS: usize = 24;

const _: () = assert!(
    ARENA_CHUNK_BYTES >= MAX_TOPIC_BYTES + 2 + 4 + 8,
    "a chunk holds the longest string, its length, and rounding"
);

// ---- reactor ----

/// Buckets of a reactor's wheel: keep alives, CONNECT and write deadlines; 2,048 ticks are nearly 9 minutes.
pub const SLOT_WHEEL_BUCKETS: usize = 2048;

/// Bytes read from a connection in one turn, at most: a reactor's one read buffer.
pub const READ_BUFFER: usize = 64 << 10;

/// Connections that are read in a row, each into its part of the read buffer, before what they say is handled in a row. Each system call leaves
/// the caches with the kernel's code and data; this pays for that once a row.
pub const HEARD_TOGETHER: usize = 16;

/// The part of the read buffer that each of them has: more than a phone says at a time, and little enough that the buffer's other pages stay
/// untouched. Who says more is read again in its turn, into all of the buffer.
pub const HEARD_BYTES: usize = 2 << 10;
const _: () = assert!(HEARD_TOGETHER * HEARD_BYTES <= READ_BUFFER);

/// Packets of one connection that are handled in one turn. What is left of a full read buffer waits, boxed, for the next turn.
pub const PACKETS_PER_TURN: usize = 1024;

/// Events taken from the poller in one turn.
pub const EVENTS_PER_TURN: usize = 1024;

/// Connections served in one turn because something was left of an earlier one.
pub const LEFTOVERS_PER_TURN: usize = 256;

/// Connections accepted in one turn from each listener, at most. A storm of handshakes shares the loop with those who are in.
pub const ACCEPTS_PER_TURN: usize = 64;

/// Batches of handed-over connections taken in one turn at most, and connections after which no more are taken. A batch has one or two, and 250 in
/// a storm.
pub const HANDOVERS_PER_TURN: usize = 16;
/// See [`HANDOVERS_PER_TURN`].
pub const ARRIVALS_PER_TURN: usize = 256;

/// Bytes that were read from a connection, at most, for it to be handed over as a letter: a CONNECT has a hundred or two. As many letters as a
/// mailbox takes are 32 MB then; what is larger goes through a socket pair, which has a buffer.
pub const ARRIVAL_LETTER_BYTES: usize = 2 << 10;

/// Timers handled in one turn.
pub const TIMERS_PER_TURN: usize = 1024;

/// Connections closed in one turn on the shard's word; at some 10 us each, 512 take 5 ms.
pub const CLOSES_PER_TURN: usize = 512;

/// Slots looked at in one turn while the server drains; those in them are told to go.
pub const DRAIN_SLICE: u32 = 256;

/// Milliseconds that new rules wait for a place in a full mailbox: a reactor that doesn't empty it for so long has ended.
pub const RELOAD_PATIENCE: u32 = 5_000;

/// Milliseconds that an answer of the gate does: others wait behind it, and a connection without an answer ends at its deadline.
pub const ANSWER_PATIENCE: u32 = 20;

/// Letters in one batch of mail.
pub const MAIL_BATCH: usize = 1024;

/// Batches of mail that a reactor's mailbox holds.
pub const MAILBOX_BATCHES: usize = 512;

/// Letters in a batch of mail that need not be counted: as many batches as a mailbox holds have 4,096.
pub const SMALL_BATCH: usize = 8;

/// Letters in a reactor's mailbox, but for those of small batches, from which on QoS 0 to it is shed. What is behind them waits for all of them: 30 ms for messages to single phones,
/// and less than a second for messages to hundreds each.
pub const MAILBOX_LETTERS: usize = 16_384;

/// Letters handled in one turn.
pub const LETTERS_PER_TURN: usize = 2048;

/// Bytes of packets that wait for the end of the turn, over all connections; then they are written at once. Stays in the second-level cache.
pub const OUTBOX_BYTES: usize = 256 << 10;

/// The same for one connection.
pub const OUTBOX_BYTES_PER_CONNECTION: u32 = 32 << 10;

/// Packets from this size on are written straight from where they are, if nothing waits before them.
pub const DIRECT_WRITE: usize = 8 << 10;

/// Pieces in one vectored write.
pub const WRITE_PIECES: usize = 64;

/// A connection whose unwritten bytes are so many times `write_backlog` is closed before the next packet. QoS 0 stops at one time; what goes
/// beyond are acknowledgements and answers to a client that asks and does not read.
pub const BACKLOG_CLOSES_AT: usize = 2;

/// Milliseconds that a closed connection's peer has to see why.
pub const LINGER_MILLIS: u64 = 1000;

/// Pending connections of a listener; the kernel lowers it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: i32 = 65_535;

/// Seconds that the kernel keeps a connection to itself while no byte has arrived; then the deadline for CONNECT begins.
pub const DEFER_ACCEPT_SECONDS: u32 = 3;

/// Milliseconds without accepting after the kernel had no file descriptor or memory for another connection.
pub const ACCEPT_PAUSE_MILLIS: u64 = 100;

/// Bytes of unfinished CONNECTs that a reactor keeps. A slow network splits a few; thousands of large ones at once are an attack, and
/// those beyond are closed.
pub const GREETING_BYTES: usize = 16 << 20;

/// Largest CONNECT that is taken whatever the configuration says: with one read buffer behind it, it must fit into one hand-over.
pub const LARGEST_CONNECT: u32 = 64 << 10;

/// Bytes of connections in one hand-over message: fits the default send buffer of a socket pair.
pub const HANDOVER_BYTES: usize = 144 << 10;

const _: () = assert!(
    IDENTITY_BYTES + LARGEST_CONNECT as usize + READ_BUFFER <= HANDOVER_BYTES,
    "a connection with all that was read from it fits into one message"
);

/// Hand-over batches that may wait for a full pair; past it the connections in the newest are closed, and their clients try again.
pub const HANDOVER_BACKLOG: usize = 8;

/// Sockets that a reactor has lent to the homes of their connections, and not closed since: its table has so many places beyond those of
/// [`reserved_files`]'s other descriptors, and more at a time are better off in a batch.
pub const LOANS: usize = 32;

/// Milliseconds that a reactor sleeps at most while it has lent sockets: if a connection ends at once, its peer sees that so much later.
pub const LOAN_MILLIS: u64 = 10;

/// Stack of a reactor's thread; virtual, and nothing in the loop recurses.
pub const REACTOR_STACK: usize = 512 << 10;

// ---- store ----

/// Bytes of a log's first segments: small enough for a server that keeps nothing, and of 100 reactors; filled in 20 ms at the most that a reactor
/// takes in.
pub const SEGMENT_BYTES_MIN: usize = 1 << 20;

/// Bytes of a log's largest segments: what is prepared ahead, and what must be moved before a file can go.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;

/// Segments a log is aimed to have: what the cleaner holds back at a time is one of them.
pub const SEGMENTS_OF_A_LOG: u64 = 8;

/// Bytes whose checksum is tried in a damaged segment to find a readable record behind the damage, in multiples of the segment. Zeros and noise
/// take none; a client that filled its payloads with what looks like long records, just there, can't hold the start up for more than seconds.
pub const RESUME_EFFORT: usize = 64;

/// Segments that are prepared behind the one in use: one that only what makes room may use, and three for new content, which comes in while the disk
/// is busy with something else.
pub const SPARES: usize = 4;

/// How long a segment should last. Preparing one takes a disk milliseconds, and half a second when it is busy.
pub const SEGMENT_LASTS: Duration = Duration::from_secs(1);

/// Milliseconds between two lines of the same kind about a log in trouble: a disk that is full for a second at a time fills no disk with lines.
pub const TROUBLE_PAUSE_MILLIS: u64 = 10_000;

/// How long a full disk is left alone before it is asked again.
pub const DISK_RETRY: Duration = Duration::from_secs(1);

/// Files of a log that are kept open because they may have to be synced; others are opened again for it. 1,024 reactors have as many files then
/// as a process may open.
pub const UNSYNCED_FILES: usize = 16;

/// Stack of the threads that wait for the disk: nothing in them recurses.
pub const SYNCER_STACK: usize = 256 << 10;

/// Largest manifest that is read: its few lines are less than one kilobyte.
pub const MANIFEST_BYTES: u64 = 64 << 10;

// ---- store: what is in memory ----

/// Bytes between the oldest and the newest record of a log: 1 TiB, so that an entry of a queue has 6 bytes. A log that long is full.
pub const LOG_SPAN: u64 = 1 << 40;

/// Words of 16 bits in a page of queues that rest: 8 KiB, as a reactor may have a page begun for each of 29 lengths. A tenth of one is lost at most.
pub const QUEUE_PAGE_WORDS: usize = 4096;

/// Numbers between the oldest and the newest entry of a queue: 4 Mi entries are 24 MB of memory. Limits of the configuration are far below; this one
/// keeps a damaged log from asking for gigabytes.
pub const QUEUE_SPAN: usize = 1 << 22;

/// The most that `mqtt.queue_messages` may allow. As many wait; before them are those in flight, and places of some that are done already.
pub const QUEUE_MESSAGES_MAX: u64 = 4_000_000;
const _: () = assert!(
    QUEUE_MESSAGES_MAX as usize + 2 * u16::MAX as usize <= QUEUE_SPAN,
    "a queue that is within its limit fits into the store"
);

/// Messages of one session that has ended which go on to other members of their groups at a time, unsettled: as many as a client may have under way.
pub const LEAVING_WINDOW: usize = 64;

/// Of each kind of what found no room in the log, how many are recorded in one tick when there is room again: some milliseconds.
pub const OWED_PER_TICK: usize = 8192;

/// Messages that go on to other members in one turn. Each is a record, and often a letter.
pub const LEAVING_SLICE: usize = 64;

/// How long a message that no other member had room for is left alone. A queue that is full, or a disk, is not emptied in a moment.
pub const LEAVING_RETRY_MILLIS: u64 = 1000;

/// Sessions in a page of the store's table: 16 KB, so that a server with few sessions has a small one.
pub const SESSIONS_PAGE: usize = 1024;

/// Notes in a page of the list that a start makes of them: 12 bytes each, some 48 KB.
pub const NOTES_PAGE: usize = 4096;

/// Queue entries with one shared body that are recorded together: 12 KB. What a record costs beside its entries is 0.03 bytes each then.
pub const FAN_ENTRIES: usize = 1024;

/// Dead bytes of a log that nobody minds, beside as much as lives: four of the smallest segments, so that a small log isn't moved all the time.
pub const CLEAN_SLACK: u64 = 4 << 20;

/// Bytes of the log that the cleaner handles for each one that was appended since it was last called. In a log that is half dead it reads two and
/// moves one for each that it frees: with 4 it gains on whatever comes in.
pub const CLEAN_PER_BYTE: usize = 4;

// ---- access ----

/// Largest file of users, rules or keys that is read: half a million users.
pub const ACCESS_FILE_BYTES: u64 = 64 << 20;

/// Characters of an app key. It stands before every topic and client id of the tenant.
pub const TENANT_NAME_BYTES: usize = 32;

/// Largest token that is looked at. Issuers that put whole profiles into theirs stay below; what is verified for an unknown peer is bounded by it.
pub const TOKEN_BYTES: usize = 8 << 10;

/// Filters in each list of a token's rights: all of them are tried for every message.
pub const RIGHTS_FILTERS: usize = 64;

/// Bytes of an encoded identity. It travels with the CONNECT to the home reactor.
pub const IDENTITY_BYTES: usize = 16 << 10;

/// Bytes of a password in MQTT.
pub const PASSWORD_BYTES: usize = u16::MAX as usize;

/// Memory of one password check: with [`GATE_THREADS`] at a time, what logins may take of the machine.
pub const ARGON2_KIB: u32 = 256 << 10;

/// Passes of one password check.
pub const ARGON2_PASSES: u32 = 16;

/// Cells in each of a meter's two rows: half a megabyte a row. Far more addresses than that at once are an attack, and then some strangers
/// wait for each other.
pub const THROTTLE_CELLS: usize = 1 << 16;

// ---- gate ----

/// Threads that check passwords. Each check takes a core for tens of milliseconds: logins get two of them at most, reactors the rest.
pub const GATE_THREADS: usize = 2;

/// Passwords that wait to be checked: some seconds of work.
pub const GATE_PASSWORDS: usize = 256;

/// A password that has waited so long is not checked any more: its client is about to give up.
pub const GATE_PATIENCE: Duration = Duration::from_secs(6);

/// Questions to the hook that wait or are under way, some 300 bytes each and a connection's socket.
pub const HOOK_QUESTIONS: usize = 4096;

/// Questions that the hook has to answer at a time, each on a connection of its own.
pub const HOOK_CONNECTIONS: usize = 64;

/// Largest answer of the hook that is read.
pub const HOOK_ANSWER_BYTES: usize = 16 << 10;

/// Answers of the hook that are kept, in two halves.
pub const HOOK_CACHE: usize = 1 << 16;

/// Stack of the gate's threads: argon2 keeps its memory on the heap.
pub const GATE_STACK: usize = 512 << 10;
// ---- lookup ----

/// Stack of the lookup's thread: what recurses in it is the JSON reader, which bounds its own depth at 128.
pub const LOOKUP_STACK: usize = 1 << 20;

/// Steps of nice by which the lookup runs before the reactors, where it may: it needs little of a core, and that at once. On a machine whose two cores
/// had six to do, its p99 was 5.5 ms without and 0.4 ms with it.
pub const LOOKUP_NICE: u8 = 10;

/// Connections the lookup holds; who comes beyond is answered 503 at once. Each costs two small buffers, so these are 64 MB at the very most.
pub const LOOKUP_CONNECTIONS: usize = 2048;

/// Addresses the lookup listens on.
pub const LOOKUP_LISTENERS: usize = 8;

/// Pending connections of the lookup's listener: a storm's first seconds.
pub const LOOKUP_BACKLOG: i32 = 4096;

/// Bytes of a request's line and headers. The longest client identifier that is taken, each byte percent-encoded, is 3 KB of it, a JWT 2 KB.
pub const LOOKUP_HEAD_BYTES: usize = 16 << 10;

/// Headers of a request; browsers send twenty, proxies add ten.
pub const LOOKUP_HEADERS: usize = 64;

/// Bytes of a request's body: the longest client identifier, each byte escaped, and the labels.
pub const LOOKUP_BODY_BYTES: usize = 16 << 10;

/// Time for a request's line and headers to be whole, from the last answer or from the start: so it is also the time a connection may idle.
pub const LOOKUP_HEAD_TIME: Duration = Duration::from_secs(10);

/// Time for a request's body to be whole.
pub const LOOKUP_BODY_TIME: Duration = Duration::from_secs(5);

/// Time for a peer to take some of what is written.
pub const LOOKUP_WRITE_TIME: Duration = Duration::from_secs(10);

/// Characters of a client identifier that is given a ticket, which are up to 1,024 bytes: the token carries it, and so does every CONNECT.
pub const LOOKUP_CLIENT_ID_CHARS: usize = 256;

/// Labels of a node, or of who asks.
pub const LOOKUP_LABELS: usize = 16;

/// Bytes of a label's name, and of its value.
pub const LOOKUP_LABEL_BYTES: usize = 64;

/// Nodes of the table. The policy walks all of them for each ticket.
pub const LOOKUP_NODES: usize = 1024;

/// Addresses of one node.
pub const LOOKUP_ADDRESSES: usize = 16;

/// Nodes whose addresses stand in a ticket as endpoints, and as many again at most in its fallback list, which takes the client through an outage.
pub const LOOKUP_ENDPOINT_NODES: usize = 2;
/// See [`LOOKUP_ENDPOINT_NODES`].
pub const LOOKUP_FALLBACK_NODES: usize = 4;

/// Largest file of nodes that is read.
pub const LOOKUP_NODES_FILE_BYTES: u64 = 1 << 20;

/// Milliseconds until a slot that count as now: a cached ticket is used at once then, so many milliseconds early.
pub const LOOKUP_NOW_MILLIS: u64 = 50;

/// Time between two looks at what the reactors count: close to their tick, by which they tell how late they are.
pub const LOOKUP_SAMPLE: Duration = Duration::from_millis(250);

/// Loop lag from which on the reactors are given fewer connects: phones that are in would notice.
pub const PACE_LAG_MICROS: u64 = 50_000;

/// Loop lag at which a node counts as full, so that others are chosen while there are some.
pub const FULL_LAG_MICROS: u64 = 250_000;
const _: () = assert!(PACE_LAG_MICROS < FULL_LAG_MICROS);
