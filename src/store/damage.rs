//! What was found broken in a log: which file, where, and what it means.

use std::fmt;

use super::format::Position;

/// A stretch of a log that could not be read. Everything else was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, as it was opened.
    pub file: String,
    /// The place in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// The same place in the log, if that is known.
    pub position: Option<Position>,
    /// What it is.
    pub what: What,
}

/// See [`Damage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes that are no whole record, and records behind them.
    Records,
    /// Nothing readable up to the segment's end, and the log goes on in a later one.
    Rest,
    /// The last record was not finished: a crash. It has been cut off; nobody was told that it is kept.
    Tail,
    /// One of the two heads is unreadable, the other served.
    OneHead,
    /// Both heads are: the file was left alone.
    Heads,
    /// The file is of another log: left alone.
    Foreign,
    /// The file is shorter than it was made.
    Short,
    /// No file holds these positions.
    Missing,
    /// Two files hold the same positions: this one was left alone.
    Twice,
}

impl Damage {
    /// Whether something may be lost that was promised to be kept. A tail is not: it was never acknowledged.
    pub fn is_loss(&self) -> bool {
        !matches!(self.what, What::Tail | What::OneHead)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file, offset, len, ..
        } = self;
        match self.what {
            What::Records => write!(
                f,
                "{file}: offset {offset}: {len} bytes are damaged and were skipped"
            ),
            What::Rest => write!(
                f,
                "{file}: offset {offset}: nothing can be read from here to the end of the file ({len} bytes); what was appended later stands in the next file"
            ),
            What::Tail => write!(
                f,
                "{file}: offset {offset}: an unfinished record at the end of the log was cut off ({len} bytes)"
            ),
            What::OneHead => write!(
                f,
                "{file}: offset {offset}: this head is damaged; its copy was used"
            ),
            What::Heads => write!(
                f,
                "{file}: both heads are damaged; the file was left alone and none of its {len} bytes read"
            ),
            What::Foreign => write!(f, "{file}: belongs to another log; the file was left alone"),
            What::Short => write!(
                f,
                "{file}: offset {offset}: the file ends here, {len} bytes too early"
            ),
            What::Missing => write!(
                f,
                "{file}: the file before it is missing, with {len} bytes of the log"
            ),
            What::Twice => write!(
                f,
                "{file}: another file holds the same part of the log; this one was left alone"
            ),
        }
    }
}
