//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use loadgen::units;
use stillwire::sys::capacity;

use crate::bench::Load;
use crate::broker::BESIDES;
use crate::crash;
use crate::durable;
use crate::peers::Peer;

/// Tools around Stillwire.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure what a connection, a delivery and a message cost the server: memory, and CPU of its process
    Measure(Measure),
    /// A bare epoll server that does only what nobody can leave out: the limit of the machine
    Floor(Floor),
    /// Measure what connections cost that do nothing but ping, beside the floor
    Idle(Idle),
    /// Measure other brokers beside Stillwire and the floor, and write a table and a chart
    Peers(Peers),
    /// Look into what a server has stored; nothing is changed, and the server may run
    #[command(subcommand)]
    Store(Store),
    /// Kill the server under load, again and again, and look for every message that it had acknowledged
    Crash(Crash),
    /// Restart the server under all its phones, which come back without tickets, without pacing and with it
    Storm(Storm),
    /// Measure sessions that are away, messages that wait for them, restarts, and their return, on Stillwire and other brokers
    Durable(Durable),
    /// Measure what a host is good for, and compare hosts: how many connections each carries, at what cost a million
    HostEval(HostEval),
    /// Measure what kernel settings give, on and off in turns, in a network namespace of its own
    Knobs(Knobs),
    /// Measure how many tickets the lookup gives, and how fast while the reactors are busy
    Lookup(Lookup),
}

/// `tools host-eval`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Between two hosts: `tools host-eval --serve 0.0.0.0:7000` on one, `tools host-eval --peer ADDR:7000` on the other.
Exit codes: 0 measured; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct HostEval {
    #[command(subcommand)]
    pub(crate) command: Option<HostCommand>,
    /// Where the disk is measured: where the data directory will be
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Leave the disk out, for which fio is needed
    #[arg(long)]
    pub(crate) no_disk: bool,
    /// Install fio if it isn't there (Debian, root)
    #[arg(long, conflicts_with = "no_disk")]
    pub(crate) install_fio: bool,
    /// How long to watch for jitter and stolen time
    #[arg(long, default_value = "1m", value_parser = units::duration)]
    pub(crate) jitter: std::time::Duration,
    /// Another host that runs with --serve
    #[arg(long)]
    pub(crate) peer: Option<SocketAddr>,
    /// Answer another host's --peer at this address, until it is killed, and measure nothing
    #[arg(long, conflicts_with_all = ["peer", "out", "json"])]
    pub(crate) serve: Option<SocketAddr>,
    /// What the host costs a month
    #[arg(long)]
    pub(crate) price: Option<f64>,
    /// What to call it; by default its host name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Write the report to this file, as JSON
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Write JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tools host-eval compare`.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Reports side by side, as a table
    Compare(Compare),
}

/// Its flags.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Reports of host-eval; ratios are to the first
    #[arg(required = true)]
    pub(crate) reports: Vec<PathBuf>,
    /// Write a page with the table and charts
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Write the chart
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
}

/// `tools knobs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Needs root, unshare and ip; nft (nftables) for connection tracking. Some 8 minutes; figures are medians, and ratios hold where absolute figures don't.
Exit codes: 0 measured; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Knobs {
    /// Only these trials
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// How often each setting has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Write JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// It is in its namespace
    #[arg(long, hide = true)]
    pub(crate) inside: bool,
    /// A load by itself
    #[arg(long, hide = true)]
    pub(crate) body: Option<String>,
}

/// `tools lookup`.
#[derive(Debug, Args)]
#[command(
    after_help = "The server is started and ended by this command, with a key that signs HS256 tokens. With --saturate clients connect, subscribe and publish \
meanwhile, as many as the reactors take; they have the lowest priority, and the thread that measures the highest that it is given (as root, real time).
Exit codes: 0 measured; 1 some questions got no ticket; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Lookup {
    /// Questions as fast as they are answered, in the first part
    #[arg(long, default_value = "200k", value_parser = units::count)]
    pub(crate) requests: u64,
    /// Connections that ask them
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) connections: u32,
    /// Questions a second, in the second part
    #[arg(long, default_value = "500", value_parser = units::count)]
    pub(crate) rate: u64,
    /// Seconds of the second part
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Keep the reactors busy meanwhile
    #[arg(long)]
    pub(crate) saturate: bool,
    /// Reactors of the server
    #[arg(long, default_value_t = 2)]
    pub(crate) reactors: usize,
    /// The server's binary; by default it is built, and taken from beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Write JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tools store`.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// What is in it: segments, sessions, messages, retained messages, and how much of the logs they need
    Inspect(Inspect),
    /// Its records, a line of JSON each, in the order of the logs; also those that are over and not yet cleaned away
    Dump(Dump),
    /// Check every checksum and every reference
    Verify(Verify),
}

