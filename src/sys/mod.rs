//! What the operating system is asked for that the standard library has no word for. All unsafe code of the reactors stands here.
//!
//! Each file wraps one thing and gives it a safe face: private fd tables, passing and lending sockets between them, wake-ups, pinning, limits,
//! capacity, memory, the clock, events, signals, files and what mapped ones do, sockets that listen, which of them a connection goes to, and those that are read and written, text that is plain,
//! terminals that show nothing, bytes that are compared, memory that is asked for early. Nothing here knows of MQTT, and nothing here decides a policy.

pub mod affinity;
pub mod bus;
pub mod bytes;
pub mod capacity;
pub mod clock;
pub mod events;
pub mod file;
pub mod lend;
pub mod listen;
pub mod memory;
pub mod pass;
pub mod prefetch;
pub mod rlimit;
pub mod signals;
pub mod socket;
pub mod steer;
pub mod table;
pub mod terminal;
pub mod text;
pub mod wake;
pub mod watch;

use std::io;

/// The result of a system call that tells an error by -1.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
