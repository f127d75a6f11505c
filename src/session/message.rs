//! A message on its way: immutable, shared by reference between queues and reactors, and counting who has yet to take it.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::clock::Millis;
use crate::ids::{ReactorId, SessionId, SessionIdx};
use crate::sys::prefetch;
use crate::topic::TopicHash;
use crate::wire::{self, Forward, Publish, Qos};

/// Who published: for no local, and for the acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The publisher's home.
    pub reactor: ReactorId,
    /// Its session there.
    pub session: SessionId,
    /// The PUBLISH that waits for an acknowledgement, if one does.
    pub receipt: Option<Receipt>,
}

/// A QoS 1 or 2 PUBLISH that a shard has taken: counted, and wraps after 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt(pub u32);

/// What became of a message, over all the shards that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At least one session matched.
    Matched,
    /// None did.
    Unmatched,
    /// A limit kept it from a session or from the retained messages: the publisher must not take it for delivered.
    Refused,
    /// The client may not publish to this topic.
    Forbidden,
}

impl Outcome {
    /// The message is not the server's.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Refused | Self::Forbidden)
    }
}

const MATCHED: u8 = 1;
const REFUSED: u8 = 2;
const STORED: u8 = 4;

/// Bytes of a record in the store beside topic and body, about.
const STORED_HEAD: usize = 32;

/// A published message.
#[derive(Debug)]
pub struct Message {
    /// As published.
    pub qos: Qos,
    /// The RETAIN flag as published.
    pub retain: bool,
    /// None for wills and `$SYS`.
    pub publisher: Option<Publisher>,
    /// Hash of the topic, the same on every reactor.
    pub hash: TopicHash,
    /// When it stops being worth delivering (message expiry interval, MQTT 5 section 3.3.2.3.3).
    pub expires: Option<Millis>,
    /// The name of a QoS 2 message of a durable session, to find who has it already if it comes again.
    pub token: Option<NonZeroU64>,
    /// It comes again after the server has died: some may have it.
    pub doubtful: bool,
    /// A string of its own: as a part of the body it would have to be checked again at each look.
    topic: String,
    forward_len: u32,
    /// Pass-through properties (encoded), payload.
    body: Vec<u8>,
    waiting: AtomicU32,
    outcome: AtomicU8,
}

impl Message {
    /// Takes what must be kept of a PUBLISH. `topic` is the resolved one, where the packet had an alias, as the server has it.
    pub fn from_publish(
        publish: &Publish<'_>,
        topic: &str,
        hash: TopicHash,
        publisher: Publisher,
        now: Millis,
    ) -> Self {
        let mut message = Self::new(topic, hash, &publish.properties.forward, publish.payload);
        message.describe(publish, publisher, now);
        message
    }

    /// The same in the place of an older message, whose memory it takes over.
    pub fn refill(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        hash: TopicHash,
        publisher: Publisher,
        now: Millis,
    ) {
        self.topic.clear();
        self.topic.push_str(topic);
        self.body.clear();
        publish.properties.forward.copy_to(&mut self.body);
        self.forward_len = self.body.len() as u32;
        self.body.extend_from_slice(publish.payload);
        self.hash = hash;
        self.waiting = AtomicU32::new(1);
        self.outcome = AtomicU8::new(0);
        self.token = None;
        self.doubtful = false;
        self.describe(publish, publisher, now);
    }

    fn describe(&mut self, publish: &Publish<'_>, publisher: Publisher, now: Millis) {
        self.qos = publish.qos;
        self.retain = publish.retain;
        self.publisher = Some(publisher);
        self.expires = publish
            .properties
            .message_expiry
            .map(|secs| now.plus_secs(u64::from(secs)));
    }

    /// Takes the message of a will. Its expiry counts from its publication, so none is set yet. `topic` is its topic as the server has it.
    pub fn from_will(will: &wire::Will<'_>, topic: &str, hash: TopicHash) -> Self {
        let mut message = Self::new(topic, hash, &will.properties.forward, will.payload);
        message.qos = will.qos;
        message.retain = will.retain;
        message
    }

