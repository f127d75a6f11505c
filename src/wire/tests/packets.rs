//! Made-up packets. What they borrow is leaked, which is what lets them be plain values; a test run ends soon.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::wire::{
    Ack, Auth, Connack, Connect, Disconnect, Filters, Forward, ForwardFields, Packet, PacketId,
    Publish, PublishProperties, Qos, ReasonCode, RetainHandling, Suback, Subscribe,
    SubscribeOptions, SubscriptionIds, TopicFilters, Unsuback, Unsubscribe, UserProperties,
    Version, Will,
};

fn leak<T>(values: Vec<T>) -> &'static [T] {
    Box::leak(values.into_boxed_slice())
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        20 => "[^\0]{0,12}",
        // Long enough for a length of two bytes around it.
        1 => "[a-z/]{120,300}",
    ]
    .prop_map(|text| &*Box::leak(text.into_boxed_str()))
}

fn topic() -> impl Strategy<Value = &'static str> {
    text().prop_map(|text| if text.is_empty() { "t" } else { text })
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(leak)
}

fn payload() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![20 => binary(), 1 => vec(any::<u8>(), 16_300..16_500).prop_map(leak)]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![
        Just(Qos::AtMostOnce),
        Just(Qos::AtLeastOnce),
        Just(Qos::ExactlyOnce)
    ]
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    prop::sample::select(codes).prop_map(ReasonCode)
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..4).prop_map(|list| UserProperties::new(leak(list)))
}

fn subscription_ids() -> impl Strategy<Value = SubscriptionIds<'static>> {
    vec(1..=268_435_455u32, 0..4).prop_map(|list| SubscriptionIds::new(leak(list)))
}

/// Only in MQTT 5.
fn v5<S: Strategy>(version: Version, strategy: S) -> impl Strategy<Value = Option<S::Value>>
where
    S::Value: Clone,
{
    option::of(strategy).prop_map(move |value| value.filter(|_| version == Version::V5))
}

fn forward(text_payload: bool) -> impl Strategy<Value = Forward<'static>> {
    let format = option::of(Just(text_payload));
    (
        format,
        option::of(text()),
        option::of(text()),
        option::of(binary()),
        user_properties(),
    )
        .prop_map(
            |(payload_format, content_type, response_topic, correlation_data, user_properties)| {
                let fields = ForwardFields {
                    payload_format,
                    content_type,
                    response_topic,
                    correlation_data,
                    user_properties,
                };
                let mut out = Vec::new();
                fields.encode(&mut out);
                Forward::from_encoded(leak(out))
            },
        )
}

fn body() -> impl Strategy<Value = (Forward<'static>, &'static [u8])> {
    prop_oneof![
        (forward(false), payload()),
        (forward(true), text().prop_map(str::as_bytes)),
    ]
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let expiry = option::of(any::<u32>());
    (qos(), any::<bool>(), topic(), body(), any::<u32>(), expiry).prop_map(
        move |(qos, retain, topic, (forward, payload), delay, message_expiry)| {
            let payload = &payload[..payload.len().min(60_000)];
            let properties = PublishProperties {
                message_expiry,
                forward,
                ..PublishProperties::default()
            };
            if version == Version::V5 {
                Will {
                    qos,
                    retain,
                    topic,
                    payload,
                    delay,
                    properties,
                }
            } else {
                Will {
                    qos,
                    retain,
                    topic,
                    payload,
                    delay: 0,
                    properties: PublishProperties::default(),
                }
            }
        },
    )
}

fn connect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let basics = (
        any::<bool>(),
        any::<u16>(),
        text(),
        option::of(will(version)),
    );
    let credentials = (option::of(text()), option::of(binary()));
    let limits = (
        any::<u32>(),
        1..=u16::MAX,
        option::of(1..=u32::MAX),
        any::<u16>(),
    );
    let rest = (
        any::<[bool; 2]>(),
        option::of((text(), option::of(binary()))),
        user_properties(),
    );
    (basics, credentials, limits, rest).prop_map(move |(basics, credentials, limits, rest)| {
        let (clean_start, keep_alive, client_id, will) = basics;
        let (username, mut password) = credentials;
        if version != Version::V5 {
            password = password.filter(|_| username.is_some());
        }
        let mut connect = Connect {
            clean_start,
            keep_alive,
            will,
            username,
            password,
            ..Connect::new(version, client_id)
        };
        if version == Version::V5 {
            let ([response, problem], authentication, user_properties) = rest;
            connect.session_expiry = limits.0;
            connect.receive_maximum = limits.1;
            connect.maximum_packet_size = limits.2;
            connect.topic_alias_maximum = limits.3;
            connect.request_response_information = response;
            connect.request_problem_information = problem;
            connect.authentication_method = authentication.map(|(method, _)| method);
            connect.authentication_data = authentication.and_then(|(_, data)| data);
            connect.user_properties = user_properties;
        }
        Packet::Connect(connect)
    })
}

