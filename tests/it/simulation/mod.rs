//! A simulation of all shards, with a virtual clock, network and clients: what MQTT promises is checked against a model, for many seeds.
//!
//! `STILLWIRE_SEEDS=1000 cargo test --test it simulation` runs that many seeds of each kind, `STILLWIRE_SEED=17` this one alone. A run is a
//! function of its seed: a seed that fails fails again.

mod checks;
mod client;
mod model;
mod network;
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// Which limits the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// None is ever reached, so nothing that was acknowledged may be missing.
    Roomy,
    /// They are reached all the time: what is missing must have been counted.
    Tight,
}

fn run(seed: u64, reactors: usize, profile: Profile) {
    let mut world = World::new(seed, reactors, profile);
    for _ in 0..4000 {
        world.step();
    }
    world.drain();
    world.check_promises();
    world.leave();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn simulate(test: &str, reactors: usize, profile: Profile) {
    let seeds = match number("STILLWIRE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STILLWIRE_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if catch_unwind(AssertUnwindSafe(|| run(seed, reactors, profile))).is_err() {
            panic!("repeat with: STILLWIRE_SEED={seed} cargo test --test it simulation::{test}");
        }
    }
}

/// Seeds of each kind: together they take some 20 s on two cores.
const SEEDS: u64 = 20;

#[test]
fn one_reactor() {
    simulate("one_reactor", 1, Profile::Roomy);
}

#[test]
fn two_reactors() {
    simulate("two_reactors", 2, Profile::Roomy);
}

#[test]
fn seven_reactors() {
    simulate("seven_reactors", 7, Profile::Roomy);
}

#[test]
fn one_reactor_with_tight_limits() {
    simulate("one_reactor_with_tight_limits", 1, Profile::Tight);
}

#[test]
fn three_reactors_with_tight_limits() {
    simulate("three_reactors_with_tight_limits", 3, Profile::Tight);
}

#[test]
fn seven_reactors_with_tight_limits() {
    simulate("seven_reactors_with_tight_limits", 7, Profile::Tight);
}
