//! Which nodes a client is sent to, and in what order. Pure: the table, what is asked and the randomness come from outside.
//!
//! A node that drains is never chosen. Of the others, those with room come before those without, then those that have more in common with who
//! asks (the same place first), and among equals it is the power of two choices: two are drawn by weight and free room, and the less busy one
//! is taken. With randomness that follows from the client identifier the same client is sent to the same nodes while their loads keep their
//! order, so that its cached ticket stays true.

use super::labels::Labels;
use super::nodes::{Load, Node};
use crate::limits;

/// Positions of the nodes for a client, the best first, at most `most`.
pub fn order<N: AsRef<Node>>(
    nodes: &[N],
    asker: &Labels,
    most: usize,
    random: &mut Random,
) -> Vec<usize> {
    let mut left: Vec<Choice> = nodes
        .iter()
        .map(AsRef::as_ref)
        .enumerate()
        .filter(|(_, node)| !node.draining)
        .map(|(at, node)| Choice::new(at, node, asker))
        .collect();
    let mut order = Vec::with_capacity(most.min(left.len()));
    while order.len() < most && !left.is_empty() {
        let taken = choose(&left, random);
        order.push(left.swap_remove(taken).at);
        // The order of what is left must not depend on what was taken before, or the same client would see another one.
        left.sort_unstable_by_key(|choice| choice.at);
    }
    order
}

/// A node as the policy sees it.
#[derive(Debug)]
struct Choice {
    at: usize,
    /// The higher the better, before anything else counts.
    tier: (bool, usize),
    /// How often it is drawn.
    weight: u64,
    /// Unknown for nodes that tell nothing.
    busy: Option<f64>,
}

impl Choice {
    fn new(at: usize, node: &Node, asker: &Labels) -> Self {
        let has_room = node.load.is_none_or(|load| !load.is_full());
        let free = node.load.map_or(1.0, |load| 1.0 - load.share_online());
        Self {
            at,
            tier: (has_room, asker.in_common(&node.labels)),
            // A thousandth of the weight is the finest step, and never nothing: a full table still gives an answer.
            weight: ((f64::from(node.weight) * 1000.0 * free) as u64).max(1),
            busy: node.load.map(|load| load.busy()),
        }
    }
}

/// The power of two choices within the best tier; the position in `left`, which is not empty.
fn choose(left: &[Choice], random: &mut Random) -> usize {
    let best = left.iter().map(|choice| choice.tier).max();
    let tier = || (0..left.len()).filter(|at| Some(left[*at].tier) == best);
    let first = draw(left, tier(), random.draw());
    let Some(second) = tier().any(|at| at != first).then(|| {
        let others = tier().filter(|at| *at != first);
        draw(left, others, random.draw())
    }) else {
        return first;
    };
    match (left[first].busy, left[second].busy) {
        (Some(one), Some(other)) if other < one => second,
        // Where a load is unknown, the weights alone decide.
        _ => first,
    }
}

/// One of these positions, by weight.
fn draw(left: &[Choice], of: impl Iterator<Item = usize> + Clone, random: u64) -> usize {
    let total: u64 = of.clone().map(|at| left[at].weight).sum();
    // The upper half of the product: as even as the randomness, and without a division.
    let mut mark = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    let mut last = 0;
    for at in of {
        last = at;
        if mark < left[at].weight {
            break;
        }
        mark -= left[at].weight;
    }
    last
}

impl Load {
    /// Of the connections it may hold, the share that it holds.
    fn share_online(&self) -> f64 {
        share(self.online, self.capacity)
    }

    /// How much of what it can do it does: connections, connects, or the loop, whichever is nearest to its end.
    pub fn busy(&self) -> f64 {
        self.share_online()
            .max(share(self.connects, self.rate))
            .max(share(self.lag_micros, limits::FULL_LAG_MICROS))
    }

    /// Others should be asked first.
    pub fn is_full(&self) -> bool {
        self.online >= self.capacity || self.lag_micros >= limits::FULL_LAG_MICROS
    }
}

fn share(part: u64, whole: u64) -> f64 {
    (part as f64 / whole.max(1) as f64).min(1.0)
}