fn connack(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let old = [
        ReasonCode::SUCCESS,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
        ReasonCode::SERVER_UNAVAILABLE,
    ];
    let new = &[
        0x00, 0x80, 0x81, 0x84, 0x89, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9D, 0x9F,
    ];
    let numbers = (
        option::of(any::<u32>()),
        option::of(1..=u16::MAX),
        option::of(1..=u32::MAX),
        any::<u16>(),
    );
    let texts = (
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(text()),
    );
    let rest = (
        option::of(any::<u16>()),
        option::of(binary()),
        option::of(any::<bool>()),
        user_properties(),
    );
    (
        prop::sample::select(old.to_vec()),
        reason(new),
        any::<[bool; 5]>(),
        numbers,
        texts,
        rest,
    )
        .prop_map(move |(old, new, flags, numbers, texts, rest)| {
            let reason = if version == Version::V5 { new } else { old };
            let mut connack = Connack::refuse(reason);
            connack.session_present =
                flags[0] && reason == ReasonCode::SUCCESS && version != Version::V31;
            if version == Version::V5 {
                connack.session_expiry = numbers.0;
                connack.receive_maximum = numbers.1;
                connack.maximum_packet_size = numbers.2;
                connack.topic_alias_maximum = numbers.3;
                connack.retain_available = flags[1];
                connack.wildcard_available = flags[2];
                connack.subscription_ids_available = flags[3];
                connack.shared_available = flags[4];
                connack.assigned_client_id = texts.0;
                connack.reason_string = texts.1;
                connack.response_information = texts.2;
                connack.server_reference = texts.3;
                connack.authentication_method = texts.4;
                connack.server_keep_alive = rest.0;
                connack.authentication_data = rest.1;
                connack.maximum_qos = rest.2.map(|one| {
                    if one {
                        Qos::AtLeastOnce
                    } else {
                        Qos::AtMostOnce
                    }
                });
                connack.user_properties = rest.3;
            }
            Packet::Connack(connack)
        })
}

pub(super) fn publish(version: Version) -> impl Strategy<Value = Publish<'static>> {
    let extra = (
        v5(version, 1..=u16::MAX),
        v5(version, any::<u32>()),
        subscription_ids(),
    );
    (
        any::<[bool; 2]>(),
        qos(),
        packet_id(),
        text(),
        extra,
        body(),
    )
        .prop_map(
            move |([dup, retain], qos, id, topic, extra, (forward, payload))| {
                let (topic_alias, message_expiry, subscription_ids) = extra;
                let mut properties = PublishProperties::default();
                if version == Version::V5 {
                    properties = PublishProperties {
                        topic_alias,
                        message_expiry,
                        subscription_ids,
                        forward,
                    };
                }
                let with_id = qos != Qos::AtMostOnce;
                let nameless = topic.is_empty() && topic_alias.is_none();
                Publish {
                    dup: dup && with_id,
                    qos,
                    retain,
                    topic: if nameless { "t" } else { topic },
                    packet_id: with_id.then_some(id),
                    properties,
                    payload,
                }
            },
        )
}

