//! The server from outside: every test here starts the built binary and talks to it over sockets.
//!
//! `STILLWIRE_TEST_BROKER=mosquitto` runs the same tests against mosquitto, which shows that the tests themselves are right.
#![allow(
    clippy::pedantic,
    missing_docs,
    unreachable_pub,
    reason = "tests: read by people who read tests, linked by nobody"
)]

mod support;
use support::bytes;

mod access;
mod broker;
mod cases;
mod cli;
mod connect;
mod crash;
mod credentials;
mod crowd;
mod durable;
mod expiry;
mod flow;
mod full;
mod greedy;
mod hostile;
mod limits;
mod lookup;
mod message;
mod order;
mod queue;
mod row;
mod rust_client;
mod session;
mod share;
mod simulation;
mod sizing;
mod slow;
mod will;
