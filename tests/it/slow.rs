//! A reader that takes nothing, under a flood: memory stays bounded, the others notice nothing, QoS 1 is not lost.

use std::time::{Duration, Instant};

use super::support::{
    Broker, Client, Connect, Prop, Publish, Server, eventually, id, packet,
    with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    a_zero_window_bounds_memory_and_leaves_others_alone,
    a_slow_reader_gets_every_qos_1_message,
    a_slow_reader_gets_every_retained_message,
    a_full_queue_holds_the_publisher_and_loses_nothing,
    a_publisher_that_reads_no_acks_is_bounded,
    bursts_that_alternate_between_readers_arrive_at_once,
);

/// How much the flood may make the server grow: backlog, queue and socket buffers of one connection, with room for the allocator.
const GROWTH: u64 = 32 << 20;

fn a_zero_window_bounds_memory_and_leaves_others_alone(reactors: usize) {
    let server = Server::with(
        reactors,
        &[("queue_messages", 1000), ("queue_bytes", 1 << 20)],
    );
    let mut stuck: Vec<_> = (0..6)
        .map(|n| server.client(if n % 2 == 0 { 5 } else { 4 }, &format!("stuck-{n}")))
        .collect();
    for (n, client) in stuck.iter_mut().enumerate() {
        client.subscribe("flood", (n % 3) as u8);
    }
    let mut healthy = server.client(5, "healthy");
    healthy.subscribe("flood", 0);
    healthy.subscribe("pulse", 1);
    let mut reads = server.client(5, "reads its own");
    reads.subscribe("pulse", 1);
    let before = server.pss();
    let mut publisher = server.client(4, "publisher");
    let payload = vec![b'f'; 10_000];
    let start = Instant::now();
    let mut most = before;
    // 100 MB to each; nobody of `stuck` reads one byte of it.
    for n in 0..10_000u32 {
        publisher.publish("flood", &payload, 0);
        healthy.message_of("flood");
        if n % 500 == 0 {
            publisher.publish("pulse", n.to_string().as_bytes(), 1);
            assert_eq!(reads.take_of("pulse"), n.to_string());
            healthy.take_of("pulse");
            most = most.max(server.pss());
        }
    }
    most = most.max(server.pss());
    println!(
        "100 MB of flood to 6 stuck readers in {:?}: Pss {before} before, {most} at most",
        start.elapsed()
    );
    if Broker::under_test() == Broker::Stillwire {
        assert!(
            most - before < GROWTH,
            "Pss {before} before, {most} at most"
        );
    }
    drop(stuck);
    publisher.fence();
}

impl super::support::Client {
    fn message_of(&mut self, topic: &str) {
        self.wait(topic, |packet| {
            matches!(packet, packet::Packet::Publish(message) if message.topic == topic)
                .then_some(())
        });
    }

    fn take_of(&mut self, topic: &str) -> String {
        let message = self.wait(topic, |packet| match packet {
            packet::Packet::Publish(message) if message.topic == topic => Some(message.clone()),
            _ => None,
        });
        self.settle(&message);
        message.text().to_owned()
    }
}

