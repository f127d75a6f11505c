//! Patterns and rules against a naive model: all names over a small alphabet are listed, and the sets compared.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::topic::matches;

/// All names of up to four levels of these words and a few more; `c` and `$t` stand in no filter, so they stand for all other words.
fn names(more: &BTreeSet<String>) -> Vec<String> {
    let plain = ["a", "b", "c", "", "$s", "$t"].map(str::to_owned);
    let words: BTreeSet<String> = more.iter().cloned().chain(plain).collect();
    let mut all: Vec<String> = Vec::new();
    let mut last: Vec<String> = words.iter().cloned().collect();
    for _ in 0..4 {
        all.extend(last.iter().filter(|name| !name.is_empty()).cloned());
        last = last
            .iter()
            .flat_map(|before| words.iter().map(move |word| format!("{before}/{word}")))
            .collect();
    }
    all
}

fn join(mut levels: Vec<&str>, open: bool) -> String {
    if open {
        levels.push("#");
    }
    levels.join("/")
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$s", "+", "+"]);
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(levels, open)| join(levels, open))
        .prop_filter("not empty", |filter| !filter.is_empty())
}

fn pattern() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$s", "+", "%c", "$%c", "%u", "b%c%u"]);
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(levels, open)| join(levels, open))
        .prop_filter("not empty", |filter| !filter.is_empty())
}

/// Names that clients give themselves, most of them with a purpose.
fn odd_name() -> impl Strategy<Value = String> {
    let names = [
        "a", "b", "s", "t", "ab", "", "+", "#", "a/b", "/", "$s", "a+", "#b", "%c", "%u",
    ];
    prop::sample::select(names.map(str::to_owned).to_vec())
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['+', '#', '/'])
}

/// Names in place of placeholders, in one pass: what a name brings along is no placeholder.
fn expand(text: &str, client: &str, user: Option<&str>) -> String {
    let parts: Vec<String> = text
        .split("%c")
        .map(|part| part.replace("%u", user.unwrap_or_default()))
        .collect();
    parts.join(client)
}

/// The levels that a pattern has for a client.
fn words(pattern: &str, client: &str, user: Option<&str>) -> BTreeSet<String> {
    let level = |level: &str| expand(level, client, user);
    let is_one = |word: &String| !word.contains(['+', '#', '/']);
    pattern.split('/').map(level).filter(is_one).collect()
}

/// What a pattern is for a client: which of the names are in it, for an allow and for a deny.
fn sets(
    names: &[String],
    pattern: &str,
    client: &str,
    user: Option<&str>,
) -> (Vec<bool>, Vec<bool>) {
    let is_odd = |level: &str| {
        (level.contains("%c") && !is_plain(client))
            || (level.contains("%u") && !user.is_some_and(is_plain))
    };
    let levels: Vec<&str> = pattern.split('/').collect();
    if let Some(at) = levels.iter().position(|level| is_odd(level)) {
        // Nothing for an allow; for a deny, everything below what is certain.
        let certain = expand(&levels[..at].join("/"), client, user);
        let is_below = |name: &String| {
            let levels: Vec<&str> = name.split('/').collect();
            levels.len() > at && (at == 0 || matches(&certain, &levels[..at].join("/")))
        };
        return (
            vec![false; names.len()],
            names.iter().map(is_below).collect(),
        );
    }
    let held = matched(names, &expand(pattern, client, user));
    (held.clone(), held)
}

fn matched(names: &[String], filter: &str) -> Vec<bool> {
    names.iter().map(|name| matches(filter, name)).collect()
}

/// All that are wanted are in a set that is not empty.
fn is_within(wanted: &[bool], set: &[bool]) -> bool {
    set.contains(&true)
        && wanted
            .iter()
            .zip(set)
            .all(|(wanted, is_in)| !wanted || *is_in)
}

fn meet(wanted: &[bool], set: &[bool]) -> bool {
    wanted
        .iter()
        .zip(set)
        .any(|(wanted, is_in)| *wanted && *is_in)
}

fn acl(text: &str) -> Result<Acl, AccessError> {
    Acl::parse(&PathBuf::from("acl"), text)
}

