//! The binary as an operator meets it: what it prints, what it refuses, and with which exit code.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

/// A directory of one test's own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("stillwire-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn stillwire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stillwire"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    stillwire(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The one line of a run that fails with `code`.
#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    let line = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(
        line.ends_with('\n') && line.lines().count() == 1 && line.starts_with("stillwire: "),
        "not one line: {line:?}"
    );
    line["stillwire: ".len()..].trim_end().to_owned()
}

/// The same for a server that may have logged before: its last line.
#[track_caller]
fn refused_at_last(output: &Output, code: i32) -> String {
    let lines = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{lines}");
    let last = lines.lines().last().unwrap_or_default();
    assert!(last.starts_with("stillwire: "), "{lines}");
    last["stillwire: ".len()..].to_owned()
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["help", "config"],
        &["--version"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            stdout(&output).contains("stillwire") && output.stderr.is_empty(),
            "{arguments:?}: {output:?}"
        );
    }
}

#[test]
fn a_wrong_command_line_is_told_in_one_line() {
    for (arguments, expected) in [
        (&[][..], "no command given"),
        (
            &["serv"],
            "unrecognized subcommand 'serv'; a similar subcommand exists: 'serve'",
        ),
        (
            &["serve", "--lisen", "x"],
            "a similar argument exists: '--listen'",
        ),
        (
            &["serve", "--data-dir"],
            "a value is required for '--data-dir <DIR>'",
        ),
    ] {
        let line = refused(&run(arguments), 64);
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
}

#[test]
fn a_wrong_value_names_its_place_and_the_remedy() {
    let scratch = Scratch::new("wrong");
    let unknown = scratch.file("unknown.toml", "[mqtt]\nmax_packet = 3\n");
    let kind = scratch.file("type.toml", "pin = \"yes\"\n");
    let syntax = scratch.file("syntax.toml", "listen = [\n");
    for command in ["serve", "config"] {
        for (arguments, expected) in [
            (
                ["--config", &unknown],
                format!(
                    "{unknown}:2:1: unknown key \"mqtt.max_packet\"; did you mean \"mqtt.max_packet_size\"?"
                ),
            ),
            (
                ["--config", &kind],
                format!("{kind}:1:7: pin: needs true or false, not a string"),
            ),
            (["--config", &syntax], format!("{syntax}:")),
            (
                ["--config", "/nonexistent"],
                "/nonexistent: cannot read the configuration: No such file".to_owned(),
            ),
            (
                ["--reactors", "0"],
                "--reactors: reactors: 0 is out of range; use 1 to 1024".to_owned(),
            ),
            (
                ["--reactors", "-1"],
                "--reactors: reactors: -1 is out of range; use 1 to 1024".to_owned(),
            ),
            (
                ["--reactors", "all"],
                "--reactors: reactors: needs an integer or \"auto\", not a string".to_owned(),
            ),
            (
                ["--listen", "1883"],
                "--listen: listen: \"1883\" can't be used; write an IP address and a port"
                    .to_owned(),
            ),
            (
                ["--data-dir", ""],
                "--data-dir: data_dir: \"\" can't be used".to_owned(),
            ),
        ] {
            let line = refused(&run(&[command, arguments[0], arguments[1]]), 78);
            assert!(line.starts_with(&expected), "{arguments:?}: {line}");
        }
    }
}

#[test]
fn too_few_files_for_an_explicit_number_is_an_error_with_figures() {
    // A limit of our own, so that the figures are the same everywhere.
    let limited = |arguments: &str| {
        let script = format!(
            "ulimit -n 1000; exec '{}' {arguments}",
            env!("CARGO_BIN_EXE_stillwire")
        );
        Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    let line = refused(&limited("config --reactors 2 --max-connections 5000"), 78);
    assert!(line.starts_with("--max-connections: max_connections: 5000 connections don't fit the limit of 1000 open files"), "{line}");
    assert!(
        line.contains("use --reactors ") && line.contains("ulimit -Hn"),
        "{line}"
    );
    // What it advises is accepted.
    let advice: String = line
        .split("use --reactors ")
        .nth(1)
        .unwrap()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let output = limited(&format!(
        "config --reactors {advice} --max-connections 5000"
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Without a number the server takes what there is, and says so.
    let output = limited("config --reactors 2");
    let line = stdout(&output)
        .lines()
        .find(|line| line.starts_with("max_connections"))
        .unwrap();
    assert!(
        line.contains("# auto: what this machine allows, limited by fds"),
        "{line}"
    );
}

#[test]
fn the_printed_configuration_has_origins_and_can_be_fed_back() {
    let scratch = Scratch::new("config");
    let file = scratch.file(
        "sw.toml",
        "max_connections = 100\n[mqtt]\nmax_packet_size = \"256KiB\"\nconnect_timeout = \"1m\"\n",
    );
    let arguments = [
        "config",
        "--config",
        &file,
        "--listen",
        "127.0.0.1:2000",
        "--listen",
        "[::1]:2000",
        "--reactors",
        "2",
    ];
    let first = run(&arguments);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let line = |start: &str| {
        stdout(&first)
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap()
            .to_owned()
    };
    let squeezed = |start: &str| line(start).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        squeezed("listen"),
        "listen = [\"127.0.0.1:2000\", \"[::1]:2000\"] # --listen"
    );
    assert_eq!(squeezed("reactors"), "reactors = 2 # --reactors");
    assert_eq!(
        squeezed("max_packet_size"),
        format!("max_packet_size = \"256KiB\" # {file}:3:19")
    );
    assert_eq!(squeezed("max_inflight"), "max_inflight = 32 # default");

    let printed = scratch.file("printed.toml", stdout(&first));
    let second = run(&["config", "--config", &printed]);
    let values = |output: &Output| -> Vec<String> {
        stdout(output)
            .lines()
            .map(|line| line.split("  #").next().unwrap().trim_end().to_owned())
            .collect()
    };
    assert_eq!(values(&first), values(&second));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = stillwire(&["config"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut complaints = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaints)
        .unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), complaints.as_str()),
        (Some(0), "")
    );
}

#[test]
fn output_that_can_not_be_written_is_a_failure() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = stillwire(&["config"]).stdout(full).output().unwrap();
    assert!(refused(&output, 74).starts_with("standard output: "));
}

