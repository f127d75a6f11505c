//! What comes to a session: whether it may, whether it had to come before, and what is still owed.

use super::super::body::{self, Identity};
use super::super::fault::Kind;
use super::session::Seen;
use super::{Model, ON_THE_WAY};

impl Model {
    /// A message came, as the application gets it: at QoS 2 the client has left out what had a packet identifier that it holds.
    pub(in crate::crash) fn received(
        &mut self,
        session: usize,
        topic: &str,
        qos: u8,
        payload: &[u8],
    ) {
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
            // What its publisher sent again may have come too early the first time, before the server knew of the subscription.
            let message = self.streams[stream as usize].messages[seq as usize];
            let windows = &self.sessions[session].holds[hold].windows;
            if first && windows.iter().any(|window| window.stood_for(&message)) {
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
    pub(in crate::crash) fn waits(&self, session: usize) -> bool {
        self.owed(Some(session)).next().is_some()
    }

    /// Everybody is connected and nobody publishes: what is still owed is lost. What is over is forgotten, so that the next look is short.
    pub(in crate::crash) fn settle_up(&mut self) {
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
}
