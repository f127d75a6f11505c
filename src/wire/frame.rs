//! The fixed header (MQTT 5 section 2.1): where a packet ends, and what kind it is.

use super::WireError;
use super::primitive::{self, put_prefixed};

/// The kinds of packets, by their number (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names of the standard")]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The packet type with this number; 0 is none.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type; for PUBLISH that of QoS 0.
    pub(super) fn first_byte(self) -> u8 {
        let flags = match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0x02,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }
}

/// One whole packet, cut from what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Packet type and flags.
    pub first: u8,
    /// All after the remaining length.
    pub body: &'a [u8],
    /// Bytes of the whole packet: header and body.
    pub len: usize,
}

impl Frame<'_> {
    /// What kind of packet it is; `None` only for type 0, which [`split`] does not let through.
    pub fn packet_type(&self) -> Option<PacketType> {
        PacketType::from_number(self.first >> 4)
    }

    /// The low four bits of the first byte.
    pub fn flags(&self) -> u8 {
        self.first & 0x0F
    }
}

/// Cuts the first packet off `buf`. `None`: it is not all there yet.
///
/// A wrong first byte, a wrong length and a packet of more than `max_packet` bytes (header included) are found as soon as the bytes that tell
/// are there; nobody waits for the body.
pub fn split(buf: &[u8], max_packet: u32) -> Result<Option<Frame<'_>>, WireError> {
    let Some(&first) = buf.first() else {
        return Ok(None);
    };
    check_first(first)?;
    let Some((remaining, len_bytes)) = primitive::varint(&buf[1..])? else {
        return Ok(None);
    };
    let header = 1 + len_bytes;
    let len = header + remaining as usize;
    if len as u64 > u64::from(max_packet) {
        return Err(WireError::TooLarge {
            len,
            limit: max_packet,
        });
    }
    Ok(buf.get(header..len).map(|body| Frame { first, body, len }))
}

/// Bytes of the whole packet at the start of `buf`, if its header is there and says so.
pub fn needed(buf: &[u8]) -> Option<usize> {
    let (remaining, len_bytes) = primitive::varint(buf.get(1..)?).ok()??;
    Some(1 + len_bytes + remaining as usize)
}

/// Bytes before the body, if they are all there and well-formed.
pub(super) fn header_len(buf: &[u8]) -> Option<usize> {
    let (_, len_bytes) = primitive::varint(buf.get(1..)?).ok()??;
    Some(1 + len_bytes)
}

/// Type and flags, as far as they can be judged without knowing the version (section 2.1.3).
pub(super) fn check_first(first: u8) -> Result<(), WireError> {
    let flags = first & 0x0F;
    let fine = match first >> 4 {
        0 => return Err(WireError::PacketType(0)),
        // QoS 3; DUP with QoS 0 (sections 3.3.1.1 and 3.3.1.2).
        3 => flags & 0x06 != 0x06 && flags & 0x0E != 0x08,
        // MQTT 3.1 sends these with QoS 1, and so with DUP when it sends them again (3.1, sections 3.6, 3.8, 3.10).
        6 | 8 | 10 => flags & !0x08 == 0x02,
        _ => flags == 0,
    };
    if fine {
        Ok(())
    } else {
        Err(WireError::Flags(first))
    }
}

/// Writes a packet whose length is not known beforehand.
pub(super) fn put(out: &mut Vec<u8>, kind: PacketType, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind.first_byte());
    put_prefixed(out, body);
}
