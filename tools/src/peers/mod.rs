//! `tools peers`: the same load on brokers of the field, on Stillwire, and on the floor, one after the other on the same machine.
//!
//! Each peer has a plain configuration without limits in the way and without anything written to disk that the load doesn't ask for. One that
//! can't keep up is tried again at a quarter of the rates, and at a sixteenth; the report says which, and what happened if that failed too.

mod chart;
mod page;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::ValueEnum;
use loadgen::machine;
use serde::Serialize;
use stillwire::sys::rlimit;

use crate::bench::{self, Cost, Figures, Load};
use crate::broker::{self, Broker, BrokerError};
use crate::cli::{Peers, Server};

/// Names the shape of the JSON.
const SCHEMA: &str = "stillwire.peers/1";

/// By how much the rates are divided, one try after the other.
const TRIES: [u64; 3] = [1, 4, 16];

/// A broker of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Eclipse Mosquitto
    Mosquitto,
    /// The NATS server, which speaks MQTT too
    NatsServer,
    /// The broker of the rumqtt project
    Rumqttd,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Which {
    Floor,
    Stillwire,
    Peer(Peer),
}

/// All of it, as it is written to disk.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    schema: &'static str,
    machine: String,
    date: String,
    /// Load average before the first broker was started.
    load_before: f64,
    load: Load,
    /// The floor first.
    brokers: Vec<Line>,
}

/// One broker.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    version: String,
    /// The rates were divided by this.
    slower: u64,
    /// What kept it from faster rates, or from any figures.
    remarks: Vec<String>,
    figures: Option<Figures>,
}

/// Why there is no comparison.
#[derive(Debug)]
pub(crate) enum PeersError {
    /// Ctrl-C.
    Interrupted,
    /// The limit of open files, or the results.
    Io(PathBuf, io::Error),
}

impl fmt::Display for PeersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

/// A figure's name, and the figure.
type Compare = (&'static str, fn(&Figures) -> Cost);

/// The figures that brokers are compared by.
const COMPARED: [Compare; 4] = [
    ("connect + subscribe", |figures| figures.connect),
    ("fan-out delivery", |figures| figures.delivery),
    ("message, QoS 0", |figures| figures.unicast0),
    ("message, QoS 1", |figures| figures.unicast1),
];

/// Measures all, and writes the results; returns the directory they are in.
pub(crate) fn run(args: &Peers, interrupted: &Arc<AtomicBool>) -> Result<PathBuf, PeersError> {
    // The brokers inherit it.
    rlimit::raise_open_files().map_err(|error| PeersError::Io("open files".into(), error))?;
    let load = args.load.load(0);
    let mut compared = Compared {
        schema: SCHEMA,
        machine: machine::describe(),
        date: machine::today(),
        load_before: machine::load(),
        load,
        brokers: Vec::new(),
    };
    let peers = args.with.iter().map(|&peer| Which::Peer(peer));
    for which in [Which::Floor, Which::Stillwire].into_iter().chain(peers) {
        compared.brokers.push(which.compare(args, interrupted)?);
    }
    let dir = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("tools/runs").join(&compared.date));
    compared.write(&dir)?;
    Ok(dir)
}

impl Compared {
    fn write(&self, dir: &PathBuf) -> Result<(), PeersError> {
        std::fs::create_dir_all(dir).map_err(|error| PeersError::Io(dir.clone(), error))?;
        let json =
            serde_json::to_string_pretty(self).unwrap_or_else(|_| unreachable!("plain data"));
        for (name, text) in [
            ("peers.md", page::markdown(self)),
            ("peers.svg", chart::svg(self)),
            ("peers.json", json + "\n"),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|error| PeersError::Io(path, error))?;
        }
        Ok(())
    }

    /// A cost as a ratio to the floor's, if both were measured.
    fn ratio(&self, line: &Line, of: fn(&Figures) -> Cost) -> Option<f64> {
        let cost = |line: &Line| line.figures.as_ref().map(|figures| of(figures).all);
        let ratio = cost(line)? / self.brokers.first().and_then(cost)?;
        ratio.is_finite().then_some(ratio)
    }
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Stillwire => "Stillwire",
            Self::Peer(Peer::Mosquitto) => "mosquitto",
            Self::Peer(Peer::NatsServer) => "nats-server",
            Self::Peer(Peer::Rumqttd) => "rumqttd",
        }
    }

    /// Tries until the broker keeps up.
    fn compare(self, args: &Peers, interrupted: &Arc<AtomicBool>) -> Result<Line, PeersError> {
        let mut line = Line {
            name: self.name().into(),
            version: self.version(),
            slower: 1,
            remarks: Vec::new(),
            figures: None,
        };
        for slower in TRIES {
            let load = args.load.load(0).slower(slower);
            line.slower = slower;
            let result = match self.start(args, load.connections) {
                // Without a broker a slower rate is no help.
                Err(error) => {
                    line.remarks.push(error.to_string());
                    return Ok(line);
                }
                Ok(broker) => bench::run(load, broker, interrupted),
            };
            if interrupted.load(Relaxed) {
                return Err(PeersError::Interrupted);
            }
            let at = format!(
                "at {} connects/s and {} messages/s",
                load.rate, load.message_rate
            );
            match result {
                Ok(figures) => {
                    let remark = figures.stopped.clone().or_else(|| {
                        let lost = figures.lost;
                        (lost > 0).then(|| format!("{lost} messages or phones missing"))
                    });
                    line.figures = Some(figures);
                    match remark {
                        Some(remark) => line.remarks.push(format!("{at}: {remark}")),
                        None => return Ok(line),
                    }
                }
                Err(error) => {
                    line.figures = None;
                    line.remarks.push(format!("{at}: {error}"));
                }
            }
        }
        Ok(line)
    }

    /// The first line of what the binary says about itself.
    fn version(self) -> String {
        let (binary, flag) = match self {
            Self::Floor | Self::Stillwire => return env!("CARGO_PKG_VERSION").into(),
            Self::Peer(Peer::Mosquitto) => ("mosquitto", "-h"),
            Self::Peer(Peer::NatsServer) => ("nats-server", "--version"),
            Self::Peer(Peer::Rumqttd) => ("rumqttd", "--version"),
        };
        let said = Command::new(binary).arg(flag).output();
        let said = said.map_or_else(|_| Vec::new(), |output| output.stdout);
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().next().unwrap_or("not installed");
        let last = line.split_whitespace().next_back().unwrap_or_default();
        last.trim_start_matches('v').into()
    }

    fn start(self, args: &Peers, connections: u32) -> Result<Broker, BrokerError> {
        let own = Server {
            reactors: args.reactors,
            binary: args.binary.clone(),
            ..Server::default()
        };
        let peer = match self {
            Self::Floor => return Broker::floor(own.reactors(connections), connections),
            Self::Stillwire => return Broker::start(&own, connections),
            Self::Peer(peer) => peer,
        };
        let failed = |error| BrokerError::Start(self.name().into(), error);
        let addr = broker::free_address().map_err(failed)?;
        let dir = broker::directory();
        std::fs::create_dir_all(&dir).map_err(failed)?;
        // rumqttd tells the format by the name; the others don't look at it.
        let file = dir.join("peer.toml");
        std::fs::write(&file, peer.config(addr, &dir.display().to_string())).map_err(failed)?;
        let mut process = match peer {
            Peer::Mosquitto => Command::new("mosquitto"),
            Peer::NatsServer => Command::new("nats-server"),
            Peer::Rumqttd => Command::new("rumqttd"),
        };
        process.arg("-c").arg(&file);
        Broker::spawn(self.name().into(), process, addr)
    }
}

