//! A shard after a restart: its sessions are there before the first client, their subscriptions follow in slices while it serves.
//!
//! Until every shard has loaded its subscriptions and all of them know of each other's, messages are not routed but wait, in order and
//! unacknowledged. Sessions that had a connection when the server died have lost it at the start: their expiry and the delay of their will
//! begin then.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use slab::Slab;

use super::keep::Keep;
use super::mail::{Known, Mail};
use super::port::Port;
use super::stored::{NUMBERS, distance, last_id_before};
use super::{Shard, Shared};
use crate::clock::{Millis, Tick};
use crate::ids::{ReactorId, SessionId, SessionIdx};
use crate::limits::{EARLY_BACKLOG, EARLY_PER_TURN, PLACES_TOGETHER};
use crate::session::durable::{self, Body};
use crate::session::message::Message;
use crate::session::{Flags, Session, Will};
use crate::store::{Recovered, State, Store};
use crate::topic::arena::StrRef;
use crate::topic::filter::Filter;
use crate::topic::{GroupKey, Scope, SubOptions, TopicHash};
use crate::wire::{Forward, PacketId, Qos};

/// The key of a SUBACK that is none: all shards know of what this one has loaded.
pub(super) const FENCE: u32 = u32::MAX;

/// What a shard goes on from.
#[derive(Debug)]
pub struct Kept {
    /// Its store.
    pub store: Store,
    /// See [`Recovered`].
    pub highest_serial: u32,
    /// What is promised waits for the disk.
    pub disk: bool,
    /// Unix milliseconds at the zero of the shard's clock.
    pub epoch: u64,
}

impl Kept {
    /// From a log.
    pub fn new(found: Recovered, disk: bool, epoch: u64) -> Self {
        Self {
            store: found.store,
            highest_serial: found.highest_serial,
            disk,
            epoch,
        }
    }
}

/// What is left of a start.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    /// Sessions whose subscriptions are not loaded, a bit each by index.
    pending: Vec<u64>,
    /// The word of `pending` that is looked at next.
    at: usize,
    /// Not every shard knows of what this one has loaded.
    loading: bool,
    /// Messages wait.
    pub(super) holds: bool,
    early: VecDeque<Arc<Message>>,
}

impl Restoring {
    fn put_pending(&mut self, idx: SessionIdx) {
        let word = idx.index() / 64;
        if self.pending.len() <= word {
            self.pending.resize(word + 1, 0);
        }
        self.pending[word] |= 1 << (idx.0 % 64);
    }

    /// Takes the bit of a session; whether it was set.
    pub(super) fn take_pending(&mut self, idx: SessionIdx) -> bool {
        let Some(word) = self.pending.get_mut(idx.index() / 64) else {
            return false;
        };
        let bit = 1 << (idx.0 % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    fn next_pending(&mut self) -> Option<SessionIdx> {
        while let Some(&word) = self.pending.get(self.at) {
            if word != 0 {
                let idx = self.at * 64 + word.trailing_zeros() as usize;
                return Some(SessionIdx(idx as u32));
            }
            self.at += 1;
        }
        None
    }
}

impl Shared {
    /// Whether some shard has not loaded its sessions.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.load(Acquire) > 0
    }
}

/// A will as it was stored.
fn restored_will(shard: &Shard, will: &durable::Will<'_>) -> Will {
    let hash = shard.shared.hasher.hash(will.topic);
    let forward = Forward::from_encoded(will.forward);
    let mut message = Message::new(will.topic, hash, &forward, will.payload);
    message.qos = will.qos;
    message.retain = will.retain;
    Will {
        message,
        expiry: will.expiry,
        delay: will.delay,
    }
}

/// The first message that was never sent, as the session's record says, in a queue that may be shorter by now.
fn within(head: u32, tail: u32, next: u32) -> u32 {
    let ahead = distance(head, next);
    if ahead <= distance(head, tail) {
        next
    } else if u64::from(ahead) < NUMBERS / 2 {
        // What was sent last is done, and its record gone: all that is left was sent.
        tail
    } else {
        // What was next then is done, or dropped: nothing that is left was sent.
        head
    }
}

impl Shard {
    /// A shard that goes on from its store. [`Shard::restored`] follows when all shards are that far.
    pub fn restore(
        me: ReactorId,
        shared: Arc<Shared>,
        capacity: usize,
        seed: u64,
        now: Millis,
        kept: Kept,
    ) -> Self {
        let mut shard = Self::new(me, shared, 0, seed, now);
        shard.keep = Keep::new(kept.store, kept.disk, kept.epoch);
        shard.serial = kept.highest_serial;
        shard.restore_sessions(capacity, now);
        shard.restore_values(now);
        if shard.keep.restoring.pending.is_empty() {
            shard.keep.store.forget_notes();
        } else {
            shard.keep.restoring.loading = true;
            shard.shared.loading.fetch_add(1, AcqRel);
        }
        shard
    }

