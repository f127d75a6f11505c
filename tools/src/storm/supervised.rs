//! A server that is started again whenever it ends, as a supervisor does it. Its process id stands in a file.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor looks after its server so often.
const LOOK: Duration = Duration::from_millis(2);

/// A server under supervision. Dropping it kills the server, and removes its directory.
#[derive(Debug)]
pub(super) struct Supervised {
    dir: PathBuf,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<u32>>>,
}

impl Supervised {
    /// Starts the server that `command` makes, in a directory that is made for it, and waits until it listens at all the addresses.
    pub(super) fn start(
        dir: PathBuf,
        mut command: impl FnMut() -> Command + Send + 'static,
        addresses: &[SocketAddr],
    ) -> Result<Self, String> {
        let ended = Arc::<AtomicBool>::default();
        let (told, own) = (Arc::clone(&ended), dir.clone());
        let thread = std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || supervise(&own, &mut command, &told))
            .map_err(|error| format!("a thread didn't start: {error}"))?;
        let supervised = Self {
            dir,
            ended,
            thread: Some(thread),
        };
        let began = Instant::now();
        let listens = |addr: &SocketAddr| TcpStream::connect(addr).is_ok();
        while !addresses.iter().all(listens) {
            if supervised.gave_up() || began.elapsed() > PATIENCE {
                return Err(format!(
                    "the server doesn't listen{}",
                    last_words(&supervised.dir)
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(supervised)
    }

    /// The file with its process id.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// It ended by itself too often.
    fn gave_up(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            // What it couldn't do was said when it was waited for.
            drop(thread.join());
        }
        let _gone_already = fs::remove_dir_all(&self.dir);
    }
}

/// Runs servers one after the other, until it is told to end or one never came to anything. Returns how many.
fn supervise(
    dir: &Path,
    command: &mut impl FnMut() -> Command,
    ended: &AtomicBool,
) -> io::Result<u32> {
    fs::create_dir_all(dir)?;
    let mut servers = 0;
    loop {
        let began = Instant::now();
        let out = File::options()
            .append(true)
            .create(true)
            .open(dir.join("log"))?;
        let mut child = command()
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        servers += 1;
        // Written beside it and moved, so that nobody reads half a number.
        fs::write(dir.join("pid.new"), child.id().to_string())?;
        fs::rename(dir.join("pid.new"), dir.join("pid"))?;
        wait(&mut child, ended)?;
        if ended.load(SeqCst) || began.elapsed() < Duration::from_millis(200) {
            return Ok(servers);
        }
    }
}

/// Waits for the server's end, or brings it about.
fn wait(child: &mut Child, ended: &AtomicBool) -> io::Result<()> {
    while child.try_wait()?.is_none() {
        if ended.load(SeqCst) {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The end of what the server said.
fn last_words(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    let mut lines: Vec<&str> = log.lines().rev().take(8).collect();
    lines.reverse();
    lines
        .iter()
        .fold(String::new(), |all, line| all + "\n    " + line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::directory;

    fn pid(supervised: &Supervised) -> u32 {
        let text = fs::read_to_string(supervised.pid_file());
        text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    #[test]
    fn whoever_ends_is_followed_by_another() {
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            command
        };
        let dir = directory().with_extension("supervised");
        let supervised = Supervised::start(dir.clone(), sleep, &[]).unwrap();
        let mut pids = Vec::new();
        while pids.len() < 3 {
            let pid = pid(&supervised);
            if pid != 0 && pids.last() != Some(&pid) {
                pids.push(pid);
                // One that lives too shortly isn't started again.
                std::thread::sleep(Duration::from_millis(250));
                crate::sys::terminate(pid).unwrap();
            }
        }
        drop(supervised);
        assert!(!dir.exists());
    }

    #[test]
    fn what_comes_to_nothing_is_said() {
        let says = || {
            let mut command = Command::new("sh");
            command.args(["-c", "echo no such thing; exit 1"]);
            command
        };
        let dir = directory().with_extension("nothing");
        let addr = crate::broker::free_address().unwrap();
        let error = Supervised::start(dir, says, &[addr]).unwrap_err();
        assert!(error.contains("no such thing"), "{error}");
    }
}
