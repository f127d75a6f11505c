//! Wills: when they are published, when they are not, and when later.

use std::time::{Duration, Instant};

use super::support::{
    Broker, Connect, Prop, Server, Will, id, packet, with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    a_lost_connection_publishes_its_will,
    a_disconnect_publishes_none,
    a_disconnect_may_ask_for_it,
    a_protocol_error_publishes_it,
    a_retained_will_is_retained,
    a_will_has_its_properties,
    a_delayed_will_waits,
    a_reconnect_stops_a_delayed_will,
    the_end_of_the_session_ends_the_delay,
);

fn a_lost_connection_publishes_its_will(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    for version in [3, 4, 5] {
        for qos in 0..3 {
            let topic = format!("gone/{version}{qos}");
            let will = Will {
                topic: &topic,
                payload: b"bye",
                qos,
                ..Will::default()
            };
            let (client, _) = server.connect(&Connect {
                will: Some(will),
                ..Connect::new(version, &topic)
            });
            client.vanish();
            let message = watcher.take();
            assert_eq!(
                (
                    message.topic.as_str(),
                    message.text(),
                    message.qos,
                    message.retain
                ),
                (topic.as_str(), "bye", qos, false)
            );
        }
    }
}

fn a_disconnect_publishes_none(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    for version in [3, 4, 5] {
        let will = Will {
            topic: "gone/politely",
            payload: b"bye",
            ..Will::default()
        };
        let (client, _) = server.connect(&Connect {
            will: Some(will),
            ..Connect::new(version, "polite")
        });
        client.disconnect();
        let mut other = server.client(5, "polite");
        other.publish("gone/end", b"end", 1);
        assert!(watcher.take_until(b"end").is_empty());
    }
}

fn a_disconnect_may_ask_for_it(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    let will = Will {
        topic: "gone/asked",
        payload: b"bye",
        qos: 1,
        ..Will::default()
    };
    let (mut client, _) = server.connect(&Connect {
        will: Some(will),
        ..Connect::new(5, "asks")
    });
    client.send(&packet::disconnect(5, 0x04, &[]));
    client.closes();
    assert_eq!(watcher.take().topic, "gone/asked");
}

fn a_protocol_error_publishes_it(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    for version in [4, 5] {
        let will = Will {
            topic: "gone/error",
            payload: b"bye",
            qos: 1,
            ..Will::default()
        };
        let (mut client, _) = server.connect(&Connect {
            will: Some(will),
            ..Connect::new(version, "errs")
        });
        client.send(&[0xc0, 0x80, 0x80, 0x80, 0x80, 0x01]);
        client.closes();
        assert_eq!(watcher.take().topic, "gone/error");
    }
}

fn a_retained_will_is_retained(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    let will = Will {
        topic: "gone/kept",
        payload: b"bye",
        qos: 1,
        retain: true,
        ..Will::default()
    };
    let (client, _) = server.connect(&Connect {
        will: Some(will),
        ..Connect::new(4, "keeps")
    });
    client.vanish();
    assert!(!watcher.take().retain);
    let mut late = server.client(5, "late");
    late.subscribe("gone/kept", 1);
    let message = late.take();
    assert_eq!((message.text(), message.retain), ("bye", true));
}