/// `tools store inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The server's data directory, or the directory of one log
    pub(crate) dir: PathBuf,
    /// Write JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tools store dump`.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// The server's data directory, or the directory of one log
    pub(crate) dir: PathBuf,
    /// Only records of this session: its client identifier, or its number in the log
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Only messages and retained messages of this topic
    #[arg(long)]
    pub(crate) topic: Option<String>,
}

/// `tools store verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all is well; 1 damage, each place on a line; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Verify {
    /// The server's data directory, or the directory of one log
    pub(crate) dir: PathBuf,
}

/// `tools durable`.
#[derive(Debug, Args)]
#[command(
    after_help = "One run for each broker, durability and number of sessions: sessions begin and leave, messages are queued for them one by one and to all, the broker \
is killed (mosquitto: asked to end) and started again, and all phones come back at once for what is theirs and stay. Memory is the process's own (no pages of files); \
the log's size goes in steps of a segment, so small runs overstate it.
The storm: `tools durable --sessions 200k --messages 10`. Growth: `tools durable --sessions 100k,300k,1m --messages 0 --broadcasts 0`, and `--sessions 10k \
--messages 10`, 100, 1000. Five million: `--sessions 5m --messages 0 --broadcasts 0 --no-return`. \
They take minutes to make: with `--keep DIR` that is done once, and each further run measures the restart alone. Peers: `--broker stillwire,mosquitto,nats-server --sessions 1k`.
Exit codes: 0 measured; 1 messages or sessions were lost, doubled or out of order, or a broker didn't get to the end; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Durable {
    /// How many sessions, or several numbers, one run each
    #[arg(long, short = 'n', default_value = "10k", value_delimiter = ',', value_parser = units::phones)]
    pub(crate) sessions: Vec<u32>,
    /// Subscriptions of a session: its own topic, one of all sessions, and others
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) subscriptions: u32,
    /// The others are topics that no other session has, instead of eight of a thousand
    #[arg(long)]
    pub(crate) own_topics: bool,
    /// Messages queued for each session alone
    #[arg(long, short, default_value_t = 10)]
    pub(crate) messages: u32,
    /// Messages to all sessions
    #[arg(long, default_value_t = 3)]
    pub(crate) broadcasts: u32,
    /// QoS of messages and subscriptions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) qos: u8,
    /// Connects under way at the same time
    #[arg(long, default_value_t = 500)]
    pub(crate) at_once: usize,
    /// Nobody comes back: the run ends with the restart
    #[arg(long)]
    pub(crate) no_return: bool,
    /// Reactors of the server; more if the limit of open files asks for them
    #[arg(long, default_value_t = 1)]
    pub(crate) reactors: usize,
    /// Which durability of the server
    #[arg(long, value_enum, default_value_t = Durability::Process)]
    pub(crate) durability: Durability,
    /// Which brokers, separated by commas; without it Stillwire
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) broker: Vec<durable::Broker>,
    /// The server's binary; by default it is built, and taken from beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Where the data directories are for the time of a run; by default in the temporary directory
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Make the sessions in this directory and leave them there; where an earlier run has, only the restart is measured
    #[arg(long, requires = "no_return", conflicts_with = "broker")]
    pub(crate) keep: Option<PathBuf>,
    /// Write JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// What is acknowledged survives the death of the process.
    Process,
    /// It survives power loss.
    Disk,
    /// One run with each.
    Both,
}

impl Durability {
    /// As the server's configuration has them.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Process => &["process"],
            Self::Disk => &["disk"],
            Self::Both => &["process", "disk"],
        }
    }
}

