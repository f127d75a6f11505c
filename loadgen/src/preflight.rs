//! Whether this machine can carry the load: found out before the first packet, with what is missing and what mends it.

use std::fmt;
use std::io;

use stillwire::limits;
use stillwire::sys::capacity::{self, Capacity, Limit};

use crate::sources::Sources;
use crate::units::{bytes, grouped};
use crate::{machine, sys};

/// Descriptors of a table that are not phones: standard streams, pollers, listeners that were copied, a reserve.
const OTHER_FILES: u64 = 128;

/// User-space bytes of a phone in the generator: itself, its line in the ledger, and what a histogram or a heap adds.
const PHONE_BYTES: u64 = 128;

/// Kernel bytes of one end of a connection, as measured on Linux 6.18 over loopback.
const KERNEL_BYTES: u64 = 4096;

/// User-space bytes that a broker on this machine may take for a connection before memory gets short; a lean one takes far less.
const BROKER_BYTES: u64 = 2048;

/// What a run needs.
#[derive(Clone, Debug)]
pub struct Need {
    /// Phones.
    pub phones: u32,
    /// Threads that hold them.
    pub threads: usize,
    /// Where they call from.
    pub sources: Sources,
    /// The broker is on this machine, so its memory counts too.
    pub broker_here: bool,
}

/// What the machine has.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Open files of one table.
    pub open_files: u64,
    /// Local ports of one address.
    pub ports: u32,
    /// Bytes that TCP buffers may hold before the kernel takes sockets away, less what they hold now.
    pub tcp_buffers: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Cores this process may use.
    pub cores: usize,
}

/// Something that the machine hasn't enough of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Open files.
    Files {
        /// Needed in one table.
        need: u64,
        /// The limit.
        have: u64,
    },
    /// Source ports.
    Ports {
        /// Phones.
        need: u64,
        /// Ports on the source addresses.
        have: u64,
    },
    /// TCP buffers: one page a phone, for when all receive at once.
    TcpBuffers {
        /// Bytes.
        need: u64,
        /// Bytes.
        have: u64,
    },
    /// Memory.
    Memory {
        /// Bytes.
        need: u64,
        /// Bytes.
        have: u64,
    },
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Files { need, have } => write!(
                f,
                "open files: a thread needs {}, the limit is {}; use more --threads, or `ulimit -n {need}`",
                grouped(need),
                grouped(have)
            ),
            Self::Ports { need, have } => write!(
                f,
                "source ports: {} phones, {} ports; name more addresses of this machine with --source, \
                 or `sysctl -w net.ipv4.ip_local_port_range='10000 65000'`",
                grouped(need),
                grouped(have)
            ),
            Self::TcpBuffers { need, have } => {
                let pages = need / sys::page_size() * 5 / 4;
                write!(
                    f,
                    "TCP buffers: {} for all to receive at once, tcp_mem leaves {}; `sysctl -w net.ipv4.tcp_mem='{} {} {pages}'`",
                    bytes(need as f64),
                    bytes(have as f64),
                    pages / 2,
                    pages * 3 / 4
                )
            }
            Self::Memory { need, have } => {
                write!(
                    f,
                    "memory: {} needed, {} available; use fewer --connections",
                    bytes(need as f64),
                    bytes(have as f64)
                )
            }
        }
    }
}

