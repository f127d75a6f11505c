//! The configuration, checked and complete: what the server runs with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Everything the server needs to know to start. What each field means to an operator stands in [`super::keys`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Addresses for plain MQTT over TCP.
    pub listen: Vec<SocketAddr>,
    /// The first of the reactors' own ports; 0: they have none.
    pub home_ports: u16,
    /// How many reactors; 1 to [`crate::limits::MAX_REACTORS`].
    pub reactors: usize,
    /// Pin reactor `i` to the `i`-th core this process may use, modulo their number.
    pub pin: bool,
    /// Which of the reactors takes a new connection.
    pub steer: Steer,
    /// Where the server keeps what must outlive it; created and locked at start.
    pub data_dir: PathBuf,
    /// What has to be before something is acknowledged as stored.
    pub durability: Durability,
    /// Milliseconds that a sync waits for others, so that they share it.
    pub commit_delay: u32,
    /// Connections the server holds at most, over all reactors.
    pub max_connections: u32,
    /// Seconds between SIGTERM and the end, at most.
    pub drain_timeout: u32,
    /// How clients may prove who they are.
    pub auth: Vec<Method>,
    /// Listening beyond loopback is meant, though `auth` lets in whoever comes.
    pub allow_open: bool,
    /// What is logged and how.
    pub log: Log,
    /// Who may do what: files, the hook, throttles.
    pub access: Access,
    /// Tickets.
    pub lookup: Lookup,
    /// The protocol's limits and policies.
    pub mqtt: Mqtt,
}

impl Config {
    /// The defaults, with the two values that have none but what the machine allows.
    pub fn new(reactors: usize, max_connections: u32) -> Self {
        Self {
            // Loopback only: a server without authentication isn't opened to the world by default.
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))],
            home_ports: 0,
            reactors,
            pin: true,
            steer: Steer::Off,
            // Works without root, and is found again where the server was started; a packaged server names its own place.
            data_dir: PathBuf::from("./stillwire-data"),
            durability: Durability::Process,
            commit_delay: 0,
            max_connections,
            drain_timeout: 10,
            auth: vec![Method::Open],
            allow_open: false,
            log: Log {
                format: LogFormat::Text,
                level: tracing::Level::INFO,
                connections: false,
            },
            access: Access::default(),
            lookup: Lookup::default(),
            mqtt: Mqtt::default(),
        }
    }

    /// Whether a client needs to prove nothing.
    pub fn is_open(&self) -> bool {
        self.auth.contains(&Method::Open)
    }
}

impl Config {
    /// Where this reactor alone listens: at its own port of each address.
    pub fn home_addresses(&self, reactor: usize) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        if self.home_ports > 0 {
            // Checked to be within the range of ports.
            let port = self.home_ports.saturating_add(reactor as u16);
            for address in &self.listen {
                let address = SocketAddr::new(address.ip(), port);
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        addresses
    }
}

/// Which reactor takes a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Any: the kernel's hash of the addresses decides.
    Off,
    /// One on the core that its packets come in on.
    Cpu,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// One line for each connection that opens or closes.
    pub connections: bool,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

/// A way to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Whoever presents no password is admitted.
    Open,
    /// A ticket of our own, as the password.
    Ticket,
    /// A user name and password of the password file.
    PasswordFile,
    /// A JWT of another issuer, as the password.
    Jwt,
    /// Whatever the HTTP hook says yes to.
    Http,
}

/// Who may do what. Paths are empty where there is no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Keys that sign and verify tickets.
    pub keys: PathBuf,
    /// Tenants, their secrets and limits.
    pub apps: PathBuf,
    /// Users and hashes of their passwords.
    pub passwords: PathBuf,
    /// Issuers of other JWTs.
    pub issuers: PathBuf,
    /// Rules for topics.
    pub acl: PathBuf,
    /// Tokens, clients and tenants that are out.
    pub revoked: PathBuf,
    /// Seconds that the clocks of those who sign may be off.
    pub clock_skew: u32,
    /// Where the hook is asked; empty: nowhere.
    pub http_url: String,
    /// Milliseconds that the hook may take.
    pub http_timeout: u32,
    /// Seconds that an answer of the hook is good for; 0: it is asked each time.
    pub http_cache: u32,
    /// Connects a second of one address; 0: any number.
    pub address_connects: u32,
    /// Failed connects a minute of one address; 0: any number.
    pub address_failures: u32,
    /// Connects a second with one client id; 0: any number.
    pub client_connects: u32,
    /// Failed connects a minute with one client id; 0: any number.
    pub client_failures: u32,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            keys: PathBuf::new(),
            apps: PathBuf::new(),
            passwords: PathBuf::new(),
            issuers: PathBuf::new(),
            acl: PathBuf::new(),
            revoked: PathBuf::new(),
            clock_skew: 30,
            http_url: String::new(),
            http_timeout: 2000,
            http_cache: 60,
            address_connects: 0,
            address_failures: 600,
            client_connects: 0,
            client_failures: 0,
        }
    }
}

/// What outlives what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What is acknowledged outlives the process.
    Process,
    /// What is acknowledged outlives a power failure: it waits until the disk has it.
    Disk,
}

/// What happens to a QoS 1 or 2 message when the queue of an offline session is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    /// The oldest queued message makes room; counted and logged.
    DropOldest,
    /// The new message is not queued, and its publisher is told that it is; counted.
    DropNewest,
    /// The new message is not queued; its publisher is told with 0x97 (MQTT 5), or its connection is closed without an ack (MQTT 3).
    Refuse,
}

