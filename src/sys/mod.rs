//! What the operating system is asked for.

pub mod capacity;
pub mod signals;
