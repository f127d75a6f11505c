//! MQTT as the clients here speak it. It shares no code with the server, so that a mistake in the server's codec can't hide itself.

use std::fmt;

/// Acknowledgements of a message, by packet type.
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;

/// A whole PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];

/// A whole DISCONNECT: a normal one, in every version.
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Properties of MQTT 5 that matter here.
const SESSION_EXPIRY: u8 = 0x11;
const RECEIVE_MAXIMUM: u8 = 0x21;

/// CONNECT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connect<'a> {
    pub(crate) version: u8,
    pub(crate) id: &'a str,
    /// Clean session, clean start.
    pub(crate) clean: bool,
    /// Seconds that the session outlives the connection (MQTT 5).
    pub(crate) expiry: u32,
    /// Messages at once (MQTT 5).
    pub(crate) receive_maximum: u16,
}

impl Connect<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut body = vec![0, 4];
        body.extend_from_slice(b"MQTT");
        body.extend_from_slice(&[self.version, u8::from(self.clean) << 1, 0, 0]);
        if self.version == 5 {
            body.extend_from_slice(&[8, SESSION_EXPIRY]);
            body.extend_from_slice(&self.expiry.to_be_bytes());
            body.push(RECEIVE_MAXIMUM);
            body.extend_from_slice(&self.receive_maximum.to_be_bytes());
        }
        text(&mut body, self.id);
        packet(out, 0x10, &body);
    }
}

/// PUBLISH, to the server or from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a str,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) id: u16,
    pub(crate) payload: &'a [u8],
}

impl Publish<'_> {
    pub(crate) fn write(&self, version: u8, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(self.topic.len() + self.payload.len() + 8);
        text(&mut body, self.topic);
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == 5 {
            body.push(0);
        }
        body.extend_from_slice(self.payload);
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        packet(out, first, &body);
    }
}

/// SUBSCRIBE to one filter, or UNSUBSCRIBE without a QoS.
pub(crate) fn subscription(version: u8, id: u16, filter: &str, qos: Option<u8>, out: &mut Vec<u8>) {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    text(&mut body, filter);
    body.extend(qos);
    packet(out, if qos.is_some() { 0x82 } else { 0xa2 }, &body);
}

/// SUBSCRIBE to several filters at once.
pub(crate) fn subscribe<'a>(
    version: u8,
    id: u16,
    filters: impl Iterator<Item = &'a str>,
    qos: u8,
    out: &mut Vec<u8>,
) {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter);
        body.push(qos);
    }
    packet(out, 0x82, &body);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with success.
pub(crate) fn ack(kind: u8, id: u16, out: &mut Vec<u8>) {
    let flags = if kind == PUBREL { 2 } else { 0 };
    packet(out, kind << 4 | flags, &id.to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut len = body.len();
    loop {
        let low = (len % 128) as u8;
        len /= 128;
        out.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Connack {
        present: bool,
        code: u8,
        /// Messages that the server takes at once.
        receive_maximum: u16,
    },
    Publish(Publish<'a>),
    Ack {
        kind: u8,
        id: u16,
        code: u8,
    },
    Suback {
        id: u16,
        code: u8,
    },
    Unsuback {
        id: u16,
    },
    Pingresp,
    Disconnect {
        code: u8,
    },
}

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(publish) => {
                let Publish {
                    topic,
                    qos,
                    retain,
                    dup,
                    id,
                    payload,
                } = publish;
                let len = payload.len();
                write!(
                    f,
                    "PUBLISH {id}, QoS {qos}, retain {retain}, dup {dup}, {topic}, {len} bytes"
                )
            }
            Self::Ack { kind, id, code } => write!(f, "{} {id}, {code:#04x}", ack_name(*kind)),
            other => write!(f, "{other:?}"),
        }
    }
}

/// The name of an acknowledgement's type.
pub(crate) fn ack_name(kind: u8) -> &'static str {
    match kind {
        PUBACK => "PUBACK",
        PUBREC => "PUBREC",
        PUBREL => "PUBREL",
        _ => "PUBCOMP",
    }
}

