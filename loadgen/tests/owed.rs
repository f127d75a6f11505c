//! What phones are owed while they leave and come back, against the real server: nothing is missing, and nothing is counted that never
//! could come.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::fleet::{Churn, Fleet, FleetPlan, Shape};
use loadgen::ledger::Ledger;
use loadgen::payload::Kind;
use loadgen::publisher::{Publisher, PublisherPlan, Stream};
use loadgen::script::Script;
use loadgen::sources::Sources;
use loadgen::stats::{Count, Totals};
use stillwire::config::resolved::Config;
use stillwire::server::Server;
use stillwire::wire::Version;

const PHONES: u32 = 60;

fn serve() -> Server {
    let mut config = Config::new(2, 2 * PHONES + 64);
    config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    config.lookup.listen.clear();
    Server::start(&config).unwrap()
}

fn fleet(server: &Server, first: u32, persistent: bool) -> Fleet {
    let plan = FleetPlan {
        targets: server.addresses().to_vec(),
        first,
        phones: PHONES,
        threads: 2,
        sources: Sources::Loopback,
        script: Script {
            version: Version::V5,
            persistent,
            keep_alive: 60,
        },
        patience: Duration::from_secs(5),
        retry: true,
        late: Duration::from_secs(30),
        tickets: None,
    };
    let ledger = Arc::new(Ledger::new(1, plan.first, plan.phones));
    Fleet::start(plan, ledger).unwrap()
}

fn publisher(fleet: &Fleet) -> Publisher {
    let plan = PublisherPlan {
        targets: fleet.plan().targets.clone(),
        connections: 1,
        version: Version::V5,
        payload: 64,
        seed: 5,
        tickets: None,
    };
    Publisher::start(&plan, Arc::clone(fleet.ledger())).unwrap()
}

fn endless(kind: Kind, per_second: f64) -> Stream {
    Stream {
        kind,
        per_second,
        count: u64::MAX,
    }
}

fn wait(fleet: &Fleet, met: impl Fn(&Totals) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !met(&fleet.totals()) {
        assert!(Instant::now() < end, "{:?}", fleet.totals());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Phones leave in every way but silently, in which messages are lost that had arrived at the phone's machine.
fn churn(fleet: &Fleet) {
    fleet.churn(Churn {
        fraction_per_second: 2.0,
        shape: Shape {
            vanish: 0.0,
            away_min: Duration::from_millis(10),
            away_max: Duration::from_millis(100),
            ..Shape::default()
        },
    });
}

fn calm(fleet: &Fleet) {
    wait(fleet, |totals| totals.get(Count::HungUp) >= 60);
    fleet.churn(Churn::NONE);
    wait(fleet, |totals| totals.ready() == u64::from(PHONES));
}

/// The streams end, and a last broadcast arrives behind all that was on its way.
fn last_ones(publisher: &mut Publisher, fleets: &[&Fleet]) {
    publisher.stop();
    wait(fleets[0], |_| publisher.is_idle());
    let before: Vec<u32> = fleets.iter().map(|f| f.ledger().broadcasts()).collect();
    publisher.broadcast();
    for (fleet, before) in fleets.iter().zip(before) {
        wait(fleet, |_| {
            let ledger = fleet.ledger();
            let last = ledger.broadcasts();
            last > before && ledger.round(last).received() == PHONES
        });
    }
}

fn pushes_at_qos_1(persistent: bool) -> (Totals, u64) {
    let server = serve();
    let fleet = fleet(&server, 0, persistent);
    let mut publisher = publisher(&fleet);
    fleet.connect(1000.0);
    wait(&fleet, |totals| totals.ready() == u64::from(PHONES));
    publisher.run(endless(Kind::Unicast1, 5000.0));
    churn(&fleet);
    calm(&fleet);
    last_ones(&mut publisher, &[&fleet]);
    let published = publisher.published(Kind::Unicast1);
    if persistent {
        wait(&fleet, |totals| totals.get(Count::Unicast1) == published);
    }
    fleet.settle();
    let totals = fleet.totals();
    assert_eq!(totals.missing(), 0, "{totals:?}");
    assert_eq!(totals.failed(), 0, "{totals:?}");
    (totals, published)
}

#[test]
fn a_session_that_is_kept_is_owed_what_came_while_its_phone_was_away() {
    let (totals, published) = pushes_at_qos_1(true);
    assert_eq!(totals.get(Count::Unicast1), published);
    assert_eq!(totals.get(Count::Excused), 0, "{totals:?}");
}

#[test]
fn a_session_that_ends_with_its_connection_is_not() {
    let (totals, published) = pushes_at_qos_1(false);
    assert!(totals.get(Count::Unicast1) < published, "{totals:?}");
}

/// As two processes would: each knows of its own pushes only, and the first one's broadcasts go to all.
fn two_processes_share_a_run(persistent: bool) {
    let server = serve();
    let (first, second) = (
        fleet(&server, 0, persistent),
        fleet(&server, PHONES, persistent),
    );
    let (mut speaker, mut other) = (publisher(&first), publisher(&second));
    speaker.run(endless(Kind::Broadcast, 300.0));
    speaker.run(endless(Kind::Unicast0, 2000.0));
    speaker.run(endless(Kind::Unicast1, 2000.0));
    other.run(endless(Kind::Unicast0, 2000.0));
    other.run(endless(Kind::Unicast1, 2000.0));
    // Broadcasts are under way before the first phone calls, and while they get ready one after the other.
    first.connect(200.0);
    second.connect(200.0);
    for fleet in [&first, &second] {
        wait(fleet, |totals| totals.ready() == u64::from(PHONES));
        churn(fleet);
    }
    calm(&first);
    calm(&second);
    other.stop();
    wait(&second, |_| other.is_idle());
    last_ones(&mut speaker, &[&first, &second]);
    assert_eq!(first.ledger().broadcasts(), second.ledger().broadcasts());
    for fleet in [&first, &second] {
        fleet.settle();
        let totals = fleet.totals();
        assert_eq!(totals.missing(), 0, "{totals:?}");
        assert_eq!(totals.get(Count::Foreign), 0, "{totals:?}");
        assert_eq!(totals.get(Count::Duplicates), 0, "{totals:?}");
        assert_eq!(totals.get(Count::Damaged), 0, "{totals:?}");
        assert_eq!(totals.failed(), 0, "{totals:?}");
        assert!(totals.get(Count::Broadcast) > u64::from(PHONES));
    }
}

#[test]
fn two_processes_share_a_run_with_sessions_that_are_kept() {
    two_processes_share_a_run(true);
}

#[test]
fn two_processes_share_a_run_with_sessions_that_end() {
    two_processes_share_a_run(false);
}
