//! One client: its connection, the messages it has sent and holds, and what it remembers across the server's death. A client's memory never
//! fails here; it is the server's that is in question.

mod publishes;
mod subscribes;

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::body::Identity;
use super::fault::Kind;
use super::model::{Model, Sent};
use crate::packet::{self, Connect, PUBCOMP, PUBREL, Packet};

/// Packet identifiers a publisher goes round: few, so that each is used again soon.
const IDS: u16 = 100;

/// Seconds that a durable session outlives its connection: longer than any run.
const EXPIRY: u32 = 86_400;

/// Bytes that may wait for the socket before no more is published.
const BACKLOG: usize = 1 << 20;

/// What a client is.
#[derive(Clone, Debug)]
pub(super) struct Nature {
    pub(super) version: u8,
    pub(super) durable: bool,
    /// Messages under way at most; 0: it doesn't publish.
    pub(super) window: usize,
    /// Filters, with the QoS of each.
    pub(super) filters: Vec<(String, u8)>,
    /// Receive Maximum (MQTT 5).
    pub(super) receive_maximum: u16,
    /// It leaves deliveries without an answer for a while.
    pub(super) slow: bool,
}

/// How far its connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Away,
    /// CONNECT is sent, perhaps with clean start.
    Calling(bool),
    Online,
}

/// Whether the server must have its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    Yes,
    /// It may, or it may not.
    Perhaps,
}

/// A subscription, as the client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Off,
    Asked(u16),
    On,
    Leaving(u16),
}

/// A message of its own that isn't acknowledged.
#[derive(Debug)]
struct Flight {
    id: u16,
    qos: u8,
    topic: usize,
    retain: bool,
    len: usize,
    sent: Sent,
    /// PUBREC came.
    released: bool,
}

/// A client.
#[derive(Debug)]
pub(super) struct Phone {
    pub(super) number: usize,
    id: String,
    pub(super) nature: Nature,
    stream: Option<TcpStream>,
    input: Vec<u8>,
    output: Vec<u8>,
    stage: Stage,
    known: Known,
    /// Its session is to be ended with its next connection.
    wiping: bool,
    flights: VecDeque<Flight>,
    /// Of earlier connections of a client without a session: the server may have them for as long as it lives.
    orphans: Vec<Sent>,
    next_id: u16,
    /// The server's Receive Maximum.
    receive_maximum: u16,
    /// QoS 2 messages that are received and not released.
    held: BTreeMap<u16, Identity>,
    /// Answers that it has not given yet.
    owed: VecDeque<(u8, u16)>,
    standing: Vec<Standing>,
    /// Publishing no more.
    pub(super) quiet: bool,
}

impl Phone {
    pub(super) fn new(number: usize, nature: Nature) -> Self {
        Self {
            number,
            id: format!("phone-{number}"),
            standing: vec![Standing::Off; nature.filters.len()],
            nature,
            stream: None,
            input: Vec::new(),
            output: Vec::new(),
            stage: Stage::Away,
            known: Known::No,
            wiping: false,
            flights: VecDeque::new(),
            orphans: Vec::new(),
            next_id: 0,
            receive_maximum: u16::MAX,
            held: BTreeMap::new(),
            owed: VecDeque::new(),
            quiet: false,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.stage == Stage::Away
    }

    pub(super) fn is_online(&self) -> bool {
        self.stage == Stage::Online
    }

    /// Nothing of its own is under way, and no subscription changes.
    pub(super) fn is_settled(&self) -> bool {
        let changes =
            |standing: &Standing| matches!(standing, Standing::Asked(_) | Standing::Leaving(_));
        self.flights.is_empty() && !self.standing.iter().any(changes)
    }

    fn name(&self) -> String {
        format!(
            "{} (MQTT {})",
            self.id,
            if self.nature.version == 5 {
                "5"
            } else {
                "3.1.1"
            }
        )
    }

    // --- Its connection ---

    /// Calls the server. An error means that nobody listens.
    pub(super) fn call(
        &mut self,
        addr: SocketAddr,
        registry: &Registry,
        model: &mut Model,
    ) -> std::io::Result<()> {
        let stream = std::net::TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, Token(self.number), Interest::READABLE)?;
        self.stream = Some(stream);
        self.input.clear();
        self.output.clear();
        let clean = self.wiping || !self.nature.durable;
        let connect = Connect {
            version: self.nature.version,
            id: &self.id,
            clean,
            expiry: if self.nature.durable { EXPIRY } else { 0 },
            receive_maximum: self.nature.receive_maximum,
        };
        connect.write(&mut self.output);
        model.note(&self.id, format_args!("> CONNECT, clean {clean}"));
        if clean {
            model.ending(self.number);
        }
        self.stage = Stage::Calling(clean);
        Ok(())
    }

    /// The connection ends without a word, as when the network is gone.
    pub(super) fn vanish(&mut self) {
        if self.stage == Stage::Calling(false) && self.known == Known::No {
            self.known = Known::Perhaps;
        }
        self.stream = None;
        self.stage = Stage::Away;
        self.owed.clear();
        if !self.nature.durable {
            self.orphans
                .extend(self.flights.drain(..).map(|flight| flight.sent));
            self.held.clear();
            self.standing.fill(Standing::Off);
        }
    }

