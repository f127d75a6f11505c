//! What a client has published at QoS 1 and 2 and the server has not acknowledged in full (MQTT 5 sections 4.3, 4.6, 4.9).
//!
//! Each message that is taken gets a [`Receipt`]. It is settled under that name: a packet identifier comes back as soon as it is
//! acknowledged, or with the next connection, and a late settlement must not meet the message that has it then.

use std::collections::VecDeque;

use crate::limits::MAX_UNRELEASED;
use crate::session::message::{Outcome, Receipt};
use crate::wire::{PacketId, Qos};

/// An acknowledgement that we owe the client. They leave in the order in which its messages came.
#[derive(Clone, Copy, Debug)]
struct Owed {
    id: PacketId,
    qos: Qos,
    receipt: Receipt,
    outcome: Option<Outcome>,
}

/// A QoS 2 message that the client has not released (method A of section 4.3.3).
#[derive(Clone, Copy, Debug)]
struct Unreleased {
    id: PacketId,
    receipt: Receipt,
    outcome: Option<Outcome>,
    /// It came on an earlier connection.
    is_earlier: bool,
    /// Of a durable session: the name of the message, until it is recorded that everybody has it.
    token: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Receipts {
    owed: VecDeque<Owed>,
    unreleased: Vec<Unreleased>,
    /// Taken before the server died, maybe not by everybody: the client sends them again, and they are the same messages then.
    doubts: Vec<(PacketId, u64)>,
}

impl Receipts {
    /// Nothing is owed or unreleased.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty() && self.unreleased.is_empty() && self.doubts.is_empty()
    }

    /// Messages that count against our Receive Maximum (section 4.9).
    ///
    /// A client that keeps the rules owes no PUBREL for what it was not sent a PUBREC for. One that releases at once, or goes on sending what
    /// is refused, is bound by what is owed to it.
    pub fn unacked(&self) -> usize {
        let once = self.owed.iter().filter(|owed| owed.qos == Qos::AtLeastOnce);
        let unreleased = self.unreleased.iter().filter(|held| !held.is_earlier);
        (once.count() + unreleased.count()).max(self.owed.len())
    }

    /// Acknowledgements that wait for a message to be settled.
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// A message was taken and waits to be settled. False if the client holds too many QoS 2 messages unreleased.
    /// `token`: see [`Receipts::incoming`].
    pub fn take(&mut self, id: PacketId, qos: Qos, receipt: Receipt, token: Option<u64>) -> bool {
        if qos == Qos::ExactlyOnce {
            if self.unreleased.len() >= MAX_UNRELEASED {
                return false;
            }
            self.unreleased.push(Unreleased {
                id,
                receipt,
                outcome: None,
                is_earlier: false,
                token,
            });
        }
        self.owe(id, qos, receipt, None);
        true
    }

    /// A message is refused without being routed: that is said in its turn.
    pub fn refuse(&mut self, id: PacketId, qos: Qos, receipt: Receipt, outcome: Outcome) {
        self.owe(id, qos, receipt, Some(outcome));
    }

    fn owe(&mut self, id: PacketId, qos: Qos, receipt: Receipt, outcome: Option<Outcome>) {
        self.owed.push_back(Owed {
            id,
            qos,
            receipt,
            outcome,
        });
    }

    /// A QoS 2 message came. True if it has come before and was not released: it is acknowledged once more, in its turn and not before
    /// it is settled, but not taken again.
    pub fn take_again(&mut self, id: PacketId) -> bool {
        let Some(known) = self.unreleased.iter().find(|known| known.id == id).copied() else {
            return false;
        };
        if !self.owed.iter().any(|owed| owed.receipt == known.receipt) {
            self.owe(id, Qos::ExactlyOnce, known.receipt, known.outcome);
        }
        true
    }

    /// A message is settled. One that was refused while its publisher was away is forgotten: the next attempt is a new message.
    pub fn settled(&mut self, receipt: Receipt, outcome: Outcome) {
        let owed = self.owed.iter_mut().find(|owed| owed.receipt == receipt);
        let is_awaited = owed.is_some();
        if let Some(owed) = owed {
            owed.outcome = Some(outcome);
        }
        let held = |held: &Unreleased| held.receipt == receipt;
        if let Some(at) = self.unreleased.iter().position(held) {
            self.unreleased[at].outcome = Some(outcome);
            if outcome.is_error() && !is_awaited {
                self.unreleased.remove(at);
            }
        }
    }

