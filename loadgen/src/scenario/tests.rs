#![allow(clippy::float_cmp, reason = "what was typed is compared with itself")]

use std::path::Path;

use super::*;
use crate::cli::Numbers;
use crate::output::Output;

const EXAMPLES: [(&str, &str); 5] = [
    ("million", include_str!("../../scenarios/million.toml")),
    (
        "million-idle",
        include_str!("../../scenarios/million-idle.toml"),
    ),
    ("storm", include_str!("../../scenarios/storm.toml")),
    (
        "storm-tickets",
        include_str!("../../scenarios/storm-tickets.toml"),
    ),
    ("mixed", include_str!("../../scenarios/mixed.toml")),
];

fn parse(text: &str) -> Result<File, String> {
    file::parse(Path::new("x.toml"), text).map_err(|error| error.to_string())
}

fn example(name: &str) -> File {
    let (_, text) = EXAMPLES.iter().find(|(known, _)| *known == name).unwrap();
    parse(text).unwrap()
}

fn typed() -> Shared {
    Shared::default()
}

#[test]
fn the_examples_are_read() {
    for (name, text) in EXAMPLES {
        let scenario = Scenario::from(Kind::Mixed(None), &typed(), &parse(text).unwrap());
        assert!(!scenario.phases.is_empty(), "{name}");
        assert!(!scenario.settings().is_empty(), "{name}");
    }
}

#[test]
fn one_file_tells_the_whole_of_a_million() {
    let scenario = Scenario::from(Kind::Mixed(None), &typed(), &example("million"));
    assert_eq!(scenario.phones, 0..1_000_000);
    assert_eq!((scenario.connects, scenario.keep_alive), (6_000.0, 300));
    let [idle, first, second, third] = &scenario.phases[..] else {
        panic!("{:?}", scenario.phases)
    };
    assert!(idle.churn.is_none() && idle.unicast0 == 0.0 && idle.fanout == Fanout::Never);
    assert_eq!(first.time, Duration::from_secs(600));
    assert_eq!((first.unicast0, first.unicast1), (1000.0, 1000.0));
    assert_eq!(first.fanout, Fanout::Once);
    for (phase, churn) in [(first, 0.001), (second, 0.01), (third, 0.02)] {
        assert_eq!(phase.churn.unwrap().fraction_per_second, churn);
    }
    assert_eq!(third.time, Duration::from_secs(120));
}

#[test]
fn the_example_of_all_keys_has_the_usual_values() {
    let file = example("mixed");
    let scenario = Scenario::from(Kind::Mixed(None), &typed(), &file);
    let usual = Scenario::from(Kind::Mixed(None), &typed(), &File::default());
    assert_eq!(file.churn.unwrap().shape(), Shape::default());
    assert_eq!(
        Scenario {
            phones: usual.phones.clone(),
            connects: usual.connects,
            phases: usual.phases.clone(),
            ..scenario
        },
        usual
    );
}

#[test]
fn a_flag_overrides_the_file_and_the_file_the_defaults() {
    let file = parse(
        "phones = 500\nrate = 50\nkeep-alive = 7\nexpect = 'missing=0'\n[[phase]]\nchurn = '5%'\ntime = '1m'",
    )
    .unwrap();
    let plain = Scenario::from(Kind::Churn(None), &typed(), &file);
    assert_eq!((plain.phones.clone(), plain.connects), (0..500, 50.0));
    assert_eq!((plain.keep_alive, plain.expect.len()), (7, 1));
    assert_eq!(plain.phases[0].churn.unwrap().fraction_per_second, 0.05);
    let shared = Shared {
        addr: Some(vec!["127.0.0.1:2".parse().unwrap()]),
        connections: Some(Numbers {
            range: 0..9,
            part: false,
        }),
        rate: Some(3.0),
        time: Some(Duration::from_secs(2)),
        show: Output {
            expect: Some(Expectation::parse_all("p99<1s,missing=0").unwrap()),
            ..Output::default()
        },
        ..typed()
    };
    let over = Scenario::from(Kind::Churn(Some(0.5)), &shared, &file);
    assert_eq!(over.targets, ["127.0.0.1:2".parse().unwrap()]);
    assert_eq!((over.phones, over.connects), (0..9, 3.0));
    assert_eq!((over.keep_alive, over.expect.len()), (7, 2));
    assert_eq!(over.phases[0].time, Duration::from_secs(2));
    assert_eq!(over.phases[0].churn.unwrap().fraction_per_second, 0.5);
}

#[test]
fn a_part_of_the_phones_has_its_part_of_the_rates() {
    let shared = Shared {
        connections: Some(Numbers {
            range: 250_000..500_000,
            part: true,
        }),
        ..typed()
    };
    let scenario = Scenario::from(Kind::Mixed(None), &shared, &example("million"));
    assert_eq!(scenario.phones, 250_000..500_000);
    assert_eq!(scenario.connects, 1500.0);
    assert_eq!(scenario.phases[1].unicast1, 250.0);
    assert_eq!(scenario.phases[1].churn.unwrap().fraction_per_second, 0.001);
    assert!(scenario.run.is_some());
}

