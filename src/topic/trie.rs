//! Wildcard filters: a trie of levels, from filter to a number.
//!
//! Every node is reached by one path only, so a match visits each node at most once, whatever the filters; nothing recurses. The edges of all
//! nodes are in one hash table.

use hashbrown::HashTable;

use super::arena::{Arena, StrRef};
use super::hash::TopicHasher;
use super::pool::Pool;
use super::scope::prefix_len;

const ROOT: u32 = 0;
/// No node, no value.
const NONE: u32 = u32::MAX;

/// Valid filters and the number each stands for; `u32::MAX` is not among the numbers.
#[derive(Debug)]
pub struct FilterTrie {
    hasher: TopicHasher,
    /// Empty, or the root is number 0.
    nodes: Pool<Node>,
    /// Children that stand for a literal level, by parent and label.
    edges: HashTable<u32>,
    labels: Arena,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    label: Label,
    /// The child for `+`.
    plus: u32,
    /// Children of both kinds.
    children: u32,
    /// The filter that ends here.
    exact: u32,
    /// The filter that ends here with `/#`; at the root, `#`.
    rest: u32,
}

#[derive(Debug, Clone, Copy)]
enum Label {
    Root,
    Plus,
    Literal(StrRef),
}

impl Default for Node {
    fn default() -> Self {
        Self {
            parent: NONE,
            label: Label::Root,
            plus: NONE,
            children: 0,
            exact: NONE,
            rest: NONE,
        }
    }
}

impl FilterTrie {
    /// No filters.
    pub fn new(hasher: TopicHasher) -> Self {
        Self {
            hasher,
            nodes: Pool::default(),
            edges: HashTable::new(),
            labels: Arena::default(),
            len: 0,
        }
    }

    /// Sets the number of a filter; returns the one it had.
    pub fn insert(&mut self, filter: &str, value: u32) -> Option<u32> {
        debug_assert_ne!(value, NONE);
        if self.nodes.len() == 0 {
            self.nodes.insert(Node::default());
        }
        let (path, ends_open) = split_rest(filter);
        let mut node = ROOT;
        for level in levels(path) {
            node = match self.child(node, level) {
                Some(child) => child,
                None => self.add_child(node, level),
            };
        }
        let before = std::mem::replace(self.value_mut(node, ends_open), value);
        self.len += usize::from(before == NONE);
        some(before)
    }

    /// Takes a filter out; returns its number.
    pub fn remove(&mut self, filter: &str) -> Option<u32> {
        let (path, ends_open) = split_rest(filter);
        let node = self.find(path)?;
        let before = some(std::mem::replace(self.value_mut(node, ends_open), NONE))?;
        self.len -= 1;
        self.prune(node);
        Some(before)
    }

    /// The number of a filter.
    pub fn get(&self, filter: &str) -> Option<u32> {
        let (path, ends_open) = split_rest(filter);
        let node = &self.nodes[self.find(path)?];
        some(if ends_open { node.rest } else { node.exact })
    }

    /// How many filters there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Hands over the number of each filter that matches a valid topic name.
    pub fn matches(&self, topic: &str, mut on_match: impl FnMut(u32)) {
        if self.is_empty() {
            return;
        }
        let topic = topic.as_bytes();
        // Where a literal and a `+` both lead on, one waits here: at most one a level.
        let mut waiting: Vec<(u32, usize)> = Vec::new();
        // Section 4.7.2: a filter that starts with a wildcard does not match a topic that starts with `$`. A tenant's names start behind its
        // prefix, which no wildcard stands for.
        let first = prefix_len(topic);
        let hidden = topic.get(first) == Some(&b'$');
        let mut next = Some((ROOT, 0));
        while let Some((number, start)) = next {
            let node = &self.nodes[number];
            let wild = start > first || start == first && !hidden;
            if node.rest != NONE && wild {
                on_match(node.rest);
            }
            // One past the slash that ended the last level: nothing is left.
            if start > topic.len() {
                if node.exact != NONE {
                    on_match(node.exact);
                }
                next = waiting.pop();
                continue;
            }
            let left = &topic[start..];
            let level = &left[..left
                .iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(left.len())];
            let after = start + level.len() + 1;
            let plus = (node.plus != NONE && wild).then_some((node.plus, after));
            let literals = node.children > u32::from(node.plus != NONE);
            let literal = literals
                .then(|| self.literal_child(number, level))
                .flatten();
            next = match (literal.map(|child| (child, after)), plus) {
                (Some(literal), Some(plus)) => {
                    waiting.push(plus);
                    Some(literal)
                }
                (Some(only), None) | (None, Some(only)) => Some(only),
                (None, None) => waiting.pop(),
            };
        }
    }

