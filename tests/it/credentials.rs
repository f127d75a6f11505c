//! `stillwire passwd`, `key` and `token` as an operator uses them, and the check that no server is opened to others by mistake.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory of one test's own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "stillwire-credentials-{name}-{}",
            std::process::id()
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stillwire"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that wants no input may have ended.
    _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    line.trim_end().to_owned()
}

#[test]
fn a_password_comes_from_standard_input() {
    let scratch = Scratch::new("passwd");
    let file = scratch.path("users");
    assert_eq!(
        done(&run(&["passwd", &file, "ann"], b"first\n")),
        "added ann\n"
    );
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read_to_string(&file).unwrap();
    assert!(before.starts_with("ann::$argon2id$v=19$") && !before.contains("first"));
    let again = run(&["passwd", &file, "ann", "--app", "shop"], b"second");
    assert_eq!(done(&again), "changed ann\n");
    assert_eq!(
        done(&run(&["passwd", &file, "bob"], b"x\r\nmore\n")),
        "added bob\n"
    );
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(
        after.starts_with("ann:shop:$argon2id$") && after.lines().count() == 2,
        "{after}"
    );
    let long = vec![b'x'; 65_536];
    for (user, input, code) in [
        ("ann", &b""[..], 64),
        ("ann", b"\nx", 64),
        ("a:b", b"x", 64),
        ("", b"x", 64),
        ("ann", &long, 74),
    ] {
        refused(&run(&["passwd", &file, user], input), code);
    }
    refused(&run(&["passwd", &file, "ann", "--app", "a b"], b"x"), 64);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
    let nowhere = scratch.path("no/users");
    let line = refused(&run(&["passwd", &nowhere, "ann"], b"x"), 74);
    assert!(line.contains("no/users: cannot be written"), "{line}");
    let broken = scratch.path("broken");
    std::fs::write(&broken, "\nx\n").unwrap();
    let line = refused(&run(&["passwd", &broken, "ann"], b"x"), 78);
    assert!(line.contains("broken:2: a line is user:app:hash"), "{line}");
}

#[test]
fn a_key_signs_and_a_ticket_is_printed() {
    let scratch = Scratch::new("key");
    let file = scratch.path("keys.toml");
    let line = refused(
        &run(&["token", "--keys", &file, "--client-id", "a"], b""),
        78,
    );
    assert!(line.contains("keys.toml: cannot be read"), "{line}");
    assert!(done(&run(&["key", &file], b"")).starts_with("added k-"));
    assert_eq!(
        done(&run(&["key", &file, "--id", "2026"], b"")),
        "added 2026, which signs from now on\n"
    );
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let arguments = [
        "token",
        "--keys",
        &file,
        "--client-id",
        "phone-1",
        "--app",
        "shop",
        "--ttl",
        "60",
    ];
    let token = done(&run(&arguments, b""));
    assert_eq!((token.matches('.').count(), token.lines().count()), (2, 1));
    let line = refused(&run(&["key", &file, "--id", "2026"], b""), 78);
    assert!(line.contains("key \"2026\" stands twice"), "{line}");
    let line = refused(
        &run(
            &["token", "--keys", &file, "--client-id", "a", "--app", "a/b"],
            b"",
        ),
        64,
    );
    assert!(line.contains("an app key has"), "{line}");
    std::fs::write(&file, "").unwrap();
    let line = refused(
        &run(&["token", "--keys", &file, "--client-id", "a"], b""),
        64,
    );
    assert!(
        line.contains("no key of the keys file signs; add one with"),
        "{line}"
    );
}

#[test]
fn no_server_is_open_to_others_by_mistake() {
    for command in ["serve", "config"] {
        let line = refused(&run(&[command, "--listen", "0.0.0.0:1883"], b""), 78);
        assert!(
            line.contains("--listen: listen: 0.0.0.0:1883 is not loopback")
                && line.contains("allow_open = true (--allow-open)"),
            "{line}"
        );
    }
    let config = run(&["config", "--listen", "0.0.0.0:1883", "--allow-open"], b"");
    assert!(done(&config).contains("allow_open = true"));
    let line = refused(&run(&["config", "--auth", "ticket"], b""), 78);
    assert!(
        line.contains("--auth: auth: \"ticket\" needs access.keys"),
        "{line}"
    );
    let line = refused(&run(&["config", "--auth", "nothing"], b""), 78);
    assert!(
        line.contains("a list of one or more of \"open\", \"ticket\""),
        "{line}"
    );
}

#[test]
fn a_server_that_is_open_to_others_says_so() {
    let scratch = Scratch::new("open");
    let data_dir = scratch.path("data");
    // An address for documentation (RFC 5737): nobody's, so that the server ends at once.
    let arguments = [
        "serve",
        "--listen",
        "192.0.2.1:1883",
        "--data-dir",
        &data_dir,
    ];
    let open = run(&[&arguments[..], &["--allow-open"]].concat(), b"");
    let log = String::from_utf8(open.stderr).unwrap();
    assert_eq!(open.status.code(), Some(69), "{log}");
    assert!(
        log.contains("auth has \"open\": whoever reaches 192.0.2.1:1883 gets in"),
        "{log}"
    );
    let users = scratch.path("users");
    done(&run(&["passwd", &users, "ann"], b"x"));
    let config = scratch.path("sw.toml");
    std::fs::write(&config, format!("access.passwords = \"{users}\"")).unwrap();
    let closed = [
        &arguments[..],
        &["--auth", "password-file", "--config", &config],
    ]
    .concat();
    let closed = run(&closed, b"");
    let log = String::from_utf8(closed.stderr).unwrap();
    assert_eq!(closed.status.code(), Some(69), "{log}");
    assert!(!log.contains("whoever"), "{log}");
}
