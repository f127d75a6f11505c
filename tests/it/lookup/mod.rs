//! The lookup from outside: tickets over HTTP, and phones that use them. Every answer is held against the OpenAPI document.

mod asker;
mod http;
mod schema;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde_json::Value;

use self::http::{DEADLINE, Http, get};
use crate::support::server::Options;
use crate::support::{Broker, Client, Connect, Packet, Server, eventually};

/// A server with a lookup, and keys of `[lookup]` or other tables.
fn launch(reactors: usize, keys: &str, tables: &str) -> Server {
    let options = Options {
        reactors,
        mqtt: Vec::new(),
        max_connections: Some(1000),
        data_dir: None,
        queue_full: None,
        config: String::new(),
    };
    let text = format!("[lookup]\nlisten = [\"127.0.0.1:0\"]\nnode = \"here\"\n{keys}\n{tables}");
    Server::launch_configured(&options, &text, &[])
}

fn start() -> Server {
    launch(1, "", "")
}

/// A file that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(text: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("lookup-{}-{serial}.toml", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of text")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where an endpoint of a ticket leads; made of numbers alone, so that nobody has to be asked.
fn address(endpoint: &Value) -> SocketAddr {
    let ip = endpoint["ip"].as_str().expect("an address");
    let port = endpoint["port"].as_u64().expect("a port") as u16;
    SocketAddr::new(ip.parse().expect("a numeric address"), port)
}

#[test]
fn a_ticket_leads_to_the_server() {
    let server = start();
    let mut http = Http::connect(server.lookup());
    let response = http.get("/v1/ticket?client_id=phone-1", "");
    assert_eq!(response.status, 200);
    let ticket = response.json();
    assert_eq!((&ticket["v"], &ticket["node"]), (&1.into(), &"here".into()));
    assert_eq!(ticket["connect_after"], 0);
    assert_eq!(address(&ticket["endpoints"][0]), server.addr);
    assert_eq!(address(&ticket["fallback"][0]), server.addr);
    let (now, refresh) = (&ticket["server_time"], &ticket["refresh_at"]);
    let lives = refresh.as_u64().unwrap() - now.as_u64().unwrap();
    assert!(
        (2_500_000..2_900_000).contains(&lives),
        "{lives} ms of an hour"
    );
    let mut client = Client::open(address(&ticket["endpoints"][0]), 5);
    client.connect(&Connect::new(5, "phone-1"));

    let posted = http.post("{\"client_id\": \"phone-1\", \"labels\": []}", "");
    assert_eq!(posted.status, 200);
    assert_eq!(posted.header("cache-control").as_deref(), Some("no-store"));
    assert_eq!(posted.json()["endpoints"], ticket["endpoints"]);
    let health = http.get("/v1/health", "");
    assert_eq!(
        (health.status, &health.json()["status"]),
        (200, &"ok".into())
    );
    let document = http.get("/v1/openapi.json", "");
    assert_eq!(document.json(), schema::document());
}

#[test]
fn a_ticket_that_is_still_true_is_not_sent_again() {
    let server = start();
    let mut http = Http::connect(server.lookup());
    let ask = |http: &mut Http, id: &str, tags: &str| {
        http.get(
            &format!("/v1/ticket?client_id={id}"),
            &format!("if-none-match: {tags}\r\n"),
        )
    };
    let first = http.get("/v1/ticket?client_id=phone-1", "");
    let tag = first.header("etag").unwrap();
    let cache = first.header("cache-control").unwrap();
    let seconds: u64 = cache
        .strip_prefix("private, max-age=")
        .unwrap()
        .parse()
        .unwrap();
    assert!((2_500..2_900).contains(&seconds), "{seconds}");
    for tags in [tag.clone(), format!("\"x\", W/{tag}")] {
        let again = ask(&mut http, "phone-1", &tags);
        assert_eq!(
            (again.status, again.header("etag")),
            (304, Some(tag.clone()))
        );
        let cache = again.header("cache-control").unwrap();
        let left: u64 = cache
            .strip_prefix("private, max-age=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            left <= seconds && left + 60 > seconds,
            "it is not stretched: {left}"
        );
    }
    // Of another client, made up, in no form, and one that claims to last for ever.
    let (hash, _) = tag.trim_matches('"').split_once('-').unwrap();
    let forever = format!("\"{hash}-ffffffffffff\"");
    for (id, tags) in [
        ("phone-2", &*tag),
        ("phone-1", "\"0123456789abcdef-7fffffff\""),
        ("phone-1", "*"),
        ("phone-1", "\u{fffd}\"-\""),
        ("phone-1", &forever),
    ] {
        assert_eq!(ask(&mut http, id, tags).status, 200, "{id} {tags}");
    }
}

