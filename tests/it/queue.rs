//! What the queue of a durable session holds at most, and what becomes of the rest.

use std::time::Duration;

use super::durable::{Place, lacks, lasting, sleeper};
use super::support::{
    Client, Event, PATIENCE, Packet, Publish, Server, with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    what_waited_too_long_is_dropped,
    the_oldest_give_way,
    the_newest_give_way,
    the_publisher_is_refused,
    all_queues_together_are_limited_by_count,
    all_queues_together_are_limited_by_bytes,
);

fn place(reactors: usize, policy: &'static str, mqtt: &[(&'static str, u64)]) -> Place {
    let mut place = Place::new(reactors);
    place.queue_full = Some(policy);
    place.mqtt = mqtt.to_vec();
    place.mqtt.push(("sys_interval", 1));
    place
}

/// Waits until the server says that so many were dropped for this reason.
fn has_dropped(server: &Server, why: &str, count: u32) {
    let mut client = server.client(5, "counts");
    client.subscribe(&format!("$SYS/broker/dropped/{why}"), 0);
    while client.take().text() != count.to_string() {}
}

/// The texts of all messages that a session has, which are acknowledged.
pub(super) fn contents(server: &Server, name: &str) -> Vec<String> {
    let (mut client, present) = server.connect(&lasting(5, name));
    assert!(present);
    let mut got = Vec::new();
    loop {
        // What the window has room for is sent before the answer to a ping.
        client.fence();
        let before = got.len();
        while let Event::Packet(packet) = client.event(Duration::ZERO) {
            let Packet::Publish(message) = packet else {
                panic!("{packet:?}");
            };
            client.settle(&message);
            got.push(message.text().to_owned());
        }
        if got.len() == before {
            client.disconnect();
            return got;
        }
    }
}

