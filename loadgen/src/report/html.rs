//! The report as one page: no request to anywhere, charts drawn here, a little script for reading values off them.
//!
//! Everything that isn't written in this file or next to it is escaped.

mod charts;

use std::fmt::Write;

use super::terminal::{headline_words, notes};
use super::{Latency, Report};
use crate::chart::svg::{STYLE, escape};
use crate::units::{bytes, grouped, micros, short};

const PAGE_STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _infallible = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let scenario = escape(&report.scenario);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>loadgen {scenario}, {}</title>\n<style>{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&report.date),
    )?;
    header(report, out)?;
    tiles(report, out)?;
    expectations(report, out)?;
    let charts = charts::all(report);
    out.push_str("<section class=\"charts\" aria-label=\"The course of the run\">\n");
    if charts.is_empty() {
        out.push_str("<p class=\"soft\">The run was too short for a chart.</p>\n");
    }
    for chart in &charts {
        writeln!(
            out,
            "<figure data-chart=\"{}\"><figcaption><h2>{}</h2><output></output></figcaption>{}</figure>",
            escape(&chart.title),
            escape(&chart.title),
            chart.svg
        )?;
    }
    out.push_str("</section>\n<div class=\"tables\">\n");
    latencies(report, out)?;
    phases(report, out)?;
    storms(report, out)?;
    tickets(report, out)?;
    messages(report, out)?;
    broadcasts(report, out)?;
    failures(report, out)?;
    settings(report, out)?;
    out.push_str("</div>\n");
    footer(report, out)?;
    writeln!(
        out,
        "</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>",
        charts::data(report, &charts)
    )
}

fn header(report: &Report, out: &mut String) -> std::fmt::Result {
    let verdict = match (report.is_as_expected(), report.expectations.is_empty()) {
        (true, true) => "",
        (true, false) => "<span class=\"verdict good\">✓ as expected</span>",
        (false, _) => "<span class=\"verdict bad\">✗ not as expected</span>",
    };
    let interrupted = if report.interrupted {
        "<span class=\"verdict soft\">interrupted</span>"
    } else {
        ""
    };
    let processes = match report.ranges.len() {
        0 | 1 => String::new(),
        n => format!(" · {n} generator processes joined"),
    };
    writeln!(
        out,
        "<header><h1>loadgen {} {verdict}{interrupted}</h1>\n<p class=\"headline\">{}</p>\n<p class=\"soft\">{} UTC · {} · {}{processes}</p></header>",
        escape(&report.scenario),
        escape(&headline_words(report)),
        escape(&report.date),
        crate::chart::axis::duration(report.seconds),
        escape(&report.machine),
    )
}

fn tiles(report: &Report, out: &mut String) -> std::fmt::Result {
    let connections = &report.connections;
    let mut tiles = vec![
        (
            "phones ready at the most",
            grouped(connections.peak),
            format!("of {} planned", grouped(connections.planned)),
        ),
        (
            "became ready a second",
            short(connections.per_second),
            format!("{} planned", short(connections.planned_per_second)),
        ),
    ];
    if let Some(ready) = &report.latency.ready {
        tiles.push((
            "connect to ready, p99",
            micros(ready.p99),
            format!("p50 {}, max {}", micros(ready.p50), micros(ready.max)),
        ));
    }
    if let Some(delivery) = report.latency.delivery() {
        tiles.push((
            "publish to receive, p99",
            micros(delivery.p99),
            format!("p50 {}, max {}", micros(delivery.p50), micros(delivery.max)),
        ));
    }
    if let (Some(tickets), Some(ticket)) = (&report.tickets, &report.latency.ticket) {
        tiles.push((
            "ticket, p99",
            micros(ticket.p99),
            format!(
                "{} fetched, {} not had",
                grouped(tickets.fetched),
                grouped(tickets.failed + tickets.put_off)
            ),
        ));
    }
    if let Some(messages) = &report.messages {
        tiles.push((
            "messages received",
            grouped(messages.received),
            format!("{} missing", grouped(messages.missing)),
        ));
    }
    if let Some(memory) = &report.memory {
        tiles.push((
            "user space a connection",
            bytes(memory.user_bytes),
            format!("kernel slab {}", bytes(memory.slab_bytes)),
        ));
    }
    out.push_str("<dl class=\"tiles\">\n");
    for (name, value, note) in tiles {
        writeln!(
            out,
            "<div><dt>{name}</dt><dd><b>{value}</b><small>{note}</small></dd></div>"
        )?;
    }
    out.push_str("</dl>\n");
    Ok(())
}

/// Begins a table with these columns; those after the first hold numbers.
fn table(out: &mut String, title: &str, columns: &[&str]) -> std::fmt::Result {
    write!(
        out,
        "<section><h2>{title}</h2><div class=\"scroll\"><table><thead><tr>"
    )?;
    for column in columns {
        write!(out, "<th scope=\"col\">{column}</th>")?;
    }
    out.push_str("</tr></thead><tbody>\n");
    Ok(())
}

fn row(out: &mut String, name: &str, cells: &[String]) -> std::fmt::Result {
    write!(out, "<tr><th scope=\"row\">{}</th>", escape(name))?;
    for cell in cells {
        write!(out, "<td>{}</td>", escape(cell))?;
    }
    out.push_str("</tr>\n");
    Ok(())
}

const TABLE_END: &str = "</tbody></table></div></section>\n";

fn expectations(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.expectations.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>Expected</h2><ul class=\"expected\">\n");
    for one in &report.expectations {
        let (class, sign, word) = if one.met {
            ("good", "✓", "met")
        } else {
            ("bad", "✗", "not met")
        };
        writeln!(
            out,
            "<li class=\"{class}\"><span aria-label=\"{word}\">{sign}</span> <code title=\"{}\">{}</code> {}</li>",
            escape(&one.in_words()),
            escape(&one.text),
            escape(&one.measured)
        )?;
    }
    out.push_str("</ul></section>\n");
    Ok(())
}

