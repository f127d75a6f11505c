//! The small types of a subscription: options, entry, and what a change of the index tells.
//!
//! Whoever subscribes, walks a list or reacts to a change has these in hand; the index owns what they refer to.

use super::hash::TopicHash;
use crate::ids::SessionIdx;
use crate::limits::SESSION_BITS;

/// What a subscriber asked for (MQTT 5 section 3.8.3.1), as far as each delivery needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubOptions {
    /// Maximum QoS: 0, 1 or 2.
    pub qos: u8,
    /// Not to the client that published it.
    pub no_local: bool,
    /// Keep the retain flag.
    pub retain_as_published: bool,
}

/// A filter that someone subscribes to. Valid until its last subscriber leaves; then it may be given to another filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub u32);

/// A subscriber in the list of a filter: session and options in 4 bytes, complete in itself, so that a list may be copied and walked later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u32);

const _: () = assert!(size_of::<Entry>() == 4);

impl Entry {
    pub(super) fn new(session: SessionIdx, options: SubOptions, has_id: bool) -> Self {
        debug_assert!(session.0 < 1 << SESSION_BITS && options.qos < 3);
        Self(
            session.0 << (32 - SESSION_BITS)
                | u32::from(has_id) << 4
                | u32::from(options.retain_as_published) << 3
                | u32::from(options.no_local) << 2
                | u32::from(options.qos),
        )
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Of the same session, with the options over both.
    pub(super) fn merged(self, other: Self) -> Self {
        let (mut options, others) = (self.options(), other.options());
        options.qos = options.qos.max(others.qos);
        options.no_local &= others.no_local;
        options.retain_as_published |= others.retain_as_published;
        Self::new(self.session(), options, self.has_id() || other.has_id())
    }

    /// Whose it is.
    pub fn session(self) -> SessionIdx {
        SessionIdx(self.0 >> (32 - SESSION_BITS))
    }

    /// What it asked for.
    pub fn options(self) -> SubOptions {
        SubOptions {
            qos: (self.0 & 3) as u8,
            no_local: self.0 & 4 != 0,
            retain_as_published: self.0 & 8 != 0,
        }
    }

    /// It came with a subscription identifier (MQTT 5 section 3.8.2.1.2).
    pub fn has_id(self) -> bool {
        self.0 & 16 != 0
    }
}

/// What a subscribe did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The session did not have the filter before.
    pub is_new: bool,
    /// No session of this shard had the filter before.
    pub first_on_filter: bool,
    /// The filter.
    pub filter: FilterId,
    /// Its hash: for [`super::interest::Own`].
    pub hash: TopicHash,
}

/// What an unsubscribe did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// No session of this shard has the filter any more.
    pub last_on_filter: bool,
    /// Its hash: for [`super::interest::Own`].
    pub hash: TopicHash,
}

/// A subscription that ended with its session.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The filter.
    pub path: &'a str,
    /// It has a wildcard.
    pub wildcard: bool,
    /// Its hash: for [`super::interest::Own`].
    pub hash: TopicHash,
    /// No session of this shard has the filter any more.
    pub last_on_filter: bool,
}

/// Bytes of a structure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Taken from the allocator.
    pub reserved: usize,
    /// Of these, in use.
    pub used: usize,
}
