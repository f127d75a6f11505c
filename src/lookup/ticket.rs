//! The shape of an answer, version 1. What a field means to a client stands in `openapi.json`.

use std::net::IpAddr;

use serde::Serialize;

use super::endpoint::{Address, Proto};

/// The version of the answer's shape.
pub const VERSION: u8 = 1;

/// A ticket.
#[derive(Debug, Serialize)]
pub struct Ticket<'a> {
    /// [`VERSION`].
    pub v: u8,
    /// Unix milliseconds, by which a client sees how wrong its own clock is.
    pub server_time: u64,
    /// What holds for the client whenever it asks.
    #[serde(flatten)]
    pub lasting: &'a Lasting<'a>,
    /// The MQTT password; none: no key signs.
    pub token: Option<String>,
    /// When to ask again, in Unix milliseconds.
    pub refresh_at: u64,
    /// Milliseconds from `server_time` before which the client must not connect.
    pub connect_after: u64,
}

/// The part of a ticket that is the same while the nodes and the configuration are; the `ETag` is about it.
#[derive(Debug, Serialize)]
pub struct Lasting<'a> {
    /// The node that was chosen.
    pub node: &'a str,
    /// Where to connect, the best first.
    pub endpoints: Vec<Endpoint>,
    /// Where to connect when none of them answers, nor the lookup.
    pub fallback: Vec<Endpoint>,
    /// Seconds that token and endpoints hold.
    pub ttl: u32,
    /// How to come back.
    pub retry: Retry,
    /// What keep alive to ask for.
    pub keep_alive: KeepAlive,
    /// Seconds after which a client should reconnect by itself; 0: never.
    pub max_connection_age: u32,
}

/// One address to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// What is spoken.
    pub proto: Proto,
    /// The name for TLS, or the address again.
    pub host: Box<str>,
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// Through TLS.
    pub tls: bool,
    /// The path of a WebSocket.
    pub path: Option<Box<str>>,
    /// Lower is tried first.
    pub priority: u8,
    /// How often it is taken among those of its priority.
    pub weight: u32,
    /// The port of the reactor where this client is at home: nothing has to be handed over.
    pub home: bool,
}

impl Endpoint {
    /// An address with its rank.
    pub fn new(address: Address, priority: u8, weight: u32, home: bool) -> Self {
        Self {
            proto: address.proto,
            host: address
                .host
                .unwrap_or_else(|| address.ip.to_string().into()),
            ip: address.ip,
            port: address.port,
            tls: address.tls,
            path: address.path,
            priority,
            weight,
            home,
        }
    }
}

/// How to come back after a failure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Retry {
    /// Seconds of the first window.
    pub min: f64,
    /// Seconds of the longest.
    pub max: f64,
    /// `full`: wait anything between nothing and the window, which doubles.
    pub jitter: &'static str,
    /// Seconds before the first try.
    pub retry_after: u32,
}

/// Seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KeepAlive {
    /// The shortest that makes sense.
    pub min: u16,
    /// The longest.
    pub max: u16,
    /// What to begin with.
    pub default: u16,
}

/// Anything but a ticket.
#[derive(Debug, Serialize)]
pub struct Refusal<'a> {
    /// What is wrong, for people.
    pub error: &'a str,
    /// Seconds to wait, where asking again makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// Where to connect meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Vec<Endpoint>>,
}

/// How the lookup is.
#[derive(Debug, Serialize)]
pub struct Health<'a> {
    /// [`VERSION`].
    pub v: u8,
    /// `ok`, or `draining`: this node is on its way out.
    pub status: &'static str,
    /// This node.
    pub node: &'a str,
    /// Unix milliseconds.
    pub server_time: u64,
}
