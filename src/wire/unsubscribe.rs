//! UNSUBSCRIBE (MQTT 5 section 3.10).

use std::fmt;

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_prefixed, put_string, put_u16};
use super::property::{Block, Property};
use super::{PacketId, UserProperties, Version, WireError};
use crate::limits::MAX_FILTERS_PER_PACKET;

/// The end of a wish for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// What UNSUBACK answers with.
    pub packet_id: PacketId,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// What no longer: at least one.
    pub filters: TopicFilters<'a>,
}

/// The filters of an UNSUBSCRIBE in order: as they stand in a decoded packet, or a list for a packet to encode.
#[derive(Clone, Copy)]
pub struct TopicFilters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// The packet's payload, well-formed.
    Payload {
        raw: &'a [u8],
        count: usize,
    },
    List(&'a [&'a str]),
}

impl<'a> TopicFilters<'a> {
    /// For a packet to encode: at least one.
    pub fn new(list: &'a [&'a str]) -> Self {
        Self(Source::List(list))
    }

    fn read(raw: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader(raw);
        let mut count = 0;
        while !reader.is_empty() {
            reader.string()?;
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

    /// Each filter.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
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
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.string().ok()
    }
}

impl PartialEq for TopicFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TopicFilters<'_> {}

impl fmt::Debug for TopicFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Unsubscribe<'a> {
    /// Reads the body.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let packet_id = reader.packet_id()?;
        let mut user_properties = UserProperties::default();
        if version == Version::V5 {
            let block = Block::read(&mut reader, |property| match property {
                Property::User(..) => Ok(()),
                other => Err(other.misplaced()),
            })?;
            user_properties = block.user_properties();
        }
        let filters = TopicFilters::read(reader.rest())?;
        Ok(Self {
            packet_id,
            user_properties,
            filters,
        })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Unsubscribe, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                put_prefixed(out, |out| self.user_properties.put(out));
            }
            for filter in self.filters.iter() {
                put_string(out, filter);
            }
        });
    }
}
