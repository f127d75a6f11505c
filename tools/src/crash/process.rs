//! The process that is killed: started, waited for, ended in one way or the other.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::broker;
use crate::sys;

use super::Broker;

/// How long a server may take until it listens, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server is started with.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) broker: Broker,
    pub(super) binary: PathBuf,
    /// For its data directory, configuration and log.
    pub(super) dir: PathBuf,
    pub(super) reactors: usize,
    /// `process` or `disk`.
    pub(super) durability: &'static str,
}

/// A server's process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
    /// Known beforehand, or told by the server.
    addr: Option<SocketAddr>,
    pub(super) began: Instant,
}

impl Launch {
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn start(&self) -> io::Result<Process> {
        fs::create_dir_all(&self.dir)?;
        let log = self.dir.join("log");
        let out = File::create(&log)?;
        let (mut command, addr) = match self.broker {
            Broker::Stillwire => (self.stillwire()?, None),
            Broker::Mosquitto => {
                let addr = broker::free_address()?;
                (self.mosquitto(addr)?, Some(addr))
            }
        };
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Process {
            child,
            log,
            addr,
            began,
        })
    }

    /// Limits far from what the clients do: none of them may be the reason for a loss.
    fn stillwire(&self) -> io::Result<Command> {
        let mut file = String::new();
        writeln!(
            file,
            "# durability {}\n\n[mqtt]\nqueue_messages = 1000000\nqueue_bytes = 1073741824\nmax_packet_size = 4194304",
            self.durability
        )
        .map_err(io::Error::other)?;
        let config = self.dir.join("stillwire.toml");
        fs::write(&config, file)?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(config);
        command.args(["--listen", "127.0.0.1:0"]);
        command.arg("--reactors").arg(self.reactors.to_string());
        command.arg("--max-connections").arg("1000");
        command.arg("--data-dir").arg(self.data());
        Ok(command)
    }

    fn mosquitto(&self, addr: SocketAddr) -> io::Result<Command> {
        let data = self.data();
        fs::create_dir_all(&data)?;
        let file = format!(
            "listener {} {}\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\nmax_queued_messages 0\n",
            addr.port(),
            addr.ip(),
            data.display()
        );
        let config = self.dir.join("mosquitto.conf");
        fs::write(&config, file)?;
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(config);
        Ok(command)
    }
}

impl Process {
    /// Waits until it listens; an error says what it did instead.
    pub(super) fn ready(&mut self) -> Result<SocketAddr, String> {
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
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL. When this returns, what it has sent is in the sockets.
    pub(super) fn kill(&mut self) {
        // The process is ours until it is waited for, so this can't hit another one, and it can't fail either.
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }

    /// SIGTERM; it is for the caller to wait.
    pub(super) fn stop(&self) -> io::Result<()> {
        sys::terminate(self.child.id())
    }

    /// The end of its log, for a message.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(12).collect();
        lines.reverse();
        lines
            .iter()
            .fold(String::new(), |all, line| all + "\n    " + line)
    }

    /// What it said about damage in its data: after SIGKILL there is none.
    pub(super) fn complaints(&self) -> Vec<String> {
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
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
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
