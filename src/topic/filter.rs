//! Topic filters: their grammar (MQTT 5 sections 4.7.1 and 4.8.2), and the plain matcher.

use std::borrow::Cow;

use super::name::{TopicError, check_text, is_plain_name, is_wildcard};
use super::scope::{Scope, bare};

/// A checked topic filter, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The group of a shared subscription.
    pub share: Option<&'a str>,
    /// The filter itself, without `$share/{group}/`.
    pub path: &'a str,
    /// It has a `+` or a `#`.
    pub wildcard: bool,
}

impl<'a> Filter<'a> {
    /// Checks a filter as a client sent it. `max_levels` counts the levels of the path, without `$share/{group}`.
    pub fn parse(text: &'a str, max_levels: u16) -> Result<Self, TopicError> {
        if is_plain_name(text, max_levels) && !text.starts_with('$') {
            return Ok(Self {
                share: None,
                path: text,
                wildcard: false,
            });
        }
        Self::take_apart(text, max_levels, false)
    }

    /// Takes apart a filter as the server keeps it: its path is scoped, and was checked when it came.
    pub fn kept(text: &'a str) -> Result<Self, TopicError> {
        Self::take_apart(text, u16::MAX, true)
    }

    /// The whole filter again, as [`Filter::kept`] takes it.
    pub fn text(&self) -> Cow<'a, str> {
        match self.share {
            Some(group) => Cow::Owned(format!("$share/{group}/{}", self.path)),
            None => Cow::Borrowed(self.path),
        }
    }

    /// Bytes of [`Filter::text`].
    pub fn text_len(&self) -> usize {
        let share = self.share.map_or(0, |group| "$share//".len() + group.len());
        share + self.path.len()
    }

    fn take_apart(text: &'a str, max_levels: u16, scoped: bool) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        let (share, path) = match text.strip_prefix("$share") {
            Some("") => return Err(TopicError::Share),
            Some(rest) if rest.starts_with('/') => {
                let (group, path) = rest[1..].split_once('/').ok_or(TopicError::Share)?;
                if group.is_empty() || path.is_empty() || group.bytes().any(is_wildcard) {
                    return Err(TopicError::Share);
                }
                if group.bytes().any(|byte| byte == 0) {
                    return Err(TopicError::Nul);
                }
                (Some(group), path)
            }
            // `$shared/x` and the like are topics of their own.
            _ => (None, text),
        };
        if text.len() > crate::limits::MAX_TOPIC_BYTES {
            return Err(TopicError::TooLong);
        }
        let name = if scoped { bare(path) } else { path };
        check_text(name, max_levels)?;
        let wildcard = check_wildcards(name)?;
        Ok(Self {
            share,
            path,
            wildcard,
        })
    }
}

/// Whether a valid path has a wildcard.
pub fn has_wildcard(path: &str) -> bool {
    path.bytes().any(is_wildcard)
}

/// Whether there are any, if each stands where it may.
fn check_wildcards(path: &str) -> Result<bool, TopicError> {
    let bytes = path.as_bytes();
    let mut found = false;
    for (at, &byte) in bytes
        .iter()
        .enumerate()
        .filter(|&(_, &byte)| is_wildcard(byte))
    {
        let starts_level = at == 0 || bytes[at - 1] == b'/';
        let is_last = at + 1 == bytes.len();
        let ends_level = is_last || (byte == b'+' && bytes[at + 1] == b'/');
        if !starts_level || !ends_level {
            return Err(TopicError::MisplacedWildcard);
        }
        found = true;
    }
    Ok(found)
}

