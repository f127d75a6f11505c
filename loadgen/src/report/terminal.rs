//! The report as text, with small charts: details first, headline last, and of failures only those that happened.

use std::fmt::Write;

use super::{Latency, Messages, Report};
use crate::chart::{bar, sparkline};
use crate::units::{bytes, grouped, micros, short};
use crate::watch::Moment;

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
    for latency in report
        .latency
        .iter()
        .filter(|latency| latency.of.starts_with("push"))
    {
        distribution(latency, out)?;
    }
    latencies(report, out)?;
    broadcasts(report, out)?;
    if let Some(messages) = &report.messages {
        account(messages, out)?;
    }
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
    let seconds = report.course.last().map_or(0.0, |moment| moment.second);
    writeln!(out, "\nOver {seconds:.0} s{:>26}peak", "")?;
    let lines: [(&str, Value); 4] = [
        ("connections", |moment| moment.ready as f64),
        ("connects/s", |moment| moment.connects),
        ("published/s", |moment| moment.published),
        ("received/s", |moment| moment.received),
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

fn distribution(latency: &Latency, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nLatency of {}", latency.of)?;
    let peak = latency.classes.iter().map(|&(_, n)| n).max().unwrap_or(1) as f64;
    let from = latency
        .classes
        .iter()
        .position(|&(_, n)| n > 0)
        .unwrap_or(0);
    for &(below, n) in &latency.classes[from..] {
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
    if report.latency.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<22} {:>12} {:>10} {:>10} {:>10} {:>10}",
        "From planned time", "count", "p50", "p99", "p99.9", "max"
    )?;
    for latency in &report.latency {
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
    let notes = [
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
    ];
    for (n, what) in notes {
        if n > 0 {
            writeln!(out, "                     {} {what}", grouped(n))?;
        }
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
    let connections = &report.connections;
    for expectation in report
        .expectations
        .iter()
        .filter(|expectation| expectation.off_by > 0)
    {
        writeln!(
            out,
            "NOT AS EXPECTED      {}: off by {}",
            expectation.text,
            grouped(expectation.off_by)
        )?;
    }
    let interrupted = if report.interrupted {
        "Interrupted. "
    } else {
        ""
    };
    writeln!(
        out,
        "\n{interrupted}{} of {} phones ready after {:.1} s, {}/s ({}/s planned){}{}",
        grouped(connections.peak),
        grouped(u64::from(connections.planned)),
        connections.seconds,
        short(connections.per_second),
        short(connections.planned_per_second),
        report.messages.as_ref().map_or(String::new(), |messages| {
            format!(
                "; {} messages, {} missing, {} twice",
                grouped(messages.received),
                messages.missing,
                messages.duplicates
            )
        }),
        if report.is_as_expected() {
            "."
        } else {
            "; not as expected."
        }
    )
}