#[test]
fn a_data_directory_that_can_not_be_used_is_said() {
    let scratch = Scratch::new("data-dir");
    let file = scratch.file("not-a-directory", "");
    let line = refused(
        &run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &format!("{file}/below"),
        ]),
        74,
    );
    assert!(
        line.contains("cannot create or enter the data directory") && line.contains("--data-dir"),
        "{line}"
    );
    assert!(scratch.path().exists());
}

/// A server process, ended when the test is.
struct Server {
    child: Child,
    log: BufReader<ChildStderr>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts one and waits until it says that it is ready.
    fn start(scratch: &Scratch, arguments: &[&str]) -> Self {
        let data_dir = scratch.path().join("data");
        let mut child = stillwire(&["serve", "--data-dir", data_dir.to_str().unwrap()])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut server = Self {
            log: BufReader::new(child.stderr.take().unwrap()),
            child,
            addresses: Vec::new(),
        };
        let mut seen = String::new();
        while server.log.read_line(&mut seen).unwrap() > 0 {
            let last = seen.lines().last().unwrap();
            if let Some((_, rest)) = last.split_once("ready listen=") {
                let list = rest.split('"').nth(1).unwrap();
                server.addresses = list
                    .split(' ')
                    .map(|address| address.parse().unwrap())
                    .collect();
                return server;
            }
        }
        panic!("not ready: {seen}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the end: its code and what it logged after it was ready.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// CONNECT of an MQTT 5 client named `a`.
const CONNECT: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a";

#[test]
fn a_signal_drains_and_ends_with_zero() {
    for signal in ["TERM", "INT"] {
        let scratch = Scratch::new(&format!("drain-{signal}"));
        let server = Server::start(
            &scratch,
            &[
                "--listen",
                "127.0.0.1:0",
                "--listen",
                "127.0.0.1:0",
                "--reactors",
                "2",
            ],
        );
        assert_eq!(server.addresses.len(), 2);
        let mut clients: Vec<_> = server
            .addresses
            .iter()
            .map(|address| TcpStream::connect(address).unwrap())
            .collect();
        for (client, name) in clients.iter_mut().zip(b"ab") {
            let mut connect = CONNECT.to_vec();
            *connect.last_mut().unwrap() = *name;
            client.write_all(&connect).unwrap();
            let mut connack = [0; 4];
            client.read_exact(&mut connack).unwrap();
            assert_eq!((connack[0], connack[3]), (0x20, 0));
        }
        server.signal(signal);
        for client in &mut clients {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            // DISCONNECT, server shutting down (MQTT 5 section 3.14.2.1).
            assert!(
                rest.windows(3)
                    .any(|bytes| bytes[0] == 0xe0 && bytes[2] == 0x8b),
                "{rest:02x?}"
            );
        }
        let address = server.addresses[0];
        let (code, log) = server.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(&format!("SIG{signal}")), "{log}");
        assert!(TcpStream::connect(address).is_err());
    }
}

#[test]
fn a_second_server_is_told_who_has_what() {
    let scratch = Scratch::new("second");
    let server = Server::start(&scratch, &["--listen", "127.0.0.1:0", "--reactors", "1"]);
    let data_dir = scratch.path().join("data");
    let line = refused_at_last(
        &run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            data_dir.to_str().unwrap(),
        ]),
        75,
    );
    assert!(
        line.contains(&format!(
            "process id {} uses this data directory",
            server.child.id()
        )),
        "{line}"
    );

