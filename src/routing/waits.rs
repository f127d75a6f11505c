//! What waits for the disk, where the operator wants that: in the order in which it was recorded, until a sync has reached it.
//!
//! What is promised to a client (PUBACK, PUBREC, PUBCOMP, SUBACK, UNSUBACK) waits, and so does what is sent to one: a message or a PUBREL that
//! a client has and the log has lost could not be told from the next one under its identifier.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::Shard;
use super::mail::Known;
use super::port::Port;
use crate::clock::Millis;
use crate::ids::{ConnId, SessionId, SessionIdx};
use crate::limits::WAITS_PER_TURN;
use crate::session::Flags;
use crate::session::message::{Message, Outcome, Receipt};
use crate::store::Position;
use crate::topic::TopicHash;

/// Something that waits.
#[derive(Debug)]
pub(super) enum Wait {
    /// A QoS 2 message of a durable client: that it was taken has to be known before anybody can have it, or it would be another one when it comes
    /// again.
    Route(Arc<Message>),
    /// A message is in all queues here.
    Settle(Arc<Message>),
    /// It is recorded that everybody has a QoS 2 message of a client, which had this token.
    Held(SessionId, Receipt, Outcome, Option<u64>),
    /// That a durable session of a client has ended.
    Ended(TopicHash),
    /// The CONNACK of a client whose session is durable, or was: what it is told must not be undone.
    Connack(TopicHash, SessionId, ConnId, Box<[u8]>),
    /// A packet for a client.
    Packet(SessionId, ConnId, Box<[u8]>),
    /// Messages of a queue, up to this number, for this connection.
    Ready(SessionId, ConnId, u32),
    /// That a session is over: what it has for others may go on.
    Leave(SessionId),
    /// The filters of a SUBSCRIBE.
    Known(Arc<Known>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waits {
    queue: VecDeque<(Position, Wait)>,
    /// Clients whose session has ended, or whose CONNACK waits, by the hash of the identifier: in how many places of the queue. Two that
    /// share a hash wait for each other, no more.
    unsettled: HashMap<TopicHash, u32>,
}

impl Shard {
    /// A message is settled when the disk has it.
    pub(super) fn settle_synced(&mut self, message: &Arc<Message>) {
        self.await_sync(Wait::Settle(Arc::clone(message)));
    }

    /// Until what is recorded now is synced.
    pub(super) fn await_sync(&mut self, wait: Wait) {
        let end = self.keep.store.end();
        if let Wait::Ended(client) | Wait::Connack(client, ..) = &wait {
            *self.keep.waits.unsettled.entry(*client).or_default() += 1;
        }
        self.keep.waits.queue.push_back((end, wait));
        self.keep.store.want_sync();
    }

    /// True if something that is recorded is not synced, and that matters.
    pub(super) fn must_wait(&self) -> bool {
        self.keep.disk && self.keep.store.synced() < self.keep.store.end()
    }

    /// It is recorded that a durable session of a client has ended.
    pub(super) fn ended(&mut self, client: TopicHash) {
        if self.must_wait() {
            self.await_sync(Wait::Ended(client));
        }
    }

    /// True if the disk does not know yet what the client's last CONNECT or the end of its session has changed.
    pub(super) fn is_unsettled(&self, client: TopicHash) -> bool {
        self.keep.waits.unsettled.contains_key(&client)
    }

    /// True if the client, which has a connection, may not know that it is connected.
    pub(super) fn has_no_connack(&self, idx: SessionIdx) -> bool {
        !self.keep.waits.unsettled.is_empty()
            && self.is_unsettled(self.shared.hasher.hash(self.client_id(idx)))
    }

    fn client_synced(&mut self, client: TopicHash) {
        if let Entry::Occupied(mut places) = self.keep.waits.unsettled.entry(client) {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
    }

    /// The same, and nothing that waits already may be overtaken.
    pub(super) fn must_queue(&self) -> bool {
        self.keep.disk && (self.must_wait() || !self.keep.waits.queue.is_empty())
    }

    /// Sends a packet to a durable client that says that something is recorded.
    pub(super) fn send_when_synced(
        &mut self,
        idx: SessionIdx,
        packet: &[u8],
        port: &mut impl Port,
    ) {
        match self.sessions[idx].conn() {
            Some(conn) if self.sessions[idx].is_durable() && self.must_wait() => {
                let id = self.id_of(idx);
                self.await_sync(Wait::Packet(id, conn, packet.into()));
            }
            _ => self.send(idx, packet, port),
        }
    }

    /// True if a sync has reached something.
    pub(super) fn has_synced(&self) -> bool {
        self.keep
            .waits
            .queue
            .front()
            .is_some_and(|(at, _)| *at <= self.keep.store.synced())
    }

    /// What a sync has reached goes on. True: there is more.
    pub(super) fn go_on_synced(&mut self, now: Millis, port: &mut impl Port) -> bool {
        for _ in 0..WAITS_PER_TURN {
            if !self.has_synced() {
                return false;
            }
            let Some((_, wait)) = self.keep.waits.queue.pop_front() else {
                return false;
            };
            match wait {
                Wait::Route(message) => {
                    self.route(&message, now, port);
                    self.settle(&message, port);
                }
                Wait::Settle(message) => self.settle_now(&message, port),
                Wait::Held(session, receipt, outcome, token) => {
                    if let Some(token) = token {
                        self.shared.doubts.close(token);
                    }
                    self.settled_now(session, receipt, outcome, port);
                }
                Wait::Ended(client) => self.client_synced(client),
                Wait::Connack(client, session, conn, packet) => {
                    self.client_synced(client);
                    if let Some(idx) = self.live(session)
                        && self.sessions[idx].conn() == Some(conn)
                    {
                        self.send(idx, &packet, port);
                        self.sessions[idx].flags.put(Flags::SUBSCRIBING, false);
                        port.pause(conn, false);
                    }
                }
                Wait::Packet(session, conn, packet) => {
                    if let Some(idx) = self.live(session)
                        && self.sessions[idx].conn() == Some(conn)
                    {
                        self.send(idx, &packet, port);
                    }
                }
                Wait::Ready(session, conn, upto) => {
                    self.ready(session, conn, upto, now, port);
                }
                Wait::Leave(session) => self.leave_synced(session),
                Wait::Known(known) => self.now_known(Some(known), now, port),
            }
        }
        self.has_synced()
    }
}
