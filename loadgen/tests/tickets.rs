//! Phones that ask a lookup: they do what their tickets say, and go on when it says nothing, nonsense, or later.

#[allow(dead_code, reason = "the verification's tests use the rest")]
mod broker;
mod lookup;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{FakeBroker, Fault, Guest};
use loadgen::fleet::{Churn, Fleet, FleetPlan, Shape};
use loadgen::ledger::Ledger;
use loadgen::script::Script;
use loadgen::sources::Sources;
use loadgen::stats::{Count, Totals};
use loadgen::tickets::Tickets;
use lookup::{Asked, FakeLookup, Reply, endpoint, ticket, with};
use serde_json::{Value, json};
use stillwire::wire::Version;

const PHONES: u32 = 6;

/// An address where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Phones that ask; `delivered` is the list in their app.
fn start(tickets: Tickets, delivered: SocketAddr) -> Fleet {
    let fleet = fleet(PHONES, tickets, delivered);
    fleet.connect(1000.0);
    fleet
}

fn fleet(phones: u32, tickets: Tickets, delivered: SocketAddr) -> Fleet {
    let plan = FleetPlan {
        targets: vec![delivered],
        first: 0,
        phones,
        threads: 2,
        sources: Sources::Loopback,
        script: Script {
            version: Version::V311,
            persistent: false,
            keep_alive: 0,
        },
        patience: Duration::from_secs(5),
        retry: true,
        late: Duration::from_secs(30),
        tickets: Some(tickets),
    };
    Fleet::start(plan, Arc::new(Ledger::new(1, 0, phones))).unwrap()
}

fn wait(fleet: &Fleet, met: impl Fn(&Totals) -> bool) -> Totals {
    let end = Instant::now() + Duration::from_secs(30);
    while !met(&fleet.totals()) {
        assert!(Instant::now() < end, "{:?}", fleet.totals());
        std::thread::sleep(Duration::from_millis(1));
    }
    fleet.totals()
}

fn all_ready(fleet: &Fleet) -> Totals {
    wait(fleet, |totals| totals.ready() == u64::from(PHONES))
}

/// Whoever came, by client id.
fn by_client(guests: Vec<Guest>) -> HashMap<String, Vec<Guest>> {
    let mut all = HashMap::<String, Vec<Guest>>::new();
    for guest in guests {
        all.entry(guest.client_id.clone()).or_default().push(guest);
    }
    all
}

/// Phones leave and come back all the time.
fn leave_and_come_back(fleet: &Fleet) {
    fleet.churn(Churn {
        fraction_per_second: 5.0,
        shape: Shape {
            clean: 1.0,
            reset: 1.0,
            vanish: 0.0,
            takeover: 0.0,
            away_min: Duration::from_millis(1),
            away_max: Duration::from_millis(10),
            ..Shape::default()
        },
    });
}

/// The same until so many have left.
fn churn(fleet: &Fleet, left: u64) -> Totals {
    let before = fleet.totals().get(Count::HungUp);
    leave_and_come_back(fleet);
    wait(fleet, |totals| totals.get(Count::HungUp) >= before + left);
    fleet.churn(Churn::NONE);
    all_ready(fleet)
}

fn phones(count: u64) -> u64 {
    count * u64::from(PHONES)
}

#[test]
fn a_ticket_leads_home_and_its_token_is_the_password() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let lookup = FakeLookup::start(move |asked| {
        assert_eq!(
            asked.authorization.as_deref(),
            Some("Basic c2hvcDpoaWRkZW4=")
        );
        // The home port is tried first, whatever the weight.
        let endpoints = json!([
            endpoint(nowhere(), 0, false),
            endpoint(nowhere(), 1, true),
            endpoint(addr, 0, true)
        ]);
        Reply::Ticket(with(ticket(asked, addr), json!({"endpoints": endpoints})))
    });
    let tickets = Tickets {
        app: "shop".into(),
        secret: "hidden".into(),
        ..lookup.tickets()
    };
    let fleet = start(tickets, nowhere());
    let totals = all_ready(&fleet);
    assert_eq!(totals.get(Count::Tickets), phones(1));
    assert_eq!((totals.failed(), totals.get(Count::Fallbacks)), (0, 0));
    assert_eq!(fleet.latencies().ticket.len(), phones(1));
    for guest in broker.guests() {
        let token = format!("token of {} number 0", guest.client_id);
        assert_eq!(guest.user.as_deref(), Some("shop"));
        assert_eq!(guest.password, Some(token));
    }
    assert_eq!(by_client(broker.guests()).len(), PHONES as usize);
}

