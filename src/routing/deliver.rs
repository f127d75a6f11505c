//! One message to one session: sent, put in flight, queued, or shed; and the queue that goes on when there is room.
//!
//! QoS 0 is sent now or not at all: to a client whose backlog is full it is dropped and counted. QoS 1 and 2 wait in the session's
//! queue. While the client is connected, what is over the queue's limits is held and its publisher waits, until the client has acknowledged
//! nothing for the length of the write timeout, or a publisher has waited for two: then it is cut off. For an absent client, and for one
//! that is not read from, [`QueueFull`] decides.

use std::collections::VecDeque;
use std::sync::Arc;

use super::port::{CloseCause, Port};
use super::{Fault, Shard, subscribe};
use crate::clock::Millis;
use crate::config::resolved::QueueFull;
use crate::counters::Counters;
use crate::ids::SessionIdx;
use crate::limits;
use crate::session::alias::Naming;
use crate::session::flow::{Delivery, Inflight, QueueLimits, Queued};
use crate::session::message::Message;
use crate::session::{Flags, Session};
use crate::topic::GroupKey;
use crate::topic::scope::bare;
use crate::wire::publish::{self, PublishOut};
use crate::wire::{PacketId, Qos, ReasonCode};

/// How a session is to get a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant<'a> {
    /// The lower of the published and the granted QoS.
    pub(super) qos: Qos,
    /// The RETAIN flag to send.
    pub(super) retain: bool,
    /// Subscription identifiers to send.
    pub(super) ids: &'a [u32],
    /// The shared subscription that chose the session.
    pub(super) group: Option<&'a Arc<GroupKey>>,
    /// Nobody else gets the message in this turn, so its packet is not worth keeping.
    pub(super) alone: bool,
}

impl<'a> Grant<'a> {
    /// As a message was granted that has waited since.
    pub(super) fn of(delivery: &'a Delivery) -> Self {
        Self {
            qos: delivery.qos,
            retain: delivery.retain,
            ids: &delivery.ids,
            group: delivery.group.as_ref(),
            alone: false,
        }
    }

    /// To wait.
    pub(super) fn delivery(&self, message: &Arc<Message>) -> Delivery {
        Delivery {
            message: Arc::clone(message),
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.into(),
            group: self.group.cloned(),
        }
    }

    /// At this QoS, to one session alone.
    pub(super) fn plain(qos: Qos) -> Self {
        Self {
            qos,
            retain: false,
            ids: &[],
            group: None,
            alone: true,
        }
    }
}

/// A PUBLISH for one session.
pub(super) struct Out<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) forward: &'a [u8],
    /// Seconds left.
    pub(super) message_expiry: Option<u32>,
    pub(super) ids: &'a [u32],
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) dup: bool,
}

impl Out<'_> {
    /// Writes it, with the topic alias that the connection has for the topic. False: it is larger than the client takes.
    pub(super) fn write(
        &self,
        session: &mut Session,
        packet: &mut Vec<u8>,
        id: Option<PacketId>,
        counters: &Counters,
        port: &mut impl Port,
    ) -> bool {
        let Some(conn) = session.conn() else {
            return true;
        };
        let (version, max_packet) = (session.version(), session.max_packet());
        let aliases = session
            .some_extras_mut()
            .and_then(|extras| extras.aliases_out.as_mut());
        let naming = aliases
            .as_ref()
            .map_or(Naming::Name, |aliases| aliases.naming(self.topic));
        let (topic, topic_alias) = match naming {
            Naming::Name => (self.topic, None),
            Naming::Introduce(alias) => (self.topic, Some(alias)),
            Naming::Alias(alias) => ("", Some(alias)),
        };
        let out = PublishOut {
            topic,
            payload: self.payload,
            forward: self.forward,
            message_expiry: self.message_expiry,
            topic_alias,
            subscription_ids: self.ids,
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
        };
        packet.clear();
        publish::encode(packet, version, &out, id);
        if packet.len() > max_packet {
            counters.dropped_too_large.add(1);
            return false;
        }
        if let (Naming::Introduce(_), Some(aliases)) = (naming, aliases) {
            aliases.introduced(self.topic);
        }
        counters.packets_out.add(1);
        counters.publishes_out.add(1);
        port.send(conn, packet);
        true
    }
}

impl Shard {
    /// Gives a message to a session.
    pub(super) fn offer(
        &mut self,
        idx: SessionIdx,
        message: &Arc<Message>,
        grant: Grant<'_>,
        now: Millis,
        port: &mut impl Port,
    ) {
        if self.sessions[idx].flags.has(Flags::WATCHING_RETAINED) {
            self.saw_live(idx, message);
        }
        self.offer_retained(idx, message, grant, now, port);
    }

