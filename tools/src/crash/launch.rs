//! What a server is started with that is to be killed.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::broker;
use crate::process::Process;

use super::Broker;

/// What a server is started with.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) broker: Broker,
    pub(super) binary: PathBuf,
    /// For its data directory, configuration and log.
    pub(super) dir: PathBuf,
    pub(super) reactors: usize,
    /// `process` or `disk`.
    pub(super) durability: &'static str,
}

impl Launch {
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn start(&self) -> io::Result<Process> {
        fs::create_dir_all(&self.dir)?;
        let log = self.dir.join("log");
        let (command, addr) = match self.broker {
            Broker::Stillwire => (self.stillwire()?, None),
            Broker::Mosquitto => {
                let addr = broker::free_address()?;
                (self.mosquitto(addr)?, Some(addr))
            }
        };
        Process::spawn(command, log, addr)
    }

    /// Limits far from what the clients do: none of them may be the reason for a loss.
    fn stillwire(&self) -> io::Result<Command> {
        let mut file = String::new();
        writeln!(
            file,
            "durability = \"{}\"\n\n[mqtt]\nqueue_messages = 1000000\nqueue_bytes = 1073741824\nmax_packet_size = 4194304",
            self.durability
        )
        .map_err(io::Error::other)?;
        let config = self.dir.join("stillwire.toml");
        fs::write(&config, file)?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(config);
        command.args(["--listen", "127.0.0.1:0", "--lookup", "off"]);
        command.arg("--reactors").arg(self.reactors.to_string());
        command.arg("--max-connections").arg("1000");
        command.arg("--data-dir").arg(self.data());
        Ok(command)
    }

    fn mosquitto(&self, addr: SocketAddr) -> io::Result<Command> {
        let data = self.data();
        fs::create_dir_all(&data)?;
        let file = format!(
            "listener {} {}\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\nmax_queued_messages 0\n",
            addr.port(),
            addr.ip(),
            data.display()
        );
        let config = self.dir.join("mosquitto.conf");
        fs::write(&config, file)?;
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(config);
        Ok(command)
    }
}
