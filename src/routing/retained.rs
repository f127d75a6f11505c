//! Retained messages (MQTT 5 section 3.3.1.3): each is kept by the home shard of its topic, and fetched in parts by a shard whose client
//! subscribes.
//!
//! A client that asks for a million of them gets the next part when it has taken the last: neither shard ever holds more than a part.
//! Nothing is shed: a part that meets a full connection ends there, and the next begins behind what was sent.
//! While parts are under way, a live message counts as newer than whatever is retained on its topic.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashSet;

use super::Shard;
use super::deliver::Grant;
use super::mail::{Mail, QueryId};
use super::port::Port;
use super::subscribe::Wanted;
use crate::clock::Millis;
use crate::ids::{ReactorId, SessionIdx};
use crate::limits::{RETAINED_ASKS, RETAINED_LOOK, RETAINED_SEEN, RETAINED_SWEEP};
use crate::session::Flags;
use crate::session::durable::Body;
use crate::session::message::Message;
use crate::topic::filter::has_wildcard;
use crate::topic::scope::bare;
use crate::topic::{TopicHash, matches};
use crate::wire::Qos;

/// A retained message, in the order of topics.
#[derive(Clone, Debug)]
struct ByTopic(Arc<Message>);

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic() == other.0.topic()
    }
}

impl Eq for ByTopic {}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

/// The retained messages whose home is this shard.
#[derive(Debug, Default)]
pub(super) struct Store {
    messages: BTreeSet<ByTopic>,
    /// Where the sweep for expired ones goes on.
    sweep_from: Option<Box<str>>,
}

/// Where the default tenant's topics begin.
const BEHIND_TENANTS: &str = "\0\u{7f}";

/// Some messages of a [`Store`], and where to go on.
pub(super) type Part = (Vec<Arc<Message>>, Option<Box<str>>);

impl Store {
    fn after(&self, topic: Option<&str>) -> impl Iterator<Item = &Arc<Message>> {
        let from = topic.map_or(Bound::Unbounded, Bound::Excluded);
        self.messages
            .range::<str, _>((from, Bound::Unbounded))
            .map(|held| &held.0)
    }

    /// The messages that match a filter, in the order of their topics, from `after` on: `most` of them, or what was found
    /// among as many as one turn may look at.
    pub(super) fn part(&self, path: &str, after: Option<&str>, most: usize, now: Millis) -> Part {
        if !has_wildcard(path) {
            let found = self
                .messages
                .get(path)
                .filter(|held| !held.0.is_expired(now));
            return (
                found.map(|held| Arc::clone(&held.0)).into_iter().collect(),
                None,
            );
        }
        // All that matches stands between the filter's literal beginning and the end of what begins with it.
        let literal = &path[..path.find(['+', '#']).unwrap_or(path.len())];
        let literal = literal.strip_suffix('/').unwrap_or(literal);
        let mut found = Vec::new();
        if let Some(first) = self.messages.get(literal)
            && after.is_none()
            && matches(path, literal)
            && !first.0.is_expired(now)
        {
            found.push(Arc::clone(&first.0));
        }
        // Other tenants' stand before those of the default one, and are not looked at.
        let literal_or_first = if literal.is_empty() {
            BEHIND_TENANTS
        } else {
            literal
        };
        let from = after.map_or(literal_or_first, |after| after.max(literal_or_first));
        for (looked, message) in self.after(Some(from)).enumerate() {
            if !message.topic().starts_with(literal) {
                return (found, None);
            }
            if matches(path, message.topic()) && !message.is_expired(now) {
                found.push(Arc::clone(message));
            }
            if looked + 1 >= RETAINED_LOOK || found.len() >= most {
                return (found, Some(message.topic().into()));
            }
        }
        (found, None)
    }
}

/// A subscription that waits for retained messages.
#[derive(Debug)]
struct Query {
    wanted: Wanted,
    /// The shard that is asked now; wildcard filters ask one after the other.
    ask: ReactorId,
    /// Where its last part ended.
    after: Option<Box<str>>,
    /// A shard was asked.
    begun: bool,
}

/// A session to which retained messages are being sent, one subscription after the other.
#[derive(Debug, Default)]
pub(super) struct Watch {
    queries: VecDeque<Query>,
    /// Topics of live messages since the first query began; the first so many of them.
    seen: HashSet<TopicHash>,
    /// SUBACKs that wait; queries come with them.
    subacks: u32,
    /// The answer that is awaited.
    ticket: Option<u32>,
    /// It stands among those that go on next.
    goes_on: bool,
}

