//! Packets by hand: what the standard forbids and how it is called, and what must be taken though it looks odd.

use super::{bytes, packet, read, write};
use crate::limits::MAX_FILTERS_PER_PACKET;
use crate::wire::WireError as E;
use crate::wire::{
    Ack, Connack, Connect, Disconnect, Packet, PacketId, ReasonCode, Suback, Version, WireError,
    connect, frame,
};

const V31: Version = Version::V31;
const V311: Version = Version::V311;
const V5: Version = Version::V5;

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

/// Version, first byte, body, error.
type Refused = (Version, u8, &'static str, WireError);

fn check(cases: &[Refused]) {
    for (version, first, body, error) in cases {
        let bytes = packet(*first, &bytes(body));
        assert_eq!(
            read(&bytes, *version),
            Err(*error),
            "{version:?} {first:02x} {body}"
        );
    }
}

fn accept(version: Version, bytes: &[u8]) -> Packet<'_> {
    read(bytes, version).unwrap_or_else(|error| panic!("{version:?} {bytes:02x?}: {error}"))
}

#[test]
fn flags_belong_to_types() {
    for kind in 1..=15u8 {
        for flags in 0..=15u8 {
            let first = kind << 4 | flags;
            let fine = match kind {
                3 => flags & 0x06 != 0x06 && (flags & 0x08 == 0 || flags & 0x06 != 0),
                6 | 8 | 10 => flags == 2,
                _ => flags == 0,
            };
            for version in [V311, V5] {
                let refused = read(&[first, 0], version) == Err(E::Flags(first));
                assert_eq!(refused, !fine, "first byte {first:02x}");
            }
            // The first byte alone tells, except for DUP where MQTT 3.1 has it.
            let early = frame::split(&[first], 100) == Err(E::Flags(first));
            assert_eq!(
                early,
                !(fine || matches!(first, 0x6A | 0x8A | 0xAA)),
                "first byte {first:02x}"
            );
        }
    }
    assert_eq!(frame::split(&[0x00], 100), Err(E::PacketType(0)));
    assert_eq!(read(&[0xF0, 0], V311), Err(E::PacketType(15)));
    assert_eq!(read(&[0xF0, 0], V31), Err(E::PacketType(15)));
}

#[test]
fn mqtt_31_repeats_with_dup() {
    let pubrel = bytes("6A02 0007");
    assert_eq!(
        accept(V31, &pubrel),
        Packet::Pubrel(Ack::new(id(7), ReasonCode::SUCCESS))
    );
    assert!(matches!(
        accept(V31, &bytes("8A06 0007 't' 01")),
        Packet::Subscribe(_)
    ));
    assert!(matches!(
        accept(V31, &bytes("AA05 0007 't'")),
        Packet::Unsubscribe(_)
    ));
}

#[test]
fn the_remaining_length_is_a_strict_varint() {
    for bad in [
        "C080808080 01",
        "C0FFFFFFFF 7F",
        "C0FFFFFFFF",
        "C08000",
        "C0808000",
        "C080808000",
        "C0FF00",
    ] {
        assert_eq!(frame::split(&bytes(bad), u32::MAX), Err(E::Varint), "{bad}");
        assert_eq!(frame::needed(&bytes(bad)), None, "{bad}");
    }
    for (text, len) in [
        ("C000", 2),
        ("C07F", 129),
        ("C08001", 131),
        ("C0FFFFFF7F", 268_435_460),
    ] {
        assert_eq!(frame::needed(&bytes(text)), Some(len), "{text}");
    }
    assert_eq!(frame::split(&[], 0), Ok(None));
}

