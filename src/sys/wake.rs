//! A wake-up for a thread that sleeps in its poller: an eventfd.
//!
//! The poller watches it edge-triggered, so every [`Wake::wake`] is one event and nobody ever reads the count.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// See the module. Made before the threads part with their common fd table, so that its number is good in each.
#[derive(Debug)]
pub struct Wake(File);

impl Wake {
    /// A new one, not signalled.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the call has just made `fd`; nobody else owns it.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Make the poller that watches it return.
    pub fn wake(&self) -> io::Result<()> {
        match self.add_one() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The count is full, after 2^64 - 2 wake-ups or by a stranger. Reading makes room.
                let mut count = [0; 8];
                match (&self.0).read(&mut count) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
                self.add_one()
            }
            result => result,
        }
    }

    /// The system call is made directly, as in [`super::socket`].
    fn add_one(&self) -> io::Result<()> {
        let one = 1_u64;
        // SAFETY: the descriptor is ours, so it is open; the kernel only reads the eight bytes of `one`.
        let n = unsafe { libc::syscall(libc::SYS_write, self.0.as_raw_fd(), &raw const one, 8) };
        check(n as libc::c_int).map(|_| ())
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
