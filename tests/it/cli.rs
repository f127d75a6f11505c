//! The binary as an operator meets it: what it prints, what it refuses, and with which exit code.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
