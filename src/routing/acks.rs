//! Acknowledgements, both ways: PUBACK, PUBREC, PUBREL, PUBCOMP (MQTT 5 sections 3.4 to 3.7, 4.3).

use super::port::Port;
use super::{Fault, Shard};
use crate::clock::Millis;
use crate::ids::SessionIdx;
use crate::session::Flags;
use crate::session::durable::Note;
use crate::session::flow::Acked;
use crate::session::message::Outcome;
use crate::wire::{Ack, PacketId, PacketType, Qos, ReasonCode, Version, ack};

impl Shard {
    // ---- we acknowledge what a client published ----

    /// Tells a publisher what became of its message.
    ///
    /// One that some session or the retained messages could not take is refused with 0x97; MQTT 3 has no way to say so but to close
    /// without an acknowledgement.
    pub(super) fn acknowledge(
        &mut self,
        idx: SessionIdx,
        id: PacketId,
        qos: Qos,
        outcome: Outcome,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let reason = match outcome {
            Outcome::Refused if !self.sessions[idx].is_v5() => return Err(Fault::quota()),
            Outcome::Refused => ReasonCode::QUOTA_EXCEEDED,
            Outcome::Forbidden => ReasonCode::NOT_AUTHORIZED,
            Outcome::Unmatched => ReasonCode::NO_MATCHING_SUBSCRIBERS,
            Outcome::Matched => ReasonCode::SUCCESS,
        };
        self.send_ack(idx, id, qos, reason, port);
        Ok(())
    }

    /// PUBACK for QoS 1, PUBREC for QoS 2.
    pub(super) fn send_ack(
        &mut self,
        idx: SessionIdx,
        id: PacketId,
        qos: Qos,
        reason: ReasonCode,
        port: &mut impl Port,
    ) {
        let kind = if qos == Qos::ExactlyOnce {
            PacketType::Pubrec
        } else {
            PacketType::Puback
        };
        self.send_ack_of(idx, kind, id, reason, port);
    }

    pub(super) fn send_pubrel(
        &mut self,
        idx: SessionIdx,
        id: PacketId,
        reason: ReasonCode,
        port: &mut impl Port,
    ) {
        self.send_ack_of(idx, PacketType::Pubrel, id, reason, port);
    }

    fn send_ack_of(
        &mut self,
        idx: SessionIdx,
        kind: PacketType,
        id: PacketId,
        reason: ReasonCode,
        port: &mut impl Port,
    ) {
        let version = self.sessions[idx].version();
        if reason == ReasonCode::SUCCESS || version != Version::V5 {
            self.send(idx, &ack::plain(kind, id), port);
            return;
        }
        let mut out = std::mem::take(&mut self.scratch.packet);
        out.clear();
        Ack::new(id, reason).encode(kind, version, &mut out);
        self.send(idx, &out, port);
        self.scratch.packet = out;
    }

    /// Sends the acknowledgements that are due, in the order of the PUBLISH packets (section 4.6), and reads on from a client that waited.
    pub(super) fn release_acks(
        &mut self,
        idx: SessionIdx,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        while let Some((id, qos, outcome)) = self.sessions[idx]
            .flow
            .as_mut()
            .and_then(|flow| flow.receipts.next_ack())
        {
            self.acknowledge(idx, id, qos, outcome, port)?;
        }
        let resume_at = usize::from(self.mqtt().receive_maximum) / 2;
        let session = &mut self.sessions[idx];
        let owed = session.flow.as_ref().map_or(0, |flow| flow.receipts.owed());
        if session.flags.has(Flags::PAUSED) && owed <= resume_at {
            session.flags.put(Flags::PAUSED, false);
            if let Some(conn) = session.conn()
                && !session.flags.has(Flags::SUBSCRIBING)
            {
                port.pause(conn, false);
            }
        }
        session.tidy();
        Ok(())
    }

    /// A client with too much unsettled is not read from until half of it is. An MQTT 5 client stops by itself (Receive Maximum).
    ///
    /// Nor are its acknowledgements read then, so that no publisher may wait for it: two clients that wait for each other, or one that
    /// waits for itself, would do so forever.
    pub(super) fn pause_if_owed(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let limit = usize::from(self.mqtt().receive_maximum);
        let session = &mut self.sessions[idx];
        let owed = session.flow.as_ref().map_or(0, |flow| flow.receipts.owed());
        if owed >= limit
            && !session.is_v5()
            && !session.flags.has(Flags::PAUSED)
            && let Some(conn) = session.conn()
        {
            session.flags.put(Flags::PAUSED, true);
            port.pause(conn, true);
            self.rule_on_held(idx, now, port);
        }
    }

