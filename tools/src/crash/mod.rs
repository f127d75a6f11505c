//! `tools crash`: kills the server under load, starts it again, and believes only what was acknowledged.
//!
//! Several servers run side by side, each with its clients in a thread of its own (`world`). What they were promised stands in `model`; `phone` is
//! a client, `launch` what a server is started with, and `body` what stands in a message.

mod body;
mod fault;
mod launch;
mod model;
mod people;
mod phone;
mod reader;
mod report;
mod world;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::broker::{self, BrokerError};
use crate::cli::Crash;

pub(crate) use report::Report;

/// The seeds of two servers of one run have nothing in common.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which server is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Broker {
    /// This project's.
    Stillwire,
    /// For comparison, and to prove the checker: it keeps what it has when it is asked to end, and loses it when it is killed.
    Mosquitto,
}

/// What is broken on purpose between an end and the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// The data directory is removed.
    Wipe,
    /// An older state of the data directory is put back.
    Stale,
}

/// Kills and checks.
pub(crate) fn run(args: &Crash, interrupted: &Arc<AtomicBool>) -> Result<Report, BrokerError> {
    let binary = match (args.broker, &args.binary) {
        (Broker::Mosquitto, _) => PathBuf::new(),
        (_, Some(binary)) => binary.clone(),
        (_, None) => broker::built()?,
    };
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    eprintln!("seed {seed}");
    let dir = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("stillwire-crash-{}", std::process::id()))
    });
    let began = Instant::now();
    let servers = args.servers.clamp(1, args.kills.max(1));
    let plans = (0..servers).map(|number| world::Plan {
        seed: seed.wrapping_add(u64::from(number).wrapping_mul(GOLDEN)),
        launch: launch::Launch {
            broker: args.broker,
            binary: binary.clone(),
            dir: dir.join(number.to_string()),
            reactors: 1 + number as usize % 3,
            durability: if number % 2 == 0 { "process" } else { "disk" },
        },
        ends: args.kills / servers + u32::from(number < args.kills % servers),
        gently: args.gently,
        sabotage: args.sabotage,
        until: args.time.map(|time| began + time),
    });
    let kills = AtomicU64::new(0);
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = plans
            .map(|plan| scope.spawn(|| world::run(plan, interrupted, &kills)))
            .collect();
        while !threads
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            std::thread::sleep(Duration::from_millis(100));
            if std::io::stderr().is_terminal() {
                let count = kills.load(Ordering::Relaxed);
                eprint!("\r{count} kills, {} s ", began.elapsed().as_secs());
            }
        }
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<Result<Vec<_>, _>>()
    });
    let outcomes =
        outcomes.map_err(|error| BrokerError::Start(binary.display().to_string(), error))?;
    let report = Report {
        seed,
        outcomes,
        took: began.elapsed(),
        dir,
    };
    if report.is_valid() {
        // If something still stands there, it is a directory of ours in the temporary one.
        let _left = std::fs::remove_dir_all(&report.dir);
    }
    Ok(report)
}
