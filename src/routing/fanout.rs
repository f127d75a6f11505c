//! A message to all local subscribers of its topic: at once if they are few, in slices between the turns of the loop if they are many.
//!
//! A slice bounds how long one broadcast holds the others up; so does what a turn delivers at once, for many messages to some hundred
//! subscribers each are no less. Order holds per topic: while a fan-out of a topic runs, later messages to the same topic wait behind it;
//! those to other topics overtake. The subscribers are those of the moment of publication.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Shard;
use super::deliver::Grant;
use super::port::Port;
use crate::clock::Millis;
use crate::limits::{FANOUT_BACKLOG, FANOUT_BYTES};
use crate::session::message::Message;
use crate::store;
use crate::topic::{Entry, TopicHash};
use crate::wire::Qos;

/// A message on its way through a list of subscribers.
#[derive(Debug)]
struct Job {
    message: Arc<Message>,
    entries: Vec<Entry>,
    /// How many have been served.
    at: usize,
    /// Sessions with a later serial came after the publication; their entries are somebody else's.
    serial: u32,
    /// The message in the store, once it is there.
    stored: Option<store::Shared>,
}

/// The fan-outs that are too long for one turn. Topics take turns; the messages of one topic stay in order.
#[derive(Debug, Default)]
pub(super) struct Fanouts {
    /// The messages of each topic, in order.
    lanes: HashMap<TopicHash, VecDeque<Job>>,
    /// The topics of the lanes, the next one first.
    turns: VecDeque<TopicHash>,
    /// Entries over all jobs that are not served.
    backlog: usize,
    /// Bytes of all their messages.
    bytes: usize,
}

impl Fanouts {
    /// Lets go of room that is not in use.
    pub(super) fn give_back(&mut self) {
        self.lanes.shrink_to_fit();
        self.turns.shrink_to_fit();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn has_lane(&self, hash: TopicHash) -> bool {
        !self.is_empty() && self.lanes.contains_key(&hash)
    }

    /// Whether a QoS 0 message to so many still has room.
    fn has_room(&self, message: &Message, entries: usize) -> bool {
        self.backlog + entries <= FANOUT_BACKLOG && self.bytes + message.weight() <= FANOUT_BYTES
    }

    fn push(&mut self, job: Job) {
        self.backlog += job.entries.len();
        self.bytes += job.message.weight();
        let hash = job.message.hash;
        let lane = self.lanes.entry(hash).or_default();
        if lane.is_empty() {
            self.turns.push_back(hash);
        }
        lane.push_back(job);
    }

    /// The job whose turn it is, taken out of its lane.
    fn next(&mut self) -> Option<Job> {
        let hash = self.turns.pop_front()?;
        self.lanes.get_mut(&hash)?.pop_front()
    }

    /// Puts a job back that was taken out, or ends it; its topic goes to the end.
    fn put_back(&mut self, job: Job) {
        let hash = job.message.hash;
        let Some(lane) = self.lanes.get_mut(&hash) else {
            return;
        };
        if job.at < job.entries.len() {
            lane.push_front(job);
        } else {
            self.bytes -= job.message.weight();
        }
        if lane.is_empty() {
            self.lanes.remove(&hash);
        } else {
            self.turns.push_back(hash);
        }
    }
}

impl Shard {
    /// Delivers to the shard's own subscribers, and settles.
    pub(super) fn fan_out(&mut self, message: &Arc<Message>, now: Millis, port: &mut impl Port) {
        let mut matched = std::mem::take(&mut self.scratch.matched);
        self.index
            .matching(message.hash, message.topic(), &mut matched);
        if let [filter] = *matched
            && let Some(entry) = self.index.only_subscriber(filter)
            && !self.fanouts.has_lane(message.hash)
            && !self.is_spent()
        {
            // A topic of one phone, as most are.
            self.delivered += 1;
            self.serve(message, &[entry], self.serial, &matched, now, port);
            self.scratch.matched = matched;
            self.settle(message, port);
            return;
        }
        let total: usize = matched
            .iter()
            .map(|&filter| self.index.audience(filter))
            .sum();
        // Filters cost their search, whoever has them and whenever they are served.
        self.delivered += matched.len();
        let waits = self.fanouts.has_lane(message.hash);
        if total > 0 && (waits || total > self.slices.fanout || self.is_spent()) {
            if message.qos == Qos::AtMostOnce && !self.fanouts.has_room(message, total) {
                self.counters().dropped_fanout.add(total as u64);
            } else {
                let mut entries = Vec::with_capacity(total);
                self.index.snapshot(&matched, &mut entries);
                self.fanouts.push(Job {
                    message: Arc::clone(message),
                    entries,
                    at: 0,
                    serial: self.serial,
                    stored: None,
                });
            }
        } else {
            let mut entries = std::mem::take(&mut self.scratch.entries);
            self.index.snapshot(&matched, &mut entries);
            self.serve(message, &entries, self.serial, &matched, now, port);
            self.end_sharing();
            self.scratch.entries = entries;
            self.settle(message, port);
        }
        self.scratch.matched = matched;
    }

