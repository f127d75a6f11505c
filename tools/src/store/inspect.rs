//! `tools store inspect`: a table of the logs.

use std::io::Write;
use std::path::Path;

use loadgen::units;
use serde_json::json;
use stillwire::store::recovery::Recovered;

use super::{Logs, StoreError};

/// A log's figures.
struct Row {
    reactor: u32,
    segments: u64,
    bytes: u64,
    sessions: u64,
    messages: u64,
    bodies: u64,
    values: u64,
    live: u64,
    damaged: u64,
}

const COLUMNS: [&str; 9] = [
    "reactor", "segments", "size", "sessions", "messages", "bodies", "values", "live", "damage",
];

pub(super) fn run(dir: &Path, json: bool, out: &mut impl Write) -> Result<(), StoreError> {
    let Logs { manifest, logs } = super::open(dir)?;
    let rows: Vec<Row> = logs
        .into_iter()
        .map(|opened| {
            let reactor = opened.log.reactor();
            let recovered = Recovered::read(opened, 0);
            let stats = recovered.store.stats();
            Row {
                reactor,
                segments: stats.segments as u64,
                bytes: stats.log,
                sessions: stats.sessions as u64,
                messages: stats.messages as u64,
                bodies: stats.bodies as u64,
                values: stats.values as u64,
                live: stats.live,
                damaged: recovered.damage.len() as u64,
            }
        })
        .collect();
    if json {
        let logs: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "reactor": row.reactor, "segments": row.segments, "bytes": row.bytes, "sessions": row.sessions,
                    "messages": row.messages, "bodies": row.bodies, "values": row.values,
                    "live_bytes": row.live, "dead_bytes": row.bytes.saturating_sub(row.live), "damaged_places": row.damaged,
                })
            })
            .collect();
        let whole = json!({
            "generation": manifest.map(|manifest| manifest.generation),
            "reactors": manifest.map(|manifest| manifest.reactors),
            "logs": logs,
        });
        return Ok(writeln!(out, "{whole:#}")?);
    }
    match manifest {
        Some(manifest) => writeln!(
            out,
            "{}: generation {}, {} reactors",
            dir.display(),
            manifest.generation,
            manifest.reactors
        )?,
        None => writeln!(out, "{}: one log", dir.display())?,
    }
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| row.cells(row.reactor.to_string())));
    if rows.len() > 1 {
        let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum();
        let total = Row {
            reactor: 0,
            segments: sum(|row| row.segments),
            bytes: sum(|row| row.bytes),
            sessions: sum(|row| row.sessions),
            messages: sum(|row| row.messages),
            bodies: sum(|row| row.bodies),
            values: sum(|row| row.values),
            live: sum(|row| row.live),
            damaged: sum(|row| row.damaged),
        };
        lines.push(total.cells("all".to_owned()));
    }
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:>width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  "))?;
    }
    if rows.iter().any(|row| row.damaged > 0) {
        writeln!(
            out,
            "some of it is damaged: `tools store verify` says where"
        )?;
    }
    Ok(())
}

impl Row {
    fn cells(&self, reactor: String) -> [String; 9] {
        [
            reactor,
            units::grouped(self.segments),
            units::bytes(self.bytes as f64),
            units::grouped(self.sessions),
            units::grouped(self.messages),
            units::grouped(self.bodies),
            units::grouped(self.values),
            units::bytes(self.live as f64),
            units::grouped(self.damaged),
        ]
    }
}
