//! valgrind's callgrind: how it is run, and what is read from its dumps.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The caches that are simulated: one core of a common server. Said here, so that the machine at hand doesn't matter.
const CACHES: [&str; 4] = [
    "--cache-sim=yes",
    "--I1=32768,8,64",
    "--D1=32768,8,64",
    "--LL=1048576,16,64",
];

/// What one dump counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Instructions; a system call is one.
    pub(crate) instructions: u64,
    /// Reads and writes that the first data cache didn't have.
    pub(crate) d1_misses: u64,
    /// Of those, and of instructions, what the last cache didn't have.
    pub(crate) ll_misses: u64,
}

/// A program under callgrind, whose dumps are numbered files that begin with `out`.
pub(crate) fn command(program: impl AsRef<OsStr>, out: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .args(CACHES)
        .args(options)
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program);
    command
}

/// Tell a program under callgrind something.
pub(crate) fn control(pid: u32, orders: &[&str]) {
    let done = Command::new("callgrind_control")
        .args(orders)
        .arg(pid.to_string())
        .output()
        .expect("callgrind_control, which comes with valgrind");
    assert!(
        done.status.success(),
        "callgrind_control {orders:?}: {done:?}"
    );
}

/// The dump of this number, counted from 1.
pub(crate) fn dump(out: &Path, number: usize) -> Counts {
    let path = PathBuf::from(format!("{}.{number}", out.display()));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&text).unwrap_or_else(|| panic!("{} is no dump of callgrind", path.display()))
}

fn parse(dump: &str) -> Option<Counts> {
    let field = |name: &str| dump.lines().find_map(|line| line.strip_prefix(name));
    let events: Vec<&str> = field("events: ")?.split_whitespace().collect();
    let totals: Vec<u64> = field("totals: ")?
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    // What never happened may be left out at the end.
    let sum = |names: &[&str]| {
        let counted = events.iter().zip(&totals);
        counted
            .filter(|(event, _)| names.contains(event))
            .map(|(_, count)| count)
            .sum()
    };
    Some(Counts {
        instructions: sum(&["Ir"]),
        d1_misses: sum(&["D1mr", "D1mw"]),
        ll_misses: sum(&["ILmr", "DLmr", "DLmw"]),
    })
}
