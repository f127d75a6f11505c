//! The `stillwire` binary: command line to configuration to server.

mod cli;
mod credentials;
mod exit;
mod logging;
mod serve;
mod size;

use std::io::Write as _;
use std::process::ExitCode;

use stillwire::config::{ConfigError, Settings};
use stillwire::sys::capacity::Machine;

use cli::{Asked, Command, Given};
use exit::Failure;

#[global_allocator]
static ALLOCATOR: stillwire::sys::memory::Allocator = stillwire::sys::memory::Allocator;

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> Result<(), Failure> {
    match cli::parse(std::env::args_os()).map_err(Failure::Usage)? {
        Asked::Print(text) => print(&text),
        Asked::Run(Command::Config(given)) => print(&settings(&given)?.to_string()),
        Asked::Run(Command::Passwd(given)) => print(&credentials::passwd(&given)?),
        Asked::Run(Command::Key(given)) => print(&credentials::key(&given)?),
        Asked::Run(Command::Token(given)) => print(&credentials::token(&given)?),
        Asked::Run(Command::Sizing(asked)) => {
            let machine = Machine::read().map_err(ConfigError::Capacity)?;
            print(&size::answer(&asked, &machine))
        }
        Asked::Run(Command::Serve(given)) => serve::run(&settings(&given)?),
    }
}

fn settings(given: &Given) -> Result<Settings, Failure> {
    let machine = Machine::read().map_err(ConfigError::Capacity)?;
    Ok(Settings::load(given.file(), &given.flags(), &machine)?)
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}
