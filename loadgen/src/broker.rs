//! The server that the demo talks to: one that it starts in its own process, or one that runs already.

use std::net::SocketAddr;

/// A broker.
#[derive(Debug)]
pub(crate) enum Broker {
    /// It was there, and stays.
    Outside(SocketAddr),
}

impl Broker {
    /// The one at `addr`, or a new one with a reactor for each core.
    pub(crate) fn start(
        addr: Option<SocketAddr>,
        _reactors: usize,
        _phones: u32,
    ) -> Result<Self, String> {
        addr.map(Self::Outside).ok_or_else(|| "not yet".into())
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Outside(addr) => vec![*addr],
        }
    }

    /// Its memory is this process's.
    pub(crate) fn is_embedded(&self) -> bool {
        match self {
            Self::Outside(_) => false,
        }
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Outside(addr) => format!("the broker at {addr}"),
        }
    }
}
