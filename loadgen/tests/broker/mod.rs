//! A broker of a few dozen lines, with a fault on purpose. A thread a connection; exact topics only.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use loadgen::clock;
use loadgen::payload::Payload;
use stillwire::wire::{
    Ack, Connack, Packet, PacketId, Qos, ReasonCode, Suback, Version, decode, frame,
};

/// What it does wrong with every seventh delivery. Besides, it answers no PINGREQ and closes no connection whose client id comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Lose,
    Repeat,
    /// Sends the message after the next one of the same sequence.
    Swap,
    Damage,
    /// Sends the message when it is late.
    Delay,
}

/// A message that takes longer is late, for the phones of [`Fault::Delay`].
pub(crate) const LATE: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Receiver {
    stream: Option<TcpStream>,
    held: HashMap<u8, Vec<u8>>,
}

#[derive(Default)]
struct State {
    topics: HashMap<String, Vec<Arc<Mutex<Receiver>>>>,
    deliveries: u64,
}

pub(crate) struct FakeBroker {
    pub(crate) addr: SocketAddr,
    forwarded: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
    held: Arc<AtomicU64>,
    guests: Arc<Mutex<Vec<Guest>>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

/// A CONNECT as it came.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) client_id: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) when: Instant,
}

#[derive(Clone)]
struct Connection {
    state: Arc<Mutex<State>>,
    fault: Fault,
    forwarded: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
    held: Arc<AtomicU64>,
    guests: Arc<Mutex<Vec<Guest>>>,
    own: Arc<Mutex<Receiver>>,
}

impl FakeBroker {
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let [forwarded, faults, held] = std::array::from_fn(|_| Arc::new(AtomicU64::new(0)));
        let shared = Connection {
            state: Arc::default(),
            fault,
            forwarded: Arc::clone(&forwarded),
            faults: Arc::clone(&faults),
            held: Arc::clone(&held),
            guests: Arc::default(),
            own: Arc::default(),
        };
        let guests = Arc::clone(&shared.guests);
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let all = Arc::clone(&streams);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                all.lock().unwrap().push(stream.try_clone().unwrap());
                let connection = Connection {
                    own: Arc::default(),
                    ..shared.clone()
                };
                std::thread::spawn(move || connection.serve(stream));
            }
        });
        Self {
            addr,
            forwarded,
            faults,
            held,
            guests,
            streams,
        }
    }

    /// Who has come so far.
    pub(crate) fn guests(&self) -> Vec<Guest> {
        self.guests.lock().unwrap().clone()
    }

    /// Ends all connections.
    pub(crate) fn hang_up(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _gone_already = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Deliveries that can be received: not those that were lost, damaged or are still held.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.load(Relaxed)
    }

    /// How often the fault was done.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Messages that wait for a later one to overtake them.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }
}

impl Connection {
    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        self.own.lock().unwrap().stream = Some(stream.try_clone().unwrap());
        let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
        // A phone hangs up with a reset, which ends the thread like an end of file.
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            input.extend_from_slice(&chunk[..n]);
            let mut used = 0;
            while let Some(packet) = frame::split(&input[used..], u32::MAX).unwrap() {
                self.packet(&decode(&packet, Version::V311).unwrap());
                used += packet.len;
            }
            input.drain(..used);
        }
    }

    fn reply(&self, packet: &Packet<'_>) {
        let mut out = Vec::new();
        packet.encode(Version::V311, &mut out);
        write(&mut self.own.lock().unwrap(), &out);
    }

    fn packet(&self, packet: &Packet<'_>) {
        match packet {
            Packet::Connect(connect) => {
                let password = connect.password.map(<[u8]>::to_vec);
                self.guests.lock().unwrap().push(Guest {
                    client_id: connect.client_id.to_owned(),
                    user: connect.username.map(str::to_owned),
                    password: password.map(|bytes| String::from_utf8(bytes).unwrap()),
                    when: Instant::now(),
                });
                self.reply(&Packet::Connack(Connack::default()));
            }
            Packet::Subscribe(subscribe) => {
                let mut state = self.state.lock().unwrap();
                let mut codes = Vec::new();
                for (topic, options) in subscribe.filters.iter() {
                    state
                        .topics
                        .entry(topic.to_owned())
                        .or_default()
                        .push(Arc::clone(&self.own));
                    codes.push(options.qos as u8);
                }
                drop(state);
                self.reply(&Packet::Suback(Suback::new(subscribe.packet_id, &codes)));
            }
            Packet::Publish(publish) => {
                let mut state = self.state.lock().unwrap();
                let receivers = state.topics.get(publish.topic).cloned().unwrap_or_default();
                for receiver in receivers {
                    state.deliveries += 1;
                    let faulty = self.fault != Fault::None && state.deliveries.is_multiple_of(7);
                    let mut payload = publish.payload.to_vec();
                    if faulty && self.fault == Fault::Damage {
                        payload[30] ^= 1;
                    }
                    let forwarded = stillwire::wire::Publish {
                        payload: &payload,
                        packet_id: publish.packet_id.and(PacketId::new(1)),
                        dup: false,
                        ..*publish
                    };
                    if faulty && self.fault == Fault::Delay {
                        let planned = Payload::read(&payload).unwrap().planned;
                        while clock::now() <= planned + clock::nanos(LATE) {
                            std::thread::yield_now();
                        }
                        self.faults.fetch_add(1, Relaxed);
                    }
                    let mut out = Vec::new();
                    Packet::Publish(forwarded).encode(Version::V311, &mut out);
                    self.deliver(&mut receiver.lock().unwrap(), out, payload[2], faulty);
                }
                drop(state);
                if publish.qos == Qos::AtLeastOnce
                    && let Some(id) = publish.packet_id
                {
                    self.reply(&Packet::Puback(Ack::new(id, ReasonCode::SUCCESS)));
                }
            }
            _ => {}
        }
    }

    fn deliver(&self, receiver: &mut Receiver, out: Vec<u8>, kind: u8, faulty: bool) {
        let held = receiver.held.remove(&kind);
        // What is held already is sent late now; a second one isn't held, so that each swap is one.
        match self.fault {
            Fault::Swap if faulty && held.is_none() => {
                self.held.fetch_add(1, Relaxed);
                receiver.held.insert(kind, out);
                return;
            }
            Fault::Lose if faulty => {
                self.faults.fetch_add(1, Relaxed);
                return;
            }
            Fault::Damage if faulty => {
                self.faults.fetch_add(1, Relaxed);
                return write(receiver, &out);
            }
            Fault::Repeat if faulty => {
                self.faults.fetch_add(1, Relaxed);
                self.forwarded.fetch_add(1, Relaxed);
                write(receiver, &out);
            }
            _ => {}
        }
        self.forwarded.fetch_add(1, Relaxed);
        write(receiver, &out);
        if let Some(held) = held {
            self.held.fetch_sub(1, Relaxed);
            self.faults.fetch_add(1, Relaxed);
            self.forwarded.fetch_add(1, Relaxed);
            write(receiver, &held);
        }
    }
}

fn write(receiver: &mut Receiver, bytes: &[u8]) {
    // The phone may have hung up.
    if let Some(stream) = &mut receiver.stream {
        let _gone = stream.write_all(bytes);
    }
}
