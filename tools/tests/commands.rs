//! The commands, on few phones: that they give figures for the server and the floor. How large the figures are is for quiet machines.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn tools(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tools"))
        .args(arguments)
        .args(["-n", "200", "--reactors", "2"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

const FEW: [&str; 8] = [
    "--rate",
    "2k",
    "--broadcasts",
    "2",
    "--messages",
    "500",
    "--message-rate",
    "5k",
];

#[test]
fn measure_gives_the_server_and_the_floor() {
    let arguments = [&["measure", "--floor", "once", "--json"], &FEW[..]].concat();
    let result: Value = serde_json::from_str(&tools(&arguments)).unwrap();
    for figures in [&result["server"], &result["floor"][0]] {
        assert_eq!(figures["connections"], 200, "{result}");
        assert_eq!(figures["lost"], 0, "{result}");
        for cost in ["connect", "delivery", "unicast0", "unicast1"] {
            assert!(
                figures[cost]["all"].as_f64().unwrap() > 0.0,
                "{cost}: {result}"
            );
        }
    }
}

#[test]
fn storm_brings_all_phones_back_with_tickets_and_without() {
    let out =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("storm-{}", std::process::id()));
    let text = tools(&["storm", "--rate", "2k", "--out", out.to_str().unwrap()]);
    assert!(text.contains("| all back, after the kill |"), "{text}");
    assert_eq!(
        std::fs::read_to_string(out.join("storm-tickets.md")).unwrap(),
        text
    );
    for (file, tickets, paced) in [
        ("storm-no-tickets.json", false, false),
        ("storm-unpaced.json", true, false),
        ("storm-paced.json", true, true),
    ] {
        let report = std::fs::read_to_string(out.join(file)).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        let storm = &report["storms"][0];
        assert_eq!(storm["dropped"], 200, "{report}");
        assert!(storm["back_after"].as_f64().unwrap() > 0.0, "{report}");
        assert_eq!(report["connections"]["ready"], 200, "{report}");
        // Once at first, and anew after the loss, but for those that found the lookup dead.
        assert_eq!(
            report["tickets"]["fetched"].as_u64() > Some(200),
            tickets,
            "{report}"
        );
        assert!(
            paced || report["tickets"]["paced"].as_u64().unwrap_or(0) == 0,
            "{report}"
        );
    }
    std::fs::remove_dir_all(&out).unwrap();
}

#[test]
fn durable_gives_every_figure_and_loses_nothing() {
    for qos in ["1", "2"] {
        let output = Command::new(env!("CARGO_BIN_EXE_tools"))
            .args(["durable", "-n", "150", "--messages", "4", "--json"])
            .args(["--durability", "both", "--reactors", "2", "--qos", qos])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{text}");
        let result: Value = serde_json::from_str(&text).unwrap();
        let runs = result["figures"].as_array().unwrap();
        assert_eq!(runs.len(), 2, "{text}");
        for run in runs {
            // Four of their own, three to all, and one after the restart.
            assert_eq!(run["received"], 150 * 8, "{run}");
            for figure in ["enqueue_cpu", "replay_cpu", "first_puback_seconds"] {
                assert!(run[figure].as_f64().unwrap() > 0.0, "{figure}: {run}");
            }
        }
    }
}

#[test]
fn peers_without_any_compares_the_server_with_the_floor() {
    let dir = std::env::temp_dir().join(format!("stillwire-commands-{}", std::process::id()));
    let path = dir.display().to_string();
    let told = tools(&[&["peers", "--out", &path], &FEW[..]].concat());
    assert_eq!(told.trim(), dir.join("peers.md").display().to_string());
    let page = std::fs::read_to_string(dir.join("peers.md")).unwrap();
    assert!(
        page.contains("| floor ") && page.contains("| Stillwire "),
        "{page}"
    );
    assert!(dir.join("peers.svg").exists() && dir.join("peers.json").exists());
    std::fs::remove_dir_all(dir).unwrap();
}
