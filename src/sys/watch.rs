//! Watching a descriptor for as long as it is readable, on the same poller as everything else.
//!
//! mio tells of changes only (edge-triggered), so whoever is told must go on until the kernel says that nothing is left. For a connection a
//! short read says so; for a listener only one more accept does, which makes a file and a socket and throws them away, a tenth of what a
//! connect costs. Told by level instead, one takes what one likes, and is told again if there is more.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use mio::{Poll, Token};

use super::check;

/// Tell of `fd` in every turn in which it is readable, under this token. A deregistration by mio ends it.
pub fn add(poll: &Poll, fd: RawFd, token: Token) -> io::Result<()> {
    control(poll, libc::EPOLL_CTL_ADD, fd, token, libc::EPOLLIN)
}

/// Tell nothing of `fd` for now, or do so again.
pub fn set(poll: &Poll, fd: RawFd, token: Token, on: bool) -> io::Result<()> {
    let interest = if on { libc::EPOLLIN } else { 0 };
    control(poll, libc::EPOLL_CTL_MOD, fd, token, interest)
}

fn control(
    poll: &Poll,
    operation: libc::c_int,
    fd: RawFd,
    token: Token,
    interest: libc::c_int,
) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: interest as u32,
        // As mio writes it and reads it back.
        u64: token.0 as u64,
    };
    // SAFETY: both descriptors are open, or the call fails; the kernel only reads `event`.
    check(unsafe { libc::epoll_ctl(poll.as_raw_fd(), operation, fd, &raw mut event) }).map(|_| ())
}
