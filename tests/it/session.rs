//! Sessions that outlive their connection: what is queued, what is sent again, what ends them.

use std::time::Duration;

use super::support::{
    Broker, Connect, Packet, Prop, Publish, Server, id, packet, with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    a_session_of_mqtt_3_keeps_its_messages,
    a_session_of_mqtt_5_keeps_its_messages,
    a_clean_start_forgets,
    a_session_without_expiry_ends_with_its_connection,
    a_session_expires,
    disconnect_may_change_the_expiry,
    a_full_queue_drops_the_oldest,
    unacknowledged_messages_come_again_in_order,
    a_release_goes_on_after_reconnect,
    a_duplicate_across_connections_is_delivered_once,
);

/// A connection whose session stays for an hour.
fn durable<'a>(version: u8, id: &'a str) -> Connect<'a> {
    Connect {
        clean: false,
        props: &[Prop::Four(id::SESSION_EXPIRY, 3600)],
        ..Connect::new(version, id)
    }
}

fn a_session_of_mqtt_3_keeps_its_messages(reactors: usize) {
    for version in [3, 4] {
        keeps_its_messages(reactors, version);
    }
}

fn a_session_of_mqtt_5_keeps_its_messages(reactors: usize) {
    keeps_its_messages(reactors, 5);
}

fn keeps_its_messages(reactors: usize, version: u8) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    for n in 0..6 {
        let name = format!("sleeper-{n}");
        let topic = format!("queue/{n}");
        let (mut client, present) = server.connect(&durable(version, &name));
        assert!(!present);
        client.subscribe(&topic, 2);
        if n % 2 == 0 {
            client.disconnect()
        } else {
            client.vanish()
        }
        // Until the server has seen that connection end, a message could still be on its way into it.
        std::thread::sleep(Duration::from_millis(50));
        for m in 0..10 {
            publisher.publish(&topic, m.to_string().as_bytes(), 1 + m % 2);
        }
        let (mut client, present) = server.connect(&durable(version, &name));
        // CONNACK of MQTT 3.1 has no place to say so.
        assert!(present || version == 3, "the session is there");
        for m in 0..10 {
            let message = client.take();
            assert_eq!(
                (message.text(), message.qos),
                (m.to_string().as_str(), 1 + m % 2)
            );
        }
        publisher.publish(&topic, b"live", 1);
        assert_eq!(
            client.take().text(),
            "live",
            "the subscription is still there"
        );
        client.disconnect();
        let (client, present) = server.connect(&Connect::new(version, &name));
        assert!(!present, "clean start ends the session");
        client.disconnect();
    }
}

fn a_clean_start_forgets(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let (mut client, _) = server.connect(&durable(5, "forgets"));
    client.subscribe("forget/me", 1);
    client.disconnect();
    publisher.publish("forget/me", b"old", 1);
    let (mut client, present) = server.connect(&Connect {
        clean: true,
        ..durable(5, "forgets")
    });
    assert!(!present);
    publisher.publish("forget/me", b"unheard", 1);
    client.subscribe("forget/me", 1);
    publisher.publish("forget/me", b"new", 1);
    assert_eq!(client.take().text(), "new");
}

fn a_session_without_expiry_ends_with_its_connection(reactors: usize) {
    let server = Server::start(reactors);
    let connect = Connect {
        clean: false,
        ..Connect::new(5, "short")
    };
    let (mut client, _) = server.connect(&connect);
    client.subscribe("a", 1);
    client.disconnect();
    let (_, present) = server.connect(&connect);
    assert!(!present);
}

fn a_session_expires(reactors: usize) {
    let server = Server::start(reactors);
    let connect = Connect {
        clean: false,
        props: &[Prop::Four(id::SESSION_EXPIRY, 1)],
        ..Connect::new(5, "one second")
    };
    let (client, _) = server.connect(&connect);
    client.vanish();
    std::thread::sleep(Duration::from_millis(100));
    let (client, present) = server.connect(&connect);
    assert!(present, "not yet");
    client.disconnect();
    std::thread::sleep(Duration::from_millis(3500));
    let (_, present) = server.connect(&connect);
    assert!(!present, "a second is over");
}

fn disconnect_may_change_the_expiry(reactors: usize) {
    let server = Server::start(reactors);
    let connect = Connect {
        clean: false,
        props: &[Prop::Four(id::SESSION_EXPIRY, 1)],
        ..Connect::new(5, "longer")
    };
    let (mut client, _) = server.connect(&connect);
    client.send(&packet::disconnect(
        5,
        0,
        &[Prop::Four(id::SESSION_EXPIRY, 600)],
    ));
    client.closes();
    std::thread::sleep(Duration::from_millis(3000));
    let (mut client, present) = server.connect(&connect);
    assert!(present, "it was made longer");
    client.send(&packet::disconnect(
        5,
        0,
        &[Prop::Four(id::SESSION_EXPIRY, 0)],
    ));
    client.closes();
    let (_, present) = server.connect(&connect);
    assert!(!present, "it was ended");
}

