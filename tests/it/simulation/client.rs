//! A client: what MQTT makes it do, and a will of its own about when.

use std::collections::{BTreeSet, HashMap, VecDeque};

use stillwire::wire::{
    Ack, Connect, Disconnect, Filters, Packet, PacketId, Publish, PublishProperties, Qos,
    ReasonCode, Subscribe, SubscribeOptions, TopicFilters, Unsubscribe, Version, Will,
};

/// A message that the client publishes and that is not acknowledged in full.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) id: u16,
    pub(crate) qos: Qos,
    pub(crate) released: bool,
    /// What the packet says, to be sent again.
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
}

/// See the module.
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// The connection, once dialled.
    pub(crate) conn: Option<usize>,
    /// CONNACK has come.
    pub(crate) online: bool,
    pub(crate) out: VecDeque<Outgoing>,
    next_id: u16,
    /// Messages that the server lets it have unacknowledged.
    pub(crate) window: usize,
    /// QoS 2 identifiers that it has taken and that the server has not released.
    pub(crate) taken: BTreeSet<u16>,
    /// Answers that it owes, in order.
    pub(crate) replies: VecDeque<Vec<u8>>,
    /// For a while it answers nothing.
    pub(crate) lazy: bool,
    /// Topics of the server's aliases on this connection.
    aliases: HashMap<u16, String>,
}

/// How a client connects.
#[derive(Clone, Copy)]
pub(crate) struct Dial<'a> {
    pub(crate) clean: bool,
    pub(crate) expiry: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) aliases: u16,
    /// Topic, payload, QoS, retain, delay.
    pub(crate) will: Option<(&'a str, &'a [u8], Qos, bool, u32)>,
}

/// What a client makes of a packet.
pub(crate) enum Heard {
    Connected {
        present: bool,
    },
    Refused,
    Message {
        topic: String,
        payload: Vec<u8>,
        qos: Qos,
        retain: bool,
        dup: bool,
        again: bool,
    },
    Other,
}

impl Client {
    pub(crate) fn new(name: String, version: Version) -> Self {
        Self {
            name,
            version,
            conn: None,
            online: false,
            out: VecDeque::new(),
            next_id: 0,
            window: 0,
            taken: BTreeSet::new(),
            replies: VecDeque::new(),
            lazy: false,
            aliases: HashMap::new(),
        }
    }

    /// Its session is a new one. It learns so as the server makes it, for the CONNACK that says it may be lost, and a client that goes on
    /// with a session that is another by now is outside of what MQTT promises.
    pub(crate) fn forget(&mut self) {
        self.taken.clear();
        self.out.clear();
    }

    fn encode(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        packet.encode(self.version, &mut out);
        out
    }

    fn fresh_id(&mut self) -> u16 {
        loop {
            // A small range, so that identifiers come around again soon.
            self.next_id = self.next_id % 200 + 1;
            if self.out.iter().all(|out| out.id != self.next_id) {
                return self.next_id;
            }
        }
    }

    pub(crate) fn connect(&mut self, conn: usize, dial: Dial<'_>) -> Vec<u8> {
        self.conn = Some(conn);
        self.online = false;
        self.replies.clear();
        self.aliases.clear();
        let mut connect = Connect::new(self.version, &self.name);
        connect.clean_start = dial.clean;
        connect.will = dial.will.map(|(topic, payload, qos, retain, delay)| Will {
            qos,
            retain,
            topic,
            payload,
            delay,
            properties: PublishProperties::default(),
        });
        if self.version == Version::V5 {
            connect.session_expiry = dial.expiry;
            connect.receive_maximum = dial.receive_maximum;
            connect.topic_alias_maximum = dial.aliases;
        }
        self.encode(&Packet::Connect(connect))
    }

    pub(crate) fn disconnect(&self, reason: ReasonCode) -> Vec<u8> {
        self.encode(&Packet::Disconnect(Disconnect::new(reason)))
    }

