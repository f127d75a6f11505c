//! rumqttc, a Rust client that others wrote, in both of its versions.

use std::time::Duration;

use super::support::{Server, with_one_and_three_reactors};

with_one_and_three_reactors!(rumqttc_v4, rumqttc_v5);

fn rumqttc_v4(reactors: usize) {
    use rumqttc::{Client, Event, LastWill, MqttOptions, Packet, QoS};
    let server = Server::start(reactors);
    let options = |name: &str| {
        let mut options = MqttOptions::new(name, "127.0.0.1", server.addr.port());
        options.set_keep_alive(Duration::from_secs(30));
        options
    };
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let mut with_will = options("rumqttc-will");
    with_will.set_last_will(LastWill::new(
        "rumqttc/will",
        "gone",
        QoS::AtLeastOnce,
        false,
    ));
    let (client, mut connection) = Client::new(options("rumqttc-v4"), 64);
    client.subscribe("rumqttc/#", QoS::ExactlyOnce).unwrap();
    let mut got = Vec::new();
    let mut published = false;
    let mut willing = None;
    for event in connection.iter() {
        match event.expect("a connection that lasts") {
            Event::Incoming(Packet::SubAck(_)) if !published => {
                published = true;
                for (n, qos) in all.into_iter().enumerate() {
                    client
                        .publish(format!("rumqttc/{n}"), qos, n == 1, format!("payload {n}"))
                        .unwrap();
                }
            }
            Event::Incoming(Packet::Publish(publish)) => {
                got.push((publish.topic.clone(), publish.qos as u8));
                if got.len() == 3 {
                    // A second client with a will, whose thread lets go of the socket.
                    let options = with_will.clone();
                    willing = Some(std::thread::spawn(move || {
                        let (_client, mut connection) = Client::new(options, 8);
                        for event in connection.iter() {
                            if let Event::Incoming(Packet::ConnAck(_)) = event.expect("accepted") {
                                return;
                            }
                        }
                    }));
                }
                if got.len() == 4 {
                    break;
                }
            }
            _ => {}
        }
    }
    willing
        .expect("the will was waited for")
        .join()
        .expect("the client with a will");
    got.sort();
    let due = [
        ("rumqttc/0", 0),
        ("rumqttc/1", 1),
        ("rumqttc/2", 2),
        ("rumqttc/will", 1),
    ];
    assert_eq!(got, due.map(|(topic, qos)| (topic.to_owned(), qos)));
}

fn rumqttc_v5(reactors: usize) {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
    use rumqttc::v5::{Client, Event, MqttOptions};
    let server = Server::start(reactors);
    let mut options = MqttOptions::new("rumqttc-v5", "127.0.0.1", server.addr.port());
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = Client::new(options, 64);
    client.subscribe("rumqttc5/+", QoS::ExactlyOnce).unwrap();
    let mut got = Vec::new();
    let mut published = false;
    for event in connection.iter() {
        match event.expect("a connection that lasts") {
            Event::Incoming(Packet::SubAck(_)) if !published => {
                published = true;
                for (n, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                    .into_iter()
                    .enumerate()
                {
                    let properties = PublishProperties {
                        content_type: Some("text/plain".into()),
                        user_properties: vec![("key".into(), n.to_string())],
                        message_expiry_interval: Some(60),
                        ..PublishProperties::default()
                    };
                    client
                        .publish_with_properties(
                            format!("rumqttc5/{n}"),
                            qos,
                            false,
                            "payload",
                            properties,
                        )
                        .unwrap();
                }
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let properties = publish.properties.expect("properties");
                assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
                got.push((
                    String::from_utf8(publish.topic.to_vec()).unwrap(),
                    publish.qos as u8,
                    properties.user_properties[0].1.clone(),
                ));
                if got.len() == 3 {
                    break;
                }
            }
            _ => {}
        }
    }
    got.sort();
    assert_eq!(
        got,
        [0, 1, 2].map(|n: u8| (format!("rumqttc5/{n}"), n, n.to_string()))
    );
}
