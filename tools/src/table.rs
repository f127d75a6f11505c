//! The figures as a table beside the floor and what they may be at most.

use std::fmt::Write;

use loadgen::units::{grouped, micros};

use crate::bench::{Cost, Figures};
use crate::measure::Measured;

/// A load average that a machine with nothing to do may still show.
pub(crate) const QUIET: f64 = 0.5;

/// Runs of the floor that are further apart than this tell of a machine that did something else meanwhile.
const STEADY: f64 = 0.1;

/// What a figure should be, and may be at most.
#[derive(Clone, Copy)]
struct Budget {
    aim: f64,
    bar: f64,
}

/// A line of the table.
struct Row {
    what: String,
    measured: String,
    floor: String,
    /// To the floor.
    ratio: Option<f64>,
    /// What the budget is about, as written in the table, and the budget itself.
    budget: Option<(f64, Budget)>,
    /// The budget is about the ratio.
    by_ratio: bool,
}

impl Row {
    fn plain(what: &str, measured: String) -> Self {
        Self {
            what: what.into(),
            measured,
            floor: String::new(),
            ratio: None,
            budget: None,
            by_ratio: false,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.budget {
            None => "",
            Some((value, budget)) if value > budget.bar => "over",
            Some((value, budget)) if value > budget.aim => "met",
            Some(_) => "aim met",
        }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let ratio = self
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let unit = if self.by_ratio { "x" } else { "" };
        let [aim, bar] = self
            .budget
            .map_or([const { String::new() }; 2], |(_, budget)| {
                [budget.aim, budget.bar].map(|limit| format!("{limit}{unit}"))
            });
        writeln!(
            out,
            "| {:<50} | {:>12} | {:>10} | {ratio:>5} | {aim:>5} | {bar:>5} | {:<7} |",
            self.what,
            self.measured,
            self.floor,
            self.verdict()
        )
    }
}

/// A cost as two lines: whole, with its ratio to the floor, and the user-space part.
fn cost(
    measured: &Measured,
    what: &str,
    of: fn(&Figures) -> Cost,
    ratio: Budget,
    user: Option<Budget>,
) -> [Row; 2] {
    let cost = of(&measured.server);
    let text = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
    let floor = measured.floor(|figures| of(figures).all);
    let to_floor = floor.map(|floor| cost.all / floor);
    let whole = Row {
        what: format!("CPU per {what}, us"),
        measured: text(Some(cost.all)),
        floor: text(floor),
        ratio: to_floor,
        budget: to_floor.map(|to_floor| (to_floor, ratio)),
        by_ratio: true,
    };
    let part = Row {
        floor: text(measured.floor(|figures| of(figures).user)),
        budget: user.map(|user| (cost.user, user)),
        ..Row::plain("  of it in user space", text(Some(cost.user)))
    };
    [whole, part]
}

/// The budgets of two reactors, at 15,000 and at 200,000 connections.
fn rows(measured: &Measured) -> Vec<Row> {
    let server = &measured.server;
    let budget = |aim, bar| Budget { aim, bar };
    let bytes =
        |value: Option<f64>| value.map_or(String::new(), |value| format!("{:.0}", value.max(0.0)));
    let mut rows = vec![
        Row {
            floor: bytes(measured.floor(|floor| floor.user_bytes)),
            budget: Some((server.user_bytes, budget(160.0, 256.0))),
            ..Row::plain(
                "user-space bytes per idle connection",
                bytes(Some(server.user_bytes)),
            )
        },
        Row {
            floor: bytes(measured.floor(|floor| floor.slab_bytes)),
            ..Row::plain(
                "kernel slab per connection, both ends",
                bytes(Some(server.slab_bytes)),
            )
        },
        Row::plain(
            "user-space bytes before the first connection",
            grouped(server.start_bytes),
        ),
    ];
    let message = budget(1.15, 1.3);
    rows.extend(
        [
            cost(
                measured,
                "connect + subscribe",
                |of| of.connect,
                budget(1.0, 1.25),
                Some(budget(3.0, 6.0)),
            ),
            cost(
                measured,
                "fan-out delivery",
                |of| of.delivery,
                budget(1.05, 1.3),
                Some(budget(0.2, 0.5)),
            ),
            cost(
                measured,
                "unicast message, QoS 0",
                |of| of.unicast0,
                message,
                Some(budget(0.6, 1.2)),
            ),
            cost(
                measured,
                "unicast message, QoS 1",
                |of| of.unicast1,
                message,
                None,
            ),
        ]
        .into_iter()
        .flatten(),
    );
    rows.push(Row {
        floor: measured
            .floor(|floor| floor.slowest() as f64)
            .map_or(String::new(), |slowest| micros(slowest as u64)),
        ..Row::plain("slowest delivery of a broadcast", micros(server.slowest()))
    });
    if let Some(turnover) = server.turnover {
        let growth = 100.0 * (turnover.user_bytes / turnover.user_bytes_before - 1.0);
        let left = 100.0 * (turnover.bytes_after as f64 / server.start_bytes as f64 - 1.0);
        rows.push(Row {
            budget: Some((growth, budget(5.0, 5.0))),
            ..Row::plain(
                &format!("growth after {} turnovers, %", measured.load.turnovers),
                format!("{growth:.1}"),
            )
        });
        rows.push(Row::plain(
            "user-space bytes when all have left",
            grouped(turnover.bytes_after),
        ));
        rows.push(Row::plain(
            "  more than before the first, %",
            format!("{left:.1}"),
        ));
    }
    rows
}

/// The whole text.
pub(crate) fn text(measured: &Measured) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _infallible = write(measured, &mut out);
    out
}

