//! What a ticket says: read from JSON, checked, and bounded, for a lookup may be broken or somebody else.
//!
//! Of the endpoints those are taken that a phone here can call: plain MQTT over TCP, with an address. Times become durations by the
//! server's own clock, so that nobody's clock has to be right.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;

/// The version that is understood.
const VERSION: u32 = 1;

/// Endpoints that are kept of a list.
const MOST_ENDPOINTS: usize = 32;

/// The longest token: what fits a CONNECT that any server takes before it knows the client.
const LONGEST_TOKEN: usize = 2048;

/// The longest time that a lookup can put off anything: a broken one must not silence a fleet for good.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The longest life of a ticket.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 86_400);

#[derive(Deserialize)]
struct Written<'a> {
    v: u32,
    server_time: u64,
    #[serde(borrow)]
    endpoints: Vec<WrittenEndpoint<'a>>,
    #[serde(default, borrow)]
    fallback: Vec<WrittenEndpoint<'a>>,
    #[serde(default, borrow)]
    token: Option<Cow<'a, str>>,
    ttl: f64,
    refresh_at: u64,
    retry: WrittenRetry,
    #[serde(default)]
    connect_after: u64,
}

#[derive(Deserialize)]
struct WrittenEndpoint<'a> {
    #[serde(borrow)]
    proto: Cow<'a, str>,
    #[serde(default, borrow)]
    host: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    ip: Option<Cow<'a, str>>,
    port: u16,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    weight: u32,
    #[serde(default)]
    home: bool,
}

#[derive(Deserialize)]
struct WrittenRetry {
    min: f64,
    max: f64,
    #[serde(default)]
    retry_after: f64,
}

/// The body of 429 and 503.
#[derive(Deserialize)]
struct WrittenRefusal<'a> {
    #[serde(default)]
    retry_after: Option<f64>,
    #[serde(default, borrow)]
    fallback: Vec<WrittenEndpoint<'a>>,
}

/// It isn't a ticket: why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// Not JSON, or not of a ticket's shape.
    Shape(String),
    /// Of another version.
    Version(u32),
    /// No endpoint that a phone here can call.
    NoEndpoint,
    /// A token that is no password.
    Token,
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => write!(f, "what it says is no ticket ({error})"),
            Self::Version(version) => {
                write!(f, "its tickets are of version {version}, not {VERSION}")
            }
            Self::NoEndpoint => {
                f.write_str("its ticket has no endpoint of plain MQTT with an address")
            }
            Self::Token => write!(f, "its token is empty or longer than {LONGEST_TOKEN} bytes"),
        }
    }
}

impl std::error::Error for Garbage {}

/// Where a phone can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Its address.
    pub addr: SocketAddr,
    /// Lower ones first.
    pub priority: u32,
    /// How often it is taken among those of one priority.
    pub weight: u32,
    /// The port of the client's home reactor.
    pub home: bool,
    /// Of the fallback list.
    pub fallback: bool,
}

/// What many tickets have in common: where to call, in which order, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// All endpoints, those of the fallback list last.
    pub endpoints: Vec<Endpoint>,
    /// How often.
    pub retry: Retry,
}

/// Back-off, in milliseconds: with full jitter between nothing and a time that doubles from `min` to `max`, and `after` on top of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retry {
    /// The server asks for this much in any case.
    pub after: u32,
    /// The longest first one.
    pub min: u32,
    /// The longest of all.
    pub max: u32,
}

impl Route {
    /// A list for when there is nothing else.
    pub fn of_addresses(addresses: &[SocketAddr]) -> Self {
        Self {
            endpoints: addresses
                .iter()
                .map(|&addr| Endpoint {
                    addr,
                    priority: 0,
                    weight: 1,
                    home: false,
                    fallback: true,
                })
                .collect(),
            retry: Retry {
                after: 0,
                min: 1000,
                max: 16_000,
            },
        }
    }

    /// The endpoint for a phone's next call after `tried` that led nowhere: the home port first, by priority, the fallback list last, and
    /// round again. Among equals the weights decide; the order of a phone follows from its number, so that nobody has to remember it.
    pub fn choose(&self, phone: u32, tried: u8) -> Option<Endpoint> {
        pick(self.endpoints.iter(), phone, tried)
    }

    /// The same of the fallback list alone.
    pub fn choose_fallback(&self, phone: u32, tried: u8) -> Option<Endpoint> {
        pick(self.endpoints.iter().filter(|e| e.fallback), phone, tried)
    }
}

