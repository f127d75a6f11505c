//! What can be wrong with a packet. It is always the peer who erred.

use std::fmt;

use super::ReasonCode;

/// A packet that the standard does not allow. Carries what a log line needs; [`WireError::reason`] is what the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Packet type 0, or AUTH before MQTT 5 (section 2.1.2).
    PacketType(u8),
    /// The flags in the first byte don't fit the type (section 2.1.3), or QoS 3, or DUP with QoS 0 (section 3.3.1).
    Flags(u8),
    /// A variable byte integer of five bytes, or one that is longer than it needs to be (section 1.5.5).
    Varint,
    /// The packet is larger than the receiver takes.
    TooLarge {
        /// Bytes of the whole packet, by its header.
        len: usize,
        /// The limit.
        limit: u32,
    },
    /// A field reaches past the end of the packet or of the properties.
    Truncated,
    /// Bytes after the last field.
    Trailing,
    /// Not UTF-8, or contains NUL (section 1.5.4).
    Text,
    /// The protocol name is neither `MQTT` nor, with level 3, `MQIsdp` (section 3.1.2.1).
    ProtocolName,
    /// A protocol level that nobody here speaks (section 3.1.2.2).
    ProtocolLevel(u8),
    /// The flags of CONNECT or CONNACK: reserved bit, will QoS or retain without a will, password without user name in MQTT 3, session present
    /// with an error.
    ConnectFlags(u8),
    /// A property identifier that does not exist (section 2.2.2.2).
    UnknownProperty(u8),
    /// A property that does not belong to this packet (section 2.2.2.2).
    MisplacedProperty(u8),
    /// A property that may stand once stands twice.
    DuplicateProperty(u8),
    /// A property whose value the standard forbids, such as a receive maximum of 0.
    PropertyValue(u8),
    /// Topic alias 0 (section 3.3.2.3.4).
    TopicAlias,
    /// An empty topic without a topic alias (section 3.3.2.1).
    TopicMissing,
    /// The payload is said to be UTF-8 and is not (section 3.3.2.3.2).
    PayloadFormat,
    /// Packet identifier 0 (section 2.2.1).
    PacketIdZero,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, SUBACK without a code (sections 3.8.3, 3.10.3).
    NoFilters,
    /// More filters in one packet than [`crate::limits::MAX_FILTERS_PER_PACKET`].
    TooManyFilters,
    /// Reserved bits, QoS 3 or retain handling 3 in the options of a subscription (section 3.8.3.1).
    SubscribeOptions(u8),
    /// A reason code that this packet can't carry (section 2.4).
    Reason(u8),
    /// Authentication data without a method, or AUTH without one (sections 3.1.2.11.10, 3.15.2.2.2).
    AuthenticationMethod,
}

impl WireError {
    /// The reason code of the standard (section 4.13).
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::PacketType(_)
            | Self::Flags(_)
            | Self::Varint
            | Self::Truncated
            | Self::Trailing
            | Self::Text
            | Self::ConnectFlags(_)
            | Self::UnknownProperty(_)
            | Self::MisplacedProperty(_) => ReasonCode::MALFORMED_PACKET,
            // Reserved bits are malformed, values that don't exist are a protocol error (section 3.8.3.1).
            Self::SubscribeOptions(bits) if bits & 0xC0 != 0 => ReasonCode::MALFORMED_PACKET,
            Self::SubscribeOptions(_)
            | Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::TopicMissing
            | Self::PacketIdZero
            | Self::NoFilters
            | Self::Reason(_)
            | Self::AuthenticationMethod => ReasonCode::PROTOCOL_ERROR,
            Self::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            Self::ProtocolName | Self::ProtocolLevel(_) => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            Self::TopicAlias => ReasonCode::TOPIC_ALIAS_INVALID,
            Self::PayloadFormat => ReasonCode::PAYLOAD_FORMAT_INVALID,
            Self::TooManyFilters => ReasonCode::QUOTA_EXCEEDED,
        }
    }

    /// The reason code for a CONNACK, which knows fewer of them (section 3.2.2.2).
    pub fn connack_reason(&self) -> ReasonCode {
        match self.reason() {
            ReasonCode::TOPIC_ALIAS_INVALID => ReasonCode::PROTOCOL_ERROR,
            reason => reason,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PacketType(kind) => write!(f, "packet type {kind} does not exist"),
            Self::Flags(first) => write!(
                f,
                "first byte {first:#04x} has flags that its packet type does not allow"
            ),
            Self::Varint => f.write_str("a variable byte integer is too long"),
            Self::TooLarge { len, limit } => write!(f, "packet of {len} bytes, {limit} are taken"),
            Self::Truncated => f.write_str("a field reaches past the end of the packet"),
            Self::Trailing => f.write_str("bytes after the last field"),
            Self::Text => f.write_str("a string is not UTF-8, or contains NUL"),
            Self::ProtocolName => f.write_str("unknown protocol name"),
            Self::ProtocolLevel(level) => write!(f, "unknown protocol level {level}"),
            Self::ConnectFlags(flags) => write!(f, "connect flags {flags:#04x} are not allowed"),
            Self::UnknownProperty(id) => write!(f, "unknown property {id:#04x}"),
            Self::MisplacedProperty(id) => {
                write!(f, "property {id:#04x} does not belong to this packet")
            }
            Self::DuplicateProperty(id) => write!(f, "property {id:#04x} stands twice"),
            Self::PropertyValue(id) => {
                write!(f, "property {id:#04x} has a value that is not allowed")
            }
            Self::TopicAlias => f.write_str("topic alias 0"),
            Self::TopicMissing => f.write_str("neither topic nor topic alias"),
            Self::PayloadFormat => f.write_str("the payload is not the UTF-8 it is said to be"),
            Self::PacketIdZero => f.write_str("packet identifier 0"),
            Self::NoFilters => f.write_str("no topic filter"),
            Self::TooManyFilters => f.write_str("too many topic filters in one packet"),
            Self::SubscribeOptions(bits) => {
                write!(f, "subscription options {bits:#04x} are not allowed")
            }
            Self::Reason(code) => {
                write!(f, "reason code {code:#04x} does not belong to this packet")
            }
            Self::AuthenticationMethod => f.write_str("authentication without a method"),
        }
    }
}

impl std::error::Error for WireError {}
