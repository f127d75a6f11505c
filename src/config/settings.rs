//! From what was typed to what the server runs with, and the origin of each value.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use super::error::{ConfigError, Origin, TooFewFiles};
use super::keys::{self, KEYS};
use super::resolved::{AskMethod, Config, Method, Steer};
use super::value::Value;
use super::written::{self, Entry, Flag};
use crate::limits;
use crate::sys::capacity::{self, Capacity, Machine};

/// A checked configuration that knows where each value comes from. Displayed, it is a TOML file that resolves to itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the server runs with.
    pub config: Config,
    /// What this machine allows with so many reactors.
    pub capacity: Capacity,
    /// One for each of [`KEYS`].
    origins: Vec<Origin>,
}

impl Settings {
    /// Flags over the file over the defaults, checked against what the machine allows.
    pub fn load(
        file: Option<&Path>,
        flags: &[Flag],
        machine: &Machine,
    ) -> Result<Self, ConfigError> {
        let mut entries = file.map_or(Ok(Vec::new()), written::read_file)?;
        for flag in flags {
            entries.push(written::from_flag(flag)?);
        }
        Self::resolve(entries, machine)
    }

    /// The same from entries; a later one overrides an earlier one.
    pub fn resolve(entries: Vec<Entry>, machine: &Machine) -> Result<Self, ConfigError> {
        let mut origins = vec![Origin::Default; KEYS.len()];
        let mut values: Vec<Option<Value>> = vec![None; KEYS.len()];
        for entry in entries {
            values[entry.key] = Some(entry.value);
            origins[entry.key] = entry.origin;
        }
        // One of each stands for "not chosen yet"; both are set below.
        let mut config = Config::new(1, 1);
        let mut chosen = vec![false; KEYS.len()];
        for (at, value) in values.into_iter().enumerate() {
            if let Some(value) = value.filter(|value| *value != Value::Auto) {
                (KEYS[at].set)(&mut config, value);
                chosen[at] = true;
            }
        }

        let reactors = place("reactors");
        if !chosen[reactors] {
            config.reactors = machine.cores.clamp(1, limits::MAX_REACTORS);
            origins[reactors] = Origin::Auto("one for each core this process may use".to_owned());
        }
        let capacity = Capacity::of(machine, config.reactors);
        let mut settings = Self {
            config,
            capacity,
            origins,
        };
        let connections = place("max_connections");
        if chosen[connections] {
            settings.check_files(machine, u64::from(settings.config.max_connections))?;
        } else {
            settings.choose_connections(machine)?;
        }
        settings.check_contradictions()?;
        Ok(settings)
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> &Origin {
        &self.origins[place(key)]
    }

    fn choose_connections(&mut self, machine: &Machine) -> Result<(), ConfigError> {
        self.check_files(machine, 1)?;
        let allowed = self
            .capacity
            .connections()
            .clamp(1, limits::MAX_CONNECTIONS);
        let sessions = u64::from(self.config.mqtt.max_sessions);
        let reason = if sessions < allowed {
            "limited by mqtt.max_sessions".to_owned()
        } else {
            format!(
                "what this machine allows, limited by {}",
                self.capacity.limited_by()
            )
        };
        // Below MAX_CONNECTIONS, so it fits.
        self.config.max_connections = allowed.min(sessions) as u32;
        self.origins[place("max_connections")] = Origin::Auto(reason);
        Ok(())
    }

    fn check_files(&self, machine: &Machine, wanted: u64) -> Result<(), ConfigError> {
        if wanted <= self.capacity.files {
            return Ok(());
        }
        Err(ConfigError::TooFewFiles(Box::new(TooFewFiles {
            origin: self.origin("max_connections").clone(),
            wanted,
            allowed: self.capacity.files,
            open_files: machine.open_files,
            reactors: self.config.reactors,
            enough_reactors: capacity::reactors_for(machine, wanted),
            enough_files: capacity::open_files_for(wanted, self.config.reactors),
        })))
    }

    /// Values that are fine alone but not together.
    fn check_contradictions(&self) -> Result<(), ConfigError> {
        let mqtt = &self.config.mqtt;
        if mqtt.max_connect_size > mqtt.max_packet_size {
            let what = format!(
                "{} bytes are more than mqtt.max_packet_size allows ({}); lower this or raise that",
                mqtt.max_connect_size, mqtt.max_packet_size
            );
            return Err(self.contradiction("mqtt.max_connect_size", "mqtt.max_packet_size", what));
        }
        if self.config.steer == Steer::Cpu && !self.config.pin {
            let what = "\"cpu\" needs reactors that stay on their cores; set pin = true, or steer = \"off\"";
            return Err(self.contradiction("steer", "pin", what.to_owned()));
        }
        if let Some(what) = self.misplaced_home_ports() {
            return Err(self.contradiction("home_ports", "reactors", what));
        }
        if self.config.max_connections > mqtt.max_sessions {
            let what = format!(
                "{} connections need as many sessions, and mqtt.max_sessions is {}; lower this or raise that",
                self.config.max_connections, mqtt.max_sessions
            );
            return Err(self.contradiction("max_connections", "mqtt.max_sessions", what));
        }
        self.check_auth()?;
        self.check_lookup()
    }

    /// What the lookup needs to be there, and what must not be the wrong way round.
    fn check_lookup(&self) -> Result<(), ConfigError> {
        let (lookup, access) = (&self.config.lookup, &self.config.access);
        for (method, word, key, path) in [
            (AskMethod::App, "app", "access.apps", &access.apps),
            (AskMethod::Jwt, "jwt", "access.issuers", &access.issuers),
        ] {
            if lookup.ask.contains(&method) && path.as_os_str().is_empty() {
                let what = format!("\"{word}\" needs {key}; set it, or take the method out");
                return Err(self.contradiction("lookup.ask", key, what));
            }
        }
        let is_beyond = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
        let beyond = lookup.listen.iter().find(is_beyond);
        if let Some(address) = beyond.filter(|_| lookup.is_open() && !lookup.allow_open) {
            let what = format!(
                "{address} is not loopback and lookup.ask has \"open\", so that anybody there gets a ticket for any client; name other methods in lookup.ask, or mean it with lookup.allow_open = true"
            );
            return Err(self.contradiction("lookup.listen", "lookup.ask", what));
        }
        for (low, least, high, most) in [
            (
                "lookup.pace_floor",
                lookup.pace_floor,
                "lookup.pace_ceiling",
                lookup.pace_ceiling,
            ),
            (
                "lookup.retry_min",
                lookup.retry_min,
                "lookup.retry_max",
                lookup.retry_max,
            ),
            (
                "lookup.keep_alive_min",
                lookup.keep_alive_min.into(),
                "lookup.keep_alive",
                lookup.keep_alive.into(),
            ),
            (
                "lookup.keep_alive",
                lookup.keep_alive.into(),
                "lookup.keep_alive_max",
                lookup.keep_alive_max.into(),
            ),
        ] {
            if least > most {
                let what =
                    format!("{least} is more than {high} ({most}); lower this or raise that");
                return Err(self.contradiction(low, high, what));
            }
        }
        Ok(())
    }

    /// What each method of `auth` needs to be there, and that nobody opens a server to the world without a word.
    fn check_auth(&self) -> Result<(), ConfigError> {
        let access = &self.config.access;
        for (method, word, key, given) in [
            (
                Method::Ticket,
                "ticket",
                "access.keys",
                !access.keys.as_os_str().is_empty(),
            ),
            (
                Method::PasswordFile,
                "password-file",
                "access.passwords",
                !access.passwords.as_os_str().is_empty(),
            ),
            (
                Method::Jwt,
                "jwt",
                "access.issuers",
                !access.issuers.as_os_str().is_empty(),
            ),
            (
                Method::Http,
                "http",
                "access.http_url",
                !access.http_url.is_empty(),
            ),
        ] {
            if self.config.auth.contains(&method) && !given {
                let what = format!("\"{word}\" needs {key}; set it, or take the method out");
                return Err(self.contradiction("auth", key, what));
            }
        }
        let beyond = self
            .config
            .listen
            .iter()
            .find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = beyond.filter(|_| self.config.is_open() && !self.config.allow_open) {
            let what = format!(
                "{address} is not loopback and auth has \"open\", so that anybody there gets in; name other methods in auth, or mean it with allow_open = true (--allow-open)"
            );
            return Err(self.contradiction("listen", "auth", what));
        }
        Ok(())
    }

    /// What is wrong with the reactors' own ports.
    fn misplaced_home_ports(&self) -> Option<String> {
        let (first, reactors) = (u64::from(self.config.home_ports), self.config.reactors);
        if first == 0 {
            return None;
        }
        let last = first + reactors as u64 - 1;
        if last > u64::from(u16::MAX) {
            return Some(format!(
                "{reactors} reactors have ports up to {last}, and there are 65535; use {} or less",
                u64::from(u16::MAX) - reactors as u64 + 1
            ));
        }
        let taken = |address: &&SocketAddr| (first..=last).contains(&u64::from(address.port()));
        let taken = self.config.listen.iter().find(taken)?;
        Some(format!(
            "ports {first} to {last} are the reactors' own, and {taken} in listen is one of them; move one of the two"
        ))
    }

    /// At the place of `key`, or of `other` if only that one was given.
    fn contradiction(&self, key: &'static str, other: &'static str, what: String) -> ConfigError {
        let given = match self.origin(key) {
            Origin::Default | Origin::Auto(_) => self.origin(other),
            origin => origin,
        };
        ConfigError::Contradiction(given.clone(), key, what)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = "";
        for (key, origin) in KEYS.iter().zip(&self.origins) {
            let (of, name) = key.split();
            if of != table {
                writeln!(f, "\n[{of}]")?;
                table = of;
            }
            let line = format!("{name} = {}", key.kind.print(&(key.get)(&self.config)));
            writeln!(f, "{line:<40}  # {origin}")?;
        }
        Ok(())
    }
}

fn place(key: &str) -> usize {
    keys::position(key).expect("a key of the table")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Raw;

    const MACHINE: Machine = Machine {
        cores: 2,
        open_files: 20_000,
        memory: 20_000_000_000,
        tcp_pages: Some(560_000),
    };

    fn resolve(text: &str, flags: &[Flag]) -> Result<Settings, ConfigError> {
        let mut entries = written::parse("sw.toml", text)?;
        for flag in flags {
            entries.push(written::from_flag(flag)?);
        }
        Settings::resolve(entries, &MACHINE)
    }

    fn flag(name: &'static str, key: &'static str, value: &str) -> Flag {
        Flag {
            name,
            key,
            raw: Raw::from_flag(value),
        }
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let settings = resolve(
            "reactors = 3\npin = false\n",
            &[flag("--reactors", "reactors", "5")],
        )
        .unwrap();
        assert_eq!((settings.config.reactors, settings.config.pin), (5, false));
        assert_eq!(settings.origin("reactors"), &Origin::Flag("--reactors"));
        assert_eq!(settings.origin("pin").to_string(), "sw.toml:2:7");
        assert_eq!(settings.origin("listen"), &Origin::Default);
    }

    #[test]
    fn auto_is_what_the_machine_allows() {
        let settings = resolve("", &[]).unwrap();
        assert_eq!(settings.config.reactors, 2);
        assert_eq!(
            u64::from(settings.config.max_connections),
            settings.capacity.connections()
        );
        assert!(
            settings
                .origin("max_connections")
                .to_string()
                .contains("limited by fds")
        );
        let settings = resolve("reactors = \"auto\"\nmqtt.max_sessions = 100\n", &[]).unwrap();
        assert_eq!(
            (settings.config.reactors, settings.config.max_connections),
            (2, 100)
        );
    }

    #[test]
    fn what_is_printed_resolves_to_itself() {
        let text = "reactors = 7\ndata_dir = \"a \\\"b\\\" # c\"\nlog.format = \"json\"\nmqtt.connect_timeout = 61\nmqtt.queue_bytes = 5000\n\
                    mqtt.max_session_expiry = 4294967295\nlisten = [\"[::1]:1883\", \"127.0.0.1:0\"]";
        for text in ["", text] {
            let first = resolve(text, &[]).unwrap();
            let second = resolve(&first.to_string(), &[]).unwrap();
            assert_eq!(first.config, second.config);
            assert_eq!(
                first.to_string().lines().count(),
                second.to_string().lines().count()
            );
        }
    }

    #[test]
    fn too_few_files_says_what_would_do() {
        let error = resolve(
            "",
            &[flag("--max-connections", "max_connections", "100000")],
        )
        .unwrap_err();
        let ConfigError::TooFewFiles(few) = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (
                few.wanted,
                few.open_files,
                few.reactors,
                few.enough_reactors
            ),
            (100_000, 20_000, 2, Some(6))
        );
        let line = error.to_string();
        assert!(
            line.starts_with("--max-connections: max_connections: 100000 connections don't fit")
                && !line.contains('\n'),
            "{line}"
        );
        assert!(
            line.contains("use --reactors 6, or raise the hard limit (ulimit -Hn) to 5"),
            "{line}"
        );
        assert!(resolve("reactors = 6\nmax_connections = 100000", &[]).is_ok());
        // The automatic choice does not hide that nothing is possible.
        let tiny = Machine {
            open_files: 50,
            ..MACHINE
        };
        assert!(matches!(
            Settings::resolve(Vec::new(), &tiny),
            Err(ConfigError::TooFewFiles(_))
        ));
    }

