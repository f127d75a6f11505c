//! Publishers that send as fast as the broker acknowledges, and a bystander that feels what that does to others.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::packet::{self, Connect, PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish};

use super::crowd::{self, TO_ALL};

/// Bytes of a message.
pub(super) const PAYLOAD: usize = 64;

/// Connections that publish; each session's messages come from one of them.
const PUBLISHERS: u32 = 4;

/// Messages under way on a connection, unless the broker allows fewer.
const WINDOW: usize = 1000;

/// The longest wait for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two pings of the bystander.
const PAUSE: Duration = Duration::from_micros(500);

/// A connection that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    stream: TcpStream,
    version: u8,
    window: usize,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Packet identifiers that are free.
    ids: VecDeque<u16>,
    acknowledged: u64,
}

impl Publisher {
    /// Connects and waits for the CONNACK.
    pub(super) fn connect(addr: SocketAddr, version: u8, id: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut output = Vec::new();
        Connect {
            version,
            id,
            clean: true,
            expiry: 0,
            receive_maximum: 100,
        }
        .write(&mut output);
        stream.write_all(&output)?;
        output.clear();
        let mut publisher = Self {
            stream,
            version,
            window: 0,
            input: Vec::new(),
            output,
            ids: VecDeque::new(),
            acknowledged: 0,
        };
        while publisher.window == 0 {
            publisher.read()?;
        }
        publisher.ids = (1..=publisher.window as u16).collect();
        Ok(publisher)
    }

    /// Puts one message into the output, if one more may be under way.
    fn add(&mut self, topic: &str, session: u32, seq: u32, qos: u8) -> bool {
        let Some(id) = self.ids.pop_front() else {
            return false;
        };
        let mut payload = [0x5a; PAYLOAD];
        payload[..4].copy_from_slice(&session.to_le_bytes());
        payload[4..8].copy_from_slice(&seq.to_le_bytes());
        Publish {
            topic,
            qos,
            retain: false,
            dup: false,
            id,
            payload: &payload,
        }
        .write(self.version, &mut self.output);
        true
    }

    /// Reads once and takes the acknowledgements.
    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        let count = match self.stream.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.input.extend_from_slice(&chunk[..count]);
        let mut at = 0;
        while let Some((packet, len)) =
            packet::split(&self.input[at..], self.version).map_err(io::Error::other)?
        {
            at += len;
            match packet {
                Packet::Connack {
                    code: 0,
                    receive_maximum,
                    ..
                } => {
                    self.window = WINDOW.min(usize::from(receive_maximum));
                }
                Packet::Ack {
                    kind: PUBREC,
                    id,
                    code,
                } if code < 0x80 => {
                    packet::ack(PUBREL, id, &mut self.output);
                }
                Packet::Ack {
                    kind: PUBACK | PUBCOMP,
                    id,
                    code,
                } if code < 0x80 => {
                    self.ids.push_back(id);
                    self.acknowledged += 1;
                }
                other => return Err(io::Error::other(format!("a publisher got {other}"))),
            }
        }
        self.input.drain(..at);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.stream.write(&self.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        Ok(())
    }

    /// One message to all who have subscribed to a topic; returns when it is acknowledged.
    pub(super) fn send_all(&mut self, topic: &str, seq: u32, qos: u8) -> io::Result<Duration> {
        let began = Instant::now();
        let before = self.acknowledged;
        self.add(topic, TO_ALL, seq, qos);
        while self.acknowledged == before {
            self.flush()?;
            self.read()?;
        }
        Ok(began.elapsed())
    }
}

/// Sends each session so many messages of its own, with numbers from `first`; returns when all are acknowledged.
pub(super) fn enqueue(
    addr: SocketAddr,
    version: u8,
    qos: u8,
    sessions: u32,
    each: u32,
) -> io::Result<Duration> {
    let mut publishers = (0..PUBLISHERS)
        .map(|n| Publisher::connect(addr, version, &format!("publisher-{n}")))
        .collect::<Result<Vec<_>, _>>()?;
    for publisher in &publishers {
        publisher.stream.set_nonblocking(true)?;
    }
    let topics: Vec<String> = (0..sessions).map(crowd::own_topic).collect();
    // Each publisher goes round its sessions, `each` times.
    let mut next: Vec<(u32, u32)> = (0..PUBLISHERS).map(|n| (n, 0)).collect();
    let began = Instant::now();
    let mut moved = Instant::now();
    let total = u64::from(sessions) * u64::from(each);
    let mut last = 0;
    loop {
        for (publisher, (session, seq)) in publishers.iter_mut().zip(&mut next) {
            while *seq < each && *session < sessions {
                if !publisher.add(&topics[*session as usize], *session, *seq, qos) {
                    break;
                }
                *session += PUBLISHERS;
                if *session >= sessions {
                    *session %= PUBLISHERS;
                    *seq += 1;
                }
            }
            publisher.flush()?;
            publisher.read()?;
        }
        let sum = publishers
            .iter()
            .map(|publisher| publisher.acknowledged)
            .sum();
        if sum == total {
            return Ok(began.elapsed());
        }
        if sum == last {
            if moved.elapsed() > PATIENCE {
                return Err(io::Error::other("no acknowledgement for two minutes"));
            }
            std::thread::yield_now();
        } else {
            (last, moved) = (sum, Instant::now());
        }
    }
}

/// A client that pings all the time.
#[derive(Debug)]
pub(super) struct Bystander {
    end: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Duration>>,
}

impl Bystander {
    pub(super) fn start(addr: SocketAddr, version: u8) -> io::Result<Self> {
        let mut publisher = Publisher::connect(addr, version, "bystander")?;
        let end = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let began = Instant::now();
                publisher.stream.write_all(&PINGREQ)?;
                publisher.stream.read_exact(&mut [0; 2])?;
                longest = longest.max(began.elapsed());
                std::thread::sleep(PAUSE);
            }
            Ok(longest)
        });
        Ok(Self { end, thread })
    }

    /// The longest wait for an answer.
    pub(super) fn end(self) -> io::Result<Duration> {
        self.end.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
