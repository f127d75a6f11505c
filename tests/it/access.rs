//! Who comes in, as whom, and what they may do: tickets, tenants, rules, limits, revocation; and files that are read anew while clients stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use stillwire::access::{Claims, Keys};

use super::support::server::Options;
use super::support::{
    Broker, Client, Connect, Event, Prop, Publish, Server, Will, eventually, id,
    with_one_and_three_reactors,
};

with_one_and_three_reactors!(
    only_a_good_ticket_lets_in,
    tenants_share_nothing,
    a_tenants_sessions_outlive_the_server,
    rules_decide_what_is_published_and_subscribed,
    what_waited_is_asked_about_again,
    what_is_not_allowed_any_more_ends,
    a_broken_file_changes_nothing,
    an_empty_file_allows_nothing,
    who_is_revoked_is_cut_off,
    a_tenants_limits_are_told,
    a_token_may_say_what_it_allows,
    passwords_are_checked_beside_the_reactors,
    the_hook_is_asked_and_fails_closed,
    who_comes_too_often_is_told_when_to_come_again,
);

const KEYS: &str = "[[key]]\nid = \"k\"\nalgorithm = \"HS256\"\nsecret = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\nsign = true\n";

/// Files that a server is told of, in a directory that goes with the test.
struct Files {
    dir: PathBuf,
    keys: Keys,
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Files {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("access-{}-{serial}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let files = Self {
            keys: Keys::parse(Path::new("keys"), KEYS).expect("keys"),
            dir,
        };
        files.write("keys", KEYS);
        files
    }

    fn write(&self, name: &str, text: &str) {
        // As a careful operator does: never half a file.
        let path = self.dir.join(name);
        fs::write(path.with_extension("new"), text).expect("a file");
        fs::rename(path.with_extension("new"), path).expect("a file");
    }

    /// A server whose `[access]` names these files.
    fn serve(&self, reactors: usize, auth: &str, names: &[&str]) -> Server {
        Server::launch(&self.options(reactors, auth, names))
    }

    fn options(&self, reactors: usize, auth: &str, names: &[&str]) -> Options {
        let mut config = format!("auth = {auth}\n[access]\n");
        for name in names {
            config += &format!("{name} = {:?}\n", self.dir.join(name));
        }
        Options {
            reactors,
            mqtt: vec![("sys_interval", 1)],
            max_connections: None,
            data_dir: None,
            queue_full: None,
            config,
        }
    }

    fn ticket(&self, app: &str, client_id: &str) -> String {
        self.sign(&claims(app, client_id))
    }

    fn sign(&self, claims: &Claims) -> String {
        self.keys.sign(claims).expect("a ticket")
    }
}

fn unix() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
}

fn claims(app: &str, client_id: &str) -> Claims {
    Claims {
        sub: client_id.to_owned(),
        app: (!app.is_empty()).then(|| app.to_owned()),
        exp: unix() + 3600,
        iat: Some(unix()),
        jti: Some(format!("{app}-{client_id}")),
        ..Claims::default()
    }
}

/// A client with a ticket, connected.
fn come(server: &Server, files: &Files, version: u8, app: &str, client_id: &str) -> Client {
    let ticket = files.ticket(app, client_id);
    let connect = Connect {
        user: Some(app),
        password: Some(&ticket),
        ..Connect::new(version, client_id)
    };
    server.connect(&connect).0
}

/// The code with which these credentials are refused, after which the connection closes.
fn refused(server: &Server, connect: &Connect<'_>) -> u8 {
    let mut client = server.open(connect.version);
    let (_, code, _) = client.connack(connect);
    assert_ne!(code, 0, "somebody was let in: {connect:?}");
    client.closes();
    code
}

/// Nothing came before the server answered this client.
fn hears_nothing(client: &mut Client) {
    client.fence();
    match client.event(Duration::from_millis(50)) {
        Event::Nothing => {}
        other => panic!("heard {other:?}"),
    }
}

