//! Windows and sizes: receive maximum, maximum packet size, topic aliases, each in both directions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::support::{
    Broker, Client, Connect, Message, Prop, Publish, Server, id, packet,
    with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    a_client_gets_no_more_than_its_receive_maximum,
    stray_acknowledgements_do_not_raise_the_window,
    the_server_limits_what_is_unacknowledged,
    a_release_before_its_time_frees_no_place,
    a_pubrec_with_an_error_ends_the_exchange,
    qos_2_is_delivered_once,
    what_is_delivered_at_qos_2_counts_no_more,
    a_packet_that_is_too_large_for_the_client_is_not_sent,
    what_is_too_large_for_the_client_holds_nothing_up,
    a_packet_that_is_too_large_for_the_server_is_refused,
    a_client_may_use_topic_aliases,
    the_server_uses_topic_aliases_only_as_allowed,
    every_split_point_gives_the_same,
    a_reason_string_is_left_out_on_request,
);

fn a_client_gets_no_more_than_its_receive_maximum(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    let (mut client, _) = server.connect(&Connect {
        props: &[Prop::Two(id::RECEIVE_MAXIMUM, 3)],
        ..Connect::new(5, "narrow")
    });
    client.subscribe("window", 2);
    for n in 0..12 {
        publisher.publish("window", n.to_string().as_bytes(), 1 + n % 2);
    }
    // A QoS 0 message is not held by the window.
    publisher.publish("window", b"free", 0);
    let mut waiting = Vec::new();
    let mut order = Vec::new();
    let mut free = false;
    while waiting.len() < 3 {
        let message = client.message();
        if message.qos == 0 {
            free = true
        } else {
            waiting.push(message)
        }
    }
    client.fence();
    client.stays_silent_but_for(&mut free);
    while !waiting.is_empty() {
        let message: Message = waiting.remove(0);
        order.push(message.text().to_owned());
        client.settle(&message);
        if order.len() + waiting.len() < 12 {
            loop {
                let message = client.message();
                if message.qos > 0 {
                    waiting.push(message);
                    break;
                }
            }
        }
        assert!(waiting.len() <= 3);
    }
    assert_eq!(order, (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
}

impl Client {
    /// Nothing comes but perhaps one message at QoS 0.
    fn stays_silent_but_for(&mut self, free: &mut bool) {
        use super::support::{Event, Packet};
        loop {
            match self.event(Duration::from_millis(200)) {
                Event::Nothing => return,
                Event::Packet(Packet::Publish(message)) if message.qos == 0 && !*free => {
                    *free = true
                }
                other => panic!("more than the window allows: {other:?}"),
            }
        }
    }
}

fn stray_acknowledgements_do_not_raise_the_window(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    // MQTT 5 lets a server end a client that acknowledges what it never got; 3.1.1 has no way to say so and goes on.
    let mut client = server.client(4, "strays");
    client.subscribe("strays", 1);
    for n in 1..200u16 {
        client.send(&packet::ack(4, 10_000 + n));
        client.send(&packet::ack(7, 20_000 + n));
    }
    client.fence();
    for n in 0..100 {
        publisher.publish("strays", n.to_string().as_bytes(), 1);
    }
    publisher.fence();
    std::thread::sleep(Duration::from_millis(200));
    client.fence();
    let mut held = Vec::new();
    while let super::support::Event::Packet(super::support::Packet::Publish(message)) =
        client.event(Duration::from_millis(300))
    {
        held.push(message);
    }
    if Broker::under_test() == Broker::Stillwire {
        assert!(
            held.len() <= 32,
            "{} messages in flight, max_inflight is 32",
            held.len()
        );
    }
    assert!(!held.is_empty());
    for message in &held {
        client.settle(message);
    }
    for n in held.len()..100 {
        assert_eq!(client.take().text(), n.to_string());
    }
}

fn the_server_limits_what_is_unacknowledged(reactors: usize) {
    if Broker::lacks("0x93, it answers PUBREC 0x97") {
        return;
    }
    let server = Server::with(reactors, &[("receive_maximum", 4)]);
    let mut client = server.open(5);
    let (_, _, props) = client.connack(&Connect::new(5, "floods"));
    let limit = props.int(id::RECEIVE_MAXIMUM).unwrap_or(65_535) as u16;
    for n in 1..=limit {
        client.send(
            &Publish {
                topic: "never/released",
                payload: b"x",
                qos: 2,
                id: n,
                ..Publish::default()
            }
            .encode(5),
        );
    }
    for n in 1..=limit {
        let code = client.ack(5, n);
        assert!(code == 0 || code == 0x10, "{code:02x}");
    }
    client.fence();
    client.send(
        &Publish {
            topic: "never/released",
            payload: b"x",
            qos: 2,
            id: limit + 1,
            ..Publish::default()
        }
        .encode(5),
    );
    assert_eq!(client.closes(), Some(0x93), "receive maximum exceeded");
}

fn a_release_before_its_time_frees_no_place(reactors: usize) {
    if Broker::lacks("acknowledgements that wait for a full queue") {
        return;
    }
    let server = Server::with(reactors, &[("receive_maximum", 4), ("queue_messages", 1)]);
    let mut deaf = server.client(5, "deaf");
    deaf.subscribe("full", 2);
    let mut client = server.client(5, "hasty");
    // Some are in flight and one is queued; the others wait for that queue.
    for _ in 0..100 {
        client.send(
            &Publish {
                topic: "full",
                payload: b"x",
                qos: 2,
                id: 1,
                ..Publish::default()
            }
            .encode(5),
        );
        client.send(&packet::ack(6, 1));
    }
    assert_eq!(client.closes(), Some(0x93), "receive maximum exceeded");
}

fn a_pubrec_with_an_error_ends_the_exchange(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    let (mut client, _) = server.connect(&Connect {
        props: &[Prop::Two(id::RECEIVE_MAXIMUM, 1)],
        ..Connect::new(5, "declines")
    });
    client.subscribe("declines", 2);
    for n in 0..5 {
        publisher.publish("declines", n.to_string().as_bytes(), 2);
    }
    for n in 0..5 {
        let message = client.message();
        assert_eq!(message.text(), n.to_string());
        client.send(&packet::ack_with(5, message.id, 0x97));
    }
    client.fence();
}

fn qos_2_is_delivered_once(reactors: usize) {
    if Broker::lacks("patience with a third copy") {
        return;
    }
    let server = Server::start(reactors);
    let mut subscriber = server.client(5, "subscriber");
    subscriber.subscribe("exactly", 2);
    for version in [3, 4, 5] {
        let mut client = server.client(version, "repeats");
        let publish = Publish {
            topic: "exactly",
            payload: b"one",
            qos: 2,
            id: 9,
            ..Publish::default()
        };
        // The first two at once: a copy that comes while the first is still on its way to other reactors may share its PUBREC.
        client.send(&publish.encode(version));
        let again = Publish {
            dup: true,
            ..publish.clone()
        };
        client.send(&again.encode(version));
        client.ack(5, 9);
        for _ in 0..3 {
            client.send(&again.encode(version));
            client.ack(5, 9);
        }
        for _ in 0..3 {
            client.send(&packet::ack(6, 9));
        }
        assert_eq!(client.ack(7, 9), 0);
        client.ack(7, 9);
        client.ack(7, 9);
        client.publish("exactly", b"end", 2);
        assert_eq!(subscriber.take_until(b"end").len(), 1);
    }
}

fn a_packet_that_is_too_large_for_the_client_is_not_sent(reactors: usize) {
    if Broker::lacks("a maximum packet size that counts its own properties") {
        return;
    }
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let (mut small, _) = server.connect(&Connect {
        props: &[Prop::Four(id::MAXIMUM_PACKET, 100)],
        ..Connect::new(5, "small")
    });
    let mut large = server.client(5, "large");
    for client in [&mut small, &mut large] {
        client.subscribe_with(
            &[("size", 1)],
            &[Prop::Var(id::SUBSCRIPTION_ID, 268_435_455)],
        );
    }
    // 100 bytes exactly for `small`: 2 + 2 + 4 + 2 + 1 + 5 + payload of 84; the subscription identifier is the server's own addition.
    for (qos, len) in [(1, 200), (1, 84), (1, 85), (0, 86), (0, 86), (0, 87)] {
        assert!(publisher.publish("size", &vec![b'.'; len], qos) < 0x80);
    }
    publisher.publish("size", b"end", 1);
    let got: Vec<_> = small
        .take_until(b"end")
        .iter()
        .map(|message| message.payload.len())
        .collect();
    assert_eq!(got, [84, 86, 86], "what fits, to the byte (MQTT-3.1.2-24)");
    assert_eq!(large.take_until(b"end").len(), 6);
    small.fence();
    // Nothing of the window is used up by what was dropped.
    for n in 0..200 {
        publisher.publish("size", &[b'.'; 300], 1);
        if n % 50 == 0 {
            publisher.publish("size", b"end", 1);
            assert!(small.take_until(b"end").is_empty());
        }
        large.take();
        if n % 50 == 0 {
            large.take();
        }
    }
}

/// Many times as much as may be queued goes through a queue.
fn what_is_delivered_at_qos_2_counts_no_more(reactors: usize) {
    if Broker::lacks("a bound on all queues") {
        return;
    }
    let server = Server::with(reactors, &[("max_queued_bytes", 4096)]);
    let (mut client, _) = server.connect(&Connect {
        clean: false,
        props: &[Prop::Four(id::SESSION_EXPIRY, 3600)],
        ..Connect::new(5, "receiver")
    });
    client.subscribe("much", 2);
    let mut publisher = server.client(5, "publisher");
    for _ in 0..50 {
        assert_eq!(publisher.publish("much", &[b'.'; 500], 2), 0);
        assert_eq!(client.take().payload.len(), 500);
    }
}

/// In a queue that outlives the connection, while another message is in flight.
fn what_is_too_large_for_the_client_holds_nothing_up(reactors: usize) {
    if Broker::lacks("a bound on what waits for a connected client") {
        return;
    }
    let server = Server::with(reactors, &[("queue_messages", 1)]);
    let mut publisher = server.client(5, "publisher");
    // With room in the window: the one behind it comes, though the one before it is not acknowledged.
    let (mut wide, _) = server.connect(&Connect {
        clean: false,
        props: &[
            Prop::Four(id::SESSION_EXPIRY, 3600),
            Prop::Four(id::MAXIMUM_PACKET, 100),
        ],
        ..Connect::new(5, "wide")
    });
    wide.subscribe("wide", 1);
    publisher.publish("wide", b"first", 1);
    let first = wide.message();
    publisher.publish("wide", &[b'.'; 200], 1);
    publisher.publish("wide", b"last", 1);
    assert_eq!(wide.message().text(), "last");
    assert_eq!(first.text(), "first");
    // With none: the one behind it, which its publisher waited for, comes when there is.
    let (mut narrow, _) = server.connect(&Connect {
        clean: false,
        props: &[
            Prop::Four(id::SESSION_EXPIRY, 3600),
            Prop::Four(id::MAXIMUM_PACKET, 100),
            Prop::Two(id::RECEIVE_MAXIMUM, 1),
        ],
        ..Connect::new(5, "narrow")
    });
    narrow.subscribe("narrow", 1);
    for payload in [&b"first"[..], &[b'.'; 200], b"last"] {
        let publish = Publish {
            topic: "narrow",
            payload,
            qos: 1,
            id: publisher.id(),
            ..Publish::default()
        };
        publisher.send(&publish.encode(5));
    }
    publisher.fence();
    assert_eq!(narrow.take().text(), "first");
    assert_eq!(narrow.take().text(), "last");
}

fn a_packet_that_is_too_large_for_the_server_is_refused(reactors: usize) {
    if Broker::lacks("a maximum packet size that counts the header") {
        return;
    }
    let server = Server::with(
        reactors,
        &[("max_packet_size", 2000), ("max_connect_size", 2000)],
    );
    let mut client = server.client(5, "fits");
    client.subscribe("fits", 0);
    // 1 + 2 + 2 + 4 + 1 + payload = 2000
    client.publish("fits", &[b'x'; 1990], 0);
    assert_eq!(client.take().payload.len(), 1990);
    client.publish("fits", &[b'x'; 1991], 0);
    let code = client.closes();
    if Broker::under_test() == Broker::Stillwire {
        assert_eq!(code, Some(0x95));
    }
    let mut client = server.client(4, "fits");
    client.publish("fits", &[b'x'; 1992], 0);
    assert_eq!(client.closes(), None);
}

fn a_client_may_use_topic_aliases(reactors: usize) {
    let server = Server::start(reactors);
    let mut subscriber = server.client(4, "subscriber");
    subscriber.subscribe("alias/#", 2);
    let mut client = server.client(5, "aliases");
    let set = |topic: &'static str, alias: u16| (topic, alias);
    let steps = [
        set("alias/a", 1),
        set("", 1),
        set("alias/b", 2),
        set("", 1),
        set("", 2),
        set("alias/c", 1),
        set("", 1),
        set("", 2),
    ];
    for (n, (topic, alias)) in steps.into_iter().enumerate() {
        let payload = n.to_string();
        let props = [Prop::Two(id::ALIAS, alias)];
        assert_eq!(
            client.publish_all(Publish {
                topic,
                payload: payload.as_bytes(),
                qos: (n % 3) as u8,
                props: &props,
                ..Publish::default()
            }),
            0
        );
    }
    let got: Vec<_> = (0..steps.len()).map(|_| subscriber.take().topic).collect();
    assert_eq!(
        got,
        [
            "alias/a", "alias/a", "alias/b", "alias/a", "alias/b", "alias/c", "alias/c", "alias/b"
        ]
    );
    // Aliases end with the connection.
    let mut client = server.client(5, "aliases");
    client.send(
        &Publish {
            topic: "",
            payload: b"x",
            props: &[Prop::Two(id::ALIAS, 1)],
            ..Publish::default()
        }
        .encode(5),
    );
    assert!(matches!(client.closes(), Some(0x82 | 0x94)));
}

fn the_server_uses_topic_aliases_only_as_allowed(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    for maximum in [0u16, 2] {
        let (mut client, _) = server.connect(&Connect {
            props: &[Prop::Two(id::ALIAS_MAXIMUM, maximum)],
            ..Connect::new(5, "hears aliases")
        });
        client.subscribe("out/#", 1);
        let mut aliases: BTreeMap<u32, String> = BTreeMap::new();
        let mut used = 0;
        for n in 0..60 {
            let topic = format!("out/{}", [1, 1, 2, 3, 1, 2][n % 6]);
            publisher.publish(&topic, n.to_string().as_bytes(), (n % 2) as u8);
            let message = client.take();
            assert_eq!(message.text(), n.to_string());
            let alias = message.props.int(id::ALIAS);
            if let Some(alias) = alias {
                used += 1;
                assert!(
                    alias >= 1 && alias <= u32::from(maximum),
                    "alias {alias} of {maximum}"
                );
                if !message.topic.is_empty() {
                    aliases.insert(alias, message.topic.clone());
                }
            }
            let resolved = if message.topic.is_empty() {
                aliases[&alias.expect("a topic or an alias")].clone()
            } else {
                message.topic
            };
            assert_eq!(resolved, topic);
        }
        println!("{used} of 60 messages had an alias at a maximum of {maximum}");
        if maximum > 0 && Broker::under_test() == Broker::Stillwire {
            assert!(used > 0, "topic aliases both ways");
        }
    }
}

fn every_split_point_gives_the_same(reactors: usize) {
    let server = Server::start(reactors);
    for version in [3, 4, 5] {
        let mut bytes = Connect::new(version, "split").encode();
        bytes.extend(packet::subscribe(version, 1, &[("split/+", 1)], &[]));
        bytes.extend(
            Publish {
                topic: "split/a",
                payload: b"first",
                ..Publish::default()
            }
            .encode(version),
        );
        bytes.extend(
            Publish {
                topic: "split/b",
                payload: b"second",
                qos: 1,
                id: 2,
                ..Publish::default()
            }
            .encode(version),
        );
        bytes.extend(
            Publish {
                topic: "split/c",
                payload: b"third",
                qos: 2,
                id: 3,
                ..Publish::default()
            }
            .encode(version),
        );
        bytes.extend(packet::ack(6, 3));
        bytes.extend(packet::PINGREQ);
        for at in 1..bytes.len() {
            let mut client = server.open(version);
            client.send(&bytes[..at]);
            // A segment of its own: the first part is on its way before the second is written.
            std::thread::sleep(Duration::from_millis(1));
            client.send(&bytes[at..]);
            for text in ["first", "second", "third"] {
                assert_eq!(
                    client.message().text(),
                    text,
                    "version {version}, split at {at}"
                );
            }
            client.ack(4, 2);
            client.ack(5, 3);
            client.ack(7, 3);
        }
    }
}

fn a_reason_string_is_left_out_on_request(reactors: usize) {
    let server = Server::start(reactors);
    let connect = Connect {
        props: &[Prop::Byte(id::REQUEST_PROBLEM, 0)],
        ..Connect::new(5, "terse")
    };
    let (mut client, _) = server.connect(&connect);
    client.send(&packet::ack(6, 5));
    match client.next() {
        super::support::Packet::Ack {
            kind: 7,
            code: 0x92,
            props,
            ..
        } => assert!(props.0.is_empty(), "{props:?}"),
        other if Broker::under_test() == Broker::Mosquitto => println!("{other:?}"),
        other => panic!("{other:?}"),
    }
    client.unsubscribe(&["nothing"]);
}