/// The protocol's limits and policies. Bytes, seconds and counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// Largest packet a client may send, fixed header included.
    pub max_packet_size: u32,
    /// Largest CONNECT; caps what an unauthenticated peer can make the server keep.
    pub max_connect_size: u32,
    /// Seconds from accept to a whole CONNECT.
    pub connect_timeout: u32,
    /// Unacknowledged QoS 1 and 2 messages that one client may have sent us (Receive Maximum, MQTT 5 section 3.2.2.3.3).
    pub receive_maximum: u16,
    /// Unacknowledged QoS 1 and 2 messages that we send one client at most; its own Receive Maximum lowers it.
    pub max_inflight: u16,
    /// Topic aliases that a client may set (section 3.2.2.3.8), and that we set towards a client that allows them.
    pub topic_alias_maximum: u16,
    /// Keep alive that is imposed on clients that ask for more, or for none (section 3.2.2.3.14); 0: theirs is taken as it is.
    pub server_keep_alive: u16,
    /// Longest session expiry in seconds; also the expiry of MQTT 3 sessions with clean session 0.
    pub max_session_expiry: u32,
    /// Sessions at most, connected or not.
    pub max_sessions: u32,
    /// Messages a session's queue holds at most.
    pub queue_messages: u32,
    /// Bytes a session's queue holds at most.
    pub queue_bytes: u32,
    /// What happens when an offline session's queue is full.
    pub queue_full: QueueFull,
    /// Seconds a message may wait in a durable session's queue; 0: as long as it likes.
    pub queue_age: u32,
    /// Messages at most in the queues of all durable sessions.
    pub max_queued: u64,
    /// Bytes at most in the queues of all durable sessions; a message counts in each queue that has it.
    pub max_queued_bytes: u64,
    /// Bytes of unwritten packets a connection may have waiting.
    pub write_backlog: u32,
    /// Seconds a connection may have unwritten bytes waiting without taking any of them.
    pub write_timeout: u32,
    /// Subscriptions a client may have.
    pub max_subscriptions: u32,
    /// Levels of a topic name or filter.
    pub max_topic_levels: u16,
    /// Retained messages at most, over all reactors.
    pub max_retained: u32,
    /// Bytes of all retained messages at most, over all reactors.
    pub max_retained_bytes: u64,
    /// Seconds between two rounds of `$SYS` messages; 0: none.
    pub sys_interval: u32,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            max_packet_size: 1 << 20,
            max_connect_size: 64 << 10,
            connect_timeout: 8,
            receive_maximum: 64,
            max_inflight: 32,
            topic_alias_maximum: 16,
            server_keep_alive: 0,
            max_session_expiry: 7 * 24 * 3600,
            max_sessions: 2_000_000,
            queue_messages: 1000,
            queue_bytes: 1 << 20,
            queue_full: QueueFull::DropOldest,
            queue_age: 0,
            max_queued: 100_000_000,
            max_queued_bytes: 1 << 40,
            write_backlog: 256 << 10,
            write_timeout: 30,
            max_subscriptions: 1000,
            max_topic_levels: 64,
            max_retained: 1_000_000,
            max_retained_bytes: 1 << 30,
            sys_interval: 10,
        }
    }
}

/// Who may ask the lookup for a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AskMethod {
    /// Whoever asks.
    Open,
    /// An app's back end, by the app's key and secret.
    App,
    /// Whoever has a JWT of the app's issuer.
    Jwt,
}

/// The lookup. Seconds and counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Addresses for HTTP; none: there is no lookup.
    pub listen: Vec<SocketAddr>,
    /// Who may ask.
    pub ask: Vec<AskMethod>,
    /// Listening beyond loopback is meant, though whoever comes gets a ticket.
    pub allow_open: bool,
    /// This node's name; empty: the machine's.
    pub node: String,
    /// What is said of this node, as `name=value`.
    pub labels: Vec<String>,
    /// Where clients reach this node, if not where it listens.
    pub advertise: Vec<String>,
    /// A file of other nodes; empty: none.
    pub nodes: PathBuf,
    /// How long a ticket holds.
    pub ttl: u32,
    /// Connects a second that tickets are given for in any case.
    pub pace_floor: u32,
    /// Connects a second that tickets are given for at most.
    pub pace_ceiling: u32,
    /// How far ahead slots are given.
    pub pace_horizon: u32,
    /// Questions a second that are answered; 0: any number.
    pub rate: u32,
    /// What tickets say of retries: the first window, and the longest.
    pub retry_min: u32,
    /// See [`Lookup::retry_min`].
    pub retry_max: u32,
    /// What tickets say of the keep alive: the usual one, and the bounds.
    pub keep_alive: u16,
    /// See [`Lookup::keep_alive`].
    pub keep_alive_min: u16,
    /// See [`Lookup::keep_alive`].
    pub keep_alive_max: u16,
    /// What tickets say of a connection's age; 0: it may last.
    pub max_connection_age: u32,
}

impl Lookup {
    /// Whether whoever asks gets a ticket.
    pub fn is_open(&self) -> bool {
        self.ask.contains(&AskMethod::Open)
    }
}

impl Default for Lookup {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8090))],
            ask: vec![AskMethod::Open],
            allow_open: false,
            node: String::new(),
            labels: Vec::new(),
            advertise: Vec::new(),
            nodes: PathBuf::new(),
            ttl: 3600,
            // A tenth of what one core of 2020 accepts: no server is hurt, and what it can take is learned within seconds.
            pace_floor: 4000,
            pace_ceiling: 50_000,
            pace_horizon: 120,
            rate: 20_000,
            retry_min: 1,
            retry_max: 120,
            keep_alive: 300,
            keep_alive_min: 60,
            keep_alive_max: 1200,
            max_connection_age: 0,
        }
    }
}
