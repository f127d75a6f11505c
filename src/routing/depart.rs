//! Connections and sessions end: DISCONNECT, loss, takeover, expiry; and the wills that follow (MQTT 5 sections 3.1.2.5, 3.14, 4.1).

use std::sync::Arc;

use slab::Slab;

use super::port::{CloseCause, Port};
use super::{Fault, Shard, Timer, Verdict};
use crate::clock::{Millis, Tick};
use crate::ids::{ConnId, SessionIdx};
use crate::session::alias::Inbound;
use crate::session::flow::Delivery;
use crate::session::{Session, Will};
use crate::wheel::Link;
use crate::wire::{Disconnect, ReasonCode};

/// What becomes of the will of a connection that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastWill {
    /// It is void.
    Void,
    /// It is published when its delay is over, or the session.
    Due,
    /// The same, but not before the server has started again (section 3.1.2.5 allows that).
    AfterStart,
}

impl Shard {
    /// The client says good-bye.
    pub(super) fn disconnect(
        &mut self,
        idx: SessionIdx,
        disconnect: &Disconnect<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<Verdict, Fault> {
        if let Some(expiry) = disconnect.session_expiry {
            if self.sessions[idx].expiry() == Some(0) && expiry > 0 {
                // Section 3.14.2.2.2: a session that was to end with its connection can't be made to stay.
                return Err(Fault::new(ReasonCode::PROTOCOL_ERROR));
            }
            let expiry = expiry.min(self.mqtt().max_session_expiry);
            let session = &mut self.sessions[idx];
            if let Some(conn) = session.conn() {
                session.go_online(conn, expiry);
            }
        }
        // Section 3.14.4: only a normal disconnection takes the will back.
        let with_will = disconnect.reason != ReasonCode::SUCCESS;
        if let Some(conn) = self.sessions[idx].conn() {
            port.close(conn, CloseCause::Disconnected);
            let last = if with_will {
                LastWill::Due
            } else {
                LastWill::Void
            };
            self.detach(idx, last, now, port);
        }
        Ok(Verdict::Closed)
    }

    /// The connection is gone without DISCONNECT: closed or reset by the peer, silent for too long, or deaf.
    ///
    /// For those that the server ends itself the client is told why, should it still listen.
    pub fn lost(
        &mut self,
        idx: SessionIdx,
        conn: ConnId,
        cause: CloseCause,
        now: Millis,
        port: &mut impl Port,
    ) {
        if self
            .sessions
            .0
            .get(idx.index())
            .is_some_and(|session| session.conn() == Some(conn))
        {
            if cause == CloseCause::KeepAlive {
                self.send_disconnect(idx, ReasonCode::KEEP_ALIVE_TIMEOUT, port);
            }
            self.detach(idx, LastWill::Due, now, port);
        }
    }

    /// Another connection wants the session: the old one is told and closed. A session that ends with its connection ends now; the will
    /// is published, unless it has a delay and the session goes on (section 3.1.2.5).
    pub(super) fn take_over(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let Some(conn) = self.sessions[idx].conn() else {
            return;
        };
        self.counters().takeovers.add(1);
        self.send_disconnect(idx, ReasonCode::SESSION_TAKEN_OVER, port);
        port.close(conn, CloseCause::TakenOver);
        self.detach(idx, LastWill::Due, now, port);
    }

    /// The session has no connection any more. Ends it if it does not outlive one.
    pub(super) fn detach(
        &mut self,
        idx: SessionIdx,
        last: LastWill,
        now: Millis,
        port: &mut impl Port,
    ) {
        self.counters().sessions_online.sub(1);
        self.tenant_detached(idx);
        self.cancel_queries(idx);
        let session = &mut self.sessions[idx];
        let expiry = session.expiry().unwrap_or(0);
        session.go_offline(Session::end_from(expiry, now));
        session.flags.clear();
        if let Some(extras) = session.some_extras_mut() {
            extras.aliases_in = Inbound::default();
            extras.aliases_out = None;
            extras.max_packet = None;
            if last == LastWill::Void {
                extras.will = None;
            }
        }
        if expiry == 0 {
            self.end(idx, now, port);
            return;
        }
        let delay = session
            .extras()
            .and_then(|extras| extras.will.as_ref())
            .map(|will| will.delay);
        match delay {
            Some(0) if last == LastWill::Due => {
                let will = self.take_will(idx);
                self.publish_will(will, now, port);
            }
            Some(delay) => {
                let due = now.tick().after_millis(u64::from(delay) * 1000);
                self.sessions[idx].extras_mut().will_due = Some(due);
            }
            None => {}
        }
        self.group_members_offline(idx, port);
        if let Some(flow) = &mut self.sessions[idx].flow {
            flow.receipts.disconnected();
        }
        self.rule_on_held(idx, now, port);
        if self.sessions[idx].is_durable() {
            self.record_offline(idx);
            self.keep.store.rest(idx);
        }
        self.sessions[idx].tidy();
        self.schedule(idx);
    }

    /// Sets the timer of a session without a connection.
    pub(super) fn schedule(&mut self, idx: SessionIdx) {
        match self.sessions[idx].next_due() {
            Some(due) if due < Tick(u32::MAX) => {
                let timer = self.sessions[idx].timer().unwrap_or_else(|| {
                    let timer = self.timers.0.insert(Timer {
                        link: Link::default(),
                        session: idx,
                    });
                    self.sessions[idx].set_timer(Some(timer as u32));
                    timer as u32
                });
                self.wheel.schedule(&mut self.timers, timer, due);
            }
            _ => self.forget_timer(idx),
        }
    }

    pub(super) fn forget_timer(&mut self, idx: SessionIdx) {
        if let Some(timer) = self.sessions[idx].timer() {
            self.sessions[idx].set_timer(None);
            self.wheel.cancel(&mut self.timers, timer);
            self.timers.0.remove(timer as usize);
            if self.timers.0.is_empty() {
                self.timers.0 = Slab::new();
            }
        }
    }

    /// The client is back: nothing ends, and a will whose delay still runs is not published.
    pub(super) fn wake(&mut self, idx: SessionIdx) {
        self.forget_timer(idx);
        if let Some(extras) = self.sessions[idx].some_extras_mut() {
            extras.will = None;
            extras.will_due = None;
        }
    }

    /// The wheel says that something of an offline session is due.
    pub(super) fn session_due(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let holds = self.keep.restoring.holds;
        let session = &mut self.sessions[idx];
        let Some(until) = session.until() else {
            return;
        };
        if holds {
            // Not all subscriptions are loaded: a will would have to wait, and could be lost meanwhile.
            self.schedule(idx);
            return;
        }
        if until <= now.tick() {
            self.end(idx, now, port);
            return;
        }
        self.publish_due_will(idx, now, port);
        self.schedule(idx);
    }

    /// The will of an absent session, if its time has come.
    pub(super) fn publish_due_will(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let session = &mut self.sessions[idx];
        if let Some(extras) = session.some_extras_mut()
            && extras.will_due.is_some_and(|due| due <= now.tick())
        {
            extras.will_due = None;
            let will = self.take_will(idx);
            self.sessions[idx].tidy();
            self.publish_will(will, now, port);
            self.record_will_published(idx);
        }
    }

    /// The session ends, and all that is its: its will is published at the latest now, its shared messages go to other members.
    pub(super) fn end(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        self.forget_timer(idx);
        self.cancel_queries(idx);
        let was_pending = self.keep.restoring.take_pending(idx);
        let id = self.id_of(idx);
        let extras = self.sessions[idx].extras();
        // Of one that is not loaded it is not known whether it is in a group.
        let is_member = was_pending || extras.is_some_and(|extras| !extras.shared.is_empty());
        let is_durable = self.sessions[idx].is_durable();
        let leaves = is_durable && is_member && self.keep.store.queue(idx).is_some();
        self.leave_groups(idx, port);
        self.clear_subscriptions(idx, port);
        let hash = self.shared.hasher.hash(self.client_id(idx));
        let (ids, sessions, hasher) = (&self.ids, &self.sessions.0, &self.shared.hasher);
        self.by_id.remove(hash, idx.0, |at| {
            hasher.hash_bytes(ids.get(sessions[at as usize].client_id))
        });
        let will = self.take_will(idx);
        self.passes.remove(idx);
        self.give_session_place();
        self.counters().sessions.sub(1);
        let flow = self.sessions[idx].flow.take();
        if leaves {
            self.sessions[idx].go_offline(Tick(u32::MAX));
            self.begin_leaving(idx);
        } else {
            if is_durable {
                self.forget_stored(id);
            }
            let session = self.sessions.0.remove(idx.index());
            self.ids.remove(session.client_id);
        }
        if is_durable {
            self.ended(hash);
        }
        if let Some(flow) = flow {
            for (_, token) in flow.receipts.incoming() {
                token.inspect(|token| self.shared.doubts.close(*token));
            }
            self.counters().queued.sub(flow.queued() as u64);
            for (delivery, is_held) in flow.into_undelivered() {
                self.hand_on(&delivery, is_held, now, port);
            }
        }
        self.publish_will(will, now, port);
    }

    /// What a session that has ended had in memory goes on, if it came through a group. One for which its publisher waits is acknowledged when the
    /// other member has it; of another the publisher has been told.
    fn hand_on(&mut self, delivery: &Delivery, is_held: bool, now: Millis, port: &mut impl Port) {
        if is_held {
            if let Some(key) = &delivery.group {
                self.pass_on(&delivery.message, key, now, port);
            }
            self.settle(&delivery.message, port);
        } else if let Some(key) = &delivery.group {
            let mut message = delivery.message.without_publisher();
            // Its publisher may not have been told, and send it again after a crash.
            message.token = delivery.message.token;
            let message = Arc::new(message);
            self.pass_on(&message, key, now, port);
            self.settle(&message, port);
        }
    }

    fn publish_will(&mut self, will: Option<Will>, now: Millis, port: &mut impl Port) {
        let Some(will) = will else { return };
        self.counters().wills.add(1);
        let mut message = will.message;
        message.expires = will.expiry.map(|secs| now.plus_secs(u64::from(secs)));
        let message = Arc::new(message);
        self.route(&message, now, port);
        self.settle(&message, port);
    }
}