/// Whether a valid path matches a valid topic name of the same tenant, level by level: the rule as the standard words it, which the trie is
/// tested against.
pub fn matches(path: &str, topic: &str) -> bool {
    if Scope::of(path) != Scope::of(topic) {
        return false;
    }
    let (path, topic) = (bare(path), bare(topic));
    // A filter that starts with a wildcard does not match topics that start with `$` (section 4.7.2).
    if topic.starts_with('$') && path.bytes().next().is_some_and(is_wildcard) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in path.split('/') {
        match (wanted, levels.next()) {
            // `a/#` matches `a` too (section 4.7.1.2).
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::generate;

    fn parse(text: &str) -> Result<Filter<'_>, TopicError> {
        Filter::parse(text, 64)
    }

    #[test]
    fn wildcards_stand_for_whole_levels() {
        for path in [
            "#",
            "+",
            "/",
            "a/#",
            "+/+",
            "/+",
            "+/",
            "+/#",
            "a/+/b",
            "a//#",
            "$SYS/#",
            "$share2/+",
            "$shared/g/#",
        ] {
            let wildcard = path.contains(['+', '#']);
            assert_eq!(
                parse(path),
                Ok(Filter {
                    share: None,
                    path,
                    wildcard
                }),
                "{path}"
            );
            assert_eq!(has_wildcard(path), wildcard);
        }
        for path in [
            "a#", "#/a", "a/#/b", "##", "#/", "a+", "+a", "a/+b/c", "++", "+#", "a/b#", "/#/#",
        ] {
            assert_eq!(parse(path), Err(TopicError::MisplacedWildcard), "{path}");
        }
        assert_eq!(parse(""), Err(TopicError::Empty));
        assert_eq!(parse("a\0"), Err(TopicError::Nul));
    }

    #[test]
    fn shared_filters_of_section_4_8_2() {
        let shared = |share, path, wildcard| {
            Ok(Filter {
                share: Some(share),
                path,
                wildcard,
            })
        };
        assert_eq!(parse("$share/g/a"), shared("g", "a", false));
        assert_eq!(parse("$share/g/#"), shared("g", "#", true));
        assert_eq!(
            parse("$share/consumer1//finance"),
            shared("consumer1", "/finance", false)
        );
        assert_eq!(parse("$share/g//"), shared("g", "/", false));
        assert_eq!(
            parse("$share/g/$share/h/a"),
            shared("g", "$share/h/a", false)
        );
        for text in [
            "$share",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/x",
            "$share/#/x",
            "$share/#",
            "$share/a+/x",
        ] {
            assert_eq!(parse(text), Err(TopicError::Share), "{text}");
        }
        assert_eq!(parse("$share/g/a#"), Err(TopicError::MisplacedWildcard));
        assert_eq!(parse("$share/g\0/a"), Err(TopicError::Nul));
    }

    #[test]
    fn what_is_kept_is_scoped_and_what_a_client_sends_never() {
        for (text, share, path, wildcard) in [
            ("\0t/a", None, "\0t/a", false),
            ("\0t/#", None, "\0t/#", true),
            ("$share/g/\0t/+/x", Some("g"), "\0t/+/x", true),
            ("$share/g/x", Some("g"), "x", false),
        ] {
            let filter = Filter {
                share,
                path,
                wildcard,
            };
            assert_eq!(Filter::kept(text), Ok(filter), "{text:?}");
            assert_eq!((&*filter.text(), filter.text_len()), (text, text.len()));
            if text.contains('\0') {
                assert_eq!(parse(text), Err(TopicError::Nul), "{text:?}");
            }
        }
        assert_eq!(Filter::kept("\0t/a\0"), Err(TopicError::Nul));
        assert_eq!(Filter::kept("\0t/"), Err(TopicError::Empty));
    }

    #[test]
    fn tenants_do_not_meet() {
        for (path, topic, expected) in [
            ("#", "\0t/a", false),
            ("+/a", "\0t/a", false),
            ("\0t/#", "a", false),
            ("\0t/#", "\0u/a", false),
            ("\0t/#", "\0t/a", true),
            ("\0t/+", "\0t/a", true),
            ("\0t/#", "\0t/$SYS/a", false),
            ("\0t/+/a", "\0t/$SYS/a", false),
            ("\0t/$SYS/#", "\0t/$SYS/a", true),
            ("\0t/a/#", "\0t/a", true),
        ] {
            assert_eq!(matches(path, topic), expected, "{path:?} {topic:?}");
        }
    }

    #[test]
    fn levels_and_length_are_bounded() {
        assert_eq!(parse(&"/".repeat(65_535)), Err(TopicError::TooManyLevels));
        assert_eq!(
            parse(&format!("$share/g/{}", "/".repeat(64))),
            Err(TopicError::TooManyLevels)
        );
        assert!(parse(&format!("$share/g/{}", "/".repeat(63))).is_ok());
        assert!(parse(&format!("{}+", "+/".repeat(63))).is_ok());
        assert_eq!(parse(&"a".repeat(65_536)), Err(TopicError::TooLong));
        assert_eq!(
            parse(&format!("$share/{}/a", "g".repeat(65_530))),
            Err(TopicError::TooLong)
        );
    }

    #[test]
    fn matches_as_in_section_4_7() {
        for (path, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("sport/#", "sports", false),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/$x/#", "a/$x", true),
            ("a/+", "a/$x", true),
            ("ACCOUNTS", "Accounts", false),
        ] {
            assert_eq!(matches(path, topic), expected, "{path} {topic}");
        }
    }

    proptest! {
        /// Any text: no panic, and what passes is what the grammar allows.
        #[test]
        fn parses_what_the_grammar_allows(text in "(\\$share/)?[a+#/$\\x00]{0,8}") {
            let path_is_fine = |path: &str| {
                let levels: Vec<&str> = path.split('/').collect();
                let lone = |level: &&str| **level == *"+" || !level.contains('+');
                let (last, others) = levels.split_last().unwrap();
                !path.is_empty() && !path.contains('\0')
                    && levels.iter().all(lone)
                    && others.iter().all(|level| !level.contains('#'))
                    && (*last == "#" || !last.contains('#'))
            };
            let expected = match text.strip_prefix("$share/") {
                None => text != "$share" && path_is_fine(&text),
                Some(rest) => rest.split_once('/').is_some_and(|(group, path)| {
                    !group.is_empty() && !group.contains(['+', '#', '\0']) && path_is_fine(path)
                }),
            };
            prop_assert_eq!(parse(&text).is_ok(), expected);
        }

        #[test]
        fn a_name_matches_itself_and_hash(topic in generate::topic()) {
            let name = bare(&topic);
            prop_assert!(validate(name) && matches(&topic, &topic));
            let all = Scope::of(&topic).name("#").unwrap();
            prop_assert_eq!(matches(&all, &topic), !name.starts_with('$'));
        }
    }

    fn validate(topic: &str) -> bool {
        crate::topic::validate_name(topic, 64).is_ok()
    }
}