    /// The next acknowledgement that may leave. An error ends a QoS 2 exchange (section 4.3.3).
    pub fn next_ack(&mut self) -> Option<(PacketId, Qos, Outcome)> {
        let outcome = self.owed.front()?.outcome?;
        let Owed {
            id, qos, receipt, ..
        } = self.owed.pop_front()?;
        if outcome.is_error() {
            self.unreleased.retain(|held| held.receipt != receipt);
        }
        Some((id, qos, outcome))
    }

    /// The identifier of a QoS 2 message that is not released.
    pub fn unreleased(&self, receipt: Receipt) -> Option<PacketId> {
        let held = self.unreleased.iter().find(|held| held.receipt == receipt);
        held.map(|held| held.id)
    }

    /// Whether a message under this identifier is not released.
    pub fn is_unreleased(&self, id: PacketId) -> bool {
        self.unreleased.iter().any(|held| held.id == id)
    }

    /// The token of a message of which it is not recorded that everybody has it.
    pub fn token(&self, receipt: Receipt) -> Option<u64> {
        let held = self.unreleased.iter().find(|held| held.receipt == receipt);
        held?.token
    }

    /// It is recorded that everybody has this message: the token that it had until now.
    pub fn recorded(&mut self, receipt: Receipt) -> Option<u64> {
        let mut all = self.unreleased.iter_mut();
        all.find(|held| held.receipt == receipt)?.token.take()
    }

    /// QoS 2 messages that the client has not released; with the token, if it is not recorded that everybody has it.
    pub fn incoming(&self) -> impl Iterator<Item = (u16, Option<u64>)> {
        let held = self.unreleased.iter().map(|held| (held.id, held.token));
        let doubts = self.doubts.iter().map(|(id, token)| (*id, Some(*token)));
        held.chain(doubts).map(|(id, token)| (id.get(), token))
    }

    /// After a restart: what [`Receipts::incoming`] was then.
    pub fn restore(&mut self, id: PacketId, token: Option<u64>, receipt: Receipt) {
        match token {
            Some(token) => self.doubts.push((id, token)),
            None => self.unreleased.push(Unreleased {
                id,
                receipt,
                outcome: Some(Outcome::Matched),
                is_earlier: true,
                token: None,
            }),
        }
    }

    /// A message came under this identifier. If the client may have sent it before the server died, its token.
    pub fn take_doubt(&mut self, id: PacketId) -> Option<u64> {
        let at = self.doubts.iter().position(|(other, _)| *other == id)?;
        Some(self.doubts.swap_remove(at).1)
    }

    /// A PUBREL came. False if the identifier is unknown.
    pub fn release(&mut self, id: PacketId) -> bool {
        let at = self.unreleased.iter().position(|held| held.id == id);
        at.map(|at| self.unreleased.remove(at)).is_some()
    }

    /// The connection ended: acknowledgements that were owed to it are not sent; the client sends its messages again. What it sent at
    /// QoS 2 stays known, so that the second time is a duplicate, but the next connection has all of its quota (section 4.9).
    pub fn disconnected(&mut self) {
        self.owed.clear();
        for held in &mut self.unreleased {
            held.is_earlier = true;
        }
    }

