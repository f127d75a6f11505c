//! `tools store`, on a data directory that a store has open.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use stillwire::ids::{SessionId, SessionIdx};
use stillwire::session::durable::{self, Body, Core, Meta};
use stillwire::store::Store;
use stillwire::store::log::{Log, Shape};
use stillwire::store::manifest::Manifest;
use stillwire::store::syncer::Syncer;
use stillwire::wire::Qos;

/// A directory of a test's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("stillwire-tools-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tools(command: &str, dir: &Path, rest: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tools"))
        .args(["store", command])
        .arg(dir)
        .args(rest)
        .output()
        .unwrap()
}

/// What it wrote, if it went as it should.
fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?} {said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = text(output);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn session(idx: u32) -> SessionId {
    SessionId {
        idx: SessionIdx(idx),
        serial: idx + 10,
    }
}

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Body<'a> {
    Body {
        qos: Qos::AtLeastOnce,
        retain: false,
        expires: None,
        since: None,
        token: None,
        topic,
        forward: &[],
        payload,
    }
}

/// A store with room for what is put into it.
fn store(log: Log) -> Store {
    let store = Store::new(log, 1);
    let begin = Instant::now();
    while store.refuses().is_some() {
        assert!(begin.elapsed() < Duration::from_secs(60), "no segment");
        std::thread::yield_now();
    }
    store
}

/// Two logs, of which the first has three sessions with messages of all sorts, and a retained message.
fn fill(data: &Path, syncer: &Syncer) -> Vec<Store> {
    let manifest = Manifest::new(2);
    manifest.write(data).unwrap();
    let open = |reactor| {
        let directory = manifest.log(data, reactor);
        let key = manifest.key(reactor);
        let opened = Log::open(&directory, key, reactor, Shape::default(), syncer, || ());
        store(opened.unwrap().log)
    };
    let mut stores = vec![open(0), open(1)];
    let store = &mut stores[0];
    for idx in 0..3 {
        let client = format!("phone-{idx}");
        let mut state = Vec::new();
        let core = Core {
            client_id: &client,
            expiry: 3600,
            ..Core::default()
        };
        durable::write_core(&mut state, &core);
        store.create(session(idx), &state).unwrap();
    }
    let own = message("a/own", b"mine \xff");
    let head = own.head();
    let mut meta = Vec::new();
    Meta::write(&mut meta, 0, &[7], None);
    let seq = store
        .append(session(1), 5, &meta, &own.pieces(&head))
        .unwrap();
    store.done(session(1), seq).unwrap();
    store
        .append(session(1), 6, &meta, &own.pieces(&head))
        .unwrap();
    let all = message("a/all", b"hello");
    let head = all.head();
    let body = store.share(&all.pieces(&head)).unwrap();
    for idx in 0..3 {
        store.append_shared(session(idx), 0, 0, body).unwrap();
    }
    store.append_reference(session(2), 0, &meta, body).unwrap();
    store.release(body);
    let retained = message("a/kept", b"21");
    let head = retained.head();
    store.keep(b"a/kept", &retained.pieces(&head)).unwrap();
    store.commit().unwrap();
    stores
}

