//! The whole server process, with sockets: what a turn of a reactor costs around the protocol.
//!
//! One reactor, so that a message never crosses to another and the counts hold from run to run, within about one in a hundred: how many
//! turns there are depends on time. One row has two reactors, as half of its messages cross.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use stillwire::sys::rlimit::raise_open_files;
use stillwire::wire::{Qos, Version};

use crate::callgrind::{self, Counts};
use crate::counted::{self, Scale};
use crate::packets::{self, COMMON, id};

/// Clients, fewer than descriptors that a process may have.
const CLIENTS: usize = 10_000;

/// How many messages are under way at once, where it is not one.
const BURST: usize = 64;

/// Connections that publish.
const PUBLISHERS: usize = 4;

/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// All rows.
pub(crate) fn run(out: &Path) -> Vec<(counted::Path, Counts)> {
    let files = raise_open_files().expect("the limit of open files");
    assert!(
        files > CLIENTS as u64 + 4_000,
        "{files} open files are too few for {CLIENTS} clients: raise the limit (ulimit -Hn)"
    );
    let mut rows = Vec::new();
    let mut one = Server::start(out, 1);
    one.count("PINGREQ", CLIENTS, Crowd::ping);
    one.count("QoS 0 to one, one at a time", 4_000, |crowd| {
        crowd.unicast(Qos::AtMostOnce, 4_000, 1);
    });
    one.count("QoS 0 to one, 64 at a time", 8_000, |crowd| {
        crowd.unicast(Qos::AtMostOnce, 8_000, BURST);
    });
    one.count(
        "QoS 1 to one with both PUBACK, one at a time",
        4_000,
        |crowd| {
            crowd.unicast(Qos::AtLeastOnce, 4_000, 1);
        },
    );
    one.count(
        "QoS 1 to one with both PUBACK, 64 at a time",
        8_000,
        |crowd| {
            crowd.unicast(Qos::AtLeastOnce, 8_000, BURST);
        },
    );
    one.count("fan-out QoS 0, per delivery", 2 * CLIENTS, |crowd| {
        crowd.broadcast();
        crowd.broadcast();
    });
    one.count("connect and subscribe, 16 at a time", 2_000, |crowd| {
        crowd.join(2_000);
    });
    rows.append(&mut one.rows);
    drop(one);
    let mut two = Server::start(out, 2);
    two.count("2 reactors, QoS 0 to one, one at a time", 4_000, |crowd| {
        crowd.unicast(Qos::AtMostOnce, 4_000, 1);
    });
    rows.append(&mut two.rows);
    rows
}

struct Server<'a> {
    child: Child,
    crowd: Crowd,
    out: &'a Path,
    rows: Vec<(counted::Path, Counts)>,
}

impl<'a> Server<'a> {
    fn start(out: &'a Path, reactors: usize) -> Self {
        let dir = out.with_extension("data");
        let log = out.with_extension("log");
        let lines = fs::File::create(&log).expect("a log file");
        let mut command = callgrind::command(
            env!("CARGO_BIN_EXE_stillwire"),
            out,
            &["--instr-atstart=no"],
        );
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--lookup", "off"])
            .arg("--data-dir")
            .arg(dir)
            .args(["--reactors", &reactors.to_string()])
            .args(["--max-connections", &(CLIENTS + 4_000).to_string()])
            .stdin(Stdio::null())
            .stdout(lines.try_clone().expect("the log file again"))
            .stderr(lines);
        let mut child = command.spawn().expect("valgrind");
        let address = ready(&mut child, &log);
        let mut crowd = Crowd {
            address,
            phones: Vec::new(),
            publishers: Vec::new(),
        };
        crowd.join(CLIENTS);
        crowd.publishers = (0..PUBLISHERS)
            .map(|at| {
                let mut socket = Socket::open(address);
                socket.send(&packets::connect(Version::V311, 900_000 + at));
                socket.take(4);
                socket
            })
            .collect();
        // What is done for the first time only has been done.
        crowd.unicast(Qos::AtMostOnce, 1_000, 1);
        crowd.broadcast();
        Self {
            child,
            crowd,
            out,
            rows: Vec::new(),
        }
    }

