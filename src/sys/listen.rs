//! Listening sockets: one a reactor and address, all on the same port.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::check;

/// An address that is taken but not listened on. It finds a port that is free, makes sure that no other program shares it, and holds it
/// while the reactors open their own sockets.
#[derive(Debug)]
pub struct Claim {
    _socket: Socket,
    address: SocketAddr,
}

impl Claim {
    /// Take an address; port 0 takes a free port. Fails if anybody listens there.
    pub fn take(address: SocketAddr) -> io::Result<Self> {
        let socket = tcp(address)?;
        // Binding is refused if another socket is bound that way, but for one that waits in TIME_WAIT.
        socket.bind(&address.into())?;
        // From here on the reactors' sockets may join; those of other users may not.
        socket.set_reuse_port(true)?;
        let address = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self {
            _socket: socket,
            address,
        })
    }

    /// The address with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listen on a claimed address beside other sockets that do. `defer`: seconds that the kernel keeps a connection to itself while no byte
/// has arrived on it. Accepted sockets inherit `TCP_NODELAY`.
pub fn listen(address: SocketAddr, backlog: i32, defer: u32) -> io::Result<std::net::TcpListener> {
    let socket = tcp(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    defer_accept(&socket, defer)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(std::net::TcpListener::from(OwnedFd::from(socket)))
}

/// Listen on an address that nobody shares; port 0 takes a free port.
pub fn alone(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = tcp(address)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(std::net::TcpListener::from(OwnedFd::from(socket)))
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Two addresses in the configuration are two listeners, whatever the machine's default is.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn defer_accept(socket: &Socket, seconds: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads one int, whose size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_address_takes_several_listeners_and_no_second_claim() {
        let claim = Claim::take("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(claim.address().port(), 0);
        let first = listen(claim.address(), 16, 1).unwrap();
        let second = listen(claim.address(), 16, 1).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
        drop((second, claim));
        let error = Claim::take(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
