//! Tools around the server. `measure` says what a connection and a message cost.

mod broker;
mod cli;
mod measure;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages were lost, or phones didn't get ready: the figures don't count.
const NOT_VALID: u8 = 1;

/// It couldn't begin, or not go on.
const FAILED: u8 = 3;

fn main() -> ExitCode {
    let Command::Measure(args) = Cli::parse().command;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&interrupted)) {
            eprintln!("tools: can't catch signal {signal}: {error}");
            return ExitCode::from(FAILED);
        }
    }
    match measure::run(&args, interrupted) {
        Ok(result) => {
            print!(
                "{}",
                if args.json {
                    result.to_json()
                } else {
                    table::text(&result)
                }
            );
            if result.is_valid() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(NOT_VALID)
            }
        }
        Err(error) => {
            eprintln!("tools: {error}");
            ExitCode::from(FAILED)
        }
    }
}
