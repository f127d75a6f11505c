use super::*;
use crate::expect;
use crate::histogram::{FINE, Histogram, Packed};
use crate::report::course::{Moment, Phase, Ready, Sample, Storm, Usage};
use crate::report::{Broadcast, Memory, Messages};

/// Every element is closed by its own end, in order; returns the names of all that were opened.
fn check_nesting(page: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let mut rest = page;
    while let Some(begin) = rest.find('<') {
        rest = &rest[begin + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        assert!(!tag.contains('<'), "{tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        if name == "script" || name == "style" {
            let close = format!("</{name}>");
            let at = rest.find(&close).expect("it is closed");
            rest = &rest[at + close.len()..];
        } else if !tag.ends_with('/') {
            open.push(name.clone());
        }
        seen.push(name);
    }
    assert!(open.is_empty(), "{open:?}");
    seen
}

fn long_run(moments: u64) -> Report {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut report = Report {
        schema: crate::report::SCHEMA.into(),
        scenario: "mixed".into(),
        began: 1_795_237_710_760,
        date: "2026-11-21 05:08:30".into(),
        seconds: (moments * 4) as f64,
        machine: "2 cores <b>&\"'".into(),
        interval: 4,
        messages: Some(Messages::default()),
        memory: Some(Memory {
            user_bytes: 150.0,
            slab_bytes: 7900.0,
            same_process: false,
        }),
        storms: vec![Storm::default()],
        ..Report::default()
    };
    let mut packed = |precision| {
        let mut histogram = Histogram::default();
        for _ in 0..2000 {
            // Most within an octave or two, and a tail.
            let spread: f64 = (0..6).map(|_| rng.f64() - 0.5).sum();
            let tail = if rng.u32(0..100) == 0 {
                30.0 * rng.f64()
            } else {
                1.0
            };
            histogram.record((300.0 * spread.exp() * tail) as u64);
        }
        Packed::of(&histogram, precision)
    };
    report.latency.ready = packed(FINE);
    report.latency.unicast1 = packed(FINE);
    let usage = Usage {
        cpu: 87.5,
        user: 12.3,
        rss: 345_678_912,
        pss: Some(123_456_789),
    };
    for n in 0..moments {
        let mut moment = Moment {
            at: 1_795_237_708 + n * 4,
            seconds: 4.0,
            phase: "churn".into(),
            ready: Ready {
                last: 900_000 + n,
                least: 800_000,
                most: 999_999,
            },
            sample: Sample {
                server: Some(usage),
                generator: Some(usage),
                slab: 7_900_000_000 + n,
                tcp: 123_456,
            },
            ..Moment::default()
        };
        moment.counts.received = 8123 + n;
        moment.counts.published = 8000;
        moment.counts.connects = 4000 + n;
        moment.counts.late = n % 3;
        moment.counts.failures.insert("<reset>".into(), n % 7);
        moment.latency.ready = packed(3);
        moment.latency.unicast0 = packed(3);
        moment.latency.unicast1 = packed(3);
        moment.latency.ping = packed(3);
        report.course.push(moment);
    }
    report.phases = (0..5)
        .map(|n| Phase {
            name: format!("phase & {n}"),
            begin: f64::from(n) * 100.0,
            end: f64::from(n) * 100.0 + 100.0,
            ..Phase::default()
        })
        .collect();
    report.broadcasts = vec![
        Broadcast {
            received: 7,
            slowest: 5
        };
        12
    ];
    report
        .failures
        .insert("<script>alert(1)</script>".into(), 3);
    report.settings.insert("rate".into(), "20k \"<\"".into());
    report.judge(&expect::usual());
    report
}

#[test]
fn a_long_run_is_a_small_page_and_a_small_file() {
    let report = long_run(300);
    let page = page(&report);
    let json = report.to_json();
    assert!(page.len() < 300_000, "{}", page.len());
    assert!(json.len() < 420_000, "{}", json.len());
    let seen = check_nesting(&page);
    assert!(seen.iter().filter(|name| *name == "svg").count() >= 9);
    for outside in ["http://", "https://", "//cdn", "@import", "url("] {
        let found = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(outside), "{outside}");
    }
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let page = page(&long_run(3));
    check_nesting(&page);
    assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;alert(1)"));
    assert!(!page.contains("<reset>") && page.contains("2 cores &lt;b&gt;&amp;&quot;&#39;"));
}

#[test]
fn runs_of_nothing_and_of_a_moment_are_shown() {
    for report in [Report::default(), long_run(0), long_run(1)] {
        let page = page(&report);
        check_nesting(&page);
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
        assert!(!report.to_text().contains("NaN"));
    }
    assert!(page(&Report::default()).contains("too short"));
}
