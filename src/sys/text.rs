//! Text that is plain ASCII, known as such without the price of a whole UTF-8 check.
//!
//! Topics and client identifiers are a few dozen characters and nearly always plain; each is checked with every packet that has one.

/// Eight bytes of 1.
const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// The bytes as text, if all are between 1 and 127. None: they may be text all the same, or hold a NUL.
pub fn plain(bytes: &[u8]) -> Option<&str> {
    let is_plain = match bytes.last_chunk::<8>() {
        // Eight at a time; the last eight may have been looked at in part.
        Some(last) => {
            let (words, _) = bytes.as_chunks::<8>();
            words
                .iter()
                .fold(oddity(*last), |odd, &word| odd | oddity(word))
                == 0
        }
        None => bytes.iter().all(|byte| (1..0x80).contains(byte)),
    };
    // SAFETY: every byte is ASCII, and ASCII is UTF-8.
    is_plain.then(|| unsafe { std::str::from_utf8_unchecked(bytes) })
}

/// Not 0 if any of the bytes is 0 or above 127: a byte above 127 has its high bit set, and taking 1 from each sets that of a 0. A borrow from
/// the byte below changes that only where one of the two is there anyway.
fn oddity(word: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(word);
    (word | word.wrapping_sub(ONES)) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for len in 0..40 {
            let mut bytes = vec![b'a'; len];
            assert!(plain(&bytes).is_some_and(|text| text.len() == len));
            for at in 0..len {
                for byte in 0..=255 {
                    bytes[at] = byte;
                    assert_eq!(
                        plain(&bytes).is_some(),
                        (1..128).contains(&byte),
                        "{byte} at {at} of {len}"
                    );
                }
                bytes[at] = b'a';
            }
        }
    }

    #[test]
    fn bytes_next_to_each_other_hide_nothing() {
        for pair in [
            [0, 1],
            [1, 0],
            [0, 0],
            [0x80, 0],
            [0, 0x80],
            [1, 1],
            [0x7f, 1],
        ] {
            let mut bytes = [1; 16];
            bytes[5..7].copy_from_slice(&pair);
            let expected = pair.iter().all(|byte| (1..128).contains(byte));
            assert_eq!(plain(&bytes).is_some(), expected, "{pair:?}");
        }
    }
}
