//! What of a shard is in its store: the records of its durable sessions.
//!
//! A session that outlives its connection is recorded from its CONNECT on; one that does not, never. What a client is told is recorded before
//! it is told. A record that finds no room is not forgotten: the client is not told, or the record is tried again each tick.

use std::sync::Arc;

use super::port::Port;
use super::waits::Waits;
use super::{Sessions, Shard, doubts, groups, leaving, restore, stored};
use crate::clock::{Millis, Tick};
use crate::ids::{SessionId, SessionIdx};
use crate::limits::{self, OWED_PER_TICK};
use crate::session::durable::{self, Core, Note, Subscription};
use crate::session::message::{Message, Outcome, Receipt};
use crate::session::{Flags, Session, Will};
use crate::store::{self, Refused, Store, View};
use crate::topic::arena::Arena;
use crate::topic::{Filter, Index};

/// A shard's store, and what belongs to it.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) store: Store,
    /// What is promised waits for the disk.
    pub(super) disk: bool,
    /// Unix milliseconds at the zero of the shard's clock.
    pub(super) epoch: u64,
    pub(super) waits: Waits,
    /// The body that is being handed to many, which the store has once.
    pub(super) sharing: Option<(Arc<Message>, store::Shared)>,
    /// QoS 2 messages that everybody has, which could not be recorded.
    pub(super) unheld: Vec<(SessionId, Receipt, Outcome)>,
    /// PUBRECs that could not be recorded.
    pub(super) unreceived: Vec<(SessionId, u32)>,
    /// Sessions of which it could not be recorded that they came or went.
    pub(super) unsaved: Vec<SessionId>,
    /// Sessions that are over but for messages which go on to others.
    pub(super) leaving: leaving::Leaving,
    /// Queued messages that could not be read back.
    pub(super) unreadable: u64,
    /// The log has more dead records than it should.
    pub(super) cleaning: bool,
    /// What is left of a start.
    pub(super) restoring: restore::Restoring,
    /// What the sessions had of messages that may come again.
    pub(super) hads: doubts::Hads,
    /// For records.
    scratch: Vec<u8>,
}

impl Keep {
    pub(super) fn new(store: Store, disk: bool, epoch: u64) -> Self {
        Self {
            store,
            disk,
            epoch,
            waits: Waits::default(),
            sharing: None,
            unheld: Vec::new(),
            unreceived: Vec::new(),
            unsaved: Vec::new(),
            leaving: leaving::Leaving::default(),
            unreadable: 0,
            cleaning: false,
            restoring: restore::Restoring::default(),
            hads: doubts::Hads::default(),
            scratch: Vec::new(),
        }
    }

    /// Unix milliseconds of a moment.
    pub(super) fn unix(&self, at: Millis) -> u64 {
        self.epoch.saturating_add(at.0)
    }

    /// Unix milliseconds of a tick; the one that never comes has the last of all.
    fn unix_tick(&self, at: Tick) -> u64 {
        if at == Tick(u32::MAX) {
            return u64::MAX;
        }
        self.unix(Millis(u64::from(at.0) * limits::TICK_MILLIS))
    }

    /// The tick of a time in Unix milliseconds.
    pub(super) fn tick(&self, unix: u64) -> Tick {
        if unix == u64::MAX {
            return Tick(u32::MAX);
        }
        let ticks = unix
            .saturating_sub(self.epoch)
            .div_ceil(limits::TICK_MILLIS);
        Tick(u32::try_from(ticks).unwrap_or(u32::MAX - 1))
    }

    /// Records a change of a session.
    pub(super) fn note(&mut self, session: SessionId, note: &Note<'_>) -> Result<(), Refused> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        note.write(&mut bytes);
        let done = self.store.note(session, &bytes);
        self.scratch = bytes;
        done
    }
}

/// The first ones of what waits for room, as many as one tick takes.
pub(super) fn first<T>(waiting: &mut Vec<T>) -> Vec<T> {
    let rest = waiting.split_off(waiting.len().min(OWED_PER_TICK));
    std::mem::replace(waiting, rest)
}

