//! Plain TCP: one non-blocking read or write at a time, its outcome in four words.

use std::io::{self, ErrorKind, IoSlice};
use std::net::TcpStream;
use std::os::fd::AsFd;

use crate::sys::socket;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// So many bytes, at least one. Fewer than there was room for: the socket is drained.
    Bytes(usize),
    /// Nothing now.
    Empty,
    /// The peer sends nothing more.
    End,
    /// The connection is broken.
    Broken,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// So many bytes were taken; fewer than there were: the socket is full.
    Taken(usize),
    /// The connection is broken.
    Broken,
}

/// Read once.
pub fn read(socket: &TcpStream, buffer: &mut [u8]) -> Reading {
    loop {
        return match socket::receive(socket.as_fd(), buffer) {
            Ok(0) => Reading::End,
            Ok(n) => Reading::Bytes(n),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => Reading::Empty,
                _ => Reading::Broken,
            },
        };
    }
}

/// Write once.
pub fn write(socket: &TcpStream, bytes: &[u8]) -> Writing {
    writing(|| socket::send(socket.as_fd(), bytes))
}

/// Write several pieces once, in order.
pub fn write_all_of(socket: &TcpStream, pieces: &[IoSlice<'_>]) -> Writing {
    writing(|| socket::send_pieces(socket.as_fd(), pieces))
}

fn writing(mut call: impl FnMut() -> io::Result<usize>) -> Writing {
    loop {
        return match call() {
            Ok(n) => Writing::Taken(n),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => Writing::Taken(0),
                _ => Writing::Broken,
            },
        };
    }
}
