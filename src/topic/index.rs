//! The subscriptions of one shard: filters to subscribers, sessions to filters.

use super::hash::{TopicHash, TopicHasher};
use crate::ids::SessionIdx;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub u32);

/// A subscriber in the list of a filter: session and options in 4 bytes, complete in itself, so that a list may be copied and walked later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u32);

impl Entry {
    /// Whose it is.
    pub fn session(self) -> SessionIdx {
        SessionIdx(self.0 >> 6)
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

/// The subscriptions of one shard.
#[derive(Debug)]
pub struct Index {
    hasher: TopicHasher,
}

impl Index {
    /// No subscriptions.
    pub fn new(hasher: TopicHasher) -> Self {
        Self { hasher }
    }

    /// Adds a subscription, or replaces its options (MQTT 5 section 3.8.4). `path` is valid and without `$share/{group}/`; the identifier is not 0.
    pub fn subscribe(
        &mut self,
        session: SessionIdx,
        path: &str,
        options: SubOptions,
        subscription_id: Option<u32>,
    ) -> Subscribed {
        let _ = (session, options, subscription_id);
        Subscribed {
            is_new: true,
            first_on_filter: true,
            filter: FilterId(0),
            hash: self.hasher.hash(path),
        }
    }

    /// Ends a subscription; none: there was none.
    pub fn unsubscribe(&mut self, session: SessionIdx, path: &str) -> Option<Unsubscribed> {
        let _ = (session, path);
        None
    }

    /// Ends all of a session's subscriptions; each is reported.
    pub fn clear(&mut self, session: SessionIdx, on_end: impl FnMut(Ended<'_>)) {
        let _ = (session, on_end);
    }

    /// The filters that match a topic are put into `out`, which is cleared first: each once, in ascending order.
    pub fn matching(&self, hash: TopicHash, topic: &str, out: &mut Vec<FilterId>) {
        let _ = (hash, topic);
        out.clear();
    }

    /// The subscribers of a filter.
    pub fn subscribers(&self, filter: FilterId) -> &[Entry] {
        let _ = filter;
        &[]
    }

    /// Overlapping filters (MQTT 5 section 3.3.4): a session gets one copy of a message, whatever number of its filters match.
    ///
    /// For an entry in the list of `matched[current]`: none if the session also has an earlier filter of `matched`, where it is served; else the
    /// options over all its matching filters (highest QoS, retain as published if any, no local only if all), and their subscription
    /// identifiers are appended to `ids`. `matched` is what [`Index::matching`] gave, and nothing was subscribed or ended since.
    pub fn merged(
        &self,
        entry: Entry,
        matched: &[FilterId],
        current: usize,
        ids: &mut Vec<u32>,
    ) -> Option<SubOptions> {
        let _ = (matched, current, ids);
        Some(entry.options())
    }

    /// For a fan-out that is walked later, while subscriptions come and go: each subscriber of `matched` is appended to `out` once, its options
    /// merged as [`Index::merged`] does. With one filter that is a copy of its list.
    pub fn snapshot(&self, matched: &[FilterId], out: &mut Vec<Entry>) {
        let _ = (matched, out);
    }

    /// The subscription identifiers that a session has with filters of `matched` are appended to `ids`.
    pub fn subscription_ids(&self, session: SessionIdx, matched: &[FilterId], ids: &mut Vec<u32>) {
        let _ = (session, matched, ids);
    }

    /// A session's options for a filter.
    pub fn options(&self, session: SessionIdx, filter: FilterId) -> Option<SubOptions> {
        let _ = (session, filter);
        None
    }

    /// A session's subscription identifier for a filter.
    pub fn subscription_id(&self, session: SessionIdx, filter: FilterId) -> Option<u32> {
        let _ = (session, filter);
        None
    }

    /// All that a session subscribes to, in no order: path, options, subscription identifier.
    pub fn subscriptions(
        &self,
        session: SessionIdx,
    ) -> impl Iterator<Item = (&str, SubOptions, Option<u32>)> {
        let _ = session;
        std::iter::empty()
    }

    /// How many subscriptions a session has.
    pub fn count(&self, session: SessionIdx) -> usize {
        let _ = session;
        0
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many filters have a subscriber.
    pub fn filters(&self) -> usize {
        0
    }

    /// What it takes.
    pub fn memory(&self) -> Memory {
        Memory::default()
    }
}