#[test]
fn every_client_id_that_mqtt_has_gets_a_ticket() {
    let server = start();
    let mut http = Http::connect(server.lookup());
    let long = "\u{10348}".repeat(256);
    for id in [
        "a/b?c&d=e#f",
        "\"}],\"endpoints\":[{",
        "../../etc/passwd",
        "a b+c%20",
        "\u{1}\r\nset-cookie: a=b",
        "\u{10ffff}\u{e9}\u{202e}",
        "$share/g/#",
        &long,
    ] {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let by_query = http.get(&format!("/v1/ticket?client_id={encoded}"), "");
        assert_eq!(
            (by_query.status, by_query.header("set-cookie")),
            (200, None),
            "{id:?}"
        );
        let body = serde_json::json!({ "client_id": id }).to_string();
        assert_eq!(http.post(&body, "").status, 200, "{id:?}");
    }
}

#[test]
fn what_is_no_question_is_refused_and_the_connection_goes_on() {
    let server = start();
    let mut http = Http::connect(server.lookup());
    for query in [
        "",
        "?",
        "?client_id=",
        "?client_id=%00",
        "?client_id=%FF%FE",
        "?client_id=%C0%AF",
        "?client_id=%ED%A0%80",
        "?client_id=%",
        "?client_id=a&client_id=b",
        "?client_id=a&labels=x",
        "?client_id=a&app=%2F",
        &format!("?client_id={}", "x".repeat(257)),
    ] {
        assert_eq!(
            http.get(&format!("/v1/ticket{query}"), "").status,
            400,
            "{query}"
        );
    }
    let deep = format!("{{\"client_id\": {}", "[".repeat(15_000));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"client_id\": 1}",
        "{\"client_id\": \"\\u0000\"}",
        &deep,
    ] {
        assert_eq!(http.post(body, "").status, 400, "{body:.30}");
    }
    http.send("POST /v1/ticket HTTP/1.1\r\nhost: l\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!(http.checked("POST", "/v1/ticket").status, 415);
    assert_eq!(
        http.get("/v1/ticket?client_id=a&app=nobody", "").status,
        403
    );
    assert_eq!(
        http.get("/v1/ticket?client_id=a", "authorization: Basic YTpi\r\n")
            .status,
        401
    );
    assert_eq!(
        http.get("/v1/ticket?client_id=a", "authorization: nonsense\r\n")
            .status,
        401
    );
    for (request, status) in [
        ("GET /v2/ticket HTTP/1.1\r\nhost: l\r\n\r\n", 404),
        ("DELETE /v1/ticket HTTP/1.1\r\nhost: l\r\n\r\n", 405),
        (
            "POST /v1/health HTTP/1.1\r\nhost: l\r\ncontent-length: 0\r\n\r\n",
            405,
        ),
        (
            "HEAD /v1/health HTTP/1.1\r\nhost: l\r\nconnection: close\r\n\r\n",
            200,
        ),
    ] {
        http.send(request);
        // HEAD has the length of what it does not have; nothing is read behind it.
        if status == 200 {
            http.ends();
        } else {
            let response = http.response().unwrap();
            assert_eq!(response.status, status, "{request}");
            assert!(response.json()["error"].is_string());
        }
    }
}

