//! Each named scenario, small, against the real server; and what of flags, files, signals and expectations reaches the exit code.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use stillwire::config::resolved::Config;
use stillwire::server::Server;

/// A server of this test's own, on a free port.
struct Here {
    server: Option<Server>,
    addr: SocketAddr,
}

impl Here {
    fn start() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn at(addr: SocketAddr) -> Self {
        let mut config = Config::new(2, 2000);
        config.listen = vec![addr];
        config.lookup.listen.clear();
        let server = Server::start(&config).unwrap();
        Self {
            addr: server.addresses()[0],
            server: Some(server),
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
            server.join().unwrap();
        }
    }
}

/// A file that goes with the test.
struct Written(PathBuf);

impl Written {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadgen-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.0);
    }
}

fn loadgen(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(arguments);
    command
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// 100 phones of a named scenario for a second. Everything must come as expected.
fn run(addr: SocketAddr, arguments: &[&str]) -> Value {
    let addr = addr.to_string();
    let output = loadgen(arguments)
        .args(["--addr", &addr, "-n", "100", "--time", "1s", "--json", "-"])
        .output()
        .unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["scenario"], arguments[0]);
    assert_eq!(report["connections"]["ready"], 100, "{report:#}");
    report
}

#[test]
fn connect_holds_phones() {
    let here = Here::start();
    let pid = std::process::id().to_string();
    let report = run(here.addr, &["connect", "--pid", &pid]);
    assert_eq!(report["phases"][3]["name"], "hold", "{report:#}");
    assert!(report["messages"].is_null());
    assert!(report["memory"]["slab_bytes"].is_number(), "{report:#}");
}

#[test]
fn churn_reconnects() {
    let report = run(Here::start().addr, &["churn", "--churn", "30%"]);
    let reconnects = report["connections"]["reconnects"].as_u64().unwrap();
    assert!((20..=40).contains(&reconnects), "{report:#}");
}

#[test]
fn all_of_a_storm_are_back() {
    for back in ["now", "jitter"] {
        let report = run(Here::start().addr, &["storm", "--return", back]);
        assert_eq!(report["storms"][0]["dropped"], 100, "{report:#}");
        assert!(report["storms"][0]["back_after"].is_number(), "{report:#}");
    }
}

#[test]
fn a_fan_out_reaches_all() {
    let report = run(Here::start().addr, &["fanout", "--message-rate", "10"]);
    let rounds = report["broadcasts"].as_array().unwrap();
    assert!(rounds.len() >= 8, "{report:#}");
    assert!(rounds.iter().all(|round| round["received"] == 100));
}

#[test]
fn unicasts_arrive_at_both_qos() {
    let report = run(Here::start().addr, &["unicast", "--message-rate", "400"]);
    for kind in ["published_unicast0", "published_unicast1"] {
        let published = report["messages"][kind].as_u64().unwrap();
        assert!((150..=250).contains(&published), "{report:#}");
    }
}

#[test]
fn mixed_does_all_of_it() {
    let report = run(Here::start().addr, &["mixed", "--message-rate", "1k"]);
    assert!(report["messages"]["published_broadcast"].as_u64() >= Some(1));
    // Each of the threads rounds its part.
    let dropped = report["storms"][0]["dropped"].as_u64().unwrap();
    assert!((4..=6).contains(&dropped), "{report:#}");
}

#[test]
fn a_file_says_everything_and_its_phases_come_in_order() {
    let here = Here::start();
    let file = Written::new(
        "phases.toml",
        &format!(
            "addr = '{}'\nphones = 60\nrate = 500\nprotocol = '5'\nquiet = true\nexpect = 'missing=0,ready=60'\n\
             [[phase]]\nname = 'one'\ntime = '400ms'\nunicast = 200\nqos1 = '100%'\nbroadcast = 'once'\n\
             [[phase]]\nname = 'two'\ntime = '400ms'\nchurn = '10%'\n",
            here.addr
        ),
    );
    let output = loadgen(&["mixed", "--scenario", file.path(), "--json", "-"])
        .output()
        .unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert!(output.stderr.is_empty(), "it is quiet");
    let names: Vec<&str> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["connect", "one", "two", "last ones"]);
    assert_eq!(report["messages"]["published_unicast0"], 0);
    assert_eq!(report["messages"]["published_broadcast"], 1);
    assert_eq!(report["settings"]["protocol"], "MQTT 5");
}