fn only_a_good_ticket_lets_in(reactors: usize) {
    let files = Files::new();
    let server = files.serve(reactors, "[\"ticket\"]", &["keys"]);
    let good = files.ticket("", "phone");
    let expired = files.sign(&Claims {
        exp: unix() - 3600,
        ..claims("", "phone")
    });
    let future = files.sign(&Claims {
        iat: Some(unix() + 3600),
        ..claims("", "phone")
    });
    let mut tampered = good.clone().into_bytes();
    let last = tampered.len() - 2;
    tampered[last] = if tampered[last] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).expect("text");
    for (version, bad, expired_code) in [(5, 0x86, 0x87), (4, 4, 5), (3, 4, 5)] {
        let with = |password| Connect {
            user: Some("x"),
            password,
            ..Connect::new(version, "phone")
        };
        assert_eq!(refused(&server, &Connect::new(version, "phone")), bad);
        assert_eq!(refused(&server, &with(None)), bad);
        assert_eq!(refused(&server, &with(Some("no token"))), bad);
        assert_eq!(refused(&server, &with(Some(&tampered))), bad);
        assert_eq!(refused(&server, &with(Some(&future))), bad);
        assert_eq!(refused(&server, &with(Some(&expired))), expired_code);
        let other = Connect {
            id: "other",
            ..with(Some(&good))
        };
        assert_eq!(refused(&server, &other), bad, "another's ticket");
        let (mut client, _) = server.connect(&with(Some(&good)));
        client.subscribe("a", 1);
        client.publish("a", b"hello", 1);
        assert_eq!(client.take().payload, b"hello");
    }
}

/// The same client identifiers, topics, groups, inboxes and retained messages in three tenants, and each meets its own.
fn tenants_share_nothing(reactors: usize) {
    let files = Files::new();
    let tenants = ["", "red", "blue"];
    for (version, round) in [(5, 0), (4, 1)] {
        let server = files.serve(reactors, "[\"ticket\"]", &["keys"]);
        let mut phones: Vec<_> = tenants
            .iter()
            .map(|app| {
                let mut phone = come(&server, &files, version, app, "phone");
                for filter in ["#", "news/today", "$share/g/work/+"] {
                    phone.subscribe(filter, 1);
                }
                phone
            })
            .collect();
        for app in tenants {
            let mut publisher = come(&server, &files, version, app, "publisher");
            let payload = format!("{app}-{round}");
            for topic in ["news/today", "other", "work/1", "$inbox/phone/x"] {
                assert_eq!(publisher.publish(topic, payload.as_bytes(), 1), 0);
            }
            publisher.retain(&format!("kept/{round}"), payload.as_bytes(), 1);
            publisher.disconnect();
        }
        for (phone, app) in phones.iter_mut().zip(tenants) {
            let payload = format!("{app}-{round}").into_bytes();
            let mut topics = Vec::new();
            // "work/1" comes twice: through the group, and through "#".
            for _ in 0..6 {
                let message = phone.take();
                assert_eq!(
                    message.payload, payload,
                    "{app} hears another's {}",
                    message.topic
                );
                topics.push(message.topic);
            }
            topics.sort();
            let kept = format!("kept/{round}");
            assert_eq!(
                topics,
                [
                    "$inbox/phone/x",
                    &kept,
                    "news/today",
                    "other",
                    "work/1",
                    "work/1"
                ]
            );
            hears_nothing(phone);
        }
        for app in tenants {
            let mut late = come(&server, &files, version, app, "late");
            late.subscribe(&format!("+/{round}"), 1);
            let message = late.take();
            assert_eq!(message.payload, format!("{app}-{round}").into_bytes());
            assert!(message.retain);
            hears_nothing(&mut late);
        }
        // A tenant's figures are its own; the server's are for the default tenant alone.
        let mut red = come(&server, &files, version, "red", "looks");
        red.subscribe("$SYS/#", 0);
        let message = red.wait("a figure", |packet| match packet {
            super::support::Packet::Publish(message)
                if message.topic == "$SYS/broker/clients/connected" && message.payload == b"2" =>
            {
                Some(message.clone())
            }
            _ => None,
        });
        assert_eq!(message.payload, b"2");
        red.disconnect();
        // A name is taken over in its tenant alone.
        let mut again = come(&server, &files, version, "blue", "phone");
        again.fence();
        phones.pop().expect("three").closes();
        phones.iter_mut().for_each(Client::fence);
    }
}

