//! Packets as a test writes and reads them: a second, independent reading of the standard, with no code of the server in it.

use super::bytes::{prefixed, varint};

/// A property on its way out, with the width it has on the wire.
#[derive(Clone, Debug)]
pub enum Prop<'a> {
    Byte(u8, u8),
    Two(u8, u16),
    Four(u8, u32),
    Var(u8, usize),
    Text(u8, &'a str),
    Pair(&'a str, &'a str),
}

/// Property identifiers (MQTT 5 section 2.2.2.2).
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const REQUEST_PROBLEM: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const ALIAS_MAXIMUM: u8 = 0x22;
    pub const ALIAS: u8 = 0x23;
    pub const USER: u8 = 0x26;
    pub const MAXIMUM_PACKET: u8 = 0x27;
}

fn properties(version: u8, props: &[Prop<'_>]) -> Vec<u8> {
    if version < 5 {
        return Vec::new();
    }
    let mut inner = Vec::new();
    for prop in props {
        match *prop {
            Prop::Byte(id, value) => inner.extend([id, value]),
            Prop::Two(id, value) => {
                inner.push(id);
                inner.extend(value.to_be_bytes());
            }
            Prop::Four(id, value) => {
                inner.push(id);
                inner.extend(value.to_be_bytes());
            }
            Prop::Var(id, value) => {
                inner.push(id);
                inner.extend(varint(value));
            }
            Prop::Text(id, value) => {
                inner.push(id);
                inner.extend(prefixed(value.as_bytes()));
            }
            Prop::Pair(name, value) => {
                inner.push(id::USER);
                inner.extend(prefixed(name.as_bytes()));
                inner.extend(prefixed(value.as_bytes()));
            }
        }
    }
    let mut out = varint(inner.len());
    out.extend(inner);
    out
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(varint(body.len()));
    out.extend_from_slice(body);
    out
}

/// A will, as CONNECT carries it.
#[derive(Clone, Debug, Default)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub props: &'a [Prop<'a>],
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    pub version: u8,
    pub id: &'a str,
    pub clean: bool,
    pub keep_alive: u16,
    pub will: Option<Will<'a>>,
    pub user: Option<&'a str>,
    pub password: Option<&'a str>,
    pub props: &'a [Prop<'a>],
}

impl<'a> Connect<'a> {
    /// A clean connection with no keep alive.
    pub fn new(version: u8, id: &'a str) -> Self {
        Self {
            version,
            id,
            clean: true,
            keep_alive: 0,
            will: None,
            user: None,
            password: None,
            props: &[],
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let will = self.will.as_ref();
        let flags = u8::from(self.clean) << 1
            | will.map_or(0, |w| 0x04 | w.qos << 3 | u8::from(w.retain) << 5)
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.user.is_some()) << 7;
        let mut body = prefixed(if self.version == 3 {
            b"MQIsdp"
        } else {
            b"MQTT"
        });
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(properties(self.version, self.props));
        body.extend(prefixed(self.id.as_bytes()));
        if let Some(will) = will {
            body.extend(properties(self.version, will.props));
            body.extend(prefixed(will.topic.as_bytes()));
            body.extend(prefixed(will.payload));
        }
        for text in [self.user, self.password].into_iter().flatten() {
            body.extend(prefixed(text.as_bytes()));
        }
        packet(0x10, &body)
    }
}

/// A PUBLISH, in either direction.
#[derive(Clone, Debug, Default)]
pub struct Publish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// Ignored at QoS 0.
    pub id: u16,
    pub props: &'a [Prop<'a>],
}

impl Publish<'_> {
    pub fn encode(&self, version: u8) -> Vec<u8> {
        let mut body = prefixed(self.topic.as_bytes());
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(properties(version, self.props));
        body.extend_from_slice(self.payload);
        packet(
            0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain),
            &body,
        )
    }
}

