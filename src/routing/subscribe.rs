//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5 sections 3.8 to 3.11).
//!
//! A SUBACK says that whatever is published from now on arrives. Exact filters are in the shared masks at once; wildcard filters and
//! shared groups are told to every shard, and the SUBACK waits until all of them know.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashSet;

use super::mail::{Known, Mail};
use super::port::Port;
use super::restore::FENCE;
use super::waits::Wait;
use super::{Fault, Shard};
use crate::clock::Millis;
use crate::ids::{ConnId, SessionId, SessionIdx};
use crate::limits::{MAX_GROUPS, MAX_ROUTES, MAX_TOPIC_BYTES};
use crate::session::Flags;
use crate::session::durable::{self, Subscription};
use crate::topic::{Filter, GroupKey, SubOptions};
use crate::wire::{
    Qos, ReasonCode, RetainHandling, Suback, Subscribe, SubscribeOptions, Unsuback, Unsubscribe,
};

/// A SUBACK that waits until every shard knows of its filters.
#[derive(Debug)]
pub(super) struct PendingSuback {
    session: SessionId,
    conn: ConnId,
    packet: Vec<u8>,
    /// Filters whose retained messages are to follow.
    retained: Vec<Wanted>,
    /// Wildcard filters that were told to every shard for it.
    spreading: Vec<Arc<str>>,
}

/// Retained messages are to be sent for a new subscription.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) path: Arc<str>,
    pub(super) wildcard: bool,
    pub(super) options: SubOptions,
    pub(super) id: Option<u32>,
}

/// What the filters of one SUBSCRIBE have in common.
struct Request<'a> {
    idx: SessionIdx,
    id: Option<u32>,
    known: Option<Arc<Known>>,
    retained: Vec<Wanted>,
    /// What every shard is told of for this SUBSCRIBE already: a filter that it repeats needs no second letter.
    spreading: HashSet<Arc<str>>,
    groups: HashSet<GroupKey>,
    /// Of a durable session: what is granted, for its record.
    granted: Vec<u8>,
    v5: bool,
    packet: &'a Subscribe<'a>,
}

/// QoS of a subscription as the index keeps it.
pub(super) fn qos(bits: u8) -> Qos {
    Qos::from_bits(bits).expect("the index keeps what was granted")
}

fn granted(options: SubscribeOptions) -> SubOptions {
    SubOptions {
        qos: options.qos as u8,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
    }
}

impl Shard {
    /// A SUBSCRIBE from a client.
    pub(super) fn subscribe(
        &mut self,
        idx: SessionIdx,
        packet: &Subscribe<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let Some(conn) = self.sessions[idx].conn() else {
            return Ok(());
        };
        self.expect_filters(packet.filters);
        let mut request = Request {
            idx,
            id: packet.subscription_id,
            known: None,
            retained: Vec::new(),
            spreading: HashSet::new(),
            groups: HashSet::new(),
            granted: Vec::new(),
            v5: self.sessions[idx].is_v5(),
            packet,
        };
        let local_share = |(text, options): (&str, SubscribeOptions)| {
            options.no_local && text.starts_with("$share/")
        };
        if request.v5 && packet.filters.iter().any(local_share) {
            // Section 3.8.3.1: a protocol error.
            return Err(Fault::new(ReasonCode::PROTOCOL_ERROR));
        }
        let mut codes = std::mem::take(&mut self.scratch.codes);
        codes.clear();
        for (text, options) in request.packet.filters.iter() {
            let code = match self.subscribe_to(&mut request, text, options, port) {
                Ok(qos) => qos as u8,
                Err(reason) => {
                    self.tenant_refused(idx);
                    if request.v5 {
                        reason.0
                    } else {
                        ReasonCode::UNSPECIFIED_ERROR.0
                    }
                }
            };
            codes.push(code);
        }
        if !request.granted.is_empty() {
            let id = self.id_of(idx);
            // What is not recorded is not granted: the client is not told, and asks again.
            self.keep
                .store
                .note(id, &request.granted)
                .map_err(|_| Fault::quota())?;
            if self.must_wait() {
                let known = self.known(&mut request);
                known.expect();
                self.await_sync(Wait::Known(known));
            }
        }
        let mut out = std::mem::take(&mut self.scratch.packet);
        out.clear();
        Suback::new(packet.packet_id, &codes).encode(self.sessions[idx].version(), &mut out);
        self.scratch.codes = codes;
        match request.known {
            None => {
                self.send(idx, &out, port);
                self.want_retained(idx, request.retained, now, port);
            }
            Some(known) => {
                if !request.retained.is_empty() {
                    self.await_suback(idx);
                }
                let key = self.subacks.insert(PendingSuback {
                    session: self.id_of(idx),
                    conn,
                    packet: out.clone(),
                    retained: request.retained,
                    spreading: request.spreading.into_iter().collect(),
                });
                debug_assert_eq!(key as u32, known.suback, "the key was kept for this SUBACK");
                self.now_known(Some(known), now, port);
                if self.subacks.contains(key) {
                    // One at a time: a client that subscribes and unsubscribes faster than the shards learn of it would fill the mail.
                    self.sessions[idx].flags.put(Flags::SUBSCRIBING, true);
                    port.pause(conn, true);
                }
            }
        }
        self.scratch.packet = out;
        Ok(())
    }

