//! What the server has promised, and whether it keeps it. Only what was acknowledged counts; what was not may be there or not.
//!
//! Time is a count of events: a SUBACK that was read before a PUBLISH was written happened before it. The model knows no sockets and no
//! processes; the world tells it what was sent and what came.

mod deliveries;
mod retained;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use super::body::{self, Identity};
use super::fault::{Fault, Kind};
use retained::{Retained, Value};
use session::{Hold, Session, Window};

/// Not yet.
const NEVER: u64 = u64::MAX;

/// So many messages at the end of a stream may still be on their way when a session begins: more than any publisher's window.
const ON_THE_WAY: usize = 64;

/// Lines of what happened last that are kept for whoever has to find out why.
const TRACE: usize = 200_000;

/// A topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    /// Its messages are retained; it has one publisher.
    pub(super) retained: bool,
}

/// What one publisher sends to one topic at one QoS: that much is in order.
#[derive(Debug)]
struct Stream {
    publisher: usize,
    topic: usize,
    qos: u8,
    messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    sent: u64,
    /// Acknowledged, or given up.
    settled: u64,
    acknowledged: bool,
    /// How often it was sent.
    times: u16,
}

/// What was sent with one packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// None for an empty payload, which clears what is retained.
    pub(super) identity: Option<Identity>,
    /// A retained topic and the place in its history.
    retained: Option<(usize, usize)>,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Acknowledged messages, at QoS 1 and 2.
    pub(super) acknowledged: [u64; 2],
    /// Bytes of their payloads.
    pub(super) bytes: u64,
    /// Messages that came for the first time.
    pub(super) delivered: u64,
    /// Came again where that is allowed.
    pub(super) repeated: u64,
    /// Retained messages that were right.
    pub(super) retained: u64,
    /// Came again without the mark of it (DUP).
    pub(super) unmarked: u64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) run: u64,
    now: u64,
    topics: Vec<Topic>,
    streams: Vec<Stream>,
    by_topic: BTreeMap<(usize, usize, u8), u32>,
    sessions: Vec<Session>,
    retained: Vec<Retained>,
    pub(super) counts: Counts,
    pub(super) faults: Vec<Fault>,
    trace: VecDeque<String>,
}

impl Model {
    pub(super) fn new(run: u64, topics: Vec<Topic>) -> Self {
        Self {
            run,
            now: 0,
            retained: topics.iter().map(|_| Retained::default()).collect(),
            topics,
            streams: Vec::new(),
            by_topic: BTreeMap::new(),
            sessions: Vec::new(),
            counts: Counts::default(),
            faults: Vec::new(),
            trace: VecDeque::new(),
        }
    }

    /// Which message a payload is, if it is one.
    pub(super) fn identity(&self, payload: &[u8]) -> Option<Identity> {
        body::read(self.run, payload)
    }

    pub(super) fn topic(&self, topic: usize) -> &str {
        &self.topics[topic].name
    }

    /// Before any session: who publishes what.
    pub(super) fn add_stream(&mut self, publisher: usize, topic: usize, qos: u8) {
        let number = self.streams.len() as u32;
        self.by_topic.insert((publisher, topic, qos), number);
        self.streams.push(Stream {
            publisher,
            topic,
            qos,
            messages: Vec::new(),
        });
    }

