//! `stillwire sizing`: what so many connections need, beside what this machine has. `tuning/check` reads the JSON, which is flat and has a key
//! a line, so that a shell can read it without help.

use std::fmt::Write as _;

use serde::Serialize;
use stillwire::sizing::{Role, Sums};
use stillwire::sys::capacity::{Machine, reactors_for};

use crate::cli::Sizing;

/// What is printed. Sums first, then what the machine has, then whether it is enough.
#[derive(Debug, Serialize)]
struct Report {
    connections: u64,
    role: Role,
    reactors: usize,
    bytes_each: u64,
    memory_bytes: u64,
    open_files_each: u64,
    open_files_one: u64,
    open_files_all: u64,
    tcp_pages: u64,
    tcp_mem: String,
    backlog: u64,
    conntrack: u64,
    hash_buckets: u64,
    cores: u64,
    machine_cores: usize,
    machine_memory_bytes: u64,
    machine_open_files: u64,
    machine_tcp_pages: Option<u64>,
    fits_memory: bool,
    fits_files: bool,
    fits_tcp_mem: bool,
    /// Reactors that hold them with the limit of open files as it is.
    reactors_enough: Option<usize>,
}

impl Report {
    fn of(asked: &Sizing, machine: &Machine) -> Self {
        let reactors = asked.reactors.unwrap_or(machine.cores).max(1);
        let sums = Sums::of(asked.connections, asked.role.into(), reactors);
        let [low, pressure, most] = sums.tcp_mem;
        Self {
            connections: sums.connections,
            role: sums.role,
            reactors,
            bytes_each: sums.role.bytes_each(),
            memory_bytes: sums.memory,
            open_files_each: sums.files_each,
            open_files_one: sums.files_one,
            open_files_all: sums.files_all,
            tcp_pages: sums.tcp_pages,
            tcp_mem: format!("{low} {pressure} {most}"),
            backlog: sums.backlog,
            conntrack: sums.tracked,
            hash_buckets: sums.hash_buckets,
            cores: sums.cores,
            machine_cores: machine.cores,
            machine_memory_bytes: machine.memory,
            machine_open_files: machine.open_files,
            machine_tcp_pages: machine.tcp_pages,
            fits_memory: machine.memory >= sums.memory,
            fits_files: machine.open_files >= sums.files_each,
            fits_tcp_mem: machine
                .tcp_pages
                .is_none_or(|pages| pages >= sums.tcp_pages),
            reactors_enough: reactors_for(machine, sums.connections),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |what: &str, need: String, has: String, fits: bool| {
            let fits = if fits { "enough" } else { "too little" };
            // Writing to a String can't fail.
            _ = writeln!(out, "{what:<24} {need:>16} {has:>16}  {fits}");
        };
        line("", "needed".into(), "here".into(), true);
        let tables = format!("open files, {} tables", self.reactors);
        line(
            "memory, bytes",
            self.memory_bytes.to_string(),
            self.machine_memory_bytes.to_string(),
            self.fits_memory,
        );
        line(
            &tables,
            self.open_files_each.to_string(),
            self.machine_open_files.to_string(),
            self.fits_files,
        );
        line(
            "tcp_mem, pages",
            self.tcp_pages.to_string(),
            self.machine_tcp_pages
                .map_or("not visible".into(), |pages| pages.to_string()),
            self.fits_tcp_mem,
        );
        line(
            "cores",
            self.cores.to_string(),
            self.machine_cores.to_string(),
            self.machine_cores as u64 >= self.cores,
        );
        // The heading has no verdict.
        out.replacen("  enough", "", 1)
    }
}

/// The answer, for standard output.
pub(crate) fn answer(asked: &Sizing, machine: &Machine) -> String {
    let report = Report::of(asked, machine);
    if asked.json {
        // Numbers, words and switches: nothing in it can fail to be written.
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        report.text()
    }
}