/// A SUBSCRIBE; the options are the standard's byte.
pub fn subscribe(version: u8, id: u16, filters: &[(&str, u8)], props: &[Prop<'_>]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, props));
    for (filter, options) in filters {
        body.extend(prefixed(filter.as_bytes()));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(version: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, &[]));
    for filter in filters {
        body.extend(prefixed(filter.as_bytes()));
    }
    packet(0xa2, &body)
}

/// PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7) with success.
pub fn ack(kind: u8, id: u16) -> Vec<u8> {
    let flags = if kind == 6 { 2 } else { 0 };
    packet(kind << 4 | flags, &id.to_be_bytes())
}

/// The same with a reason code (MQTT 5).
pub fn ack_with(kind: u8, id: u16, reason: u8) -> Vec<u8> {
    let flags = if kind == 6 { 2 } else { 0 };
    let mut body = id.to_be_bytes().to_vec();
    body.push(reason);
    packet(kind << 4 | flags, &body)
}

/// A DISCONNECT with reason code and properties (MQTT 5), or the bare one.
pub fn disconnect(version: u8, reason: u8, props: &[Prop<'_>]) -> Vec<u8> {
    if version < 5 || (reason == 0 && props.is_empty()) {
        return vec![0xe0, 0];
    }
    let mut body = vec![reason];
    body.extend(properties(version, props));
    packet(0xe0, &body)
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];

/// The properties of a packet that was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Props(pub Vec<(u8, Value)>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Int(u32),
    Bytes(Vec<u8>),
    Pair(String, String),
}

impl Props {
    pub fn int(&self, id: u8) -> Option<u32> {
        self.0.iter().find_map(|(have, value)| match value {
            Value::Int(value) if *have == id => Some(*value),
            _ => None,
        })
    }

    pub fn ints(&self, id: u8) -> Vec<u32> {
        let of = |(have, value): &(u8, Value)| match value {
            Value::Int(value) if *have == id => Some(*value),
            _ => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    pub fn bytes(&self, id: u8) -> Option<&[u8]> {
        self.0.iter().find_map(|(have, value)| match value {
            Value::Bytes(value) if *have == id => Some(value.as_slice()),
            _ => None,
        })
    }

    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.0
            .iter()
            .filter_map(|(_, value)| {
                if let Value::Pair(a, b) = value {
                    Some((a.as_str(), b.as_str()))
                } else {
                    None
                }
            })
            .collect()
    }
}

/// A message as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    pub props: Props,
}

impl Message {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload that the test wrote as text")
    }
}

/// What a server may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connack {
        present: bool,
        code: u8,
        props: Props,
    },
    Publish(Message),
    /// `kind` is the packet type, 4 to 7.
    Ack {
        kind: u8,
        id: u16,
        code: u8,
        props: Props,
    },
    Suback {
        id: u16,
        codes: Vec<u8>,
        props: Props,
    },
    Unsuback {
        id: u16,
        codes: Vec<u8>,
        props: Props,
    },
    Pingresp,
    Disconnect {
        code: u8,
        props: Props,
    },
    Auth {
        code: u8,
        props: Props,
    },
}

