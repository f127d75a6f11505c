//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use loadgen::units;

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
}

/// `tools measure`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --addr the server is `stillwire serve`, started and ended by this command. With --addr it is any broker: \
one that --command starts, or one that runs already with --pid.
The rates keep the server busy, so that a message pays for its own work. At a low rate (--rate 2k --message-rate 4k) each message also pays \
for waking idle cores, about as much again.
Exit codes: 0 measured; 1 messages were lost or phones weren't ready, so the figures don't count; 2 wrong usage; 3 it couldn't run."
)]
pub(crate) struct Measure {
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
    /// Reactors of the server
    #[arg(long, default_value_t = 2)]
    pub(crate) reactors: usize,
    /// The server's binary; by default it is built, and taken from beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Measure the broker at this address instead
    #[arg(long)]
    pub(crate) addr: Option<SocketAddr>,
    /// Start that broker with this command (split at spaces)
    #[arg(long, requires = "addr", conflicts_with = "pid")]
    pub(crate) command: Option<String>,
    /// The process of that broker
    #[arg(long, requires = "addr")]
    pub(crate) pid: Option<u32>,
    /// Write JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

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
