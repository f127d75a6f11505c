//! The `loadgen` binary: command line to scenario to report and exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use loadgen::cli::{Cli, Command, Shared};
use loadgen::connect::BeginError;
use loadgen::demo;
use loadgen::preflight::Machine;
use loadgen::report::Report;
use loadgen::scenario::{Kind, Scenario, runner};
use loadgen::watch::Watch;
use signal_hook::consts::{SIGINT, SIGTERM};

#[global_allocator]
static ALLOCATOR: stillwire::sys::memory::Allocator = stillwire::sys::memory::Allocator;

/// Something didn't come as expected.
const NOT_AS_EXPECTED: u8 = 1;

/// It couldn't begin; clap takes 2 for wrong usage.
const NOT_BEGUN: u8 = 3;

/// As shells have it: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // As `stillwire serve` does: the demo's server is measured as it would run. Without them only the figures are less exact.
    let _ = stillwire::sys::memory::use_small_pages();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second one ends it at once.
        let armed = Arc::clone(&interrupted);
        let caught =
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), armed)
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)));
        if let Err(error) = caught {
            eprintln!("loadgen: can't catch signal {signal}: {error}");
            return ExitCode::from(NOT_BEGUN);
        }
    }
    let result = match &cli.command {
        Command::Merge(args) => args
            .show
            .check()
            .and_then(|()| args.run())
            .map(|report| (&args.show, report))
            .map_err(|error| error.to_string()),
        command => match command.scenario() {
            Some((kind, shared)) => {
                run(kind, shared, interrupted).map(|report| (&shared.show, report))
            }
            None => unreachable!("all others are scenarios"),
        },
    };
    let (show, report) = match result {
        Ok(done) => done,
        Err(error) => {
            eprintln!("loadgen: {error}");
            return ExitCode::from(NOT_BEGUN);
        }
    };
    if let Err(error) = show.write(&report) {
        eprintln!("loadgen: {error}");
        return ExitCode::from(NOT_AS_EXPECTED);
    }
    if report.interrupted {
        ExitCode::from(INTERRUPTED)
    } else if report.is_as_expected() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_AS_EXPECTED)
    }
}

/// Runs a scenario. The error says who erred and what to do.
fn run(kind: Kind, shared: &Shared, interrupted: Arc<AtomicBool>) -> Result<Report, String> {
    let scenario = Scenario::of(kind, shared).map_err(|error| error.to_string())?;
    shared.show.check().map_err(|error| error.to_string())?;
    let machine = Machine::read().map_err(|error| BeginError::Proc(error).to_string())?;
    let mut watch = Watch::new(scenario.quiet, interrupted);
    if matches!(kind, Kind::Demo(_)) && shared.addr.is_none() && scenario.tickets.is_none() {
        demo::run(scenario, machine, &mut watch).map_err(|error| error.to_string())
    } else {
        runner::run(&scenario, &machine, &mut watch).map_err(|error| error.to_string())
    }
}