#[test]
fn too_large_is_known_from_the_header() {
    let error = E::TooLarge {
        len: 268_435_460,
        limit: 1000,
    };
    assert_eq!(frame::split(&bytes("30FFFFFF7F"), 1000), Err(error));
    assert_eq!(error.reason(), ReasonCode::PACKET_TOO_LARGE);
    // The limit counts the header.
    assert_eq!(
        frame::split(&bytes("3003 000000"), 4),
        Err(E::TooLarge { len: 5, limit: 4 })
    );
    assert!(frame::split(&bytes("3003 000000"), 5).unwrap().is_some());
}

#[test]
fn connect_is_strict() {
    const MQTT4: &str = "'MQTT' 04 02 000A 'c'";
    assert!(read(&packet(0x10, &bytes(MQTT4)), V311).is_ok());
    check(&[
        (V311, 0x10, "", E::Truncated),
        (V311, 0x10, "'MQTT' 04 02 000A", E::Truncated),
        (V311, 0x10, "'MQTT' 04 02 000A 'c' 00", E::Trailing),
        (V311, 0x10, "'MQTX' 04 02 000A 'c'", E::ProtocolName),
        (V311, 0x10, "'mqtt' 04 02 000A 'c'", E::ProtocolName),
        (V311, 0x10, "'MQTT' 06 02 000A 'c'", E::ProtocolLevel(6)),
        (V311, 0x10, "'MQTT' 03 02 000A 'c'", E::ProtocolLevel(3)),
        (V311, 0x10, "'MQIsdp' 04 02 000A 'c'", E::ProtocolLevel(4)),
        (V311, 0x10, "'MQTT' 84 02 000A 'c'", E::ProtocolLevel(0x84)),
        // Reserved bit; will QoS, will retain without will; will QoS 3; password without user name.
        (V311, 0x10, "'MQTT' 04 03 000A 'c'", E::ConnectFlags(0x03)),
        (V311, 0x10, "'MQTT' 04 0A 000A 'c'", E::ConnectFlags(0x0A)),
        (V311, 0x10, "'MQTT' 04 22 000A 'c'", E::ConnectFlags(0x22)),
        (
            V311,
            0x10,
            "'MQTT' 04 1E 000A 'c' 't' 'm'",
            E::ConnectFlags(0x1E),
        ),
        (
            V311,
            0x10,
            "'MQTT' 04 42 000A 'c' 'p'",
            E::ConnectFlags(0x42),
        ),
        // Announced, and not there.
        (V311, 0x10, "'MQTT' 04 82 000A 'c'", E::Truncated),
        (V311, 0x10, "'MQTT' 04 06 000A 'c' 't'", E::Truncated),
        // Client id with NUL, a surrogate, an overlong form.
        (V311, 0x10, "'MQTT' 04 02 000A 0003 610062", E::Text),
        (V311, 0x10, "'MQTT' 04 02 000A 0003 EDA080", E::Text),
        (V311, 0x10, "'MQTT' 04 02 000A 0002 C0AF", E::Text),
    ]);
}

#[test]
fn the_properties_of_connect_are_strict() {
    check(&[
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 03 210000 'c'",
            E::PropertyValue(0x21),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 05 2700000000 'c'",
            E::PropertyValue(0x27),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 02 1702 'c'",
            E::PropertyValue(0x17),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 02 1902 'c'",
            E::PropertyValue(0x19),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 0A 1100000001 1100000001 'c'",
            E::DuplicateProperty(0x11),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 05 1800000001 'c'",
            E::MisplacedProperty(0x18),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 02 0101 'c'",
            E::MisplacedProperty(0x01),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 02 0401 'c'",
            E::UnknownProperty(0x04),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 02 8001 'c'",
            E::UnknownProperty(0x80),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 02 000A 04 16 'd' 'c'",
            E::AuthenticationMethod,
        ),
        // A property that ends outside the block; a block that ends outside the packet.
        (V5, 0x10, "'MQTT' 05 02 000A 02 210001 'c'", E::Truncated),
        (V5, 0x10, "'MQTT' 05 02 000A 7F 'c'", E::Truncated),
        (V5, 0x10, "'MQTT' 05 02 000A 8000 'c'", E::Varint),
        // Will: a property of CONNECT, an alias; text that is none.
        (
            V5,
            0x10,
            "'MQTT' 05 06 000A 00 'c' 05 1100000001 't' 'm'",
            E::MisplacedProperty(0x11),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 06 000A 00 'c' 03 230001 't' 'm'",
            E::MisplacedProperty(0x23),
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 06 000A 00 'c' 02 0101 't' 0001 FF",
            E::PayloadFormat,
        ),
        (
            V5,
            0x10,
            "'MQTT' 05 06 000A 00 'c' 02 0102 't' 'm'",
            E::PropertyValue(0x01),
        ),
    ]);
}

