//! What outlives the server: it is killed, or told to end, and started again on the same directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::support::server::Options;
use super::support::{
    Broker, Client, Connect, Packet, Prop, Publish, Server, Will, id, packet,
    with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    queued_messages_outlive_a_kill,
    queued_messages_outlive_an_orderly_end,
    queued_messages_outlive_a_kill_where_the_disk_is_waited_for,
    unacknowledged_messages_come_again_after_a_kill,
    what_was_never_sent_is_no_duplicate_after_two_kills,
    a_release_goes_on_after_a_kill,
    a_duplicate_across_a_kill_is_delivered_once,
    subscriptions_outlive_a_kill,
    retained_messages_outlive_a_kill,
    the_will_of_a_client_that_was_connected_is_published_after_a_kill,
    sessions_expire_while_the_server_is_away,
    a_session_that_ends_with_its_connection_ends_with_the_server,
    a_session_is_taken_over_after_a_kill,
    sessions_move_to_another_number_of_reactors,
);

/// A data directory that outlives its servers, and what they are started with.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) reactors: usize,
    pub(super) flags: Vec<&'static str>,
    pub(super) mqtt: Vec<(&'static str, u64)>,
    pub(super) queue_full: Option<&'static str>,
}

impl Place {
    pub(super) fn new(reactors: usize) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("durable-{}-{serial}", std::process::id()));
        Self {
            dir,
            reactors,
            flags: Vec::new(),
            mqtt: Vec::new(),
            queue_full: None,
        }
    }

    pub(super) fn start(&self) -> Server {
        let options = Options {
            reactors: self.reactors,
            mqtt: self.mqtt.clone(),
            max_connections: Some(100),
            data_dir: Some(self.dir.clone()),
            queue_full: self.queue_full,
            config: String::new(),
        };
        Server::launch_with(&options, &self.flags)
    }

    pub(super) fn kill_and_start(&self, mut server: Server) -> Server {
        server.kill();
        drop(server);
        self.start()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// mosquitto writes its database now and then; what is tested here it does not promise.
pub(super) fn lacks() -> bool {
    Broker::lacks("this durability")
}

/// A connection whose session stays for an hour.
pub(super) fn lasting<'a>(version: u8, id: &'a str) -> Connect<'a> {
    Connect {
        clean: false,
        props: &[Prop::Four(id::SESSION_EXPIRY, 3600)],
        ..Connect::new(version, id)
    }
}

/// Its session is there, and what it subscribes to is granted.
pub(super) fn sleeper(server: &Server, version: u8, name: &str, filter: &str) {
    let (mut client, _) = server.connect(&lasting(version, name));
    client.subscribe(filter, 2);
    client.disconnect();
}

fn fill(server: &Server, topic: &str) {
    let mut publisher = server.client(5, "publisher");
    for m in 0..20 {
        let payload = m.to_string();
        assert_eq!(publisher.publish(topic, payload.as_bytes(), 1 + m % 2), 0);
    }
}

fn is_filled(client: &mut Client) {
    for m in 0..20 {
        let message = client.take();
        assert_eq!(
            (message.text(), message.qos),
            (m.to_string().as_str(), 1 + m % 2)
        );
    }
}

fn outlives(place: &Place, end: impl Fn(&mut Server)) {
    let mut server = place.start();
    for version in [4, 5] {
        let name = format!("sleeper-{version}");
        sleeper(&server, version, &name, &name);
    }
    for round in 0..3 {
        for version in [4, 5] {
            fill(&server, &format!("sleeper-{version}"));
        }
        end(&mut server);
        drop(server);
        server = place.start();
        for version in [4, 5] {
            let name = format!("sleeper-{version}");
            let (mut client, present) = server.connect(&lasting(version, &name));
            assert!(present, "round {round}");
            is_filled(&mut client);
            let mut publisher = server.client(5, "publisher");
            publisher.publish(&name, b"live", 1);
            assert_eq!(client.take().text(), "live");
            client.disconnect();
        }
    }
}

