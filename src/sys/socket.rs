//! Reading and writing a socket without a detour.
//!
//! The C library's `recv` and `send` are cancellation points: in a process with threads each call sets and clears a flag with two
//! locked instructions. Nobody cancels a reactor, so the system calls are made directly.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// As recv(2), without flags.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the descriptor is borrowed, so it is open; the kernel writes at most `len` bytes to `buffer`, which is ours alone, and no address.
    let n = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
            0,
            ptr::null_mut::<libc::sockaddr>(),
            ptr::null_mut::<libc::socklen_t>(),
        )
    };
    counted(n)
}

/// As send(2); a broken connection is an error and no signal.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the descriptor is borrowed, so it is open; the kernel only reads `len` bytes of `bytes`, and no address.
    let n = unsafe {
        libc::syscall(
            libc::SYS_sendto,
            socket.as_raw_fd(),
            bytes.as_ptr(),
            bytes.len(),
            libc::MSG_NOSIGNAL,
            ptr::null::<libc::sockaddr>(),
            0,
        )
    };
    counted(n)
}

/// As [`send`], of several pieces in order.
pub fn send_pieces(socket: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: a msghdr of zeros is one without name, data and control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len() as _;
    // SAFETY: the descriptor is borrowed, so it is open; an `IoSlice` is an iovec, and the kernel only reads them and what they name.
    let n = unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            socket.as_raw_fd(),
            &raw const message,
            libc::MSG_NOSIGNAL,
        )
    };
    counted(n)
}

fn counted(n: libc::c_long) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
