//! What is counted: the one function that callgrind watches, and the names of what ran in it.

use std::fmt;
use std::hint::black_box;

/// How many clients, subscriptions and timers stand around what is counted, so that tables and caches are as full as in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Of everything there is one for each client.
    pub(crate) population: usize,
    /// How often each path is taken.
    pub(crate) rounds: usize,
}

impl Scale {
    /// For figures.
    pub(crate) const FULL: Self = Self {
        population: 20_000,
        rounds: 2_000,
    };

    /// To see that it works.
    pub(crate) const SMOKE: Self = Self {
        population: 500,
        rounds: 50,
    };

    /// Clients in an order that no cache and no prefetcher knows, each once before any comes again.
    pub(crate) fn scattered(self) -> impl Iterator<Item = usize> {
        // A prime that divides neither population: the steps visit all.
        (0..self.rounds).map(move |step| (step * 7_919 + 17) % self.population)
    }
}

/// One path that was counted: callgrind's dumps come in the same order.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// `group: what`.
    pub(crate) name: String,
    /// How often it was taken.
    pub(crate) times: usize,
}

/// A line of the child's output.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}", self.times, self.name)
    }
}

impl Path {
    /// Reads such a line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (times, name) = line.split_once('\t')?;
        Some(Self {
            name: name.to_owned(),
            times: times.parse().ok()?,
        })
    }
}

/// Count `work`, which takes the path `name` so many times.
pub(crate) fn count(name: &str, times: usize, mut work: impl FnMut()) {
    let path = Path {
        name: name.to_owned(),
        times,
    };
    println!("{path}");
    counted(&mut work);
}

/// The name that callgrind is told: it counts in here, and writes its counts when this returns.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Not the last thing done is the call, so that it is no jump.
    black_box(());
}