fn a_tenants_sessions_outlive_the_server(reactors: usize) {
    if Broker::lacks("tenants") {
        return;
    }
    let files = Files::new();
    let mut options = files.options(reactors, "[\"ticket\"]", &["keys"]);
    options.data_dir = Some(files.dir.join("data"));
    let expiry = [Prop::Four(id::SESSION_EXPIRY, 3600)];
    let ticket = |app: &str| files.ticket(app, "phone");
    let mut server = Server::launch(&options);
    for app in ["red", "blue"] {
        let ticket = ticket(app);
        let connect = Connect {
            password: Some(&ticket),
            clean: false,
            props: &expiry,
            ..Connect::new(5, "phone")
        };
        let (mut phone, present) = server.connect(&connect);
        assert!(!present);
        phone.subscribe("news/+", 1);
        phone.subscribe("$share/g/work", 1);
        phone.vanish();
    }
    for app in ["red", "blue", ""] {
        let mut publisher = come(&server, &files, 5, app, "publisher");
        for topic in ["news/1", "work"] {
            publisher.publish(topic, app.as_bytes(), 1);
        }
        publisher.retain("news/kept", app.as_bytes(), 1);
    }
    server.kill();
    let server = Server::launch(&options);
    for app in ["red", "blue"] {
        let ticket = ticket(app);
        let connect = Connect {
            password: Some(&ticket),
            clean: false,
            props: &expiry,
            ..Connect::new(5, "phone")
        };
        let (mut phone, present) = server.connect(&connect);
        assert!(present, "{app}");
        let mut topics: Vec<String> = (0..3)
            .map(|_| {
                let message = phone.take();
                assert_eq!(message.payload, app.as_bytes());
                message.topic
            })
            .collect();
        topics.sort();
        assert_eq!(topics, ["news/1", "news/kept", "work"]);
        hears_nothing(&mut phone);
        let mut late = come(&server, &files, 5, app, "late");
        late.subscribe("#", 1);
        assert_eq!(late.take().payload, app.as_bytes());
        // The subscription is still there, and still the tenant's.
        late.publish("news/2", b"live", 1);
        assert_eq!(phone.take().payload, b"live");
    }
}

const RULES: &str = "\
allow publish up/%c/#
allow subscribe down/%c/#
allow all shared/#
allow publish $inbox/#
deny all shared/secret/#
";

fn rules_decide_what_is_published_and_subscribed(reactors: usize) {
    let files = Files::new();
    files.write("acl", RULES);
    let server = files.serve(reactors, "[\"open\"]", &["acl"]);
    for version in [5, 4] {
        let no_publish = if version == 5 { 0x87 } else { 0 };
        let no_subscribe = if version == 5 { 0x87 } else { 0x80 };
        let mut listener = server.client(version, "me");
        for (filter, code) in [
            ("down/me/#", 1),
            ("down/other/#", no_subscribe),
            ("shared/a", 1),
            ("shared/secret/x", no_subscribe),
            // It would hear what is denied.
            ("shared/#", no_subscribe),
            ("#", no_subscribe),
            ("$share/g/shared/b", 1),
            ("$share/g/shared/#", no_subscribe),
        ] {
            assert_eq!(
                listener.subscribe_with(&[(filter, 1)], &[]),
                [code],
                "{filter}"
            );
        }
        let mut publisher = server.client(version, "other");
        for (topic, code) in [
            ("down/me/x", no_publish),
            ("up/me/x", no_publish),
            ("shared/secret/x", no_publish),
            ("shared/a", 0),
            ("$inbox/me/x", 0),
        ] {
            for qos in [1, 2] {
                assert_eq!(
                    publisher.publish(topic, topic.as_bytes(), qos),
                    code,
                    "{topic}"
                );
            }
        }
        publisher.publish("down/me/x", b"no", 0);
        publisher.fence();
        let heard: Vec<_> = (0..4).map(|_| listener.take().topic).collect();
        assert_eq!(
            heard,
            ["shared/a", "shared/a", "$inbox/me/x", "$inbox/me/x"]
        );
        hears_nothing(&mut listener);
        // A client identifier that is a pattern is none.
        let mut sly = server.client(version, "#");
        assert_eq!(
            sly.subscribe_with(&[("down/#", 1), ("down/me/#", 1)], &[]),
            [no_subscribe; 2]
        );
        sly.disconnect();
        let will = Connect {
            will: Some(Will {
                topic: "down/me/will",
                payload: b"boo",
                ..Will::default()
            }),
            ..Connect::new(version, "haunted")
        };
        assert_eq!(refused(&server, &will), if version == 5 { 0x87 } else { 5 });
    }
}

