//! Shared subscriptions (MQTT 5 section 4.8.2): each message to one member of the group, over all shards.
//!
//! A shard keeps its own members, and tells all shards how many of them are online and offline. The publisher's shard picks a shard at
//! random, weighted by these counts; that shard picks a member in turn. A count may be late: a shard that has lost its last online member
//! passes the message on.

use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use super::deliver::Grant;
use super::mail::{Known, Mail};
use super::port::Port;
use super::{Sessions, Shard};
use crate::clock::Millis;
use crate::ids::{ReactorId, SessionIdx};
use crate::limits::GROUP_HOPS;
use crate::session::SharedSub;
use crate::session::message::Message;
use crate::topic::{GroupKey, ReactorSet, SubOptions};
use crate::wire::Qos;

/// A session in a group.
#[derive(Clone, Copy, Debug)]
struct Member {
    session: SessionIdx,
    options: SubOptions,
    id: Option<u32>,
}

/// A group's members in this shard: those that are online stand first.
#[derive(Debug)]
struct Group {
    key: Arc<GroupKey>,
    members: Vec<Member>,
    online: usize,
    /// Whose turn it is.
    turn: usize,
    /// The counts have changed since they were told.
    dirty: bool,
}

/// The groups with members in this shard.
#[derive(Debug, Default)]
pub(super) struct Groups {
    list: Slab<Group>,
    by_key: HashMap<Arc<GroupKey>, u32>,
    dirty: Vec<u32>,
}

impl Groups {
    /// Groups with a member in this shard.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// What a session has subscribed to: group, options, subscription identifier.
    pub(super) fn membership(&self, sub: SharedSub) -> (&GroupKey, SubOptions, Option<u32>) {
        let group = &self.list[sub.group as usize];
        let member = group.members[sub.place as usize];
        (&group.key, member.options, member.id)
    }

    fn find(&self, key: &GroupKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    fn find_or_add(&mut self, key: &GroupKey) -> u32 {
        if let Some(at) = self.find(key) {
            return at;
        }
        let key = Arc::new(key.clone());
        let at = self.list.insert(Group {
            key: Arc::clone(&key),
            members: Vec::new(),
            online: 0,
            turn: 0,
            dirty: false,
        }) as u32;
        self.by_key.insert(key, at);
        at
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(
            self.list.len(),
            self.by_key.len(),
            "a group without its key, or the reverse"
        );
        for (at, group) in &self.list {
            assert_eq!(self.find(&group.key), Some(at as u32));
            assert!(group.online <= group.members.len());
            assert!(!group.members.is_empty(), "an empty group was kept");
        }
    }
}

impl Group {
    /// Swaps two members, and tells both sessions.
    fn swap(&mut self, group: u32, a: usize, b: usize, sessions: &mut Sessions) {
        self.members.swap(a, b);
        for at in [a, b] {
            note_place(sessions, self.members[at].session, group, at);
        }
    }
}

/// The session remembers where among the members it stands.
fn note_place(sessions: &mut Sessions, session: SessionIdx, group: u32, place: usize) {
    let shared = &mut sessions[session].extras_mut().shared;
    match shared.iter_mut().find(|sub| sub.group == group) {
        Some(sub) => sub.place = place as u32,
        None => shared.push(SharedSub {
            group,
            place: place as u32,
        }),
    }
}

impl Shard {
    /// Whether the session is a member already.
    pub(super) fn is_member(&self, idx: SessionIdx, key: &GroupKey) -> bool {
        self.groups
            .find(key)
            .is_some_and(|group| self.place(idx, group).is_some())
    }

    fn place(&self, idx: SessionIdx, group: u32) -> Option<usize> {
        let shared = &self.sessions[idx].extras()?.shared;
        shared
            .iter()
            .find(|sub| sub.group == group)
            .map(|sub| sub.place as usize)
    }

