//! The table of `tools storm`, in Markdown.

use std::fmt::Write as _;

use loadgen::histogram::Packed;
use loadgen::report::Report;
use loadgen::report::course::{Moment, Phase};
use loadgen::stats::Failure;
use loadgen::units::{grouped, micros};

/// What loses its connection because the server was killed hasn't failed.
const ENDED: [Failure; 3] = [Failure::Reset, Failure::Closed, Failure::Disconnected];

/// What a column is made of: the first storm of a run.
struct Stormy<'a> {
    report: &'a Report,
    phase: Option<&'a Phase>,
}

/// A row: what it shows.
type Row = (&'static str, fn(&Stormy<'_>) -> String);

const ROWS: [Row; 13] = [
    ("all back, after the kill", |s| {
        let back = s.report.storms.first().and_then(|storm| storm.back_after);
        back.map_or("never".into(), |seconds| format!("{seconds:.1} s"))
    }),
    ("refused: TCP, CONNACK, SUBACK", |s| {
        grouped(s.failures(|failure| {
            matches!(
                failure,
                Failure::Refused | Failure::NotAccepted | Failure::NotSubscribed
            )
        }))
    }),
    ("not ready within 10 s", |s| {
        grouped(s.failures(|failure| failure == Failure::Timeout))
    }),
    ("connect to ready, p50", |s| s.ready(|ready| ready.p50)),
    ("connect to ready, p99", |s| s.ready(|ready| ready.p99)),
    ("connect to ready, max", |s| s.ready(|ready| ready.max)),
    ("server's CPU, peak of a second", |s| {
        let cpu = s.moments().filter_map(|m| Some(m.sample.server?.cpu));
        format!("{:.0} % of a core", cpu.fold(0.0, f64::max))
    }),
    ("server's CPU until all were back", |s| {
        let used = s.moments().filter_map(|m| {
            let usage = m.sample.server?;
            Some(usage.cpu / 100.0 * m.seconds)
        });
        format!("{:.1} s", used.fold(0.0, |sum, seconds| sum + seconds))
    }),
    ("tickets", |s| s.count(|phase| phase.counts.tickets)),
    ("put off (429, 503)", |s| {
        s.count(|phase| phase.counts.tickets_put_off)
    }),
    ("questions without an answer", |s| {
        s.count(|phase| phase.counts.tickets_failed)
    }),
    ("ticket, p99", |s| {
        let ticket = s.phase.and_then(|phase| phase.latency.ticket.as_ref());
        shown(ticket, |ticket| ticket.p99)
    }),
    ("told to wait: p50, max", |s| {
        let paced = s.phase.and_then(|phase| phase.latency.paced.as_ref());
        match paced {
            Some(paced) => format!("{}, {}", micros(paced.p50), micros(paced.max)),
            None => "–".into(),
        }
    }),
];

fn shown(packed: Option<&Packed>, of: fn(&Packed) -> u64) -> String {
    packed.map_or("–".into(), |packed| micros(of(packed)))
}

impl Stormy<'_> {
    fn ready(&self, of: fn(&Packed) -> u64) -> String {
        let ready = self.phase.and_then(|phase| phase.latency.ready.as_ref());
        shown(ready, of)
    }

    fn count(&self, of: fn(&Phase) -> u64) -> String {
        if self.report.tickets.is_none() {
            return "–".into();
        }
        grouped(self.phase.map_or(0, of))
    }

    fn failures(&self, is: fn(Failure) -> bool) -> u64 {
        let Some(phase) = self.phase else {
            return 0;
        };
        let kinds = Failure::ALL.into_iter().filter(|&failure| is(failure));
        let counts = kinds.filter_map(|failure| phase.counts.failures.get(failure.text()));
        counts.sum()
    }

    /// The seconds of the storm's phase.
    fn moments(&self) -> impl Iterator<Item = &Moment> {
        let name = self.phase.map_or("", |phase| phase.name.as_str());
        let course = self.report.course.iter();
        course.filter(move |moment| moment.phase == name)
    }
}

/// The table. `load` is what the machine did before.
pub(super) fn table(reports: &[(&str, Report)], load: f64) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _infallible = write(&mut out, reports, load);
    out
}

fn write(out: &mut String, reports: &[(&str, Report)], load: f64) -> std::fmt::Result {
    let columns: Vec<Stormy<'_>> = reports
        .iter()
        .map(|(_, report)| {
            let storm = report.storms.first().map_or(0.0, |storm| storm.at);
            let during = |phase: &&Phase| phase.begin <= storm + 0.1 && storm < phase.end;
            Stormy {
                report,
                phase: report.phases.iter().rfind(during),
            }
        })
        .collect();
    if let Some((_, report)) = reports.first() {
        writeln!(
            out,
            "{} phones lose their server, which is killed and started again. {}, {}, load {load:.2} before.\n",
            grouped(report.connections.planned),
            report.machine,
            report.date
        )?;
    }
    write!(out, "| |")?;
    for (name, _) in reports {
        write!(out, " {name} |")?;
    }
    writeln!(out, "\n|---|{}", "--:|".repeat(reports.len()))?;
    for (name, value) in ROWS {
        write!(out, "| {name} |")?;
        for column in &columns {
            write!(out, " {} |", value(column))?;
        }
        out.push('\n');
    }
    let others = columns.iter().map(|column| {
        column.failures(|failure| {
            !ENDED.contains(&failure)
                && !matches!(
                    failure,
                    Failure::Refused
                        | Failure::NotAccepted
                        | Failure::NotSubscribed
                        | Failure::Timeout
                )
        })
    });
    if others.clone().any(|n| n > 0) {
        write!(out, "| other failures |")?;
        for n in others {
            write!(out, " {} |", grouped(n))?;
        }
        out.push('\n');
    }
    out.push_str(
        "\nRefused by TCP are the few phones that look whether the server is there again. Connect to ready counts from the moment at which a phone \
         may call: what the lookup made it wait stands in the last row. CPU and memory of the machine are shared with the phones.\n",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen::report::course::{Sample, Storm, Usage};

    #[test]
    fn a_column_is_about_the_storm_alone() {
        let mut report = Report::default();
        report.connections.planned = 1234;
        report.storms.push(Storm {
            at: 10.0,
            dropped: 1234,
            back_after: Some(4.25),
            refused: 7,
        });
        for (name, begin, end, refused) in [("connect", 0.0, 10.0, 99), ("restart", 10.0, 14.25, 7)]
        {
            let mut phase = Phase {
                name: name.into(),
                begin,
                end,
                ..Phase::default()
            };
            let counts = &mut phase.counts.failures;
            counts.insert(Failure::Refused.text().into(), refused);
            counts.insert(Failure::Reset.text().into(), 1234);
            report.phases.push(phase);
            for cpu in [50.0, 150.0 + begin] {
                report.course.push(Moment {
                    phase: name.into(),
                    seconds: 1.0,
                    sample: Sample {
                        server: Some(Usage {
                            cpu,
                            ..Usage::default()
                        }),
                        ..Sample::default()
                    },
                    ..Moment::default()
                });
            }
        }
        let text = table(&[("one", report.clone()), ("two", report)], 0.5);
        for line in [
            "1,234 phones",
            "| | one | two |",
            "| all back, after the kill | 4.2 s | 4.2 s |",
            "| refused: TCP, CONNACK, SUBACK | 7 | 7 |",
            "| server's CPU, peak of a second | 160 % of a core | 160 % of a core |",
            "| server's CPU until all were back | 2.1 s | 2.1 s |",
            "| tickets | – | – |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("other failures"), "{text}");
    }
}
