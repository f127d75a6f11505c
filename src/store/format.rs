//! The byte map of a log: the one place that says where what stands. No I/O.
//!
//! A log is a chain of segments, one file each. A *position* is an offset in the whole log: it grows for ever, and a segment holds the
//! positions from its `base` up to `base + size`. Everything is little endian; every record and every base is a multiple of 8.
//!
//! ```text
//! segment   0 ┌ head 64 ┐ 64 ┌ record ┐┌ record ┐ ... ┌ seal ┐ zeros   size - 64 ┌ copy of the head 64 ┐
//!
//! head      0 magic "stillog\n" 8   what file this is
//!           8 version u32           another layout is refused, not guessed
//!          12 reactor u32           a file in a wrong directory is noticed
//!          16 key u64               of the log; seeds the checksums, so that what a client sent can't pass for a record
//!          24 base u64              the position of byte 0
//!          32 size u64              of the file; a cut file is noticed
//!          40 oldest u64            base of the oldest segment when this one was begun: a removed file that a power loss brought
//!                                   back is told by its base below this
//!          48 zeros 12
//!          60 crc u32               CRC-32C of bytes 0..60
//!          The copy at the end is there so that a bad sector costs what stands in it, not a whole segment. A file whose heads are
//!          both zeros was prepared and never begun.
//!
//! record    0 crc u32               CRC-32C of bytes 8..padded end, seeded with key, position and len
//!           4 len u32               of the record without padding, at least 24; 0: nothing here (yet)
//!           8 kind u8               [`Kind`]
//!           9 tag u8                small things of the kind
//!          10 aux u16               a length or count of the kind
//!          12 session u32           index of the session it speaks of
//!          16 serial u32            and its serial: an index is used again, a pair never
//!          20 seq u32               place in the session's queue
//!          24 payload               up to len, then zeros up to a multiple of 8
//! ```
//!
//! crc and len are one aligned word, written last: a process that is killed leaves a whole record or none. The seed holds the position,
//! so an old record that turns up somewhere else is none. The padding is in the sum, so that every byte is.

use std::fmt;

/// Bytes of a segment's head, and of its copy at the end.
pub const HEAD: usize = 64;

/// Bytes of a record before its payload.
pub const RECORD_HEAD: usize = 24;

/// The version this build writes and reads.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"stillog\n";

/// A byte offset in a log, counted from its first byte ever. Records stand at multiples of 8, and never at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a record says. The payloads are the store's; the log looks at none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A session's state. The newest one counts.
    State = 1,
    /// A change of a session, applied behind its state.
    Note = 2,
    /// The end of a session: state, notes and queue.
    End = 3,
    /// A queue entry with a body of its own; aux: bytes of meta before the body.
    Message = 4,
    /// A body that several queue entries share.
    Body = 5,
    /// Queue entries that lead to one shared body.
    Fan = 6,
    /// A queue entry that leads to a shared body and has meta of its own.
    Reference = 7,
    /// The receiver has the message; its entry stays until it is done.
    Received = 8,
    /// A queue entry is over.
    Done = 9,
    /// A value under a key; aux: bytes of the key.
    Value = 10,
    /// A key has no value any more.
    Forget = 11,
    /// The log goes on in the next segment. Written by the log itself, never seen by who reads records.
    Seal = 255,
}

impl Kind {
    /// The kind of this byte, if this version has one.
    pub fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::State,
            2 => Self::Note,
            3 => Self::End,
            4 => Self::Message,
            5 => Self::Body,
            6 => Self::Fan,
            7 => Self::Reference,
            8 => Self::Received,
            9 => Self::Done,
            10 => Self::Value,
            11 => Self::Forget,
            255 => Self::Seal,
            _ => return None,
        })
    }
}

/// A record's header without checksum and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it says.
    pub kind: Kind,
    /// Small things of the kind.
    pub tag: u8,
    /// A length or count of the kind.
    pub aux: u16,
    /// Index of the session it speaks of.
    pub session: u32,
    /// Serial of that session.
    pub serial: u32,
    /// Place in its queue.
    pub seq: u32,
}

impl Header {
    /// A header with zeros but for its kind.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            tag: 0,
            aux: 0,
            session: 0,
            serial: 0,
            seq: 0,
        }
    }

    /// Bytes 8..24 of the record.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.kind as u8;
        bytes[1] = self.tag;
        bytes[2..4].copy_from_slice(&self.aux.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.session.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.serial.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    /// The other way; none: a kind that this version doesn't know.
    pub fn decode(bytes: &[u8; 16]) -> Option<Self> {
        Some(Self {
            kind: Kind::of(bytes[0])?,
            tag: bytes[1],
            aux: u16::from_le_bytes([bytes[2], bytes[3]]),
            session: u32_at(bytes, 4),
            serial: u32_at(bytes, 8),
            seq: u32_at(bytes, 12),
        })
    }
}

/// The name of the file of a segment: files are numbered as they are made.
pub fn file_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// The other way; none: not the name of a segment.
pub fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (name == file_name(number)).then_some(number)
}

