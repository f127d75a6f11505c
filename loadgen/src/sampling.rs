//! Reads, once a second, what the server's process, this one and the kernel use.
//!
//! CPU, RSS, slab and TCP buffers are cheap to read. Pss is not: the kernel walks all of a process's pages for it and holds its memory
//! lock meanwhile. A thread of its own reads the server's, every ten seconds, and seldomer where it takes long.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::machine::{self, CpuTime};
use crate::report::course::{Sample, Usage, tenths};

/// Between two readings of Pss.
const PSS_EVERY: Duration = Duration::from_secs(10);

/// The reading may take at most one part in so many of the time.
const PSS_SHARE: u32 = 50;

/// The server's process, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// This one.
    Pid(u32),
    /// The one whose number stands in this file: another one after a restart.
    File(PathBuf),
}

impl FromStr for Server {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text
            .parse()
            .map_or_else(|_| Self::File(text.into()), Self::Pid))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => pid.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Server {
    /// Its number now.
    pub fn pid(&self) -> io::Result<u32> {
        match self {
            Self::Pid(pid) => Ok(*pid),
            Self::File(path) => std::fs::read_to_string(path)?
                .trim()
                .parse()
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it holds no number")),
        }
    }
}

/// One process that is watched.
#[derive(Debug)]
struct Process {
    pid: u32,
    last: Option<(Instant, CpuTime)>,
}

impl Process {
    fn new(pid: u32) -> Self {
        Self {
            pid,
            last: Some(Instant::now()).zip(CpuTime::of(pid).ok()),
        }
    }

    /// One that may have begun since it was looked for the last time; all that it has used belongs to the time since then.
    fn since(pid: u32, looked: Instant) -> Self {
        Self {
            pid,
            last: Some((looked, CpuTime::default())),
        }
    }

    /// `None` if the process has gone.
    fn usage(&mut self) -> Option<Usage> {
        let (now, time) = (Instant::now(), CpuTime::of(self.pid).ok()?);
        let rss = machine::rss(self.pid).ok()?;
        let (cpu, user) = self.last.replace((now, time)).map_or((0.0, 0.0), |last| {
            let micros = now.duration_since(last.0).as_micros().max(1) as f64;
            let (all, user) = time.micros_since(&last.1);
            (all / micros * 100.0, user / micros * 100.0)
        });
        Some(Usage {
            cpu: tenths(cpu),
            user: tenths(user),
            rss,
            pss: None,
        })
    }
}

/// Reads Pss in a thread of its own. Dropping it ends the thread.
#[derive(Debug)]
struct PssReader {
    /// Bytes; 0: nothing new.
    latest: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PssReader {
    fn start(pid: u32) -> Option<Self> {
        let (latest, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (tell, told) = (Arc::clone(&latest), Arc::clone(&ended));
        let thread = std::thread::Builder::new()
            .name("pss".into())
            .spawn(move || {
                while !told.load(Relaxed) {
                    let began = Instant::now();
                    let Ok(bytes) = machine::pss(pid) else {
                        return;
                    };
                    tell.store(bytes, Relaxed);
                    let rest = PSS_EVERY.max(began.elapsed() * PSS_SHARE);
                    while !told.load(Relaxed) && began.elapsed() < rest {
                        std::thread::park_timeout(rest.saturating_sub(began.elapsed()));
                    }
                }
            });
        Some(Self {
            latest,
            ended,
            thread: Some(thread.ok()?),
        })
    }
}

impl Drop for PssReader {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only reads; if it panicked, the hook has said so.
            drop(thread.join());
        }
    }
}

/// What is sampled.
#[derive(Debug)]
pub struct Sampler {
    own: Process,
    server: Option<Watched>,
}

/// The server's process, and whatever comes after it.
#[derive(Debug)]
struct Watched {
    server: Server,
    process: Process,
    pss: Option<PssReader>,
    looked: Instant,
}

impl Watched {
    fn usage(&mut self) -> Option<Usage> {
        let before = std::mem::replace(&mut self.looked, Instant::now());
        let usage = self.process.usage().or_else(|| {
            let pid = self.server.pid().ok()?;
            if pid == self.process.pid {
                return None;
            }
            self.process = Process::since(pid, before);
            self.pss = PssReader::start(pid);
            self.process.usage()
        })?;
        let pss = self.pss.as_ref().map(|pss| pss.latest.swap(0, Relaxed));
        Some(Usage {
            pss: pss.filter(|&bytes| bytes > 0),
            ..usage
        })
    }
}

impl Sampler {
    /// This process and the machine.
    pub fn new() -> Self {
        Self {
            own: Process::new(std::process::id()),
            server: None,
        }
    }

    /// The server's process as well.
    pub fn watch_server(&mut self, server: &Server) -> io::Result<()> {
        let pid = server.pid()?;
        CpuTime::of(pid)?;
        self.server = Some(Watched {
            server: server.clone(),
            process: Process::new(pid),
            pss: PssReader::start(pid),
            looked: Instant::now(),
        });
        Ok(())
    }

    /// The server's process id, the latest one if there were several.
    pub fn server(&self) -> Option<u32> {
        self.server.as_ref().map(|watched| watched.process.pid)
    }

    /// Reads all.
    pub fn sample(&mut self) -> Sample {
        Sample {
            server: self.server.as_mut().and_then(Watched::usage),
            generator: self.own.usage(),
            slab: machine::slab().unwrap_or(0),
            tcp: machine::tcp_buffers().unwrap_or(0),
        }
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_sampled_until_it_goes() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut sampler = Sampler::new();
        sampler.watch_server(&Server::Pid(child.id())).unwrap();
        assert_eq!(sampler.server(), Some(child.id()));
        let sample = sampler.sample();
        assert!(sample.generator.unwrap().rss > 0 && sample.slab > 0);
        assert!(sample.server.is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sampler.sample().server, None);
        assert!(Sampler::new().watch_server(&Server::Pid(u32::MAX)).is_err());
    }

    #[test]
    fn a_process_that_follows_is_found_in_the_file() {
        let sleep = || {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").spawn().unwrap()
        };
        let path = std::env::temp_dir().join(format!("loadgen-pid-{}", std::process::id()));
        let write = |pid: u32| std::fs::write(&path, format!("{pid}\n")).unwrap();
        let server: Server = path.to_str().unwrap().parse().unwrap();
        assert_eq!("17".parse(), Ok(Server::Pid(17)));
        assert!(Sampler::new().watch_server(&server).is_err());
        write(u32::MAX);
        assert!(Sampler::new().watch_server(&server).is_err());

        let mut first = sleep();
        write(first.id());
        let mut sampler = Sampler::new();
        sampler.watch_server(&server).unwrap();
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(sampler.sample().server, None);
        let mut second = sleep();
        write(second.id());
        assert!(sampler.sample().server.is_some());
        assert_eq!(sampler.server(), Some(second.id()));
        second.kill().unwrap();
        second.wait().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