#[test]
fn hostile_http_is_cut_and_others_notice_nothing() {
    let server = start();
    let lookup = server.lookup();
    let many: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(64 << 10));
    for head in [many, large] {
        let mut http = Http::connect(lookup);
        // It may be answered and closed before all of it is sent.
        let _ = std::io::Write::write_all(
            &mut http.stream,
            format!("GET /v1/health HTTP/1.1\r\nhost: l\r\n{head}\r\n").as_bytes(),
        );
        if let Some(response) = http.response() {
            assert_eq!(response.status, 431);
        }
        http.ends();
    }
    for nonsense in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /v1/health HTTP/1.1\r\nhost l\r\n\r\n",
        "GET /v1/health HTTP/1.1\r\nhost: a\0b\r\n\r\n",
        "POST /v1/ticket HTTP/1.1\r\nhost: l\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        "POST /v1/ticket HTTP/1.1\r\nhost: l\r\ncontent-length: -1\r\n\r\n",
        "\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c\r\n\r\n",
    ] {
        let mut http = Http::connect(lookup);
        http.send(nonsense);
        // What isn't even a line of text is closed without a word.
        if let Some(response) = http.response() {
            assert_eq!(response.status, 400, "{nonsense:?}");
        }
        http.ends();
    }
    // A body that is longer than it may be, told beforehand and not.
    let mut http = Http::connect(lookup);
    http.send("POST /v1/ticket HTTP/1.1\r\nhost: l\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n{");
    let chunk = "8000\r\n".to_owned() + &" ".repeat(0x8000) + "\r\n";
    let mut other = Http::connect(lookup);
    other.send("POST /v1/ticket HTTP/1.1\r\nhost: l\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    other.send(chunk);
    assert_eq!(other.checked("POST", "/v1/ticket").status, 413);
    assert_eq!(http.checked("POST", "/v1/ticket").status, 413);
    assert_eq!(get(lookup, "/v1/ticket?client_id=a").status, 200);
}

