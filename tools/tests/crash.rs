//! The crash checker, on few kills: that it finds nothing where nothing is wrong, and what was broken on purpose where something is.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs it in a directory of its own, which is gone afterwards.
fn crash(name: &str, arguments: &[&str]) -> (Output, String) {
    let dir =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_tools"))
        .args(["crash", "--servers", "2", "--dir"])
        .arg(&dir)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() == Some(1) {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!dir.exists(), "{:?} {text} {said}", output.status.code());
    (output, text)
}

/// The sum of a column of the last line of the table.
fn total(text: &str, column: &str) -> u64 {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.split('|').map(|cell| cell.trim().to_owned());
        cells.collect()
    };
    let rows: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    let at = rows[0].iter().position(|cell| cell == column);
    let all = rows.iter().find(|row| row[1] == "all");
    let (Some(at), Some(all)) = (at, all) else {
        panic!("no {column} in {text}")
    };
    all[at].replace(',', "").parse().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost() {
    let (output, text) = crash("kept", &["--kills", "16"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        total(&text, "kills") + total(&text, "SIGTERM") >= 16,
        "{text}"
    );
    for column in ["acked QoS 1", "acked QoS 2", "delivered"] {
        assert!(total(&text, column) > 0, "{column}: {text}");
    }
    for column in ["lost", "twice at QoS 2", "other faults"] {
        assert_eq!(total(&text, column), 0, "{column}: {text}");
    }
}

#[test]
fn a_wiped_data_directory_is_found_out() {
    let (output, text) = crash("wiped", &["--kills", "16", "--sabotage", "wipe"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    // Whichever is missed first: a session, or what was retained.
    let missed = ["session present is false", "nothing came for r/"];
    assert!(missed.iter().any(|it| text.contains(it)), "{text}");
    assert!(text.contains("seed "), "{text}");
}

#[test]
fn an_older_state_is_found_out() {
    let (output, text) = crash("stale", &["--kills", "40", "--sabotage", "stale"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    // What the older state lacks shows itself as any of these, whichever comes first.
    let columns = ["lost", "twice at QoS 2", "other faults"];
    let found: u64 = columns.iter().map(|column| total(&text, column)).sum();
    assert!(found > 0, "{text}");
}
