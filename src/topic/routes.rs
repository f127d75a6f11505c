//! What every shard knows of all shards: wildcard filters, and shared subscriptions of any kind.
//!
//! Each reactor has a copy of its own, kept up by mail: a filter comes with the first subscriber of a reactor and goes with its last. Exact
//! filters are not here but in the masks, unless a shared group has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashTable;

use super::filter::has_wildcard;
use super::group::GroupKey;
use super::hash::{TopicHash, TopicHasher};
use super::interest::ReactorSet;
use super::pool::Pool;
use super::trie::FilterTrie;
use crate::ids::ReactorId;

/// Wildcard filters and shared groups of all reactors, the same on each.
#[derive(Debug)]
pub struct Routes {
    hasher: TopicHasher,
    /// Filters without a wildcard, which shared groups have.
    exact: HashTable<u32>,
    wildcards: FilterTrie,
    all: Pool<Route>,
    /// Shared groups, which have a filter each or one for many.
    groups: usize,
}

/// Where messages go that match one filter.
#[derive(Debug, Default)]
struct Route {
    path: Box<str>,
    /// Reactors with a subscriber who is in no group.
    reactors: ReactorSet,
    /// By their names.
    groups: BTreeMap<Box<str>, Group>,
}

#[derive(Debug)]
struct Group {
    key: Arc<GroupKey>,
    /// Reactors with a member, in no order.
    members: Vec<Members>,
}

/// The members of a group on one reactor.
#[derive(Clone, Copy, Debug)]
struct Members {
    reactor: ReactorId,
    online: u32,
    offline: u32,
}

/// A shared group that a topic matched.
#[derive(Clone, Copy, Debug)]
pub struct GroupRef<'a> {
    /// Its name.
    pub key: &'a Arc<GroupKey>,
    members: &'a [Members],
}

impl GroupRef<'_> {
    /// The reactor that serves one message: by `seed`, a random number of 64 bits, weighted by online members; by offline members where none is
    /// online.
    pub fn pick(&self, seed: u64) -> Option<ReactorId> {
        self.pick_by(seed, |members| members.online)
            .or_else(|| self.pick_by(seed, |members| members.offline))
    }

    /// Members that are online, on all reactors.
    pub fn online(&self) -> u64 {
        self.members
            .iter()
            .map(|members| u64::from(members.online))
            .sum()
    }

    fn pick_by(&self, seed: u64, weight: impl Fn(&Members) -> u32) -> Option<ReactorId> {
        let total: u64 = self
            .members
            .iter()
            .map(|members| u64::from(weight(members)))
            .sum();
        // The seed as a fraction of 2^64, times the total: below the total, and even.
        let mut left = ((u128::from(seed) * u128::from(total)) >> 64) as u64;
        self.members
            .iter()
            .find(|members| {
                let weight = u64::from(weight(members));
                let here = left < weight;
                left = left.saturating_sub(weight);
                here
            })
            .map(|members| members.reactor)
    }
}

impl Routes {
    /// No routes.
    pub fn new(hasher: TopicHasher) -> Self {
        Self {
            exact: HashTable::new(),
            wildcards: FilterTrie::new(hasher.clone()),
            all: Pool::default(),
            groups: 0,
            hasher,
        }
    }

    /// A reactor has its first subscriber to a wildcard filter. Repeating it changes nothing.
    pub fn add(&mut self, path: &str, reactor: ReactorId) {
        let route = self.find_or_add(path);
        self.all[route].reactors.insert(reactor);
    }

    /// A reactor has lost its last subscriber to a wildcard filter.
    pub fn remove(&mut self, path: &str, reactor: ReactorId) {
        if let Some(route) = self.find(path) {
            self.all[route].reactors.remove(reactor);
            self.prune(route);
        }
    }

