//! The server: its reactors' threads, from the first address that is taken to the last connection that is told to go.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::access::throttle::Throttle;
use crate::access::{Access, AccessError};
use crate::config::resolved::{Config, Durability, Method, Steer};
use crate::counters::AllCounters;
use crate::data_dir::DataDir;
use crate::gate::{Answer, Gate, GateError};
use crate::ids::ReactorId;
use crate::limits;
use crate::logs::{Logs, LogsError};
use crate::lookup::{Lookup, LookupError, LookupShared, nodes};
use crate::reactor::handover::Letter;
use crate::reactor::mailbox::Mailbox;
use crate::reactor::seats::Seats;
use crate::reactor::steering::Steering;
use crate::reactor::{Lines, Order, Reactor, Setup, SetupError};
use crate::routing::Shared;
use crate::sys;
use crate::sys::capacity::{open_files_for, open_files_for_all, seats_each};
use crate::sys::listen::Claim;
use crate::topic::TopicHasher;

/// Why a server can't start. The operator's to solve; each says what and where.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Listen(SocketAddr, io::Error),
    /// A reactor can't be pinned to its core.
    Pin {
        /// Which reactor.
        reactor: usize,
        /// Which core.
        core: usize,
        /// Why.
        error: io::Error,
    },
    /// The limit of open files leaves too little for so many connections.
    OpenFiles {
        /// The limit, of each reactor's fd table.
        limit: u64,
        /// What each reactor needs.
        needed: u64,
    },
    /// A file that says who may come in can't be read.
    Access(AccessError),
    /// The threads that check passwords, or ask the hook, can't start.
    Gate(GateError),
    /// The stored sessions can't be had.
    Store(LogsError),
    /// The lookup can't be had.
    Lookup(LookupError),
    /// The system does not give what a reactor is made of: file descriptors, a thread.
    System(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) | Self::Lookup(LookupError::Listen(address, error)) => {
                write!(f, "cannot listen on {address}: ")?;
                let port = address.port();
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "another program listens there, and `ss -ltnp 'sport = :{port}'` names it; stop it or choose another port"
                    ),
                    io::ErrorKind::AddrNotAvailable => f.write_str(
                        "this machine does not have the address; `ip address` shows those it has",
                    ),
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "{error}; a port below 1024 needs CAP_NET_BIND_SERVICE, so grant it or choose another port"
                    ),
                    _ => write!(f, "{error}; choose another address"),
                }
            }
            Self::Pin {
                reactor,
                core,
                error,
            } => {
                write!(
                    f,
                    "cannot pin reactor {reactor} to core {core}: {error}; allow that core (taskset, cpuset) or set pin = false"
                )
            }
            Self::OpenFiles { limit, needed } => write!(
                f,
                "{limit} open files are too few: each reactor needs {needed}; raise the limit, or run more reactors, or lower max_connections"
            ),
            Self::Access(error) => error.fmt(f),
            Self::Gate(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Lookup(error) => error.fmt(f),
            Self::System(what, error) => write!(
                f,
                "cannot start: {what}: {error}; run fewer reactors, or raise the limits of threads, open files and memory"
            ),
        }
    }
}

impl std::error::Error for StartError {}

/// Speaks to a server from any thread that shares the fd table of the one that started it.
#[derive(Clone, Debug)]
pub struct Handle {
    lines: Arc<Lines>,
    draining: Arc<AtomicBool>,
    access: Arc<Mutex<Arc<Access>>>,
    nodes: Option<Arc<nodes::Table>>,
}

impl Handle {
    /// As [`Server::shutdown`].
    pub fn shutdown(&self) {
        // No ticket names a node whose reactors have stopped to listen.
        self.draining.store(true, Ordering::Relaxed);
        self.lines.give(Order::Drain);
    }

    /// Other rules hold from now on, for those who are in as well. Returns when every reactor has been told; false: some could not be, for they
    /// don't empty their mailbox.
    pub fn set_access(&self, access: &Arc<Access>) -> bool {
        let tell = |mailbox: &Mailbox<Letter>| {
            mailbox.post(Letter::Access(Arc::clone(access)), limits::RELOAD_PATIENCE)
        };
        let told = self
            .lines
            .boxes
            .iter()
            .map(tell)
            .fold(true, |all, one| all & one);
        // What a new key signs is given out when those who verify it have heard of it.
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(access);
        told
    }

    /// The lookup reads the other nodes anew. After an error it knows those that it knew.
    pub fn reload_nodes(&self, config: &Config) -> Result<(), LookupError> {
        match &self.nodes {
            Some(table) => crate::lookup::reload(table, &config.lookup),
            None => Ok(()),
        }
    }
}

