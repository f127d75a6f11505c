//! QoS 2 messages that may come again: those that a durable client has published, and that it has not been told are taken.
//!
//! Should the server die, the client sends them again, and nobody may get one twice. Who has one is found in the logs then, while its record
//! stands there; the record of a message that is done may go at any time. So a session that a client has acknowledged one for notes that it had
//! it, and knows that until its publisher knows too.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};

use super::Shard;
use super::leaving::goes_on;
use super::stored::twice;
use crate::ids::{SessionId, SessionIdx};
use crate::session::durable::{self, Body, Note};
use crate::session::message::Message;
use crate::store::Store;
use crate::topic::GroupKey;

/// Two reactors seldom want the same one.
const PARTS: usize = 64;

/// The tokens of all such messages, over all shards.
#[derive(Debug)]
pub(super) struct Doubts {
    open: [Mutex<HashSet<u64>>; PARTS],
    /// After a start: groups of which a member has or had one.
    groups: Mutex<HashSet<(u64, GroupKey)>>,
}

impl Default for Doubts {
    fn default() -> Self {
        Self {
            open: std::array::from_fn(|_| Mutex::default()),
            groups: Mutex::default(),
        }
    }
}

/// What another thread did to a set before it panicked was done in whole.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Doubts {
    /// Tokens are random.
    fn part(&self, token: u64) -> MutexGuard<'_, HashSet<u64>> {
        held(&self.open[token as usize % PARTS])
    }

    /// A message is taken, before anybody gets it.
    pub(super) fn open(&self, token: u64) {
        self.part(token).insert(token);
    }

    /// It does not come again: everybody has it, which the log knows, or its publisher has given it up.
    pub(super) fn close(&self, token: u64) {
        self.part(token).remove(&token);
    }

    /// Whether it may come again.
    pub(super) fn is_open(&self, token: u64) -> bool {
        self.part(token).contains(&token)
    }

    /// A message that may have been routed to a group before the server died is to be routed to it: true if it was, or if it is taken to be from
    /// now on.
    pub(super) fn claims(&self, key: &GroupKey, message: &Message) -> bool {
        let token = message.token.filter(|_| message.doubtful);
        token.is_some_and(|token| !held(&self.groups).insert((token.get(), key.clone())))
    }

    /// It was not taken.
    pub(super) fn gives_up(&self, key: GroupKey, token: u64) {
        held(&self.groups).remove(&(token, key));
    }

    fn is_empty(&self) -> bool {
        self.open.iter().all(|part| held(part).is_empty())
    }
}

/// A message that may come again, and the group that chose the session which has or had it.
type Had = (u64, Option<GroupKey>);

/// What the sessions of a shard have or had of such messages.
#[derive(Debug, Default)]
pub(super) struct Hads {
    of: HashMap<SessionId, Vec<Had>>,
    /// How many there are, those included that don't come again any more.
    count: usize,
    /// So many are too many: then those go.
    limit: usize,
}

/// The fewest that are worth a look at all of them.
const HADS_LEAST: usize = 64;

impl Hads {
    /// What a session had, for its state.
    pub(super) fn of(&self, session: SessionId) -> Vec<durable::Had<'_>> {
        let known = self.of.get(&session).map_or(&[][..], Vec::as_slice);
        known.iter().map(written).collect()
    }

    /// What its record says that a session had.
    pub(super) fn restore(&mut self, session: SessionId, had: &[durable::Had<'_>]) {
        for had in had {
            let group = had.group.map(|(group, path)| GroupKey {
                group: group.into(),
                path: path.into(),
            });
            self.put(session, (had.token, group));
        }
    }

    /// False: that was known.
    fn put(&mut self, session: SessionId, had: Had) -> bool {
        let known = self.of.entry(session).or_default();
        let is_new = !known.contains(&had);
        if is_new {
            known.push(had);
            self.count += 1;
        }
        is_new
    }

    fn has(&self, session: SessionId, token: u64) -> bool {
        let known = self.of.get(&session);
        known.is_some_and(|known| known.iter().any(|(had, _)| *had == token))
    }

    /// The session is over.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.count -= self.of.remove(&session).map_or(0, |known| known.len());
    }

    /// Those that don't come again go, once they may be half of all.
    fn tidy(&mut self, doubts: &Doubts) {
        if self.count > self.limit {
            self.sweep(doubts);
        }
    }

    fn sweep(&mut self, doubts: &Doubts) {
        self.of.retain(|_, known| {
            known.retain(|(token, _)| doubts.is_open(*token));
            !known.is_empty()
        });
        self.count = self.of.values().map(Vec::len).sum();
        self.limit = 2 * self.count.max(HADS_LEAST);
    }
}