    /// A durable session's record will have the filter, as the server has it.
    fn note_granted(&self, request: &mut Request<'_>, filter: &Filter<'_>, options: SubOptions) {
        if !self.sessions[request.idx].is_durable() {
            return;
        }
        if request.granted.is_empty() {
            durable::begin_subscribed(&mut request.granted);
        }
        let subscription = Subscription {
            filter: &filter.text(),
            options,
            id: request.id,
        };
        durable::put_subscription(&mut request.granted, &subscription);
    }

    /// What the SUBACK says of this filter.
    fn subscribe_to(
        &mut self,
        request: &mut Request<'_>,
        text: &str,
        options: SubscribeOptions,
        port: &mut impl Port,
    ) -> Result<Qos, ReasonCode> {
        let idx = request.idx;
        let Ok(filter) = Filter::parse(text, self.mqtt().max_topic_levels) else {
            return Err(ReasonCode::TOPIC_FILTER_INVALID);
        };
        if filter.path.starts_with("$inbox/") || filter.path == "$inbox" {
            // An inbox reaches its client without a subscription, and nobody else.
            return Err(ReasonCode::NOT_AUTHORIZED);
        }
        if !self.may_subscribe(idx, filter.path) {
            return Err(ReasonCode::NOT_AUTHORIZED);
        }
        let path = self.scoped_path(idx, &filter)?;
        let filter = Filter {
            path: &path,
            ..filter
        };
        let is_replicated = filter.wildcard || filter.share.is_some();
        if is_replicated && self.routes.len() >= MAX_ROUTES && !self.routes.has(filter.path) {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        let granted = granted(options);
        if let Some(group) = filter.share {
            let key = GroupKey {
                group: group.into(),
                path: filter.path.into(),
            };
            if self.routes.groups() >= MAX_GROUPS && !self.routes.has_group(&key) {
                return Err(ReasonCode::QUOTA_EXCEEDED);
            }
            if !self.is_member(idx, &key) && !self.may_have_another(idx) {
                return Err(ReasonCode::QUOTA_EXCEEDED);
            }
            if self.join_group(idx, &key, granted, request.id, true) {
                self.subscribed(idx, 1);
            }
            if !request.groups.contains(&key) {
                let known = self.known(request);
                self.announce_members(&key, Some(&known), port);
                request.groups.insert(key);
            }
            self.note_granted(request, &filter, granted);
            return Ok(options.qos);
        }
        if !self.may_have_another(idx) && !self.index.has(idx, filter.path) {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        let done = self.index.subscribe(idx, filter.path, granted, request.id);
        if done.is_new {
            self.subscribed(idx, 1);
        }
        if filter.wildcard {
            self.spread(request, filter.path, done.first_on_filter, port);
        } else if done.first_on_filter {
            self.own.add(done.hash);
        }
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => done.is_new,
            RetainHandling::DontSend => false,
        };
        // The interest stands already: what is retained from now on arrives as a live message.
        let may_have = filter.wildcard || self.shared.retained_marks.has(done.hash);
        if wants_retained && may_have {
            request.retained.push(Wanted {
                path: filter.path.into(),
                wildcard: filter.wildcard,
                options: granted,
                id: request.id,
            });
        }
        self.note_granted(request, &filter, granted);
        Ok(options.qos)
    }

    /// Tells every shard of the first subscriber to a wildcard filter; and once more for each that comes before all of them know, so that
    /// its SUBACK waits as well.
    fn spread(
        &mut self,
        request: &mut Request<'_>,
        path: &str,
        is_first: bool,
        port: &mut impl Port,
    ) {
        if is_first {
            self.routes.add(path, self.me);
        } else if request.spreading.contains(path) || !self.spreading.contains_key(path) {
            return;
        }
        let known = self.known(request);
        self.tell_interest(path, true, Some(&known), port);
        let path: Arc<str> = path.into();
        *self.spreading.entry(Arc::clone(&path)).or_insert(0) += 1;
        request.spreading.insert(path);
    }

    /// The counter of shards that have yet to know of this SUBSCRIBE's filters, made on the first filter that needs it.
    fn known(&self, request: &mut Request<'_>) -> Arc<Known> {
        let key = self.subacks.vacant_key() as u32;
        Arc::clone(
            request
                .known
                .get_or_insert_with(|| Arc::new(Known::new(self.me, key))),
        )
    }

    pub(super) fn tell_interest(
        &self,
        path: &str,
        wanted: bool,
        known: Option<&Arc<Known>>,
        port: &mut impl Port,
    ) {
        let path: Arc<str> = path.into();
        for reactor in self.others() {
            if let Some(known) = known {
                known.expect();
            }
            let mail = Mail::Interest {
                path: Arc::clone(&path),
                from: self.me,
                wanted,
                known: known.cloned(),
            };
            port.post(reactor, mail);
        }
    }

    /// This shard knows. The last one lets the SUBACK leave.
    pub(super) fn now_known(
        &mut self,
        known: Option<Arc<Known>>,
        now: Millis,
        port: &mut impl Port,
    ) {
        let Some(known) = known else { return };
        if !known.reached() {
            return;
        }
        if known.reactor == self.me {
            self.suback_ready(known.suback, now, port);
        } else {
            port.post(
                known.reactor,
                Mail::Known {
                    suback: known.suback,
                },
            );
        }
    }

    /// Every shard knows: the SUBACK leaves, unless the client has.
    pub(super) fn suback_ready(&mut self, key: u32, now: Millis, port: &mut impl Port) {
        if key == FENCE {
            self.loaded();
            return;
        }
        let pending = self.subacks.remove(key as usize);
        for path in pending.spreading {
            if let Some(waiting) = self.spreading.get_mut(&path) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.spreading.remove(&path);
                }
            }
        }
        if let Some(idx) = self.live(pending.session)
            && self.sessions[idx].conn() == Some(pending.conn)
        {
            self.send(idx, &pending.packet, port);
            let flags = &mut self.sessions[idx].flags;
            if flags.has(Flags::SUBSCRIBING) {
                flags.put(Flags::SUBSCRIBING, false);
                if !flags.has(Flags::PAUSED) {
                    port.pause(pending.conn, false);
                }
            }
            if !pending.retained.is_empty() {
                self.suback_left(idx);
            }
            self.want_retained(idx, pending.retained, now, port);
        }
    }

    /// An UNSUBSCRIBE from a client.
    pub(super) fn unsubscribe(
        &mut self,
        idx: SessionIdx,
        packet: &Unsubscribe<'_>,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let mut codes = Vec::with_capacity(packet.filters.len());
        let mut ended = Vec::new();
        for text in packet.filters.iter() {
            let code = match self.unsubscribe_one(idx, text, &mut ended, port) {
                Ok(true) => ReasonCode::SUCCESS,
                Ok(false) => ReasonCode::NO_SUBSCRIPTION_EXISTED,
                Err(reason) => reason,
            };
            codes.push(code.0);
        }
        let mut out = Vec::new();
        Unsuback::new(packet.packet_id, &codes).encode(self.sessions[idx].version(), &mut out);
        if !ended.is_empty() {
            let id = self.id_of(idx);
            self.keep
                .store
                .note(id, &ended)
                .map_err(|_| Fault::quota())?;
        }
        self.send_when_synced(idx, &out, port);
        Ok(())
    }

    /// The path of a client's filter, as the server has it.
    fn scoped_path<'a>(
        &self,
        idx: SessionIdx,
        filter: &Filter<'a>,
    ) -> Result<Cow<'a, str>, ReasonCode> {
        self.scope(idx)
            .name(filter.path)
            .filter(|path| filter.text_len() + path.len() - filter.path.len() <= MAX_TOPIC_BYTES)
            .ok_or(ReasonCode::TOPIC_FILTER_INVALID)
    }

    /// What one filter of an UNSUBSCRIBE does; `ended` is a durable session's record of it. False: there is no such subscription.
    fn unsubscribe_one(
        &mut self,
        idx: SessionIdx,
        text: &str,
        ended: &mut Vec<u8>,
        port: &mut impl Port,
    ) -> Result<bool, ReasonCode> {
        let filter = Filter::parse(text, self.mqtt().max_topic_levels)
            .map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)?;
        let path = self.scoped_path(idx, &filter)?;
        let filter = Filter {
            path: &path,
            ..filter
        };
        if !self.unsubscribe_from(idx, &filter, port) {
            return Ok(false);
        }
        if self.sessions[idx].is_durable() {
            if ended.is_empty() {
                durable::begin_unsubscribed(ended);
            }
            durable::put_filter(ended, &filter.text());
        }
        Ok(true)
    }

    pub(super) fn unsubscribe_from(
        &mut self,
        idx: SessionIdx,
        filter: &Filter<'_>,
        port: &mut impl Port,
    ) -> bool {
        if let Some(group) = filter.share {
            let key = GroupKey {
                group: group.into(),
                path: filter.path.into(),
            };
            let left = self.leave_group(idx, &key, port);
            if left {
                self.unsubscribed(idx, 1);
            }
            return left;
        }
        let Some(done) = self.index.unsubscribe(idx, filter.path) else {
            return false;
        };
        self.unsubscribed(idx, 1);
        if done.last_on_filter {
            if filter.wildcard {
                self.forget_interest(filter.path, port);
            } else {
                self.own.remove(done.hash);
            }
        }
        true
    }

    fn forget_interest(&mut self, path: &str, port: &mut impl Port) {
        self.routes.remove(path, self.me);
        self.tell_interest(path, false, None, port);
    }

    /// The session ends.
    pub(super) fn clear_subscriptions(&mut self, idx: SessionIdx, port: &mut impl Port) {
        let mut wildcards: Vec<Box<str>> = Vec::new();
        let mut count = 0;
        let own = &mut self.own;
        self.index.clear(idx, |ended| {
            count += 1;
            match (ended.last_on_filter, ended.wildcard) {
                (true, true) => wildcards.push(ended.path.into()),
                (true, false) => own.remove(ended.hash),
                (false, _) => {}
            }
        });
        self.unsubscribed(idx, count);
        for path in wildcards {
            self.forget_interest(&path, port);
        }
    }

    /// Whether the client may have another subscription, and its tenant.
    fn may_have_another(&mut self, idx: SessionIdx) -> bool {
        self.subscriptions_of(idx) < self.mqtt().max_subscriptions as usize
            && self.tenant_subscribes(idx)
    }

    fn subscriptions_of(&self, idx: SessionIdx) -> usize {
        let shared = self.sessions[idx]
            .extras()
            .map_or(0, |extras| extras.shared.len());
        self.index.count(idx) + shared
    }
}
