//! Tools around the server. `measure` says what a connection and a message cost; `floor` is what they cost at least on this machine; `idle` is about
//! connections that only ping; `peers` compares with other brokers; `store` looks into what a server has stored; `crash` kills the server and
//! looks for what it had acknowledged; `durable` measures sessions that are away; `lookup` measures tickets; `storm` restarts
//! the server under all its phones, with tickets and without; `host-eval` says what a host is good for, and `knobs` what kernel settings give.

mod bench;
mod broker;
mod cli;
mod crash;
mod durable;
mod floor;
mod host;
mod idle;
mod knobs;
mod lookup;
mod measure;
mod packet;
mod peers;
mod process;
mod samples;
mod store;
mod storm;
mod sys;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: stillwire::sys::memory::Allocator = stillwire::sys::memory::Allocator;

/// Messages were lost, or phones didn't get ready: the figures don't count. Or a store is damaged.
const NOT_VALID: u8 = 1;

/// It couldn't begin, or not go on.
const FAILED: u8 = 3;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Floor(args) => floor(&args),
        Command::Measure(args) => measure(&args),
        Command::Idle(args) => idle(&args),
        Command::Peers(args) => peers(&args),
        Command::Store(command) => store(&command),
        Command::Crash(args) => crash(&args),
        Command::Storm(args) => storm(&args),
        Command::Durable(args) => durable(&args),
        Command::HostEval(args) => host_eval(&args),
        Command::Knobs(args) => knobs(&args),
        Command::Lookup(args) => lookup(&args),
    }
}

/// Until it is killed, by Ctrl-C for one: it has nothing to put in order.
fn floor(args: &cli::Floor) -> ExitCode {
    let plan = floor::Plan {
        listen: args.listen,
        phones: args.connections,
        threads: args.threads,
        own_tables: args.own_tables,
    };
    let ready = |addr| eprintln!("floor: listening on {addr}");
    failed(floor::run(plan, ready).err())
}

fn measure(args: &cli::Measure) -> ExitCode {
    let result = interruption().and_then(|interrupted| {
        measure::run(args, &interrupted).map_err(|error| error.to_string())
    });
    match result {
        Ok(result) if args.json => show(&result.to_json(), result.is_valid()),
        Ok(result) => show(&table::text(&result), result.is_valid()),
        Err(error) => failed(Some(error)),
    }
}

fn idle(args: &cli::Idle) -> ExitCode {
    let result = interruption()
        .and_then(|interrupted| idle::run(args, &interrupted).map_err(|error| error.to_string()));
    match result {
        Ok(result) if args.json => show(&result.to_json(), result.is_valid()),
        Ok(result) => show(&result.to_string(), result.is_valid()),
        Err(error) => failed(Some(error)),
    }
}

fn crash(args: &cli::Crash) -> ExitCode {
    let result = interruption()
        .and_then(|interrupted| crash::run(args, &interrupted).map_err(|error| error.to_string()));
    match result {
        Ok(report) => show(&report.to_string(), report.is_valid()),
        Err(error) => failed(Some(error)),
    }
}

fn storm(args: &cli::Storm) -> ExitCode {
    let result = interruption()
        .and_then(|interrupted| storm::run(args, &interrupted).map_err(|error| error.to_string()));
    match result {
        Ok(storms) => show(&storms.to_string(), storms.is_valid()),
        Err(error) => failed(Some(error)),
    }
}

fn durable(args: &cli::Durable) -> ExitCode {
    match durable::run(args) {
        Ok(runs) if args.json => show(&runs.to_json(), runs.is_valid()),
        Ok(runs) => show(&runs.to_string(), runs.is_valid()),
        Err(error) => failed(Some(error)),
    }
}

fn host_eval(args: &cli::HostEval) -> ExitCode {
    match host::run(args) {
        Ok(text) => show(&text, true),
        Err(error) => failed(Some(error)),
    }
}

fn lookup(args: &cli::Lookup) -> ExitCode {
    match lookup::run(args) {
        Ok(tickets) if args.json => show(&lookup::json(&tickets), tickets.is_valid()),
        Ok(tickets) => show(&tickets.to_string(), tickets.is_valid()),
        Err(error) => failed(Some(error)),
    }
}

fn knobs(args: &cli::Knobs) -> ExitCode {
    match knobs::run(args) {
        Ok(text) => show(&text, true),
        Err(error) => failed(Some(error)),
    }
}

fn store(command: &cli::Store) -> ExitCode {
    let out = std::io::stdout().lock();
    match store::run(command, std::io::BufWriter::new(out)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_VALID),
        Err(error) => failed(Some(error)),
    }
}

fn show(text: &str, is_valid: bool) -> ExitCode {
    print!("{text}");
    if is_valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_VALID)
    }
}

fn peers(args: &cli::Peers) -> ExitCode {
    match interruption()
        .and_then(|interrupted| peers::run(args, &interrupted).map_err(|error| error.to_string()))
    {
        Ok(dir) => {
            println!("{}", dir.join("peers.md").display());
            ExitCode::SUCCESS
        }
        Err(error) => failed(Some(error)),
    }
}

/// A flag that Ctrl-C and SIGTERM set.
fn interruption() -> Result<Arc<AtomicBool>, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| format!("can't catch signal {signal}: {error}"))?;
    }
    Ok(interrupted)
}

fn failed(error: Option<impl std::fmt::Display>) -> ExitCode {
    let Some(error) = error else {
        return ExitCode::SUCCESS;
    };
    eprintln!("tools: {error}");
    ExitCode::from(FAILED)
}
