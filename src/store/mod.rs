//! The store: what must live longer than the process, in one append-only log a reactor.
//!
//! It owns segments, records, and their way to the disk. It never knows what a session, a topic or a packet is: bytes and ids.

pub mod chain;
pub mod damage;
pub mod disk;
pub mod files;
pub mod format;
pub mod heap;
pub mod log;
pub mod manifest;
pub mod scan;
pub mod segment;
pub mod syncer;

#[cfg(test)]
mod disk_tests;
