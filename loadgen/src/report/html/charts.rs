//! Which charts a page has, and the values behind them for the script that reads them off. What has no values has no chart.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::chart::svg::{Line, LineChart, Mark, Scale, Unit};
use crate::histogram::{Histogram, Packed, join};
use crate::report::Report;
use crate::report::course::{Moment, Usage};
use crate::stats::Failure;

/// Kinds of failure in one chart; those that happened most.
const KINDS: usize = 6;

/// What an interval adds to a sum.
type Counted = fn(&Moment) -> i64;

/// What was counted in an interval.
type Counting = fn(&Moment) -> u64;

/// A chart, drawn.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) svg: String,
    unit: Unit,
    lines: Vec<Line>,
}

/// Draws charts over one run.
struct Drawing<'a> {
    report: &'a Report,
    x: Vec<f64>,
    until: f64,
    marks: Vec<Mark>,
    charts: Vec<Chart>,
}

fn line(name: &str, style: u8, values: Vec<Option<f64>>) -> Line {
    Line {
        name: name.into(),
        values,
        style,
        sparse: false,
    }
}

/// A kind of failure, short enough for the end of a line.
fn short(kind: &str) -> &str {
    const SHORT: [(Failure, &str); 11] = [
        (Failure::Refused, "refused"),
        (Failure::Timeout, "not in time"),
        (Failure::Reset, "reset"),
        (Failure::Closed, "closed"),
        (Failure::NotAccepted, "CONNACK no"),
        (Failure::NotSubscribed, "SUBACK no"),
        (Failure::Disconnected, "DISCONNECT"),
        (Failure::Protocol, "protocol"),
        (Failure::NoPort, "no port"),
        (Failure::NoFile, "no file"),
        (Failure::Other, "other"),
    ];
    let known = SHORT.iter().find(|(failure, _)| failure.text() == kind);
    // Written by another version: what fits.
    known.map_or_else(|| kind.get(..11).unwrap_or(kind), |&(_, short)| short)
}

/// One value stands out so far that the others would be flat beneath it.
fn is_spiky(lines: &[Line]) -> bool {
    let values = lines.iter().flat_map(|line| line.values.iter().flatten());
    let mut values: Vec<f64> = values.copied().filter(|&value| value > 0.0).collect();
    values.sort_by(f64::total_cmp);
    let (middle, last) = (values.get(values.len() / 2), values.last());
    middle
        .zip(last)
        .is_some_and(|(middle, last)| last / middle > 30.0)
}

/// Seconds after the run began at which each moment ends.
fn times(report: &Report) -> Vec<f64> {
    let began = report.began as f64 / 1000.0;
    let ends = report.course.iter().map(|moment| {
        let end = (moment.at + report.interval.max(1)) as f64 - began;
        end.clamp(0.0, report.seconds.max(0.0))
    });
    ends.collect()
}

/// All charts that have something to show.
pub(super) fn all(report: &Report) -> Vec<Chart> {
    let x = times(report);
    let mut drawing = Drawing {
        until: report.seconds.max(x.last().copied().unwrap_or(0.0)),
        x,
        marks: report
            .phases
            .iter()
            .map(|phase| Mark {
                name: phase.name.clone(),
                from: phase.begin,
                to: phase.end,
            })
            .collect(),
        charts: Vec::new(),
        report,
    };
    drawing.connections();
    drawing.tickets();
    drawing.messages();
    drawing.latency(
        "Connect to ready",
        "From the planned connect to CONNACK and SUBACK.",
        |moment| moment.latency.ready.clone(),
    );
    drawing.latency(
        "Publish to receive, one phone",
        "From the planned publish to the one phone that it is for, QoS 0 and 1.",
        |moment| join(&moment.latency.unicast0, &moment.latency.unicast1),
    );
    drawing.latency(
        "Publish to receive, broadcast",
        "From the planned publish to each of all phones.",
        |moment| moment.latency.broadcast.clone(),
    );
    drawing.latency("Ping round trip", "From PINGREQ to PINGRESP.", |moment| {
        moment.latency.ping.clone()
    });
    drawing.latency(
        "Ticket",
        "From the planned question to the lookup's ticket.",
        |moment| moment.latency.ticket.clone(),
    );
    drawing.usage();
    drawing.errors();
    drawing.charts
}

