//! Out of the queue of a durable session: sent, sent again on the next connection, and done when the client has acknowledged it.
//!
//! What the queue takes and what it drops, `stored` decides.

use super::Shard;
use super::deliver::{Grant, Out};
use super::keep::first;
use super::port::Port;
use super::stored::{IDS, NUMBERS, distance, is_sent, meta, packet_id, twice, unsent};
use super::waits::Wait;
use crate::clock::Millis;
use crate::ids::{ConnId, SessionId, SessionIdx};
use crate::session::durable::Body;
use crate::session::flow::{Acked, Delivery};
use crate::store::{Queue, State};
use crate::topic::scope::bare;
use crate::wire::{PacketId, PacketType, Qos, ReasonCode, ack};

/// What an acknowledgement of a client means for its queue.
enum Answer {
    Unknown,
    WrongKind,
    Of(u32, State),
}

impl Shard {
    pub(super) fn launched(&mut self, idx: SessionIdx, seq: u32) {
        if let Some(queue) = self.keep.store.queue_mut(idx) {
            queue.sent = Queue::after(seq);
            queue.flying += 1;
        }
    }

    /// The next message is not for this client: it is done, and the one behind it is the next.
    pub(super) fn pass(&mut self, idx: SessionIdx, seq: u32) {
        self.finish(idx, seq);
        if let Some(queue) = self.keep.store.queue_mut(idx)
            && queue.sent == seq
        {
            queue.sent = Queue::after(seq);
        }
    }

    /// A new connection: everything that is not done is to be sent again, in order (section 4.4).
    pub(super) fn stored_reconnected(&mut self, idx: SessionIdx) {
        let waits = self.must_queue();
        let (id, conn) = (self.id_of(idx), self.sessions[idx].conn());
        let Some(queue) = self.keep.store.queue_mut(idx) else {
            return;
        };
        queue.sent_before = unsent(queue.view());
        queue.sent = queue.head();
        queue.flying = 0;
        let tail = queue.tail();
        if waits && let Some(conn) = conn {
            // Nor is what the disk has sent at once: if it is lost that the client was here, nobody knows that it may have been sent.
            queue.ready = queue.head();
            self.await_sync(Wait::Ready(id, conn, tail));
        } else {
            queue.ready = tail;
        }
    }

    /// The disk has messages up to this number, and that the client has this connection.
    pub(super) fn ready(
        &mut self,
        id: SessionId,
        conn: ConnId,
        upto: u32,
        now: Millis,
        port: &mut impl Port,
    ) {
        if let Some(idx) = self.live(id)
            && self.sessions[idx].conn() == Some(conn)
            && let Some(queue) = self.keep.store.queue_mut(idx)
        {
            let head = queue.head();
            let known = distance(head, upto) <= distance(head, queue.tail());
            if known && distance(head, upto) > distance(head, queue.ready) {
                queue.ready = upto;
            }
            self.pump(idx, now, port);
        }
    }

    /// Sends from a durable session's queue while the window and the connection have room; then held messages move up, and may be sent as well.
    pub(super) fn pump_stored(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        self.send_waiting(idx, now, port);
        while self.admit_held(idx, now, port) {
            self.send_waiting(idx, now, port);
        }
    }

    fn send_waiting(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let window = self.sessions[idx].window(self.mqtt().max_inflight);
        while let Some(conn) = self.sessions[idx].conn()
            && port.has_room(conn)
            && let Some(queue) = self.keep.store.queue(idx)
        {
            let (head, seq) = (queue.head(), queue.sent);
            let limit = if self.keep.disk {
                queue.ready
            } else {
                queue.tail()
            };
            if distance(head, seq) >= distance(head, limit)
                || distance(head, seq) >= IDS
                || queue.flying as usize >= window
            {
                break;
            }
            match queue.state(seq) {
                State::Waiting => {
                    let dup = distance(head, seq) < distance(head, queue.sent_before);
                    self.send_stored(idx, seq, dup, now, port);
                }
                State::Received if self.is_unreceived(idx, seq) => break,
                State::Received => {
                    self.launched(idx, seq);
                    self.send_pubrel(idx, packet_id(seq), ReasonCode::SUCCESS, port);
                }
                State::Gone => {
                    if let Some(queue) = self.keep.store.queue_mut(idx) {
                        queue.sent = Queue::after(seq);
                    }
                }
            }
        }
    }

