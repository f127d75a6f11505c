//! Properties (MQTT 5 section 2.2.2): each knows its type and its bounds; a block of them is walked once, front to back.

use super::WireError;
use super::primitive::{Reader, put_binary, put_string, put_u16, put_varint};

mod forward;
mod list;

pub use forward::{Forward, ForwardFields};
pub use list::{SubscriptionIds, UserProperties};

/// One property. Which packet it may stand in is checked by who walks the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property<'a> {
    PayloadFormat(bool),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelay(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(bool),
    RetainAvailable(bool),
    User(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardAvailable(bool),
    SubscriptionIdsAvailable(bool),
    SharedAvailable(bool),
}

impl<'a> Property<'a> {
    /// Reads one property. Values that no packet may carry are refused here.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        // The identifier is a variable byte integer, but none needs more than one byte.
        let id = reader.u8()?;
        let flag = |reader: &mut Reader<'a>| match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::PropertyValue(id)),
        };
        let not_zero = |fine: bool| {
            if fine {
                Ok(())
            } else {
                Err(WireError::PropertyValue(id))
            }
        };
        Ok(match id {
            0x01 => Self::PayloadFormat(flag(reader)?),
            0x02 => Self::MessageExpiry(reader.u32()?),
            0x03 => Self::ContentType(reader.string()?),
            0x08 => Self::ResponseTopic(reader.string()?),
            0x09 => Self::CorrelationData(reader.binary()?),
            0x0B => {
                let id = reader.varint()?;
                not_zero(id != 0)?;
                Self::SubscriptionId(id)
            }
            0x11 => Self::SessionExpiry(reader.u32()?),
            0x12 => Self::AssignedClientId(reader.string()?),
            0x13 => Self::ServerKeepAlive(reader.u16()?),
            0x15 => Self::AuthenticationMethod(reader.string()?),
            0x16 => Self::AuthenticationData(reader.binary()?),
            0x17 => Self::RequestProblemInformation(flag(reader)?),
            0x18 => Self::WillDelay(reader.u32()?),
            0x19 => Self::RequestResponseInformation(flag(reader)?),
            0x1A => Self::ResponseInformation(reader.string()?),
            0x1C => Self::ServerReference(reader.string()?),
            0x1F => Self::ReasonString(reader.string()?),
            0x21 => {
                let maximum = reader.u16()?;
                not_zero(maximum != 0)?;
                Self::ReceiveMaximum(maximum)
            }
            0x22 => Self::TopicAliasMaximum(reader.u16()?),
            0x23 => match reader.u16()? {
                0 => return Err(WireError::TopicAlias),
                alias => Self::TopicAlias(alias),
            },
            0x24 => Self::MaximumQos(flag(reader)?),
            0x25 => Self::RetainAvailable(flag(reader)?),
            0x26 => Self::User(reader.string()?, reader.string()?),
            0x27 => {
                let maximum = reader.u32()?;
                not_zero(maximum != 0)?;
                Self::MaximumPacketSize(maximum)
            }
            0x28 => Self::WildcardAvailable(flag(reader)?),
            0x29 => Self::SubscriptionIdsAvailable(flag(reader)?),
            0x2A => Self::SharedAvailable(flag(reader)?),
            id => return Err(WireError::UnknownProperty(id)),
        })
    }

    pub(super) fn id(self) -> u8 {
        match self {
            Self::PayloadFormat(_) => 0x01,
            Self::MessageExpiry(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionId(_) => 0x0B,
            Self::SessionExpiry(_) => 0x11,
            Self::AssignedClientId(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelay(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1A,
            Self::ServerReference(_) => 0x1C,
            Self::ReasonString(_) => 0x1F,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQos(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::User(..) => 0x26,
            Self::MaximumPacketSize(_) => 0x27,
            Self::WildcardAvailable(_) => 0x28,
            Self::SubscriptionIdsAvailable(_) => 0x29,
            Self::SharedAvailable(_) => 0x2A,
        }
    }

    /// Appends identifier and value.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.push(self.id());
        match self {
            Self::PayloadFormat(flag)
            | Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::MaximumQos(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardAvailable(flag)
            | Self::SubscriptionIdsAvailable(flag)
            | Self::SharedAvailable(flag) => out.push(u8::from(flag)),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => put_u16(out, value),
            Self::MessageExpiry(value)
            | Self::SessionExpiry(value)
            | Self::WillDelay(value)
            | Self::MaximumPacketSize(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::SubscriptionId(id) => put_varint(out, id as usize),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientId(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => put_string(out, text),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => {
                put_binary(out, bytes);
            }
            Self::User(name, value) => {
                put_string(out, name);
                put_string(out, value);
            }
        }
    }

    /// For a packet in which it must not stand.
    pub(super) fn misplaced(self) -> WireError {
        WireError::MisplacedProperty(self.id())
    }
}

/// Appends a property if it is there.
pub(super) fn put_some<'a, T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    property: impl FnOnce(T) -> Property<'a>,
) {
    if let Some(value) = value {
        property(value).put(out);
    }
}

/// A block of properties that has been walked: all of them well-formed, none twice that may stand once.
#[derive(Clone, Copy, Default)]
pub(super) struct Block<'a> {
    /// All after the length.
    raw: &'a [u8],
    /// Bit `id` is set for each property that stands there; identifiers end at 0x2A.
    seen: u64,
    /// Bytes of the pass-through properties.
    forward_len: usize,
}

impl<'a> Block<'a> {
    /// Reads a property length and walks what follows. `take` gets each property and refuses those that don't belong. A subscription identifier
    /// may stand more than once, in PUBLISH; SUBSCRIBE has to look after that itself.
    #[inline]
    pub(super) fn read(
        reader: &mut Reader<'a>,
        mut take: impl FnMut(Property<'a>) -> Result<(), WireError>,
    ) -> Result<Self, WireError> {
        let len = reader.varint()?;
        let raw = reader.take(len as usize)?;
        let mut block = Self {
            raw,
            ..Self::default()
        };
        let mut rest = Reader(raw);
        while !rest.is_empty() {
            let before = rest.0.len();
            let property = Property::read(&mut rest)?;
            let bit = 1 << property.id();
            let repeats = matches!(property, Property::User(..) | Property::SubscriptionId(_));
            if block.seen & bit != 0 && !repeats {
                return Err(WireError::DuplicateProperty(property.id()));
            }
            block.seen |= bit;
            if forward::MASK & bit != 0 {
                block.forward_len += before - rest.0.len();
            }
            take(property)?;
        }
        Ok(block)
    }

    pub(super) fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::from_block(if self.has(0x26) { self.raw } else { &[] })
    }

    pub(super) fn subscription_ids(&self) -> SubscriptionIds<'a> {
        SubscriptionIds::from_block(if self.has(0x0B) { self.raw } else { &[] })
    }

    pub(super) fn forward(&self) -> Forward<'a> {
        Forward::from_block(self.raw, self.forward_len)
    }

    fn has(&self, id: u8) -> bool {
        self.seen & (1 << id) != 0
    }
}

/// The properties that follow in a block known to be well-formed.
#[derive(Clone)]
struct Walk<'a>(Reader<'a>);

impl<'a> Iterator for Walk<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        // Whatever the bytes, this ends: an error ends it too.
        if self.0.is_empty() {
            None
        } else {
            Property::read(&mut self.0).ok()
        }
    }
}
