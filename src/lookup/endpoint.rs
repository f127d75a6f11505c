//! Where a client can connect: what an operator writes, what a ticket says.
//!
//! Written as `SCHEME://IP:PORT[/PATH] [NAME]`, such as `mqtt://203.0.113.7:1883` or `wss://203.0.113.7:443/mqtt fra-1.example.org`: the address
//! comes first, as in a hosts file, for a ticket has to work while DNS doesn't. Never resolves a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::Serialize;

/// What is spoken inside of the connection, or of its TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over WebSocket.
    Ws,
}

/// One way into a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What is spoken.
    pub proto: Proto,
    /// Through TLS.
    pub tls: bool,
    /// The name, for TLS and for people.
    pub host: Option<Box<str>>,
    /// The address. Unspecified only where a server listens on all of its own.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// The path of a WebSocket.
    pub path: Option<Box<str>>,
}

const SCHEMES: [(&str, Proto, bool); 4] = [
    ("mqtt://", Proto::Mqtt, false),
    ("mqtts://", Proto::Mqtt, true),
    ("ws://", Proto::Ws, false),
    ("wss://", Proto::Ws, true),
];

/// What to write for an address.
pub const WRITTEN: &str =
    "SCHEME://IP:PORT[/PATH] [NAME] with mqtt, mqtts, ws or wss, such as mqtt://203.0.113.7:1883";

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAddress;

impl Address {
    /// Plain MQTT over TCP, where the server itself listens.
    pub fn plain(at: SocketAddr) -> Self {
        Self {
            proto: Proto::Mqtt,
            tls: false,
            host: None,
            ip: at.ip(),
            port: at.port(),
            path: None,
        }
    }

    /// The same at another port.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        Self {
            port,
            ..self.clone()
        }
    }

    /// As somebody sees it who has reached this machine at `local`: a server that listens on all its addresses is reached at that one. None: it
    /// listens on none of that family.
    pub fn seen_at(&self, local: IpAddr) -> Option<Self> {
        let ip = match (self.ip, local.to_canonical()) {
            (ip, _) if !ip.is_unspecified() => ip,
            (IpAddr::V4(_), local @ IpAddr::V4(_)) | (IpAddr::V6(_), local @ IpAddr::V6(_)) => {
                local
            }
            (IpAddr::V4(_), local) if local.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            (IpAddr::V6(_), local) if local.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            _ => return None,
        };
        Some(Self { ip, ..self.clone() })
    }
}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let mut words = text.split_ascii_whitespace();
        let url = words.next().ok_or(NoAddress)?;
        let host = words.next();
        if words.next().is_some() || !host.is_none_or(is_name) {
            return Err(NoAddress);
        }
        let (rest, proto, tls) = SCHEMES
            .iter()
            .find_map(|(scheme, proto, tls)| Some((url.strip_prefix(scheme)?, *proto, *tls)))
            .ok_or(NoAddress)?;
        let (at, path) = rest
            .find('/')
            .map_or((rest, None), |slash| (&rest[..slash], Some(&rest[slash..])));
        let at: SocketAddr = at.parse().map_err(|_| NoAddress)?;
        let path = match proto {
            // The path that MQTT's own registration names.
            Proto::Ws => Some(path.unwrap_or("/mqtt")),
            Proto::Mqtt if path.is_none_or(|path| path == "/") => None,
            Proto::Mqtt => return Err(NoAddress),
        };
        let is_printable = |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic());
        if at.ip().is_unspecified() || at.port() == 0 || !path.is_none_or(is_printable) {
            return Err(NoAddress);
        }
        Ok(Self {
            proto,
            tls,
            host: host.map(Into::into),
            ip: at.ip(),
            port: at.port(),
            path: path.map(Into::into),
        })
    }
}

/// A name of DNS, or one that could be.
fn is_name(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(letters)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = SCHEMES
            .iter()
            .find(|(_, proto, tls)| (*proto, *tls) == (self.proto, self.tls))
            .map_or("", |(scheme, ..)| scheme);
        write!(f, "{scheme}{}", SocketAddr::new(self.ip, self.port))?;
        f.write_str(self.path.as_deref().unwrap_or_default())?;
        match &self.host {
            Some(host) => write!(f, " {host}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_printed_the_same() {
        for text in [
            "mqtt://203.0.113.7:1883",
            "mqtts://[2001:db8::7]:8883 fra-1.example.org",
            "ws://203.0.113.7:8083/push",
            "wss://203.0.113.7:443/mqtt fra-1.example.org",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let address: Address = "ws://203.0.113.7:80".parse().unwrap();
        assert_eq!(address.path.as_deref(), Some("/mqtt"));
    }

    #[test]
    fn a_ticket_needs_addresses_that_work() {
        for text in [
            "",
            "203.0.113.7:1883",
            "tcp://203.0.113.7:1883",
            "mqtt://push.example.org:1883",
            "mqtt://203.0.113.7",
            "mqtt://203.0.113.7:0",
            "mqtt://0.0.0.0:1883",
            "mqtt://[::]:1883",
            "mqtt://203.0.113.7:1883/path",
            "mqtt://203.0.113.7:1883 na\u{ef}ve",
            "mqtt://203.0.113.7:1883 a b",
            "ws://203.0.113.7:80/\u{7f}",
            "MQTT://203.0.113.7:1883",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NoAddress), "{text}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_where_he_was_reached() {
        let seen = |listen: &str, local: &str| {
            Address::plain(listen.parse().unwrap())
                .seen_at(local.parse().unwrap())
                .map(|address| address.ip.to_string())
        };
        for (listen, local, want) in [
            ("192.0.2.1:1883", "198.51.100.9", Some("192.0.2.1")),
            ("0.0.0.0:1883", "198.51.100.9", Some("198.51.100.9")),
            ("0.0.0.0:1883", "::ffff:198.51.100.9", Some("198.51.100.9")),
            ("[::]:1883", "2001:db8::1", Some("2001:db8::1")),
            ("0.0.0.0:1883", "::1", Some("127.0.0.1")),
            ("[::]:1883", "127.0.0.1", Some("::1")),
            ("0.0.0.0:1883", "2001:db8::1", None),
            ("[::]:1883", "198.51.100.9", None),
        ] {
            assert_eq!(seen(listen, local).as_deref(), want, "{listen} at {local}");
        }
    }
}