#[test]
fn a_store_is_inspected_dumped_and_verified_while_it_is_open() {
    let scratch = Scratch::new("whole");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let stores = fill(&scratch.0, &syncer);

    let seen: Value =
        serde_json::from_str(&text(&tools("inspect", &scratch.0, &["--json"]))).unwrap();
    assert_eq!(
        (&seen["generation"], &seen["reactors"]),
        (&1.into(), &2.into())
    );
    let log = &seen["logs"][0];
    let stats = stores[0].stats();
    for (name, value) in [
        ("sessions", 3),
        ("messages", 5),
        ("bodies", 1),
        ("values", 1),
        ("segments", 1),
        ("live_bytes", stats.live),
        ("damaged_places", 0),
    ] {
        assert_eq!(log[name], value, "{name}: {seen}");
    }
    assert_eq!(log["dead_bytes"].as_u64().unwrap(), stats.log - stats.live);
    let table = text(&tools("inspect", &scratch.0, &[]));
    assert!(table.contains("generation 1, 2 reactors"), "{table}");
    assert!(
        table.lines().nth(1).unwrap().contains("sessions"),
        "{table}"
    );

    let all = lines(&tools("dump", &scratch.0, &[]));
    let count = |kind: &str| all.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!(
        [
            "state",
            "message",
            "done",
            "body",
            "fan",
            "reference",
            "value"
        ]
        .map(count),
        [3, 2, 1, 1, 1, 1, 1]
    );
    let own = all.iter().find(|line| line["kind"] == "message").unwrap();
    assert_eq!((&own["topic"], &own["seq"]), (&"a/own".into(), &5.into()));
    assert_eq!(own["payload_hex"], "6d696e6520ff");
    assert_eq!(own["subscription_ids"][0], 7);

    let text_of = text(&tools("verify", &scratch.0, &[]));
    assert!(text_of.ends_with("all well\n"), "{text_of}");
    drop((stores, syncer));
}

#[test]
fn a_dump_is_filtered_by_session_and_topic() {
    let scratch = Scratch::new("filter");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let _stores = fill(&scratch.0, &syncer);
    let kinds = |rest: &[&str]| -> Vec<String> {
        let lines = lines(&tools("dump", &scratch.0, rest));
        let kind = |line: &Value| line["kind"].as_str().unwrap().to_owned();
        lines.iter().map(kind).collect()
    };
    let of_phone = ["state", "message", "done", "message", "fan"];
    let mut by_name = kinds(&["--session", "phone-1"]);
    let mut expected = of_phone.map(str::to_owned).to_vec();
    by_name.sort();
    expected.sort();
    assert_eq!(by_name, expected);
    assert_eq!(kinds(&["--session", "1"]).len(), expected.len());
    let fan = lines(&tools("dump", &scratch.0, &["--session", "phone-1"]));
    let fan = fan.iter().find(|line| line["kind"] == "fan").unwrap();
    assert_eq!(fan["entries"].as_array().unwrap().len(), 1);
    assert_eq!(fan["entries"][0]["session"], 1);

    let mut by_topic = kinds(&["--topic", "a/all"]);
    by_topic.sort();
    assert_eq!(by_topic, ["body", "fan", "reference"]);
    assert_eq!(kinds(&["--topic", "a/kept"]), ["value"]);
    assert_eq!(
        kinds(&["--topic", "a/all", "--session", "phone-1"]),
        ["fan"]
    );
    assert_eq!(kinds(&["--session", "nobody"]), Vec::<String>::new());
}

#[test]
fn damage_is_told_with_file_and_offset() {
    let scratch = Scratch::new("damage");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    drop(fill(&scratch.0, &syncer));
    drop(syncer);
    let log = Manifest::read(&scratch.0)
        .unwrap()
        .unwrap()
        .log(&scratch.0, 0);
    let file = std::fs::read_dir(&log)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&file).unwrap();
    // The first record is a state; its last byte is damaged.
    bytes[64 + 24 + 1] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let output = tools("verify", &scratch.0, &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let place = format!("{}: offset 64: ", file.display());
    assert!(said.contains(&place), "{said}");
    // The entry of a queue without its session.
    assert!(said.contains("1 records speak of sessions"), "{said}");
    // Looking changes nothing.
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    let table = text(&tools("inspect", &scratch.0, &[]));
    assert!(table.contains("tools store verify"), "{table}");
}

#[test]
fn what_is_no_store_is_an_error() {
    let scratch = Scratch::new("none");
    for dir in [scratch.0.clone(), scratch.0.join("missing")] {
        for command in ["inspect", "dump", "verify"] {
            let output = tools(command, &dir, &[]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{command}: {said}");
            assert!(said.contains(&dir.display().to_string()), "{said}");
        }
    }
}
