//! What shards tell each other. Mail is delivered in order from one shard to another, and never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ids::{ReactorId, SessionId};
use crate::session::message::{Message, Outcome, Receipt};
use crate::topic::GroupKey;

/// One letter from one shard to another.
#[derive(Debug)]
pub enum Mail {
    /// Deliver to the shard's own subscribers of the message's topic.
    Publish(Arc<Message>),
    /// Deliver to the one client whose inbox the topic names.
    Inbox(Arc<Message>),
    /// Deliver to one member of a shared subscription.
    Group {
        /// What to deliver.
        message: Arc<Message>,
        /// Which group.
        key: Arc<GroupKey>,
        /// How often it has been passed on because a shard had no member left.
        hops: u8,
    },
    /// A publisher's message has arrived wherever it had to: its acknowledgement may leave.
    Settled {
        /// The publisher's session.
        session: SessionId,
        /// Its PUBLISH.
        receipt: Receipt,
        /// What became of it.
        outcome: Outcome,
    },
    /// A shard has its first, or has lost its last, subscriber to a wildcard filter.
    Interest {
        /// The filter.
        path: Arc<str>,
        /// The shard that speaks.
        from: ReactorId,
        /// First or last.
        wanted: bool,
        /// To be counted down once it is known here.
        known: Option<Arc<Known>>,
    },
    /// How many members of a shared subscription a shard has.
    Members {
        /// Which group.
        key: Arc<GroupKey>,
        /// The shard that speaks.
        from: ReactorId,
        /// Members that are connected.
        online: u32,
        /// Members whose sessions wait.
        offline: u32,
        /// To be counted down once it is known here.
        known: Option<Arc<Known>>,
    },
    /// A shard has told of all that it had to load; counted down like an interest.
    Fence {
        /// To be counted down.
        known: Arc<Known>,
    },
    /// Every shard knows of the filters of this SUBSCRIBE: its SUBACK may leave.
    Known {
        /// Key of the waiting SUBACK.
        suback: u32,
    },
    /// Keep, replace or (empty payload) remove a retained message; this shard is the home of its topic.
    Retain(Arc<Message>),
    /// Asks for a part of the retained messages that match a filter.
    RetainedQuery {
        /// The filter.
        path: Arc<str>,
        /// Where the last part ended.
        after: Option<Box<str>>,
        /// The shard that asks.
        from: ReactorId,
        /// Its name for the question.
        query: QueryId,
    },
    /// Answers a `RetainedQuery`.
    RetainedPart {
        /// The asker's name for the question.
        query: QueryId,
        /// Matches, in the order of their topics.
        messages: Vec<Arc<Message>>,
        /// Where to go on; none when the shard has nothing more.
        resume: Option<Box<str>>,
    },
}

/// Names a question for retained messages, so that an answer can't meet another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryId {
    /// For whom.
    pub session: SessionId,
    /// Which question of the shard.
    pub ticket: u32,
}

/// Counts the shards that have yet to hear of the filters of one SUBSCRIBE.
#[derive(Debug)]
pub struct Known {
    waiting: AtomicU32,
    /// Where the SUBACK waits.
    pub reactor: ReactorId,
    /// The key it waits under.
    pub suback: u32,
}

impl Known {
    /// One count for the asking shard itself.
    pub fn new(reactor: ReactorId, suback: u32) -> Self {
        Self {
            waiting: AtomicU32::new(1),
            reactor,
            suback,
        }
    }

    /// One more shard will be told.
    pub fn expect(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// One shard knows. True if it was the last.
    pub fn reached(&self) -> bool {
        self.waiting.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
