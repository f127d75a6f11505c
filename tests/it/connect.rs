//! CONNECT, CONNACK, keep alive, deadlines, takeover.

use std::io::Read;
use std::time::{Duration, Instant};

use super::support::{
    Broker, Client, Connect, Event, Packet, Prop, Server, Will, eventually, id,
    with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    three_versions_connect,
    an_empty_client_id_is_assigned,
    the_server_tells_its_limits,
    a_server_keep_alive_is_imposed,
    a_silent_client_is_cut_after_one_and_a_half_keep_alives,
    who_says_nothing_is_cut,
    who_says_half_a_connect_is_cut,
    the_loser_of_a_takeover_is_told,
    many_sockets_with_one_client_id_end_with_one,
    half_open_connections_do_not_disturb,
    garbage_declared_and_not_sent_takes_no_memory,
);

fn three_versions_connect(reactors: usize) {
    let server = Server::start(reactors);
    for version in [3, 4, 5] {
        for n in 0..4 {
            let (mut client, present) =
                server.connect(&Connect::new(version, &format!("v{version}-{n}")));
            assert!(!present);
            client.fence();
            client.disconnect();
        }
    }
}

fn an_empty_client_id_is_assigned(reactors: usize) {
    if Broker::lacks("a DISCONNECT for the loser of a takeover") {
        return;
    }
    let server = Server::start(reactors);
    let mut names = std::collections::BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = server.open(5);
        let (_, code, props) = client.connack(&Connect::new(5, ""));
        assert_eq!(code, 0);
        let name = String::from_utf8(
            props
                .bytes(id::ASSIGNED_CLIENT_ID)
                .expect("an assigned client identifier")
                .to_vec(),
        )
        .unwrap();
        // The name must be usable: the same client may come back with it.
        assert!(!name.is_empty() && names.insert(name), "assigned twice");
        clients.push(client);
    }
    let mut old = server.open(4);
    assert_eq!(old.connack(&Connect::new(4, "")).1, 0);
    let name = names.first().unwrap().clone();
    let (_, present) = server.connect(&Connect::new(5, &name));
    assert!(!present);
    let ended =
        clients
            .iter_mut()
            .filter_map(|client| match client.event(Duration::from_millis(500)) {
                Event::Packet(Packet::Disconnect { code: 0x8e, .. }) => Some(()),
                _ => None,
            });
    assert_eq!(
        ended.count(),
        1,
        "the owner of the assigned name is taken over"
    );
}

fn the_server_tells_its_limits(reactors: usize) {
    if Broker::lacks("these limits") {
        return;
    }
    let server = Server::with(
        reactors,
        &[
            ("receive_maximum", 7),
            ("max_packet_size", 5000),
            ("max_connect_size", 5000),
            ("topic_alias_maximum", 3),
            ("max_session_expiry", 60),
        ],
    );
    let mut client = server.open(5);
    let (_, code, props) = client.connack(&Connect {
        props: &[Prop::Four(id::SESSION_EXPIRY, 3600)],
        ..Connect::new(5, "limits")
    });
    assert_eq!(code, 0);
    assert_eq!(props.int(id::RECEIVE_MAXIMUM), Some(7));
    assert_eq!(props.int(id::MAXIMUM_PACKET), Some(5000));
    assert_eq!(props.int(id::ALIAS_MAXIMUM), Some(3));
    assert_eq!(
        props.int(id::SESSION_EXPIRY),
        Some(60),
        "what the server made of the session expiry (section 3.2.2.3.2)"
    );
}

fn a_server_keep_alive_is_imposed(reactors: usize) {
    if Broker::lacks("a keep alive below 10 seconds") {
        return;
    }
    let server = Server::with(reactors, &[("server_keep_alive", 1)]);
    for asked in [0, 600] {
        let mut client = server.open(5);
        let (_, code, props) = client.connack(&Connect {
            keep_alive: asked,
            ..Connect::new(5, "imposed")
        });
        assert_eq!((code, props.int(id::SERVER_KEEP_ALIVE)), (0, Some(1)));
        let start = Instant::now();
        assert_eq!(client.closes(), Some(0x8d), "keep alive timeout");
        let after = start.elapsed();
        assert!(
            after >= Duration::from_millis(1400),
            "cut too early: {after:?}"
        );
        assert!(after < Duration::from_secs(6), "cut too late: {after:?}");
    }
}

fn a_silent_client_is_cut_after_one_and_a_half_keep_alives(reactors: usize) {
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("will/#", 0);
    for version in [3, 4, 5] {
        let topic = format!("will/{version}");
        let will = Will {
            topic: &topic,
            payload: b"silent",
            ..Will::default()
        };
        let (mut client, _) = server.connect(&Connect {
            keep_alive: 2,
            will: Some(will),
            ..Connect::new(version, "silent")
        });
        // Pings keep it: six times half the keep alive.
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1000));
            client.fence();
        }
        let start = Instant::now();
        let code = client.closes();
        let after = start.elapsed();
        assert!(
            after >= Duration::from_millis(2900),
            "cut too early: {after:?}"
        );
        // mosquitto looks at its clients when it has nothing else to do.
        let limit = if Broker::under_test() == Broker::Mosquitto {
            20
        } else {
            9
        };
        assert!(
            after < Duration::from_secs(limit),
            "cut too late: {after:?}"
        );
        if version == 5 && Broker::under_test() == Broker::Stillwire {
            assert_eq!(code, Some(0x8d));
        }
        assert_eq!(watcher.take().topic, topic);
    }
}

