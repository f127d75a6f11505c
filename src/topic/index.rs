//! The subscriptions of one shard: filters to subscribers, sessions to filters.
//!
//! A filter is a 12-byte record; its text lies in the arena, its subscribers are one entry in the record or a list. All filters are found by
//! hash; those with a wildcard are in the trie too. The index neither delivers nor knows what a session is beyond its number.

mod audit;

use hashbrown::{HashMap, HashSet, HashTable};

use super::arena::{Arena, StrRef};
use super::filter::has_wildcard;
use super::hash::{TopicHash, TopicHasher};
use super::holdings::Holdings;
use super::pool::Pool;
use super::subscription::{Ended, Entry, FilterId, SubOptions, Subscribed, Unsubscribed};
use super::trie::FilterTrie;
use crate::ids::SessionIdx;
use crate::limits::FILTER_TABLE_PARTS;

/// The subscriptions of one shard.
#[derive(Debug)]
pub struct Index {
    hasher: TopicHasher,
    /// Filter to number, by text; which part, the hash tells.
    tables: Box<[HashTable<u32>]>,
    filters: Pool<FilterRecord>,
    lists: Pool<Vec<Entry>>,
    /// Entries that the lists have room for.
    listed_capacity: usize,
    texts: Arena,
    wildcards: FilterTrie,
    holdings: Holdings,
    /// Subscription identifiers, which few subscriptions have.
    ids: HashMap<(SessionIdx, FilterId), u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct FilterRecord {
    text: StrRef,
    subscribers: Subscribers,
}

const _: () = assert!(size_of::<FilterRecord>() == 12);

#[derive(Clone, Copy, Debug, Default)]
enum Subscribers {
    /// The record is free.
    #[default]
    Nobody,
    One(Entry),
    /// The number of a list of two or more.
    Many(u32),
}

impl Index {
    /// No subscriptions.
    pub fn new(hasher: TopicHasher) -> Self {
        Self {
            tables: (0..FILTER_TABLE_PARTS).map(|_| HashTable::new()).collect(),
            filters: Pool::default(),
            lists: Pool::default(),
            listed_capacity: 0,
            texts: Arena::default(),
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
            Some(filter) => match self.position(session, filter) {
                None => {
                    self.add_subscriber(filter, entry);
                    (filter, true, false)
                }
                Some(position) => {
                    *self.entry_mut(filter, position) = entry;
                    (filter, false, false)
                }
            },
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
        let position = self.holdings.remove(session, filter)?;
        let last_on_filter = self.remove_subscriber(filter, session, position);
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
        for (filter, position) in self.holdings.take(session) {
            let last_on_filter = self.remove_subscriber(filter, session, position);
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

    /// The subscribers of a filter; none where it has gone.
    pub fn subscribers(&self, filter: FilterId) -> &[Entry] {
        match self.filters.get(filter.0).map(|record| &record.subscribers) {
            None | Some(Subscribers::Nobody) => &[],
            Some(Subscribers::One(entry)) => std::slice::from_ref(entry),
            Some(Subscribers::Many(list)) => &self.lists[*list],
        }
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
        let merged = self.merge(entry, matched, current)?;
        if merged.has_id() {
            self.subscription_ids(entry.session(), matched, ids);
        }
        Some(merged.options())
    }

    /// For a fan-out that is walked later, while subscriptions come and go: each subscriber of `matched` is appended to `out` once, its options
    /// merged as [`Index::merged`] does. With one filter that is a copy of its list.
    pub fn snapshot(&self, matched: &[FilterId], out: &mut Vec<Entry>) {
        let lists = || matched.iter().map(|&filter| self.subscribers(filter));
        let total: usize = lists().map(<[Entry]>::len).sum();
        let longest = (0..matched.len()).max_by_key(|&at| self.subscribers(matched[at]).len());
        for (current, list) in lists().enumerate() {
            let others = total - list.len();
            if others == 0 {
                out.extend_from_slice(list);
            } else if Some(current) == longest && list.len() / 8 > others {
                // A broadcast, and a few who listen to more: only these few can be in the list twice.
                let few = lists().enumerate().filter(|&(at, _)| at != current);
                let few: HashSet<SessionIdx> = few
                    .flat_map(|(_, list)| list)
                    .map(|entry| entry.session())
                    .collect();
                out.extend(list.iter().filter_map(|&entry| {
                    if few.contains(&entry.session()) {
                        self.merge(entry, matched, current)
                    } else {
                        Some(entry)
                    }
                }));
            } else {
                out.extend(
                    list.iter()
                        .filter_map(|&entry| self.merge(entry, matched, current)),
                );
            }
        }
    }

    /// The subscription identifiers that a session has with filters of `matched` are appended to `ids`.
    pub fn subscription_ids(&self, session: SessionIdx, matched: &[FilterId], ids: &mut Vec<u32>) {
        if self.ids.is_empty() {
            return;
        }
        self.holdings.overlap(session, matched, |at, _| {
            ids.extend(self.subscription_id(session, matched[at]));
            true
        });
    }

    /// A session's options for a filter.
    pub fn options(&self, session: SessionIdx, filter: FilterId) -> Option<SubOptions> {
        let position = self.position(session, filter)?;
        Some(self.subscribers(filter)[position as usize].options())
    }

    /// Whether a session subscribes to a filter.
    pub fn has(&self, session: SessionIdx, path: &str) -> bool {
        let filter = self.lookup(self.hasher.hash(path), path);
        filter.is_some_and(|filter| self.position(session, filter).is_some())
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
        self.holdings.iter(session).map(move |(filter, position)| {
            let entry = self.subscribers(filter)[position as usize];
            (
                self.path(filter),
                entry.options(),
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
        self.filters.len()
    }

    fn path(&self, filter: FilterId) -> &str {
        self.texts.text(self.filters[filter.0].text)
    }

    fn lookup(&self, hash: TopicHash, path: &str) -> Option<FilterId> {
        let is_it = |&number: &u32| self.texts.get(self.filters[number].text) == path.as_bytes();
        self.tables[part(hash)]
            .find(hash.0, is_it)
            .map(|&number| FilterId(number))
    }

    /// Where a session is in the list of a filter.
    fn position(&self, session: SessionIdx, filter: FilterId) -> Option<u32> {
        match self.subscribers(filter) {
            // The usual case, a topic of one phone, needs no walk.
            [only] => (only.session() == session).then_some(0),
            _ => self.holdings.find(session, filter),
        }
    }

    fn entry_mut(&mut self, filter: FilterId, position: u32) -> &mut Entry {
        match &mut self.filters[filter.0].subscribers {
            Subscribers::One(entry) => entry,
            Subscribers::Many(list) => &mut self.lists[*list][position as usize],
            Subscribers::Nobody => unreachable!("a filter without subscribers is gone"),
        }
    }

    /// An entry with the options over all of a session's filters in `matched`; none if an earlier one serves it.
    fn merge(&self, entry: Entry, matched: &[FilterId], current: usize) -> Option<Entry> {
        if matched.len() == 1 {
            return Some(entry);
        }
        debug_assert!(matched.is_sorted());
        let mut merged = entry.options();
        let mut has_id = entry.has_id();
        let mut serves = true;
        self.holdings
            .overlap(entry.session(), matched, |at, position| {
                serves = at >= current;
                if serves && let Some(other) = self.subscribers(matched[at]).get(position as usize)
                {
                    let options = other.options();
                    merged.qos = merged.qos.max(options.qos);
                    merged.no_local &= options.no_local;
                    merged.retain_as_published |= options.retain_as_published;
                    has_id |= other.has_id();
                }
                serves
            });
        serves.then(|| Entry::new(entry.session(), merged, has_id))
    }

    fn add_filter(&mut self, hash: TopicHash, path: &str, entry: Entry) -> FilterId {
        let text = self.texts.insert(path.as_bytes());
        let number = self.filters.insert(FilterRecord {
            text,
            subscribers: Subscribers::One(entry),
        });
        let Self {
            tables,
            filters,
            texts,
            hasher,
            ..
        } = self;
        tables[part(hash)].insert_unique(hash.0, number, |&other| {
            hasher.hash(texts.text(filters[other].text)).0
        });
        if has_wildcard(path) {
            self.wildcards.insert(path, number);
        }
        self.holdings.add(entry.session(), FilterId(number), 0);
        FilterId(number)
    }

    fn remove_filter(&mut self, hash: TopicHash, filter: FilterId) {
        let text = self.filters.remove(filter.0).text;
        let Self {
            tables,
            filters,
            texts,
            hasher,
            wildcards,
            ..
        } = self;
        let path = texts.text(text);
        if has_wildcard(path) {
            wildcards.remove(path);
        }
        let table = &mut tables[part(hash)];
        table
            .find_entry(hash.0, |&number| number == filter.0)
            .expect("every filter is in the table")
            .remove();
        if table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, |&other| {
                hasher.hash(texts.text(filters[other].text)).0
            });
        }
        texts.remove(text);
    }

    /// Adds a session to a filter that it does not have and another has.
    fn add_subscriber(&mut self, filter: FilterId, entry: Entry) {
        let subscribers = &mut self.filters[filter.0].subscribers;
        let position = match *subscribers {
            Subscribers::One(first) => {
                let list = vec![first, entry];
                self.listed_capacity += list.capacity();
                *subscribers = Subscribers::Many(self.lists.insert(list));
                1
            }
            Subscribers::Many(list) => {
                let list = &mut self.lists[list];
                self.listed_capacity -= list.capacity();
                list.push(entry);
                self.listed_capacity += list.capacity();
                list.len() as u32 - 1
            }
            Subscribers::Nobody => unreachable!("a filter without subscribers is gone"),
        };
        self.holdings.add(entry.session(), filter, position);
    }

    /// Takes a session, whose holding is gone already, out of a filter; tells whether it was the last. The filter's record and text are still there.
    fn remove_subscriber(&mut self, filter: FilterId, session: SessionIdx, position: u32) -> bool {
        self.forget_id(session, filter);
        let subscribers = &mut self.filters[filter.0].subscribers;
        let Subscribers::Many(number) = *subscribers else {
            return true;
        };
        let list = &mut self.lists[number];
        list.swap_remove(position as usize);
        if let Some(moved) = list.get(position as usize) {
            self.holdings
                .set_position(moved.session(), filter, position);
        }
        self.listed_capacity -= list.capacity();
        if let &mut [last] = list.as_mut_slice() {
            *subscribers = Subscribers::One(last);
            self.lists.remove(number);
            return false;
        }
        if list.len() < list.capacity() / 4 {
            list.shrink_to(list.len() * 2);
        }
        self.listed_capacity += list.capacity();
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

/// Which part of the table; with bits that the table itself does not use.
fn part(hash: TopicHash) -> usize {
    (hash.0 >> 40) as usize % FILTER_TABLE_PARTS
}

#[cfg(test)]
mod tests;