fn latencies(report: &Report, out: &mut String) -> std::fmt::Result {
    let rows = Latency::rows(&report.latency);
    if rows.is_empty() {
        return Ok(());
    }
    table(
        out,
        "Latency from the planned time",
        &["", "count", "p50", "p90", "p99", "p99.9", "max"],
    )?;
    for latency in rows {
        let values = [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
        ];
        let mut cells = vec![grouped(latency.count)];
        cells.extend(values.map(micros));
        row(out, latency.of, &cells)?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn phases(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.phases.is_empty() {
        return Ok(());
    }
    table(
        out,
        "Phases",
        &[
            "",
            "from",
            "to",
            "connects",
            "failed",
            "ready p99",
            "published",
            "received",
            "missing",
            "delivery p99",
        ],
    )?;
    for (index, phase) in report.phases.iter().enumerate() {
        let p99 = |packed: Option<u64>| packed.map_or("–".into(), micros);
        let counts = &phase.counts;
        row(
            out,
            &format!("{} {}", index + 1, phase.name),
            &[
                format!("{:.1} s", phase.begin),
                format!("{:.1} s", phase.end),
                grouped(counts.connects),
                grouped(counts.failed()),
                p99(phase.latency.ready.as_ref().map(|ready| ready.p99)),
                grouped(counts.published),
                grouped(counts.received),
                counts.missing.to_string(),
                p99(phase.latency.delivery().map(|delivery| delivery.p99)),
            ],
        )?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn storms(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.storms.is_empty() {
        return Ok(());
    }
    table(
        out,
        "Storms",
        &["at", "dropped", "all back after", "refused"],
    )?;
    for storm in &report.storms {
        row(
            out,
            &format!("{:.1} s", storm.at),
            &[
                grouped(storm.dropped),
                storm
                    .back_after
                    .map_or("not in time".into(), |seconds| format!("{seconds:.1} s")),
                grouped(storm.refused),
            ],
        )?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn tickets(report: &Report, out: &mut String) -> std::fmt::Result {
    let Some(tickets) = &report.tickets else {
        return Ok(());
    };
    table(out, "Tickets", &["", ""])?;
    for (n, what) in tickets.in_words() {
        row(out, what, &[grouped(n)])?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn messages(report: &Report, out: &mut String) -> std::fmt::Result {
    let Some(messages) = &report.messages else {
        return Ok(());
    };
    table(out, "Messages", &["", "messages"])?;
    let always = [
        (messages.published_unicast0, "pushes published at QoS 0"),
        (messages.published_unicast1, "pushes published at QoS 1"),
        (messages.acknowledged, "of them acknowledged"),
        (messages.published_broadcast, "broadcasts published"),
        (messages.received, "received, each counted once"),
        (messages.missing, "missing"),
        (messages.duplicates, "duplicates"),
        (messages.reordered, "reordered"),
        (messages.late, "late"),
    ];
    let others = notes(messages).into_iter().filter(|&(n, _)| n > 0);
    for (n, what) in always.into_iter().chain(others) {
        row(out, what, &[grouped(n)])?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn broadcasts(report: &Report, out: &mut String) -> std::fmt::Result {
    /// The slowest are what one looks for; all are in the JSON.
    const SHOWN: usize = 10;
    if report.broadcasts.is_empty() {
        return Ok(());
    }
    let mut slowest: Vec<_> = report.broadcasts.iter().enumerate().collect();
    slowest.sort_by_key(|(_, broadcast)| std::cmp::Reverse(broadcast.slowest));
    let title = if slowest.len() > SHOWN {
        format!("The {SHOWN} slowest of {} broadcasts", slowest.len())
    } else {
        "Broadcasts".into()
    };
    table(
        out,
        &title,
        &["", "received", "the last phone had it after"],
    )?;
    for (index, broadcast) in slowest.into_iter().take(SHOWN) {
        row(
            out,
            &format!("no. {}", index + 1),
            &[
                grouped(u64::from(broadcast.received)),
                micros(broadcast.slowest),
            ],
        )?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn failures(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.failures.is_empty() && report.connections.pings_unanswered == 0 {
        return Ok(());
    }
    table(out, "Failures", &["", "connections"])?;
    for (kind, n) in &report.failures {
        row(out, kind, &[grouped(*n)])?;
    }
    if report.connections.pings_unanswered > 0 {
        row(
            out,
            "pings not answered in time",
            &[grouped(report.connections.pings_unanswered)],
        )?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn settings(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.settings.is_empty() {
        return Ok(());
    }
    table(out, "Asked for", &["", ""])?;
    for (name, value) in &report.settings {
        row(out, name, std::slice::from_ref(value))?;
    }
    out.push_str(TABLE_END);
    Ok(())
}

fn footer(report: &Report, out: &mut String) -> std::fmt::Result {
    let server = match report.server_pid {
        Some(pid) => format!(
            " The server is process {pid}: RSS each second, Pss every ten seconds or seldomer, since the kernel walks all pages for it."
        ),
        None => String::new(),
    };
    writeln!(
        out,
        "<footer><p class=\"soft\">Latencies count from the planned time, so a slow server can't hide behind a waiting generator. Percentiles of the \
         whole run are exact to 0.8 %, of a phase to 1.6 %, of a moment in a chart to 12 %; a moment is {}. CPU is per cent of one core.{server} \
         Written by loadgen, {}.</p></footer>",
        if report.interval <= 1 {
            "a second".into()
        } else {
            format!("{} s", report.interval)
        },
        escape(&report.schema)
    )
}

#[cfg(test)]
mod tests;
