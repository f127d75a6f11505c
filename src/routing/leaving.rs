//! Sessions that have ended and still hold messages of shared subscriptions, which go on to other members (MQTT 5 section 4.8.2).
//!
//! Such a message was acknowledged, so it may not be in one place only while it moves. The session's record stays: first it is noted that the
//! session is over, then the messages are passed on as if the session published them, each leaves the queue when it is settled, which means
//! that another store has it; the end is recorded behind the last. After a crash the rest goes on; at QoS 2 its token tells whether another
//! member has it already.
//!
//! The client is not kept from anything: its identifier is free from the end on, and the session counts no more.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Shard;
use super::port::Port;
use super::stored::{distance, meta, unsent};
use super::waits::Wait;
use crate::clock::{Millis, Tick};
use crate::ids::{SessionId, SessionIdx};
use crate::limits::{LEAVING_RETRY_MILLIS, LEAVING_SLICE, LEAVING_WINDOW};
use crate::session::durable::{Body, Meta, Note};
use crate::session::message::{Outcome, Publisher, Receipt};
use crate::store::{Queue, State, Store, View};
use crate::topic::GroupKey;
use crate::wire::Qos;

/// The serial that no session has. With the index of one that leaves it is the publisher of what goes on: the session's own messages may still be under
/// way, and are settled under its name.
pub(super) const NOBODY: u32 = 0;

/// The sessions of a shard that leave.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    sessions: HashMap<SessionIdx, Left>,
    /// Those that have something to do.
    next: VecDeque<SessionId>,
    /// Those of which a message was refused, and when it is tried again.
    later: VecDeque<(Tick, SessionId)>,
}

/// How far one of them is.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    /// The next message of the queue to look at; none: from the oldest on.
    at: Option<u32>,
    /// Messages that are passed on and not settled.
    waiting: usize,
    /// It is in `next`.
    is_next: bool,
    /// One was refused: nothing more is passed on for a while.
    refused: bool,
    /// The server has died since it ended: other members may have what the queue still has.
    doubtful: bool,
}

impl Leaving {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    #[inline]
    pub(super) fn has(&self, idx: SessionIdx) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(&idx)
    }

    /// After a restart, one that was over before.
    pub(super) fn resume(&mut self, id: SessionId) {
        let left = Left {
            doubtful: true,
            ..Left::default()
        };
        self.sessions.insert(id.idx, left);
        self.push(id);
    }

    fn push(&mut self, id: SessionId) {
        if let Some(left) = self.sessions.get_mut(&id.idx)
            && !std::mem::replace(&mut left.is_next, true)
        {
            self.next.push_back(id);
        }
    }
}

/// Whether an entry of a session that is over is for another member, if it came through a group: one that was sent at QoS 2 is for nobody else
/// (MQTT-4.8.2-5).
pub(super) fn goes_on(queue: View<'_>, seq: u32, twice: bool) -> bool {
    let was_sent = distance(queue.head(), seq) < distance(queue.head(), unsent(queue));
    queue.state(seq) == State::Waiting && !(twice && was_sent)
}

impl Shard {
    /// A durable session is over, but for its queue: its place in the slab stays taken until that is done.
    pub(super) fn begin_leaving(&mut self, idx: SessionIdx) {
        let id = self.id_of(idx);
        self.keep.leaving.sessions.insert(idx, Left::default());
        self.record_leaving(idx);
        if self.keep.disk {
            // After a power failure it must not be back while others have its messages.
            self.await_sync(Wait::Leave(id));
        } else {
            self.keep.leaving.push(id);
        }
    }

    /// Records that a session is over but for its queue.
    pub(super) fn record_leaving(&mut self, idx: SessionIdx) {
        let id = self.id_of(idx);
        let unsent = self.first_unsent(idx);
        if self.keep.note(id, &Note::Ended { unsent }).is_err() {
            self.keep.unsaved.push(id);
        }
    }

    /// The disk has it that the session is over.
    pub(super) fn leave_synced(&mut self, id: SessionId) {
        self.keep.leaving.push(id);
    }

    /// True if a slice would come further. While sessions are loaded it is not known who is in a group.
    pub(super) fn has_leaving(&self) -> bool {
        !self.keep.leaving.next.is_empty() && !self.keep.restoring.holds
    }

    /// A slice of what goes on to other members. True: there is more.
    pub(super) fn leaving_slice(&mut self, now: Millis, port: &mut impl Port) -> bool {
        let mut budget = LEAVING_SLICE;
        while budget > 0
            && self.has_leaving()
            && let Some(&id) = self.keep.leaving.next.front()
        {
            let idx = id.idx;
            let left = self.keep.leaving.sessions[&idx];
            let next = self.next_leaving(idx, left.at);
            match next {
                Some(seq) if left.waiting < LEAVING_WINDOW && !left.refused => {
                    budget -= 1;
                    self.left_mut(idx).at = Some(Queue::after(seq));
                    self.pass_entry_on(idx, seq, left.doubtful, now, port);
                    continue;
                }
                _ if left.waiting > 0 => {}
                _ if left.refused => {
                    let due = now.tick().after_millis(LEAVING_RETRY_MILLIS);
                    self.keep.leaving.later.push_back((due, id));
                }
                _ => self.leave(idx),
            }
            budget -= 1;
            self.keep.leaving.next.pop_front();
            if let Some(left) = self.keep.leaving.sessions.get_mut(&idx) {
                left.is_next = false;
            }
        }
        self.has_leaving()
    }