/// What was queued, retained or left as a will under other rules is not delivered under these.
fn what_waited_is_asked_about_again(reactors: usize) {
    let files = Files::new();
    files.write("acl", "allow all #\n");
    let server = files.serve(reactors, "[\"open\"]", &["acl"]);
    let durable = |id| Connect {
        clean: false,
        props: &[Prop::Four(id::SESSION_EXPIRY, 3600)],
        ..Connect::new(5, id)
    };
    let (mut away, _) = server.connect(&durable("away"));
    away.subscribe("a/#", 1);
    away.vanish();
    let mut publisher = server.client(5, "publisher");
    for topic in ["a/open", "a/closed"] {
        assert_eq!(publisher.publish(topic, b"queued", 1), 0);
        assert_eq!(publisher.retain(topic, b"kept", 1), 0);
    }
    let haunted = Connect {
        will: Some(Will {
            topic: "a/closed",
            payload: b"boo",
            qos: 1,
            ..Will::default()
        }),
        ..Connect::new(5, "haunted")
    };
    let (mut haunted, _) = server.connect(&haunted);
    haunted.fence();
    files.write(
        "acl",
        "allow all a/open\nallow subscribe b/#\nallow publish b/#\n",
    );
    server.reload("anew");
    let mut listener = server.client(5, "listener");
    listener.subscribe("a/open", 1);
    assert_eq!(listener.take().payload, b"kept");
    haunted.vanish();
    let (mut back, present) = server.connect(&durable("away"));
    assert!(present);
    let heard: Vec<_> = (0..2).map(|_| back.take().topic).collect();
    assert_eq!(heard, ["a/open", "a/open"]);
    hears_nothing(&mut back);
    // Its subscription was for more than it may have now.
    publisher.publish("a/open", b"live", 1);
    assert_eq!(listener.take().payload, b"live");
    hears_nothing(&mut back);
    back.subscribe("b/will", 1);
    hears_nothing(&mut listener);
}

fn what_is_not_allowed_any_more_ends(reactors: usize) {
    let files = Files::new();
    files.write("acl", "allow all #\n");
    let server = files.serve(reactors, "[\"open\"]", &["acl"]);
    let mut phones: Vec<_> = (0..20)
        .map(|n| {
            let mut phone = server.client(5, &format!("phone-{n}"));
            for filter in ["a/1", "b/1", "b/#", "$share/g/b/2"] {
                phone.subscribe(filter, 1);
            }
            phone
        })
        .collect();
    files.write("acl", "allow all a/#\nallow publish b/#\n");
    server.reload("anew");
    let mut publisher = server.client(5, "publisher");
    // Until all have been looked at again.
    eventually("nobody subscribes to b any more", || {
        ["b/1", "b/2"]
            .iter()
            .all(|topic| publisher.publish(topic, b"late", 1) == 0x10)
    });
    publisher.publish("a/1", b"a", 1);
    for phone in &mut phones {
        while phone.take().payload != b"a" {}
        assert_eq!(phone.unsubscribe(&["b/1", "a/1"]), [0x11, 0]);
    }
}

fn a_broken_file_changes_nothing(reactors: usize) {
    let files = Files::new();
    files.write("acl", "allow all a/#\n");
    let server = files.serve(reactors, "[\"ticket\"]", &["keys", "acl"]);
    let mut client = come(&server, &files, 5, "", "c");
    client.subscribe("a/b", 1);
    files.write("acl", "allow all #\nalow all b/#\n");
    server.reload("what was read before holds");
    assert!(server.log().contains("acl:2:"), "{}", server.log());
    assert_eq!(client.publish("a/b", b"1", 1), 0);
    assert_eq!(client.publish("b", b"1", 1), 0x87);
    files.write("acl", "allow all #\n");
    files.write("keys", "nonsense");
    server.reload("what was read before holds");
    assert_eq!(client.publish("b", b"1", 1), 0x87);
    drop(come(&server, &files, 5, "", "d"));
    files.write("keys", KEYS);
    server.reload("anew");
    eventually("the new rules hold", || {
        client.publish("b", b"1", 1) != 0x87
    });
    assert_eq!(client.take().payload, b"1");
}

fn an_empty_file_allows_nothing(reactors: usize) {
    let files = Files::new();
    files.write("acl", "# nothing yet\n");
    let server = files.serve(reactors, "[\"open\"]", &["acl"]);
    let mut client = server.client(5, "c");
    assert_eq!(client.publish("a", b"1", 1), 0x87);
    assert_eq!(client.subscribe_with(&[("a", 0)], &[]), [0x87]);
    client.fence();
}

