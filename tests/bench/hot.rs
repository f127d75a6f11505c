//! What the hot paths cost in instructions and cache misses: `tests/bench/run`, or `cargo bench --bench hot -- [--keep]`.
//!
//! callgrind counts, in a simulated machine: the same number in every run, whatever else the real machine does. What it can't see is time:
//! a system call is one instruction, and a miss costs what the reader thinks it costs. `tools measure` has the times.
//!
//! This program runs itself under valgrind. The inner run sets the scene once, 20,000 clients, and takes each path a few thousand times in
//! [`counted`]; after that the outer run drives a whole server. A benchmark library for callgrind (gungraun) starts a process for each
//! figure: each would build its 20,000 clients again under valgrind, a server process can't be counted between two moments, and its runner
//! has to be installed in exactly its version. What is needed of it is the two hundred lines of `callgrind` and `table`.
//!
//! `--keep` writes the run's file: `tests/bench/runs/DATE.md`, or `DATE-2.md` if there is one of that day. Every run is compared with the
//! last one that was kept. `cargo test --bench hot` takes each path of the inner run a few times, without valgrind, to see that it works.

mod callgrind;
mod counted;
mod packets;
mod server;
mod shard;
mod table;
mod topic;
mod wheel;
mod wire;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use counted::Scale;
use table::{Kept, Row};

// As the server has it: allocation is a part of what is counted.
#[global_allocator]
static ALLOCATOR: stillwire::sys::memory::Allocator = stillwire::sys::memory::Allocator;

/// What callgrind knows [`counted`]'s function by.
const COUNTED: &str = "hot::counted::counted";

fn main() -> ExitCode {
    let (mut is_bench, mut keep) = (false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--keep" => keep = true,
            "--inner" => return paths(Scale::FULL),
            // What tells `cargo bench` from `cargo test`.
            "--bench" => is_bench = true,
            other => {
                eprintln!("unknown argument {other}; there is --keep");
                return ExitCode::from(2);
            }
        }
    }
    if !is_bench {
        let done = paths(Scale::SMOKE);
        println!("every path was taken");
        return done;
    }
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/runs");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    fs::create_dir_all(&out).expect("a directory for the dumps");
    let rows: Vec<Row> = inner(&out.join("inner"))
        .into_iter()
        .chain(server::run(&out.join("server")))
        .map(|(path, counts)| Row::new(path, counts))
        .collect();
    let text = format!(
        "{}\n{}",
        about(),
        table::write(&rows, Kept::last(&runs).as_ref())
    );
    print!("{text}");
    if keep {
        let file = table::new_file(&runs, &first_line("date", &["-u", "+%F"]));
        fs::write(&file, text).expect("a file for the run");
        eprintln!("kept as {}", file.display());
    }
    ExitCode::SUCCESS
}

/// Every path of the inner run.
fn paths(scale: Scale) -> ExitCode {
    wire::run(scale);
    topic::run(scale);
    wheel::run(scale);
    shard::run(scale);
    ExitCode::SUCCESS
}

/// Runs this program under callgrind.
fn inner(out: &Path) -> Vec<(counted::Path, callgrind::Counts)> {
    let me = std::env::current_exe().expect("a path of this program");
    let counted = [
        format!("--toggle-collect={COUNTED}"),
        format!("--dump-after={COUNTED}"),
    ];
    let options: Vec<&str> = counted.iter().map(String::as_str).collect();
    let done = callgrind::command(me, out, &options)
        .arg("--inner")
        .output()
        .expect("valgrind is installed: apt-get install valgrind");
    // valgrind also remarks there that it knows no cache as large as this machine's.
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "the inner run: {}\n{said}",
        done.status
    );
    String::from_utf8_lossy(&done.stdout)
        .lines()
        .filter_map(counted::Path::parse)
        .zip(1..)
        .map(|(path, number)| (path, callgrind::dump(out, number)))
        .collect()
}

/// What the figures are of.
fn about() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    format!(
        "# Instructions of the hot paths, {}\n\n\
         `tests/bench/run --keep`, at {}; {}; {model}, Linux {}; {}.\n\n\
         Each figure is for one time that the path is taken; 20,000 clients stand around it, 10,000 around `server`. A system call is one \
         instruction. Misses are simulated: D1 32 KiB, 8 ways; LL 1 MiB, 16 ways. A message has 64 bytes.\n",
        first_line("date", &["-u", "+%F %H:%M"]),
        first_line("git", &["describe", "--always", "--dirty"]),
        first_line("rustc", &["-V"]),
        first_line("uname", &["-r"]),
        first_line("valgrind", &["--version"]),
    )
}

/// The first line that a command prints, or what it is called where it prints none.
fn first_line(command: &str, arguments: &[&str]) -> String {
    let done = Command::new(command).args(arguments).output();
    done.ok()
        .and_then(|done| {
            String::from_utf8_lossy(&done.stdout)
                .lines()
                .next()
                .map(str::to_owned)
        })
        .unwrap_or_else(|| format!("no {command}"))
}
