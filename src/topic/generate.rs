//! Random filters and topics for the property tests: few distinct levels, so that they meet often.

use proptest::prelude::*;

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "ab", "$SYS", "é"])
}

/// Whose it is: mostly nobody's.
fn prefix() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", "\0t/", "\0u/"])
}

/// A valid topic name, of some tenant.
pub(super) fn topic() -> impl Strategy<Value = String> {
    (prefix(), prop::collection::vec(level(), 1..5))
        .prop_map(|(prefix, levels)| (prefix, levels.join("/")))
        .prop_filter("not empty", |(_, topic)| !topic.is_empty())
        .prop_map(|(prefix, topic)| [prefix, &topic].concat())
}

/// A valid path of a filter, of some tenant.
pub(super) fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prefix(), prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(prefix, mut levels, open)| {
            if open {
                levels.push("#");
            }
            (prefix, levels.join("/"))
        })
        .prop_filter("not empty", |(_, filter)| !filter.is_empty())
        .prop_map(|(prefix, filter)| [prefix, &filter].concat())
}
