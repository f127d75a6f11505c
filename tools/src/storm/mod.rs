//! `tools storm`: the server restarts under all its phones, which come back without tickets, with tickets whose pacing they ignore, and with
//! tickets as they are meant, side by side.
//!
//! The server is a process of its own that is killed (SIGKILL) and started again by a supervisor; phones and supervisor are this process. What is
//! done stands in `loadgen/scenarios/storm-tickets.toml`.

mod page;
mod supervised;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loadgen::cli::{Numbers, Shared};
use loadgen::machine;
use loadgen::preflight::Machine;
use loadgen::report::Report;
use loadgen::sampling::Server;
use loadgen::scenario::{Kind, Restart, Scenario, runner};
use loadgen::watch::Watch;
use stillwire::sys::rlimit;

use crate::broker::{self, BESIDES, BrokerError};
use crate::cli;
use supervised::Supervised;

/// The scenario, unless another one is named.
const SCENARIO: &str = include_str!("../../../loadgen/scenarios/storm-tickets.toml");

/// How phones come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    NoTickets,
    Unpaced,
    Paced,
}

impl Variant {
    const ALL: [Self; 3] = [Self::NoTickets, Self::Unpaced, Self::Paced];

    fn name(self) -> &'static str {
        match self {
            Self::NoTickets => "no tickets",
            Self::Unpaced => "tickets, no pacing",
            Self::Paced => "tickets, pacing",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::NoTickets => "storm-no-tickets.json",
            Self::Unpaced => "storm-unpaced.json",
            Self::Paced => "storm-paced.json",
        }
    }
}

/// Why there is no table.
#[derive(Debug)]
pub(crate) enum StormError {
    /// There is no server to run.
    Broker(BrokerError),
    /// It doesn't serve.
    Server(String),
    /// A run couldn't begin.
    Run(&'static str, String),
    /// A file couldn't be read or written.
    Io(PathBuf, io::Error),
    /// Ctrl-C.
    Interrupted,
}

impl fmt::Display for StormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::Server(what) => f.write_str(what),
            Self::Run(variant, error) => write!(f, "{variant}: {error}"),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for StormError {}

/// The table, and whether all phones came back each time.
pub(crate) struct Storms {
    text: String,
    valid: bool,
}

impl Storms {
    pub(crate) fn is_valid(&self) -> bool {
        self.valid
    }
}

impl fmt::Display for Storms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Runs all variants, and writes their reports and the table.
pub(crate) fn run(args: &cli::Storm, interrupted: &Arc<AtomicBool>) -> Result<Storms, StormError> {
    // The server inherits it.
    rlimit::raise_open_files().map_err(|error| StormError::Io("open files".into(), error))?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("tools/runs").join(machine::today()),
    };
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| StormError::Io(path, error)
    };
    fs::create_dir_all(&out).map_err(io(&out))?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => broker::built().map_err(StormError::Broker)?,
    };
    let load = machine::load();
    let mut reports = Vec::new();
    for variant in Variant::ALL {
        let report = one(args, variant, &binary, interrupted)?;
        if report.interrupted {
            return Err(StormError::Interrupted);
        }
        let path = out.join(variant.file());
        fs::write(&path, report.to_json()).map_err(io(&path))?;
        reports.push((variant.name(), report));
    }
    let text = page::table(&reports, load);
    let path = out.join("storm-tickets.md");
    fs::write(&path, &text).map_err(io(&path))?;
    let back = |(_, report): &(_, Report)| {
        report.is_as_expected() && report.storms.iter().all(|storm| storm.back_after.is_some())
    };
    Ok(Storms {
        text,
        valid: reports.iter().all(back),
    })
}

