//! What the packets mean to a phone: getting ready, and the account of every message.

use stillwire::wire::{Connack, Frame, Packet, PacketType, Publish, Qos, Suback, decode};

use super::Driver;
use crate::clock;
use crate::payload::{Kind, Payload};
use crate::phone::Stage;
use crate::stats::{Count, Failure, Latencies, record};
use crate::verify::{Floor, Place};

impl Driver {
    /// Handles one packet; what it asks to be sent is appended to `self.out`.
    pub(super) fn packet(
        &mut self,
        at: u32,
        frame: &Frame<'_>,
        now: u64,
        latency: &mut Latencies,
    ) -> Result<(), Failure> {
        let version = self.shared.plan.script.version;
        if frame.packet_type() == Some(PacketType::Publish) {
            let publish = Publish::decode(frame, version).map_err(|_| Failure::Protocol)?;
            return self.message(at, &publish, now, latency);
        }
        match decode(frame, version).map_err(|_| Failure::Protocol)? {
            Packet::Connack(connack) => self.connack(at, &connack),
            Packet::Suback(suback) => self.suback(at, &suback, now, latency),
            Packet::Pingresp => {
                self.tally.count(Count::Pongs);
                let phone = &mut self.phones[at as usize];
                if let Some(pinged) = phone.pinged.take() {
                    let micros = ((now / 1000) as u32).wrapping_sub(pinged.get());
                    record(&mut latency.ping, u64::from(micros) * 1000);
                }
                Ok(())
            }
            Packet::Disconnect(_) => Err(Failure::Disconnected),
            _ => Err(Failure::Protocol),
        }
    }

    fn connack(&mut self, at: u32, connack: &Connack<'_>) -> Result<(), Failure> {
        let phone = &mut self.phones[at as usize];
        if phone.stage != Stage::Greeting {
            return Err(Failure::Protocol);
        }
        if connack.reason.is_error() {
            return Err(Failure::NotAccepted);
        }
        let script = self.shared.plan.script;
        if script.persistent && phone.known && !connack.session_present {
            self.tally.count(Count::SessionLost);
        }
        phone.stage = Stage::Subscribing;
        script.subscribe(&self.name(at), &mut self.out);
        Ok(())
    }

    fn suback(
        &mut self,
        at: u32,
        suback: &Suback<'_>,
        now: u64,
        latency: &mut Latencies,
    ) -> Result<(), Failure> {
        let number = self.number(at);
        let phone = &mut self.phones[at as usize];
        if phone.stage != Stage::Subscribing {
            return Err(Failure::Protocol);
        }
        // Exactly what was asked for: QoS 1 on the own topic, 0 on the shared one.
        if suback.codes != [1, 0] {
            return Err(Failure::NotSubscribed);
        }
        phone.stage = Stage::Ready;
        // At QoS 1 a session that is kept is owed everything since it was made, another one what is published from now on.
        if !(self.shared.plan.script.persistent && phone.known) {
            phone.unicast1_floor = Floor(self.shared.ledger.unicast1(number));
        }
        phone.known = true;
        phone.failures = 0;
        phone.unicast0_floor = Floor(self.shared.ledger.unicast0(number));
        phone.broadcast_floor = Floor(self.shared.ledger.broadcasts());
        record(&mut latency.ready, now.saturating_sub(phone.since));
        phone.since = now;
        self.tally.count(Count::Readied);
        if let Some(finding) = &mut self.finding {
            finding.arrived(at);
        }
        self.is_back(at, now);
        Ok(())
    }

    fn message(
        &mut self,
        at: u32,
        publish: &Publish<'_>,
        now: u64,
        latency: &mut Latencies,
    ) -> Result<(), Failure> {
        if let Some(id) = publish.packet_id {
            if publish.qos != Qos::AtLeastOnce {
                return Err(Failure::Protocol);
            }
            self.shared.plan.script.puback(id, &mut self.out);
        }
        // A session that is resumed brings its messages before the SUBACK, but nothing comes before the CONNACK.
        if matches!(
            self.phones[at as usize].stage,
            Stage::Greeting | Stage::Calling
        ) {
            return Err(Failure::Protocol);
        }
        let Some(payload) = Payload::read(publish.payload) else {
            self.tally.count(Count::Damaged);
            return Ok(());
        };
        if payload.run != self.shared.ledger.run {
            self.tally.count(Count::Foreign);
            return Ok(());
        }
        let addressed = payload.kind == Kind::Broadcast || payload.phone == self.number(at);
        let qos = if payload.kind == Kind::Unicast1 {
            Qos::AtLeastOnce
        } else {
            Qos::AtMostOnce
        };
        if !addressed || publish.qos != qos || payload.sequence == 0 {
            self.tally.count(Count::Damaged);
            return Ok(());
        }
        self.account(at, &payload, publish.dup, now, latency);
        Ok(())
    }

