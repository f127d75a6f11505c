//! Very many sessions that end in the same tick: they go in slices, and whatever else there is to do comes between two of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stillwire::clock::Millis;
use stillwire::config::resolved::Mqtt;
use stillwire::ids::{ConnId, ReactorId};
use stillwire::limits;
use stillwire::routing::mail::Mail;
use stillwire::routing::port::{CloseCause, Port};
use stillwire::routing::{Shard, Shared};
use stillwire::topic::{Scope, TopicHasher};
use stillwire::wire::{
    Connect, Filters, Packet, PacketId, Qos, Subscribe, SubscribeOptions, UserProperties, Version,
    frame,
};

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

const EXPIRY: u32 = 60;
const NOW: Millis = Millis(1_000);

/// A shard with so many absent sessions of two subscriptions each, which all end at the same time.
fn shard(count: u32) -> Shard {
    let mqtt = Mqtt {
        max_session_expiry: EXPIRY,
        ..Mqtt::default()
    };
    let shared = Shared::new(1, count as usize, TopicHasher::fixed(1), mqtt);
    let mut shard = Shard::new(ReactorId(0), Arc::new(shared), count as usize, 1, NOW);
    for n in 0..count {
        let client_id = format!("ph{n:010}");
        let mut connect = Connect::new(Version::V311, &client_id);
        connect.clean_start = false;
        let conn = ConnId {
            slot: n,
            generation: 1,
        };
        let attached = shard
            .connect(conn, &connect, Scope::DEFAULT, NOW, &mut Deaf)
            .unwrap();
        let own = format!("push/{client_id}");
        let options = SubscribeOptions::new(Qos::AtLeastOnce);
        let filters = [(&*own, options), ("all", options)];
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: Filters::new(&filters),
        });
        let mut bytes = Vec::new();
        subscribe.encode(Version::V311, &mut bytes);
        let frame = frame::split(&bytes, u32::MAX).unwrap().unwrap();
        shard.begin();
        shard.packet(attached.session, &frame, NOW, &mut Deaf);
        shard.lost(attached.session, conn, CloseCause::PeerGone, NOW, &mut Deaf);
    }
    shard
}

/// Has them all end; the longest call, and all calls.
fn expire(count: u32) -> (Duration, Duration) {
    let mut shard = shard(count);
    let left = |shard: &Shard| shard.store().stats().sessions;
    assert_eq!(left(&shard), count as usize);
    let now = Millis(NOW.0 + u64::from(EXPIRY) * 1000 + 2 * limits::TICK_MILLIS);
    let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
    let mut calls = 0;
    let mut call = |shard: &mut Shard, run: &mut dyn FnMut(&mut Shard)| {
        let before = left(shard);
        let begin = Instant::now();
        run(shard);
        let took = begin.elapsed();
        (longest, all) = (longest.max(took), all + took);
        calls += 1;
        assert!(
            before - left(shard) <= limits::SESSION_TIMERS,
            "one call ended {}",
            before - left(shard)
        );
    };
    call(&mut shard, &mut |shard| shard.tick(now, &mut Deaf));
    assert!(left(&shard) > 0, "more than one slice");
    // The same tick, and as many turns as it takes: nobody has to wait for the next tick.
    while shard.has_work() {
        call(&mut shard, &mut |shard| {
            shard.work(now, &mut Deaf);
        });
    }
    assert_eq!(left(&shard), 0);
    shard.check_invariants();
    println!("{count} sessions ended in {calls} calls, the longest of {longest:?}, {all:?} in all");
    (longest, all)
}

#[test]
fn many_sessions_end_in_slices() {
    expire(20_000);
}

/// `cargo test --release --test it a_million_sessions -- --ignored --nocapture`
#[test]
#[ignore = "for its figures, in a release build"]
fn a_million_sessions_end_in_slices() {
    expire(1_000_000);
}
