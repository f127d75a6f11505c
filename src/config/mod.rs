//! Configuration: the file as it was typed, then what was made of it.

pub mod resolved;
