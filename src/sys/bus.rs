//! A mapped file that can't be read does not kill the process.
//!
//! A page of a mapping whose file was cut short from outside, whose medium fails, or whose file system has no block for it, raises SIGBUS.
//! Here such a page, if somebody has said that it may happen ([`Watched`]), becomes zeros, and a flag says so: who reads then finds
//! checksums that don't hold, which is an ordinary finding. Any other SIGBUS goes where it went before.
//!
//! The handler asks for no lock and no memory: it looks through a table that only grows.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::check;

/// Ranges in one block of the table.
const BLOCK: usize = 256;

/// A range of addresses; begin 0: free, 1: about to be filled or emptied.
struct Slot {
    begin: AtomicUsize,
    end: AtomicUsize,
    damaged: AtomicBool,
}

struct Block {
    slots: [Slot; BLOCK],
    next: AtomicPtr<Block>,
}

const FREE: usize = 0;
const CLAIMED: usize = 1;

impl Block {
    const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    begin: AtomicUsize::new(FREE),
                    end: AtomicUsize::new(0),
                    damaged: AtomicBool::new(false),
                }
            }; BLOCK],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The block behind this one, if there is one. Blocks are never freed.
    fn next(&self) -> Option<&'static Self> {
        // SAFETY: null, or a block that was leaked before its address was stored here.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST: Block = Block::new();
static PAGE: AtomicUsize = AtomicUsize::new(0);
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Memory that may turn into zeros under its reader. It ends when this is dropped, which must be before the memory is unmapped.
pub struct Watched(&'static Slot);

impl Watched {
    /// Watches a mapped range; it begins and ends with a page. The first call installs the handler, for the whole process.
    pub fn new(range: &[u8]) -> io::Result<Self> {
        static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
        let installed =
            INSTALLED.get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or(0)));
        installed.map_err(io::Error::from_raw_os_error)?;
        let slot = claim();
        let begin = range.as_ptr() as usize;
        slot.damaged.store(false, Ordering::Relaxed);
        slot.end.store(begin + range.len(), Ordering::Relaxed);
        slot.begin.store(begin, Ordering::Release);
        Ok(Self(slot))
    }

    /// Whether any page of it has become zeros.
    #[inline]
    pub fn damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Relaxed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.begin.store(CLAIMED, Ordering::Release);
        self.0.end.store(0, Ordering::Release);
        self.0.begin.store(FREE, Ordering::Release);
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watched(damaged: {})", self.damaged())
    }
}

/// A free slot, from now on nobody else's.
fn claim() -> &'static Slot {
    let mut block = &FIRST;
    loop {
        let free = block.slots.iter().find(|slot| {
            slot.begin
                .compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        });
        if let Some(slot) = free {
            return slot;
        }
        if let Some(next) = block.next() {
            block = next;
            continue;
        }
        let new = Box::into_raw(Box::new(Block::new()));
        let stored =
            block
                .next
                .compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        if stored.is_err() {
            // SAFETY: `new` was made above and given to nobody, since the exchange failed.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

/// The slot that holds this address.
fn find(address: usize) -> Option<&'static Slot> {
    let mut block = Some(&FIRST);
    while let Some(at) = block {
        let hit = at.slots.iter().find(|slot| {
            let begin = slot.begin.load(Ordering::Acquire);
            begin > CLAIMED && begin <= address && address < slot.end.load(Ordering::Acquire)
        });
        if hit.is_some() {
            return hit;
        }
        block = at.next();
    }
    None
}

fn install() -> io::Result<()> {
    // SAFETY: no memory is involved.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
    // SAFETY: plain integers and pointers: all zeros is one of its values.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills a struct of ours, and changes nothing.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) })?;
    // Known before the handler can run.
    _ = BEFORE.set(before);
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler calls only what a handler may: atomics, mmap, sigaction, and the handler that was there before.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) }).map(drop)
}

/// The handler: see the module.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO, and for SIGBUS it has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some(slot) = find(address) {
        let page = PAGE.load(Ordering::Relaxed);
        let at = (address & !(page - 1)) as *mut libc::c_void;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        slot.damaged.store(true, Ordering::Release);
        // SAFETY: the page is of a mapping whose owner has said (`Watched`) that its pages may become zeros, and it lies within it.
        let mapped = unsafe { libc::mmap(at, page, protection, flags, -1, 0) };
        if mapped != libc::MAP_FAILED {
            return;
        }
    }
    pass_on(signal, info, context);
}

/// What would have happened without this handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all zeros is the default action with an empty mask. The instruction is run again on return, faults again, and ends
            // the process with a core dump that shows where.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the kernel had this address as a handler of this kind.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the kernel had this address as a handler that takes the signal alone.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    /// A file of two pages, mapped, and its descriptor.
    fn mapped() -> (std::fs::File, &'static mut [u8]) {
        // SAFETY: a name without a nul in the middle, and flags; nothing is kept.
        let fd = unsafe { libc::memfd_create(c"bus".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the call has just made it.
        let file: std::fs::File = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
        file.set_len(2 * 4096).unwrap();
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                2 * 4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: two pages that were just mapped and are never unmapped.
        (file, unsafe {
            std::slice::from_raw_parts_mut(at.cast(), 2 * 4096)
        })
    }

    #[test]
    fn a_page_that_is_cut_off_becomes_zeros() {
        let (file, memory) = mapped();
        memory.fill(7);
        let watched = Watched::new(memory).unwrap();
        assert!(!watched.damaged());
        file.set_len(4096).unwrap();
        assert_eq!((memory[0], memory[4095]), (7, 7));
        assert!(!watched.damaged());
        assert_eq!((memory[4096], memory[2 * 4096 - 1]), (0, 0));
        assert!(watched.damaged());
        // Written, too, if somebody must.
        memory[5000] = 1;
        assert_eq!(memory[5000], 1);
    }

    #[test]
    fn the_table_grows_and_slots_are_used_again() {
        let (_file, memory) = mapped();
        let all: Vec<Watched> = (0..2 * BLOCK + 3)
            .map(|_| Watched::new(memory).unwrap())
            .collect();
        assert!(find(memory.as_ptr() as usize).is_some());
        drop(all);
        assert!(find(memory.as_ptr() as usize).is_none());
    }

    /// Not a test of its own: the child of the next one.
    #[test]
    #[ignore = "dies on purpose; run by the test below"]
    fn child_that_reads_where_nobody_watches() {
        let (file, memory) = mapped();
        let (_other, watched) = mapped();
        let _watched = Watched::new(watched).unwrap();
        file.set_len(0).unwrap();
        println!("{}", memory[0]);
    }

    #[test]
    fn any_other_such_fault_ends_the_process_as_before() {
        use std::os::unix::process::ExitStatusExt as _;
        let name = "sys::bus::tests::child_that_reads_where_nobody_watches";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS));
    }
}