#[test]
fn two_processes_share_a_scenario() {
    let here = Here::start();
    let addr = here.addr.to_string();
    let files = [Written::new("low.json", ""), Written::new("high.json", "")];
    let processes: Vec<_> = ["0..50", "50..100"]
        .iter()
        .zip(&files)
        .map(|(range, file)| {
            loadgen(&["unicast", "--addr", &addr, "-n", range, "--time", "1s"])
                .args(["--message-rate", "200", "--json", file.path()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut process in processes {
        assert_eq!(process.wait().unwrap().code(), Some(0));
    }
    let output = loadgen(&["merge", files[0].path(), files[1].path(), "--json", "-"])
        .output()
        .unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["connections"]["ready"], 100);
    assert_eq!(report["messages"]["foreign"], 0, "{report:#}");
}

#[test]
fn an_interruption_still_reports() {
    let addr = Here::start();
    let target = addr.addr.to_string();
    let mut child = loadgen(&["churn", "--addr", &target, "-n", "50", "--time", "1h"])
        .args(["--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it says that the phase goes on, it is told to end.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(" s  churn ")));
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(told.unwrap().success());
    let rest = std::thread::spawn(move || lines.count());
    let output = child.wait_with_output().unwrap();
    rest.join().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["connections"]["peak"], 50);
}

#[test]
fn a_broker_that_goes_away_still_gets_its_report() {
    let mut here = Here::start();
    let target = here.addr.to_string();
    // Long enough for the broker to go in the midst of it, on a busy machine too.
    let mut child = loadgen(&["unicast", "--addr", &target, "-n", "50", "--time", "6s"])
        .args(["--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(" s  unicast ")));
    let server = here.server.take().unwrap();
    server.shutdown();
    server.join().unwrap();
    // Nobody listens there, and no other test's server is given the port.
    let port = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    port.set_reuse_address(true).unwrap();
    port.bind(&here.addr.into()).unwrap();
    let rest = std::thread::spawn(move || lines.count());
    let output = child.wait_with_output().unwrap();
    rest.join().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    // It ends when its publisher has none to publish to; a phone may not have been told by then.
    assert!(
        report["connections"]["ready"].as_u64().unwrap() < 50,
        "{report:#}"
    );
    assert!(!report["failures"].as_object().unwrap().is_empty());
}

#[test]
fn a_server_that_restarts_gets_its_phones_back() {
    let mut here = Here::start();
    let asked_for = Written::new("restart", "");
    let file = Written::new(
        "restart.toml",
        &format!(
            "addr = '{}'\nphones = 50\n[storm]\ncommand = 'echo now > {}'\n\
             [[phase]]\ntime = '200ms'\nstorm = {{ return = 'restart' }}\n",
            here.addr,
            asked_for.path()
        ),
    );
    let storm = loadgen(&["storm", "--scenario", file.path(), "--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The supervisor that the command asks.
    while std::fs::read_to_string(&asked_for.0).unwrap() != "now\n" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let addr = here.addr;
    let server = here.server.take().unwrap();
    server.shutdown();
    server.join().unwrap();
    here = Here::at(addr);
    let output = storm.wait_with_output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["storms"][0]["dropped"], 50, "{report:#}");
    assert!(report["storms"][0]["back_after"].is_number(), "{report:#}");
    // The old server ended every connection.
    let ended: u64 = ["reset by the broker", "closed by the broker"]
        .iter()
        .filter_map(|kind| report["failures"][kind].as_u64())
        .sum();
    assert!(ended >= 50, "{report:#}");
    drop(here);
}

#[test]
fn what_is_expected_decides_the_exit_code() {
    let here = Here::start();
    let addr = here.addr.to_string();
    for (expected, code) in [("ready=20", 0), ("ready=21", 1), ("p99<1s", 1)] {
        let output = loadgen(&["connect", "--addr", &addr, "-n", "20", "--time", "100ms"])
            .args(["--expect", expected])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{expected}");
    }
}

#[test]
fn what_is_wrong_is_said_before_the_first_packet() {
    let wrong = Written::new("wrong.toml", "phones = 5\nchrun = 1\n");
    for (arguments, says) in [
        (&["churn", "--scenario", wrong.path()][..], "chrun"),
        (&["churn", "--scenario", "/nowhere.toml"][..], "--scenario"),
        (&["connect", "--addr", "127.0.0.1:1"][..], "--addr"),
        (
            &["connect", "--html", "/nowhere/x.html"][..],
            "/nowhere/x.html",
        ),
        (&["connect", "-n", "4000m"][..], "memory:"),
    ] {
        let output = loadgen(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}