fn a_full_queue_drops_the_oldest(reactors: usize) {
    if Broker::lacks("this policy: it drops the newest") {
        return;
    }
    let server = Server::with(reactors, &[("queue_messages", 20), ("max_inflight", 5)]);
    let mut publisher = server.client(4, "publisher");
    let (mut client, _) = server.connect(&durable(4, "full"));
    client.subscribe("full", 1);
    client.disconnect();
    for n in 0..50 {
        assert_eq!(publisher.publish("full", n.to_string().as_bytes(), 1), 0);
    }
    let (mut client, present) = server.connect(&durable(4, "full"));
    assert!(present);
    publisher.publish("full", b"end", 1);
    let left: Vec<String> = client
        .take_until(b"end")
        .iter()
        .map(|message| message.text().to_owned())
        .collect();
    let newest: Vec<String> = (50 - left.len()..50).map(|n| n.to_string()).collect();
    assert_eq!(left, newest, "what is left are the newest, in order");
    assert!(
        (19..=25).contains(&left.len()),
        "{} are left of a queue of 20",
        left.len()
    );
}

fn unacknowledged_messages_come_again_in_order(reactors: usize) {
    let server = Server::start(reactors);
    for version in [4, 5] {
        let name = format!("again-{version}");
        let mut publisher = server.client(5, "publisher");
        let (mut client, _) = server.connect(&durable(version, &name));
        client.subscribe(&name, 2);
        for n in 0..8 {
            publisher.publish(&name, n.to_string().as_bytes(), 1 + n % 2);
        }
        let mut first = Vec::new();
        for n in 0..8 {
            let message = client.message();
            assert_eq!(message.text(), n.to_string());
            assert!(!message.dup);
            first.push(message.id);
        }
        // Only the third (QoS 1) is acknowledged.
        client.send(&packet::ack(4, first[2]));
        client.fence();
        client.vanish();
        std::thread::sleep(Duration::from_millis(50));
        publisher.publish(&name, b"later", 1);
        let (mut client, present) = server.connect(&durable(version, &name));
        assert!(present);
        for n in [0, 1, 3, 4, 5, 6, 7] {
            let message = client.message();
            assert_eq!(
                (message.text(), message.id, message.dup),
                (n.to_string().as_str(), first[n], true),
                "same order, same identifier, DUP"
            );
            client.settle(&message);
        }
        let message = client.take();
        assert_eq!((message.text(), message.dup), ("later", false));
        client.disconnect();
    }
}

fn a_release_goes_on_after_reconnect(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let (mut client, _) = server.connect(&durable(5, "release"));
    client.subscribe("release", 2);
    publisher.publish("release", b"x", 2);
    let message = client.message();
    client.send(&packet::ack(5, message.id));
    client.ack(6, message.id);
    client.vanish();
    std::thread::sleep(Duration::from_millis(50));
    let (mut client, present) = server.connect(&durable(5, "release"));
    assert!(present);
    // PUBREL comes again, not the message (MQTT-4.4.0-1).
    match client.next() {
        Packet::Ack { kind: 6, id, .. } => assert_eq!(id, message.id),
        other => panic!("{other:?}"),
    }
    client.send(&packet::ack(7, message.id));
    publisher.publish("release", b"y", 0);
    assert_eq!(client.take().text(), "y");
}

fn a_duplicate_across_connections_is_delivered_once(reactors: usize) {
    let server = Server::start(reactors);
    let mut subscriber = server.client(4, "subscriber");
    subscriber.subscribe("once", 2);
    for version in [4, 5] {
        let name = format!("dup-{version}");
        let (mut client, _) = server.connect(&durable(version, &name));
        let publish = Publish {
            topic: "once",
            payload: b"one",
            qos: 2,
            id: 77,
            ..Publish::default()
        };
        client.send(&publish.encode(version));
        client.ack(5, 77);
        client.vanish();
        std::thread::sleep(Duration::from_millis(50));
        let (mut client, present) = server.connect(&durable(version, &name));
        assert!(present);
        client.send(
            &Publish {
                dup: true,
                ..publish.clone()
            }
            .encode(version),
        );
        client.ack(5, 77);
        client.send(&packet::ack(6, 77));
        client.ack(7, 77);
        // The identifier is free again: the same bytes are a new message now.
        client.send(
            &Publish {
                payload: b"two",
                ..publish
            }
            .encode(version),
        );
        client.ack(5, 77);
        client.send(&packet::ack(6, 77));
        client.ack(7, 77);
        client.publish("once", b"end", 2);
        let got: Vec<_> = subscriber
            .take_until(b"end")
            .iter()
            .map(|message| message.text().to_owned())
            .collect();
        assert_eq!(got, ["one", "two"]);
        client.disconnect();
    }
}
