//! The process that is measured: built, started, waited for, and ended with the measurement.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::Server;

/// Connections beside the phones': the publisher's, and one that knocks.
pub(crate) const BESIDES: u32 = 100;

/// How long a broker may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a broker prints, in its directory.
const LOG: &str = "log";

/// A broker's process. One that was started here is killed on drop: it is measured, not shut down.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    /// Where it gives tickets, if it does.
    pub(crate) lookup: Option<SocketAddr>,
    pub(crate) pid: u32,
    child: Option<Child>,
    /// What it prints, and what it keeps; removed with it.
    dir: Option<PathBuf>,
}

/// Why there is no broker to measure.
#[derive(Debug)]
pub(crate) enum BrokerError {
    /// `cargo build` failed.
    Build(String),
    /// There is no binary there.
    NoBinary(PathBuf),
    /// It couldn't be started.
    Start(String, io::Error),
    /// It ended before it listened.
    Ended(String, String),
    /// It doesn't listen.
    Silent(SocketAddr),
    /// An address without a process.
    NoProcess,
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(what) => write!(f, "the server couldn't be built: {what}"),
            Self::NoBinary(path) => {
                write!(f, "{} isn't there; build it with `cargo build --release`, or name it with --binary", path.display())
            }
            Self::Start(what, error) => write!(f, "`{what}` doesn't start: {error}"),
            Self::Ended(what, how) => write!(f, "`{what}` ended before it listened: {how}"),
            Self::Silent(addr) => write!(f, "nothing listens at {addr}"),
            Self::NoProcess => f.write_str("whose CPU and memory? Name the broker's process with --pid, or start it with --command"),
        }
    }
}

impl std::error::Error for BrokerError {}

impl Broker {
    /// The server that the flags name, with room for so many connections.
    pub(crate) fn start(server: &Server, connections: u32) -> Result<Self, BrokerError> {
        match (server.addr, &server.command, server.pid) {
            (None, ..) => Self::stillwire(server, connections),
            (Some(addr), Some(command), _) => {
                let mut words = command.split_whitespace();
                let mut process = Command::new(words.next().unwrap_or_default());
                process.args(words);
                Self::spawn(command.clone(), process, addr)
            }
            (Some(addr), None, Some(pid)) => {
                let broker = Self {
                    name: format!("process {pid}"),
                    addr,
                    lookup: None,
                    pid,
                    child: None,
                    dir: None,
                };
                TcpStream::connect(addr).map_err(|_| BrokerError::Silent(addr))?;
                Ok(broker)
            }
            (Some(_), None, None) => Err(BrokerError::NoProcess),
        }
    }

    fn stillwire(server: &Server, connections: u32) -> Result<Self, BrokerError> {
        let binary = server.binary.clone().map_or_else(built, Ok)?;
        if !binary.exists() {
            return Err(BrokerError::NoBinary(binary));
        }
        let failed = |error| BrokerError::Start("stillwire".into(), error);
        let addr = free_address().map_err(failed)?;
        let reactors = server.reactors(connections);
        let mut process = Command::new(&binary);
        process.arg("serve").arg("--listen").arg(addr.to_string());
        process.arg("--data-dir").arg(directory().join("data"));
        process.arg("--reactors").arg(reactors.to_string());
        process
            .arg("--max-connections")
            .arg((connections + BESIDES).to_string());
        let name = format!("stillwire, {reactors} reactors");
        if !server.home_ports {
            process.args(["--lookup", "off"]);
            return Self::spawn(name, process, addr);
        }
        let lookup = free_address().map_err(failed)?;
        let first = free_ports(reactors as u16).map_err(failed)?;
        let config = directory().join("stillwire.toml");
        fs::create_dir_all(directory())
            .and_then(|()| fs::write(&config, format!("home_ports = {first}\n")))
            .map_err(failed)?;
        process.arg("--config").arg(config);
        process.arg("--lookup").arg(lookup.to_string());
        let mut broker = Self::spawn(name + " on ports of their own", process, addr)?;
        broker.await_listener(lookup)?;
        broker.lookup = Some(lookup);
        Ok(broker)
    }

