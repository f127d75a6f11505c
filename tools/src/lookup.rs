//! `tools lookup`: how many tickets a second one core gives, and how long one takes while the reactors have all they can do.
//!
//! Two parts. The first asks as fast as it is answered, over a few connections, and divides by the CPU of the lookup's thread: tickets a second
//! of one core. The second asks at a fixed rate, each question at its planned time, so that a slow answer can't hide those behind it. Beside it,
//! with `--saturate`, clients connect and publish as fast as the reactors let them, on threads that step back for everybody else, and the thread that measures comes before everybody: what is measured is the lookup, and not the scheduling of its client.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use loadgen::histogram::{FINE, Histogram};

use crate::broker::built;
use crate::cli::Lookup;
use crate::process::Process;
use crate::sys;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Tickets {
    asked: u64,
    failed: u64,
    seconds: f64,
    /// Seconds of CPU of the lookup's thread.
    cpu: f64,
    rate: u64,
    latency: Histogram,
    /// Of the reactors, while latency was measured: the share of their time on a core, and how much of it they waited for one.
    busy: f64,
    saturated: bool,
}

impl Tickets {
    pub(crate) fn is_valid(&self) -> bool {
        self.failed == 0
    }
}

impl std::fmt::Display for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let asked = self.asked as f64;
        writeln!(
            f,
            "tickets a second, as asked     {:>9.0}   ({} in {:.1} s, {} failed)",
            asked / self.seconds,
            self.asked,
            self.seconds,
            self.failed
        )?;
        writeln!(
            f,
            "tickets a second of one core   {:>9.0}   ({:.1} us of the lookup's CPU each)",
            asked / self.cpu,
            self.cpu * 1e6 / asked
        )?;
        let ms = |quantile| self.latency.at(quantile) as f64 / 1000.0;
        writeln!(
            f,
            "latency at {}/s, reactors {}  p50 {:.2} ms   p99 {:.2} ms   p99.9 {:.2} ms   max {:.2} ms",
            self.rate,
            if self.saturated { "saturated" } else { "idle" },
            ms(0.5),
            ms(0.99),
            ms(0.999),
            self.latency.max() as f64 / 1000.0
        )?;
        writeln!(
            f,
            "reactors' CPU meanwhile        {:>8.0} %   of all cores",
            self.busy * 100.0
        )
    }
}

