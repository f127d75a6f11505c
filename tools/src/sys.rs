//! The system calls of the floor, as bare as they come. All `unsafe` of this crate stands here.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// How a descriptor is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch {
    /// Told once for each arrival.
    Edge,
    /// Told for as long as something waits.
    Level,
}

/// A poller.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

/// What a poller tells of.
pub(crate) type Event = libc::epoll_event;

/// An event for the lists that the poller fills.
pub(crate) const NO_EVENT: Event = Event { events: 0, u64: 0 };

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a flag, returns a descriptor.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a descriptor for input; events of it carry its number.
    pub(crate) fn add(&self, fd: RawFd, watch: Watch) -> io::Result<()> {
        let edge = match watch {
            Watch::Edge => libc::EPOLLET,
            Watch::Level => 0,
        };
        let mut event = Event {
            events: (libc::EPOLLIN | edge) as u32,
            u64: u64::from(fd as u32),
        };
        // SAFETY: the kernel reads one event.
        check(unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
        })
        .map(drop)
    }

    /// Sleeps until there is something; returns how many events it has written.
    pub(crate) fn wait(&self, events: &mut [Event]) -> io::Result<usize> {
        let room = (events.len() as u32).cast_signed();
        // SAFETY: the kernel writes no more events than the length that it is given.
        let result = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, -1) };
        match check(result) {
            Ok(n) => Ok(n as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A connection that waits at a listener; `None` if there is none, or it broke, or no descriptor is free.
pub(crate) fn accept(listener: RawFd) -> Option<RawFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the address isn't asked for, so nothing is written.
    let fd = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    (fd >= 0).then_some(fd)
}

/// What a read brought.
pub(crate) enum Read {
    Bytes(usize),
    Empty,
    End,
}

pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> Read {
    // SAFETY: the kernel writes no more bytes than the length that it is given.
    let n = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    match n {
        1.. => Read::Bytes(n as usize),
        0 => Read::End,
        _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Read::Empty,
        _ => Read::End,
    }
}

/// Sends all of it, or tells that the socket doesn't take it.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> bool {
    // SAFETY: the kernel reads as many bytes as there are.
    let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    n.cast_unsigned() == bytes.len()
}

/// Ends a connection, so that its poller tells of it.
pub(crate) fn shut_down(fd: RawFd) {
    // SAFETY: takes numbers only. A descriptor that isn't there any more is an error that doesn't matter.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Closes a connection that `accept` gave.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the floor has the numbers that `accept` gave as plain numbers, and closes each once: at its end of input.
    unsafe { libc::close(fd) };
}

/// Something that wakes a poller from another thread.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes numbers, returns a descriptor.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the kernel reads eight bytes. It never fails: nobody rings 2^64 times.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
