//! The entries of a queue: 6 bytes each, in a ring that is as large as the allocator's pieces are.
//!
//! An entry has 8 bytes because positions have 53 bits. Those of one log at one time are within [`LOG_SPAN`] of each other, so a queue keeps the
//! lower 37 bits of each, and the furthest of them whole, once: what an entry lacks follows, as none stands behind that.

use super::entry::Entry;
use crate::limits::LOG_SPAN;

/// An entry without the upper bits of its position.
pub(super) type Packed = [u16; PACKED_WORDS];

/// Words of 16 bits that an entry takes.
pub(super) const PACKED_WORDS: usize = 3;
/// Bytes of memory an entry takes.
pub(super) const PACKED_BYTES: usize = size_of::<Packed>();

/// Units of 8 bytes in a span.
const SPAN: u64 = LOG_SPAN / 8;
const _: () = assert!(SPAN << Entry::POSITION_SHIFT == 1 << (8 * PACKED_BYTES));

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ring {
    slots: Box<[Packed]>,
    start: u32,
    len: u32,
    /// The furthest position of all that were ever in it, in units of 8 bytes.
    furthest: u64,
}

/// So many bytes or a little more, as the allocator has pieces: 8, by 16 up to 64, then four sizes from one power of two to the next.
fn piece(bytes: usize) -> usize {
    if bytes <= 8 {
        return 8;
    }
    if bytes <= 64 {
        return bytes.next_multiple_of(16);
    }
    let step = 1 << ((bytes - 1).ilog2() - 2);
    bytes.next_multiple_of(step)
}

/// An entry without the upper bits of its position.
#[inline]
pub(super) fn pack(entry: Entry) -> Packed {
    let bits = entry.bits();
    [bits as u16, (bits >> 16) as u16, (bits >> 32) as u16]
}

/// The entry, whose record stands at `furthest`, in units of 8 bytes, or less than a span before it.
#[inline]
pub(super) fn unpack(packed: Packed, furthest: u64) -> Entry {
    let short = low_bits(packed);
    let Some(position) = short.position() else {
        return short;
    };
    let within = (furthest & !(SPAN - 1)) + position;
    short.at(if within > furthest {
        within - SPAN
    } else {
        within
    })
}

