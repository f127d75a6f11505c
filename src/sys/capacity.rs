//! How many connections this machine allows, and what limits them.
//!
//! [`Machine`] is read from `/proc` once at start; everything after that is arithmetic over it and can be tested with made-up texts.

use std::fmt;
use std::io;

use crate::limits;
use crate::sizing::Role;
pub use crate::sizing::{open_files_for, open_files_for_all, seats_each};

/// What the machine grants this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores this process may use: affinity and the CPU quota of its control group.
    pub cores: usize,
    /// Files one fd table may hold: the hard limit, to which the server raises the soft one.
    pub open_files: u64,
    /// Bytes of memory that are available without swapping, or that the control group may use, whichever is less.
    pub memory: u64,
    /// Pages all TCP buffers may take together; `None` where the kernel doesn't show it (in another network namespace than the first).
    pub tcp_pages: Option<u64>,
}

/// `/proc` could not be read or understood.
#[derive(Debug)]
pub enum CapacityError {
    /// A file could not be read.
    Unreadable(&'static str, io::Error),
    /// A file lacks what it should have.
    Malformed(&'static str),
}

impl fmt::Display for CapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(
                    f,
                    "{path}: cannot read what this machine allows: {error}; mount /proc"
                )
            }
            Self::Malformed(path) => write!(
                f,
                "{path}: not in the form Linux gives it; mount the real /proc"
            ),
        }
    }
}

impl std::error::Error for CapacityError {}

const LIMITS: &str = "/proc/self/limits";
const MEMINFO: &str = "/proc/meminfo";
const TCP_MEM: &str = "/proc/sys/net/ipv4/tcp_mem";

impl Machine {
    /// Reads what this machine grants now.
    pub fn read() -> Result<Self, CapacityError> {
        let read = |path| {
            std::fs::read_to_string(path).map_err(|error| CapacityError::Unreadable(path, error))
        };
        let tcp_mem = match read(TCP_MEM) {
            Ok(text) => Some(text),
            Err(CapacityError::Unreadable(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                None
            }
            Err(error) => return Err(error),
        };
        let cores = std::thread::available_parallelism()
            .map_err(|error| CapacityError::Unreadable("the number of cores", error))?
            .get();
        let mut machine = Self::parse(cores, &read(LIMITS)?, &read(MEMINFO)?, tcp_mem.as_deref())?;
        machine.memory = machine.memory.min(group_memory());
        Ok(machine)
    }

    /// The same from the texts of `/proc/self/limits`, `/proc/meminfo` and `tcp_mem`.
    pub fn parse(
        cores: usize,
        limits: &str,
        meminfo: &str,
        tcp_mem: Option<&str>,
    ) -> Result<Self, CapacityError> {
        Ok(Self {
            cores,
            open_files: hard_open_files(limits).ok_or(CapacityError::Malformed(LIMITS))?,
            memory: available_memory(meminfo).ok_or(CapacityError::Malformed(MEMINFO))?,
            tcp_pages: tcp_mem
                .map(|text| most_tcp_pages(text).ok_or(CapacityError::Malformed(TCP_MEM)))
                .transpose()?,
        })
    }
}

/// `Max open files   1024   524288   files`: the second figure.
fn hard_open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        figure => figure.parse().ok(),
    }
}

/// `MemAvailable:   12345 kB`.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// `low pressure max`, in pages: the third figure.
fn most_tcp_pages(tcp_mem: &str) -> Option<u64> {
    tcp_mem.split_whitespace().nth(2)?.parse().ok()
}

/// The least `memory.max` of this process's control group and those above it (version 2). A machine without such files has no such limit.
fn group_memory() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    std::path::Path::new(path)
        .ancestors()
        .filter_map(|group| {
            let file = std::path::Path::new("/sys/fs/cgroup")
                .join(group)
                .join("memory.max");
            most_memory(&std::fs::read_to_string(file).ok()?)
        })
        .min()
        .unwrap_or(u64::MAX)
}

/// `memory.max`: bytes, or `max`, which is no limit.
fn most_memory(memory_max: &str) -> Option<u64> {
    memory_max.trim().parse().ok()
}

/// What limits the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The open files of each reactor's fd table.
    Files,
    /// Memory for sockets and sessions.
    Memory,
    /// Memory of TCP buffers, when every connection has a page of unread or unacknowledged bytes, as in a broadcast to all.
    TcpMem,
}

impl Limit {
    /// What an operator does about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Files => "more --reactors or a higher hard limit of open files raises it",
            Self::Memory => "more memory raises it",
            Self::TcpMem => "a higher third figure of sysctl net.ipv4.tcp_mem raises it",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "fds",
            Self::Memory => "memory",
            Self::TcpMem => "tcp_mem",
        })
    }
}

/// How many connections a machine allows with a number of reactors, by each limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// By the fd tables.
    pub files: u64,
    /// By memory.
    pub memory: u64,
    /// By TCP buffers, if known.
    pub tcp_mem: Option<u64>,
}

impl Capacity {
    /// What `machine` allows with this many reactors.
    pub fn of(machine: &Machine, reactors: usize) -> Self {
        Self {
            files: by_files(machine.open_files, reactors),
            memory: machine.memory / Role::Server.bytes_each(),
            // A connection has a page, as in `sizing::tcp_pages`.
            tcp_mem: machine.tcp_pages,
        }
    }

