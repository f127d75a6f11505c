//! Configuration: flags over the file over the defaults.
//!
//! [`written`] is what was typed, each value with its place; [`keys`] is the one table of what may be typed; [`resolved`] is what the
//! server runs with; [`settings`] makes the one of the other and keeps the origin of each value. Nothing here opens a socket, and
//! nothing is corrected silently: what isn't right is a [`ConfigError`] with place, key and remedy.

pub mod error;
pub mod keys;
pub mod resolved;
pub mod settings;
pub mod value;
pub mod written;

pub use error::{ConfigError, Origin};
pub use settings::Settings;
