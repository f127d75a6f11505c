//! The command line: what may be typed, and which configuration keys the flags stand for.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use stillwire::config::value::Raw;
use stillwire::config::written::Flag;
use stillwire::limits;
use stillwire::sizing::Role;

use crate::exit;

/// Holds millions of MQTT connections on one Linux server and pushes to them.
#[derive(Debug, Parser)]
#[command(name = "stillwire", version, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the process is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server until SIGTERM or SIGINT
    Serve(Given),
    /// Print the configuration that `serve` would run with, as TOML, with the origin of each value
    Config(Given),
    /// Set a user's password in a password file; it is asked for, or read from standard input
    Passwd(Passwd),
    /// Add a fresh signing key to a keys file; the older keys go on verifying
    Key(Key),
    /// Sign a ticket for a client and print it
    Token(Token),
    /// Print what so many connections need, beside what this machine has
    Sizing(Sizing),
}

/// Whose password.
#[derive(Debug, Args)]
pub(crate) struct Passwd {
    /// Password file; made if it is not there
    pub(crate) file: PathBuf,
    /// User name
    pub(crate) user: String,
    /// App that the user belongs to [default: the default tenant]
    #[arg(long, value_name = "KEY")]
    pub(crate) app: Option<String>,
}

/// Which key.
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// Keys file; made if it is not there
    pub(crate) file: PathBuf,
    /// Name of the key [default: a random one]
    #[arg(long)]
    pub(crate) id: Option<String>,
}

/// Which ticket.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Keys file with a key that signs
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: PathBuf,
    /// Client that may connect with it
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: String,
    /// App of the client [default: the default tenant]
    #[arg(long, value_name = "KEY")]
    pub(crate) app: Option<String>,
    /// Seconds that it is good for
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) ttl: u64,
}

/// `stillwire sizing`.
#[derive(Debug, Args)]
pub(crate) struct Sizing {
    /// Connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=limits::MAX_CONNECTIONS))]
    pub(crate) connections: u64,
    /// What the machine is for
    #[arg(long, value_enum, default_value_t = For::Server)]
    pub(crate) role: For,
    /// Reactors (threads of the load generator) [default: one a core]
    #[arg(long, value_name = "N", value_parser = reactors)]
    pub(crate) reactors: Option<usize>,
    /// Write JSON: a flat object, a key a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// As many as there may be.
fn reactors(text: &str) -> Result<usize, String> {
    let range = 1..=limits::MAX_REACTORS;
    text.parse()
        .ok()
        .filter(|reactors| range.contains(reactors))
        .ok_or_else(|| format!("write 1 to {}", limits::MAX_REACTORS))
}

/// `--role`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum For {
    /// It runs the server.
    Server,
    /// It runs the load generator.
    Loadgen,
    /// It runs both.
    Both,
}

impl From<For> for Role {
    fn from(role: For) -> Self {
        match role {
            For::Server => Self::Server,
            For::Loadgen => Self::Loadgen,
            For::Both => Self::Both,
        }
    }
}

/// What was given: a file, and flags that override it.
#[derive(Debug, Args)]
pub(crate) struct Given {
    /// Configuration file (TOML); without it every value is its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for plain MQTT over TCP; may be repeated [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Address of the lookup, which gives tickets over HTTP; may be repeated; off: none [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDR:PORT")]
    lookup: Vec<String>,
    /// Reactor threads, 1 to 1024 [default: one a core]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    reactors: Option<String>,
    /// Where the server keeps what must outlive it [default: ./stillwire-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What has acknowledged messages outlive: the process, or the power (disk) [default: process]
    #[arg(long, value_name = "WHAT")]
    durability: Option<String>,
    /// How clients may prove who they are: open, ticket, password-file, jwt, http; may be repeated [default: open]
    #[arg(long, value_name = "METHOD")]
    auth: Vec<String>,
    /// Listen on more than loopback though whoever comes is let in
    #[arg(long)]
    allow_open: bool,
    /// Connections held at most [default: what this machine allows]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections: Option<String>,
}

