//! 40,000 connections in one server process, with churn: nothing lost, and its memory back to where it was afterwards; what a connection costs
//! against the sum in `limits.rs`; and that it costs no more after everybody has come anew five times.
//!
//! Memory is what the process has of its own (`Pss_Anon`): pages of the program's file are counted in Pss once they have run for the first time,
//! are shared, and go when the kernel wants them.
//!
//! The process that runs this test has a limit of open files like the server, so the phones live on threads with fd tables of their own.
//! Where the machine allows less, the crowd is smaller, and the test says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};

use stillwire::limits;

use super::support::server::Options;
use super::support::{Client, Connect, Packet, Prop, Publish, Server, id, packet};

/// How many the issue asks for.
const CROWD: usize = 40_000;
const REACTORS: usize = 4;
/// Descriptors of a table that are not phones.
const SPARE: usize = 500;
/// Phones of a thread that may be on their way in at once.
const HANDSHAKES: usize = 300;
/// How long a phase may take; the machine may be busy.
const PHASE: Duration = Duration::from_secs(150);

#[test]
#[ignore = "takes a minute and most of the machine; tests/all runs it alone"]
fn forty_thousand_come_are_served_and_go() {
    let count = size();
    let server = Server::launch(&Options {
        reactors: REACTORS,
        mqtt: vec![("sys_interval", 0)],
        max_connections: Some(count as u32 + 1000),
        data_dir: None,
        queue_full: None,
        config: String::new(),
    });
    let empty = settled(&server);
    let (mut held_most, mut after) = (0, Vec::new());
    for cycle in 0..3 {
        let held = cycle_of(&server, count, cycle);
        let left = settled(&server);
        println!(
            "cycle {cycle}: {} kB empty, {} kB with {count} phones ({} bytes each), {} kB when all have gone",
            empty / 1024,
            held / 1024,
            held.saturating_sub(empty) / count as u64,
            left / 1024
        );
        held_most = held_most.max(held);
        after.push(left);
    }
    let reserved = (REACTORS * limits::REACTOR_RESERVED_BYTES) as u64;
    let most = (empty + reserved) * 11 / 10;
    assert!(held_most > most, "a crowd too small to tell");
    for left in &after {
        assert!(
            *left <= most,
            "it did not go with the crowd: {empty} before, {reserved} reserved, {held_most} at most, {after:?} after"
        );
    }
    assert!(
        after[2] <= after[1] + after[1] / 10,
        "it grows from crowd to crowd: {after:?}"
    );
    let mut client = server.client(5, "afterwards");
    client.fence();
}

/// Two crowds, one after the other, so that what the server takes for itself does not count.
#[test]
#[ignore = "takes most of the machine; tests/all runs it alone"]
fn crowd_costs_what_the_limits_say() {
    let count = size() / 4;
    let server = Server::launch(&Options {
        reactors: 2,
        mqtt: vec![("sys_interval", 0)],
        max_connections: None,
        data_dir: None,
        queue_full: None,
        config: String::new(),
    });
    let first = Crowd::new(server.addr, 0..count, 0);
    first.bring(count);
    let few = settled(&server);
    let second = Crowd::new(server.addr, count..2 * count, 1);
    second.bring(count);
    let many = settled(&server);
    let each = many.saturating_sub(few) as f64 / count as f64;
    // The crowd's sessions are durable.
    let sum = (limits::IDLE_CONNECTION_BYTES + limits::DURABLE_SESSION_BYTES) as f64;
    println!("crowd of {count}, and as many more: {each:.1} bytes each, the limits say {sum}");
    assert!(
        (0.9..=1.1).contains(&(each / sum)),
        "{each} bytes a connection, and the limits say {sum}"
    );
    for crowd in [first, second] {
        crowd.order(Order::Go);
        crowd.until("everybody has gone", |seen| seen.up == 0);
        crowd.end();
    }
}

