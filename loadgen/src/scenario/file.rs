//! The scenario file: TOML, every key checked, and an error that says where and what to do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::cli::{Protocol, Return};
use crate::expect::Expectation;
use crate::orders::Shape;
use crate::payload::HEADER;
use crate::tickets::{Tickets, Url, UrlError};
use crate::units;

/// What a file may say. All of it is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Where the broker listens: one address or a list.
    pub addr: Option<Addresses>,
    /// The phones of the whole scenario: a count, or a range of numbers.
    pub phones: Option<Phones>,
    /// Connects a second.
    pub rate: Option<Rate>,
    /// `3.1.1` or `5`.
    pub protocol: Option<Protocol>,
    /// Seconds between pings; 0: none.
    pub keep_alive: Option<u16>,
    /// `kept` or `clean`.
    pub session: Option<Session>,
    /// Bytes of a message.
    pub payload: Option<Payload>,
    /// Connections that publish.
    pub publishers: Option<NonZeroUsize>,
    /// Threads that hold phones.
    pub threads: Option<NonZeroUsize>,
    /// Source addresses.
    pub source: Option<Vec<IpAddr>>,
    /// A connection that isn't ready after this long has failed.
    pub patience: Option<Time>,
    /// A message that takes longer is late.
    pub late: Option<Time>,
    /// The longest wait for stragglers at the end.
    pub last_ones: Option<Time>,
    /// Names the run; the same for all processes that share it.
    pub run: Option<u32>,
    /// Show nothing while it runs.
    pub quiet: Option<bool>,
    /// What decides the exit code.
    pub expect: Option<Expected>,
    /// How phones leave and come back, in all phases.
    pub churn: Option<ChurnKeys>,
    /// What holds for all storms.
    #[serde(default)]
    pub storm: StormKeys,
    /// How phones find the server.
    pub tickets: Option<TicketKeys>,
    /// How `mixed` divides its deliveries.
    pub weights: Option<Weights>,
    /// What happens, in order.
    pub phase: Option<Vec<PhaseKeys>>,
}

/// What becomes of a session while its phone is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Session {
    /// The broker keeps it.
    Kept,
    /// It ends with the connection.
    Clean,
}

/// `[churn]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ChurnKeys {
    clean: Option<Weight>,
    reset: Option<Weight>,
    vanish: Option<Weight>,
    takeover: Option<Weight>,
    away_min: Option<Time>,
    away_max: Option<Time>,
    longest_backoff: Option<Time>,
}

impl ChurnKeys {
    /// The shape that these keys make of the usual one. Where one weight is named, those that aren't are none.
    pub fn shape(self) -> Shape {
        let usual = Shape::default();
        let named = [self.clean, self.reset, self.vanish, self.takeover];
        let [clean, reset, vanish, takeover] = if named.iter().any(Option::is_some) {
            named.map(|weight| weight.map_or(0.0, |weight| weight.0))
        } else {
            [usual.clean, usual.reset, usual.vanish, usual.takeover]
        };
        let away_min = self.away_min.map_or(usual.away_min, |time| time.0);
        Shape {
            clean,
            reset,
            vanish,
            takeover,
            away_min,
            away_max: self
                .away_max
                .map_or(usual.away_max, |time| time.0)
                .max(away_min),
            longest_backoff: self
                .longest_backoff
                .map_or(usual.longest_backoff, |time| time.0),
        }
    }
}

/// How the phones of a storm leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leaving {
    /// With DISCONNECT.
    Clean,
    /// With a reset.
    Reset,
}

/// `[storm]`, and `storm = { .. }` in a phase.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StormKeys {
    /// When they come back.
    #[serde(rename = "return")]
    pub back: Option<Return>,
    /// Which part of the phones drops.
    pub share: Option<Share>,
    /// How they leave.
    pub leave: Option<Leaving>,
    /// With `return = "jitter"`: each is back at a random moment within it.
    pub within: Option<Time>,
    /// With `return = "restart"`: the shell's command that restarts the server.
    pub command: Option<String>,
    /// The longest wait for all to be back.
    pub patience: Option<Time>,
}

/// `[tickets]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TicketKeys {
    /// Where the lookup is; without it, and without the flag, phones call the broker's address.
    pub lookup: Option<Lookup>,
    /// App key.
    pub app: Option<String>,
    /// The app's secret.
    pub secret: Option<String>,
    /// Tickets are kept and used again.
    pub cache: Option<bool>,
    /// Phones wait as long as they are told.
    pub pacing: Option<bool>,
    /// Connections to the lookup for each thread.
    pub concurrency: Option<NonZeroUsize>,
    /// The lookup has failed if it hasn't answered after this long.
    pub patience: Option<Time>,
}

impl TicketKeys {
    /// How phones find the server, if a lookup is named here or was typed, which comes first.
    pub fn plan(self, typed: Option<&Url>) -> Result<Option<Tickets>, UrlError> {
        let Some(url) = typed.cloned().or(self.lookup.map(|url| url.0)) else {
            return Ok(None);
        };
        let usual = Tickets::at(url)?;
        Ok(Some(Tickets {
            app: self.app.unwrap_or_default(),
            secret: self.secret.unwrap_or_default(),
            cache: self.cache.unwrap_or(usual.cache),
            pacing: self.pacing.unwrap_or(usual.pacing),
            concurrency: self
                .concurrency
                .map_or(usual.concurrency, NonZeroUsize::get),
            patience: self.patience.map_or(usual.patience, |time| time.0),
            ..usual
        }))
    }
}