#[test]
fn nobody_calls_before_the_time_that_the_ticket_says() {
    const AFTER: Duration = Duration::from_millis(400);
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let script = move |asked: &Asked| {
        let millis = AFTER.as_millis() as u64;
        Reply::Ticket(with(ticket(asked, addr), json!({"connect_after": millis})))
    };
    let lookup = FakeLookup::start(script);
    let fleet = start(lookup.tickets(), nowhere());
    let totals = all_ready(&fleet);
    assert_eq!(totals.get(Count::Paced), phones(1));
    assert_eq!(totals.get(Count::Attempts), phones(1));
    let latencies = fleet.latencies();
    assert_eq!(latencies.paced.len(), phones(1));
    // To call later than one could is no latency of the server.
    assert!(latencies.ready.max() < 400_000 + latencies.paced.max());
    let asked = lookup.asked();
    for guest in broker.guests() {
        let waited = guest.when - asked[&guest.client_id][0];
        assert!(waited >= AFTER, "{waited:?}");
    }

    // Those that don't honour it are told the same, and don't wait.
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let never = json!({"connect_after": 3_600_000});
    let lookup =
        FakeLookup::start(move |asked| Reply::Ticket(with(ticket(asked, addr), never.clone())));
    let fleet = start(
        Tickets {
            pacing: false,
            ..lookup.tickets()
        },
        nowhere(),
    );
    assert_eq!(all_ready(&fleet).get(Count::Paced), 0);
}

#[test]
fn a_ticket_is_kept_until_it_should_be_refreshed() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let lookup = FakeLookup::start(move |asked| Reply::Ticket(ticket(asked, addr)));
    let fleet = start(lookup.tickets(), nowhere());
    all_ready(&fleet);
    let totals = churn(&fleet, 20);
    assert_eq!(lookup.questions(), PHONES as usize);
    assert!(totals.get(Count::CacheHits) >= 20);
    assert_eq!(
        totals.get(Count::CacheHits) + phones(1),
        totals.get(Count::Attempts)
    );

    // Without a cache each connect asks.
    let fleet = start(
        Tickets {
            cache: false,
            ..lookup.tickets()
        },
        nowhere(),
    );
    all_ready(&fleet);
    let totals = churn(&fleet, 20);
    assert_eq!(totals.get(Count::CacheHits), 0);
    assert_eq!(totals.get(Count::Tickets), totals.get(Count::Attempts));
}

#[test]
fn a_phone_that_is_ready_refreshes_its_ticket_and_stays() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let soon = json!({"refresh_at": 1_000_000 + 100});
    let lookup =
        FakeLookup::start(move |asked| Reply::Ticket(with(ticket(asked, addr), soon.clone())));
    let fleet = start(lookup.tickets(), nowhere());
    all_ready(&fleet);
    wait(&fleet, |_| {
        lookup.asked().values().all(|asked| asked.len() >= 4)
    });
    for moments in lookup.asked().values() {
        for pair in moments.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(100));
        }
    }
    let totals = fleet.totals();
    assert_eq!(totals.get(Count::Attempts), phones(1));
    assert_eq!((totals.ready(), totals.failed()), (phones(1), 0));
    // The next connect has the newest token.
    let before = broker.guests().len();
    churn(&fleet, 1);
    let next = &broker.guests()[before];
    assert!(!next.password.as_ref().unwrap().ends_with(" 0"), "{next:?}");
}

