//! Many phones, each with a session that is kept: they subscribe and leave, and later come back for what was queued.
//!
//! A thread holds a part of them in a table of descriptors of its own, since a table has room for 20,000. What a phone gets is checked: each
//! message once, and in order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use loadgen::histogram::Histogram;
use loadgen::sources::Sources;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Socket, Type};
use stillwire::sys::table;

use crate::packet::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet};

/// Phones of one thread: a table of 20,000 descriptors has room for them.
const PHONES_A_THREAD: u32 = 15_000;

/// Without any progress for so long, what is missing won't come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds that a session is kept.
const EXPIRY: u32 = 86_400;

/// The session number in a message to all.
pub(super) const TO_ALL: u32 = u32::MAX;

/// The topic of messages to all.
pub(super) const ALL: &str = "all";

/// Topics that several phones share, in all.
const COMMON: u32 = 1000;

/// What the phones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Begin a session with so many subscriptions, and leave.
    Enroll {
        subscriptions: u32,
        /// Topics of its own instead of common ones.
        own: bool,
    },
    /// Come back, take so many messages of its own and to all, and stay.
    Return { own: u32, to_all: u32 },
}

/// Who does it, and where.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    pub(super) addr: SocketAddr,
    pub(super) version: u8,
    pub(super) qos: u8,
    pub(super) sessions: u32,
    /// Connections that are being made at the same time, over all threads.
    pub(super) at_once: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) received: u64,
    pub(super) missing: u64,
    pub(super) twice: u64,
    pub(super) disordered: u64,
    /// Phones whose session wasn't there, or was and shouldn't.
    pub(super) sessions_lost: u64,
    /// Phones that weren't done in time.
    pub(super) late: u64,
    /// From a phone's call until it had everything, in microseconds.
    pub(super) waits: Histogram,
    /// From the first call until the last phone had everything.
    pub(super) took: Duration,
}

/// The topic of a phone's own messages.
pub(super) fn own_topic(session: u32) -> String {
    format!("own/{session}")
}

fn filters(session: u32, subscriptions: u32, own: bool) -> Vec<String> {
    let more = subscriptions.saturating_sub(2);
    let mut filters = vec![own_topic(session), ALL.to_owned()];
    if own {
        filters.extend((0..more).map(|n| format!("own/{session}/{n}")));
    } else {
        let mut random = fastrand::Rng::with_seed(u64::from(session));
        let picked = random.choose_multiple(0..COMMON, more as usize);
        filters.extend(picked.iter().map(|n| format!("common/{n}")));
    }
    filters
}

impl Crowd {
    /// Does it, in as many threads as it takes; they hold their connections until what comes back is dropped.
    pub(super) fn run(&self, task: Task) -> io::Result<(Done, Held)> {
        let threads = match task {
            Task::Enroll { .. } => 1,
            Task::Return { .. } => self.sessions.div_ceil(PHONES_A_THREAD).max(1),
        };
        let began = Instant::now();
        let each = self.sessions.div_ceil(threads);
        let (told, done) = std::sync::mpsc::channel();
        let mut held = Held {
            ends: Vec::new(),
            threads: Vec::new(),
        };
        for thread in 0..threads {
            let range = each * thread..(each * (thread + 1)).min(self.sessions);
            let part = Self {
                at_once: (self.at_once / threads as usize).max(1),
                ..self.clone()
            };
            let (end, until) = std::sync::mpsc::channel::<()>();
            let told = told.clone();
            held.ends.push(end);
            held.threads.push(std::thread::spawn(move || {
                let result = Part::new(part, range, task).and_then(|mut part| {
                    part.run()?;
                    Ok(part)
                });
                // Nobody listens any more if another part has failed.
                let _gone = match result {
                    Ok(mut part) => {
                        let sent = told.send(Ok(std::mem::take(&mut part.done)));
                        // The connections stand until somebody says that they may go.
                        let _ended = until.recv();
                        sent
                    }
                    Err(error) => told.send(Err(error)),
                };
            }));
        }
        drop(told);
        let mut all = Done::default();
        for part in done.iter().take(threads as usize) {
            let part = part?;
            all.received += part.received;
            all.missing += part.missing;
            all.twice += part.twice;
            all.disordered += part.disordered;
            all.sessions_lost += part.sessions_lost;
            all.late += part.late;
            all.waits.add(&part.waits);
        }
        all.took = began.elapsed();
        Ok((all, held))
    }
}