    #[test]
    fn a_server_is_opened_to_others_only_by_a_word() {
        let beyond = "listen = [\"127.0.0.1:1883\", \"0.0.0.0:1883\"]\n";
        let error = resolve(beyond, &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("sw.toml:1:10: listen: 0.0.0.0:1883 is not loopback")
                && error.contains("allow_open = true (--allow-open)"),
            "{error}"
        );
        let error = resolve(
            "listen = [\"[::]:1883\"]\nauth = [\"open\", \"http\"]\naccess.http_url = \"http://h/\"",
            &[],
        );
        assert!(matches!(error, Err(ConfigError::Contradiction(..))));
        for fine in [
            "allow_open = true\nlisten = [\"0.0.0.0:1883\"]",
            "auth = [\"ticket\"]\naccess.keys = \"k\"\nlisten = [\"0.0.0.0:1883\"]",
            "listen = [\"127.9.9.9:1883\", \"[::1]:1883\", \"[::ffff:127.0.0.1]:1883\"]",
        ] {
            assert!(resolve(fine, &[]).is_ok(), "{fine}");
        }
        let meant = Flag {
            name: "--allow-open",
            key: "allow_open",
            raw: Raw::Boolean(true),
        };
        assert!(resolve(beyond, &[meant]).is_ok());
    }