fn who_is_revoked_is_cut_off(reactors: usize) {
    let files = Files::new();
    files.write("revoked", "");
    let server = files.serve(reactors, "[\"ticket\"]", &["keys", "revoked"]);
    let mut by_token = come(&server, &files, 5, "red", "token");
    let mut by_client = come(&server, &files, 5, "red", "client");
    let mut by_app = come(&server, &files, 4, "blue", "app");
    let mut stays = come(&server, &files, 5, "red", "stays");
    files.write("revoked", "token red-token\nclient red/client\napp blue\n");
    server.reload("anew");
    assert_eq!(by_token.closes(), Some(0x98));
    assert_eq!(by_client.closes(), Some(0x98));
    by_app.closes();
    stays.fence();
    for (app, id) in [("red", "token"), ("red", "client"), ("blue", "new")] {
        let ticket = files.ticket(app, id);
        let connect = Connect {
            password: Some(&ticket),
            ..Connect::new(5, id)
        };
        assert_eq!(refused(&server, &connect), 0x8A, "{app} {id}");
    }
    files.write("revoked", "");
    server.reload("anew");
    eventually("who is revoked no more is let in", || {
        let ticket = files.ticket("blue", "app");
        let connect = Connect {
            password: Some(&ticket),
            ..Connect::new(5, "app")
        };
        server.open(5).connack(&connect).1 == 0
    });
}

fn a_tenants_limits_are_told(reactors: usize) {
    let files = Files::new();
    files.write(
        "apps",
        "[[app]]\nkey = \"small\"\nmax_connections = 3\nmax_subscriptions = 4\nmax_payload = 100\nmax_offline_bytes = 4000\n\
         [[app]]\nkey = \"slow\"\npublish_rate = 5\nconnect_rate = 3\n\
         [[app]]\nkey = \"thin\"\npublish_bytes = 1000\n[[app]]\nkey = \"-\"\n",
    );
    let mut options = files.options(reactors, "[\"ticket\"]", &["keys", "apps"]);
    options.queue_full = Some("refuse");
    let server = Server::launch(&options);
    let with = |app: &str, id: &str| {
        let ticket = files.ticket(app, id);
        let mut client = server.open(5);
        let code = client
            .connack(&Connect {
                password: Some(&ticket),
                clean: false,
                props: &[Prop::Four(id::SESSION_EXPIRY, 600)],
                ..Connect::new(5, id)
            })
            .1;
        (client, code)
    };
    assert_eq!(with("unknown", "x").1, 0x87, "an app that the file has not");
    // Connections: a third one, and another in its place; who comes again takes over, and is no fourth.
    let mut clients: Vec<_> = ["a", "b", "c"]
        .map(|id| with("small", id))
        .into_iter()
        .collect();
    assert!(clients.iter().all(|(_, code)| *code == 0));
    assert_eq!(with("small", "d").1, 0x97);
    clients[2] = with("small", "c");
    assert_eq!(clients[2].1, 0);
    drop(clients.pop());
    let mut d = None;
    eventually("one that went makes room", || {
        let (client, code) = with("small", "d");
        d = (code == 0).then_some(client);
        d.is_some()
    });
    // Subscriptions, of all its clients together.
    let (a, b) = clients.split_at_mut(1);
    let (a, b) = (&mut a[0].0, &mut b[0].0);
    assert_eq!(
        a.subscribe_with(&[("1", 1), ("2", 1), ("3", 1), ("4", 1), ("5", 1)], &[]),
        [1, 1, 1, 1, 0x97]
    );
    assert_eq!(b.subscribe_with(&[("1", 1)], &[]), [0x97]);
    assert_eq!(a.subscribe_with(&[("1", 1)], &[]), [1], "one that it has");
    assert_eq!(a.unsubscribe(&["4"]), [0]);
    assert_eq!(b.subscribe_with(&[("away", 1)], &[]), [1]);
    // Bytes that wait for who is away.
    clients.remove(1).0.vanish();
    let publisher = &mut clients[0].0;
    eventually("the queues of the tenant are full", || {
        publisher.publish("away", &[0; 100], 1) == 0x97
    });
    assert_eq!(
        publisher.publish("1", &[0; 100], 1),
        0,
        "who is there has room"
    );
    // Payload.
    let bytes = Publish {
        topic: "1",
        payload: &[0; 101],
        ..Publish::default()
    };
    publisher.send(&bytes.encode(5));
    assert_eq!(publisher.closes(), Some(0x95));
    // Rates: a burst is over them, whatever the machine does meanwhile.
    let (mut slow, code) = with("slow", "a");
    assert_eq!(code, 0);
    let codes: Vec<u8> = (0..200).map(|_| slow.publish("nobody", b"x", 1)).collect();
    assert!(codes.contains(&0x97), "{codes:02x?}");
    eventually("the rate is earned again", || {
        slow.publish("nobody", b"x", 1) == 0x10
    });
    let codes: Vec<u8> = (0..200)
        .map(|n| with("slow", &format!("many-{n}")).1)
        .collect();
    assert!(codes.contains(&0x9F), "{codes:02x?}");
    let (mut thin, _) = with("thin", "a");
    let codes: Vec<u8> = (0..200)
        .map(|_| thin.publish("nobody", &[0; 200], 1))
        .collect();
    assert!(
        codes.contains(&0x97) && codes.contains(&0x10),
        "{codes:02x?}"
    );
    // Nobody else was meant.
    let (mut free, _) = with("", "free");
    assert_eq!(free.publish("nobody", &[0; 5000], 1), 0x10);
}

