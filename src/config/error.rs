//! What an operator got wrong, in one line: where, which key, what, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::value::Fault;
use crate::sys::capacity::CapacityError;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave it.
    Default,
    /// The server chose it at start; the reason in words.
    Auto(String),
    /// The configuration file.
    File {
        /// The file as it was named.
        path: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Auto(reason) => write!(f, "auto: {reason}"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", one_line(path)),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A configuration the server won't start with. The operator erred, or the machine can't give what was asked for.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can't be read.
    Unreadable(PathBuf, io::Error),
    /// The file is larger than [`crate::limits::CONFIG_FILE_BYTES`] or not UTF-8.
    NotText(PathBuf),
    /// The file is not TOML.
    Syntax(Origin, String),
    /// A key that doesn't exist, and the one most like it.
    UnknownKey(Origin, String, &'static str),
    /// A key doesn't accept its value.
    Value(Origin, &'static str, Fault),
    /// Two values contradict each other: the place and key of the first, and what to do.
    Contradiction(Origin, &'static str, String),
    /// The fd tables don't hold `max_connections`.
    TooFewFiles(Box<TooFewFiles>),
    /// What the machine allows could not be found out.
    Capacity(CapacityError),
}

/// The figures behind [`ConfigError::TooFewFiles`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooFewFiles {
    /// Where `max_connections` comes from.
    pub origin: Origin,
    /// How many were asked for.
    pub wanted: u64,
    /// How many the tables hold.
    pub allowed: u64,
    /// The limit of open files of one table.
    pub open_files: u64,
    /// How many tables there are.
    pub reactors: usize,
    /// How many tables would do, if any number does.
    pub enough_reactors: Option<usize>,
    /// What limit would do.
    pub enough_files: u64,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                let path = path.to_string_lossy();
                write!(
                    f,
                    "{}: cannot read the configuration: {error}; check the path after --config",
                    one_line(&path)
                )
            }
            Self::NotText(path) => {
                let path = path.to_string_lossy();
                write!(
                    f,
                    "{}: not a text file of UTF-8 below 1 MiB; name the TOML file after --config",
                    one_line(&path)
                )
            }
            Self::Syntax(at, what) => {
                write!(f, "{at}: not TOML: {}; correct this line", one_line(what))
            }
            Self::UnknownKey(at, key, nearest) => {
                write!(
                    f,
                    "{at}: unknown key {:?}; did you mean {nearest:?}? `stillwire config` prints every key",
                    short(key)
                )
            }
            Self::Value(at, key, fault) => write!(f, "{at}: {key}: {fault}"),
            Self::Contradiction(at, key, what) => write!(f, "{at}: {key}: {what}"),
            Self::TooFewFiles(few) => few.fmt(f),
            Self::Capacity(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for TooFewFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            wanted,
            allowed,
            open_files,
            reactors,
            enough_reactors,
            enough_files,
        } = self;
        match origin {
            Origin::Default | Origin::Auto(_) => f.write_str("not even one connection fits")?,
            given => write!(
                f,
                "{given}: max_connections: {wanted} connections don't fit"
            )?,
        }
        write!(
            f,
            " the limit of {open_files} open files: it holds for the table of each reactor, and {reactors} of them hold {allowed}; "
        )?;
        match enough_reactors {
            Some(enough) => write!(
                f,
                "use --reactors {enough}, or raise the hard limit (ulimit -Hn) to {enough_files}"
            ),
            None => write!(f, "raise the hard limit (ulimit -Hn) to {enough_files}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType { expected, found } => write!(f, "needs {expected}, not {found}"),
            Self::OutOfRange { found, permitted } => {
                write!(f, "{} is out of range; use {permitted}", short(found))
            }
            Self::Unreadable { found, expected } => {
                write!(f, "{:?} can't be used; write {expected}", short(found))
            }
        }
    }
}

/// At most 60 characters of what an operator typed.
fn short(text: &str) -> String {
    let mut out: String = text.chars().take(60).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

/// Control characters made visible, so that one error stays one line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}
