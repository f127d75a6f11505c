//! One client: its connection, the messages it has sent and holds, and what it remembers across the server's death. A client's memory never
//! fails here; it is the server's that is in question.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use fastrand::Rng;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::body::{self, Identity};
use super::fault::Kind;
use super::model::{Model, Sent};
use crate::packet::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish};

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

    // --- What it publishes ---

    /// Whether it may publish one more.
    pub(super) fn may_publish(&self) -> bool {
        let window = self.nature.window.min(usize::from(self.receive_maximum));
        self.is_online()
            && !self.quiet
            && self.flights.len() < window
            && self.output.len() < BACKLOG
    }

    /// Publishes; without a length an empty payload.
    pub(super) fn publish(
        &mut self,
        topic: usize,
        qos: u8,
        retain: bool,
        len: Option<usize>,
        model: &mut Model,
    ) {
        let sent = match len {
            Some(_) => model.sent(self.number, topic, qos),
            None => model.cleared(topic),
        };
        let id = self.free_id();
        self.flights.push_back(Flight {
            id,
            qos,
            topic,
            retain,
            len: len.unwrap_or(0),
            sent,
            released: false,
        });
        self.send(self.flights.len() - 1, false, model);
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id % IDS + 1;
            let id = self.next_id;
            let subscribing = |standing: &Standing| matches!(standing, Standing::Asked(have) | Standing::Leaving(have) if *have == id);
            if !self.flights.iter().any(|flight| flight.id == id)
                && !self.standing.iter().any(subscribing)
            {
                return id;
            }
        }
    }

    fn send(&mut self, at: usize, dup: bool, model: &mut Model) {
        let flight = &self.flights[at];
        if flight.released {
            packet::ack(PUBREL, flight.id, &mut self.output);
            model.note(&self.id, format_args!("> PUBREL {}", flight.id));
            return;
        }
        let Flight { id, qos, .. } = *flight;
        let what = flight
            .sent
            .identity
            .map(|identity| (identity.stream, identity.seq));
        model.note(
            &self.id,
            format_args!("> PUBLISH {id}, QoS {qos}, dup {dup} = {what:?}"),
        );
        let payload = flight
            .sent
            .identity
            .map(|identity| body::write(model.run, identity, flight.len));
        let publish = Publish {
            topic: model.topic(flight.topic),
            qos: flight.qos,
            retain: flight.retain,
            dup,
            id: flight.id,
            payload: payload.as_deref().unwrap_or_default(),
        };
        publish.write(self.nature.version, &mut self.output);
    }

    fn acknowledged(&mut self, kind: u8, id: u16, code: u8, model: &mut Model) {
        let Some(at) = self.flights.iter().position(|flight| flight.id == id) else {
            let what = format!("an acknowledgement of type {kind} for {id}, which is not in use");
            model.fault(Kind::Protocol, &self.name(), what);
            return;
        };
        let name = self.name();
        let flight = &mut self.flights[at];
        // 0x92: a PUBCOMP for what the server had done with when it died.
        if code >= 0x80 && !(kind == PUBCOMP && code == 0x92) {
            let what = format!("an acknowledgement of type {kind} with {code:#04x}");
            model.fault(Kind::Refused, &name, what);
        }
        match (kind, flight.qos) {
            (PUBREC, 2) => {
                flight.released = true;
                packet::ack(PUBREL, id, &mut self.output);
            }
            (PUBACK, 1) | (PUBCOMP, 2) => {
                let flight = self.flights.remove(at).unwrap_or_else(|| unreachable!());
                model.acknowledged(flight.sent, flight.qos, flight.len);
                if self
                    .flights
                    .iter()
                    .take(at)
                    .any(|before| before.qos == flight.qos)
                {
                    let what = format!("{id} is acknowledged before what was sent before it");
                    model.fault(Kind::Protocol, &name, what);
                }
            }
            _ => {
                let what = format!("type {kind} for a message at QoS {}", flight.qos);
                model.fault(Kind::Protocol, &name, what);
            }
        }
    }

    // --- What it subscribes to ---

    /// SUBSCRIBEs to what it isn't subscribed to, or the other way round.
    pub(super) fn turn(&mut self, hold: usize, model: &mut Model) {
        match self.standing[hold] {
            Standing::Off => self.subscribe(hold, model),
            Standing::On => self.unsubscribe(hold, model),
            Standing::Asked(_) | Standing::Leaving(_) => {}
        }
    }

    fn subscribe(&mut self, hold: usize, model: &mut Model) {
        let id = self.free_id();
        let (filter, qos) = &self.nature.filters[hold];
        packet::subscription(
            self.nature.version,
            id,
            filter,
            Some(*qos),
            &mut self.output,
        );
        self.standing[hold] = Standing::Asked(id);
        model.asked(self.number, hold);
    }

    fn unsubscribe(&mut self, hold: usize, model: &mut Model) {
        let id = self.free_id();
        let filter = &self.nature.filters[hold].0;
        packet::subscription(self.nature.version, id, filter, None, &mut self.output);
        model.note(&self.id, format_args!("> UNSUBSCRIBE {id}, {filter}"));
        self.standing[hold] = Standing::Leaving(id);
        model.leaving(self.number, hold);
    }

    fn granted(&mut self, id: u16, code: u8, model: &mut Model) {
        let Some(hold) = self
            .standing
            .iter()
            .position(|&at| at == Standing::Asked(id))
        else {
            model.fault(Kind::Protocol, &self.name(), format!("a SUBACK for {id}"));
            return;
        };
        let asked = model.qos_of(self.number, hold);
        if code == asked {
            self.standing[hold] = Standing::On;
            model.granted(self.number, hold);
        } else {
            let what = format!("SUBACK {code:#04x}, asked for QoS {asked}");
            model.fault(Kind::Refused, &self.name(), what);
        }
    }

    fn left(&mut self, id: u16, model: &mut Model) {
        let Some(hold) = self
            .standing
            .iter()
            .position(|&at| at == Standing::Leaving(id))
        else {
            model.fault(
                Kind::Protocol,
                &self.name(),
                format!("an UNSUBACK for {id}"),
            );
            return;
        };
        self.standing[hold] = Standing::Off;
        model.left(self.number, hold);
    }

    // --- What it receives ---

    fn delivered(&mut self, publish: &Publish<'_>, model: &mut Model) {
        let Publish {
            topic,
            qos,
            payload,
            id,
            ..
        } = *publish;
        if publish.retain || payload.is_empty() {
            // Whether it is the right one, a reader of its own finds out; here it may be old by the time it comes.
            self.respond(qos, id);
            return;
        }
        if qos == 2 {
            let identity = model.identity(payload);
            if let (Some(held), Some(identity)) = (self.held.get(&id), identity) {
                if *held != identity {
                    let what =
                        format!("packet identifier {id} has another message before it is released");
                    model.fault(Kind::Protocol, &self.name(), what);
                } else if !publish.dup {
                    model.counts.unmarked += 1;
                }
                self.respond(qos, id);
                return;
            }
            if let Some(identity) = identity {
                self.held.insert(id, identity);
            }
        }
        model.received(self.number, topic, qos, payload);
        self.respond(qos, id);
    }

    fn respond(&mut self, qos: u8, id: u16) {
        match qos {
            0 => {}
            1 => self.answer(PUBACK, id),
            _ => self.answer(PUBREC, id),
        }
    }

    /// In the order in which the messages came; a slow client answers later.
    fn answer(&mut self, kind: u8, id: u16) {
        self.owed.push_back((kind, id));
    }

    /// Gives the answers that are due.
    pub(super) fn answer_some(&mut self, random: &mut Rng, model: &mut Model) {
        if self.stage != Stage::Online || (self.nature.slow && random.u8(..) > 20) {
            return;
        }
        while let Some((kind, id)) = self.owed.pop_front() {
            model.note(&self.id, format_args!("> {} {id}", packet::ack_name(kind)));
            packet::ack(kind, id, &mut self.output);
        }
    }
}
