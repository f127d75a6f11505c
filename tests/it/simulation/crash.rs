//! The server dies in the middle of it all, and is started again from what it had recorded.

use std::sync::Arc;

use stillwire::ids::ReactorId;
use stillwire::routing::{Kept, Shard, Shared};
use stillwire::store::Recovered;
use stillwire::store::heap::Loss;
use stillwire::store::log::{Log, Shape};

use super::world::World;

/// How the server may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// It doesn't.
    Never,
    /// The process is killed; the kernel has what it wrote.
    Kill,
    /// The power fails: what was not synced is lost, in any part.
    Power,
}

/// Unix milliseconds at the zero of the simulation's clock.
pub(crate) const EPOCH: u64 = 1_800_000_000_000;

/// Bytes of a shard's log.
pub(crate) const LIMIT: u64 = 1 << 30;

/// Small segments, so that there are some.
pub(crate) fn shape() -> Shape {
    Shape {
        smallest: 1 << 12,
        largest: 1 << 16,
        payload: (1 << 12) - 256,
    }
}

/// Dead bytes that the cleaner minds: none at all, some, or more than there ever are.
fn slack(seed: u64) -> u64 {
    [0, 1 << 12, 1 << 13, 1 << 15, LIMIT][seed as usize % 5]
}

/// A new server's shards, each with what its log holds.
pub(crate) fn start(world: &World, logs: Vec<Recovered>, disk: bool) -> Vec<Shard> {
    let mut shards: Vec<Shard> = logs
        .into_iter()
        .enumerate()
        .map(|(at, found)| {
            assert_eq!(found.damage, [], "a crash damages nothing");
            Shard::restore(
                ReactorId(at as u16),
                Arc::clone(&world.shared),
                64,
                // Another one at each start, as a server has.
                world.seed ^ at as u64 ^ world.model.step << 8,
                world.now,
                Kept::new(found, disk, EPOCH),
            )
            .with_slices(world.slices)
        })
        .collect();
    for shard in &mut shards {
        shard.restored();
        shard.store_mut().set_slack(slack(world.seed));
        if disk {
            shard.store_mut().log_mut().hold_sync();
        }
        shard.check_invariants();
    }
    shards
}

impl World {
    /// Whether the cleaner has taken a segment away.
    pub(crate) fn look_at_logs(&mut self) {
        let cleaned = |shard: &Shard| {
            let oldest = shard.store().log().oldest();
            oldest.is_some_and(|oldest| oldest.base.0 > 0)
        };
        self.cleaned |= self.shards.iter().any(cleaned);
    }

    /// Every shard dies at once, and the server is started again.
    pub(crate) fn crash(&mut self) {
        if self.model.followed.is_some() {
            eprintln!("step {}: crash", self.model.step);
        }
        self.model.step += 1;
        let totals = self.shared.counters.totals();
        self.dropped_before += totals.dropped_queue;
        let power = self.crash == Crash::Power;
        self.look_at_logs();
        let images: Vec<_> = self
            .shards
            .iter()
            .map(|shard| {
                let loss = match power {
                    true => Loss::Power(self.random.next()),
                    false => Loss::Process,
                };
                shard.store().log().image(loss)
            })
            .collect();
        let reactors = self.shards.len();
        let mqtt = self.shared.mqtt.clone();
        let hasher = self.shared.hasher.clone();
        self.shared = Arc::new(Shared::new(reactors, 1000, hasher, mqtt));
        let logs = images
            .iter()
            .enumerate()
            .map(|(at, image)| {
                let key = self.seed ^ at as u64;
                let opened = Log::from_image(image, LIMIT, key, at as u32, shape());
                let mut found = Recovered::read(opened, key);
                if power {
                    // What is torn was promised to nobody.
                    found.damage.clear();
                }
                found
            })
            .collect();
        self.shards = start(self, logs, power);
        for (conn, client) in self.model.connections() {
            if self.model.sessions[client].expiry == 0 {
                // What comes to a client whose session is gone is outside of what is promised.
                self.network.lose_down(conn);
            }
        }
        self.network.crash(&mut self.random);
        self.model.crashed(self.now, power);
    }
}
