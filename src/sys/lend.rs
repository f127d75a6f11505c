//! Taking a socket out of another thread's fd table (`pidfd_getfd(2)` with the name of a thread, since Linux 6.9).
//!
//! For a single socket it is a third of what a message through a socket pair costs ([`super::pass`]). The one it is taken from keeps its own descriptor, and
//! closes it when it hears of that: until then the connection lives on whatever the taker does.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `PIDFD_THREAD` (linux/pidfd.h): the name of a thread, and not of its process.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL.cast_unsigned();

/// The calling thread's number.
pub fn thread_id() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::gettid() }
}

/// A thread of this process whose table can be taken from.
#[derive(Debug)]
pub struct Lender(OwnedFd);

impl Lender {
    /// The thread of this number ([`thread_id`]).
    pub fn open(thread: i32) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, thread, PIDFD_THREAD) };
        opened(fd).map(Self)
    }

    /// A descriptor of this table for the socket that is `number` in the lender's, which must not close it meanwhile.
    pub fn take(&self, number: RawFd) -> io::Result<TcpStream> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), number, 0) };
        opened(fd).map(TcpStream::from)
    }
}

fn opened(fd: libc::c_long) -> io::Result<OwnedFd> {
    super::check(fd as libc::c_int)
        // SAFETY: the call has just made it, and nobody else owns it.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel, and what it lets this process do, allow it: tried with a descriptor of the calling thread.
pub fn is_possible(descriptor: RawFd) -> bool {
    Lender::open(thread_id()).is_ok_and(|lender| lender.take(descriptor).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    #[test]
    fn a_socket_is_taken_from_a_table_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        if !is_possible(listener.as_raw_fd()) {
            // Before Linux 6.9: then nobody lends.
            return;
        }
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let (lend, lent) = mpsc::channel();
            let (done, until) = mpsc::channel::<()>();
            scope.spawn(move || {
                crate::sys::table::make_own(&[listener.as_raw_fd()]).unwrap();
                let (socket, _) = listener.accept().unwrap();
                lend.send((thread_id(), socket.as_raw_fd())).unwrap();
                until.recv().unwrap_err();
            });
            let mut client = TcpStream::connect(address).unwrap();
            let (thread, number) = lent.recv().unwrap();
            let lender = Lender::open(thread).unwrap();
            let mut taken = lender.take(number).unwrap();
            assert!(lender.take(RawFd::MAX).is_err());
            drop(done);
            taken.write_all(b"x").unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
        });
    }
}