#[test]
fn connect_takes_what_it_must() {
    // MQTT 5 has passwords without user names (section 3.1.2.9).
    let only_password = packet(0x10, &bytes("'MQTT' 05 40 0000 00 '' 0002 00FF"));
    let expected = Connect {
        clean_start: false,
        password: Some(&[0, 0xFF]),
        ..Connect::new(V5, "")
    };
    assert_eq!(accept(V311, &only_password), Packet::Connect(expected));
    // MQTT 3.1 packets may end before the user name that the flags announce.
    let short = packet(0x10, &bytes("'MQIsdp' 03 C2 003C 'c'"));
    assert_eq!(
        accept(V31, &short),
        Packet::Connect(Connect {
            keep_alive: 60,
            ..Connect::new(V31, "c")
        })
    );
    let short = packet(0x10, &bytes("'MQIsdp' 03 C2 003C 'c' 'u'"));
    let expected = Connect {
        keep_alive: 60,
        username: Some("u"),
        ..Connect::new(V31, "c")
    };
    assert_eq!(accept(V31, &short), Packet::Connect(expected));
    // Empty id with clean session 0, a long id with MQTT 3.1: the session judges.
    assert!(read(&packet(0x10, &bytes("'MQTT' 04 00 0000 ''")), V311).is_ok());
    assert!(
        read(
            &packet(
                0x10,
                &bytes("'MQIsdp' 03 02 0000 'twenty-four.characters.!'")
            ),
            V31
        )
        .is_ok()
    );
    // Control characters, non-characters (U+FFFF) and the byte order mark are text.
    assert!(
        read(
            &packet(0x10, &bytes("'MQTT' 04 02 0000 0008 0D0A EFBFBF EFBBBF")),
            V311
        )
        .is_ok()
    );
    // A will that is text.
    assert!(
        read(
            &packet(
                0x10,
                &bytes("'MQTT' 05 06 0000 00 'c' 07 0101 18FFFFFFFF 't' 'm'")
            ),
            V5
        )
        .is_ok()
    );
}

#[test]
fn a_bad_connect_is_answered_in_the_senders_words() {
    let refusal = |text: &str, error: WireError| {
        let (version, connack) = connect::refusal(&bytes(text), &error)?;
        Some(write(&Packet::Connack(connack), version))
    };
    let old = Some(bytes("2002 0001"));
    let new = Some(bytes("2003 0084 00"));
    assert_eq!(
        refusal("10 0D 'MQTT' 06 02 000A 'c'", E::ProtocolLevel(6)),
        new
    );
    assert_eq!(
        refusal("10 0D 'MQTT' 03 02 000A 'c'", E::ProtocolLevel(3)),
        old
    );
    assert_eq!(
        refusal("10 0D 'MQTT' 00 02 000A 'c'", E::ProtocolLevel(0)),
        old
    );
    assert_eq!(
        refusal("10 0D 'MQTT' 84 02 000A 'c'", E::ProtocolLevel(0x84)),
        old
    );
    assert_eq!(
        refusal("10 0D 'MQTT' 85 02 000A 'c'", E::ProtocolLevel(0x85)),
        new
    );
    assert_eq!(
        refusal("10 0D 'HTTP' 04 02 000A 'c'", E::ProtocolName),
        None
    );
    // Malformed: MQTT 5 says so, MQTT 3 closes.
    assert_eq!(
        refusal("10 0D 'MQTT' 04 03 000A 'c'", E::ConnectFlags(3)),
        None
    );
    assert_eq!(
        refusal("10 0E 'MQTT' 05 03 000A 00 'c'", E::ConnectFlags(3)),
        Some(bytes("2003 0081 00"))
    );
    // Too large, and only its beginning is there; nothing of it is there; not a CONNECT.
    let error = E::TooLarge {
        len: 268_435_460,
        limit: 65_536,
    };
    assert_eq!(
        refusal("10 FFFFFF7F 'MQTT' 05", error),
        Some(bytes("2003 0095 00"))
    );
    assert_eq!(refusal("10 FFFFFF7F", error), None);
    assert_eq!(refusal("30 FFFFFF7F 'MQTT' 05", error), None);
    assert_eq!(refusal("", error), None);
}

