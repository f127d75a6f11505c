//! From a log to a store: one scan.

use std::path::PathBuf;

use super::Store;

/// Something in a log that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub file: PathBuf,
    /// From where in it.
    pub offset: u64,
    /// How many bytes were skipped.
    pub bytes: u64,
}

/// A store as it was found.
#[derive(Debug)]
pub struct Recovered {
    /// With everything in it.
    pub store: Store,
    /// Of all sessions that ever had a record that still stands: the owner goes on after it.
    pub highest_serial: u32,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Queue entries whose session or body is not there: lost by damage, or, after a power failure, never synced.
    pub orphans: u64,
}
