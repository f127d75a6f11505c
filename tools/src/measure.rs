//! `tools measure`: the server between two runs of the floor, all with the same load.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use loadgen::machine;
use serde::Serialize;

use crate::bench::{self, Cost, Figures, Load, MeasureError};
use crate::broker::Broker;
use crate::cli::{BesideFloor, Measure};

/// Names the shape of the JSON.
const SCHEMA: &str = "stillwire.measure/2";

/// The server's figures and the floor's, of one run on one machine.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) schema: &'static str,
    pub(crate) machine: String,
    pub(crate) date: String,
    /// Load average before the first broker was started: what else the machine had to do.
    pub(crate) load_before: f64,
    pub(crate) load: Load,
    pub(crate) server: Figures,
    /// The floor before the server, and after it.
    pub(crate) floor: Vec<Figures>,
}

impl Measured {
    pub(crate) fn is_valid(&self) -> bool {
        self.server.is_valid() && self.floor.iter().all(Figures::is_valid)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|_| unreachable!("plain data")) + "\n"
    }

    /// The floor's mean of something, if it was measured.
    pub(crate) fn floor(&self, what: impl Fn(&Figures) -> f64) -> Option<f64> {
        let count = self.floor.len();
        (count > 0).then(|| self.floor.iter().map(what).sum::<f64>() / count as f64)
    }

    /// How far the floor's runs are apart: the largest difference between a cost before and after, as a part of their mean.
    pub(crate) fn drift(&self) -> Option<f64> {
        let [before, after] = &self.floor[..] else {
            return None;
        };
        let drift = |cost: fn(&Figures) -> Cost| {
            let (a, b) = (cost(before).all, cost(after).all);
            (a - b).abs() / f64::midpoint(a, b)
        };
        Figures::COSTS.into_iter().map(drift).reduce(f64::max)
    }
}

/// Measures.
pub(crate) fn run(args: &Measure, interrupted: &Arc<AtomicBool>) -> Result<Measured, MeasureError> {
    let load = args.load.load(args.turnovers);
    let reactors = args.server.reactors(load.connections);
    let load_before = machine::load();
    // The floor's memory isn't in question.
    let beside = Load {
        turnovers: 0,
        ..load
    };
    let runs = match args.floor {
        BesideFloor::No => 0,
        BesideFloor::Once => 1,
        BesideFloor::Twice => 2,
    };
    let floor_broker = || Broker::floor(reactors, load.connections).map_err(MeasureError::Broker);
    let server_broker =
        || Broker::start(&args.server, load.connections).map_err(MeasureError::Broker);
    let mut floor = Vec::new();
    if runs > 0 {
        floor.push(bench::run(beside, floor_broker()?, interrupted)?);
    }
    let mut server = bench::run(load, server_broker()?, interrupted)?;
    if runs > 1 {
        floor.push(bench::run(beside, floor_broker()?, interrupted)?);
    }
    bench::refine(&mut server, load, server_broker()?, interrupted)?;
    for figures in &mut floor {
        bench::refine(figures, load, floor_broker()?, interrupted)?;
    }
    Ok(Measured {
        schema: SCHEMA,
        machine: machine::describe(),
        date: machine::today(),
        load_before,
        load,
        server,
        floor,
    })
}
