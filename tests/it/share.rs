//! Shared subscriptions: each message to one member, balanced over the members that are there, wherever they live.

use std::collections::BTreeMap;
use std::time::Duration;

use super::support::{Connect, Event, Packet, Prop, Server, id, with_one_and_three_reactors};

with_one_and_three_reactors!(
    each_message_goes_to_one_member,
    groups_and_plain_subscriptions_are_apart,
    members_that_are_away_are_passed_over,
    a_group_that_is_all_away_queues,
    a_member_that_leaves_gets_no_more,
    a_filter_may_be_as_long_as_a_packet_allows,
);

fn each_message_goes_to_one_member(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(4, "publisher");
    let mut members: Vec<_> = (0..9)
        .map(|n| server.client(if n % 2 == 0 { 5 } else { 4 }, &format!("member-{n}")))
        .collect();
    members
        .iter_mut()
        .for_each(|member| member.subscribe("$share/g/work/+", 1));
    settle();
    const COUNT: usize = 900;
    for n in 0..COUNT {
        publisher.publish(
            &format!("work/{}", n % 10),
            n.to_string().as_bytes(),
            (n % 2) as u8,
        );
    }
    let mut got = BTreeMap::<usize, usize>::new();
    let mut share = vec![0; members.len()];
    let mut quiet = 0;
    while got.len() < COUNT || quiet < 2 {
        let mut any = false;
        for (at, member) in members.iter_mut().enumerate() {
            while let Event::Packet(Packet::Publish(message)) =
                member.event(Duration::from_millis(20))
            {
                member.settle(&message);
                *got.entry(message.text().parse().unwrap()).or_default() += 1;
                share[at] += 1;
                any = true;
            }
        }
        quiet = if any { 0 } else { quiet + 1 };
        assert!(quiet < 200, "{} of {COUNT} came", got.len());
    }
    assert!(got.values().all(|count| *count == 1), "each once");
    println!("shares of nine members: {share:?}");
    let fair = COUNT / members.len();
    assert!(
        share
            .iter()
            .all(|count| *count >= fair / 3 && *count <= fair * 3),
        "not balanced: {share:?}"
    );
}

/// Membership travels between reactors by mail; a test that counts waits a moment for it.
fn settle() {
    std::thread::sleep(Duration::from_millis(100));
}

fn groups_and_plain_subscriptions_are_apart(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let mut one = server.client(5, "one");
    let mut two = server.client(5, "two");
    let mut plain = server.client(5, "plain");
    one.subscribe("$share/first/t/#", 1);
    two.subscribe("$share/second/t/#", 1);
    plain.subscribe("t/#", 1);
    settle();
    for n in 0..50 {
        publisher.publish("t/x", n.to_string().as_bytes(), 1);
        for client in [&mut one, &mut two, &mut plain] {
            assert_eq!(client.take().text(), n.to_string());
        }
    }
    // A client with both kinds gets it for both (section 4.8.2).
    plain.subscribe("$share/third/t/x", 1);
    settle();
    publisher.publish("t/x", b"both", 1);
    publisher.publish("t/y", b"end", 1);
    let got = plain.take_until(b"end");
    assert_eq!(
        got.iter()
            .filter(|message| message.text() == "both")
            .count(),
        2
    );
}

fn members_that_are_away_are_passed_over(reactors: usize) {
    if super::support::Broker::lacks("this, it hands them to anybody") {
        return;
    }
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    for n in 0..5 {
        let name = format!("away-{n}");
        let (mut away, _) = server.connect(&Connect {
            clean: false,
            props: &[Prop::Four(id::SESSION_EXPIRY, 600)],
            ..Connect::new(5, &name)
        });
        away.subscribe("$share/g/duty", 1);
        away.disconnect();
    }
    let mut here = server.client(5, "here");
    here.subscribe("$share/g/duty", 1);
    settle();
    for n in 0..60 {
        publisher.publish("duty", n.to_string().as_bytes(), 1);
        assert_eq!(
            here.take().text(),
            n.to_string(),
            "all to the one that is there"
        );
    }
}

fn a_group_that_is_all_away_queues(reactors: usize) {
    if super::support::Broker::lacks("queues of a group without a member online") {
        return;
    }
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let names: Vec<String> = (0..3).map(|n| format!("sleeps-{n}")).collect();
    let connect = |name| {
        server
            .connect(&Connect {
                clean: false,
                props: &[Prop::Four(id::SESSION_EXPIRY, 600)],
                ..Connect::new(5, name)
            })
            .0
    };
    for name in &names {
        let mut client = connect(name);
        client.subscribe("$share/g/night", 1);
        client.disconnect();
    }
    settle();
    for n in 0..30 {
        publisher.publish("night", n.to_string().as_bytes(), 1);
    }
    let mut clients: Vec<_> = names.iter().map(|name| connect(name)).collect();
    let mut got = Vec::new();
    for _ in 0..100 {
        for client in &mut clients {
            while let Event::Packet(Packet::Publish(message)) =
                client.event(Duration::from_millis(10))
            {
                client.settle(&message);
                got.push(message.text().parse::<u32>().unwrap());
            }
        }
        if got.len() >= 30 {
            break;
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..30).collect::<Vec<_>>());
}

fn a_member_that_leaves_gets_no_more(reactors: usize) {
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "publisher");
    let mut stays = server.client(5, "stays");
    stays.subscribe("$share/g/shift", 1);
    for n in 0..6 {
        let mut leaves = server.client(5, &format!("leaves-{n}"));
        leaves.subscribe("$share/g/shift", 1);
        if n % 2 == 0 {
            assert_eq!(leaves.unsubscribe(&["$share/g/shift"]), [0]);
        } else {
            leaves.disconnect();
        }
        settle();
        for m in 0..20 {
            publisher.publish("shift", m.to_string().as_bytes(), 1);
            assert_eq!(stays.take().text(), m.to_string());
        }
    }
}

/// With a subscription identifier, and for a session that outlives its connection.
fn a_filter_may_be_as_long_as_a_packet_allows(reactors: usize) {
    let server = Server::start(reactors);
    let (mut member, _) = server.connect(&Connect {
        props: &[Prop::Four(id::SESSION_EXPIRY, 3600)],
        ..Connect::new(5, "member")
    });
    let topic = "x".repeat(usize::from(u16::MAX) - "$share/g/".len());
    let filter = format!("$share/g/{topic}");
    let codes = member.subscribe_with(&[(&filter, 1)], &[Prop::Var(id::SUBSCRIPTION_ID, 7)]);
    assert_eq!(codes, [1]);
    let mut publisher = server.client(5, "publisher");
    assert_eq!(publisher.publish(&topic, b"far", 1), 0);
    assert_eq!(member.take().text(), "far");
}