/// The first packet of `input` and its length, nothing if it isn't whole yet, or what is wrong with it.
pub(crate) fn split(input: &[u8], version: u8) -> Result<Option<(Packet<'_>, usize)>, String> {
    let mut len = 0;
    let mut at = 1;
    loop {
        let Some(&byte) = input.get(at) else {
            return Ok(None);
        };
        if at > 4 {
            return Err("a remaining length of five bytes".into());
        }
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let Some(body) = input.get(at..at + len) else {
        return Ok(None);
    };
    let packet = parse(input[0], body, version)
        .ok_or_else(|| format!("not a packet of the standard: type {:02x}", input[0]))?;
    Ok(Some((packet, at + len)))
}

fn parse(first: u8, body: &[u8], version: u8) -> Option<Packet<'_>> {
    let mut read = Reader(body);
    let flags = first & 0x0f;
    Some(match first >> 4 {
        2 => {
            let (present, code) = (read.byte()?, read.byte()?);
            let receive_maximum = if version == 5 {
                receive_maximum(read.properties()?)?
            } else {
                u16::MAX
            };
            Packet::Connack {
                present: present == 1,
                code,
                receive_maximum,
            }
        }
        3 => {
            let qos = flags >> 1 & 3;
            let topic = std::str::from_utf8(read.bytes()?).ok()?;
            let id = if qos > 0 { read.two()? } else { 0 };
            if version == 5 {
                read.properties()?;
            }
            (qos < 3 && (id > 0) == (qos > 0)).then_some(())?;
            Packet::Publish(Publish {
                topic,
                qos,
                retain: flags & 1 == 1,
                dup: flags & 8 == 8,
                id,
                payload: read.0,
            })
        }
        kind @ PUBACK..=PUBCOMP => {
            (flags == if kind == PUBREL { 2 } else { 0 }).then_some(())?;
            Packet::Ack {
                kind,
                id: read.two()?,
                code: read.byte().unwrap_or(0),
            }
        }
        9 => {
            let id = read.two()?;
            if version == 5 {
                read.properties()?;
            }
            Packet::Suback {
                id,
                code: read.byte()?,
            }
        }
        11 => Packet::Unsuback { id: read.two()? },
        13 => Packet::Pingresp,
        14 if version == 5 => Packet::Disconnect {
            code: read.byte().unwrap_or(0),
        },
        _ => return None,
    })
}

/// The Receive Maximum among the properties of a CONNACK.
fn receive_maximum(properties: &[u8]) -> Option<u16> {
    let mut read = Reader(properties);
    while !read.0.is_empty() {
        match read.byte()? {
            RECEIVE_MAXIMUM => return read.two(),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(read.take(1)?),
            0x13 | 0x22 => drop(read.take(2)?),
            SESSION_EXPIRY | 0x27 => drop(read.take(4)?),
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => drop(read.bytes()?),
            0x26 => {
                read.bytes()?;
                read.bytes()?;
            }
            _ => return None,
        }
    }
    Some(u16::MAX)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn two(&mut self) -> Option<u16> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.two()?;
        self.take(usize::from(len))
    }

    fn properties(&mut self) -> Option<&'a [u8]> {
        let mut len = 0;
        for shift in 0..4 {
            let byte = self.byte()?;
            len |= usize::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return self.take(len);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_comes_back_as_it_was_written() {
        let publish = Publish {
            topic: "a/b",
            qos: 2,
            retain: true,
            dup: true,
            id: 77,
            payload: &[7; 300],
        };
        for version in [4, 5] {
            let mut out = Vec::new();
            publish.write(version, &mut out);
            for cut in 0..out.len() {
                assert_eq!(split(&out[..cut], version), Ok(None), "cut at {cut}");
            }
            let (packet, len) = split(&out, version).unwrap().unwrap();
            assert_eq!((packet, len), (Packet::Publish(publish.clone()), out.len()));
        }
    }

    #[test]
    fn what_the_server_grants_is_read_from_its_connack() {
        let connack = [0x20, 6, 1, 0, 3, 0x24, 1, 0x2a];
        assert!(split(&connack, 5).is_err(), "a property without its value");
        let connack = [0x20, 8, 1, 0, 5, 0x24, 1, RECEIVE_MAXIMUM, 1, 2];
        let expected = Packet::Connack {
            present: true,
            code: 0,
            receive_maximum: 258,
        };
        assert_eq!(split(&connack, 5), Ok(Some((expected, 10))));
    }
}
