//! A server's process that is to be restarted: started, waited for, ended in one way or the other.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::sys;

/// How long a server may take until it listens, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server's process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Known beforehand, or told by the server.
    addr: Option<SocketAddr>,
    pub(crate) began: Instant,
}

impl Process {
    /// Starts it; what it says goes to `log`. Without an address it tells its own in its line that says ready.
    pub(crate) fn spawn(
        mut command: Command,
        log: PathBuf,
        addr: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let out = File::create(&log)?;
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self {
            child,
            log,
            addr,
            began,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens; an error says what it did instead.
    pub(crate) fn ready(&mut self) -> Result<SocketAddr, String> {
        loop {
            if let Some(addr) = self.listens() {
                return Ok(addr);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "it ended before it listened: {status}{}",
                    self.last_words()
                ));
            }
            if self.began.elapsed() > PATIENCE {
                return Err(format!("it doesn't listen{}", self.last_words()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn listens(&self) -> Option<SocketAddr> {
        match self.addr {
            Some(addr) => TcpStream::connect(addr).is_ok().then_some(addr),
            None => address(&fs::read_to_string(&self.log).ok()?),
        }
    }

    /// Whether it is gone by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL. When this returns, what it has sent is in the sockets.
    pub(crate) fn kill(&mut self) {
        // The process is ours until it is waited for, so this can't hit another one, and it can't fail either.
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }

    /// SIGTERM; it is for the caller to wait.
    pub(crate) fn stop(&self) -> io::Result<()> {
        sys::terminate(self.child.id())
    }

    /// The end of its log, for a message.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(12).collect();
        lines.reverse();
        lines
            .iter()
            .fold(String::new(), |all, line| all + "\n    " + line)
    }

    /// What it said about damage in its data: after SIGKILL there is none.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let bad = ["corrupt", "damage", "panicked", "ERROR"];
        log.lines()
            .filter(|line| bad.iter().any(|word| line.contains(word)))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address in the line that says ready, once that line is whole.
fn address(log: &str) -> Option<SocketAddr> {
    let whole = &log[..log.rfind('\n')?];
    let line = whole.lines().find(|line| line.contains("ready"))?;
    let at = line.find("127.0.0.1:")?;
    let end = line[at..]
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')
        .map_or(line.len(), |end| at + end);
    line[at..end].parse().ok()
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
