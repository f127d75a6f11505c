//! Exit codes, and everything that ends the server with another one than 0. The codes are those of sysexits.h.

use std::fmt;
use std::io;
use std::process::ExitCode;

use stillwire::access::AccessError;
use stillwire::config::{ConfigError, Origin};
use stillwire::data_dir::DataDirError;
use stillwire::lookup::LookupError;
use stillwire::server::StartError;

/// Every exit code and when it is used; `--help` prints it, README.md has it as a table.
pub(crate) const CODES: &[(u8, &str)] = &[
    (0, "ended as asked: SIGTERM, SIGINT, --help, --version"),
    (USAGE, "the command line is wrong"),
    (
        UNAVAILABLE,
        "an address can't be listened on: in use, or not this machine's",
    ),
    (
        SYSTEM,
        "the system refused a thread, a poller, or a core to pin to; or a reactor failed",
    ),
    (
        INPUT_OUTPUT,
        "the data directory can't be used (rights, room, damage, a newer server's), or output can't be written",
    ),
    (TAKEN, "another server uses the data directory"),
    (NO_PERMISSION, "no right to listen on the address"),
    (
        CONFIG,
        "the configuration is wrong, or asks more than this machine allows",
    ),
    (CUT_SHORT, "a second SIGTERM or SIGINT cut the drain short"),
];

const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const SYSTEM: u8 = 71;
const INPUT_OUTPUT: u8 = 74;
const TAKEN: u8 = 75;
const NO_PERMISSION: u8 = 77;
const CONFIG: u8 = 78;
/// As a shell shows a process that SIGINT ended.
pub(crate) const CUT_SHORT: u8 = 130;

/// What ended the process before its time. Displayed, it is one line that says what, where, and what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The configuration is wrong.
    Config(ConfigError),
    /// A file of users, keys or rules is wrong, or can't be written.
    Access(AccessError),
    /// No password can be read.
    Input(io::Error),
    /// The data directory can't be had.
    DataDir(DataDirError),
    /// The server can't start; the origin of the value that an operator would change.
    Start(Origin, StartError),
    /// A reactor's poller failed while it ran.
    Reactor(io::Error),
    /// Standard output can't be written.
    Output(io::Error),
    /// The signals can't be waited for.
    Signals(io::Error),
}

impl Failure {
    /// Its exit code, one of [`CODES`].
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Access(AccessError::Unwritable(..) | AccessError::Random(_)) | Self::Input(_) => {
                INPUT_OUTPUT
            }
            Self::Config(_)
            | Self::Access(_)
            | Self::Start(
                _,
                StartError::OpenFiles { .. }
                | StartError::Access(_)
                | StartError::Lookup(LookupError::Config(..) | LookupError::Nodes(_)),
            ) => CONFIG,
            Self::DataDir(DataDirError::Taken(..)) => TAKEN,
            Self::DataDir(_) | Self::Output(_) | Self::Start(_, StartError::Store(_)) => {
                INPUT_OUTPUT
            }
            Self::Start(
                _,
                StartError::Listen(_, error) | StartError::Lookup(LookupError::Listen(_, error)),
            ) if error.kind() == io::ErrorKind::PermissionDenied => NO_PERMISSION,
            Self::Start(
                _,
                StartError::Listen(..) | StartError::Lookup(LookupError::Listen(..)),
            ) => UNAVAILABLE,
            Self::Start(
                _,
                StartError::Pin { .. }
                | StartError::Gate(_)
                | StartError::System(..)
                | StartError::Lookup(LookupError::System(_)),
            )
            | Self::Reactor(_)
            | Self::Signals(_) => SYSTEM,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::Config(error) => error.fmt(f),
            Self::Access(error) => error.fmt(f),
            Self::Input(error) => write!(f, "no password: {error}; nothing was changed"),
            Self::DataDir(error) => error.fmt(f),
            Self::Start(Origin::Default | Origin::Auto(_), error) => error.fmt(f),
            Self::Start(origin, error) => write!(f, "{origin}: {error}"),
            Self::Reactor(error) => write!(
                f,
                "a reactor failed: {error}; the log has what came before, and a restart is all there is to do"
            ),
            Self::Output(error) => write!(f, "standard output: {error}; check where it leads to"),
            Self::Signals(error) => {
                write!(
                    f,
                    "SIGTERM and SIGINT can't be waited for: {error}; raise the limits of threads and memory"
                )
            }
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        Self::DataDir(error)
    }
}

/// What the process returns; a failure is told on standard error.
pub(crate) fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed there is nobody left to tell, and the code still speaks.
            _ = io::Write::write_fmt(&mut io::stderr(), format_args!("stillwire: {failure}\n"));
            ExitCode::from(failure.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_every_code() {
        let readme = include_str!("../README.md");
        for (code, meaning) in CODES {
            let row = format!("| {code} | {meaning} |");
            assert!(readme.contains(&row), "README.md lacks the row: {row}");
        }
    }

    #[test]
    fn codes_are_told_apart_and_rise() {
        assert!(CODES.is_sorted_by(|(one, _), (next, _)| one < next));
    }
}
