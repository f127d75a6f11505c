//! The table: written, kept with its date, and read again for comparison.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::callgrind::Counts;
use crate::counted;

/// One path in the end.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    instructions: f64,
    d1_misses: f64,
    ll_misses: f64,
}

impl Row {
    /// Per time that the path was taken.
    pub(crate) fn new(path: counted::Path, counts: Counts) -> Self {
        let per = |count: u64| count as f64 / path.times as f64;
        Self {
            instructions: per(counts.instructions),
            d1_misses: per(counts.d1_misses),
            ll_misses: per(counts.ll_misses),
            name: path.name,
        }
    }
}

/// An earlier run: its date, and the instructions of each path.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    date: String,
    instructions: HashMap<String, f64>,
}

impl Kept {
    /// The last run in a directory of files that are named by their dates.
    pub(crate) fn last(runs: &Path) -> Option<Self> {
        let mut files: Vec<PathBuf> = fs::read_dir(runs)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .collect();
        files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
        let last = files.pop()?;
        let text = fs::read_to_string(&last).ok()?;
        Some(Self {
            date: last.file_stem()?.to_string_lossy().into_owned(),
            instructions: text.lines().filter_map(read_row).collect(),
        })
    }
}

/// Where to keep a run: each has a file of its own.
pub(crate) fn new_file(runs: &Path, date: &str) -> PathBuf {
    let first = runs.join(format!("{date}.md"));
    let more = (2..).map(|number| runs.join(format!("{date}-{number}.md")));
    std::iter::once(first)
        .chain(more)
        .find(|file| !file.exists())
        .expect("numbers don't end")
}

/// Name and instructions of a line of a table.
fn read_row(line: &str) -> Option<(String, f64)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let name = cells.next()?.to_owned();
    let instructions = cells.next()?.replace(',', "").parse().ok()?;
    Some((name, instructions))
}

/// The table, with a column for an earlier run if there is one.
pub(crate) fn write(rows: &[Row], kept: Option<&Kept>) -> String {
    let mut out = String::from("| path | instructions | D1 misses | LL misses |");
    if let Some(kept) = kept {
        // Writing to a String can't fail; here and below.
        _ = write!(out, " {} | change |", kept.date);
    }
    out.push_str("\n|---|---:|---:|---:|");
    out.push_str(if kept.is_some() { "---:|---:|\n" } else { "\n" });
    for row in rows {
        _ = write!(
            out,
            "| {} | {} | {:.2} | {:.2} |",
            row.name,
            number(row.instructions),
            row.d1_misses,
            row.ll_misses
        );
        if let Some(kept) = kept {
            match kept.instructions.get(&row.name) {
                Some(&before) if before > 0.0 => {
                    let percent = (row.instructions / before - 1.0) * 100.0;
                    _ = write!(out, " {} | {percent:+.1} % |", number(before));
                }
                _ => out.push_str(" | new |"),
            }
        }
        out.push('\n');
    }
    out
}

/// Whole, but for what is small.
fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}
