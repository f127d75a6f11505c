//! `tools host-eval`: what a host is good for, before a hundred of its kind are rented, and when one behaves oddly.
//!
//! | file | what it measures |
//! |---|---|
//! | `disk` | fio: random reads and writes, streams, fdatasync |
//! | `core` | memory latency, a system call, a switch between threads, a wake-up on another core |
//! | `tcp` | connects and messages over loopback |
//! | `jitter` | how late a sleeper wakes on each core, and time that the hypervisor has taken |
//! | `network` | the same towards another host, which runs `--serve` |
//! | `compare` | several reports side by side, as a table, charts and a page |
//!
//! A report says what was measured, and what follows for this server: connections by memory, by steady load, by the storm, and the least of them.

mod compare;
mod core;
mod disk;
mod jitter;
mod network;
mod tcp;

use std::fmt::{self, Write as _};
use std::io;

use serde::{Deserialize, Serialize};
use stillwire::limits;
use stillwire::sizing::Role;

use crate::cli::{HostCommand, HostEval};

pub(crate) use disk::DiskError;

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) host: String,
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    /// Processes that ran or wanted to when it began: above a core or so, the figures tell of them too.
    pub(crate) load_before: f64,
    /// What it costs a month, in whatever currency, if it was told.
    pub(crate) price: Option<f64>,
    pub(crate) disk: Option<disk::Disk>,
    pub(crate) core: core::Core,
    pub(crate) tcp: tcp::Tcp,
    pub(crate) jitter: jitter::Jitter,
    pub(crate) network: Option<network::Network>,
    pub(crate) carries: Carries,
}

/// Connections that follow from it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Carries {
    /// By memory, a tenth left free.
    pub(crate) by_memory: u64,
    /// By the steady load of a phone on half of all cores.
    pub(crate) by_load: u64,
    /// By the storm: all back within a minute on all cores.
    pub(crate) by_storm: u64,
    /// The least of them.
    pub(crate) connections: u64,
    /// The price for a million of them.
    pub(crate) price_per_million: Option<f64>,
}

/// What a phone does in a second when nothing is wrong: 0.1 % reconnect, a message in 500 s, a ping in 300.
const CONNECTS: f64 = 0.001;
const MESSAGES: f64 = 1.0 / 500.0 + 1.0 / 300.0;

impl Carries {
    /// By what a connect and a message cost on loopback, which is both ends and so more than a server's part; its user space comes in for it.
    fn of(cores: usize, memory: u64, tcp: &tcp::Tcp, price: Option<f64>) -> Self {
        let cores = cores as f64;
        let by_memory = memory * 9 / 10 / Role::Server.bytes_each();
        let each = CONNECTS * tcp.connect_cpu_micros + MESSAGES * tcp.message_cpu_micros;
        let by_load = (cores * 0.5 * 1e6 / each) as u64;
        let storm = limits::STORM_SECONDS as f64 * 1e6;
        let by_storm = (cores * storm / tcp.connect_cpu_micros) as u64;
        let connections = by_memory.min(by_load).min(by_storm);
        Self {
            by_memory,
            by_load,
            by_storm,
            connections,
            price_per_million: price.map(|price| price * 1e6 / connections.max(1) as f64),
        }
    }
}

/// Why there is no report.
#[derive(Debug)]
pub(crate) enum HostError {
    Disk(DiskError),
    Io(&'static str, io::Error),
    Report(String),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Report(what) => f.write_str(what),
        }
    }
}

/// Does what was asked; the text is for standard output.
pub(crate) fn run(args: &HostEval) -> Result<String, HostError> {
    match &args.command {
        Some(HostCommand::Compare(compare)) => compare::run(compare),
        None => match args.serve {
            Some(address) => network::serve(address)
                .map(|()| String::new())
                .map_err(|error| HostError::Io("--serve", error)),
            None => evaluate(args),
        },
    }
}

