//! PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5 sections 3.4 to 3.7): one shape, four names.

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_prefixed, put_u16};
use super::property::{Block, Property, put_some};
use super::{PacketId, ReasonCode, UserProperties, Version, WireError};

/// One of the four packets that acknowledge a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The PUBLISH it is about.
    pub packet_id: PacketId,
    /// Success if the packet does not say; always success before MQTT 5.
    pub reason: ReasonCode,
    /// Reason string.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement with nothing but its reason.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            reason_string: None,
            user_properties: UserProperties::default(),
        }
    }

    /// Reads the body of a packet of type `kind`, which is one of the four.
    pub fn decode(kind: PacketType, body: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let mut ack = Self::new(reader.packet_id()?, ReasonCode::SUCCESS);
        if reader.is_empty() {
            return Ok(ack);
        }
        if version != Version::V5 {
            return Err(WireError::Trailing);
        }
        ack.reason = ReasonCode(reader.u8()?);
        if !allowed(kind, ack.reason) {
            return Err(WireError::Reason(ack.reason.0));
        }
        // Without properties their length may be left out (section 3.4.2.2.1).
        if !reader.is_empty() {
            let block = Block::read(&mut reader, |property| match property {
                Property::ReasonString(text) => {
                    ack.reason_string = Some(text);
                    Ok(())
                }
                Property::User(..) => Ok(()),
                other => Err(other.misplaced()),
            })?;
            ack.user_properties = block.user_properties();
        }
        reader.end()?;
        Ok(ack)
    }

    /// Appends the packet as one of type `kind`.
    pub fn encode(&self, kind: PacketType, version: Version, out: &mut Vec<u8>) {
        frame::put(out, kind, |out| {
            put_u16(out, self.packet_id.get());
            let bare = self.reason_string.is_none() && self.user_properties.is_empty();
            if version != Version::V5 || bare && self.reason == ReasonCode::SUCCESS {
                return;
            }
            out.push(self.reason.0);
            if !bare {
                put_prefixed(out, |out| {
                    put_some(out, self.reason_string, Property::ReasonString);
                    self.user_properties.put(out);
                });
            }
        });
    }
}

/// The packet of type `kind` that says success and nothing else, the same in every version.
pub fn plain(kind: PacketType, id: PacketId) -> [u8; 4] {
    let [high, low] = id.get().to_be_bytes();
    [kind.first_byte(), 2, high, low]
}

/// Sections 3.4.2.1 to 3.7.2.1.
fn allowed(kind: PacketType, reason: ReasonCode) -> bool {
    match kind {
        PacketType::Puback | PacketType::Pubrec => matches!(
            reason,
            ReasonCode::SUCCESS
                | ReasonCode::NO_MATCHING_SUBSCRIBERS
                | ReasonCode::UNSPECIFIED_ERROR
                | ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
                | ReasonCode::NOT_AUTHORIZED
                | ReasonCode::TOPIC_NAME_INVALID
                | ReasonCode::PACKET_IDENTIFIER_IN_USE
                | ReasonCode::QUOTA_EXCEEDED
                | ReasonCode::PAYLOAD_FORMAT_INVALID
        ),
        _ => matches!(
            reason,
            ReasonCode::SUCCESS | ReasonCode::PACKET_IDENTIFIER_NOT_FOUND
        ),
    }
}