/// `[weights]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Weights {
    pub(super) unicast0: Option<f64>,
    pub(super) unicast1: Option<f64>,
    pub(super) broadcast: Option<f64>,
}

/// `[[phase]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PhaseKeys {
    /// As the report shows it.
    pub name: Option<String>,
    /// How long.
    pub time: Option<Time>,
    /// Which part of all phones reconnects each second.
    pub churn: Option<Share>,
    /// Messages to random phones a second.
    pub unicast: Option<Rate>,
    /// Which part of them at QoS 1.
    pub qos1: Option<Share>,
    /// Messages to all a second, or `once`.
    pub broadcast: Option<Broadcasts>,
    /// Many drop when the phase begins.
    pub storm: Option<StormKeys>,
}

macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $parse:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                deserializer.deserialize_any(Typed(parse)).map(Self)
            }
        }
    )*};
}

typed! {
    /// Which phones: `"250k"`, `"250k..500k"`.
    Phones(Range<u32>) = units::range;
    /// How often a second: `0.1`, `"20k"`.
    Rate(f64) = units::rate;
    /// A part of the whole: `"0.1%"`, `0.001`.
    Share(f64) = units::share;
    /// How long: `"250ms"`, `"10m"`, or seconds.
    Time(Duration) = units::duration;
    /// How often in proportion to others: 0 or more.
    Weight(f64) = |text| text.parse().ok().filter(|weight| (0.0..1e9).contains(weight)).ok_or_else(|| format!("`{text}` is no weight; write 0 or more"));
    /// Bytes of a message.
    Payload(usize) = payload;
    /// A lookup's URL.
    Lookup(Url) = |text| text.parse().map_err(|error: UrlError| error.to_string());
    /// What decides the exit code.
    Expected(Vec<Expectation>) = Expectation::parse_all;
}

impl Copy for Rate {}
impl Copy for Share {}
impl Copy for Time {}
impl Copy for Weight {}
impl Copy for Payload {}

/// The largest payload that every broker takes without being asked for more.
const LARGEST_PAYLOAD: u64 = 64 << 10;

fn payload(text: &str) -> Result<usize, String> {
    let bytes = units::count(text)?;
    if (HEADER as u64..=LARGEST_PAYLOAD).contains(&bytes) {
        Ok(bytes as usize)
    } else {
        Err(format!(
            "`{text}` bytes can't be; write {HEADER} (the sequence and the time need them) to {LARGEST_PAYLOAD}"
        ))
    }
}

/// Messages to all: a rate, or one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Broadcasts {
    /// One, in the middle of the phase.
    Once,
    /// So many a second.
    Rate(f64),
}

impl<'de> Deserialize<'de> for Broadcasts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse: fn(&str) -> Result<Self, String> = |text| match text {
            "once" => Ok(Self::Once),
            _ => units::rate(text)
                .map(Self::Rate)
                .map_err(|error| format!("{error}, or \"once\"")),
        };
        deserializer.deserialize_any(Typed(parse))
    }
}

/// One address or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<SocketAddr>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Vec<SocketAddr>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address like \"127.0.0.1:1883\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                address(text).map(|addr| vec![addr]).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    all.push(address(&text).map_err(de::Error::custom)?);
                }
                if all.is_empty() {
                    return Err(de::Error::custom("no address; name one at least"));
                }
                Ok(all)
            }
        }
        deserializer.deserialize_any(OneOrMore).map(Self)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address; write an IP address and a port, as in 127.0.0.1:1883")
    })
}

/// Takes a number or a text, and reads both as they would be typed on the command line.
struct Typed<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Typed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a text with a unit")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.0(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// A scenario file that can't be used: the operator erred.
#[derive(Debug)]
pub enum FileError {
    /// It can't be read.
    Unreadable(PathBuf, std::io::Error),
    /// Something in it is wrong: the file, the line, the key that stands there if one does, and what it is.
    Wrong(PathBuf, usize, Option<String>, String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "can't read the scenario {}: {error}; name a file that is there with --scenario",
                path.display()
            ),
            Self::Wrong(path, line, key, what) => {
                write!(f, "{}:{line}: ", path.display())?;
                if let Some(key) = key {
                    write!(f, "{key}: ")?;
                }
                f.write_str(what)
            }
        }
    }
}

impl std::error::Error for FileError {}

/// Reads a scenario file.
pub fn read(path: &Path) -> Result<File, FileError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| FileError::Unreadable(path.into(), error))?;
    parse(path, &text)
}

/// The same from its text.
pub fn parse(path: &Path, text: &str) -> Result<File, FileError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text[..at].lines().count().max(1) + usize::from(text[..at].ends_with('\n'));
        let key = text
            .lines()
            .nth(line - 1)
            .and_then(|line| Some(line.split_once('=')?.0.trim().to_owned()));
        FileError::Wrong(path.into(), line, key, error.message().replace('\n', "; "))
    })
}