fn evaluate(args: &HostEval) -> Result<String, HostError> {
    let failed = |what| move |error| HostError::Io(what, error);
    let load_before = loadgen::machine::load();
    let said = |what: &str| eprintln!("host-eval: {what}");
    let disk = if args.no_disk {
        None
    } else {
        said("disk, 50 s at most");
        Some(disk::measure(args).map_err(HostError::Disk)?)
    };
    said("memory and calls");
    let core = core::measure().map_err(failed("memory and calls"))?;
    said("TCP over loopback");
    let tcp = tcp::measure().map_err(failed("TCP over loopback"))?;
    said("jitter");
    let jitter = jitter::measure(args.jitter).map_err(failed("jitter"))?;
    let network = match args.peer {
        None => None,
        Some(peer) => {
            said("network");
            Some(network::measure(peer).map_err(failed("--peer"))?)
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_bytes = loadgen::machine::installed().map_err(failed("/proc/meminfo"))?;
    let read = |path| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let cpus = read("/proc/cpuinfo");
    let cpu = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let report = Report {
        host: args
            .name
            .clone()
            .unwrap_or_else(|| read("/proc/sys/kernel/hostname")),
        date: loadgen::machine::today(),
        machine: loadgen::machine::describe(),
        cpu: cpu
            .map_or("unknown", |text| text.trim_start_matches([' ', '\t', ':']))
            .to_owned(),
        cores,
        memory_bytes,
        load_before,
        price: args.price,
        carries: Carries::of(cores, memory_bytes, &tcp, args.price),
        disk,
        core,
        tcp,
        jitter,
        network,
    };
    let json = serde_json::to_string_pretty(&report)
        .map_err(|error| HostError::Report(error.to_string()))?;
    if let Some(path) = &args.out {
        std::fs::write(path, json + "\n").map_err(failed("--out"))?;
    } else if args.json {
        return Ok(json + "\n");
    }
    Ok(report.to_string())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        writeln!(
            out,
            "{}, {}: {}; {}; load {:.1} before",
            self.host, self.date, self.machine, self.cpu, self.load_before
        )?;
        for figure in FIGURES {
            if let Some(value) = (figure.of)(self) {
                writeln!(out, "{:<44} {:>12}", figure.name, figure.show(value))?;
            }
        }
        f.write_str(&out)
    }
}

/// A figure of a report, for text, table and chart.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: loadgen::chart::axis::Unit,
    /// More is better.
    pub(crate) more: bool,
    pub(crate) of: fn(&Report) -> Option<f64>,
}

use loadgen::chart::axis::Unit;

const fn figure(
    name: &'static str,
    unit: Unit,
    more: bool,
    of: fn(&Report) -> Option<f64>,
) -> Figure {
    Figure {
        name,
        unit,
        more,
        of,
    }
}

impl Figure {
    /// A value as a reader wants it.
    fn show(&self, value: f64) -> String {
        if self.unit == Unit::Micros && value < 1.0 {
            format!("{:.1} ns", value * 1e3)
        } else {
            self.unit.show(value)
        }
    }
}

