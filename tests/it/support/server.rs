//! A server process: started on a free port with a data directory of its own, and gone with the test.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::packet::Connect;
use super::{Client, PATIENCE};

/// Which broker the suite runs against. `STILLWIRE_TEST_BROKER=mosquitto` proves the suite itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    Stillwire,
    Mosquitto,
}

impl Broker {
    pub fn under_test() -> Self {
        match std::env::var("STILLWIRE_TEST_BROKER").as_deref() {
            Err(_) | Ok("stillwire") => Self::Stillwire,
            Ok("mosquitto") => Self::Mosquitto,
            Ok(other) => panic!("STILLWIRE_TEST_BROKER is stillwire or mosquitto, not {other}"),
        }
    }

    /// For what only this server does. Says so in the test's output and returns true where the test is to be left out.
    pub fn lacks(what: &str) -> bool {
        let lacks = Self::under_test() == Self::Mosquitto;
        if lacks {
            println!("left out, mosquitto lacks {what}");
        }
        lacks
    }
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub reactors: usize,
    /// Keys of `[mqtt]` in the configuration file.
    pub mqtt: Vec<(&'static str, u64)>,
    pub max_connections: Option<u32>,
    /// Kept by the caller, for a restart; otherwise a fresh one.
    pub data_dir: Option<PathBuf>,
    /// The policy for full queues, if not the default one.
    pub queue_full: Option<&'static str>,
    /// What stands in the configuration file before `[mqtt]`.
    pub config: String,
}

/// A running server. Killed when dropped; a test in which it died by itself fails.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    dir: PathBuf,
    log: PathBuf,
    killed: bool,
}

impl Server {
    /// The default configuration with this many reactors.
    pub fn start(reactors: usize) -> Self {
        Self::with(reactors, &[])
    }

    /// With some keys of `[mqtt]` set.
    pub fn with(reactors: usize, mqtt: &[(&'static str, u64)]) -> Self {
        Self::launch(&Options {
            reactors,
            mqtt: mqtt.to_vec(),
            max_connections: None,
            data_dir: None,
            queue_full: None,
            config: String::new(),
        })
    }

    pub fn launch(options: &Options) -> Self {
        Self::launch_with(options, &[])
    }

    /// With more flags of the command line.
    pub fn launch_with(options: &Options, flags: &[&str]) -> Self {
        // Side by side they would take each other's port.
        Self::launch_configured(options, "[lookup]\nlisten = []\n", flags)
    }

    /// With more tables of the configuration file.
    pub fn launch_configured(options: &Options, tables: &str, flags: &[&str]) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("server-{}-{serial}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for the server");
        let log = dir.join("log");
        let out = File::create(&log).expect("a log file");
        let mut command = match Broker::under_test() {
            Broker::Stillwire => stillwire(options, tables, &dir),
            Broker::Mosquitto => mosquitto(options, &dir),
        };
        command.args(flags);
        let err = out.try_clone().expect("the log file again");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the broker starts");
        let mut server = Self {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir,
            log,
            killed: false,
        };
        server.addr = server.ready();
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection with nothing said on it yet.
    pub fn open(&self, version: u8) -> Client {
        Client::open(self.addr, version)
    }

    /// A clean client that is connected.
    pub fn client(&self, version: u8, id: &str) -> Client {
        self.connect(&Connect::new(version, id)).0
    }

    /// A client that is connected, and whether a session was there.
    pub fn connect(&self, connect: &Connect<'_>) -> (Client, bool) {
        let mut client = self.open(connect.version);
        let present = client.connect(connect);
        (client, present)
    }

    /// Proportional set size in bytes, of the process alone.
    pub fn pss(&self) -> u64 {
        self.rollup("Pss:")
    }

    /// The part of it that no file backs: heap, stacks, and what it has written of its own data.
    pub fn own_memory(&self) -> u64 {
        self.rollup("Pss_Anon:")
    }

    fn rollup(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))
            .expect("smaps_rollup of the server");
        let line = text.lines().find(|line| line.starts_with(name));
        let kib: u64 = line
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no line {name} with a number of kB"));
        kib * 1024
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGHUP: files are read anew. Returns when the server has said so, in a line that has `word`.
    pub fn reload(&self, word: &str) {
        let before = self.log().matches(word).count();
        let pid = self.pid().to_string();
        let told = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(told.expect("kill").success());
        super::eventually("the server has read its files anew", || {
            self.log().matches(word).count() > before
        });
    }

    /// Where the lookup listens.
    pub fn lookup(&self) -> SocketAddr {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("ready"));
        let at = line.and_then(|line| line.split("lookup=\"").nth(1));
        let text = at.and_then(|at| at.split(['"', ' ']).next());
        text.and_then(|text| text.parse().ok())
            .expect("the address of the lookup in the log")
    }

