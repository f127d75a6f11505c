//! Topic names, and what may be wrong with a name or filter (MQTT 5 section 4.7).
//!
//! That the text is UTF-8 without NUL, the codec has checked; NUL is checked again here, since the admin API will not pass the codec.

use std::fmt;

use crate::limits::MAX_TOPIC_BYTES;

/// Why a topic name or filter is refused. The peer erred in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// No character at all (`[MQTT-4.7.3-1]`).
    Empty,
    /// More than 65,535 bytes (`[MQTT-4.7.3-3]`).
    TooLong,
    /// U+0000 in it (`[MQTT-4.7.3-2]`).
    Nul,
    /// More levels than the server allows.
    TooManyLevels,
    /// `+` or `#` in a topic name (`[MQTT-4.7.1-1]`).
    WildcardInName,
    /// `#` not the last character or not alone in its level, or `+` not alone in its level (`[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`).
    MisplacedWildcard,
    /// `$share` without a group and a filter, or a group that is empty or has a wildcard (`[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`).
    Share,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty topic",
            Self::TooLong => "topic longer than 65,535 bytes",
            Self::Nul => "topic with a NUL character",
            Self::TooManyLevels => "topic with too many levels",
            Self::WildcardInName => "wildcard in a topic name",
            Self::MisplacedWildcard => {
                "wildcard that does not stand for a whole level, or # before the end"
            }
            Self::Share => "shared subscription without a valid group name and filter",
        })
    }
}

impl std::error::Error for TopicError {}

/// Checks the name that a message is published to. At most `max_levels` levels, that is one slash fewer.
pub fn validate_name(name: &str, max_levels: u16) -> Result<(), TopicError> {
    if is_plain_name(name, max_levels) {
        return Ok(());
    }
    check_text(name, max_levels)?;
    if name.bytes().any(is_wildcard) {
        return Err(TopicError::WildcardInName);
    }
    Ok(())
}

/// True for most names, at little cost: every message passes here, and hardly any is wrong. A name that is shorter than the number of levels
/// has no more of them; what must not be in it is looked for eight bytes at a time.
pub(super) fn is_plain_name(name: &str, max_levels: u16) -> bool {
    !name.is_empty() && name.len() < usize::from(max_levels) && !is_suspect(name.as_bytes())
}

/// Whether a NUL or a wildcard is in it.
fn is_suspect(bytes: &[u8]) -> bool {
    match bytes.last_chunk::<8>() {
        // The last eight may have been looked at in part.
        Some(last) => {
            let (words, _) = bytes.as_chunks::<8>();
            words
                .iter()
                .fold(suspects(*last), |found, &word| found | suspects(word))
                != 0
        }
        None => bytes.iter().any(|&byte| byte == 0 || is_wildcard(byte)),
    }
}

/// Not 0 if a byte is 0, `+` or `#`, of which the last two differ in one bit.
fn suspects(word: [u8; 8]) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7F; 8]);
    const WILDCARDS: u64 = u64::from_ne_bytes([b'#'; 8]);
    const THEIR_BIT: u64 = u64::from_ne_bytes([b'#' ^ b'+'; 8]);
    let word = u64::from_ne_bytes(word);
    // The high bit of each byte that is 0.
    let zeros = |word: u64| !(((word & LOW) + LOW) | word | LOW);
    zeros(word) | zeros((word & !THEIR_BIT) ^ WILDCARDS)
}

/// What holds for names and filters alike.
pub(super) fn check_text(text: &str, max_levels: u16) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong);
    }
    // One pass over the bytes, without a branch for each.
    let (mut slashes, mut nul) = (0u32, false);
    for byte in text.bytes() {
        slashes += u32::from(byte == b'/');
        nul |= byte == 0;
    }
    if nul {
        return Err(TopicError::Nul);
    }
    if slashes >= u32::from(max_levels) {
        return Err(TopicError::TooManyLevels);
    }
    Ok(())
}

pub(super) fn is_wildcard(byte: u8) -> bool {
    byte == b'+' || byte == b'#'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_section_4_7() {
        for name in [
            "a",
            "/",
            "//",
            "/finance",
            "sport/tennis",
            "a b",
            "$SYS/x",
            "$share/g/x",
            "é/\u{10ffff}",
            "a.b*>",
            "\r\n",
        ] {
            assert_eq!(validate_name(name, 64), Ok(()), "{name:?}");
        }
        assert_eq!(validate_name("", 64), Err(TopicError::Empty));
        assert_eq!(validate_name("a\0b", 64), Err(TopicError::Nul));
        for name in ["#", "+", "a/#", "a+b", "a#", "/+/"] {
            assert_eq!(
                validate_name(name, 64),
                Err(TopicError::WildcardInName),
                "{name}"
            );
        }
    }

    #[test]
    fn a_wrong_byte_is_found_at_every_place() {
        for len in 1..40 {
            for at in 0..len {
                for byte in 0..128 {
                    let mut name = vec![b'a'; len];
                    name[at] = byte;
                    let name = String::from_utf8(name).unwrap();
                    let expected = match byte {
                        0 => Err(TopicError::Nul),
                        b'+' | b'#' => Err(TopicError::WildcardInName),
                        _ => Ok(()),
                    };
                    assert_eq!(validate_name(&name, 64), expected, "{name:?}");
                }
            }
        }
        assert_eq!(
            validate_name("\u{ab}\u{a3}\u{80}\u{abab}\u{2b23}", 64),
            Ok(())
        );
    }

    #[test]
    fn levels_and_length_are_bounded() {
        assert_eq!(validate_name(&"/".repeat(63), 64), Ok(()));
        assert_eq!(
            validate_name(&"/".repeat(64), 64),
            Err(TopicError::TooManyLevels)
        );
        assert_eq!(
            validate_name(&"/".repeat(65_535), u16::MAX),
            Err(TopicError::TooManyLevels)
        );
        assert_eq!(validate_name(&"a".repeat(65_535), 1), Ok(()));
        assert_eq!(
            validate_name(&"a".repeat(65_536), 1),
            Err(TopicError::TooLong)
        );
    }
}
