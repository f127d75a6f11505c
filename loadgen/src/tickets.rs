//! Tickets: how phones find the server without a load balancer and without DNS, as an app would do it.
//!
//! ```text
//!   phone ── ticket in the wallet, not yet to be refreshed? ──► its endpoint, with the token as password
//!     │ no                                                        ▲
//!     └─► desk ──► lookup ── ticket ──► wallet ── connect_after ──┘
//!                    ├── 429, 503: ask again after Retry-After
//!                    └── no answer: the ticket in the wallet while it is valid, then the fallback list
//! ```
//!
//! [`http`] and [`answer`] read what the lookup says and do no I/O; [`wallet`] keeps the tickets of a thread's phones, and is not there without
//! them; [`desk`] asks, over a few connections that stay open. What a phone makes of it is in `driver::finding`.
//!
//! A ticket is used until it should be refreshed. A phone whose connection failed or was ended by the server asks anew, so that the lookup
//! can pace it; a phone that is ready asks when its ticket should be refreshed, and keeps its connection. The lookup's name is resolved once, at
//! the start: after it everything is numeric.

pub mod answer;
pub(crate) mod desk;
pub mod http;
mod url;
pub(crate) mod wallet;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use answer::Answer;
use http::{Broken, Request};

pub use url::{Url, UrlError};

/// Connections to the lookup that a thread keeps open, unless another number is named.
pub const CONCURRENCY: usize = 16;

/// The lookup has failed if it hasn't answered after this long, unless another time is named: what the standard library of an app may wait.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Everything that is to be known about asking for tickets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tickets {
    /// As it was typed.
    pub url: Url,
    /// Where that is.
    pub lookup: SocketAddr,
    /// App key; empty: none.
    pub app: String,
    /// The app's secret.
    pub secret: String,
    /// Tickets are kept and used again. Without it each connect asks.
    pub cache: bool,
    /// `connect_after` and Retry-After are honoured. Without it phones do what they would if nobody told them to wait.
    pub pacing: bool,
    /// Connections to the lookup that a thread keeps open.
    pub concurrency: usize,
    /// The lookup has failed if it hasn't answered after this long.
    pub patience: Duration,
}

impl Tickets {
    /// The usual way at that address.
    pub fn at(url: Url) -> Result<Self, UrlError> {
        Ok(Self {
            lookup: url.resolve()?,
            url,
            app: String::new(),
            secret: String::new(),
            cache: true,
            pacing: true,
            concurrency: CONCURRENCY,
            patience: PATIENCE,
        })
    }

    /// What is asked.
    pub fn request(&self) -> Request {
        Request::new(&self.url, &self.app, &self.secret)
    }

    /// The user name that goes with a token.
    pub fn user(&self) -> &str {
        &self.app
    }

    /// Asks for one ticket, and waits for it.
    pub fn fetch(&self, client_id: &str) -> Result<Answer, AskError> {
        let mut stream = TcpStream::connect_timeout(&self.lookup, self.patience)?;
        stream.set_read_timeout(Some(self.patience))?;
        let mut out = Vec::new();
        self.request().write(client_id, &mut out);
        stream.write_all(&out)?;
        let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(response) = http::response(&input)? {
                return match response.status {
                    200 => Ok(Answer::read(&response.body)?),
                    status => Err(AskError::Status(
                        status,
                        String::from_utf8_lossy(&response.body).into_owned(),
                    )),
                };
            }
            match stream.read(&mut chunk)? {
                0 => return Err(AskError::Closed),
                n => input.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

/// Why there is no ticket.
#[derive(Debug)]
pub enum AskError {
    /// The lookup can't be reached.
    Connection(io::Error),
    /// It closed the connection instead of answering.
    Closed,
    /// It answered with another status than 200, and this text.
    Status(u16, String),
    /// It said something that isn't HTTP.
    Http(Broken),
    /// It is no ticket.
    Answer(answer::Garbage),
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<Broken> for AskError {
    fn from(broken: Broken) -> Self {
        Self::Http(broken)
    }
}

impl From<answer::Garbage> for AskError {
    fn from(garbage: answer::Garbage) -> Self {
        Self::Answer(garbage)
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "no answer ({error})"),
            Self::Closed => f.write_str("it closed the connection instead of answering"),
            Self::Status(status @ (401 | 403), text) => write!(
                f,
                "it answers {status} ({}); name `app` and `secret` under [tickets] in the scenario file",
                text.trim()
            ),
            Self::Status(status, text) => write!(f, "it answers {status} ({})", text.trim()),
            Self::Http(broken) => write!(f, "{broken}"),
            Self::Answer(garbage) => write!(f, "{garbage}"),
        }
    }
}

impl std::error::Error for AskError {}
