//! What so many connections need of a machine: the one place of these sums.
//!
//! The server's start-up report and `stillwire sizing` print them, the load generator's preflight compares a machine with them, and
//! `tuning/check` and `tuning/apply` read them from `stillwire sizing --json`. Arithmetic over [`limits`] alone: nothing here reads a machine.

use std::fmt;

use serde::Serialize;

use crate::limits;

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It runs the server.
    Server,
    /// It runs the load generator.
    Loadgen,
    /// Both, one beside the other.
    Both,
}

impl Role {
    /// Bytes of memory of one idle connection, of the kernel and of the process: one end, or both.
    pub const fn bytes_each(self) -> u64 {
        const KERNEL: u64 = limits::KERNEL_BYTES_PER_CONNECTION;
        const SERVER: u64 = KERNEL + limits::USER_BYTES_PER_CONNECTION;
        const PHONE: u64 = KERNEL + limits::LOADGEN_BYTES_PER_PHONE;
        match self {
            Self::Server => SERVER,
            Self::Loadgen => PHONE,
            Self::Both => SERVER + PHONE,
        }
    }

    fn serves(self) -> bool {
        self != Self::Loadgen
    }

    fn calls(self) -> bool {
        self != Self::Server
    }
}

/// Pages of TCP buffers for when every connection has something unread or unacknowledged, as in a message to all: a byte costs a page.
pub const fn tcp_pages(connections: u64) -> u64 {
    connections
}

/// The three figures of `net.ipv4.tcp_mem` that leave so many pages and a quarter more. In between the kernel begins to be thrifty.
pub const fn tcp_mem(pages: u64) -> [u64; 3] {
    let most = pages * 5 / 4;
    [most / 2, most * 3 / 4, most]
}

/// Connections that one of so many reactors must be able to hold, when there are `connections` in all: its share, and what an uneven
/// hash may put on it beyond.
pub fn seats_each(connections: u64, reactors: usize) -> u64 {
    if reactors == 1 {
        return connections;
    }
    let share = connections as f64 / reactors as f64;
    let seats = share + limits::UNEVEN_HOMES_SIGMA * share.sqrt();
    (seats.ceil() as u64).min(connections)
}

/// The limit of open files with which `reactors` tables hold `connections`.
pub fn open_files_for(connections: u64, reactors: usize) -> u64 {
    seats_each(connections, reactors) + limits::reserved_files(reactors)
}

/// The limit of open files with which one table holds `connections` of `reactors`, which listen on so many addresses, beside what is `open`.
pub fn open_files_for_all(connections: u64, reactors: usize, listeners: usize, open: u64) -> u64 {
    // A poller, its double, and the listeners.
    let each = 2 + listeners as u64;
    open + connections + limits::reserved_files(reactors) + each * reactors as u64
}

/// The limit of open files with which each of so many threads of the load generator holds its share of the phones.
pub fn open_files_for_phones(phones: u64, threads: usize) -> u64 {
    phones.div_ceil(threads.max(1) as u64) + limits::LOADGEN_FILES_BESIDE
}

/// What so many connections need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// So many.
    pub connections: u64,
    /// Of which ends.
    pub role: Role,
    /// Reactors of the server, or threads of the load generator; each may have an fd table of its own.
    pub threads: usize,
    /// Bytes of memory, of the kernel and of the processes.
    pub memory: u64,
    /// The limit of open files at which the tables are large enough: the least that works.
    pub files_each: u64,
    /// The limit of open files at which one table holds all, so that no connection has to be copied from one to another.
    pub files_one: u64,
    /// Open files of the whole system.
    pub files_all: u64,
    /// Pages of TCP buffers when every connection has something unread.
    pub tcp_pages: u64,
    /// What `net.ipv4.tcp_mem` should be for that.
    pub tcp_mem: [u64; 3],
    /// Connections that may wait to be accepted at each listener; also those that have said nothing yet.
    pub backlog: u64,
    /// Entries that connection tracking needs, where it is there at all.
    pub tracked: u64,
    /// Buckets of the kernel's table of established connections, so that a chain has two of them.
    pub hash_buckets: u64,
    /// Cores that bring everybody back within [`limits::STORM_SECONDS`]; as many queues of the network card.
    pub cores: u64,
}