    fn send_stored(
        &mut self,
        idx: SessionIdx,
        seq: u32,
        dup: bool,
        now: Millis,
        port: &mut impl Port,
    ) {
        let unix = self.keep.unix(now);
        let read = self.keep.store.item(idx, seq);
        let read = read.and_then(|item| Some((Body::read(item.body).ok()?, meta(&item)?)));
        let Some((body, meta)) = read else {
            // The reactor says so.
            self.keep.unreadable += 1;
            self.counters().dropped_store.add(1);
            self.finish(idx, seq);
            return;
        };
        if !dup && self.is_past(&body, now) {
            self.counters().dropped_expired.add(1);
            self.finish(idx, seq);
            return;
        }
        if !self.may_receive(idx, body.topic) {
            self.finish(idx, seq);
            return;
        }
        let left = |at: u64| at.saturating_sub(unix).div_ceil(1000);
        let out = Out {
            topic: bare(body.topic),
            payload: body.payload,
            forward: body.forward,
            message_expiry: body
                .expires
                .map(|at| u32::try_from(left(at)).unwrap_or(u32::MAX)),
            ids: &meta.ids,
            qos: if meta.twice {
                Qos::ExactlyOnce
            } else {
                Qos::AtLeastOnce
            },
            retain: meta.retain,
            dup,
        };
        let counters = self.shared.counters.of(self.me);
        let (session, packet) = (&mut self.sessions[idx], &mut self.scratch.packet);
        if out.write(session, packet, Some(packet_id(seq)), counters, port) {
            self.launched(idx, seq);
        } else {
            // Too large for the client: it counts as delivered (section 3.1.2.11.4).
            self.finish(idx, seq);
        }
    }

    /// Messages that were over the limits move up into the queue, and their publishers are told. True: some did.
    fn admit_held(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) -> bool {
        let mut some = false;
        while let Some(front) = self.sessions[idx]
            .flow
            .as_ref()
            .and_then(|flow| flow.front())
            && self.has_stored_room(idx, front.message.stored_weight())
            && let Some((delivery, _)) = self.sessions[idx].flow_mut().dequeue()
        {
            self.counters().queued.sub(1);
            self.store_held(idx, &delivery, now);
            self.settle(&delivery.message, port);
            some = true;
        }
        some
    }

    /// A message that was held for a durable session goes into its queue.
    fn store_held(&mut self, idx: SessionIdx, delivery: &Delivery, now: Millis) {
        if delivery.message.is_expired(now) {
            self.counters().dropped_expired.add(1);
            return;
        }
        let grant = Grant {
            alone: true,
            ..Grant::of(delivery)
        };
        if let Some(seq) = self.append(idx, &delivery.message, &grant, now)
            && self.keep.disk
            && let Some(conn) = self.sessions[idx].conn()
        {
            self.await_sync(Wait::Ready(self.id_of(idx), conn, Queue::after(seq)));
        }
    }

    /// The client is gone or paused: the policy for absent clients holds for what was held.
    pub(super) fn rule_on_held_stored(
        &mut self,
        idx: SessionIdx,
        held: Vec<Delivery>,
        now: Millis,
        port: &mut impl Port,
    ) {
        for delivery in held {
            if self.make_stored_room(idx, &delivery.message, now) {
                self.store_held(idx, &delivery, now);
            }
            self.settle(&delivery.message, port);
        }
    }

    // ---- acknowledged ----

    fn answer(&self, idx: SessionIdx, id: PacketId) -> Answer {
        let Some(queue) = self.keep.store.queue(idx) else {
            return Answer::Unknown;
        };
        let head = queue.head();
        let ahead = (u32::from(id.get()) - 1 + IDS - head % IDS) % IDS;
        if ahead >= distance(head, unsent(queue)) {
            return Answer::Unknown;
        }
        let seq = ((u64::from(head) + u64::from(ahead)) % NUMBERS) as u32;
        match queue.state(seq) {
            State::Gone => Answer::Unknown,
            state => Answer::Of(seq, state),
        }
    }