    /// How many members of a shared group a reactor has, online and offline; both 0: none any more.
    pub fn set_group(
        &mut self,
        key: &Arc<GroupKey>,
        reactor: ReactorId,
        online: u32,
        offline: u32,
    ) {
        if online == 0 && offline == 0 {
            self.leave_group(key, reactor);
            return;
        }
        let route = self.find_or_add(&key.path);
        let groups = &mut self.all[route].groups;
        let count = &mut self.groups;
        let group = groups.entry(key.group.clone()).or_insert_with(|| {
            *count += 1;
            Group {
                key: Arc::clone(key),
                members: Vec::new(),
            }
        });
        let now = Members {
            reactor,
            online,
            offline,
        };
        match group
            .members
            .iter_mut()
            .find(|members| members.reactor == reactor)
        {
            Some(members) => *members = now,
            None => group.members.push(now),
        }
    }

    /// Reactors with a matching wildcard filter are added to `to`; each matching shared group is handed to `on_group` once.
    pub fn matching(
        &self,
        hash: TopicHash,
        topic: &str,
        to: &mut ReactorSet,
        mut on_group: impl FnMut(GroupRef<'_>),
    ) {
        if self.all.len() == 0 {
            return;
        }
        let mut visit = |route: u32| {
            let route = &self.all[route];
            to.union(&route.reactors);
            for Group { key, members } in route.groups.values() {
                on_group(GroupRef { key, members });
            }
        };
        if let Some(route) = self.find_exact(hash, topic) {
            visit(route);
        }
        self.wildcards.matches(topic, visit);
    }

    /// Whether a shared group is known.
    pub fn has_group(&self, key: &GroupKey) -> bool {
        self.find(&key.path)
            .is_some_and(|route| self.all[route].groups.contains_key(&key.group))
    }

    /// How many shared groups there are.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Whether a filter is known.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// How many filters there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, path: &str) -> Option<u32> {
        if has_wildcard(path) {
            self.wildcards.get(path)
        } else {
            self.find_exact(self.hasher.hash(path), path)
        }
    }

    fn find_exact(&self, hash: TopicHash, path: &str) -> Option<u32> {
        self.exact
            .find(hash.0, |&route| *self.all[route].path == *path)
            .copied()
    }

    fn find_or_add(&mut self, path: &str) -> u32 {
        if let Some(route) = self.find(path) {
            return route;
        }
        let route = self.all.insert(Route {
            path: path.into(),
            ..Route::default()
        });
        if has_wildcard(path) {
            self.wildcards.insert(path, route);
        } else {
            let Self {
                exact, all, hasher, ..
            } = self;
            exact.insert_unique(hasher.hash(path).0, route, |&other| {
                hasher.hash(&all[other].path).0
            });
        }
        route
    }

    fn leave_group(&mut self, key: &GroupKey, reactor: ReactorId) {
        let Some(route) = self.find(&key.path) else {
            return;
        };
        let groups = &mut self.all[route].groups;
        if let Some(group) = groups.get_mut(&key.group) {
            group.members.retain(|members| members.reactor != reactor);
            if group.members.is_empty() {
                groups.remove(&key.group);
                self.groups -= 1;
            }
        }
        self.prune(route);
    }

    /// Forgets a filter that leads nowhere.
    fn prune(&mut self, route: u32) {
        if !self.all[route].reactors.is_empty() || !self.all[route].groups.is_empty() {
            return;
        }
        let path = self.all.remove(route).path;
        if has_wildcard(&path) {
            self.wildcards.remove(&path);
        } else if let Ok(entry) = self
            .exact
            .find_entry(self.hasher.hash(&path).0, |&other| other == route)
        {
            entry.remove();
        }
    }

