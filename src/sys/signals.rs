//! SIGTERM, SIGINT and SIGHUP, waited for by one thread and delivered to no other.
//!
//! A signal handler would run on any thread, and the usual one writes to a pipe: on a reactor, whose fd table is its own, the number of
//! that pipe may be a client's socket. So the signals are blocked before the first thread starts, which all threads inherit, and
//! taken off the queue by whoever waits.

use std::io;
use std::mem::MaybeUninit;

/// A request to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from a supervisor.
    Terminate,
    /// SIGINT, from a terminal.
    Interrupt,
    /// SIGHUP: the files are others.
    Reload,
}

/// These signals, blocked in this thread and those that it starts from here on.
#[derive(Clone, Copy)]
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them. Call it before the process has other threads.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set it is given, and the others get an initialised set; none of them keeps the pointer.
        let (set, result) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
            let set = set.assume_init();
            (
                set,
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()),
            )
        };
        if result == 0 {
            Ok(Self(set))
        } else {
            Err(io::Error::from_raw_os_error(result))
        }
    }

    /// Waits for the next of them.
    pub fn wait(&self) -> io::Result<Signal> {
        let mut signal = 0;
        // SAFETY: the set is initialised, and the kernel writes one int.
        let result = unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        match result {
            0 if signal == libc::SIGINT => Ok(Signal::Interrupt),
            0 if signal == libc::SIGHUP => Ok(Signal::Reload),
            0 => Ok(Signal::Terminate),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_waits_to_be_taken() {
        // In a thread of its own, to which the signals are sent, so that no other test notices.
        let taken = std::thread::spawn(|| {
            let signals = Signals::block().unwrap();
            let raise = |signal| {
                // SAFETY: the calling thread is alive.
                let result = unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
                assert_eq!(result, 0);
            };
            raise(libc::SIGINT);
            let first = signals.wait().unwrap();
            raise(libc::SIGTERM);
            let second = signals.wait().unwrap();
            raise(libc::SIGHUP);
            (first, second, signals.wait().unwrap())
        });
        assert_eq!(
            taken.join().unwrap(),
            (Signal::Interrupt, Signal::Terminate, Signal::Reload)
        );
    }
}
