//! Steering connections to the reactor on the core that their packets come in on (`steer = "cpu"`).
//!
//! The kernel knows the listeners of an address by the order in which they began to listen, and the reactors begin in whatever order. So they
//! take turns, each notes its core, and who comes last attaches the program: by then the group is whole, and its order known.

use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// For each steered address, the cores of those who listen, in their order.
#[derive(Debug)]
pub struct Steering {
    groups: Vec<Mutex<Vec<usize>>>,
    reactors: usize,
}

impl Steering {
    /// For so many addresses, each of which so many reactors listen on.
    pub fn new(addresses: usize, reactors: usize) -> Self {
        Self {
            groups: (0..addresses).map(|_| Mutex::default()).collect(),
            reactors,
        }
    }

    /// Listens by `listen` for the reactor on `core`. Addresses beyond those that are steered have one listener each: nothing to choose.
    pub fn listen(
        &self,
        address: usize,
        core: usize,
        listen: impl FnOnce() -> io::Result<TcpListener>,
    ) -> io::Result<TcpListener> {
        let Some(group) = self.groups.get(address) else {
            return listen();
        };
        let mut cores = group.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = listen()?;
        cores.push(core);
        if cores.len() == self.reactors {
            sys::steer::attach(&listener, &cores)?;
        }
        Ok(listener)
    }
}
