//! `stillwire serve`: the server's life from the lock on its data directory to the last connection drained.

use std::net::SocketAddr;
use std::sync::Arc;

use stillwire::access::Access;
use stillwire::config::resolved::Config;
use stillwire::config::{Origin, Settings};
use stillwire::data_dir::DataDir;
use stillwire::logs::LogsError;
use stillwire::lookup::LookupError;
use stillwire::server::{Handle, Server, StartError};
use stillwire::sizing::{Role, Sums};
use stillwire::sys;
use stillwire::sys::signals::{Signal, Signals};
use tracing::{error, info, warn};

use crate::exit::{self, Failure};
use crate::logging;

/// Runs the server until SIGTERM or SIGINT.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let Settings {
        config, capacity, ..
    } = settings;
    // Before the first thread starts.
    let signals = Signals::block().map_err(Failure::Signals)?;
    logging::start(&config.log);
    if let Err(error) = sys::memory::use_small_pages() {
        warn!(
            "small pages can't be asked for ({error}): a few thousand connections take more memory each"
        );
    }
    let data_dir = DataDir::lock(&config.data_dir)?;
    info!("{capacity}");
    let connections = u64::from(config.max_connections);
    info!("{}", Sums::of(connections, Role::Server, config.reactors));
    if u64::from(config.max_connections) > capacity.connections() {
        warn!(
            "max_connections {} is more than this machine allows ({}, limited by {})",
            config.max_connections,
            capacity.connections(),
            capacity.limited_by()
        );
    }
    if config.is_open()
        && let Some(address) = config
            .listen
            .iter()
            .find(|address| !address.ip().to_canonical().is_loopback())
    {
        warn!("auth has \"open\": whoever reaches {address} gets in without a password");
    }
    let failed = |error| {
        let origin = key_of(&error).map_or(Origin::Default, |key| settings.origin(key).clone());
        Failure::Start(origin, error)
    };
    let mut server = Server::open(config, &data_dir).map_err(failed)?;
    server.start_lookup(config).map_err(failed)?;
    let named = |addresses: &[SocketAddr]| {
        let named: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        named.join(" ")
    };
    let lookup = server.lookup().map(|lookup| named(lookup.addresses()));
    info!(
        listen = named(server.addresses()),
        lookup = lookup.as_deref().unwrap_or("off"),
        reactors = config.reactors,
        max_connections = config.max_connections,
        data_dir = %data_dir.path().display(),
        "ready"
    );
    answer_signals(signals, server.handle(), config.clone()).map_err(Failure::Signals)?;
    server.join().map_err(Failure::Reactor)?;
    info!("ended");
    Ok(())
}

/// SIGHUP has the files read anew. The first signal to end begins the drain; a second one does not wait for its end.
fn answer_signals(signals: Signals, handle: Handle, config: Config) -> std::io::Result<()> {
    let answer = move || {
        let mut drains = false;
        while let Ok(signal) = signals.wait() {
            match signal {
                Signal::Reload => reload(&handle, &config),
                _ if drains => {
                    warn!(signal = name(signal), "told twice, ending at once");
                    std::process::exit(i32::from(exit::CUT_SHORT));
                }
                _ => {
                    info!(signal = name(signal), "draining");
                    handle.shutdown();
                    drains = true;
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(answer)
        .map(drop)
}

/// Reads the files of access anew, and that of nodes. One that is broken leaves everything as it was.
fn reload(handle: &Handle, config: &Config) {
    match Access::load(&config.access, &config.auth) {
        Ok(access) => {
            if handle.set_access(&Arc::new(access)) {
                info!("read who may come in, and what they may do, anew");
            } else {
                error!("a reactor takes no mail, so the old rules hold there: send SIGHUP again");
            }
        }
        Err(error) => error!("{error}; what was read before holds"),
    }
    if let Err(error) = handle.reload_nodes(config) {
        error!("{error}; the nodes that were read before hold");
    }
}

/// The key that an operator changes; none: the error names a file and its line.
fn key_of(error: &StartError) -> Option<&'static str> {
    Some(match error {
        StartError::Listen(..) => "listen",
        StartError::Pin { .. } => "pin",
        StartError::OpenFiles { .. } => "max_connections",
        StartError::Gate(_) => "auth",
        StartError::Store(LogsError::Rewrite(..)) | StartError::System(..) => "reactors",
        StartError::Store(..) => "data_dir",
        StartError::Lookup(LookupError::Listen(..) | LookupError::System(_)) => "lookup.listen",
        StartError::Lookup(LookupError::Config(key, _)) => key,
        StartError::Lookup(LookupError::Nodes(_)) | StartError::Access(_) => return None,
    })
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Terminate => "SIGTERM",
        Signal::Interrupt => "SIGINT",
        Signal::Reload => "SIGHUP",
    }
}
