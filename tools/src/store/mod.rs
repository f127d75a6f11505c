//! `tools store`: what a server has stored, looked at from outside. Never writes to a data directory, and takes no lock: a server may go on beside.

mod dump;
mod inspect;
mod verify;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use stillwire::store::files::OpenError;
use stillwire::store::log::{Log, Opened};
use stillwire::store::manifest::{Manifest, ManifestError};

use crate::cli;

/// Why nothing could be looked at.
#[derive(Debug)]
pub(crate) enum StoreError {
    Manifest(ManifestError),
    Open(OpenError),
    /// Neither a manifest nor a segment.
    Nothing(PathBuf),
    Output(io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Nothing(dir) => write!(
                f,
                "{}: holds neither a manifest nor segments of a log; name a server's data directory",
                dir.display()
            ),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the command; false: there is damage.
pub(crate) fn run(command: &cli::Store, mut out: impl Write) -> Result<bool, StoreError> {
    let done = match command {
        cli::Store::Inspect(args) => inspect::run(&args.dir, args.json, &mut out).map(|()| true),
        cli::Store::Dump(args) => {
            let filter = dump::Filter {
                session: args.session.as_deref(),
                topic: args.topic.as_deref(),
            };
            dump::run(&args.dir, &filter, &mut out).map(|()| true)
        }
        cli::Store::Verify(args) => verify::run(&args.dir, &mut out),
    };
    match done.and_then(|is_well| Ok(out.flush().map(|()| is_well)?)) {
        // Whoever reads has seen enough.
        Err(StoreError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        done => done,
    }
}

/// The logs of a data directory.
struct Logs {
    /// None: a directory of one log was named.
    manifest: Option<Manifest>,
    /// A log without a segment is left out.
    logs: Vec<Opened>,
}

fn open(dir: &Path) -> Result<Logs, StoreError> {
    let manifest = Manifest::read(dir).map_err(StoreError::Manifest)?;
    let mut logs = Vec::new();
    if let Some(manifest) = &manifest {
        for reactor in 0..manifest.reactors {
            let path = manifest.log(dir, reactor);
            match Log::view(&path) {
                // A server that has just been started for the first time.
                Err(OpenError::Directory(_, error)) if error.kind() == io::ErrorKind::NotFound => {}
                log => logs.extend(log.map_err(StoreError::Open)?),
            }
        }
    } else {
        logs.extend(Log::view(dir).map_err(StoreError::Open)?);
        if logs.is_empty() {
            return Err(StoreError::Nothing(dir.to_owned()));
        }
    }
    Ok(Logs { manifest, logs })
}