fn one(
    args: &cli::Storm,
    variant: Variant,
    binary: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<Report, StormError> {
    let free = || broker::free_address().map_err(|error| StormError::Server(error.to_string()));
    let (mqtt, lookup) = (free()?, free()?);
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = dir.join(format!("stillwire-storm-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|error| StormError::Io(dir.clone(), error))?;
    let mut scenario = scenario(args, &dir, mqtt, lookup)?;
    let phones = scenario.phones.len() as u32;
    let reactors = args.reactors(phones);
    let config = configure(&dir, mqtt, lookup, reactors, phones)
        .map_err(|error| StormError::Io(dir.clone(), error))?;
    let program = binary.to_owned();
    let serve = move || {
        let mut command = Command::new(&program);
        command.arg("serve").arg("--config").arg(&config);
        command
    };
    let server =
        Supervised::start(dir.clone(), serve, &[mqtt, lookup]).map_err(StormError::Server)?;
    scenario.server = Some(Server::File(server.pid_file()));
    let kill = format!("kill -9 \"$(cat '{}')\"", server.pid_file().display());
    for phase in &mut scenario.phases {
        if let Some(planned) = &mut phase.storm {
            planned.restart = Some(Restart::Command(kill.clone()));
        }
    }
    match &mut scenario.tickets {
        Some(_) if variant == Variant::NoTickets => scenario.tickets = None,
        Some(tickets) => tickets.pacing = variant == Variant::Paced,
        None => {}
    }
    let failed = |error: String| StormError::Run(variant.name(), error);
    let machine = Machine::read().map_err(|error| failed(error.to_string()))?;
    let mut watch = Watch::new(scenario.quiet, Arc::clone(interrupted));
    watch.note(&format!("{}, {reactors} reactors:", variant.name()));
    runner::run(&scenario, &machine, &mut watch).map_err(|error| failed(error.to_string()))
}

fn scenario(
    args: &cli::Storm,
    dir: &Path,
    mqtt: SocketAddr,
    lookup: SocketAddr,
) -> Result<Scenario, StormError> {
    let path = dir.join("storm-tickets.toml");
    fs::write(&path, SCENARIO).map_err(|error| StormError::Io(path.clone(), error))?;
    let path = args.scenario.clone().unwrap_or(path);
    let url = format!("http://{lookup}").parse();
    let shared = Shared {
        addr: Some(vec![mqtt]),
        connections: args.connections.map(|phones| Numbers {
            range: 0..phones,
            part: false,
        }),
        rate: args.rate,
        lookup: Some(url.unwrap_or_else(|_| unreachable!("an address makes a URL"))),
        scenario: Some(path),
        ..Shared::default()
    };
    Scenario::of(Kind::Storm(None), &shared)
        .map_err(|error| StormError::Run("scenario", error.to_string()))
}

/// Writes the server's configuration: tickets are signed, and who has none is let in as well.
fn configure(
    dir: &Path,
    mqtt: SocketAddr,
    lookup: SocketAddr,
    reactors: usize,
    phones: u32,
) -> io::Result<PathBuf> {
    let secret: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(32)
        .collect();
    let keys = dir.join("keys.toml");
    fs::write(
        &keys,
        format!(
            "[[key]]\nid = \"storm\"\nalgorithm = \"HS256\"\nsecret = \"{}\"\nsign = true\n",
            STANDARD.encode(secret)
        ),
    )?;
    let config = dir.join("stillwire.toml");
    let text = format!(
        "listen = [\"{mqtt}\"]\nreactors = {reactors}\nmax_connections = {}\ndata_dir = '{}'\nauth = [\"ticket\", \"open\"]\n\
         [access]\nkeys = '{}'\n[lookup]\nlisten = [\"{lookup}\"]\n",
        phones + BESIDES,
        dir.join("data").display(),
        keys.display(),
    );
    fs::write(&config, text)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_is_read() {
        let dir = broker::directory().with_extension("scenario");
        fs::create_dir_all(&dir).unwrap();
        let args = cli::Storm::default();
        let addr = broker::free_address().unwrap();
        let scenario = scenario(&args, &dir, addr, addr).unwrap();
        assert_eq!(scenario.phones, 0..200_000);
        assert!(
            scenario
                .tickets
                .is_some_and(|tickets| tickets.pacing && tickets.cache)
        );
        let storm = scenario.phases[0].storm.as_ref().unwrap();
        assert!(matches!(storm.restart, Some(Restart::Command(_))));
        fs::remove_dir_all(&dir).unwrap();
    }
}
