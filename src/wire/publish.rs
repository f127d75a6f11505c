//! PUBLISH (MQTT 5 section 3.3): the packet that all is for, so reading and writing it is kept short.

use super::frame::{Frame, PacketType};
use super::primitive::{Reader, put_string, put_u16, put_varint, varint_len};
use super::property::{Block, Property, put_some};
use super::{Forward, PacketId, Qos, SubscriptionIds, Version, WireError};

const RETAIN: u8 = 0x01;
const DUP: u8 = 0x08;

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: Qos,
    /// To be kept, or was kept.
    pub retain: bool,
    /// Empty only with a topic alias, or before MQTT 5, where refusing it is the topic rules' business.
    pub topic: &'a str,
    /// There exactly with QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Properties; all absent before MQTT 5.
    pub properties: PublishProperties<'a>,
    /// What it says.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH, and of a will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// Topic alias, not 0.
    pub topic_alias: Option<u16>,
    /// Seconds that the message may wait.
    pub message_expiry: Option<u32>,
    /// Identifiers of the subscriptions that it matched; only a server may send them.
    pub subscription_ids: SubscriptionIds<'a>,
    /// The properties that are passed on as they are.
    pub forward: Forward<'a>,
}

impl<'a> Publish<'a> {
    /// Reads a frame of this type, as [`super::frame::split`] cut it.
    pub fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, WireError> {
        let qos = Qos::from_bits(frame.first >> 1 & 0x03).ok_or(WireError::Flags(frame.first))?;
        let mut reader = Reader(frame.body);
        let topic = reader.string()?;
        let packet_id = if qos == Qos::AtMostOnce {
            None
        } else {
            Some(reader.packet_id()?)
        };
        let (properties, text) = if version == Version::V5 {
            read_properties(&mut reader)?
        } else {
            (PublishProperties::default(), false)
        };
        if topic.is_empty() && version == Version::V5 && properties.topic_alias.is_none() {
            return Err(WireError::TopicMissing);
        }
        let payload = reader.rest();
        check_payload(payload, text)?;
        let (dup, retain) = (frame.first & DUP != 0, frame.first & RETAIN != 0);
        Ok(Self {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let body = Body {
            topic: self.topic,
            topic_alias: self.properties.topic_alias,
            message_expiry: self.properties.message_expiry,
            ids: self.properties.subscription_ids.iter(),
            forward: self.properties.forward,
            payload: self.payload,
        };
        body.encode(
            out,
            version,
            first_byte(self.dup, self.qos, self.retain),
            self.qos,
            self.packet_id,
        );
    }
}

/// The bytes of a PUBLISH's topic, which nobody has checked; none of another packet, or without one.
pub fn topic_of<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    let is_publish = frame.first >> 4 == PacketType::Publish as u8;
    let topic = Reader(frame.body).binary().ok()?;
    (is_publish && !topic.is_empty()).then_some(topic)
}

/// The properties, and if they say that the payload is text.
fn read_properties<'a>(
    reader: &mut Reader<'a>,
) -> Result<(PublishProperties<'a>, bool), WireError> {
    let mut properties = PublishProperties::default();
    let mut text = false;
    let block = Block::read(reader, |property| {
        match property {
            Property::TopicAlias(alias) => properties.topic_alias = Some(alias),
            Property::MessageExpiry(secs) => properties.message_expiry = Some(secs),
            Property::PayloadFormat(is_text) => text = is_text,
            Property::SubscriptionId(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::User(..) => {}
            other => return Err(other.misplaced()),
        }
        Ok(())
    })?;
    properties.subscription_ids = block.subscription_ids();
    properties.forward = block.forward();
    Ok((properties, text))
}

/// A payload that is said to be text has to be text (section 3.3.2.3.2).
pub(super) fn check_payload(payload: &[u8], text: bool) -> Result<(), WireError> {
    if text && std::str::from_utf8(payload).is_err() {
        Err(WireError::PayloadFormat)
    } else {
        Ok(())
    }
}

/// A message to send: encoded once for all receivers of one version, QoS and retain flag; see [`patch_packet_id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishOut<'a> {
    /// May be empty with an alias.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// The pass-through properties, as [`Forward::copy_to`] wrote them.
    pub forward: &'a [u8],
    /// Seconds left.
    pub message_expiry: Option<u32>,
    /// Topic alias, not 0.
    pub topic_alias: Option<u16>,
    /// Identifiers of the receiver's subscriptions that matched.
    pub subscription_ids: &'a [u32],
    /// Quality of service.
    pub qos: Qos,
    /// Retain flag.
    pub retain: bool,
    /// Sent before.
    pub dup: bool,
}

