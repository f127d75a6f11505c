//! Stillwire: an MQTT push server that holds millions of connections on one Linux server.

pub mod clock;
pub mod config;
pub mod counters;
pub mod data_dir;
pub mod ids;
pub mod limits;
pub mod routing;
pub mod session;
pub mod sys;
pub mod topic;
pub mod wheel;
pub mod wire;
