//! Which cores this process may use, pinning a thread to one of them, and which thread comes first there.

use std::io;
use std::mem;

use super::check;

/// The cores that the calling thread may run on, in ascending order.
pub fn cores() -> io::Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is a plain bit field; all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the size that is given, which is the set's own.
    check(unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &raw mut set) })?;
    let all = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: each core is below CPU_SETSIZE, the number of bits in the set.
    Ok(all
        .filter(|&core| unsafe { libc::CPU_ISSET(core, &set) })
        .collect())
}

/// Pin the calling thread to one core.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: as above.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `core` is below CPU_SETSIZE, as was checked.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the kernel reads the set, whose size is given.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) }).map(|_| ())
}

/// Let the calling thread run before others, by so many steps of nice. False: this process has no right to that (`CAP_SYS_NICE`).
pub fn come_before(steps: u8) -> bool {
    // SAFETY: no memory is involved; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -libc::c_int::from(steps)) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_core() {
        let pinned = std::thread::spawn(|| {
            let core = *cores().unwrap().last().unwrap();
            pin(core).unwrap();
            (core, cores().unwrap())
        });
        let (core, after) = pinned.join().unwrap();
        assert_eq!(after, [core]);
        assert!(pin(usize::MAX).is_err());
    }
}
