//! The load generator: phones by the thousand against an MQTT broker, every message verified.
//!
//! ```text
//!   main thread ── orders ──► phones-0 ─┐  each with its own table of file descriptors and poller,
//!   scenario, live view   ──► phones-1 ─┼─ and a list of 64-byte phones          ──► broker
//!        ▲                                │                                            ▲
//!        └── counters, histograms ────────┘      publisher ── paced pushes ────────────┘
//!                                                    └──► ledger: what each phone is owed
//! ```
//!
//! Map: [`orders`] says what phones can be told, [`fleet`] and its threads (`driver`, `phone`, `script`) hold connections; [`publisher`] sends, [`ledger`] remembers what was sent,
//! [`tickets`] say where phones call, if they ask a lookup; [`payload`] and [`verify`] say what of it arrived; [`stats`] counts. [`preflight`] and [`machine`] read what the machine allows and uses.
//! [`watch`] keeps the course of it ([`recording`], [`sampling`]); [`live`], [`chart`] and [`report`] show it, [`expect`] judges it and
//! [`output`] writes it. [`scenario`] is what is done,
//! [`connect`] how it begins, and [`demo`] brings its own server. `unsafe` stands in [`sys`] alone.

mod broker;
pub mod chart;
pub mod cli;
pub mod clock;
pub mod connect;
pub mod demo;
mod driver;
pub mod expect;
pub mod fleet;
pub mod histogram;
pub mod ledger;
pub mod live;
pub mod machine;
pub mod name;
pub mod orders;
pub mod output;
pub mod pace;
pub mod payload;
mod phone;
pub mod preflight;
pub mod publisher;
pub mod recording;
pub mod report;
pub mod sampling;
pub mod scenario;
pub mod script;
pub mod sources;
pub mod stats;
pub mod sys;
pub mod tickets;
pub mod units;
pub mod verify;
pub mod watch;
