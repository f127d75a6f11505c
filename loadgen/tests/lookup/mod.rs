//! A lookup that says what a test wants it to say. A thread a connection.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use loadgen::tickets::Tickets;
use serde_json::{Value, json};
use socket2::SockRef;

/// A question as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) client_id: String,
    /// How often this client has asked before.
    pub(crate) before: usize,
    pub(crate) authorization: Option<String>,
}

/// What it says.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Ticket(Value),
    Status(u16, &'static str, String),
    /// These bytes, and the connection ends.
    Raw(&'static [u8]),
    /// A ticket, and the connection ends though nobody said that it would.
    Last(Value),
    /// It hangs up.
    Nothing,
    /// It never answers.
    Silence,
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

struct State {
    script: Box<Script>,
    listener: TcpListener,
    asked: Mutex<HashMap<String, Vec<Instant>>>,
    connections: Mutex<Vec<TcpStream>>,
}

/// A lookup on a free port.
pub(crate) struct FakeLookup {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
}

impl FakeLookup {
    pub(crate) fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Box::new(script),
            asked: Mutex::default(),
            connections: Mutex::default(),
            listener: listener.try_clone().unwrap(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true).unwrap();
                let copy = stream.try_clone().unwrap();
                shared.connections.lock().unwrap().push(copy);
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    serve(&state, &stream);
                    let _gone_already = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { addr, state }
    }

    /// A plan that asks it.
    pub(crate) fn tickets(&self) -> Tickets {
        Tickets::at(format!("http://{}", self.addr).parse().unwrap()).unwrap()
    }

    /// When each client asked.
    pub(crate) fn asked(&self) -> HashMap<String, Vec<Instant>> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Questions of all clients.
    pub(crate) fn questions(&self) -> usize {
        self.asked().values().map(Vec::len).sum()
    }

    /// Nobody answers there any more, and nobody listens. The phones' threads have copies of its descriptors, so closing these is not enough.
    pub(crate) fn die(&self) {
        SockRef::from(&self.state.listener)
            .shutdown(Shutdown::Both)
            .unwrap();
        for stream in self.state.connections.lock().unwrap().drain(..) {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
        assert!(TcpStream::connect(self.addr).is_err());
    }
}

fn serve(state: &State, mut stream: &TcpStream) {
    let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..n]);
        if !input.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut input)).unwrap();
        let line = text.lines().next().unwrap();
        let id = line.strip_prefix("GET /v1/ticket?client_id=").unwrap();
        let client_id = id.strip_suffix(" HTTP/1.1").unwrap().to_owned();
        let before = {
            let mut asked = state.asked.lock().unwrap();
            let moments = asked.entry(client_id.clone()).or_default();
            moments.push(Instant::now());
            moments.len() - 1
        };
        let header = |line: &str| line.strip_prefix("Authorization: ").map(str::to_owned);
        let asked = Asked {
            client_id,
            before,
            authorization: text.lines().find_map(header),
        };
        let (bytes, more) = match (state.script)(&asked) {
            Reply::Ticket(ticket) => (response(200, "", &ticket.to_string()), true),
            Reply::Last(ticket) => (response(200, "", &ticket.to_string()), false),
            Reply::Status(status, headers, body) => (response(status, headers, &body), true),
            Reply::Raw(bytes) => (bytes.to_vec(), false),
            Reply::Nothing => return,
            Reply::Silence => continue,
        };
        if stream.write_all(&bytes).is_err() || !more {
            return;
        }
    }
}

fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    (head + body).into_bytes()
}

/// An endpoint as tickets have it.
pub(crate) fn endpoint(addr: SocketAddr, priority: u32, home: bool) -> Value {
    json!({
        "proto": "mqtt", "host": "a.invalid", "ip": addr.ip(), "port": addr.port(), "tls": false, "path": null,
        "priority": priority, "weight": 100, "home": home,
    })
}

/// A ticket to that address, valid for an hour; its token says whose it is.
pub(crate) fn ticket(asked: &Asked, addr: SocketAddr) -> Value {
    json!({
        "v": 1, "server_time": 1_000_000, "node": "a", "endpoints": [endpoint(addr, 0, true)], "fallback": [],
        "token": format!("token of {} number {}", asked.client_id, asked.before), "ttl": 3600, "refresh_at": 1_000_000 + 1_800_000,
        "retry": {"min": 0.05, "max": 0.2, "jitter": "full", "retry_after": 0},
        "keep_alive": {"min": 60, "max": 1200, "default": 300}, "max_connection_age": 0, "connect_after": 0,
    })
}

/// The same with other values.
pub(crate) fn with(mut ticket: Value, values: Value) -> Value {
    let Value::Object(values) = values else {
        panic!("an object");
    };
    ticket.as_object_mut().unwrap().extend(values);
    ticket
}
