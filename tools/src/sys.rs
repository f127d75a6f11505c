//! The system calls of the floor, as bare as they come, and those that sample a process. All `unsafe` of this crate stands here.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// `struct perf_event_attr` of `linux/perf_event.h`, the 64 bytes of its first version.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// A clock that takes a sample of a thread, and of those that it will start, each `period` nanoseconds that it runs on one core. A sample
/// says no more than whether it ran in user space.
pub(crate) fn sample_thread(tid: u32, core: usize, period: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
    const INHERIT: u64 = 1 << 1;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    let attr = PerfEventAttr {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<PerfEventAttr>() as u32,
        config: PERF_COUNT_SW_CPU_CLOCK,
        sample_period: period,
        flags: INHERIT,
        ..PerfEventAttr::default()
    };
    // SAFETY: the kernel reads the attributes, whose size stands in them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            tid.cast_signed(),
            (core as u32).cast_signed(),
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = check(fd as libc::c_int)?;
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a second clock of the same core write to the first one's ring.
pub(crate) fn share_ring(clock: &OwnedFd, first: &OwnedFd) -> io::Result<()> {
    const PERF_EVENT_IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
    // SAFETY: takes two descriptors.
    check(unsafe {
        libc::ioctl(
            clock.as_raw_fd(),
            PERF_EVENT_IOC_SET_OUTPUT,
            first.as_raw_fd(),
        )
    })
    .map(drop)
}

/// The ring that a clock writes its samples to: a page with the positions (`perf_event_mmap_page`), then [`Ring::DATA`] bytes.
#[derive(Debug)]
pub(crate) struct Ring {
    start: NonNull<u8>,
}

impl Ring {
    const PAGE: usize = 4096;
    /// A power of two: a minute of samples, 8 bytes each, before it is full.
    const DATA: usize = 2 << 20;
    /// Where `data_head` and `data_tail` are.
    const HEAD: usize = 1024;
    const TAIL: usize = 1032;

    pub(crate) fn of(clock: &OwnedFd) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::PAGE + Self::DATA,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                clock.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast())
            .map(|start| Self { start })
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn position(&self, at: usize) -> &AtomicU64 {
        // SAFETY: both offsets lie in the first page of the mapping, which lives as long as `self`, and are multiples of 8. The kernel
        // reads and writes them as whole words.
        unsafe { self.start.add(at).cast::<AtomicU64>().as_ref() }
    }

    /// Takes all records out: the type and the `misc` bits of each.
    pub(crate) fn drain(&mut self, mut record: impl FnMut(u32, u16)) {
        let head = self.position(Self::HEAD).load(Ordering::Acquire);
        let mut tail = self.position(Self::TAIL).load(Ordering::Relaxed);
        while tail < head {
            let at = Self::PAGE + tail as usize % Self::DATA;
            // SAFETY: a record's header is 8 bytes at a multiple of 8, so it doesn't wrap and lies in the mapping. The kernel wrote it
            // before `head`, and leaves it alone until `tail` is past it.
            let header = unsafe { self.start.add(at).cast::<u64>().read() };
            record(header as u32, (header >> 32) as u16);
            // No record is empty; should one be, the rest can't be read.
            let size = header >> 48;
            tail = if size == 0 { head } else { tail + size };
        }
        self.position(Self::TAIL).store(tail, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `of` made; nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), Self::PAGE + Self::DATA) };
    }
}

/// SIGTERM to a child that isn't waited for yet, so that its number is still its own.
pub(crate) fn terminate(child: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::kill(child.cast_signed(), libc::SIGTERM) }).map(drop)
}

/// Nanoseconds that the calling thread has run.
pub(crate) fn thread_cpu_nanos() -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) })?;
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The calling thread comes before all others that are not real time; without the right to it, before those that step back.
pub(crate) fn come_first() {
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads the parameter, which is ours. Refused, the thread stays as it is.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) };
}

/// The calling thread comes after all others.
pub(crate) fn step_back() {
    // SAFETY: no memory is involved; 0 is the calling thread. Everybody may step back.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}