/// Phones come and go: five times all are replaced, by halves, those of every other time under names that were not there before.
#[test]
#[ignore = "takes most of the machine; tests/all runs it alone"]
fn crowd_turns_over_and_costs_no_more() {
    let half = size() / 2;
    let server = Server::launch(&Options {
        reactors: REACTORS,
        mqtt: vec![("sys_interval", 0)],
        max_connections: None,
        data_dir: None,
        queue_full: None,
        config: String::new(),
    });
    let empty = settled(&server);
    let mut halves: Vec<Crowd> = (0..2_usize)
        .map(|side| Crowd::new(server.addr, side * half..(side + 1) * half, side as u8))
        .collect();
    for crowd in &halves {
        crowd.bring(half);
    }
    let first = settled(&server) - empty;
    let mut held = vec![first];
    for turnover in 1..=5_usize {
        for (side, crowd) in halves.iter_mut().enumerate() {
            crowd.order(Order::Go);
            crowd.until("everybody has gone", |seen| seen.up == 0);
            let place = 2 * (turnover / 2) + side;
            let numbers = place * half..(place + 1) * half;
            let next = Crowd::new(server.addr, numbers, (2 * turnover + side) as u8);
            std::mem::replace(crowd, next).end();
            crowd.bring(half);
        }
        let now = settled(&server) - empty;
        println!("crowd after turnover {turnover}: {now} bytes, {first} at first");
        held.push(now);
    }
    // Beside the twentieth, a chunk of the arena and a page of the allocator for each reactor: what was let go of in between leaves holes, which
    // are filled again. That is as much as a twentieth of a crowd as small as this.
    let holes = REACTORS * (limits::ARENA_CHUNK_BYTES + (64 << 10));
    let now = held[5];
    assert!(
        now <= first + first / 20 + holes as u64,
        "{first} bytes have become {now} with {} connections",
        2 * half
    );
    // The holes are there after two turnovers, and what comes then costs nothing.
    assert!(
        now <= held[2] + held[2] / 20,
        "it grows from turnover to turnover: {held:?}"
    );
    for crowd in halves {
        crowd.order(Order::Go);
        crowd.until("everybody has gone", |seen| seen.up == 0);
        crowd.end();
    }
}

/// As many phones as asked for, or as the limits of open files here and in the server allow.
fn size() -> usize {
    let wish = std::env::var("STILLWIRE_CROWD").map_or(CROWD, |text| {
        text.parse().expect("STILLWIRE_CROWD is a number")
    });
    let limits = std::fs::read_to_string("/proc/self/limits").expect("the limits of this process");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a limit of open files");
    // The server raises its soft limit to the hard one; three quarters, for homes are not spread evenly.
    let files: usize = line
        .split_whitespace()
        .nth(4)
        .and_then(|word| word.parse().ok())
        .unwrap_or(1 << 20);
    let count = wish.min(files.saturating_sub(SPARE) * REACTORS * 3 / 4);
    if count < CROWD {
        println!("a crowd of {count} instead of {CROWD}: {files} open files a table here");
    }
    count
}

/// Memory is given back with some delay; this waits until it has not fallen for three readings.
fn settled(server: &Server) -> u64 {
    let (mut least, mut steady) = (server.own_memory(), 0);
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(300));
        // A little traffic lets an idle allocator do its own work.
        server.open(5).connack(&Connect::new(5, "settles"));
        let now = server.own_memory();
        steady = if now + 8 * 1024 >= least {
            steady + 1
        } else {
            0
        };
        least = least.min(now);
        if steady == 3 {
            break;
        }
    }
    least
}

