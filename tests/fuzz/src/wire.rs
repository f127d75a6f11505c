//! Any bytes to the codec: it never panics, never reads past a packet, and what it takes it can write and read again.
//!
//! The first byte of the input picks the version, the second a split point; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillwire::wire::{Packet, Version, connect, decode, frame, publish};

const MAX: u32 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [first, second, stream @ ..] = input else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(first % 3)];
    let mut rest = stream;
    while let Ok(Some(frame)) = frame::split(rest, MAX) {
        assert!(frame.len >= 2 && frame.len <= rest.len() && frame.body.len() < frame.len);
        assert_eq!(frame::needed(rest), Some(frame.len));
        cut(rest, frame.len, usize::from(*second));
        let packet = decode(&frame, version);
        if let Ok(packet) = &packet {
            again(packet, version);
        }
        if frame.first == 0x10 {
            // A refusal has to be found for every CONNECT that isn't one.
            if let Err(error) = stillwire::wire::Connect::decode(frame.body) {
                let _ = connect::refusal(rest, &error).map(|(version, connack)| connack.encode(version, &mut Vec::new()));
            }
        }
        rest = &rest[frame.len..];
    }
});

/// A part of a packet is never a packet, nor an error if the whole is none.
fn cut(bytes: &[u8], len: usize, at: usize) {
    let at = at % len;
    assert!(matches!(frame::split(&bytes[..at], MAX), Ok(None)), "a part of a packet, cut at {at} of {len}");
}

/// Encoding what was decoded gives bytes that decode to the same.
fn again(packet: &Packet<'_>, version: Version) {
    // CONNECT tells its own version.
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    let frame = frame::split(&bytes, u32::MAX).expect("a header of our own").expect("a whole packet of our own");
    assert_eq!(frame.len, bytes.len());
    let read = decode(&frame, version).expect("a packet of our own");
    let mut twice = Vec::new();
    read.encode(version, &mut twice);
    assert_eq!(bytes, twice, "written, read and written again");
    if let Packet::Publish(message) = &read {
        if message.packet_id.is_some() {
            publish::set_dup(&mut twice);
            assert!(twice[0] & 0x08 != 0);
        }
    }
}