#[test]
fn whoever_is_put_off_asks_again_when_it_was_told_to() {
    for (status, headers, body) in [
        (429, "Retry-After: 1\r\n", "slow down"),
        (
            503,
            "",
            "{\"error\": \"busy\", \"retry_after\": 1, \"fallback\": []}",
        ),
    ] {
        let broker = FakeBroker::start(Fault::None);
        let addr = broker.addr;
        let lookup = FakeLookup::start(move |asked| {
            if asked.before == 0 {
                Reply::Status(status, headers, body.into())
            } else {
                Reply::Ticket(ticket(asked, addr))
            }
        });
        let fleet = start(lookup.tickets(), nowhere());
        let totals = all_ready(&fleet);
        assert_eq!(totals.get(Count::TicketsPutOff), phones(1));
        assert_eq!(totals.get(Count::TicketsFailed), 0);
        assert_eq!(totals.get(Count::Attempts), phones(1));
        for moments in lookup.asked().values() {
            assert_eq!(moments.len(), 2);
            assert!(moments[1] - moments[0] >= Duration::from_secs(1));
        }
    }
}

#[test]
fn patience_with_a_lookup_that_only_puts_off_ends_at_its_fallback_list() {
    let broker = FakeBroker::start(Fault::None);
    let fallback = endpoint(broker.addr, 0, false);
    let body = json!({"error": "busy", "retry_after": 0, "fallback": [fallback]}).to_string();
    let lookup = FakeLookup::start(move |_| Reply::Status(503, "", body.clone()));
    let fleet = start(lookup.tickets(), nowhere());
    let totals = all_ready(&fleet);
    assert_eq!(totals.get(Count::TicketsPutOff), phones(7));
    assert_eq!(totals.get(Count::Fallbacks), phones(1));
    assert!(broker.guests().iter().all(|guest| guest.password.is_none()));
}

#[test]
fn what_was_kept_outlives_the_lookup() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let lookup = FakeLookup::start(move |asked| Reply::Ticket(ticket(asked, addr)));
    let fleet = start(lookup.tickets(), nowhere());
    all_ready(&fleet);
    lookup.die();
    // A phone that leaves by itself has a good ticket, and needs nobody.
    let totals = churn(&fleet, 10);
    assert_eq!((totals.get(Count::TicketsFailed), totals.failed()), (0, 0));
    // Who lost its connection asks, gets no answer, and comes with the ticket that it has.
    let (connects, cached) = (broker.guests().len(), totals.get(Count::CacheHits));
    broker.hang_up();
    wait(&fleet, |totals| {
        totals.get(Count::Readied) >= connects as u64 + phones(1) && totals.ready() == phones(1)
    });
    let totals = fleet.totals();
    assert_eq!(totals.get(Count::CacheSaves), phones(1));
    assert_eq!(totals.get(Count::TicketsFailed), phones(1));
    assert_eq!(totals.get(Count::CacheHits), cached);
    assert_eq!(totals.get(Count::Fallbacks), 0);
    for guest in &broker.guests()[connects..] {
        let token = format!("token of {} number 0", guest.client_id);
        assert_eq!(guest.password, Some(token));
    }
}

#[test]
fn a_ticket_that_has_expired_is_no_ticket() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let lookup = FakeLookup::start(move |asked| {
        let fallback = json!([endpoint(addr, 0, false)]);
        let short = json!({"ttl": 1, "refresh_at": 1_000_000 + 900, "fallback": fallback});
        Reply::Ticket(with(ticket(asked, addr), short))
    });
    let fleet = start(lookup.tickets(), nowhere());
    all_ready(&fleet);
    lookup.die();
    // Until it has expired a ticket is good; then phones leave and come back by the addresses of its fallback list, for the app's own leads
    // nowhere.
    leave_and_come_back(&fleet);
    wait(&fleet, |totals| totals.get(Count::Fallbacks) >= 10);
    fleet.churn(Churn::NONE);
    all_ready(&fleet);
    let without = |guest: &Guest| guest.password.is_none();
    let guests = by_client(broker.guests());
    assert!(
        guests
            .values()
            .flatten()
            .filter(|guest| without(guest))
            .count()
            >= 10
    );
    for guests in guests.values() {
        let first = guests.iter().position(without).unwrap_or(guests.len());
        assert!(guests[first..].iter().all(without), "{guests:?}");
    }
}

