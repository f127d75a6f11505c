//! What connections, topics and subscriptions cost, in bytes that the allocator was asked for: counted, so the same on every machine.
//!
//! No sockets: a shard is driven with packets, and the connection's slot, one cache line, is the one part that is not in it. What the server
//! takes as a process is measured in `tests/it/crowd.rs`. One program of its own, for it counts what all its threads take.

#![allow(unreachable_pub, reason = "a test: linked by nobody")]

use std::alloc::System;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use stillwire::clock::Millis;
use stillwire::config::resolved::Mqtt;
use stillwire::ids::{ConnId, ReactorId, SessionIdx};
use stillwire::limits;
use stillwire::routing::mail::Mail;
use stillwire::routing::port::{CloseCause, Port};
use stillwire::routing::{Shard, Shared};
use stillwire::topic::{Index, Scope, SubOptions, TopicHasher};
use stillwire::wire::{
    Connect, Filters, Packet, PacketId, Qos, Subscribe, SubscribeOptions, UserProperties, Version,
    frame,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Millis = Millis(1_000);

/// One test at a time, as all of them count.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes in use.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// A reactor that hears nothing and sends nothing.
struct Deaf;

impl Port for Deaf {
    fn send(&mut self, _: ConnId, _: &[u8]) {}

    fn has_room(&self, _: ConnId) -> bool {
        true
    }

    fn close(&mut self, _: ConnId, _: CloseCause) {}

    fn pause(&mut self, _: ConnId, _: bool) {}

    fn post(&mut self, _: ReactorId, _: Mail) {}

    fn has_post_room(&self, _: ReactorId) -> bool {
        true
    }
}

fn encode(packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(Version::V311, &mut out);
    out
}

/// A shard and its clients, of whom each has a topic of its own and the common one.
struct World {
    shard: Shard,
    clients: Vec<(ConnId, SessionIdx)>,
    /// Connections so far; the newest has this generation.
    came: u32,
}

impl World {
    fn new(count: usize) -> Self {
        // Rows of interest for the topics of a server of which this is one of eight reactors.
        let shared = Shared::new(1, 8 * count, TopicHasher::fixed(1), Mqtt::default());
        Self {
            shard: Shard::new(ReactorId(0), Arc::new(shared), count, 1, NOW),
            clients: Vec::with_capacity(count),
            came: 0,
        }
    }

    fn come(&mut self, slot: usize, name: usize) {
        let client_id = format!("ph{name:010}");
        let mut connect = Connect::new(Version::V311, &client_id);
        connect.clean_start = true;
        let bytes = encode(&Packet::Connect(connect));
        let frame = frame::split(&bytes, u32::MAX).unwrap().unwrap();
        let connect = Connect::decode(frame.body).unwrap();
        self.came += 1;
        let conn = ConnId {
            slot: slot as u32,
            generation: self.came,
        };
        let attached = self
            .shard
            .connect(conn, &connect, Scope::DEFAULT, NOW, &mut Deaf)
            .unwrap();
        let own = format!("push/{client_id}");
        let options = SubscribeOptions::new(Qos::AtLeastOnce);
        let subscribe = encode(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: Filters::new(&[(&own, options), ("all", options)]),
        }));
        let frame = frame::split(&subscribe, u32::MAX).unwrap().unwrap();
        self.shard.begin();
        self.shard.packet(attached.session, &frame, NOW, &mut Deaf);
        let client = (conn, attached.session);
        if slot == self.clients.len() {
            self.clients.push(client);
        } else {
            self.clients[slot] = client;
        }
    }

    fn go(&mut self, slot: usize) {
        let (conn, session) = self.clients[slot];
        self.shard
            .lost(session, conn, CloseCause::PeerGone, NOW, &mut Deaf);
    }
}

/// Reactors are as full as they are: the sum must hold for any number of clients, not for those alone at which tables are well filled.
#[test]
fn a_session_costs_what_the_limits_say() {
    let _alone = alone();
    // 15,000 on two reactors, 200,000 on twelve, 1,000,000 on 52; and whatever else.
    for count in [7_500, 10_000, 13_000, 16_667, 19_231, 30_000, 150_000] {
        let before = allocated();
        let mut world = World::new(count);
        // The list of sessions is reserved whole; so much of it is used as there are.
        let fixed = allocated() - before - count * limits::SESSION_BYTES;
        for slot in 0..count {
            world.come(slot, slot);
        }
        let each = (allocated() - before - fixed) as f64 / count as f64;
        let sum = (limits::IDLE_CONNECTION_BYTES - limits::SLOT_BYTES) as f64;
        println!(
            "{count} clients of a shard: {each:.1} bytes each, the slot not counted; the limits say {sum}"
        );
        // The last chunks of two arenas are counted whole; what nobody has written to in them takes no memory.
        let spare = (2 * limits::ARENA_CHUNK_BYTES) as f64 / count as f64;
        assert!(
            each > 0.9 * sum && each < 1.1 * sum + spare,
            "{each} bytes with {count} clients, and the limits say {sum}"
        );
        world.shard.check_invariants();
    }
}

