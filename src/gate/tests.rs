//! The gate against a real little HTTP server that answers as it is told, and against real hashes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::access::{Credentials, Decision, UnixSeconds, passwords};

/// Longer than anything here takes; the tests wait for what happens, not for this.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A server on a free port that reads a request and does `answer`, on a thread for each connection, one request each.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    bodies: mpsc::Receiver<serde_json::Value>,
}

impl Server {
    fn start(answer: impl Fn(&mut TcpStream) + Send + Sync + Clone + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (sender, bodies) = mpsc::channel();
        let count = asked.clone();
        // Ends with the process: nobody connects any more.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, count, sender) = (answer.clone(), count.clone(), sender.clone());
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(body) = read_request(&stream) else {
                        return;
                    };
                    count.fetch_add(1, Ordering::SeqCst);
                    _ = sender.send(body);
                    answer(&mut stream);
                });
            }
        });
        Self {
            address,
            asked,
            bodies,
        }
    }

    /// One that says this each time.
    fn saying(status: &'static str, body: &str) -> Self {
        let body = body.to_owned();
        Self::start(move |stream| respond(stream, status, &body))
    }
}

fn respond(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    // The client may have seen enough.
    _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
}

fn read_request(stream: &TcpStream) -> Option<serde_json::Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

/// A gate, what it reads its rules from, and where its answers arrive.
struct World {
    gate: Gate,
    access: Arc<Access>,
    answers: mpsc::Receiver<(ReactorId, Answer)>,
}

impl World {
    fn new(config: &Config) -> Self {
        let access = Access::load(&config.access, &config.auth).unwrap();
        let (sender, answers) = mpsc::channel();
        let answer = move |reactor, answer| _ = sender.send((reactor, answer));
        Self {
            gate: Gate::start(config, answer).unwrap(),
            access: Arc::new(access),
            answers,
        }
    }

    /// With a hook at this address.
    fn hooked(address: SocketAddr, timeout: u32, cache: u32) -> Self {
        let mut config = Config::new(1, 1);
        config.auth = vec![Method::Http];
        config.access.http_url = format!("http://{address}/auth?key=hidden");
        config.access.http_timeout = timeout;
        config.access.http_cache = cache;
        Self::new(&config)
    }

    fn question(&self, user: &str, password: &[u8]) -> Question {
        let credentials = Credentials {
            client_id: "phone-1",
            user: Some(user),
            password: Some(password),
            address: "::ffff:192.0.2.7".parse().unwrap(),
        };
        match self.access.authenticate(&credentials, UnixSeconds(0)) {
            Decision::Ask(question) => question,
            other => panic!("{other:?}"),
        }
    }

    fn send(&self, ticket: u64, user: &str, password: &[u8]) -> Result<(), Full> {
        let question = self.question(user, password);
        self.gate
            .ask(ReactorId(3), ticket, question, self.access.clone())
    }

    fn ask(&self, user: &str, password: &[u8]) -> Result<Identity, Denied> {
        self.send(7, user, password).unwrap();
        let (reactor, answer) = self.answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!((reactor, answer.ticket), (ReactorId(3), 7));
        answer.result
    }
}

#[test]
fn a_yes_of_the_hook_admits_as_it_says() {
    let server = Server::saying(
        "200 OK",
        r#"{"result":"allow","tenant":"shop","user":"ann-17","expires":99999999999,"acl":{"sub":["a/#"]},"other":[1]}"#,
    );
    let world = World::hooked(server.address, 60_000, 0);
    let identity = world.ask("ann", b"right").unwrap();
    assert_eq!(
        (&*identity.tenant, identity.user.as_deref()),
        ("shop", Some("ann-17"))
    );
    assert_eq!(identity.expires, Some(UnixSeconds(99_999_999_999)));
    assert!(identity.rights.is_some());
    let asked = server.bodies.recv_timeout(PATIENCE).unwrap();
    let expected = serde_json::json!({
        "client_id": "phone-1", "user": "ann", "password": "right", "address": "192.0.2.7"
    });
    assert_eq!(asked, expected);
    // A password that is no text arrives all the same.
    world.ask("ann", b"\xff\0").unwrap();
    let asked = server.bodies.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (&asked["password"], &asked["password_base64"]),
        (&serde_json::Value::Null, &"/wA=".into())
    );
}

