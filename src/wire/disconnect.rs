//! DISCONNECT (MQTT 5 section 3.14).

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_prefixed};
use super::property::{Block, Property, put_some};
use super::{ReasonCode, UserProperties, Version, WireError};

/// The last packet of a connection. Before MQTT 5 only a client sends it, and it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Normal disconnection (0) if the packet does not say.
    pub reason: ReasonCode,
    /// A new session expiry interval in seconds; only a client may send it.
    pub session_expiry: Option<u32>,
    /// Reason string.
    pub reason_string: Option<&'a str>,
    /// Where else the client may go.
    pub server_reference: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// With nothing but a reason.
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            ..Self::default()
        }
    }

    /// Reads the body.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut disconnect = Self::default();
        if body.is_empty() {
            return Ok(disconnect);
        }
        if version != Version::V5 {
            return Err(WireError::Trailing);
        }
        let mut reader = Reader(body);
        disconnect.reason = ReasonCode(reader.u8()?);
        if !allowed(disconnect.reason) {
            return Err(WireError::Reason(disconnect.reason.0));
        }
        // Without properties their length may be left out (section 3.14.2.2.1).
        if !reader.is_empty() {
            let block = Block::read(&mut reader, |property| {
                match property {
                    Property::SessionExpiry(secs) => disconnect.session_expiry = Some(secs),
                    Property::ReasonString(text) => disconnect.reason_string = Some(text),
                    Property::ServerReference(text) => disconnect.server_reference = Some(text),
                    Property::User(..) => {}
                    other => return Err(other.misplaced()),
                }
                Ok(())
            })?;
            disconnect.user_properties = block.user_properties();
        }
        reader.end()?;
        Ok(disconnect)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Disconnect, |out| {
            if version != Version::V5 || *self == Self::default() {
                return;
            }
            out.push(self.reason.0);
            if *self == Self::new(self.reason) {
                return;
            }
            put_prefixed(out, |out| {
                put_some(out, self.session_expiry, Property::SessionExpiry);
                put_some(out, self.reason_string, Property::ReasonString);
                put_some(out, self.server_reference, Property::ServerReference);
                self.user_properties.put(out);
            });
        });
    }
}

/// Section 3.14.2.1, both directions; 0x8C is only in the list of section 2.4.
fn allowed(reason: ReasonCode) -> bool {
    matches!(
        reason.0,
        0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
    )
}