    /// A message of the server's own: QoS 0, not retained, until the caller says otherwise.
    pub fn new(topic: &str, hash: TopicHash, forward: &Forward<'_>, payload: &[u8]) -> Self {
        let mut body = Vec::with_capacity(forward.len() + payload.len());
        forward.copy_to(&mut body);
        let forward_len = body.len() as u32;
        body.extend_from_slice(payload);
        Self {
            qos: Qos::AtMostOnce,
            retain: false,
            publisher: None,
            hash,
            expires: None,
            token: None,
            doubtful: false,
            topic: topic.into(),
            forward_len,
            body,
            waiting: AtomicU32::new(1),
            outcome: AtomicU8::new(0),
        }
    }

    /// A copy for which nobody waits: its publisher has been told already.
    #[must_use]
    pub fn without_publisher(&self) -> Self {
        Self {
            publisher: None,
            token: None,
            doubtful: false,
            topic: self.topic.clone(),
            body: self.body.clone(),
            waiting: AtomicU32::new(1),
            outcome: AtomicU8::new(0),
            ..*self
        }
    }

    /// True if this session published it.
    pub fn is_from(&self, reactor: ReactorId, idx: SessionIdx, serial: u32) -> bool {
        self.publisher.is_some_and(|publisher| {
            publisher.reactor == reactor && publisher.session == SessionId { idx, serial }
        })
    }

    /// The topic name, as the server has it ([`crate::topic::scope`]).
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Topic and payload will be looked at.
    pub fn expect_text(&self) {
        if let Some(first) = self.topic.as_bytes().first() {
            prefetch::read(first);
        }
        if let Some(first) = self.body.first() {
            prefetch::read(first);
        }
    }

    /// Properties that go to the receiver as they came, encoded.
    pub fn forward(&self) -> &[u8] {
        &self.body[..self.forward_len as usize]
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.body[self.forward_len as usize..]
    }

    /// Bytes of memory that [`Message::refill`] may take over.
    pub fn capacity(&self) -> usize {
        self.topic.capacity() + self.body.capacity()
    }

    /// Bytes that a queue counts for it.
    pub fn weight(&self) -> usize {
        self.topic.len() + self.body.len() + size_of::<Self>()
    }

    /// Bytes that it takes in a store, about.
    pub fn stored_weight(&self) -> usize {
        self.topic.len() + self.body.len() + STORED_HEAD
    }

    /// True once its expiry interval is over.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }

    /// Whole seconds left of its expiry interval, for the receiver.
    pub fn expiry_left(&self, now: Millis) -> Option<u32> {
        self.expires
            .map(|at| u32::try_from(at.since(now).div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// One more shard, or a full queue, has yet to take it before it may be acknowledged. At QoS 0 nobody waits, and nothing is counted.
    pub fn expect(&self) {
        if self.qos != Qos::AtMostOnce {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Some session matched.
    pub fn mark_matched(&self) {
        if self.qos != Qos::AtMostOnce && self.outcome.load(Ordering::Relaxed) & MATCHED == 0 {
            self.outcome.fetch_or(MATCHED, Ordering::Relaxed);
        }
    }

    /// Somebody who should have it can't take it.
    pub fn mark_refused(&self) {
        self.outcome.fetch_or(REFUSED, Ordering::Relaxed);
    }

    /// A store has it: where the disk is waited for, so is this.
    pub fn mark_stored(&self) {
        if self.outcome.load(Ordering::Relaxed) & STORED == 0 {
            self.outcome.fetch_or(STORED, Ordering::Relaxed);
        }
    }

    /// Whether some store has it.
    pub fn is_stored(&self) -> bool {
        self.outcome.load(Ordering::Relaxed) & STORED != 0
    }

    /// One who was expected has taken it. The last gets the outcome and tells the publisher.
    pub fn settle(&self) -> Option<Outcome> {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let outcome = self.outcome.load(Ordering::Acquire);
        Some(if outcome & REFUSED != 0 {
            Outcome::Refused
        } else if outcome & MATCHED != 0 {
            Outcome::Matched
        } else {
            Outcome::Unmatched
        })
    }
}
