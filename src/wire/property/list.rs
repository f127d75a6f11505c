//! The two properties that may stand many times: user properties and subscription identifiers.

use std::fmt;

use super::super::primitive::Reader;
use super::{Property, Walk};

/// User properties in order: as they stand in a decoded packet, or a list for a packet to encode.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a>(Source<'a, (&'a str, &'a str)>);

/// Subscription identifiers of a PUBLISH in order: as they stand in a decoded packet, or a list for a packet to encode.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a>(Source<'a, u32>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    /// A property block, well-formed, in which others may stand as well.
    Block(&'a [u8]),
    List(&'a [T]),
}

impl<T> Default for Source<'_, T> {
    fn default() -> Self {
        Self::List(&[])
    }
}

impl<'a, T: Copy> Source<'a, T> {
    fn iter(
        self,
        pick: fn(Property<'a>) -> Option<T>,
    ) -> impl Iterator<Item = T> + Clone + use<'a, T> {
        let (block, list): (&[u8], &[T]) = match self {
            Self::Block(block) => (block, &[]),
            Self::List(list) => (&[], list),
        };
        Walk(Reader(block))
            .filter_map(pick)
            .chain(list.iter().copied())
    }
}

impl<'a> UserProperties<'a> {
    /// For a packet to encode: names and values.
    pub fn new(list: &'a [(&'a str, &'a str)]) -> Self {
        Self(Source::List(list))
    }

    pub(super) fn from_block(block: &'a [u8]) -> Self {
        Self(Source::Block(block))
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.0.iter(|property| match property {
            Property::User(name, value) => Some((name, value)),
            _ => None,
        })
    }

    pub(in crate::wire) fn put(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            Property::User(name, value).put(out);
        }
    }
}

impl<'a> SubscriptionIds<'a> {
    /// For a packet to encode; none is 0.
    pub fn new(list: &'a [u32]) -> Self {
        Self(Source::List(list))
    }

    pub(super) fn from_block(block: &'a [u8]) -> Self {
        Self(Source::Block(block))
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Each identifier.
    pub fn iter(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        self.0.iter(|property| match property {
            Property::SubscriptionId(id) => Some(id),
            _ => None,
        })
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