fn pick<'e>(
    endpoints: impl Iterator<Item = &'e Endpoint>,
    phone: u32,
    tried: u8,
) -> Option<Endpoint> {
    let mut rng = fastrand::Rng::with_seed(u64::from(phone));
    // Efraimidis and Spirakis: the least of -ln(random)/weight is drawn in proportion to the weights, and so on down the list.
    let mut order: Vec<(f64, &Endpoint)> = endpoints
        .map(|endpoint| {
            let key = -rng.f64().max(f64::MIN_POSITIVE).ln() / f64::from(endpoint.weight);
            (key, endpoint)
        })
        .collect();
    let rank = |e: &Endpoint| (e.fallback, e.priority, !e.home);
    order.sort_by(|(a, left), (b, right)| {
        rank(left)
            .cmp(&rank(right))
            .then(a.partial_cmp(b).unwrap_or(Ordering::Equal))
    });
    let at = usize::from(tried).checked_rem(order.len())?;
    Some(*order[at].1)
}

/// A ticket, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Where to call.
    pub route: Rc<Route>,
    /// The password; none where the server needs none.
    pub token: Option<String>,
    /// How long it is valid from now on.
    pub ttl: Duration,
    /// After how long it should be refreshed.
    pub refresh: Duration,
    /// The phone should wait so long before it calls.
    pub connect_after: Duration,
}

impl Answer {
    /// Reads a ticket.
    pub fn read(body: &[u8]) -> Result<Self, Garbage> {
        let written: Written<'_> =
            serde_json::from_slice(body).map_err(|error| Garbage::Shape(error.to_string()))?;
        if written.v != VERSION {
            return Err(Garbage::Version(written.v));
        }
        let mut endpoints = usable(&written.endpoints, false);
        if endpoints.is_empty() {
            return Err(Garbage::NoEndpoint);
        }
        endpoints.extend(usable(&written.fallback, true));
        let token = written.token.map(Cow::into_owned);
        if token
            .as_ref()
            .is_some_and(|token| token.is_empty() || token.len() > LONGEST_TOKEN)
        {
            return Err(Garbage::Token);
        }
        let ttl = seconds(written.ttl, LONGEST_LIFE);
        let refresh = written.refresh_at.saturating_sub(written.server_time);
        let millis = |s| seconds(s, LONGEST_WAIT).as_millis() as u32;
        let min = millis(written.retry.min).max(1);
        Ok(Self {
            route: Rc::new(Route {
                endpoints,
                retry: Retry {
                    after: millis(written.retry.retry_after),
                    min,
                    max: millis(written.retry.max).max(min),
                },
            }),
            token,
            ttl,
            refresh: Duration::from_millis(refresh).min(ttl),
            connect_after: Duration::from_millis(written.connect_after).min(LONGEST_WAIT),
        })
    }
}

/// The lookup asks for patience.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Ask again after this long.
    pub retry_after: Duration,
    /// Where to call instead, if it comes to that.
    pub fallback: Vec<Endpoint>,
}

impl Refusal {
    /// Of 429 and 503. The header is the standard's, so it comes first; a body that can't be read says nothing.
    pub fn read(header: Option<u32>, body: &[u8]) -> Self {
        let written = serde_json::from_slice::<WrittenRefusal<'_>>(body).ok();
        let said = written.as_ref().and_then(|written| written.retry_after);
        Self {
            retry_after: seconds(header.map(f64::from).or(said).unwrap_or(1.0), LONGEST_WAIT),
            fallback: written.map_or_else(Vec::new, |written| usable(&written.fallback, true)),
        }
    }
}

fn usable(written: &[WrittenEndpoint<'_>], fallback: bool) -> Vec<Endpoint> {
    let endpoint = |written: &WrittenEndpoint<'_>| {
        let address = written.ip.as_ref().or(written.host.as_ref())?;
        let ip: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
        (written.proto == "mqtt" && !written.tls && written.port != 0).then(|| Endpoint {
            addr: SocketAddr::new(ip, written.port),
            priority: written.priority,
            weight: written.weight,
            home: written.home,
            fallback,
        })
    };
    let usable = written.iter().filter_map(endpoint);
    usable.take(MOST_ENDPOINTS).collect()
}

