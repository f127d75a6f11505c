//! What every shard knows of all shards: wildcard filters, and shared subscriptions of any kind.

use super::hash::{TopicHash, TopicHasher};
use super::interest::ReactorSet;
use crate::ids::ReactorId;

/// Wildcard filters and shared groups of all reactors, the same on each.
#[derive(Debug)]
pub struct Routes {
    hasher: TopicHasher,
}

/// A shared group that a topic matched.
#[derive(Clone, Copy, Debug)]
pub struct GroupRef<'a> {
    /// Its name.
    pub group: &'a str,
    /// Its filter, without `$share/{group}/`.
    pub path: &'a str,
}

impl GroupRef<'_> {
    /// The reactor that serves one message: at random by `seed`, weighted by online members; by offline members where none is online.
    pub fn pick(&self, seed: u64) -> Option<ReactorId> {
        let _ = seed;
        None
    }
}

impl Routes {
    /// No routes.
    pub fn new(hasher: TopicHasher) -> Self {
        Self { hasher }
    }

    /// A reactor has its first subscriber to a wildcard filter. Repeating it changes nothing.
    pub fn add(&mut self, path: &str, reactor: ReactorId) {
        let _ = (path, reactor);
    }

    /// A reactor has lost its last subscriber to a wildcard filter.
    pub fn remove(&mut self, path: &str, reactor: ReactorId) {
        let _ = (path, reactor);
    }

    /// How many members of a shared group a reactor has, online and offline; both 0: none any more.
    pub fn set_group(
        &mut self,
        group: &str,
        path: &str,
        reactor: ReactorId,
        online: u32,
        offline: u32,
    ) {
        let _ = (group, path, reactor, online, offline);
    }

    /// Reactors with a matching wildcard filter are added to `to`; each matching shared group is handed to `on_group` once.
    pub fn matching(
        &self,
        hash: TopicHash,
        topic: &str,
        to: &mut ReactorSet,
        on_group: impl FnMut(GroupRef<'_>),
    ) {
        let _ = (&self.hasher, hash, topic, to, on_group);
    }
}
