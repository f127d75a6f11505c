//! PUBLISH: from a client to every shard with interest (MQTT 5 section 3.3).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::leaving::NOBODY;
use super::mail::Mail;
use super::port::Port;
use super::tenants::Over;
use super::waits::Wait;
use super::{Fault, Shard, greet};
use crate::clock::Millis;
use crate::ids::{ReactorId, SessionIdx};
use crate::limits::{SPARE_MESSAGE_BYTES, SPARE_MESSAGES};
use crate::session::durable::Note;
use crate::session::message::{Message, Outcome, Publisher, Receipt};
use crate::sys::prefetch;
use crate::topic::filter::has_wildcard;
use crate::topic::scope::bare;
use crate::topic::{ReactorSet, Scope, TopicHash, validate_name};
use crate::wire::{Forward, PacketId, Publish, Qos, ReasonCode};

/// `$inbox/{client id}/{rest}` reaches that client, whatever it subscribes to.
pub(super) const INBOX: &str = "$inbox/";

/// The client identifier that an inbox topic names, as the server has it.
pub(super) fn inbox_of(topic: &str) -> Option<Cow<'_, str>> {
    let rest = bare(topic).strip_prefix(INBOX)?;
    let client_id = rest
        .split_once('/')
        .map_or(rest, |(client_id, _)| client_id);
    Scope::of(topic).name(client_id)
}

/// Topics that a client may not publish to: the server's own (section 4.7.2), but for inboxes. `topic` is as the client knows it.
pub(super) fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$') && !topic.starts_with(INBOX)
}

/// Messages that have left and were small, to be made into others. Whoever has one still only lets go of it, so that no memory is given from one
/// thread to another.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// Nobody else has these; the last one is the warmest.
    free: Vec<Arc<Message>>,
    /// Others may have these still, the first one least likely.
    lent: VecDeque<Arc<Message>>,
}

impl Spares {
    /// A lent one will be taken: whoever had it last wrote to it, so it comes from another core.
    pub(super) fn expect(&self) {
        if self.free.is_empty()
            && let Some(first) = self.lent.front()
        {
            prefetch::read(Arc::as_ref(first));
        }
    }

    /// One that nobody else seems to have: looked at without an atomic operation, so the caller makes sure.
    fn take(&mut self) -> Option<Arc<Message>> {
        self.free.pop().or_else(|| {
            let first = self.lent.front()?;
            if Arc::strong_count(first) > 1 {
                return None;
            }
            self.lent.pop_front()
        })
    }

    fn put(&mut self, message: Arc<Message>) {
        let is_free = Arc::strong_count(&message) == 1;
        if is_free && self.free.len() < SPARE_MESSAGES {
            self.free.push(message);
        } else if !is_free {
            if self.lent.len() >= SPARE_MESSAGES {
                self.lent.pop_front();
            }
            self.lent.push_back(message);
        }
    }
}

/// A response topic is a topic name (section 3.3.2.3.5).
fn check_response_topic(forward: &Forward<'_>) -> Result<(), Fault> {
    if !forward.is_empty() && forward.response_topic().is_some_and(has_wildcard) {
        return Err(Fault::new(ReasonCode::PROTOCOL_ERROR));
    }
    Ok(())
}

impl Shard {
    /// A PUBLISH from a client.
    pub(super) fn publish(
        &mut self,
        idx: SessionIdx,
        publish: &Publish<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        self.counters().publishes_in.add(1);
        if !publish.properties.subscription_ids.is_empty() {
            return Err(Fault::new(ReasonCode::PROTOCOL_ERROR));
        }
        check_response_topic(&publish.properties.forward)?;
        let name = self.resolve_alias(idx, publish)?;
        let topic = self
            .scoped(idx, &name)
            .ok_or(Fault::new(ReasonCode::TOPIC_NAME_INVALID))?;
        let hash = self.shared.hasher.hash(&topic);
        let is_ours = self.own.has(hash);
        if is_ours {
            self.index.expect(hash);
        }
        validate_name(&name, self.mqtt().max_topic_levels)
            .map_err(|_| Fault::new(ReasonCode::TOPIC_NAME_INVALID))?;
        let likely = is_ours.then(|| self.index.expect_likely(hash)).flatten();
        let verdict = self.rule_on(idx, &name, publish.payload.len(), now)?;
        let Some(id) = publish.packet_id else {
            if verdict.is_none() {
                let message = self.message(idx, publish, &topic, hash, None, now);
                self.expect_subscriber(likely);
                self.route(&message, now, port);
                self.retire(message);
            }
            return Ok(());
        };
        if publish.qos == Qos::ExactlyOnce
            && let Some(flow) = &mut self.sessions[idx].flow
            && flow.receipts.take_again(id)
        {
            // Section 4.3.3: it was taken the first time. Only the PUBREC may have been lost.
            return self.release_acks(idx, port);
        }
        self.check_receive_maximum(idx)?;
        if let Some(outcome) = verdict {
            let receipt = self.receipt();
            let receipts = &mut self.sessions[idx].flow_mut().receipts;
            receipts.refuse(id, publish.qos, receipt, outcome);
            self.release_acks(idx, port)?;
            // An older message may be unsettled, and this refusal behind it.
            self.pause_if_owed(idx, now, port);
            return Ok(());
        }
        let receipt = self.receipt();
        let mut message = self.message(idx, publish, &topic, hash, Some(receipt), now);
        self.expect_subscriber(likely);
        if publish.qos == Qos::ExactlyOnce
            && self.sessions[idx].is_durable()
            && !self.name_message(idx, id, publish.dup, &mut message)
        {
            let receipts = &mut self.sessions[idx].flow_mut().receipts;
            receipts.refuse(id, publish.qos, receipt, Outcome::Refused);
            self.release_acks(idx, port)?;
            self.pause_if_owed(idx, now, port);
            return Ok(());
        }
        self.take(idx, id, receipt, &message, now, port)?;
        self.retire(message);
        Ok(())
    }