/// Connections that stand; they end with it.
#[derive(Debug)]
pub(super) struct Held {
    ends: Vec<std::sync::mpsc::Sender<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ends.clear();
        for thread in self.threads.drain(..) {
            // What went wrong in it was told before.
            let _told = thread.join();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Calling,
    Greeting,
    Subscribing,
    Receiving,
    Leaving,
    Done,
}

struct Phone {
    stream: TcpStream,
    stage: Stage,
    input: Vec<u8>,
    output: Vec<u8>,
    began: Instant,
    had: Had,
}

/// What a phone has had, over all its connections.
#[derive(Clone, Copy, Default)]
struct Had {
    /// The next message of its own, and to all.
    next: [u32; 2],
    count: u32,
}

/// The phones of a thread.
struct Part {
    crowd: Crowd,
    task: Task,
    first: u32,
    waiting: VecDeque<u32>,
    /// Those whose connection broke.
    again: BTreeMap<u32, Had>,
    phones: Vec<Option<Box<Phone>>>,
    busy: usize,
    sources: Sources,
    poll: Poll,
    done: Done,
    moved: Instant,
}

impl Part {
    fn new(crowd: Crowd, range: Range<u32>, task: Task) -> io::Result<Self> {
        table::make_own(&[])?;
        Ok(Self {
            sources: Sources::choose(&[crowd.addr], Vec::new()),
            crowd,
            task,
            first: range.start,
            phones: range.clone().map(|_| None).collect(),
            waiting: range.collect(),
            again: BTreeMap::new(),
            busy: 0,
            poll: Poll::new()?,
            done: Done::default(),
            moved: Instant::now(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut chunk = vec![0; 64 << 10];
        while self.busy > 0 || !self.waiting.is_empty() {
            while self.busy < self.crowd.at_once
                && let Some(session) = self.waiting.pop_front()
            {
                self.call(session)?;
            }
            self.poll
                .poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                self.moved = Instant::now();
                self.turn(event.token().0, &mut chunk)?;
            }
            if self.moved.elapsed() > PATIENCE {
                break;
            }
        }
        self.count_late();
        Ok(())
    }

    fn count_late(&mut self) {
        let expected = self.expected();
        for phone in self.phones.iter().flatten() {
            if phone.stage != Stage::Done {
                self.done.late += 1;
                self.done.missing += u64::from(expected.saturating_sub(phone.had.count));
            }
        }
        let away = self.waiting.len() as u64;
        self.done.late += away;
        self.done.missing += away * u64::from(expected);
    }

    fn expected(&self) -> u32 {
        match self.task {
            Task::Enroll { .. } => 0,
            Task::Return { own, to_all } => own + to_all,
        }
    }

    fn call(&mut self, session: u32) -> io::Result<()> {
        let stream = connect(self.crowd.addr, &self.sources, session)?;
        let at = (session - self.first) as usize;
        let mut phone = Box::new(Phone {
            stream,
            stage: Stage::Calling,
            input: Vec::new(),
            output: Vec::new(),
            began: Instant::now(),
            had: self.again.remove(&session).unwrap_or_default(),
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut phone.stream, Token(at), interest)?;
        Connect {
            version: self.crowd.version,
            id: &format!("phone-{session}"),
            clean: false,
            expiry: EXPIRY,
            receive_maximum: 1000,
        }
        .write(&mut phone.output);
        self.phones[at] = Some(phone);
        self.busy += 1;
        Ok(())
    }

    fn turn(&mut self, at: usize, chunk: &mut [u8]) -> io::Result<()> {
        let Some(mut phone) = self.phones[at].take() else {
            return Ok(());
        };
        let before = phone.stage;
        let open = phone.read(self.crowd.version, chunk, |phone, packet| {
            self.take(at, phone, packet);
        });
        phone.flush();
        let (registry, enrolls) = (
            self.poll.registry(),
            matches!(self.task, Task::Enroll { .. }),
        );
        if !open || phone.stage == Stage::Done && enrolls {
            if phone.stage == Stage::Leaving {
                phone.stage = Stage::Done;
            }
            if phone.stage != Stage::Done {
                self.busy -= 1;
                let session = self.first + at as u32;
                self.again.insert(session, phone.had);
                self.waiting.push_back(session);
                return hang_up(*phone, registry);
            }
            if before != Stage::Done {
                self.busy -= 1;
            }
            return hang_up(*phone, registry);
        }
        if before != Stage::Done && phone.stage == Stage::Done {
            self.busy -= 1;
            phone.input = Vec::new();
            phone.output = Vec::new();
        }
        self.phones[at] = Some(phone);
        Ok(())
    }

    fn take(&mut self, at: usize, phone: &mut Phone, packet: &Packet<'_>) {
        let session = self.first + at as u32;
        match packet {
            Packet::Connack {
                present, code: 0, ..
            } => {
                let version = self.crowd.version;
                match self.task {
                    Task::Enroll { subscriptions, own } => {
                        self.done.sessions_lost += u64::from(*present);
                        let filters = filters(session, subscriptions, own);
                        let filters = filters.iter().map(String::as_str);
                        packet::subscribe(version, 1, filters, self.crowd.qos, &mut phone.output);
                        phone.stage = Stage::Subscribing;
                    }
                    Task::Return { .. } => {
                        self.done.sessions_lost += u64::from(!*present);
                        phone.stage = Stage::Receiving;
                        self.look(phone);
                    }
                }
            }
            Packet::Suback { .. } => {
                phone.output.extend_from_slice(&packet::DISCONNECT);
                phone.stage = Stage::Leaving;
            }
            Packet::Publish(publish) => {
                match publish.qos {
                    0 => {}
                    1 => packet::ack(PUBACK, publish.id, &mut phone.output),
                    _ => packet::ack(PUBREC, publish.id, &mut phone.output),
                }
                self.count(session, phone, publish.payload);
                self.look(phone);
            }
            Packet::Ack {
                kind: PUBREL, id, ..
            } => packet::ack(PUBCOMP, *id, &mut phone.output),
            _ => {}
        }
    }

    fn count(&mut self, session: u32, phone: &mut Phone, payload: &[u8]) {
        let number = |at: usize| {
            let bytes = payload
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        let (to, seq) = (number(0), number(4));
        let which = usize::from(to == TO_ALL);
        if to != session && to != TO_ALL {
            self.done.disordered += 1;
        } else if seq < phone.had.next[which] {
            self.done.twice += 1;
        } else {
            self.done.disordered += u64::from(seq != phone.had.next[which]);
            phone.had.next[which] = seq + 1;
            phone.had.count += 1;
            self.done.received += 1;
        }
    }

    /// Whether it has everything.
    fn look(&mut self, phone: &mut Phone) {
        if phone.stage == Stage::Receiving && phone.had.count >= self.expected() {
            phone.stage = Stage::Done;
            self.done
                .waits
                .record(phone.began.elapsed().as_micros() as u64);
        }
    }
}

impl Phone {
    /// Reads all that is there; false at the end of the connection.
    fn read(
        &mut self,
        version: u8,
        chunk: &mut [u8],
        mut take: impl FnMut(&mut Self, &Packet<'_>),
    ) -> bool {
        if self.stage == Stage::Calling {
            self.stage = Stage::Greeting;
        }
        loop {
            match self.stream.read(chunk) {
                Ok(0) => return false,
                Ok(count) => {
                    let mut input = std::mem::take(&mut self.input);
                    let whole: &[u8] = if input.is_empty() {
                        &chunk[..count]
                    } else {
                        input.extend_from_slice(&chunk[..count]);
                        &input
                    };
                    let mut at = 0;
                    // A server that breaks the standard is for `crash` to find.
                    while let Ok(Some((packet, len))) = packet::split(&whole[at..], version) {
                        take(self, &packet);
                        at += len;
                    }
                    self.input = whole[at..].to_vec();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.stream.write(&self.output[sent..]) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        self.output.drain(..sent);
    }
}

fn connect(addr: SocketAddr, sources: &Sources, session: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // A connection that ends leaves nothing behind: neither a port in TIME_WAIT nor a byte.
    socket.set_linger(Some(Duration::ZERO))?;
    if let Some(source) = sources.of(session) {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

fn hang_up(mut phone: Phone, registry: &Registry) -> io::Result<()> {
    registry.deregister(&mut phone.stream)
}
