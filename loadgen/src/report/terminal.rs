//! The report as text, with small charts: details first, headline last, and of failures only those that happened.

use std::fmt::Write;

use super::course::Moment;
use super::{Latency, Messages, Report};
use crate::chart::{bar, sparkline};
use crate::histogram::Packed;
use crate::units::{bytes, grouped, micros, short};

/// Characters of a chart's line.
const CHART: usize = 50;

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _infallible = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    course(report, out)?;
    for (of, latency) in report.latency.named() {
        if of.starts_with("push") {
            distribution(of, latency, out)?;
        }
    }
    latencies(report, out)?;
    storms(report, out)?;
    broadcasts(report, out)?;
    if let Some(messages) = &report.messages {
        account(messages, out)?;
    }
    tickets(report, out)?;
    memory(report, out)?;
    failures(report, out)?;
    headline(report, out)
}

/// What a line of the course shows.
type Value = fn(&Moment) -> f64;

fn course(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.course.len() < 2 {
        return Ok(());
    }
    writeln!(out, "\nOver {:.0} s{:>26}peak", report.seconds, "")?;
    let lines: [(&str, Value); 5] = [
        ("connections", |moment| moment.ready.last as f64),
        ("connects/s", |moment| {
            moment.per_second(moment.counts.connects)
        }),
        ("tickets/s", |moment| {
            moment.per_second(moment.counts.tickets)
        }),
        ("published/s", |moment| {
            moment.per_second(moment.counts.published)
        }),
        ("received/s", |moment| {
            moment.per_second(moment.counts.received)
        }),
    ];
    for (name, value) in lines {
        let values: Vec<f64> = report.course.iter().map(value).collect();
        let peak = values.iter().copied().fold(0.0, f64::max);
        if peak > 0.0 {
            writeln!(
                out,
                "  {name:<20} {:>14}  {}",
                short(peak),
                sparkline(&values, CHART)
            )?;
        }
    }
    Ok(())
}

/// How many values fell below 1, 2, 5, 10 and so on: upper bound and count.
fn steps(latency: &Packed) -> Vec<(u64, u64)> {
    let histogram = latency.histogram();
    let mut steps = Vec::new();
    let mut low = 0;
    for high in (0..).flat_map(|power| [1, 2, 5].map(|step| step * 10u64.pow(power))) {
        if low > histogram.max() {
            break;
        }
        // A class is put where its upper end falls.
        let within = |&(value, _): &(u64, u64)| (low..high).contains(&value.min(histogram.max()));
        let n: u64 = histogram.classes().filter(within).map(|(_, n)| n).sum();
        if n > 0 || !steps.is_empty() {
            steps.push((high, n));
        }
        low = high;
    }
    steps
}

fn distribution(of: &str, latency: &Packed, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nLatency of {of}")?;
    let steps = steps(latency);
    let peak = steps.iter().map(|&(_, n)| n).max().unwrap_or(1) as f64;
    for (below, n) in steps {
        let label = format!("under {}", micros(below));
        writeln!(
            out,
            "  {label:<20} {:>14}  {}",
            grouped(n),
            bar(n as f64 / peak, CHART)
        )?;
    }
    Ok(())
}

fn latencies(report: &Report, out: &mut String) -> std::fmt::Result {
    let rows = Latency::rows(&report.latency);
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<22} {:>12} {:>10} {:>10} {:>10} {:>10}",
        "From planned time", "count", "p50", "p99", "p99.9", "max"
    )?;
    for latency in &rows {
        let name = latency.of;
        let [p50, p99, p999, max] =
            [latency.p50, latency.p99, latency.p999, latency.max].map(micros);
        writeln!(
            out,
            "  {name:<20} {:>12} {p50:>10} {p99:>10} {p999:>10} {max:>10}",
            grouped(latency.count)
        )?;
    }
    Ok(())
}

fn storms(report: &Report, out: &mut String) -> std::fmt::Result {
    for storm in &report.storms {
        let back = storm
            .back_after
            .map_or("not all back in time".into(), |seconds| {
                format!("all back after {seconds:.1} s")
            });
        writeln!(
            out,
            "\nStorm at {:>6.1} s    {} dropped at once; {back}, {} attempts refused",
            storm.at,
            grouped(storm.dropped),
            grouped(storm.refused)
        )?;
    }
    Ok(())
}

fn broadcasts(report: &Report, out: &mut String) -> std::fmt::Result {
    let Some(slowest) = report
        .broadcasts
        .iter()
        .map(|broadcast| broadcast.slowest)
        .max()
    else {
        return Ok(());
    };
    let deliveries: u64 = report
        .broadcasts
        .iter()
        .map(|broadcast| u64::from(broadcast.received))
        .sum();
    writeln!(
        out,
        "\nBroadcasts           {} to all, {} deliveries; the last phone had the slowest one after {}",
        report.broadcasts.len(),
        grouped(deliveries),
        micros(slowest)
    )
}

