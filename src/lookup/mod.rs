//! The lookup: tickets over HTTP. Phones ask it where to connect, when, and with which token.
//!
//! One thread with its own listener and its own fd table: it answers whatever the reactors do, and their connections and its own don't take each
//! other's files. It reads what the reactors count, and never waits for one, nor for a disk, nor for another machine.
//!
//! | file | its idea |
//! |---|---|
//! | `connections`, `http` | bytes to requests, within bounds; requests to answers |
//! | `ask`, `asker` | what is asked; who may |
//! | `service` | from a question to a ticket |
//! | `policy`, `nodes`, `endpoint`, `labels` | which nodes; the table of them; where they are reached; where they are |
//! | `pacing` | when |
//! | `ticket` | the answer's shape; what it means stands in `openapi.json` |

pub mod ask;
mod asker;
mod connections;
pub mod endpoint;
mod http;
pub mod labels;
pub mod nodes;
pub mod pacing;
pub mod policy;
mod service;
pub mod ticket;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};

use crate::access::Access;
use crate::config::resolved;
use crate::limits;
use crate::routing::Shared;
use crate::sys;
use endpoint::Address;
use labels::Labels;
use nodes::{Node, NodesError, Table};
use service::{Now, Service};

pub use http::OPENAPI;

/// What the lookup sees of its server.
#[derive(Clone, Debug)]
pub struct LookupShared {
    /// Keys, apps, issuers, as they are now.
    pub access: Arc<Mutex<Arc<Access>>>,
    /// Counters, and the hash that says where a client is at home.
    pub shared: Arc<Shared>,
    /// Where the reactors listen, with real ports.
    pub listen: Vec<SocketAddr>,
    /// Reactor `i` also listens on this port plus `i`.
    pub home_ports: Option<u16>,
    /// How many reactors there are.
    pub reactors: usize,
    /// Connections that they hold together.
    pub max_connections: u32,
    /// The server takes no new clients any more.
    pub draining: Arc<AtomicBool>,
}

impl LookupShared {
    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Why the lookup can't start. The operator's to solve; each says what and where.
#[derive(Debug)]
pub enum LookupError {
    /// An address can't be listened on.
    Listen(SocketAddr, io::Error),
    /// A key's value can't be used: which, and what to write.
    Config(&'static str, String),
    /// The file of nodes can't be used.
    Nodes(NodesError),
    /// The system gives no thread, fd table or poller.
    System(io::Error),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Config(key, what) => write!(f, "{key}: {what}"),
            Self::Nodes(error) => error.fmt(f),
            Self::System(error) => write!(f, "no thread for the lookup: {error}"),
        }
    }
}

impl std::error::Error for LookupError {}

/// A running lookup. It ends when it is dropped.
#[derive(Debug)]
pub struct Lookup {
    addresses: Vec<SocketAddr>,
    table: Arc<Table>,
    /// Closed, it ends the thread. What wakes a runtime's tasks from outside is a file, which has to be of both tables: so it is older than
    /// the thread. The thread's end of it stays open in this table to the end of the process, one file.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Lookup {
    /// Listen and start the thread; when it returns, tickets are given. None: the configuration has no address for it.
    pub fn start(
        config: &resolved::Lookup,
        shared: LookupShared,
    ) -> Result<Option<Self>, LookupError> {
        if config.listen.is_empty() {
            return Ok(None);
        }
        let config = &resolved::Lookup {
            node: name(config)?,
            ..config.clone()
        };
        let others = read_nodes(config)?;
        let me = this_node(config, &shared, &others)?;
        let table = Arc::new(Table::new(me, others));
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
        let service = Service::new(config.clone(), shared, Arc::clone(&table), random);
        let (stop, stopped) = UnixStream::pair().map_err(LookupError::System)?;
        let (started, result) = mpsc::channel();
        let listen = config.listen.clone();
        let thread = Builder::new()
            .name("lookup".to_owned())
            .stack_size(limits::LOOKUP_STACK)
            .spawn(move || run(&listen, Arc::new(service), stopped, &started))
            .map_err(LookupError::System)?;
        // The thread always says how it went; if it panicked, that has been printed.
        let gone = || LookupError::System(io::Error::other("it ended at once"));
        let addresses = result.recv().map_err(|_| gone())??;
        Ok(Some(Self {
            addresses,
            table,
            stop: Some(stop),
            thread: Some(thread),
        }))
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The table of nodes, for whoever knows more of them.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }
}

/// Reads the file of nodes again. After an error the table is as it was.
pub fn reload(table: &Table, config: &resolved::Lookup) -> Result<(), LookupError> {
    table.set_others(read_nodes(config)?);
    Ok(())
}

