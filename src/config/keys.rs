//! The one table of configuration keys: name, what is accepted, where it goes, what it means. The file, the flags, `stillwire config`
//! and the table in README.md all follow from it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::resolved::{AskMethod, Config, Durability, LogFormat, Method, QueueFull, Steer};
use super::value::{Kind, Value};
use crate::limits;

/// One key.
pub struct Key {
    /// Its name with the table it stands in, such as `mqtt.max_inflight`.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub doc: &'static str,
    /// Its value in a configuration.
    pub get: fn(&Config) -> Value,
    /// Puts a value that [`Kind::read`] has accepted into a configuration.
    pub set: fn(&mut Config, Value),
}

impl Key {
    /// The table and the name inside it; the table of top-level keys is empty.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }

    /// The default as it would be written.
    pub fn default(&self) -> String {
        match self.kind {
            Kind::Count { auto: true, .. } => self.kind.print(&Value::Auto),
            _ => self.kind.print(&(self.get)(&Config::new(1, 1))),
        }
    }
}

/// The place of a key in [`KEYS`].
pub fn position(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

/// The key with the name most like `unknown`, in whatever table.
pub fn nearest(unknown: &str) -> &'static str {
    // Long enough for every name; what an operator typed can be a megabyte.
    let unknown: String = unknown.chars().take(64).collect();
    let distance = |key: &Key| {
        // A key in the wrong table is one step away from the right one.
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let whole = strsim::levenshtein(&unknown, key.name);
        whole.min(strsim::levenshtein(&last(&unknown), &last(key.name)) + 1)
    };
    KEYS.iter()
        .min_by_key(|key| distance(key))
        .map_or("listen", |key| key.name)
}

/// A field of [`Config`] as a [`Value`] and back.
trait Field: Sized {
    fn value(&self) -> Value;
    /// `None` if the value is not of this field's type, which the table's own test rules out.
    fn from(value: Value) -> Option<Self>;
}

macro_rules! number_fields {
    ($($number:ty),+) => {$(
        impl Field for $number {
            #[allow(clippy::cast_lossless, reason = "one body for all widths, usize among them; none is over 64 bits")]
            fn value(&self) -> Value {
                Value::Number(*self as u64)
            }
            fn from(value: Value) -> Option<Self> {
                let Value::Number(number) = value else { return None };
                <$number>::try_from(number).ok()
            }
        }
    )+};
}

number_fields!(u16, u32, u64, usize);

impl Field for bool {
    fn value(&self) -> Value {
        Value::Switch(*self)
    }
    fn from(value: Value) -> Option<Self> {
        if let Value::Switch(on) = value {
            Some(on)
        } else {
            None
        }
    }
}

impl Field for PathBuf {
    fn value(&self) -> Value {
        Value::Text(self.to_string_lossy().into_owned())
    }
    fn from(value: Value) -> Option<Self> {
        if let Value::Text(text) = value {
            Some(text.into())
        } else {
            None
        }
    }
}

impl Field for String {
    fn value(&self) -> Value {
        Value::Text(self.clone())
    }
    fn from(value: Value) -> Option<Self> {
        if let Value::Text(text) = value {
            Some(text)
        } else {
            None
        }
    }
}

impl Field for Vec<String> {
    fn value(&self) -> Value {
        Value::List(self.clone())
    }
    fn from(value: Value) -> Option<Self> {
        if let Value::List(list) = value {
            Some(list)
        } else {
            None
        }
    }
}

impl Field for Vec<SocketAddr> {
    fn value(&self) -> Value {
        Value::List(self.iter().map(ToString::to_string).collect())
    }
    fn from(value: Value) -> Option<Self> {
        let Value::List(list) = value else {
            return None;
        };
        list.iter().map(|address| address.parse().ok()).collect()
    }
}

