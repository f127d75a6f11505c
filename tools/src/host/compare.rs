//! Several hosts side by side: which carries how many connections, and at what cost a million.

use std::fmt::Write;
use std::path::Path;

use loadgen::chart::axis::{Scale, Unit};
use loadgen::chart::svg::{BarChart, Group, STYLE, escape, standalone};

use super::{FIGURES, Figure, HostError, Report};
use crate::cli::Compare;

pub(super) fn run(args: &Compare) -> Result<String, HostError> {
    let mut reports: Vec<Report> = args
        .reports
        .iter()
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    apart(&mut reports);
    let write = |path: &Option<std::path::PathBuf>, text: String| match path {
        None => Ok(()),
        Some(path) => std::fs::write(path, text)
            .map_err(|error| HostError::Report(format!("{}: {error}", path.display()))),
    };
    write(&args.html, page(&reports))?;
    write(&args.svg, standalone(&chart(&reports)))?;
    Ok(table(&reports))
}

fn read(path: &Path) -> Result<Report, HostError> {
    let failed = |what: String| HostError::Report(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(format!("no report of host-eval: {error}")))
}

/// Two reports of one host are told apart by a number.
fn apart(reports: &mut [Report]) {
    for at in 1..reports.len() {
        let same = reports[..at]
            .iter()
            .filter(|one| one.host.split(" #").next() == Some(&reports[at].host))
            .count();
        if same > 0 {
            let name = format!("{} #{}", reports[at].host, same + 1);
            reports[at].host = name;
        }
    }
}

/// Figures that at least one of them has.
fn present(reports: &[Report]) -> impl Iterator<Item = &'static Figure> {
    FIGURES
        .iter()
        .filter(|figure| reports.iter().any(|report| (figure.of)(report).is_some()))
}

/// The best of a row, if there is anything to compare.
fn best(figure: &Figure, reports: &[Report]) -> Option<f64> {
    let values = reports.iter().filter_map(figure.of);
    let best = if figure.more {
        values.reduce(f64::max)
    } else {
        values.reduce(f64::min)
    };
    best.filter(|_| reports.len() > 1)
}

/// Markdown; the best of each row stands out.
fn table(reports: &[Report]) -> String {
    let mut out = String::from("| |");
    // Writing to a String can't fail.
    for report in reports {
        _ = write!(out, " {} |", report.host.replace('|', " "));
    }
    out.push_str("\n|---|");
    out.push_str(&"--:|".repeat(reports.len()));
    for figure in present(reports) {
        _ = write!(out, "\n| {} |", figure.name);
        let best = best(figure, reports);
        for report in reports {
            let value = (figure.of)(report);
            let shown = value.map_or("–".to_owned(), |value| figure.show(value));
            _ = if value.is_some() && value == best {
                write!(out, " **{shown}** |")
            } else {
                write!(out, " {shown} |")
            };
        }
    }
    out.push('\n');
    out
}

/// What of it is drawn: of several hosts the ratio to the first, of one host what things cost.
fn chart(reports: &[Report]) -> String {
    let first = &reports[0];
    let alone = reports.len() == 1;
    let groups: Vec<Group> = present(reports)
        .filter(|figure| !alone || figure.unit == Unit::Micros)
        .map(|figure| {
            let base = (figure.of)(first).filter(|base| *base > 0.0);
            let bars = reports.iter().map(|report| {
                let value = (figure.of)(report);
                let drawn = if alone {
                    value
                } else {
                    value.zip(base).map(|(value, base)| value / base)
                };
                (report.host.clone(), drawn.filter(|value| *value > 0.0))
            });
            let better = if figure.more {
                "more is better"
            } else {
                "less is better"
            };
            let name = if alone {
                figure.name.to_owned()
            } else {
                format!("{} ({better})", figure.name)
            };
            Group {
                name,
                bars: bars.collect(),
            }
        })
        .collect();
    let title = if alone {
        "What things take on this host"
    } else {
        "Hosts, as a ratio to the first"
    };
    BarChart {
        title,
        about: "Bars on a logarithmic scale, measured by tools host-eval.",
        unit: if alone { Unit::Micros } else { Unit::Ratio },
        scale: Scale::Log,
        groups,
        reference: (!alone).then_some((first.host.as_str(), 1.0)),
        ours: "",
    }
    .svg()
}