    fn account(
        &mut self,
        at: u32,
        payload: &Payload,
        dup: bool,
        now: u64,
        latency: &mut Latencies,
    ) {
        let sequence = payload.sequence;
        let phone = &mut self.phones[at as usize];
        let kept = self.shared.plan.script.persistent && phone.known;
        // Until its SUBACK a phone is owed nothing at QoS 0, but may get what the old subscription brings.
        let floor = |floor: Floor| {
            if phone.stage == Stage::Ready || kept && payload.kind == Kind::Unicast1 {
                floor
            } else {
                Floor(sequence)
            }
        };
        let mut round = None;
        let (place, first) = match payload.kind {
            Kind::Unicast0 => {
                let floor = floor(phone.unicast0_floor);
                (phone.unicast0.take(sequence, floor), Count::Unicast0)
            }
            Kind::Unicast1 => {
                let floor = floor(phone.unicast1_floor);
                (phone.unicast1.take(sequence, floor), Count::Unicast1)
            }
            Kind::Broadcast => {
                round = self.shared.ledger.heard(sequence, payload.planned);
                if phone.stage == Stage::Ready
                    && phone.broadcast.highest() <= phone.broadcast_floor.0
                {
                    let next = if payload.planned < phone.since {
                        sequence + 1
                    } else {
                        sequence
                    };
                    phone.broadcast_floor = self.shared.ledger.broadcast_floor(
                        phone.broadcast_floor,
                        next,
                        phone.since,
                    );
                }
                let floor = floor(phone.broadcast_floor);
                (phone.broadcast.take(sequence, floor), Count::Broadcast)
            }
        };
        match place {
            Place::New { gap } => self.tally.add(Count::Gaps, u64::from(gap)),
            Place::Reordered { owed } => {
                self.tally.count(Count::Reordered);
                if owed {
                    self.tally.count(Count::Filled);
                }
            }
            Place::Repeated => {
                let allowed = dup && payload.kind == Kind::Unicast1;
                self.tally.count(if allowed {
                    Count::Redelivered
                } else {
                    Count::Duplicates
                });
                return;
            }
        }
        self.tally.count(first);
        let took = now.saturating_sub(payload.planned);
        // What waited for the phone to come back says nothing about the broker's speed.
        let phone = &self.phones[at as usize];
        if phone.stage != Stage::Ready || payload.planned < phone.since {
            record(&mut latency.waited, took);
            return;
        }
        if took > clock::nanos(self.shared.plan.late) {
            self.tally.count(Count::Late);
        }
        match payload.kind {
            Kind::Unicast0 => record(&mut latency.unicast0, took),
            Kind::Unicast1 => record(&mut latency.unicast1, took),
            Kind::Broadcast => {
                record(&mut latency.broadcast, took);
                if let Some(round) = round {
                    round.arrived(now);
                }
            }
        }
    }

    /// Broadcasts that a ready phone has still to get.
    pub(super) fn broadcasts_owed(&self, at: u32) -> u32 {
        let (phone, ledger) = (&self.phones[at as usize], &self.shared.ledger);
        let sent = ledger.broadcasts();
        let mut floor = phone.broadcast_floor;
        if phone.broadcast.highest() <= floor.0 {
            floor = ledger.broadcast_floor(floor, sent + 1, phone.since);
        }
        phone.broadcast.owed(sent, floor)
    }

    /// Counts as missing what every phone is owed and hasn't got.
    pub(super) fn settle(&mut self) {
        for at in 0..self.phones.len() as u32 {
            let number = self.number(at);
            let (phone, ledger) = (&self.phones[at as usize], &self.shared.ledger);
            let mut owed = 0;
            if phone.stage == Stage::Ready || phone.known && self.shared.plan.script.persistent {
                owed += phone
                    .unicast1
                    .owed(ledger.unicast1(number), phone.unicast1_floor);
            }
            if phone.stage == Stage::Ready {
                owed += phone
                    .unicast0
                    .owed(ledger.unicast0(number), phone.unicast0_floor);
                owed += self.broadcasts_owed(at);
            }
            self.tally.add(Count::Gaps, u64::from(owed));
        }
    }
}