fn a_token_may_say_what_it_allows(reactors: usize) {
    let files = Files::new();
    files.write("acl", "deny all x/secret\n");
    let server = files.serve(reactors, "[\"ticket\"]", &["keys", "acl"]);
    let ticket = files.sign(&Claims {
        acl: Some(stillwire::access::RightsClaim {
            publish: vec!["x/#".to_owned()],
            subscribe: vec!["y/%c/#".to_owned()],
        }),
        ..claims("red", "phone")
    });
    let connect = Connect {
        password: Some(&ticket),
        ..Connect::new(5, "phone")
    };
    // At the other reactors it must be the same token's rights.
    for _ in 0..5 {
        let (mut phone, _) = server.connect(&connect);
        assert_eq!(phone.publish("x/1", b"", 1), 0x10);
        assert_eq!(
            phone.publish("x/secret", b"", 1),
            0x87,
            "the file denies it to everybody"
        );
        assert_eq!(phone.publish("y/phone/1", b"", 1), 0x87);
        let codes = phone.subscribe_with(&[("y/phone/#", 1), ("y/other/#", 1), ("x/1", 1)], &[]);
        assert_eq!(codes, [1, 0x87, 0x87]);
        phone.disconnect();
    }
}

/// The answer of a little HTTP server that a test plays the app's hook with.
fn hook(
    answers: &'static [(&'static str, &'static str)],
) -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let serve = move || {
        for (client_id, answer) in answers {
            let (mut socket, _) = listener.accept().expect("a question");
            let mut lines = BufReader::new(socket.try_clone().expect("the same socket"));
            let (mut line, mut len) = (String::new(), 0);
            while lines.read_line(&mut line).expect("a line") > 2 {
                if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    len = text.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; len];
            lines.read_exact(&mut body).expect("a body");
            let asked: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(asked["client_id"], *client_id);
            write!(
                socket,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            )
            .expect("an answer");
        }
    };
    (address, std::thread::spawn(serve))
}

