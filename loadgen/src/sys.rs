//! The system calls that no safe library offers. All `unsafe` of this crate stands here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Gives the calling thread its own table of file descriptors, a copy of the one it shared until now.
///
/// The limit on open files counts per table, and so does the lock that guards it.
pub fn unshare_files() -> io::Result<()> {
    // SAFETY: takes no pointer; it only changes which table this thread's descriptors are looked up in, and a copy holds the same ones.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })
}

/// Lets `bind` set the source address alone; the port is chosen at `connect`, when the destination is known, so that sockets
/// with different destinations can share it (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
pub fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a C int that lives through the call, and its length is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

/// Throws away all that comes in on this connection, before TCP sees it: nothing is answered, and nothing acknowledged.
pub fn deafen(socket: &impl AsFd) -> io::Result<()> {
    let mut nothing = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut nothing,
    };
    // SAFETY: the program and its one instruction live through the call, which copies them, and the length is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
}

/// The size of a memory page, the unit of `tcp_mem`.
pub fn page_size() -> u64 {
    // SAFETY: takes a number, returns a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_its_own_table_opens_files_unseen_by_the_others() {
        let opened = std::thread::spawn(|| {
            unshare_files().unwrap();
            let file = std::fs::File::open("/dev/null").unwrap();
            let fd = file.as_raw_fd();
            std::mem::forget(file);
            fd
        })
        .join()
        .unwrap();
        // The number is free in this table: nothing of that name is open here as /dev/null (another test's file may be).
        let link = std::fs::read_link(format!("/proc/self/fd/{opened}"));
        assert!(link.is_err() || link.unwrap() != std::path::Path::new("/dev/null"));
    }

    #[test]
    fn limits_are_read() {
        assert!(page_size() >= 4096);
    }
}
