//! Where a record stands, and an entry of a queue: 8 bytes each.
//!
//! ```text
//! place    position / 8 (53 bits) | size class (8 bits) | 0 (3 bits)
//! entry    0                                              gone
//!          position / 8           | size class          | 1 message, 2 reference to a shared body, 3 received
//!          number of a shared body (61 bits)            | 4 + tag
//! ```
//! 53 bits are 72 PB of log. A size class is a length with three bits after the highest, rounded up: what is counted when a record comes is
//! counted again when it goes, without looking at it. A queue keeps less of a position (see [`super::ring`]).

use super::bodies::Shared;
use super::format::Position;

const KIND_BITS: u32 = 3;
const CLASS_BITS: u32 = 8;
/// Bits of a class below its exponent.
const MANTISSA_BITS: u32 = 3;

/// Where a record stands, and how large it is, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// No record: none stands at 0.
    pub(super) const NONE: Self = Self(0);

    /// A record of so many bytes; both are multiples of 8.
    pub(super) fn new(position: Position, bytes: usize) -> Self {
        let class = u64::from(class(bytes as u64 / 8));
        Self((position.0 / 8) << (CLASS_BITS + KIND_BITS) | class << KIND_BITS)
    }

    /// Where it begins.
    pub(super) fn position(self) -> Position {
        Position((self.0 >> (CLASS_BITS + KIND_BITS)) * 8)
    }

    /// Its bytes, rounded up by an eighth at most; of none: 0.
    pub(super) fn bytes(self) -> u64 {
        8 * units((self.0 >> KIND_BITS) as u8)
    }

    /// Whether there is none.
    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Whether it is the record there.
    pub(super) fn is_at(self, position: Position) -> bool {
        !self.is_none() && self.position() == position
    }

    /// The same as two numbers, for records whose size is no multiple of 8.
    pub(super) fn halves(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }

    /// The other way.
    pub(super) fn from_halves(halves: [u32; 2]) -> Self {
        Self(u64::from(halves[0]) | u64::from(halves[1]) << 32)
    }
}

/// The class of so many units.
fn class(units: u64) -> u8 {
    if units < 1 << MANTISSA_BITS {
        return units as u8;
    }
    let class_of = |exponent: u32| {
        let mantissa = units.div_ceil(1 << exponent);
        // A carry is the next exponent's first.
        u64::from(exponent) * (1 << MANTISSA_BITS) + mantissa
    };
    class_of(units.ilog2() - MANTISSA_BITS) as u8
}

/// The units of a class.
fn units(class: u8) -> u64 {
    let (exponent, mantissa) = (class >> MANTISSA_BITS, u64::from(class & 7));
    match exponent {
        0 => mantissa,
        _ => (mantissa + 8) << (exponent - 1),
    }
}

/// An entry, packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry(u64);

/// An entry, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Done, or never there.
    Gone,
    /// A record with a body of its own.
    Message(Place),
    /// A record that leads to a shared body.
    Reference(Place),
    /// The record that says that the other side has the message.
    Received(Place),
    /// A shared body, and the entry's tag. Its record names many entries, so nobody has to find it.
    Fan(Shared, u8),
}

impl Entry {
    /// Done, or never there.
    pub(super) const GONE: Self = Self(0);

    pub(super) fn message(place: Place) -> Self {
        Self(place.0 | 1)
    }

    pub(super) fn reference(place: Place) -> Self {
        Self(place.0 | 2)
    }

    pub(super) fn received(place: Place) -> Self {
        Self(place.0 | 3)
    }

    /// The tag is below 4.
    pub(super) fn fan(body: Shared, tag: u8) -> Self {
        Self(u64::from(body.0) << KIND_BITS | 4 | u64::from(tag & 3))
    }

    pub(super) fn is_gone(self) -> bool {
        self == Self::GONE
    }

    /// Bits below a position.
    pub(super) const POSITION_SHIFT: u32 = CLASS_BITS + KIND_BITS;

    /// As a number.
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// The other way.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The position of its record, in units of 8 bytes: none if no record is told. Every record has a size.
    pub(super) fn position(self) -> Option<u64> {
        let is_place = matches!(self.0 & 7, 1..=3) && (self.0 >> KIND_BITS) as u8 != 0;
        is_place.then_some(self.0 >> Self::POSITION_SHIFT)
    }

    /// The same with another position.
    pub(super) fn at(self, position: u64) -> Self {
        let below = (1 << Self::POSITION_SHIFT) - 1;
        Self(position << Self::POSITION_SHIFT | self.0 & below)
    }

    pub(super) fn held(self) -> Held {
        let place = Place(self.0 & !7);
        match self.0 & 7 {
            0 => Held::Gone,
            1 => Held::Message(place),
            2 => Held::Reference(place),
            3 => Held::Received(place),
            tag => Held::Fan(Shared((self.0 >> KIND_BITS) as u32), tag as u8 - 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_position_and_round_their_size_by_an_eighth() {
        for units in (1..5000_u64).chain((0..31).flat_map(|e| [8 << e, (9 << e) + 1, 15 << e])) {
            let bytes = 8 * units as usize;
            let far = Position(8 * ((1 << 53) - 1));
            let place = Place::new(far, bytes);
            assert_eq!(place.position(), far);
            let counted = place.bytes() as usize;
            assert!(
                counted >= bytes && counted <= bytes + bytes / 8,
                "{bytes} counts as {counted}"
            );
            assert_eq!(Place::from_halves(place.halves()), place);
        }
        assert_eq!(Place::NONE.bytes(), 0);
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let place = Place::new(Position(64), 32);
        let body = Shared(u32::MAX);
        for held in [
            Held::Gone,
            Held::Message(place),
            Held::Reference(place),
            Held::Received(place),
            Held::Fan(body, 0),
            Held::Fan(body, 3),
            Held::Fan(Shared(0), 0),
        ] {
            let entry = match held {
                Held::Gone => Entry::GONE,
                Held::Message(place) => Entry::message(place),
                Held::Reference(place) => Entry::reference(place),
                Held::Received(place) => Entry::received(place),
                Held::Fan(body, tag) => Entry::fan(body, tag),
            };
            assert_eq!(entry.held(), held);
            assert_eq!(entry.is_gone(), held == Held::Gone);
        }
    }
}
