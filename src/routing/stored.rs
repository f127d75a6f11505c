//! The queue of a durable session: in the store, and sent from there.
//!
//! Every QoS 1 and 2 message for such a session goes through its queue. The packet identifier follows from the message's number in it, so that
//! it is the same after a restart without having been written down. Three cursors say how far it is: what was sent on this connection
//! (`sent`), what may have been sent on an earlier one (`sent_before`), and what the disk has (`ready`, where that is waited for).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::deliver::Grant;
use super::port::Port;
use super::waits::Wait;
use crate::clock::Millis;
use crate::config::resolved::QueueFull;
use crate::ids::{SessionId, SessionIdx};
use crate::session::Flags;
use crate::session::durable::{Body, Meta, is_twice};
use crate::session::message::Message;
use crate::store::{Item, Queue, Refused, Shared, State, View};
use crate::wire::{PacketId, Qos};

/// Packet identifiers there are: no two messages that are this far apart may be in flight together.
pub(super) const IDS: u32 = 65_535;
/// Numbers of messages there are: the last `u32` is left out, so that identifiers follow each other where they begin again.
pub(super) const NUMBERS: u64 = u32::MAX as u64;

/// The packet identifier of a message.
pub(super) fn packet_id(seq: u32) -> PacketId {
    PacketId::new((seq % IDS + 1) as u16).expect("at least 1")
}

/// The packet identifier before that of a message.
pub(super) fn last_id_before(seq: u32) -> u16 {
    (seq % IDS) as u16
}

/// How many numbers from one to a later one.
pub(super) fn distance(from: u32, to: u32) -> u32 {
    ((u64::from(to) + NUMBERS - u64::from(from)) % NUMBERS) as u32
}

/// The first message that was never sent.
pub(super) fn unsent(queue: View<'_>) -> u32 {
    let head = queue.head();
    if distance(head, queue.sent) > distance(head, queue.sent_before) {
        queue.sent
    } else {
        queue.sent_before
    }
}

/// Whether a message of the queue was sent on this connection.
pub(super) fn is_sent(queue: View<'_>, seq: u32) -> bool {
    distance(queue.head(), seq) < distance(queue.head(), queue.sent)
}

/// What the tag or the meta of an entry says of its QoS.
pub(super) fn twice(item: &Item<'_>) -> bool {
    is_twice(item.tag.or(item.meta.first().copied()).unwrap_or(0))
}

/// How an entry is to be sent.
pub(super) fn meta(item: &Item<'_>) -> Option<Meta> {
    match item.tag {
        Some(tag) => Some(Meta::of_tag(tag)),
        None => Meta::read(item.meta).ok(),
    }
}

impl Shard {
    /// Gives a QoS 1 or 2 message to a durable session.
    pub(super) fn offer_stored(
        &mut self,
        idx: SessionIdx,
        message: &Arc<Message>,
        grant: Grant<'_>,
        now: Millis,
        port: &mut impl Port,
    ) {
        if message.doubtful && self.has_already(idx, message) {
            return;
        }
        let holds = |shard: &Self| {
            let flow = shard.sessions[idx].flow.as_ref();
            flow.is_some_and(|flow| flow.held() > 0)
        };
        if holds(self) {
            // Others' queues may have made room: then those that are held go first.
            self.pump_stored(idx, now, port);
        }
        let waits = holds(self);
        let conn = self.sessions[idx].conn();
        if waits || !self.has_stored_room(idx, message.stored_weight()) {
            if conn.is_some() && !self.sessions[idx].flags.has(Flags::PAUSED) {
                self.counters().queued.add(1);
                let delivery = grant.delivery(message);
                self.sessions[idx].flow_mut().hold(delivery);
                self.watch_for_stall(idx, now);
                return;
            }
            if !self.make_stored_room(idx, message, now) {
                return;
            }
        }
        let Some(seq) = self.append(idx, message, &grant, now) else {
            return;
        };
        let Some(conn) = conn else { return };
        if self.keep.disk {
            self.await_sync(Wait::Ready(self.id_of(idx), conn, Queue::after(seq)));
            return;
        }
        let window = self.sessions[idx].window(self.mqtt().max_inflight);
        let is_next = self.keep.store.queue(idx).is_some_and(|queue| {
            queue.sent == seq
                && (queue.flying as usize) < window
                && distance(queue.head(), seq) < IDS
        });
        if is_next && port.has_room(conn) {
            // Nothing older waits: as it is, without being read back.
            if self.transmit(idx, message, grant, Some(packet_id(seq)), false, now, port) {
                self.launched(idx, seq);
            } else {
                self.pass(idx, seq);
            }
        }
    }

