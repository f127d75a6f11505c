//! How phones leave and come back, against the real server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::fleet::{Back, Churn, Fleet, FleetPlan, Leave, Shape, Storm};
use loadgen::ledger::Ledger;
use loadgen::script::Script;
use loadgen::sources::Sources;
use loadgen::stats::{Count, Failure, Totals};
use stillwire::config::resolved::Config;
use stillwire::server::Server;
use stillwire::wire::Version;

const PHONES: u32 = 60;

fn server(addr: SocketAddr) -> Server {
    let mut config = Config::new(2, PHONES + 8);
    config.listen = vec![addr];
    config.lookup.listen.clear();
    Server::start(&config).unwrap()
}

fn phones(addr: SocketAddr) -> Fleet {
    let plan = FleetPlan {
        targets: vec![addr],
        first: 0,
        phones: PHONES,
        threads: 2,
        sources: Sources::Loopback,
        script: Script {
            version: Version::V311,
            persistent: true,
            keep_alive: 60,
        },
        patience: Duration::from_secs(5),
        retry: true,
        late: Duration::from_secs(30),
        tickets: None,
    };
    Fleet::start(plan, Arc::new(Ledger::new(1, 0, PHONES))).unwrap()
}

fn start() -> (Server, Fleet) {
    let server = server(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let fleet = phones(server.addresses()[0]);
    all_connect(&fleet);
    (server, fleet)
}

fn all_connect(fleet: &Fleet) {
    fleet.connect(1000.0);
    wait(fleet, |totals| totals.ready() == u64::from(PHONES));
}

fn wait(fleet: &Fleet, met: impl Fn(&Totals) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !met(&fleet.totals()) {
        assert!(Instant::now() < end, "{:?}", fleet.totals());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets phones leave in one way only until 40 have done so, and waits until all are back.
fn churn(weights: [f64; 4]) -> Totals {
    let (_server, fleet) = start();
    let [clean, reset, vanish, takeover] = weights;
    fleet.churn(Churn {
        fraction_per_second: 2.0,
        shape: Shape {
            clean,
            reset,
            vanish,
            takeover,
            away_min: Duration::from_millis(10),
            away_max: Duration::from_millis(100),
            ..Shape::default()
        },
    });
    wait(&fleet, |totals| totals.get(Count::HungUp) >= 40);
    fleet.churn(Churn::NONE);
    wait(&fleet, |totals| totals.ready() == u64::from(PHONES));
    let totals = fleet.totals();
    assert_eq!(totals.failed(), 0, "{totals:?}");
    assert_eq!(totals.get(Count::SessionLost), 0);
    totals
}

#[test]
fn clean_closes_and_resets_are_no_failures() {
    churn([1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn phones_that_vanish_come_back_to_their_session() {
    let totals = churn([0.0, 0.0, 1.0, 0.0]);
    assert_eq!(totals.get(Count::Vanished), totals.get(Count::HungUp));
}

#[test]
fn a_takeover_is_no_failure() {
    let totals = churn([0.0, 0.0, 0.0, 1.0]);
    assert_eq!(totals.get(Count::Takeovers), totals.get(Count::HungUp));
    assert_eq!(totals.get(Count::TakeoversStood), 0);
}

fn storm(back: Back) {
    let (_server, fleet) = start();
    fleet.storm(Storm {
        fraction: 0.5,
        leave: Leave::Reset,
        back,
    });
    wait(&fleet, |_| fleet.last_storm().unwrap().over);
    let course = fleet.last_storm().unwrap();
    assert!(course.dropped.abs_diff(30) <= 1, "{course:?}");
    assert_eq!(course.refused, 0);
    assert!(course.last_back > course.began);
    assert_eq!(fleet.totals().ready(), u64::from(PHONES));
}

#[test]
fn a_storm_is_over_when_all_are_back() {
    storm(Back::AtOnce);
    storm(Back::Within(Duration::from_millis(100)));
}

#[test]
fn when_the_server_restarts_phones_come_back_as_soon_as_it_listens_and_not_before() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    // The phones' threads are there first: they would keep the old server's listeners open.
    let fleet = phones(addr);
    let first = server(addr);
    all_connect(&fleet);
    fleet.storm(Storm {
        fraction: 0.5,
        leave: Leave::Reset,
        back: Back::WhenListening,
    });
    wait(&fleet, |_| {
        fleet.last_storm().unwrap().dropped == u64::from(PHONES)
    });
    // It still serves: nobody leaves, and nobody takes it for the new one.
    let course = fleet.last_storm().unwrap();
    assert_eq!((course.back, course.over), (0, false), "{course:?}");
    assert_eq!(fleet.totals().ready(), u64::from(PHONES));

    first.shutdown();
    first.join().unwrap();
    wait(&fleet, |totals| {
        totals.ready() == 0 && totals.failures_of(Failure::Refused) > 0
    });
    let _second = server(addr);
    wait(&fleet, |_| fleet.last_storm().unwrap().over);
    let course = fleet.last_storm().unwrap();
    assert_eq!(course.dropped, u64::from(PHONES));
    assert_eq!(course.back, u64::from(PHONES));
    assert!(course.refused > 0 && course.last_back > course.began);
    assert_eq!(fleet.totals().ready(), u64::from(PHONES));
}
