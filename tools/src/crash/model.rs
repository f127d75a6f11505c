//! What the server has promised, and whether it keeps it. Only what was acknowledged counts; what was not may be there or not.
//!
//! Time is a count of events: a SUBACK that was read before a PUBLISH was written happened before it. The model knows no sockets and no
//! processes; the world tells it what was sent and what came.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use super::body::{self, Identity};
use super::fault::{Fault, Kind};

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

/// What a client asked for with one filter. A session's filters don't overlap.
#[derive(Debug)]
struct Hold {
    qos: u8,
    /// Topics that it matches.
    topics: Vec<usize>,
    /// Times at which it stood, perhaps.
    windows: Vec<Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    asked: u64,
    granted: u64,
    leaving: u64,
    left: u64,
}

/// A session of a client, until it is ended or lost.
#[derive(Debug)]
struct Session {
    durable: bool,
    holds: Vec<Hold>,
    /// By stream: the hold that brings it.
    hold_of: Vec<Option<u16>>,
    /// By stream: what came of it.
    tracks: BTreeMap<u32, Track>,
    /// By stream: messages before this one are none of this session's.
    base: Vec<u32>,
    connection: u32,
}

#[derive(Debug, Default)]
struct Track {
    /// Of the first of `seen`.
    base: u32,
    seen: Vec<Seen>,
    /// After the latest that came.
    next: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    times: u16,
    /// The last connection on which it came, and how often there.
    connection: u32,
    on_connection: u16,
    told: bool,
}

/// What was published to a retained topic, in order.
#[derive(Debug, Default)]
struct Retained {
    history: Vec<Value>,
    /// After the last one that is acknowledged.
    floor: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Message(Identity),
    /// An empty payload: nothing is retained any more.
    Cleared,
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

    // --- Deliveries ---

    /// A message came, as the application gets it: at QoS 2 the client has left out what had a packet identifier that it holds.
    pub(super) fn received(&mut self, session: usize, topic: &str, qos: u8, payload: &[u8]) {
        self.tick();
        let Some((identity, hold)) = self.expected(session, topic, payload) else {
            return;
        };
        let stream = &self.streams[identity.stream as usize];
        let (published, message) = (stream.qos, stream.messages[identity.seq as usize]);
        let granted = self.sessions[session].holds[hold].qos;
        let exact = published == 2 && granted == 2;
        if qos != published.min(granted) {
            let more = format!(" came with QoS {qos}, subscribed with {granted}");
            self.fault_of(Kind::Altered, session, identity, &more);
        }
        let windows = &self.sessions[session].holds[hold].windows;
        if !windows.iter().any(|window| window.may_have(&message)) {
            self.fault_of(Kind::Unasked, session, identity, "");
        }
        // Once for each time that its publisher sent it, on one connection; at QoS 2 the server knows them as one.
        let at_once = if published == 2 { 1 } else { message.times };
        let (seen, connection) = self.seen(session, identity);
        seen.times += 1;
        if seen.connection != connection {
            seen.connection = connection;
            seen.on_connection = 0;
        }
        seen.on_connection += 1;
        let (times, on_connection) = (seen.times, seen.on_connection);
        match times {
            1 => self.counts.delivered += 1,
            _ if exact => {
                let more = format!(", for the {times}. time");
                self.fault_of(Kind::Twice, session, identity, &more);
            }
            _ => self.counts.repeated += 1,
        }
        if on_connection > at_once && !exact {
            let more = format!(", {on_connection} times on one connection");
            self.fault_of(Kind::Repeated, session, identity, &more);
        }
        self.in_order(session, hold, identity, times == 1);
    }

    /// Which message it is and which hold brings it, if it can be one at all.
    fn expected(
        &mut self,
        session: usize,
        topic: &str,
        payload: &[u8],
    ) -> Option<(Identity, usize)> {
        let identity = body::read(self.run, payload).filter(|identity| {
            let stream = self.streams.get(identity.stream as usize);
            stream.is_some_and(|stream| {
                self.topics[stream.topic].name == topic
                    && (identity.seq as usize) < stream.messages.len()
            })
        });
        let Some(identity) = identity else {
            let what = format!("{} bytes to {topic} that nobody sent", payload.len());
            self.fault(Kind::Altered, &format!("session {session}"), what);
            return None;
        };
        let hold = self.sessions[session].hold_of[identity.stream as usize];
        if hold.is_none() {
            self.fault_of(Kind::Unasked, session, identity, "");
        }
        Some((identity, usize::from(hold?)))
    }

    fn seen(&mut self, session: usize, identity: Identity) -> (&mut Seen, u32) {
        let own = &mut self.sessions[session];
        let connection = own.connection;
        let track = own.track(identity.stream);
        let at = identity.seq.saturating_sub(track.base) as usize;
        if track.seen.len() <= at {
            track.seen.resize(at + 1, Seen::default());
        }
        (&mut track.seen[at], connection)
    }

