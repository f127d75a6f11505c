//! A thread's own file-descriptor table, and how full one is.
//!
//! Accepting and closing then contend on no lock with other threads, and the limit of open files holds for each thread alone. The price:
//! a descriptor that is opened later exists in one table only, and one that was open before exists in every copy until each has closed it.
//! So a thread that gets its own table closes in it whatever it has not named: a socket of somebody else that lived on in a copy would
//! never be seen closed by its peer.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::check;

/// Give the calling thread a table of its own that holds standard input, output and error, and the descriptors in `keep`.
///
/// The thread must not use, nor drop the owner of, any other descriptor that was opened before: in its table that number is free, and may
/// become another file. The reactors keep to this by owning nothing from before but what they name here.
pub fn make_own(keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: no memory is involved; the thread's table is copied and no longer shared.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })?;
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    keep.sort_unstable();
    let mut first = libc::STDERR_FILENO as u32 + 1;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

/// Make the calling thread's table as large as `files` descriptors need.
///
/// It grows by itself, but while threads share it the kernel then lets whoever opens a file wait until every core has been through the scheduler
/// (10 ms and more), at each doubling. Here nobody is connected yet.
pub fn widen(files: u64) -> io::Result<()> {
    let last = libc::c_int::try_from(files.saturating_sub(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: no memory is involved.
    let copy = check(unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, last) })?;
    // SAFETY: the call above has just opened it, and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    Ok(())
}

/// How many descriptors are open in the calling thread's table.
pub fn open_files() -> io::Result<u64> {
    // The one that lists them is listed.
    Ok(std::fs::read_dir("/proc/thread-self/fd")?.count() as u64 - 1)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the table is the calling thread's alone (`make_own` has just unshared it), so no owner in another thread loses its file;
    // that this thread owns none of the numbers is what `make_own` asks of its caller.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    check(result as libc::c_int).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_table_keeps_what_is_named_and_no_more() {
        let (mut kept, mut there) = UnixStream::pair().unwrap();
        let (dropped, mut peer) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            let kept = &mut kept;
            let (in_table, wait) = std::sync::mpsc::channel();
            let (end, until) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                make_own(&[kept.as_raw_fd()]).unwrap();
                kept.write_all(b"x").unwrap();
                in_table.send(()).unwrap();
                until.recv().unwrap_err();
            });
            wait.recv().unwrap();
            // The copy of `dropped` in the thread's table would keep its peer from seeing the end.
            drop(dropped);
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            let mut byte = [0];
            there.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
            drop(end);
        });
    }
}
