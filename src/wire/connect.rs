//! CONNECT (MQTT 5 section 3.1), and how to answer one that can't be read.

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_binary, put_prefixed, put_string, put_u16};
use super::property::{Block, Property, put_some};
use super::publish::check_payload;
use super::{Connack, PublishProperties, Qos, UserProperties, Version, WireError};

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// The first packet of a connection.
///
/// An empty client id is taken here whatever else is said; if it may be empty is the session's to judge (MQTT 3.1.1 section 3.1.3.1). So is
/// its length: MQTT 3.1 allows 23 characters, its clients send more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the standard has as many")]
pub struct Connect<'a> {
    /// Protocol version of the connection.
    pub version: Version,
    /// Start without an older session; clean session in MQTT 3.
    pub clean_start: bool,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// Client identifier.
    pub client_id: &'a str,
    /// What to publish if the connection ends without a DISCONNECT.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Seconds that the session outlives the connection. 0 if absent.
    pub session_expiry: u32,
    /// How many unacknowledged QoS 1 and 2 messages the client takes; 65,535 if absent.
    pub receive_maximum: u16,
    /// Largest packet that the client takes.
    pub maximum_packet_size: Option<u32>,
    /// Topic aliases that the server may set. 0 if absent.
    pub topic_alias_maximum: u16,
    /// The client would like response information. False if absent.
    pub request_response_information: bool,
    /// The client takes reason strings and user properties in every packet. True if absent.
    pub request_problem_information: bool,
    /// Authentication method.
    pub authentication_method: Option<&'a str>,
    /// Authentication data.
    pub authentication_data: Option<&'a [u8]>,
    /// User properties of the connection.
    pub user_properties: UserProperties<'a>,
}

/// A message for the time after (section 3.1.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// QoS to publish it with.
    pub qos: Qos,
    /// Publish it as a retained message.
    pub retain: bool,
    /// Where to.
    pub topic: &'a str,
    /// What.
    pub payload: &'a [u8],
    /// Seconds from the end of the connection. 0 if absent.
    pub delay: u32,
    /// Message expiry and the pass-through properties; never an alias or a subscription identifier.
    pub properties: PublishProperties<'a>,
}

impl<'a> Connect<'a> {
    /// A CONNECT with clean start and the defaults of the standard.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive: 0,
            client_id,
            will: None,
            username: None,
            password: None,
            session_expiry: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            user_properties: UserProperties::default(),
        }
    }

    /// Reads the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let version = read_version(&mut reader)?;
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let mut connect = Self::new(version, "");
        connect.clean_start = flags & CLEAN_START != 0;
        connect.keep_alive = reader.u16()?;
        if version == Version::V5 {
            connect.read_properties(&mut reader)?;
        }
        connect.client_id = reader.string()?;
        if flags & WILL != 0 {
            connect.will = Some(Will::read(&mut reader, flags, version)?);
        }
        // MQTT 3.1 section 3.1: where the packet ends before the user name, or the password, it has none, whatever the flags say.
        let ends = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
        if flags & USERNAME != 0 && !ends(&reader) {
            connect.username = Some(reader.string()?);
        }
        if flags & PASSWORD != 0 && !ends(&reader) {
            connect.password = Some(reader.binary()?);
        }
        reader.end()?;
        Ok(connect)
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), WireError> {
        let block = Block::read(reader, |property| {
            match property {
                Property::SessionExpiry(secs) => self.session_expiry = secs,
                Property::ReceiveMaximum(maximum) => self.receive_maximum = maximum,
                Property::MaximumPacketSize(size) => self.maximum_packet_size = Some(size),
                Property::TopicAliasMaximum(maximum) => self.topic_alias_maximum = maximum,
                Property::RequestResponseInformation(wanted) => {
                    self.request_response_information = wanted;
                }
                Property::RequestProblemInformation(wanted) => {
                    self.request_problem_information = wanted;
                }
                Property::AuthenticationMethod(method) => self.authentication_method = Some(method),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                Property::User(..) => {}
                other => return Err(other.misplaced()),
            }
            Ok(())
        })?;
        self.user_properties = block.user_properties();
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(WireError::AuthenticationMethod);
        }
        Ok(())
    }

    /// Appends the packet, in its own version.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Connect, |out| {
            put_string(
                out,
                if self.version == Version::V31 {
                    "MQIsdp"
                } else {
                    "MQTT"
                },
            );
            out.push(self.version as u8);
            out.push(self.flags());
            put_u16(out, self.keep_alive);
            if self.version == Version::V5 {
                put_prefixed(out, |out| self.put_properties(out));
            }
            put_string(out, self.client_id);
            if let Some(will) = &self.will {
                will.put(self.version, out);
            }
            if let Some(username) = self.username {
                put_string(out, username);
            }
            if let Some(password) = self.password {
                put_binary(out, password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        let will = self.will.map_or(0, |will| {
            WILL | (will.qos as u8) << 3 | flag(WILL_RETAIN, will.retain)
        });
        flag(CLEAN_START, self.clean_start)
            | will
            | flag(PASSWORD, self.password.is_some())
            | flag(USERNAME, self.username.is_some())
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        put_some(
            out,
            Some(self.session_expiry).filter(|secs| *secs > 0),
            Property::SessionExpiry,
        );
        put_some(
            out,
            Some(self.receive_maximum).filter(|maximum| *maximum < u16::MAX),
            Property::ReceiveMaximum,
        );
        put_some(out, self.maximum_packet_size, Property::MaximumPacketSize);
        put_some(
            out,
            Some(self.topic_alias_maximum).filter(|maximum| *maximum > 0),
            Property::TopicAliasMaximum,
        );
        put_some(
            out,
            self.request_response_information.then_some(true),
            Property::RequestResponseInformation,
        );
        put_some(
            out,
            (!self.request_problem_information).then_some(false),
            Property::RequestProblemInformation,
        );
        put_some(
            out,
            self.authentication_method,
            Property::AuthenticationMethod,
        );
        put_some(out, self.authentication_data, Property::AuthenticationData);
        self.user_properties.put(out);
    }
}

