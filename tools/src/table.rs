//! The figures as a table beside what they may be at most.

use std::fmt::Write;

use loadgen::units::{grouped, micros};

use crate::measure::{Cost, Figures};

/// A load average that a machine with nothing to do may still show.
const QUIET: f64 = 0.5;

/// What is allowed: `None` where the broker is only described.
struct Row {
    what: String,
    measured: String,
    bar: &'static str,
    over: bool,
}

impl Row {
    fn plain(what: &str, measured: String) -> Self {
        Self {
            what: what.into(),
            measured,
            bar: "",
            over: false,
        }
    }

    fn cost(what: &str, cost: Cost, bar: &'static str, all: f64, user: Option<f64>) -> Self {
        Self {
            what: format!("server CPU per {what}, us: whole / user space"),
            measured: format!("{:.1} / {:.2}", cost.all, cost.user),
            bar,
            over: cost.all > all || user.is_some_and(|user| cost.user > user),
        }
    }
}

/// The budgets of 15,000 connections on two reactors.
fn rows(figures: &Figures) -> Vec<Row> {
    vec![
        Row {
            what: "user-space bytes per idle connection".into(),
            measured: format!("{:.0}", figures.user_bytes),
            bar: "512",
            over: figures.user_bytes > 512.0,
        },
        Row::plain(
            "kernel slab per connection, both ends",
            format!("{:.0}", figures.slab_bytes),
        ),
        Row::plain(
            "user-space bytes before the first connection",
            grouped(figures.start_bytes),
        ),
        Row::cost(
            "connect + subscribe",
            figures.connect,
            "45 / 10",
            45.0,
            Some(10.0),
        ),
        Row::cost(
            "fan-out delivery",
            figures.delivery,
            "14 / 1.0",
            14.0,
            Some(1.0),
        ),
        Row::cost(
            "unicast message, QoS 0",
            figures.unicast0,
            "17 / 2.0",
            17.0,
            Some(2.0),
        ),
        Row::cost("unicast message, QoS 1", figures.unicast1, "20", 20.0, None),
        Row {
            what: "slowest delivery of a broadcast".into(),
            measured: micros(figures.slowest()),
            bar: "400 ms",
            over: figures.slowest() > 400_000,
        },
    ]
}

/// The whole text.
pub(crate) fn text(figures: &Figures) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _infallible = write(figures, &mut out);
    out
}

fn write(figures: &Figures, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n{}; {} connections; {}; {}\n",
        figures.broker,
        grouped(figures.connections),
        figures.machine,
        figures.date
    )?;
    writeln!(
        out,
        "| {:<68} | {:>14} | {:>9} |",
        "", "measured", "at most"
    )?;
    writeln!(out, "|{:-<70}|{:->15}:|{:->10}:|", "", "", "")?;
    for row in rows(figures) {
        let mark = if row.over { "  over" } else { "" };
        writeln!(
            out,
            "| {:<68} | {:>14} | {:>9} |{mark}",
            row.what, row.measured, row.bar
        )?;
    }
    if figures.load_before > QUIET {
        writeln!(
            out,
            "\nThe machine wasn't quiet: load average {:.1} before the start. Other work makes caches cold and these figures worse.",
            figures.load_before
        )?;
    }
    softirq(figures, out)?;
    writeln!(
        out,
        "\n{:<22} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "Latency", "count", "p50", "p99", "p99.9", "max"
    )?;
    for latency in &figures.latency {
        let [p50, p99, p999, max] =
            [latency.p50, latency.p99, latency.p999, latency.max].map(micros);
        writeln!(
            out,
            "{:<22} {:>10} {p50:>10} {p99:>10} {p999:>10} {max:>10}",
            latency.of,
            grouped(latency.count)
        )?;
    }
    if figures.failures > 0 {
        writeln!(
            out,
            "\n{} connections failed and were tried again",
            grouped(figures.failures)
        )?;
    }
    if !figures.is_valid() {
        writeln!(
            out,
            "\nNOT VALID: {} messages or phones missing",
            grouped(figures.lost)
        )?;
    }
    Ok(())
}

/// Says so if the kernel's network threads did a part of the sends that the server's account misses.
fn softirq(figures: &Figures, out: &mut String) -> std::fmt::Result {
    let costs = [
        ("connect", figures.connect),
        ("delivery", figures.delivery),
        ("QoS 0 message", figures.unicast0),
        ("QoS 1 message", figures.unicast1),
    ];
    let seen: Vec<String> = costs
        .iter()
        .filter(|(_, cost)| cost.softirq > 0.05 * cost.all)
        .map(|(what, cost)| format!("{:.1} us a {what}", cost.softirq))
        .collect();
    if seen.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nThe cores were contended: ksoftirqd did a part of the sends on top of that ({}).",
        seen.join(", ")
    )
}
