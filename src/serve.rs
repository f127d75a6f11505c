//! `stillwire serve`: the server's life from the lock on its data directory to the last connection drained.

use stillwire::config::Settings;
use stillwire::data_dir::DataDir;
use stillwire::sys::signals::{Signal, Signals};
use tracing::{info, warn};

use crate::exit::{self, Failure};
use crate::logging;

/// Runs the server until SIGTERM or SIGINT.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    let Settings {
        config, capacity, ..
    } = settings;
    // Before the first thread starts.
    let signals = Signals::block().map_err(Failure::Signals)?;
    logging::start(&config.log);
    let data_dir = DataDir::lock(&config.data_dir)?;
    info!("{capacity}");
    if u64::from(config.max_connections) > capacity.connections() {
        warn!(
            "max_connections {} is more than this machine allows ({}, limited by {})",
            config.max_connections,
            capacity.connections(),
            capacity.limited_by()
        );
    }
    info!(
        data_dir = %data_dir.path().display(),
        reactors = config.reactors,
        max_connections = config.max_connections,
        "ready"
    );

    let signal = signals.wait().map_err(Failure::Signals)?;
    info!(signal = name(signal), "draining");
    end_at_once_if_told_again(signals).map_err(Failure::Signals)?;
    info!("ended");
    Ok(())
}

/// A second signal does not wait for the drain.
fn end_at_once_if_told_again(signals: Signals) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Ok(signal) = signals.wait() {
                warn!(signal = name(signal), "told twice, ending at once");
                std::process::exit(i32::from(exit::CUT_SHORT));
            }
        })
        .map(drop)
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Terminate => "SIGTERM",
        Signal::Interrupt => "SIGINT",
    }
}
