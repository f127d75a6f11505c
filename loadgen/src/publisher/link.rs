//! One connection of the publisher: blocking while it introduces itself, then non-blocking.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use stillwire::wire::publish::{self, PublishOut};
use stillwire::wire::{Connect, Packet, PacketId, Qos, Version, decode, frame};

use super::{PublishError, WINDOW};
use crate::clock;
use crate::ledger::Ledger;
use crate::name::{Name, SHARED_TOPIC};
use crate::payload::{Kind, Payload};

/// How long the broker may take to let a publisher in.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Link {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    output: Vec<u8>,
    payload: Vec<u8>,
    /// QoS 1 messages that wait for room in the window.
    queue: VecDeque<(u32, u64)>,
    inflight: usize,
    next_id: u16,
}

/// What a turn brought.
#[derive(Default)]
pub(super) struct Acks {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
}

impl Link {
    pub(super) fn connect(
        target: SocketAddr,
        version: Version,
        id: &str,
        credentials: Option<(&str, &str)>,
    ) -> Result<Self, PublishError> {
        let stream =
            TcpStream::connect_timeout(&target, PATIENCE).map_err(PublishError::Connection)?;
        stream.set_nodelay(true).map_err(PublishError::Connection)?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(PublishError::Connection)?;
        let mut link = Self {
            stream,
            version,
            input: Vec::new(),
            output: Vec::new(),
            payload: Vec::new(),
            queue: VecDeque::new(),
            inflight: 0,
            next_id: 1,
        };
        let mut connect = Connect::new(version, id);
        if let Some((user, token)) = credentials {
            connect.username = Some(user);
            connect.password = Some(token.as_bytes());
        }
        // It never pings. 0, for no limit, would say so, but there are brokers that take it for no time at all (rumqttd 0.20).
        connect.keep_alive = u16::MAX;
        connect.encode(&mut link.output);
        link.stream
            .write_all(&link.output)
            .map_err(PublishError::Connection)?;
        link.output.clear();
        link.await_connack()?;
        link.stream
            .set_nonblocking(true)
            .map_err(PublishError::Connection)?;
        Ok(link)
    }

    fn await_connack(&mut self) -> Result<(), PublishError> {
        let mut chunk = [0; 1024];
        loop {
            if let Some(packet) =
                frame::split(&self.input, u32::MAX).map_err(|_| PublishError::Protocol)?
            {
                let Ok(Packet::Connack(connack)) = decode(&packet, self.version) else {
                    return Err(PublishError::Protocol);
                };
                if connack.reason.is_error() {
                    return Err(PublishError::NotAccepted(connack.reason.0));
                }
                let len = packet.len;
                self.input.drain(..len);
                return Ok(());
            }
            match self
                .stream
                .read(&mut chunk)
                .map_err(PublishError::Connection)?
            {
                0 => return Err(PublishError::Closed),
                n => self.input.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Sends a message now, or queues it if the window is full.
    pub(super) fn publish(
        &mut self,
        kind: Kind,
        phone: u32,
        planned: u64,
        ledger: &Ledger,
        size: usize,
    ) -> Result<(), PublishError> {
        let now = clock::now();
        let sequence = match kind {
            Kind::Unicast0 => ledger.next_unicast0(phone, now),
            Kind::Broadcast => ledger.next_broadcast(planned, now),
            Kind::Unicast1 if self.inflight >= WINDOW || !self.queue.is_empty() => {
                self.queue.push_back((phone, planned));
                return Ok(());
            }
            Kind::Unicast1 => ledger.next_unicast1(phone, now),
        };
        self.send(
            Payload {
                run: ledger.run,
                kind,
                phone,
                sequence,
                planned,
            },
            size,
        )
    }

    fn send(&mut self, payload: Payload, size: usize) -> Result<(), PublishError> {
        payload.write(size, &mut self.payload);
        let name = Name::of(payload.phone);
        let packet_id = (payload.kind == Kind::Unicast1).then(|| self.take_id());
        let message = PublishOut {
            topic: if payload.kind == Kind::Broadcast {
                SHARED_TOPIC
            } else {
                name.topic()
            },
            payload: &self.payload,
            forward: &[],
            message_expiry: None,
            topic_alias: None,
            subscription_ids: &[],
            qos: if packet_id.is_some() {
                Qos::AtLeastOnce
            } else {
                Qos::AtMostOnce
            },
            retain: false,
            dup: false,
        };
        publish::encode(&mut self.output, self.version, &message, packet_id);
        self.flush()
    }

    /// The window is far smaller than the number of identifiers, so the next one is always free.
    fn take_id(&mut self) -> PacketId {
        self.inflight += 1;
        let id = PacketId::new(self.next_id).unwrap_or_else(|| unreachable!("skips 0"));
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }

    fn flush(&mut self) -> Result<(), PublishError> {
        match self.stream.write(&self.output) {
            Ok(n) if n == self.output.len() => self.output.clear(),
            Ok(n) => drop(self.output.drain(..n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(PublishError::Connection(error)),
        }
        Ok(())
    }

    /// Reads acknowledgements, and sends what waited for them.
    pub(super) fn work(&mut self, ledger: &Ledger, size: usize) -> Result<Acks, PublishError> {
        let mut acks = Acks::default();
        if self.inflight > 0 {
            self.read(&mut acks)?;
        }
        while self.inflight < WINDOW
            && let Some((phone, planned)) = self.queue.pop_front()
        {
            let sequence = ledger.next_unicast1(phone, clock::now());
            self.send(
                Payload {
                    run: ledger.run,
                    kind: Kind::Unicast1,
                    phone,
                    sequence,
                    planned,
                },
                size,
            )?;
        }
        if !self.output.is_empty() {
            self.flush()?;
        }
        Ok(acks)
    }

    fn read(&mut self, acks: &mut Acks) -> Result<(), PublishError> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(PublishError::Closed),
            Ok(n) => self.input.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(PublishError::Connection(error)),
        }
        let mut used = 0;
        while let Some(packet) =
            frame::split(&self.input[used..], u32::MAX).map_err(|_| PublishError::Protocol)?
        {
            match decode(&packet, self.version).map_err(|_| PublishError::Protocol)? {
                Packet::Puback(ack) => {
                    self.inflight = self.inflight.checked_sub(1).ok_or(PublishError::Protocol)?;
                    acks.acknowledged += 1;
                    acks.refused += u64::from(ack.reason.is_error());
                }
                Packet::Disconnect(_) => return Err(PublishError::Closed),
                _ => return Err(PublishError::Protocol),
            }
            used += packet.len;
        }
        self.input.drain(..used);
        Ok(())
    }

    /// Messages that should be out.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Nothing waits, neither here nor for an acknowledgement.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.output.is_empty() && self.inflight == 0
    }
}
