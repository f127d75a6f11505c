//! A shard with all its clients, and no socket: what the protocol costs, from a client's bytes to the bytes of the answer.

use std::sync::Arc;

use stillwire::clock::Millis;
use stillwire::config::resolved::Mqtt;
use stillwire::ids::{ConnId, ReactorId, SessionIdx};
use stillwire::routing::mail::Mail;
use stillwire::routing::port::{CloseCause, Port};
use stillwire::routing::{Shard, Shared};
use stillwire::topic::{Scope, TopicHasher};
use stillwire::wire::{Connect, Qos, Version, frame};

use crate::counted::{Scale, count};
use crate::packets::{self, COMMON, id};

const NOW: Millis = Millis(1_000);

/// Takes the place of the reactor: keeps what was sent, as an outbox does, and does nothing with it.
struct Desk {
    out: Vec<u8>,
    packets: usize,
}

impl Port for Desk {
    fn send(&mut self, _: ConnId, packet: &[u8]) {
        if self.out.len() + packet.len() > self.out.capacity() {
            self.out.clear();
        }
        self.out.extend_from_slice(packet);
        self.packets += 1;
    }

    fn has_room(&self, _: ConnId) -> bool {
        true
    }

    fn close(&mut self, _: ConnId, cause: CloseCause) {
        panic!("closed: {cause:?}");
    }

    fn pause(&mut self, _: ConnId, _: bool) {}

    fn post(&mut self, _: ReactorId, _: Mail) {
        panic!("there is no other shard");
    }

    fn has_post_room(&self, _: ReactorId) -> bool {
        true
    }
}

struct World {
    shard: Shard,
    desk: Desk,
    sessions: Vec<SessionIdx>,
}

impl World {
    fn new(scale: Scale) -> Self {
        let capacity = 2 * scale.population;
        let shared = Shared::new(1, capacity, TopicHasher::fixed(1), Mqtt::default());
        let mut world = Self {
            shard: Shard::new(ReactorId(0), Arc::new(shared), capacity, 1, NOW),
            desk: Desk {
                out: Vec::with_capacity(64 << 10),
                packets: 0,
            },
            sessions: Vec::with_capacity(capacity),
        };
        for client in 0..scale.population {
            let (connect, subscribe) = Self::greeting(client);
            world.join(&connect, &subscribe);
        }
        world
    }

    fn greeting(client: usize) -> (Vec<u8>, Vec<u8>) {
        (
            packets::connect(Version::V311, client),
            packets::subscribe(Version::V311, client),
        )
    }

    fn join(&mut self, connect: &[u8], subscribe: &[u8]) {
        let frame = frame::split(connect, u32::MAX).unwrap().unwrap();
        let connect = Connect::decode(frame.body).unwrap();
        let conn = ConnId {
            slot: self.sessions.len() as u32,
            generation: 1,
        };
        let attached = self
            .shard
            .connect(conn, &connect, Scope::DEFAULT, NOW, &mut self.desk);
        self.sessions.push(attached.unwrap().session);
        self.packet(self.sessions.len() - 1, subscribe);
    }

    fn packet(&mut self, client: usize, bytes: &[u8]) {
        let frame = frame::split(bytes, u32::MAX).unwrap().unwrap();
        self.shard.begin();
        self.shard
            .packet(self.sessions[client], &frame, NOW, &mut self.desk);
    }
}

/// All of it.
pub(crate) fn run(scale: Scale) {
    let mut world = World::new(scale);
    let clients: Vec<usize> = scale.scattered().collect();
    count("shard: PINGREQ", clients.len(), || {
        for &client in &clients {
            world.packet(client, &[0xC0, 0]);
        }
    });
    for (qos, name) in [
        (Qos::AtMostOnce, "QoS 0 to one"),
        (Qos::AtLeastOnce, "QoS 1 to one, with both PUBACK"),
    ] {
        let messages: Vec<Vec<u8>> = clients
            .iter()
            .map(|&client| packets::publish(Version::V311, &packets::own_topic(client), qos, id(1)))
            .collect();
        // Each of these clients gets one message, and the first identifier that the server gives is 1 for every session.
        let answer = packets::puback(Version::V311, id(1));
        let publisher = 0;
        let before = world.desk.packets;
        count(&format!("shard: {name}"), clients.len(), || {
            for (&client, bytes) in clients.iter().zip(&messages) {
                world.packet(publisher, bytes);
                if qos == Qos::AtLeastOnce {
                    world.packet(client, &answer);
                }
            }
        });
        let each = if qos == Qos::AtMostOnce { 1 } else { 2 };
        assert_eq!(world.desk.packets - before, each * clients.len());
    }
    let broadcast = packets::publish(Version::V311, COMMON, Qos::AtMostOnce, id(1));
    let before = world.desk.packets;
    count(
        "shard: fan-out QoS 0, per delivery",
        scale.population,
        || {
            world.packet(0, &broadcast);
            while world.shard.has_work() {
                world.shard.work(NOW, &mut world.desk);
            }
        },
    );
    assert_eq!(world.desk.packets - before, scale.population);
    let broadcast = packets::publish(Version::V311, COMMON, Qos::AtLeastOnce, id(2));
    count(
        "shard: fan-out QoS 1, per delivery",
        scale.population,
        || {
            world.packet(0, &broadcast);
            while world.shard.has_work() {
                world.shard.work(NOW, &mut world.desk);
            }
        },
    );
    let newcomers: Vec<_> = (0..scale.rounds)
        .map(|step| World::greeting(scale.population + step))
        .collect();
    count("shard: CONNECT and SUBSCRIBE", newcomers.len(), || {
        for (connect, subscribe) in &newcomers {
            world.join(connect, subscribe);
        }
    });
    count("shard: connection lost", newcomers.len(), || {
        for at in scale.population..scale.population + scale.rounds {
            let conn = ConnId {
                slot: at as u32,
                generation: 1,
            };
            let session = world.sessions[at];
            world
                .shard
                .lost(session, conn, CloseCause::PeerGone, NOW, &mut world.desk);
        }
    });
    world.shard.check_invariants();
}
