//! Where a report goes: text to the terminal, JSON and a page to files; and what was expected of it.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::expect::{self, Expectation};
use crate::report::merge::{MergeError, merge};
use crate::report::{Report, SCHEMA};

/// The name of a file that stands for standard output.
const STDOUT: &str = "-";

/// How the result is shown.
#[derive(Clone, Debug, Default, Args)]
pub struct Output {
    /// What decides the exit code, as in p99<20ms,missing=0,ready>=99.9%
    #[arg(long, value_name = "WHAT", value_parser = Expectation::parse_all)]
    pub expect: Option<std::vec::Vec<Expectation>>,
    /// Write the report as JSON; - is standard output, instead of the text
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as one HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// A file couldn't be written or read.
#[derive(Debug)]
pub enum OutputError {
    /// The report couldn't be written there.
    Write(PathBuf, io::Error),
    /// A report couldn't be read.
    Read(PathBuf, io::Error),
    /// It isn't a report that this version knows.
    Unknown(PathBuf, String),
    /// They don't belong together.
    Merge(MergeError),
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(path, error) => {
                write!(
                    f,
                    "the report couldn't be written to {}: {error}",
                    path.display()
                )
            }
            Self::Read(path, error) => write!(f, "can't read {}: {error}", path.display()),
            Self::Unknown(path, error) => {
                write!(
                    f,
                    "{} is no report of this version ({SCHEMA}): {error}",
                    path.display()
                )
            }
            Self::Merge(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OutputError {}

impl Output {
    /// Compares the report with what the command line expects, or else with `usual`.
    pub fn judge(&self, report: &mut Report, usual: &[Expectation]) {
        match &self.expect {
            Some(typed) => report.judge(typed),
            None => report.judge(usual),
        }
    }

    /// Finds out before a long run whether the files can be written: creates them, and leaves an old one as it is.
    pub fn check(&self) -> Result<(), OutputError> {
        for path in [&self.json, &self.html].into_iter().flatten() {
            if path.as_os_str() != STDOUT {
                std::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .map_err(|error| OutputError::Write(path.clone(), error))?;
            }
        }
        Ok(())
    }

    /// Writes the report wherever it should go.
    pub fn write(&self, report: &Report) -> Result<(), OutputError> {
        let to = |path: &Path, text: &str| {
            let written = if path.as_os_str() == STDOUT {
                io::stdout().write_all(text.as_bytes())
            } else {
                std::fs::write(path, text)
            };
            written.map_err(|error| OutputError::Write(path.to_owned(), error))
        };
        let stdout = Path::new(STDOUT);
        if self.json.as_deref() != Some(stdout) && self.html.as_deref() != Some(stdout) {
            to(stdout, &report.to_text())?;
        }
        if let Some(path) = &self.json {
            to(path, &report.to_json())?;
        }
        if let Some(path) = &self.html {
            to(path, &report.to_html())?;
        }
        Ok(())
    }
}

/// `loadgen merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// Reports of the processes, as --json wrote them; one alone is shown again
    #[arg(required = true, value_name = "REPORT")]
    pub reports: Vec<PathBuf>,
    /// How the result is shown.
    #[command(flatten)]
    pub show: Output,
}

/// What of a report tells whether the rest can be read.
#[derive(serde::Deserialize)]
struct Schema {
    schema: String,
}

fn read(path: &Path) -> Result<Report, OutputError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| OutputError::Read(path.to_owned(), error))?;
    let unknown =
        |error: serde_json::Error| OutputError::Unknown(path.to_owned(), error.to_string());
    let Schema { schema } = serde_json::from_str(&text).map_err(unknown)?;
    if schema != SCHEMA {
        return Err(OutputError::Merge(MergeError::Schema(schema)));
    }
    serde_json::from_str(&text).map_err(unknown)
}

impl Merge {
    /// Reads and joins the reports.
    pub fn run(&self) -> Result<Report, OutputError> {
        let reports: Result<Vec<_>, _> = self.reports.iter().map(|path| read(path)).collect();
        let mut report = merge(reports?).map_err(OutputError::Merge)?;
        let kept = if report.expectations.is_empty() {
            expect::usual()
        } else {
            report.expectations.clone()
        };
        self.show.judge(&mut report, &kept);
        Ok(report)
    }
}
