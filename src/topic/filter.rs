//! Topic filters: their grammar (MQTT 5 sections 4.7.1 and 4.8.2), and the plain matcher.

use super::name::{TopicError, check_text, is_wildcard};

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
        check_text(path, max_levels)?;
        let wildcard = check_wildcards(path)?;
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

/// Whether a valid path matches a valid topic name, level by level: the rule as the standard words it, which the trie is tested against.
pub fn matches(path: &str, topic: &str) -> bool {
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
