//! The server that the demo talks to: one that it starts in its own process, or one that runs already.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use stillwire::config::resolved::Config;
use stillwire::server::{Server, StartError};

use crate::preflight::BESIDES;

/// A broker. Dropping one that was started here drains it and waits for its end.
#[derive(Debug)]
pub(crate) enum Broker {
    /// In this process. Taken out only to end it.
    Inside(Option<Server>),
    /// It was there, and stays.
    Outside(SocketAddr),
}

impl Broker {
    /// The one at `addr`, or a new one with so many reactors and room for so many phones, on a free port of loopback.
    pub(crate) fn start(
        addr: Option<SocketAddr>,
        reactors: usize,
        phones: u32,
    ) -> Result<Self, StartError> {
        if let Some(addr) = addr {
            return Ok(Self::Outside(addr));
        }
        let mut config = Config::new(reactors, phones + BESIDES as u32);
        config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        Server::start(&config).map(|server| Self::Inside(Some(server)))
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Inside(server) => server
                .as_ref()
                .map_or_else(Vec::new, |server| server.addresses().to_vec()),
            Self::Outside(addr) => vec![*addr],
        }
    }

    /// Its memory is this process's.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Inside(_))
    }

    /// Drains it and waits for its end.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        match self {
            Self::Inside(server) => server.take().map_or(Ok(()), |server| {
                server.shutdown();
                server.join()
            }),
            Self::Outside(_) => Ok(()),
        }
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside(_) => f.write_str("a server in this process"),
            Self::Outside(addr) => write!(f, "the broker at {addr}"),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only on the way out of an error, which is what is reported.
        let _second_error = self.stop();
    }
}
