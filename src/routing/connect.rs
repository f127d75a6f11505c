//! CONNECT: a session begins or goes on (MQTT 5 section 3.1, 4.1).

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;

use super::port::{CloseCause, Port};
use super::waits::Wait;
use super::{Attached, Shard, greet};
use crate::access::Identity;
use crate::clock::Millis;
use crate::ids::{ConnId, SessionIdx};
use crate::session::alias::Outbound;
use crate::session::message::Message;
use crate::session::{Flags, Session, Will};
use crate::topic::hash::TopicHash;
use crate::topic::scope::{self, Scope};
use crate::topic::validate_name;
use crate::wire::{Connack, Connect, ReasonCode, Version};

impl Shard {
    /// Takes a client in. None: it was refused, CONNACK and [`Port::close`] have been called.
    pub fn connect(
        &mut self,
        conn: ConnId,
        connect: &Connect<'_>,
        identity: &Identity,
        now: Millis,
        port: &mut impl Port,
    ) -> Option<Attached> {
        self.counters().packets_in.add(1);
        let prefix = scope::prefix(&identity.tenant);
        let scope = Scope::of(&prefix);
        if !scope.is_default() {
            self.shared.tenants.store(true, Relaxed);
        }
        let assigned = connect
            .client_id
            .is_empty()
            .then(|| self.assign_client_id(scope));
        let bare_id = assigned.as_deref().unwrap_or(connect.client_id);
        let acceptable = self.acceptable(connect, bare_id, identity, scope);
        let named = scope
            .name(bare_id)
            .ok_or(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
        let (client_id, will_topic) = match (named, acceptable) {
            (Ok(client_id), Ok(will_topic)) => (client_id, will_topic),
            (Err(reason), _) | (_, Err(reason)) => {
                return self.refuse(conn, connect.version, reason, port);
            }
        };
        if self.is_out(bare_id, identity) {
            // Revoked since it was let in where it was accepted.
            return self.refuse(conn, connect.version, ReasonCode::BANNED, port);
        }
        let hash = self.shared.hasher.hash(&client_id);
        let known = self.find_by(hash, &client_id);
        if known.is_some_and(|idx| self.is_anothers(idx, identity)) {
            return self.refuse(conn, connect.version, ReasonCode::NOT_AUTHORIZED, port);
        }
        let replaces =
            !scope.is_default() && known.is_some_and(|idx| self.sessions[idx].conn().is_some());
        if let Err(reason) = self.tenant_enters(scope, replaces, now) {
            return self.refuse(conn, connect.version, reason, port);
        }
        let goes_on =
            known.is_some_and(|idx| self.goes_on(idx, &client_id, connect.clean_start, now, port));
        let opened = match known {
            Some(idx) if goes_on => Some(idx),
            _ => self.begin_session(hash, &client_id),
        };
        let (Some(idx), present) = (opened, goes_on) else {
            self.tenant_left(scope);
            return self.refuse(conn, connect.version, ReasonCode::QUOTA_EXCEEDED, port);
        };
        self.passes.put(idx, identity);
        self.bind(idx, conn, connect, &will_topic);
        if present {
            self.end_forbidden(idx, port);
        }
        if self.sessions[idx].is_durable() {
            self.record_online(idx);
        } else if self.sessions[idx].expiry() != Some(0) && self.record_new(idx).is_err() {
            self.unbind(idx, now, port);
            return self.refuse(conn, connect.version, ReasonCode::QUOTA_EXCEEDED, port);
        }
        self.connack(idx, hash, connect, present, assigned.as_deref(), port);
        if present {
            self.group_members_online(idx, port);
            if self.sessions[idx].is_durable() {
                self.stored_reconnected(idx);
            } else if let Some(flow) = &mut self.sessions[idx].flow {
                flow.reconnected();
            }
            self.pump(idx, now, port);
        }
        Some(Attached {
            session: idx,
            keep_alive: self.keep_alive(connect),
        })
    }

    fn refuse(
        &mut self,
        conn: ConnId,
        version: Version,
        reason: ReasonCode,
        port: &mut impl Port,
    ) -> Option<Attached> {
        self.counters().connects_refused.add(1);
        // MQTT 3.1.1 has no code for a will that is malformed, and wants a close without CONNACK (MQTT-3.1.4-1).
        if version == Version::V5 || reason != ReasonCode::TOPIC_NAME_INVALID {
            let reply = greet::refusal(version, reason);
            self.counters().packets_out.add(1);
            port.send(conn, &reply);
        }
        port.close(conn, CloseCause::Refused);
        None
    }

    /// Whether the server can do what is asked; the topic of the will, as the server has it.
    fn acceptable<'a>(
        &self,
        connect: &Connect<'a>,
        client_id: &str,
        identity: &Identity,
        scope: Scope<'_>,
    ) -> Result<Cow<'a, str>, ReasonCode> {
        if connect.authentication_method.is_some() {
            // Section 4.12: a method that the server doesn't know.
            return Err(ReasonCode::BAD_AUTHENTICATION_METHOD);
        }
        let nameless_may_not_stay = connect.client_id.is_empty()
            && match connect.version {
                Version::V31 => true,
                // 3.1.1 section 3.1.3.1: no session could be found again under a name that the client isn't told.
                Version::V311 => !connect.clean_start,
                Version::V5 => false,
            };
        if nameless_may_not_stay {
            return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
        }
        let Some(will) = &connect.will else {
            return Ok(Cow::Borrowed(""));
        };
        validate_name(will.topic, self.mqtt().max_topic_levels)
            .map_err(|_| ReasonCode::TOPIC_NAME_INVALID)?;
        if super::publish::is_reserved(will.topic)
            || !self.may_will(client_id, identity, will.topic)
        {
            return Err(ReasonCode::NOT_AUTHORIZED);
        }
        if !self.may_be_as_large(scope, will.payload.len()) {
            return Err(ReasonCode::PACKET_TOO_LARGE);
        }
        scope.name(will.topic).ok_or(ReasonCode::TOPIC_NAME_INVALID)
    }

    /// An identifier whose home is here.
    fn assign_client_id(&mut self, scope: Scope<'_>) -> String {
        loop {
            let id = format!("sw-{:016x}", self.random());
            let named = scope.name(&id).unwrap_or_default();
            if greet::home(&self.shared.hasher, &named, self.reactors()) == self.me
                && self.find(&named).is_none()
            {
                return id;
            }
        }
    }

    /// Takes the client's session over. True: it goes on (Session Present). False: it has ended.
    fn goes_on(
        &mut self,
        idx: SessionIdx,
        client_id: &str,
        clean_start: bool,
        now: Millis,
        port: &mut impl Port,
    ) -> bool {
        self.take_over(idx, now, port);
        // A session with expiry 0 ended with the connection that was taken over.
        if self.find(client_id) != Some(idx) {
            return false;
        }
        // Its timer would find the end of an expired one a moment later.
        if clean_start || Self::has_ended(&self.sessions[idx], now) {
            self.end(idx, now, port);
            return false;
        }
        self.load(idx, port);
        self.publish_due_will(idx, now, port);
        self.wake(idx);
        true
    }

    /// Makes a session for a client that has none. None: there is no place for another one.
    fn begin_session(&mut self, hash: TopicHash, client_id: &str) -> Option<SessionIdx> {
        if !self.take_session_place() {
            return None;
        }
        let text = self.ids.insert(client_id.as_bytes());
        let serial = self.next_serial();
        let at = self.sessions.insert(Session::new(text, serial));
        let (ids, sessions, hasher) = (&self.ids, &self.sessions.0, &self.shared.hasher);
        self.by_id.insert(
            hash,
            at as u32,
            |at| ids.expect(sessions[at as usize].client_id),
            |at| hasher.hash_bytes(ids.get(sessions[at as usize].client_id)),
        );
        self.counters().sessions.add(1);
        Some(SessionIdx(at as u32))
    }

    /// They count up; 0 is left out.
    fn next_serial(&mut self) -> NonZeroU32 {
        self.serial = self.serial.wrapping_add(1).max(1);
        NonZeroU32::new(self.serial).expect("at least 1")
    }

    /// The new connection is the session's.
    fn bind(&mut self, idx: SessionIdx, conn: ConnId, connect: &Connect<'_>, will_topic: &str) {
        let mqtt = &self.shared.mqtt;
        let will = connect.will.as_ref().map(|will| Will {
            message: Message::from_will(will, will_topic, self.shared.hasher.hash(will_topic)),
            expiry: will.properties.message_expiry,
            delay: will.delay,
        });
        let expiry = match connect.version {
            Version::V5 => connect.session_expiry.min(mqtt.max_session_expiry),
            _ if connect.clean_start => 0,
            _ => mqtt.max_session_expiry,
        };
        let aliases = connect.topic_alias_maximum.min(mqtt.topic_alias_maximum);
        let session = &mut self.sessions[idx];
        session.go_online(conn, expiry);
        session.set_version(connect.version);
        session.set_window(connect.receive_maximum, mqtt.max_inflight);
        session.flags.clear();
        session.flags.put(
            Flags::PROBLEM_INFORMATION,
            connect.request_problem_information,
        );
        let max_packet = connect.maximum_packet_size;
        if let Some(extras) = session.some_extras_mut() {
            extras.max_packet = None;
        }
        if will.is_some() || aliases > 0 || max_packet.is_some() {
            let extras = session.extras_mut();
            extras.max_packet = max_packet;
            extras.will = will;
            extras.aliases_out = (aliases > 0).then(|| Outbound::new(aliases));
        }
        self.counters().sessions_online.add(1);
    }

    /// The store has no room for a new session: there is none.
    fn unbind(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        self.counters().sessions_online.sub(1);
        self.tenant_detached(idx);
        let session = &mut self.sessions[idx];
        session.go_offline(now.tick());
        if let Some(extras) = session.some_extras_mut() {
            extras.will = None;
        }
        self.end(idx, now, port);
    }

    /// Section 3.1.2.10. An MQTT 3 client can't be told of another keep alive than its own, so its own holds.
    fn keep_alive(&self, connect: &Connect<'_>) -> u16 {
        let imposed = self.mqtt().server_keep_alive;
        let imposes = connect.version == Version::V5
            && imposed > 0
            && (connect.keep_alive == 0 || connect.keep_alive > imposed);
        if imposes { imposed } else { connect.keep_alive }
    }

    fn connack(
        &mut self,
        idx: SessionIdx,
        client: TopicHash,
        connect: &Connect<'_>,
        present: bool,
        assigned: Option<&str>,
        port: &mut impl Port,
    ) {
        let mqtt = &self.shared.mqtt;
        let session = &self.sessions[idx];
        let expiry = session.expiry().expect("it has just got a connection");
        let keep_alive = self.keep_alive(connect);
        let connack = Connack {
            session_present: present,
            session_expiry: (expiry != connect.session_expiry).then_some(expiry),
            receive_maximum: Some(mqtt.receive_maximum),
            maximum_packet_size: Some(mqtt.max_packet_size),
            assigned_client_id: assigned,
            topic_alias_maximum: mqtt.topic_alias_maximum,
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            ..Connack::default()
        };
        let mut out = std::mem::take(&mut self.scratch.packet);
        out.clear();
        connack.encode(connect.version, &mut out);
        let waits = session.is_durable() && self.must_queue() || self.is_unsettled(client);
        match session.conn() {
            Some(conn) if waits => {
                // Nothing that it sends is read before it knows.
                let id = self.id_of(idx);
                self.sessions[idx].flags.put(Flags::SUBSCRIBING, true);
                port.pause(conn, true);
                self.await_sync(Wait::Connack(client, id, conn, (&*out).into()));
            }
            _ => self.send(idx, &out, port),
        }
        self.scratch.packet = out;
    }
}
