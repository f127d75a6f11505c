//! Phones, churn and pushes against the real server, small enough for every run.

use std::process::Command;

fn demo(arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "demo",
            "--json",
            "-",
            "--connections",
            "300",
            "--rate",
            "1k",
            "--time",
            "3s",
        ])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

fn finds_nothing_missing(protocol: &str) {
    let file = std::env::temp_dir().join(format!("demo-{}-{protocol}.toml", std::process::id()));
    std::fs::write(&file, format!("protocol = '{protocol}'\nquiet = true\n")).unwrap();
    let (code, report) = demo(&["--scenario", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(report["schema"], "stillwire.loadgen/2");
    assert_eq!(report["connections"]["peak"], 300, "{report:#}");
    assert_eq!(report["messages"]["missing"], 0, "{report:#}");
    assert!(
        report["messages"]["received"].as_u64().unwrap() > 3000,
        "{report:#}"
    );
    assert!(
        report["connections"]["reconnects"].as_u64().unwrap() >= 15,
        "{report:#}"
    );
    assert_eq!(code, Some(0), "{report:#}");
}

#[test]
fn the_demo_finds_nothing_missing_with_mqtt_3() {
    finds_nothing_missing("3.1.1");
}

#[test]
fn the_demo_finds_nothing_missing_with_mqtt_5() {
    finds_nothing_missing("5");
}

#[test]
fn nobody_there_is_said_before_the_first_phone() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["connect", "--addr", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("no broker at 127.0.0.1:1") && said.contains("--addr"),
        "{said}"
    );
}