    /// The smallest of them.
    pub fn connections(&self) -> u64 {
        self.files
            .min(self.memory)
            .min(self.tcp_mem.unwrap_or(u64::MAX))
    }

    /// Which of them it is.
    pub fn limited_by(&self) -> Limit {
        let least = self.connections();
        if self.files == least {
            Limit::Files
        } else if self.memory == least {
            Limit::Memory
        } else {
            Limit::TcpMem
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            files,
            memory,
            tcp_mem,
        } = self;
        write!(
            f,
            "this machine allows {} connections, limited by {}",
            self.connections(),
            self.limited_by()
        )?;
        write!(f, " (fds {files}, memory {memory}, tcp_mem ")?;
        match tcp_mem {
            Some(connections) => write!(f, "{connections})")?,
            None => write!(f, "not visible here)")?,
        }
        write!(f, "; {}", self.limited_by().remedy())
    }
}

/// Connections that the fd tables of `reactors` hold together, when each holds `open_files`; [`limits::MAX_CONNECTIONS`] at most.
fn by_files(open_files: u64, reactors: usize) -> u64 {
    let usable = open_files.saturating_sub(limits::reserved_files(reactors));
    // Seats grow with connections, so the most that fit are found by halving.
    let (mut fits, mut too_many) = (0, limits::MAX_CONNECTIONS + 1);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        if seats_each(middle, reactors) <= usable {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    fits
}

/// The least number of reactors whose tables hold `connections`, if there is one.
pub fn reactors_for(machine: &Machine, connections: u64) -> Option<usize> {
    (1..=limits::MAX_REACTORS)
        .find(|&reactors| by_files(machine.open_files, reactors) >= connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS_TEXT: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                               Max cpu time              unlimited            unlimited            seconds   \n\
                               Max open files            1024                 20000                files     \n";
    const MEMINFO_TEXT: &str =
        "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n";

    fn machine() -> Machine {
        Machine::parse(
            2,
            LIMITS_TEXT,
            MEMINFO_TEXT,
            Some("280000\t373000\t560000\n"),
        )
        .unwrap()
    }

    #[test]
    fn the_texts_of_proc_are_read() {
        let expected = Machine {
            cores: 2,
            open_files: 20_000,
            memory: 20_480_000_000,
            tcp_pages: Some(560_000),
        };
        assert_eq!(machine(), expected);
    }

    #[test]
    fn a_missing_tcp_mem_is_no_error_but_a_broken_text_is() {
        assert_eq!(
            Machine::parse(2, LIMITS_TEXT, MEMINFO_TEXT, None)
                .unwrap()
                .tcp_pages,
            None
        );
        for (limits, meminfo, tcp_mem) in [
            ("", MEMINFO_TEXT, None),
            ("Max open files few many files\n", MEMINFO_TEXT, None),
            (LIMITS_TEXT, "MemTotal: 5 kB", None),
            (LIMITS_TEXT, MEMINFO_TEXT, Some("1 2")),
        ] {
            let parsed = Machine::parse(2, limits, meminfo, tcp_mem);
            assert!(
                matches!(parsed, Err(CapacityError::Malformed(_))),
                "{limits:?} {meminfo:?} {tcp_mem:?}"
            );
        }
    }

    #[test]
    fn the_limit_of_a_control_group_is_read() {
        assert_eq!(most_memory("1073741824\n"), Some(1 << 30));
        assert_eq!(most_memory("max\n"), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(
            machine.cores > 0 && machine.open_files > 0 && machine.memory > 0,
            "{machine:?}"
        );
    }

    #[test]
    fn the_smallest_limit_is_named() {
        let few = Capacity::of(&machine(), 2);
        assert_eq!(few.limited_by(), Limit::Files);
        assert!((38_000..39_700).contains(&few.connections()), "{few:?}");
        let many = Capacity::of(&machine(), 100);
        assert_eq!(
            (many.limited_by(), many.connections()),
            (Limit::TcpMem, 560_000)
        );
        let unseen = Capacity::of(
            &Machine {
                tcp_pages: None,
                ..machine()
            },
            1000,
        );
        assert_eq!(
            (unseen.limited_by(), unseen.connections()),
            (Limit::Memory, 20_480_000_000 / 4_156)
        );
    }

    #[test]
    fn what_is_advised_suffices() {
        for connections in [1, 19_000, 40_000, 100_000, 1_000_000] {
            let reactors = reactors_for(&machine(), connections).unwrap();
            assert!(
                by_files(20_000, reactors) >= connections,
                "{connections} with {reactors}"
            );
            for reactors in [1, 2, 7, 64] {
                let files = open_files_for(connections, reactors);
                assert!(
                    by_files(files, reactors) >= connections
                        && by_files(files - 1, reactors) < connections,
                    "{connections} with {reactors} tables of {files}"
                );
            }
        }
        assert_eq!(reactors_for(&machine(), 1 << 40), None);
    }

    #[test]
    fn a_tiny_limit_allows_nothing_rather_than_wrapping() {
        for reactors in [1, 2, 1024] {
            assert_eq!(by_files(10, reactors), 0);
        }
    }
}