impl Drawing<'_> {
    /// One value for each moment.
    fn each(&self, value: impl Fn(&Moment) -> Option<f64>) -> Vec<Option<f64>> {
        self.report.course.iter().map(value).collect()
    }

    fn draw(&mut self, title: &str, about: &str, unit: Unit, scale: Scale, lines: Vec<Line>) {
        let chart = LineChart {
            title,
            about,
            unit,
            scale,
            x: &self.x,
            until: self.until,
            lines,
            marks: &self.marks,
        };
        if chart.has_values() {
            self.charts.push(Chart {
                title: title.into(),
                svg: chart.svg(),
                unit,
                lines: chart.lines,
            });
        }
    }

    fn connections(&mut self) {
        let mut lines = vec![line("ready", 1, self.each(|m| Some(m.ready.last as f64)))];
        // Within an interval more than a fiftieth may have gone and come back.
        let dips = |moment: &Moment| moment.ready.least * 50 < moment.ready.last * 49;
        if self.report.interval > 1 && self.report.course.iter().any(dips) {
            lines.push(line(
                "at least",
                4,
                self.each(|m| Some(m.ready.least as f64)),
            ));
        }
        self.draw(
            "Connections",
            "Phones that are ready.",
            Unit::Count,
            Scale::Linear,
            lines,
        );

        let mut lines = vec![line(
            "ready",
            1,
            self.each(|m| Some(m.per_second(m.counts.connects))),
        )];
        let sum = |count: fn(&Moment) -> u64| self.report.course.iter().map(count).sum::<u64>();
        if sum(|m| m.counts.attempts) > sum(|m| m.counts.connects) * 51 / 50 + 5 {
            let attempts = self.each(|m| Some(m.per_second(m.counts.attempts)));
            lines.push(line("attempts", 4, attempts));
        }
        self.draw(
            "Connects a second",
            "Phones that became ready, and connections that were tried, a second.",
            Unit::Count,
            Scale::Linear,
            lines,
        );
    }

    fn tickets(&mut self) {
        if self.report.tickets.is_none() {
            return;
        }
        let counts: [(&str, u8, Counting); 3] = [
            ("tickets", 1, |m| m.counts.tickets),
            ("put off", 2, |m| m.counts.tickets_put_off),
            ("no answer", 3, |m| m.counts.tickets_failed),
        ];
        let course = &self.report.course;
        let lines = counts
            .into_iter()
            .filter(|&(_, style, count)| style == 1 || course.iter().any(|m| count(m) > 0))
            .map(|(name, style, count)| {
                line(name, style, self.each(|m| Some(m.per_second(count(m)))))
            })
            .collect();
        self.draw(
            "Tickets a second",
            "What the lookup answered: tickets, to come again later, or nothing that can be used.",
            Unit::Count,
            Scale::Linear,
            lines,
        );
    }

    fn messages(&mut self) {
        let lines = vec![
            line(
                "received",
                1,
                self.each(|m| Some(m.per_second(m.counts.received))),
            ),
            line(
                "published",
                2,
                self.each(|m| Some(m.per_second(m.counts.published))),
            ),
        ];
        if self.report.messages.is_some() {
            let (about, scale) = if is_spiky(&lines) {
                (
                    "Messages published, a broadcast being one, and messages received; by powers of ten.",
                    Scale::Log,
                )
            } else {
                (
                    "Messages published, a broadcast being one, and messages received.",
                    Scale::Linear,
                )
            };
            self.draw("Messages a second", about, Unit::Count, scale, lines);
        }
    }

    fn latency(&mut self, title: &str, about: &str, of: impl Fn(&Moment) -> Option<Packed>) {
        let course = self.report.course.iter();
        let histograms: Vec<Option<Histogram>> = course
            .map(|moment| of(moment).map(|packed| packed.histogram()))
            .collect();
        let lines = [
            ("max", 5, 1.0),
            ("p99.9", 3, 0.999),
            ("p99", 2, 0.99),
            ("p50", 1, 0.5),
        ];
        let lines = lines.map(|(name, style, quantile)| {
            let values = histograms.iter();
            let value = |histogram: &Histogram| histogram.at(quantile).max(1) as f64;
            let values = values.map(|histogram| histogram.as_ref().map(value));
            Line {
                // Broadcasts are rare by their nature.
                sparse: title.ends_with("broadcast"),
                ..line(name, style, values.collect())
            }
        });
        let lines = lines.into();
        self.draw(title, about, Unit::Micros, Scale::Log, lines);
    }

    fn usage(&mut self) {
        let server =
            |value: fn(&Usage) -> f64| move |m: &Moment| m.sample.server.as_ref().map(value);
        let generator = |m: &Moment| m.sample.generator.map(|usage| usage.cpu);
        let watched = self.report.course.iter().any(|m| m.sample.server.is_some());
        let embedded = self.report.memory.is_some_and(|memory| memory.same_process);
        let (name, style) = if embedded {
            ("process", 1)
        } else {
            ("generator", 5)
        };
        let mut lines = vec![line(name, style, self.each(generator))];
        if watched {
            lines.push(line("server", 1, self.each(server(|usage| usage.cpu))));
            lines.push(line("its own", 2, self.each(server(|usage| usage.user))));
        }
        let about = if embedded {
            "Per cent of one core that server and generator use, both in one process."
        } else {
            "Per cent of one core: the server's, its own code's part of it without the kernel's, and the generator's."
        };
        self.draw("CPU", about, Unit::Percent, Scale::Linear, lines);
        if watched {
            let mut pss = line(
                "Pss",
                1,
                self.each(|m| m.sample.server?.pss.map(|b| b as f64)),
            );
            pss.sparse = true;
            let rss = line("RSS", 4, self.each(server(|usage| usage.rss as f64)));
            self.draw(
                "Memory of the server",
                "User-space memory of the server's process.",
                Unit::Bytes,
                Scale::Linear,
                vec![pss, rss],
            );
        }
        let some = |bytes: u64| (bytes > 0).then_some(bytes as f64);
        let resident = |m: &Moment| m.sample.generator.and_then(|usage| some(usage.rss));
        let lines = vec![
            line("slab", 1, self.each(|m| some(m.sample.slab))),
            line(
                "TCP",
                2,
                self.each(|m| some(m.sample.slab).map(|_| m.sample.tcp as f64)),
            ),
            line(name, 5, self.each(resident)),
        ];
        self.draw(
            "Memory of kernel and generator",
            "Kernel slab and TCP buffers of the whole machine, and resident memory of the generator.",
            Unit::Bytes,
            Scale::Linear,
            lines,
        );
    }

    fn errors(&mut self) {
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, n) in self.report.course.iter().flat_map(|m| &m.counts.failures) {
            *kinds.entry(kind).or_default() += n;
        }
        let mut kinds: Vec<(&str, u64)> = kinds.into_iter().collect();
        kinds.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        kinds.truncate(KINDS);
        let lines = kinds.iter().zip(1..).map(|(&(kind, _), style)| {
            let rate =
                |m: &Moment| Some(m.per_second(m.counts.failures.get(kind).copied().unwrap_or(0)));
            line(short(kind), style, self.each(rate))
        });
        let lines = lines.collect();
        self.draw(
            "Failed connections a second",
            "Connections that failed or ended against the plan, by kind.",
            Unit::Count,
            Scale::Linear,
            lines,
        );

        let so_far = |count: Counted| {
            let mut sum = 0;
            let course = self.report.course.iter();
            let sums = course.map(|moment| {
                sum += count(moment);
                Some(sum.max(0) as f64)
            });
            sums.collect::<Vec<_>>()
        };
        let kinds: [(&str, u8, Counted); 4] = [
            ("missing", 6, |m| m.counts.missing),
            ("late", 2, |m| m.counts.late.cast_signed()),
            ("duplicates", 4, |m| m.counts.duplicates.cast_signed()),
            ("reordered", 1, |m| m.counts.reordered.cast_signed()),
        ];
        let lines: Vec<Line> = kinds
            .into_iter()
            .map(|(name, style, count)| line(name, style, so_far(count)))
            .filter(|line| line.values.iter().flatten().any(|&n| n > 0.0))
            .collect();
        self.draw(
            "Messages not in order, so far",
            "Messages missing, late, twice or after a later one, counted up.",
            Unit::Count,
            Scale::Linear,
            lines,
        );
    }
}

