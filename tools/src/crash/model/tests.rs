//! A checker that can't find anything would be a defect: here each kind of fault is made, beside the same course without it.

use super::super::body;
use super::*;

/// One publisher to one topic at QoS 1 and 2, and one retained; session 0 is durable and subscribes with QoS 2.
struct Scene {
    model: Model,
}

const RUN: u64 = 5;

impl Scene {
    fn new() -> Self {
        let topic = |name: &str, retained| Topic {
            name: name.into(),
            retained,
        };
        let topics = vec![topic("t", false), topic("r", true), topic("other", false)];
        let mut model = Model::new(RUN, topics);
        for (topic, qos) in [(0, 1), (0, 2), (1, 1), (2, 1)] {
            model.add_stream(0, topic, qos);
        }
        model.add_session(true, &[(2, vec![0])]);
        model.connected(0, false);
        Self { model }
    }

    fn subscribed() -> Self {
        let mut scene = Self::new();
        scene.model.asked(0, 0);
        scene.model.granted(0, 0);
        scene
    }

    fn acknowledged(&mut self, qos: u8) -> Sent {
        let sent = self.model.sent(0, 0, qos);
        self.model.acknowledged(sent, qos, 24);
        sent
    }

    fn receive(&mut self, sent: Sent, qos: u8) {
        let payload = body::write(RUN, sent.identity.unwrap(), 40);
        self.model.received(0, "t", qos, &payload);
    }

    fn kinds(&self) -> Vec<Kind> {
        self.model.faults.iter().map(|fault| fault.kind).collect()
    }

    fn settled(mut self) -> Vec<Kind> {
        self.model.settle_up();
        self.kinds()
    }
}

#[test]
fn what_is_acknowledged_and_comes_in_order_is_well() {
    let mut scene = Scene::subscribed();
    for qos in [1, 2, 1, 2] {
        let sent = scene.acknowledged(qos);
        scene.receive(sent, qos);
    }
    assert_eq!(scene.model.counts.delivered, 4);
    assert_eq!(scene.settled(), []);
}

#[test]
fn what_does_not_come_is_lost_at_the_end_or_when_a_later_one_comes() {
    let mut scene = Scene::subscribed();
    scene.acknowledged(1);
    assert!(scene.model.waits(0));
    assert_eq!(scene.kinds(), []);
    let later = scene.acknowledged(1);
    scene.receive(later, 1);
    assert_eq!(scene.kinds(), [Kind::Lost]);
    assert_eq!(scene.settled(), [Kind::Lost], "told once");
    let mut scene = Scene::subscribed();
    scene.acknowledged(2);
    assert_eq!(scene.settled(), [Kind::Lost]);
}

#[test]
fn what_is_not_acknowledged_or_not_subscribed_to_need_not_come() {
    let mut scene = Scene::subscribed();
    let unsure = scene.model.sent(0, 0, 1);
    scene.model.given_up(unsure);
    assert_eq!(scene.settled(), []);
    let mut scene = Scene::new();
    scene.acknowledged(1);
    scene.model.asked(0, 0);
    scene.acknowledged(1);
    scene.model.granted(0, 0);
    scene.model.leaving(0, 0);
    scene.acknowledged(1);
    scene.model.left(0, 0);
    scene.acknowledged(1);
    assert_eq!(scene.settled(), []);
}

#[test]
fn a_message_comes_once_at_qos_2_and_as_often_as_it_was_sent_at_qos_1() {
    let mut scene = Scene::subscribed();
    let sent = scene.acknowledged(2);
    scene.receive(sent, 2);
    scene.model.connected(0, true);
    scene.receive(sent, 2);
    assert_eq!(scene.settled(), [Kind::Twice]);
    let mut scene = Scene::subscribed();
    let sent = scene.acknowledged(1);
    scene.model.sent_again(sent);
    scene.receive(sent, 1);
    scene.receive(sent, 1);
    assert_eq!(scene.kinds(), []);
    scene.receive(sent, 1);
    assert_eq!(scene.kinds(), [Kind::Repeated]);
    scene.model.connected(0, true);
    scene.receive(sent, 1);
    assert_eq!(scene.settled(), [Kind::Repeated], "redelivered once more");
}