    /// Records a message in a session's queue. None: it found no room, and its publisher is told.
    pub(super) fn append(
        &mut self,
        idx: SessionIdx,
        message: &Arc<Message>,
        grant: &Grant<'_>,
        now: Millis,
    ) -> Option<u32> {
        let session = self.id_of(idx);
        let start = u32::from(self.sessions[idx].last_id);
        let tag = Meta::tag(grant.qos, grant.retain);
        let before = self.stored_bytes(idx);
        let mut meta = std::mem::take(&mut self.scratch.meta);
        meta.clear();
        let names = grant.group.map(|key| (&*key.group, &*key.path));
        Meta::write(&mut meta, tag, grant.ids, names);
        let done = if grant.alone {
            // Should the server die while the message goes on to another member, this tells who has it. That one may get it at QoS 2 though this
            // one does not.
            let is_named = grant.group.is_some() && message.qos == Qos::ExactlyOnce;
            let name = (is_named && message.token.is_none()).then(|| self.random());
            let mut body = self.body(message, now);
            body.token = body.token.or(name);
            let head = body.head();
            let pieces = body.pieces(&head);
            self.keep.store.append(session, start, &meta, &pieces)
        } else {
            self.share(message, now).and_then(|shared| {
                let is_plain = grant.ids.is_empty() && grant.group.is_none();
                // Those of absent sessions are recorded together, a moment later; what is sent must be recorded before.
                if is_plain && self.sessions[idx].conn().is_none() {
                    self.keep.store.append_shared(session, start, tag, shared)
                } else {
                    self.keep
                        .store
                        .append_reference(session, start, &meta, shared)
                }
            })
        };
        self.scratch.meta = meta;
        match done {
            Ok(seq) => {
                self.sessions[idx].last_id = packet_id(seq).get();
                message.mark_stored();
                self.counters().queued.add(1);
                self.shared.queued.fetch_add(1, Relaxed);
                let bytes = self.stored_bytes(idx).saturating_sub(before);
                self.queue_grew(idx, bytes);
                Some(seq)
            }
            Err(Refused::Full | Refused::Failed) => {
                self.counters().dropped_store.add(1);
                message.mark_refused();
                None
            }
        }
    }