fn who<'a>(client_id: &'a str, user: Option<&'a str>) -> Who<'a> {
    Who {
        tenant: "",
        client_id,
        user,
        rights: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Coverage and overlap are those of the sets of names, neither more nor less.
    #[test]
    fn covers_and_overlaps_exactly(
        pattern in pattern(), asked in filter(), client_id in odd_name(), user in prop::option::of(odd_name()),
    ) {
        let names = Names { client_id: &client_id, user: user.as_deref() };
        let all = self::names(&words(&pattern, &client_id, user.as_deref()));
        let (allowed, denied) = sets(&all, &pattern, &client_id, user.as_deref());
        let parsed = pattern::Pattern::parse(&pattern).unwrap();
        let wanted = matched(&all, &asked);
        // Some filters match nothing at all, such as one level that is empty; nothing is sure about those.
        prop_assume!(wanted.contains(&true));
        let (covers, overlaps) = (is_within(&wanted, &allowed), meet(&wanted, &denied));
        prop_assert_eq!(parsed.covers(&asked, names), covers, "{:?} covers {:?} for {:?}", pattern, asked, names);
        prop_assert_eq!(parsed.overlaps(&asked, names), overlaps, "{:?} overlaps {:?} for {:?}", pattern, asked, names);
    }

    /// A file of rules: some deny that overlaps refuses, then some allow that covers admits, whatever their order.
    #[test]
    fn rules_are_their_model(
        rules in prop::collection::vec((any::<bool>(), 0..3usize, pattern()), 0..6), asked in filter(), client_id in odd_name(), publish in any::<bool>(),
    ) {
        let actions = ["publish", "subscribe", "all"];
        let lines: Vec<String> = rules
            .iter()
            .map(|(allow, action, pattern)| format!("{} {} {pattern}", if *allow { "allow" } else { "deny" }, actions[*action]))
            .collect();
        let text = lines.join("\n");
        let action = if publish { Action::Publish } else { Action::Receive };
        let more = rules.iter().flat_map(|(_, _, pattern)| words(pattern, &client_id, None)).collect();
        let all = names(&more);
        let wanted = matched(&all, &asked);
        prop_assume!(wanted.contains(&true));
        let about = |allow: bool| rules.iter().filter(move |(is_allow, for_action, _)| {
            *is_allow == allow && (*for_action == 2 || (*for_action == 0) == publish)
        });
        let denied = about(false).any(|(_, _, pattern)| meet(&wanted, &sets(&all, pattern, &client_id, None).1));
        let allowed = about(true).any(|(_, _, pattern)| is_within(&wanted, &sets(&all, pattern, &client_id, None).0));
        let acl = acl(&text).unwrap();
        prop_assert_eq!(acl.allows(&who(&client_id, None), action, &asked), allowed && !denied, "{}{:?}", text, asked);
    }

    /// Names that are put into patterns: whatever they are, nobody gets beyond the topics of its own name.
    #[test]
    fn a_name_opens_nothing_but_its_own(client_id in "[a+#/$%cu\\PC]{0,12}", user in "[a+#/$%cu\\PC]{0,12}", topic in "[a/$]{1,8}") {
        let acl = acl("allow all own/%c/%u/#").unwrap();
        let who = who(&client_id, Some(&user));
        let allowed = acl.allows(&who, Action::Publish, &topic);
        prop_assert!(!allowed);
        let own = format!("own/{client_id}/{user}/x");
        prop_assert_eq!(acl.allows(&who, Action::Publish, &own), is_plain(&client_id) && is_plain(&user));
        for wide in ["#", "own/#", "own/+/+/#", "own/+/+/x", "+/+/+/x"] {
            prop_assert!(!acl.allows(&who, Action::Receive, wide));
        }
    }

    /// Any text as a file: an error with a line, or rules; no panic.
    #[test]
    fn any_text_is_read(text in "((allow|deny|all|publish|app|user|client|-|\"|#|a/\\+|[ \\n])( |\\n|\"))*\\PC{0,6}") {
        match acl(&text) {
            Ok(acl) => _ = acl.allows(&who("c", Some("u")), Action::Publish, "a"),
            Err(error) => prop_assert!(error.to_string().starts_with("acl:")),
        }
    }
}

#[test]
fn the_exact_corners_of_wildcards() {
    let names = Names {
        client_id: "c",
        user: None,
    };
    for (pattern, asked, covers, overlaps) in [
        // A name has a level, so these are the same.
        ("+/#", "#", true, true),
        ("#", "+/#", true, true),
        // A name that starts with a slash has two.
        ("/+/#", "/#", true, true),
        ("/#", "/+/#", true, true),
        // `a/#` has `a` in it.
        ("a/+/#", "a/#", false, true),
        ("a/#", "a", true, true),
        ("a/+", "a/#", false, true),
        ("a", "a/#", false, true),
        // What starts with a wildcard has no `$` in it.
        ("#", "$SYS/#", false, false),
        ("+/x", "$SYS/x", false, false),
        ("$SYS/#", "#", false, false),
        ("$SYS/#", "$SYS/a", true, true),
        ("a/#", "a/$SYS", true, true),
        ("#", "a/+/b", true, true),
        ("a/+/b", "a/+/+", false, true),
        ("a/+/b", "a/#", false, true),
        ("a/b", "a/c", false, false),
        ("+/b", "a/+", false, true),
    ] {
        let parsed = pattern::Pattern::parse(pattern).unwrap();
        assert_eq!(
            parsed.covers(asked, names),
            covers,
            "{pattern} covers {asked}"
        );
        assert_eq!(
            parsed.overlaps(asked, names),
            overlaps,
            "{pattern} overlaps {asked}"
        );
    }
    for text in ["", "a#", "+a", "$share/g/a", "a\0b", "#/a"] {
        assert!(pattern::Pattern::parse(text).is_err(), "{text}");
    }
}

#[test]
fn rules_are_for_whom_they_name() {
    let acl = acl("# who\n\
         allow all open/#\n\
         allow publish app shop from-shop/#\n\
         allow publish app - from-default/#\n\
         allow all user ann ann/#\n\
         allow all client phone-1 app shop one/#\n\
         allow subscribe client \"two words\" \"spaced out/#\"\n\
         deny all user bob open/secret/#\n\
         deny publish client phone-1 open/read-only\n")
    .unwrap();
    let ann = Who {
        tenant: "shop",
        client_id: "phone-1",
        user: Some("ann"),
        rights: None,
    };
    let bob = Who {
        user: Some("bob"),
        ..ann
    };
    let stranger = who("phone-1", None);
    let spaced = who("two words", None);
    for (who, action, topic, expected) in [
        (&ann, Action::Publish, "open/a", true),
        (&ann, Action::Publish, "from-shop/a", true),
        (&stranger, Action::Publish, "from-shop/a", false),
        (&stranger, Action::Publish, "from-default/a", true),
        (&ann, Action::Publish, "from-default/a", false),
        (&ann, Action::Receive, "from-shop/a", false),
        (&ann, Action::Receive, "ann/a", true),
        (&bob, Action::Receive, "ann/a", false),
        (&stranger, Action::Receive, "ann/a", false),
        (&ann, Action::Publish, "one/a", true),
        (&stranger, Action::Publish, "one/a", false),
        (&bob, Action::Receive, "open/secret/a", false),
        (&bob, Action::Receive, "open/a", true),
        (&ann, Action::Receive, "open/secret/a", true),
        (&bob, Action::Receive, "open/#", false),
        (&ann, Action::Publish, "open/read-only", false),
        (&ann, Action::Receive, "open/read-only", true),
        (&spaced, Action::Receive, "spaced out/a", true),
        (&spaced, Action::Publish, "spaced out/a", false),
        (&ann, Action::Publish, "elsewhere", false),
    ] {
        assert_eq!(
            acl.allows(who, action, topic),
            expected,
            "{who:?} {action:?} {topic}"
        );
    }
}

#[test]
fn what_a_token_allows_takes_the_place_of_allow_and_not_of_deny() {
    let access = Access {
        acl: Some(acl("allow all file/#\ndeny all token/secret/#\n").unwrap()),
        ..Access::default()
    };
    let rights = Rights::new(["token/%c/#"].into_iter(), ["token/#"].into_iter()).unwrap();
    let who = Who {
        rights: Some(&rights),
        ..who("phone", None)
    };
    assert!(access.may(&who, Action::Publish, "token/phone/a"));
    assert!(!access.may(&who, Action::Publish, "token/other/a"));
    assert!(!access.may(&who, Action::Publish, "file/a"));
    assert!(access.may(&who, Action::Receive, "token/a"));
    assert!(!access.may(&who, Action::Receive, "token/secret/a"));
    assert!(
        !access.may_subscribe(&who, "token/#"),
        "a part of it is denied"
    );
    assert!(access.may_subscribe(&who, "token/phone/#"));
}

#[test]
fn no_file_allows_all_and_an_empty_one_nothing() {
    let nobody = who("a", None);
    let without = Access::default();
    assert!(!without.checks(None) && without.may(&nobody, Action::Publish, "a"));
    assert!(without.may_subscribe(&nobody, "#"));
    for text in ["", "\n# allow all #\n"] {
        let with = Access {
            acl: Some(acl(text).unwrap()),
            ..Access::default()
        };
        assert!(with.checks(None));
        assert!(
            !with.may(&nobody, Action::Publish, "a") && !with.may(&nobody, Action::Receive, "a")
        );
        assert!(!with.may_subscribe(&nobody, "#"));
    }
}

#[test]
fn a_broken_rule_names_its_line() {
    for (line, expected) in [
        ("allow", "a rule has at least three words"),
        ("allow all", "a rule has at least three words"),
        ("permit all #", "\"permit\" is neither allow nor deny"),
        ("allow read #", "\"read\" is no action"),
        (
            "allow all group a #",
            "\"group\" is neither app nor user nor client",
        ),
        ("allow all user a/#", "\"user\" has no other half"),
        ("allow all user a user b #", "user stands twice"),
        ("allow all app sh/op #", "\"sh/op\" is no app key"),
        ("allow all a#", "\"a#\": wildcard"),
        ("allow all $share/g/a", "shared subscription"),
        ("allow all \"a", "a double quote"),
        ("allow all two words/#", "\"two\" has no other half"),
    ] {
        let error = acl(&format!("# first\nallow all a\n{line}\n"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("acl:3: ") && error.contains(expected) && error.ends_with("FILTER`"),
            "{line}: {error}"
        );
    }
}