#[test]
fn the_slow_are_cut() {
    let server = start();
    let lookup = server.lookup();
    let mut silent = Http::connect(lookup);
    let mut head = Http::connect(lookup);
    head.send("GET /v1/health HTTP/1.1\r\nhost:");
    let mut body = Http::connect(lookup);
    body.send("POST /v1/ticket HTTP/1.1\r\nhost: l\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{");
    // Who asks without end and never reads.
    let mut deaf = Http::connect(lookup);
    deaf.stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let questions = "GET /v1/openapi.json HTTP/1.1\r\nhost: l\r\n\r\n".repeat(1000);
    let deaf = std::thread::spawn(move || {
        let begin = Instant::now();
        while let Ok(()) = std::io::Write::write_all(&mut deaf.stream, questions.as_bytes()) {}
        begin.elapsed()
    });
    let begin = Instant::now();
    for one in [&mut silent, &mut head, &mut body] {
        one.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    assert_eq!(body.checked("POST", "/v1/ticket").status, 408);
    body.ends();
    silent.ends();
    head.ends();
    assert!(begin.elapsed() < DEADLINE);
    assert!(
        deaf.join().unwrap() < DEADLINE,
        "a write that failed, not one that timed out"
    );
    assert_eq!(get(lookup, "/v1/ticket?client_id=a").status, 200);
}

#[test]
fn requests_in_one_packet_and_in_single_bytes_are_answered_in_order() {
    let server = start();
    let mut http = Http::connect(server.lookup());
    let request =
        |n: usize| format!("GET /v1/ticket?client_id=phone-{n}&app= HTTP/1.1\r\nhost: l\r\n\r\n");
    let health = "GET /v1/health HTTP/1.1\r\nhost: l\r\n\r\n";
    let all: String = (0..100).map(|n| request(n) + health).collect();
    http.send(&all);
    for _ in 0..100 {
        assert_eq!(http.checked("GET", "/v1/ticket").status, 400);
        assert_eq!(http.checked("GET", "/v1/health").status, 200);
    }
    for byte in health.bytes() {
        http.send([byte]);
    }
    assert_eq!(http.checked("GET", "/v1/health").status, 200);
}

#[test]
fn more_connections_than_it_holds_are_told_so_and_phones_stay() {
    let server = start();
    let lookup = server.lookup();
    let mut phone = server.client(5, "phone");
    let held: Vec<Http> = (0..2048).map(|_| Http::connect(lookup)).collect();
    let mut one_more = Http::connect(lookup);
    let response = one_more.response().expect("an answer without a question");
    assert_eq!(
        (response.status, response.header("retry-after").as_deref()),
        (503, Some("5"))
    );
    assert!(response.json()["error"].is_string());
    one_more.ends();
    phone.send(&[0xC0, 0]);
    assert!(matches!(phone.next(), Packet::Pingresp));
    drop(held);
    eventually("there is room again", || {
        let mut http = Http::connect(lookup);
        http.send("GET /v1/health HTTP/1.1\r\nhost: l\r\n\r\n");
        http.response()
            .is_some_and(|response| response.status == 200)
    });
}

#[test]
fn too_many_questions_are_put_off_with_a_way_out() {
    let server = launch(1, "rate = 5", "");
    let mut http = Http::connect(server.lookup());
    let answers: Vec<_> = (0..50)
        .map(|n| http.get(&format!("/v1/ticket?client_id=phone-{n}"), ""))
        .collect();
    let given = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((5..50).contains(&given), "{given}");
    let put_off = answers.iter().find(|answer| answer.status == 429).unwrap();
    let seconds: u64 = put_off.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds) && put_off.json()["retry_after"] == seconds);
    assert_eq!(address(&put_off.json()["fallback"][0]), server.addr);
    assert_eq!(
        http.get("/v1/health", "").status,
        200,
        "nobody's patience is tried"
    );
}