impl Machine {
    /// Reads it, and raises the soft limit on open files to the hard one.
    pub fn read() -> io::Result<Self> {
        let open_files = stillwire::sys::rlimit::raise_open_files()?;
        let range = machine::sysctl("net/ipv4/ip_local_port_range")?;
        let ports = match range[..] {
            [low, high] => high.saturating_sub(low) as u32 + 1,
            _ => 28_232,
        };
        // Not there in a network namespace of one's own: then nobody knows, and the first namespace's limit holds.
        let tcp_mem = machine::sysctl("net/ipv4/tcp_mem")
            .ok()
            .and_then(|limits| limits.get(2).copied());
        Ok(Self {
            open_files,
            ports,
            tcp_buffers: tcp_mem
                .map_or(u64::MAX, |pages| pages * sys::page_size())
                .saturating_sub(machine::tcp_buffers()?),
            memory: machine::available()?,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// How many threads hold so many phones: one a core, more if their tables would be too small.
    pub fn threads_for(&self, phones: u32) -> usize {
        let table = self.open_files.saturating_sub(OTHER_FILES).max(1);
        (u64::from(phones).div_ceil(table) as usize).max(self.cores.min(phones.max(1) as usize))
    }

    /// What is missing for that need; nothing, and the run may begin.
    pub fn check(&self, need: &Need) -> Vec<Shortage> {
        let phones = u64::from(need.phones);
        let mut shortages = Vec::new();
        let files = phones.div_ceil(need.threads.max(1) as u64) + OTHER_FILES;
        if files > self.open_files {
            shortages.push(Shortage::Files {
                need: files,
                have: self.open_files,
            });
        }
        let ports = need.sources.capacity(self.ports);
        if phones > ports {
            shortages.push(Shortage::Ports {
                need: phones,
                have: ports,
            });
        }
        let buffers = phones * sys::page_size();
        if buffers > self.tcp_buffers {
            shortages.push(Shortage::TcpBuffers {
                need: buffers,
                have: self.tcp_buffers,
            });
        }
        let memory = phones * Self::bytes_per_phone(need.broker_here);
        if memory > self.memory {
            shortages.push(Shortage::Memory {
                need: memory,
                have: self.memory,
            });
        }
        shortages
    }

    fn bytes_per_phone(broker_here: bool) -> u64 {
        PHONE_BYTES
            + KERNEL_BYTES
            + if broker_here {
                KERNEL_BYTES + BROKER_BYTES
            } else {
                0
            }
    }

    /// How many of the phones that are wished for fit beside a broker in this process, and with how many reactors: one a core, or as many
    /// as it takes to hold them in tables of this size.
    pub fn fit(&self, wish: u32) -> Fit {
        let server = capacity::Machine {
            cores: self.cores,
            open_files: self.open_files,
            memory: self.memory,
            tcp_pages: Some(self.tcp_buffers / sys::page_size()),
        };
        let all = u64::from(wish) + BESIDES;
        let reactors = capacity::reactors_for(&server, all)
            .unwrap_or(limits::MAX_REACTORS)
            .max(self.cores);
        let here = Capacity::of(&server, reactors);
        let beside = self.memory * 3 / 4 / Self::bytes_per_phone(true);
        let (most, limit) = if beside < here.connections() {
            (beside, Limit::Memory)
        } else {
            (here.connections(), here.limited_by())
        };
        let phones = u64::from(wish).min(most.saturating_sub(BESIDES)) as u32;
        Fit {
            phones,
            reactors,
            limit: (phones < wish).then_some(limit),
        }
    }

    /// Leaves room in each table for the descriptors of so many reactors, which it gets a copy of.
    pub fn beside_reactors(&mut self, reactors: usize) {
        self.open_files = self
            .open_files
            .saturating_sub(limits::reserved_files(reactors));
    }
}

/// What [`Machine::fit`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Phones.
    pub phones: u32,
    /// Reactors of the server beside them.
    pub reactors: usize,
    /// What keeps it from being all.
    pub limit: Option<Limit>,
}

/// Connections of a demo besides its phones: the publisher's, and one that knocks.
pub const BESIDES: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine {
        open_files: 20_000,
        ports: 28_232,
        tcp_buffers: 2 << 30,
        memory: 20 << 30,
        cores: 2,
    };

    fn need(phones: u32, threads: usize, sources: Sources) -> Need {
        Need {
            phones,
            threads,
            sources,
            broker_here: true,
        }
    }

    #[test]
    fn what_fits_passes() {
        assert_eq!(
            MACHINE.check(&need(
                200_000,
                MACHINE.threads_for(200_000),
                Sources::Loopback
            )),
            []
        );
        assert_eq!(MACHINE.threads_for(100), 2);
        assert_eq!(MACHINE.threads_for(1), 1);
        assert_eq!(MACHINE.threads_for(200_000), 11);
    }

    #[test]
    fn each_shortage_names_its_fix() {
        let small = Machine {
            tcp_buffers: 1 << 20,
            memory: 1 << 20,
            ..MACHINE
        };
        let shortages = small.check(&need(50_000, 2, Sources::Kernel));
        let texts: Vec<String> = shortages.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 4);
        for (text, fix) in texts.iter().zip([
            "--threads",
            "--source",
            "sysctl -w net.ipv4.tcp_mem",
            "--connections",
        ]) {
            assert!(text.contains(fix), "{text}");
        }
    }

    #[test]
    fn the_demo_fits_itself_in() {
        assert_eq!(
            MACHINE.fit(15_000),
            Fit {
                phones: 15_000,
                reactors: 2,
                limit: None
            }
        );
        let few_files = Machine {
            open_files: 1024,
            ..MACHINE
        };
        let fit = few_files.fit(15_000);
        assert!(fit.limit.is_none() && fit.reactors > 15, "{fit:?}");
        let little_memory = Machine {
            memory: 64 << 20,
            ..MACHINE
        };
        let fit = little_memory.fit(15_000);
        assert!(
            fit.limit == Some(Limit::Memory) && fit.phones < 6000 && fit.phones > 1000,
            "{fit:?}"
        );
    }
}