macro_rules! choice_field {
    ($choice:ty, $words:ident: $($word:literal => $variant:path),+) => {
        const $words: &[&str] = &[$($word),+];
        impl Field for $choice {
            fn value(&self) -> Value {
                $(if *self == $variant { return Value::Text($word.to_owned()); })+
                unreachable!("each variant has its word")
            }
            fn from(value: Value) -> Option<Self> {
                match value {
                    $(Value::Text(word) if word == $word => Some($variant),)+
                    _ => None,
                }
            }
        }
    };
}

/// Several of a choice.
macro_rules! choices_field {
    ($choice:ty) => {
        impl Field for Vec<$choice> {
            fn value(&self) -> Value {
                let word = |one: &$choice| match one.value() {
                    Value::Text(word) => word,
                    _ => unreachable!("a choice is a word"),
                };
                Value::List(self.iter().map(word).collect())
            }
            fn from(value: Value) -> Option<Self> {
                let Value::List(list) = value else {
                    return None;
                };
                list.into_iter()
                    .map(|word| <$choice as Field>::from(Value::Text(word)))
                    .collect()
            }
        }
    };
}

choices_field!(Method);
choices_field!(AskMethod);
choice_field!(AskMethod, ASK_METHODS: "open" => AskMethod::Open, "app" => AskMethod::App, "jwt" => AskMethod::Jwt);
choice_field!(LogFormat, LOG_FORMATS: "text" => LogFormat::Text, "json" => LogFormat::Json);
choice_field!(Steer, STEER: "off" => Steer::Off, "cpu" => Steer::Cpu);
choice_field!(Durability, DURABILITY: "process" => Durability::Process, "disk" => Durability::Disk);
choice_field!(QueueFull, QUEUE_FULL: "drop-oldest" => QueueFull::DropOldest, "drop-newest" => QueueFull::DropNewest, "refuse" => QueueFull::Refuse);
choice_field!(
    Method, METHODS:
    "open" => Method::Open, "ticket" => Method::Ticket, "password-file" => Method::PasswordFile, "jwt" => Method::Jwt, "http" => Method::Http
);
choice_field!(
    tracing::Level, LOG_LEVELS:
    "error" => tracing::Level::ERROR, "warn" => tracing::Level::WARN, "info" => tracing::Level::INFO,
    "debug" => tracing::Level::DEBUG, "trace" => tracing::Level::TRACE
);

macro_rules! keys {
    ($($($field:ident).+ : $kind:expr, $doc:literal;)+) => {
        /// Every key, in the order in which it is printed: top-level keys first, then table by table.
        pub const KEYS: &[Key] = &[$(Key {
            name: stringify!($($field).+),
            kind: $kind,
            doc: $doc,
            get: |config| config.$($field).+.value(),
            set: |config, value| {
                config.$($field).+ = Field::from(value).expect("the key's kind admits only what its field takes");
            },
        }),+];
    };
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count {
        min,
        max,
        auto: false,
    }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Seconds { min, max }
}

const U32: u64 = u32::MAX as u64;
const U16: u64 = u16::MAX as u64;
const SESSIONS: u64 = limits::MAX_CONNECTIONS * 4;

