//! The verification is only worth something if it finds what is wrong: a broker that loses, repeats and reorders on purpose.

mod broker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{FakeBroker, Fault};
use loadgen::fleet::{Fleet, FleetPlan};
use loadgen::ledger::Ledger;
use loadgen::payload::Kind;
use loadgen::publisher::{Publisher, PublisherPlan, Stream};
use loadgen::script::Script;
use loadgen::sources::Sources;
use loadgen::stats::{Count, Totals};
use stillwire::wire::Version;

const PHONES: u32 = 5;
const EACH: u64 = 200;

/// Publishes over a broker with that fault. Returns what the phones counted, how often the fault was done, and what is still held.
fn run(fault: Fault) -> (Totals, u64, u64) {
    let broker = FakeBroker::start(fault);
    let plan = FleetPlan {
        targets: vec![broker.addr],
        first: 100,
        phones: PHONES,
        threads: 2,
        sources: Sources::Loopback,
        script: Script {
            version: Version::V311,
            persistent: false,
            keep_alive: 0,
        },
        patience: Duration::from_secs(5),
        retry: false,
        late: Duration::from_secs(30),
    };
    let ledger = Arc::new(Ledger::new(1, plan.first, plan.phones));
    let publishers = PublisherPlan {
        targets: plan.targets.clone(),
        connections: 1,
        version: Version::V311,
        payload: 64,
        seed: 5,
    };
    let fleet = Fleet::start(plan, Arc::clone(&ledger)).unwrap();
    let mut publisher = Publisher::start(&publishers, ledger).unwrap();
    fleet.connect(1000.0);
    wait(&fleet, |totals| totals.ready() == u64::from(PHONES));
    for kind in Kind::ALL {
        publisher.run(Stream {
            kind,
            per_second: 4000.0,
            count: EACH,
        });
    }
    let end = Instant::now() + Duration::from_secs(20);
    while !publisher.is_idle() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(publisher.is_idle(), "the publisher is done");
    // The fake broker forwards before it acknowledges, so all is on its way; broadcasts may still be.
    let forwarded = broker.forwarded();
    wait(&fleet, |totals| {
        totals.received() + totals.get(Count::Duplicates) >= forwarded
    });
    fleet.settle();
    publisher.finish().unwrap();
    (fleet.totals(), broker.faults(), broker.held())
}

fn wait(fleet: &Fleet, met: impl Fn(&Totals) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !met(&fleet.totals()) {
        assert!(Instant::now() < end, "{:?}", fleet.totals());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Missing, duplicates, reordered, damaged.
fn account(totals: &Totals) -> [u64; 4] {
    [
        totals.missing(),
        totals.get(Count::Duplicates),
        totals.get(Count::Reordered),
        totals.get(Count::Damaged),
    ]
}

#[test]
fn a_faultless_broker_is_found_faultless() {
    let (totals, _, _) = run(Fault::None);
    assert_eq!(account(&totals), [0; 4]);
    assert_eq!(totals.received(), 2 * EACH + EACH * u64::from(PHONES));
    assert_eq!(totals.failed(), 0);
}

#[test]
fn every_lost_message_is_missed() {
    let (totals, lost, _) = run(Fault::Lose);
    assert!(lost > 50);
    assert_eq!(account(&totals), [lost, 0, 0, 0]);
}

#[test]
fn every_repetition_is_found() {
    let (totals, repeated, _) = run(Fault::Repeat);
    assert!(repeated > 50);
    assert_eq!(account(&totals), [0, repeated, 0, 0]);
}

#[test]
fn every_swap_is_found() {
    let (totals, swapped, held) = run(Fault::Swap);
    assert!(swapped > 50);
    // Those at the end wait for a next one that never comes.
    assert_eq!(account(&totals), [held, 0, swapped, 0]);
}

#[test]
fn every_damaged_byte_is_found() {
    let (totals, damaged, _) = run(Fault::Damage);
    assert!(damaged > 50);
    // What can't be read wasn't received, so it is missing too.
    assert_eq!(account(&totals), [damaged, 0, 0, damaged]);
}