/// Bytes a record with this payload takes in a log.
pub const fn footprint(payload: usize) -> usize {
    (RECORD_HEAD + payload).next_multiple_of(8)
}

/// The word at the front of a record: checksum and length.
pub const fn word(crc: u32, len: u32) -> u64 {
    (crc as u64) | ((len as u64) << 32)
}

/// Checksum and length out of that word.
pub const fn unword(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// The checksum of a record of `len` bytes at `position`; `rest` is bytes 8 up to its padded end.
#[inline]
pub fn crc(key: u64, position: u64, len: u32, rest: &[u8]) -> u32 {
    // A product spreads key and position over all bits, so that nobody who knows neither can aim at a sum.
    let product =
        u128::from(key ^ position) * u128::from(0x9e37_79b9_7f4a_7c15 ^ (u64::from(len) << 24));
    let folded = (product as u64) ^ ((product >> 64) as u64) ^ key;
    crc32c::crc32c_append((folded ^ (folded >> 32)) as u32, rest)
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The reactor whose log it belongs to.
    pub reactor: u32,
    /// The log's key.
    pub key: u64,
    /// The position of its first byte.
    pub base: u64,
    /// Its bytes.
    pub size: u64,
    /// Base of the oldest segment when it was begun.
    pub oldest: u64,
}

/// Bytes that are no head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHead {
    /// All zeros: prepared and never begun.
    Blank,
    /// A version this build doesn't know.
    Version(u32),
    /// Something else, or damaged.
    Foreign,
}

impl Head {
    /// As it stands in the file.
    pub fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.reactor.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.key.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.size.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.oldest.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The other way.
    pub fn decode(bytes: &[u8; HEAD]) -> Result<Self, NoHead> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(NoHead::Blank);
        }
        if bytes[0..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(NoHead::Foreign);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(NoHead::Version(version));
        }
        let head = Self {
            reactor: u32_at(bytes, 12),
            key: u64_at(bytes, 16),
            base: u64_at(bytes, 24),
            size: u64_at(bytes, 32),
            oldest: u64_at(bytes, 40),
        };
        // What follows counts with these without looking again.
        if head.base.is_multiple_of(8)
            && head.size.is_multiple_of(8)
            && head.size >= (2 * HEAD) as u64
            && head.base.checked_add(head.size).is_some()
            && head.oldest <= head.base
        {
            Ok(head)
        } else {
            Err(NoHead::Foreign)
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        kind: Kind::Message,
        tag: 3,
        aux: 0x1234,
        session: 0x0a0b_0c0d,
        serial: 0xffff_fffe,
        seq: 7,
    };

    #[test]
    fn a_header_comes_back() {
        for kind in (0..=255).filter_map(Kind::of) {
            let header = Header { kind, ..HEADER };
            assert_eq!(header.encode()[0], kind as u8);
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
        let mut unknown = HEADER.encode();
        unknown[0] = 12;
        assert_eq!(Header::decode(&unknown), None);
    }

    #[test]
    fn bytes_stand_where_the_map_says() {
        assert_eq!(
            HEADER.encode(),
            [
                4, 3, 0x34, 0x12, 0x0d, 0x0c, 0x0b, 0x0a, 0xfe, 0xff, 0xff, 0xff, 7, 0, 0, 0
            ]
        );
        let head = Head {
            reactor: 2,
            key: 3,
            base: 4096,
            size: 8192,
            oldest: 8,
        };
        let bytes = head.encode();
        assert_eq!(&bytes[..8], b"stillog\n");
        assert_eq!(&bytes[8..16], [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(&bytes[24..26], [0, 16]);
        assert_eq!(Head::decode(&bytes), Ok(head));
    }

    #[test]
    fn the_checksum_holds_key_place_length_and_every_byte() {
        let rest = [5; 40];
        let sum = crc(1, 64, 48, &rest);
        assert_ne!(sum, crc(2, 64, 48, &rest));
        assert_ne!(sum, crc(1, 72, 48, &rest));
        assert_ne!(sum, crc(1, 64, 47, &rest));
        for at in 0..rest.len() * 8 {
            let mut other = rest;
            other[at / 8] ^= 1 << (at % 8);
            assert_ne!(sum, crc(1, 64, 48, &other));
        }
    }

    #[test]
    fn a_head_with_any_bit_flipped_is_none() {
        let head = Head {
            reactor: 0,
            key: 0xdead_beef,
            base: 1 << 20,
            size: 1 << 20,
            oldest: 0,
        };
        let bytes = head.encode();
        for at in 0..HEAD * 8 {
            let mut other = bytes;
            other[at / 8] ^= 1 << (at % 8);
            assert_eq!(Head::decode(&other), Err(NoHead::Foreign));
        }
        assert_eq!(Head::decode(&[0; HEAD]), Err(NoHead::Blank));
        let mut newer = bytes;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Head::decode(&newer), Err(NoHead::Version(2)));
    }
}
