//! What a client publishes, and the acknowledgements of it.

use super::super::body;
use super::super::fault::Kind;
use super::super::model::Model;
use super::{BACKLOG, Flight, IDS, Phone, Standing};
use crate::packet::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish};

impl Phone {
    /// Whether it may publish one more.
    pub(in crate::crash) fn may_publish(&self) -> bool {
        let window = self.nature.window.min(usize::from(self.receive_maximum));
        self.is_online()
            && !self.quiet
            && self.flights.len() < window
            && self.output.len() < BACKLOG
    }

    /// Publishes; without a length an empty payload.
    pub(in crate::crash) fn publish(
        &mut self,
        topic: usize,
        qos: u8,
        retain: bool,
        len: Option<usize>,
        model: &mut Model,
    ) {
        let sent = match len {
            Some(_) => model.sent(self.number, topic, qos),
            None => model.cleared(topic),
        };
        let id = self.free_id();
        self.flights.push_back(Flight {
            id,
            qos,
            topic,
            retain,
            len: len.unwrap_or(0),
            sent,
            released: false,
        });
        self.send(self.flights.len() - 1, false, model);
    }

    pub(super) fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id % IDS + 1;
            let id = self.next_id;
            let subscribing = |standing: &Standing| matches!(standing, Standing::Asked(have) | Standing::Leaving(have) if *have == id);
            if !self.flights.iter().any(|flight| flight.id == id)
                && !self.standing.iter().any(subscribing)
            {
                return id;
            }
        }
    }

    pub(super) fn send(&mut self, at: usize, dup: bool, model: &mut Model) {
        let flight = &self.flights[at];
        if flight.released {
            packet::ack(PUBREL, flight.id, &mut self.output);
            model.note(&self.id, format_args!("> PUBREL {}", flight.id));
            return;
        }
        let Flight { id, qos, .. } = *flight;
        let what = flight
            .sent
            .identity
            .map(|identity| (identity.stream, identity.seq));
        model.note(
            &self.id,
            format_args!("> PUBLISH {id}, QoS {qos}, dup {dup} = {what:?}"),
        );
        let payload = flight
            .sent
            .identity
            .map(|identity| body::write(model.run, identity, flight.len));
        let publish = Publish {
            topic: model.topic(flight.topic),
            qos: flight.qos,
            retain: flight.retain,
            dup,
            id: flight.id,
            payload: payload.as_deref().unwrap_or_default(),
        };
        publish.write(self.nature.version, &mut self.output);
    }

    pub(super) fn acknowledged(&mut self, kind: u8, id: u16, code: u8, model: &mut Model) {
        let Some(at) = self.flights.iter().position(|flight| flight.id == id) else {
            let what = format!("an acknowledgement of type {kind} for {id}, which is not in use");
            model.fault(Kind::Protocol, &self.name(), what);
            return;
        };
        let name = self.name();
        let flight = &mut self.flights[at];
        // 0x92: a PUBCOMP for what the server had done with when it died.
        if code >= 0x80 && !(kind == PUBCOMP && code == 0x92) {
            let what = format!("an acknowledgement of type {kind} with {code:#04x}");
            model.fault(Kind::Refused, &name, what);
        }
        match (kind, flight.qos) {
            (PUBREC, 2) => {
                flight.released = true;
                packet::ack(PUBREL, id, &mut self.output);
            }
            (PUBACK, 1) | (PUBCOMP, 2) => {
                let flight = self.flights.remove(at).unwrap_or_else(|| unreachable!());
                model.acknowledged(flight.sent, flight.qos, flight.len);
                if self
                    .flights
                    .iter()
                    .take(at)
                    .any(|before| before.qos == flight.qos)
                {
                    let what = format!("{id} is acknowledged before what was sent before it");
                    model.fault(Kind::Protocol, &name, what);
                }
            }
            _ => {
                let what = format!("type {kind} for a message at QoS {}", flight.qos);
                model.fault(Kind::Protocol, &name, what);
            }
        }
    }
}
