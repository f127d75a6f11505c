//! Passing sockets from one fd table to another: batches of descriptors with their bytes, over a SEQPACKET socket pair.
//!
//! One message carries one batch whole. A sender never blocks and never splits; the receiver gets what its table has room for and is told
//! if that was not all.

use std::io::{self, IoSlice};
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};

use super::check;

/// Descriptors in one message at most: what the kernel takes is 253 (`SCM_MAX_FD`).
pub const MAX_BATCH: usize = 250;

/// What a pair's buffer is asked to hold, so that a message of 128 KB always fits and a few wait.
const SEND_BUFFER: usize = 512 << 10;

/// Bytes that the control data of [`MAX_BATCH`] descriptors takes, in words so that it is aligned for a `cmsghdr`.
const CONTROL_WORDS: usize = {
    // SAFETY: CMSG_SPACE only computes.
    let bytes = unsafe { libc::CMSG_SPACE((MAX_BATCH * size_of::<RawFd>()) as u32) } as usize;
    bytes.div_ceil(size_of::<u64>())
};

/// The end that sends. Every reactor holds one for every other.
#[derive(Debug)]
pub struct Sender(OwnedFd);

/// The end that receives.
#[derive(Debug)]
pub struct Receiver(OwnedFd);

/// A connected pair. Made before the threads part with their common fd table.
pub fn pair() -> io::Result<(Sender, Receiver)> {
    let (send, receive) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    for socket in [&send, &receive] {
        socket.set_nonblocking(true)?;
    }
    send.set_send_buffer_size(SEND_BUFFER)?;
    Ok((Sender(send.into()), Receiver(receive.into())))
}

/// What has come over.
#[derive(Debug)]
pub struct Received {
    /// Length of the bytes.
    pub len: usize,
    /// The sockets, in the order in which they were sent.
    pub sockets: Vec<TcpStream>,
    /// Sockets were lost, the last ones of the batch, as this table has no room for them.
    pub truncated: bool,
}

impl Sender {
    /// Send a batch: at most [`MAX_BATCH`] sockets and at least one byte. The kernel keeps its own hold on the sockets; the caller closes
    /// its copies. `WouldBlock`: not now, nothing was sent.
    ///
    /// # Panics
    /// With more sockets than one message may carry.
    pub fn send(&self, parts: &[IoSlice<'_>], sockets: &[TcpStream]) -> io::Result<()> {
        assert!(sockets.len() <= MAX_BATCH, "a batch is sealed at the bound");
        let mut control = [0_u64; CONTROL_WORDS];
        // SAFETY: a msghdr of zeros is one without name, data and control.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len() as _;
        if !sockets.is_empty() {
            let bytes = size_of_val(sockets) as u32;
            message.msg_control = control.as_mut_ptr().cast();
            // SAFETY: CMSG_SPACE only computes.
            message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
            // SAFETY: `control` is aligned for a cmsghdr and holds CMSG_SPACE of MAX_BATCH descriptors, `sockets` has no more of them, so
            // header and data lie inside. A `TcpStream` is written as its number only.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
                let data = libc::CMSG_DATA(header).cast::<[u8; size_of::<RawFd>()]>();
                for (i, socket) in sockets.iter().enumerate() {
                    data.add(i).write(socket.as_raw_fd().to_ne_bytes());
                }
            }
        }
        // SAFETY: name is null; the slices are ABI-compatible with iovec and outlive the call; the kernel only reads all of it.
        let sent =
            unsafe { libc::sendmsg(self.0.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        check(if sent < 0 { -1 } else { 0 }).map(|_| ())
    }
}

impl Receiver {
    /// Receive one batch into `bytes`, which must have room for the largest one that is sent. `WouldBlock`: there is none.
    pub fn receive(&self, bytes: &mut [u8]) -> io::Result<Received> {
        let mut control = [0_u64; CONTROL_WORDS];
        let mut data = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: a msghdr of zeros is one without name, data and control.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: data and control are exclusively ours, alive, and their sizes are given.
        let len =
            unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if len < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut sockets = Vec::new();
        // SAFETY: the kernel has filled `control` up to the length in `message`; the macros walk the headers inside it.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: `header` points at a header inside `control`; its data are descriptors as its type says, each new in this table and
            // owned by nobody else.
            unsafe {
                if (*header).cmsg_level == libc::SOL_SOCKET
                    && (*header).cmsg_type == libc::SCM_RIGHTS
                {
                    let data = libc::CMSG_DATA(header).cast::<[u8; size_of::<RawFd>()]>();
                    let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                    for i in 0..bytes / size_of::<RawFd>() {
                        sockets.push(TcpStream::from_raw_fd(RawFd::from_ne_bytes(
                            data.add(i).read(),
                        )));
                    }
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        Ok(Received {
            len: len as usize,
            sockets,
            truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
        })
    }
}

impl AsRawFd for Sender {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn sockets_cross_between_tables_with_their_bytes() {
        let (send, receive) = pair().unwrap();
        let (clients, accepted): (Vec<_>, Vec<_>) = (0..MAX_BATCH).map(|_| connected()).unzip();
        let done = std::thread::scope(|scope| {
            let (ready, started) = std::sync::mpsc::channel();
            let receive = &receive;
            let home = scope.spawn(move || {
                super::super::table::make_own(&[receive.as_raw_fd()]).unwrap();
                ready.send(()).unwrap();
                let mut bytes = [0; 64];
                let received = loop {
                    match receive.receive(&mut bytes) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            std::thread::yield_now();
                        }
                        result => break result.unwrap(),
                    }
                };
                assert!(!received.truncated);
                assert_eq!(&bytes[..received.len], b"head and body");
                for (i, socket) in received.sockets.iter().enumerate() {
                    (&*socket).write_all(&[i as u8]).unwrap();
                }
                received.sockets.len()
            });
            started.recv().unwrap();
            let parts = [IoSlice::new(b"head "), IoSlice::new(b"and body")];
            send.send(&parts, &accepted).unwrap();
            drop(accepted);
            home.join().unwrap()
        });
        assert_eq!(done, MAX_BATCH);
        for (i, client) in clients.iter().enumerate() {
            // The byte, then the end: the sender's copies are closed, and the other table went with its thread.
            let mut got = Vec::new();
            (&*client).read_to_end(&mut got).unwrap();
            assert_eq!(got, [i as u8]);
        }
    }

    #[test]
    fn a_full_pair_says_so() {
        let (send, receive) = pair().unwrap();
        let mut count = 0;
        while send.send(&[IoSlice::new(&[7; 1000])], &[]).is_ok() {
            count += 1;
            assert!(count < 100_000, "the kernel bounds what waits");
        }
        let mut bytes = [0; 1000];
        for _ in 0..count {
            assert_eq!(receive.receive(&mut bytes).unwrap().len, 1000);
        }
        assert_eq!(
            receive.receive(&mut bytes).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
