//! What holds for every packet: it comes back as it went, it is cut at its own end and nowhere else, and noise does no harm.

use proptest::collection::vec;
use proptest::prelude::*;

use super::packets::{any_packet, publish, version};
use super::{packet, read, whole, write};
use crate::wire::{
    Forward, Frame, Packet, PacketId, Publish, PublishOut, Qos, Version, decode, frame,
    publish as wire_publish,
};

fn packet_in_version() -> impl Strategy<Value = (Version, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), any_packet(version)))
}

/// What is read once can be written, and reads the same again.
fn check_stable(frame: &Frame<'_>, version: Version) {
    if let Ok(packet) = decode(frame, version) {
        let version = if let Packet::Connect(connect) = &packet {
            connect.version
        } else {
            version
        };
        let again = write(&packet, version);
        assert_eq!(
            read(&again, version),
            Ok(packet),
            "written again as {again:02x?}"
        );
    }
}

proptest! {
    #[test]
    fn a_packet_comes_back_as_it_went((version, packet) in packet_in_version()) {
        let bytes = write(&packet, version);
        let decoded = read(&bytes, version);
        prop_assert_eq!(&decoded, &Ok(packet));
        prop_assert_eq!(decoded.map(|packet| write(&packet, version)), Ok(bytes));
    }

    #[test]
    fn a_packet_is_cut_where_it_ends((version, packet) in packet_in_version(), next in vec(any::<u8>(), 0..9)) {
        let mut bytes = write(&packet, version);
        let len = bytes.len();
        bytes.extend_from_slice(&next);
        // Every split point of short packets; of long ones those near both ends.
        for at in (0..len).filter(|at| *at < 200 || len - at < 200) {
            prop_assert_eq!(frame::split(&bytes[..at], u32::MAX), Ok(None));
        }
        let cut = frame::split(&bytes, len as u32).unwrap().unwrap();
        prop_assert_eq!(cut.len, len);
        prop_assert_eq!(cut.first, bytes[0]);
        prop_assert_eq!(cut.packet_type(), Some(packet.packet_type()));
        prop_assert!(bytes[..len].ends_with(cut.body));
        let header = len - cut.body.len();
        for at in 0..header {
            prop_assert_eq!(frame::needed(&bytes[..at]), None);
        }
        for at in header..bytes.len() {
            prop_assert_eq!(frame::needed(&bytes[..at]), Some(len));
            // That it is too large is known from the header on.
            prop_assert!(frame::split(&bytes[..at], len as u32 - 1).is_err());
        }
    }

    #[test]
    fn noise_does_no_harm(bytes in vec(any::<u8>(), 0..64), version in version(), max in 0..100u32) {
        if let Ok(Some(frame)) = frame::split(&bytes, max) {
            check_stable(&frame, version);
        }
        let _ = frame::needed(&bytes);
    }

    #[test]
    fn noise_of_every_kind_does_no_harm(first in any::<u8>(), body in vec(any::<u8>(), 0..64), version in version()) {
        let frame = Frame { first, body: &body, len: body.len() + 2 };
        check_stable(&frame, version);
    }

    #[test]
    fn a_damaged_packet_does_no_harm(
        (version, packet) in packet_in_version(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        other in version(),
    ) {
        let bytes = write(&packet, version);
        let frame = whole(&bytes).unwrap();
        let mut body = frame.body.to_vec();
        for (at, byte) in damage {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        for version in [version, other] {
            check_stable(&Frame { body: &body, ..frame }, version);
        }
    }

    #[test]
    fn a_shortened_packet_does_no_harm((version, packet) in packet_in_version(), at in any::<prop::sample::Index>()) {
        let bytes = write(&packet, version);
        let frame = whole(&bytes).unwrap();
        let body = &frame.body[..at.index(frame.body.len() + 1)];
        check_stable(&Frame { body, ..frame }, version);
    }

    #[test]
    fn what_is_sent_out_is_the_publish_that_was_meant((version, publish) in version().prop_flat_map(|version| (Just(version), publish(version))), id in 1..=u16::MAX) {
        let ids: Vec<u32> = publish.properties.subscription_ids.iter().collect();
        let mut forward = Vec::new();
        publish.properties.forward.copy_to(&mut forward);
        let out = PublishOut {
            topic: publish.topic,
            payload: publish.payload,
            forward: &forward,
            message_expiry: publish.properties.message_expiry,
            topic_alias: publish.properties.topic_alias,
            subscription_ids: &ids,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
        };
        let mut bytes = b"before".to_vec();
        let at = wire_publish::encode(&mut bytes, version, &out, publish.packet_id);
        let mut bytes = bytes.split_off(6);
        prop_assert_eq!(&bytes, &write(&Packet::Publish(publish), version));
        prop_assert_eq!(bytes.len(), wire_publish::encoded_len(version, &out));
        prop_assert_eq!(at.is_some(), publish.qos != Qos::AtMostOnce);
        if let Some(at) = at {
            let id = PacketId::new(id).unwrap();
            wire_publish::patch_packet_id(&mut bytes, at, id);
            wire_publish::set_dup(&mut bytes);
            let patched = Publish { packet_id: Some(id), dup: true, ..publish };
            prop_assert_eq!(read(&bytes, version), Ok(Packet::Publish(patched)));
        }
    }

    /// Whatever order the properties come in, those to be passed on are taken out in theirs.
    #[test]
    fn properties_to_pass_on_are_taken_from_among_the_others(order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(), take in any::<[bool; 8]>()) {
        let all: [(&[u8], bool); 8] = [
            (&[0x01, 0], true),
            (&[0x02, 0, 0, 0, 9], false),
            (&[0x03, 0, 1, b'c'], true),
            (&[0x08, 0, 2, b'r', b'/'], true),
            (&[0x09, 0, 3, 0xFF, 0x02, 0x23], true),
            (&[0x0B, 0x80, 0x01], false),
            (&[0x23, 0, 7], false),
            (&[0x26, 0, 1, b'k', 0, 1, b'v'], true),
        ];
        let mut block = Vec::new();
        let mut expected = Vec::new();
        for at in order.into_iter().filter(|at| take[*at]) {
            block.extend_from_slice(all[at].0);
            if all[at].1 {
                expected.extend_from_slice(all[at].0);
            }
        }
        let mut body = b"\0\x01t".to_vec();
        body.push(block.len() as u8);
        body.extend_from_slice(&block);
        let bytes = packet(0x30, &body);
        let Ok(Packet::Publish(publish)) = read(&bytes, Version::V5) else { panic!("not read: {bytes:02x?}") };
        let forward = publish.properties.forward;
        let mut copied = Vec::new();
        forward.copy_to(&mut copied);
        prop_assert_eq!(forward.len(), copied.len());
        prop_assert_eq!(forward.is_empty(), copied.is_empty());
        prop_assert_eq!(&copied, &expected);
        prop_assert_eq!(forward, Forward::from_encoded(&copied));
        prop_assert_eq!(publish.properties.message_expiry, take[1].then_some(9));
        prop_assert_eq!(publish.properties.topic_alias, take[6].then_some(7));
        prop_assert!(publish.properties.subscription_ids.iter().eq(take[5].then_some(128)));
        prop_assert_eq!(forward.payload_format(), take[0].then_some(false));
        prop_assert_eq!(forward.content_type(), take[2].then_some("c"));
        prop_assert_eq!(forward.response_topic(), take[3].then_some("r/"));
        prop_assert_eq!(forward.correlation_data(), take[4].then_some(&[0xFF, 0x02, 0x23][..]));
        prop_assert!(forward.user_properties().iter().eq(take[7].then_some(("k", "v"))));
    }
}
