//! Whether this machine can carry the load: found out before the first packet, with what is missing and what mends it.

use std::fmt;
use std::io;

use stillwire::limits;
use stillwire::sizing::{self, Role};
use stillwire::sys::capacity::{self, Capacity, Limit};

use crate::orders::FleetPlan;
use crate::sources::Sources;
use crate::units::{bytes, grouped};
use crate::{machine, sys};

/// What a ticket adds to a phone: 24 bytes, and the place of a token of 250 to 400 bytes.
const TICKET_BYTES: u64 = 24 + 416;

/// What a run needs.
#[derive(Clone, Debug)]
pub struct Need {
    /// Phones.
    pub phones: u32,
    /// Threads that hold them.
    pub threads: usize,
    /// Where they call from.
    pub sources: Sources,
    /// Addresses that they call; each has all the source ports to itself.
    pub targets: usize,
    /// The broker is on this machine, so its memory counts too.
    pub broker_here: bool,
    /// All phones may receive at once.
    pub broadcasts: bool,
    /// Connections of each thread to the lookup, if phones have tickets.
    pub tickets: Option<usize>,
}

impl Need {
    /// What a fleet needs.
    pub fn of(plan: &FleetPlan, broadcasts: bool) -> Self {
        Self {
            phones: plan.phones,
            threads: plan.threads,
            sources: plan.sources.clone(),
            targets: plan.targets.len(),
            broker_here: plan.targets.iter().any(|target| target.ip().is_loopback()),
            broadcasts,
            tickets: plan.tickets.as_ref().map(|tickets| tickets.concurrency),
        }
    }
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
        /// Phones that fit.
        fit: u64,
    },
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Files { need, have } => write!(
                f,
                "open files: a thread needs {}, the limit is {}; leave `threads` out of the scenario file, or `ulimit -n {need}`",
                grouped(need),
                grouped(have)
            ),
            Self::Ports { need, have } => write!(
                f,
                "source ports: {} phones, {} ports; name more addresses of this machine as `source` \
                 in the scenario file, or `sysctl -w net.ipv4.ip_local_port_range='10000 65000'`",
                grouped(need),
                grouped(have)
            ),
            Self::TcpBuffers { need, have } => {
                let [low, pressure, most] = sizing::tcp_mem(need / sys::page_size());
                write!(
                    f,
                    "TCP buffers: {} for all to receive at once, tcp_mem leaves {}; `sysctl -w net.ipv4.tcp_mem='{low} {pressure} {most}'`",
                    bytes(need as f64),
                    bytes(have as f64)
                )
            }
            Self::Memory { need, have, fit } => {
                write!(
                    f,
                    "memory: {} needed, {} available; `--connections {fit}` fits, or put the broker on another machine",
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
        let table = self
            .open_files
            .saturating_sub(limits::LOADGEN_FILES_BESIDE)
            .max(1);
        (u64::from(phones).div_ceil(table) as usize).max(self.cores.min(phones.max(1) as usize))
    }

    /// What is missing for that need; nothing, and the run may begin.
    pub fn check(&self, need: &Need) -> Vec<Shortage> {
        let phones = u64::from(need.phones);
        let mut shortages = Vec::new();
        let lookup = need.tickets.unwrap_or(0) as u64;
        let files = sizing::open_files_for_phones(phones, need.threads) + lookup;
        if files > self.open_files {
            shortages.push(Shortage::Files {
                need: files,
                have: self.open_files,
            });
        }
        let ports = self.ports_for(need);
        if phones > ports {
            shortages.push(Shortage::Ports {
                need: phones,
                have: ports,
            });
        }
        let buffers = sizing::tcp_pages(phones) * sys::page_size();
        if need.broadcasts && buffers > self.tcp_buffers {
            shortages.push(Shortage::TcpBuffers {
                need: buffers,
                have: self.tcp_buffers,
            });
        }
        let tickets = if need.tickets.is_some() {
            TICKET_BYTES
        } else {
            0
        };
        let each = Self::bytes_per_phone(need.broker_here) + tickets;
        if phones * each > self.memory {
            shortages.push(Shortage::Memory {
                need: phones * each,
                have: self.memory,
                fit: self.memory / each,
            });
        }
        shortages
    }

    /// Phones that the source ports carry.
    fn ports_for(&self, need: &Need) -> u64 {
        let targets = need.targets.max(1) as u64;
        if need.sources != Sources::Loopback {
            return need.sources.capacity(self.ports) * targets;
        }
        // Addresses are there as needed, but each is given to so many phones.
        let each = u64::from(need.phones.min(need.sources.each()));
        let ports = u64::from(self.ports) * targets;
        if ports >= each {
            u64::MAX
        } else {
            u64::from(need.phones).div_ceil(each.max(1)) * ports
        }
    }

    /// By the same sums as the server's.
    fn bytes_per_phone(broker_here: bool) -> u64 {
        if broker_here {
            Role::Both.bytes_each()
        } else {
            Role::Loadgen.bytes_each()
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
            targets: 1,
            broker_here: true,
            broadcasts: true,
            tickets: None,
        }
    }

    #[test]
    fn tickets_count() {
        let without = need(39_600, 2, Sources::Loopback);
        assert_eq!(MACHINE.check(&without), []);
        let with = |concurrency, memory| {
            let machine = Machine { memory, ..MACHINE };
            machine.check(&Need {
                tickets: Some(concurrency),
                ..without.clone()
            })
        };
        assert_eq!(with(16, MACHINE.memory), []);
        let files = Shortage::Files {
            need: 19_800 + 128 + 100,
            have: 20_000,
        };
        assert_eq!(with(100, MACHINE.memory), [files]);
        let memory = 39_600 * Machine::bytes_per_phone(true);
        assert!(matches!(with(16, memory)[..], [Shortage::Memory { .. }]));
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

    /// As it was measured on 24 GB: 2,000,000 pairs take 15.8 GB of kernel memory, and the server and the phones some of their own.
    #[test]
    fn millions_are_weighed_as_they_were_measured() {
        let idle = |phones| Need {
            broadcasts: false,
            ..need(phones, MACHINE.threads_for(phones), Sources::Loopback)
        };
        assert_eq!(MACHINE.check(&idle(1_000_000)), []);
        assert_eq!(MACHINE.threads_for(1_000_000), 51);
        assert_eq!(MACHINE.check(&idle(2_000_000)), []);
        let [
            Shortage::Memory {
                need: bytes, fit, ..
            },
        ] = MACHINE.check(&idle(3_000_000))[..]
        else {
            panic!("{:?}", MACHINE.check(&idle(3_000_000)));
        };
        assert!((24_000_000_000..25_000_000_000).contains(&bytes), "{bytes}");
        assert!((2_000_000..3_000_000).contains(&fit), "{fit}");
        // To all at once: a page each, and the command gives as much.
        let all = need(1_000_000, 51, Sources::Loopback);
        let shortages = MACHINE.check(&all);
        assert_eq!(shortages.len(), 1);
        assert!(
            shortages[0]
                .to_string()
                .contains("net.ipv4.tcp_mem='625000 937500 1250000'"),
            "{}",
            shortages[0]
        );
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
            "ulimit -n",
            "`source`",
            "sysctl -w net.ipv4.tcp_mem",
            "--connections 128",
        ]) {
            assert!(text.contains(fix), "{text}");
        }
    }

    #[test]
    fn a_small_port_range_is_noticed_on_loopback_too() {
        let few = Machine {
            ports: 4_000,
            ..MACHINE
        };
        assert_eq!(few.check(&need(4_000, 2, Sources::Loopback)), []);
        assert_eq!(
            few.check(&need(50_000, 3, Sources::Loopback)),
            [Shortage::Ports {
                need: 50_000,
                have: 40_000
            }]
        );
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
            fit.limit == Some(Limit::Memory) && fit.phones < 7000 && fit.phones > 1000,
            "{fit:?}"
        );
    }
}