    fn restore_sessions(&mut self, capacity: usize, now: Millis) {
        let mut found: Vec<SessionId> = self.keep.store.sessions().collect();
        found.sort_unstable_by_key(|id| id.idx);
        let mut lost = Vec::new();
        self.sessions.0 = self.restore_slab(&found, capacity, now, &mut lost);
        let timers = self.sessions.0.iter();
        let timers = timers
            .filter(|(_, session)| session.next_due().is_some_and(|due| due < Tick(u32::MAX)));
        self.timers.0.reserve(timers.count());
        self.by_id.reserve(self.sessions.0.len());
        for batch in found.chunks(PLACES_TOGETHER) {
            // Where the table grows too large for the caches each place is waited for; so all of a batch are at once.
            let mut hashes = [TopicHash(0); PLACES_TOGETHER];
            for (id, hash) in batch.iter().zip(&mut hashes) {
                if let Some(session) = self.sessions.0.get(id.idx.index()) {
                    *hash = self.shared.hasher.hash(self.ids.text(session.client_id));
                    self.by_id.expect(*hash);
                }
            }
            for (id, hash) in batch.iter().zip(hashes) {
                let idx = id.idx;
                if !self.sessions.0.contains(idx.index()) {
                    continue;
                }
                if self.keep.leaving.has(idx) {
                    self.doubt_leaving(idx);
                    self.note_tenant(idx);
                    self.tenant_found(idx);
                } else {
                    self.find_place(idx, hash, &mut lost);
                }
            }
        }
        // The reactor says so.
        self.keep.unreadable += lost.len() as u64;
        for id in lost {
            self.keep.store.remove(id);
        }
    }

    /// The sessions, each at its index; `found` is in their order. Those that can't be read are `lost`.
    fn restore_slab(
        &mut self,
        found: &[SessionId],
        capacity: usize,
        now: Millis,
        lost: &mut Vec<SessionId>,
    ) -> Slab<Session> {
        let end = found.last().map_or(0, |id| id.idx.index() + 1);
        let mut sessions = Slab::with_capacity(end.max(capacity));
        // A slab is filled from the front: what stands where there is no session goes in the end.
        let mut holes = Vec::new();
        for &id in found {
            let Some(session) = self.restore_session(id, now) else {
                lost.push(id);
                continue;
            };
            while sessions.len() < id.idx.index() {
                holes.push(sessions.insert(Session::new(StrRef::default(), NonZeroU32::MAX)));
            }
            sessions.insert(session);
        }
        for at in holes.into_iter().rev() {
            sessions.remove(at);
        }
        sessions
    }

    /// A session as its record says, without its subscriptions. None: the record can't be read.
    fn restore_session(&mut self, id: SessionId, now: Millis) -> Option<Session> {
        let (state, notes) = self.keep.store.state(id.idx)?;
        let core = durable::read_core(state, &notes).ok()?;
        let text = self.ids.insert(core.client_id.as_bytes());
        let mut session = Session::new(text, NonZeroU32::new(id.serial)?);
        session.flags.put(Flags::DURABLE, true);
        session.go_offline(match core.ends {
            Some(ends) => self.keep.tick(ends),
            // It ended with its connection.
            None if core.expiry == 0 => Tick(0),
            None => Session::end_from(core.expiry, now),
        });
        if let Some(will) = &core.will {
            let after = u64::from(will.delay) * 1000;
            let due = match core.will_due {
                Some(due) => self.keep.tick(due),
                None if will.delay == 0 => now.tick(),
                None => now.tick().after_millis(after),
            };
            let will = restored_will(self, will);
            let extras = session.extras_mut();
            extras.will = Some(will);
            extras.will_due = Some(due);
        }
        let (unsent, ended) = (core.unsent, core.ended);
        for (name, token) in core.incoming.clone() {
            if let Some(token) = token {
                self.shared.doubts.open(token);
            }
            if let Some(name) = PacketId::new(name) {
                self.receipts = self.receipts.wrapping_add(1);
                let receipt = crate::session::message::Receipt(self.receipts);
                session.flow_mut().receipts.restore(name, token, receipt);
            }
        }
        self.keep.hads.restore(id, &core.had);
        if let Some(next) = unsent
            && self.keep.store.queue(id.idx).is_none()
        {
            // Its numbers go on where they were: what is said of them holds for the messages to come.
            session.last_id = last_id_before(next);
        }
        self.restore_queue(id.idx, unsent);
        if ended {
            self.keep.leaving.resume(id);
        }
        Some(session)
    }