impl<'a> Will<'a> {
    fn read(reader: &mut Reader<'a>, flags: u8, version: Version) -> Result<Self, WireError> {
        let mut delay = 0;
        let mut text = false;
        let mut properties = PublishProperties::default();
        if version == Version::V5 {
            let block = Block::read(reader, |property| {
                match property {
                    Property::WillDelay(secs) => delay = secs,
                    Property::MessageExpiry(secs) => properties.message_expiry = Some(secs),
                    Property::PayloadFormat(is_text) => text = is_text,
                    Property::ContentType(_)
                    | Property::ResponseTopic(_)
                    | Property::CorrelationData(_)
                    | Property::User(..) => {}
                    other => return Err(other.misplaced()),
                }
                Ok(())
            })?;
            properties.forward = block.forward();
        }
        let topic = reader.string()?;
        let payload = reader.binary()?;
        check_payload(payload, text)?;
        Ok(Self {
            qos: Qos::from_bits((flags & WILL_QOS) >> 3).ok_or(WireError::ConnectFlags(flags))?,
            retain: flags & WILL_RETAIN != 0,
            topic,
            payload,
            delay,
            properties,
        })
    }

    fn put(&self, version: Version, out: &mut Vec<u8>) {
        if version == Version::V5 {
            put_prefixed(out, |out| {
                put_some(
                    out,
                    Some(self.delay).filter(|secs| *secs > 0),
                    Property::WillDelay,
                );
                put_some(out, self.properties.message_expiry, Property::MessageExpiry);
                self.properties.forward.copy_to(out);
            });
        }
        put_string(out, self.topic);
        put_binary(out, self.payload);
    }
}

/// Section 3.1.2.3 and on. The reserved bit has to be 0; QoS and retain of a will need a will; before MQTT 5 a password needs a user name.
fn check_flags(flags: u8, version: Version) -> Result<(), WireError> {
    let will = flags & WILL != 0;
    let bad = flags & 0x01 != 0
        || !will && flags & (WILL_QOS | WILL_RETAIN) != 0
        || version != Version::V5 && flags & PASSWORD != 0 && flags & USERNAME == 0;
    if bad {
        Err(WireError::ConnectFlags(flags))
    } else {
        Ok(())
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, WireError> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQIsdp" | b"MQTT", level) => Err(WireError::ProtocolLevel(level)),
        _ => Err(WireError::ProtocolName),
    }
}

/// What to answer a CONNECT that [`Connect::decode`] or [`frame::split`] refused with `error`, and in which version to encode it. `None`: the
/// standard has no answer but closing the connection. `buf` begins with the packet, as much of it as has come.
///
/// An unknown level is answered in the format its sender most likely reads: MQTT 5 from level 5 on, else MQTT 3.1.1 (MQTT 5 section 3.1.2.2).
/// The highest bit, which marks a bridge, does not count for this. What is malformed is told in MQTT 5 alone; MQTT 3 closes (3.1.1, section 4.8).
pub fn refusal(buf: &[u8], error: &WireError) -> Option<(Version, Connack<'static>)> {
    if buf.first()? >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let mut reader = Reader(buf.get(frame::header_len(buf)?..)?);
    let version = match read_version(&mut reader) {
        Ok(version) => version,
        Err(WireError::ProtocolLevel(level)) if level & 0x7F >= 5 => Version::V5,
        Err(WireError::ProtocolLevel(_)) => Version::V311,
        Err(_) => return None,
    };
    let tell = version == Version::V5 || matches!(error, WireError::ProtocolLevel(_));
    tell.then(|| (version, Connack::refuse(error.connack_reason())))
}