pub(crate) fn run(args: &Lookup) -> Result<Tickets, String> {
    let dir = std::env::temp_dir().join(format!("stillwire-lookup-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let result = in_dir(args, &dir);
    // What stays is small, and named after a process that is gone.
    let _ = fs::remove_dir_all(&dir);
    result
}

fn in_dir(args: &Lookup, dir: &Path) -> Result<Tickets, String> {
    let failed = |error: io::Error| error.to_string();
    let keys = dir.join("keys.toml");
    let secret = "c3RpbGx3aXJlIG1lYXN1cmVzIGl0cyB0aWNrZXRzIGhlcmU=";
    let key =
        format!("[[key]]\nid = \"k\"\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\nsign = true\n");
    fs::write(&keys, key).map_err(failed)?;
    let config = dir.join("stillwire.toml");
    let text = format!(
        "[access]\nkeys = \"{}\"\n[lookup]\nlisten = [\"127.0.0.1:0\"]\nrate = 0\npace_floor = 1000000\npace_ceiling = 1000000\n",
        keys.display()
    );
    fs::write(&config, text).map_err(failed)?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => built().map_err(|error| error.to_string())?,
    };
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(&config);
    command.args(["--listen", "127.0.0.1:0", "--max-connections", "15000"]);
    command.args(["--reactors", &args.reactors.to_string()]);
    command.arg("--data-dir").arg(dir.join("data"));
    let log = dir.join("log");
    let mut server = Process::spawn(command, log.clone(), None).map_err(failed)?;
    let mqtt = server.ready()?;
    let lookup = address(&fs::read_to_string(&log).map_err(failed)?)?;

    let pid = server.pid();
    let mut tickets = fast(args, pid, lookup).map_err(failed)?;
    let done = Arc::new(AtomicBool::new(false));
    let crowd: Vec<_> = (0..if args.saturate { args.reactors * 2 } else { 0 })
        .map(|me| {
            let done = Arc::clone(&done);
            thread::spawn(move || saturate(me, mqtt, &done))
        })
        .collect();
    let before = cpu_of(pid, "reactor").map_err(failed)?;
    let begin = Instant::now();
    let measured = paced(args, lookup);
    let wall = begin.elapsed().as_secs_f64();
    let busy = cpu_of(pid, "reactor").map_err(failed)? - before;
    done.store(true, Ordering::Relaxed);
    for one in crowd {
        // What it ran into is the server's overload, which is what it is for.
        let _ = one.join();
    }
    let (latency, failures) = measured.map_err(failed)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    tickets.latency = latency;
    tickets.failed += failures;
    tickets.busy = busy / wall / cores as f64;
    Ok(tickets)
}

/// As fast as it is answered.
fn fast(args: &Lookup, pid: u32, lookup: SocketAddr) -> io::Result<Tickets> {
    let before = cpu_of(pid, "lookup")?;
    let begin = Instant::now();
    let each = args.requests / u64::from(args.connections).max(1);
    // Several questions at a time on each connection, from one thread: the client's own share of the machine stays small.
    let mut askers = (0..args.connections)
        .map(|_| Asker::connect(lookup))
        .collect::<io::Result<Vec<_>>>()?;
    let mut failed = 0;
    for round in 0..each {
        for (at, asker) in askers.iter_mut().enumerate() {
            asker.ask(round * 1000 + at as u64)?;
        }
        for asker in &mut askers {
            failed += u64::from(!asker.answer()?);
        }
    }
    Ok(Tickets {
        asked: each * u64::from(args.connections),
        failed,
        seconds: begin.elapsed().as_secs_f64(),
        cpu: cpu_of(pid, "lookup")? - before,
        rate: args.rate,
        latency: Histogram::new(FINE),
        busy: 0.0,
        saturated: args.saturate,
    })
}

/// Each question at its time.
fn paced(args: &Lookup, lookup: SocketAddr) -> io::Result<(Histogram, u64)> {
    let (lookup, rate, seconds) = (lookup, args.rate.max(1), args.seconds);
    // Its own thread, for what it does to its priority stays.
    let measure = move || -> io::Result<(Histogram, u64)> {
        sys::come_first();
        let mut asker = Asker::connect(lookup)?;
        let mut latency = Histogram::new(FINE);
        let mut failed = 0;
        let begin = Instant::now();
        for n in 0..rate * seconds {
            let due = begin + Duration::from_nanos(n * 1_000_000_000 / rate);
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                thread::sleep(wait);
            }
            asker.ask(n)?;
            failed += u64::from(!asker.answer()?);
            latency.record(due.elapsed().as_micros() as u64);
        }
        Ok((latency, failed))
    };
    thread::spawn(measure)
        .join()
        .map_err(|_| io::Error::other("the thread that measures panicked"))?
}

/// A connection to the lookup.
struct Asker {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Asker {
    fn connect(lookup: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(lookup)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(8192),
        })
    }

    fn ask(&mut self, client: u64) -> io::Result<()> {
        let question =
            format!("GET /v1/ticket?client_id=phone-{client} HTTP/1.1\r\nhost: lookup\r\n\r\n");
        self.stream.write_all(question.as_bytes())
    }

    /// The answer; true: it is a ticket.
    fn answer(&mut self) -> io::Result<bool> {
        loop {
            if let Some(length) = self.length() {
                let is_ticket = self.buffer.starts_with(b"HTTP/1.1 200");
                self.buffer.drain(..length);
                return Ok(is_ticket);
            }
            let mut part = [0; 8192];
            let n = self.stream.read(&mut part)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&part[..n]);
        }
    }

    /// Bytes of the answer, once it is whole.
    fn length(&self) -> Option<usize> {
        let end = self
            .buffer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")?
            + 4;
        let head = std::str::from_utf8(&self.buffer[..end]).ok()?;
        let length = head.split("content-length: ").nth(1)?;
        let length: usize = length.lines().next()?.parse().ok()?;
        (self.buffer.len() >= end + length).then_some(end + length)
    }
}