#[test]
fn a_storm_gets_slots_one_behind_the_other() {
    let server = launch(
        1,
        "pace_floor = 20\npace_ceiling = 20\npace_horizon = 3",
        "",
    );
    let mut http = Http::connect(server.lookup());
    let mut slots = Vec::new();
    let refused = loop {
        let answer = http.get(&format!("/v1/ticket?client_id=phone-{}", slots.len()), "");
        if answer.status != 200 {
            break answer;
        }
        let ticket = answer.json();
        let wait = ticket["connect_after"].as_u64().unwrap();
        let cache = answer.header("cache-control").unwrap();
        assert_eq!(
            cache == "private, no-cache",
            wait > 50,
            "{cache} with {wait}"
        );
        slots.push(ticket["server_time"].as_u64().unwrap() + wait);
        assert!(
            wait <= 3000 && slots.len() < 1000,
            "the horizon: {wait} {}",
            slots.len()
        );
    };
    assert!(
        slots.len() >= 60,
        "three seconds hold sixty: {}",
        slots.len()
    );
    for (at, slot) in slots.iter().enumerate().skip(21) {
        assert!(
            slot - slots[at - 21] >= 998,
            "more than twenty a second: {slots:?}"
        );
    }
    assert_eq!(refused.status, 503);
    assert!(
        refused
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    assert_eq!(address(&refused.json()["fallback"][0]), server.addr);
}

const OTHERS: &str = r#"
[[node]]
name = "here"
weight = 100
labels = ["place=fra"]
endpoints = ["mqtts://203.0.113.1:8883 here.example.org", "wss://203.0.113.1:443/mqtt here.example.org"]

[[node]]
name = "near"
labels = ["place=fra"]
endpoints = ["mqtts://203.0.113.2:8883"]

[[node]]
name = "far"
labels = ["place=ams"]
endpoints = ["mqtts://203.0.113.3:8883"]

[[node]]
name = "leaving"
labels = ["place=fra"]
endpoints = ["mqtts://203.0.113.4:8883"]
draining = true
"#;

#[test]
fn tickets_name_several_nodes_and_the_near_ones_first() {
    let file = Scratch::new(OTHERS);
    let server = launch(1, &format!("nodes = {:?}", file.path()), "");
    let mut http = Http::connect(server.lookup());
    let mut first = std::collections::BTreeMap::new();
    for n in 0..200 {
        let ticket = http
            .get(
                &format!("/v1/ticket?client_id=phone-{n}&labels=place%3Dfra"),
                "",
            )
            .json();
        *first
            .entry(ticket["node"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
        let ips: Vec<&str> = ticket["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|endpoint| endpoint["ip"].as_str().unwrap())
            .collect();
        assert!(
            ips.contains(&"203.0.113.1") && ips.contains(&"203.0.113.2"),
            "two nodes: {ips:?}"
        );
        assert!(
            !ticket.to_string().contains("203.0.113.4"),
            "who leaves gets nobody"
        );
        assert!(ticket["fallback"].to_string().contains("203.0.113.3"));
        let again = http.get(
            &format!("/v1/ticket?client_id=phone-{n}&labels=place%3Dfra"),
            "",
        );
        assert_eq!(
            again.json()["endpoints"],
            ticket["endpoints"],
            "the same phone, the same nodes"
        );
    }
    assert!(
        first["here"] > 40 && first["near"] > 40 && first.len() == 2,
        "{first:?}"
    );
    let far = http
        .get("/v1/ticket?client_id=phone&labels=place%3Dams", "")
        .json();
    assert_eq!(far["node"], "far");
    assert_eq!(far["endpoints"][0]["tls"], true);
}

#[test]
fn addresses_in_front_of_the_server_take_the_place_of_its_own() {
    let server = launch(
        1,
        "advertise = [\"mqtts://198.51.100.1:8883 push.example.org\", \"ws://198.51.100.1:80\"]",
        "",
    );
    let ticket = get(server.lookup(), "/v1/ticket?client_id=a").json();
    let endpoints = ticket["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    assert_eq!(
        (
            &endpoints[0]["host"],
            &endpoints[0]["tls"],
            &endpoints[0]["path"]
        ),
        (&"push.example.org".into(), &true.into(), &Value::Null)
    );
    assert_eq!(
        (
            &endpoints[1]["proto"],
            &endpoints[1]["path"],
            &endpoints[1]["host"]
        ),
        (&"ws".into(), &"/mqtt".into(), &"198.51.100.1".into())
    );
}

#[test]
fn what_can_not_be_used_is_said_with_its_key() {
    let taken = start();
    let taken = taken.lookup().to_string();
    let broken = Scratch::new("[[node]]\nname = 3\n");
    for (keys, code, words) in [
        (
            format!("listen = [\"{taken}\"]"),
            69,
            vec![&*taken, "another program listens there"],
        ),
        ("node = \"a b\"".to_owned(), 78, vec!["lookup.node"]),
        (
            "labels = [\"fra\"]".to_owned(),
            78,
            vec!["lookup.labels", "name=value"],
        ),
        (
            "advertise = [\"push.example.org\"]".to_owned(),
            78,
            vec!["lookup.advertise", "SCHEME://IP:PORT"],
        ),
        (
            format!("nodes = {:?}", broken.path()),
            78,
            vec![broken.path(), ":2:"],
        ),
        (
            "listen = [\"0.0.0.0:0\"]".to_owned(),
            78,
            vec!["lookup.ask", "allow_open"],
        ),
    ] {
        let listen = if keys.contains("listen") {
            ""
        } else {
            "listen = [\"127.0.0.1:0\"]\n"
        };
        let config = Scratch::new(&format!("[lookup]\n{listen}{keys}\n"));
        let data = format!("{}-data", config.path());
        let output = Command::new(env!("CARGO_BIN_EXE_stillwire"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--reactors",
                "1",
                "--max-connections",
                "100",
            ])
            .args(["--config", config.path(), "--data-dir", &data])
            .output()
            .expect("the server runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let _ = std::fs::remove_dir_all(&data);
        assert_eq!(output.status.code(), Some(code), "{keys}: {said}");
        let last = said.lines().last().unwrap();
        for word in words {
            assert!(last.contains(word), "{keys}: {last} lacks {word}");
        }
    }
}

#[test]
fn an_overloaded_lookup_is_no_matter_to_phones_nor_are_they_to_it() {
    let server = launch(2, "rate = 100", "");
    let lookup = server.lookup();
    let mut phones: Vec<Client> = (0..20)
        .map(|n| server.client(5, &format!("phone-{n}")))
        .collect();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Four that ask without a pause, and a hundred that hold a connection with half a question on it.
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let over = std::sync::Arc::clone(&over);
            std::thread::spawn(move || {
                let mut http = Http::connect(lookup);
                let mut put_off = 0;
                while !over.load(Ordering::Relaxed) {
                    let answer = http.get("/v1/ticket?client_id=a", "");
                    put_off += u32::from(answer.status == 429);
                    assert!([200, 429].contains(&answer.status));
                }
                put_off
            })
        })
        .collect();
    let mut held: Vec<Http> = (0..100).map(|_| Http::connect(lookup)).collect();
    for http in &mut held {
        http.send("GET /v1/tick");
    }
    for _ in 0..50 {
        for phone in &mut phones {
            phone.send(&[0xC0, 0]);
            assert!(matches!(phone.next(), Packet::Pingresp));
        }
    }
    over.store(true, Ordering::Relaxed);
    let put_off: u32 = askers.into_iter().map(|asker| asker.join().unwrap()).sum();
    assert!(put_off > 0, "a hundred a second are answered");
}

/// The whole flow with numbers alone: ask, connect, lose the lookup, connect again by what was kept.
fn ask_and_connect() {
    let server = start();
    let ticket = get(server.lookup(), "/v1/ticket?client_id=phone-1").json();
    for endpoint in ticket["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .chain(ticket["fallback"].as_array().unwrap())
    {
        let mut client = Client::open(address(endpoint), 5);
        let mut connect = Connect::new(5, "phone-1");
        connect.password = ticket["token"].as_str();
        connect.user = connect.password.map(|_| "phone-1");
        client.connect(&connect);
    }
}

#[test]
fn nobody_is_asked_for_a_name() {
    const INSIDE: &str = "STILLWIRE_TEST_WITHOUT_NAMES";
    if Broker::lacks("a lookup") {
        return;
    }
    if std::env::var_os(INSIDE).is_some() {
        use std::net::ToSocketAddrs as _;
        assert!(
            ("localhost", 1).to_socket_addrs().is_err(),
            "there is a resolver after all"
        );
        return ask_and_connect();
    }
    // A network with nothing but loopback, no server of names, and no list of them: this very test again in there.
    let script = "ip link set lo up && mount --bind /dev/null /etc/resolv.conf && mount --bind /dev/null /etc/hosts \
                  && mount --bind /dev/null /etc/nsswitch.conf && exec \"$0\" --exact lookup::nobody_is_asked_for_a_name --nocapture";
    let me = std::env::current_exe().expect("this test's binary");
    let inside = Command::new("unshare")
        .args(["--net", "--mount", "--map-root-user", "sh", "-c", script])
        .arg(me)
        .env(INSIDE, "1")
        .output();
    match inside {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        }
        Ok(output) if !String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
            println!(
                "no namespaces here, so names could be asked for: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            ask_and_connect();
        }
        Ok(output) => panic!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => {
            println!("no unshare here, so names could be asked for: {error}");
            ask_and_connect();
        }
    }
}
