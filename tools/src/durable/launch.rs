//! The brokers that keep sessions and messages on disk, each with no limit in the way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::broker;
use crate::process::Process;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Broker {
    /// This project's, at the durability that --durability names.
    Stillwire,
    /// Eclipse Mosquitto with persistence on: it writes its whole store when it ends, and loses it when it is killed.
    Mosquitto,
    /// The NATS server, which keeps MQTT sessions in its own store, `JetStream`.
    NatsServer,
}

/// How a broker is started.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) broker: Broker,
    pub(super) binary: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) reactors: usize,
    pub(super) durability: &'static str,
    /// Sessions, and connections at the same time.
    pub(super) sessions: u32,
    /// The directory stays.
    pub(super) keeps: bool,
}

impl Broker {
    /// The MQTT version that its clients here speak.
    pub(super) fn version(self) -> u8 {
        match self {
            Self::Stillwire | Self::Mosquitto => 5,
            Self::NatsServer => 4,
        }
    }

    /// It has written what it has when it is killed.
    pub(super) fn survives_sigkill(self) -> bool {
        self != Self::Mosquitto
    }
}

impl Launch {
    pub(super) fn name(&self) -> String {
        match self.broker {
            Broker::Stillwire => {
                format!("stillwire, {}, {} reactors", self.durability, self.reactors)
            }
            Broker::Mosquitto => "mosquitto, persistence".into(),
            Broker::NatsServer => "nats-server, JetStream".into(),
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Whether an earlier run has made the sessions and kept them. They must be those that this one would make.
    pub(super) fn is_made(&self, what: &str) -> Result<bool, String> {
        if !self.keeps {
            return Ok(false);
        }
        match fs::read_to_string(self.made()) {
            Ok(made) if made == what => Ok(true),
            Ok(made) => Err(format!(
                "{} holds other sessions: {made}, not {what}",
                self.dir.display()
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match fs::exists(self.data()) {
                    Ok(false) => Ok(false),
                    _ => Err(format!(
                        "{}: a run that was to make its sessions did not come to its end; remove it",
                        self.dir.display()
                    )),
                }
            }
            Err(error) => Err(format!("{}: {error}", self.dir.display())),
        }
    }

    /// Says what was made.
    pub(super) fn note_made(&self, what: &str) -> io::Result<()> {
        if self.keeps {
            fs::write(self.made(), what)?;
        }
        Ok(())
    }

    fn made(&self) -> PathBuf {
        self.dir.join("made")
    }

    pub(super) fn start(&self) -> io::Result<Process> {
        fs::create_dir_all(self.data())?;
        let log = self.dir.join("log");
        if self.broker == Broker::Stillwire {
            return Process::spawn(self.stillwire()?, log, None);
        }
        let addr = broker::free_address()?;
        let data = self.data();
        let data = data.display();
        let port = addr.port();
        let (name, text) = match self.broker {
            Broker::Mosquitto => (
                "mosquitto",
                format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
                     persistence true\npersistence_location {data}/\n"
                ),
            ),
            _ => (
                "nats-server",
                format!(
                    "server_name: durable\nlisten: 127.0.0.1:-1\nmqtt {{\n  listen: \"127.0.0.1:{port}\"\n  max_ack_pending: 1000\n}}\n\
                     jetstream {{\n  store_dir: \"{data}\"\n}}\n"
                ),
            ),
        };
        let config = self.write(&format!("{name}.conf"), &text)?;
        let mut command = Command::new(name);
        command.arg("-c").arg(config);
        Process::spawn(command, log, Some(addr))
    }

    fn stillwire(&self) -> io::Result<Command> {
        let text = format!(
            "durability = \"{}\"\n\n[mqtt]\nqueue_messages = 4000000\nqueue_bytes = 4294967295\nmax_sessions = {}\n",
            self.durability,
            self.sessions + 100
        );
        let config = self.write("stillwire.toml", &text)?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(config);
        command.args(["--listen", "127.0.0.1:0", "--lookup", "off"]);
        command.arg("--reactors").arg(self.reactors.to_string());
        command.arg("--data-dir").arg(self.data());
        Ok(command)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// Bytes that a directory takes on disk.
pub(super) fn disk(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A segment may be removed while we look.
        let Ok(data) = entry.metadata() else { continue };
        sum += if data.is_dir() {
            disk(&entry.path())?
        } else {
            data.blocks() * 512
        };
    }
    Ok(sum)
}
