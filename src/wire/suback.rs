//! SUBACK and UNSUBACK (MQTT 5 sections 3.9 and 3.11): one code for each filter that was asked for.

use super::frame::{self, PacketType};
use super::primitive::{Reader, put_prefixed, put_u16};
use super::property::{Block, Property, put_some};
use super::{PacketId, ReasonCode, UserProperties, Version, WireError};

/// The answer to SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    /// The SUBSCRIBE it answers.
    pub packet_id: PacketId,
    /// Reason string.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// Reason codes, a byte each, in the order of the filters. Before MQTT 5 every error is written as 0x80.
    pub codes: &'a [u8],
}

/// The answer to UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsuback<'a> {
    /// The UNSUBSCRIBE it answers.
    pub packet_id: PacketId,
    /// Reason string.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// Reason codes, a byte each, in the order of the filters; none before MQTT 5.
    pub codes: &'a [u8],
}

impl<'a> Suback<'a> {
    /// An answer with nothing but its codes.
    pub fn new(packet_id: PacketId, codes: &'a [u8]) -> Self {
        Self {
            packet_id,
            reason_string: None,
            user_properties: UserProperties::default(),
            codes,
        }
    }

    /// Reads the body.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let packet_id = reader.packet_id()?;
        let (reason_string, user_properties) = read_properties(&mut reader, version)?;
        let codes = reader.rest();
        let allowed = |code: u8| match code {
            0..=2 | 0x80 => true,
            0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2 => version == Version::V5,
            _ => false,
        };
        check_codes(codes, allowed)?;
        Ok(Self {
            packet_id,
            reason_string,
            user_properties,
            codes,
        })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Suback, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                put_properties(out, self.reason_string, self.user_properties);
                out.extend_from_slice(self.codes);
            } else {
                out.extend(
                    self.codes
                        .iter()
                        .map(|code| (*code).min(ReasonCode::UNSPECIFIED_ERROR.0)),
                );
            }
        });
    }
}

impl<'a> Unsuback<'a> {
    /// An answer with nothing but its codes.
    pub fn new(packet_id: PacketId, codes: &'a [u8]) -> Self {
        Self {
            packet_id,
            reason_string: None,
            user_properties: UserProperties::default(),
            codes,
        }
    }

    /// Reads the body.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let packet_id = reader.packet_id()?;
        let (reason_string, user_properties) = read_properties(&mut reader, version)?;
        let mut codes: &[u8] = &[];
        if version == Version::V5 {
            codes = reader.rest();
            check_codes(codes, |code| {
                matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            })?;
        }
        reader.end()?;
        Ok(Self {
            packet_id,
            reason_string,
            user_properties,
            codes,
        })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        frame::put(out, PacketType::Unsuback, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                put_properties(out, self.reason_string, self.user_properties);
                out.extend_from_slice(self.codes);
            }
        });
    }
}

fn check_codes(codes: &[u8], allowed: impl Fn(u8) -> bool) -> Result<(), WireError> {
    if codes.is_empty() {
        return Err(WireError::NoFilters);
    }
    codes
        .iter()
        .find(|code| !allowed(**code))
        .map_or(Ok(()), |code| Err(WireError::Reason(*code)))
}

fn read_properties<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<(Option<&'a str>, UserProperties<'a>), WireError> {
    let mut reason_string = None;
    if version != Version::V5 {
        return Ok((None, UserProperties::default()));
    }
    let block = Block::read(reader, |property| match property {
        Property::ReasonString(text) => {
            reason_string = Some(text);
            Ok(())
        }
        Property::User(..) => Ok(()),
        other => Err(other.misplaced()),
    })?;
    Ok((reason_string, block.user_properties()))
}

fn put_properties(
    out: &mut Vec<u8>,
    reason_string: Option<&str>,
    user_properties: UserProperties<'_>,
) {
    put_prefixed(out, |out| {
        put_some(out, reason_string, Property::ReasonString);
        user_properties.put(out);
    });
}
