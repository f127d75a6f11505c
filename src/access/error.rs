//! What is wrong with the files that say who may do what. In each case the operator erred, or the disk.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::error::one_line;

/// A file that can't be used. Nothing of it is taken: at the start the server does not start, later what was read before stays.
#[derive(Debug)]
pub enum AccessError {
    /// It can't be read.
    Unreadable(PathBuf, io::Error),
    /// It can't be written.
    Unwritable(PathBuf, io::Error),
    /// It is not UTF-8, or larger than [`crate::limits::ACCESS_FILE_BYTES`].
    NotText(PathBuf),
    /// A line of it is wrong.
    Broken {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what to write.
        what: String,
    },
    /// The system has no random bytes.
    Random(String),
}

impl AccessError {
    /// A line that is wrong.
    pub(super) fn broken(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self::Broken {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| one_line(&path.to_string_lossy());
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "{}: cannot be read: {error}; check the path and its rights",
                shown(path)
            ),
            Self::Unwritable(path, error) => write!(
                f,
                "{}: cannot be written: {error}; check the rights and the space of its directory",
                shown(path)
            ),
            Self::NotText(path) => write!(
                f,
                "{}: not a text file of UTF-8 below {} MiB",
                shown(path),
                crate::limits::ACCESS_FILE_BYTES >> 20
            ),
            Self::Broken { path, line, what } => {
                write!(f, "{}:{line}: {}", shown(path), one_line(what))
            }
            Self::Random(error) => write!(
                f,
                "the system gives no random bytes: {error}; try again when it has started"
            ),
        }
    }
}

impl std::error::Error for AccessError {}