impl Drop for Lookup {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been printed where it happened.
            let _ = thread.join();
        }
    }
}

fn read_nodes(config: &resolved::Lookup) -> Result<Vec<Node>, LookupError> {
    if config.nodes.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    nodes::read(Path::new(&config.nodes)).map_err(LookupError::Nodes)
}

/// This node's name, by default the machine's.
fn name(config: &resolved::Lookup) -> Result<String, LookupError> {
    if nodes::is_name(&config.node) {
        return Ok(config.node.clone());
    }
    if !config.node.is_empty() {
        return Err(LookupError::Config("lookup.node", nodes::NAME.to_owned()));
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = machine.trim_end();
    let is_good = nodes::is_name(machine);
    Ok(if is_good { machine } else { "stillwire" }.to_owned())
}

/// This node as tickets name it: by what the configuration says, then by what the file says of a node of its name, then by where it listens.
fn this_node(
    config: &resolved::Lookup,
    shared: &LookupShared,
    others: &[Node],
) -> Result<Node, LookupError> {
    let labels = Labels::read(config.labels.iter().map(String::as_str))
        .map_err(|_| LookupError::Config("lookup.labels", labels::WRITTEN.to_owned()))?;
    let advertise = |text: &String| {
        text.parse().map_err(|_| {
            let what = format!("{text:?} can't be used; write {}", endpoint::WRITTEN);
            LookupError::Config("lookup.advertise", what)
        })
    };
    let advertised: Vec<Address> = config
        .advertise
        .iter()
        .map(advertise)
        .collect::<Result<_, _>>()?;
    let written = others.iter().find(|node| *node.name == *config.node);
    let addresses = match (advertised.is_empty(), written) {
        (false, _) => advertised,
        (true, Some(node)) => node.addresses.clone(),
        (true, None) => shared.listen.iter().copied().map(Address::plain).collect(),
    };
    Ok(Node {
        name: config.node.as_str().into(),
        weight: written.map_or(nodes::USUAL_WEIGHT, |node| node.weight),
        labels: match written {
            Some(node) if config.labels.is_empty() => node.labels.clone(),
            _ => labels,
        },
        addresses,
        draining: false,
        load: None,
    })
}

/// The thread's life.
fn run(
    listen: &[SocketAddr],
    service: Arc<Service>,
    stopped: UnixStream,
    started: &mpsc::Sender<Result<Vec<SocketAddr>, LookupError>>,
) {
    let tell = |result| {
        // The server waits for it.
        let _ = started.send(result);
    };
    if !sys::affinity::come_before(limits::LOOKUP_NICE) {
        tracing::debug!(
            "the lookup runs as the reactors do: without CAP_SYS_NICE it can't come first"
        );
    }
    let runtime = match runtime(stopped.as_raw_fd()) {
        Ok(runtime) => runtime,
        Err(error) => return tell(Err(LookupError::System(error))),
    };
    runtime.block_on(async {
        let router = http::router(Arc::clone(&service));
        let held = Arc::new(AtomicUsize::new(0));
        let mut addresses = Vec::new();
        for &address in listen {
            let listener = sys::listen::alone(address, limits::LOOKUP_BACKLOG)
                .and_then(tokio::net::TcpListener::from_std)
                .and_then(|listener| Ok((listener.local_addr()?, listener)));
            match listener {
                Ok((address, listener)) => {
                    addresses.push(address);
                    let accept = connections::accept(listener, router.clone(), Arc::clone(&held));
                    tokio::spawn(accept);
                }
                Err(error) => return tell(Err(LookupError::Listen(address, error))),
            }
        }
        tokio::spawn(look(service));
        let stopped = stopped
            .set_nonblocking(true)
            .and_then(|()| tokio::net::UnixStream::from_std(stopped));
        let stopped = match stopped {
            Ok(stopped) => stopped,
            Err(error) => return tell(Err(LookupError::System(error))),
        };
        tell(Ok(addresses));
        // Either way the server is at its end.
        let _ = stopped.readable().await;
    });
}

/// A runtime on a thread that has its own fd table. What wakes the runtime is in that one, so no other thread may wake one of its tasks.
fn runtime(stopped: RawFd) -> io::Result<tokio::runtime::Runtime> {
    sys::table::make_own(&[stopped])?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
}

/// Looks at the reactors, four times a second.
async fn look(service: Arc<Service>) {
    let mut ticks = tokio::time::interval(limits::LOOKUP_SAMPLE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        service.look(Now {
            nanos: sys::clock::nanos(),
            unix_millis: sys::clock::unix_millis(),
        });
    }
}