    /// Makes a session a member, or replaces its options. True: it is new.
    pub(super) fn join_group(
        &mut self,
        idx: SessionIdx,
        key: &GroupKey,
        options: SubOptions,
        id: Option<u32>,
        online: bool,
    ) -> bool {
        let at = self.groups.find_or_add(key);
        let member = Member {
            session: idx,
            options,
            id,
        };
        if let Some(place) = self.place(idx, at) {
            self.groups.list[at as usize].members[place] = member;
            return false;
        }
        let group = &mut self.groups.list[at as usize];
        group.members.push(member);
        let last = group.members.len() - 1;
        note_place(&mut self.sessions, idx, at, last);
        if online {
            group.swap(at, last, group.online, &mut self.sessions);
            group.online += 1;
        }
        true
    }

    /// Ends a membership. False: there was none.
    pub(super) fn leave_group(
        &mut self,
        idx: SessionIdx,
        key: &GroupKey,
        port: &mut impl Port,
    ) -> bool {
        let Some(at) = self.groups.find(key) else {
            return false;
        };
        let Some(mut place) = self.place(idx, at) else {
            return false;
        };
        let group = &mut self.groups.list[at as usize];
        if place < group.online {
            group.online -= 1;
            group.swap(at, place, group.online, &mut self.sessions);
            place = group.online;
        }
        let last = group.members.len() - 1;
        group.swap(at, place, last, &mut self.sessions);
        group.members.pop();
        if let Some(extras) = self.sessions[idx].some_extras_mut() {
            extras.shared.retain(|sub| sub.group != at);
        }
        self.sessions[idx].tidy();
        self.announce_members(key, None, port);
        true
    }

    /// The session ends: it leaves all its groups.
    pub(super) fn leave_groups(&mut self, idx: SessionIdx, port: &mut impl Port) {
        let Some(extras) = self.sessions[idx].extras() else {
            return;
        };
        let keys: Vec<_> = extras
            .shared
            .iter()
            .map(|sub| Arc::clone(&self.groups.list[sub.group as usize].key))
            .collect();
        for key in keys {
            self.leave_group(idx, &key, port);
            self.unsubscribed(idx, 1);
        }
    }

    /// The session has a connection again.
    pub(super) fn group_members_online(&mut self, idx: SessionIdx, port: &mut impl Port) {
        self.move_member(idx, true, port);
    }

    /// The session has no connection any more.
    pub(super) fn group_members_offline(&mut self, idx: SessionIdx, port: &mut impl Port) {
        self.move_member(idx, false, port);
    }

    fn move_member(&mut self, idx: SessionIdx, online: bool, port: &mut impl Port) {
        let Some(extras) = self.sessions[idx].extras() else {
            return;
        };
        for sub in extras.shared.clone() {
            let at = sub.group;
            let group = &mut self.groups.list[at as usize];
            let place = sub.place as usize;
            if (place < group.online) == online {
                continue;
            }
            if online {
                group.swap(at, place, group.online, &mut self.sessions);
                group.online += 1;
            } else {
                group.online -= 1;
                group.swap(at, place, group.online, &mut self.sessions);
            }
            // From none to some and back is told at once; a different number of some can wait for the next tick.
            if group.online <= 1 {
                let key = Arc::clone(&group.key);
                self.announce_members(&key, None, port);
            } else if !group.dirty {
                group.dirty = true;
                self.groups.dirty.push(at);
            }
        }
    }

    /// Once a tick: counts that have changed.
    pub(super) fn tell_members(&mut self, port: &mut impl Port) {
        for at in std::mem::take(&mut self.groups.dirty) {
            if let Some(group) = self.groups.list.get(at as usize)
                && group.dirty
            {
                let key = Arc::clone(&group.key);
                self.announce_members(&key, None, port);
            }
        }
    }

    /// Tells every shard how many members there are here. A group without members is forgotten.
    pub(super) fn announce_members(
        &mut self,
        key: &GroupKey,
        known: Option<&Arc<Known>>,
        port: &mut impl Port,
    ) {
        let Some(at) = self.groups.find(key) else {
            return;
        };
        let group = &mut self.groups.list[at as usize];
        group.dirty = false;
        let key = Arc::clone(&group.key);
        let (online, offline) = (
            group.online as u32,
            (group.members.len() - group.online) as u32,
        );
        if group.members.is_empty() {
            self.groups.by_key.remove(&key);
            self.groups.list.remove(at as usize);
        }
        self.routes.set_group(&key, self.me, online, offline);
        for reactor in self.others() {
            if let Some(known) = known {
                known.expect();
            }
            let mail = Mail::Members {
                key: Arc::clone(&key),
                from: self.me,
                online,
                offline,
                known: known.cloned(),
            };
            port.post(reactor, mail);
        }
    }

