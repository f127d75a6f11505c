//! The packets that a phone sends.

use stillwire::wire::{
    Ack, Connect, Disconnect, Filters, Packet, PacketId, Qos, ReasonCode, Subscribe,
    SubscribeOptions, UserProperties, Version,
};

use crate::name::{Name, SHARED_TOPIC};

/// How phones introduce themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// MQTT 3.1.1 or 5.
    pub version: Version,
    /// The broker keeps the session while the phone is away: clean session 0, or session expiry [`SESSION_EXPIRY`].
    pub persistent: bool,
    /// Keep alive in seconds, at which the phone pings; 0: never.
    pub keep_alive: u16,
}

/// Seconds that a persistent session of MQTT 5 outlives its connection: longer than any run, and the broker is rid of it in the end.
pub const SESSION_EXPIRY: u32 = 3600;

impl Script {
    /// CONNECT; with a token, the user name that goes with it and the token as password.
    pub(crate) fn connect(self, name: &Name, token: Option<(&str, &[u8])>, out: &mut Vec<u8>) {
        let mut connect = Connect::new(self.version, name.client_id());
        if let Some((user, token)) = token {
            // MQTT 3 has no password without a user name, be it an empty one.
            (connect.username, connect.password) = (Some(user), Some(token));
        }
        connect.clean_start = !self.persistent;
        connect.keep_alive = self.keep_alive;
        if self.persistent {
            connect.session_expiry = SESSION_EXPIRY;
        }
        connect.encode(out);
    }

    /// SUBSCRIBE to the own topic at QoS 1, so that a push comes with the QoS it was published with, and to the shared one at QoS 0.
    pub(crate) fn subscribe(self, name: &Name, out: &mut Vec<u8>) {
        let filters = [
            (name.topic(), SubscribeOptions::new(Qos::AtLeastOnce)),
            (SHARED_TOPIC, SubscribeOptions::new(Qos::AtMostOnce)),
        ];
        let packet = Subscribe {
            // A phone has one SUBSCRIBE, so any identifier does.
            packet_id: PacketId::new(1).unwrap_or_else(|| unreachable!("not 0")),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: Filters::new(&filters),
        };
        packet.encode(self.version, out);
    }

    /// PUBACK.
    pub(crate) fn puback(self, id: PacketId, out: &mut Vec<u8>) {
        Packet::Puback(Ack::new(id, ReasonCode::SUCCESS)).encode(self.version, out);
    }

    /// PINGREQ.
    pub(crate) fn ping(self, out: &mut Vec<u8>) {
        Packet::Pingreq.encode(self.version, out);
    }

    /// DISCONNECT.
    pub(crate) fn disconnect(self, out: &mut Vec<u8>) {
        Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS)).encode(self.version, out);
    }
}