/// The first whole packet of `buf` and its length; panics when the server broke the standard.
pub fn split(buf: &[u8], version: u8) -> Option<(Packet, usize)> {
    let mut len = 0usize;
    let mut at = 1;
    loop {
        let byte = *buf.get(at)?;
        assert!(at <= 4, "a remaining length of five bytes from the server");
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = buf.get(at..at + len)?;
    Some((parse(buf[0], body, version), at + len))
}

fn parse(first: u8, body: &[u8], version: u8) -> Packet {
    let mut read = Reader { body, version };
    let (kind, flags) = (first >> 4, first & 0x0f);
    let expected = if kind == 6 { 2 } else { 0 };
    assert!(
        kind == 3 || flags == expected,
        "wrong flags from the server: {first:02x}"
    );
    let packet = match kind {
        2 => {
            let present = read.byte();
            assert!(present < 2, "reserved bits in CONNACK: {present:02x}");
            // A server that refuses a CONNECT whose version it can't speak answers in its own; both forms are let through here.
            Packet::Connack {
                present: present == 1,
                code: read.byte(),
                props: if read.body.is_empty() {
                    Props::default()
                } else {
                    read.props(true)
                },
            }
        }
        3 => {
            let topic = read.text();
            let qos = flags >> 1 & 3;
            assert!(qos < 3, "QoS 3 from the server");
            let id = if qos > 0 { read.two() } else { 0 };
            assert!(qos == 0 || id != 0, "packet identifier 0 from the server");
            assert!(qos > 0 || flags & 8 == 0, "DUP at QoS 0 from the server");
            let props = read.props(version == 5);
            let payload = std::mem::take(&mut read.body).to_vec();
            Packet::Publish(Message {
                topic,
                payload,
                qos,
                retain: flags & 1 == 1,
                dup: flags & 8 != 0,
                id,
                props,
            })
        }
        4..=7 => {
            let id = read.two();
            let code = if read.body.is_empty() { 0 } else { read.byte() };
            Packet::Ack {
                kind,
                id,
                code,
                props: read.rest_props(),
            }
        }
        9 | 11 => {
            let id = read.two();
            let props = read.props(version == 5);
            let codes = std::mem::take(&mut read.body).to_vec();
            if kind == 9 {
                Packet::Suback { id, codes, props }
            } else {
                Packet::Unsuback { id, codes, props }
            }
        }
        13 => Packet::Pingresp,
        14 | 15 => {
            assert!(
                version == 5,
                "DISCONNECT or AUTH to a client of version {version}"
            );
            let code = if read.body.is_empty() { 0 } else { read.byte() };
            let props = read.rest_props();
            if kind == 14 {
                Packet::Disconnect { code, props }
            } else {
                Packet::Auth { code, props }
            }
        }
        _ => panic!("a packet that no server may send: {first:02x} {body:02x?}"),
    };
    assert!(
        read.body.is_empty(),
        "trailing bytes in a packet from the server: {first:02x} {body:02x?}"
    );
    packet
}

struct Reader<'a> {
    body: &'a [u8],
    version: u8,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        let (head, rest) = self
            .body
            .split_at_checked(count)
            .expect("a packet from the server that ends early");
        self.body = rest;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    fn var(&mut self) -> usize {
        let mut value = 0;
        for shift in 0..4 {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a variable byte integer of five bytes from the server")
    }

    fn data(&mut self) -> Vec<u8> {
        let len = usize::from(self.two());
        self.take(len).to_vec()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.data()).expect("UTF-8 from the server")
    }

    fn rest_props(&mut self) -> Props {
        if self.body.is_empty() {
            Props::default()
        } else {
            self.props(self.version == 5)
        }
    }

    fn props(&mut self, there: bool) -> Props {
        if !there {
            return Props::default();
        }
        let len = self.var();
        let inner = self.take(len).to_vec();
        let mut read = Reader {
            body: &inner,
            version: 5,
        };
        let mut out = Vec::new();
        while !read.body.is_empty() {
            let id = read.byte();
            let value = match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                    Value::Int(u32::from(read.byte()))
                }
                0x13 | 0x21 | 0x22 | 0x23 => Value::Int(u32::from(read.two())),
                0x02 | 0x11 | 0x18 | 0x27 => {
                    let bytes = read.take(4);
                    Value::Int(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                }
                0x0b => Value::Int(read.var() as u32),
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                    Value::Bytes(read.data())
                }
                0x26 => Value::Pair(read.text(), read.text()),
                _ => panic!("property {id:02x} from the server"),
            };
            assert!(
                id == 0x26 || id == 0x0b || out.iter().all(|(have, _)| *have != id),
                "property {id:02x} twice from the server"
            );
            out.push((id, value));
        }
        Props(out)
    }
}
