//! Retained messages: which of them a subscriber may find.

use super::super::body::{self, Identity};
use super::super::fault::Kind;
use super::Model;

/// What was published to a retained topic, in order.
#[derive(Debug, Default)]
pub(super) struct Retained {
    pub(super) history: Vec<Value>,
    /// After the last one that is acknowledged.
    pub(super) floor: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Message(Identity),
    /// An empty payload: nothing is retained any more.
    Cleared,
}

impl Model {
    /// What a SUBSCRIBE that is sent now may find, by topic: these values and all that follow.
    pub(in crate::crash) fn retained_floor(&self) -> Vec<usize> {
        self.retained
            .iter()
            .map(|of| of.floor.saturating_sub(1))
            .collect()
    }

    /// Whether a subscriber must get something for this topic.
    pub(in crate::crash) fn is_retained(&self, topic: usize, floor: usize) -> bool {
        let of = &self.retained[topic];
        of.floor > 0 && !of.history[floor..].contains(&Value::Cleared)
    }

    /// A retained message came to somebody who subscribed when the floor was this. Returns its topic.
    pub(in crate::crash) fn retained(
        &mut self,
        who: &str,
        floor: &[usize],
        topic: &str,
        payload: &[u8],
    ) -> Option<usize> {
        let number = self.topics.iter().position(|of| of.name == topic)?;
        let identity = body::read(self.run, payload);
        let place = identity.and_then(|identity| {
            let history = &self.retained[number].history;
            history
                .iter()
                .rposition(|&value| value == Value::Message(identity))
        });
        match place {
            Some(place) if place >= floor[number] => self.counts.retained += 1,
            Some(place) => {
                let what = format!(
                    "{topic} has its {place}. value, but the {}. is acknowledged",
                    floor[number]
                );
                self.fault(Kind::Stale, who, what);
            }
            None => {
                let what = format!("{topic} has {} bytes that nobody sent", payload.len());
                self.fault(Kind::Altered, who, what);
            }
        }
        Some(number)
    }
}
