//! What every test here stands on: a server process of its own, and a client that can say anything.
//!
//! Nothing in here uses the server's code, so that a mistake in its codec can't hide itself.

pub mod bytes;
pub mod client;
pub mod packet;
pub mod server;

pub use client::{Client, Event};
pub use packet::{Connect, Message, Packet, Prop, Publish, Will, id};
pub use server::{Broker, Server};

use std::time::{Duration, Instant};

/// How long a test waits for something that must come. Long, for the machine may be busy; what passes never waits so long.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `condition` holds, and panics with `what` if it doesn't within [`PATIENCE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "this never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Declares each test twice: against a server with one reactor, and with three, where clients have different homes.
macro_rules! with_one_and_three_reactors {
    ($($name:ident),+ $(,)?) => {
        mod reactors_1 {
            $(#[test] fn $name() { super::$name(1); })+
        }
        mod reactors_3 {
            $(#[test] fn $name() { super::$name(3); })+
        }
    };
}
pub(crate) use with_one_and_three_reactors;