#[test]
fn connack_is_strict() {
    check(&[
        (V311, 0x20, "00", E::Truncated),
        (V311, 0x20, "000000", E::Trailing),
        (V311, 0x20, "0006", E::Reason(6)),
        (V311, 0x20, "0200", E::ConnectFlags(2)),
        (V311, 0x20, "0105", E::ConnectFlags(1)),
        (V5, 0x20, "0000", E::Truncated),
        (V5, 0x20, "0001 00", E::Reason(1)),
        (V5, 0x20, "0000 02 2402", E::PropertyValue(0x24)),
        (V5, 0x20, "0000 02 2502", E::PropertyValue(0x25)),
        (V5, 0x20, "0000 03 210000", E::PropertyValue(0x21)),
        (V5, 0x20, "0000 02 1700", E::MisplacedProperty(0x17)),
    ]);
    // MQTT 3.1 leaves the first byte open.
    assert_eq!(
        accept(V31, &bytes("2002 FF00")),
        Packet::Connack(Connack::default())
    );
    for code in 0..=5 {
        let bytes = [0x20, 2, 0, code];
        assert_eq!(
            write(&accept(V311, &bytes), V311),
            bytes,
            "return code {code}"
        );
    }
}

#[test]
fn publish_is_strict() {
    check(&[
        (V311, 0x30, "", E::Truncated),
        (V311, 0x30, "0005 61", E::Truncated),
        (V311, 0x30, "0001 00", E::Text),
        (V311, 0x32, "'t'", E::Truncated),
        (V311, 0x32, "'t' 0000", E::PacketIdZero),
        (V5, 0x34, "'t' 0000 00", E::PacketIdZero),
        (V5, 0x30, "'t'", E::Truncated),
        (V5, 0x30, "'' 00", E::TopicMissing),
        (V5, 0x30, "'t' 03 230000", E::TopicAlias),
        (V5, 0x30, "'t' 06 230001 230001", E::DuplicateProperty(0x23)),
        (V5, 0x30, "'t' 02 0B00", E::PropertyValue(0x0B)),
        (V5, 0x30, "'t' 03 0B8000", E::Varint),
        (V5, 0x30, "'t' 06 0B8080808001", E::Varint),
        (V5, 0x30, "'t' 05 1800000001", E::MisplacedProperty(0x18)),
        (V5, 0x30, "'t' 04 1F 'r'", E::MisplacedProperty(0x1F)),
        (V5, 0x30, "'t' 02 0101 C3", E::PayloadFormat),
        (V5, 0x30, "'t' 02 0102 61", E::PropertyValue(0x01)),
        (V5, 0x30, "'t' 05 26 'k' 00", E::Truncated),
        (V5, 0x30, "'t' 08 26 'k' 0002 FFFE", E::Text),
    ]);
    let alias_only = bytes("3006 '' 03 230001");
    assert!(
        matches!(accept(V5, &alias_only), Packet::Publish(publish) if publish.topic.is_empty())
    );
    // Nothing to say is something to say; a topic with wildcards is the topic rules' to refuse.
    assert!(
        matches!(accept(V311, &bytes("3005 'a/#'")), Packet::Publish(publish) if publish.payload.is_empty())
    );
}

