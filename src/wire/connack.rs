//! CONNACK (MQTT 5 section 3.2).

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_prefixed};
use super::property::{Block, Property, put_some};
use super::{Qos, ReasonCode, UserProperties, Version, WireError};

/// The server's answer to CONNECT. Before MQTT 5 it is session present and the reason, as the return code that comes closest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the standard has as many")]
pub struct Connack<'a> {
    /// The server has kept a session for this client.
    pub session_present: bool,
    /// Success, or why not.
    pub reason: ReasonCode,
    /// Session expiry in seconds that the server uses instead of the client's.
    pub session_expiry: Option<u32>,
    /// How many unacknowledged QoS 1 and 2 messages the server takes; 65,535 if absent.
    pub receive_maximum: Option<u16>,
    /// The highest QoS that the server takes, 0 or 1; 2 if absent.
    pub maximum_qos: Option<Qos>,
    /// The server keeps retained messages. True if absent.
    pub retain_available: bool,
    /// Largest packet that the server takes.
    pub maximum_packet_size: Option<u32>,
    /// The client id that the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// Topic aliases that the client may set. 0 if absent.
    pub topic_alias_maximum: u16,
    /// Reason string.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// Wildcard subscriptions are served. True if absent.
    pub wildcard_available: bool,
    /// Subscription identifiers are served. True if absent.
    pub subscription_ids_available: bool,
    /// Shared subscriptions are served. True if absent.
    pub shared_available: bool,
    /// Keep alive in seconds that the client has to use instead of its own.
    pub server_keep_alive: Option<u16>,
    /// What the client builds its response topics from.
    pub response_information: Option<&'a str>,
    /// Where else the client may go.
    pub server_reference: Option<&'a str>,
    /// Authentication method.
    pub authentication_method: Option<&'a str>,
    /// Authentication data.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for Connack<'_> {
    fn default() -> Self {
        Self {
            session_present: false,
            reason: ReasonCode::SUCCESS,
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            reason_string: None,
            user_properties: UserProperties::default(),
            wildcard_available: true,
            subscription_ids_available: true,
            shared_available: true,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl<'a> Connack<'a> {
    /// A refusal with nothing but its reason.
    pub fn refuse(reason: ReasonCode) -> Self {
        Self {
            reason,
            ..Self::default()
        }
    }

    /// Reads the body.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let flags = reader.u8()?;
        let code = reader.u8()?;
        let mut connack = Self::default();
        // MQTT 3.1 has no session present, and reserves the byte without a value.
        if version != Version::V31 {
            connack.session_present = flags == 1;
            if flags > 1 || flags == 1 && code != 0 {
                return Err(WireError::ConnectFlags(flags));
            }
        }
        if version == Version::V5 {
            connack.reason = ReasonCode(code);
            if !allowed(connack.reason) {
                return Err(WireError::Reason(code));
            }
            connack.read_properties(&mut reader)?;
        } else {
            connack.reason =
                ReasonCode::from_connect_return_code(code).ok_or(WireError::Reason(code))?;
        }
        reader.end()?;
        Ok(connack)
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), WireError> {
        let block = Block::read(reader, |property| {
            match property {
                Property::SessionExpiry(secs) => self.session_expiry = Some(secs),
                Property::ReceiveMaximum(maximum) => self.receive_maximum = Some(maximum),
                Property::MaximumQos(one) => {
                    self.maximum_qos = Some(if one {
                        Qos::AtLeastOnce
                    } else {
                        Qos::AtMostOnce
                    });
                }
                Property::RetainAvailable(available) => self.retain_available = available,
                Property::MaximumPacketSize(size) => self.maximum_packet_size = Some(size),
                Property::AssignedClientId(id) => self.assigned_client_id = Some(id),
                Property::TopicAliasMaximum(maximum) => self.topic_alias_maximum = maximum,
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::User(..) => {}
                Property::WildcardAvailable(available) => self.wildcard_available = available,
                Property::SubscriptionIdsAvailable(available) => {
                    self.subscription_ids_available = available;
                }
                Property::SharedAvailable(available) => self.shared_available = available,
                Property::ServerKeepAlive(secs) => self.server_keep_alive = Some(secs),
                Property::ResponseInformation(text) => self.response_information = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                Property::AuthenticationMethod(method) => self.authentication_method = Some(method),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                other => return Err(other.misplaced()),
            }
            Ok(())
        })?;
        self.user_properties = block.user_properties();
        Ok(())
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Connack, |out| {
            out.push(u8::from(self.session_present && version != Version::V31));
            if version == Version::V5 {
                out.push(self.reason.0);
                put_prefixed(out, |out| self.put_properties(out));
            } else {
                out.push(self.reason.connect_return_code());
            }
        });
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        // What is there by default goes without saying.
        let missing = |available: bool| (!available).then_some(false);
        let qos = self.maximum_qos.filter(|qos| *qos != Qos::ExactlyOnce);
        put_some(out, self.session_expiry, Property::SessionExpiry);
        put_some(out, self.receive_maximum, Property::ReceiveMaximum);
        put_some(out, qos, |qos| {
            Property::MaximumQos(qos == Qos::AtLeastOnce)
        });
        put_some(
            out,
            missing(self.retain_available),
            Property::RetainAvailable,
        );
        put_some(out, self.maximum_packet_size, Property::MaximumPacketSize);
        put_some(out, self.assigned_client_id, Property::AssignedClientId);
        put_some(
            out,
            Some(self.topic_alias_maximum).filter(|maximum| *maximum > 0),
            Property::TopicAliasMaximum,
        );
        put_some(out, self.reason_string, Property::ReasonString);
        put_some(
            out,
            missing(self.wildcard_available),
            Property::WildcardAvailable,
        );
        put_some(
            out,
            missing(self.subscription_ids_available),
            Property::SubscriptionIdsAvailable,
        );
        put_some(
            out,
            missing(self.shared_available),
            Property::SharedAvailable,
        );
        put_some(out, self.server_keep_alive, Property::ServerKeepAlive);
        put_some(
            out,
            self.response_information,
            Property::ResponseInformation,
        );
        put_some(out, self.server_reference, Property::ServerReference);
        put_some(
            out,
            self.authentication_method,
            Property::AuthenticationMethod,
        );
        put_some(out, self.authentication_data, Property::AuthenticationData);
        self.user_properties.put(out);
    }
}

/// Section 3.2.2.2.
fn allowed(reason: ReasonCode) -> bool {
    matches!(reason.0, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
}