    /// Panics if the parts contradict each other.
    pub fn check_invariants(&self) {
        assert!(self.unreleased.len() <= MAX_UNRELEASED);
        for (at, held) in self.unreleased.iter().enumerate() {
            let later = &self.unreleased[at + 1..];
            assert!(
                later.iter().all(|other| other.id != held.id),
                "a packet identifier is unreleased twice"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: Qos = Qos::AtLeastOnce;
    const TWICE: Qos = Qos::ExactlyOnce;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    fn acks(receipts: &mut Receipts) -> Vec<(u16, Outcome)> {
        std::iter::from_fn(|| receipts.next_ack())
            .map(|(id, _, outcome)| (id.get(), outcome))
            .collect()
    }

    #[test]
    fn acknowledgements_leave_in_the_order_of_the_messages() {
        let mut receipts = Receipts::default();
        for (at, qos) in [(1, ONCE), (2, TWICE), (3, ONCE)] {
            assert!(receipts.take(id(at), qos, Receipt(u32::from(at)), None));
        }
        receipts.refuse(id(4), ONCE, Receipt(4), Outcome::Forbidden);
        receipts.settled(Receipt(3), Outcome::Matched);
        receipts.settled(Receipt(2), Outcome::Matched);
        assert_eq!(acks(&mut receipts), []);
        receipts.settled(Receipt(1), Outcome::Unmatched);
        let all = [
            (1, Outcome::Unmatched),
            (2, Outcome::Matched),
            (3, Outcome::Matched),
            (4, Outcome::Forbidden),
        ];
        assert_eq!(acks(&mut receipts), all);
        assert_eq!(receipts.unacked(), 1, "the QoS 2 message is unreleased");
        assert!(receipts.release(id(2)) && !receipts.release(id(2)));
        assert!(receipts.is_empty());
    }

    #[test]
    fn a_late_settlement_does_not_meet_the_next_message_of_its_identifier() {
        let mut receipts = Receipts::default();
        receipts.take(id(1), ONCE, Receipt(1), None);
        receipts.disconnected();
        receipts.take(id(1), ONCE, Receipt(2), None);
        receipts.settled(Receipt(1), Outcome::Matched);
        assert_eq!(acks(&mut receipts), []);
        receipts.settled(Receipt(2), Outcome::Refused);
        assert_eq!(acks(&mut receipts), [(1, Outcome::Refused)]);
    }

    #[test]
    fn a_repeated_message_is_acknowledged_once_it_is_settled() {
        let mut receipts = Receipts::default();
        receipts.take(id(1), TWICE, Receipt(1), None);
        receipts.disconnected();
        assert_eq!(receipts.unacked(), 0, "the next connection has its quota");
        assert!(receipts.take_again(id(1)) && receipts.take_again(id(1)));
        assert_eq!(acks(&mut receipts), [], "it is not settled");
        receipts.settled(Receipt(1), Outcome::Matched);
        assert_eq!(acks(&mut receipts), [(1, Outcome::Matched)]);
        receipts.disconnected();
        assert!(receipts.take_again(id(1)));
        assert_eq!(acks(&mut receipts), [(1, Outcome::Matched)], "at once now");
    }

    #[test]
    fn a_refused_message_may_be_tried_again() {
        let mut receipts = Receipts::default();
        receipts.take(id(1), TWICE, Receipt(1), None);
        receipts.settled(Receipt(1), Outcome::Refused);
        assert_eq!(acks(&mut receipts), [(1, Outcome::Refused)]);
        assert!(receipts.is_empty() && !receipts.take_again(id(1)));
        receipts.take(id(1), TWICE, Receipt(2), None);
        receipts.disconnected();
        receipts.settled(Receipt(2), Outcome::Refused);
        assert!(receipts.is_empty(), "its publisher was away");
    }

    #[test]
    fn what_is_owed_counts_whether_or_not_it_is_unreleased() {
        let mut receipts = Receipts::default();
        receipts.take(id(1), ONCE, Receipt(0), None);
        for n in 1..=3 {
            assert!(receipts.take(id(2), TWICE, Receipt(n), None));
            assert!(receipts.release(id(2)), "before its PUBREC");
        }
        receipts.refuse(id(2), TWICE, Receipt(4), Outcome::Forbidden);
        assert_eq!(receipts.unacked(), 5);
    }

    #[test]
    fn what_is_not_recorded_is_in_doubt_after_a_restart() {
        let mut receipts = Receipts::default();
        receipts.take(id(1), TWICE, Receipt(1), Some(11));
        receipts.take(id(2), TWICE, Receipt(2), Some(12));
        receipts.take(id(3), ONCE, Receipt(3), None);
        assert_eq!(receipts.token(Receipt(2)), Some(12));
        assert_eq!(receipts.recorded(Receipt(1)), Some(11));
        assert_eq!(receipts.recorded(Receipt(1)), None);
        let incoming: Vec<_> = receipts.incoming().collect();
        assert_eq!(incoming, [(1, None), (2, Some(12))]);
        let mut after = Receipts::default();
        for (at, (name, token)) in incoming.into_iter().enumerate() {
            after.restore(id(name), token, Receipt(at as u32));
        }
        assert!(after.take_again(id(1)) && !after.take_again(id(2)));
        assert_eq!(acks(&mut after), [(1, Outcome::Matched)]);
        assert_eq!(
            (after.take_doubt(id(2)), after.take_doubt(id(2))),
            (Some(12), None)
        );
        assert!(after.release(id(1)) && after.is_empty());
    }

    #[test]
    fn unreleased_messages_are_bounded() {
        let mut receipts = Receipts::default();
        for at in 1..=MAX_UNRELEASED as u16 {
            assert!(receipts.take(id(at), TWICE, Receipt(u32::from(at)), None));
        }
        assert!(!receipts.take(id(u16::MAX), TWICE, Receipt(0), None));
        assert!(receipts.take(id(u16::MAX), ONCE, Receipt(0), None));
        receipts.check_invariants();
    }
}
