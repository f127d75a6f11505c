//! More than the server has room for: connections, descriptors, retained messages; and its end with clients connected.

use std::process::Command;
use std::time::{Duration, Instant};

use super::support::server::Options;
use super::support::{
    Broker, Connect, Event, PATIENCE, Server, Will, eventually, with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    connections_are_limited,
    a_thousand_refused_do_not_keep_it_busy,
    many_retained_messages_meet_many_wildcards,
    sigterm_tells_the_clients,
);

fn launch(reactors: usize, limit: u32) -> Server {
    Server::launch(&Options {
        reactors,
        mqtt: Vec::new(),
        max_connections: Some(limit),
        data_dir: None,
        queue_full: None,
        config: String::new(),
    })
}

fn connections_are_limited(reactors: usize) {
    if Broker::lacks("this limit with an answer") {
        return;
    }
    let server = launch(reactors, 60);
    let mut held = Vec::new();
    let mut refused = Vec::new();
    for n in 0..200 {
        let version = 4 + (n % 2) as u8;
        let mut client = server.open(version);
        let (_, code, _) = client.connack(&Connect::new(version, &format!("crowds-{n}")));
        match (code, version) {
            (0, _) => held.push(client),
            (0x97 | 0x89, 5) | (0x03, 4) => {
                client.closes();
                refused.push(n);
            }
            other => panic!("{other:02x?}"),
        }
    }
    println!(
        "{} held, {} refused with a limit of 60",
        held.len(),
        refused.len()
    );
    // The limit is divided over the reactors, and clients are not divided evenly.
    assert!(held.len() <= 60 && held.len() >= if reactors == 1 { 60 } else { 40 });
    held.iter_mut().for_each(|client| client.fence());
    // Who leaves makes room: the refused come in then.
    held.drain(..).for_each(|client| client.disconnect());
    eventually("there is room again", || {
        let mut client = server.open(5);
        client
            .connack(&Connect::new(5, &format!("crowds-{}", refused[0])))
            .1
            == 0
    });
}

/// CPU seconds of a process, user and system.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat of the server");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}

fn a_thousand_refused_do_not_keep_it_busy(reactors: usize) {
    if Broker::lacks("this limit with an answer") {
        return;
    }
    let server = launch(reactors, 30);
    let held: Vec<_> = (0..30)
        .filter_map(|n| {
            let mut client = server.open(4);
            (client.connack(&Connect::new(4, &format!("held-{n}"))).1 == 0).then_some(client)
        })
        .collect();
    // These wait at the door with half a CONNECT each; nothing is to be done for them.
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let mut client = server.open(4);
            client.send(&[0x10, 0x20, 0]);
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let (before, start) = (cpu(server.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let busy = (cpu(server.pid()) - before) / start.elapsed().as_secs_f64();
    println!(
        "{:.1} % of a core with {} held and {} at the door",
        busy * 100.0,
        held.len(),
        waiting.len()
    );
    assert!(busy < 0.3, "it spins: {busy:.2} of a core");
    drop(waiting);
    for mut client in held {
        client.fence();
    }
}

fn many_retained_messages_meet_many_wildcards(reactors: usize) {
    const COUNT: usize = 20_000;
    let server = Server::with(reactors, &[("sys_interval", 0)]);
    let mut publisher = server.client(4, "keeps");
    let payload = [b'r'; 100];
    for n in 0..COUNT {
        publisher.retain(&format!("many/{}/{n}", n % 97), &payload, 0);
    }
    publisher.fence();
    let before = server.pss();
    // Four read, four have subscribed and take nothing.
    let mut deaf: Vec<_> = (0..4)
        .map(|n| server.client(4, &format!("deaf-{n}")))
        .collect();
    for client in &mut deaf {
        client.send(&super::support::packet::subscribe(
            4,
            1,
            &[("many/#", 0)],
            &[],
        ));
    }
    let mut readers: Vec<_> = (0..4)
        .map(|n| server.client(5, &format!("reads-{n}")))
        .collect();
    for reader in &mut readers {
        reader.subscribe("many/#", 1);
    }
    let mut other = server.client(5, "other");
    other.subscribe("other", 1);
    let start = Instant::now();
    for (at, reader) in readers.iter_mut().enumerate() {
        for n in 0..COUNT {
            let message = reader.take();
            assert!(message.retain, "{n}");
            if n % 5000 == 0 {
                let sent = Instant::now();
                other.publish("other", b"x", 1);
                other.take();
                assert!(
                    sent.elapsed() < PATIENCE / 4,
                    "others wait while reader {at} is served"
                );
            }
        }
    }
    let grown = server.pss().saturating_sub(before);
    println!(
        "{COUNT} retained messages to four readers in {:?}, Pss grew by {grown}",
        start.elapsed()
    );
    if Broker::under_test() == Broker::Stillwire {
        assert!(grown < 24 << 20, "Pss grew by {grown}");
    }
}

fn sigterm_tells_the_clients(reactors: usize) {
    if Broker::lacks("this") {
        return;
    }
    let mut server = Server::start(reactors);
    let will = Will {
        topic: "will",
        payload: b"w",
        ..Will::default()
    };
    let mut five: Vec<_> = (0..20)
        .map(|n| {
            server
                .connect(&Connect {
                    will: Some(will.clone()),
                    ..Connect::new(5, &format!("five-{n}"))
                })
                .0
        })
        .collect();
    let mut four = server.client(4, "four");
    four.subscribe("will", 0);
    let status = Command::new("kill")
        .args(["-TERM", &server.pid().to_string()])
        .status()
        .expect("kill");
    assert!(status.success());
    for client in &mut five {
        assert_eq!(client.closes(), Some(0x8b), "server shutting down");
    }
    // No will of the others: it is the server that ends, and a close is all that MQTT 3.1.1 has for it.
    assert_eq!(four.event(PATIENCE), Event::Closed);
    assert_eq!(server.ended(), Some(0));
}
