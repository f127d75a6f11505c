//! Sessions: what the server knows of a client, connected or not, and the protocol's rules for one of them.
//!
//! Pure: packets and `now` come in, what to do is read off. A session lives in its shard's slab (`routing`), 64 bytes each; what only
//! some sessions need is boxed and there only while it is needed.

pub mod alias;
pub mod flow;
pub mod message;
pub mod receipts;

use crate::clock::{Millis, Tick};
use crate::ids::ConnId;
use crate::topic::arena::StrRef;
use crate::wheel::Link;
use crate::wire::Version;
use flow::Flow;
use message::Message;

/// One session. The fields that only a connection gives (version, maximum packet size, …) are of the last one.
#[derive(Debug)]
pub struct Session {
    /// The client identifier, in the shard's arena.
    pub client_id: StrRef,
    /// Tells the session from an earlier one at the same index.
    pub serial: u32,
    /// The connection, while there is one.
    pub presence: Presence,
    /// Messages in flight and waiting.
    pub flow: Option<Box<Flow>>,
    /// What few sessions have.
    pub extras: Option<Box<Extras>>,
    /// Session Expiry Interval in seconds; 0: the session ends with the connection (MQTT 5 section 3.1.2.11.2).
    pub expiry: u32,
    /// Place in the shard's wheel, while offline.
    pub link: Link,
    /// The client's Maximum Packet Size (section 3.1.2.11.4).
    pub max_packet: u32,
    /// The packet identifier used last.
    pub last_id: u16,
    /// How many QoS 1 and 2 messages may be in flight to it (section 3.1.2.11.3), our own bound applied.
    pub window: u16,
    /// Protocol version.
    pub version: Version,
    /// See [`Flags`].
    pub flags: Flags,
}

// One cache line a session, as one a connection.
const _: () = assert!(size_of::<Session>() == crate::limits::SESSION_BYTES);

/// Whether a session has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// On this connection.
    Online(ConnId),
    /// None; the session ends at this tick.
    Offline {
        /// When it ends; `Tick(u32::MAX)`: never.
        until: Tick,
    },
}

/// Yes-or-no facts of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Reason strings and user properties may go with any packet (section 3.1.2.11.7).
    pub const PROBLEM_INFORMATION: Self = Self(1);
    /// Retained messages are being sent to it: live messages are noted, so that no older one follows.
    pub const WATCHING_RETAINED: Self = Self(2);
    /// Its reading is paused, for it has too many messages unsettled.
    pub const PAUSED: Self = Self(4);
    /// Its reading is paused, for a SUBACK waits until every shard knows of its filters.
    pub const SUBSCRIBING: Self = Self(8);

    /// True if all of `flag` is set.
    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    /// Sets or clears `flag`.
    pub fn put(&mut self, flag: Self, on: bool) {
        if on {
            self.0 |= flag.0;
        } else {
            self.0 &= !flag.0;
        }
    }
}

/// What few sessions have. Boxed, and dropped when all of it is empty.
#[derive(Debug, Default)]
pub struct Extras {
    /// The will of the connection, or of the last one while its delay runs.
    pub will: Option<Will>,
    /// When the will is published, while its delay runs.
    pub will_due: Option<Tick>,
    /// Aliases set by the client.
    pub aliases_in: alias::Inbound,
    /// Aliases set towards the client; none if it allows none.
    pub aliases_out: Option<alias::Outbound>,
    /// Shared subscriptions: index of the group among the shard's own, and the place among its members.
    pub shared: Vec<SharedSub>,
}

impl Extras {
    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.will.is_none()
            && self.shared.is_empty()
            && self.aliases_out.is_none()
            && self.aliases_in.is_empty()
    }
}

/// A session's part of a shared subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedSub {
    /// Index of the group in the shard.
    pub group: u32,
    /// Place among the group's members.
    pub place: u32,
}

/// A will, ready to be published (section 3.1.2.5).
#[derive(Debug)]
pub struct Will {
    /// The message; its expiry is set when it is published.
    pub message: Message,
    /// Message expiry interval in seconds.
    pub expiry: Option<u32>,
    /// Will delay interval in seconds.
    pub delay: u32,
}

impl Session {
    /// The connection, if there is one.
    pub fn conn(&self) -> Option<ConnId> {
        match self.presence {
            Presence::Online(conn) => Some(conn),
            Presence::Offline { .. } => None,
        }
    }

    /// The flow, made if there is none.
    pub fn flow_mut(&mut self) -> &mut Flow {
        self.flow.get_or_insert_default()
    }

    /// The extras, made if there are none.
    pub fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Gives back the boxes that hold nothing.
    pub fn tidy(&mut self) {
        if self.flow.as_ref().is_some_and(|flow| flow.is_idle()) {
            self.flow = None;
        }
        if self.extras.as_ref().is_some_and(|extras| extras.is_empty()) {
            self.extras = None;
        }
    }

    /// When an offline session is to be looked at next: its end, or its will.
    pub fn next_due(&self) -> Option<Tick> {
        let Presence::Offline { until } = self.presence else {
            return None;
        };
        let will = self.extras.as_ref().and_then(|extras| extras.will_due);
        Some(will.map_or(until, |due| due.min(until)))
    }

    /// True if the client speaks MQTT 5.
    pub fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// True if reason strings and user properties may be sent.
    pub fn wants_reasons(&self) -> bool {
        self.is_v5() && self.flags.has(Flags::PROBLEM_INFORMATION)
    }

    /// The tick at which the session ends if its connection ends now.
    pub fn end_from(&self, now: Millis) -> Tick {
        if self.expiry == u32::MAX {
            Tick(u32::MAX)
        } else {
            now.tick().after_millis(u64::from(self.expiry) * 1000)
        }
    }
}
