//! `stillwire serve`: the server's life from the lock on its data directory to the last connection drained.

use stillwire::config::Settings;
use stillwire::data_dir::DataDir;
use stillwire::logs::LogsError;
use stillwire::server::{Server, StartError, Stopper};
use stillwire::sizing::{Role, Sums};
use stillwire::sys;
use stillwire::sys::signals::{Signal, Signals};
use tracing::{info, warn};

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
    let server = Server::open(config, &data_dir).map_err(|error| {
        let origin = settings.origin(key_of(&error)).clone();
        Failure::Start(origin, error)
    })?;
    let listen: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    info!(
        listen = listen.join(" "),
        reactors = config.reactors,
        max_connections = config.max_connections,
        data_dir = %data_dir.path().display(),
        "ready"
    );
    answer_signals(signals, server.stopper()).map_err(Failure::Signals)?;
    server.join().map_err(Failure::Reactor)?;
    info!("ended");
    Ok(())
}

/// The first signal begins the drain; a second one does not wait for its end.
fn answer_signals(signals: Signals, stopper: Stopper) -> std::io::Result<()> {
    let answer = move || {
        let Ok(signal) = signals.wait() else { return };
        info!(signal = name(signal), "draining");
        stopper.shutdown();
        let Ok(signal) = signals.wait() else { return };
        warn!(signal = name(signal), "told twice, ending at once");
        std::process::exit(i32::from(exit::CUT_SHORT));
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(answer)
        .map(drop)
}

/// The key that an operator changes.
fn key_of(error: &StartError) -> &'static str {
    match error {
        StartError::Listen(..) => "listen",
        StartError::Pin { .. } => "pin",
        StartError::OpenFiles { .. } => "max_connections",
        StartError::Store(LogsError::Rewrite(..)) | StartError::System(..) => "reactors",
        StartError::Store(..) => "data_dir",
    }
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Terminate => "SIGTERM",
        Signal::Interrupt => "SIGINT",
    }
}
