//! What is done under each setting. All of it is plain sockets over the loopback of a namespace, so that nothing but the kernel is tried.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use loadgen::machine::{self, CpuTime};
use socket2::{Domain, Protocol, Socket, Type};
use stillwire::sys::listen;

use super::{Figures, in_namespace};
use crate::sys::{self, Epoll, NO_EVENT, Watch};

/// What a case without a sysctl has chosen.
static CHOSEN: Mutex<String> = Mutex::new(String::new());

pub(super) fn choose(value: &str) {
    value.clone_into(&mut CHOSEN.lock().expect("nobody panics with it"));
}

fn chosen() -> String {
    CHOSEN.lock().expect("nobody panics with it").clone()
}

const LOCALHOST: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn server(defer: u32) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = listen::listen(SocketAddr::from(LOCALHOST), 65_535, defer)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn caller() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
}

/// A socket that has begun to connect, and waits for nothing.
fn calling(address: SocketAddr) -> io::Result<Socket> {
    let socket = caller()?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// EINPROGRESS.
const IN_PROGRESS: i32 = 115;

fn connected(sockets: &[Socket]) -> usize {
    sockets
        .iter()
        .filter(|socket| socket.peer_addr().is_ok())
        .count()
}

/// Closes with a reset: leaves no `TIME_WAIT` behind for the next case.
fn drop_all(sockets: Vec<Socket>) {
    for socket in sockets {
        // One that never got through has nothing to reset.
        let _unneeded = socket.set_linger(Some(Duration::ZERO));
    }
}

/// A counter of /proc/net/netstat.
fn counter(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let found = names
            .split(' ')
            .zip(values.split(' '))
            .find(|(one, _)| *one == name);
        if let Some(value) = found.and_then(|(_, value)| value.parse().ok()) {
            return value;
        }
    }
    0.0
}

/// Many at once, before anybody accepts.
pub(super) fn backlog() -> io::Result<Figures> {
    const PHONES: usize = 12_000;
    let (listener, address) = server(0)?;
    let overflows = counter("ListenOverflows");
    let began = Instant::now();
    let phones: Vec<Socket> = (0..PHONES)
        .map(|_| calling(address))
        .collect::<io::Result<_>>()?;
    thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
    let waiting = PHONES - connected(&phones);
    let done = AtomicBool::new(false);
    let seconds = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((socket, _)) => drop(socket),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        while connected(&phones) < PHONES && began.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::Relaxed);
        began.elapsed().as_secs_f64()
    });
    let figures = Figures::from([
        ("not connected after 1 s", waiting as f64),
        ("seconds until all are", seconds),
        ("SYNs dropped", counter("ListenOverflows") - overflows),
    ]);
    drop_all(phones);
    Ok(figures)
}

/// Many that connect and say nothing.
pub(super) fn half_open() -> io::Result<Figures> {
    const PHONES: usize = 6_000;
    let (_listener, address) = server(30)?;
    let (drops, cookies) = (counter("ListenDrops"), counter("SyncookiesSent"));
    let phones: Vec<Socket> = (0..PHONES)
        .map(|_| calling(address))
        .collect::<io::Result<_>>()?;
    thread::sleep(Duration::from_millis(700));
    let figures = Figures::from([
        ("connected", connected(&phones) as f64),
        ("dropped", counter("ListenDrops") - drops),
        ("cookies sent", counter("SyncookiesSent") - cookies),
    ]);
    drop_all(phones);
    Ok(figures)
}

/// So many pairs: the callers, and what was accepted.
fn pairs(
    listener: &TcpListener,
    address: SocketAddr,
    count: usize,
) -> io::Result<Vec<(Socket, TcpStream)>> {
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let phone = caller()?;
        phone.connect(&address.into())?;
        let ours = loop {
            match listener.accept() {
                Ok((socket, _)) => break socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        };
        pairs.push((phone, ours));
    }
    Ok(pairs)
}