/// Publishes numbers at QoS 1 and 2 by turns, and tells what became of each.
fn publish(publisher: &mut Client, topic: &str, numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers
        .map(|n| publisher.publish(topic, n.to_string().as_bytes(), 1 + (n % 2) as u8))
        .collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// An MQTT 3 client that publishes what is refused: it is closed without an acknowledgement.
pub(super) fn is_closed_unacknowledged(server: &Server, topic: &str, payload: &[u8]) {
    let mut old = server.client(4, "old publisher");
    let publish = Publish {
        topic,
        payload,
        qos: 1,
        id: 7,
        ..Publish::default()
    };
    old.send(&publish.encode(4));
    loop {
        match old.event(PATIENCE) {
            Event::Closed => return,
            Event::Packet(Packet::Ack { .. }) => panic!("a refused message is acknowledged"),
            Event::Packet(_) => {}
            Event::Nothing => panic!("the connection stays open"),
        }
    }
}

fn what_waited_too_long_is_dropped(reactors: usize) {
    if lacks() {
        return;
    }
    let place = place(reactors, "drop-oldest", &[("queue_age", 1)]);
    let server = place.start();
    for name in ["stays", "starts"] {
        sleeper(&server, 5, name, name);
        let mut publisher = server.client(5, "publisher");
        assert_eq!(publish(&mut publisher, name, 0..3), [0; 3]);
    }
    // Its age is counted in seconds of the clock, so it is over when one has passed.
    std::thread::sleep(Duration::from_millis(1100));
    let is_gone = |server: &Server, name| {
        let (mut client, present) = server.connect(&lasting(5, name));
        assert!(present);
        server.client(5, "publisher").publish(name, b"live", 1);
        assert_eq!(client.take().text(), "live", "what is too old never comes");
        client.disconnect();
        has_dropped(server, "expired", 3);
    };
    is_gone(&server, "stays");
    let server = place.kill_and_start(server);
    is_gone(&server, "starts");
}

fn the_oldest_give_way(reactors: usize) {
    one_queue_is_full(reactors, "drop-oldest", 3..8);
}

fn the_newest_give_way(reactors: usize) {
    one_queue_is_full(reactors, "drop-newest", 0..5);
}

/// Eight messages come to a queue for five.
fn one_queue_is_full(reactors: usize, policy: &'static str, left: std::ops::Range<u32>) {
    if lacks() {
        return;
    }
    let place = place(reactors, policy, &[("queue_messages", 5)]);
    let server = place.start();
    for name in ["stays", "starts"] {
        sleeper(&server, 5, name, name);
        let mut publisher = server.client(5, "publisher");
        assert_eq!(publish(&mut publisher, name, 0..8), [0; 8]);
    }
    has_dropped(&server, "queue", 6);
    assert_eq!(contents(&server, "stays"), numbers(left.clone()));
    let server = place.kill_and_start(server);
    assert_eq!(contents(&server, "starts"), numbers(left));
    assert_eq!(contents(&server, "stays"), numbers(0..0));
}

fn the_publisher_is_refused(reactors: usize) {
    if lacks() {
        return;
    }
    let place = place(reactors, "refuse", &[("queue_messages", 5)]);
    let server = place.start();
    sleeper(&server, 5, "narrow", "narrow");
    let mut publisher = server.client(5, "publisher");
    assert_eq!(publish(&mut publisher, "narrow", 0..5), [0; 5]);
    assert_eq!(publish(&mut publisher, "narrow", 5..8), [0x97; 3]);
    is_closed_unacknowledged(&server, "narrow", b"8");
    has_dropped(&server, "queue", 4);
    let server = place.kill_and_start(server);
    let mut publisher = server.client(5, "publisher");
    assert_eq!(publish(&mut publisher, "narrow", 9..10), [0x97]);
    assert_eq!(contents(&server, "narrow"), numbers(0..5));
    assert_eq!(publish(&mut publisher, "narrow", 10..15), [0; 5]);
    assert_eq!(contents(&server, "narrow"), numbers(10..15));
}

fn all_queues_together_are_limited_by_count(reactors: usize) {
    if lacks() {
        return;
    }
    let place = place(reactors, "drop-oldest", &[("max_queued", 10)]);
    let server = place.start();
    for name in ["first", "second", "third"] {
        sleeper(&server, 5, name, name);
    }
    let mut publisher = server.client(5, "publisher");
    assert_eq!(publish(&mut publisher, "first", 0..6), [0; 6]);
    assert_eq!(publish(&mut publisher, "second", 0..4), [0; 4]);
    // Nobody loses what he has to another: a queue that has nothing to give takes nothing.
    assert_eq!(publish(&mut publisher, "third", 0..1), [0x97]);
    assert_eq!(publish(&mut publisher, "first", 6..8), [0; 2]);
    let server = place.kill_and_start(server);
    let mut publisher = server.client(5, "publisher");
    assert_eq!(publish(&mut publisher, "third", 1..2), [0x97]);
    assert_eq!(contents(&server, "first"), numbers(2..8));
    assert_eq!(publish(&mut publisher, "third", 2..8), [0; 6]);
    assert_eq!(publish(&mut publisher, "first", 8..9), [0x97]);
    assert_eq!(contents(&server, "second"), numbers(0..4));
    assert_eq!(contents(&server, "third"), numbers(2..8));
}

fn all_queues_together_are_limited_by_bytes(reactors: usize) {
    if lacks() {
        return;
    }
    let place = place(reactors, "refuse", &[("max_queued_bytes", 8192)]);
    let server = place.start();
    for name in ["first", "second"] {
        sleeper(&server, 5, name, name);
    }
    let fill = |server: &Server, topic: &str| {
        let mut publisher = server.client(5, "publisher");
        let taken = (0..20)
            .take_while(|_| publisher.publish(topic, &[b'x'; 1000], 1) == 0)
            .count();
        (taken, publisher.publish(topic, &[b'x'; 1000], 1))
    };
    // Eight kilobytes are seven of one, with what is written around each.
    assert_eq!(fill(&server, "first"), (7, 0x97));
    assert_eq!(fill(&server, "second"), (0, 0x97));
    let server = place.kill_and_start(server);
    assert_eq!(
        fill(&server, "second"),
        (0, 0x97),
        "counted again at a start"
    );
    assert_eq!(contents(&server, "first").len(), 7);
    assert_eq!(fill(&server, "second"), (7, 0x97));
    assert_eq!(contents(&server, "second").len(), 7);
}

/// Most messages are small, and so are the files that are prepared for them: one is always there for the largest.
#[test]
fn a_message_as_large_as_a_packet_may_be_is_stored() {
    if lacks() {
        return;
    }
    let size = 100 << 20;
    let place = place(1, "refuse", &[("max_packet_size", size)]);
    let server = place.start();
    sleeper(&server, 5, "large", "large");
    let payload = vec![b'x'; size as usize - 100];
    let mut publisher = server.client(5, "publisher");
    assert_eq!(publisher.publish("large", &payload, 1), 0);
    let server = place.kill_and_start(server);
    let (mut client, present) = server.connect(&lasting(5, "large"));
    assert!(present);
    assert!(client.take().payload == payload);
    client.fence();
}