    /// PUBREL: the client has let go of its QoS 2 message; the identifier is free.
    pub(super) fn pubrel(
        &mut self,
        idx: SessionIdx,
        ack: &Ack<'_>,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        if self.sessions[idx].is_durable() {
            return self.stored_pubrel(idx, ack.packet_id, port);
        }
        let session = &mut self.sessions[idx];
        let known = session
            .flow
            .as_mut()
            .is_some_and(|flow| flow.receipts.release(ack.packet_id));
        session.tidy();
        let reason = if known {
            ReasonCode::SUCCESS
        } else {
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND
        };
        self.send_ack_of(idx, PacketType::Pubcomp, ack.packet_id, reason, port);
        Ok(())
    }

    /// PUBREL of a durable client: that the identifier is free is recorded before it is told. Otherwise the next message under it would be taken for
    /// this one after a restart.
    fn stored_pubrel(
        &mut self,
        idx: SessionIdx,
        id: PacketId,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let flow = self.sessions[idx].flow.as_ref();
        if !flow.is_some_and(|flow| flow.receipts.is_unreleased(id)) {
            let reason = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
            self.send_ack_of(idx, PacketType::Pubcomp, id, reason, port);
            return Ok(());
        }
        let note = Note::Freed { id: id.get() };
        self.keep
            .note(self.id_of(idx), &note)
            .map_err(|_| Fault::quota())?;
        let session = &mut self.sessions[idx];
        let receipts = &mut session.flow_mut().receipts;
        // One that doesn't wait for its PUBREC does not send it again either.
        let token = receipts.incoming().find(|(held, _)| *held == id.get());
        if let Some((_, Some(token))) = token {
            self.shared.doubts.close(token);
        }
        receipts.release(id);
        session.tidy();
        self.send_when_synced(idx, &ack::plain(PacketType::Pubcomp, id), port);
        Ok(())
    }

    // ---- a client acknowledges what we delivered ----

    /// PUBACK: a QoS 1 message is the client's.
    pub(super) fn puback(
        &mut self,
        idx: SessionIdx,
        ack: &Ack<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let session = &mut self.sessions[idx];
        let acked = if session.is_durable() {
            self.stored_puback(idx, ack.packet_id)
        } else {
            session
                .flow
                .as_mut()
                .map_or(Acked::Unknown, |flow| flow.puback(ack.packet_id))
        };
        self.acked(idx, acked, now, port)
    }

    /// PUBREC: a QoS 2 message is the client's; it is released.
    pub(super) fn pubrec(
        &mut self,
        idx: SessionIdx,
        ack: &Ack<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let session = &mut self.sessions[idx];
        let acked = if session.is_durable() {
            match self.stored_pubrec(idx, ack.packet_id, ack.reason, port) {
                Acked::Release => return Ok(()),
                acked => acked,
            }
        } else {
            session.flow.as_mut().map_or(Acked::Unknown, |flow| {
                flow.pubrec(ack.packet_id, ack.reason)
            })
        };
        match acked {
            Acked::Release => self.send_pubrel(idx, ack.packet_id, ReasonCode::SUCCESS, port),
            // Section 3.6.2.1. Answered in MQTT 3 as well, so that a client that was forgotten can finish.
            Acked::Unknown if !ack.reason.is_error() => {
                self.send_pubrel(
                    idx,
                    ack.packet_id,
                    ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
                    port,
                );
            }
            Acked::Done | Acked::Unknown | Acked::WrongKind => {
                return self.acked(idx, acked, now, port);
            }
        }
        Ok(())
    }

    /// PUBCOMP: a QoS 2 exchange is over.
    pub(super) fn pubcomp(
        &mut self,
        idx: SessionIdx,
        ack: &Ack<'_>,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        let session = &mut self.sessions[idx];
        let acked = if session.is_durable() {
            self.stored_pubcomp(idx, ack.packet_id)
        } else {
            session
                .flow
                .as_mut()
                .map_or(Acked::Unknown, |flow| flow.pubcomp(ack.packet_id))
        };
        self.acked(idx, acked, now, port)
    }

    /// A place in the window may be free. A stray acknowledgement frees none.
    fn acked(
        &mut self,
        idx: SessionIdx,
        acked: Acked,
        now: Millis,
        port: &mut impl Port,
    ) -> Result<(), Fault> {
        match acked {
            Acked::Done => self.pump(idx, now, port),
            Acked::Unknown | Acked::Release => {}
            Acked::WrongKind => return Err(Fault::new(ReasonCode::PROTOCOL_ERROR)),
        }
        Ok(())
    }
}