    /// What is said to a message before anybody gets it: nothing, if it may go on.
    fn rule_on(
        &mut self,
        idx: SessionIdx,
        name: &str,
        payload: usize,
        now: Millis,
    ) -> Result<Option<Outcome>, Fault> {
        if is_reserved(name) {
            return Ok(Some(Outcome::Forbidden));
        }
        if !self.may_publish(idx, name) {
            self.counters().dropped_forbidden.add(1);
            return Ok(Some(Outcome::Forbidden));
        }
        match self.tenant_publishes(idx, payload, now) {
            Ok(()) => Ok(None),
            Err(over) => {
                self.counters().dropped_quota.add(1);
                match over {
                    Over::Rate => Ok(Some(Outcome::Refused)),
                    Over::Payload => Err(Fault::new(ReasonCode::PACKET_TOO_LARGE)),
                }
            }
        }
    }

    /// Records that a QoS 2 message of a durable session was taken, before anybody gets it. If the server dies before it has said that it has the
    /// message, the client sends it again, and whoever has it then is found by its name. False: it could not be recorded.
    fn name_message(
        &mut self,
        idx: SessionIdx,
        id: PacketId,
        dup: bool,
        message: &mut Arc<Message>,
    ) -> bool {
        let message = Arc::get_mut(message).expect("nobody else has it yet");
        let known = self.sessions[idx]
            .flow
            .as_mut()
            .and_then(|flow| flow.receipts.take_doubt(id));
        // Without DUP it is another message, and the one before it was given up.
        if let Some(token) = known.filter(|_| dup) {
            message.token = NonZeroU64::new(token);
            message.doubtful = true;
            return true;
        }
        if let Some(given_up) = known {
            self.shared.doubts.close(given_up);
        }
        let token = NonZeroU64::new(self.random()).unwrap_or(NonZeroU64::MIN);
        message.token = Some(token);
        let note = Note::Took {
            id: id.get(),
            token: token.get(),
        };
        self.keep.note(self.id_of(idx), &note).is_ok()
    }

    /// Routes a QoS 1 or 2 message, and acknowledges it now or when it is settled.
    fn take(
        &mut self,
        idx: SessionIdx,
        id: PacketId,
        receipt: Receipt,
        message: &Arc<Message>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let owes_nothing = self.sessions[idx]
            .flow
            .as_ref()
            .is_none_or(|flow| flow.receipts.owed() == 0);
        if message.qos == Qos::AtLeastOnce && owes_nothing {
            // The common case: settled at once, nothing to remember.
            self.route(message, now, port);
            if let Some(outcome) = message.settle() {
                return self.acknowledge(idx, id, message.qos, outcome, port);
            }
            let receipts = &mut self.sessions[idx].flow_mut().receipts;
            receipts.take(id, message.qos, receipt, None);
        } else {
            let receipts = &mut self.sessions[idx].flow_mut().receipts;
            let token = message.token.map(NonZeroU64::get);
            if !receipts.take(id, message.qos, receipt, token) {
                return Err(Fault::quota());
            }
            if let Some(token) = token {
                self.shared.doubts.open(token);
            }
            if token.is_some() && self.must_queue() {
                self.await_sync(Wait::Route(Arc::clone(message)));
                self.pause_if_owed(idx, now, port);
                return Ok(());
            }
            self.route(message, now, port);
            if let Some(outcome) = message.settle()
                && self.is_held(idx, receipt, outcome)
            {
                self.sessions[idx]
                    .flow_mut()
                    .receipts
                    .settled(receipt, outcome);
                self.release_acks(idx, port)?;
            }
        }
        self.pause_if_owed(idx, now, port);
        Ok(())
    }

