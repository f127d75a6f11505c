//! AUTH (MQTT 5 section 3.15).

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_prefixed};
use super::property::{Block, Property, put_some};
use super::{ReasonCode, UserProperties, WireError};

/// A step of an enhanced authentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue authentication or re-authenticate.
    pub reason: ReasonCode,
    /// Authentication method; missing only in an AUTH without a body.
    pub authentication_method: Option<&'a str>,
    /// Authentication data.
    pub authentication_data: Option<&'a [u8]>,
    /// Reason string.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// Reads the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut auth = Self::default();
        // Success without properties may be left out altogether (section 3.15.2.1).
        if body.is_empty() {
            return Ok(auth);
        }
        let mut reader = Reader(body);
        auth.reason = ReasonCode(reader.u8()?);
        if !matches!(
            auth.reason,
            ReasonCode::SUCCESS | ReasonCode::CONTINUE_AUTHENTICATION | ReasonCode::REAUTHENTICATE
        ) {
            return Err(WireError::Reason(auth.reason.0));
        }
        let block = Block::read(&mut reader, |property| {
            match property {
                Property::AuthenticationMethod(method) => auth.authentication_method = Some(method),
                Property::AuthenticationData(data) => auth.authentication_data = Some(data),
                Property::ReasonString(text) => auth.reason_string = Some(text),
                Property::User(..) => {}
                other => return Err(other.misplaced()),
            }
            Ok(())
        })?;
        auth.user_properties = block.user_properties();
        if auth.authentication_method.is_none() {
            return Err(WireError::AuthenticationMethod);
        }
        reader.end()?;
        Ok(auth)
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Auth, |out| {
            if *self == Self::default() {
                return;
            }
            out.push(self.reason.0);
            put_prefixed(out, |out| {
                put_some(
                    out,
                    self.authentication_method,
                    Property::AuthenticationMethod,
                );
                put_some(out, self.authentication_data, Property::AuthenticationData);
                put_some(out, self.reason_string, Property::ReasonString);
                self.user_properties.put(out);
            });
        });
    }
}