/// Five times everybody goes and comes back, in an order of chance and half of them under names that were not there before.
#[test]
fn turnovers_do_not_grow() {
    let _alone = alone();
    let count = 20_000;
    let before = allocated();
    let mut world = World::new(count);
    for slot in 0..count {
        world.come(slot, slot);
    }
    let first = allocated() - before;
    let (mut name, mut seed) = (count, 1_u64);
    for turnover in 1..=5 {
        for step in 0..count {
            // A third of the crowd is away at any time.
            let slot = (step * 7_919) % count;
            world.go(slot);
            if step >= count / 3 {
                let slot = ((step - count / 3) * 7_919) % count;
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                name += 1;
                world.come(slot, if seed >> 63 == 0 { slot } else { name });
            }
        }
        for step in count - count / 3..count {
            world.come((step * 7_919) % count, (step * 7_919) % count);
        }
        let now = allocated() - before;
        println!("after turnover {turnover}: {now} bytes, {first} at first");
        assert!(
            now <= first + first / 20,
            "{first} bytes became {now} with turnover {turnover}"
        );
    }
    world.shard.check_invariants();
    for slot in 0..count {
        world.go(slot);
    }
    world.shard.give_back();
    world.shard.check_invariants();
}

/// What a shard has taken for its clients goes when they do.
#[test]
fn everything_goes_with_the_last() {
    let _alone = alone();
    let count = 20_000;
    let before = allocated();
    let mut world = World::new(count);
    let empty = allocated() - before;
    for round in 0..3 {
        for slot in 0..count {
            world.come(slot, round * count + slot);
        }
        let held = allocated() - before;
        for slot in 0..count {
            world.go(slot);
        }
        world.shard.give_back();
        let left = allocated() - before;
        println!("{empty} bytes empty, {held} with {count} clients, {left} afterwards");
        assert!(
            left <= empty + 4096,
            "{} bytes stay",
            left.saturating_sub(empty)
        );
    }
}

#[test]
fn a_million_subscriptions_to_one_topic() {
    let _alone = alone();
    let count = 1_000_000;
    let options = SubOptions::default();
    let mut index = Index::new(TopicHasher::fixed(1));
    let before = allocated();
    for session in 0..count {
        index.subscribe(SessionIdx(session), "all", options, None);
    }
    let each = (allocated() - before) as f64 / f64::from(count);
    // The client's own record: its head and what it holds.
    let own = (limits::HEAD_BYTES + limits::HOLDING_BYTES) as f64;
    println!(
        "{:.2} bytes a subscription beyond the client's own record",
        each - own
    );
    assert!(each - own <= 8.0);
    assert!(each - own <= limits::COMMON_TOPIC_BYTES as f64);
    // The same when they come in an order of chance.
    drop(index);
    let mut index = Index::new(TopicHasher::fixed(1));
    let before = allocated();
    for step in 0..count {
        let session = (u64::from(step) * 611_953 % u64::from(count)) as u32;
        index.subscribe(SessionIdx(session), "all", options, None);
    }
    let each = (allocated() - before) as f64 / f64::from(count);
    println!("{:.2} bytes in an order of chance", each - own);
    assert!(each - own <= 8.0);
}

#[test]
fn a_million_topics_of_one_subscriber_each() {
    let _alone = alone();
    let count = 1_000_000;
    let mut index = Index::new(TopicHasher::fixed(1));
    let before = allocated();
    for session in 0..count {
        let topic = format!("push/ph{session:010}");
        index.subscribe(SessionIdx(session), &topic, SubOptions::default(), None);
    }
    let each = (allocated() - before) as f64 / f64::from(count);
    println!("{each:.2} bytes a topic, its subscriber's record counted");
    assert!(each <= 64.0);
    let sum = limits::OWN_TOPIC_BYTES
        + limits::TABLE_ENTRY_BYTES
        + limits::HEAD_BYTES
        + limits::HOLDING_BYTES;
    assert!(
        each <= sum as f64 * 1.02,
        "{each} bytes, the limits say {sum}"
    );
}