fn a_slow_reader_gets_every_qos_1_message(reactors: usize) {
    let server = Server::with(
        reactors,
        &[("queue_messages", 5000), ("queue_bytes", 64 << 20)],
    );
    for version in [4, 5] {
        let name = format!("slow-{version}");
        let (mut slow, _) = server.connect(&Connect {
            clean: false,
            props: &[Prop::Four(id::SESSION_EXPIRY, 600)],
            ..Connect::new(version, &name)
        });
        slow.subscribe(&name, 1);
        let mut publisher = server.client(5, "publisher");
        let mut payload = vec![b's'; 8_000];
        for n in 0..1000u32 {
            payload[..4].copy_from_slice(&n.to_be_bytes());
            assert_eq!(publisher.publish(&name, &payload, 1), 0);
        }
        // 8 MB wait, more than the socket and the backlog take. Now it reads, slowly at first.
        for n in 0..1000u32 {
            let message = slow.take();
            assert_eq!(message.payload[..4], n.to_be_bytes(), "message {n}");
            if n < 50 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        slow.disconnect();
    }
}

/// Retained messages are no news that can be shed: what a slow reader has no room for is sent when it has.
fn a_slow_reader_gets_every_retained_message(reactors: usize) {
    // One part of them is more than the socket and the backlog take.
    const COUNT: usize = 300;
    let server = Server::start(reactors);
    let mut publisher = server.client(5, "keeps");
    let payload = vec![b'r'; 100_000];
    for n in 0..COUNT {
        // So much at once may find no segment of the log ready: it is refused then.
        eventually("it is kept", || {
            publisher.retain(&format!("kept/{n}"), &payload, 1) != 0x97
        });
    }
    for (version, qos) in [(4, 0), (5, 1)] {
        let mut slow = server.client(version, &format!("slow-{version}"));
        slow.subscribe("kept/#", qos);
        // It reads nothing while the others are answered, so its socket is full.
        for _ in 0..20 {
            publisher.fence();
        }
        let mut got: Vec<_> = (0..COUNT)
            .map(|_| {
                let message = slow.take();
                assert!(message.retain && message.payload.len() == payload.len());
                message.topic
            })
            .collect();
        // Each once: where it waited, nothing is left out and nothing said again.
        got.sort_unstable();
        got.dedup();
        assert_eq!(got.len(), COUNT);
        slow.fence();
        assert_eq!(
            slow.event(Duration::ZERO),
            super::support::Event::Nothing,
            "more than all"
        );
        slow.disconnect();
    }
}

fn a_publisher_that_reads_no_acks_is_bounded(reactors: usize) {
    let server = Server::start(reactors);
    let before = server.pss();
    let mut client = server.client(4, "deaf");
    let mut bytes = Vec::new();
    for n in 0..20_000u16 {
        bytes.extend(packet::PINGREQ);
        bytes.extend(
            Publish {
                topic: "deaf",
                payload: b"x",
                qos: 1,
                id: n % 60_000 + 1,
                ..Publish::default()
            }
            .encode(4),
        );
    }
    client
        .stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    // The server may stop reading from it or close it; what it may not is keep all the answers for it.
    let mut rounds = 0;
    while rounds < 60 && std::io::Write::write_all(&mut client.stream, &bytes).is_ok() {
        rounds += 1;
    }
    let after = server.pss();
    println!(
        "{rounds} times 40,000 packets went out and no answer was read: Pss {before} before, {after} after"
    );
    assert!(
        after.saturating_sub(before) < GROWTH,
        "Pss {before} before, {after} after"
    );
    let mut other = server.client(5, "other");
    other.fence();
}

/// A reader that is connected but slow, with a queue that takes a tenth of what comes: the publisher has to wait, and nothing that was
/// acknowledged is lost.
fn a_full_queue_holds_the_publisher_and_loses_nothing(reactors: usize) {
    const COUNT: u32 = 3000;
    let server = Server::with(reactors, &[("queue_messages", 300)]);
    let mut slow = server.client(4, "slow");
    slow.subscribe("full", 1);
    let addr = server.addr;
    let publisher = std::thread::spawn(move || {
        let mut client = Client::open(addr, 4);
        client.connect(&Connect::new(4, "publisher"));
        let mut payload = vec![b'p'; 2000];
        let mut open = 0;
        for n in 0..COUNT {
            payload[..4].copy_from_slice(&n.to_be_bytes());
            let publish = Publish {
                topic: "full",
                payload: &payload,
                qos: 1,
                id: (n % 60_000 + 1) as u16,
                ..Publish::default()
            };
            client.send(&publish.encode(4));
            open += 1;
            while open >= 30 || (open > 0 && n == COUNT - 1) {
                match client.next() {
                    packet::Packet::Ack { kind: 4, .. } => open -= 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    // It reads in spells, acknowledging each.
    for n in 0..COUNT {
        if n % 600 == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        let message = slow.take();
        assert_eq!(message.payload[..4], n.to_be_bytes(), "message {n}");
    }
    publisher
        .join()
        .expect("a publisher whose messages were all taken");
}

/// What a turn has for one connection may be more pieces than one write takes. None of it may wait for a socket that is not full.
fn bursts_that_alternate_between_readers_arrive_at_once(reactors: usize) {
    let server = Server::start(reactors);
    let mut readers: Vec<_> = (0..2)
        .map(|n| server.client(5, &format!("reader-{n}")))
        .collect();
    for reader in &mut readers {
        reader.subscribe("burst", 0);
    }
    let mut publisher = server.client(4, "publisher");
    for round in 0..3 {
        let burst: Vec<u8> = (0..500u16)
            .flat_map(|n| {
                let text = format!("{round}-{n}");
                Publish {
                    topic: "burst",
                    payload: text.as_bytes(),
                    ..Publish::default()
                }
                .encode(4)
            })
            .collect();
        publisher.send(&burst);
        for reader in &mut readers {
            for n in 0..500u16 {
                assert_eq!(reader.take_of("burst"), format!("{round}-{n}"));
            }
        }
    }
}

/// Packets that are small to read and dear to deliver must not fill a turn: whoever asks meanwhile is answered before they are all handled.
#[test]
fn a_burst_to_many_does_not_hold_up_the_others() {
    if Broker::lacks("a promise about this") {
        return;
    }
    let server = Server::start(1);
    let mut readers: Vec<_> = (0..400)
        .map(|n| server.client(4, &format!("reader-{n}")))
        .collect();
    for reader in &mut readers {
        reader.subscribe("burst", 0);
    }
    let mut other = server.client(4, "other");
    let mut publisher = server.client(4, "publisher");
    let mut burst = Publish {
        topic: "burst",
        payload: b"x",
        ..Publish::default()
    }
    .encode(4)
    .repeat(1000);
    burst.extend(packet::PINGREQ);
    publisher.send(&burst);
    // It has begun. The publisher's own answer comes when all of it is handled.
    readers[0].message_of("burst");
    other.fence();
    assert_eq!(
        publisher.event(Duration::from_millis(5)),
        super::support::Event::Nothing,
        "the burst was handled first"
    );
}

/// A small packet, then one that is written from where it is: what the socket doesn't take of the two stays in order.
#[test]
fn large_packets_behind_small_ones_wait_for_a_slow_reader() {
    let server = Server::with(1, &[("queue_messages", 2000), ("queue_bytes", 64 << 20)]);
    let mut slow = server.client(5, "slow");
    slow.subscribe("mixed", 1);
    let mut publisher = server.client(4, "publisher");
    let large = vec![b'l'; 30_000];
    let mut burst = Vec::new();
    for n in 0..500u16 {
        let payload = if n % 2 == 0 { &large[..10] } else { &large };
        burst.extend(
            Publish {
                topic: "mixed",
                payload,
                ..Publish::default()
            }
            .encode(4),
        );
    }
    // 8 MB at QoS 0: some of it is shed, and none of it may break the stream.
    publisher.send(&burst);
    publisher.fence();
    publisher.publish("mixed", b"last", 1);
    loop {
        let message = slow.message();
        slow.settle(&message);
        if message.payload == b"last" {
            break;
        }
        assert!(matches!(message.payload.len(), 10 | 30_000));
    }
}