    /// As [`Shard::offer`], for a message that is no live one.
    pub(super) fn offer_retained(
        &mut self,
        idx: SessionIdx,
        message: &Arc<Message>,
        grant: Grant<'_>,
        now: Millis,
        port: &mut impl Port,
    ) {
        self.delivered += 1;
        if message.is_expired(now) {
            self.counters().dropped_expired.add(1);
            return;
        }
        let conn = self.sessions[idx].conn();
        if grant.qos == Qos::AtMostOnce {
            match conn {
                Some(conn) if port.has_room(conn) => {
                    self.transmit(idx, message, grant, None, false, now, port);
                }
                Some(_) => self.counters().dropped_backlog.add(1),
                // QoS 0 is for those who are there (section 4.1: the server may keep it, and we don't).
                None => {}
            }
            return;
        }
        if self.sessions[idx].is_durable() {
            self.offer_stored(idx, message, grant, now, port);
            return;
        }
        let delivery = grant.delivery(message);
        match conn {
            Some(conn) => {
                let most = self.mqtt().max_inflight;
                let session = &mut self.sessions[idx];
                let (window, mut last_id) = (session.window(most), session.last_id);
                let flow = session.flow_mut();
                if flow.is_open(window) && port.has_room(conn) {
                    let id = flow.launch(delivery, &mut last_id);
                    session.last_id = last_id;
                    self.fly(idx, message, grant, id, false, now, port);
                } else if session.flags.has(Flags::PAUSED) {
                    self.enqueue_offline(idx, delivery, port);
                } else if self.enqueue(idx, delivery) == Queued::Held {
                    self.watch_for_stall(idx, now);
                }
            }
            None => self.enqueue_offline(idx, delivery, port),
        }
    }

    fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            messages: self.mqtt().queue_messages as usize,
            bytes: self.mqtt().queue_bytes as usize,
        }
    }

    fn enqueue(&mut self, idx: SessionIdx, delivery: Delivery) -> Queued {
        let limits = self.queue_limits();
        self.counters().queued.add(1);
        self.sessions[idx].flow_mut().enqueue(delivery, limits)
    }

    /// Publishers wait for a connected client: it is looked at again after the write timeout.
    pub(super) fn watch_for_stall(&mut self, idx: SessionIdx, now: Millis) {
        let session = &mut self.sessions[idx];
        if let Some(conn) = session.conn()
            && !session.flags.has(Flags::STALLING)
        {
            session.flags.put(Flags::STALLING, true);
            let due = now
                .tick()
                .after_millis(u64::from(self.mqtt().write_timeout) * 1000);
            let id = self.id_of(idx);
            self.stalls.push_back((due, id, conn));
        }
    }

    /// Looks at those for which publishers have waited for the length of the write timeout; all wait equally long, so they stand in order.
    pub(super) fn check_stalls(&mut self, now: Millis, port: &mut impl Port) {
        for _ in 0..limits::SESSION_TIMERS {
            let Some(&(due, id, conn)) = self.stalls.front() else {
                break;
            };
            if due > now.tick() {
                break;
            }
            self.stalls.pop_front();
            // The flag went with the connection.
            if let Some(idx) = self.live(id)
                && self.sessions[idx].conn() == Some(conn)
            {
                self.sessions[idx].flags.put(Flags::STALLING, false);
                self.check_stall(idx, now, port);
            }
        }
        if self.stalls.is_empty() {
            self.stalls = VecDeque::new();
        }
    }

    /// A client for which publishers wait, and which has acknowledged nothing for the length of the write timeout or not enough in twice
    /// that, must not hold them up any longer.
    fn check_stall(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        // What kept its messages may have been the queues of others.
        self.pump(idx, now, port);
        let Some(flow) = &mut self.sessions[idx].flow else {
            return;
        };
        if flow.has_stalled() {
            let fault = Fault {
                reason: ReasonCode::QUOTA_EXCEEDED,
                cause: CloseCause::SlowReader,
            };
            self.expel(idx, fault, now, port);
        } else if flow.held() > 0 {
            self.watch_for_stall(idx, now);
        }
    }

    /// The queue of an absent client has no publisher that could wait for it: the operator's policy decides.
    fn enqueue_offline(&mut self, idx: SessionIdx, delivery: Delivery, port: &mut impl Port) {
        let limits = self.queue_limits();
        let policy = self.mqtt().queue_full;
        if policy != QueueFull::DropOldest
            && !self.sessions[idx]
                .flow_mut()
                .has_room_for(&delivery, limits)
        {
            self.counters().dropped_queue.add(1);
            if policy == QueueFull::Refuse {
                delivery.message.mark_refused();
            }
            self.sessions[idx].tidy();
            return;
        }
        while !self.sessions[idx]
            .flow_mut()
            .has_room_for(&delivery, limits)
        {
            let Some((oldest, was_held)) = self.sessions[idx].flow_mut().dequeue() else {
                break;
            };
            self.counters().queued.sub(1);
            self.counters().dropped_queue.add(1);
            if was_held {
                self.settle(&oldest.message, port);
            }
        }
        self.enqueue(idx, delivery);
    }

    /// The client is gone or paused, and publishers wait for its queue: the policy for absent clients now holds for these messages too.
    pub(super) fn rule_on_held(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let Some(flow) = &mut self.sessions[idx].flow else {
            return;
        };
        let held = flow.take_held();
        self.counters().queued.sub(held.len() as u64);
        if self.sessions[idx].is_durable() {
            self.rule_on_held_stored(idx, held, now, port);
            return;
        }
        for delivery in held {
            let message = Arc::clone(&delivery.message);
            self.enqueue_offline(idx, delivery, port);
            self.settle(&message, port);
        }
    }

    /// Sends from the queue while the window and the connection have room.
    pub(super) fn pump(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        if self.sessions[idx].is_durable() {
            self.pump_stored(idx, now, port);
            self.resume_queries(idx);
            self.sessions[idx].tidy();
            return;
        }
        let limits = self.queue_limits();
        while let Some(conn) = self.sessions[idx].conn() {
            let most = self.mqtt().max_inflight;
            let session = &mut self.sessions[idx];
            let (window, mut last_id) = (session.window(most), session.last_id);
            let Some(flow) = &mut session.flow else { break };
            if !port.has_room(conn) {
                break;
            }
            if let Some(flying) = flow.resend(window) {
                self.fly_again(idx, &flying, now, port);
                continue;
            }
            if !flow.may_launch(window) {
                break;
            }
            let Some((delivery, was_held)) = flow.dequeue() else {
                break;
            };
            let message = Arc::clone(&delivery.message);
            let expired = message.is_expired(now);
            let id = (!expired).then(|| flow.launch(delivery.clone(), &mut last_id));
            session.last_id = last_id;
            let mut taken = if was_held { vec![message] } else { Vec::new() };
            while let Some(message) = flow.admit(limits) {
                taken.push(message);
            }
            self.counters().queued.sub(1);
            match id {
                Some(id) => {
                    let grant = Grant::of(&delivery);
                    self.fly(idx, &delivery.message, grant, id, false, now, port);
                }
                None => self.counters().dropped_expired.add(1),
            }
            for message in taken {
                self.settle(&message, port);
            }
        }
        self.resume_queries(idx);
        self.sessions[idx].tidy();
    }

    /// Sends what was in flight when the last connection ended (section 4.4).
    fn fly_again(&mut self, idx: SessionIdx, flying: &Inflight, now: Millis, port: &mut impl Port) {
        match &flying.delivery {
            Some(delivery) => {
                let grant = Grant::of(delivery);
                self.fly(idx, &delivery.message, grant, flying.id, true, now, port);
            }
            None => self.send_pubrel(idx, flying.id, ReasonCode::SUCCESS, port),
        }
    }

    /// Sends a message that is in flight. One that is too large for the client counts as delivered (section 3.1.2.11.4).
    #[allow(clippy::too_many_arguments, reason = "a PUBLISH is made of as much")]
    fn fly(
        &mut self,
        idx: SessionIdx,
        message: &Arc<Message>,
        grant: Grant<'_>,
        id: PacketId,
        dup: bool,
        now: Millis,
        port: &mut impl Port,
    ) {
        if !self.transmit(idx, message, grant, Some(id), dup, now, port)
            && let Some(flow) = &mut self.sessions[idx].flow
        {
            flow.abandon(id);
        }
    }

    /// Writes a PUBLISH. False: it is larger than the client takes.
    #[allow(clippy::too_many_arguments, reason = "a PUBLISH is made of as much")]
    pub(super) fn transmit(
        &mut self,
        idx: SessionIdx,
        message: &Arc<Message>,
        grant: Grant<'_>,
        id: Option<PacketId>,
        dup: bool,
        now: Millis,
        port: &mut impl Port,
    ) -> bool {
        let session = &mut self.sessions[idx];
        let Some(conn) = session.conn() else {
            return true;
        };
        let counters = self.shared.counters.of(self.me);
        let (version, max_packet) = (session.version(), session.max_packet());
        let aliases = session
            .some_extras_mut()
            .and_then(|extras| extras.aliases_out.as_mut());
        if !grant.alone && grant.ids.is_empty() && aliases.is_none() && !dup {
            let (packet, id_at) = self
                .frames
                .get(message, now, version, grant.qos, grant.retain);
            if packet.len() > max_packet {
                counters.dropped_too_large.add(1);
                return false;
            }
            if let (Some(id), Some(at)) = (id, id_at) {
                publish::patch_packet_id(packet, at, id);
            }
            counters.packets_out.add(1);
            counters.publishes_out.add(1);
            port.send(conn, packet);
            return true;
        }
        let out = Out {
            topic: bare(message.topic()),
            payload: message.payload(),
            forward: message.forward(),
            message_expiry: message.expiry_left(now),
            ids: grant.ids,
            qos: grant.qos,
            retain: grant.retain,
            dup,
        };
        let (session, packet) = (&mut self.sessions[idx], &mut self.scratch.packet);
        out.write(session, packet, id, counters, port)
    }

    /// The QoS of a delivery.
    pub(super) fn lower(published: Qos, granted: u8) -> Qos {
        published.min(subscribe::qos(granted))
    }
}