/// Pages of `tcp_mem` that unread bytes take. The count is the whole machine's, so much is pending that others don't show.
pub(super) fn pending_pages() -> io::Result<Figures> {
    const PHONES: usize = 4_000;
    let bytes: usize = chosen().parse().unwrap_or(0);
    let (listener, address) = server(0)?;
    let pairs = pairs(&listener, address, PHONES)?;
    let before = machine::tcp_buffers()?;
    for (_, ours) in &pairs {
        let mut ours = ours;
        ours.write_all(&vec![7; bytes])?;
    }
    let after = machine::tcp_buffers()?;
    let figures = Figures::from([(
        "bytes of tcp_mem a phone",
        (after as f64 - before as f64) / PHONES as f64,
    )]);
    drop_all(pairs.into_iter().map(|(phone, _)| phone).collect());
    Ok(figures)
}

/// What the kernel takes for phones that read nothing, until it takes no more.
pub(super) fn slow_readers() -> io::Result<Figures> {
    const PHONES: usize = 200;
    const MOST: usize = 64 << 20;
    let (listener, address) = server(0)?;
    let pairs = pairs(&listener, address, PHONES)?;
    let before = machine::tcp_buffers()?;
    let mut taken = 0;
    for (_, ours) in &pairs {
        ours.set_nonblocking(true)?;
    }
    // Rounds, as messages come; the kernel grows a send buffer with its window.
    let mut tired = 0;
    while tired < 20 {
        let mut some = false;
        for (_, ours) in &pairs {
            let mut ours = ours;
            while taken < MOST * PHONES {
                match ours.write(&[7; 1000]) {
                    Ok(n) => {
                        taken += n;
                        some = true;
                    }
                    Err(_) => break,
                }
            }
        }
        tired = if some { 0 } else { tired + 1 };
        thread::sleep(Duration::from_millis(10));
    }
    let held = machine::tcp_buffers()? as f64 - before as f64;
    let figures = Figures::from([
        ("bytes taken a phone", taken as f64 / PHONES as f64),
        ("bytes of tcp_mem a phone", held / PHONES as f64),
    ]);
    drop_all(pairs.into_iter().map(|(phone, _)| phone).collect());
    Ok(figures)
}

/// Connects and closes until the time is over.
pub(super) fn ports() -> io::Result<Figures> {
    // A port of its own each time, outside of the callers' range: the kernel would choose one of the few that no `TIME_WAIT` holds, which is
    // the one of the case before, and its connections would be in the way.
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let address = SocketAddr::from((LOCALHOST.0, PORT.fetch_add(1, Ordering::Relaxed)));
    let listener = listen::listen(address, 65_535, 0)?;
    let done = AtomicBool::new(false);
    let (mut connects, mut refused) = (0u64, 0u64);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match listener.accept() {
                    // The caller closes first and keeps the `TIME_WAIT`: this end waits for it.
                    Ok((mut socket, _)) => {
                        let _end = socket
                            .set_nonblocking(false)
                            .and_then(|()| socket.read(&mut [0]));
                    }
                    Err(_) => thread::sleep(Duration::from_micros(200)),
                }
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            if TcpStream::connect(address).is_ok() {
                connects += 1;
            } else {
                refused += 1;
                thread::sleep(Duration::from_millis(1));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    Ok(Figures::from([
        ("connects", connects as f64),
        ("without a port", refused as f64),
    ]))
}

/// Bytes of a hello: a CONNECT with a client identifier.
const HELLO: [u8; 30] = [7; 30];

/// Phones that connect and say hello; the server's thread reads it and keeps them.
fn greeted(defer: bool, phones: usize) -> io::Result<f64> {
    let (listener, address) = server(if defer { 3 } else { 0 })?;
    let server = thread::spawn(move || -> io::Result<f64> {
        let epoll = Epoll::new()?;
        epoll.add(listener.as_raw_fd(), Watch::Level)?;
        let mut events = [NO_EVENT; 64];
        let (mut buffer, mut greeted) = ([0; 64], 0);
        let mut open = Vec::with_capacity(phones);
        let began = sys::thread_cpu_nanos()?;
        while greeted < phones {
            let n = epoll.wait(&mut events)?;
            for event in &events[..n] {
                let from = event.u64 as i32;
                if from != listener.as_raw_fd() {
                    if let sys::Read::Bytes(_) = sys::read(from, &mut buffer) {
                        greeted += 1;
                    }
                    continue;
                }
                while let Some(socket) = sys::accept(listener.as_raw_fd()) {
                    open.push(socket);
                    if defer && matches!(sys::read(socket, &mut buffer), sys::Read::Bytes(_)) {
                        greeted += 1;
                    }
                    // Both watch it from then on: one now, the other before the hello.
                    epoll.add(socket, Watch::Edge)?;
                }
            }
        }
        let micros = (sys::thread_cpu_nanos()? - began) as f64 / 1e3 / phones as f64;
        open.into_iter().for_each(sys::close);
        Ok(micros)
    });
    let mut open = Vec::with_capacity(phones);
    for _ in 0..phones {
        let phone = caller()?;
        phone.connect(&address.into())?;
        phone.send(&HELLO)?;
        open.push(phone);
    }
    let micros = server
        .join()
        .map_err(|_| io::Error::other("the server panicked"))?;
    drop_all(open);
    micros
}

pub(super) fn hello() -> io::Result<Figures> {
    Ok(Figures::from([(
        "server CPU, us a connect",
        greeted(chosen() == "on", 6_000)?,
    )]))
}

pub(super) fn tracked() -> io::Result<Figures> {
    const PHONES: usize = 6_000;
    let entries = || -> f64 {
        let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0.0)
    };
    let (before, had) = (CpuTime::of(std::process::id())?, entries());
    greeted(true, PHONES)?;
    let (micros, _) = CpuTime::of(std::process::id())?.micros_since(&before);
    Ok(Figures::from([
        ("CPU of both ends, us a connect", micros / PHONES as f64),
        ("entries", (entries() - had).max(0.0)),
    ]))
}

