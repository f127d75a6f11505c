//! The index against a naive model, its sizes, and its behaviour under churn.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::limits::{RECORDED_SUBSCRIPTIONS, SESSION_BITS};
use crate::topic::filter::matches;
use crate::topic::generate;

const PLAIN: SubOptions = SubOptions {
    qos: 1,
    no_local: false,
    retain_as_published: false,
};

fn index() -> Index {
    Index::new(TopicHasher::fixed(7))
}

fn matching(index: &Index, topic: &str) -> Vec<FilterId> {
    let mut out = vec![FilterId(999)];
    index.matching(index.hasher.hash(topic), topic, &mut out);
    out
}

/// Who is served with what: session, options, identifiers in ascending order.
type Served = Vec<(u32, SubOptions, Vec<u32>)>;

fn sorted(mut served: Served) -> Served {
    for (_, _, ids) in &mut served {
        ids.sort_unstable();
    }
    served.sort_by_key(|&(session, ..)| session);
    served
}

/// Who would get a message, as a fan-out finds them.
fn served(index: &Index, topic: &str) -> Served {
    let matched = matching(index, topic);
    let mut entries = vec![Entry::new(SessionIdx(77), PLAIN, false)];
    index.snapshot(&matched, &mut entries);
    let serve = |entry: &Entry| {
        let mut ids = Vec::new();
        if entry.has_id() {
            index.subscription_ids(entry.session(), &matched, &mut ids);
        }
        (entry.session().0, entry.options(), ids)
    };
    sorted(entries.iter().map(serve).collect())
}

/// Everything the index should know, the plain way.
#[derive(Default)]
struct Model(BTreeMap<(u32, String), (SubOptions, Option<u32>)>);

impl Model {
    fn has(&self, path: &str) -> bool {
        self.0.keys().any(|(_, other)| other == path)
    }