    /// Of one that the client was sent and has not acknowledged, if it was sent at this QoS.
    fn answer_of(&self, idx: SessionIdx, id: PacketId, at_qos_2: bool) -> Answer {
        match self.answer(idx, id) {
            Answer::Of(seq, State::Waiting) => {
                let item = self.keep.store.item(idx, seq);
                if item.is_none_or(|item| twice(&item) == at_qos_2) {
                    Answer::Of(seq, State::Waiting)
                } else {
                    Answer::WrongKind
                }
            }
            Answer::Of(_, State::Received) if !at_qos_2 => Answer::WrongKind,
            other => other,
        }
    }

    fn landed(&mut self, idx: SessionIdx, seq: u32) -> Acked {
        self.finish(idx, seq);
        self.note_progress(idx);
        Acked::Done
    }

    fn note_progress(&mut self, idx: SessionIdx) {
        if let Some(flow) = &mut self.sessions[idx].flow {
            flow.note_progress();
        }
    }

    /// A PUBACK of a durable client.
    pub(super) fn stored_puback(&mut self, idx: SessionIdx, id: PacketId) -> Acked {
        match self.answer_of(idx, id, false) {
            Answer::Unknown => Acked::Unknown,
            Answer::WrongKind => Acked::WrongKind,
            Answer::Of(seq, _) => self.landed(idx, seq),
        }
    }

    /// A PUBREC of a durable client. The PUBREL follows when it is recorded that the client has the message.
    pub(super) fn stored_pubrec(
        &mut self,
        idx: SessionIdx,
        id: PacketId,
        reason: ReasonCode,
        port: &mut impl Port,
    ) -> Acked {
        match self.answer_of(idx, id, true) {
            Answer::Unknown => Acked::Unknown,
            Answer::WrongKind => Acked::WrongKind,
            Answer::Of(seq, _) if reason.is_error() => self.landed(idx, seq),
            Answer::Of(seq, State::Received) => {
                if !self.is_unreceived(idx, seq) {
                    self.release_stored(idx, id, port);
                }
                Acked::Release
            }
            Answer::Of(seq, _) => {
                self.note_progress(idx);
                self.note_had(idx, seq);
                self.record_received(idx, seq, port);
                Acked::Release
            }
        }
    }

    /// Records that the client has a message, and releases it.
    fn record_received(&mut self, idx: SessionIdx, seq: u32, port: &mut impl Port) {
        let session = self.id_of(idx);
        let before = self.stored_bytes(idx);
        let recorded = self.keep.store.received(session, seq);
        let freed = before.saturating_sub(self.stored_bytes(idx));
        self.queue_shrank(idx, freed);
        if recorded.is_ok() {
            self.release_stored(idx, packet_id(seq), port);
        } else {
            self.keep.unreceived.push((session, seq));
        }
    }

    /// Whether that could not be recorded: after a crash the message would come again, so it must not be released.
    fn is_unreceived(&self, idx: SessionIdx, seq: u32) -> bool {
        !self.keep.unreceived.is_empty() && self.keep.unreceived.contains(&(self.id_of(idx), seq))
    }

    /// What could not be recorded is by now.
    pub(super) fn release_unreceived(&mut self, now: Millis, port: &mut impl Port) {
        for (session, seq) in first(&mut self.keep.unreceived) {
            if let Some(idx) = self.live(session)
                && let Some(queue) = self.keep.store.queue(idx)
                && queue.state(seq) == State::Received
            {
                if is_sent(queue, seq) {
                    self.release_stored(idx, packet_id(seq), port);
                }
                self.pump(idx, now, port);
            }
        }
    }

    fn release_stored(&mut self, idx: SessionIdx, id: PacketId, port: &mut impl Port) {
        self.send_when_synced(idx, &ack::plain(PacketType::Pubrel, id), port);
    }

    /// A PUBCOMP of a durable client.
    pub(super) fn stored_pubcomp(&mut self, idx: SessionIdx, id: PacketId) -> Acked {
        match self.answer(idx, id) {
            Answer::Unknown => Acked::Unknown,
            Answer::Of(seq, State::Received) => self.landed(idx, seq),
            Answer::WrongKind | Answer::Of(..) => Acked::WrongKind,
        }
    }
}