/// Messages to one after the other of many, in a namespace whose table is as large as this one has been told for its children.
pub(super) fn in_small_table() -> io::Result<Figures> {
    let output = in_namespace(&["knobs".to_owned(), "--body=table".to_owned()])?;
    read(&output)
}

/// Sockets under a limit of open files that a shell has set.
pub(super) fn files() -> io::Result<Figures> {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n \"$1\" && exec \"$0\" knobs --body=files"])
        .arg(std::env::current_exe()?)
        .arg(chosen())
        .output()?;
    read(&output)
}

fn read(output: &std::process::Output) -> io::Result<Figures> {
    let said: std::collections::BTreeMap<String, f64> = serde_json::from_slice(&output.stdout)
        .map_err(|_| io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))?;
    let value = |name| said.get(name).map(|value| (name, *value));
    Ok(BODY_FIGURES.iter().copied().filter_map(value).collect())
}

/// Names of figures that a process by itself may tell.
const BODY_FIGURES: &[&str] = &["CPU, us a message there and back", "sockets"];

/// A load that is a process by itself.
pub(super) fn body(name: &str) -> io::Result<Figures> {
    match name {
        "table" => messages(),
        "files" => {
            let mut sockets = Vec::new();
            while let Ok(socket) = caller() {
                sockets.push(socket);
                if sockets.len() == 30_000 {
                    break;
                }
            }
            Ok(Figures::from([(BODY_FIGURES[1], sockets.len() as f64)]))
        }
        _ => Err(io::Error::other("no such load")),
    }
}

fn messages() -> io::Result<Figures> {
    const PHONES: usize = 8_000;
    const MESSAGES: usize = 60_000;
    let (listener, address) = server(0)?;
    let pairs = pairs(&listener, address, PHONES)?;
    let mut random = fastrand::Rng::with_seed(11);
    let mut message = [7; 64];
    let before = CpuTime::of(std::process::id())?;
    for _ in 0..MESSAGES {
        let (phone, ours) = &pairs[random.usize(..PHONES)];
        let (mut phone, mut ours) = (phone, ours);
        ours.write_all(&message)?;
        phone.read_exact(&mut message)?;
        phone.write_all(&message)?;
        ours.read_exact(&mut message)?;
    }
    let (micros, _) = CpuTime::of(std::process::id())?.micros_since(&before);
    drop_all(pairs.into_iter().map(|(phone, _)| phone).collect());
    Ok(Figures::from([(BODY_FIGURES[0], micros / MESSAGES as f64)]))
}
