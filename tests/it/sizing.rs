//! What a million connections need, as `stillwire sizing` and the start-up report say it: the same, as both ask `stillwire::sizing`.
//! The load generator's preflight is held against them in the tests of `tools`, `tuning/check` in `tests/tuning`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use stillwire::sizing::{Role, Sums};
use stillwire::sys::capacity::{Machine, reactors_for};

const MILLION: u64 = 1_000_000;

fn stillwire() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stillwire"));
    command.stdin(Stdio::null());
    command
}

#[test]
fn the_command_prints_the_sums_of_a_million() {
    let output = stillwire()
        .args(["sizing", "--connections", "1000000", "--role", "both"])
        .args(["--reactors", "7", "--json"])
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sums = Sums::of(MILLION, Role::Both, 7);
    for (key, sum) in [
        ("connections", MILLION),
        ("memory_bytes", sums.memory),
        ("open_files_each", sums.files_each),
        ("open_files_one", sums.files_one),
        ("open_files_all", sums.files_all),
        ("tcp_pages", sums.tcp_pages),
        ("backlog", sums.backlog),
        ("conntrack", sums.tracked),
        ("hash_buckets", sums.hash_buckets),
        ("cores", sums.cores),
    ] {
        assert_eq!(said[key], sum, "{key}");
    }
    assert_eq!(said["tcp_mem"], "625000 937500 1250000");
    assert_eq!(said["role"], "both");
    // A key a line, and nothing nested: what a shell reads.
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().count() == said.as_object().unwrap().len() + 2,
        "{text}"
    );
}

#[test]
fn a_wrong_size_is_refused() {
    for arguments in [
        &["sizing"][..],
        &["sizing", "--connections", "0"],
        &["sizing", "--connections", "many"],
        &["sizing", "--connections", "1", "--role", "phone"],
        &["sizing", "--connections", "1", "--reactors", "1025"],
    ] {
        let output = stillwire().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn the_start_up_report_of_a_million_says_the_same() {
    let reactors = reactors_for(&Machine::read().unwrap(), MILLION)
        .expect("1,024 tables of this machine hold a million");
    let dir = std::env::temp_dir().join(format!("stillwire-sizing-{}", std::process::id()));
    let mut child = stillwire()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--max-connections",
            "1000000",
        ])
        .args(["--reactors", &reactors.to_string(), "--data-dir"])
        .arg(&dir)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    for line in lines.map_while(Result::ok) {
        said += &line;
        said.push('\n');
        if line.contains("need") && line.contains("bytes of memory") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    _ = std::fs::remove_dir_all(&dir);
    let sums = Sums::of(MILLION, Role::Server, reactors);
    assert!(said.contains(&sums.to_string()), "{said}");
}
