//! What this server has of its own: `$SYS` figures, the inbox, limits of its configuration.

use super::support::{
    Broker, Connect, Event, Packet, Prop, Server, id, with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    sys_topics_tell_the_figures,
    nobody_publishes_to_sys,
    an_inbox_needs_no_subscription,
    an_inbox_keeps_for_who_is_away,
    an_inbox_is_nobody_elses,
    subscriptions_are_limited,
    filters_have_few_levels,
    retained_messages_are_limited,
    sessions_are_limited,
);

fn sys_topics_tell_the_figures(reactors: usize) {
    let server = Server::with(reactors, &[("sys_interval", 1)]);
    let _others: Vec<_> = (0..5)
        .map(|n| server.client(4, &format!("other-{n}")))
        .collect();
    let mut client = server.client(5, "reads figures");
    client.subscribe("$SYS/#", 0);
    let mut seen = std::collections::BTreeMap::new();
    loop {
        let message = client.take();
        assert!(
            message.topic.starts_with("$SYS/broker/"),
            "{}",
            message.topic
        );
        seen.insert(message.topic.clone(), message.text().to_owned());
        if seen
            .get("$SYS/broker/clients/connected")
            .is_some_and(|count| count == "6")
            && seen.len() >= 8
        {
            break;
        }
    }
    println!("{seen:#?}");
    for topic in [
        "version",
        "uptime",
        "messages/received",
        "messages/sent",
        "bytes/received",
        "bytes/sent",
    ] {
        let topic = format!("$SYS/broker/{topic}");
        while !seen.contains_key(&topic) {
            let message = client.take();
            seen.insert(message.topic.clone(), message.text().to_owned());
            assert!(seen.len() < 1000, "{topic} never comes: {seen:?}");
        }
    }
    // `#` doesn't include them (MQTT-4.7.2-1).
    let mut all = server.client(5, "all");
    all.subscribe("#", 0);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    all.publish("end", b"end", 0);
    assert!(all.take_until(b"end").is_empty());
}

fn nobody_publishes_to_sys(reactors: usize) {
    if Broker::lacks("this guard without an ACL") {
        return;
    }
    let server = Server::with(reactors, &[("sys_interval", 0)]);
    let mut client = server.client(5, "reads");
    client.subscribe("$SYS/#", 1);
    client.subscribe("end", 1);
    let mut forger = server.client(4, "forges");
    forger.publish("$SYS/broker/uptime", b"forged", 0);
    forger.vanish();
    let mut other = server.client(4, "other");
    other.publish("end", b"end", 1);
    let got = client.take_until(b"end");
    assert!(
        got.iter().all(|message| message.text() != "forged"),
        "{got:?}"
    );
}

fn an_inbox_needs_no_subscription(reactors: usize) {
    if Broker::lacks("inboxes") {
        return;
    }
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    for n in 0..6 {
        let name = format!("phone-{n}");
        let mut phone = server.client(if n % 2 == 0 { 5 } else { 4 }, &name);
        for qos in 0..3 {
            let topic = format!("$inbox/{name}/news/{qos}");
            assert_eq!(publisher.publish(&topic, b"for you", qos), 0);
            let message = phone.take();
            assert_eq!(
                (message.topic.as_str(), message.text(), message.qos),
                (topic.as_str(), "for you", qos)
            );
        }
    }
}

fn an_inbox_keeps_for_who_is_away(reactors: usize) {
    if Broker::lacks("inboxes") {
        return;
    }
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    for n in 0..4 {
        let name = format!("phone-{n}");
        let connect = Connect {
            clean: false,
            props: &[Prop::Four(id::SESSION_EXPIRY, 600)],
            ..Connect::new(5, &name)
        };
        server.connect(&connect).0.disconnect();
        for m in 0..5 {
            publisher.publish(&format!("$inbox/{name}/m"), m.to_string().as_bytes(), 1);
        }
        let (mut phone, present) = server.connect(&connect);
        assert!(present);
        for m in 0..5 {
            assert_eq!(phone.take().text(), m.to_string());
        }
    }
    // Nobody of that name: said so where the version can say it, no harm elsewhere.
    let code = publisher.publish("$inbox/nobody/m", b"x", 1);
    assert!(matches!(code, 0 | 0x10), "{code:02x}");
}

fn an_inbox_is_nobody_elses(reactors: usize) {
    if Broker::lacks("inboxes") {
        return;
    }
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let mut owner = server.client(5, "owner");
    let mut thief = server.client(5, "thief");
    thief.subscribe("#", 1);
    thief.subscribe("+/#", 1);
    // Refused or without effect.
    for filter in [
        "$inbox/owner/#",
        "$inbox/#",
        "$inbox/+/secret",
        "$inbox/owner/secret",
        "$share/g/$inbox/owner/#",
    ] {
        thief.subscribe_with(&[(filter, 1)], &[]);
    }
    publisher.publish("$inbox/owner/secret", b"secret", 1);
    publisher.publish("end", b"end", 1);
    assert_eq!(owner.take().text(), "secret");
    let got = thief.take_until(b"end");
    assert!(
        got.iter().all(|message| message.text() != "secret"),
        "{got:?}"
    );
    // Strange names reach who bears them and nobody else.
    let mut slash = server.client(5, "a/b");
    publisher.publish("$inbox/a/b/c", b"whose", 1);
    publisher.publish("end", b"end", 1);
    slash.fence();
    for topic in ["$inbox", "$inbox/", "$inbox//x", "$inbox/owner"] {
        publisher.publish(topic, b"odd", 0);
    }
    publisher.fence();
    owner.fence();
}

