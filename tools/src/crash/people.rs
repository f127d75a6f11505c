//! Who is there with a server: clients, what they publish, and what they subscribe to.

use fastrand::Rng;

use super::model::{Model, Topic};
use super::phone::{Nature, Phone};
use super::reader;

/// Clients that publish; the first half of them has durable sessions and subscribes too.
pub(super) const PUBLISHERS: usize = 6;
/// Clients with durable sessions that subscribe, and clients without.
pub(super) const DURABLE: usize = 12;
const TRANSIENT: usize = 5;

/// Topics that many subscribe to, topics behind a wildcard, and retained ones.
const SHARED: usize = 6;
const WILD: usize = 4;
const RETAINED: usize = 6;

pub(super) type People = (Model, Vec<Phone>, Vec<Vec<(usize, u8, bool)>>);

/// Who is there, and what they publish and subscribe to.
pub(super) fn people(random: &mut Rng) -> People {
    let count = PUBLISHERS + DURABLE + TRANSIENT;
    let mut topics = Vec::new();
    let mut named = |name: String, retained| {
        topics.push(Topic { name, retained });
        topics.len() - 1
    };
    let shared: Vec<usize> = (0..SHARED)
        .map(|n| named(format!("s/{n}"), false))
        .collect();
    let wild: Vec<usize> = (0..WILD)
        .map(|n| named(format!("w/{n}/x"), false))
        .collect();
    let retained: Vec<usize> = (0..RETAINED)
        .map(|n| named(format!("{}{n}", reader::PREFIX), true))
        .collect();
    let own: Vec<[usize; 2]> = (0..count)
        .map(|n| ["a", "b"].map(|last| named(format!("o/{n}/{last}"), false)))
        .collect();
    let mut model = Model::new(random.u64(..), topics);
    let mut choices = vec![Vec::new(); PUBLISHERS];
    for (publisher, choices) in choices.iter_mut().enumerate() {
        for qos in [1, 2] {
            // Shared topics are as likely as all own ones together.
            for &topic in &shared {
                choices.extend(std::iter::repeat_n((topic, qos, false), 8));
            }
            for &topic in &wild {
                choices.extend(std::iter::repeat_n((topic, qos, false), 3));
            }
            choices.extend(own.iter().flatten().map(|&topic| (topic, qos, false)));
        }
        for (number, &topic) in retained.iter().enumerate() {
            if number % PUBLISHERS == publisher {
                let qos = random.u8(1..=2);
                choices.extend(std::iter::repeat_n((topic, qos, true), 8));
            }
        }
        let mut streams: Vec<(usize, u8)> = choices
            .iter()
            .map(|&(topic, qos, _)| (topic, qos))
            .collect();
        streams.sort_unstable();
        streams.dedup();
        for (topic, qos) in streams {
            model.add_stream(publisher, topic, qos);
        }
    }
    let mut phones = Vec::new();
    for (number, own) in own.iter().enumerate() {
        let publishes = number < PUBLISHERS;
        let durable = if publishes {
            number < PUBLISHERS / 2
        } else {
            number < PUBLISHERS + DURABLE
        };
        let mut filters: Vec<(String, u8, Vec<usize>)> = Vec::new();
        if durable || !publishes {
            for (n, &topic) in shared.iter().enumerate() {
                if random.bool() {
                    filters.push((format!("s/{n}"), random.u8(1..=2), vec![topic]));
                }
            }
            filters.push((format!("o/{number}/+"), random.u8(1..=2), own.to_vec()));
            if random.bool() {
                filters.push(("w/+/x".into(), random.u8(1..=2), wild.clone()));
            }
            if random.bool() {
                filters.push((
                    format!("{}+", reader::PREFIX),
                    random.u8(1..=2),
                    retained.clone(),
                ));
            }
        }
        let holds: Vec<(u8, Vec<usize>)> = filters
            .iter()
            .map(|(_, qos, topics)| (*qos, topics.clone()))
            .collect();
        model.add_session(durable, &holds);
        let nature = Nature {
            version: if number % 2 == 0 { 5 } else { 4 },
            durable,
            window: if publishes { random.usize(1..=30) } else { 0 },
            filters: filters
                .into_iter()
                .map(|(filter, qos, _)| (filter, qos))
                .collect(),
            receive_maximum: random.u16(2..60),
            slow: random.u8(..3) == 0,
        };
        phones.push(Phone::new(number, nature));
    }
    (model, phones, choices)
}