    /// What came first must not have come after a later one, and nothing that is owed may be left out before it.
    fn in_order(&mut self, session: usize, hold: usize, identity: Identity, first: bool) {
        let Identity { stream, seq } = identity;
        let next = self.sessions[session].track(stream).next;
        if seq < next {
            if first {
                let more = format!(", after message {}", next - 1);
                self.fault_of(Kind::Disordered, session, identity, &more);
            }
            return;
        }
        for seq in next..seq {
            let skipped = Identity { stream, seq };
            let more = format!(", when {} came", identity.seq);
            self.tell_if_missing(session, hold, skipped, &more);
        }
        self.sessions[session].track(stream).next = seq + 1;
    }

    /// Whether a message that is owed isn't there.
    fn is_missing(&self, session: usize, hold: usize, identity: Identity) -> bool {
        let own = &self.sessions[session];
        let message = &self.streams[identity.stream as usize].messages[identity.seq as usize];
        let seen = own.tracks.get(&identity.stream).and_then(|track| {
            let at = identity.seq.checked_sub(track.base)?;
            track.seen.get(at as usize)
        });
        own.durable
            && seen.is_none_or(|seen| seen.times == 0 && !seen.told)
            && own.holds[hold]
                .windows
                .iter()
                .any(|window| window.must_have(message))
    }

    fn tell_if_missing(&mut self, session: usize, hold: usize, identity: Identity, more: &str) {
        if self.is_missing(session, hold, identity) {
            self.fault_of(Kind::Lost, session, identity, more);
            self.seen(session, identity).0.told = true;
        }
    }

    /// What each session is still owed: `(session, hold, message)`.
    fn owed(&self, only: Option<usize>) -> impl Iterator<Item = (usize, usize, Identity)> {
        let sessions = self
            .sessions
            .iter()
            .enumerate()
            .filter(move |(number, own)| own.durable && only.is_none_or(|only| only == *number));
        sessions.flat_map(move |(number, own)| {
            own.hold_of
                .iter()
                .enumerate()
                .filter_map(|(stream, hold)| Some((stream, usize::from((*hold)?))))
                .flat_map(move |(stream, hold)| {
                    let end = self.streams[stream].messages.len() as u32;
                    (own.base[stream]..end).map(move |seq| {
                        let stream = stream as u32;
                        (number, hold, Identity { stream, seq })
                    })
                })
                .filter(|&(number, hold, identity)| self.is_missing(number, hold, identity))
        })
    }

    /// Whether a session is owed something.
    pub(super) fn waits(&self, session: usize) -> bool {
        self.owed(Some(session)).next().is_some()
    }

    /// Everybody is connected and nobody publishes: what is still owed is lost. What is over is forgotten, so that the next look is short.
    pub(super) fn settle_up(&mut self) {
        let lost: Vec<_> = self.owed(None).collect();
        for (session, hold, identity) in lost {
            self.tell_if_missing(session, hold, identity, ", at the end of a round");
        }
        for own in &mut self.sessions {
            for (base, stream) in own.base.iter_mut().zip(&self.streams) {
                *base = (*base).max(stream.messages.len().saturating_sub(ON_THE_WAY) as u32);
            }
        }
    }

    // --- Retained messages ---

    /// What a SUBSCRIBE that is sent now may find, by topic: these values and all that follow.
    pub(super) fn retained_floor(&self) -> Vec<usize> {
        self.retained
            .iter()
            .map(|of| of.floor.saturating_sub(1))
            .collect()
    }

    /// Whether a subscriber must get something for this topic.
    pub(super) fn is_retained(&self, topic: usize, floor: usize) -> bool {
        let of = &self.retained[topic];
        of.floor > 0 && !of.history[floor..].contains(&Value::Cleared)
    }

    /// A retained message came to somebody who subscribed when the floor was this. Returns its topic.
    pub(super) fn retained(
        &mut self,
        who: &str,
        floor: &[usize],
        topic: &str,
        payload: &[u8],
    ) -> Option<usize> {
        let number = self.topics.iter().position(|of| of.name == topic)?;
        let identity = body::read(self.run, payload);
        let place = identity.and_then(|identity| {
            let history = &self.retained[number].history;
            history
                .iter()
                .rposition(|&value| value == Value::Message(identity))
        });
        match place {
            Some(place) if place >= floor[number] => self.counts.retained += 1,
            Some(place) => {
                let what = format!(
                    "{topic} has its {place}. value, but the {}. is acknowledged",
                    floor[number]
                );
                self.fault(Kind::Stale, who, what);
            }
            None => {
                let what = format!("{topic} has {} bytes that nobody sent", payload.len());
                self.fault(Kind::Altered, who, what);
            }
        }
        Some(number)
    }
}

impl Window {
    /// A message that may be delivered because of it: both were under way at the same time.
    fn may_have(&self, message: &Message) -> bool {
        self.asked < message.settled && message.sent < self.left
    }

    /// A message that must be.
    fn must_have(&self, message: &Message) -> bool {
        message.acknowledged && self.granted < message.sent && message.settled < self.leaving
    }
}

impl Session {
    fn track(&mut self, stream: u32) -> &mut Track {
        let base = self.base[stream as usize];
        self.tracks.entry(stream).or_insert_with(|| Track {
            base,
            next: base,
            ..Track::default()
        })
    }
}

#[cfg(test)]
mod tests;