/// `tools storm`.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Three runs, each with a server of its own, which is killed when all phones are connected. Their reports and the table go to files; `loadgen merge FILE --html` \
makes a page of a report. A quick look: `tools storm -n 10k`.
Exit codes: 0 all phones came back each time; 1 they didn't; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Storm {
    /// How many phones; by default as in the scenario
    #[arg(long, short = 'n', value_parser = units::phones)]
    pub(crate) connections: Option<u32>,
    /// Connects a second the first time; by default as in the scenario
    #[arg(long, short, value_parser = units::rate)]
    pub(crate) rate: Option<f64>,
    /// Another scenario than loadgen/scenarios/storm-tickets.toml
    #[arg(long, short)]
    pub(crate) scenario: Option<PathBuf>,
    /// Reactors of the server; by default 2, or as many as the limit of open files asks for
    #[arg(long)]
    pub(crate) reactors: Option<usize>,
    /// The server's binary; by default it is built, and taken from beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Where the data directory is for the time of a run; by default in the temporary directory
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Where the reports and storm-tickets.md go; by default tools/runs/ and the date
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

impl Storm {
    /// How many reactors hold so many phones.
    pub(crate) fn reactors(&self, phones: u32) -> usize {
        let server = Server {
            reactors: self.reactors,
            ..Server::default()
        };
        server.reactors(phones)
    }
}

/// `tools crash`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every server has its own clients, of MQTT 3.1.1 and 5, with durable sessions and without, and is killed at a moment that the seed draws: after so many \
acknowledgements, bytes, deliveries or returning clients, or while it starts. What a run does follows from its seed, but for the machine's own timing.
A long run: `tools crash --kills 5000`. The checker itself: `--sabotage` must find faults, and so must `--broker mosquitto` without `--gently`.
Exit codes: 0 nothing was lost, doubled, altered or mixed up; 1 something was, and the data directories are kept; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Crash {
    /// How often servers are ended, over all of them
    #[arg(long, default_value_t = 300)]
    pub(crate) kills: u32,
    /// Servers side by side
    #[arg(long, default_value_t = 4)]
    pub(crate) servers: u32,
    /// What is drawn follows from it; by default a new one
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// End after this time, however few kills there were
    #[arg(long, value_parser = units::duration)]
    pub(crate) time: Option<std::time::Duration>,
    /// Which server
    #[arg(long, value_enum, default_value_t = crash::Broker::Stillwire)]
    pub(crate) broker: crash::Broker,
    /// SIGTERM instead of SIGKILL, always
    #[arg(long)]
    pub(crate) gently: bool,
    /// Break what the servers have kept now and then, to see that it is found
    #[arg(long, value_enum)]
    pub(crate) sabotage: Option<crash::Sabotage>,
    /// The server's binary; by default it is built, and taken from beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Where the data directories are; by default in the temporary directory. Removed if all is well
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

/// `tools idle`.
#[derive(Debug, Args)]
#[command(
    after_help = "What a million connections that ping every 300 s cost is asked of fewer that ping as often together: 15,000 every 5 s are \
3,000 pings a second, of 3,333.
Exit codes: 0 measured; 1 phones weren't ready or pings weren't answered; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Idle {
    /// How many phones
    #[arg(long, short = 'n', default_value = "15k", value_parser = units::phones)]
    pub(crate) connections: u32,
    /// Seconds between two pings of a phone
    #[arg(long, default_value_t = 5)]
    pub(crate) ping: u16,
    /// Seconds to watch
    #[arg(long, default_value_t = 15)]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) server: Server,
    /// Write JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tools peers`.
#[derive(Debug, Args)]
#[command(
    after_help = "The peers' binaries are taken from PATH; the script tools/peers installs them and runs this.
Exit codes: 0 written; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Peers {
    /// Which brokers, separated by commas; without it Stillwire and the floor alone
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) with: Vec<Peer>,
    #[command(flatten)]
    pub(crate) load: LoadFlags,
    /// Reactors of Stillwire, and threads of the floor
    #[arg(long)]
    pub(crate) reactors: Option<usize>,
    /// Stillwire's binary; by default it is built, and taken from beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Where peers.md, peers.svg and peers.json go; by default tools/runs/ and the date
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// `tools floor`.
#[derive(Debug, Args)]
#[command(
    after_help = "It serves `tools measure` and `loadgen` on loopback, and checks nothing. What it does and leaves out: tools/src/floor.rs."
)]
pub(crate) struct Floor {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub(crate) listen: SocketAddr,
    /// How many phones, numbered from 0
    #[arg(long, short = 'n', default_value = "15k", value_parser = units::phones)]
    pub(crate) connections: u32,
    /// Threads, each on its core
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// A table of descriptors for each thread, even if one is large enough for all
    #[arg(long)]
    pub(crate) own_tables: bool,
}