/// Seconds as a lookup writes them: neither negative nor endless.
fn seconds(written: f64, longest: Duration) -> Duration {
    Duration::try_from_secs_f64(written.max(0.0))
        .unwrap_or(longest)
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ticket() -> Value {
        json!({
            "v": 1, "server_time": 1_000_000, "node": "a",
            "endpoints": [
                {"proto": "mqtts", "host": "x", "ip": "10.0.0.1", "port": 8883, "tls": true, "path": null, "priority": 0, "weight": 100, "home": false},
                {"proto": "mqtt", "host": "x", "ip": "10.0.0.1", "port": 1883, "tls": false, "path": null, "priority": 0, "weight": 100, "home": false},
                {"proto": "mqtt", "host": "x", "ip": "10.0.0.1", "port": 1902, "tls": false, "path": null, "priority": 0, "weight": 1, "home": true},
                {"proto": "mqtt", "host": "10.0.0.2", "port": 1883, "tls": false, "priority": 1, "weight": 100},
            ],
            "fallback": [{"proto": "mqtt", "host": "10.0.0.9", "port": 1883}],
            "token": "a.b.c", "ttl": 3600, "refresh_at": 1_000_000 + 1_800_000,
            "retry": {"min": 1.0, "max": 120.0, "jitter": "full", "retry_after": 0},
            "keep_alive": {"min": 60, "max": 1200, "default": 300}, "max_connection_age": 0, "connect_after": 250,
        })
    }

    fn read(ticket: &Value) -> Result<Answer, Garbage> {
        Answer::read(ticket.to_string().as_bytes())
    }

    #[test]
    fn a_ticket_is_read() {
        let answer = read(&ticket()).unwrap();
        assert_eq!(answer.token.as_deref(), Some("a.b.c"));
        assert_eq!(answer.ttl, Duration::from_secs(3600));
        assert_eq!(answer.refresh, Duration::from_secs(1800));
        assert_eq!(answer.connect_after, Duration::from_millis(250));
        let retry = answer.route.retry;
        assert_eq!((retry.after, retry.min, retry.max), (0, 1000, 120_000));
        let order: Vec<String> = (0..5)
            .map(|tried| answer.route.choose(7, tried).unwrap().addr.to_string())
            .collect();
        assert_eq!(
            order,
            [
                "10.0.0.1:1902",
                "10.0.0.1:1883",
                "10.0.0.2:1883",
                "10.0.0.9:1883",
                "10.0.0.1:1902"
            ]
        );
        let last = answer.route.choose_fallback(7, 3).unwrap();
        assert_eq!(last.addr.to_string(), "10.0.0.9:1883");
    }

    #[test]
    fn weights_decide_among_equals() {
        let mut route = Route::of_addresses(&[
            "10.0.0.1:1".parse().unwrap(),
            "10.0.0.2:1".parse().unwrap(),
            "10.0.0.3:1".parse().unwrap(),
        ]);
        for (endpoint, weight) in route.endpoints.iter_mut().zip([3, 1, 0]) {
            endpoint.weight = weight;
        }
        let first = route.endpoints[0];
        let chosen: Vec<Endpoint> = (0..4000)
            .map(|phone| route.choose(phone, 0).unwrap())
            .collect();
        let firsts = chosen.iter().filter(|&&chosen| chosen == first).count();
        assert!((2900..3100).contains(&firsts), "{firsts}");
        // What has no weight comes last.
        assert!((0..100).all(|phone| route.choose(phone, 2) == Some(route.endpoints[2])));
        assert_eq!(Route::default().choose(1, 0), None);
    }

    #[test]
    fn what_is_no_ticket_is_said() {
        let without = |key: &str| {
            let mut ticket = ticket();
            ticket.as_object_mut().unwrap().remove(key);
            ticket
        };
        for key in [
            "v",
            "server_time",
            "endpoints",
            "ttl",
            "refresh_at",
            "retry",
        ] {
            assert!(
                matches!(read(&without(key)), Err(Garbage::Shape(_))),
                "{key}"
            );
        }
        for key in ["fallback", "connect_after", "node", "keep_alive", "token"] {
            assert!(read(&without(key)).is_ok(), "{key}");
        }
        let with = |key: &str, value: Value| {
            let mut ticket = ticket();
            ticket[key] = value;
            read(&ticket)
        };
        assert_eq!(with("v", json!(2)), Err(Garbage::Version(2)));
        assert_eq!(with("endpoints", json!([])), Err(Garbage::NoEndpoint));
        let named = json!([{"proto": "mqtt", "host": "a.example", "port": 1883}]);
        assert_eq!(with("endpoints", named), Err(Garbage::NoEndpoint));
        assert_eq!(with("token", json!("")), Err(Garbage::Token));
        assert_eq!(with("token", json!("x".repeat(3000))), Err(Garbage::Token));
        assert!(matches!(with("ttl", json!("soon")), Err(Garbage::Shape(_))));
        assert!(matches!(Answer::read(b"<html>"), Err(Garbage::Shape(_))));
        // What can't be meant is bounded.
        assert_eq!(with("ttl", json!(1e300)).unwrap().ttl, LONGEST_LIFE);
        assert_eq!(with("ttl", json!(-1)).unwrap().ttl, Duration::ZERO);
        let late = with("connect_after", json!(u64::MAX)).unwrap();
        assert_eq!(late.connect_after, LONGEST_WAIT);
        assert_eq!(
            with("refresh_at", json!(1)).unwrap().refresh,
            Duration::ZERO
        );
    }

    #[test]
    fn a_refusal_says_when_and_where() {
        let body = json!({"error": "busy", "retry_after": 9, "fallback": [{"proto": "mqtt", "ip": "10.0.0.9", "port": 1}]});
        let refusal = Refusal::read(None, body.to_string().as_bytes());
        assert_eq!(refusal.retry_after, Duration::from_secs(9));
        assert!(refusal.fallback[0].fallback);
        let refusal = Refusal::read(Some(3), b"<html>busy</html>");
        assert_eq!(refusal.retry_after, Duration::from_secs(3));
        assert_eq!(Refusal::read(None, b"").retry_after, Duration::from_secs(1));
    }
}
