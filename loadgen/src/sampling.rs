//! Reads, once a second, what the server's process, this one and the kernel use.
//!
//! CPU, RSS, slab and TCP buffers are cheap to read. Pss is not: the kernel walks all of a process's pages for it and holds its memory
//! lock meanwhile. A thread of its own reads the server's, every ten seconds, and seldomer where it takes long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::{self, CpuTime};
use crate::report::course::{Sample, Usage, tenths};

/// Between two readings of Pss.
const PSS_EVERY: Duration = Duration::from_secs(10);

/// The reading may take at most one part in so many of the time.
const PSS_SHARE: u32 = 50;

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
    server: Option<(Process, Option<PssReader>)>,
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
    pub fn watch_server(&mut self, pid: u32) -> io::Result<()> {
        CpuTime::of(pid)?;
        self.server = Some((Process::new(pid), PssReader::start(pid)));
        Ok(())
    }

    /// The server's process id.
    pub fn server(&self) -> Option<u32> {
        self.server.as_ref().map(|(process, _)| process.pid)
    }

    /// Reads all.
    pub fn sample(&mut self) -> Sample {
        Sample {
            server: self.server.as_mut().and_then(|(process, pss)| {
                let mut usage = process.usage()?;
                usage.pss = pss
                    .as_ref()
                    .map(|pss| pss.latest.swap(0, Relaxed))
                    .filter(|&bytes| bytes > 0);
                Some(usage)
            }),
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
        sampler.watch_server(child.id()).unwrap();
        assert_eq!(sampler.server(), Some(child.id()));
        let sample = sampler.sample();
        assert!(sample.generator.unwrap().rss > 0 && sample.slab > 0);
        assert!(sample.server.is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sampler.sample().server, None);
        assert!(Sampler::new().watch_server(u32::MAX).is_err());
    }
}