/// A password takes argon2 its time, and nobody else waits for it.
fn passwords_are_checked_beside_the_reactors(reactors: usize) {
    let files = Files::new();
    let path = files.dir.join("passwords");
    for (user, password, app) in [("alice", "right", None), ("bob", "good", Some("red"))] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stillwire"));
        command.arg("passwd").arg(&path).arg(user);
        if let Some(app) = app {
            command.args(["--app", app]);
        }
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("passwd");
        std::io::Write::write_all(
            child.stdin.as_mut().expect("its input"),
            format!("{password}\n").as_bytes(),
        )
        .expect("a password");
        assert!(child.wait().expect("its end").success());
    }
    let mut options = files.options(reactors, "[\"password-file\"]", &["passwords"]);
    options.mqtt.push(("connect_timeout", 60));
    let server = Server::launch(&options);
    for (version, bad) in [(5, 0x86), (4, 4), (3, 4)] {
        let with = |user, password| Connect {
            user: Some(user),
            password: Some(password),
            ..Connect::new(version, "phone")
        };
        assert_eq!(refused(&server, &with("alice", "wrong")), bad);
        assert_eq!(refused(&server, &with("nobody", "right")), bad);
        assert_eq!(refused(&server, &Connect::new(version, "phone")), bad);
        let (mut alice, _) = server.connect(&with("alice", "right"));
        let (mut bob, _) = server.connect(&with("bob", "good"));
        // Both are called phone, in two tenants.
        alice.subscribe("a", 1);
        bob.subscribe("a", 1);
        bob.publish("a", b"red", 1);
        assert_eq!(bob.take().payload, b"red");
        hears_nothing(&mut alice);
        // What comes with the CONNECT waits with it.
        let mut hasty = server.open(version);
        let connect = with("alice", "right").encode();
        let publish = Publish {
            topic: "a",
            payload: b"hasty",
            ..Publish::default()
        };
        hasty.send(&[connect, publish.encode(version)].concat());
        assert!(matches!(
            hasty.next(),
            super::support::Packet::Connack { code: 0, .. }
        ));
        alice.closes();
        hasty.subscribe("b", 0);
    }
    // Many at once: each is answered, and who is gone meanwhile does no harm.
    let wrong = Connect {
        user: Some("alice"),
        password: Some("wrong"),
        ..Connect::new(5, "many")
    }
    .encode();
    let mut many: Vec<_> = (0..30)
        .map(|_| {
            let mut client = server.open(5);
            client.send(&wrong);
            client
        })
        .collect();
    many.drain(..10).for_each(Client::vanish);
    for client in &mut many {
        let code = client.closes_within(Duration::from_secs(60));
        assert!(matches!(code, Some(0x86 | 0x88)), "{code:?}");
    }
}

fn the_hook_is_asked_and_fails_closed(reactors: usize) {
    let files = Files::new();
    let (address, thread) = hook(&[
        (
            "good",
            r#"{"result":"allow","tenant":"red","acl":{"pub":["x/#"],"sub":["x/#"]}}"#,
        ),
        ("bad", r#"{"result":"deny"}"#),
        ("odd", r#"{"result":"maybe"}"#),
    ]);
    let mut options = files.options(reactors, "[\"http\"]", &[]);
    options.config += &format!("http_url = \"http://{address}/auth\"\n");
    let server = Server::launch(&options);
    let with = |id| Connect {
        user: Some("u"),
        password: Some("secret"),
        ..Connect::new(5, id)
    };
    let (mut good, _) = server.connect(&with("good"));
    assert_eq!(good.publish("x/1", b"", 1), 0x10);
    assert_eq!(good.publish("y", b"", 1), 0x87);
    assert_eq!(refused(&server, &with("bad")), 0x86);
    assert_eq!(
        refused(&server, &with("odd")),
        0x88,
        "an answer that is none lets nobody in"
    );
    thread.join().expect("the hook answered");
    assert_eq!(
        refused(&server, &with("late")),
        0x88,
        "no hook lets nobody in"
    );
    good.fence();
}

fn who_comes_too_often_is_told_when_to_come_again(reactors: usize) {
    let files = Files::new();
    let mut options = files.options(reactors, "[\"ticket\"]", &["keys"]);
    options.config += "client_connects = 2\naddress_failures = 20\n";
    let server = Server::launch(&options);
    let ticket = files.ticket("", "phone");
    let good = Connect {
        password: Some(&ticket),
        ..Connect::new(5, "phone")
    };
    let tries: Vec<_> = (0..30).map(|_| server.open(5).connack(&good)).collect();
    let held = tries
        .iter()
        .find(|(_, code, _)| *code == 0x9F)
        .expect("some are too many");
    let words = String::from_utf8_lossy(held.2.bytes(0x1F).expect("a reason string"));
    assert!(words.contains("try again in 1 s"), "{words}");
    assert!(tries.iter().any(|(_, code, _)| *code == 0));
    let bad = |n: usize| {
        let id = format!("guess-{n}");
        let connect = Connect {
            password: Some("no"),
            ..Connect::new(5, &id)
        };
        server.open(5).connack(&connect).1
    };
    let codes: Vec<u8> = (0..60).map(bad).collect();
    assert_eq!(codes[0], 0x86);
    assert!(codes.contains(&0x9F), "{codes:02x?}");
}