    /// Walks everything.
    ///
    /// # Panics
    /// When the parts disagree.
    pub fn check_invariants(&self) {
        self.wildcards.check_invariants();
        assert_eq!(self.exact.len() + self.wildcards.len(), self.all.len());
        for route in self.all.iter().filter(|route| !route.path.is_empty()) {
            let found = self.find(&route.path).expect("every route is found");
            assert!(std::ptr::eq(&raw const self.all[found], route));
            assert!(!route.reactors.is_empty() || !route.groups.is_empty());
            for group in route.groups.values() {
                assert!(!group.members.is_empty());
                assert!(
                    group
                        .members
                        .iter()
                        .all(|members| members.online > 0 || members.offline > 0)
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::topic::filter::matches;
    use crate::topic::generate;

    type Found = (Vec<u16>, BTreeSet<(String, String)>);

    fn found(routes: &Routes, topic: &str) -> Found {
        let mut set = ReactorSet::default();
        let mut groups = BTreeSet::new();
        routes.matching(routes.hasher.hash(topic), topic, &mut set, |group| {
            assert!(
                groups.insert((group.key.group.to_string(), group.key.path.to_string())),
                "a group came twice"
            );
        });
        (set.iter().map(|reactor| reactor.0).collect(), groups)
    }

    fn key(group: &str, path: &str) -> Arc<GroupKey> {
        Arc::new(GroupKey {
            group: group.into(),
            path: path.into(),
        })
    }

    #[test]
    fn a_group_prefers_those_online_by_their_number() {
        let mut routes = Routes::new(TopicHasher::fixed(1));
        routes.set_group(&key("g", "a"), ReactorId(0), 1, 50);
        routes.set_group(&key("g", "a"), ReactorId(1), 3, 0);
        routes.set_group(&key("g", "a"), ReactorId(2), 0, 9);
        let picks = |routes: &Routes| {
            let mut counts = [0; 3];
            routes.matching(
                routes.hasher.hash("a"),
                "a",
                &mut ReactorSet::default(),
                |group| {
                    for i in 0..400u64 {
                        counts[group.pick(i * (u64::MAX / 400)).unwrap().index()] += 1;
                    }
                    assert!(group.pick(u64::MAX).is_some());
                },
            );
            counts
        };
        let counts = picks(&routes);
        assert!(
            counts[2] == 0 && counts[1] > 2 * counts[0] && counts[0] > 0,
            "{counts:?}"
        );
        routes.set_group(&key("g", "a"), ReactorId(0), 0, 50);
        routes.set_group(&key("g", "a"), ReactorId(1), 0, 0);
        let counts = picks(&routes);
        assert!(
            counts[1] == 0 && counts[0] > counts[2] && counts[2] > 0,
            "{counts:?}"
        );
        routes.set_group(&key("g", "a"), ReactorId(0), 0, 0);
        routes.set_group(&key("g", "a"), ReactorId(2), 0, 0);
        assert!(routes.is_empty());
    }

    proptest! {
        /// Against a plain list.
        #[test]
        fn routes_as_the_plain_matcher_does(
            steps in prop::collection::vec((generate::filter(), 0u16..70, 0u8..4, 0u8..3), 1..80),
            topics in prop::collection::vec(generate::topic(), 1..10),
        ) {
            let mut routes = Routes::new(TopicHasher::fixed(1));
            let mut reactors: BTreeSet<(String, u16)> = BTreeSet::new();
            let mut groups: BTreeMap<(String, String), BTreeSet<u16>> = BTreeMap::new();
            for (path, reactor, step, group) in steps {
                let id = ReactorId(reactor);
                let name = format!("g{group}");
                match step {
                    0 if has_wildcard(&path) => {
                        routes.add(&path, id);
                        reactors.insert((path, reactor));
                    }
                    1 => {
                        routes.remove(&path, id);
                        reactors.remove(&(path, reactor));
                    }
                    2 => {
                        routes.set_group(&key(&name, &path), id, 1, 0);
                        groups.entry((name, path)).or_default().insert(reactor);
                    }
                    _ => {
                        routes.set_group(&key(&name, &path), id, 0, 0);
                        groups.entry((name, path)).or_default().remove(&reactor);
                    }
                }
                routes.check_invariants();
                for topic in &topics {
                    let wide = reactors.iter().filter(|(path, _)| matches(path, topic));
                    let wide: BTreeSet<u16> = wide.map(|&(_, reactor)| reactor).collect();
                    let shared = groups.iter().filter(|((_, path), members)| !members.is_empty() && matches(path, topic));
                    let expected = (wide.into_iter().collect(), shared.map(|(key, _)| key.clone()).collect());
                    prop_assert_eq!(found(&routes, topic), expected, "{}", topic);
                }
            }
        }
    }
}
