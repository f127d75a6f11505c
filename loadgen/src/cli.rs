//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::{Merge, Output};
use crate::units;

/// Phones by the thousand against an MQTT broker, every message verified.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "Counts may be written as 15k or 2m, times as 250ms, 30s or 5m.
Exit codes: 0 as expected; 1 not as expected; 2 wrong usage; 3 couldn't begin (the text says what to mend); 130 interrupted.";

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server in this process, hold phones, churn and push for half a minute, and report.
    Demo(Demo),
    /// Hold connections against any MQTT broker.
    Connect(Connect),
    /// Join the reports of several processes that shared one run, or show one again.
    Merge(Merge),
}

/// MQTT versions that phones speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// MQTT 3.1.1.
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[value(name = "5")]
    V5,
}

impl From<Protocol> for stillwire::wire::Version {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::V311 => Self::V311,
            Protocol::V5 => Self::V5,
        }
    }
}

/// `loadgen connect`.
#[derive(Debug, Args)]
pub struct Connect {
    /// Where the broker listens; several are called in turn
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:1883")]
    pub addr: Vec<SocketAddr>,
    /// How many phones
    #[arg(long, short = 'n', default_value = "1k", value_parser = units::phones)]
    pub connections: u32,
    /// Connects a second, whether the broker keeps up or not
    #[arg(long, short, default_value = "1k", value_parser = units::count)]
    pub rate: u64,
    /// How long to hold them once all are ready
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    pub hold: Duration,
    /// Seconds between pings; 0: none
    #[arg(long, default_value_t = 60)]
    pub keep_alive: u16,
    /// MQTT version
    #[arg(long, default_value = "3.1.1")]
    pub protocol: Protocol,
    /// The first phone's number, so that several generators can share a broker
    #[arg(long, default_value = "0", value_parser = units::phones)]
    pub first: u32,
    /// Threads; by default one a core, or more if file descriptors demand it
    #[arg(long)]
    pub threads: Option<usize>,
    /// Source addresses, towards another machine; on loopback they are made up
    #[arg(long, value_delimiter = ',')]
    pub source: Vec<IpAddr>,
    /// How the result is shown.
    #[command(flatten)]
    pub show: Output,
    /// Show nothing while it runs
    #[arg(long, short)]
    pub quiet: bool,
}

/// `loadgen demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// How many phones, if the machine allows
    #[arg(long, short = 'n', default_value = "15k", value_parser = units::phones)]
    pub connections: u32,
    /// Connects a second
    #[arg(long, short, default_value = "3k", value_parser = units::count)]
    pub rate: u64,
    /// Pushes to single phones a second, half of them at QoS 1
    #[arg(long, default_value = "2k", value_parser = units::count)]
    pub pushes: u64,
    /// How long to push and churn
    #[arg(long, default_value = "18s", value_parser = units::duration)]
    pub time: Duration,
    /// Use a broker that runs already instead of starting one
    #[arg(long)]
    pub addr: Option<SocketAddr>,
    /// MQTT version of the phones
    #[arg(long, default_value = "3.1.1")]
    pub protocol: Protocol,
    /// How the result is shown.
    #[command(flatten)]
    pub show: Output,
    /// Show nothing while it runs
    #[arg(long, short)]
    pub quiet: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_reads_units() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from([
            "loadgen", "connect", "-n", "1.5m", "--rate", "20k", "--hold", "2m",
        ])
        .unwrap();
        let Command::Connect(connect) = cli.command else {
            panic!("connect")
        };
        assert_eq!(
            (connect.connections, connect.rate, connect.hold),
            (1_500_000, 20_000, Duration::from_secs(120))
        );
        assert!(Cli::try_parse_from(["loadgen", "connect", "-n", "some"]).is_err());
    }
}
