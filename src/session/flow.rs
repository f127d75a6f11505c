//! One session's messages in flight and waiting, both ways: windows, packet identifiers, acknowledgement order (MQTT 5 sections 4.3, 4.4,
//! 4.6, 4.9).
//!
//! A session has a [`Flow`] only while something is in flight or waiting; an idle one has none. Pure: what is to be sent is for the
//! caller to read off.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::MAX_UNRELEASED;
use crate::session::message::{Message, Outcome};
use crate::topic::GroupKey;
use crate::wire::{PacketId, Qos, ReasonCode};

/// A message for this client: what was published, and how this client is to get it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// The lower of the published and the granted QoS.
    pub qos: Qos,
    /// The RETAIN flag to send.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub ids: Box<[u32]>,
    /// The shared subscription that chose this client: another member gets the message if this session ends.
    pub group: Option<Arc<GroupKey>>,
}

impl Delivery {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.message.weight()
    }
}

/// What is still to come from the client for a message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// PUBLISH sent: a PUBACK (QoS 1) or PUBREC (QoS 2).
    Published,
    /// PUBREL sent: a PUBCOMP.
    Released,
}

/// A message in flight to the client.
#[derive(Clone, Debug)]
pub struct Inflight {
    /// Its packet identifier.
    pub id: PacketId,
    /// How far it is.
    pub phase: Phase,
    /// The message; none once it is the client's (PUBREC received).
    pub delivery: Option<Delivery>,
    /// The QoS of the PUBLISH.
    pub qos: Qos,
}

/// What an acknowledgement from the client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// The message is done, a place in the window is free.
    Done,
    /// A PUBREC: the PUBREL is to be sent.
    Release,
    /// No message is in flight under this identifier.
    Unknown,
    /// One is, but of the other QoS: the client breaks the protocol.
    WrongKind,
}

/// What the queue did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is within the limits.
    Kept,
    /// It is over the limits: kept, but its publisher waits (the message's count was raised) until it is within.
    Held,
}

/// The queue's limits.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes, as [`Message::weight`] counts them.
    pub bytes: usize,
}

/// An acknowledgement that we owe the client. They leave in the order in which its messages came.
#[derive(Clone, Copy, Debug)]
struct Owed {
    id: PacketId,
    qos: Qos,
    outcome: Option<Outcome>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Flow {
    inflight: VecDeque<Inflight>,
    /// How many at the end of `inflight` were sent on an earlier connection, but not yet on this one.
    unsent: usize,
    queue: VecDeque<Delivery>,
    /// Bytes of those that are within the limits.
    kept_bytes: usize,
    /// How many at the end of `queue` are over the limits, so that their publishers wait.
    held: usize,
    /// Acknowledgements that the client has sent, and how many they were when [`Flow::has_stalled`] looked last.
    acked: u32,
    acked_before: u32,
    owed: VecDeque<Owed>,
    /// Identifiers of QoS 2 messages from the client that it has not released (method A of section 4.3.3).
    unreleased: Vec<PacketId>,
}

impl Flow {
    /// Nothing is in flight, waiting or owed: the box can go.
    pub fn is_idle(&self) -> bool {
        self.inflight.is_empty()
            && self.queue.is_empty()
            && self.owed.is_empty()
            && self.unreleased.is_empty()
    }

    // ---- towards the client ----

    /// Messages in flight on this connection.
    pub fn in_flight(&self) -> usize {
        self.inflight.len() - self.unsent
    }

    /// True if a new message may be sent now: nothing older waits, and the window has a place.
    pub fn is_open(&self, window: usize) -> bool {
        self.queue.is_empty() && self.unsent == 0 && self.inflight.len() < window
    }

    /// A new connection: what is in flight is to be sent again, in the order of the first time (section 4.4).
    pub fn reconnected(&mut self) {
        self.unsent = self.inflight.len();
    }

    /// The next message that is to be sent again, if the window has a place for it.
    pub fn resend(&mut self, window: usize) -> Option<Inflight> {
        if self.unsent == 0 || self.in_flight() >= window {
            return None;
        }
        let next = self.inflight[self.in_flight()].clone();
        self.unsent -= 1;
        Some(next)
    }

    /// True if a message of the queue may be put in flight now.
    pub fn may_launch(&self, window: usize) -> bool {
        self.unsent == 0 && self.inflight.len() < window
    }

