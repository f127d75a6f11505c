//! A message to all local subscribers of its topic: at once if they are few, in slices between the turns of the loop if they are many.
//!
//! A slice bounds how long one broadcast holds the others up. Order holds per topic: while a fan-out of a topic runs, later messages to
//! the same topic wait behind it; those to other topics overtake. The subscribers are those of the moment of publication.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shard;
use super::deliver::Grant;
use super::port::Port;
use crate::clock::Millis;
use crate::limits::FANOUT_BACKLOG;
use crate::session::message::Message;
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
}

/// The messages of one topic, in order.
#[derive(Debug)]
struct Lane {
    hash: TopicHash,
    jobs: VecDeque<Job>,
}

/// The fan-outs that are too long for one turn. Topics take turns; the messages of one topic stay in order.
#[derive(Debug, Default)]
pub(super) struct Fanouts {
    lanes: VecDeque<Lane>,
    /// Entries over all jobs that are not served.
    backlog: usize,
}

impl Fanouts {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    fn lane(&mut self, hash: TopicHash) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.hash == hash)
    }

    fn push(&mut self, job: Job) {
        self.backlog += job.entries.len();
        let hash = job.message.hash;
        match self.lane(hash) {
            Some(lane) => lane.jobs.push_back(job),
            None => self.lanes.push_back(Lane {
                hash,
                jobs: VecDeque::from([job]),
            }),
        }
    }
}

impl Shard {
    /// Delivers to the shard's own subscribers, and settles.
    pub(super) fn fan_out(&mut self, message: Arc<Message>, now: Millis, port: &mut impl Port) {
        let mut matched = std::mem::take(&mut self.scratch.matched);
        self.index
            .matching(message.hash, message.topic(), &mut matched);
        let total: usize = matched
            .iter()
            .map(|filter| self.index.subscribers(*filter).len())
            .sum();
        let waits = !self.fanouts.is_empty() && self.fanouts.lane(message.hash).is_some();
        if total > 0 && (waits || total > self.slices.fanout) {
            if message.qos == Qos::AtMostOnce && self.fanouts.backlog + total > FANOUT_BACKLOG {
                self.counters().dropped_fanout.add(total as u64);
            } else {
                let mut entries = Vec::with_capacity(total);
                self.index.snapshot(&matched, &mut entries);
                self.fanouts.push(Job {
                    message,
                    entries,
                    at: 0,
                    serial: self.serial,
                });
            }
        } else {
            let mut entries = std::mem::take(&mut self.scratch.entries);
            entries.clear();
            self.index.snapshot(&matched, &mut entries);
            self.serve(&message, &entries, self.serial, &matched, now, port);
            self.scratch.entries = entries;
            self.settle(&message, port);
        }
        self.scratch.matched = matched;
    }

    /// Serves one slice of the fan-out whose turn it is. True: there is more.
    pub(super) fn fan_out_slice(&mut self, now: Millis, port: &mut impl Port) -> bool {
        let Some(mut lane) = self.fanouts.lanes.pop_front() else {
            return false;
        };
        if let Some(mut job) = lane.jobs.pop_front() {
            // Filters may have come and gone since the last slice; this is for subscription identifiers alone.
            let mut matched = std::mem::take(&mut self.scratch.matched);
            self.index
                .matching(job.message.hash, job.message.topic(), &mut matched);
            let end = job.entries.len().min(job.at + self.slices.fanout);
            self.serve(
                &job.message,
                &job.entries[job.at..end],
                job.serial,
                &matched,
                now,
                port,
            );
            self.scratch.matched = matched;
            self.fanouts.backlog -= end - job.at;
            job.at = end;
            if job.at < job.entries.len() {
                lane.jobs.push_front(job);
            } else {
                self.settle(&job.message, port);
            }
        }
        if !lane.jobs.is_empty() {
            self.fanouts.lanes.push_back(lane);
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
        for entry in entries {
            let idx = entry.session();
            let Some(session) = self.sessions.0.get(idx.index()) else {
                continue;
            };
            let came_later = serial.wrapping_sub(session.serial) > u32::MAX / 2;
            let options = entry.options();
            let own = options.no_local && message.is_from(self.me, idx, session.serial);
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
            };
            self.offer(idx, message, grant, now, port);
        }
        self.scratch.ids = ids;
    }
}
