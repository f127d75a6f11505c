//! The subscriptions of one shard: filters to subscribers, sessions to filters.
//!
//! A filter is a string in the arena, and before its text stands its one subscriber, or the number of its list: who has found a filter has its
//! subscriber in the same cache line. All filters are found by hash; those with a wildcard are in the trie too. The index neither delivers nor
//! knows what a session is beyond its number.

mod audit;

use hashbrown::HashMap;

use super::arena::{Arena, StrRef};
use super::filter::has_wildcard;
use super::hash::{TopicHash, TopicHasher};
use super::holdings::Holdings;
use super::list::List;
use super::pool::Pool;
use super::subscription::{Ended, Entry, FilterId, SubOptions, Subscribed, Unsubscribed};
use super::table::Table;
use super::trie::FilterTrie;
use crate::ids::SessionIdx;
use crate::limits::{OWN_TOPIC_BYTES, SESSION_BITS};

/// The subscriptions of one shard.
#[derive(Debug)]
pub struct Index {
    hasher: TopicHasher,
    /// Filter by hash of its text.
    table: Table,
    /// A filter's number is its place here.
    filters: Filters,
    count: usize,
    lists: Pool<List>,
    wildcards: FilterTrie,
    holdings: Holdings,
    /// Subscription identifiers, which few subscriptions have.
    ids: HashMap<(SessionIdx, FilterId), u32>,
}

/// Filters with their texts, each behind a word that says who subscribes.
type Filters = Arena<{ size_of::<Entry>() }>;

const _: () =
    assert!(Filters::bytes_for(15) == OWN_TOPIC_BYTES && Filters::bytes_for(18) == OWN_TOPIC_BYTES);

/// What the word before a filter's text says.
enum Who {
    One(Entry),
    /// The number of a list of two or more.
    Many(u32),
}

impl Who {
    /// An entry never has this bit; the number of a list is shifted over it.
    const MANY: u32 = 1 << 5;

    fn one(entry: Entry) -> [u8; 4] {
        entry.bits().to_le_bytes()
    }

    fn many(list: u32) -> [u8; 4] {
        debug_assert!(list < 1 << SESSION_BITS, "more lists than sessions");
        (list << (32 - SESSION_BITS) | Self::MANY).to_le_bytes()
    }

    fn read(head: [u8; 4]) -> Self {
        let bits = u32::from_le_bytes(head);
        if bits & Self::MANY == 0 {
            Self::One(Entry::from_bits(bits))
        } else {
            Self::Many(bits >> (32 - SESSION_BITS))
        }
    }
}

impl Index {
    /// No subscriptions.
    pub fn new(hasher: TopicHasher) -> Self {
        Self {
            table: Table::default(),
            filters: Filters::default(),
            count: 0,
            lists: Pool::default(),
            wildcards: FilterTrie::new(hasher.clone()),
            holdings: Holdings::default(),
            ids: HashMap::new(),
            hasher,
        }
    }

    /// Adds a subscription, or replaces its options (MQTT 5 section 3.8.4). `path` is valid and without `$share/{group}/`; the identifier is not 0.
    pub fn subscribe(
        &mut self,
        session: SessionIdx,
        path: &str,
        options: SubOptions,
        subscription_id: Option<u32>,
    ) -> Subscribed {
        let hash = self.hasher.hash(path);
        let entry = Entry::new(session, options, subscription_id.is_some());
        let (filter, is_new, first_on_filter) = match self.lookup(hash, path) {
            None => (self.add_filter(hash, path, entry), true, true),
            Some(filter) => (filter, self.put_subscriber(filter, entry), false),
        };
        match subscription_id {
            Some(id) => drop(self.ids.insert((session, filter), id)),
            None if !is_new => self.forget_id(session, filter),
            None => {}
        }
        Subscribed {
            is_new,
            first_on_filter,
            filter,
            hash,
        }
    }

    /// Ends a subscription; none: there was none.
    pub fn unsubscribe(&mut self, session: SessionIdx, path: &str) -> Option<Unsubscribed> {
        let hash = self.hasher.hash(path);
        let filter = self.lookup(hash, path)?;
        if !self.holdings.remove(session, filter) {
            return None;
        }
        let last_on_filter = self.remove_subscriber(filter, session);
        if last_on_filter {
            self.remove_filter(hash, filter);
        }
        Some(Unsubscribed {
            last_on_filter,
            hash,
        })
    }

