//! The verification is only worth something if it finds what is wrong: a broker that loses, repeats and reorders on purpose.

#[allow(dead_code, reason = "the tests of tickets use the rest")]
mod broker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{FakeBroker, Fault, LATE};
use loadgen::fleet::{Churn, Fleet, FleetPlan, Shape};
use loadgen::ledger::Ledger;
use loadgen::payload::Kind;
use loadgen::publisher::{Publisher, PublisherPlan, Stream};
use loadgen::script::Script;
use loadgen::sources::Sources;
use loadgen::stats::{Count, Totals};
use stillwire::wire::Version;

const PHONES: u32 = 5;
const EACH: u64 = 200;

fn plan(broker: &FakeBroker) -> FleetPlan {
    FleetPlan {
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
        tickets: None,
    }
}

/// Publishes over a broker with that fault. Returns what the phones counted, how often the fault was done, and what is still held.
fn run(fault: Fault) -> (Totals, u64, u64) {
    let broker = FakeBroker::start(fault);
    let mut plan = plan(&broker);
    if fault == Fault::Delay {
        plan.late = LATE;
    }
    let ledger = Arc::new(Ledger::new(1, plan.first, plan.phones));
    let publishers = PublisherPlan {
        targets: plan.targets.clone(),
        connections: 1,
        version: Version::V311,
        payload: 64,
        seed: 5,
        tickets: None,
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
    // The fake broker forwards before it acknowledges, but broadcasts it may not have read yet.
    let all = 2 * EACH + EACH * u64::from(PHONES);
    wait(&fleet, |_| match fault {
        Fault::Lose | Fault::Damage => broker.forwarded() + broker.faults() >= all,
        Fault::Swap => broker.forwarded() + broker.held() >= all,
        Fault::Repeat => broker.forwarded() >= all + broker.faults(),
        _ => broker.forwarded() >= all,
    });
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

#[test]
fn every_delay_is_found() {
    let (totals, delayed, _) = run(Fault::Delay);
    assert!(delayed > 50);
    assert_eq!(account(&totals), [0; 4]);
    // What is behind a delayed message may be late too.
    assert!(totals.get(Count::Late) >= delayed, "{totals:?}");
}

/// All phones ready at a broker without a fault in its deliveries.
fn ready(plan: FleetPlan) -> Fleet {
    let ledger = Arc::new(Ledger::new(1, plan.first, plan.phones));
    let fleet = Fleet::start(plan, ledger).unwrap();
    fleet.connect(1000.0);
    wait(&fleet, |totals| totals.ready() == u64::from(PHONES));
    fleet
}

#[test]
fn a_ping_without_an_answer_is_found() {
    let broker = FakeBroker::start(Fault::None);
    let mut plan = plan(&broker);
    plan.script.keep_alive = 1;
    let fleet = ready(plan);
    wait(&fleet, |totals| totals.get(Count::PingsUnanswered) > 0);
    let totals = fleet.totals();
    assert_eq!(totals.get(Count::Pongs), 0);
    assert!(totals.get(Count::Pings) > totals.get(Count::PingsUnanswered));
}

#[test]
fn a_connection_that_outlives_its_takeover_is_found() {
    let broker = FakeBroker::start(Fault::None);
    let mut plan = plan(&broker);
    plan.patience = Duration::from_millis(200);
    plan.retry = true;
    let fleet = ready(plan);
    fleet.churn(Churn {
        fraction_per_second: 1.0,
        shape: Shape {
            clean: 0.0,
            reset: 0.0,
            vanish: 0.0,
            takeover: 1.0,
            ..Shape::default()
        },
    });
    wait(&fleet, |totals| totals.get(Count::TakeoversStood) > 0);
    let totals = fleet.totals();
    assert!(totals.get(Count::Takeovers) >= totals.get(Count::TakeoversStood));
}
