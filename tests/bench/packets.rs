//! Packets as clients send them.

use stillwire::wire::{
    Ack, Connect, Filters, Packet, PacketId, Publish, PublishProperties, Qos, ReasonCode,
    Subscribe, SubscribeOptions, UserProperties, Version,
};

/// Bytes of a message.
pub(crate) const PAYLOAD: usize = 64;

/// The topic that everybody subscribes to.
pub(crate) const COMMON: &str = "news/all";

/// A packet identifier, which is not 0.
pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

/// The topic that one client alone subscribes to.
pub(crate) fn own_topic(client: usize) -> String {
    format!("phones/{client:07}")
}

/// CONNECT of 12 characters of client identifier.
pub(crate) fn connect(version: Version, client: usize) -> Vec<u8> {
    let id = format!("phone{client:07}");
    let mut packet = Connect::new(version, &id);
    packet.keep_alive = 600;
    encode(&Packet::Connect(packet), version)
}

/// SUBSCRIBE to the client's own topic and the common one.
pub(crate) fn subscribe(version: Version, client: usize) -> Vec<u8> {
    let options = SubscribeOptions::new(Qos::AtLeastOnce);
    let own = own_topic(client);
    let filters = [(own.as_str(), options), (COMMON, options)];
    let packet = Subscribe {
        packet_id: id(1),
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: Filters::new(&filters),
    };
    encode(&Packet::Subscribe(packet), version)
}

/// PUBLISH.
pub(crate) fn publish(version: Version, topic: &str, qos: Qos, id: PacketId) -> Vec<u8> {
    let packet = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != Qos::AtMostOnce).then_some(id),
        properties: PublishProperties::default(),
        payload: &[b'x'; PAYLOAD],
    };
    encode(&Packet::Publish(packet), version)
}

/// PUBACK.
pub(crate) fn puback(version: Version, id: PacketId) -> Vec<u8> {
    encode(&Packet::Puback(Ack::new(id, ReasonCode::SUCCESS)), version)
}

fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}