/// A crowd comes, is pushed to, churns and goes. Returns the server's memory while it was there.
fn cycle_of(server: &Server, count: usize, cycle: u8) -> u64 {
    let crowd = Crowd::new(server.addr, 0..count, cycle);
    let start = Instant::now();
    crowd.order(Order::Come);
    crowd.until("everybody is there", |seen| seen.up == count as u64);
    println!(
        "cycle {cycle}: {count} connected and subscribed in {:?}",
        start.elapsed()
    );
    let held = server.own_memory();

    let mut publisher = Publisher::new(server, "crowd publisher");
    let start = Instant::now();
    publisher.push_each(count, 0);
    crowd.until("each has its own message", |seen| seen.own == count as u64);
    println!(
        "cycle {cycle}: {count} single messages in {:?}",
        start.elapsed()
    );
    let start = Instant::now();
    for n in 0..3 {
        publisher.push_all(n);
    }
    crowd.until("each has three broadcasts", |seen| {
        seen.shared == 3 * count as u64
    });
    println!("cycle {cycle}: 3 broadcasts in {:?}", start.elapsed());

    // A tenth drops and comes back while messages are on their way: their sessions keep them.
    let before = crowd.seen();
    crowd.order(Order::Churn);
    publisher.push_each(count, 1);
    publisher.push_all(3);
    crowd.until("everybody is back and has everything", |seen| {
        seen.up == count as u64
            && seen.own == 2 * count as u64
            && seen.shared == 4 * count as u64
            && seen.came > before.came
    });
    let seen = crowd.seen();
    println!(
        "cycle {cycle}: {} came back, {} messages came again with DUP",
        seen.came - before.came,
        seen.again
    );
    assert_eq!(seen.came - before.came, (count as u64).div_ceil(10));

    crowd.order(Order::Go);
    crowd.until("everybody has gone", |seen| seen.up == 0);
    crowd.end();
    held
}

/// Sends at QoS 1 with a window below every server's receive maximum.
struct Publisher(Client);

impl Publisher {
    fn new(server: &Server, name: &str) -> Self {
        Self(server.client(4, name))
    }

    fn window(&mut self, messages: impl Iterator<Item = (String, u32)>) {
        let mut open = 0;
        let mut batch = Vec::new();
        for (n, (topic, number)) in messages.enumerate() {
            let id = (n % 60_000 + 1) as u16;
            batch.extend(
                Publish {
                    topic: &topic,
                    payload: &payload(number),
                    qos: 1,
                    id,
                    ..Publish::default()
                }
                .encode(4),
            );
            open += 1;
            if open == 20 {
                self.0.send(&std::mem::take(&mut batch));
                self.settle(&mut open);
            }
        }
        self.0.send(&batch);
        self.settle(&mut open);
    }

    fn settle(&mut self, open: &mut usize) {
        while *open > 0 {
            match self.0.next() {
                Packet::Ack { kind: 4, .. } => *open -= 1,
                other => panic!("{other:?}"),
            }
        }
    }

    fn push_each(&mut self, count: usize, number: u32) {
        self.window((0..count).map(|n| (format!("crowd/{n:06}"), number)));
    }

    fn push_all(&mut self, number: u32) {
        self.window(std::iter::once(("crowd/all".to_owned(), number)));
    }
}

/// 64 bytes, of which four count.
fn payload(number: u32) -> [u8; 64] {
    let mut out = [b'.'; 64];
    out[..4].copy_from_slice(&number.to_be_bytes());
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Come,
    Churn,
    Go,
    End,
}

/// What the threads have counted, all together.
#[derive(Default)]
struct Counters {
    up: AtomicU64,
    came: AtomicU64,
    own: AtomicU64,
    shared: AtomicU64,
    again: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    up: u64,
    came: u64,
    own: u64,
    shared: u64,
    again: u64,
}

/// All phones, on threads of which each has its own fd table.
struct Crowd {
    threads: Vec<(Sender<Order>, JoinHandle<()>)>,
    counters: Arc<Counters>,
}

impl Crowd {
    fn new(addr: SocketAddr, numbers: std::ops::Range<usize>, cycle: u8) -> Self {
        let counters = Arc::new(Counters::default());
        let limit = (numbers.len() / 4 + 1).min(15_000);
        let starts: Vec<usize> = numbers.clone().step_by(limit).collect();
        let threads = starts
            .into_iter()
            .enumerate()
            .map(|(thread, first)| {
                let (sender, orders) = channel();
                let counters = Arc::clone(&counters);
                let numbers = first..numbers.end.min(first + limit);
                // An address of its own for each thread and cycle: ports in TIME_WAIT are in nobody's way.
                let source = Ipv4Addr::new(127, 0, 10 + cycle, 10 + thread as u8);
                let thread = std::thread::spawn(move || {
                    stillwire::sys::table::make_own(&[])
                        .expect("a table of file descriptors of its own");
                    Phones::new(addr, source, numbers, counters).run(&orders);
                });
                (sender, thread)
            })
            .collect();
        Self { threads, counters }
    }