fn queued_messages_outlive_a_kill(reactors: usize) {
    if !lacks() {
        outlives(&Place::new(reactors), Server::kill);
    }
}

fn queued_messages_outlive_an_orderly_end(reactors: usize) {
    if !lacks() {
        outlives(&Place::new(reactors), Server::stop);
    }
}

fn queued_messages_outlive_a_kill_where_the_disk_is_waited_for(reactors: usize) {
    if lacks() {
        return;
    }
    let mut place = Place::new(reactors);
    place.flags = vec!["--durability", "disk"];
    outlives(&place, Server::kill);
}

fn unacknowledged_messages_come_again_after_a_kill(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    let (mut client, _) = server.connect(&lasting(5, "again"));
    client.subscribe("again", 2);
    let mut publisher = server.client(5, "publisher");
    let mut first = Vec::new();
    for m in 0..6 {
        publisher.publish("again", m.to_string().as_bytes(), 1 + m % 2);
        first.push(client.message().id);
    }
    client.send(&packet::ack(4, first[2]));
    client.fence();
    let server = place.kill_and_start(server);
    let (mut client, present) = server.connect(&lasting(5, "again"));
    assert!(present);
    for m in [0, 1, 3, 4, 5] {
        let message = client.message();
        assert_eq!(
            (message.text(), message.id, message.dup),
            (m.to_string().as_str(), first[m], true),
            "same order, same identifier, DUP"
        );
        client.settle(&message);
    }
}

/// The numbers of a queue go on over a restart, for what is recorded of them counts after the next one.
fn what_was_never_sent_is_no_duplicate_after_two_kills(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    let (mut client, _) = server.connect(&lasting(5, "sleeper"));
    client.subscribe("news", 1);
    fill(&server, "news");
    (0..20).for_each(|_| drop(client.take()));
    client.fence();
    client.disconnect();
    let server = place.kill_and_start(server);
    fill(&server, "news");
    let server = place.kill_and_start(server);
    let (mut client, _) = server.connect(&lasting(5, "sleeper"));
    for _ in 0..20 {
        assert!(!client.take().dup);
    }
}

fn a_release_goes_on_after_a_kill(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    let (mut client, _) = server.connect(&lasting(5, "release"));
    client.subscribe("release", 2);
    server.client(5, "publisher").publish("release", b"x", 2);
    let message = client.message();
    client.send(&packet::ack(5, message.id));
    client.ack(6, message.id);
    let server = place.kill_and_start(server);
    let (mut client, present) = server.connect(&lasting(5, "release"));
    assert!(present);
    match client.next() {
        Packet::Ack { kind: 6, id, .. } => assert_eq!(id, message.id, "PUBREL, not the message"),
        other => panic!("{other:?}"),
    }
    client.send(&packet::ack(7, message.id));
    server.client(5, "publisher").publish("release", b"y", 1);
    assert_eq!(client.take().text(), "y");
}

fn a_duplicate_across_a_kill_is_delivered_once(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    sleeper(&server, 5, "subscriber", "once");
    let publish = Publish {
        topic: "once",
        payload: b"one",
        qos: 2,
        id: 77,
        ..Publish::default()
    };
    let (mut client, _) = server.connect(&lasting(5, "twice"));
    client.send(&publish.encode(5));
    client.ack(5, 77);
    let server = place.kill_and_start(server);
    let (mut client, present) = server.connect(&lasting(5, "twice"));
    assert!(present);
    client.send(
        &Publish {
            dup: true,
            ..publish.clone()
        }
        .encode(5),
    );
    client.ack(5, 77);
    client.send(&packet::ack(6, 77));
    client.ack(7, 77);
    let server = place.kill_and_start(server);
    // The identifier is free, and that is known too: the same bytes are another message now.
    let (mut client, _) = server.connect(&lasting(5, "twice"));
    client.send(
        &Publish {
            payload: b"two",
            ..publish
        }
        .encode(5),
    );
    client.ack(5, 77);
    client.send(&packet::ack(6, 77));
    client.ack(7, 77);
    client.publish("once", b"end", 2);
    let (mut subscriber, _) = server.connect(&lasting(5, "subscriber"));
    let got: Vec<_> = subscriber
        .take_until(b"end")
        .iter()
        .map(|message| message.text().to_owned())
        .collect();
    assert_eq!(got, ["one", "two"]);
}

