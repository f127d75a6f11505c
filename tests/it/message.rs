//! Messages and subscriptions: what is passed through, what is merged, what is retained, what expires.

use std::time::Duration;

use super::support::{
    Broker, Connect, Message, Prop, Publish, Server, id, with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    every_qos_meets_every_qos,
    every_version_hears_every_version,
    properties_pass_through,
    filters_match_as_the_standard_says,
    overlapping_filters_deliver_once,
    a_subscription_replaces_its_like,
    subscription_identifiers_come_back,
    no_local_keeps_it_from_the_sender,
    unsubscribe_ends_it,
    a_publisher_hears_that_nobody_listens,
    retained_messages_meet_new_subscribers,
    retain_handling_decides,
    retain_as_published_keeps_the_flag,
    a_message_expires_in_a_queue,
    a_retained_message_expires,
    large_messages_arrive_whole,
    many_subscriptions_come_and_go,
);

fn every_qos_meets_every_qos(reactors: usize) {
    let server = Server::start(reactors);
    for version in [3, 4, 5] {
        let mut publisher = server.client(version, "publisher");
        for granted in 0..3 {
            let mut subscriber = server.client(version, &format!("subscriber-{granted}"));
            subscriber.subscribe("qos/+", granted);
            for qos in 0..3 {
                publisher.publish("qos/x", b"m", qos);
                let message = subscriber.take();
                assert_eq!(
                    (
                        message.qos,
                        message.topic.as_str(),
                        message.retain,
                        message.dup
                    ),
                    (qos.min(granted), "qos/x", false, false)
                );
            }
            subscriber.disconnect();
        }
    }
}

fn every_version_hears_every_version(reactors: usize) {
    let server = Server::start(reactors);
    let mut subscribers: Vec<_> = [3, 4, 5]
        .iter()
        .flat_map(|version| {
            (0..4)
                .map(|n| server.client(*version, &format!("hears-{version}-{n}")))
                .collect::<Vec<_>>()
        })
        .collect();
    subscribers
        .iter_mut()
        .for_each(|client| client.subscribe("versions", 1));
    for version in [3, 4, 5] {
        let mut publisher = server.client(version, "speaks");
        publisher.publish("versions", &[version], 2);
        for client in &mut subscribers {
            assert_eq!(client.take().payload, [version]);
        }
    }
}

fn properties_pass_through(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let mut old = server.client(4, "old");
    old.subscribe("props", 1);
    let props = [
        Prop::Pair("first", "1"),
        Prop::Byte(id::PAYLOAD_FORMAT, 1),
        Prop::Pair("second", ""),
        Prop::Text(id::CONTENT_TYPE, "text/plain"),
        Prop::Two(id::ALIAS, 1),
        Prop::Text(id::RESPONSE_TOPIC, "answers/here"),
        Prop::Pair("first", "again"),
        Prop::Text(id::CORRELATION_DATA, "\u{0}\u{1}binary"),
        Prop::Four(id::MESSAGE_EXPIRY, 1000),
    ];
    for n in 0..4 {
        let mut subscriber = server.client(5, &format!("subscriber-{n}"));
        subscriber.subscribe("props", 1);
        publisher.publish_all(Publish {
            topic: "props",
            payload: "grüße".as_bytes(),
            qos: 1,
            props: &props,
            ..Publish::default()
        });
        let message = subscriber.take();
        assert_eq!(message.props.int(id::PAYLOAD_FORMAT), Some(1));
        assert_eq!(
            message.props.bytes(id::CONTENT_TYPE),
            Some(b"text/plain".as_slice())
        );
        assert_eq!(
            message.props.bytes(id::RESPONSE_TOPIC),
            Some(b"answers/here".as_slice())
        );
        assert_eq!(
            message.props.bytes(id::CORRELATION_DATA),
            Some(b"\0\x01binary".as_slice())
        );
        assert_eq!(
            message.props.pairs(),
            [("first", "1"), ("second", ""), ("first", "again")],
            "all of them, in order (MQTT-3.3.2-18)"
        );
        assert!(matches!(
            message.props.int(id::MESSAGE_EXPIRY),
            Some(998..=1000)
        ));
        assert_eq!(
            message.props.int(id::ALIAS),
            None,
            "an alias ends with its own connection"
        );
        assert_eq!(old.take().text(), "grüße");
    }
}