    /// DISCONNECT, then the end.
    pub(super) fn leave(&mut self) {
        self.output.extend_from_slice(&packet::DISCONNECT);
        self.flush();
        self.vanish();
    }

    /// Its session is to be ended, if nothing of its own is under way.
    pub(super) fn wipe(&mut self) {
        if self.nature.durable && self.flights.is_empty() {
            self.vanish();
            self.wiping = true;
        }
    }

    /// The server is dead. What it sent before is read already.
    pub(super) fn bereaved(&mut self, model: &mut Model) {
        self.vanish();
        for sent in self.orphans.drain(..) {
            model.given_up(sent);
        }
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let mut done = 0;
        while done < self.output.len() {
            match stream.write(&self.output[done..]) {
                Ok(count) => done += count,
                // A reader finds out.
                Err(_) => break,
            }
        }
        self.output.drain(..done);
    }

    /// Reads all that is there and acts on it. True: the connection has ended.
    pub(super) fn read(&mut self, model: &mut Model) -> bool {
        let mut chunk = [0; 16 << 10];
        loop {
            let Some(stream) = &mut self.stream else {
                return false;
            };
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    self.take_packets(model);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        true
    }

    fn take_packets(&mut self, model: &mut Model) {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        loop {
            match packet::split(&input[at..], self.nature.version) {
                Ok(Some((packet, len))) => {
                    at += len;
                    self.take(packet, model);
                }
                Ok(None) => break,
                Err(what) => {
                    model.fault(Kind::Protocol, &self.name(), what);
                    break;
                }
            }
        }
        self.input = input;
        self.input.drain(..at);
    }

    fn take(&mut self, packet: Packet<'_>, model: &mut Model) {
        let identity = match &packet {
            Packet::Publish(publish) => model.identity(publish.payload),
            _ => None,
        };
        match identity {
            Some(Identity { stream, seq }) => {
                model.note(&self.id, format_args!("< {packet} = {stream}.{seq}"));
            }
            None => model.note(&self.id, format_args!("< {packet}")),
        }
        match packet {
            Packet::Connack {
                present,
                code: 0,
                receive_maximum,
            } => self.welcomed(present, receive_maximum, model),
            Packet::Connack { code, .. } => {
                model.fault(Kind::Refused, &self.name(), format!("CONNACK {code:#04x}"));
            }
            Packet::Publish(publish) => self.delivered(&publish, model),
            Packet::Ack {
                kind: PUBREL, id, ..
            } => {
                self.held.remove(&id);
                self.answer(PUBCOMP, id);
            }
            Packet::Ack { kind, id, code } => self.acknowledged(kind, id, code, model),
            Packet::Suback { id, code } => self.granted(id, code, model),
            Packet::Unsuback { id } => self.left(id, model),
            Packet::Pingresp => {}
            Packet::Disconnect { code } => {
                // 0x8b: the server shuts down.
                if code != 0x8b {
                    model.fault(
                        Kind::Server,
                        &self.name(),
                        format!("DISCONNECT {code:#04x}"),
                    );
                }
            }
        }
    }

    /// CONNACK: what both sides still have is sent again.
    fn welcomed(&mut self, present: bool, receive_maximum: u16, model: &mut Model) {
        let Stage::Calling(clean) = self.stage else {
            model.fault(Kind::Protocol, &self.name(), "CONNACK twice".into());
            return;
        };
        let expected = match self.known {
            _ if clean => Some(false),
            Known::No => Some(false),
            Known::Yes => Some(true),
            Known::Perhaps => None,
        };
        if expected.is_some_and(|expected| expected != present) {
            let what = format!("session present is {present}");
            model.fault(Kind::Session, &self.name(), what);
        }
        model.connected(self.number, present);
        self.stage = Stage::Online;
        self.receive_maximum = receive_maximum;
        if clean && self.nature.durable && self.nature.version != 5 {
            // The session of a clean CONNECT ends with it; the next one is kept again.
            self.forget(model);
            self.wiping = false;
            self.known = Known::No;
            self.leave();
            return;
        }
        self.wiping = false;
        self.known = if self.nature.durable {
            Known::Yes
        } else {
            Known::No
        };
        if !present {
            self.forget(model);
        }
        for flight in &self.flights {
            model.sent_again(flight.sent);
        }
        for at in 0..self.flights.len() {
            self.send(at, true, model);
        }
        for hold in 0..self.standing.len() {
            match self.standing[hold] {
                Standing::Asked(_) => self.subscribe(hold, model),
                Standing::Leaving(_) => self.unsubscribe(hold, model),
                Standing::Off if !present => self.subscribe(hold, model),
                Standing::Off | Standing::On => {}
            }
        }
    }

    /// The server has no session: whatever was under way there is over.
    fn forget(&mut self, model: &mut Model) {
        self.held.clear();
        self.standing.fill(Standing::Off);
        for flight in self.flights.drain(..) {
            model.given_up(flight.sent);
        }
    }
}