/// Appends the packet to `out`. With QoS 1 and 2 it tells where the packet identifier stands, from the packet's first byte; without a
/// `packet_id` there are two bytes of 0, to be patched before they leave.
pub fn encode(
    out: &mut Vec<u8>,
    version: Version,
    p: &PublishOut<'_>,
    packet_id: Option<PacketId>,
) -> Option<usize> {
    p.body().encode(
        out,
        version,
        first_byte(p.dup, p.qos, p.retain),
        p.qos,
        packet_id,
    )
}

/// Bytes that [`encode`] will write.
pub fn encoded_len(version: Version, p: &PublishOut<'_>) -> usize {
    let body = p.body();
    let remaining = body.len(version, p.qos, body.properties_len(version));
    1 + varint_len(remaining) + remaining
}

/// Writes another packet identifier into an encoded PUBLISH; `at` is what [`encode`] told.
pub fn patch_packet_id(packet: &mut [u8], at: usize, id: PacketId) {
    packet[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
}

/// Marks an encoded PUBLISH of QoS 1 or 2 as sent before.
pub fn set_dup(packet: &mut [u8]) {
    packet[0] |= DUP;
}

fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    let dup = dup && qos != Qos::AtMostOnce;
    (PacketType::Publish as u8) << 4 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain)
}

impl<'a> PublishOut<'a> {
    fn body(&self) -> Body<'a, impl Iterator<Item = u32> + Clone + use<'a>> {
        Body {
            topic: self.topic,
            topic_alias: self.topic_alias,
            message_expiry: self.message_expiry,
            ids: self.subscription_ids.iter().copied(),
            forward: Forward::from_encoded(self.forward),
            payload: self.payload,
        }
    }
}

/// What stands after the first byte.
struct Body<'a, Ids> {
    topic: &'a str,
    topic_alias: Option<u16>,
    message_expiry: Option<u32>,
    ids: Ids,
    forward: Forward<'a>,
    payload: &'a [u8],
}

impl<Ids: Iterator<Item = u32> + Clone> Body<'_, Ids> {
    fn properties_len(&self, version: Version) -> usize {
        if version != Version::V5 {
            return 0;
        }
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let expiry = if self.message_expiry.is_some() { 5 } else { 0 };
        let ids: usize = self.ids.clone().map(|id| 1 + varint_len(id as usize)).sum();
        alias + expiry + ids + self.forward.len()
    }

    fn len(&self, version: Version, qos: Qos, properties: usize) -> usize {
        let id = if qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties = if version == Version::V5 {
            varint_len(properties) + properties
        } else {
            0
        };
        2 + self.topic.len() + id + properties + self.payload.len()
    }

    fn encode(
        &self,
        out: &mut Vec<u8>,
        version: Version,
        first: u8,
        qos: Qos,
        packet_id: Option<PacketId>,
    ) -> Option<usize> {
        let properties = self.properties_len(version);
        let remaining = self.len(version, qos, properties);
        let start = out.len();
        out.reserve(1 + varint_len(remaining) + remaining);
        out.push(first);
        put_varint(out, remaining);
        put_string(out, self.topic);
        let at = if qos == Qos::AtMostOnce {
            None
        } else {
            let at = out.len() - start;
            put_u16(out, packet_id.map_or(0, PacketId::get));
            Some(at)
        };
        if version == Version::V5 {
            put_varint(out, properties);
            put_some(out, self.message_expiry, Property::MessageExpiry);
            put_some(out, self.topic_alias, Property::TopicAlias);
            self.ids
                .clone()
                .for_each(|id| Property::SubscriptionId(id).put(out));
            self.forward.copy_to(out);
        }
        out.extend_from_slice(self.payload);
        at
    }
}
