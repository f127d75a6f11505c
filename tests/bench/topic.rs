//! Who subscribes to a topic: in one shard, and which shards.

use std::hint::black_box;
use std::sync::Arc;

use stillwire::ids::{ReactorId, SessionIdx};
use stillwire::topic::{Index, Masks, Own, ReactorSet, SubOptions, TopicHasher};

use crate::counted::{Scale, count};
use crate::packets::{self, COMMON};

/// Wildcard filters beside the exact ones.
const WILDCARDS: usize = 100;

/// All of it.
pub(crate) fn run(scale: Scale) {
    let hasher = TopicHasher::fixed(1);
    let mut index = Index::new(hasher.clone());
    let options = SubOptions {
        qos: 1,
        ..SubOptions::default()
    };
    for client in 0..scale.population {
        let session = SessionIdx(client as u32);
        index.subscribe(session, &packets::own_topic(client), options, None);
        index.subscribe(session, COMMON, options, None);
    }
    let topics: Vec<String> = scale.scattered().map(packets::own_topic).collect();
    count("match: hash of a topic", topics.len(), || {
        for topic in &topics {
            black_box(hasher.hash(topic));
        }
    });
    let (mut matched, mut entries) = (Vec::new(), Vec::with_capacity(scale.population));
    let mut find = |index: &Index, name: &str, times: usize, topics: &[String]| {
        count(name, times, || {
            for topic in topics {
                entries.clear();
                index.matching(hasher.hash(topic), topic, &mut matched);
                index.snapshot(&matched, &mut entries);
                black_box(&entries);
            }
        });
    };
    let nobody: Vec<String> = topics.iter().map(|topic| format!("{topic}/x")).collect();
    find(&index, "match: nobody subscribes", topics.len(), &nobody);
    find(&index, "match: one subscriber", topics.len(), &topics);
    find(
        &index,
        "match: everybody, per subscriber",
        scale.population,
        &[COMMON.to_owned()],
    );
    for filter in 0..WILDCARDS {
        let session = SessionIdx((filter % scale.population) as u32);
        index.subscribe(
            session,
            &format!("fleet/{filter:03}/+/state"),
            options,
            None,
        );
    }
    find(
        &index,
        "match: one subscriber, beside 100 wildcard filters",
        topics.len(),
        &topics,
    );
    let fleet: Vec<String> = scale
        .scattered()
        .map(|client| format!("fleet/{:03}/{client:07}/state", client % WILDCARDS))
        .collect();
    find(
        &index,
        "match: one wildcard filter of 100",
        fleet.len(),
        &fleet,
    );
    interest(scale, &hasher, &topics);
}

fn interest(scale: Scale, hasher: &TopicHasher, topics: &[String]) {
    let masks = Arc::new(Masks::new(2, scale.population));
    let mut owns = [0, 1].map(|reactor| Own::new(ReactorId(reactor), Arc::clone(&masks)));
    for client in 0..scale.population {
        owns[client % 2].add(hasher.hash(&packets::own_topic(client)));
    }
    let hashes: Vec<_> = topics.iter().map(|topic| hasher.hash(topic)).collect();
    count("match: reactors with interest, of 2", hashes.len(), || {
        for &hash in &hashes {
            let mut to = ReactorSet::default();
            masks.collect(hash, &mut to);
            for reactor in to.iter() {
                black_box(reactor);
            }
        }
    });
}