    /// SIGTERM, and the caller waits.
    pub fn tell_to_end(&mut self) {
        self.killed = true;
        let pid = self.pid().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.expect("kill").success());
    }

    /// SIGKILL, as power loss is to a process. The data directory stays.
    pub fn kill(&mut self) {
        self.killed = true;
        self.child.kill().expect("a server to kill");
        self.child.wait().expect("the server's end");
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) {
        self.tell_to_end();
        assert_eq!(self.ended(), Some(0), "{}", self.log());
    }

    /// Waits for the end that something else has brought about, and gives the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.killed = true;
        self.child.wait().expect("the server's end").code()
    }

    /// Waits for the line that says ready, and takes the address from it.
    fn ready(&mut self) -> SocketAddr {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            // The line may be half written: only whole lines count.
            let whole = log.rfind('\n').map_or("", |end| &log[..end]);
            let found = whole
                .lines()
                .filter(|line| line.contains("ready"))
                .find_map(address);
            // mosquitto's line is written before it listens.
            if let Some(addr) = found
                && (Broker::under_test() == Broker::Stillwire || TcpStream::connect(addr).is_ok())
            {
                return addr;
            }
            let ended = self.child.try_wait().expect("the state of the server");
            assert!(
                ended.is_none() && Instant::now() < end,
                "the server did not get ready ({ended:?}):\n{log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        // The pid is ours until it is waited for, so this can't hit another process.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the server's last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        } else if !self.killed {
            assert!(
                ended.is_none(),
                "the server died by itself ({ended:?}):\n{log}"
            );
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn stillwire(options: &Options, tables: &str, dir: &Path) -> Command {
    let mut file = format!("{}\n[mqtt]\n", options.config);
    for (key, value) in &options.mqtt {
        writeln!(file, "{key} = {value}").expect("a string takes it");
    }
    if let Some(policy) = options.queue_full {
        writeln!(file, "queue_full = \"{policy}\"").expect("a string takes it");
    }
    file.push_str(tables);
    let config = dir.join("stillwire.toml");
    fs::write(&config, file).expect("the configuration file");
    let binary =
        std::env::var_os("STILLWIRE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_stillwire").into());
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg("--config")
        .arg(config)
        .args(["--listen", "127.0.0.1:0"]);
    // For a look at other numbers than those of the suite.
    let reactors = std::env::var("STILLWIRE_TEST_REACTORS").unwrap_or(options.reactors.to_string());
    command.args(["--reactors", &reactors]);
    command
        .arg("--data-dir")
        .arg(options.data_dir.clone().unwrap_or_else(|| dir.join("data")));
    if let Some(limit) = options.max_connections {
        command.args(["--max-connections", &limit.to_string()]);
    }
    command
}

fn mosquitto(options: &Options, dir: &Path) -> Command {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let mut file = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type all\nuser root\n"
    );
    if options.mqtt.iter().all(|(key, _)| *key != "queue_messages") {
        file.push_str("max_queued_messages 0\n");
    }
    writeln!(file, "# ready 127.0.0.1:{port}").expect("a string takes it");
    for (key, value) in &options.mqtt {
        let key = match *key {
            "max_packet_size" => "max_packet_size",
            "max_inflight" => "max_inflight_messages",
            "server_keep_alive" => "max_keepalive",
            "queue_messages" => "max_queued_messages",
            "sys_interval" => "sys_interval",
            _ => continue,
        };
        writeln!(file, "{key} {value}").expect("a string takes it");
    }
    let config = dir.join("mosquitto.conf");
    fs::write(&config, file).expect("the configuration file");
    // mosquitto's own line names the port alone, so the address is written before it for `ready` to find.
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "echo ready 127.0.0.1:{port}; exec mosquitto -c '{}'",
        config.display()
    ));
    command
}

/// The first `127.0.0.1:PORT` of a line.
fn address(line: &str) -> Option<SocketAddr> {
    let at = line.find("127.0.0.1:")?;
    let text: String = line[at..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.' || *c == ':')
        .collect();
    text.parse().ok()
}
