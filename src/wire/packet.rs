//! All packets under one roof, and the few types that many of them share.

use std::num::NonZeroU16;

use super::frame::{self, PacketType};
use super::{
    Ack, Auth, Connack, Connect, Disconnect, Frame, Publish, Suback, Subscribe, Unsuback,
    Unsubscribe, WireError,
};

/// The protocol's versions, by the protocol level of CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1, `MQIsdp`.
    V31 = 3,
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

/// Quality of service (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The quality of service with this number; `None` from 3 on.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier; never 0 (section 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// `None` for 0.
    pub fn new(id: u16) -> Option<Self> {
        NonZeroU16::new(id).map(Self)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// A packet of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the standard")]
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack for the length of one call; only the variant that is there is written"
)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// Reads one packet, whoever may send it. `version` is the connection's; CONNECT tells its own.
pub fn decode<'a>(frame: &Frame<'a>, version: Version) -> Result<Packet<'a>, WireError> {
    frame::check_first(frame.first)?;
    let kind = frame.packet_type().ok_or(WireError::PacketType(0))?;
    if version != Version::V31 && kind != PacketType::Publish && frame.flags() & 0x08 != 0 {
        return Err(WireError::Flags(frame.first));
    }
    let body = frame.body;
    Ok(match kind {
        PacketType::Connect => Packet::Connect(Connect::decode(body)?),
        PacketType::Connack => Packet::Connack(Connack::decode(body, version)?),
        PacketType::Publish => Packet::Publish(Publish::decode(frame, version)?),
        PacketType::Puback => Packet::Puback(Ack::decode(kind, body, version)?),
        PacketType::Pubrec => Packet::Pubrec(Ack::decode(kind, body, version)?),
        PacketType::Pubrel => Packet::Pubrel(Ack::decode(kind, body, version)?),
        PacketType::Pubcomp => Packet::Pubcomp(Ack::decode(kind, body, version)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
        PacketType::Suback => Packet::Suback(Suback::decode(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
        PacketType::Unsuback => Packet::Unsuback(Unsuback::decode(body, version)?),
        PacketType::Pingreq => empty(body, Packet::Pingreq)?,
        PacketType::Pingresp => empty(body, Packet::Pingresp)?,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(body, version)?),
        PacketType::Auth if version == Version::V5 => Packet::Auth(Auth::decode(body)?),
        PacketType::Auth => return Err(WireError::PacketType(15)),
    })
}

fn empty<'a>(body: &[u8], packet: Packet<'a>) -> Result<Packet<'a>, WireError> {
    if body.is_empty() {
        Ok(packet)
    } else {
        Err(WireError::Trailing)
    }
}

impl Packet<'_> {
    /// What kind of packet it is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Puback(_) => PacketType::Puback,
            Self::Pubrec(_) => PacketType::Pubrec,
            Self::Pubrel(_) => PacketType::Pubrel,
            Self::Pubcomp(_) => PacketType::Pubcomp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `out`. What a version does not know of (properties before MQTT 5) is left out; a CONNECT is written in its own
    /// version, AUTH always as MQTT 5.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::Connack(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Puback(ack) | Self::Pubrec(ack) | Self::Pubrel(ack) | Self::Pubcomp(ack) => {
                ack.encode(self.packet_type(), version, out);
            }
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::Suback(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::Unsuback(packet) => packet.encode(version, out),
            Self::Pingreq | Self::Pingresp => frame::put(out, self.packet_type(), |_| {}),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(out),
        }
    }
}
