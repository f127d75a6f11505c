//! A blocking MQTT client that a test drives packet by packet. It acknowledges only where it is asked to.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::packet::{self, Connect, Message, Packet, Prop, Publish};

/// What happened next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Packet(Packet),
    /// End of the stream or a reset.
    Closed,
    /// Nothing came in the given time.
    Nothing,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    pub version: u8,
    buf: Vec<u8>,
    start: usize,
    closed: bool,
    /// Packets that came while the test waited for another kind.
    kept: VecDeque<Packet>,
    next_id: u16,
}

impl Client {
    pub fn open(addr: SocketAddr, version: u8) -> Self {
        let stream = TcpStream::connect(addr).expect("the server takes connections");
        Self::over(stream, version)
    }

    pub fn over(stream: TcpStream, version: u8) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self {
            stream,
            version,
            buf: Vec::new(),
            start: 0,
            closed: false,
            kept: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Sends CONNECT and reads the CONNACK, which must accept; true if a session was there.
    pub fn connect(&mut self, connect: &Connect<'_>) -> bool {
        let (present, code, _) = self.connack(connect);
        assert_eq!(code, 0, "CONNECT was refused with {code:#04x}");
        present
    }

    /// Sends CONNECT and reads the CONNACK: session present, code, properties.
    pub fn connack(&mut self, connect: &Connect<'_>) -> (bool, u8, packet::Props) {
        self.send(&connect.encode());
        match self.next() {
            Packet::Connack {
                present,
                code,
                props,
            } => (present, code, props),
            other => panic!("the answer to CONNECT is {other:?}"),
        }
    }

    /// Writes; a peer that is gone is no error here, the test finds out when it reads.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A packet identifier that this connection has not used lately.
    pub fn id(&mut self) -> u16 {
        self.next_id = self.next_id % 60_000 + 1;
        self.next_id
    }

    /// The next packet or the end, within `patience`.
    pub fn event(&mut self, patience: Duration) -> Event {
        if let Some(packet) = self.kept.pop_front() {
            return Event::Packet(packet);
        }
        self.fresh(patience)
    }

    /// The next packet; panics when none comes.
    pub fn next(&mut self) -> Packet {
        match self.event(PATIENCE) {
            Event::Packet(packet) => packet,
            other => panic!("a packet was due, not {other:?}"),
        }
    }

    /// Takes the first packet for which `pick` gives a value, and keeps the others for later.
    pub fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Packet) -> Option<T>) -> T {
        for at in 0..self.kept.len() {
            if let Some(value) = pick(&self.kept[at]) {
                self.kept.remove(at);
                return value;
            }
        }
        loop {
            match self.fresh(PATIENCE) {
                Event::Packet(packet) => match pick(&packet) {
                    Some(value) => return value,
                    None => self.kept.push_back(packet),
                },
                other => panic!(
                    "waited for {what}, got {other:?}; before that: {:?}",
                    self.kept
                ),
            }
        }
    }

    fn fresh(&mut self, patience: Duration) -> Event {
        let end = Instant::now() + patience;
        loop {
            if let Some((packet, len)) = packet::split(&self.buf[self.start..], self.version) {
                self.start += len;
                if self.start > 1 << 16 {
                    self.buf.drain(..self.start);
                    self.start = 0;
                }
                return Event::Packet(packet);
            }
            if self.closed {
                return Event::Closed;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Nothing;
            }
            self.stream
                .set_read_timeout(Some(left))
                .expect("a read timeout");
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(count) => self.buf.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => self.closed = true,
                },
            }
        }
    }

    /// Bytes that were received and form no whole packet.
    pub fn leftover(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// Subscribes and returns the codes of the SUBACK. Messages that come meanwhile are kept.
    pub fn subscribe_with(&mut self, filters: &[(&str, u8)], props: &[Prop<'_>]) -> Vec<u8> {
        let id = self.id();
        let bytes = packet::subscribe(self.version, id, filters, props);
        self.send(&bytes);
        self.wait("SUBACK", |packet| match packet {
            Packet::Suback {
                id: have, codes, ..
            } => {
                assert_eq!(*have, id, "a SUBACK for another packet");
                Some(codes.clone())
            }
            _ => None,
        })
    }

    /// Subscribes to one filter; it must be granted as asked.
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(
            self.subscribe_with(&[(filter, qos)], &[]),
            [qos],
            "SUBSCRIBE to {filter}"
        );
    }

    /// Unsubscribes and returns the codes (none before MQTT 5).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.id();
        let bytes = packet::unsubscribe(self.version, id, filters);
        self.send(&bytes);
        self.wait("UNSUBACK", |packet| match packet {
            Packet::Unsuback {
                id: have, codes, ..
            } if *have == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Publishes and goes through the whole handshake of its QoS; returns the reason code of PUBACK, PUBREC or PUBCOMP.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) -> u8 {
        self.publish_all(Publish {
            topic,
            payload,
            qos,
            ..Publish::default()
        })
    }

    /// The same for a retained message.
    pub fn retain(&mut self, topic: &str, payload: &[u8], qos: u8) -> u8 {
        self.publish_all(Publish {
            topic,
            payload,
            qos,
            retain: true,
            ..Publish::default()
        })
    }

    /// The same with everything that a PUBLISH has; the packet identifier is set here.
    pub fn publish_all(&mut self, mut publish: Publish<'_>) -> u8 {
        if publish.qos > 0 {
            publish.id = self.id();
        }
        let bytes = publish.encode(self.version);
        self.send(&bytes);
        match publish.qos {
            0 => 0,
            1 => self.ack(4, publish.id),
            _ => {
                let code = self.ack(5, publish.id);
                if code >= 0x80 {
                    return code;
                }
                self.send(&packet::ack(6, publish.id));
                self.ack(7, publish.id)
            }
        }
    }

    /// Waits for an acknowledgement of this type and identifier, and gives its reason code.
    pub fn ack(&mut self, kind: u8, id: u16) -> u8 {
        self.wait(
            &format!("acknowledgement of type {kind} for {id}"),
            |packet| match packet {
                Packet::Ack {
                    kind: have,
                    id: of,
                    code,
                    ..
                } if *have == kind && *of == id => Some(*code),
                _ => None,
            },
        )
    }

    /// The next message, not acknowledged.
    pub fn message(&mut self) -> Message {
        self.wait("a message", |packet| match packet {
            Packet::Publish(message) => Some(message.clone()),
            _ => None,
        })
    }

    /// The next message, acknowledged as its QoS asks.
    pub fn take(&mut self) -> Message {
        let message = self.message();
        self.settle(&message);
        message
    }

    /// The receiver's side of the handshake of a message.
    pub fn settle(&mut self, message: &Message) {
        match message.qos {
            0 => {}
            1 => self.send(&packet::ack(4, message.id)),
            _ => {
                self.send(&packet::ack(5, message.id));
                assert_eq!(self.ack(6, message.id), 0, "the reason of PUBREL");
                self.send(&packet::ack(7, message.id));
            }
        }
    }

    /// Goes on taking messages until one has this payload, which is not among those returned.
    pub fn take_until(&mut self, payload: &[u8]) -> Vec<Message> {
        let mut out = Vec::new();
        loop {
            let message = self.take();
            if message.payload == payload {
                return out;
            }
            out.push(message);
        }
    }

    /// PINGREQ and its answer: what was sent before has been handled by the server's reactor of this client.
    pub fn fence(&mut self) {
        self.send(&packet::PINGREQ);
        self.wait("PINGRESP", |packet| {
            (*packet == Packet::Pingresp).then_some(())
        });
    }

    /// The connection must end now; returns the code of a DISCONNECT or a refusing CONNACK that came last, if one did.
    pub fn closes(&mut self) -> Option<u8> {
        self.closes_within(PATIENCE)
    }

    pub fn closes_within(&mut self, patience: Duration) -> Option<u8> {
        let end = Instant::now() + patience;
        let mut last = None;
        loop {
            match self.event(end.saturating_duration_since(Instant::now())) {
                Event::Packet(Packet::Disconnect { code, .. }) => last = Some(code),
                Event::Packet(Packet::Connack { code, .. }) if code != 0 => last = Some(code),
                Event::Packet(_) => {}
                Event::Closed => {
                    assert!(
                        self.leftover().is_empty(),
                        "half a packet before the end: {:02x?}",
                        self.leftover()
                    );
                    return last;
                }
                Event::Nothing => panic!("the connection stays open (last code {last:02x?})"),
            }
        }
    }

    /// DISCONNECT with success, and waits until the server has closed.
    pub fn disconnect(mut self) {
        self.send(&packet::disconnect(self.version, 0, &[]));
        self.closes();
    }

    /// Resets the connection, as a phone that lost its network and whose NAT entry is gone: no DISCONNECT.
    pub fn vanish(self) {
        drop(self);
    }
}