impl Shard {
    /// The home of a retained message.
    pub(super) fn retained_home(&self, message: &Message) -> ReactorId {
        ReactorId((message.hash.0 % self.reactors() as u64) as u16)
    }

    /// Keeps, replaces or (empty payload) removes a retained message, and settles.
    pub(super) fn retain(&mut self, message: &Arc<Message>, port: &mut impl Port) {
        // What is kept must not be settled again when it is sent: a message that a publisher waits for is copied.
        let kept = if message.qos == Qos::AtMostOnce {
            Arc::clone(message)
        } else {
            Arc::new(message.without_publisher())
        };
        let held = ByTopic(kept);
        if !self.record_retained(message) {
            self.counters().dropped_store.add(1);
            message.mark_refused();
        } else if message.payload().is_empty() {
            let removed = self.retained.messages.take(message.topic());
            self.count_retained(None, removed.as_ref());
        } else if self.may_retain(message) {
            let replaced = self.retained.messages.replace(held.clone());
            self.count_retained(Some(&held), replaced.as_ref());
        } else {
            self.counters().dropped_retained.add(1);
            message.mark_refused();
        }
        self.settle(message, port);
    }

    /// What is retained is in the store first; the server's own figures are not. False: there is no room.
    fn record_retained(&mut self, message: &Message) -> bool {
        if super::publish::is_reserved(bare(message.topic())) {
            return true;
        }
        let key = message.topic().as_bytes();
        if message.payload().is_empty() {
            if self.keep.store.value(key).is_none() {
                return true;
            }
            message.mark_stored();
            return self.keep.store.forget(key).is_ok();
        }
        if !self.may_retain(message) {
            return true;
        }
        message.mark_stored();
        let body = Body {
            since: None,
            token: None,
            ..self.body(message, Millis(0))
        };
        let head = body.head();
        self.keep.store.keep(key, &body.pieces(&head)).is_ok()
    }

    /// After a restart: one of those that were retained.
    pub(super) fn restore_retained(&mut self, message: Arc<Message>) {
        self.shared.retained_marks.set(message.hash);
        let held = ByTopic(message);
        let replaced = self.retained.messages.replace(held.clone());
        self.count_retained(Some(&held), replaced.as_ref());
    }

    fn may_retain(&self, message: &Message) -> bool {
        let replaces = self.retained.messages.get(message.topic());
        let count = self.shared.retained.load(Relaxed) + u64::from(replaces.is_none());
        let bytes = self.shared.retained_bytes.load(Relaxed) + message.weight() as u64;
        let freed = replaces.map_or(0, |held| held.0.weight() as u64);
        count <= u64::from(self.mqtt().max_retained)
            && bytes - freed.min(bytes) <= self.mqtt().max_retained_bytes
    }

    fn count_retained(&self, came: Option<&ByTopic>, went: Option<&ByTopic>) {
        let weight = |held: Option<&ByTopic>| held.map_or(0, |held| held.0.weight() as u64);
        self.shared
            .retained
            .fetch_add(u64::from(came.is_some()), Relaxed);
        self.shared
            .retained
            .fetch_sub(u64::from(went.is_some()), Relaxed);
        self.shared.retained_bytes.fetch_add(weight(came), Relaxed);
        self.shared.retained_bytes.fetch_sub(weight(went), Relaxed);
        self.counters().retained.add(u64::from(came.is_some()));
        self.counters().retained.sub(u64::from(went.is_some()));
        self.counters().retained_bytes.add(weight(came));
        self.counters().retained_bytes.sub(weight(went));
    }

    /// Looks at a few messages for an expiry that is over.
    pub(super) fn sweep_retained(&mut self, now: Millis) {
        let from = self.retained.sweep_from.take();
        let some: Vec<_> = self
            .retained
            .after(from.as_deref())
            .take(RETAINED_SWEEP)
            .cloned()
            .collect();
        if some.len() == RETAINED_SWEEP {
            self.retained.sweep_from = some.last().map(|message| message.topic().into());
        }
        for message in some.iter().filter(|message| message.is_expired(now)) {
            let key = message.topic().as_bytes();
            if self.keep.store.value(key).is_some() && self.keep.store.forget(key).is_err() {
                // The next round tries again.
                continue;
            }
            let removed = self.retained.messages.take(message.topic());
            self.count_retained(None, removed.as_ref());
        }
    }