    fn receipt(&mut self) -> Receipt {
        self.receipts = self.receipts.wrapping_add(1);
        Receipt(self.receipts)
    }

    /// What is kept of a PUBLISH: made from a message that has passed, if there is one. A retained one stays, and is made anew.
    fn message(
        &mut self,
        idx: SessionIdx,
        publish: &Publish<'_>,
        topic: &str,
        hash: TopicHash,
        receipt: Option<Receipt>,
        now: Millis,
    ) -> Arc<Message> {
        let publisher = self.publisher(idx, receipt);
        if !publish.retain
            && let Some(mut spare) = self.spares.take()
            && let Some(message) = Arc::get_mut(&mut spare)
        {
            message.refill(publish, topic, hash, publisher, now);
            return spare;
        }
        Arc::new(Message::from_publish(publish, topic, hash, publisher, now))
    }

    fn publisher(&self, idx: SessionIdx, receipt: Option<Receipt>) -> Publisher {
        Publisher {
            reactor: self.me,
            session: self.id_of(idx),
            receipt,
        }
    }

    /// A message has left: it is kept to be made into another one.
    fn retire(&mut self, message: Arc<Message>) {
        if !message.retain && message.capacity() <= SPARE_MESSAGE_BYTES {
            self.spares.put(message);
        }
    }