fn ack(version: Version, codes: &'static [u8]) -> impl Strategy<Value = Ack<'static>> {
    (
        packet_id(),
        reason(codes),
        v5(version, text()),
        user_properties(),
    )
        .prop_map(move |(packet_id, reason, reason_string, user_properties)| {
            if version == Version::V5 {
                Ack {
                    packet_id,
                    reason,
                    reason_string,
                    user_properties,
                }
            } else {
                Ack::new(packet_id, ReasonCode::SUCCESS)
            }
        })
}

fn options(version: Version) -> impl Strategy<Value = SubscribeOptions> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DontSend)
    ];
    (qos(), any::<[bool; 2]>(), handling).prop_map(
        move |(qos, [no_local, retain_as_published], retain_handling)| {
            if version == Version::V5 {
                SubscribeOptions {
                    qos,
                    no_local,
                    retain_as_published,
                    retain_handling,
                }
            } else {
                SubscribeOptions::new(qos)
            }
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let id = v5(version, 1..=268_435_455u32);
    let filters = vec((text(), options(version)), 1..6);
    (packet_id(), id, user_properties(), filters).prop_map(
        move |(packet_id, subscription_id, user_properties, filters)| {
            let user_properties = if version == Version::V5 {
                user_properties
            } else {
                UserProperties::default()
            };
            let filters = Filters::new(leak(filters));
            Packet::Subscribe(Subscribe {
                packet_id,
                subscription_id,
                user_properties,
                filters,
            })
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), user_properties(), vec(text(), 1..6)).prop_map(
        move |(packet_id, user_properties, filters)| {
            let user_properties = if version == Version::V5 {
                user_properties
            } else {
                UserProperties::default()
            };
            let filters = TopicFilters::new(leak(filters));
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties,
                filters,
            })
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let codes: &[u8] = if version == Version::V5 {
        &[0, 1, 2, 0x80, 0x87, 0x8F, 0x97]
    } else {
        &[0, 1, 2, 0x80]
    };
    let codes = vec(prop::sample::select(codes), 1..200).prop_map(leak);
    (packet_id(), v5(version, text()), user_properties(), codes).prop_map(
        move |(packet_id, reason_string, user_properties, codes)| {
            let user_properties = if version == Version::V5 {
                user_properties
            } else {
                UserProperties::default()
            };
            Packet::Suback(Suback {
                packet_id,
                reason_string,
                user_properties,
                codes,
            })
        },
    )
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let codes = vec(
        prop::sample::select(&[0x00u8, 0x11, 0x80, 0x87, 0x8F][..]),
        1..200,
    )
    .prop_map(leak);
    (packet_id(), v5(version, text()), user_properties(), codes).prop_map(
        move |(packet_id, reason_string, user_properties, codes)| {
            if version == Version::V5 {
                Packet::Unsuback(Unsuback {
                    packet_id,
                    reason_string,
                    user_properties,
                    codes,
                })
            } else {
                Packet::Unsuback(Unsuback::new(packet_id, &[]))
            }
        },
    )
}

fn disconnect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let codes = &[0x00, 0x04, 0x80, 0x8B, 0x8C, 0x8E, 0x93, 0x9C, 0xA2];
    let fields = (
        option::of(any::<u32>()),
        option::of(text()),
        option::of(text()),
        user_properties(),
    );
    (reason(codes), fields).prop_map(move |(reason, fields)| {
        let (session_expiry, reason_string, server_reference, user_properties) = fields;
        Packet::Disconnect(if version == Version::V5 {
            Disconnect {
                reason,
                session_expiry,
                reason_string,
                server_reference,
                user_properties,
            }
        } else {
            Disconnect::default()
        })
    })
}

fn auth() -> impl Strategy<Value = Packet<'static>> {
    let fields = (
        text(),
        option::of(binary()),
        option::of(text()),
        user_properties(),
    );
    (reason(&[0x00, 0x18, 0x19]), fields).prop_map(|(reason, fields)| {
        let (method, authentication_data, reason_string, user_properties) = fields;
        let authentication_method = Some(method);
        Packet::Auth(Auth {
            reason,
            authentication_method,
            authentication_data,
            reason_string,
            user_properties,
        })
    })
}

/// Any packet that `version` has, from either side.
pub(super) fn any_packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    const TAKEN: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASED: &[u8] = &[0x00, 0x92];
    let common = prop_oneof![
        connect(version),
        connack(version),
        publish(version).prop_map(Packet::Publish),
        ack(version, TAKEN).prop_map(Packet::Puback),
        ack(version, TAKEN).prop_map(Packet::Pubrec),
        ack(version, RELEASED).prop_map(Packet::Pubrel),
        ack(version, RELEASED).prop_map(Packet::Pubcomp),
        subscribe(version),
        suback(version),
        unsubscribe(version),
    ];
    let more = prop_oneof![
        unsuback(version),
        disconnect(version),
        Just(Packet::Pingreq),
        Just(Packet::Pingresp),
        Just(Packet::Auth(Auth::default())),
        auth(),
    ];
    let without_auth = more.prop_map(move |packet| match packet {
        Packet::Auth(_) if version != Version::V5 => Packet::Pingreq,
        packet => packet,
    });
    prop_oneof![10 => common, 6 => without_auth].boxed()
}

/// One of the three versions.
pub(super) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}
