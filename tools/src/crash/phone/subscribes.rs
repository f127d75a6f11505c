//! What a client subscribes to, and the messages that come of it.

use fastrand::Rng;

use super::super::fault::Kind;
use super::super::model::Model;
use super::{Phone, Stage, Standing};
use crate::packet::{self, PUBACK, PUBREC, Publish};

impl Phone {
    /// SUBSCRIBEs to what it isn't subscribed to, or the other way round.
    pub(in crate::crash) fn turn(&mut self, hold: usize, model: &mut Model) {
        match self.standing[hold] {
            Standing::Off => self.subscribe(hold, model),
            Standing::On => self.unsubscribe(hold, model),
            Standing::Asked(_) | Standing::Leaving(_) => {}
        }
    }

    pub(super) fn subscribe(&mut self, hold: usize, model: &mut Model) {
        let id = self.free_id();
        let (filter, qos) = &self.nature.filters[hold];
        packet::subscription(
            self.nature.version,
            id,
            filter,
            Some(*qos),
            &mut self.output,
        );
        model.note(
            &self.id,
            format_args!("> SUBSCRIBE {id}, {filter}, QoS {qos}"),
        );
        self.standing[hold] = Standing::Asked(id);
        model.asked(self.number, hold);
    }

    pub(super) fn unsubscribe(&mut self, hold: usize, model: &mut Model) {
        let id = self.free_id();
        let filter = &self.nature.filters[hold].0;
        packet::subscription(self.nature.version, id, filter, None, &mut self.output);
        model.note(&self.id, format_args!("> UNSUBSCRIBE {id}, {filter}"));
        self.standing[hold] = Standing::Leaving(id);
        model.leaving(self.number, hold);
    }

    pub(super) fn granted(&mut self, id: u16, code: u8, model: &mut Model) {
        let Some(hold) = self
            .standing
            .iter()
            .position(|&at| at == Standing::Asked(id))
        else {
            model.fault(Kind::Protocol, &self.name(), format!("a SUBACK for {id}"));
            return;
        };
        let asked = model.qos_of(self.number, hold);
        if code == asked {
            self.standing[hold] = Standing::On;
            model.granted(self.number, hold);
        } else {
            let what = format!("SUBACK {code:#04x}, asked for QoS {asked}");
            model.fault(Kind::Refused, &self.name(), what);
        }
    }

    pub(super) fn left(&mut self, id: u16, model: &mut Model) {
        let Some(hold) = self
            .standing
            .iter()
            .position(|&at| at == Standing::Leaving(id))
        else {
            model.fault(
                Kind::Protocol,
                &self.name(),
                format!("an UNSUBACK for {id}"),
            );
            return;
        };
        self.standing[hold] = Standing::Off;
        model.left(self.number, hold);
    }

    pub(super) fn delivered(&mut self, publish: &Publish<'_>, model: &mut Model) {
        let Publish {
            topic,
            qos,
            payload,
            id,
            ..
        } = *publish;
        if publish.retain || payload.is_empty() {
            // Whether it is the right one, a reader of its own finds out; here it may be old by the time it comes.
            self.respond(qos, id);
            return;
        }
        if qos == 2 {
            let identity = model.identity(payload);
            if let (Some(held), Some(identity)) = (self.held.get(&id), identity) {
                if *held != identity {
                    let what =
                        format!("packet identifier {id} has another message before it is released");
                    model.fault(Kind::Protocol, &self.name(), what);
                } else if !publish.dup {
                    model.counts.unmarked += 1;
                }
                self.respond(qos, id);
                return;
            }
            if let Some(identity) = identity {
                self.held.insert(id, identity);
            }
        }
        model.received(self.number, topic, qos, payload);
        self.respond(qos, id);
    }

    pub(super) fn respond(&mut self, qos: u8, id: u16) {
        match qos {
            0 => {}
            1 => self.answer(PUBACK, id),
            _ => self.answer(PUBREC, id),
        }
    }

    /// In the order in which the messages came; a slow client answers later.
    pub(super) fn answer(&mut self, kind: u8, id: u16) {
        self.owed.push_back((kind, id));
    }

    /// Gives the answers that are due.
    pub(in crate::crash) fn answer_some(&mut self, random: &mut Rng, model: &mut Model) {
        if self.stage != Stage::Online || (self.nature.slow && random.u8(..) > 20) {
            return;
        }
        while let Some((kind, id)) = self.owed.pop_front() {
            model.note(&self.id, format_args!("> {} {id}", packet::ack_name(kind)));
            packet::ack(kind, id, &mut self.output);
        }
    }
}
