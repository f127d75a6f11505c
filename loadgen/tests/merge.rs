//! Reports on disk are read, joined, written as a page, and refused where they don't belong together.

use std::path::Path;
use std::process::{Command, Output};

fn loadgen(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory that goes with its owner.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_report_is_read_again_and_judged_anew() {
    let name = format!("loadgen-merge-{}", std::process::id());
    let directory = Directory(std::env::temp_dir().join(name));
    let at = &directory.0;
    std::fs::create_dir_all(at).unwrap();
    let run = [
        "demo", "-n", "50", "--rate", "500", "--time", "1s", "--json", "a.json",
    ];
    let output = loadgen(&run, at);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    let output = loadgen(
        &[
            "merge",
            "a.json",
            "--html",
            "a.html",
            "--expect",
            "ready=100%,p99<1us",
        ],
        at,
    );
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("NOT AS EXPECTED      p99<1us"), "{text}");
    let page = std::fs::read_to_string(at.join("a.html")).unwrap();
    assert!(page.contains("50 of 50 phones ready") && page.ends_with("</html>\n"));

    let output = loadgen(&["merge", "a.json", "a.json"], at);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        said(&output).contains("two reports have phone 0"),
        "{}",
        said(&output)
    );

    let text = std::fs::read_to_string(at.join("a.json")).unwrap();
    std::fs::write(at.join("old.json"), text.replace("loadgen/2", "loadgen/1")).unwrap();
    let output = loadgen(&["merge", "a.json", "old.json"], at);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        said(&output).contains("stillwire.loadgen/1"),
        "{}",
        said(&output)
    );
}

#[test]
fn an_expectation_that_cannot_be_meant_is_wrong_usage() {
    let output = loadgen(&["connect", "--expect", "speed<3"], Path::new("."));
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("p99") && said(&output).contains("missing"));
}
