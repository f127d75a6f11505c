//! A first packet, before its home is known: enough of CONNECT to find the home, and the answer to what is no CONNECT.
//!
//! Whoever accepts a connection looks at its first bytes here, without a session and without keeping anything. The home shard then
//! reads the same bytes again ([`super::Shard::connect`]): a CONNECT is read twice at most, and never parsed state moves between cores.

use crate::ids::ReactorId;
use crate::topic::TopicHasher;
use crate::wire::{Connack, Connect, PacketType, ReasonCode, Version, WireError, connect, frame};

/// What the first bytes of a connection are.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives on the stack for one call")]
pub enum Greeting<'a> {
    /// The packet isn't whole yet.
    Incomplete,
    /// No CONNECT that may go on: write this, which may be nothing, and close.
    Refuse(Vec<u8>),
    /// A whole CONNECT; `len` bytes of what was read are it.
    Connect {
        /// What it asks for. An empty client identifier is at home wherever it was accepted.
        connect: Connect<'a>,
        /// Bytes of the packet.
        len: usize,
    },
}

/// Looks at the first bytes of a connection. `max`: the largest CONNECT that is taken, in bytes.
pub fn greet(bytes: &[u8], max: u32) -> Greeting<'_> {
    // Anything but CONNECT is told by its first byte, before more of it is waited for.
    match bytes.first() {
        None => return Greeting::Incomplete,
        Some(&first) if first != CONNECT => return Greeting::Refuse(Vec::new()),
        Some(_) => {}
    }
    match frame::split(bytes, max) {
        Ok(None) => Greeting::Incomplete,
        Ok(Some(frame)) => match Connect::decode(frame.body) {
            Ok(connect) => Greeting::Connect {
                connect,
                len: frame.len,
            },
            Err(error) => Greeting::Refuse(answer(bytes, &error)),
        },
        Err(error) => Greeting::Refuse(answer(bytes, &error)),
    }
}

/// The first byte of a CONNECT; its flags are reserved and 0.
const CONNECT: u8 = (PacketType::Connect as u8) << 4;

/// A CONNACK that refuses.
pub fn refusal(version: Version, reason: ReasonCode) -> Vec<u8> {
    let mut out = Vec::new();
    Connack::refuse(reason).encode(version, &mut out);
    out
}

/// The same with words for whoever looks for the reason; MQTT 3 has no place for them.
pub fn refusal_because(version: Version, reason: ReasonCode, words: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let connack = Connack {
        reason_string: Some(words),
        ..Connack::refuse(reason)
    };
    connack.encode(version, &mut out);
    out
}

/// The answer to bytes that are no CONNECT, in the language of their protocol level; none where the standard wants a close.
fn answer(bytes: &[u8], error: &WireError) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some((version, connack)) = connect::refusal(bytes, error) {
        connack.encode(version, &mut out);
    }
    out
}

/// The home of a client: where its session, subscriptions and connection live.
pub fn home(hasher: &TopicHasher, client_id: &str, reactors: usize) -> ReactorId {
    ReactorId((hasher.hash(client_id).0 % reactors as u64) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a data directory holds depends on it: with another hash each client would look for its session at another reactor, and not find it.
    /// Should this fail, as after an update of the hash's crate, keep the old hash, or raise the manifest's version and have the logs written anew.
    #[test]
    fn homes_stay_the_same_for_ever() {
        let hasher = TopicHasher::fixed(0x0123_4567_89AB_CDEF);
        assert_eq!(hasher.hash("phone-17").0, 12_723_120_350_977_233_296);
        let homes: Vec<u16> = (0..10)
            .map(|n| home(&hasher, &format!("phone-{n}"), 7).0)
            .collect();
        assert_eq!(homes, [5, 0, 6, 3, 1, 2, 2, 0, 4, 1]);
    }

    const V311: &[u8] = &[
        0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c',
    ];

    #[test]
    fn a_connect_is_whole_or_incomplete_at_every_split() {
        for split in 0..V311.len() {
            assert!(
                matches!(greet(&V311[..split], 1000), Greeting::Incomplete),
                "at {split}"
            );
        }
        let Greeting::Connect { connect, len } = greet(V311, 1000) else {
            panic!("whole")
        };
        assert_eq!((connect.client_id, len), ("c", V311.len()));
    }

    #[test]
    fn what_is_no_connect_is_refused_at_its_first_byte() {
        for first in (0..=255u8).filter(|first| *first != 0x10) {
            assert!(
                matches!(greet(&[first], 1000), Greeting::Refuse(reply) if reply.is_empty()),
                "{first:#04x}"
            );
        }
    }

    #[test]
    fn an_unknown_level_gets_its_code() {
        for (level, want) in [(2u8, vec![0x20, 2, 0, 1]), (6, vec![0x20, 3, 0, 0x84, 0])] {
            let mut bytes = V311.to_vec();
            bytes[8] = level;
            let Greeting::Refuse(reply) = greet(&bytes, 1000) else {
                panic!("level {level} was taken")
            };
            assert_eq!(reply, want, "level {level}");
        }
    }

    #[test]
    fn a_connect_over_the_limit_is_refused_by_its_header() {
        assert!(matches!(
            greet(&[0x10, 0xFF, 0xFF, 0x7F], 1000),
            Greeting::Refuse(_)
        ));
    }
}