    /// Messages that wait for a place in the window.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Puts a message in flight under a fresh identifier, counted on from `next`.
    ///
    /// The window is far smaller than the 65,535 identifiers, so that a free one is always near.
    pub fn launch(&mut self, delivery: Delivery, next: &mut u16) -> PacketId {
        let id = loop {
            *next = next.wrapping_add(1);
            if let Some(id) = PacketId::new(*next)
                && !self.inflight.iter().any(|flying| flying.id == id)
            {
                break id;
            }
        };
        self.inflight.push_back(Inflight {
            id,
            phase: Phase::Published,
            qos: delivery.qos,
            delivery: Some(delivery),
        });
        id
    }

    /// A message that was put in flight was not sent after all.
    pub fn abandon(&mut self, id: PacketId) {
        if let Some(at) = self.find(id) {
            self.land(at);
        }
    }

    /// Takes a message out of flight.
    fn land(&mut self, at: usize) {
        if at >= self.in_flight() {
            self.unsent -= 1;
        }
        self.inflight.remove(at);
    }

    fn find(&self, id: PacketId) -> Option<usize> {
        self.inflight.iter().position(|flying| flying.id == id)
    }

    /// A PUBACK came.
    pub fn puback(&mut self, id: PacketId) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some(at) if self.inflight[at].qos != Qos::AtLeastOnce => Acked::WrongKind,
            Some(at) => {
                self.land(at);
                self.acked = self.acked.wrapping_add(1);
                Acked::Done
            }
        }
    }

    /// A PUBREC came. One with an error ends the exchange.
    pub fn pubrec(&mut self, id: PacketId, reason: ReasonCode) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some(at) if self.inflight[at].qos != Qos::ExactlyOnce => Acked::WrongKind,
            Some(at) if reason.is_error() => {
                self.land(at);
                self.acked = self.acked.wrapping_add(1);
                Acked::Done
            }
            Some(at) => {
                let flying = &mut self.inflight[at];
                self.acked = self.acked.wrapping_add(1);
                flying.phase = Phase::Released;
                flying.delivery = None;
                Acked::Release
            }
        }
    }

    /// A PUBCOMP came.
    pub fn pubcomp(&mut self, id: PacketId) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some(at) if self.inflight[at].phase != Phase::Released => Acked::WrongKind,
            Some(at) => {
                self.land(at);
                self.acked = self.acked.wrapping_add(1);
                Acked::Done
            }
        }
    }

    /// Appends to the queue: within its limits, or held behind them.
    pub fn enqueue(&mut self, delivery: Delivery, limits: QueueLimits) -> Queued {
        let queued = if self.has_room_for(&delivery, limits) {
            self.kept_bytes += delivery.weight();
            Queued::Kept
        } else {
            delivery.message.expect();
            self.held += 1;
            Queued::Held
        };
        self.queue.push_back(delivery);
        queued
    }

    /// True if the queue would keep this message within its limits. One message is always kept, however large.
    pub fn has_room_for(&self, delivery: &Delivery, limits: QueueLimits) -> bool {
        self.held == 0 && self.fits(delivery.weight(), limits)
    }

    fn fits(&self, weight: usize, limits: QueueLimits) -> bool {
        let kept = self.queue.len() - self.held;
        kept == 0 || (kept < limits.messages && self.kept_bytes + weight <= limits.bytes)
    }

    /// Takes the oldest message off the queue; call [`Flow::admit`] until it has nothing more. True: it was held.
    pub fn dequeue(&mut self) -> Option<(Delivery, bool)> {
        let delivery = self.queue.pop_front()?;
        let was_held = self.held > self.queue.len();
        if was_held {
            self.held -= 1;
        } else {
            self.kept_bytes -= delivery.weight();
        }
        Some((delivery, was_held))
    }

    /// After the queue became shorter: a held message that is within the limits now, so that its publisher may be told.
    pub fn admit(&mut self, limits: QueueLimits) -> Option<Arc<Message>> {
        let kept = self.queue.len() - self.held;
        let next = self.queue.get(kept)?;
        let weight = next.weight();
        if !self.fits(weight, limits) {
            return None;
        }
        let message = Arc::clone(&next.message);
        self.held -= 1;
        self.kept_bytes += weight;
        Some(message)
    }

    /// The client is gone: takes the held messages off, oldest first, for the policy of offline queues to decide.
    pub fn take_held(&mut self) -> Vec<Delivery> {
        let taken: Vec<_> = self.queue.drain(self.queue.len() - self.held..).collect();
        self.held = 0;
        taken
    }

    /// True if publishers wait for this client and it has acknowledged nothing since the last look.
    pub fn has_stalled(&mut self) -> bool {
        let stalled = self.held > 0 && self.acked == self.acked_before;
        self.acked_before = self.acked;
        stalled
    }

    /// How many of the queue are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The session ends: everything undelivered, in order.
    pub fn into_undelivered(self) -> impl Iterator<Item = (Delivery, bool)> {
        let kept = self.queue.len() - self.held;
        let flying = self
            .inflight
            .into_iter()
            .filter_map(|flying| flying.delivery)
            .map(|delivery| (delivery, false));
        let queued = self
            .queue
            .into_iter()
            .enumerate()
            .map(move |(at, delivery)| (delivery, at >= kept));
        flying.chain(queued)
    }

    // ---- from the client ----

    /// QoS 1 and 2 messages from the client that are not acknowledged in full (Receive Maximum, section 4.9).
    pub fn received_unacked(&self) -> usize {
        let owed_once = self
            .owed
            .iter()
            .filter(|owed| owed.qos == Qos::AtLeastOnce)
            .count();
        owed_once + self.unreleased.len()
    }

    /// True if a QoS 2 message with this identifier was received and not released: the PUBLISH is a duplicate.
    pub fn is_unreleased(&self, id: PacketId) -> bool {
        self.unreleased.contains(&id)
    }

    /// A QoS 1 or 2 message was taken and waits to be settled. False if the client holds too many QoS 2 messages unreleased.
    pub fn receive(&mut self, id: PacketId, qos: Qos) -> bool {
        if qos == Qos::ExactlyOnce {
            if self.unreleased.len() >= MAX_UNRELEASED {
                return false;
            }
            self.unreleased.push(id);
        }
        self.owed.push_back(Owed {
            id,
            qos,
            outcome: None,
        });
        true
    }

    /// A message of the client is settled.
    pub fn settled(&mut self, id: PacketId, outcome: Outcome) {
        if let Some(owed) = self
            .owed
            .iter_mut()
            .find(|owed| owed.id == id && owed.outcome.is_none())
        {
            owed.outcome = Some(outcome);
        }
    }

    /// The next acknowledgement that may leave: they leave in the order of the PUBLISH packets (section 4.6).
    pub fn next_ack(&mut self) -> Option<(PacketId, Qos, Outcome)> {
        let front = self.owed.front()?;
        let outcome = front.outcome?;
        let (id, qos) = (front.id, front.qos);
        self.owed.pop_front();
        Some((id, qos, outcome))
    }

    /// Acknowledgements that wait for the message to be settled.
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// True while the PUBREC for this identifier has not left.
    pub fn owes(&self, id: PacketId) -> bool {
        self.owed.iter().any(|owed| owed.id == id)
    }

    /// A PUBREL came, or a PUBREC with an error left. False if the identifier is unknown.
    pub fn release(&mut self, id: PacketId) -> bool {
        match self.unreleased.iter().position(|held| *held == id) {
            Some(at) => {
                self.unreleased.remove(at);
                true
            }
            None => false,
        }
    }

    /// The connection ended: acknowledgements that were owed to it are not sent; the client sends its messages again. What it sent at
    /// QoS 2 and was stored stays known, so that the second time is a duplicate.
    pub fn disconnected(&mut self) {
        self.owed.clear();
    }

    /// Panics if the parts contradict each other.
    pub fn check_invariants(&self) {
        assert!(self.held <= self.queue.len(), "more held than queued");
        assert!(
            self.unsent <= self.inflight.len(),
            "more unsent than in flight"
        );
        let kept = self.queue.len() - self.held;
        assert_eq!(
            self.kept_bytes,
            self.queue
                .iter()
                .take(kept)
                .map(Delivery::weight)
                .sum::<usize>(),
            "queue bytes drifted"
        );
        for (at, flying) in self.inflight.iter().enumerate() {
            assert!(
                self.inflight
                    .iter()
                    .skip(at + 1)
                    .all(|other| other.id != flying.id),
                "packet identifier in flight twice"
            );
            assert_eq!(
                flying.delivery.is_some(),
                flying.phase == Phase::Published,
                "a released message is the client's"
            );
        }
        assert!(self.unreleased.len() <= MAX_UNRELEASED);
    }
}
