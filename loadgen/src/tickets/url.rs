//! Where the lookup is: `http://host:port/path`, and the address behind it.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// The path of a lookup that names none.
const PATH: &str = "/v1/ticket";

/// The URL of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Name or address, and the port if it was named: what the Host header says.
    pub(super) authority: String,
    /// From the slash on.
    pub(super) path: String,
}

/// A lookup's URL that can't be used: the operator erred, or the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// Not a URL of plain HTTP.
    Scheme(String),
    /// No host, or characters that belong into no host or path.
    Wrong(String),
    /// Nobody knows the host.
    Unknown(String, String),
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(text) => write!(
                f,
                "`{text}` is no lookup; write http://ADDRESS:PORT (plain HTTP only: put loadgen on the near side of TLS)"
            ),
            Self::Wrong(text) => {
                write!(f, "`{text}` is no URL; write http://ADDRESS:PORT")
            }
            Self::Unknown(host, error) => write!(
                f,
                "the lookup's host {host} has no address ({error}); write one instead of the name"
            ),
        }
    }
}

impl std::error::Error for UrlError {}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| UrlError::Scheme(text.into()))?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty()
            || !is_plain(rest)
            || authority.contains('@')
            || path.contains(['?', '#'])
        {
            return Err(UrlError::Wrong(text.into()));
        }
        Ok(Self {
            authority: authority.into(),
            path: match path {
                "" | "/" => PATH.into(),
                path => path.into(),
            },
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl Url {
    /// Its address, the first if there are several; port 80 if it names none.
    pub fn resolve(&self) -> Result<SocketAddr, UrlError> {
        let has_port = self
            .authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port {
            self.authority.clone()
        } else {
            format!("{}:80", self.authority)
        };
        let unknown = |error: String| UrlError::Unknown(self.authority.clone(), error);
        host.to_socket_addrs()
            .map_err(|error| unknown(error.to_string()))?
            .next()
            .ok_or_else(|| unknown("none".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Url, UrlError> {
        text.parse()
    }

    #[test]
    fn a_url_has_a_host_and_a_path() {
        for (typed, shown, address) in [
            (
                "http://127.0.0.1:8090",
                "http://127.0.0.1:8090/v1/ticket",
                "127.0.0.1:8090",
            ),
            (
                "http://127.0.0.1/",
                "http://127.0.0.1/v1/ticket",
                "127.0.0.1:80",
            ),
            ("http://[::1]:9/t", "http://[::1]:9/t", "[::1]:9"),
        ] {
            let url = url(typed).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.resolve().unwrap(), address.parse().unwrap());
        }
    }

    #[test]
    fn what_is_none_is_said() {
        for text in ["127.0.0.1:8090", "https://x", "ftp://x"] {
            assert!(matches!(url(text), Err(UrlError::Scheme(_))), "{text}");
        }
        for text in [
            "http://",
            "http:///x",
            "http://a b",
            "http://u@h",
            "http://h/x?y",
            "http://h\r\nX: y",
        ] {
            assert!(matches!(url(text), Err(UrlError::Wrong(_))), "{text}");
        }
    }
}
