//! The codec against packets of every kind: written by hand (what is refused, what is taken), and made up (round trips, noise).

mod cases;
mod packets;
mod properties;

use super::{Frame, Packet, Version, WireError, decode, frame};

/// Bytes from text: hex digits, blanks as one likes, and strings in quotes with their length before them.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, part) in text.split('\'').enumerate() {
        if at % 2 == 1 {
            out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
            continue;
        }
        for word in part.split_whitespace() {
            assert!(word.len() % 2 == 0, "odd number of digits in {word}");
            for at in (0..word.len()).step_by(2) {
                out.push(u8::from_str_radix(&word[at..at + 2], 16).expect("hex digits"));
            }
        }
    }
    out
}

/// A packet with this first byte and body.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    super::primitive::put_varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

/// Cuts and reads one packet that takes up all of `bytes`.
pub(super) fn read(bytes: &[u8], version: Version) -> Result<Packet<'_>, WireError> {
    let frame = whole(bytes)?;
    assert_eq!(
        frame.len,
        bytes.len(),
        "the packet is longer or shorter than its bytes"
    );
    decode(&frame, version)
}

pub(super) fn whole(bytes: &[u8]) -> Result<Frame<'_>, WireError> {
    Ok(frame::split(bytes, u32::MAX)?.expect("a whole packet"))
}

pub(super) fn write(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}
