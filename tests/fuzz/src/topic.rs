//! Topics and filters: no text makes the parsers panic, and the index finds exactly what a naive matcher finds.
//!
//! The input is lines. `+text` subscribes the session of the line's number, `-text` unsubscribes, `!` ends a session, anything else is a topic.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use stillwire::ids::SessionIdx;
use stillwire::topic::filter::{Filter, matches};
use stillwire::topic::name::validate_name;
use stillwire::topic::{Index, SubOptions, TopicHasher};

const SESSIONS: u32 = 5;
const LEVELS: u16 = 64;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let hasher = TopicHasher::fixed(7);
    let mut index = Index::new(hasher.clone());
    let mut model: BTreeMap<(u32, String), SubOptions> = BTreeMap::new();
    let mut found = Vec::new();
    for (number, line) in text.lines().take(200).enumerate() {
        let session = number as u32 % SESSIONS;
        let (kind, rest) = line.split_at_checked(1).unwrap_or(("", line));
        match kind {
            "+" => {
                let Ok(filter) = Filter::parse(rest, LEVELS) else { continue };
                let options = SubOptions { qos: (number % 3) as u8, no_local: number % 2 == 0, retain_as_published: number % 5 == 0 };
                let is_new = model.insert((session, filter.path.to_owned()), options).is_none();
                let id = (number % 4 == 0).then_some(number as u32 + 1);
                assert_eq!(index.subscribe(SessionIdx(session), filter.path, options, id).is_new, is_new);
            }
            "-" => {
                let Ok(filter) = Filter::parse(rest, LEVELS) else { continue };
                let was = model.remove(&(session, filter.path.to_owned())).is_some();
                assert_eq!(index.unsubscribe(SessionIdx(session), filter.path).is_some(), was);
            }
            "!" => {
                let before = model.len();
                model.retain(|(of, _), _| *of != session);
                let mut ended = 0;
                index.clear(SessionIdx(session), |_| ended += 1);
                assert_eq!(ended, before - model.len());
            }
            _ => {
                if validate_name(line, LEVELS).is_err() {
                    continue;
                }
                index.matching(hasher.hash(line), line, &mut found);
                let mut have: Vec<u32> = found.iter().flat_map(|filter| index.subscribers(*filter)).map(|entry| entry.session().0).collect();
                have.sort_unstable();
                let mut due: Vec<u32> = model.keys().filter(|(_, path)| matches(path, line)).map(|(of, _)| *of).collect();
                due.sort_unstable();
                assert_eq!(have, due, "who gets {line:?}");
            }
        }
        assert_eq!(index.len(), model.len());
    }
    index.check_invariants();
});