#[test]
fn acks_are_strict() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        check(&[
            (V311, first, "00", E::Truncated),
            (V311, first, "0000", E::PacketIdZero),
            (V311, first, "000100", E::Trailing),
            (V5, first, "0000", E::PacketIdZero),
            (V5, first, "0001 01", E::Reason(1)),
            (V5, first, "0001 00 00 00", E::Trailing),
            (V5, first, "0001 00 05", E::Truncated),
            (V5, first, "0001 00 02 0100", E::MisplacedProperty(1)),
            (
                V5,
                first,
                "0001 00 08 1F 'r' 1F 'r'",
                E::DuplicateProperty(0x1F),
            ),
        ]);
        // The short forms of section 3.4.2.1.
        for body in ["0001", "0001 00", "0001 00 00"] {
            let bytes = packet(first, &bytes(body));
            assert_eq!(write(&accept(V5, &bytes), V5), [first, 2, 0, 1]);
        }
    }
    check(&[
        (V5, 0x40, "0001 92", E::Reason(0x92)),
        (V5, 0x62, "0001 10", E::Reason(0x10)),
    ]);
}

#[test]
fn subscribe_is_strict() {
    check(&[
        (V311, 0x82, "0001", E::NoFilters),
        (V311, 0x82, "0000 't' 00", E::PacketIdZero),
        (V311, 0x82, "0001 't'", E::Truncated),
        (V311, 0x82, "0001 't' 03", E::SubscribeOptions(3)),
        (V311, 0x82, "0001 't' 04", E::SubscribeOptions(4)),
        (V311, 0x82, "0001 't' 01 'u'", E::Truncated),
        (V5, 0x82, "0001", E::Truncated),
        (V5, 0x82, "0001 00", E::NoFilters),
        (V5, 0x82, "0001 00 't' 03", E::SubscribeOptions(0x03)),
        (V5, 0x82, "0001 00 't' 30", E::SubscribeOptions(0x30)),
        (V5, 0x82, "0001 00 't' 40", E::SubscribeOptions(0x40)),
        (V5, 0x82, "0001 00 't' 80", E::SubscribeOptions(0x80)),
        (V5, 0x82, "0001 02 0B00 't' 00", E::PropertyValue(0x0B)),
        (
            V5,
            0x82,
            "0001 04 0B01 0B02 't' 00",
            E::DuplicateProperty(0x0B),
        ),
        (
            V5,
            0x82,
            "0001 03 230001 't' 00",
            E::MisplacedProperty(0x23),
        ),
        (V5, 0x82, "0001 00 0001 00 00", E::Text),
    ]);
    check(&[
        (V311, 0xA2, "0001", E::NoFilters),
        (V311, 0xA2, "0000 't'", E::PacketIdZero),
        (V311, 0xA2, "0001 't' 00", E::Truncated),
        (V5, 0xA2, "0001", E::Truncated),
        (V5, 0xA2, "0001 00", E::NoFilters),
        (V5, 0xA2, "0001 02 0B01 't'", E::MisplacedProperty(0x0B)),
    ]);
    assert_eq!(
        E::SubscribeOptions(0x40).reason(),
        ReasonCode::MALFORMED_PACKET
    );
    assert_eq!(
        E::SubscribeOptions(0x30).reason(),
        ReasonCode::PROTOCOL_ERROR
    );
}