fn filters_match_as_the_standard_says(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    // Filter, topics that match, topics that don't (section 4.7).
    let table: [(&str, &[&str], &[&str]); 11] = [
        (
            "sport/tennis/player1/#",
            &[
                "sport/tennis/player1",
                "sport/tennis/player1/ranking",
                "sport/tennis/player1/score/w",
            ],
            &["sport/tennis/player2"],
        ),
        ("sport/#", &["sport", "sport/"], &["sports"]),
        ("#", &["a", "/", "/a", "a/b/c"], &["$sys/a", "$x"]),
        (
            "sport/tennis/+",
            &["sport/tennis/player1", "sport/tennis/"],
            &["sport/tennis", "sport/tennis/player1/ranking"],
        ),
        ("sport/+", &["sport/", "sport/x"], &["sport"]),
        ("+/+", &["/finance", "a/b"], &["finance", "$x/y"]),
        ("/+", &["/finance"], &["finance", "/a/b"]),
        ("+", &["finance"], &["/finance", "$x"]),
        ("+/b/#", &["a/b", "a/b/c", "/b"], &["b", "$x/b"]),
        // Clients have no topics of their own that start with $ (section 4.7.2); the figures of the server have tests elsewhere.
        ("x/$y/+", &["x/$y/z", "x/$y/$z"], &["x/y/z"]),
        ("Case/ü/ ", &["Case/ü/ "], &["case/ü/ ", "Case/ü/"]),
    ];
    for (filter, yes, no) in table {
        let mut client = server.client(5, "matcher");
        client.subscribe(filter, 0);
        client.subscribe("the/end/of/it", 0);
        for topic in yes.iter().chain(no) {
            publisher.publish(topic, topic.as_bytes(), 1);
        }
        publisher.publish("the/end/of/it", b"end", 1);
        let got: Vec<_> = client
            .take_until(b"end")
            .into_iter()
            .map(|message| message.topic)
            .filter(|topic| topic != "the/end/of/it")
            .collect();
        assert_eq!(got, yes, "for filter {filter}");
        client.disconnect();
    }
}

fn overlapping_filters_deliver_once(reactors: usize) {
    if Broker::lacks("one delivery for overlapping filters with one QoS") {
        return;
    }
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    for version in [4, 5] {
        for n in 0..4 {
            let mut client = server.client(version, &format!("overlap-{n}"));
            for (filter, qos) in [("o/+/c", 0), ("o/b/c", 2), ("o/#", 1), ("#", 0)] {
                client.subscribe(filter, qos);
            }
            publisher.publish("o/b/c", b"one", 2);
            publisher.publish("o/x", b"two", 2);
            publisher.publish("p", b"end", 1);
            let got: Vec<_> = client
                .take_until(b"end")
                .iter()
                .map(|message| (message.text().to_owned(), message.qos))
                .collect();
            assert_eq!(
                got,
                [("one".to_owned(), 2), ("two".to_owned(), 1)],
                "once, at the highest QoS (MQTT-3.3.4-2)"
            );
            client.disconnect();
        }
    }
}

fn a_subscription_replaces_its_like(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    let mut client = server.client(5, "replaces");
    client.subscribe_with(&[("replace", 2)], &[Prop::Var(id::SUBSCRIPTION_ID, 1)]);
    client.subscribe_with(&[("replace", 0)], &[Prop::Var(id::SUBSCRIPTION_ID, 2)]);
    publisher.publish("replace", b"x", 2);
    publisher.publish("replace", b"end", 2);
    let got = client.take_until(b"end");
    assert_eq!(got.len(), 1);
    assert_eq!(
        (got[0].qos, got[0].props.ints(id::SUBSCRIPTION_ID)),
        (0, vec![2])
    );
}