/// All of them, in the order of the table.
pub(crate) const FIGURES: &[Figure] = &[
    figure("connections it carries", Unit::Count, true, |r| {
        Some(r.carries.connections as f64)
    }),
    figure("by memory", Unit::Count, true, |r| {
        Some(r.carries.by_memory as f64)
    }),
    figure("by steady load", Unit::Count, true, |r| {
        Some(r.carries.by_load as f64)
    }),
    figure("by a storm within a minute", Unit::Count, true, |r| {
        Some(r.carries.by_storm as f64)
    }),
    figure("price of a million", Unit::Count, false, |r| {
        r.carries.price_per_million
    }),
    figure("connect, CPU of both ends", Unit::Micros, false, |r| {
        Some(r.tcp.connect_cpu_micros)
    }),
    figure("connects a second", Unit::Count, true, |r| {
        Some(r.tcp.connects_per_second)
    }),
    figure("message, CPU of both ends", Unit::Micros, false, |r| {
        Some(r.tcp.message_cpu_micros)
    }),
    figure("messages a second", Unit::Count, true, |r| {
        Some(r.tcp.messages_per_second)
    }),
    figure("message there and back, p99", Unit::Micros, false, |r| {
        Some(r.tcp.round_trip_p99_micros)
    }),
    figure("system call", Unit::Micros, false, |r| {
        Some(r.core.call_nanos / 1e3)
    }),
    figure("switch between threads", Unit::Micros, false, |r| {
        Some(r.core.switch_micros)
    }),
    figure("wake-up on another core", Unit::Micros, false, |r| {
        r.core.wake_micros
    }),
    figure("memory, cache line in 32 KB", Unit::Micros, false, |r| {
        r.core.chase("32 KB")
    }),
    figure("memory, cache line in 1 MB", Unit::Micros, false, |r| {
        r.core.chase("1 MB")
    }),
    figure("memory, cache line in 16 MB", Unit::Micros, false, |r| {
        r.core.chase("16 MB")
    }),
    figure("memory, cache line in 256 MB", Unit::Micros, false, |r| {
        r.core.chase("256 MB")
    }),
    figure("late wake-up, p99", Unit::Micros, false, |r| {
        Some(r.jitter.p99_micros)
    }),
    figure("late wake-up, the latest", Unit::Micros, false, |r| {
        Some(r.jitter.most_micros)
    }),
    figure("time stolen by the hypervisor", Unit::Percent, false, |r| {
        Some(r.jitter.steal_percent)
    }),
    figure("disk, random reads a second", Unit::Count, true, |r| {
        r.disk.as_ref().map(|d| d.random_read.per_second)
    }),
    figure("disk, random read p99", Unit::Micros, false, |r| {
        r.disk.as_ref().map(|d| d.random_read.p99_micros)
    }),
    figure("disk, random writes a second", Unit::Count, true, |r| {
        r.disk.as_ref().map(|d| d.random_write.per_second)
    }),
    figure("disk, random write p99", Unit::Micros, false, |r| {
        r.disk.as_ref().map(|d| d.random_write.p99_micros)
    }),
    figure("disk, stream read a second", Unit::Bytes, true, |r| {
        r.disk.as_ref().map(|d| d.stream_read.bytes_per_second)
    }),
    figure("disk, stream write a second", Unit::Bytes, true, |r| {
        r.disk.as_ref().map(|d| d.stream_write.bytes_per_second)
    }),
    figure("disk, fdatasync p50", Unit::Micros, false, |r| {
        r.disk.as_ref().map(|d| d.sync_p50_micros)
    }),
    figure("disk, fdatasync p99", Unit::Micros, false, |r| {
        r.disk.as_ref().map(|d| d.sync_p99_micros)
    }),
    figure("network, there and back, p50", Unit::Micros, false, |r| {
        r.network.as_ref().map(|n| n.round_trip_p50_micros)
    }),
    figure("network, there and back, p99", Unit::Micros, false, |r| {
        r.network.as_ref().map(|n| n.round_trip_p99_micros)
    }),
    figure("network, connects a second", Unit::Count, true, |r| {
        r.network.as_ref().map(|n| n.connects_per_second)
    }),
    figure("network, bytes a second", Unit::Bytes, true, |r| {
        r.network.as_ref().map(|n| n.bytes_per_second)
    }),
];

/// The value below which a share of all is.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
impl Report {
    /// For tests.
    fn made_up(host: &str, memory_bytes: u64, connect: f64, price: Option<f64>) -> Self {
        let tcp = tcp::Tcp {
            connects_per_second: 1e6 / connect,
            connect_cpu_micros: connect,
            messages_per_second: 5e4,
            message_cpu_micros: 10.0,
            round_trip_p50_micros: 20.0,
            round_trip_p99_micros: 40.0,
        };
        Self {
            host: host.to_owned(),
            date: "2026-11-30".to_owned(),
            machine: "4 cores".to_owned(),
            cpu: "a CPU".to_owned(),
            cores: 4,
            memory_bytes,
            load_before: 0.1,
            price,
            disk: None,
            carries: Carries::of(4, memory_bytes, &tcp, price),
            core: core::Core {
                call_nanos: 100.0,
                switch_micros: 2.0,
                wake_micros: None,
                chases: Vec::new(),
            },
            tcp,
            jitter: jitter::Jitter {
                seconds: 1.0,
                steal_percent: 0.0,
                p50_micros: 50.0,
                p99_micros: 90.0,
                most_micros: 400.0,
                over_a_milli: 0,
            },
            network: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_three_limits_is_what_a_host_carries() {
        let small = Report::made_up("small", 4 << 30, 40.0, Some(50.0)).carries;
        assert_eq!(small.connections, small.by_memory);
        assert_eq!(small.by_memory, (4u64 << 30) * 9 / 10 / 4156);
        let price = small.price_per_million.unwrap();
        assert!((price - 50.0 * 1e6 / small.connections as f64).abs() < 1e-6);
        let slow = Report::made_up("slow", 256 << 30, 100.0, None).carries;
        assert_eq!((slow.connections, slow.by_storm), (2_400_000, 2_400_000));
        assert_eq!(slow.price_per_million, None);
    }

    #[test]
    fn a_report_survives_its_file() {
        let report = Report::made_up("a", 8 << 30, 40.0, None);
        let text = serde_json::to_string(&report).unwrap();
        let again: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
        assert!(again.to_string().contains("connections it carries"));
    }
}