fn a_will_has_its_properties(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    let props = [
        Prop::Pair("a", "1"),
        Prop::Text(id::CONTENT_TYPE, "text/plain"),
        Prop::Four(id::WILL_DELAY, 0),
        Prop::Four(id::MESSAGE_EXPIRY, 50),
        Prop::Text(id::RESPONSE_TOPIC, "r"),
        Prop::Text(id::CORRELATION_DATA, "c"),
        Prop::Byte(id::PAYLOAD_FORMAT, 1),
        Prop::Pair("b", "2"),
    ];
    let will = Will {
        topic: "gone/props",
        payload: b"bye",
        props: &props,
        ..Will::default()
    };
    let (client, _) = server.connect(&Connect {
        will: Some(will),
        ..Connect::new(5, "props")
    });
    client.vanish();
    let message = watcher.take();
    assert_eq!(message.props.pairs(), [("a", "1"), ("b", "2")]);
    assert_eq!(
        message.props.bytes(id::CONTENT_TYPE),
        Some(b"text/plain".as_slice())
    );
    assert_eq!(
        message.props.bytes(id::RESPONSE_TOPIC),
        Some(b"r".as_slice())
    );
    assert_eq!(
        message.props.bytes(id::CORRELATION_DATA),
        Some(b"c".as_slice())
    );
    assert_eq!(message.props.int(id::PAYLOAD_FORMAT), Some(1));
    assert!(matches!(
        message.props.int(id::MESSAGE_EXPIRY),
        Some(48..=50)
    ));
    assert_eq!(message.props.int(id::WILL_DELAY), None);
}

fn delayed<'a>(name: &'a str, will: &'a [Prop<'a>], session: &'a [Prop<'a>]) -> Connect<'a> {
    let will = Will {
        topic: "gone/later",
        payload: b"bye",
        qos: 1,
        props: will,
        ..Will::default()
    };
    Connect {
        clean: false,
        will: Some(will),
        props: session,
        ..Connect::new(5, name)
    }
}

fn a_delayed_will_waits(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    let (client, _) = server.connect(&delayed(
        "waits",
        &[Prop::Four(id::WILL_DELAY, 2)],
        &[Prop::Four(id::SESSION_EXPIRY, 600)],
    ));
    let start = Instant::now();
    client.vanish();
    assert_eq!(watcher.take().topic, "gone/later");
    let after = start.elapsed();
    // mosquitto counts in whole seconds of the clock.
    let least = if Broker::under_test() == Broker::Mosquitto {
        900
    } else {
        1900
    };
    assert!(
        after >= Duration::from_millis(least) && after < Duration::from_secs(8),
        "{after:?}"
    );
}

fn a_reconnect_stops_a_delayed_will(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    let connect = delayed(
        "returns",
        &[Prop::Four(id::WILL_DELAY, 2)],
        &[Prop::Four(id::SESSION_EXPIRY, 600)],
    );
    server.connect(&connect).0.vanish();
    std::thread::sleep(Duration::from_millis(300));
    let (mut client, present) = server.connect(&connect);
    assert!(present);
    std::thread::sleep(Duration::from_millis(3500));
    client.publish("gone/end", b"end", 1);
    assert!(watcher.take_until(b"end").is_empty(), "MQTT-3.1.3-9");
}

fn the_end_of_the_session_ends_the_delay(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("gone/+", 2);
    // The session expires before the delay is over (mosquitto CVE-2019-11778 crashed here).
    let (client, _) = server.connect(&delayed(
        "expires",
        &[Prop::Four(id::WILL_DELAY, 3600)],
        &[Prop::Four(id::SESSION_EXPIRY, 1)],
    ));
    client.vanish();
    assert_eq!(watcher.take().topic, "gone/later");
    if Broker::lacks("the rest, it keeps waiting") {
        return;
    }
    // A clean start ends it too.
    let (client, _) = server.connect(&delayed(
        "restarts",
        &[Prop::Four(id::WILL_DELAY, 3600)],
        &[Prop::Four(id::SESSION_EXPIRY, 3600)],
    ));
    client.vanish();
    std::thread::sleep(Duration::from_millis(200));
    let mut client = server.client(5, "restarts");
    assert_eq!(watcher.take().topic, "gone/later");
    client.fence();
    // Without a session there is nothing to wait in.
    let (client, _) = server.connect(&delayed(
        "no session",
        &[Prop::Four(id::WILL_DELAY, 3600)],
        &[],
    ));
    client.vanish();
    assert_eq!(watcher.take().topic, "gone/later");
}
