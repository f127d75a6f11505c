//! Deadlines, threaded through records as large as a slot.

use std::hint::black_box;

use stillwire::clock::Tick;
use stillwire::limits::SLOT_WHEEL_BUCKETS;
use stillwire::wheel::{Link, Links, Wheel};

use crate::counted::{Scale, count};

/// A cache line, as a slot is.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Record(Link);

struct Records(Vec<Record>);

impl Links for Records {
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize].0
    }
}

/// All of it.
pub(crate) fn run(scale: Scale) {
    let mut records = Records(vec![Record::default(); scale.population * 2]);
    let mut wheel = Wheel::new(SLOT_WHEEL_BUCKETS, Tick(0));
    let due = |client: usize| Tick(100 + (client * 31 % 1_000) as u32);
    for client in scale.population..2 * scale.population {
        wheel.schedule(&mut records, client as u32, due(client));
    }
    count("wheel: arm", scale.rounds, || {
        for client in scale.scattered() {
            wheel.schedule(&mut records, client as u32, due(client));
        }
    });
    count("wheel: arm again", scale.rounds, || {
        for client in scale.scattered() {
            wheel.schedule(&mut records, client as u32, due(client + 7));
        }
    });
    let mut out = Vec::with_capacity(wheel.len());
    count("wheel: tick, nothing due", 100, || {
        for now in 0..100 {
            wheel.expire(&mut records, Tick(now), usize::MAX, &mut out);
        }
    });
    assert!(out.is_empty());
    count("wheel: tick, per timer due", wheel.len(), || {
        for now in 100..1_200 {
            wheel.expire(&mut records, Tick(now), usize::MAX, &mut out);
        }
        black_box(&out);
    });
    assert!(wheel.is_empty() && out.len() == scale.population + scale.rounds);
}