/// Numbers that follow from a seed (`SplitMix64`): enough to spread clients, and the same everywhere. Nobody's secret.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, weight: u32, labels: &str) -> Node {
        Node {
            name: name.into(),
            weight,
            labels: Labels::read(labels.split(',').filter(|label| !label.is_empty())).unwrap(),
            addresses: Vec::new(),
            draining: false,
            load: None,
        }
    }

    fn loaded(name: &str, online: u64, lag_micros: u64) -> Node {
        let load = Load {
            online,
            capacity: 1000,
            connects: 0,
            rate: 1000,
            lag_micros,
        };
        Node {
            load: Some(load),
            ..node(name, 1, "")
        }
    }

    /// How often each node comes first, for so many clients.
    fn firsts(nodes: &[Node], asker: &str, clients: u64) -> Vec<u64> {
        let asker = Labels::read(asker.split(',').filter(|label| !label.is_empty())).unwrap();
        let mut counts = vec![0; nodes.len()];
        for client in 0..clients {
            let order = order(nodes, &asker, 2, &mut Random::seeded(client));
            counts[order[0]] += 1;
        }
        counts
    }

    #[test]
    fn the_larger_deployment_gets_its_share() {
        let counts = firsts(&[node("a", 100, ""), node("b", 300, "")], "", 40_000);
        assert!((9_500..10_500).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn the_same_place_comes_first_and_others_behind_it() {
        let nodes = [
            node("a", 1, "place=ams"),
            node("b", 1, "place=fra"),
            node("c", 1, "place=fra,isp=x"),
        ];
        assert_eq!(firsts(&nodes, "place=fra,isp=x", 100), [0, 0, 100]);
        let counts = firsts(&nodes, "place=fra", 1000);
        assert_eq!(counts[0], 0);
        assert!(counts[1] > 400 && counts[2] > 400, "{counts:?}");
        let fra = Labels::read(["place=fra"].into_iter()).unwrap();
        let all = order(&nodes, &fra, 3, &mut Random::seeded(1));
        assert_eq!(all[2], 0, "the other place is the last resort");
    }

    #[test]
    fn a_full_node_at_hand_gives_way_to_a_free_one_elsewhere() {
        let mut full = loaded("a", 1000, 0);
        full.labels = Labels::read(["place=fra"].into_iter()).unwrap();
        let slow = loaded("b", 0, limits::FULL_LAG_MICROS);
        let free = loaded("c", 999, 0);
        assert_eq!(
            firsts(&[full.clone(), slow, free], "place=fra", 100),
            [0, 0, 100]
        );
        assert_eq!(
            firsts(&[full], "", 10),
            [10],
            "better than no answer: pacing says when"
        );
    }

    #[test]
    fn of_two_the_less_busy_is_taken() {
        let counts = firsts(
            &[
                loaded("a", 500, 0),
                loaded("b", 100, 0),
                loaded("c", 400, 0),
            ],
            "",
            30_000,
        );
        assert!(
            counts[1] > counts[2] && counts[2] > 1000 && counts[0] < 300,
            "{counts:?}"
        );
        let counts = firsts(&[loaded("a", 0, 100_000), loaded("b", 0, 0)], "", 100);
        assert_eq!(counts, [0, 100], "lag counts as well");
    }

    proptest! {
        #[test]
        fn an_order_has_every_open_node_once_and_no_other(
            draining in proptest::collection::vec(any::<bool>(), 0..20),
            weights in proptest::collection::vec(0u32..1000, 20),
            online in proptest::collection::vec(proptest::option::of(0u64..2000), 20),
            most in 0usize..25,
            seed in any::<u64>(),
        ) {
            let nodes: Vec<Node> = draining.iter().enumerate().map(|(at, draining)| Node {
                draining: *draining,
                load: online[at].map(|online| Load { online, capacity: 1000, connects: online, rate: 0, lag_micros: 0 }),
                ..node("n", weights[at], "")
            }).collect();
            let got = order(&nodes, &Labels::none(), most, &mut Random::seeded(seed));
            let open = draining.iter().filter(|draining| !**draining).count();
            prop_assert_eq!(got.len(), most.min(open));
            let mut sorted = got.clone();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), got.len());
            prop_assert!(got.iter().all(|at| !nodes[*at].draining));
            prop_assert_eq!(&order(&nodes, &Labels::none(), most, &mut Random::seeded(seed)), &got);
        }
    }
}