    /// A message as it is stored.
    pub(super) fn body<'a>(&self, message: &'a Message, now: Millis) -> Body<'a> {
        let ages = self.mqtt().queue_age > 0 && message.qos != Qos::AtMostOnce;
        Body {
            qos: message.qos,
            retain: message.retain,
            expires: message.expires.map(|at| self.keep.unix(at)),
            since: ages.then(|| (self.keep.unix(now) / 1000) as u32),
            token: message.token.map(std::num::NonZeroU64::get),
            topic: message.topic(),
            forward: message.forward(),
            payload: message.payload(),
        }
    }

    /// The message in the store, once for all who get it now.
    fn share(&mut self, message: &Arc<Message>, now: Millis) -> Result<Shared, Refused> {
        if let Some((current, shared)) = &self.keep.sharing
            && Arc::ptr_eq(current, message)
        {
            return Ok(*shared);
        }
        self.end_sharing();
        let body = self.body(message, now);
        let head = body.head();
        let shared = self.keep.store.share(&body.pieces(&head))?;
        self.keep.sharing = Some((Arc::clone(message), shared));
        Ok(shared)
    }

    /// Nobody else gets the message.
    pub(super) fn end_sharing(&mut self) {
        if let Some((_, shared)) = self.keep.sharing.take() {
            self.keep.store.release(shared);
        }
    }

    /// More get the message in a later turn.
    pub(super) fn suspend_sharing(&mut self, message: &Arc<Message>) -> Option<Shared> {
        let (current, shared) = self.keep.sharing.take()?;
        if Arc::ptr_eq(&current, message) {
            return Some(shared);
        }
        self.keep.store.release(shared);
        None
    }

    /// Some have got a message: what was collected for them is recorded, before anybody is told.
    pub(super) fn commit_shared(&mut self, message: &Message) {
        if self.keep.sharing.is_some() && self.keep.store.commit().is_err() {
            self.counters().dropped_store.add(1);
            message.mark_refused();
        }
    }

    pub(super) fn stored_bytes(&self, idx: SessionIdx) -> u64 {
        self.keep.store.queue(idx).map_or(0, |queue| queue.bytes())
    }

    /// Messages of a durable session's queue that were not sent on this connection, held ones included.
    pub(super) fn stored_waiting(&self, idx: SessionIdx) -> usize {
        let held = self.sessions[idx]
            .flow
            .as_ref()
            .map_or(0, |flow| flow.held());
        let queue = self.keep.store.queue(idx);
        held + queue.map_or(0, |queue| queue.len().saturating_sub(queue.flying as usize))
    }

    /// The first message of a queue that was never sent.
    pub(super) fn first_unsent(&self, idx: SessionIdx) -> u32 {
        let next = u32::from(self.sessions[idx].last_id);
        self.keep.store.queue(idx).map_or(next, unsent)
    }

    /// Whether a message is within the limits of the queue, and of all queues together.
    pub(super) fn has_stored_room(&mut self, idx: SessionIdx, weight: usize) -> bool {
        let waits = self.stored_waiting(idx) > 0 || self.sessions[idx].conn().is_none();
        // A tenant whose queues are full may still give to who is there and takes it.
        if waits && !self.tenant_has_room(idx, weight as u64) {
            return false;
        }
        let mqtt = self.mqtt();
        let total = self.shared.queued.load(Relaxed) < mqtt.max_queued
            && self.shared.queued_bytes.load(Relaxed) + weight as u64 <= mqtt.max_queued_bytes;
        let Some(queue) = self.keep.store.queue(idx) else {
            return total;
        };
        let waiting = distance(unsent(queue), queue.tail());
        let bytes = queue.bytes() + weight as u64;
        let own =
            waiting == 0 || waiting < mqtt.queue_messages && bytes <= u64::from(mqtt.queue_bytes);
        total && own
    }

    /// The policy for the queue of an absent client. False: the message is not taken.
    pub(super) fn make_stored_room(
        &mut self,
        idx: SessionIdx,
        message: &Message,
        now: Millis,
    ) -> bool {
        let weight = message.stored_weight();
        while !self.has_stored_room(idx, weight) {
            self.skip_gone(idx);
            let oldest = self.keep.store.queue(idx).and_then(|queue| {
                let seq = unsent(queue);
                (seq != queue.tail()).then_some(seq)
            });
            let is_stale = oldest.is_some_and(|seq| self.is_stale(idx, seq, now));
            match (oldest, self.mqtt().queue_full) {
                (Some(seq), _) if is_stale => {
                    self.counters().dropped_expired.add(1);
                    self.drop_unsent(idx, seq);
                }
                (Some(seq), QueueFull::DropOldest) => {
                    self.counters().dropped_queue.add(1);
                    self.drop_unsent(idx, seq);
                }
                (_, QueueFull::DropNewest) => {
                    self.counters().dropped_queue.add(1);
                    return false;
                }
                // The limit of all queues is reached, and this one has nothing to give.
                (None, QueueFull::DropOldest) | (_, QueueFull::Refuse) => {
                    self.counters().dropped_queue.add(1);
                    message.mark_refused();
                    return false;
                }
            }
        }
        true
    }

    /// Past those that are gone; and past those that the client has, so they were sent, even where that was not known.
    fn skip_gone(&mut self, idx: SessionIdx) {
        let Some(queue) = self.keep.store.queue(idx) else {
            return;
        };
        let first = unsent(queue);
        let mut seq = first;
        while seq != queue.tail() && queue.state(seq) != State::Waiting {
            seq = Queue::after(seq);
        }
        if seq != first
            && let Some(queue) = self.keep.store.queue_mut(idx)
        {
            queue.sent_before = seq;
        }
    }

    /// Takes the first message that was never sent out of a queue.
    fn drop_unsent(&mut self, idx: SessionIdx, seq: u32) {
        let queue = self.keep.store.queue(idx);
        // Past the head all that is said of a queue goes on with it.
        if queue.is_some_and(|queue| queue.head() != seq)
            && let Some(queue) = self.keep.store.queue_mut(idx)
        {
            queue.sent_before = Queue::after(seq);
        }
        self.finish(idx, seq);
    }

    /// Whether a message that was never sent is not worth sending any more.
    fn is_stale(&self, idx: SessionIdx, seq: u32, now: Millis) -> bool {
        let Some(item) = self.keep.store.item(idx, seq) else {
            return true;
        };
        Body::read(item.body).map_or(true, |body| self.is_past(&body, now))
    }

    pub(super) fn is_past(&self, body: &Body<'_>, now: Millis) -> bool {
        let unix = self.keep.unix(now);
        let age = u64::from(self.mqtt().queue_age);
        let is_old = |since: u32| unix / 1000 >= u64::from(since) + age;
        body.expires.is_some_and(|at| unix >= at) || age > 0 && body.since.is_some_and(is_old)
    }

    /// A message of a queue is done: acknowledged, or not to be sent. Not recorded it comes again after a restart, which QoS 1 allows, and which
    /// at QoS 2 the record before it prevents.
    pub(super) fn finish(&mut self, idx: SessionIdx, seq: u32) {
        let session = self.id_of(idx);
        let before = self.stored_bytes(idx);
        let Some(queue) = self.keep.store.queue(idx) else {
            return;
        };
        if queue.state(seq) == State::Gone {
            return;
        }
        if is_sent(queue, seq)
            && let Some(queue) = self.keep.store.queue_mut(idx)
        {
            queue.flying = queue.flying.saturating_sub(1);
        }
        let _ = self.keep.store.done(session, seq);
        let freed = before.saturating_sub(self.stored_bytes(idx));
        self.counters().queued.sub(1);
        self.shared.queued.fetch_sub(1, Relaxed);
        self.queue_shrank(idx, freed);
    }

    /// A durable session ends: its queue is forgotten with it.
    pub(super) fn forget_stored(&mut self, id: SessionId) {
        if let Some(queue) = self.keep.store.queue(id.idx) {
            let (len, bytes) = (queue.len() as u64, queue.bytes());
            self.counters().queued.sub(len);
            self.shared.queued.fetch_sub(len, Relaxed);
            self.queue_shrank(id.idx, bytes);
        }
        self.keep.store.remove(id);
        self.keep.hads.forget(id);
    }
}
