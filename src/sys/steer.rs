//! Steering new connections: of the sockets that listen on an address together, the one whose thread runs on the core that handled the SYN.
//!
//! The kernel asks a classic BPF program which socket of the group a SYN goes to (`SO_ATTACH_REUSEPORT_CBPF`, socket(7); TCP since Linux 4.6),
//! and takes its answer as the place in the order in which they began to listen. An answer that is no place leaves it to the kernel's
//! hash, as without a program.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::check;

/// Instructions of a program, by the kernel's own limit (`BPF_MAXINSNS`).
const MOST: usize = 4096;

/// No place: the hash decides.
const NOWHERE: u32 = u32::MAX;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const MODULO: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GO: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn step(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Skips the next instruction if it isn't equal.
fn if_not_skip(k: u32) -> libc::sock_filter {
    libc::sock_filter {
        jf: 1,
        ..step(IF_EQUAL, k)
    }
}

/// A place among the kernel's ancillary data: which core, or a random number.
fn ancillary(which: libc::c_int) -> u32 {
    (libc::SKF_AD_OFF + which).cast_unsigned()
}

/// For each core that listeners are on: that core's, one of them at random. `cores` has a listener's core at each place of the group.
fn program(cores: &[usize]) -> Vec<libc::sock_filter> {
    let mut steps = vec![step(LOAD, ancillary(libc::SKF_AD_CPU))];
    let mut seen = cores.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for core in seen {
        let places: Vec<u32> = (0u32..)
            .zip(cores)
            .filter_map(|(place, of)| (*of == core).then_some(place))
            .collect();
        let mut answer = Vec::with_capacity(2 + 2 * places.len());
        if places.len() > 1 {
            answer.push(step(LOAD, ancillary(libc::SKF_AD_RANDOM)));
            answer.push(step(MODULO, places.len() as u32));
        }
        for (at, &place) in (0u32..).zip(&places) {
            // The last one is what is left.
            if at as usize + 1 < places.len() {
                answer.push(if_not_skip(at));
            }
            answer.push(step(ANSWER, place));
        }
        // Conditional jumps are 255 steps long at most, this one as long as it has to be.
        steps.push(libc::sock_filter {
            jt: 1,
            ..step(IF_EQUAL, core as u32)
        });
        steps.push(step(GO, answer.len() as u32));
        steps.append(&mut answer);
    }
    steps.push(step(ANSWER, NOWHERE));
    steps
}

/// Steers the group of a socket that listens. `cores`: the core of each socket of it, in the order in which they began to listen.
pub fn attach(listener: &impl AsFd, cores: &[usize]) -> io::Result<()> {
    let mut steps = program(cores);
    if steps.len() > MOST {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    }
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the kernel reads one sock_fprog, whose size is given, and as many steps as it says; both live until the call has returned.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::affinity;
    use super::super::listen::{Claim, listen};
    use super::*;

    /// What the kernel would answer.
    fn answer(steps: &[libc::sock_filter], core: u32, random: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = steps[at];
            at += 1;
            match code {
                LOAD if k == ancillary(libc::SKF_AD_CPU) => value = core,
                LOAD => value = random,
                MODULO => value %= k,
                IF_EQUAL => at += usize::from(if value == k { jt } else { jf }),
                GO => at += k as usize,
                ANSWER => return k,
                _ => panic!("no such step: {code}"),
            }
        }
    }

    #[test]
    fn each_core_has_its_own_listeners_and_all_of_them() {
        let steps = program(&[3, 0, 1]);
        assert_eq!([0, 1, 3].map(|core| answer(&steps, core, 9)), [1, 2, 0]);
        assert_eq!(answer(&steps, 2, 9), NOWHERE);
        // More listeners than a conditional jump is long.
        let cores: Vec<usize> = (0..700).map(|place| place % 2).collect();
        let steps = program(&cores);
        let mut places: Vec<u32> = (0..350).map(|random| answer(&steps, 1, random)).collect();
        places.sort_unstable();
        assert_eq!(places, (0..350).map(|n| 2 * n + 1).collect::<Vec<u32>>());
        let most: Vec<usize> = (0..crate::limits::MAX_REACTORS).map(|n| n % 512).collect();
        assert!(program(&most).len() <= MOST, "{}", program(&most).len());
    }

    #[test]
    fn the_kernel_takes_a_connection_to_the_listener_of_its_core() {
        let cores = affinity::cores().unwrap();
        // In descending order, so that a place is no core by itself.
        let order: Vec<usize> = cores.iter().rev().copied().collect();
        let claim = Claim::take("127.0.0.1:0".parse().unwrap()).unwrap();
        let group: Vec<TcpListener> = order
            .iter()
            .map(|_| listen(claim.address(), 64, 0).unwrap())
            .collect();
        attach(&group[0], &order).unwrap();
        for &core in &cores {
            let address = claim.address();
            // On loopback the SYN is handled where it is sent.
            let calls = std::thread::spawn(move || {
                affinity::pin(core).unwrap();
                (0..8)
                    .map(|_| TcpStream::connect(address).unwrap())
                    .collect::<Vec<_>>()
            });
            let _connected = calls.join().unwrap();
            for (listener, &of) in group.iter().zip(&order) {
                let came = std::iter::from_fn(|| listener.accept().ok()).count();
                assert_eq!(
                    came,
                    if of == core { 8 } else { 0 },
                    "core {core}, listener of {of}"
                );
            }
        }
    }
}