impl Sums {
    /// For so many connections, on so many reactors (threads).
    pub fn of(connections: u64, role: Role, threads: usize) -> Self {
        let threads = threads.max(1);
        let pages = tcp_pages(connections);
        let each = |wanted: bool, files: u64| if wanted { files } else { 0 };
        let ends = if role == Role::Both { 2 } else { 1 };
        let server_one = open_files_for_all(
            connections,
            threads,
            limits::MAX_LISTENERS,
            limits::FILES_OPEN,
        );
        Self {
            connections,
            role,
            threads,
            memory: connections * role.bytes_each(),
            files_each: each(role.serves(), open_files_for(connections, threads)).max(each(
                role.calls(),
                open_files_for_phones(connections, threads),
            )),
            files_one: each(role.serves(), server_one)
                .max(each(role.calls(), open_files_for_phones(connections, 1))),
            files_all: connections * ends + limits::SYSTEM_FILES_BESIDE,
            tcp_pages: pages,
            tcp_mem: tcp_mem(pages),
            backlog: limits::LISTEN_BACKLOG as u64,
            tracked: connections * 5 / 4 + limits::LISTEN_BACKLOG as u64,
            hash_buckets: (connections * ends / 2).next_power_of_two().max(1024),
            cores: (connections * limits::STORM_CONNECT_MICROS)
                .div_ceil(limits::STORM_SECONDS * 1_000_000)
                .max(1),
        }
    }
}

/// One line, as the start-up report says it.
impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            memory,
            files_each,
            files_one,
            threads,
            tcp_pages,
            ..
        } = self;
        write!(
            f,
            "{connections} connections need {memory} bytes of memory, {files_each} open files in each of {threads} tables \
             ({files_one} in one for all), {tcp_pages} pages of tcp_mem"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_as_the_documents_say_it() {
        let sums = Sums::of(1_000_000, Role::Server, 2);
        assert_eq!(sums.memory, 4_156_000_000);
        assert_eq!(sums.tcp_mem, [625_000, 937_500, 1_250_000]);
        assert_eq!(
            (sums.tcp_pages, sums.hash_buckets, sums.cores),
            (1_000_000, 524_288, 1)
        );
        assert!(
            sums.files_each > 500_000 && sums.files_each < 505_000,
            "{sums:?}"
        );
        assert!(
            sums.files_one > 1_000_000 && sums.files_one < 1_001_000,
            "{sums:?}"
        );
        let five = Sums::of(5_000_000, Role::Server, 16);
        assert_eq!((five.memory, five.cores), (20_780_000_000, 4));
    }

    #[test]
    fn both_ends_are_the_sum_of_the_two() {
        let [server, phones, both] =
            [Role::Server, Role::Loadgen, Role::Both].map(|role| Sums::of(1_000_000, role, 53));
        assert_eq!(server.memory + phones.memory, both.memory);
        assert_eq!(server.files_each.max(phones.files_each), both.files_each);
        // What is unread waits at one end only.
        assert_eq!(server.tcp_pages, both.tcp_pages);
    }

    #[test]
    fn nothing_needs_little_and_the_most_does_not_overflow() {
        let none = Sums::of(0, Role::Both, 0);
        assert_eq!((none.memory, none.tcp_pages, none.threads), (0, 0, 1));
        let most = Sums::of(limits::MAX_CONNECTIONS, Role::Both, limits::MAX_REACTORS);
        assert!(most.memory > none.memory && most.hash_buckets.is_power_of_two());
    }
}
