//! SUBSCRIBE (MQTT 5 section 3.8).

use std::fmt;

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_prefixed, put_string, put_u16};
use super::property::{Block, Property, put_some};
use super::{PacketId, Qos, UserProperties, Version, WireError};
use crate::limits::MAX_FILTERS_PER_PACKET;

/// A wish for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// What SUBACK answers with.
    pub packet_id: PacketId,
    /// To be sent along with each message that matches; 1 to 268,435,455.
    pub subscription_id: Option<u32>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// What for: at least one.
    pub filters: Filters<'a>,
}

/// How one filter is to be served (section 3.8.3.1). Before MQTT 5 there is the QoS only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct SubscribeOptions {
    /// The highest QoS to send with.
    pub qos: Qos,
    /// Not what this client itself publishes.
    pub no_local: bool,
    /// Keep the retain flag that the publisher set.
    pub retain_as_published: bool,
    /// If retained messages are to be sent now.
    pub retain_handling: RetainHandling,
}

/// When a subscription brings the retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Each time.
    #[default]
    Send = 0,
    /// Only if the subscription did not exist.
    SendIfNew = 1,
    /// Never.
    DontSend = 2,
}

impl SubscribeOptions {
    /// QoS, and the rest as MQTT 3 has it.
    pub fn new(qos: Qos) -> Self {
        Self {
            qos,
            ..Self::default()
        }
    }

    /// From the options byte of MQTT 5. That of MQTT 3 is the same with the upper bits 0.
    pub fn from_bits(bits: u8) -> Result<Self, WireError> {
        let retain_handling = match bits >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DontSend,
            _ => return Err(WireError::SubscribeOptions(bits)),
        };
        let qos = Qos::from_bits(bits & 0x03).ok_or(WireError::SubscribeOptions(bits))?;
        Ok(Self {
            qos,
            no_local: bits & 0x04 != 0,
            retain_as_published: bits & 0x08 != 0,
            retain_handling,
        })
    }

    /// The options byte of MQTT 5.
    pub fn bits(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// The filters of a SUBSCRIBE in order: as they stand in a decoded packet, or a list for a packet to encode.
#[derive(Clone, Copy)]
pub struct Filters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// The packet's payload, well-formed.
    Payload {
        raw: &'a [u8],
        count: usize,
    },
    List(&'a [(&'a str, SubscribeOptions)]),
}

impl<'a> Filters<'a> {
    /// For a packet to encode: at least one.
    pub fn new(list: &'a [(&'a str, SubscribeOptions)]) -> Self {
        Self(Source::List(list))
    }

    fn read(raw: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut reader = Reader(raw);
        let mut count = 0;
        while !reader.is_empty() {
            reader.string()?;
            let bits = reader.u8()?;
            SubscribeOptions::from_bits(bits)?;
            if version != Version::V5 && bits > 2 {
                return Err(WireError::SubscribeOptions(bits));
            }
            count += 1;
        }
        match count {
            0 => Err(WireError::NoFilters),
            1..=MAX_FILTERS_PER_PACKET => Ok(Self(Source::Payload { raw, count })),
            _ => Err(WireError::TooManyFilters),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Payload { count, .. } => count,
            Source::List(list) => list.len(),
        }
    }

    /// True if there is none; not so in a decoded packet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of each filter, without another look at what they are.
    pub fn bytes(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (raw, list): (&[u8], &'a [(&'a str, SubscribeOptions)]) = match self.0 {
            Source::Payload { raw, .. } => (raw, &[]),
            Source::List(list) => (&[], list),
        };
        let mut reader = Reader(raw);
        let next = move || {
            let filter = reader.binary().ok()?;
            reader.u8().ok()?;
            Some(filter)
        };
        std::iter::from_fn(next).chain(list.iter().map(|(filter, _)| filter.as_bytes()))
    }

    /// Each filter with its options.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + Clone + use<'a> {
        let (raw, list): (&[u8], &[_]) = match self.0 {
            Source::Payload { raw, .. } => (raw, &[]),
            Source::List(list) => (&[], list),
        };
        Walk(Reader(raw)).chain(list.iter().copied())
    }
}

#[derive(Clone)]
struct Walk<'a>(Reader<'a>);

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        let filter = self.0.string().ok()?;
        let options = SubscribeOptions::from_bits(self.0.u8().ok()?).ok()?;
        Some((filter, options))
    }
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Filters<'_> {}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Subscribe<'a> {
    /// Reads the body.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let packet_id = reader.packet_id()?;
        let mut subscription_id = None;
        let mut user_properties = UserProperties::default();
        if version == Version::V5 {
            let block = Block::read(&mut reader, |property| match property {
                Property::SubscriptionId(id) if subscription_id.is_none() => {
                    subscription_id = Some(id);
                    Ok(())
                }
                Property::SubscriptionId(_) => Err(WireError::DuplicateProperty(property.id())),
                Property::User(..) => Ok(()),
                other => Err(other.misplaced()),
            })?;
            user_properties = block.user_properties();
        }
        let filters = Filters::read(reader.rest(), version)?;
        Ok(Self {
            packet_id,
            subscription_id,
            user_properties,
            filters,
        })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Subscribe, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                put_prefixed(out, |out| {
                    put_some(out, self.subscription_id, Property::SubscriptionId);
                    self.user_properties.put(out);
                });
            }
            for (filter, options) in self.filters.iter() {
                put_string(out, filter);
                out.push(if version == Version::V5 {
                    options.bits()
                } else {
                    options.qos as u8
                });
            }
        });
    }
}