    let address = server.addresses[0].to_string();
    let other = scratch.path().join("other");
    let line = refused_at_last(
        &run(&[
            "serve",
            "--listen",
            &address,
            "--data-dir",
            other.to_str().unwrap(),
        ]),
        69,
    );
    let port = server.addresses[0].port();
    assert!(
        line.contains(&address) && line.contains(&format!("ss -ltnp 'sport = :{port}'")),
        "{line}"
    );
}

#[test]
fn an_address_of_another_machine_is_said() {
    let scratch = Scratch::new("elsewhere");
    let data_dir = scratch.path().join("data");
    // An address for documentation (RFC 5737): nobody's.
    let line = refused_at_last(
        &run(&[
            "serve",
            "--listen",
            "192.0.2.1:1883",
            "--allow-open",
            "--data-dir",
            data_dir.to_str().unwrap(),
        ]),
        69,
    );
    assert!(line.contains("192.0.2.1:1883"), "{line}");
}

#[test]
fn json_logs_are_one_object_a_line() {
    let scratch = Scratch::new("json");
    let config = scratch.file(
        "sw.toml",
        "log.format = \"json\"\nlisten = [\"127.0.0.1:0\"]\nreactors = 1\n",
    );
    let data_dir = scratch.path().join("data");
    let mut child = stillwire(&[
        "serve",
        "--config",
        &config,
        "--data-dir",
        data_dir.to_str().unwrap(),
    ])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut ready = None;
    while ready.is_none() {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "ended before it was ready"
        );
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        ready =
            (object["message"] == "ready").then(|| object["listen"].as_str().unwrap().to_owned());
    }
    assert!(ready.unwrap().parse::<SocketAddr>().is_ok());
    assert!(
        Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    for line in rest.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// An MQTT 3.1.1 PUBLISH at QoS 0 to `t`.
fn publish(payload: usize) -> Vec<u8> {
    let mut packet = vec![0x30];
    let mut left = 3 + payload;
    while left > 0x7f {
        packet.push(left as u8 | 0x80);
        left >>= 7;
    }
    packet.extend([left as u8, 0, 1, b't']);
    packet.resize(packet.len() + payload, 0);
    packet
}

#[test]
fn a_second_signal_does_not_wait_for_a_client_that_reads_nothing() {
    let scratch = Scratch::new("twice");
    let mut server = Server::start(&scratch, &["--listen", "127.0.0.1:0", "--reactors", "1"]);
    let mut client = TcpStream::connect(server.addresses[0]).unwrap();
    client
        .write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a")
        .unwrap();
    client.write_all(b"\x82\x06\x00\x01\x00\x01t\x00").unwrap();
    // It is sent far more than the buffers of the kernel hold, and takes none of it.
    let mut publisher = TcpStream::connect(server.addresses[0]).unwrap();
    publisher
        .write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01b")
        .unwrap();
    let packet = publish(1_000_000);
    for _ in 0..32 {
        publisher.write_all(&packet).unwrap();
    }
    // A PINGRESP says that all of it has been handled.
    publisher.write_all(b"\xc0\x00").unwrap();
    publisher.read_exact(&mut [0; 4 + 2]).unwrap();
    server.signal("TERM");
    let mut line = String::new();
    server.log.read_line(&mut line).unwrap();
    assert!(line.contains("draining"), "{line}");
    server.signal("TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(130), "{log}");
    assert!(log.contains("told twice"), "{log}");
}