/// How many connections each carries, and by what limit.
fn carries(reports: &[Report]) -> String {
    type Of = fn(&Report) -> f64;
    let limits: [(&str, Of); 4] = [
        ("in all", |report| report.carries.connections as f64),
        ("by memory", |report| report.carries.by_memory as f64),
        ("by steady load, on half of the cores", |report| {
            report.carries.by_load as f64
        }),
        ("by a storm, all back within a minute", |report| {
            report.carries.by_storm as f64
        }),
    ];
    let group = |(name, of): (&str, Of)| Group {
        name: name.to_owned(),
        bars: reports
            .iter()
            .map(|report| (report.host.clone(), Some(of(report))))
            .collect(),
    };
    BarChart {
        title: "Connections that each host carries",
        about: "The least of three limits counts.",
        unit: Unit::Count,
        scale: Scale::Linear,
        groups: limits.map(group).into(),
        reference: None,
        ours: "",
    }
    .svg()
}

/// The table and the charts as a page of its own, readable in light and dark.
fn page(reports: &[Report]) -> String {
    let mut rows = String::new();
    // Writing to a String can't fail.
    for figure in present(reports) {
        _ = write!(rows, "<tr><th scope=\"row\">{}</th>", escape(figure.name));
        let best = best(figure, reports);
        for report in reports {
            let value = (figure.of)(report);
            let shown = value.map_or("–".to_owned(), |value| figure.show(value));
            let class = if value.is_some() && value == best {
                " class=\"best\""
            } else {
                ""
            };
            _ = write!(rows, "<td{class}>{}</td>", escape(&shown));
        }
        rows.push_str("</tr>\n");
    }
    let mut heads = String::new();
    let mut hosts = String::new();
    for report in reports {
        _ = write!(heads, "<th scope=\"col\">{}</th>", escape(&report.host));
        let line = format!(
            "{}: {}; {}; load {:.1} before; {}",
            report.host, report.machine, report.cpu, report.load_before, report.date
        );
        _ = write!(hosts, "<li>{}</li>", escape(&line));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/><title>Hosts</title><style>{STYLE}
body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;background:Canvas;color:CanvasText}}
table{{border-collapse:collapse}}th,td{{padding:.2rem .8rem;border-bottom:1px solid color-mix(in srgb,CanvasText 18%,Canvas)}}
th[scope=row]{{text-align:left;font-weight:400}}td{{text-align:right;font-variant-numeric:tabular-nums}}.best{{font-weight:700}}
svg{{max-width:100%;height:auto}}</style></head><body><h1>Hosts</h1><ul>{hosts}</ul>\n\
         <h2>Connections</h2>{}<h2>Figures</h2><table><thead><tr><td></td>{heads}</tr></thead><tbody>\n{rows}</tbody></table>\n\
         <h2>Chart</h2>{}</body></html>\n",
        carries(reports),
        chart(reports),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<Report> {
        let mut hosts = vec![
            Report::made_up("a<b", 8 << 30, 40.0, Some(40.0)),
            Report::made_up("large", 64 << 30, 60.0, Some(90.0)),
            Report::made_up("large", 64 << 30, 60.0, None),
        ];
        apart(&mut hosts);
        hosts
    }

    #[test]
    fn the_table_has_every_host_and_marks_the_best() {
        let table = table(&hosts());
        let row = |name: &str| {
            table
                .lines()
                .find(|line| line.contains(name))
                .unwrap()
                .to_owned()
        };
        assert_eq!(table.lines().next(), Some("| | a<b | large | large #2 |"));
        assert_eq!(
            row("connect, CPU"),
            "| connect, CPU of both ends | **40 µs** | 60 µs | 60 µs |"
        );
        assert_eq!(
            row("connections it carries"),
            "| connections it carries | 1.86m | **4m** | **4m** |"
        );
        assert_eq!(
            row("price of a million"),
            "| price of a million | **21.5** | 22.5 | – |"
        );
        assert!(!table.contains("disk,"), "nobody has measured a disk");
    }

    #[test]
    fn page_and_chart_have_every_host_escaped() {
        let hosts = hosts();
        let page = page(&hosts);
        assert!(page.contains("a&lt;b") && !page.contains("a<b") && page.contains("large #2"));
        assert!(!page.contains("NaN") && !page.contains("inf"));
        let svg = standalone(&chart(&hosts));
        assert!(
            svg.starts_with("<svg ") && svg.contains("1.5×") && svg.contains("not measured"),
            "{svg}"
        );
        // One host alone has nothing to be a ratio to.
        let alone = chart(&hosts[..1]);
        assert!(alone.contains("40 µs") && !alone.contains('×'), "{alone}");
    }

    #[test]
    fn what_is_no_report_is_told_with_its_name() {
        let error = read(Path::new("/nonexistent.json"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("/nonexistent.json: "), "{error}");
        let error = read(Path::new("/proc/version")).unwrap_err().to_string();
        assert!(error.contains("no report of host-eval"), "{error}");
    }
}