    /// Serves one slice of the fan-outs, topic by topic. True: there is more.
    pub(super) fn fan_out_slice(&mut self, now: Millis, port: &mut impl Port) -> bool {
        let mut left = self.slices.fanout;
        while left > 0
            && let Some(mut job) = self.fanouts.next()
        {
            let end = job.entries.len().min(job.at + left);
            let slice = &job.entries[job.at..end];
            let mut matched = std::mem::take(&mut self.scratch.matched);
            matched.clear();
            if slice.iter().any(|entry| entry.has_id()) {
                // Filters may have come and gone since the last slice; this is for subscription identifiers alone.
                self.index
                    .matching(job.message.hash, job.message.topic(), &mut matched);
            }
            if let Some(stored) = job.stored.take() {
                self.keep.sharing = Some((Arc::clone(&job.message), stored));
            }
            self.serve(&job.message, slice, job.serial, &matched, now, port);
            left = left.saturating_sub((end - job.at).max(matched.len()));
            self.scratch.matched = matched;
            self.fanouts.backlog -= end - job.at;
            job.at = end;
            let done = (job.at == job.entries.len()).then(|| Arc::clone(&job.message));
            if done.is_some() {
                self.end_sharing();
            } else {
                job.stored = self.suspend_sharing(&job.message);
            }
            self.fanouts.put_back(job);
            if let Some(message) = done {
                self.settle(&message, port);
            }
        }
        !self.fanouts.is_empty()
    }

    fn serve(
        &mut self,
        message: &Arc<Message>,
        entries: &[Entry],
        serial: u32,
        matched: &[crate::topic::FilterId],
        now: Millis,
        port: &mut impl Port,
    ) {
        let mut ids = std::mem::take(&mut self.scratch.ids);
        let alone = entries.len() == 1;
        for entry in entries {
            let idx = entry.session();
            let Some(session) = self.sessions.0.get(idx.index()) else {
                continue;
            };
            if let Some(conn) = session.conn() {
                port.expect(conn);
            }
            let came_later = serial.wrapping_sub(session.serial.get()) > u32::MAX / 2;
            let options = entry.options();
            let own = options.no_local && message.is_from(self.me, idx, session.serial.get());
            if came_later || own {
                continue;
            }
            ids.clear();
            if entry.has_id() {
                self.index.subscription_ids(idx, matched, &mut ids);
            }
            message.mark_matched();
            let grant = Grant {
                qos: Self::lower(message.qos, options.qos),
                retain: message.retain && options.retain_as_published,
                ids: &ids,
                group: None,
                alone,
            };
            self.offer(idx, message, grant, now, port);
        }
        self.scratch.ids = ids;
        self.commit_shared(message);
    }
}