    /// The cursors of a queue. Where it is not known what was sent, as much as could be in flight may have been; or all of it, where the power may
    /// have taken that some of it was acknowledged.
    fn restore_queue(&mut self, idx: SessionIdx, unsent: Option<u32>) {
        let window = usize::from(self.mqtt().max_inflight);
        let Some(queue) = self.keep.store.queue(idx) else {
            return;
        };
        let (head, tail) = (queue.head(), queue.tail());
        let (len, bytes) = (queue.len() as u64, queue.bytes());
        let sent_before = match unsent {
            Some(next) => within(head, tail, next),
            None if self.keep.disk => tail,
            None => {
                let (mut seq, mut flying) = (head, 0);
                while seq != tail && flying < window {
                    flying += usize::from(queue.state(seq) != State::Gone);
                    seq = crate::store::Queue::after(seq);
                }
                seq
            }
        };
        // All that is said of a queue is at its head after a restart.
        if sent_before != head
            && let Some(queue) = self.keep.store.queue_mut(idx)
        {
            queue.sent_before = sent_before;
        }
        self.counters().queued.add(len);
        self.shared.queued.fetch_add(len, Relaxed);
        self.shared.queued_bytes.fetch_add(bytes, Relaxed);
    }

    /// Whose a session is has to be looked at from now on, if it is a tenant's.
    fn note_tenant(&self, idx: SessionIdx) {
        if !Scope::of(self.client_id(idx)).is_default() {
            self.shared.tenants.store(true, Relaxed);
        }
    }

    /// A session gets its place in the tables. After a power failure an older one of the same client may still be there.
    fn find_place(&mut self, idx: SessionIdx, hash: TopicHash, lost: &mut Vec<SessionId>) {
        let id = self.id_of(idx);
        self.note_tenant(idx);
        if let Some(other) = self.find_by(hash, self.client_id(idx)) {
            let older = if self.id_of(other).serial < id.serial {
                other
            } else {
                idx
            };
            lost.push(self.id_of(older));
            if older == idx {
                self.drop_restored(idx);
                return;
            }
            let (ids, sessions, hasher) = (&self.ids, &self.sessions.0, &self.shared.hasher);
            self.by_id.remove(hash, other.0, |at| {
                hasher.hash_bytes(ids.get(sessions[at as usize].client_id))
            });
            self.forget_timer(other);
            self.keep.restoring.take_pending(other);
            self.counters().sessions.sub(1);
            self.give_session_place();
            self.tenant_lost(other);
            self.drop_restored(other);
        }
        self.tenant_found(idx);
        let (ids, sessions, hasher) = (&self.ids, &self.sessions.0, &self.shared.hasher);
        self.by_id.insert(
            hash,
            idx.0,
            |at| ids.expect(sessions[at as usize].client_id),
            |at| hasher.hash_bytes(ids.get(sessions[at as usize].client_id)),
        );
        self.shared.sessions.fetch_add(1, Relaxed);
        self.counters().sessions.add(1);
        self.keep.restoring.put_pending(idx);
        self.schedule(idx);
    }

    fn drop_restored(&mut self, idx: SessionIdx) {
        if let Some(queue) = self.keep.store.queue(idx) {
            let (len, bytes) = (queue.len() as u64, queue.bytes());
            self.counters().queued.sub(len);
            self.shared.queued.fetch_sub(len, Relaxed);
            self.shared.queued_bytes.fetch_sub(bytes, Relaxed);
        }
        let session = self.sessions.0.remove(idx.index());
        self.ids.remove(session.client_id);
    }

    fn restore_values(&mut self, now: Millis) {
        let mut stale: Vec<Box<[u8]>> = Vec::new();
        let mut kept = Vec::new();
        for (key, value) in self.keep.store.values() {
            match Body::read(value) {
                Ok(body) if body.expires.is_none_or(|at| at > self.keep.unix(now)) => {
                    kept.push(Arc::new(self.restored_message(&body)));
                }
                _ => stale.push(key.into()),
            }
        }
        for message in kept {
            self.restore_retained(message);
        }
        for key in stale {
            // What can't be forgotten now is found again at the next start.
            let _ = self.keep.store.forget(&key);
        }
    }

    /// A message as it was stored; nobody waits for it.
    pub(super) fn restored_message(&self, body: &Body<'_>) -> Message {
        let hash = self.shared.hasher.hash(body.topic);
        let forward = Forward::from_encoded(body.forward);
        let mut message = Message::new(body.topic, hash, &forward, body.payload);
        message.qos = body.qos;
        message.retain = body.retain;
        message.token = body.token.and_then(NonZeroU64::new);
        let epoch = self.keep.epoch;
        message.expires = body.expires.map(|at| Millis(at.saturating_sub(epoch)));
        message
    }

    /// All shards have their sessions: who has the messages that are in doubt is found out, before any client can send them again.
    pub fn restored(&mut self) {
        self.find_doubts();
        self.keep.restoring.holds = self.shared.is_loading();
    }