    /// The SUBACK has left: retained messages follow.
    pub(super) fn want_retained(
        &mut self,
        idx: SessionIdx,
        wanted: Vec<Wanted>,
        now: Millis,
        port: &mut impl Port,
    ) {
        if wanted.is_empty() {
            return;
        }
        let reactors = self.reactors() as u64;
        let hasher = &self.shared.hasher;
        let mut paths = HashSet::with_capacity(wanted.len());
        let mut last: Vec<_> = wanted
            .into_iter()
            .rev()
            .filter(|wanted| paths.insert(Arc::clone(&wanted.path)))
            .collect();
        last.reverse();
        let queries = last.into_iter().map(|wanted| Query {
            ask: if wanted.wildcard {
                ReactorId(0)
            } else {
                ReactorId((hasher.hash(&wanted.path).0 % reactors) as u16)
            },
            after: None,
            begun: false,
            wanted,
        });
        let most = self.shared.mqtt.max_subscriptions as usize;
        let watch = self.watches.entry(idx).or_default();
        let idle = watch.queries.is_empty();
        // A filter that waits already, or stands in this SUBSCRIBE again, is answered once: a client that repeats itself and takes nothing
        // would make the list grow without end.
        watch
            .queries
            .retain(|query| query.begun || !paths.contains(&query.wanted.path));
        watch.queries.extend(queries);
        if watch.queries.len() > most + watch.queries.len() / 2 {
            let index = &self.index;
            watch
                .queries
                .retain(|query| query.begun || index.has(idx, &query.wanted.path));
        }
        self.sessions[idx].flags.put(Flags::WATCHING_RETAINED, true);
        if idle {
            self.ask(idx, now, port);
        }
    }

    /// Retained messages will be wanted once the SUBACK has left: live ones count from now on.
    pub(super) fn await_suback(&mut self, idx: SessionIdx) {
        self.watches.entry(idx).or_default().subacks += 1;
        self.sessions[idx].flags.put(Flags::WATCHING_RETAINED, true);
    }

    /// The SUBACK that was awaited leaves.
    pub(super) fn suback_left(&mut self, idx: SessionIdx) {
        if let Some(watch) = self.watches.get_mut(&idx) {
            watch.subacks -= 1;
        }
    }

    /// Asks for the next part, if the client has room for it and none is awaited.
    fn ask(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        loop {
            if !self.has_room_for_part(idx, port) {
                return;
            }
            let session = self.id_of(idx);
            let me = self.me;
            let Some(watch) = self.watches.get_mut(&idx) else {
                return;
            };
            let Some(query) = watch.queries.front_mut() else {
                if watch.subacks > 0 {
                    return;
                }
                self.watches.remove(&idx);
                self.sessions[idx]
                    .flags
                    .put(Flags::WATCHING_RETAINED, false);
                return;
            };
            if watch.ticket.is_some() {
                return;
            }
            query.begun = true;
            if query.ask != me {
                self.ticket = self.ticket.wrapping_add(1);
                watch.ticket = Some(self.ticket);
                let mail = Mail::RetainedQuery {
                    path: Arc::clone(&query.wanted.path),
                    after: query.after.clone(),
                    from: me,
                    query: QueryId {
                        session,
                        ticket: self.ticket,
                    },
                };
                port.post(query.ask, mail);
                return;
            }
            let (messages, resume) = self.retained.part(
                &query.wanted.path,
                query.after.as_deref(),
                self.slices.retained,
                now,
            );
            let goes_on = resume.is_some();
            self.send_part(idx, &messages, resume, now, port);
            if goes_on {
                // The next part in the next turn: what was sent has to be written first.
                self.ask_later(idx);
                return;
            }
        }
    }

    /// The session goes on in a later turn. It stands in line once, however often it is told.
    fn ask_later(&mut self, idx: SessionIdx) {
        let session = self.id_of(idx);
        if let Some(watch) = self.watches.get_mut(&idx)
            && !watch.goes_on
        {
            watch.goes_on = true;
            self.asking.push_back(session);
        }
    }

    /// Some sessions go on with their retained messages. True: more wait.
    pub(super) fn ask_next(&mut self, now: Millis, port: &mut impl Port) -> bool {
        for _ in 0..RETAINED_ASKS.min(self.asking.len()) {
            let Some(session) = self.asking.pop_front() else {
                break;
            };
            if let Some(idx) = self.live(session) {
                if let Some(watch) = self.watches.get_mut(&idx) {
                    watch.goes_on = false;
                }
                self.ask(idx, now, port);
            }
        }
        !self.asking.is_empty()
    }