/// All that a session's state is made of.
struct Parts<'a> {
    sessions: &'a Sessions,
    ids: &'a Arena,
    index: &'a Index,
    groups: &'a groups::Groups,
    leaving: &'a leaving::Leaving,
    hads: &'a doubts::Hads,
}

fn stored_will(will: &Will) -> durable::Will<'_> {
    durable::Will {
        qos: will.message.qos,
        retain: will.message.retain,
        delay: will.delay,
        expiry: will.expiry,
        topic: will.message.topic(),
        forward: will.message.forward(),
        payload: will.message.payload(),
    }
}

impl Parts<'_> {
    /// Appends the present state of a session.
    fn describe(
        &self,
        idx: SessionIdx,
        ends: Option<u64>,
        unsent: Option<u32>,
        will_due: Option<u64>,
        out: &mut Vec<u8>,
    ) {
        let session: &Session = &self.sessions[idx];
        let extras = session.extras();
        let receipts = session.flow.as_ref().map(|flow| &flow.receipts);
        let core = Core {
            client_id: self.ids.text(session.client_id),
            expiry: session.expiry().unwrap_or(0),
            ended: self.leaving.has(idx),
            ends,
            unsent,
            will: extras
                .and_then(|extras| extras.will.as_ref())
                .map(stored_will),
            will_due,
            incoming: receipts.map_or_else(Vec::new, |receipts| receipts.incoming().collect()),
            had: self.hads.of(SessionId {
                idx,
                serial: session.serial.get(),
            }),
        };
        durable::write_core(out, &core);
        for (filter, options, id) in self.index.subscriptions(idx) {
            let subscription = Subscription {
                filter,
                options,
                id,
            };
            durable::put_subscription(out, &subscription);
        }
        for sub in extras.map_or(&[][..], |extras| &extras.shared) {
            let (key, options, id) = self.groups.membership(*sub);
            let filter = Filter {
                share: Some(&*key.group),
                path: &key.path,
                wildcard: false,
            };
            let subscription = Subscription {
                filter: &filter.text(),
                options,
                id,
            };
            durable::put_subscription(out, &subscription);
        }
    }
}

impl Shard {
    /// A session begins: it is in the store from now on.
    pub(super) fn record_new(&mut self, idx: SessionIdx) -> Result<(), Refused> {
        let session = self.id_of(idx);
        let mut state = std::mem::take(&mut self.keep.scratch);
        state.clear();
        let parts = Parts {
            sessions: &self.sessions,
            ids: &self.ids,
            index: &self.index,
            groups: &self.groups,
            leaving: &self.keep.leaving,
            hads: &self.keep.hads,
        };
        parts.describe(idx, None, None, None, &mut state);
        let done = self.keep.store.create(session, &state);
        self.keep.scratch = state;
        if done.is_ok() {
            self.sessions[idx].flags.put(Flags::DURABLE, true);
        }
        done
    }

    /// A durable session has a connection again.
    pub(super) fn record_online(&mut self, idx: SessionIdx) {
        let id = self.id_of(idx);
        let session = &self.sessions[idx];
        let will = session.extras().and_then(|extras| extras.will.as_ref());
        let note = Note::Online {
            expiry: session.expiry().unwrap_or(0),
            will: will.map(stored_will),
        };
        if self.keep.note(id, &note).is_err() {
            self.keep.unsaved.push(id);
        }
    }

    /// A durable session has none any more.
    pub(super) fn record_offline(&mut self, idx: SessionIdx) {
        let id = self.id_of(idx);
        let session = &self.sessions[idx];
        let due = session.extras().and_then(|extras| extras.will_due);
        let note = Note::Offline {
            ends: self.keep.unix_tick(session.until().unwrap_or_default()),
            unsent: self.first_unsent(idx),
            will_due: due.map(|due| self.keep.unix_tick(due)),
        };
        if self.keep.note(id, &note).is_err() {
            self.keep.unsaved.push(id);
        }
    }

