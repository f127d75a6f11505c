//! Order per publisher and topic, over reactors; and nothing lost while it is kept.

use std::collections::BTreeMap;

use super::support::{Publish, Server, packet, with_one_and_three_reactors};

with_one_and_three_reactors!(messages_of_one_publisher_and_topic_stay_in_order);

fn messages_of_one_publisher_and_topic_stay_in_order(reactors: usize) {
    const PUBLISHERS: usize = 4;
    const COUNT: usize = 1500;
    let server = Server::start(reactors);
    let addr = server.addr;
    let mut subscribers: Vec<_> = (0..6)
        .map(|n| server.client(if n % 2 == 0 { 5 } else { 4 }, &format!("orders-{n}")))
        .collect();
    for (n, subscriber) in subscribers.iter_mut().enumerate() {
        // Some by an exact topic, some by a wildcard: those take different ways between reactors.
        let filters: Vec<String> = if n < 3 {
            (0..PUBLISHERS).map(|p| format!("order/{p}")).collect()
        } else {
            vec!["order/+".into()]
        };
        for filter in filters {
            subscriber.subscribe(&filter, 2);
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|p| {
            let mut client = super::support::Client::open(addr, 4);
            client.connect(&super::support::Connect::new(4, &format!("publishes-{p}")));
            std::thread::spawn(move || {
                let topic = format!("order/{p}");
                let mut open = 0;
                for n in 0..COUNT {
                    // One QoS a run of ten: the standard promises order within a QoS, and this server keeps it over all that
                    // wait in one queue; QoS 0 may overtake, so it counts by itself below.
                    let qos = [1, 1, 2, 0][n / 10 % 4];
                    let id = (n % 60_000 + 1) as u16;
                    client.send(
                        &Publish {
                            topic: &topic,
                            payload: n.to_string().as_bytes(),
                            qos,
                            id,
                            ..Publish::default()
                        }
                        .encode(4),
                    );
                    if qos > 0 {
                        open += 1;
                    }
                    while open > 16 || (n == COUNT - 1 && open > 0) {
                        if let packet::Packet::Ack { kind, id, .. } = client.next() {
                            match kind {
                                4 | 7 => open -= 1,
                                _ => client.send(&packet::ack(6, id)),
                            }
                        }
                    }
                }
                client.fence();
            })
        })
        .collect();
    let readers: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            std::thread::spawn(move || {
                let due = PUBLISHERS * (0..COUNT).filter(|n| n / 10 % 4 != 3).count();
                let mut last = BTreeMap::new();
                let mut counted = 0;
                while counted < due {
                    let message = subscriber.message();
                    match message.qos {
                        1 => subscriber.send(&packet::ack(4, message.id)),
                        2 => {
                            subscriber.send(&packet::ack(5, message.id));
                            subscriber.ack(6, message.id);
                            subscriber.send(&packet::ack(7, message.id));
                        }
                        _ => {}
                    }
                    let n: i64 = message.text().parse().unwrap();
                    let before = last
                        .insert((message.topic.clone(), message.qos), n)
                        .unwrap_or(-1);
                    assert!(
                        n > before,
                        "{} at QoS {}: {n} after {before}",
                        message.topic,
                        message.qos
                    );
                    counted += usize::from(message.qos > 0);
                }
            })
        })
        .collect();
    for thread in publishers.into_iter().chain(readers) {
        thread
            .join()
            .expect("a publisher or reader that is content");
    }
}