    /// Takes a message to the shard that was picked for a group.
    pub(super) fn post_to_group(
        &mut self,
        message: &Arc<Message>,
        key: &Arc<GroupKey>,
        picked: ReactorId,
        hops: u8,
        now: Millis,
        port: &mut impl Port,
    ) {
        if picked == self.me {
            message.expect();
            self.group_message(message, key, hops, now, port);
        } else {
            let key = Arc::clone(key);
            self.hand(
                picked,
                message,
                |message| Mail::Group { message, key, hops },
                port,
            );
        }
    }

    /// This shard was picked: a member gets the message, or it is passed on. Settles.
    pub(super) fn group_message(
        &mut self,
        message: &Arc<Message>,
        key: &Arc<GroupKey>,
        hops: u8,
        now: Millis,
        port: &mut impl Port,
    ) {
        if self.group_has_already(key, message) {
            message.mark_matched();
            self.settle(message, port);
            return;
        }
        let online = self
            .groups
            .find(key)
            .map_or(0, |at| self.groups.list[at as usize].online);
        if online == 0
            && hops < GROUP_HOPS
            && let Some(other) = self.pick_again(message, key)
            && other != self.me
        {
            self.post_to_group(message, key, other, hops + 1, now, port);
        } else {
            self.serve_member(message, key, now, port);
        }
        self.settle(message, port);
    }

    fn serve_member(
        &mut self,
        message: &Arc<Message>,
        key: &Arc<GroupKey>,
        now: Millis,
        port: &mut impl Port,
    ) {
        let Some(at) = self.groups.find(key) else {
            return;
        };
        let group = &mut self.groups.list[at as usize];
        // Those that are online take turns; where none is, those that are not.
        let among = if group.online > 0 {
            group.online
        } else {
            group.members.len()
        };
        group.turn = (group.turn + 1) % among;
        let mut chosen = group.members[group.turn];
        // One that takes nothing at the moment is passed over, if another is near.
        for step in 0..among.min(MEMBERS_TRIED) {
            let member = group.members[(group.turn + step) % among];
            if self.sessions[member.session]
                .conn()
                .is_some_and(|conn| port.has_room(conn))
            {
                chosen = member;
                break;
            }
        }
        message.mark_matched();
        let id = chosen.id;
        let grant = Grant {
            qos: Self::lower(message.qos, chosen.options.qos),
            retain: message.retain && chosen.options.retain_as_published,
            ids: id.as_slice(),
            group: Some(key),
            alone: true,
        };
        self.offer(chosen.session, message, grant, now, port);
    }

    /// Where a message for a group goes now.
    fn pick_again(&mut self, message: &Message, key: &GroupKey) -> Option<ReactorId> {
        let seed = self.random();
        let mut picked = None;
        let mut ignored = ReactorSet::default();
        self.routes
            .matching(message.hash, message.topic(), &mut ignored, |group| {
                if **group.key == *key {
                    picked = group.pick(seed);
                }
            });
        picked
    }

    /// A member's session ended before it had taken a message: another member gets it (section 4.8.2). Its publisher is not told of that; but it
    /// may not have been told of the first time either, and send it again after a crash.
    pub(super) fn regroup(
        &mut self,
        message: &Arc<Message>,
        key: &Arc<GroupKey>,
        now: Millis,
        port: &mut impl Port,
    ) {
        if message.qos == Qos::AtMostOnce {
            return;
        }
        if let Some(picked) = self.pick_again(message, key) {
            let mut copy = message.without_publisher();
            copy.token = message.token;
            let message = Arc::new(copy);
            self.post_to_group(&message, key, picked, 0, now, port);
            self.settle(&message, port);
        }
    }
}

/// Members that are looked at to find one with room.
const MEMBERS_TRIED: usize = 8;
