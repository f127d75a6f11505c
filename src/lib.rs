//! Stillwire: an MQTT push server that holds millions of connections on one Linux server.
//!
//! ```text
//!    phones ──► reactor 0 ─┐   one per core, pinned, shares nothing: its own fd table (where one is too small for all), mio::Poll, listeners, slots,
//!    phones ──► reactor 1 ─┼─► timing wheel, outbox and shard: sessions, subscriptions, queues, retained messages, counters
//!    phones ──► reactor N ─┘   reactors talk only through mailboxes (rings of batches, one wake-up a batch)
//!    phones ──► lookup         tickets over HTTP: its own listener and fd table, alive whatever the reactors do
//!               gate           checks passwords and asks the HTTP hook, where `auth` has them
//!               main           starts them, waits for SIGTERM or SIGINT, drains them
//! ```
//!
//! Every client has a home reactor, `hash(client id) % reactors`: its session, queue, subscriptions and connection live there. A
//! connection is accepted anywhere, its CONNECT read before any poller knows the socket, and handed over to its home, once: by mail where the
//! reactors have one fd table in common, through a socket pair where each has its own.
//!
//! Data flows one way: socket → [`transport`] → [`wire`] → [`session`] → [`routing`] → [`reactor`] → socket.
//!
//! | module | what it owns | what it never does |
//! |---|---|---|
//! | [`limits`] | every bound, and what a connection costs in bytes | |
//! | [`ids`], [`clock`], [`wheel`] | names, time, deadlines | read a clock |
//! | [`config`] | the file as typed, the configuration as resolved | I/O beyond reading its file |
//! | [`sizing`] | what so many connections need of a machine | read a machine |
//! | [`counters`] | what each reactor counts | decide anything |
//! | [`wire`] | MQTT packets, bytes in and bytes out | I/O, allocation while decoding |
//! | [`topic`] | names, filters, the subscription index, interest between reactors | I/O, time |
//! | [`access`] | who may come in, as whom, and what they may do: tickets, passwords, rules, tenants | know a socket or a packet, read a clock |
//! | [`gate`] | its threads: passwords and the HTTP hook, which take long | make a reactor wait |
//! | [`session`] | one client's protocol state: windows, queue, aliases, will | I/O, read a clock |
//! | [`store`] | what outlives the process: states, queues, shared bodies and values in a log a reactor | know MQTT, wait for a disk, drop anything by itself |
//! | [`routing`] | a shard: all sessions of a reactor, and the way of a message through all shards | I/O, read a clock |
//! | [`sys`] | socket options, fd tables and passing, affinity, limits of the machine: all `unsafe` | policy |
//! | [`transport`] | bytes from and to a socket | protocol |
//! | [`reactor`] | the loop: accept, hand over, read, drive the shard, write | decide what MQTT means |
//! | [`lookup`] | tickets: who may ask, which node, which slot | touch a session, wait for a reactor |
//! | [`logs`] | where the logs are, who writes which, another number of them | serve |
//! | [`server`] | threads: start, drain, end | |
//!
//! Imports point one way, down this order: `limits`, `ids`, `clock`, `config` ← `wire`, `topic`, `wheel`, `counters` ← `session`, `store`, `access` ←
//! `routing`, `gate` ← `sys`, `transport` ← `reactor` ← `lookup` ← `server` ← `main`. `wire`, `topic`, `session` and `routing` can be driven by a simulation;
//! what they take from `sys` is [`sys::text`], [`sys::bytes`] and [`sys::prefetch`], which look at bytes or hint at them, and ask nobody.

pub mod access;
pub mod clock;
pub mod config;
pub mod counters;
pub mod data_dir;
pub mod gate;
pub mod ids;
pub mod limits;
pub mod logs;
pub mod lookup;
pub mod reactor;
pub mod routing;
pub mod server;
pub mod session;
pub mod sizing;
pub mod store;
pub mod sys;
pub mod topic;
pub mod transport;
pub mod wheel;
pub mod wire;