    fn left_mut(&mut self, idx: SessionIdx) -> &mut Left {
        let left = self.keep.leaving.sessions.get_mut(&idx);
        left.expect("only one that leaves is asked for")
    }

    /// The next number of the queue to look at.
    fn next_leaving(&self, idx: SessionIdx, at: Option<u32>) -> Option<u32> {
        let queue = self.keep.store.queue(idx)?;
        let at = at.unwrap_or(queue.head());
        // The head may have gone past it meanwhile.
        let (head, tail) = (queue.head(), queue.tail());
        let at = if distance(at, tail) > distance(head, tail) {
            head
        } else {
            at
        };
        (at != tail).then_some(at)
    }

    /// Passes one message on, if it is for others.
    fn pass_entry_on(
        &mut self,
        idx: SessionIdx,
        seq: u32,
        doubtful: bool,
        now: Millis,
        port: &mut impl Port,
    ) {
        let Some((body, key)) = of_group(&self.keep.store, idx, seq) else {
            return;
        };
        if self.is_past(&body, now) {
            self.counters().dropped_expired.add(1);
            self.finish(idx, seq);
            return;
        }
        let mut message = self.restored_message(&body);
        message.doubtful = doubtful;
        message.publisher = Some(Publisher {
            reactor: self.me,
            session: SessionId {
                idx,
                serial: NOBODY,
            },
            receipt: Some(Receipt(seq)),
        });
        self.left_mut(idx).waiting += 1;
        let message = Arc::new(message);
        if !self.shared.doubts.claims(&key, &message) {
            self.pass_on(&message, &Arc::new(key), now, port);
        }
        self.settle(&message, port);
    }

    /// A message that goes on is with another member, or with nobody.
    pub(super) fn passed_on(&mut self, idx: SessionIdx, seq: u32, outcome: Outcome) {
        let id = self.id_of(idx);
        let left = self.left_mut(idx);
        left.waiting -= 1;
        if outcome.is_error() {
            // It stays, as with any publisher, and is tried again.
            left.refused = true;
            if left.doubtful
                && let Some((body, key)) = of_group(&self.keep.store, idx, seq)
                && let Some(token) = body.token
            {
                self.shared.doubts.gives_up(key, token);
            }
        } else {
            self.finish(idx, seq);
        }
        self.keep.leaving.push(id);
    }

    /// Once a tick: what was refused is tried again.
    pub(super) fn retry_leaving(&mut self, now: Millis) {
        while let Some(&(due, id)) = self.keep.leaving.later.front()
            && due <= now.tick()
        {
            self.keep.leaving.later.pop_front();
            if let Some(left) = self.keep.leaving.sessions.get_mut(&id.idx) {
                (left.at, left.refused) = (None, false);
                self.keep.leaving.push(id);
            }
        }
    }

    /// The last message has gone on: nothing of the session is left.
    fn leave(&mut self, idx: SessionIdx) {
        self.forget_stored(self.id_of(idx));
        let session = self.sessions.0.remove(idx.index());
        self.ids.remove(session.client_id);
        self.keep.leaving.sessions.remove(&idx);
        if self.keep.leaving.sessions.is_empty() {
            self.keep.leaving.sessions = HashMap::new();
        }
    }

    /// After a restart: what a session that is over has for others at QoS 2 may have reached them.
    pub(super) fn doubt_leaving(&mut self, idx: SessionIdx) {
        let Some(queue) = self.keep.store.queue(idx) else {
            return;
        };
        let doubts = &self.shared.doubts;
        let mut seq = queue.head();
        while seq != queue.tail() {
            if let Some((body, _)) = of_group(&self.keep.store, idx, seq)
                && body.qos == Qos::ExactlyOnce
            {
                body.token.inspect(|token| doubts.open(*token));
            }
            seq = Queue::after(seq);
        }
    }
}

/// An entry that is for another member of its group.
fn of_group(store: &Store, idx: SessionIdx, seq: u32) -> Option<(Body<'_>, GroupKey)> {
    let queue = store.queue(idx)?;
    if queue.state(seq) != State::Waiting {
        return None;
    }
    let item = store.item(idx, seq)?;
    let Meta { group, twice, .. } = meta(&item)?;
    let (group, path) = group.filter(|_| goes_on(queue, seq, twice))?;
    Some((Body::read(item.body).ok()?, GroupKey { group, path }))
}
