//! Connections and sessions end: DISCONNECT, loss, takeover, expiry; and the wills that follow (MQTT 5 sections 3.1.2.5, 3.14, 4.1).

use std::sync::Arc;

use super::port::{CloseCause, Port};
use super::{Fault, Shard, Verdict};
use crate::clock::{Millis, Tick};
use crate::ids::{ConnId, SessionIdx};
use crate::session::alias::Inbound;
use crate::session::{Flags, Presence, Will};
use crate::wire::{Disconnect, ReasonCode};

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
            if self.sessions[idx].expiry == 0 && expiry > 0 {
                // Section 3.14.2.2.2: a session that was to end with its connection can't be made to stay.
                return Err(Fault::new(ReasonCode::PROTOCOL_ERROR));
            }
            self.sessions[idx].expiry = expiry.min(self.mqtt().max_session_expiry);
        }
        // Section 3.14.4: only a normal disconnection takes the will back.
        let with_will = disconnect.reason != ReasonCode::SUCCESS;
        if let Some(conn) = self.sessions[idx].conn() {
            port.close(conn, CloseCause::Disconnected);
            self.detach(idx, with_will, now, port);
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
            self.detach(idx, true, now, port);
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
        self.detach(idx, true, now, port);
    }

    /// The session has no connection any more. Ends it if it does not outlive one.
    pub(super) fn detach(
        &mut self,
        idx: SessionIdx,
        with_will: bool,
        now: Millis,
        port: &mut impl Port,
    ) {
        self.counters().sessions_online.sub(1);
        self.cancel_queries(idx);
        let session = &mut self.sessions[idx];
        let until = session.end_from(now);
        session.presence = Presence::Offline { until };
        session.flags = Flags::default();
        if let Some(extras) = &mut session.extras {
            extras.aliases_in = Inbound::default();
            extras.aliases_out = None;
            if !with_will {
                extras.will = None;
            }
        }
        if session.expiry == 0 {
            self.end(idx, now, port);
            return;
        }
        let extras = session.extras.as_deref_mut();
        let delay = extras
            .as_ref()
            .and_then(|extras| extras.will.as_ref())
            .map(|will| will.delay);
        match delay {
            Some(0) => {
                let will = extras.and_then(|extras| extras.will.take());
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
        self.rule_on_held(idx, port);
        self.sessions[idx].tidy();
        self.schedule(idx);
    }

    fn schedule(&mut self, idx: SessionIdx) {
        match self.sessions[idx].next_due() {
            Some(due) if due < Tick(u32::MAX) => {
                self.wheel.schedule(&mut self.sessions, idx.0, due);
            }
            _ => self.wheel.cancel(&mut self.sessions, idx.0),
        }
    }

    /// The client is back: nothing ends, and a will whose delay still runs is not published.
    pub(super) fn wake(&mut self, idx: SessionIdx) {
        self.wheel.cancel(&mut self.sessions, idx.0);
        if let Some(extras) = &mut self.sessions[idx].extras {
            extras.will = None;
            extras.will_due = None;
        }
    }

    /// The wheel says that something of an offline session is due.
    pub(super) fn session_due(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let session = &mut self.sessions[idx];
        let Presence::Offline { until } = session.presence else {
            self.check_stall(idx, now, port);
            return;
        };
        if until <= now.tick() {
            self.end(idx, now, port);
            return;
        }
        let mut will = None;
        if let Some(extras) = &mut session.extras
            && extras.will_due.is_some_and(|due| due <= now.tick())
        {
            extras.will_due = None;
            will = extras.will.take();
        }
        session.tidy();
        self.publish_will(will, now, port);
        self.schedule(idx);
    }

    /// The session ends, and all that is its: its will is published at the latest now, its shared messages go to other members.
    pub(super) fn end(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        self.wheel.cancel(&mut self.sessions, idx.0);
        self.cancel_queries(idx);
        self.leave_groups(idx, port);
        self.clear_subscriptions(idx, port);
        let hash = self.shared.hasher.hash(self.client_id(idx));
        let (ids, sessions, hasher) = (&self.ids, &self.sessions.0, &self.shared.hasher);
        self.by_id.remove(hash, idx.0, |at| {
            hasher.hash(ids.text(sessions[at as usize].client_id))
        });
        let session = self.sessions.0.remove(idx.index());
        self.ids.remove(session.client_id);
        self.give_session_place();
        self.counters().sessions.sub(1);
        if let Some(flow) = session.flow {
            self.counters().queued.sub(flow.queued() as u64);
            for (delivery, was_held) in flow.into_undelivered() {
                if let Some(key) = &delivery.group {
                    self.regroup(&delivery.message, key, now, port);
                }
                if was_held {
                    self.settle(&delivery.message, port);
                }
            }
        }
        let will = session.extras.and_then(|mut extras| extras.will.take());
        self.publish_will(will, now, port);
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