fn who_says_nothing_is_cut(reactors: usize) {
    if Broker::lacks("a deadline for CONNECT that a test can wait for") {
        return;
    }
    let server = Server::with(reactors, &[("connect_timeout", 1)]);
    let start = Instant::now();
    let mut silent = server.open(4);
    // TCP_DEFER_ACCEPT may hold such a connection back in the kernel; it must end all the same once there is a byte.
    silent.send(&[0x10]);
    assert_eq!(silent.closes(), None);
    let after = start.elapsed();
    assert!(
        after >= Duration::from_millis(800) && after < Duration::from_secs(8),
        "{after:?}"
    );
}

fn who_says_half_a_connect_is_cut(reactors: usize) {
    if Broker::lacks("a deadline for CONNECT that a test can wait for") {
        return;
    }
    let server = Server::with(reactors, &[("connect_timeout", 1)]);
    let bytes = Connect::new(5, &"h".repeat(200)).encode();
    // Byte after byte, ten a second: the deadline is one for all of it.
    let mut slow = server.open(5);
    let start = Instant::now();
    for byte in &bytes {
        slow.send(&[*byte]);
        if slow.event(Duration::from_millis(100)) != Event::Nothing {
            break;
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "a trickling CONNECT outlived its deadline"
    );
    let mut fast = server.client(5, "fast");
    fast.fence();
}

fn the_loser_of_a_takeover_is_told(reactors: usize) {
    if Broker::lacks("a DISCONNECT for the loser of a takeover") {
        return;
    }
    let server = Server::start(reactors);
    let mut watcher = server.client(5, "watcher");
    watcher.subscribe("will/takeover", 0);
    for n in 0..6 {
        let name = format!("twin-{n}");
        let will = Will {
            topic: "will/takeover",
            payload: name.as_bytes(),
            ..Will::default()
        };
        let (mut first, _) = server.connect(&Connect {
            will: Some(will),
            ..Connect::new(5, &name)
        });
        let mut second = server.client(5, &name);
        assert_eq!(first.closes(), Some(0x8e), "session taken over");
        // The network connection ended without DISCONNECT from the client, so its will is due (MQTT-3.1.2-8).
        assert_eq!(watcher.take().text(), name);
        second.fence();
        let mut third = server.client(4, &name);
        assert_eq!(second.closes(), Some(0x8e));
        third.fence();
        let mut fourth = server.client(3, &name);
        assert_eq!(third.closes(), None);
        fourth.fence();
    }
}

fn many_sockets_with_one_client_id_end_with_one(reactors: usize) {
    let server = Server::start(reactors);
    let addr = server.addr;
    let threads: Vec<_> = (0..10)
        .map(|thread| {
            std::thread::spawn(move || {
                (0..100)
                    .map(|n| {
                        let mut client =
                            Client::open(addr, if (thread + n) % 2 == 0 { 5 } else { 4 });
                        let connect = Connect {
                            clean: n % 3 == 0,
                            ..Connect::new(client.version, "everybody")
                        };
                        client.send(&connect.encode());
                        client
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut clients: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    // All but one end; that one works.
    let mut alive = Vec::new();
    eventually(
        "all but one of a thousand sockets with one client id end",
        || {
            alive.clear();
            for (at, client) in clients.iter_mut().enumerate() {
                client.stream.set_nonblocking(true).unwrap();
                let mut chunk = [0; 4096];
                let open = loop {
                    match client.stream.read(&mut chunk) {
                        Ok(0) => break false,
                        Ok(_) => {}
                        Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
                    }
                };
                if open {
                    alive.push(at);
                }
            }
            alive.len() <= 1
        },
    );
    assert_eq!(alive.len(), 1, "the last one stays");
    let last = &mut clients[alive[0]];
    last.stream.set_nonblocking(false).unwrap();
    last.fence();
}

fn half_open_connections_do_not_disturb(reactors: usize) {
    let server = Server::start(reactors);
    // HOSTILE.md has 20,000; the crowd test has the numbers, this one the mixture: silent, one byte, half a CONNECT.
    let connect = Connect::new(5, "half open").encode();
    let open: Vec<_> = (0..1500)
        .map(|n| {
            let mut client = server.open(5);
            client.send(&connect[..[0, 1, connect.len() / 2][n % 3]]);
            client
        })
        .collect();
    let mut client = server.client(4, "in between");
    client.subscribe("half/open", 1);
    for n in 0..100 {
        let payload = n.to_string();
        client.publish("half/open", payload.as_bytes(), 1);
        assert_eq!(client.take().text(), payload);
    }
    drop(open);
    client.fence();
}

fn garbage_declared_and_not_sent_takes_no_memory(reactors: usize) {
    let server = Server::with(reactors, &[("max_packet_size", 64 << 20)]);
    let before = server.pss();
    let mut clients: Vec<_> = (0..200)
        .map(|n| server.client(5, &format!("declares {n}")))
        .collect();
    let connected = server.pss();
    for client in &mut clients {
        // A PUBLISH of 60 MB by its header, of which 100 bytes come: 200 of them would be 12 GB.
        client.send(&[0x30, 0x80, 0x80, 0x80, 0x1d, 0, 1, b'a', 0]);
        client.send(&[7; 100]);
    }
    // Somebody else's turn comes after all of that was read.
    let mut other = server.client(5, "other");
    other.fence();
    std::thread::sleep(Duration::from_millis(200));
    other.fence();
    let declared = server.pss();
    println!(
        "Pss {before} before, {connected} with 200 clients, {declared} with 200 partial packets"
    );
    assert!(
        declared.saturating_sub(connected) < 8 << 20,
        "memory follows the bytes that were declared"
    );
    for client in &mut clients {
        assert_eq!(client.event(Duration::from_millis(0)), Event::Nothing);
    }
}
