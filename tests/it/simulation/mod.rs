//! A simulation of all shards, with a virtual clock, network and clients: what MQTT promises is checked against a model, for many seeds.
//!
//! `STILLWIRE_SEEDS=1000 cargo test --test it simulation` runs that many seeds of each kind, `STILLWIRE_SEED=17` this one alone. A run is a
//! function of its seed: a seed that fails fails again, and `STILLWIRE_FOLLOW=313` prints what
//! happens to that message in it.

mod checks;
mod client;
mod crash;
mod deliveries;
mod habits;
mod leaving;
mod model;
mod network;
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crash::Crash;
use world::World;

/// Which limits the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// None is ever reached, so nothing that was acknowledged may be missing.
    Roomy,
    /// They are reached all the time: what is missing must have been counted.
    Tight,
}

/// True: the cleaner had something to do in it.
fn run(
    seed: u64,
    reactors: usize,
    profile: Profile,
    crash: Crash,
    tenants: &'static [&'static str],
) -> bool {
    let mut world = World::new(seed, reactors, profile, crash, tenants);
    for _ in 0..4000 {
        world.step();
    }
    world.drain();
    world.check_promises();
    world.look_at_logs();
    let cleaned = world.cleaned;
    world.leave();
    cleaned
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn simulate(test: &str, reactors: usize, profile: Profile) {
    simulate_with(test, reactors, profile, Crash::Never);
}

fn simulate_with(test: &str, reactors: usize, profile: Profile, crash: Crash) {
    simulate_among(test, reactors, profile, crash, &[""]);
}

/// `tenants`: what the server puts before their names.
fn simulate_among(
    test: &str,
    reactors: usize,
    profile: Profile,
    crash: Crash,
    tenants: &'static [&'static str],
) {
    let seeds = match number("STILLWIRE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STILLWIRE_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start;
    let mut cleaned = 0;
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| {
            run(seed, reactors, profile, crash, tenants)
        })) {
            Ok(has) => cleaned += u64::from(has),
            Err(_) => {
                panic!("repeat with: STILLWIRE_SEED={seed} cargo test --test it simulation::{test}")
            }
        }
    }
    println!("{test}: the cleaner ran in {cleaned} of {many}");
    assert!(
        many < SEEDS || crash == Crash::Never || cleaned > many / 4,
        "the cleaner ran in {cleaned} of {many} only"
    );
}

/// Seeds of each kind: together they take some 20 s on two cores.
const SEEDS: u64 = 30;

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

/// Clients, topics, groups and inboxes have the same names in three tenants: whatever one of them hears of another's breaks a promise.
const TENANTS: &[&str] = &["", "\0red/", "\0blue/"];

#[test]
fn two_reactors_with_tenants() {
    let test = "two_reactors_with_tenants";
    simulate_among(test, 2, Profile::Roomy, Crash::Never, TENANTS);
}

#[test]
fn seven_reactors_with_tenants_and_tight_limits() {
    let test = "seven_reactors_with_tenants_and_tight_limits";
    simulate_among(test, 7, Profile::Tight, Crash::Never, TENANTS);
}

#[test]
fn three_reactors_with_tenants_that_are_killed() {
    let test = "three_reactors_with_tenants_that_are_killed";
    simulate_among(test, 3, Profile::Roomy, Crash::Kill, TENANTS);
}

#[test]
fn three_reactors_with_tenants_without_power() {
    let test = "three_reactors_with_tenants_without_power";
    simulate_among(test, 3, Profile::Roomy, Crash::Power, TENANTS);
}

#[test]
fn one_reactor_that_is_killed() {
    simulate_with("one_reactor_that_is_killed", 1, Profile::Roomy, Crash::Kill);
}

#[test]
fn three_reactors_that_are_killed() {
    simulate_with(
        "three_reactors_that_are_killed",
        3,
        Profile::Roomy,
        Crash::Kill,
    );
}

#[test]
fn seven_reactors_that_are_killed() {
    simulate_with(
        "seven_reactors_that_are_killed",
        7,
        Profile::Roomy,
        Crash::Kill,
    );
}

#[test]
fn three_reactors_with_tight_limits_that_are_killed() {
    let test = "three_reactors_with_tight_limits_that_are_killed";
    simulate_with(test, 3, Profile::Tight, Crash::Kill);
}

#[test]
fn one_reactor_without_power() {
    simulate_with("one_reactor_without_power", 1, Profile::Roomy, Crash::Power);
}

#[test]
fn three_reactors_without_power() {
    simulate_with(
        "three_reactors_without_power",
        3,
        Profile::Roomy,
        Crash::Power,
    );
}