    fn has_room_for_part(&self, idx: SessionIdx, port: &impl Port) -> bool {
        let session = &self.sessions[idx];
        let queued = if session.is_durable() {
            self.stored_waiting(idx)
        } else {
            session.flow.as_ref().map_or(0, |flow| flow.queued())
        };
        self.has_room_to_send(idx, port) && queued <= self.mqtt().queue_messages as usize / 2
    }

    fn has_room_to_send(&self, idx: SessionIdx, port: &impl Port) -> bool {
        let conn = self.sessions[idx].conn();
        conn.is_some_and(|conn| port.has_room(conn))
    }

    /// An answer came.
    pub(super) fn retained_part(
        &mut self,
        query: QueryId,
        messages: &[Arc<Message>],
        resume: Option<Box<str>>,
        now: Millis,
        port: &mut impl Port,
    ) {
        let Some(idx) = self.live(query.session) else {
            return;
        };
        let Some(watch) = self.watches.get_mut(&idx) else {
            return;
        };
        if watch.ticket != Some(query.ticket) {
            return;
        }
        watch.ticket = None;
        self.send_part(idx, messages, resume, now, port);
        self.ask_later(idx);
    }

    fn send_part(
        &mut self,
        idx: SessionIdx,
        messages: &[Arc<Message>],
        resume: Option<Box<str>>,
        now: Millis,
        port: &mut impl Port,
    ) {
        let reactors = self.reactors();
        let Some(watch) = self.watches.get_mut(&idx) else {
            return;
        };
        let Some(query) = watch.queries.front() else {
            return;
        };
        let (options, id) = (query.wanted.options, query.wanted.id);
        // It may have unsubscribed since.
        let still_wanted = self.index.has(idx, &query.wanted.path);
        let fresh: Vec<_> = messages
            .iter()
            .enumerate()
            .filter(|(_, message)| still_wanted && !watch.seen.contains(&message.hash))
            .collect();
        let mut cut = None;
        for (at, message) in fresh {
            if !self.may_receive(idx, message.topic()) {
                continue;
            }
            let grant = Grant {
                qos: Self::lower(message.qos, options.qos),
                retain: true,
                ids: id.as_slice(),
                group: None,
                alone: true,
            };
            // A live message at QoS 0 is shed where there is no room. This one was asked for, and is still there when there is.
            if grant.qos == Qos::AtMostOnce && !self.has_room_to_send(idx, port) {
                cut = Some(at);
                break;
            }
            self.offer_retained(idx, message, grant, now, port);
        }
        let Some(watch) = self.watches.get_mut(&idx) else {
            return;
        };
        let Some(query) = watch.queries.front_mut() else {
            return;
        };
        if let Some(at) = cut {
            // The same shard again, from behind what it was sent. The rest is not kept meanwhile: it may be large, and be replaced.
            if let Some(sent) = at.checked_sub(1) {
                query.after = Some(messages[sent].topic().into());
            }
        } else if resume.is_some() {
            query.after = resume;
        } else if query.wanted.wildcard && query.ask.index() + 1 < reactors {
            query.ask = ReactorId(query.ask.0 + 1);
            query.after = None;
        } else {
            watch.queries.pop_front();
        }
    }

    /// A live message goes to a session that is being sent retained ones.
    pub(super) fn saw_live(&mut self, idx: SessionIdx, message: &Message) {
        // What has no mark is retained nowhere; noting every topic there is would be memory without end for a client that takes its time.
        if self.shared.retained_marks.has(message.hash)
            && let Some(watch) = self.watches.get_mut(&idx)
            && watch.seen.len() < RETAINED_SEEN
        {
            watch.seen.insert(message.hash);
        }
    }

    /// There is room again.
    pub(super) fn resume_queries(&mut self, idx: SessionIdx) {
        if self.sessions[idx].flags.has(Flags::WATCHING_RETAINED)
            && let Some(watch) = self.watches.get(&idx)
            && watch.ticket.is_none()
        {
            self.ask_later(idx);
        }
    }

    /// The connection ended: what is retained stays retained, and is sent when it subscribes again.
    pub(super) fn cancel_queries(&mut self, idx: SessionIdx) {
        if self.sessions[idx].flags.has(Flags::WATCHING_RETAINED) {
            self.watches.remove(&idx);
            self.sessions[idx]
                .flags
                .put(Flags::WATCHING_RETAINED, false);
        }
    }
}