fn subscription_identifiers_come_back(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    let mut client = server.client(5, "identified");
    client.subscribe_with(
        &[("i/a", 1), ("i/+", 1)],
        &[Prop::Var(id::SUBSCRIPTION_ID, 7)],
    );
    client.subscribe_with(
        &[("i/#", 1)],
        &[Prop::Var(id::SUBSCRIPTION_ID, 268_435_455)],
    );
    client.subscribe("i/b", 1);
    publisher.publish("i/a", b"a", 1);
    publisher.publish("i/b", b"b", 1);
    publisher.publish("i/c/d", b"c", 1);
    publisher.publish("i/e/f", b"end", 1);
    let ids = |message: &Message| {
        let mut ids = message.props.ints(id::SUBSCRIPTION_ID);
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    // A server may serve overlapping subscriptions once with all identifiers, or once for each (section 3.3.4).
    let mut seen = std::collections::BTreeMap::<String, Vec<u32>>::new();
    for message in client.take_until(b"end") {
        let all = seen.entry(message.text().to_owned()).or_default();
        all.extend(ids(&message));
        all.sort_unstable();
        all.dedup();
    }
    assert_eq!(seen["a"], [7, 268_435_455]);
    assert_eq!(seen["b"], [7, 268_435_455]);
    assert_eq!(seen["c"], [268_435_455]);
    // They belong to the session's subscription and go with it.
    client.unsubscribe(&["i/#"]);
    publisher.publish("i/a", b"after", 1);
    assert_eq!(ids(&client.take()), [7]);
}

fn no_local_keeps_it_from_the_sender(reactors: usize) {
    let server = Server::start(reactors);
    let mut other = server.client(5, "other");
    other.subscribe("local", 1);
    let mut client = server.client(5, "echo");
    assert_eq!(client.subscribe_with(&[("local", 0x04 | 1)], &[]), [1]);
    client.publish("local", b"mine", 1);
    other.publish("local", b"theirs", 1);
    assert_eq!(client.take().text(), "theirs");
    assert_eq!(other.take().text(), "mine");
    assert_eq!(other.take().text(), "theirs");
    // A will is published by the server, but on behalf of that client (MQTT-3.8.3-3 speaks of the publishing client).
    client.disconnect();
}

fn unsubscribe_ends_it(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    for version in [3, 4, 5] {
        let mut client = server.client(version, "leaves");
        client.subscribe("leave/a", 1);
        client.subscribe("leave/+", 1);
        client.subscribe("stay", 1);
        let codes = client.unsubscribe(&["leave/a", "leave/+", "never"]);
        if version == 5 {
            assert_eq!(codes, [0, 0, 0x11]);
        }
        publisher.publish("leave/a", b"x", 1);
        publisher.publish("stay", b"end", 1);
        assert!(client.take_until(b"end").is_empty());
        client.disconnect();
    }
}

fn a_publisher_hears_that_nobody_listens(reactors: usize) {
    if Broker::lacks("this with certainty") {
        return;
    }
    let server = Server::start(reactors);
    let mut client = server.client(5, "alone");
    // The standard lets a server say 0 here; one that says 0x10 must be right.
    let mut listener = server.client(5, "listener");
    listener.subscribe("somebody", 0);
    for qos in [1, 2] {
        assert_eq!(client.publish("somebody", b"x", qos), 0);
        assert!(matches!(client.publish("nobody", b"x", qos), 0 | 0x10));
    }
}

fn retained_messages_meet_new_subscribers(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    for n in 0..10 {
        publisher.retain(&format!("kept/{n}"), n.to_string().as_bytes(), n % 3);
    }
    publisher.retain("kept/3", b"newer", 1);
    publisher.retain("kept/4", b"", 1);
    let expected: Vec<String> = [0, 1, 2, 3, 5, 6, 7, 8, 9]
        .iter()
        .map(|n| {
            if *n == 3 {
                "newer".into()
            } else {
                n.to_string()
            }
        })
        .collect();
    for (version, filter) in [(4, "kept/+"), (5, "kept/#"), (3, "#")] {
        let mut client = server.client(version, &format!("late-{version}"));
        client.subscribe(filter, 1);
        let mut got: Vec<_> = (0..9).map(|_| client.take()).collect();
        assert!(
            got.iter().all(|message| message.retain),
            "RETAIN is set (MQTT-3.3.1-8)"
        );
        got.sort_by(|a, b| a.topic.cmp(&b.topic));
        assert_eq!(
            got.iter().map(|message| message.text()).collect::<Vec<_>>(),
            expected
        );
        // A live one comes without the flag (MQTT-3.3.1-12).
        publisher.retain("kept/9", b"9", 1);
        assert!(!client.take().retain);
        client.fence();
    }
    let mut exact = server.client(5, "exact");
    exact.subscribe("kept/7", 2);
    let message = exact.take();
    assert_eq!(
        (message.text(), message.retain, message.qos),
        ("7", true, 1)
    );
    // Removed: nobody hears it any more, live subscribers get the empty message.
    publisher.retain("kept/7", b"", 0);
    assert_eq!(exact.take().payload, b"");
    let mut later = server.client(5, "later");
    later.subscribe("kept/7", 2);
    publisher.publish("kept/7", b"end", 1);
    assert!(later.take_until(b"end").is_empty());
}

fn retain_handling_decides(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    for topic in ["handling/0", "handling/1", "handling/2"] {
        publisher.retain(topic, b"kept", 1);
    }
    let mut client = server.client(5, "handles");
    // Bits 4 and 5: 0 send, 1 send if the subscription is new, 2 don't.
    let mut ask = |handling: u8, publisher: &mut super::support::Client| {
        let filter = format!("handling/{handling}");
        client.subscribe_with(&[(&filter, handling << 4 | 1)], &[]);
        std::thread::sleep(Duration::from_millis(30));
        publisher.publish(&filter, b"end", 1);
        client.take_until(b"end").len()
    };
    assert_eq!((ask(0, &mut publisher), ask(0, &mut publisher)), (1, 1));
    assert_eq!((ask(1, &mut publisher), ask(1, &mut publisher)), (1, 0));
    assert_eq!((ask(2, &mut publisher), ask(2, &mut publisher)), (0, 0));
    // A shared subscription gets none (section 4.8.2).
    if Broker::lacks("this") {
        return;
    }
    client.subscribe("$share/g/handling/+", 1);
    publisher.publish("handling/0", b"end", 1);
    let got = client.take_until(b"end");
    assert!(got.iter().all(|message| !message.retain), "{got:?}");
}

fn retain_as_published_keeps_the_flag(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    let mut keeps = server.client(5, "keeps");
    keeps.subscribe_with(&[("flag", 0x08 | 1)], &[]);
    let mut clears = server.client(5, "clears");
    clears.subscribe("flag", 1);
    publisher.retain("flag", b"x", 1);
    publisher.publish("flag", b"y", 1);
    assert_eq!([keeps.take().retain, keeps.take().retain], [true, false]);
    assert_eq!([clears.take().retain, clears.take().retain], [false, false]);
}

fn a_message_expires_in_a_queue(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let connect = Connect {
        clean: false,
        props: &[Prop::Four(id::SESSION_EXPIRY, 600)],
        ..Connect::new(5, "sleeps")
    };
    let (mut client, _) = server.connect(&connect);
    client.subscribe("expiry", 1);
    client.disconnect();
    for (payload, expiry) in [
        ("short", 1),
        ("long", 100),
        ("short too", 1),
        ("long too", 200),
    ] {
        let props = [Prop::Four(id::MESSAGE_EXPIRY, expiry)];
        publisher.publish_all(Publish {
            topic: "expiry",
            payload: payload.as_bytes(),
            qos: 1,
            props: &props,
            ..Publish::default()
        });
    }
    publisher.publish("expiry", b"for ever", 1);
    std::thread::sleep(Duration::from_millis(2600));
    let (mut client, _) = server.connect(&connect);
    let mut left = Vec::new();
    for text in ["long", "long too", "for ever"] {
        let message = client.take();
        assert_eq!(message.text(), text);
        left.push(message.props.int(id::MESSAGE_EXPIRY));
    }
    assert!(
        matches!(left[0], Some(95..=98)),
        "what is left of it (MQTT-3.3.2-6): {left:?}"
    );
    assert!(matches!(left[1], Some(195..=198)), "{left:?}");
    assert_eq!(left[2], None);
}

fn a_retained_message_expires(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let props = [Prop::Four(id::MESSAGE_EXPIRY, 2)];
    publisher.publish_all(Publish {
        topic: "fades",
        payload: b"x",
        qos: 1,
        retain: true,
        props: &props,
        ..Publish::default()
    });
    let mut early = server.client(5, "early");
    early.subscribe("fades", 1);
    assert!(matches!(
        early.take().props.int(id::MESSAGE_EXPIRY),
        Some(0..=2)
    ));
    std::thread::sleep(Duration::from_millis(3500));
    let mut late = server.client(5, "late");
    late.subscribe("fades", 1);
    publisher.publish("fades", b"end", 1);
    assert!(late.take_until(b"end").is_empty());
}

fn large_messages_arrive_whole(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let mut subscribers: Vec<_> = (0..4)
        .map(|n| server.client(4 + n % 2, &format!("large-{n}")))
        .collect();
    subscribers
        .iter_mut()
        .for_each(|client| client.subscribe("large", 1));
    for len in [
        0, 1, 120, 127, 128, 129, 16_000, 16_384, 65_536, 200_000, 1_000_000,
    ] {
        let payload: Vec<u8> = (0..len).map(|n: u32| (n * 7 % 251) as u8).collect();
        publisher.publish("large", &payload, 1);
        for client in &mut subscribers {
            assert!(client.take().payload == payload, "{len} bytes");
        }
    }
}

fn many_subscriptions_come_and_go(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    let mut client = server.client(5, "churns");
    let mut seed = 0x2545_f491u32;
    let mut mine = std::collections::BTreeSet::new();
    for round in 0..60 {
        for _ in 0..20 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let filter = match seed >> 16 & 63 {
                n @ 0..=9 => format!("churn/{n}/+"),
                n => format!("churn/{n}/x"),
            };
            if mine.remove(&filter) {
                assert_eq!(client.unsubscribe(&[&filter]), [0]);
            } else {
                client.subscribe(&filter, 1);
                mine.insert(filter);
            }
        }
        let n = round % 64;
        let hit = mine.contains(&format!("churn/{n}/x")) || mine.contains(&format!("churn/{n}/+"));
        client.subscribe("churn/end", 1);
        publisher.publish(&format!("churn/{n}/x"), b"hit", 1);
        publisher.publish("churn/end", b"end", 1);
        assert_eq!(
            client.take_until(b"end").len(),
            usize::from(hit),
            "round {round}"
        );
    }
}