    /// The bare epoll server of `tools floor`.
    pub(crate) fn floor(threads: usize, connections: u32) -> Result<Self, BrokerError> {
        let failed = |error| BrokerError::Start("tools floor".into(), error);
        let addr = free_address().map_err(failed)?;
        let mut process = Command::new(std::env::current_exe().map_err(failed)?);
        process.arg("floor").arg("--listen").arg(addr.to_string());
        process.arg("--threads").arg(threads.to_string());
        process.arg("--connections").arg(connections.to_string());
        Self::spawn(format!("floor, {threads} threads"), process, addr)
    }

    /// Starts a process and waits until it listens.
    pub(crate) fn spawn(
        name: String,
        mut process: Command,
        addr: SocketAddr,
    ) -> Result<Self, BrokerError> {
        if TcpStream::connect(addr).is_ok() {
            return Err(BrokerError::Ended(
                name,
                format!("something else listens at {addr}"),
            ));
        }
        let dir = directory();
        let log = dir.join(LOG);
        let child = std::fs::create_dir_all(&dir)
            .and_then(|()| File::create(&log))
            .and_then(|out| Ok((out.try_clone()?, out)))
            .and_then(|(out, err)| process.stdin(Stdio::null()).stdout(out).stderr(err).spawn())
            .map_err(|error| BrokerError::Start(name.clone(), error))?;
        let mut broker = Self {
            name,
            addr,
            lookup: None,
            pid: child.id(),
            child: Some(child),
            dir: Some(dir),
        };
        broker.await_listener(addr)?;
        Ok(broker)
    }

    fn await_listener(&mut self, addr: SocketAddr) -> Result<(), BrokerError> {
        let began = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                let log = self.dir.as_ref().map(|dir| dir.join(LOG));
                let said = log.and_then(|log| fs::read_to_string(log).ok());
                let said = said.unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                return Err(BrokerError::Ended(
                    self.name.clone(),
                    format!("{status}: {last}"),
                ));
            }
            if began.elapsed() > PATIENCE {
                return Err(BrokerError::Silent(addr));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // If it is gone already, so much the better.
            let _gone = child.kill().and_then(|()| child.wait());
        }
        if let Some(dir) = &self.dir {
            let _gone = std::fs::remove_dir_all(dir);
        }
    }
}

/// A port that was free a moment ago: a server is told it, since it can't tell us.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The first of so many ports in a row that were free a moment ago, below those that the kernel gives to whoever calls.
fn free_ports(count: u16) -> io::Result<u16> {
    let ports = || {
        let first = fastrand::u16(10_000..30_000);
        first..first + count
    };
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    std::iter::repeat_with(ports)
        .take(100)
        .find(|ports| ports.clone().all(is_free))
        .map(|ports| ports.start)
        .ok_or_else(|| io::Error::other(format!("no {count} free ports in a row")))
}

/// A directory of this run's own.
pub(crate) fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("stillwire-measure-{}", std::process::id()))
}

/// The server's binary beside this one, brought up to date if cargo runs us.
pub(crate) fn built() -> Result<PathBuf, BrokerError> {
    let own = std::env::current_exe().map_err(|error| BrokerError::Build(error.to_string()))?;
    let binary = own.with_file_name("stillwire");
    let Some(cargo) = std::env::var_os("CARGO") else {
        return Ok(binary);
    };
    let mut build = Command::new(cargo);
    build
        .arg("build")
        .arg("--package")
        .arg("stillwire")
        .arg("--bin")
        .arg("stillwire");
    if own
        .parent()
        .and_then(Path::file_name)
        .is_some_and(|profile| profile == "release")
    {
        build.arg("--release");
    }
    let status = build
        .stdin(Stdio::null())
        .status()
        .map_err(|error| BrokerError::Build(error.to_string()))?;
    if status.success() {
        Ok(binary)
    } else {
        Err(BrokerError::Build(status.to_string()))
    }
}