fn subscriptions_are_limited(reactors: usize) {
    if Broker::lacks("this limit") {
        return;
    }
    let server = Server::with(reactors, &[("max_subscriptions", 50)]);
    for version in [4, 5] {
        let mut client = server.client(version, &format!("greedy-{version}"));
        let mut granted = 0;
        for n in 0..80 {
            match client.subscribe_with(&[(&format!("g/{n}"), 0)], &[])[..] {
                [0] => granted += 1,
                [0x97] => assert_eq!(version, 5),
                [0x80] => assert!(version < 5),
                ref other => panic!("{other:02x?}"),
            }
        }
        assert_eq!(granted, 50);
        // One that it has may be changed, and one that is given up makes room.
        assert_eq!(client.subscribe_with(&[("g/1", 1)], &[]), [1]);
        client.unsubscribe(&["g/1"]);
        assert_eq!(client.subscribe_with(&[("g/new", 1)], &[]), [1]);
    }
}

fn filters_have_few_levels(reactors: usize) {
    if Broker::lacks("this limit") {
        return;
    }
    let server = Server::with(reactors, &[("max_topic_levels", 5)]);
    let mut client = server.client(5, "deep");
    assert_eq!(client.subscribe_with(&[("a/b/c/d/e", 0)], &[]), [0]);
    assert_eq!(client.subscribe_with(&[("a/b/c/d/e/f", 0)], &[]), [0x8f]);
    assert_eq!(client.publish("a/b/c/d/e", b"x", 1), 0);
    client.take();
    assert_eq!(
        client.publish_code("a/b/c/d/e/f"),
        0x90,
        "topic name invalid"
    );
}

impl super::support::Client {
    /// The code with which a publish is refused, by PUBACK or by DISCONNECT.
    fn publish_code(&mut self, topic: &str) -> u8 {
        let id = self.id();
        self.send(
            &super::support::Publish {
                topic,
                payload: b"x",
                qos: 1,
                id,
                ..Default::default()
            }
            .encode(self.version),
        );
        loop {
            match self.event(super::support::PATIENCE) {
                Event::Packet(Packet::Ack { code, .. } | Packet::Disconnect { code, .. }) => {
                    return code;
                }
                Event::Packet(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn retained_messages_are_limited(reactors: usize) {
    if Broker::lacks("this limit") {
        return;
    }
    let server = Server::with(reactors, &[("max_retained", 20)]);
    let mut client = server.client(5, "keeps");
    let codes: Vec<u8> = (0..100)
        .map(|n| client.retain(&format!("r/{n}"), b"x", 1))
        .collect();
    let mut reader = server.client(5, "reads");
    reader.subscribe("r/#", 1);
    // What other reactors keep comes when it comes; a message that is live then may be earlier.
    let mut kept = 0;
    while let Event::Packet(packet) = reader.event(std::time::Duration::from_millis(500)) {
        match packet {
            Packet::Publish(message) => reader.settle(&message),
            other => panic!("{other:?}"),
        }
        kept += 1;
    }
    println!("{kept} kept, codes {codes:02x?}");
    assert_eq!(
        kept,
        codes.iter().filter(|code| **code < 0x80).count(),
        "what was taken is kept"
    );
    assert!(
        (10..=20).contains(&kept),
        "{kept} retained with a limit of 20"
    );
    // One that is there may be replaced and removed, which makes room.
    client.retain("r/0", b"", 1);
    client.retain("r/0", b"again", 1);
}

fn sessions_are_limited(reactors: usize) {
    if Broker::lacks("this limit") {
        return;
    }
    // mosquitto #3273: 366,000 abandoned sessions of random names with a huge expiry.
    let server = Server::with(reactors, &[("max_sessions", 60)]);
    let mut refused = 0;
    for n in 0..200 {
        let name = format!("random-{n}");
        let mut client = server.open(5);
        let (_, code, _) = client.connack(&Connect {
            clean: false,
            props: &[Prop::Four(id::SESSION_EXPIRY, 0xffff_ffff)],
            ..Connect::new(5, &name)
        });
        match code {
            0 => client.disconnect(),
            0x97 | 0x88 | 0x89 => refused += 1,
            other => panic!("{other:02x}"),
        }
    }
    println!("{refused} of 200 refused");
    assert!(
        (135..=150).contains(&refused),
        "{refused} of 200 refused with room for 60"
    );
}
