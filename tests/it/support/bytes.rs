//! The little language in which wire cases are written, so that a reader sees the packet and not a hex dump.
//!
//! Hex pairs (`10 0c 00`), `'text'`, `len( … )` puts the length of what is inside before it as a variable byte integer (remaining length,
//! properties), `str( … )` as two bytes (strings, binary data), `rep N ( … )` repeats, `#` starts a comment.

/// Turns a text of the language into bytes; panics with the offending word, for the text is part of a test.
pub fn bytes(text: &str) -> Vec<u8> {
    let words = words(text);
    let mut at = 0;
    let out = sequence(&words, &mut at);
    assert!(at == words.len(), "a ')' too many in: {text}");
    out
}

/// A number as a variable byte integer (MQTT 5 section 1.5.5).
pub fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        out.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return out;
        }
    }
}

/// A string or binary datum: two bytes of length, then itself.
pub fn prefixed(value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("a string of the wire has at most 65,535 bytes");
    let mut out = len.to_be_bytes().to_vec();
    out.extend_from_slice(value);
    out
}

#[derive(Debug)]
enum Word {
    Bytes(Vec<u8>),
    Number(usize),
    Len,
    Str,
    Rep,
    Open,
    Close,
}

fn words(text: &str) -> Vec<Word> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut after_rep = false;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return out;
        };
        match first {
            '#' => rest = rest.find('\n').map_or("", |end| &rest[end..]),
            '(' | ')' => {
                out.push(if first == '(' {
                    Word::Open
                } else {
                    Word::Close
                });
                rest = &rest[1..];
            }
            '\'' => {
                let end = rest[1..]
                    .find('\'')
                    .unwrap_or_else(|| panic!("no closing quote in: {text}"));
                out.push(Word::Bytes(rest.as_bytes()[1..=end].to_vec()));
                rest = &rest[end + 2..];
            }
            _ => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || "()'#".contains(c))
                    .unwrap_or(rest.len());
                let word = &rest[..end];
                out.push(match word {
                    "len" => Word::Len,
                    "str" => Word::Str,
                    "rep" => Word::Rep,
                    _ if after_rep => Word::Number(
                        word.parse()
                            .unwrap_or_else(|_| panic!("rep wants a number, not {word}")),
                    ),
                    _ => Word::Bytes(hex(word)),
                });
                after_rep = word == "rep";
                rest = &rest[end..];
            }
        }
    }
}

fn hex(word: &str) -> Vec<u8> {
    assert!(word.len().is_multiple_of(2), "hex comes in pairs: {word}");
    (0..word.len())
        .step_by(2)
        .map(|at| {
            u8::from_str_radix(&word[at..at + 2], 16).unwrap_or_else(|_| panic!("not hex: {word}"))
        })
        .collect()
}

fn sequence(words: &[Word], at: &mut usize) -> Vec<u8> {
    let mut out = Vec::new();
    while *at < words.len() {
        match &words[*at] {
            Word::Close => return out,
            Word::Bytes(bytes) => {
                out.extend_from_slice(bytes);
                *at += 1;
            }
            Word::Len => {
                *at += 1;
                let inner = group(words, at);
                out.extend(varint(inner.len()));
                out.extend(inner);
            }
            Word::Str => {
                *at += 1;
                out.extend(prefixed(&group(words, at)));
            }
            Word::Rep => {
                let Some(Word::Number(times)) = words.get(*at + 1) else {
                    panic!("rep wants a number")
                };
                *at += 2;
                out.extend(group(words, at).repeat(*times));
            }
            Word::Open => out.extend(group(words, at)),
            Word::Number(number) => panic!("a number out of place: {number}"),
        }
    }
    out
}

fn group(words: &[Word], at: &mut usize) -> Vec<u8> {
    assert!(
        matches!(words.get(*at), Some(Word::Open)),
        "a '(' is missing"
    );
    *at += 1;
    let inner = sequence(words, at);
    assert!(
        matches!(words.get(*at), Some(Word::Close)),
        "a ')' is missing"
    );
    *at += 1;
    inner
}
