//! The server that the demo starts in its own process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use stillwire::config::resolved::Config;
use stillwire::server::{Server, StartError};

use crate::preflight::BESIDES;

/// A server in this process. Dropping it drains it and waits for its end.
#[derive(Debug)]
pub(crate) struct Broker {
    /// Taken out only to end it.
    server: Option<Server>,
    addresses: Vec<SocketAddr>,
}

impl Broker {
    /// A new one with so many reactors and room for so many phones, on a free port of loopback.
    pub(crate) fn start(reactors: usize, phones: u32) -> Result<Self, StartError> {
        let mut config = Config::new(reactors, phones + BESIDES as u32);
        config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        config.lookup.listen.clear();
        let server = Server::start(&config)?;
        Ok(Self {
            addresses: server.addresses().to_vec(),
            server: Some(server),
        })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Drains it and waits for its end.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.server.take().map_or(Ok(()), |server| {
            server.shutdown();
            server.join()
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only on the way out of an error, which is what is reported.
        let _second_error = self.end();
    }
}