    fn served(&self, topic: &str) -> Served {
        let mut served: BTreeMap<u32, (SubOptions, Vec<u32>)> = BTreeMap::new();
        for ((session, _), (options, id)) in
            self.0.iter().filter(|((_, path), _)| matches(path, topic))
        {
            let (merged, ids) = served.entry(*session).or_insert((*options, Vec::new()));
            merged.qos = merged.qos.max(options.qos);
            merged.no_local &= options.no_local;
            merged.retain_as_published |= options.retain_as_published;
            ids.extend(id);
        }
        sorted(
            served
                .into_iter()
                .map(|(session, (options, ids))| (session, options, ids))
                .collect(),
        )
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, String, SubOptions, Option<u32>),
    Unsubscribe(u32, String),
    Clear(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let session = || {
        prop_oneof![0u32..8, Just((1 << SESSION_BITS) - 1)].prop_map(|session| session.min(5000))
    };
    let options =
        (0u8..3, any::<bool>(), any::<bool>()).prop_map(|(qos, no_local, retain_as_published)| {
            SubOptions {
                qos,
                no_local,
                retain_as_published,
            }
        });
    let id = prop::option::weighted(0.3, 1u32..268_435_456);
    prop_oneof![
        6 => (session(), generate::filter(), options, id).prop_map(|(s, f, o, i)| Step::Subscribe(s, f, o, i)),
        3 => (session(), generate::filter()).prop_map(|(s, f)| Step::Unsubscribe(s, f)),
        1 => session().prop_map(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Random subscribing and leaving, with the same answers as the plain model after each step.
    #[test]
    fn answers_as_the_model_does(
        steps in prop::collection::vec(step(), 1..100),
        topics in prop::collection::vec(generate::topic(), 1..8),
    ) {
        let mut index = index();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Subscribe(session, path, options, id) => {
                    let first = !model.has(&path);
                    let new = model.0.insert((session, path.clone()), (options, id)).is_none();
                    let done = index.subscribe(SessionIdx(session), &path, options, id);
                    prop_assert_eq!((done.is_new, done.first_on_filter), (new, first));
                    prop_assert_eq!(done.hash, index.hasher.hash(&path));
                    prop_assert_eq!(index.options(SessionIdx(session), done.filter), Some(options));
                    prop_assert!(index.has(SessionIdx(session), &path));
                    prop_assert_eq!(index.subscription_id(SessionIdx(session), done.filter), id);
                }
                Step::Unsubscribe(session, path) => {
                    let had = model.0.remove(&(session, path.clone())).is_some();
                    let done = index.unsubscribe(SessionIdx(session), &path);
                    prop_assert!(!index.has(SessionIdx(session), &path));
                    prop_assert_eq!(done.map(|done| done.last_on_filter), had.then(|| !model.has(&path)));
                }
                Step::Clear(session) => {
                    let mut ended = BTreeSet::new();
                    let mut last = BTreeSet::new();
                    index.clear(SessionIdx(session), |end| {
                        assert_eq!(end.wildcard, has_wildcard(end.path));
                        assert!(ended.insert(end.path.to_owned()));
                        if end.last_on_filter {
                            last.insert(end.path.to_owned());
                        }
                    });
                    let mine: BTreeSet<String> =
                        model.0.keys().filter(|key| key.0 == session).map(|key| key.1.clone()).collect();
                    model.0.retain(|key, _| key.0 != session);
                    let gone: BTreeSet<String> = mine.iter().filter(|path| !model.has(path)).cloned().collect();
                    prop_assert_eq!((ended, last), (mine, gone));
                }
            }
            index.check_invariants();
            prop_assert_eq!(index.len(), model.0.len());
            for topic in &topics {
                prop_assert_eq!(served(&index, topic), model.served(topic), "{}", topic);
            }
        }
        for session in (0..8).chain([5000]) {
            let found: BTreeMap<String, _> = index
                .subscriptions(SessionIdx(session))
                .map(|(path, options, id)| (path.to_owned(), (options, id)))
                .collect();
            prop_assert_eq!(index.count(SessionIdx(session)), found.len());
            let mine = model.0.iter().filter(|(key, _)| key.0 == session);
            prop_assert_eq!(found, mine.map(|(key, value)| (key.1.clone(), *value)).collect::<BTreeMap<_, _>>());
        }
    }

    /// Sessions with so many filters that they go from record to set and back, sharing all of them.
    #[test]
    fn many_filters_a_session(order in prop::collection::vec((0u32..3, 0u32..80, any::<bool>()), 1..400)) {
        let mut index = index();
        let mut model = BTreeSet::new();
        for (at, (session, filter, subscribe)) in order.into_iter().enumerate() {
            let path = format!("t/{filter}");
            if subscribe || at < 150 {
                let done = index.subscribe(SessionIdx(session), &path, PLAIN, None);
                prop_assert_eq!(done.is_new, model.insert((session, filter)));
            } else {
                let done = index.unsubscribe(SessionIdx(session), &path);
                prop_assert_eq!(done.is_some(), model.remove(&(session, filter)));
            }
        }
        index.check_invariants();
        prop_assert_eq!(index.len(), model.len());
        index.clear(SessionIdx(1), |_| {});
        index.check_invariants();
    }
}

#[test]
fn an_entry_holds_the_largest_session_and_all_options() {
    let session = SessionIdx((1 << SESSION_BITS) - 1);
    let options = SubOptions {
        qos: 2,
        no_local: true,
        retain_as_published: true,
    };
    let entry = Entry::new(session, options, true);
    assert_eq!(
        (entry.session(), entry.options(), entry.has_id()),
        (session, options, true)
    );
    let entry = Entry::new(SessionIdx(5), SubOptions::default(), false);
    assert_eq!(
        (entry.session(), entry.options(), entry.has_id()),
        (SessionIdx(5), SubOptions::default(), false)
    );
}

#[test]
fn a_topic_of_one_phone_costs_at_most_64_bytes() {
    let mut index = index();
    let count = 100_000;
    for phone in 0..count {
        index.subscribe(
            SessionIdx(phone),
            &format!("phones/{phone:09}/in"),
            PLAIN,
            None,
        );
    }
    let memory = index.memory();
    let (reserved, used) = (
        memory.reserved / count as usize,
        memory.used / count as usize,
    );
    println!("a unique topic of 19 bytes: {reserved} bytes reserved, {used} used");
    assert!(reserved <= 64, "{reserved} bytes a topic");
    assert!(memory.used <= memory.reserved);
    // The same phones on one topic more: an entry, a holding, and the list's room to grow.
    for phone in 0..count {
        index.subscribe(SessionIdx(phone), "all", PLAIN, None);
    }
    let further = (index.memory().reserved - memory.reserved) / count as usize;
    println!("a further subscriber: {further} bytes reserved");
    assert!(further <= 12 + 8, "{further} bytes a subscriber");
}

#[test]
fn memory_comes_back() {
    let mut index = index();
    let empty = index.memory();
    for phone in 0..50_000 {
        index.subscribe(
            SessionIdx(phone),
            &format!("phones/{phone}/in"),
            PLAIN,
            Some(7),
        );
        index.subscribe(SessionIdx(phone), "all", PLAIN, None);
        index.subscribe(
            SessionIdx(phone),
            &format!("+/{}/x", phone % 100),
            PLAIN,
            None,
        );
    }
    for phone in 0..50_000 {
        index.clear(SessionIdx(phone), |_| {});
    }
    index.check_invariants();
    assert!(index.is_empty());
    let left = index.memory();
    assert_eq!(left.used, empty.used);
    // The heads of 50,000 sessions, and a chunk of each arena.
    assert!(left.reserved < 50_000 * 4 + 400_000, "{left:?}");
}

#[test]
fn churn_does_not_grow() {
    let mut index = index();
    let mut after_first = 0;
    for round in 0..30u32 {
        for phone in 0..5000 {
            let phone = SessionIdx(phone);
            index.clear(phone, |_| {});
            index.subscribe(
                phone,
                &format!("phones/{}/{round}", phone.0),
                PLAIN,
                Some(round + 1),
            );
            index.subscribe(phone, "all", PLAIN, None);
            index.subscribe(
                phone,
                &format!("room/{}/+", (phone.0 + round) % 50),
                PLAIN,
                None,
            );
        }
        if round == 5 {
            after_first = index.memory().reserved;
        }
    }
    index.check_invariants();
    let at_end = index.memory().reserved;
    assert!(
        at_end <= after_first + after_first / 10,
        "{after_first} bytes have become {at_end}"
    );
}

#[test]
fn a_broadcast_serves_those_who_listen_to_more_only_once() {
    let mut index = index();
    let mut model = Model::default();
    let mut subscribe = |session: u32, path: &str, qos: u8, id: Option<u32>| {
        let options = SubOptions { qos, ..PLAIN };
        index.subscribe(SessionIdx(session), path, options, id);
        model.0.insert((session, path.to_owned()), (options, id));
    };
    // Filters of either side of the list that is long.
    subscribe(3, "+", 2, Some(3));
    for session in 0..500 {
        subscribe(session, "a", 0, None);
    }
    subscribe(3, "#", 1, Some(4));
    subscribe(400, "a/#", 2, None);
    subscribe(900, "#", 1, None);
    assert_eq!(served(&index, "a"), model.served("a"));
    assert_eq!(served(&index, "a").len(), 501);
}

#[test]
fn lists_shrink_when_most_have_left() {
    let mut index = index();
    for phone in 0..10_000 {
        index.subscribe(SessionIdx(phone), "all", PLAIN, None);
    }
    for phone in 10..10_000 {
        index.unsubscribe(SessionIdx(phone), "all");
    }
    index.check_invariants();
    let all = matching(&index, "all")[0];
    assert_eq!(index.audience(all), 10);
    let reserved: usize = index.lists.iter().map(List::allocated).sum();
    assert!(reserved <= 256 * 4, "{reserved} bytes");
}

#[test]
fn a_gateway_and_its_neighbour_leave_in_linear_time() {
    let mut index = index();
    let count = 200_000;
    for filter in 0..count {
        index.subscribe(SessionIdx(0), &format!("t/{filter}"), PLAIN, None);
        index.subscribe(SessionIdx(1), &format!("t/{filter}"), PLAIN, None);
        index.subscribe(SessionIdx(2), &format!("t/{filter}"), PLAIN, None);
    }
    assert_eq!(index.count(SessionIdx(0)), count);
    for session in 0..3 {
        index.clear(SessionIdx(session), |_| {});
    }
    assert!(index.is_empty());
    const { assert!(RECORDED_SUBSCRIPTIONS < 100) };
}