    /// Loads a session's subscriptions, unless they are.
    pub(super) fn load(&mut self, idx: SessionIdx, port: &mut impl Port) {
        if !self.keep.restoring.take_pending(idx) {
            return;
        }
        let mut wildcards: Vec<Box<str>> = Vec::new();
        let mut groups: Vec<(GroupKey, SubOptions, Option<u32>)> = Vec::new();
        let mut count = 0;
        let mut was_online = false;
        if let Some((state, notes)) = self.keep.store.state(idx) {
            was_online = durable::read_core(state, &notes).is_ok_and(|core| core.ends.is_none());
            let subscriptions = durable::read_subscriptions(state, &notes);
            for sub in subscriptions.unwrap_or_default() {
                let Ok(filter) = Filter::kept(sub.filter) else {
                    continue;
                };
                if let Some(group) = filter.share {
                    let key = GroupKey {
                        group: group.into(),
                        path: filter.path.into(),
                    };
                    groups.push((key, sub.options, sub.id));
                    continue;
                }
                let done = self.index.subscribe(idx, filter.path, sub.options, sub.id);
                count += u64::from(done.is_new);
                match (done.first_on_filter, filter.wildcard) {
                    (true, true) => wildcards.push(filter.path.into()),
                    (true, false) => self.own.add(done.hash),
                    (false, _) => {}
                }
            }
        }
        for path in wildcards {
            self.routes.add(&path, self.me);
            self.tell_interest(&path, true, None, port);
        }
        for (key, options, id) in groups {
            count += u64::from(self.join_group(idx, &key, options, id, false));
            self.announce_members(&key, None, port);
        }
        self.subscribed(idx, count);
        if was_online {
            self.record_offline(idx);
        }
    }

    /// True if a slice would come further.
    pub(super) fn has_restoring(&self) -> bool {
        let restoring = &self.keep.restoring;
        restoring.loading && !restoring.pending.is_empty()
            || restoring.holds && !self.shared.is_loading()
    }

    /// A slice of what is left of the start. True: there is more.
    pub(super) fn restore_slice(&mut self, now: Millis, port: &mut impl Port) -> bool {
        if self.keep.restoring.loading && !self.keep.restoring.pending.is_empty() {
            for _ in 0..self.slices.load {
                let Some(idx) = self.keep.restoring.next_pending() else {
                    self.keep.restoring.pending = Vec::new();
                    self.keep.store.forget_notes();
                    self.post_fence(now, port);
                    break;
                };
                self.load(idx, port);
            }
        }
        if self.keep.restoring.holds && !self.shared.is_loading() {
            for _ in 0..EARLY_PER_TURN {
                let Some(message) = self.keep.restoring.early.pop_front() else {
                    self.keep.restoring.holds = false;
                    self.keep.restoring.early = VecDeque::new();
                    break;
                };
                self.route_now(&message, now, port);
                self.settle(&message, port);
            }
        }
        self.has_restoring()
    }

    /// Mail is in order: who has read this letter knows of all subscriptions that were told before.
    fn post_fence(&mut self, now: Millis, port: &mut impl Port) {
        let known = Arc::new(Known::new(self.me, FENCE));
        for reactor in self.others() {
            known.expect();
            let known = Arc::clone(&known);
            port.post(reactor, Mail::Fence { known });
        }
        self.now_known(Some(known), now, port);
    }

    /// Every shard knows of what this one has loaded.
    pub(super) fn loaded(&mut self) {
        self.keep.restoring.loading = false;
        self.shared.loading.fetch_sub(1, AcqRel);
    }

    /// A message that comes while sessions are loaded waits.
    pub(super) fn route_later(&mut self, message: &Arc<Message>) {
        let early = &mut self.keep.restoring.early;
        if message.qos == Qos::AtMostOnce && early.len() >= EARLY_BACKLOG {
            self.counters().dropped_fanout.add(1);
            return;
        }
        message.expect();
        early.push_back(Arc::clone(message));
    }

    /// Ticks that lie behind a session's end.
    pub(super) fn has_ended(session: &Session, now: Millis) -> bool {
        session
            .until()
            .is_some_and(|until| until <= now.tick() && until != Tick(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_known_of_a_queue_whose_ends_are_gone() {
        let last = u32::MAX - 1;
        for (head, tail, next, sent_before) in [
            (5, 9, 5, 5),
            (5, 9, 7, 7),
            (5, 9, 9, 9),
            // The last ones were sent and are done.
            (5, 9, 12, 9),
            (last, 3, 6, 3),
            // Those that were next were dropped.
            (5, 9, 3, 5),
            (1, 3, last, 1),
        ] {
            let found = within(head, tail, next);
            assert_eq!(found, sent_before, "{next} in {head}..{tail}");
        }
    }
}
