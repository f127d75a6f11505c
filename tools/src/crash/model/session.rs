//! What a session holds, and what of it has come.

use std::collections::BTreeMap;

use super::{Message, NEVER};

/// What a client asked for with one filter. A session's filters don't overlap.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) qos: u8,
    /// Topics that it matches.
    pub(super) topics: Vec<usize>,
    /// Times at which it stood, perhaps.
    pub(super) windows: Vec<Window>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) asked: u64,
    pub(super) granted: u64,
    pub(super) leaving: u64,
    pub(super) left: u64,
}

/// A session of a client, until it is ended or lost.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) durable: bool,
    pub(super) holds: Vec<Hold>,
    /// By stream: the hold that brings it.
    pub(super) hold_of: Vec<Option<u16>>,
    /// By stream: what came of it.
    pub(super) tracks: BTreeMap<u32, Track>,
    /// By stream: messages before this one are none of this session's.
    pub(super) base: Vec<u32>,
    pub(super) connection: u32,
}

#[derive(Debug, Default)]
pub(super) struct Track {
    /// Of the first of `seen`.
    pub(super) base: u32,
    pub(super) seen: Vec<Seen>,
    /// After the latest that came.
    pub(super) next: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) times: u16,
    /// The last connection on which it came, and how often there.
    pub(super) connection: u32,
    pub(super) on_connection: u16,
    pub(super) told: bool,
}

impl Window {
    /// A message that may be delivered because of it: both were under way at the same time.
    pub(super) fn may_have(&self, message: &Message) -> bool {
        self.asked < message.settled && message.sent < self.left
    }

    /// A message that was sent when it stood, and it still does.
    pub(super) fn stood_for(&self, message: &Message) -> bool {
        self.granted < message.sent && self.leaving == NEVER
    }

    /// A message that must be.
    pub(super) fn must_have(&self, message: &Message) -> bool {
        message.acknowledged && self.granted < message.sent && message.settled < self.leaving
    }
}

impl Session {
    pub(super) fn track(&mut self, stream: u32) -> &mut Track {
        let base = self.base[stream as usize];
        self.tracks.entry(stream).or_insert_with(|| Track {
            base,
            next: base,
            ..Track::default()
        })
    }
}
