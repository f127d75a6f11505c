//! `stillwire serve`: the server's life from the lock on its data directory to the last connection drained.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use stillwire::config::Settings;
use stillwire::data_dir::DataDir;
use tracing::{info, warn};

use crate::exit::{self, Failure};
use crate::logging;

/// Runs the server until SIGTERM or SIGINT.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    let Settings {
        config, capacity, ..
    } = settings;
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
    // Before any reactor splits off its fd table: a handler may run on a reactor's thread, and the pipe it writes to must be the same
    // file there.
    let mut signals = catch_signals().map_err(Failure::Signals)?;
    info!(data_dir = %data_dir.path().display(), reactors = config.reactors, max_connections = config.max_connections, "ready");

    if let Some(signal) = signals.forever().next() {
        info!(
            signal = if signal == SIGINT {
                "SIGINT"
            } else {
                "SIGTERM"
            },
            "draining"
        );
    }
    info!("ended");
    Ok(())
}

/// The first SIGTERM or SIGINT is ours to answer; a second one ends the process at once.
fn catch_signals() -> std::io::Result<Signals> {
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag down and raises it.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(exit::CUT_SHORT),
            again.clone(),
        )?;
        signal_hook::flag::register(signal, again.clone())?;
    }
    Signals::new([SIGTERM, SIGINT])
}
