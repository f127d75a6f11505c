//! A line typed on a terminal that is not shown.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use super::check;

/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// Reads a line from a terminal without showing it. Ctrl-C is an error of kind `Interrupted`, so that the terminal is as before whatever is typed.
pub fn read_hidden(terminal: &(impl AsFd + ?Sized), max: usize) -> io::Result<Vec<u8>> {
    let fd = terminal.as_fd();
    let _hidden = Hidden::begin(fd)?;
    let mut line = Vec::new();
    // A byte at a time: what follows the line is not ours.
    let (mut input, mut byte) = (File::from(fd.try_clone_to_owned()?), [0]);
    while input.read(&mut byte)? > 0 {
        match byte[0] {
            INTERRUPT => return Err(io::ErrorKind::Interrupted.into()),
            b'\n' => break,
            _ if line.len() == max => return Err(io::ErrorKind::InvalidInput.into()),
            byte => line.push(byte),
        }
    }
    Ok(line)
}

/// A terminal that shows nothing, until this is dropped.
struct Hidden<'a> {
    fd: BorrowedFd<'a>,
    before: libc::termios,
}

impl<'a> Hidden<'a> {
    fn begin(fd: BorrowedFd<'a>) -> io::Result<Self> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: the pointer is to room for one, and the descriptor is open.
        check(unsafe { libc::tcgetattr(fd.as_raw_fd(), before.as_mut_ptr()) })?;
        // SAFETY: the call has filled it.
        let before = unsafe { before.assume_init() };
        let mut hidden = before;
        hidden.c_lflag &= !(libc::ECHO | libc::ISIG);
        hidden.c_lflag |= libc::ICANON;
        // Ctrl-C ends the line at once, and stands in it.
        hidden.c_cc[libc::VEOL] = INTERRUPT;
        set(fd, &hidden)?;
        Ok(Self { fd, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs it no more.
        _ = set(self.fd, &self.before);
    }
}

fn set(fd: BorrowedFd<'_>, to: &libc::termios) -> io::Result<()> {
    // SAFETY: the pointer is to a whole one, and the descriptor is open.
    check(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, to) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::{FromRawFd as _, OwnedFd};

    /// A terminal and the hands at it.
    fn terminal() -> (OwnedFd, File) {
        let (mut hands, mut terminal) = (0, 0);
        let null = std::ptr::null_mut();
        // SAFETY: both descriptors have room, and the rest may be null.
        let opened = unsafe {
            libc::openpty(
                &raw mut hands,
                &raw mut terminal,
                null,
                null.cast(),
                null.cast(),
            )
        };
        check(opened).unwrap();
        // SAFETY: the call has just opened both, for us alone.
        unsafe { (OwnedFd::from_raw_fd(terminal), File::from_raw_fd(hands)) }
    }

    fn echoes(terminal: &OwnedFd) -> bool {
        let mut state = MaybeUninit::uninit();
        // SAFETY: the pointer is to room for one, and the call fills it.
        let state = unsafe {
            libc::tcgetattr(terminal.as_raw_fd(), state.as_mut_ptr());
            state.assume_init()
        };
        state.c_lflag & libc::ECHO != 0
    }

    #[test]
    fn a_line_is_read_and_not_shown() {
        let (terminal, mut hands) = terminal();
        // Typed once nothing is shown any more.
        let typist = std::thread::spawn({
            let terminal = terminal.try_clone().unwrap();
            move || {
                while echoes(&terminal) {
                    std::thread::yield_now();
                }
                hands.write_all(b"secret one\nnext").unwrap();
                hands
            }
        });
        assert_eq!(read_hidden(&terminal, 100).unwrap(), b"secret one");
        let mut hands = typist.join().unwrap();
        assert!(echoes(&terminal));
        // What is written to the terminal comes out first if nothing was echoed before it.
        File::from(terminal).write_all(b"x").unwrap();
        let mut shown = [0];
        hands.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"x");
    }

    #[test]
    fn an_interrupt_leaves_the_terminal_as_it_was() {
        for (typed, kind) in [
            (&b"sec\x03"[..], io::ErrorKind::Interrupted),
            (b"far too long\n", io::ErrorKind::InvalidInput),
        ] {
            let (terminal, mut hands) = terminal();
            let typist = std::thread::spawn({
                let terminal = terminal.try_clone().unwrap();
                move || {
                    while echoes(&terminal) {
                        std::thread::yield_now();
                    }
                    hands.write_all(typed).unwrap();
                    hands
                }
            });
            assert_eq!(read_hidden(&terminal, 5).unwrap_err().kind(), kind);
            assert!(echoes(&terminal));
            typist.join().unwrap();
        }
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let null = File::open("/dev/null").unwrap();
        assert!(read_hidden(&null, 5).is_err());
    }
}