    /// Section 3.3.2.3.4.
    fn resolve_alias<'a>(
        &mut self,
        idx: SessionIdx,
        publish: &Publish<'a>,
    ) -> Result<Cow<'a, str>, Fault> {
        let Some(alias) = publish.properties.topic_alias else {
            return Ok(Cow::Borrowed(publish.topic));
        };
        if alias > self.mqtt().topic_alias_maximum {
            return Err(Fault::new(ReasonCode::TOPIC_ALIAS_INVALID));
        }
        let session = &mut self.sessions[idx];
        if publish.topic.is_empty() {
            let known = session
                .extras()
                .and_then(|extras| extras.aliases_in.get(alias));
            return known
                .map(|topic| Cow::Owned(topic.to_owned()))
                .ok_or(Fault::new(ReasonCode::PROTOCOL_ERROR));
        }
        session.extras_mut().aliases_in.set(alias, publish.topic);
        Ok(Cow::Borrowed(publish.topic))
    }

    /// Section 4.9. An MQTT 3 client knows no such limit: it is not read from while it has too much unsettled.
    fn check_receive_maximum(&self, idx: SessionIdx) -> Result<(), Fault> {
        let session = &self.sessions[idx];
        let limit = usize::from(self.mqtt().receive_maximum);
        if session.is_v5()
            && let Some(flow) = &session.flow
            && flow.receipts.unacked() >= limit
        {
            return Err(Fault::new(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED));
        }
        Ok(())
    }

    /// Takes a message to every shard with interest, this one included, and to the home of its topic if it is to be retained. Whoever
    /// has yet to take it is counted in the message; the caller settles its own count afterwards.
    pub(super) fn route(&mut self, message: &Arc<Message>, now: Millis, port: &mut impl Port) {
        if self.keep.restoring.holds {
            self.route_later(message);
        } else {
            self.route_now(message, now, port);
        }
    }

    pub(super) fn route_now(&mut self, message: &Arc<Message>, now: Millis, port: &mut impl Port) {
        if let Some(client_id) = inbox_of(message.topic()) {
            let home = greet::home(&self.shared.hasher, &client_id, self.reactors());
            if home == self.me {
                message.expect();
                self.inbox(message, now, port);
            } else {
                self.hand(home, message, Mail::Inbox, port);
            }
            return;
        }
        if message.retain {
            // Before anything leaves: a client that subscribes after it has heard of the message finds the mark.
            self.shared.retained_marks.set(message.hash);
        }
        let mut to = ReactorSet::default();
        self.shared.masks.collect(message.hash, &mut to);
        let seed = self.random();
        let mut groups = Vec::new();
        self.routes
            .matching(message.hash, message.topic(), &mut to, |group| {
                if let Some(picked) = group.pick(seed) {
                    groups.push((picked, Arc::clone(group.key)));
                }
            });
        self.delivered += groups.len();
        for reactor in to.iter() {
            if reactor == self.me {
                message.expect();
                self.fan_out(message, now, port);
            } else {
                self.hand(reactor, message, Mail::Publish, port);
            }
        }
        for (picked, key) in groups {
            if self.shared.doubts.claims(&key, message) {
                message.mark_matched();
            } else {
                self.post_to_group(message, &key, picked, 0, now, port);
            }
        }
        if message.retain {
            let home = self.retained_home(message);
            if home == self.me {
                message.expect();
                self.retain(message, port);
            } else {
                self.hand(home, message, Mail::Retain, port);
            }
        }
    }

    /// Posts a message to another shard; at QoS 0 only while its mailbox has room.
    pub(super) fn hand(
        &mut self,
        to: ReactorId,
        message: &Arc<Message>,
        mail: impl FnOnce(Arc<Message>) -> Mail,
        port: &mut impl Port,
    ) {
        if message.qos == Qos::AtMostOnce && !port.has_post_room(to) {
            self.counters().dropped_mailbox.add(1);
            return;
        }
        message.expect();
        port.post(to, mail(Arc::clone(message)));
    }

    /// Delivers to the client whose inbox the topic names, and settles.
    pub(super) fn inbox(&mut self, message: &Arc<Message>, now: Millis, port: &mut impl Port) {
        if let Some(idx) = inbox_of(message.topic()).and_then(|client_id| self.find(&client_id))
            // One that does not know yet that it is connected is not, but for what is stored.
            && (!self.has_no_connack(idx)
                || self.sessions[idx].is_durable() && message.qos != Qos::AtMostOnce)
        {
            message.mark_matched();
            self.offer(
                idx,
                message,
                super::deliver::Grant::plain(message.qos),
                now,
                port,
            );
        }
        self.settle(message, port);
    }

    /// One of those who were expected has taken the message. If it was the last, the publisher is told.
    pub(super) fn settle(&mut self, message: &Arc<Message>, port: &mut impl Port) {
        if message.qos == Qos::AtMostOnce {
            return;
        }
        if self.must_wait() && message.is_stored() {
            self.settle_synced(message);
        } else {
            self.settle_now(message, port);
        }
    }

    pub(super) fn settle_now(&mut self, message: &Message, port: &mut impl Port) {
        let Some(outcome) = message.settle() else {
            return;
        };
        let Some(publisher) = message.publisher else {
            return;
        };
        let Some(receipt) = publisher.receipt else {
            return;
        };
        if publisher.reactor == self.me {
            self.settled(publisher.session, receipt, outcome, port);
        } else {
            port.post(
                publisher.reactor,
                Mail::Settled {
                    session: publisher.session,
                    receipt,
                    outcome,
                },
            );
        }
    }

    /// A message of one of our clients is settled: its acknowledgement leaves, in its turn.
    pub(super) fn settled(
        &mut self,
        session: crate::ids::SessionId,
        receipt: Receipt,
        outcome: Outcome,
        port: &mut impl Port,
    ) {
        if session.serial == NOBODY {
            self.passed_on(session.idx, receipt.0, outcome);
        } else if let Some(idx) = self.live(session)
            && self.is_held(idx, receipt, outcome)
        {
            self.settled_now(session, receipt, outcome, port);
        }
    }

    /// Everybody has a message of one of our clients, or it was refused. At QoS 2 a durable session records that, before its client is told; false:
    /// that is not done yet, and it goes on then.
    fn is_held(&mut self, idx: SessionIdx, receipt: Receipt, outcome: Outcome) -> bool {
        if !self.sessions[idx].is_durable() {
            return true;
        }
        let session = self.id_of(idx);
        let Some(flow) = &mut self.sessions[idx].flow else {
            return true;
        };
        let Some(id) = flow.receipts.unreleased(receipt) else {
            return true;
        };
        let id = id.get();
        if outcome.is_error() {
            // Not recorded it stays in doubt, and the client's next attempt, which is a new message, ends that.
            let _ = self.keep.note(session, &Note::Freed { id });
            if let Some(token) = flow.receipts.token(receipt) {
                self.shared.doubts.close(token);
            }
            return true;
        }
        if self.keep.note(session, &Note::Held { id }).is_err() {
            self.keep.unheld.push((session, receipt, outcome));
            return false;
        }
        let token = flow.receipts.recorded(receipt);
        if self.must_wait() {
            self.await_sync(Wait::Held(session, receipt, outcome, token));
            return false;
        }
        if let Some(token) = token {
            self.shared.doubts.close(token);
        }
        true
    }

    /// The acknowledgement leaves, in its turn.
    pub(super) fn settled_now(
        &mut self,
        session: crate::ids::SessionId,
        receipt: Receipt,
        outcome: Outcome,
        port: &mut impl Port,
    ) {
        let Some(idx) = self.live(session) else {
            return;
        };
        let Some(flow) = &mut self.sessions[idx].flow else {
            return;
        };
        flow.receipts.settled(receipt, outcome);
        if let Err(fault) = self.release_acks(idx, port) {
            self.doom(idx, fault);
        }
    }
}