#[test]
fn filters_in_a_packet_are_counted() {
    for (count, expected) in [
        (MAX_FILTERS_PER_PACKET, None),
        (MAX_FILTERS_PER_PACKET + 1, Some(E::TooManyFilters)),
    ] {
        let mut body = bytes("0001");
        body.extend(bytes("'t' 00").repeat(count));
        assert_eq!(read(&packet(0x82, &body), V311).err(), expected);
        let mut body = bytes("0001 00");
        body.extend(bytes("'t'").repeat(count));
        assert_eq!(read(&packet(0xA2, &body), V5).err(), expected);
    }
}

#[test]
fn the_answers_are_strict() {
    check(&[
        (V311, 0x90, "0001", E::NoFilters),
        (V311, 0x90, "0001 03", E::Reason(3)),
        (V311, 0x90, "0001 87", E::Reason(0x87)),
        (V311, 0x90, "0000 00", E::PacketIdZero),
        (V5, 0x90, "0001 00", E::NoFilters),
        (V5, 0x90, "0001 00 11", E::Reason(0x11)),
        (V311, 0xB0, "0001 00", E::Trailing),
        (V5, 0xB0, "0001 00", E::NoFilters),
        (V5, 0xB0, "0001 00 01", E::Reason(1)),
    ]);
    // MQTT 3 knows one failure.
    let suback = Packet::Suback(Suback::new(id(1), &[0x02, 0x87, 0x8F]));
    assert_eq!(write(&suback, V311), bytes("9005 0001 02 80 80"));
}

#[test]
fn the_rest_is_strict() {
    check(&[
        (V311, 0xC0, "00", E::Trailing),
        (V5, 0xD0, "00", E::Trailing),
        (V311, 0xE0, "00", E::Trailing),
        (V5, 0xE0, "01", E::Reason(1)),
        (V5, 0xE0, "00 00 00", E::Trailing),
        (V5, 0xE0, "00 05 11000000", E::Truncated),
        (V5, 0xE0, "00 03 210001", E::MisplacedProperty(0x21)),
        (V5, 0xF0, "00", E::Truncated),
        (V5, 0xF0, "01 00", E::Reason(1)),
        (V5, 0xF0, "18 00", E::AuthenticationMethod),
        (V5, 0xF0, "18 04 15 'm' 00", E::Trailing),
    ]);
    let normal = Packet::Disconnect(Disconnect::default());
    for body in ["", "00", "00 00"] {
        assert_eq!(accept(V5, &packet(0xE0, &bytes(body))), normal);
    }
    assert_eq!(write(&normal, V5), [0xE0, 0]);
    let busy = Packet::Disconnect(Disconnect::new(ReasonCode::SERVER_BUSY));
    assert_eq!(write(&busy, V5), [0xE0, 1, 0x89]);
    assert_eq!(write(&busy, V311), [0xE0, 0]);
}

#[test]
fn a_crowd_of_user_properties_is_read_in_one_pass_each() {
    let one = bytes("26 'name' 'value'");
    let mut body = bytes("'t'");
    let count = 100_000;
    super::super::primitive::put_varint(&mut body, one.len() * count);
    body.extend(one.repeat(count));
    let packet = packet(0x30, &body);
    let Packet::Publish(publish) = accept(V5, &packet) else {
        panic!("not a PUBLISH")
    };
    let forward = publish.properties.forward;
    assert_eq!(forward.len(), one.len() * count);
    assert_eq!(forward.user_properties().iter().count(), count);
}

#[test]
fn every_error_tells_the_peer_an_error() {
    for error in [
        E::Varint,
        E::Trailing,
        E::ProtocolName,
        E::TopicAlias,
        E::PayloadFormat,
        E::TooManyFilters,
        E::NoFilters,
    ] {
        assert!(error.reason().is_error(), "{error}");
        assert_ne!(error.reason().name(), "unknown");
        // Whatever a CONNACK says has to be readable as one.
        let connack = Packet::Connack(Connack::refuse(error.connack_reason()));
        for version in [V31, V311, V5] {
            assert!(read(&write(&connack, version), version).is_ok(), "{error}");
        }
    }
}