#[test]
fn what_each_named_scenario_does() {
    let of = |kind| Scenario::from(kind, &typed(), &File::default());
    assert!(!of(Kind::Connect).publishes() && !of(Kind::Connect).persistent);
    assert_eq!(
        of(Kind::Churn(None)).phases[0].churn.unwrap(),
        Churn::default()
    );
    let storm = |back| of(Kind::Storm(Some(back))).phases[0].storm.clone().unwrap();
    assert_eq!(storm(Return::Now).storm.back, Back::AtOnce);
    assert_eq!(storm(Return::Jitter).storm.back, Back::Within(JITTER));
    assert_eq!(storm(Return::Restart).restart, Some(Restart::Operator));
    assert_eq!(
        of(Kind::Fanout(Some(4.0))).phases[0].fanout,
        Fanout::Rate(4.0)
    );
    let unicast = of(Kind::Unicast(Some(10.0)));
    assert_eq!(unicast.phases[0].unicast1, 5.0);
    let mixed = of(Kind::Mixed(Some(1000.0)));
    assert_eq!(mixed.phases[1].unicast0, 450.0);
    assert_eq!(mixed.phases[1].fanout, Fanout::Rate(0.1));
    assert!(mixed.phases[1].storm.is_some() && mixed.broadcasts());
}

#[test]
fn the_command_of_a_restart_is_kept() {
    let file =
        parse("[storm]\ncommand = 'true'\n[[phase]]\nstorm = { return = 'restart' }").unwrap();
    let scenario = Scenario::from(Kind::Storm(None), &typed(), &file);
    let planned = scenario.phases[0].storm.as_ref().unwrap();
    assert_eq!(planned.restart, Some(Restart::Command("true".into())));
    // A restart takes what was in flight with it.
    assert!(scenario.expect.iter().all(|e| e.text != "failed=0"));
    let plain = Scenario::from(Kind::Churn(None), &typed(), &File::default());
    assert!(plain.expect.iter().any(|e| e.text == "failed=0"));
}

#[test]
fn errors_say_where_and_what_to_do() {
    for (text, at, says) in [
        (
            "phones = 5\nchrun = 1",
            "x.toml:2: chrun:",
            "expected one of",
        ),
        ("rate = 'fast'", "x.toml:1: rate:", "write 0.1, 500 or 20k"),
        ("\n[[phase]]\nchurn = '7'", "x.toml:3: churn:", "write 0.1%"),
        ("phones = '9..3'", "x.toml:1: phones:", "250k..500k"),
        ("payload = 3", "x.toml:1: payload:", "write 24"),
        ("publishers = 0", "x.toml:1: publishers:", "nonzero"),
        ("addr = 'here'", "x.toml:1: addr:", "127.0.0.1:1883"),
        ("addr = []", "x.toml:1: addr:", "one at least"),
        ("protocol = '4'", "x.toml:1: protocol:", "3.1.1"),
        ("expect = 'speed>9'", "x.toml:1: expect:", "is no figure"),
        ("late = '3 days'", "x.toml:1: late:", "write 250ms"),
        ("[churn]\nclean = -1", "x.toml:2: clean:", "0 or more"),
        (
            "[[phase]]\nbroadcast = 'often'",
            "x.toml:2: broadcast:",
            "\"once\"",
        ),
        ("[storm]\nreturn = 'never'", "x.toml:2: return:", "jitter"),
        ("phones = ", "x.toml:1: phones:", ""),
        ("[phase]\ntime = 3", "x.toml:1: ", "sequence"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(
            error.starts_with(at) && error.contains(says),
            "{text}: {error}"
        );
    }
    let nowhere = file::read(Path::new("/nowhere.toml"))
        .unwrap_err()
        .to_string();
    assert!(nowhere.contains("--scenario"), "{nowhere}");
}

#[test]
fn tickets_are_asked_for_where_a_lookup_is_named() {
    let of = |text: &str, lookup: Option<&str>| {
        let keys = parse(text).unwrap().tickets.unwrap_or_default();
        let typed = lookup.map(|url| url.parse().unwrap());
        keys.plan(typed.as_ref()).unwrap()
    };
    assert_eq!(of("phones = 5", None), None);
    assert_eq!(of("[tickets]\ncache = false", None), None);
    let usual = of("", Some("http://127.0.0.1:1")).unwrap();
    let example = example("mixed").tickets.unwrap();
    assert_eq!(
        (
            Some(usual.cache),
            Some(usual.pacing),
            Some(usual.concurrency)
        ),
        (
            example.cache,
            example.pacing,
            example.concurrency.map(std::num::NonZeroUsize::get)
        )
    );
    assert_eq!(Some(file::Time(usual.patience)), example.patience);
    let text = "[tickets]\nlookup = 'http://127.0.0.1:2/x'\napp = 'shop'\nsecret = 's'\ncache = false\npacing = false\nconcurrency = 3\npatience = '1s'";
    let written = of(text, None).unwrap();
    assert_eq!(written.url.to_string(), "http://127.0.0.1:2/x");
    assert_eq!((&*written.app, &*written.secret), ("shop", "s"));
    assert_eq!(
        (written.cache, written.pacing, written.concurrency),
        (false, false, 3)
    );
    assert_eq!(written.patience, Duration::from_secs(1));
    let flag = of(text, Some("http://127.0.0.1:3")).unwrap();
    assert_eq!((flag.lookup.port(), flag.app), (3, written.app));
    for wrong in [
        "[tickets]\nlookup = '127.0.0.1:1'",
        "[tickets]\nsecert = 'x'",
        "[tickets]\nconcurrency = 0",
    ] {
        assert!(
            parse(wrong).unwrap_err().starts_with("x.toml:2: "),
            "{wrong}"
        );
    }
}