    /// A client, with the filters that it will ever use: QoS, and topics that they match.
    pub(super) fn add_session(&mut self, durable: bool, filters: &[(u8, Vec<usize>)]) -> usize {
        let holds: Vec<Hold> = filters
            .iter()
            .map(|(qos, topics)| Hold {
                qos: *qos,
                topics: topics.clone(),
                windows: Vec::new(),
            })
            .collect();
        let hold_of = |stream: &Stream| {
            let at = holds
                .iter()
                .position(|hold| hold.topics.contains(&stream.topic));
            at.map(|at| at as u16)
        };
        let session = Session {
            durable,
            hold_of: self.streams.iter().map(hold_of).collect(),
            base: vec![0; self.streams.len()],
            holds,
            tracks: BTreeMap::new(),
            connection: 0,
        };
        self.sessions.push(session);
        self.sessions.len() - 1
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn fault(&mut self, kind: Kind, who: &str, what: String) {
        self.note(who, format_args!("FAULT {kind}: {what}"));
        let who = who.to_owned();
        self.faults.push(Fault { kind, who, what });
    }

    /// Writes down what happened.
    pub(super) fn note(&mut self, who: &str, what: fmt::Arguments<'_>) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{} {who} {what}", self.now));
    }

    /// What is written down, as a file.
    pub(super) fn write_trace(&self, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(std::fs::File::create(path)?);
        for line in &self.trace {
            writeln!(file, "{line}")?;
        }
        file.flush()
    }

    fn fault_of(&mut self, kind: Kind, session: usize, identity: Identity, more: &str) {
        let stream = &self.streams[identity.stream as usize];
        let what = format!(
            "message {} of publisher {} to {} at QoS {}{more}",
            identity.seq, stream.publisher, self.topics[stream.topic].name, stream.qos
        );
        self.fault(kind, &format!("session {session}"), what);
    }

    // --- Publishers ---

    /// A message is sent for the first time.
    pub(super) fn sent(&mut self, publisher: usize, topic: usize, qos: u8) -> Sent {
        let now = self.tick();
        let stream = self.by_topic[&(publisher, topic, qos)];
        let messages = &mut self.streams[stream as usize].messages;
        let identity = Identity {
            stream,
            seq: messages.len() as u32,
        };
        messages.push(Message {
            sent: now,
            settled: NEVER,
            acknowledged: false,
            times: 1,
        });
        Sent {
            identity: Some(identity),
            retained: self.value(topic, Value::Message(identity)),
        }
    }

    /// An empty payload is sent to a retained topic.
    pub(super) fn cleared(&mut self, topic: usize) -> Sent {
        self.tick();
        Sent {
            identity: None,
            retained: self.value(topic, Value::Cleared),
        }
    }

    fn value(&mut self, topic: usize, value: Value) -> Option<(usize, usize)> {
        if !self.topics[topic].retained {
            return None;
        }
        let history = &mut self.retained[topic].history;
        history.push(value);
        Some((topic, history.len() - 1))
    }

    /// It is sent again.
    pub(super) fn sent_again(&mut self, sent: Sent) {
        if let Some(message) = self.message(sent) {
            message.times += 1;
        }
    }

    /// PUBACK or PUBCOMP.
    pub(super) fn acknowledged(&mut self, sent: Sent, qos: u8, bytes: usize) {
        let now = self.tick();
        if let Some(message) = self.message(sent) {
            message.settled = now;
            message.acknowledged = true;
        }
        if let Some((topic, at)) = sent.retained {
            let floor = &mut self.retained[topic].floor;
            *floor = (*floor).max(at + 1);
        }
        self.counts.acknowledged[usize::from(qos) - 1] += 1;
        self.counts.bytes += bytes as u64;
    }

    /// Its publisher won't send it again, and the server that had it is gone.
    pub(super) fn given_up(&mut self, sent: Sent) {
        let now = self.tick();
        if let Some(message) = self.message(sent) {
            message.settled = now;
        }
    }

    fn message(&mut self, sent: Sent) -> Option<&mut Message> {
        let identity = sent.identity?;
        self.streams[identity.stream as usize]
            .messages
            .get_mut(identity.seq as usize)
    }

    // --- Sessions ---

    /// A connection stands; with `present` what was promised goes on, without it there is nothing.
    pub(super) fn connected(&mut self, session: usize, present: bool) {
        self.tick();
        let own = &mut self.sessions[session];
        own.connection += 1;
        if !present {
            own.tracks.clear();
            for hold in &mut own.holds {
                hold.windows.clear();
            }
            for (base, stream) in own.base.iter_mut().zip(&self.streams) {
                *base = stream.messages.len().saturating_sub(ON_THE_WAY) as u32;
            }
        }
    }

    /// The client asks for the end of its session: nothing is owed any more, but may still come.
    pub(super) fn ending(&mut self, session: usize) {
        let now = self.tick();
        for hold in &mut self.sessions[session].holds {
            for window in &mut hold.windows {
                window.leaving = window.leaving.min(now);
            }
        }
    }

    /// SUBSCRIBE is sent, perhaps again because the answer to the first was lost.
    pub(super) fn asked(&mut self, session: usize, hold: usize) {
        let now = self.tick();
        let windows = &mut self.sessions[session].holds[hold].windows;
        if windows
            .last()
            .is_none_or(|last| last.granted < NEVER || last.leaving < NEVER)
        {
            windows.push(Window {
                asked: now,
                granted: NEVER,
                leaving: NEVER,
                left: NEVER,
            });
        }
    }

    /// SUBACK.
    pub(super) fn granted(&mut self, session: usize, hold: usize) {
        let now = self.tick();
        if let Some(last) = self.sessions[session].holds[hold].windows.last_mut() {
            last.granted = last.granted.min(now);
        }
    }

    /// UNSUBSCRIBE is sent.
    pub(super) fn leaving(&mut self, session: usize, hold: usize) {
        let now = self.tick();
        if let Some(last) = self.sessions[session].holds[hold].windows.last_mut() {
            last.leaving = last.leaving.min(now);
        }
    }

    /// UNSUBACK.
    pub(super) fn left(&mut self, session: usize, hold: usize) {
        let now = self.tick();
        for window in &mut self.sessions[session].holds[hold].windows {
            window.left = window.left.min(now);
        }
    }

    pub(super) fn qos_of(&self, session: usize, hold: usize) -> u8 {
        self.sessions[session].holds[hold].qos
    }
}

#[cfg(test)]
mod tests;