/// A value with four digits, which is more than a chart shows.
fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return json!(0);
    }
    let unit = 10f64.powf(value.abs().log10().floor() - 3.0).min(1.0);
    let whole = (value / unit).round();
    let rounded = if unit < 1.0 {
        whole * unit
    } else {
        value.round()
    };
    if (rounded - rounded.round()).abs() < 1e-9 {
        json!(rounded.round() as i64)
    } else {
        json!((rounded * 1000.0).round() / 1000.0)
    }
}

/// What the script reads: times, and for each chart its unit, names and values. Safe within a script element.
pub(super) fn data(report: &Report, charts: &[Chart]) -> String {
    let of = |chart: &Chart| {
        let unit = format!("{:?}", chart.unit).to_lowercase();
        let names: Vec<&str> = chart.lines.iter().map(|line| line.name.as_str()).collect();
        let values: Vec<Vec<Value>> = chart
            .lines
            .iter()
            .map(|line| {
                line.values
                    .iter()
                    .map(|v| v.map_or(Value::Null, rounded))
                    .collect()
            })
            .collect();
        json!({ "unit": unit, "names": names, "values": values })
    };
    let charts: BTreeMap<&str, Value> = charts.iter().map(|c| (c.title.as_str(), of(c))).collect();
    let x = times(report);
    let until = report.seconds.max(x.last().copied().unwrap_or(0.0));
    let x: Vec<Value> = x.into_iter().map(rounded).collect();
    json!({ "x": x, "until": until, "charts": charts })
        .to_string()
        .replace('<', "\\u003c")
}