#[test]
fn a_no_is_a_no_and_everything_else_is_no_answer() {
    for (status, body, expected) in [
        ("200 OK", r#"{"result":"deny"}"#, Denied::BadCredentials),
        (
            "200 OK",
            r#"{"result":"allow","expires":1}"#,
            Denied::Expired,
        ),
        ("200 OK", r#"{"result":"Allow"}"#, Denied::Unavailable),
        ("200 OK", r#"{"result":true}"#, Denied::Unavailable),
        (
            "200 OK",
            r#"{"result":"allow","tenant":"a/b"}"#,
            Denied::Unavailable,
        ),
        (
            "200 OK",
            r#"{"result":"allow","tenant":7}"#,
            Denied::Unavailable,
        ),
        (
            "200 OK",
            r#"{"result":"allow","acl":{"pub":["a#"]}}"#,
            Denied::Unavailable,
        ),
        ("200 OK", r#"{"result":"allow""#, Denied::Unavailable),
        ("200 OK", "{}", Denied::Unavailable),
        ("200 OK", "", Denied::Unavailable),
        ("200 OK", "<html>allow</html>", Denied::Unavailable),
        ("201 Created", r#"{"result":"allow"}"#, Denied::Unavailable),
        ("204 No Content", "", Denied::Unavailable),
        (
            "302 Found\r\nlocation: /other",
            r#"{"result":"allow"}"#,
            Denied::Unavailable,
        ),
        (
            "401 Unauthorized",
            r#"{"result":"allow"}"#,
            Denied::Unavailable,
        ),
        (
            "500 Internal Server Error",
            r#"{"result":"allow"}"#,
            Denied::Unavailable,
        ),
    ] {
        let server = Server::saying(status, body);
        let world = World::hooked(server.address, 60_000, 0);
        assert_eq!(
            world.ask("ann", b"x").unwrap_err(),
            expected,
            "{status} {body}"
        );
        assert_eq!(server.asked.load(Ordering::SeqCst), 1, "{status}");
    }
}

#[test]
fn a_body_without_end_is_cut() {
    let server = Server::start(|stream| {
        _ = write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        // Until the gate has seen enough and hangs up.
        while stream.write_all(&[b' '; 4096]).is_ok() {}
    });
    let world = World::hooked(server.address, 60_000, 0);
    assert_eq!(world.ask("ann", b"x").unwrap_err(), Denied::Unavailable);
    let huge = format!(
        r#"{{"result":"allow","more":"{}"}}"#,
        "x".repeat(limits::HOOK_ANSWER_BYTES)
    );
    let server = Server::saying("200 OK", &huge);
    let world = World::hooked(server.address, 60_000, 0);
    assert_eq!(world.ask("ann", b"x").unwrap_err(), Denied::Unavailable);
}

#[test]
fn one_that_speaks_no_http_or_nothing_at_all_is_no_answer() {
    for greeting in [
        &b"SSH-2.0-x\r\n"[..],
        b"\0\0\0",
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ] {
        let server = Server::start(move |stream| _ = stream.write_all(greeting));
        let world = World::hooked(server.address, 60_000, 0);
        assert_eq!(world.ask("ann", b"x").unwrap_err(), Denied::Unavailable);
    }
    // Nobody there.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::hooked(free, 60_000, 0);
    assert_eq!(world.ask("ann", b"x").unwrap_err(), Denied::Unavailable);
}

#[test]
fn a_hook_that_is_slow_is_not_waited_for_and_does_not_hold_others_up() {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let server = Server::start(move |stream| {
        // Half an answer, and the rest when the test is over.
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le");
        _ = held.lock().map(|held| held.recv());
    });
    let world = World::hooked(server.address, 50, 0);
    // More than are asked at a time: those that only wait for their turn have their deadline too.
    let many = 3 * limits::HOOK_CONNECTIONS as u64;
    for ticket in 0..many {
        world.send(ticket, "ann", b"x").unwrap();
    }
    let mut answered: Vec<u64> = (0..many)
        .map(|_| {
            let (_, answer) = world.answers.recv_timeout(PATIENCE).unwrap();
            assert_eq!(answer.result, Err(Denied::Unavailable));
            answer.ticket
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..many).collect::<Vec<_>>(), "each once");
    drop(release);
}

#[test]
fn questions_are_bounded_and_dropping_the_gate_waits_for_none() {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let server = Server::start(move |_| _ = held.lock().map(|held| held.recv()));
    let world = World::hooked(server.address, 60_000, 0);
    for ticket in 0..limits::HOOK_QUESTIONS as u64 {
        world.send(ticket, "ann", b"x").unwrap();
    }
    assert_eq!(world.send(0, "ann", b"x"), Err(Full));
    // Its deadline is a minute away, and the test has no minute.
    let started = Instant::now();
    drop(world.gate);
    assert!(started.elapsed() < PATIENCE / 2);
    assert!(world.answers.recv().is_err(), "nobody is let in for it");
    drop(release);
}

#[test]
fn an_answer_is_good_for_a_while_and_for_its_question_alone() {
    let server = Server::saying("200 OK", r#"{"result":"allow"}"#);
    let world = World::hooked(server.address, 60_000, 3600);
    for _ in 0..5 {
        assert!(world.ask("ann", b"right").is_ok());
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    assert!(world.ask("ann", b"other").is_ok());
    assert!(world.ask("bob", b"right").is_ok());
    assert_eq!(server.asked.load(Ordering::SeqCst), 3);
    // A no is kept, no answer is not.
    for (status, body, times) in [
        ("200 OK", r#"{"result":"deny"}"#, 1),
        ("500 Oh", "", 3),
        // One that is over is asked about again.
        ("200 OK", r#"{"result":"allow","expires":1}"#, 3),
    ] {
        let server = Server::saying(status, body);
        let world = World::hooked(server.address, 60_000, 3600);
        for _ in 0..3 {
            assert!(world.ask("ann", b"x").is_err());
        }
        assert_eq!(
            server.asked.load(Ordering::SeqCst),
            times,
            "{status} {body}"
        );
    }
    let uncached = World::hooked(server.address, 60_000, 0);
    let before = server.asked.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert!(uncached.ask("ann", b"right").is_ok());
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), before + 3);
}

#[test]
fn who_is_revoked_is_not_let_in_by_what_was_said_before() {
    let server = Server::saying("200 OK", r#"{"result":"allow"}"#);
    let mut world = World::hooked(server.address, 60_000, 3600);
    assert!(world.ask("ann", b"x").is_ok());
    let path = std::env::temp_dir().join(format!("stillwire-gate-revoked-{}", std::process::id()));
    std::fs::write(&path, "client -/phone-1\n").unwrap();
    let mut config = Config::new(1, 1);
    config.access.revoked.clone_from(&path);
    world.access = Arc::new(Access::load(&config.access, &[Method::Http]).unwrap());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.ask("ann", b"x"), Err(Denied::Revoked));
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn passwords_are_checked_beside_and_bounded() {
    let path = std::env::temp_dir().join(format!("stillwire-gate-users-{}", std::process::id()));
    passwords::set(&path, "ann", "shop", b"right").unwrap();
    let mut config = Config::new(1, 1);
    config.auth = vec![Method::PasswordFile];
    config.access.passwords.clone_from(&path);
    let world = World::new(&config);
    std::fs::remove_file(&path).unwrap();
    let identity = world.ask("ann", b"right").unwrap();
    assert_eq!(
        (&*identity.tenant, identity.user.as_deref()),
        ("shop", Some("ann"))
    );
    assert_eq!(world.ask("ann", b"wrong"), Err(Denied::BadCredentials));
    assert_eq!(world.ask("eve", b"right"), Err(Denied::BadCredentials));
    // More than two threads can take: some are turned away, and all others get an answer.
    let many = 4 * limits::GATE_PASSWORDS as u64;
    let taken = (0..many)
        .filter(|&ticket| world.send(ticket, "ann", b"right").is_ok())
        .count();
    assert!(
        (limits::GATE_PASSWORDS..many as usize).contains(&taken),
        "{taken}"
    );
    // They end without all of that being done.
    drop(world.gate);
}

#[test]
fn a_method_without_its_thread_lets_nobody_in() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    let gate = Gate::start(&Config::new(1, 1), move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let gate = gate.unwrap();
    assert!(gate.threads.is_empty());
    let server = Server::saying("200 OK", r#"{"result":"allow"}"#);
    let world = World::hooked(server.address, 60_000, 0);
    let question = world.question("ann", b"x");
    let asked = gate.ask(ReactorId(0), 1, question, world.access.clone());
    assert_eq!(asked, Err(Full));
    drop(gate);
    assert_eq!(answered.load(Ordering::SeqCst), 0);
}
