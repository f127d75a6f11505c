//! What a message will need of the shard's memory is asked for early ([`prefetch`]).
//!
//! From a topic's hash to the connection of its one subscriber are four looks that lead to each other: a line of the table, the filter, the
//! session, the slot. Between two turns the kernel has taken the caches for itself, so each look is a wait. One message has its first steps taken
//! while it is read and made; several that came together have each step taken for all of them, so that they wait together. Nothing here decides
//! anything: what is wrong or stale costs a little time.

use std::sync::Arc;

use super::Shard;
use super::mail::Mail;
use super::port::Port;
use crate::ids::SessionIdx;
use crate::limits::LOOK_AHEAD;
use crate::session::message::Message;
use crate::sys::prefetch;
use crate::topic::{FilterId, TopicHash};
use crate::wire::{Filters, frame, publish};

impl Shard {
    /// The session's packets will come.
    pub fn expect(&self, idx: SessionIdx) {
        self.sessions.expect(idx);
        self.spares.expect();
    }

    /// A client of this identifier will come.
    pub fn expect_client(&self, client_id: &str) {
        self.by_id.expect(self.shared.hasher.hash(client_id));
    }

    /// The first packets of `bytes` will be handled.
    pub fn expect_packets(&self, bytes: &[u8], port: &impl Port) {
        let mut hashes = [TopicHash(0); LOOK_AHEAD];
        let (mut rest, mut count) = (bytes, 0);
        for _ in 0..LOOK_AHEAD {
            let Ok(Some(frame)) = frame::split(rest, u32::MAX) else {
                break;
            };
            rest = &rest[frame.len..];
            if let Some(topic) = publish::topic_of(&frame) {
                let hash = self.shared.hasher.hash_bytes(topic);
                if self.own.has(hash) {
                    hashes[count] = hash;
                    count += 1;
                }
            }
        }
        self.expect_topics(&hashes[..count], port);
    }

    /// These filters will be subscribed to.
    pub(super) fn expect_filters(&self, filters: Filters<'_>) {
        for filter in filters.bytes().take(LOOK_AHEAD) {
            let hash = self.shared.hasher.hash_bytes(filter);
            self.index.expect(hash);
            self.own.expect(hash);
        }
    }

    /// This letter's message, which is there, will be delivered: its text and the first look at the index are waited for together.
    pub(super) fn expect_message(&self, message: &Message) {
        self.index.expect(message.hash);
        message.expect_text();
    }

    /// These letters will be handled.
    pub fn expect_mail<'a>(
        &self,
        letters: impl Iterator<Item = &'a Mail> + Clone,
        port: &impl Port,
    ) {
        let messages = letters.filter_map(|letter| match letter {
            Mail::Publish(message) => Some(message),
            _ => None,
        });
        for message in messages.clone().take(LOOK_AHEAD) {
            prefetch::read(Arc::as_ref(message));
        }
        let mut hashes = [TopicHash(0); LOOK_AHEAD];
        let mut count = 0;
        for (hash, message) in hashes.iter_mut().zip(messages) {
            message.expect_text();
            *hash = message.hash;
            count += 1;
        }
        self.expect_topics(&hashes[..count], port);
    }

    /// Messages to these topics will be delivered.
    fn expect_topics(&self, hashes: &[TopicHash], port: &impl Port) {
        for &hash in hashes {
            self.index.expect(hash);
        }
        let mut filters = [None; LOOK_AHEAD];
        for (filter, &hash) in filters.iter_mut().zip(hashes) {
            *filter = self.index.expect_likely(hash);
        }
        let mut sessions = [None; LOOK_AHEAD];
        for (session, &filter) in sessions.iter_mut().zip(&filters[..hashes.len()]) {
            *session = self.expect_subscriber(filter);
        }
        for &session in sessions.iter().flatten() {
            if let Some(conn) = self.connection(session) {
                port.expect(conn);
            }
        }
    }

    /// The one subscriber of this filter, if it has one, will be looked at.
    pub(super) fn expect_subscriber(&self, filter: Option<FilterId>) -> Option<SessionIdx> {
        let session = self.index.only_subscriber(filter?)?.session();
        self.sessions.expect(session);
        Some(session)
    }
}