fn subscriptions_outlive_a_kill(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    let (mut client, _) = server.connect(&lasting(5, "many"));
    client.subscribe_with(&[("exact", 1)], &[Prop::Var(id::SUBSCRIPTION_ID, 9)]);
    client.subscribe("wild/+/card", 2);
    client.subscribe("$share/group/shared", 1);
    client.subscribe("gone", 1);
    client.unsubscribe(&["gone"]);
    let server = place.kill_and_start(server);
    let mut publisher = server.client(5, "publisher");
    for topic in ["exact", "wild/x/card", "gone", "shared", "exact"] {
        publisher.publish(topic, topic.as_bytes(), 1);
    }
    let (mut client, present) = server.connect(&lasting(5, "many"));
    assert!(present);
    let got: Vec<_> = (0..4).map(|_| client.take()).collect();
    let mut topics: Vec<_> = got.iter().map(|message| message.text()).collect();
    topics.sort_unstable();
    assert_eq!(topics, ["exact", "exact", "shared", "wild/x/card"]);
    assert_eq!(got[0].props.ints(id::SUBSCRIPTION_ID), [9]);
}

fn retained_messages_outlive_a_kill(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let mut server = place.start();
    for round in 0..2 {
        let mut publisher = server.client(5, "publisher");
        for n in 0..20 {
            let payload = format!("{round} {n}");
            // Of QoS 0 nothing is promised: it may be on its way to another reactor yet.
            let qos = (1 + n % 2) as u8;
            publisher.retain(&format!("kept/{n}"), payload.as_bytes(), qos);
        }
        publisher.retain("kept/3", b"", 1);
        server = place.kill_and_start(server);
        let mut client = server.client(5, "reader");
        client.subscribe("kept/#", 1);
        let mut got: Vec<_> = (0..19)
            .map(|_| {
                let message = client.take();
                assert!(message.retain);
                message.text().to_owned()
            })
            .collect();
        got.sort();
        let mut expected: Vec<_> = (0..20)
            .filter(|n| *n != 3)
            .map(|n| format!("{round} {n}"))
            .collect();
        expected.sort();
        assert_eq!(got, expected);
    }
}

fn the_will_of_a_client_that_was_connected_is_published_after_a_kill(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    sleeper(&server, 5, "watcher", "wills/#");
    let will = Will {
        topic: "wills/x",
        payload: b"bye",
        qos: 1,
        ..Will::default()
    };
    let (held, _) = server.connect(&Connect {
        will: Some(will),
        ..lasting(5, "mortal")
    });
    let server = place.kill_and_start(server);
    drop(held);
    let (mut watcher, _) = server.connect(&lasting(5, "watcher"));
    assert_eq!(watcher.take().text(), "bye");
    watcher.disconnect();
    let server = place.kill_and_start(server);
    let (mut watcher, _) = server.connect(&lasting(5, "watcher"));
    server
        .client(5, "publisher")
        .publish("wills/end", b"end", 1);
    assert_eq!(watcher.take_until(b"end").len(), 0, "once");
}

fn sessions_expire_while_the_server_is_away(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let mut server = place.start();
    let short = Connect {
        props: &[Prop::Four(id::SESSION_EXPIRY, 1)],
        ..lasting(5, "short")
    };
    server.connect(&short).0.disconnect();
    sleeper(&server, 5, "long", "x");
    server.kill();
    drop(server);
    std::thread::sleep(Duration::from_millis(2000));
    let server = place.start();
    assert!(!server.connect(&short).1, "a second is over");
    assert!(server.connect(&lasting(5, "long")).1);
}