    /// All come, and have subscribed.
    fn bring(&self, count: usize) {
        self.order(Order::Come);
        self.until("everybody is there", |seen| seen.up == count as u64);
    }

    fn order(&self, order: Order) {
        for (orders, _) in &self.threads {
            orders.send(order).expect("a thread that listens");
        }
    }

    fn seen(&self) -> Seen {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let counters = &self.counters;
        Seen {
            up: of(&counters.up),
            came: of(&counters.came),
            own: of(&counters.own),
            shared: of(&counters.shared),
            again: of(&counters.again),
        }
    }

    fn until(&self, what: &str, condition: impl Fn(Seen) -> bool) {
        let end = Instant::now() + PHASE;
        while !condition(self.seen()) {
            assert!(
                self.threads.iter().all(|(_, thread)| !thread.is_finished()),
                "a thread of phones has ended"
            );
            assert!(
                Instant::now() < end,
                "this never came true: {what}; {:?}",
                self.seen()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(self) {
        self.order(Order::End);
        for (_, thread) in self.threads {
            thread.join().expect("phones that found nothing wrong");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Greeting,
    Up,
    Leaving,
}

struct Phone {
    number: usize,
    stream: Option<mio::net::TcpStream>,
    state: State,
    partial: Vec<u8>,
    /// The next number of its own messages and of the broadcasts.
    own: u32,
    shared: u32,
    /// It has been here before, so its session must be there.
    known: bool,
}

/// The phones of one thread.
struct Phones {
    addr: SocketAddr,
    source: Ipv4Addr,
    poll: Poll,
    phones: Vec<Phone>,
    /// Who is to come, and how many are on their way.
    coming: Vec<usize>,
    greeting: usize,
    counters: Arc<Counters>,
    scratch: Vec<u8>,
}

impl Phones {
    fn new(
        addr: SocketAddr,
        source: Ipv4Addr,
        numbers: std::ops::Range<usize>,
        counters: Arc<Counters>,
    ) -> Self {
        let phone = |number| Phone {
            number,
            stream: None,
            state: State::Away,
            partial: Vec::new(),
            own: 0,
            shared: 0,
            known: false,
        };
        Self {
            addr,
            source,
            poll: Poll::new().expect("a poller"),
            phones: numbers.map(phone).collect(),
            coming: Vec::new(),
            greeting: 0,
            counters,
            scratch: vec![0; 64 << 10],
        }
    }

    fn run(mut self, orders: &Receiver<Order>) {
        let mut events = Events::with_capacity(1024);
        loop {
            match orders.try_recv() {
                Ok(Order::Come) => self.coming = (0..self.phones.len()).collect(),
                Ok(Order::Churn) => self.churn(),
                Ok(Order::Go) => self.go(),
                Ok(Order::End) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
            }
            while self.greeting < HANDSHAKES {
                let Some(at) = self.coming.pop() else { break };
                self.come(at);
            }
            self.poll
                .poll(&mut events, Some(Duration::from_millis(10)))
                .expect("events");
            for event in &events {
                self.ready(event);
            }
        }
    }

    fn come(&mut self, at: usize) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket
            .bind(&SocketAddr::from((self.source, 0)).into())
            .expect("a source address");
        socket
            .connect(&self.addr.into())
            .expect("the server takes connections");
        socket
            .set_nonblocking(true)
            .expect("a socket that does not block");
        socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
        let mut stream = mio::net::TcpStream::from_std(socket.into());
        let phone = &mut self.phones[at];
        let props = [Prop::Four(id::SESSION_EXPIRY, 600)];
        let name = format!("crowd-{:06}", phone.number);
        let mut hello = Connect {
            clean: false,
            keep_alive: 600,
            props: &props,
            ..Connect::new(5, &name)
        }
        .encode();
        if !phone.known {
            let own = format!("crowd/{:06}", phone.number);
            hello.extend(packet::subscribe(5, 1, &[(&own, 1), ("crowd/all", 1)], &[]));
        }
        let sent = stream.write(&hello).expect("room for a first packet");
        assert_eq!(sent, hello.len());
        self.poll
            .registry()
            .register(&mut stream, Token(at), Interest::READABLE)
            .expect("a place in the poller");
        phone.stream = Some(stream);
        phone.state = State::Greeting;
        phone.partial.clear();
        self.greeting += 1;
    }

    /// Every tenth phone loses its network.
    fn churn(&mut self) {
        for at in 0..self.phones.len() {
            if self.phones[at].number.is_multiple_of(10) {
                self.phones[at].stream = None;
                self.phones[at].state = State::Away;
                self.counters.up.fetch_sub(1, Ordering::SeqCst);
                self.coming.push(at);
            }
        }
    }

    /// All say goodbye, and that their sessions end.
    fn go(&mut self) {
        let goodbye = packet::disconnect(5, 0, &[Prop::Four(id::SESSION_EXPIRY, 0)]);
        for phone in &mut self.phones {
            let stream = phone.stream.as_mut().expect("a phone that is there");
            phone.state = State::Leaving;
            assert_eq!(
                stream.write(&goodbye).expect("room for a last packet"),
                goodbye.len()
            );
        }
    }

    fn ready(&mut self, event: &Event) {
        let at = event.token().0;
        let mut scratch = std::mem::take(&mut self.scratch);
        // A phone may have dropped its connection after this event was collected.
        while let Some(stream) = &mut self.phones[at].stream {
            match stream.read(&mut scratch) {
                Ok(0) => {
                    self.closed(at, "end");
                    break;
                }
                Ok(count) => {
                    self.phones[at].partial.extend_from_slice(&scratch[..count]);
                    self.packets(at);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.closed(at, &error.to_string());
                    break;
                }
            }
        }
        self.scratch = scratch;
    }

    fn closed(&mut self, at: usize, why: &str) {
        let phone = &mut self.phones[at];
        assert_eq!(
            phone.state,
            State::Leaving,
            "phone {} was cut off: {why}",
            phone.number
        );
        phone.stream = None;
        phone.state = State::Away;
        self.counters.up.fetch_sub(1, Ordering::SeqCst);
    }

    fn packets(&mut self, at: usize) {
        let partial = std::mem::take(&mut self.phones[at].partial);
        let mut rest = partial.as_slice();
        while let Some((packet, len)) = packet::split(rest, 5) {
            self.packet(at, packet);
            rest = &rest[len..];
        }
        if !rest.is_empty() {
            self.phones[at].partial = rest.to_vec();
        }
    }

    fn packet(&mut self, at: usize, packet: Packet) {
        let phone = &mut self.phones[at];
        match packet {
            Packet::Connack { present, code, .. } => {
                assert_eq!(
                    (code, present),
                    (0, phone.known),
                    "CONNACK of phone {}",
                    phone.number
                );
                if phone.known {
                    self.arrived(at);
                }
            }
            Packet::Suback { codes, .. } => {
                assert_eq!(codes, [1, 1]);
                phone.known = true;
                self.arrived(at);
            }
            Packet::Publish(message) => {
                let number =
                    u32::from_be_bytes(message.payload[..4].try_into().expect("four bytes"));
                let own = message.topic != "crowd/all";
                assert!(
                    !own || message.topic == format!("crowd/{:06}", phone.number),
                    "{} at phone {}",
                    message.topic,
                    phone.number
                );
                let (next, counter) = if own {
                    (&mut phone.own, &self.counters.own)
                } else {
                    (&mut phone.shared, &self.counters.shared)
                };
                if number == *next {
                    *next += 1;
                    counter.fetch_add(1, Ordering::SeqCst);
                } else {
                    assert!(
                        message.dup && number < *next,
                        "phone {}: {} {number} where {next} was due",
                        phone.number,
                        message.topic
                    );
                    self.counters.again.fetch_add(1, Ordering::SeqCst);
                }
                let stream = phone.stream.as_mut().expect("a phone that is there");
                let ack = packet::ack(4, message.id);
                assert_eq!(
                    stream.write(&ack).expect("room for an acknowledgement"),
                    ack.len()
                );
            }
            other => panic!("phone {}: {other:?}", phone.number),
        }
    }

    fn arrived(&mut self, at: usize) {
        self.phones[at].state = State::Up;
        self.greeting -= 1;
        self.counters.up.fetch_add(1, Ordering::SeqCst);
        self.counters.came.fetch_add(1, Ordering::SeqCst);
    }
}