/// What is kept of an entry: enough to tell its kind.
#[inline]
pub(super) fn low_bits(packed: Packed) -> Entry {
    let [low, middle, high] = packed.map(u64::from);
    Entry::from_bits(low | middle << 16 | high << 32)
}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn slot(&self, at: usize) -> usize {
        let slot = self.start as usize + at;
        if slot >= self.slots.len() {
            slot - self.slots.len()
        } else {
            slot
        }
    }

    /// The entry at a place.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<Entry> {
        (at < self.len()).then(|| self.unpack(self.slots[self.slot(at)]))
    }

    /// Puts another entry in the place of one.
    #[inline]
    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        assert!(at < self.len());
        let packed = self.pack(entry);
        let slot = self.slot(at);
        self.slots[slot] = packed;
    }

    pub(super) fn push_back(&mut self, entry: Entry) {
        self.reserve_one();
        self.len += 1;
        self.set(self.len() - 1, entry);
    }

    pub(super) fn push_front(&mut self, entry: Entry) {
        self.reserve_one();
        self.start = self
            .start
            .checked_sub(1)
            .unwrap_or(self.slots.len() as u32 - 1);
        self.len += 1;
        self.set(0, entry);
    }

    pub(super) fn pop_front(&mut self) {
        assert!(!self.is_empty());
        self.start = self.slot(1) as u32;
        self.len -= 1;
    }

    /// Nothing is in it any more, and it has no memory.
    pub(super) fn clear(&mut self) {
        (self.slots, self.start, self.len) = (Box::default(), 0, 0);
    }

    /// From the first to the last.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        (0..self.len()).map(|at| self.unpack(self.slots[self.slot(at)]))
    }

    /// Gives memory back if less than half of it is in use.
    pub(super) fn shrink(&mut self) {
        let slots = self.slots.len();
        if slots > 16 && self.len() < slots / 2 {
            self.resize(self.len() + self.len() / 4);
        }
    }

    #[inline]
    fn reserve_one(&mut self) {
        if self.len() == self.slots.len() {
            self.resize(self.len() + 1);
        }
    }

    /// Room for so many, and what the allocator's piece has beyond.
    #[cold]
    fn resize(&mut self, wanted: usize) {
        let fits = piece(wanted * PACKED_BYTES) / PACKED_BYTES;
        let mut slots = Vec::with_capacity(fits);
        let (first, second) = (self.start as usize, self.start as usize + self.len());
        let wrapped = second.saturating_sub(self.slots.len());
        slots.extend_from_slice(&self.slots[first..second - wrapped]);
        slots.extend_from_slice(&self.slots[..wrapped]);
        slots.resize(fits, Packed::default());
        (self.slots, self.start) = (slots.into_boxed_slice(), 0);
    }

    #[inline]
    fn pack(&mut self, entry: Entry) -> Packed {
        if let Some(position) = entry.position() {
            self.furthest = self.furthest.max(position);
            debug_assert!(self.furthest - position < SPAN, "a log is not that long");
        }
        pack(entry)
    }

    #[inline]
    fn unpack(&self, packed: Packed) -> Entry {
        unpack(packed, self.furthest)
    }

    /// Bytes of memory beside its own.
    pub(super) fn reserved(&self) -> usize {
        self.slots.len() * PACKED_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::bodies::Shared;
    use super::super::entry::Place;
    use super::super::format::Position;
    use super::*;

    /// A message so far behind the start of a log.
    fn message(position: u64, units: u64) -> Entry {
        Entry::message(Place::new(Position(8 * position), 8 * units as usize))
    }

    fn entry() -> impl Strategy<Value = (u8, u64, u64)> {
        (0..5_u8, 0..SPAN / 2, 1..1_000_000_u64)
    }

    proptest! {
        /// Wherever the log is, and however the entries come and go.
        #[test]
        fn it_is_a_queue(base in 1..1_u64 << 52, steps in prop::collection::vec((0..5_u8, entry()), 1..300)) {
            let (mut ring, mut model) = (Ring::default(), VecDeque::new());
            for (step, (kind, offset, units)) in steps {
                let (at, place) = (base + offset, Place::new(Position(8 * (base + offset)), 8 * units as usize));
                let entry = match kind {
                    0 => Entry::GONE,
                    1 => message(at, units),
                    2 => Entry::reference(place),
                    3 => Entry::received(if units % 2 == 0 { place } else { Place::NONE }),
                    _ => Entry::fan(Shared(units as u32 * 4000), units as u8 & 3),
                };
                match step {
                    0 if !model.is_empty() => {
                        ring.pop_front();
                        model.pop_front();
                        ring.shrink();
                    }
                    1 => {
                        ring.push_front(entry);
                        model.push_front(entry);
                    }
                    2 if !model.is_empty() => {
                        let at = units as usize % model.len();
                        ring.set(at, entry);
                        model[at] = entry;
                    }
                    _ => {
                        ring.push_back(entry);
                        model.push_back(entry);
                    }
                }
                prop_assert_eq!(ring.iter().collect::<Vec<_>>(), Vec::from(model.clone()));
                prop_assert_eq!(ring.get(model.len()), None);
            }
        }
    }

    #[test]
    fn the_whole_span_of_a_log_is_told_apart() {
        let mut ring = Ring::default();
        let far = 5 * SPAN + 1;
        for position in [far - SPAN + 1, far, far - 1] {
            ring.push_back(message(position, 4));
        }
        let found: Vec<_> = ring.iter().map(Entry::position).collect();
        assert_eq!(found, [Some(far - SPAN + 1), Some(far), Some(far - 1)]);
    }

    #[test]
    fn pieces_are_no_larger_than_a_quarter_more() {
        for bytes in 65..100_000 {
            let piece = piece(bytes);
            assert!(
                piece >= bytes && piece < bytes + bytes / 4,
                "{bytes}: {piece}"
            );
        }
        assert_eq!(
            [1, 9, 17, 64, 65, 80, 81, 640, 641].map(piece),
            [8, 16, 32, 64, 80, 80, 96, 640, 768]
        );
    }
}