fn write(measured: &Measured, out: &mut String) -> std::fmt::Result {
    let figures = &measured.server;
    writeln!(
        out,
        "\n{}; {} connections; {}; {}\n",
        figures.broker,
        grouped(figures.connections),
        measured.machine,
        measured.date
    )?;
    writeln!(
        out,
        "| {:<50} | {:>12} | {:>10} | {:>5} | {:>5} | {:>5} | {:<7} |",
        "", "measured", "floor", "ratio", "aim", "bar", ""
    )?;
    writeln!(
        out,
        "|{:-<52}|{:->13}:|{:->11}:|{:->6}:|{:->6}:|{:->6}:|{:-<9}|",
        "", "", "", "", "", "", ""
    )?;
    for row in rows(measured) {
        row.write(out)?;
    }
    if measured.load_before > QUIET {
        writeln!(
            out,
            "\nThe machine wasn't quiet: load average {:.1} before the start. Other work makes caches cold and these figures worse.",
            measured.load_before
        )?;
    }
    if let Some(drift) = measured.drift().filter(|&drift| drift > STEADY) {
        writeln!(
            out,
            "\nThe two runs of the floor are {:.0} % apart, and so are the ratios uncertain.",
            100.0 * drift
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
    for figures in measured.floor.iter().chain([figures]) {
        if let Some(stopped) = &figures.stopped {
            writeln!(out, "\nNOT VALID: {}: {stopped}", figures.broker)?;
        } else if !figures.is_valid() {
            writeln!(
                out,
                "\nNOT VALID: {}: {} messages or phones missing",
                figures.broker,
                grouped(figures.lost)
            )?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Load, Turnover};

    fn measured(server: Figures, floor: Vec<Figures>) -> Measured {
        Measured {
            schema: "",
            machine: String::new(),
            date: String::new(),
            load_before: 0.0,
            load: Load::made_up(),
            server,
            floor,
        }
    }

    /// The line that begins with these words.
    fn line(text: &str, what: &str) -> String {
        let found = text.lines().find(|line| line.contains(what));
        found
            .unwrap_or_else(|| panic!("no {what:?} in {text}"))
            .into()
    }

    #[test]
    fn figures_stand_beside_the_mean_of_the_floor() {
        let floor = vec![
            Figures::made_up("floor", 9.0),
            Figures::made_up("floor", 11.0),
        ];
        let mut server = Figures::made_up("stillwire", 12.0);
        server.turnover = Some(Turnover {
            user_bytes_before: 200.0,
            user_bytes: 220.0,
            bytes_after: 8_400_000,
        });
        let text = text(&measured(server, floor));
        let connect = line(&text, "connect + subscribe");
        assert!(
            connect.contains(" 1.20 ") && connect.contains(" met "),
            "{text}"
        );
        assert!(
            line(&text, "per fan-out delivery").contains(" met "),
            "{text}"
        );
        assert!(
            line(&text, "of it in user space").contains(" aim met "),
            "{text}"
        );
        assert!(
            line(&text, "growth after 5 turnovers").contains(" over "),
            "{text}"
        );
        assert!(text.contains("20 % apart"), "{text}");
        assert!(!text.contains("NOT VALID"), "{text}");
    }

    #[test]
    fn without_a_floor_there_is_no_ratio_and_no_verdict_on_it() {
        let text = text(&measured(
            Figures::made_up("other", 12.0).stopped(),
            Vec::new(),
        ));
        assert!(
            !line(&text, "connect + subscribe").contains("met"),
            "{text}"
        );
        assert!(
            text.contains("NOT VALID: other: the broker didn't keep up (QoS 0)"),
            "{text}"
        );
    }
}
