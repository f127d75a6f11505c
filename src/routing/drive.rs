//! What drives a shard: packets, mail, time; and the end of a connection that breaks the protocol.

use super::depart::LastWill;
use super::mail::Mail;
use super::port::{CloseCause, Port};
use super::{Fault, Shard, Verdict};
use crate::clock::Millis;
use crate::ids::SessionIdx;
use crate::limits;
use crate::wire::{
    self, Ack, Disconnect, Frame, Packet, PacketType, Publish, ReasonCode, WireError,
};

impl Shard {
    /// Handles one packet of an attached client.
    pub fn packet(
        &mut self,
        idx: SessionIdx,
        frame: &Frame<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Verdict {
        if !self.doomed.is_empty() {
            let session = self.id_of(idx);
            self.expel_doomed(now, port);
            if self.live(session).is_none() || self.sessions[idx].conn().is_none() {
                return Verdict::Closed;
            }
        }
        self.counters().packets_in.add(1);
        let version = self.sessions[idx].version();
        let done = match frame.packet_type() {
            // The most frequent: past the large enum of all packets.
            Some(PacketType::Publish) => match Publish::decode(frame, version) {
                Ok(publish) => self.publish(idx, &publish, now, port),
                Err(error) => Err(error.into()),
            },
            Some(PacketType::Puback) if frame.flags() == 0 => {
                match Ack::decode(PacketType::Puback, frame.body, version) {
                    Ok(ack) => self.puback(idx, &ack, now, port),
                    Err(error) => Err(error.into()),
                }
            }
            Some(PacketType::Pingreq) if frame.flags() == 0 && frame.body.is_empty() => {
                self.send(idx, &PINGRESP, port);
                Ok(())
            }
            // A second one, whatever it says (MQTT-3.1.0-2): its own errors have codes that a DISCONNECT doesn't know.
            Some(PacketType::Connect) => Err(Fault::new(ReasonCode::PROTOCOL_ERROR)),
            _ => match wire::decode(frame, version) {
                Ok(packet) => match self.control(idx, &packet, now, port) {
                    Ok(Verdict::Continue) => Ok(()),
                    Ok(Verdict::Closed) => return Verdict::Closed,
                    Err(fault) => Err(fault),
                },
                Err(error) => Err(error.into()),
            },
        };
        match done {
            Ok(()) => Verdict::Continue,
            Err(fault) => {
                self.expel(idx, fault, now, port);
                Verdict::Closed
            }
        }
    }

    /// Any packet but those that [`Shard::packet`] handles itself.
    fn control(
        &mut self,
        idx: SessionIdx,
        packet: &Packet<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<Verdict, Fault> {
        match packet {
            Packet::Pubrec(ack) => self.pubrec(idx, ack, now, port)?,
            Packet::Pubrel(ack) => self.pubrel(idx, ack, port)?,
            Packet::Pubcomp(ack) => self.pubcomp(idx, ack, now, port)?,
            Packet::Subscribe(subscribe) => self.subscribe(idx, subscribe, now, port)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(idx, unsubscribe, port)?,
            Packet::Disconnect(disconnect) => return self.disconnect(idx, disconnect, now, port),
            // AUTH without a method in CONNECT, packets that only a server sends, and those that don't come here.
            Packet::Connect(_)
            | Packet::Pingreq
            | Packet::Puback(_)
            | Packet::Auth(_)
            | Packet::Connack(_)
            | Packet::Publish(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => return Err(Fault::new(ReasonCode::PROTOCOL_ERROR)),
        }
        Ok(Verdict::Continue)
    }

    /// The reactor found bytes that are no packet.
    pub fn fault(&mut self, idx: SessionIdx, error: WireError, now: Millis, port: &mut impl Port) {
        self.expel(idx, error.into(), now, port);
    }

    /// Tells the client why (MQTT 5) and closes; the will is published.
    pub(super) fn expel(
        &mut self,
        idx: SessionIdx,
        fault: Fault,
        now: Millis,
        port: &mut impl Port,
    ) {
        self.counters().protocol_errors.add(1);
        if let Some(conn) = self.sessions[idx].conn() {
            self.send_disconnect(idx, fault.reason, port);
            port.close(conn, fault.cause);
            self.detach(idx, LastWill::Due, now, port);
        }
    }

    /// Expels a client soon: whoever calls may be in the middle of something with this very session, and one expulsion may lead to the
    /// next. It gets no acknowledgement until then.
    pub(super) fn doom(&mut self, idx: SessionIdx, fault: Fault) {
        if let Some(conn) = self.sessions[idx].conn() {
            self.sessions[idx].flow_mut().receipts.disconnected();
            self.doomed.push((self.id_of(idx), conn, fault));
        }
    }

    pub(super) fn expel_doomed(&mut self, now: Millis, port: &mut impl Port) {
        if self.doomed.is_empty() {
            return;
        }
        for (session, conn, fault) in std::mem::take(&mut self.doomed) {
            if let Some(idx) = self.live(session)
                && self.sessions[idx].conn() == Some(conn)
            {
                self.expel(idx, fault, now, port);
            }
        }
    }

    /// Queues a packet that is not a PUBLISH.
    ///
    /// One that is larger than the client takes must not be sent (section 3.1.2.11.4). A PUBLISH is left out then; these are not the
    /// server's to leave out, so the connection ends.
    pub(super) fn send(&mut self, idx: SessionIdx, packet: &[u8], port: &mut impl Port) {
        let session = &self.sessions[idx];
        let Some(conn) = session.conn() else { return };
        if packet.len() > session.max_packet() {
            self.doom(idx, Fault::new(ReasonCode::PACKET_TOO_LARGE));
            return;
        }
        self.counters().packets_out.add(1);
        port.send(conn, packet);
    }

    /// DISCONNECT is the server's to send in MQTT 5 alone (section 3.14).
    pub(super) fn send_disconnect(
        &mut self,
        idx: SessionIdx,
        reason: ReasonCode,
        port: &mut impl Port,
    ) {
        let session = &self.sessions[idx];
        if !session.is_v5() {
            return;
        }
        let packet = Disconnect {
            reason,
            reason_string: session.wants_reasons().then(|| reason.name()),
            ..Disconnect::default()
        };
        let mut out = std::mem::take(&mut self.scratch.packet);
        out.clear();
        packet.encode(session.version(), &mut out);
        if out.len() <= session.max_packet() {
            self.send(idx, &out, port);
        }
        self.scratch.packet = out;
    }

    /// A letter from another shard.
    pub fn mail(&mut self, mail: Mail, now: Millis, port: &mut impl Port) {
        match mail {
            Mail::Publish(message) => {
                self.expect_message(&message);
                self.fan_out(&message, now, port);
            }
            Mail::Inbox(message) => self.inbox(&message, now, port),
            Mail::Group { message, key, hops } => {
                self.group_message(&message, &key, hops, now, port);
            }
            Mail::Settled {
                session,
                receipt,
                outcome,
            } => self.settled(session, receipt, outcome, port),
            Mail::Interest {
                path,
                from,
                wanted,
                known,
            } => {
                if wanted {
                    self.routes.add(&path, from);
                } else {
                    self.routes.remove(&path, from);
                }
                self.now_known(known, now, port);
            }
            Mail::Members {
                key,
                from,
                online,
                offline,
                known,
            } => {
                self.routes.set_group(&key, from, online, offline);
                self.now_known(known, now, port);
            }
            Mail::Fence { known } => self.now_known(Some(known), now, port),
            Mail::Known { suback } => self.suback_ready(suback, now, port),
            Mail::Retain(message) => self.retain(&message, port),
            Mail::RetainedQuery {
                path,
                after,
                from,
                query,
            } => {
                let (messages, resume) =
                    self.retained
                        .part(&path, after.as_deref(), self.slices.retained, now);
                port.post(
                    from,
                    Mail::RetainedPart {
                        query,
                        messages,
                        resume,
                    },
                );
            }
            Mail::RetainedPart {
                query,
                messages,
                resume,
            } => self.retained_part(query, &messages, resume, now, port),
        }
    }

    /// The connection's unwritten bytes fell under half of their limit: its queue goes on.
    pub fn drained(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        self.pump(idx, now, port);
    }

    /// Once a tick: sessions end, wills become due, counts are told.
    pub fn tick(&mut self, now: Millis, port: &mut impl Port) {
        self.frames.forget();
        self.end_due(now, port);
        self.check_stalls(now, port);
        self.tend_store(now, port);
        self.tell_members(port);
        self.sweep_retained(now);
        self.publish_sys(now, port);
    }

    /// A slice of the offline sessions whose time has come, or their will's. What is left of them is work for the next turns.
    fn end_due(&mut self, now: Millis, port: &mut impl Port) {
        let mut due = std::mem::take(&mut self.scratch.due);
        due.clear();
        self.more_due = self.wheel.expire(
            &mut self.timers,
            now.tick(),
            limits::SESSION_TIMERS,
            &mut due,
        );
        for at in due.drain(..) {
            // One that is due may end another's session, and its timer with it.
            if let Some(timer) = self.timers.0.get(at as usize) {
                self.session_due(timer.session, now, port);
            }
        }
        self.scratch.due = due;
    }

    /// One slice of the work that is too long for one turn. True: there is more.
    pub fn work(&mut self, now: Millis, port: &mut impl Port) -> bool {
        self.begin();
        self.expel_doomed(now, port);
        let asking = self.ask_next(now, port);
        let fanning_out = self.fan_out_slice(now, port);
        let synced = self.go_on_synced(now, port);
        let restoring = self.has_restoring() && self.restore_slice(now, port);
        let leaving = self.has_leaving() && self.leaving_slice(now, port);
        let cleaning = self.clean_store();
        let rechecking = self.recheck(now, port);
        if self.more_due {
            self.end_due(now, port);
        }
        // What waited for the sessions to be loaded may be for many, and has only begun.
        let begun = !self.fanouts.is_empty();
        let more = fanning_out || begun || asking || synced || restoring || leaving || cleaning;
        more || rechecking || self.more_due || !self.doomed.is_empty()
    }

    /// The reactor begins to handle mail, or packets, for which [`Shard::is_spent`] counts.
    pub fn begin(&mut self) {
        self.delivered = 0;
    }

    /// True if so much was delivered since [`Shard::begin`] that what else there is should wait for the next turn.
    pub fn is_spent(&self) -> bool {
        self.delivered >= limits::DELIVERIES_PER_TURN
    }

    /// True if [`Shard::work`] has something to do.
    pub fn has_work(&self) -> bool {
        !self.fanouts.is_empty()
            || !self.asking.is_empty()
            || !self.doomed.is_empty()
            || self.keep.cleaning
            || self.more_due
            || self.has_recheck()
            || self.has_synced()
            || self.has_restoring()
            || self.has_leaving()
    }

    /// The server ends: DISCONNECT 0x8B, the connection is closed. The will of a session that is kept is published after the next start, others are not.
    pub fn shutdown(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        if let Some(conn) = self.sessions[idx].conn() {
            self.send_disconnect(idx, ReasonCode::SERVER_SHUTTING_DOWN, port);
            port.close(conn, CloseCause::ServerShutdown);
            let last = if self.sessions[idx].is_durable() {
                LastWill::AfterStart
            } else {
                LastWill::Void
            };
            self.detach(idx, last, now, port);
        }
    }
}

const PINGRESP: [u8; 2] = [0xD0, 0];