/// `tools measure`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --addr the server is `stillwire serve`, started and ended by this command. With --addr it is any broker: \
one that --command starts, or one that runs already with --pid.
The floor is `tools floor`: a bare epoll server under the same load, before and after the server. Each figure is also told as a ratio to it.
The rates keep the server busy, so that a message pays for its own work. At a low rate (--rate 2k --message-rate 4k) each message also pays \
for waking idle cores, about as much again.
Exit codes: 0 measured; 1 messages were lost or phones weren't ready, so the figures don't count; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Measure {
    #[command(flatten)]
    pub(crate) load: LoadFlags,
    /// How often all connections are replaced at the end, after which memory is read again, and once more when all have left
    #[arg(long, default_value_t = 0)]
    pub(crate) turnovers: u32,
    /// Measure the floor beside it
    #[arg(long, value_enum, default_value_t = BesideFloor::Twice)]
    pub(crate) floor: BesideFloor,
    #[command(flatten)]
    pub(crate) server: Server,
    /// Write JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// The load.
#[derive(Debug, Args)]
pub(crate) struct LoadFlags {
    /// How many phones, with two subscriptions each
    #[arg(long, short = 'n', default_value = "15k", value_parser = units::phones)]
    pub(crate) connections: u32,
    /// Connects a second
    #[arg(long, short, default_value = "8k", value_parser = units::count)]
    pub(crate) rate: u64,
    /// Broadcasts to all phones
    #[arg(long, default_value_t = 20)]
    pub(crate) broadcasts: u32,
    /// Messages to single phones, at each QoS
    #[arg(long, default_value = "300k", value_parser = units::count)]
    pub(crate) messages: u64,
    /// Messages to single phones a second
    #[arg(long, default_value = "60k", value_parser = units::count)]
    pub(crate) message_rate: u64,
}

impl LoadFlags {
    pub(crate) fn load(&self, turnovers: u32) -> Load {
        Load {
            connections: self.connections,
            rate: self.rate,
            broadcasts: self.broadcasts,
            messages: self.messages,
            message_rate: self.message_rate,
            turnovers,
        }
    }
}

/// When the floor is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BesideFloor {
    /// Not at all.
    No,
    /// Before the server.
    Once,
    /// Before and after the server, so that drift of the machine is seen; the ratio is to the mean.
    Twice,
}

/// The server that is measured.
#[derive(Debug, Default, Args)]
pub(crate) struct Server {
    /// Reactors of the server, and threads of the floor; by default 2, or as many as the limit of open files asks for
    #[arg(long)]
    pub(crate) reactors: Option<usize>,
    /// The server's binary; by default it is built, and taken from beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Phones fetch tickets before they are measured, and call the port of their home, so that no connection is handed over
    #[arg(long, conflicts_with = "addr")]
    pub(crate) home_ports: bool,
    /// Measure the broker at this address instead
    #[arg(long)]
    pub(crate) addr: Option<SocketAddr>,
    /// Start that broker with this command (split at spaces)
    #[arg(long, requires = "addr", conflicts_with = "pid")]
    pub(crate) command: Option<String>,
    /// The process of that broker
    #[arg(long, requires = "addr")]
    pub(crate) pid: Option<u32>,
}

impl Server {
    /// How many reactors hold so many connections.
    pub(crate) fn reactors(&self, connections: u32) -> usize {
        self.reactors.unwrap_or_else(|| {
            capacity::Machine::read()
                .ok()
                .and_then(|machine| {
                    capacity::reactors_for(&machine, u64::from(connections + BESIDES))
                })
                .map_or(FEWEST_REACTORS, |reactors| reactors.max(FEWEST_REACTORS))
        })
    }
}

/// Reactors where fewer would do.
const FEWEST_REACTORS: usize = 2;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["tools", "measure", "--pid", "1"]).is_err());
        assert!(
            Cli::try_parse_from(["tools", "measure", "--addr", "127.0.0.1:1", "--pid", "1"])
                .is_ok()
        );
    }
}