impl Peer {
    fn config(self, addr: SocketAddr, dir: &str) -> String {
        match self {
            Self::Mosquitto => format!(
                "listener {} {}\n\
                 allow_anonymous true\n\
                 user root\n\
                 persistence false\n\
                 set_tcp_nodelay true\n\
                 max_connections -1\n\
                 max_queued_messages 0\n\
                 max_inflight_messages 0\n\
                 connection_messages false\n\
                 log_dest stderr\n\
                 log_type error\n",
                addr.port(),
                addr.ip()
            ),
            Self::NatsServer => {
                // Its own protocol needs a port as well.
                let own = broker::free_address()
                    .unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
                format!(
                    "listen: \"{own}\"\n\
                     server_name: peer\n\
                     max_connections: 1000000\n\
                     jetstream {{ store_dir: \"{dir}/jetstream\" }}\n\
                     mqtt {{ listen: \"{addr}\", max_ack_pending: 65535 }}\n"
                )
            }
            Self::Rumqttd => format!(
                "id = 0\n\
                 [router]\n\
                 id = 0\n\
                 max_connections = 1000000\n\
                 max_outgoing_packet_count = 200\n\
                 max_segment_size = 104857600\n\
                 max_segment_count = 10\n\
                 [v4.1]\n\
                 name = \"v4-1\"\n\
                 listen = \"{addr}\"\n\
                 next_connection_delay_ms = 0\n\
                 [v4.1.connections]\n\
                 connection_timeout_ms = 60000\n\
                 max_payload_size = 20480\n\
                 max_inflight_count = 500\n\
                 dynamic_filters = true\n"
            ),
        }
    }
}

#[cfg(test)]
impl Compared {
    /// The floor, Stillwire, one that stopped half-way at a slower rate, and one that isn't there.
    fn made_up() -> Self {
        let line = |name: &str, slower, remarks: &[&str], figures| Line {
            name: name.into(),
            version: "1".into(),
            slower,
            remarks: remarks.iter().map(ToString::to_string).collect(),
            figures,
        };
        let figures = Figures::made_up;
        Self {
            schema: SCHEMA,
            machine: "2 cores".into(),
            date: "2026-11-21".into(),
            load_before: 0.0,
            load: Load::made_up(),
            brokers: vec![
                line("floor", 1, &[], Some(figures("floor", 10.0))),
                line("Stillwire", 1, &[], Some(figures("stillwire", 12.0))),
                line(
                    "slow",
                    4,
                    &["too fast"],
                    Some(figures("slow", 80.0).stopped()),
                ),
                line("absent", 1, &["it doesn't start"], None),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_configuration_with_its_address() {
        let addr: SocketAddr = "127.0.0.1:12345".parse().unwrap();
        for &peer in Peer::value_variants() {
            assert!(peer.config(addr, "/tmp/x").contains("12345"), "{peer:?}");
        }
    }

    #[test]
    fn all_three_files_are_written() {
        let dir = std::env::temp_dir().join(format!("stillwire-peers-{}", std::process::id()));
        Compared::made_up().write(&dir).unwrap();
        for name in ["peers.md", "peers.svg", "peers.json"] {
            assert!(
                std::fs::metadata(dir.join(name)).unwrap().len() > 0,
                "{name}"
            );
        }
        let json = std::fs::read_to_string(dir.join("peers.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert!(json["brokers"][2]["figures"]["unicast0"]["all"].is_null());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
