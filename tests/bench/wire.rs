//! Bytes to packets and back.

use std::hint::black_box;

use stillwire::wire::publish::{self, PublishOut};
use stillwire::wire::{Ack, Connack, PacketType, Qos, ReasonCode, Suback, Version, decode, frame};

use crate::counted::{Scale, count};
use crate::packets::{self, PAYLOAD, id};

/// All of it.
pub(crate) fn run(scale: Scale) {
    decoding(scale);
    encoding(scale);
}

fn decoding(scale: Scale) {
    for (version, name) in [(Version::V311, "3.1.1"), (Version::V5, "5")] {
        let decode = |what: &str, make: &dyn Fn(usize) -> Vec<u8>| {
            let sent: Vec<Vec<u8>> = scale.scattered().map(make).collect();
            count(&format!("decode: {what}, {name}"), sent.len(), || {
                for bytes in &sent {
                    let frame = frame::split(bytes, u32::MAX).unwrap().unwrap();
                    black_box(&decode(&frame, version).unwrap());
                }
            });
        };
        let publish =
            |client, qos| packets::publish(version, &packets::own_topic(client), qos, id(1));
        decode("CONNECT", &|client| packets::connect(version, client));
        decode("SUBSCRIBE, two filters", &|client| {
            packets::subscribe(version, client)
        });
        decode("PUBLISH QoS 0", &|client| publish(client, Qos::AtMostOnce));
        decode("PUBLISH QoS 1", &|client| publish(client, Qos::AtLeastOnce));
        decode("PUBACK", &|_| packets::puback(version, id(1)));
        decode("PINGREQ", &|_| vec![0xC0, 0]);
    }
}

fn encoding(scale: Scale) {
    let mut out = Vec::with_capacity(1 << 10);
    for (version, name) in [(Version::V311, "3.1.1"), (Version::V5, "5")] {
        let mut encode = |what: &str, write: &dyn Fn(usize, &mut Vec<u8>)| {
            count(&format!("encode: {what}, {name}"), scale.rounds, || {
                for round in 0..scale.rounds {
                    out.clear();
                    write(round, &mut out);
                    black_box(&out);
                }
            });
        };
        let topic = packets::own_topic(1);
        let message = |qos| PublishOut {
            topic: &topic,
            payload: &[b'x'; PAYLOAD],
            forward: &[],
            message_expiry: None,
            topic_alias: None,
            subscription_ids: &[],
            qos,
            retain: false,
            dup: false,
        };
        encode("CONNACK", &|_, out| Connack::default().encode(version, out));
        encode("SUBACK, two filters", &|_, out| {
            Suback::new(id(1), black_box(&[1, 1])).encode(version, out);
        });
        encode("PUBACK", &|_, out| {
            Ack::new(id(1), ReasonCode::SUCCESS).encode(PacketType::Puback, version, out);
        });
        encode("PUBLISH QoS 1, fresh", &|_, out| {
            publish::encode(
                out,
                version,
                black_box(&message(Qos::AtLeastOnce)),
                Some(id(1)),
            );
        });
        let mut packet = Vec::new();
        let at = publish::encode(&mut packet, version, &message(Qos::AtLeastOnce), None).unwrap();
        let mut copies = Vec::with_capacity(scale.rounds * packet.len());
        count(
            &format!("encode: PUBLISH QoS 1, copied and patched, {name}"),
            scale.rounds,
            || {
                for round in 0..scale.rounds {
                    publish::patch_packet_id(&mut packet, at, id(round as u16 + 1));
                    copies.extend_from_slice(black_box(&packet));
                }
            },
        );
    }
}
