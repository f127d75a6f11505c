//! One session's messages in flight and waiting, both ways: windows, packet identifiers, acknowledgement order (MQTT 5 sections 4.3, 4.4,
//! 4.6, 4.9).
//!
//! A session has a [`Flow`] only while something is in flight or waiting; an idle one has none. Pure: what is to be sent is for the
//! caller to read off.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::session::Extras;
use crate::session::message::Message;
use crate::session::receipts::Receipts;
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
    /// Of those that were held then, how many still are.
    overdue: usize,
    /// What the client has published.
    pub receipts: Receipts,
    /// What few sessions have. Here, for a session is one pointer smaller then.
    pub extras: Option<Box<Extras>>,
}

impl Flow {
    /// Nothing is in flight, waiting or owed, and there are no extras: the box can go.
    pub fn is_idle(&self) -> bool {
        self.inflight.is_empty()
            && self.queue.is_empty()
            && self.receipts.is_empty()
            && self.extras.is_none()
    }

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
                // A second PUBREC is answered, but is no progress for those who wait.
                if flying.phase == Phase::Published {
                    self.acked = self.acked.wrapping_add(1);
                }
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

    /// Appends behind the limits of a queue that stands elsewhere: its publisher waits (the message's count is raised).
    pub fn hold(&mut self, delivery: Delivery) {
        delivery.message.expect();
        self.held += 1;
        self.queue.push_back(delivery);
    }

    /// The oldest of those that wait.
    pub fn front(&self) -> Option<&Delivery> {
        self.queue.front()
    }

    /// The client has acknowledged a message of a queue that stands elsewhere.
    pub fn note_progress(&mut self) {
        self.acked = self.acked.wrapping_add(1);
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
            self.let_go();
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
        self.let_go();
        self.kept_bytes += weight;
        Some(message)
    }

    /// The oldest held message is held no more.
    fn let_go(&mut self) {
        self.held -= 1;
        self.overdue = self.overdue.saturating_sub(1);
    }

    /// The client is gone: takes the held messages off, oldest first, for the policy of offline queues to decide.
    pub fn take_held(&mut self) -> Vec<Delivery> {
        let taken: Vec<_> = self.queue.drain(self.queue.len() - self.held..).collect();
        self.held = 0;
        self.overdue = 0;
        taken
    }