keys! {
    listen: Kind::Addresses,
        "Addresses for plain MQTT over TCP; port 0 takes a free port.";
    home_ports: count(0, U16),
        "First of the reactors' own ports, which tickets name: reactor i listens on it plus i too, at each address of `listen`; 0: none.";
    reactors: Kind::Count { min: 1, max: limits::MAX_REACTORS as u64, auto: true },
        "Reactor threads; auto is one for each core this process may use.";
    pin: Kind::Switch,
        "Pin reactor i to the i-th core this process may use, modulo their number.";
    steer: Kind::Choice(STEER),
        "Which reactor accepts a connection: by the kernel's hash (off), or one on the core that its packets come in on (cpu).";
    data_dir: Kind::Path,
        "Where the server keeps what must outlive it; created and locked at start.";
    durability: Kind::Choice(DURABILITY),
        "What sessions, queues and retained messages outlive: the process, or a power failure too.";
    commit_delay: count(0, 1000),
        "Milliseconds that a sync waits for others to share it, where the disk is waited for.";
    max_connections: Kind::Count { min: 1, max: limits::MAX_CONNECTIONS, auto: true },
        "Connections held at most, over all reactors; auto is what this machine allows.";
    drain_timeout: seconds(0, 3600),
        "Time between SIGTERM and the end, at most.";
    auth: Kind::Words(METHODS),
        "How clients may prove who they are; open lets in whoever has no password.";
    allow_open: Kind::Switch,
        "Needed to listen on more than loopback with open in auth.";
    log.format: Kind::Choice(LOG_FORMATS),
        "Log lines as text or as one JSON object each.";
    log.level: Kind::Choice(LOG_LEVELS),
        "The least severe level that is logged.";
    log.connections: Kind::Switch,
        "One log line for each connection that opens or closes.";
    access.keys: Kind::OptionalPath,
        "Keys that sign and verify tickets; this and the other files are read again on SIGHUP.";
    access.apps: Kind::OptionalPath,
        "Apps (tenants), their secrets and limits.";
    access.passwords: Kind::OptionalPath,
        "Users and hashes of their passwords; `stillwire passwd` writes it.";
    access.issuers: Kind::OptionalPath,
        "Issuers whose JWTs are taken.";
    access.acl: Kind::OptionalPath,
        "Rules for topics; without a file everything is allowed, with an empty one nothing.";
    access.revoked: Kind::OptionalPath,
        "Tokens, clients and apps that are out.";
    access.clock_skew: seconds(0, 3600),
        "How far the clocks of those who sign tokens may be off.";
    access.http_url: Kind::OptionalUrl,
        "Where the http method asks.";
    access.http_timeout: count(10, 60_000),
        "Milliseconds that the hook may take.";
    access.http_cache: seconds(0, 86_400),
        "How long an answer of the hook is good for; 0: it is asked each time.";
    access.address_connects: count(0, 1_000_000),
        "Connects a second of one address (IPv6: one /64); 0: any number.";
    access.address_failures: count(0, 1_000_000),
        "Failed connects a minute of one address; 0: any number.";
    access.client_connects: count(0, 1_000_000),
        "Connects a second with one client id; 0: any number.";
    access.client_failures: count(0, 1_000_000),
        "Failed connects a minute with one client id; 0: any number. Who knows an id can lock it out.";
    lookup.listen: Kind::OptionalAddresses,
        "Addresses for the lookup, which gives tickets over HTTP; none: there is no lookup.";
    lookup.ask: Kind::Words(ASK_METHODS),
        "Who may ask for a ticket: whoever does, an app's back end by its secret, a client by its app's JWT.";
    lookup.allow_open: Kind::Switch,
        "Needed for a lookup on more than loopback with open in ask.";
    lookup.node: Kind::Text,
        "This node's name in tickets; empty: the machine's.";
    lookup.labels: Kind::Texts,
        "What is said of this node, as name=value; who asks with the same is sent here first.";
    lookup.advertise: Kind::Texts,
        "Where clients reach this node, such as mqtts://203.0.113.7:8883 fra-1.example.org; none: where it listens.";
    lookup.nodes: Kind::OptionalPath,
        "A file of nodes that tickets may name beside this one.";
    lookup.ttl: seconds(10, 30 * 86_400),
        "How long a ticket holds.";
    lookup.pace_floor: count(1, 10_000_000),
        "Connects a second that tickets are given for in any case.";
    lookup.pace_ceiling: count(1, 10_000_000),
        "Connects a second that tickets are given for at most; what is between follows from what the reactors take.";
    lookup.pace_horizon: seconds(0, 3600),
        "How long a ticket may ask a client to wait in a storm; beyond it the answer is 503.";
    lookup.rate: count(0, 10_000_000),
        "Questions a second that are answered; the others get 429; 0: all are.";
    lookup.retry_min: seconds(1, 3600),
        "What tickets say of retries: the first window.";
    lookup.retry_max: seconds(1, 86_400),
        "What tickets say of retries: the longest window.";
    lookup.keep_alive: seconds(0, U16),
        "What tickets say of the keep alive: what to begin with.";
    lookup.keep_alive_min: seconds(0, U16),
        "What tickets say of the keep alive: the shortest.";
    lookup.keep_alive_max: seconds(0, U16),
        "What tickets say of the keep alive: the longest.";
    lookup.max_connection_age: seconds(0, U32),
        "What tickets say of a connection's age, after which the client is to come anew; 0: it may last.";
    mqtt.max_packet_size: bytes(64, limits::LARGEST_PACKET),
        "Largest packet a client may send, fixed header included.";
    mqtt.max_connect_size: bytes(64, limits::LARGEST_CONNECT as u64),
        "Largest CONNECT; caps what an unauthenticated peer can make the server keep.";
    mqtt.connect_timeout: seconds(1, 600),
        "Time from accept to a whole CONNECT.";
    mqtt.receive_maximum: count(1, U16),
        "Unacknowledged QoS 1 and 2 messages that one client may have sent.";
    mqtt.max_inflight: count(1, U16),
        "Unacknowledged QoS 1 and 2 messages sent to one client at most; its own Receive Maximum lowers it.";
    mqtt.topic_alias_maximum: count(0, U16),
        "Topic aliases in each direction of a connection; 0: none.";
    mqtt.server_keep_alive: seconds(0, U16),
        "Keep alive imposed on MQTT 5 clients that ask for more, or for none; 0: theirs is taken.";
    mqtt.max_session_expiry: seconds(0, U32),
        "Longest session expiry; also that of MQTT 3 sessions with clean session 0. 4294967295: sessions never expire.";
    mqtt.max_sessions: count(1, SESSIONS),
        "Sessions at most, connected or not.";
    mqtt.queue_messages: count(1, limits::QUEUE_MESSAGES_MAX),
        "Messages one session's queue holds at most.";
    mqtt.queue_bytes: bytes(1024, U32),
        "Bytes one session's queue holds at most.";
    mqtt.queue_full: Kind::Choice(QUEUE_FULL),
        "What a full queue of an offline session does with a QoS 1 or 2 message.";
    mqtt.queue_age: seconds(0, U32),
        "Time a message may wait in a durable session's queue; 0: as long as it likes.";
    mqtt.max_queued: count(1, 1 << 40),
        "Messages at most in the queues of all durable sessions.";
    mqtt.max_queued_bytes: bytes(1024, 1 << 50),
        "Bytes at most in the queues of all durable sessions; a message counts in each queue that has it.";
    mqtt.write_backlog: bytes(4096, 1 << 30),
        "Bytes of unwritten packets one connection may have waiting.";
    mqtt.write_timeout: seconds(1, 3600),
        "Time a connection may have unwritten bytes waiting without taking any.";
    mqtt.max_subscriptions: count(1, 1_000_000),
        "Subscriptions one client may have.";
    mqtt.max_topic_levels: count(1, U16),
        "Levels of a topic name or filter.";
    mqtt.max_retained: count(0, U32),
        "Retained messages at most, over all reactors; 0: none are kept.";
    mqtt.max_retained_bytes: bytes(0, 1 << 40),
        "Bytes of all retained messages at most, over all reactors.";
    mqtt.sys_interval: seconds(0, 86_400),
        "Time between two rounds of `$SYS` messages; 0: none.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_takes_the_ends_of_its_range_and_its_default() {
        for key in KEYS {
            let values = match key.kind {
                Kind::Count { min, max, .. }
                | Kind::Bytes { min, max }
                | Kind::Seconds { min, max } => {
                    vec![Value::Number(min), Value::Number(max)]
                }
                Kind::Switch => vec![Value::Switch(true), Value::Switch(false)],
                Kind::Choice(words) => words
                    .iter()
                    .map(|word| Value::Text((*word).to_owned()))
                    .collect(),
                Kind::Words(words) => vec![Value::List(
                    words.iter().map(|word| (*word).to_owned()).collect(),
                )],
                Kind::Path => vec![Value::Text("/a".to_owned())],
                Kind::OptionalPath => {
                    vec![Value::Text("/a".to_owned()), Value::Text(String::new())]
                }
                Kind::OptionalUrl => vec![Value::Text("http://[::1]:1/a".to_owned())],
                Kind::Addresses => vec![Value::List(vec!["[::1]:1".to_owned()])],
                Kind::OptionalAddresses | Kind::Texts => vec![
                    Value::List(vec!["[::1]:1".to_owned()]),
                    Value::List(Vec::new()),
                ],
                Kind::Text => vec![Value::Text(String::new())],
            };
            let mut config = Config::new(1, 1);
            let default = (key.get)(&config);
            for value in values.into_iter().chain([default]) {
                (key.set)(&mut config, value.clone());
                assert_eq!((key.get)(&config), value, "{}", key.name);
            }
            if let (
                Kind::Count { min, max, .. }
                | Kind::Bytes { min, max }
                | Kind::Seconds { min, max },
                Value::Number(now),
            ) = (key.kind, (key.get)(&Config::new(1, 1)))
            {
                assert!(
                    (min..=max).contains(&now),
                    "the default of {} is out of its range",
                    key.name
                );
            }
        }
    }

    #[test]
    fn names_are_plain_and_unique_and_tables_stand_together() {
        let mut tables = vec![""];
        for (at, key) in KEYS.iter().enumerate() {
            assert!(
                key.name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte)),
                "{}",
                key.name
            );
            assert_eq!(position(key.name), Some(at));
            let (table, _) = key.split();
            if tables.last() != Some(&table) {
                assert!(!tables.contains(&table), "{table} is split");
                tables.push(table);
            }
            assert!(
                key.doc.ends_with('.') && !key.doc.contains('|'),
                "{}",
                key.name
            );
        }
    }

    fn row(key: &Key) -> String {
        let kind = match key.kind {
            Kind::Count { auto: false, .. } => "count",
            Kind::Count { auto: true, .. } => "count or `\"auto\"`",
            Kind::Bytes { .. } => "bytes",
            Kind::Seconds { .. } => "seconds",
            Kind::Switch => "boolean",
            Kind::Choice(_) => &key.kind.accepts().replace("one of ", ""),
            Kind::Words(_) => &key
                .kind
                .accepts()
                .replace("a list of one or more of", "list of"),
            Kind::Path => "path",
            Kind::OptionalPath => "path or `\"\"`",
            Kind::OptionalUrl => "http URL or `\"\"`",
            Kind::Addresses | Kind::OptionalAddresses => "list of addresses",
            Kind::Text => "string",
            Kind::Texts => "list of strings",
        };
        let range = key
            .kind
            .permitted()
            .map_or(String::new(), |range| format!(", {range}"));
        format!(
            "| `{}` | {kind}{range} | `{}` | {} |",
            key.name,
            key.default(),
            key.doc
        )
    }

    #[test]
    fn the_readme_has_every_key() {
        let expected: Vec<String> = KEYS.iter().map(row).collect();
        let readme = include_str!("../../README.md");
        let table = expected.join("\n");
        assert!(
            readme.contains(&table),
            "the configuration table of README.md should be:\n{table}"
        );
    }

    #[test]
    fn the_nearest_key_is_found_across_tables() {
        for (typed, meant) in [
            ("lissen", "listen"),
            ("max_inflight", "mqtt.max_inflight"),
            ("mqqt.max_inflight", "mqtt.max_inflight"),
            ("mqtt.max_packet", "mqtt.max_packet_size"),
            ("mqtt.reactor", "reactors"),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
        nearest(&"x".repeat(1 << 20));
        nearest("");
    }
}