impl Given {
    /// The configuration file, if one was named.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The flags that were typed, each for its key.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut given = |name, key, raw| flags.push(Flag { name, key, raw });
        if !self.listen.is_empty() {
            let addresses = self.listen.iter().cloned().map(Raw::Text).collect();
            given("--listen", "listen", Raw::List(addresses));
        }
        if !self.lookup.is_empty() {
            let is_on = *self.lookup != ["off"];
            let addresses = self.lookup.iter().filter(|_| is_on).cloned();
            let addresses = addresses.map(Raw::Text).collect();
            given("--lookup", "lookup.listen", Raw::List(addresses));
        }
        if let Some(reactors) = &self.reactors {
            given("--reactors", "reactors", Raw::from_flag(reactors));
        }
        if let Some(dir) = &self.data_dir {
            given("--data-dir", "data_dir", Raw::Text(dir.clone()));
        }
        if let Some(durability) = &self.durability {
            given("--durability", "durability", Raw::Text(durability.clone()));
        }
        if !self.auth.is_empty() {
            let methods = self.auth.iter().cloned().map(Raw::Text).collect();
            given("--auth", "auth", Raw::List(methods));
        }
        if self.allow_open {
            given("--allow-open", "allow_open", Raw::Boolean(true));
        }
        if let Some(connections) = &self.max_connections {
            given(
                "--max-connections",
                "max_connections",
                Raw::from_flag(connections),
            );
        }
        flags
    }
}

/// What the arguments ask for.
pub(crate) enum Asked {
    /// To run a command.
    Run(Command),
    /// To print this, --help or --version.
    Print(String),
}

/// Reads the arguments; a mistake comes back as one line.
pub(crate) fn parse(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<Asked, String> {
    let mut codes = String::from("Exit codes:\n");
    for (code, meaning) in exit::CODES {
        // Writing to a String can't fail.
        _ = writeln!(codes, "  {code:>3}  {meaning}");
    }
    let command = Cli::command().after_help(codes);
    match command
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => Ok(Asked::Run(cli.command)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Asked::Print(error.render().to_string()))
            }
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Err(
                    "no command given; use `stillwire serve` or `stillwire config`, or see --help"
                        .to_owned(),
                )
            }
            _ => Err(one_line(&error.render().to_string())),
        },
    }
}

/// The first line of a message of several, with its tips.
fn one_line(rendered: &str) -> String {
    let mut lines = rendered
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let mut out = lines
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned();
    for tip in lines.filter_map(|line| line.strip_prefix("tip: ")) {
        out.push_str("; ");
        out.push_str(tip);
    }
    out.push_str("; see --help");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> Result<Asked, String> {
        parse(
            std::iter::once("stillwire")
                .chain(arguments.iter().copied())
                .map(Into::into),
        )
    }

    #[test]
    fn the_table_of_arguments_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_stands_for_a_key() {
        let typed = [
            "serve",
            "--listen",
            "[::1]:1",
            "--listen",
            "[::1]:2",
            "--lookup",
            "off",
            "--reactors",
            "2",
            "--data-dir",
            "d",
            "--max-connections",
            "auto",
            "--auth",
            "open",
            "--auth",
            "http",
            "--allow-open",
        ];
        let Ok(Asked::Run(Command::Serve(given))) = asked(&typed) else {
            panic!("not understood")
        };
        let flags = given.flags();
        assert_eq!(flags.len(), 7);
        for flag in &flags {
            assert!(typed.contains(&flag.name));
            stillwire::config::written::from_flag(flag).unwrap();
        }
    }

    #[test]
    fn a_mistake_is_one_line() {
        for arguments in [
            &[][..],
            &["serv"],
            &["serve", "--lisen", "x"],
            &["serve", "--reactors"],
            &["serve", "a\nb"],
            &["config", "--reactors", "1", "--reactors", "2"],
        ] {
            let Err(line) = asked(arguments) else {
                panic!("{arguments:?} passed")
            };
            assert!(
                !line.contains('\n') && line.ends_with("--help") && line.len() > 20,
                "{line}"
            );
        }
    }

    #[test]
    fn help_and_version_are_printed() {
        let Ok(Asked::Print(help)) = asked(&["--help"]) else {
            panic!("no help")
        };
        assert!(
            help.contains("Exit codes:") && help.contains("serve") && help.contains("78"),
            "{help}"
        );
        let Ok(Asked::Print(version)) = asked(&["--version"]) else {
            panic!("no version")
        };
        assert_eq!(
            version.trim(),
            concat!("stillwire ", env!("CARGO_PKG_VERSION"))
        );
    }
}