    /// Ends all of a session's subscriptions; each is reported.
    pub fn clear(&mut self, session: SessionIdx, mut on_end: impl FnMut(Ended<'_>)) {
        for filter in self.holdings.take(session) {
            let last_on_filter = self.remove_subscriber(filter, session);
            let path = self.path(filter);
            let hash = self.hasher.hash(path);
            on_end(Ended {
                path,
                wildcard: has_wildcard(path),
                hash,
                last_on_filter,
            });
            if last_on_filter {
                self.remove_filter(hash, filter);
            }
        }
    }

    /// The filters that match a topic are put into `out`, which is cleared first: each once, in ascending order.
    pub fn matching(&self, hash: TopicHash, topic: &str, out: &mut Vec<FilterId>) {
        out.clear();
        out.extend(self.lookup(hash, topic));
        if !self.wildcards.is_empty() {
            self.wildcards
                .matches(topic, |filter| out.push(FilterId(filter)));
            out.sort_unstable();
        }
    }

    /// The subscribers of a filter that is there, in the order of their sessions.
    pub fn subscribers(&self, filter: FilterId) -> impl Iterator<Item = Entry> {
        let (one, many) = match self.who(filter) {
            Who::One(entry) => (Some(entry), None),
            Who::Many(list) => (None, Some(&self.lists[list])),
        };
        one.into_iter()
            .chain(many.into_iter().flat_map(List::pieces).flatten().copied())
    }

    /// The filters that match a topic of this hash will be asked for.
    pub fn expect(&self, hash: TopicHash) {
        self.table.expect(hash);
    }

    /// The same, a little later: the filter that it will most likely be, whose subscribers will be asked for.
    pub fn expect_likely(&self, hash: TopicHash) -> Option<FilterId> {
        let number = self.table.likely(hash)?;
        self.filters.expect(StrRef(number));
        Some(FilterId(number))
    }

    /// The one subscriber of a filter that has no other.
    pub fn only_subscriber(&self, filter: FilterId) -> Option<Entry> {
        match self.who(filter) {
            Who::One(entry) => Some(entry),
            Who::Many(_) => None,
        }
    }

    /// How many subscribers a filter has.
    pub fn audience(&self, filter: FilterId) -> usize {
        match self.who(filter) {
            Who::One(_) => 1,
            Who::Many(list) => self.lists[list].len(),
        }
    }

    /// Everybody who gets a message is put into `out`, which is cleared first: in the order of sessions, and complete, so that it may be walked
    /// later while subscriptions come and go.
    ///
    /// Overlapping filters (MQTT 5 section 3.3.4): a session gets one copy of a message, whatever number of its filters match. Its options are
    /// merged over them: highest QoS, retain as published if any, no local only if all. `matched` is what [`Index::matching`] gave, and nothing
    /// was subscribed or ended since.
    pub fn snapshot(&self, matched: &[FilterId], out: &mut Vec<Entry>) {
        out.clear();
        for &filter in matched {
            match self.who(filter) {
                Who::One(entry) => out.push(entry),
                Who::Many(list) => self.lists[list]
                    .pieces()
                    .for_each(|piece| out.extend_from_slice(piece)),
            }
        }
        if matched.len() > 1 {
            // Lists in order, one behind the other: this sort is a merge.
            out.sort_by_key(|entry| entry.session());
            out.dedup_by(|other, entry| {
                let is_same = other.session() == entry.session();
                if is_same {
                    *entry = entry.merged(*other);
                }
                is_same
            });
        }
    }

    /// The subscription identifiers that a session has with filters of `matched` are appended to `ids`.
    pub fn subscription_ids(&self, session: SessionIdx, matched: &[FilterId], ids: &mut Vec<u32>) {
        if self.ids.is_empty() {
            return;
        }
        self.holdings.overlap(session, matched, |filter| {
            ids.extend(self.subscription_id(session, filter));
        });
    }

    /// A session's options for a filter.
    pub fn options(&self, session: SessionIdx, filter: FilterId) -> Option<SubOptions> {
        self.entry(session, filter).map(Entry::options)
    }

    /// Whether a session subscribes to a filter.
    pub fn has(&self, session: SessionIdx, path: &str) -> bool {
        let filter = self.lookup(self.hasher.hash(path), path);
        filter.is_some_and(|filter| self.entry(session, filter).is_some())
    }

    /// A session's subscription identifier for a filter.
    pub fn subscription_id(&self, session: SessionIdx, filter: FilterId) -> Option<u32> {
        self.ids.get(&(session, filter)).copied()
    }

    /// All that a session subscribes to, in no order: path, options, subscription identifier.
    pub fn subscriptions(
        &self,
        session: SessionIdx,
    ) -> impl Iterator<Item = (&str, SubOptions, Option<u32>)> {
        self.holdings.iter(session).map(move |filter| {
            let options = self.options(session, filter);
            (
                self.path(filter),
                options.expect("who holds a filter subscribes to it"),
                self.subscription_id(session, filter),
            )
        })
    }

    /// How many subscriptions a session has.
    pub fn count(&self, session: SessionIdx) -> usize {
        self.holdings.count(session)
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.holdings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many filters have a subscriber.
    pub fn filters(&self) -> usize {
        self.count
    }

    /// Lets go of memory that an empty index keeps for those who come.
    pub fn give_back(&mut self) {
        self.holdings.give_back();
        if self.count == 0 {
            self.filters = Filters::default();
        }
    }

    fn path(&self, filter: FilterId) -> &str {
        self.filters.text(StrRef(filter.0))
    }

    fn who(&self, filter: FilterId) -> Who {
        Who::read(self.filters.head(StrRef(filter.0)))
    }

    fn set_who(&mut self, filter: FilterId, head: [u8; 4]) {
        self.filters.set_head(StrRef(filter.0), head);
    }

    fn lookup(&self, hash: TopicHash, path: &str) -> Option<FilterId> {
        let is_it = |number: u32| self.filters.get(StrRef(number)) == path.as_bytes();
        self.table.find(hash, is_it).map(FilterId)
    }

    /// A session's entry among the subscribers of a filter.
    fn entry(&self, session: SessionIdx, filter: FilterId) -> Option<Entry> {
        match self.who(filter) {
            Who::One(entry) => (entry.session() == session).then_some(entry),
            Who::Many(list) => self.lists[list].find(session),
        }
    }

    fn add_filter(&mut self, hash: TopicHash, path: &str, entry: Entry) -> FilterId {
        let StrRef(number) = self.filters.insert_with(Who::one(entry), path.as_bytes());
        let (filters, hasher) = (&self.filters, &self.hasher);
        self.table.insert(
            hash,
            number,
            |other| filters.expect(StrRef(other)),
            |other| hasher.hash_bytes(filters.get(StrRef(other))),
        );
        self.count += 1;
        if has_wildcard(path) {
            self.wildcards.insert(path, number);
        }
        self.holdings.add(entry.session(), FilterId(number));
        FilterId(number)
    }

    fn remove_filter(&mut self, hash: TopicHash, filter: FilterId) {
        let (filters, hasher) = (&self.filters, &self.hasher);
        let was_there = self.table.remove(hash, filter.0, |other| {
            hasher.hash_bytes(filters.get(StrRef(other)))
        });
        debug_assert!(was_there, "every filter is in the table");
        let path = filters.text(StrRef(filter.0));
        if has_wildcard(path) {
            self.wildcards.remove(path);
        }
        self.filters.remove(StrRef(filter.0));
        self.count -= 1;
    }

    /// Adds a session to a filter that somebody has, or changes its entry; true: it is new.
    fn put_subscriber(&mut self, filter: FilterId, entry: Entry) -> bool {
        match self.who(filter) {
            Who::One(other) if other.session() == entry.session() => {
                self.set_who(filter, Who::one(entry));
                return false;
            }
            Who::One(other) => {
                let list = self.lists.insert(List::of_two(other, entry));
                self.set_who(filter, Who::many(list));
            }
            Who::Many(list) => {
                let list = &mut self.lists[list];
                if list.replace(entry) {
                    return false;
                }
                list.insert(entry);
            }
        }
        self.holdings.add(entry.session(), filter);
        true
    }

    /// Takes a session, whose holding is gone already, out of a filter; tells whether it was the last. The filter itself is still there.
    fn remove_subscriber(&mut self, filter: FilterId, session: SessionIdx) -> bool {
        self.forget_id(session, filter);
        let Who::Many(number) = self.who(filter) else {
            return true;
        };
        let list = &mut self.lists[number];
        let was_there = list.remove(session);
        debug_assert!(was_there, "who holds a filter subscribes to it");
        if let Some(last) = list.only() {
            self.lists.remove(number);
            self.set_who(filter, Who::one(last));
        }
        false
    }

    fn forget_id(&mut self, session: SessionIdx, filter: FilterId) {
        if !self.ids.is_empty() {
            self.ids.remove(&(session, filter));
            if self.ids.is_empty() {
                self.ids = HashMap::new();
            }
        }
    }
}

#[cfg(test)]
mod tests;
