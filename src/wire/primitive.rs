//! Integers, strings and variable byte integers (MQTT 5 section 1.5): the letters that packets are spelt with.

use super::{PacketId, WireError};
use crate::sys::text::plain;

/// The largest value of a variable byte integer, four bytes long (section 1.5.5).
pub(super) const MAX_VARINT: usize = 268_435_455;

/// Reads a packet's body, front to back. Every method fails with [`WireError::Truncated`] where the bytes run out.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if anything is left.
    pub(super) fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, WireError> {
        PacketId::new(self.u16()?).ok_or(WireError::PacketIdZero)
    }

    pub(super) fn varint(&mut self) -> Result<u32, WireError> {
        let (value, len) = varint(self.0)?.ok_or(WireError::Truncated)?;
        self.0 = &self.0[len..];
        Ok(value)
    }

    /// Binary data: two bytes of length, then that many bytes.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(super) fn string(&mut self) -> Result<&'a str, WireError> {
        let bytes = self.binary()?;
        if let Some(text) = plain(bytes) {
            return Ok(text);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Ok(text),
            _ => Err(WireError::Text),
        }
    }
}

/// A variable byte integer at the start of `bytes`: its value and its length. `None`: it goes on past the end.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, WireError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte < 0x80 {
            // A last byte of 0 adds nothing: the shorter form was to be used.
            return if byte == 0 && at > 0 {
                Err(WireError::Varint)
            } else {
                Ok(Some((value, at + 1)))
            };
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(WireError::Varint)
    }
}

/// Bytes that `value` takes as a variable byte integer.
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    debug_assert!(value <= MAX_VARINT, "variable byte integer of {value}");
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(
        u16::try_from(bytes.len()).is_ok(),
        "{} bytes do not fit a length of 16 bits",
        bytes.len()
    );
    put_u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_binary(out, text.as_bytes());
}

/// Writes what `body` writes, with its length before it as a variable byte integer. Long bodies are moved by up to three bytes afterwards, so
/// this is for what is small or rare; PUBLISH knows its length beforehand.
pub(super) fn put_prefixed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    body(out);
    let len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
    } else {
        let end = out.len();
        put_varint(out, len);
        // The length now stands behind the body; turn the two around.
        let prefix = out.len() - end;
        out[at..].rotate_right(prefix);
        out.remove(at + prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_at_the_edges_of_their_lengths() {
        let edges = [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (2_097_151, 3),
            (2_097_152, 4),
            (MAX_VARINT, 4),
        ];
        for (value, len) in edges {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!((out.len(), varint_len(value)), (len, len), "{value}");
            assert_eq!(varint(&out), Ok(Some((value as u32, len))));
            for at in 0..len {
                assert_eq!(varint(&out[..at]), Ok(None));
            }
        }
    }

    #[test]
    fn a_length_is_put_before_what_it_counts() {
        for len in [0, 1, 127, 128, 129, 16_383, 16_384] {
            let body: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut out = b"before".to_vec();
            put_prefixed(&mut out, |out| out.extend_from_slice(&body));
            let mut reader = Reader(&out[6..]);
            assert_eq!(reader.varint(), Ok(len as u32));
            assert_eq!(reader.rest(), body);
            assert!(out.starts_with(b"before"));
        }
    }

    #[test]
    fn the_longest_string() {
        let text = "x".repeat(usize::from(u16::MAX));
        let mut out = Vec::new();
        put_string(&mut out, &text);
        let mut reader = Reader(&out);
        assert_eq!(reader.string(), Ok(text.as_str()));
        assert_eq!(reader.u8(), Err(WireError::Truncated));
    }
}