    /// True if publishers wait for this client, and it has acknowledged nothing since the last look or so little that one that waited then
    /// waits still: with an acknowledgement now and then it would hold up everybody who publishes to it for as long as it likes.
    pub fn has_stalled(&mut self) -> bool {
        let stalled = self.held > 0 && (self.acked == self.acked_before || self.overdue > 0);
        self.acked_before = self.acked;
        self.overdue = self.held;
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
            .map(|mut delivery| {
                // One that was sent at QoS 2 is for nobody else (MQTT-4.8.2-5).
                if delivery.qos == Qos::ExactlyOnce {
                    delivery.group = None;
                }
                (delivery, false)
            });
        let queued = self
            .queue
            .into_iter()
            .enumerate()
            .map(move |(at, delivery)| (delivery, at >= kept));
        flying.chain(queued)
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
        self.receipts.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicHash;
    use crate::wire::Forward;

    const LIMITS: QueueLimits = QueueLimits {
        messages: 2,
        bytes: 1 << 20,
    };

    fn delivery(qos: Qos, payload: &[u8]) -> Delivery {
        let mut message = Message::new("t", TopicHash(0), &Forward::default(), payload);
        message.qos = qos;
        Delivery {
            message: Arc::new(message),
            qos,
            retain: false,
            ids: Box::default(),
            group: None,
        }
    }

    fn once(name: u8) -> Delivery {
        delivery(Qos::AtLeastOnce, &[name])
    }

    fn name(delivery: &Delivery) -> u8 {
        delivery.message.payload()[0]
    }

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    #[test]
    fn the_window_closes_and_each_acknowledgement_opens_a_place() {
        let (mut flow, mut next) = (Flow::default(), 0);
        assert!(flow.is_open(2));
        assert_eq!(flow.launch(once(b'a'), &mut next), id(1));
        let second = delivery(Qos::ExactlyOnce, b"b");
        assert_eq!(flow.launch(second, &mut next), id(2));
        assert!(!flow.is_open(2) && !flow.may_launch(2));
        assert_eq!(flow.puback(id(2)), Acked::WrongKind);
        assert_eq!(flow.pubcomp(id(2)), Acked::WrongKind, "not released yet");
        assert_eq!(flow.pubrec(id(2), ReasonCode::SUCCESS), Acked::Release);
        assert!(!flow.is_open(2), "a released message has its place still");
        assert_eq!(flow.pubcomp(id(2)), Acked::Done);
        assert_eq!(flow.puback(id(1)), Acked::Done);
        assert_eq!(flow.puback(id(1)), Acked::Unknown);
        assert!(flow.is_idle());
    }

    #[test]
    fn a_pubrec_with_an_error_ends_the_exchange() {
        let (mut flow, mut next) = (Flow::default(), 0);
        flow.launch(delivery(Qos::ExactlyOnce, b"a"), &mut next);
        let refused = ReasonCode::QUOTA_EXCEEDED;
        assert_eq!(flow.pubrec(id(1), refused), Acked::Done);
        assert!(flow.is_idle());
    }

    #[test]
    fn identifiers_come_around_past_those_in_flight() {
        let (mut flow, mut next) = (Flow::default(), 0);
        flow.launch(once(b'a'), &mut next);
        next = u16::MAX;
        assert_eq!(
            flow.launch(once(b'b'), &mut next),
            id(2),
            "0 is none, 1 is taken"
        );
        flow.check_invariants();
    }

    #[test]
    fn redelivery_keeps_order_and_window() {
        let (mut flow, mut next) = (Flow::default(), 0);
        for name in *b"abc" {
            flow.launch(once(name), &mut next);
        }
        flow.enqueue(once(b'd'), LIMITS);
        flow.reconnected();
        let again = |flow: &mut Flow| {
            let flying = flow.resend(2)?;
            Some((flying.id.get(), name(&flying.delivery.unwrap())))
        };
        assert_eq!(again(&mut flow), Some((1, b'a')));
        assert_eq!(again(&mut flow), Some((2, b'b')));
        assert_eq!(again(&mut flow), None, "the new window is smaller");
        assert!(!flow.may_launch(100), "what is older goes first");
        // The client had acknowledged the third on the last connection.
        assert_eq!(flow.puback(id(3)), Acked::Done);
        assert_eq!(flow.puback(id(1)), Acked::Done);
        assert_eq!(again(&mut flow), None);
        assert!(flow.may_launch(2));
        flow.check_invariants();
    }

    #[test]
    fn what_is_over_the_limits_is_held_until_there_is_room() {
        let mut flow = Flow::default();
        let third = once(b'c');
        assert_eq!(flow.enqueue(once(b'a'), LIMITS), Queued::Kept);
        assert_eq!(flow.enqueue(once(b'b'), LIMITS), Queued::Kept);
        assert!(!flow.has_room_for(&third, LIMITS));
        assert_eq!(flow.enqueue(third.clone(), LIMITS), Queued::Held);
        assert_eq!(
            third.message.settle(),
            None,
            "the queue counts as one who waits"
        );
        assert!(flow.admit(LIMITS).is_none());
        let (first, was_held) = flow.dequeue().unwrap();
        assert_eq!((name(&first), was_held), (b'a', false));
        let admitted = flow.admit(LIMITS).expect("there is room now");
        assert!(admitted.settle().is_some(), "the last to take it");
        assert_eq!((flow.held(), flow.queued()), (0, 2));
        flow.check_invariants();
    }

    #[test]
    fn one_message_is_kept_however_large() {
        let mut flow = Flow::default();
        let tight = QueueLimits {
            messages: 2,
            bytes: 10,
        };
        assert_eq!(flow.enqueue(once(b'a'), tight), Queued::Kept);
        assert_eq!(flow.enqueue(once(b'b'), tight), Queued::Held);
        assert_eq!(flow.enqueue(once(b'c'), tight), Queued::Held);
        let (_, was_held) = flow.dequeue().unwrap();
        assert!(!was_held && flow.admit(tight).is_some() && flow.admit(tight).is_none());
        flow.check_invariants();
    }

    #[test]
    fn held_messages_are_taken_off_in_order() {
        let mut flow = Flow::default();
        for name in *b"abcd" {
            flow.enqueue(once(name), LIMITS);
        }
        let held: Vec<_> = flow.take_held().iter().map(name).collect();
        assert_eq!((held, flow.held(), flow.queued()), (b"cd".to_vec(), 0, 2));
        flow.check_invariants();
    }

    #[test]
    fn a_client_that_acknowledges_nothing_has_stalled() {
        let (mut flow, mut next) = (Flow::default(), 0);
        flow.launch(once(b'a'), &mut next);
        flow.launch(once(b'b'), &mut next);
        for name in *b"cde" {
            flow.enqueue(once(name), LIMITS);
        }
        flow.puback(id(1));
        assert!(!flow.has_stalled());
        assert!(flow.has_stalled(), "nothing since");
        flow.take_held();
        assert!(!flow.has_stalled(), "nobody waits");
    }

    #[test]
    fn a_pubrec_that_is_repeated_is_no_progress() {
        let (mut flow, mut next) = (Flow::default(), 0);
        flow.launch(delivery(Qos::ExactlyOnce, b"a"), &mut next);
        for name in *b"bcd" {
            flow.enqueue(once(name), LIMITS);
        }
        assert_eq!(flow.pubrec(id(1), ReasonCode::SUCCESS), Acked::Release);
        assert!(!flow.has_stalled());
        assert_eq!(flow.pubrec(id(1), ReasonCode::SUCCESS), Acked::Release);
        assert!(flow.has_stalled());
    }

    #[test]
    fn what_a_group_member_leaves_is_for_another_unless_it_was_sent_at_qos_2() {
        let (mut flow, mut next) = (Flow::default(), 0);
        let key = Arc::new(GroupKey {
            group: "g".into(),
            path: "t".into(),
        });
        let shared = |qos, name| Delivery {
            group: Some(Arc::clone(&key)),
            ..delivery(qos, name)
        };
        flow.launch(shared(Qos::AtLeastOnce, b"a"), &mut next);
        flow.launch(shared(Qos::ExactlyOnce, b"b"), &mut next);
        for payload in [b"c", b"d", b"e"] {
            flow.enqueue(shared(Qos::ExactlyOnce, payload), LIMITS);
        }
        let left: Vec<_> = flow
            .into_undelivered()
            .map(|(left, was_held)| (name(&left), left.group.is_some(), was_held))
            .collect();
        let expected = [
            (b'a', true, false),
            (b'b', false, false),
            (b'c', true, false),
            (b'd', true, false),
            (b'e', true, true),
        ];
        assert_eq!(left, expected);
    }
}