fn account(messages: &Messages, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "Messages             {} pushes at QoS 0, {} at QoS 1 ({} acknowledged), {} broadcasts; {} received",
        grouped(messages.published_unicast0),
        grouped(messages.published_unicast1),
        grouped(messages.acknowledged),
        grouped(messages.published_broadcast),
        grouped(messages.received)
    )?;
    writeln!(
        out,
        "                     missing {}, duplicates {}, reordered {}, late {}",
        grouped(messages.missing),
        grouped(messages.duplicates),
        grouped(messages.reordered),
        grouped(messages.late)
    )?;
    for (n, what) in notes(messages) {
        if n > 0 {
            writeln!(out, "                     {} {what}", grouped(n))?;
        }
    }
    Ok(())
}

/// What else happened to messages: how many, and what.
pub(super) fn notes(messages: &Messages) -> [(u64, &'static str); 6] {
    [
        (
            messages.redelivered,
            "sent again after a reconnect, marked so (QoS 1 allows it)",
        ),
        (
            messages.excused,
            "QoS 0 in flight to a phone that just left (not owed)",
        ),
        (messages.damaged, "damaged or for somebody else"),
        (messages.foreign, "of an earlier run"),
        (messages.refused, "refused by PUBACK"),
        (
            messages.sessions_lost,
            "sessions lost that should have been kept",
        ),
    ]
}

fn tickets(report: &Report, out: &mut String) -> std::fmt::Result {
    let Some(tickets) = &report.tickets else {
        return Ok(());
    };
    let first = tickets.in_words()[0];
    let others = tickets.in_words().into_iter().skip(1);
    let shown = std::iter::once(first).chain(others.filter(|&(n, _)| n > 0));
    for (index, (n, what)) in shown.enumerate() {
        let label = if index == 0 { "Tickets" } else { "" };
        writeln!(out, "{label:<21}{} {what}", grouped(n))?;
    }
    Ok(())
}

fn memory(report: &Report, out: &mut String) -> std::fmt::Result {
    let Some(memory) = &report.memory else {
        return Ok(());
    };
    writeln!(
        out,
        "Memory a connection  {} in user space, {} of kernel slab for both ends",
        bytes(memory.user_bytes),
        bytes(memory.slab_bytes)
    )?;
    if memory.same_process {
        writeln!(
            out,
            "                     (the server runs in this process; the phones' own memory was allocated and touched before the first\n\
             {0:21}connection and is not counted; what the allocator grew by since then is, whoever asked for it)",
            ""
        )?;
    }
    Ok(())
}

fn failures(report: &Report, out: &mut String) -> std::fmt::Result {
    for (index, (kind, n)) in report.failures.iter().enumerate() {
        writeln!(
            out,
            "{:<21}{} {kind}",
            if index == 0 { "Failures" } else { "" },
            grouped(*n)
        )?;
    }
    if report.connections.pings_unanswered > 0 {
        writeln!(
            out,
            "{:<21}{} pings not answered in time",
            "Pings",
            grouped(report.connections.pings_unanswered)
        )?;
    }
    Ok(())
}

fn headline(report: &Report, out: &mut String) -> std::fmt::Result {
    for expectation in report.expectations.iter().filter(|one| !one.met) {
        writeln!(
            out,
            "NOT AS EXPECTED      {}: {}",
            expectation.text, expectation.measured
        )?;
    }
    writeln!(
        out,
        "\n{}{}",
        headline_words(report),
        if report.is_as_expected() {
            ""
        } else {
            " Not as expected."
        }
    )
}

/// The run in a sentence or two.
pub(super) fn headline_words(report: &Report) -> String {
    let connections = &report.connections;
    let interrupted = if report.interrupted {
        "Interrupted. "
    } else {
        ""
    };
    let messages = report.messages.as_ref().map(|messages| {
        format!(
            "; {} messages, {} missing, {} twice",
            grouped(messages.received),
            grouped(messages.missing),
            grouped(messages.duplicates)
        )
    });
    let delivery = report.latency.delivery();
    let delivery = delivery.map(|delivery| format!(", p99 {}", micros(delivery.p99)));
    format!(
        "{interrupted}{} of {} phones ready after {:.1} s, {}/s ({}/s planned){}{}.",
        grouped(connections.peak),
        grouped(connections.planned),
        connections.seconds,
        short(connections.per_second),
        short(connections.planned_per_second),
        messages.unwrap_or_default(),
        delivery.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{FINE, Histogram};

    #[test]
    fn steps_hold_every_value() {
        let mut histogram = Histogram::default();
        for value in [1, 15, 16, 17, 5000, 90_000] {
            histogram.record(value);
        }
        let steps = steps(&Packed::of(&histogram, FINE).unwrap());
        assert_eq!(steps.iter().map(|&(_, n)| n).sum::<u64>(), 6);
        assert_eq!(steps[..4], [(2, 1), (5, 0), (10, 0), (20, 3)]);
    }

    #[test]
    fn an_empty_report_has_a_headline() {
        let text = text(&Report::default());
        assert!(text.ends_with("planned).\n"), "{text}");
    }
}
