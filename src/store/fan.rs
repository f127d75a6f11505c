//! Entries that lead to one body, recorded together: 12 bytes each instead of a record.
//!
//! ```text
//! payload   0 id of the body u64, then for each entry: index of the session | tag << 30 u32, its serial u32, number in its queue u32
//! ```

use super::bodies::Shared;
use crate::ids::{SessionId, SessionIdx};
use crate::limits::{FAN_ENTRIES, SESSION_BITS};

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 12;

const TAG_SHIFT: u32 = 30;
const _: () = assert!(SESSION_BITS <= TAG_SHIFT);

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanEntry {
    /// Whose queue.
    pub session: SessionId,
    /// Its number there.
    pub seq: u32,
    /// As in [`super::Store::append_shared`].
    pub tag: u8,
}

impl FanEntry {
    pub(super) fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let idx = self.session.idx.0 | u32::from(self.tag) << TAG_SHIFT;
        bytes[..4].copy_from_slice(&idx.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.session.serial.to_le_bytes());
        bytes[8..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let number =
            |at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            session: SessionId {
                idx: SessionIdx(number(0) & ((1 << TAG_SHIFT) - 1)),
                serial: number(4),
            },
            seq: number(8),
            tag: (number(0) >> TAG_SHIFT) as u8,
        }
    }
}

/// The body's id, and the entries, of a payload; none: it is too short to be one.
pub fn decode(payload: &[u8]) -> Option<(u64, impl Iterator<Item = FanEntry>)> {
    let (id, entries) = id_and_rest(payload)?;
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    Some((id, entries.iter().map(FanEntry::decode)))
}

/// The id of a body that stands before something else.
pub fn id_and_rest(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (id, rest) = payload.split_first_chunk()?;
    Some((u64::from_le_bytes(*id), rest))
}

/// Entries of one body that are collected.
#[derive(Debug, Default)]
pub(super) struct Fan {
    body: Option<Shared>,
    pub(super) entries: Vec<FanEntry>,
}

impl Fan {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether another entry of this body can be added.
    pub(super) fn takes(&self, body: Shared) -> bool {
        self.entries.is_empty() || (self.body == Some(body) && self.entries.len() < FAN_ENTRIES)
    }

    pub(super) fn push(&mut self, body: Shared, entry: FanEntry) {
        self.body = Some(body);
        self.entries.push(entry);
    }

    /// The body that the entries lead to.
    pub(super) fn body(&self) -> Option<Shared> {
        self.body
    }

    /// Bytes taken from the allocator.
    pub(super) fn reserved(&self) -> usize {
        self.entries.capacity() * size_of::<FanEntry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        let entries = [0_u32, 3].map(|tag| FanEntry {
            session: SessionId {
                idx: SessionIdx((1 << SESSION_BITS) - 1 - tag),
                serial: u32::MAX - tag,
            },
            seq: 77 + tag,
            tag: tag as u8,
        });
        let mut payload = 5_u64.to_le_bytes().to_vec();
        payload.extend(entries.iter().flat_map(|entry| entry.encode()));
        let (id, found) = decode(&payload).unwrap();
        assert_eq!((id, found.collect::<Vec<_>>()), (5, entries.to_vec()));
        assert!(decode(&payload[..7]).is_none());
    }
}