    fn count(&mut self, name: &str, times: usize, work: impl FnOnce(&mut Crowd)) {
        let pid = self.child.id();
        callgrind::control(pid, &["-i", "on"]);
        work(&mut self.crowd);
        callgrind::control(pid, &["-i", "off"]);
        callgrind::control(pid, &["-d"]);
        let path = counted::Path {
            name: format!("server: {name}"),
            times,
        };
        let counts = callgrind::dump(self.out, self.rows.len() + 1);
        self.rows.push((path, counts));
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // The process is ours until it is waited for. Killed at once: nothing it would still write is needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the server's line that says where it listens.
fn ready(child: &mut Child, log: &Path) -> SocketAddr {
    let end = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        let line = whole.lines().find(|line| line.contains(" ready "));
        if let Some(address) = line.and_then(|line| line.split('"').nth(1)) {
            return address.parse().expect("an address to connect to");
        }
        let ended = child.try_wait().expect("the state of the server");
        assert!(
            ended.is_none() && Instant::now() < end,
            "the server did not get ready ({ended:?}):\n{text}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All clients of a server.
struct Crowd {
    address: SocketAddr,
    phones: Vec<Socket>,
    publishers: Vec<Socket>,
}

impl Crowd {
    /// So many more connect and subscribe, 16 at a time.
    fn join(&mut self, count: usize) {
        let end = self.phones.len() + count;
        while self.phones.len() < end {
            let first = self.phones.len();
            let last = end.min(first + 16);
            let mut new: Vec<Socket> = (first..last).map(|_| Socket::open(self.address)).collect();
            for (socket, client) in new.iter_mut().zip(first..) {
                socket.send(&packets::connect(Version::V311, client));
            }
            for (socket, client) in new.iter_mut().zip(first..) {
                socket.take(4);
                socket.send(&packets::subscribe(Version::V311, client));
            }
            for socket in &mut new {
                socket.take(6);
            }
            self.phones.append(&mut new);
        }
    }

    fn ping(&mut self) {
        for phone in &mut self.phones {
            phone.send(&[0xC0, 0]);
        }
        for phone in &mut self.phones {
            phone.take(2);
        }
    }

    fn broadcast(&mut self) {
        let packet = packets::publish(Version::V311, COMMON, Qos::AtMostOnce, id(1));
        self.publishers[0].send(&packet);
        for phone in &mut self.phones {
            phone.take(packet.len());
        }
    }

    /// Messages to phones in no order, so many under way at once.
    fn unicast(&mut self, qos: Qos, count: usize, burst: usize) {
        let scale = Scale {
            population: self.phones.len(),
            rounds: count,
        };
        let targets: Vec<usize> = scale.scattered().collect();
        for targets in targets.chunks(burst) {
            let mut batches = vec![Vec::new(); PUBLISHERS];
            for (at, &client) in targets.iter().enumerate() {
                let id = id((at / PUBLISHERS) as u16 + 1);
                let topic = packets::own_topic(client);
                let packet = packets::publish(Version::V311, &topic, qos, id);
                batches[at % PUBLISHERS].extend(packet);
            }
            for (publisher, batch) in self.publishers.iter_mut().zip(&batches) {
                publisher.send(batch);
            }
            for &client in targets {
                self.phones[client].hear(qos);
            }
            if qos == Qos::AtLeastOnce {
                for at in 0..targets.len() {
                    self.publishers[at % PUBLISHERS].take(4);
                }
            }
        }
    }
}

/// A blocking connection.
struct Socket(TcpStream);

impl Socket {
    fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        Self(socket)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server reads");
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    /// Takes one message, and acknowledges it at QoS 1.
    fn hear(&mut self, qos: Qos) {
        let header = self.take(2);
        let body = self.take(usize::from(header[1]));
        if qos == Qos::AtLeastOnce {
            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
            self.send(&[0x40, 2, body[2 + topic], body[3 + topic]]);
        }
    }
}