    /// Bytes taken from the allocator.
    pub fn reserved(&self) -> usize {
        self.nodes.reserved() + self.edges.allocation_size() + self.labels.reserved()
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.edges.len() * 5 + self.labels.used()
    }

    fn find(&self, path: Option<&str>) -> Option<u32> {
        if self.nodes.len() == 0 {
            return None;
        }
        levels(path).try_fold(ROOT, |node, level| self.child(node, level))
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        if level == "+" {
            return some(self.nodes[parent].plus);
        }
        self.literal_child(parent, level.as_bytes())
    }

    fn literal_child(&self, parent: u32, level: &[u8]) -> Option<u32> {
        self.edges
            .find(self.hasher.level(parent, level), |&at| {
                self.is_edge(at, parent, level)
            })
            .copied()
    }

    fn is_edge(&self, child: u32, parent: u32, level: &[u8]) -> bool {
        let node = &self.nodes[child];
        node.parent == parent
            && matches!(node.label, Label::Literal(label) if self.labels.get(label) == level)
    }

    fn add_child(&mut self, parent: u32, level: &str) -> u32 {
        self.nodes[parent].children += 1;
        if level == "+" {
            let child = self.nodes.insert(Node {
                parent,
                label: Label::Plus,
                ..Node::default()
            });
            self.nodes[parent].plus = child;
            return child;
        }
        let label = self.labels.insert(level.as_bytes());
        let child = self.nodes.insert(Node {
            parent,
            label: Label::Literal(label),
            ..Node::default()
        });
        let Self {
            edges,
            nodes,
            labels,
            hasher,
            ..
        } = self;
        edges.insert_unique(hasher.level(parent, level.as_bytes()), child, |&at| {
            let node = &nodes[at];
            match node.label {
                Label::Literal(label) => hasher.level(node.parent, labels.get(label)),
                Label::Root | Label::Plus => unreachable!("only literal levels are in the table"),
            }
        });
        child
    }

    /// Removes a node that holds nothing, and then what led to it alone.
    fn prune(&mut self, mut at: u32) {
        loop {
            let node = self.nodes[at];
            if node.children > 0 || node.exact != NONE || node.rest != NONE {
                return;
            }
            self.nodes.remove(at);
            match node.label {
                // The pool is empty now, and the table may give its memory back.
                Label::Root => {
                    self.edges = HashTable::new();
                    return;
                }
                Label::Plus => self.nodes[node.parent].plus = NONE,
                Label::Literal(label) => {
                    let hash = self.hasher.level(node.parent, self.labels.get(label));
                    if let Ok(edge) = self.edges.find_entry(hash, |&child| child == at) {
                        edge.remove();
                    }
                    self.labels.remove(label);
                }
            }
            self.nodes[node.parent].children -= 1;
            at = node.parent;
        }
    }

    fn value_mut(&mut self, node: u32, ends_open: bool) -> &mut u32 {
        let node = &mut self.nodes[node];
        if ends_open {
            &mut node.rest
        } else {
            &mut node.exact
        }
    }

    /// Walks the whole trie.
    ///
    /// # Panics
    /// When its parts disagree.
    pub fn check_invariants(&self) {
        self.labels.check_invariants();
        if self.nodes.len() == 0 {
            assert!(self.len == 0 && self.edges.is_empty() && self.labels.used() == 0);
            return;
        }
        let mut children = std::collections::HashMap::<u32, Vec<u32>>::new();
        for &child in &self.edges {
            children
                .entry(self.nodes[child].parent)
                .or_default()
                .push(child);
        }
        let (mut seen, mut filters) = (0, 0);
        let mut open = vec![ROOT];
        while let Some(at) = open.pop() {
            seen += 1;
            let node = &self.nodes[at];
            let mut own = children.remove(&at).unwrap_or_default();
            if node.plus != NONE {
                assert!(matches!(self.nodes[node.plus].label, Label::Plus));
                own.push(node.plus);
            }
            assert_eq!(own.len() as u32, node.children, "children of {at}");
            assert!(own.iter().all(|&child| self.nodes[child].parent == at));
            let values = usize::from(node.exact != NONE) + usize::from(node.rest != NONE);
            assert!(values > 0 || !own.is_empty(), "node {at} leads nowhere");
            filters += values;
            open.extend(own);
        }
        assert_eq!((seen, filters), (self.nodes.len(), self.len));
        assert!(children.is_empty(), "edges from nowhere");
    }
}