    /// The will of an absent session has been published.
    pub(super) fn record_will_published(&mut self, idx: SessionIdx) {
        if self.sessions[idx].is_durable() {
            let id = self.id_of(idx);
            if self.keep.note(id, &Note::WillPublished).is_err() {
                self.keep.unsaved.push(id);
            }
        }
    }

    /// Once a tick: what found no room in the store is tried again, and the log is looked at.
    pub(super) fn tend_store(&mut self, now: Millis, port: &mut impl Port) {
        // What the store could not record it keeps, and tries again; but when the disk has failed, nothing is recorded any more.
        let store = &mut self.keep.store;
        if store.commit().is_ok() && !store.owes() && !store.log().failed() {
            self.release_unreceived(now, port);
        }
        self.save_unsaved();
        self.retry_leaving(now);
        for (session, receipt, outcome) in first(&mut self.keep.unheld) {
            self.settled(session, receipt, outcome, port);
        }
        self.keep.cleaning = true;
        self.count_store();
    }

    /// Records which sessions have come and gone while there was no room. Each once, however often it did, and as far as there is room.
    fn save_unsaved(&mut self) {
        let mut unsaved = std::mem::take(&mut self.keep.unsaved);
        unsaved.sort_unstable_by_key(|id| (id.idx, id.serial));
        unsaved.dedup();
        for _ in 0..OWED_PER_TICK {
            let Some(id) = unsaved.pop() else {
                break;
            };
            if let Some(idx) = self.live(id) {
                if self.keep.leaving.has(idx) {
                    self.record_leaving(idx);
                } else if self.sessions[idx].conn().is_some() {
                    self.record_online(idx);
                } else {
                    self.record_offline(idx);
                }
            }
            if !self.keep.unsaved.is_empty() {
                break;
            }
        }
        self.keep.unsaved.append(&mut unsaved);
    }

    /// One slice of giving space back. True: there is more.
    pub(super) fn clean_store(&mut self) -> bool {
        if self.keep.cleaning {
            let parts = Parts {
                sessions: &self.sessions,
                ids: &self.ids,
                index: &self.index,
                groups: &self.groups,
                leaving: &self.keep.leaving,
                hads: &self.keep.hads,
            };
            let times = (self.keep.epoch, limits::TICK_MILLIS);
            let unix = |at: Tick| match at {
                Tick(u32::MAX) => u64::MAX,
                Tick(tick) => times.0 + u64::from(tick) * times.1,
            };
            let describe = |session: SessionId, queue: Option<View<'_>>, out: &mut Vec<u8>| {
                let held = &parts.sessions[session.idx];
                let due = held.extras().and_then(|extras| extras.will_due);
                let ends = held.until().map(unix);
                // Of an absent session that is known, as it was when it left.
                let next = u32::from(held.last_id);
                let unsent = ends.map(|_| queue.map_or(next, stored::unsent));
                parts.describe(session.idx, ends, unsent, due.map(unix), out);
            };
            self.keep.cleaning = self.keep.store.clean(limits::CLEAN_SLICE, describe);
        }
        self.keep.cleaning
    }

    fn count_store(&self) {
        let stats = self.keep.store.stats();
        let counters = self.counters();
        counters.store_live_bytes.set(stats.live);
        counters.store_log_bytes.set(stats.log);
        counters.store_segments.set(stats.segments as u64);
        counters.store_syncs.set(self.keep.store.log().syncs());
    }

    /// Queued messages that could not be read back, since the start.
    pub fn unreadable(&self) -> u64 {
        self.keep.unreadable
    }

    /// The store, for tests and tools.
    pub fn store(&self) -> &Store {
        &self.keep.store
    }

    /// The same, for what a simulation does to it.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.keep.store
    }

    /// The same, out of a shard that has ended.
    pub fn into_store(self) -> Store {
        self.keep.store
    }
}