#[test]
fn what_comes_late_is_out_of_order() {
    let mut scene = Scene::subscribed();
    let first = scene.model.sent(0, 0, 1);
    let second = scene.acknowledged(1);
    scene.receive(second, 1);
    scene.receive(first, 1);
    assert_eq!(scene.settled(), [Kind::Disordered]);
}

#[test]
fn what_was_sent_before_the_subscription_stood_may_come_late() {
    let mut scene = Scene::new();
    scene.model.asked(0, 0);
    let first = scene.model.sent(0, 0, 1);
    scene.model.granted(0, 0);
    let second = scene.acknowledged(1);
    scene.receive(second, 1);
    scene.model.sent_again(first);
    scene.receive(first, 1);
    assert_eq!(scene.settled(), []);
}

#[test]
fn what_nobody_asked_for_is_told() {
    // Before SUBSCRIBE, and after UNSUBACK.
    let mut scene = Scene::new();
    let early = scene.acknowledged(1);
    scene.model.asked(0, 0);
    scene.model.granted(0, 0);
    scene.receive(early, 1);
    assert_eq!(scene.kinds(), [Kind::Unasked]);
    let mut scene = Scene::subscribed();
    scene.model.leaving(0, 0);
    scene.model.left(0, 0);
    let late = scene.acknowledged(1);
    scene.receive(late, 1);
    assert_eq!(scene.kinds(), [Kind::Unasked]);
    // Of a session that was ended.
    let mut scene = Scene::subscribed();
    let sent = scene.acknowledged(1);
    scene.model.ending(0);
    scene.model.connected(0, false);
    scene.receive(sent, 1);
    assert_eq!(scene.kinds(), [Kind::Unasked]);
    // To a topic without a filter.
    let mut scene = Scene::subscribed();
    let sent = scene.model.sent(0, 2, 1);
    let payload = body::write(RUN, sent.identity.unwrap(), 40);
    scene.model.received(0, "other", 1, &payload);
    assert_eq!(scene.kinds(), [Kind::Unasked]);
}

#[test]
fn what_is_altered_is_told() {
    let mut scene = Scene::subscribed();
    let sent = scene.acknowledged(1);
    let mut payload = body::write(RUN, sent.identity.unwrap(), 40);
    scene.model.received(0, "other", 1, &payload);
    payload[30] ^= 1;
    scene.model.received(0, "t", 1, &payload);
    scene.receive(sent, 2);
    assert_eq!(scene.kinds(), [Kind::Altered; 3]);
    // One that was never sent.
    let payload = body::write(RUN, Identity { stream: 0, seq: 99 }, 40);
    scene.model.received(0, "t", 1, &payload);
    assert_eq!(scene.kinds(), [Kind::Altered; 4]);
}

#[test]
fn a_retained_message_is_the_last_acknowledged_or_a_later_one() {
    let mut scene = Scene::new();
    assert!(!scene.model.is_retained(1, 0));
    let value = |scene: &mut Scene| {
        let sent = scene.model.sent(0, 1, 1);
        let payload = body::write(RUN, sent.identity.unwrap(), 40);
        (sent, payload)
    };
    let (first, old) = value(&mut scene);
    scene.model.acknowledged(first, 1, 24);
    let (second, new) = value(&mut scene);
    let floor = scene.model.retained_floor();
    assert!(scene.model.is_retained(1, floor[1]));
    for payload in [&old, &new] {
        assert_eq!(
            scene.model.retained("reader", &floor, "r", payload),
            Some(1)
        );
    }
    assert_eq!(scene.kinds(), []);
    scene.model.acknowledged(second, 1, 24);
    let floor = scene.model.retained_floor();
    scene.model.retained("reader", &floor, "r", &old);
    assert_eq!(scene.kinds(), [Kind::Stale]);
    let cleared = scene.model.cleared(1);
    assert!(!scene.model.is_retained(1, floor[1]), "perhaps cleared");
    scene.model.acknowledged(cleared, 1, 0);
    let floor = scene.model.retained_floor();
    assert!(!scene.model.is_retained(1, floor[1]));
    scene.model.retained("reader", &floor, "r", &new);
    assert_eq!(scene.kinds(), [Kind::Stale; 2]);
}