/// Gives the reactors all they can do until `done`: clients that connect, subscribe, publish a run of messages to each other, and go.
fn saturate(me: usize, mqtt: SocketAddr, done: &AtomicBool) -> io::Result<()> {
    sys::step_back();
    let mut run: u64 = 0;
    while !done.load(Ordering::Relaxed) {
        run += 1;
        // A few that listen, and one that talks: what it says is worth much more of the reactors' time than of ours.
        let mut crowd = Vec::new();
        for n in 0..50 {
            let mut stream = TcpStream::connect(mqtt)?;
            stream.set_read_timeout(Some(Duration::from_millis(1)))?;
            stream.set_write_timeout(Some(Duration::from_millis(100)))?;
            let id = format!("load-{me}-{}", run * 50 + n);
            let mut hello = vec![
                0x10,
                12 + id.len() as u8,
                0,
                4,
                b'M',
                b'Q',
                b'T',
                b'T',
                4,
                2,
                0,
                0,
            ];
            hello.extend_from_slice(&[0, id.len() as u8]);
            hello.extend_from_slice(id.as_bytes());
            let topic = format!("load/{me}");
            hello.extend_from_slice(&[0x82, 5 + topic.len() as u8, 0, 1, 0, topic.len() as u8]);
            hello.extend_from_slice(topic.as_bytes());
            hello.push(0);
            stream.write_all(&hello)?;
            crowd.push(stream);
        }
        let topic = format!("load/{me}");
        let mut message = vec![0x30, 2 + topic.len() as u8 + 64, 0, topic.len() as u8];
        message.extend_from_slice(topic.as_bytes());
        message.extend_from_slice(&[b'x'; 64]);
        let messages = message.repeat(400);
        let mut taken = vec![0; 64 << 10];
        for _ in 0..10 {
            if done.load(Ordering::Relaxed) || crowd[0].write_all(&messages).is_err() {
                break;
            }
            for stream in &mut crowd {
                // Nothing there is no failure: the reactors are busy.
                let _ = stream.read(&mut taken);
            }
        }
    }
    Ok(())
}

/// Seconds of CPU of the threads of a process whose names begin so.
fn cpu_of(pid: u32, name: &str) -> io::Result<f64> {
    let mut ticks = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (before, after) = stat.rsplit_once(')').unwrap_or_default();
        if before
            .split_once('(')
            .is_some_and(|(_, comm)| comm.starts_with(name))
        {
            let fields: Vec<&str> = after.split_whitespace().collect();
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
            ticks += field(11).unwrap_or(0) + field(12).unwrap_or(0);
        }
    }
    // Linux counts hundredths of a second there, whatever the kernel's own clock is.
    Ok(ticks as f64 / 100.0)
}

/// The lookup's address in the log.
fn address(log: &str) -> Result<SocketAddr, String> {
    let at = log
        .split("lookup=\"")
        .nth(1)
        .and_then(|at| at.split('"').next());
    at.and_then(|text| text.parse().ok())
        .ok_or_else(|| "the server's log names no lookup".to_owned())
}

/// As JSON.
pub(crate) fn json(tickets: &Tickets) -> String {
    let mut out = String::new();
    let asked = tickets.asked as f64;
    // Writing to a String can't fail.
    _ = writeln!(
        out,
        "{{\"tickets\":{},\"failed\":{},\"tickets_per_second\":{:.0},\"tickets_per_core_second\":{:.0},\"rate\":{},\"saturated\":{},\"p50_us\":{},\"p99_us\":{},\"p999_us\":{},\"max_us\":{},\"reactors_busy\":{:.3}}}",
        tickets.asked,
        tickets.failed,
        asked / tickets.seconds,
        asked / tickets.cpu,
        tickets.rate,
        tickets.saturated,
        tickets.latency.at(0.5),
        tickets.latency.at(0.99),
        tickets.latency.at(0.999),
        tickets.latency.max(),
        tickets.busy
    );
    out
}
