//! What a shard holds, counted: for tests that nothing is left behind, and for whoever wants to know where memory is.

use super::Shard;

/// How many of each thing a shard holds. Retained messages are not in it: they are there to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions that are not shared.
    pub subscriptions: usize,
    /// Shared subscriptions with a member here.
    pub groups: usize,
    /// Filters of any shard that every shard knows of.
    pub routes: usize,
    /// SUBACKs that wait until every shard knows of their filters.
    pub subacks: usize,
    /// Wildcard filters that not every shard knows of yet.
    pub spreading: usize,
    /// Sessions to which retained messages are being sent.
    pub watches: usize,
    /// Timers of sessions.
    pub timers: usize,
}

impl Shard {
    /// Counts what the shard holds.
    pub fn census(&self) -> Census {
        Census {
            sessions: self.sessions.0.len(),
            subscriptions: self.index.len(),
            groups: self.groups.len(),
            routes: self.routes.len(),
            subacks: self.subacks.len(),
            spreading: self.spreading.len(),
            watches: self.watches.len(),
            timers: self.wheel.len(),
        }
    }

    /// True if it holds nothing but retained messages, and has nothing to do.
    pub fn is_empty(&self) -> bool {
        self.census() == Census::default() && !self.has_work()
    }
}