/// Phones whose lookup says this get ready by the list of their app, without a token.
fn does_without(reply: &Reply) {
    let broker = FakeBroker::start(Fault::None);
    let said = reply.clone();
    let lookup = FakeLookup::start(move |_| said.clone());
    let tickets = Tickets {
        patience: Duration::from_millis(200),
        ..lookup.tickets()
    };
    let fleet = start(tickets, broker.addr);
    let totals = all_ready(&fleet);
    let counted =
        [Count::TicketsFailed, Count::Fallbacks, Count::Attempts].map(|count| totals.get(count));
    assert_eq!(counted, [phones(1); 3], "{reply:?}");
    assert_eq!(totals.get(Count::Tickets), 0, "{reply:?}");
    assert!(
        broker
            .guests()
            .iter()
            .all(|guest| guest.user.is_none() && guest.password.is_none())
    );
}

#[test]
fn nonsense_is_no_ticket() {
    let whole = |key: &str| {
        let asked = Asked {
            client_id: "x".into(),
            before: 0,
            authorization: None,
        };
        let mut ticket = ticket(&asked, nowhere());
        ticket.as_object_mut().unwrap().remove(key);
        Reply::Ticket(ticket)
    };
    for reply in [
        Reply::Status(200, "", "<html>welcome to the hotel</html>".into()),
        Reply::Status(200, "", String::new()),
        Reply::Status(401, "", "{\"error\": \"who are you?\"}".into()),
        Reply::Status(500, "", "oops".into()),
        Reply::Status(404, "Connection: close\r\n", String::new()),
        Reply::Ticket(Value::Null),
        Reply::Ticket(json!({"v": 1, "endpoints": [[[[]]]]})),
        whole("v"),
        whole("endpoints"),
        whole("server_time"),
        whole("ttl"),
        whole("refresh_at"),
        whole("retry"),
        Reply::Raw(b"\x20\x02\x00\x00"),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}"),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"v\":1,"),
        Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\n{}"),
        Reply::Nothing,
        Reply::Silence,
    ] {
        does_without(&reply);
    }
}

#[test]
fn a_lookup_that_was_never_there_is_done_without() {
    let broker = FakeBroker::start(Fault::None);
    let url = format!("http://{}", nowhere()).parse().unwrap();
    let fleet = start(Tickets::at(url).unwrap(), broker.addr);
    let totals = all_ready(&fleet);
    assert_eq!(totals.get(Count::TicketsFailed), phones(1));
    assert_eq!(totals.get(Count::Fallbacks), phones(1));
}

#[test]
fn endpoints_are_tried_down_the_list_and_the_fallback_list_is_its_end() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let dead = [nowhere(), nowhere()];
    let lookup = FakeLookup::start(move |asked| {
        let lists = json!({
            "endpoints": [endpoint(dead[0], 1, false), endpoint(dead[1], 0, true)],
            "fallback": [endpoint(addr, 0, false)],
        });
        Reply::Ticket(with(ticket(asked, addr), lists))
    });
    let fleet = start(lookup.tickets(), nowhere());
    let totals = all_ready(&fleet);
    // Both were tried once; who failed has asked again and was sent the same way, on which it went on.
    assert_eq!(totals.failed(), phones(2));
    assert_eq!(totals.get(Count::Tickets), phones(3));
    assert_eq!(totals.get(Count::Fallbacks), phones(1));
    assert!(broker.guests().iter().all(|guest| guest.password.is_some()));
}

#[test]
fn a_lookup_may_close_its_connections_as_it_likes() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let lookup = FakeLookup::start(move |asked| Reply::Last(ticket(asked, addr)));
    let tickets = Tickets {
        cache: false,
        concurrency: 1,
        ..lookup.tickets()
    };
    let fleet = start(tickets, nowhere());
    all_ready(&fleet);
    let totals = churn(&fleet, 30);
    assert_eq!((totals.get(Count::TicketsFailed), totals.failed()), (0, 0));
    assert_eq!(totals.get(Count::Tickets), totals.get(Count::Attempts));
}