fn written((token, group): &Had) -> durable::Had<'_> {
    durable::Had {
        token: *token,
        group: group.as_ref().map(|key| (&*key.group, &*key.path)),
    }
}

/// Of a message that may come again, from its record.
fn read(body: &[u8], meta: &[u8], doubts: &Doubts) -> Option<Had> {
    let token = Body::token_of(body).filter(|token| doubts.is_open(*token))?;
    let meta = durable::Meta::read(meta).ok();
    let group = meta.and_then(|meta| meta.group);
    Some((token, group.map(|(group, path)| GroupKey { group, path })))
}

/// If there is no room for the note, the record of the message stays too, for then nothing is cleaned.
fn record(store: &mut Store, session: SessionId, had: &Had) {
    let mut note = Vec::new();
    Note::Had(written(had)).write(&mut note);
    let _ = store.note(session, &note);
}

impl Shard {
    /// All shards have their sessions: who has what may come again is found out, before any client can send it.
    pub(super) fn find_doubts(&mut self) {
        let doubts = &self.shared.doubts;
        self.keep.hads.sweep(doubts);
        if doubts.is_empty() {
            return;
        }
        let mut fresh = Vec::new();
        let (store, hads) = (&mut self.keep.store, &mut self.keep.hads);
        let (leaving, queues) = (&self.keep.leaving, &*store);
        queues.walk_entries(|session, seq, item| {
            // What one that is over has for others it does not have itself.
            let queue = queues.queue(session.idx);
            if leaving.has(session.idx)
                && queue.is_some_and(|queue| goes_on(queue, seq, twice(&item)))
            {
                return;
            }
            if let Some(had) = read(item.body, item.meta, doubts)
                && hads.put(session, had.clone())
            {
                fresh.push((session, had));
            }
        });
        // The records of what is done may go before the publisher is back, and the server may die again.
        for (session, had) in fresh {
            record(store, session, &had);
        }
        let all = hads.of.values().flatten();
        let of_groups = all.filter_map(|(token, group)| Some((*token, group.clone()?)));
        held(&doubts.groups).extend(of_groups);
    }

    /// A client has a QoS 2 message of its queue (PUBREC). If its publisher may send it again, that is recorded before the message goes.
    pub(super) fn note_had(&mut self, idx: SessionIdx, seq: u32) {
        let session = self.id_of(idx);
        let doubts = &self.shared.doubts;
        let (store, hads) = (&mut self.keep.store, &mut self.keep.hads);
        let item = store.item(idx, seq);
        let Some(had) = item.and_then(|item| read(item.body, item.meta, doubts)) else {
            return;
        };
        if hads.put(session, had.clone()) {
            record(store, session, &had);
            hads.tidy(doubts);
        }
    }

    /// Whether a session has a message that its publisher sends again after the server has died.
    pub(super) fn has_already(&self, idx: SessionIdx, message: &Message) -> bool {
        let session = self.id_of(idx);
        let token = message.token;
        token.is_some_and(|token| self.keep.hads.has(session, token.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_again_does_not_stay() {
        let (doubts, mut hads) = (Doubts::default(), Hads::default());
        let session = |serial| SessionId {
            idx: SessionIdx(7),
            serial,
        };
        doubts.open(0);
        assert!(hads.put(session(0), (0, None)) && !hads.put(session(0), (0, None)));
        for token in 1..10_000 {
            doubts.open(token);
            hads.put(session(token as u32 % 100), (token, None));
            hads.tidy(&doubts);
            doubts.close(token);
            assert!(hads.count <= 2 * HADS_LEAST + 1);
        }
        assert!(hads.has(session(0), 0), "it may still come again");
        hads.forget(session(0));
        hads.sweep(&doubts);
        assert_eq!((hads.count, hads.of.len()), (0, 0));
    }
}