/// A filter without its `#`: the path before it, none where `#` is all there is, and whether there was one.
fn split_rest(filter: &str) -> (Option<&str>, bool) {
    if filter == "#" {
        return (None, true);
    }
    match filter.strip_suffix("/#") {
        Some(path) => (Some(path), true),
        None => (Some(filter), false),
    }
}

fn levels(path: Option<&str>) -> impl Iterator<Item = &str> {
    path.into_iter().flat_map(|path| path.split('/'))
}

fn some(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::topic::filter::matches;
    use crate::topic::generate;

    fn trie(filters: &[&str]) -> FilterTrie {
        let mut trie = FilterTrie::new(TopicHasher::fixed(1));
        for (number, filter) in filters.iter().enumerate() {
            trie.insert(filter, number as u32);
        }
        trie.check_invariants();
        trie
    }

    fn found(trie: &FilterTrie, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        trie.matches(topic, |value| found.push(value));
        found.sort_unstable();
        found
    }

    #[test]
    fn the_standards_own_examples() {
        let trie = trie(&[
            "sport/tennis/player1/#",
            "sport/#",
            "#",
            "sport/tennis/+",
            "+",
            "/+",
            "+/+",
            "$SYS/#",
        ]);
        assert_eq!(found(&trie, "sport/tennis/player1"), [0, 1, 2, 3]);
        assert_eq!(found(&trie, "sport"), [1, 2, 4]);
        assert_eq!(found(&trie, "/finance"), [2, 5, 6]);
        assert_eq!(found(&trie, "$SYS/monitor"), [7]);
        assert_eq!(found(&trie, "$SYS"), [7]);
    }

    #[test]
    fn a_path_of_slashes_costs_a_node_a_level() {
        let slashes = "/".repeat(65_535);
        let mut trie = trie(&[]);
        trie.insert(&slashes, 1);
        assert_eq!(found(&trie, &slashes), [1]);
        assert!(found(&trie, "/").is_empty());
        assert_eq!(trie.remove(&slashes), Some(1));
        trie.check_invariants();
        assert_eq!(trie.nodes.len(), 0);
    }

    #[test]
    fn pluses_in_every_place_visit_each_node_once() {
        // All filters of 16 levels of `a` and `+`: 65,536 match, and no node more is visited than there are.
        let mut trie = trie(&[]);
        for bits in 0..1u32 << 16 {
            let filter: Vec<&str> = (0..16)
                .map(|at| if bits >> at & 1 == 0 { "a" } else { "+" })
                .collect();
            trie.insert(&filter.join("/"), bits);
        }
        assert_eq!(found(&trie, &["a"; 16].join("/")).len(), 65_536);
    }

    proptest! {
        /// Against a map and the plain matcher.
        #[test]
        fn matches_as_the_standard_says(
            steps in prop::collection::vec((generate::filter(), 0u8..3), 1..60),
            topics in prop::collection::vec(generate::topic(), 1..20),
        ) {
            let mut trie = trie(&[]);
            let mut model = BTreeMap::new();
            for (value, (filter, step)) in steps.into_iter().enumerate() {
                if step == 0 {
                    prop_assert_eq!(trie.remove(&filter), model.remove(&filter));
                } else {
                    prop_assert_eq!(trie.insert(&filter, value as u32), model.insert(filter.clone(), value as u32));
                }
                trie.check_invariants();
                prop_assert_eq!(trie.get(&filter), model.get(&filter).copied());
                for topic in &topics {
                    let mut expected: Vec<u32> =
                        model.iter().filter(|(filter, _)| matches(filter, topic)).map(|(_, &value)| value).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found(&trie, topic), expected, "{}", topic);
                }
            }
        }
    }
}