    pub(crate) fn subscribe(
        &mut self,
        filters: &[(&str, SubscribeOptions)],
        id: Option<u32>,
    ) -> Vec<u8> {
        let packet_id = PacketId::new(self.fresh_id()).unwrap();
        self.encode(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: id.filter(|_| self.version == Version::V5),
            user_properties: Default::default(),
            filters: Filters::new(filters),
        }))
    }

    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let packet_id = PacketId::new(self.fresh_id()).unwrap();
        self.encode(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user_properties: Default::default(),
            filters: TopicFilters::new(filters),
        }))
    }

    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        retain: bool,
        expiry: Option<u32>,
    ) -> Vec<u8> {
        let id = (qos != Qos::AtMostOnce).then(|| self.fresh_id());
        if let Some(id) = id {
            self.out.push_back(Outgoing {
                id,
                qos,
                released: false,
                topic: topic.to_owned(),
                payload: payload.to_vec(),
                retain,
            });
        }
        self.encode(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id: id.and_then(PacketId::new),
            properties: PublishProperties {
                message_expiry: expiry.filter(|_| self.version == Version::V5),
                ..PublishProperties::default()
            },
            payload,
        }))
    }

    /// All that is unacknowledged, again, in order (section 4.4).
    pub(crate) fn resend(&self) -> Vec<Vec<u8>> {
        let again = |out: &Outgoing| {
            let id = PacketId::new(out.id).unwrap();
            if out.released {
                return self.encode(&Packet::Pubrel(Ack::new(id, ReasonCode::SUCCESS)));
            }
            self.encode(&Packet::Publish(Publish {
                dup: true,
                qos: out.qos,
                retain: out.retain,
                topic: &out.topic,
                packet_id: Some(id),
                properties: PublishProperties::default(),
                payload: &out.payload,
            }))
        };
        self.out.iter().map(again).collect()
    }

    fn reply(&mut self, packet: &Packet<'_>) {
        let bytes = self.encode(packet);
        self.replies.push_back(bytes);
    }

    pub(crate) fn hear(&mut self, packet: &Packet<'_>) -> Heard {
        match packet {
            Packet::Connack(connack) if connack.reason == ReasonCode::SUCCESS => {
                self.online = true;
                self.window = usize::from(connack.receive_maximum.unwrap_or(20));
                Heard::Connected {
                    present: connack.session_present,
                }
            }
            Packet::Connack(_) => Heard::Refused,
            Packet::Publish(publish) => self.hear_publish(publish),
            Packet::Puback(ack) => {
                self.out.retain(|out| out.id != ack.packet_id.get());
                Heard::Other
            }
            Packet::Pubrec(ack) => {
                let id = ack.packet_id.get();
                if ack.reason.is_error() {
                    self.out.retain(|out| out.id != id);
                    return Heard::Other;
                }
                if let Some(out) = self.out.iter_mut().find(|out| out.id == id) {
                    out.released = true;
                }
                self.reply(&Packet::Pubrel(Ack::new(
                    ack.packet_id,
                    ReasonCode::SUCCESS,
                )));
                Heard::Other
            }
            Packet::Pubcomp(ack) => {
                self.out.retain(|out| out.id != ack.packet_id.get());
                Heard::Other
            }
            Packet::Pubrel(ack) => {
                self.taken.remove(&ack.packet_id.get());
                self.reply(&Packet::Pubcomp(Ack::new(
                    ack.packet_id,
                    ReasonCode::SUCCESS,
                )));
                Heard::Other
            }
            _ => Heard::Other,
        }
    }

    fn hear_publish(&mut self, publish: &Publish<'_>) -> Heard {
        let mut again = false;
        if let Some(id) = publish.packet_id {
            if publish.qos == Qos::ExactlyOnce {
                again = !self.taken.insert(id.get());
                self.reply(&Packet::Pubrec(Ack::new(id, ReasonCode::SUCCESS)));
            } else {
                self.reply(&Packet::Puback(Ack::new(id, ReasonCode::SUCCESS)));
            }
        }
        Heard::Message {
            topic: resolve(&mut self.aliases, publish),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            again,
        }
    }
}

/// The topic of a PUBLISH, through the aliases of its connection.
pub(crate) fn resolve(aliases: &mut HashMap<u16, String>, publish: &Publish<'_>) -> String {
    match publish.properties.topic_alias {
        Some(alias) if publish.topic.is_empty() => aliases[&alias].clone(),
        Some(alias) => {
            aliases.insert(alias, publish.topic.to_owned());
            publish.topic.to_owned()
        }
        None => publish.topic.to_owned(),
    }
}
