//! Waiting for the events of a poller without a detour.
//!
//! The C library's `epoll_wait` is a cancellation point, as its `recv` and `send` are (see [`super::socket`]): the system call is made directly.
//! What is watched is told to mio, and read as mio writes it.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use mio::{Poll, Token};

/// Room for the events of one wait, and the events.
#[derive(Debug)]
pub struct Events {
    room: Vec<libc::epoll_event>,
    len: usize,
}

/// What a poller has to tell of one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Under which it is watched.
    pub token: Token,
    bits: u32,
}

impl Event {
    /// There may be something to read.
    pub fn is_readable(self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLPRI)
    }

    /// It may take something.
    pub fn is_writable(self) -> bool {
        self.has(libc::EPOLLOUT)
    }

    /// The peer has ended its side, or it is broken.
    pub fn is_ended(self) -> bool {
        self.has(libc::EPOLLHUP | libc::EPOLLRDHUP | libc::EPOLLERR)
    }

    fn has(self, any: libc::c_int) -> bool {
        self.bits & any as u32 != 0
    }
}

impl Events {
    /// None, with room for so many.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            room: vec![libc::epoll_event { events: 0, u64: 0 }; capacity],
            len: 0,
        }
    }

    /// Wait until there is an event, `millis` at most. A signal ends it, without events.
    pub fn wait(&mut self, poll: &Poll, millis: u64) -> io::Result<()> {
        self.len = 0;
        // SAFETY: the poller is borrowed, so it is open; the kernel writes at most as many events as there is room for, and reads no mask.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait,
                poll.as_raw_fd(),
                self.room.as_mut_ptr(),
                self.room.len(),
                libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX),
                ptr::null::<libc::sigset_t>(),
                0,
            )
        };
        if let Ok(n) = usize::try_from(n) {
            self.len = n;
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(());
        }
        Err(error)
    }

    /// Those of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = Event> {
        self.room[..self.len].iter().map(|event| Event {
            token: Token(event.u64 as usize),
            bits: event.events,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use mio::Interest;
    use mio::unix::SourceFd;

    use super::*;

    #[test]
    fn what_is_watched_by_mio_is_told() {
        let poll = Poll::new().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let token = Token(7 << 32 | 5);
        poll.registry()
            .register(&mut SourceFd(&far.as_raw_fd()), token, Interest::READABLE)
            .unwrap();
        let mut events = Events::with_capacity(4);
        events.wait(&poll, 0).unwrap();
        assert_eq!(events.iter().count(), 0);
        near.write_all(b"x").unwrap();
        events.wait(&poll, 20_000).unwrap();
        let told: Vec<_> = events.iter().collect();
        assert!(told.len() == 1 && told[0].token == token);
        assert!(told[0].is_readable() && !told[0].is_ended() && !told[0].is_writable());
        drop(near);
        events.wait(&poll, 20_000).unwrap();
        assert!(events.iter().all(Event::is_ended) && events.iter().count() == 1);
    }
}