fn a_session_that_ends_with_its_connection_ends_with_the_server(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    let short = Connect {
        clean: false,
        ..Connect::new(5, "short")
    };
    let (mut client, _) = server.connect(&short);
    client.subscribe("x", 1);
    // One that has outlived a connection, and is to end with this one.
    sleeper(&server, 5, "was long", "x");
    let again = Connect {
        clean: false,
        ..Connect::new(5, "was long")
    };
    let (other, present) = server.connect(&again);
    assert!(present);
    let server = place.kill_and_start(server);
    drop((client, other));
    assert!(!server.connect(&short).1);
    assert!(!server.connect(&again).1);
}

fn a_session_is_taken_over_after_a_kill(reactors: usize) {
    if lacks() {
        return;
    }
    let place = Place::new(reactors);
    let server = place.start();
    sleeper(&server, 5, "taken", "taken");
    fill(&server, "taken");
    let server = place.kill_and_start(server);
    let (mut first, present) = server.connect(&lasting(5, "taken"));
    assert!(present);
    for m in 0..5 {
        assert_eq!(first.take().text(), m.to_string());
    }
    first.fence();
    let (mut second, present) = server.connect(&lasting(5, "taken"));
    assert!(present);
    assert_eq!(first.closes(), Some(0x8E), "session taken over");
    for m in 5..20 {
        assert_eq!(second.take().text(), m.to_string());
    }
}

fn sessions_move_to_another_number_of_reactors(reactors: usize) {
    if lacks() {
        return;
    }
    let mut place = Place::new(reactors);
    let server = place.start();
    for n in 0..12 {
        sleeper(&server, 5, &format!("mover-{n}"), "all");
    }
    fill(&server, "all");
    server.client(5, "publisher").retain("kept", b"value", 1);
    place.reactors = 4 - reactors;
    let server = place.kill_and_start(server);
    for n in 0..6 {
        let (mut client, present) = server.connect(&lasting(5, &format!("mover-{n}")));
        assert!(present);
        is_filled(&mut client);
        client.disconnect();
    }
    place.reactors = reactors;
    let server = place.kill_and_start(server);
    for n in 0..12 {
        let (mut client, present) = server.connect(&lasting(5, &format!("mover-{n}")));
        assert!(present);
        if n >= 6 {
            is_filled(&mut client);
        }
        client.subscribe("kept", 1);
        assert_eq!(client.take().text(), "value");
        client.disconnect();
    }
    let generations = std::fs::read_dir(&place.dir)
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("store-")
        })
        .count();
    assert_eq!(generations, 1, "the old logs are gone");
}

/// Starts a server that must not start; its exit code and what it says.
fn refused(place: &Place) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stillwire"))
        .args(["serve", "--listen", "127.0.0.1:0", "--lookup", "off"])
        .args(["--reactors", "1"])
        .args(["--max-connections", "100", "--data-dir"])
        .arg(&place.dir)
        .output()
        .expect("the server runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_directory_that_can_not_be_read_is_said() {
    if lacks() {
        return;
    }
    let place = Place::new(1);
    let mut server = place.start();
    sleeper(&server, 5, "there", "x");
    let (code, said) = refused(&place);
    assert_eq!(code, Some(75), "another server has it: {said}");
    server.kill();
    let manifest = place.dir.join("manifest");
    let good = std::fs::read_to_string(&manifest).unwrap();
    for (bad, words) in [
        (good.replace("version = 1", "version = 2"), "newer server"),
        (good.replace("reactors = 1", "reactors = 2"), "manifest"),
    ] {
        std::fs::write(&manifest, bad).unwrap();
        let (code, said) = refused(&place);
        assert_eq!(code, Some(74), "{said}");
        let last = said.lines().last().expect("a line");
        assert!(
            last.starts_with("stillwire: ") && last.contains(words),
            "{said}"
        );
    }
    std::fs::remove_file(&manifest).unwrap();
    let (code, said) = refused(&place);
    assert_eq!(code, Some(74), "its logs are there: {said}");
    std::fs::write(&manifest, good).unwrap();
    let server = place.start();
    assert!(server.connect(&lasting(5, "there")).1);
}