/// A running server. Dropping it stops it at once; [`Server::shutdown`] and [`Server::join`] end it in peace.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    /// Kept here until every reactor has ended: its descriptors are of this thread's table.
    lines: Arc<Lines>,
    /// Ends with the last reactor that asks it.
    gate: Option<Arc<Gate>>,
    threads: Vec<JoinHandle<()>>,
    /// Tells each reactor that all are set up; dropped, that it must not begin.
    go: Vec<mpsc::Sender<()>>,
    /// Said to the lookup before the reactors hear of it.
    draining: Arc<AtomicBool>,
    /// The rules that hold.
    access: Arc<Mutex<Arc<Access>>>,
    /// Answers to the very end: it sends elsewhere whoever is told to go.
    lookup: Option<Lookup>,
    /// Dropped last: what the reactors have written is synced then.
    _logs: Option<Arc<Logs>>,
}

impl Server {
    /// Bind the addresses and start the reactors; when it returns, all of them accept. Its sessions end with it.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let access = Access::load(&config.access, &config.auth).map_err(StartError::Access)?;
        Self::start_with(config, &Arc::new(access), None)
    }

    /// The same with the sessions of a data directory, which go on when it ends. Blocks until they are read.
    pub fn open(config: &Config, data: &DataDir) -> Result<Self, StartError> {
        let reactors = config.reactors.clamp(1, limits::MAX_REACTORS);
        let access = Access::load(&config.access, &config.auth).map_err(StartError::Access)?;
        let logs = Logs::open(data, config, reactors).map_err(StartError::Store)?;
        Self::start_with(config, &Arc::new(access), Some(&logs))
    }

    fn start_with(
        config: &Config,
        access: &Arc<Access>,
        logs: Option<&Arc<Logs>>,
    ) -> Result<Self, StartError> {
        let reactors = config.reactors.clamp(1, limits::MAX_REACTORS);
        // Not above what it is a share of, so it fits.
        let each = seats_each(u64::from(config.max_connections), reactors) as u32;
        enough_files(config.max_connections, reactors)?;
        let cores = if config.pin {
            sys::affinity::cores()
                .map_err(|error| StartError::System("the cores are unknown", error))?
        } else {
            Vec::new()
        };
        let claims = claim(&config.listen)?;
        let homes: Vec<Vec<SocketAddr>> = (0..reactors)
            .map(|reactor| config.home_addresses(reactor))
            .collect();
        let home_claims = claim(&homes.concat())?;
        let addresses: Vec<SocketAddr> = claims.iter().map(Claim::address).collect();
        let common_table = fits_one_table(config, reactors)?;
        let lines = Lines::new(reactors, common_table)
            .map_err(|error| StartError::System("no lines between the reactors", error))?;
        let topics = config.max_connections as usize;
        let mut server = Self {
            addresses,
            shared: Arc::new(Shared::new(
                reactors,
                topics,
                logs.map_or_else(TopicHasher::random, |logs| logs.hasher()),
                config.mqtt.clone(),
            )),
            lines: Arc::new(lines),
            gate: None,
            threads: Vec::with_capacity(reactors),
            go: Vec::with_capacity(reactors),
            draining: Arc::default(),
            access: Arc::new(Mutex::new(Arc::clone(access))),
            lookup: None,
            _logs: logs.cloned(),
        };
        server.gate = start_gate(config, &server.lines)?;
        let throttle = Throttle::new(&config.access);
        let throttle = throttle.is_on().then(|| Arc::new(throttle));
        let steering = (config.steer == Steer::Cpu)
            .then(|| Arc::new(Steering::new(server.addresses.len(), reactors)));
        let seats = Arc::new(Seats::new(reactors, config.max_connections, each));
        let (started, results) = mpsc::channel();
        for (reactor, own) in homes.into_iter().enumerate() {
            let setup = Setup {
                me: ReactorId(reactor as u16),
                lines: Arc::clone(&server.lines),
                shared: Arc::clone(&server.shared),
                seats: Arc::clone(&seats),
                access: Arc::clone(access),
                gate: server.gate.clone(),
                throttle: throttle.clone(),
                addresses: [server.addresses.clone(), own].concat(),
                core: (!cores.is_empty()).then(|| cores[reactor % cores.len()]),
                steering: steering.clone(),
                seed: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), reactor),
                logs: logs.cloned(),
                disk: config.durability == Durability::Disk,
                log_connections: config.log.connections,
                drain_timeout: Duration::from_secs(u64::from(config.drain_timeout)),
            };
            server.spawn(setup, started.clone())?;
        }
        drop(started);
        // An error stops what has started: `server` is dropped.
        for result in results {
            result?;
        }
        for go in server.go.drain(..) {
            // It waits for this.
            let _ = go.send(());
        }
        drop((claims, home_claims));
        Ok(server)
    }

    fn spawn(
        &mut self,
        setup: Setup,
        started: mpsc::Sender<Result<(), StartError>>,
    ) -> Result<(), StartError> {
        let id = setup.me.index();
        let (go, gone_to) = mpsc::channel();
        self.go.push(go);
        let run = move || {
            let ready = Reactor::new(setup);
            match ready {
                Ok(reactor) => {
                    // The receiver is gone only if another reactor failed; then the order to stop is there.
                    let _ = started.send(Ok(()));
                    drop(started);
                    if gone_to.recv().is_ok() {
                        reactor.serve_until_ordered();
                    }
                }
                Err(error) => {
                    let _ = started.send(Err(setup_failed(id, error)));
                }
            }
        };
        let thread = Builder::new()
            .name(format!("reactor-{id}"))
            .stack_size(limits::REACTOR_STACK)
            .spawn(run)
            .map_err(|error| StartError::System("no thread for a reactor", error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it counts.
    pub fn counters(&self) -> &AllCounters {
        &self.shared.counters
    }

    /// Start the lookup, if the configuration has an address for it.
    pub fn start_lookup(&mut self, config: &Config) -> Result<(), StartError> {
        let shared = LookupShared {
            access: Arc::clone(&self.access),
            shared: Arc::clone(&self.shared),
            listen: self.addresses.clone(),
            home_ports: (config.home_ports > 0).then_some(config.home_ports),
            reactors: self.threads.len(),
            max_connections: config.max_connections,
            draining: Arc::clone(&self.draining),
        };
        self.lookup = Lookup::start(&config.lookup, shared).map_err(StartError::Lookup)?;
        Ok(())
    }

    /// The lookup, if it was started.
    pub fn lookup(&self) -> Option<&Lookup> {
        self.lookup.as_ref()
    }

    /// Begin to drain: no new connections, DISCONNECT 0x8B to those that there are. Returns at once.
    pub fn shutdown(&self) {
        self.handle().shutdown();
    }

    /// For another thread to speak to the server while this one waits in [`Server::join`].
    pub fn handle(&self) -> Handle {
        Handle {
            lines: Arc::clone(&self.lines),
            draining: Arc::clone(&self.draining),
            access: Arc::clone(&self.access),
            nodes: self
                .lookup
                .as_ref()
                .map(|lookup| Arc::clone(lookup.table())),
        }
    }

    /// Wait for every reactor to end, which they do after [`Server::shutdown`]. An error: one panicked. (In a release build a panic ends
    /// the process instead.)
    pub fn join(mut self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread
                .join()
                .map_err(|_| io::Error::other("a reactor panicked"));
            result = result.and(ended);
        }
        result
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lines.give(Order::Stop);
        self.go.clear();
        for thread in self.threads.drain(..) {
            // A panic has been printed where it happened.
            let _ = thread.join();
        }
    }
}

/// Starts the threads that find out what takes long, if any method of `auth` does.
fn start_gate(config: &Config, lines: &Arc<Lines>) -> Result<Option<Arc<Gate>>, StartError> {
    let takes_long = |method: &Method| matches!(method, Method::PasswordFile | Method::Http);
    if !config.auth.iter().any(takes_long) {
        return Ok(None);
    }
    let boxes = Arc::clone(&lines.boxes);
    let answer = move |reactor: ReactorId, answer: Answer| {
        boxes[reactor.index()].post(Letter::Answer(Box::new(answer)), limits::ANSWER_PATIENCE);
    };
    let gate = Gate::start(config, answer).map_err(StartError::Gate)?;
    Ok(Some(Arc::new(gate)))
}

/// Takes addresses for the reactors to listen on.
fn claim(addresses: &[SocketAddr]) -> Result<Vec<Claim>, StartError> {
    let take = |&address| Claim::take(address).map_err(|error| StartError::Listen(address, error));
    addresses.iter().map(take).collect()
}

fn setup_failed(reactor: usize, error: SetupError) -> StartError {
    match error {
        SetupError::Table(error) => {
            StartError::System("a reactor gets no fd table of its own", error)
        }
        SetupError::Pin(core, error) => StartError::Pin {
            reactor,
            core,
            error,
        },
        SetupError::Listen(address, error) => StartError::Listen(address, error),
        SetupError::Log(error) => StartError::Store(LogsError::Open(error)),
        SetupError::Poll(error) => StartError::System("a reactor gets no poller", error),
    }
}

/// Raise the limit of open files as far as it goes and see that it is enough.
fn enough_files(connections: u32, reactors: usize) -> Result<(), StartError> {
    let limit = sys::rlimit::raise_open_files()
        .map_err(|error| StartError::System("the limit of open files is unknown", error))?;
    let needed = open_files_for(u64::from(connections), reactors);
    if limit < needed {
        return Err(StartError::OpenFiles { limit, needed });
    }
    Ok(())
}

/// Whether one fd table is large enough for all reactors: then connections need not be copied from one to another. It is made that large.
fn fits_one_table(config: &Config, reactors: usize) -> Result<bool, StartError> {
    let system = |error| StartError::System("the open files can't be counted", error);
    let limit = sys::rlimit::raise_open_files().map_err(system)?;
    let open = sys::table::open_files().map_err(system)?;
    let needed = open_files_for_all(
        u64::from(config.max_connections),
        reactors,
        config.listen.len() + config.home_addresses(0).len(),
        open,
    );
    if needed > limit {
        return Ok(false);
    }
    sys::table::widen(needed).map_err(system)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn config(reactors: usize, max_connections: u32) -> Config {
        Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            pin: false,
            ..Config::new(reactors, max_connections)
        }
    }

    /// CONNECT of an MQTT 5 client, clean start.
    fn hello(client_id: &str) -> Vec<u8> {
        let mut packet = vec![
            0x10,
            (13 + client_id.len()) as u8,
            0,
            4,
            b'M',
            b'Q',
            b'T',
            b'T',
            5,
            2,
            0,
            60,
            0,
        ];
        packet.extend_from_slice(&[0, client_id.len() as u8]);
        packet.extend_from_slice(client_id.as_bytes());
        packet
    }

    /// One packet: its first byte and its body, whose length takes one byte.
    fn packet(mut client: &TcpStream) -> (u8, Vec<u8>) {
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut head = [0; 2];
        client.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[1])];
        client.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    fn connect(address: SocketAddr, client_id: &str) -> (TcpStream, u8) {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&hello(client_id)).unwrap();
        let (first, body) = packet(&client);
        assert_eq!(first, 0x20, "CONNACK");
        (client, body[1])
    }

    #[test]
    fn clients_of_every_home_are_let_in_and_told_when_it_ends() {
        come_and_are_told(Server::start(&config(3, 100)).unwrap());
    }

    #[test]
    fn so_are_they_where_each_reactor_has_its_own_table() {
        // One table holds other files too.
        let files = sys::rlimit::raise_open_files().unwrap();
        let most = files.min(limits::MAX_CONNECTIONS) as u32;
        come_and_are_told(Server::start(&config(3, most)).unwrap());
    }

    fn come_and_are_told(server: Server) {
        let address = server.addresses()[0];
        let clients: Vec<_> = (0..60)
            .map(|i| connect(address, &format!("client-{i}")))
            .collect();
        assert!(clients.iter().all(|(_, reason)| *reason == 0));
        let totals = server.counters().totals();
        assert_eq!((totals.accepted, totals.connections), (60, 60));
        assert!(
            totals.handed_over > 0,
            "three homes, and one of them accepts"
        );
        // One that goes is let go of, whoever had its socket in between.
        for i in 0..20 {
            let (mut client, _) = connect(address, &format!("passing-{i}"));
            client.write_all(&[0xE0, 0]).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        server.shutdown();
        for (mut client, _) in clients {
            let (first, body) = packet(&client);
            assert_eq!(
                (first, body[0]),
                (0xE0, 0x8B),
                "DISCONNECT, server shutting down"
            );
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        server.join().unwrap();
        assert!(
            TcpStream::connect(address).is_err(),
            "nobody listens any more"
        );
    }

    #[test]
    fn who_comes_to_the_port_of_its_home_is_not_handed_over() {
        // Reactors' own ports that are free: three in a row, found by trying.
        let mut config = config(3, 100);
        let server = (20_000..30_000)
            .step_by(3)
            .find_map(|base| {
                config.home_ports = base;
                Server::start(&config).ok()
            })
            .expect("three free ports in a row");
        let shared = &server.shared;
        let clients: Vec<_> = (0..30)
            .map(|i| {
                let id = format!("client-{i}");
                let home = crate::routing::home(&shared.hasher, &id, 3);
                let port = config.home_ports + home.0;
                connect(SocketAddr::from(([127, 0, 0, 1], port)), &id)
            })
            .collect();
        assert!(clients.iter().all(|(_, reason)| *reason == 0));
        let totals = server.counters().totals();
        assert_eq!((totals.connections, totals.handed_over), (30, 0));
        // A client that knows no better is let in all the same.
        let stranger = SocketAddr::from(([127, 0, 0, 1], config.home_ports));
        let strangers: Vec<_> = (30..60)
            .map(|i| connect(stranger, &format!("client-{i}")))
            .collect();
        assert!(strangers.iter().all(|(_, reason)| *reason == 0));
        assert!(server.counters().totals().handed_over > 0);
    }

    #[test]
    fn steered_connections_are_accepted_on_the_core_that_they_come_in_on() {
        let cores = sys::affinity::cores().unwrap();
        // More reactors than cores: two for some of them, which share.
        let reactors = cores.len() + 1;
        let config = Config {
            pin: true,
            steer: Steer::Cpu,
            ..config(reactors, 100)
        };
        let server = Server::start(&config).unwrap();
        let address = server.addresses()[0];
        let core = cores[cores.len() - 1];
        let calls = std::thread::spawn(move || {
            sys::affinity::pin(core).unwrap();
            (0..30)
                .map(|i| connect(address, &format!("client-{i}")))
                .collect::<Vec<_>>()
        });
        let clients = calls.join().unwrap();
        assert!(clients.iter().all(|(_, reason)| *reason == 0));
        let of_the_core = |reactor: &usize| cores[reactor % cores.len()] == core;
        let accepted: u64 = (0..reactors)
            .filter(of_the_core)
            .map(|reactor| {
                server
                    .counters()
                    .of(ReactorId(reactor as u16))
                    .accepted
                    .get()
            })
            .sum();
        assert_eq!(accepted, 30);
    }

    #[test]
    fn a_full_server_says_so_and_has_room_again_later() {
        let server = Server::start(&config(1, 5)).unwrap();
        let address = server.addresses()[0];
        let mut clients: Vec<_> = (0..5)
            .map(|i| connect(address, &format!("client-{i}")))
            .collect();
        let (mut refused, reason) = connect(address, "one too many");
        assert_eq!(reason, 0x97, "quota exceeded");
        assert_eq!(refused.read(&mut [0]).unwrap(), 0);
        drop(clients.pop());
        while server.counters().totals().connections == 5 {
            std::thread::yield_now();
        }
        assert_eq!(connect(address, "next").1, 0);
    }

    /// The answer to a question for a ticket: its status, and its JSON.
    fn ask(lookup: SocketAddr, client_id: &str) -> (u16, serde_json::Value) {
        let mut http = TcpStream::connect(lookup).unwrap();
        let question = format!(
            "GET /v1/ticket?client_id={client_id} HTTP/1.1\r\nhost: l\r\nconnection: close\r\n\r\n"
        );
        http.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        http.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    #[test]
    fn while_it_drains_tickets_lead_elsewhere_and_the_lookup_answers_to_the_end() {
        let nodes = std::env::temp_dir().join(format!("nodes-{}.toml", std::process::id()));
        let other = "[[node]]\nname = \"other\"\nendpoints = [\"mqtt://203.0.113.9:1883\"]\n";
        std::fs::write(&nodes, other).unwrap();
        for file in [std::path::PathBuf::new(), nodes.clone()] {
            let alone = file.as_os_str().is_empty();
            let mut config = config(2, 100);
            config.lookup.listen = vec!["127.0.0.1:0".parse().unwrap()];
            config.lookup.nodes = file;
            let mut server = Server::start(&config).unwrap();
            server.start_lookup(&config).unwrap();
            let lookup = server.lookup().unwrap().addresses()[0];
            assert_eq!(ask(lookup, "phone").0, 200);
            server.shutdown();
            let (status, json) = ask(lookup, "phone");
            let own = server.addresses()[0].port();
            if alone {
                assert_eq!((status, &json["fallback"]), (503, &serde_json::json!([])));
            } else {
                assert_eq!((status, &json["node"]), (200, &"other".into()));
                let text = json.to_string();
                assert!(!text.contains(&format!(":{own}")), "{text}");
            }
            server.join().unwrap();
            assert!(
                TcpStream::connect(lookup).is_err(),
                "it ends with the server"
            );
        }
        std::fs::remove_file(nodes).unwrap();
    }

    #[test]
    fn a_second_server_on_an_address_is_refused_by_name() {
        let first = Server::start(&config(2, 10)).unwrap();
        let mut second = config(2, 10);
        second.listen = first.addresses().to_vec();
        let error = Server::start(&second).unwrap_err();
        assert!(
            matches!(error, StartError::Listen(address, _) if address == first.addresses()[0]),
            "{error}"
        );
    }
}