    #[test]
    fn a_method_needs_its_file() {
        for (method, key) in [
            ("ticket", "access.keys"),
            ("password-file", "access.passwords"),
            ("jwt", "access.issuers"),
            ("http", "access.http_url"),
        ] {
            let text = format!("auth = [\"{method}\"]");
            let error = resolve(&text, &[]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!(
                    "sw.toml:1:8: auth: \"{method}\" needs {key}; set it"
                )),
                "{error}"
            );
            let text = format!("{text}\n{key} = \"http://h/\"");
            assert!(resolve(&text, &[]).is_ok(), "{text}");
        }
        for wrong in [
            "auth = []",
            "auth = [\"open\", \"open\"]",
            "auth = [\"oppen\"]",
            "auth = \"open\"",
            "auth = [3]",
            "access.http_url = \"https://h/\"",
            "access.http_url = \"h\"",
            "access.http_url = \"http://\"",
            "access.keys = \"a\\u0000\"",
        ] {
            let error = resolve(wrong, &[]).unwrap_err();
            assert!(matches!(error, ConfigError::Value(..)), "{wrong}: {error}");
        }
    }

    #[test]
    fn contradictions_are_told_at_the_place_that_was_written() {
        let error = resolve("mqtt.max_packet_size = 1024", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("sw.toml:1:24: mqtt.max_connect_size: 65536 bytes are more"),
            "{error}"
        );
        let error = resolve("mqtt.max_sessions = 10\nmax_connections = 11", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("sw.toml:2:19: max_connections: 11 connections"),
            "{error}"
        );
        let error = resolve("pin = false\nsteer = \"cpu\"", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("sw.toml:2:9: steer: \"cpu\" needs reactors that stay"),
            "{error}"
        );
        let error = resolve("reactors = 10\nhome_ports = 65530", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("sw.toml:2:14: home_ports: 10 reactors have ports up to 65539"),
            "{error}"
        );
        let error = resolve("reactors = 10\nhome_ports = 1880", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("127.0.0.1:1883 in listen is one of them"),
            "{error}"
        );
    }
}