fn loadgen(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_report_has_an_account_of_tickets() {
    let broker = FakeBroker::start(Fault::None);
    let addr = broker.addr;
    let lookup = FakeLookup::start(move |asked| Reply::Ticket(ticket(asked, addr)));
    let url = format!("http://{}", lookup.addr);
    let page = std::env::temp_dir().join(format!("loadgen-tickets-{}.html", std::process::id()));
    let run = [
        "unicast",
        "--lookup",
        &url,
        "--addr",
        "127.0.0.1:1",
        "-n",
        "40",
    ];
    let more = [
        "--time",
        "1500ms",
        "--message-rate",
        "100",
        "--json",
        "-",
        "--html",
        page.to_str().unwrap(),
    ];
    let output = loadgen(&[&run[..], &more[..]].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["tickets"]["fetched"], 40, "{report:#}");
    assert_eq!(report["latency"]["ticket"]["count"], 40);
    assert_eq!(report["connections"]["ready"], 40);
    assert!(
        report["settings"]["tickets"]
            .as_str()
            .unwrap()
            .contains(&url)
    );
    let in_course: u64 = report["course"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["counts"]["tickets"].as_u64())
        .sum();
    assert_eq!(in_course, 40);
    // The publishers have tickets too.
    let guests = broker.guests();
    let publishers = guests
        .iter()
        .filter(|guest| guest.client_id.starts_with("publisher-"));
    assert_eq!(
        publishers.filter(|guest| guest.password.is_some()).count(),
        4
    );
    let text = std::fs::read_to_string(&page).unwrap();
    std::fs::remove_file(&page).unwrap();
    for part in ["Tickets a second", "tickets fetched", "ticket, p99"] {
        assert!(text.contains(part), "{part}");
    }
    let live = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(live.contains("/s tickets"), "{live}");

    let run = ["connect", "--lookup", &url, "-n", "10", "--time", "10ms"];
    for (expected, code) in [
        ("tickets=10,ticket.p99<30s,tickets_failed=0", 0),
        ("tickets=11", 1),
    ] {
        let output = loadgen(&[&run[..], &["--expect", expected]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("10 tickets fetched"), "{text}");
    }
}

#[test]
fn a_lookup_that_gives_nothing_is_known_before_the_first_packet() {
    let closed = FakeLookup::start(|_| Reply::Status(401, "", "{\"error\":\"no\"}".into()));
    let closed = format!("http://{}", closed.addr);
    let dead = format!("http://{}", nowhere());
    for (url, code, says) in [
        ("localhost:8090", 2, "write http://"),
        ("http://no-such-host.invalid:1", 3, "no address"),
        (&dead, 3, "--lookup"),
        (&closed, 3, "[tickets]"),
    ] {
        let output = loadgen(&["connect", "-n", "5", "--lookup", url]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(says), "{url}: {said}");
    }
}

/// How many tickets a second two threads carry, phones and a lookup of thirty threads on the same cores. For a quiet machine:
/// `cargo test --release -p loadgen --test tickets -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn twenty_thousand_tickets_a_second() {
    const MANY: u32 = 100_000;
    let addr = nowhere();
    // Nobody calls within the hour, so that tickets are all there is.
    let later = json!({"connect_after": 3_600_000, "token": "x".repeat(250)});
    let lookup =
        FakeLookup::start(move |asked| Reply::Ticket(with(ticket(asked, addr), later.clone())));
    let before = loadgen::machine::own_memory(std::process::id()).unwrap();
    let fleet = fleet(MANY, lookup.tickets(), nowhere());
    let cpu = || loadgen::machine::CpuTime::of(std::process::id()).unwrap();
    let (began, used) = (Instant::now(), cpu());
    fleet.connect(20_000.0);
    let totals = wait(&fleet, |totals| {
        totals.get(Count::Tickets) + totals.get(Count::TicketsFailed) >= u64::from(MANY)
    });
    let seconds = began.elapsed().as_secs_f64();
    let ticket = fleet.latencies().ticket;
    println!(
        "{:.0} tickets/s for {seconds:.1} s, {} failed; from the planned question p50 {} us, p99 {} us, max {} us; {:.1} us of CPU each, the \
         lookup's included; {:.0} bytes a phone, the lookup's included",
        f64::from(MANY) / seconds,
        totals.get(Count::TicketsFailed),
        ticket.at(0.5),
        ticket.at(0.99),
        ticket.max(),
        cpu().micros_since(&used).0 / f64::from(MANY),
        (loadgen::machine::own_memory(std::process::id()).unwrap() as f64 - before as f64)
            / f64::from(MANY),
    );
    assert_eq!(totals.get(Count::Tickets), u64::from(MANY));
}
