//! The command line: at most ten flags a scenario; the rest stands in a scenario file.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::output::{Merge, Output};
use crate::sampling::Server;
use crate::scenario::Kind;
use crate::tickets::Url;
use crate::units;

/// Phones by the thousand against an MQTT broker, every message verified.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "Counts: 1500, 15k, 2m; times: 250ms, 30s, 5m; shares: 0.1% or 0.001.
Exit codes: 0 as expected; 1 not as expected; 2 wrong usage; 3 couldn't begin (the text says what to mend); 130 interrupted.";

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server inside, hold phones, churn and push for half a minute, and report.
    Demo(Demo),
    /// Connect at a rate, and hold.
    Connect(Connect),
    /// Hold phones of which some reconnect all the time, as on a mobile network.
    Churn(Churn),
    /// All drop at once, and come back.
    Storm(Storm),
    /// One message to all, again and again.
    Fanout(Fanout),
    /// Messages to random phones.
    Unicast(Unicast),
    /// All of it, in proportion.
    Mixed(Mixed),
    /// Join the reports of several processes that shared one run, or show one again.
    Merge(Merge),
}

impl Command {
    /// The scenario, and the flags that all have; none for what runs nothing.
    pub fn scenario(&self) -> Option<(Kind, &Shared)> {
        Some(match self {
            Self::Merge(_) => return None,
            Self::Demo(args) => (Kind::Demo(args.message_rate), &args.shared),
            Self::Connect(args) => (Kind::Connect, &args.shared),
            Self::Churn(args) => (Kind::Churn(args.churn), &args.shared),
            Self::Storm(args) => (Kind::Storm(args.back), &args.shared),
            Self::Fanout(args) => (Kind::Fanout(args.message_rate), &args.shared),
            Self::Unicast(args) => (Kind::Unicast(args.message_rate), &args.shared),
            Self::Mixed(args) => (Kind::Mixed(args.message_rate), &args.shared),
        })
    }
}

/// MQTT versions that phones speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
pub enum Protocol {
    /// MQTT 3.1.1.
    #[value(name = "3.1.1")]
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[value(name = "5")]
    #[serde(rename = "5")]
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

/// How phones come back after all have dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Return {
    /// All of them at once.
    Now,
    /// Each at a random moment within a few seconds.
    Jitter,
    /// As soon as the server, which is restarted, listens again.
    Restart,
}

/// Which phones, as they were typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Their numbers.
    pub range: Range<u32>,
    /// They were typed as a range: other processes have others.
    pub part: bool,
}

fn numbers(text: &str) -> Result<Numbers, String> {
    units::range(text).map(|range| Numbers {
        range,
        part: text.contains(".."),
    })
}

/// What every scenario is told.
#[derive(Clone, Debug, Default, Args)]
pub struct Shared {
    /// Where the broker listens; several are called in turn [default: 127.0.0.1:1883; demo: its own]
    #[arg(long, value_delimiter = ',', value_name = "ADDR")]
    pub addr: Option<Vec<SocketAddr>>,
    /// Phones: a count, or a range of numbers (250k..500k) where several processes share a scenario [default: 1k]
    #[arg(long, short = 'n', value_name = "N", value_parser = numbers)]
    pub connections: Option<Numbers>,
    /// Connects a second, whether the broker keeps up or not [default: 1k]
    #[arg(long, short, value_name = "N", value_parser = units::rate)]
    pub rate: Option<f64>,
    /// How long it goes on once all are connected; of a file with phases, each of them
    #[arg(long, short, value_name = "TIME", value_parser = units::duration)]
    pub time: Option<Duration>,
    /// A TOML file that says more; flags override it
    #[arg(long, short, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Where phones ask for tickets: http://ADDR:PORT; --addr is then the fallback list of their app
    #[arg(long, value_name = "URL")]
    pub lookup: Option<Url>,
    /// The server's process, or a file that holds its number: report its CPU and memory too
    #[arg(long)]
    pub pid: Option<Server>,
    /// How the result is shown.
    #[command(flatten)]
    pub show: Output,
}

/// `loadgen demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// What every scenario is told.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages to single phones a second, half of them at QoS 1 [default: 2k]
    #[arg(long, value_name = "N", value_parser = units::rate)]
    pub message_rate: Option<f64>,
}

/// `loadgen connect`.
#[derive(Debug, Args)]
pub struct Connect {
    /// What every scenario is told.
    #[command(flatten)]
    pub shared: Shared,
}

/// `loadgen churn`.
#[derive(Debug, Args)]
pub struct Churn {
    /// What every scenario is told.
    #[command(flatten)]
    pub shared: Shared,
    /// Which part of all phones reconnects each second [default: 0.1%]
    #[arg(long, value_name = "SHARE", value_parser = units::share)]
    pub churn: Option<f64>,
}

/// `loadgen storm`.
#[derive(Debug, Args)]
pub struct Storm {
    /// What every scenario is told.
    #[command(flatten)]
    pub shared: Shared,
    /// When they come back [default: now]
    #[arg(long = "return", value_name = "HOW")]
    pub back: Option<Return>,
}

/// `loadgen fanout`.
#[derive(Debug, Args)]
pub struct Fanout {
    /// What every scenario is told.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages to all a second [default: 1]
    #[arg(long, value_name = "N", value_parser = units::rate)]
    pub message_rate: Option<f64>,
}

/// `loadgen unicast`.
#[derive(Debug, Args)]
pub struct Unicast {
    /// What every scenario is told.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages a second, half of them at QoS 1 [default: 2k]
    #[arg(long, value_name = "N", value_parser = units::rate)]
    pub message_rate: Option<f64>,
}

/// `loadgen mixed`.
#[derive(Debug, Args)]
pub struct Mixed {
    /// What every scenario is told.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages received a second, a tenth of them sent to all [default: 2k]
    #[arg(long, value_name = "N", value_parser = units::rate)]
    pub message_rate: Option<f64>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_reads_units() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from([
            "loadgen",
            "churn",
            "-n",
            "250k..500k",
            "--rate",
            "20k",
            "--time",
            "2m",
            "--churn",
            "0.5%",
            "--expect",
            "p99<20ms,missing=0",
        ])
        .unwrap();
        let (kind, shared) = cli.command.scenario().unwrap();
        assert_eq!(kind, Kind::Churn(Some(0.005)));
        assert_eq!(shared.connections, numbers("250k..500k").ok());
        assert_eq!(
            (shared.rate, shared.time),
            (Some(20_000.0), Some(Duration::from_secs(120)))
        );
        assert_eq!(shared.show.expect.as_ref().map(Vec::len), Some(2));
        for wrong in [
            ["connect", "-n", "some"],
            ["connect", "--expect", "speed=9"],
            ["storm", "--return", "never"],
            ["churn", "--churn", "200%"],
        ] {
            assert!(
                Cli::try_parse_from(["loadgen"].into_iter().chain(wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn no_scenario_has_more_than_ten_flags_and_the_lookup() {
        for command in Cli::command().get_subcommands() {
            let flags: Vec<String> = command
                .get_arguments()
                // By which way phones find the server is said once for all scenarios.
                .filter(|arg| !["help", "version", "lookup"].contains(&arg.get_id().as_str()))
                .map(|arg| arg.get_id().to_string())
                .collect();
            assert!(flags.len() <= 10, "{}: {flags:?}", command.get_name());
            let usage = command.clone().render_help().to_string();
            assert!(usage.lines().count() <= 21, "{usage}");
        }
    }
}
