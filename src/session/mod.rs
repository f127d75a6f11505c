//! Sessions: what the server knows of a client, connected or not, and the protocol's rules for one of them.
//!
//! Pure: packets and `now` come in, what to do is read off. A session lives in its shard's slab (`routing`), 32 bytes each; what only
//! some sessions need is boxed and there only while it is needed.

pub mod alias;
pub mod durable;
pub mod flow;
pub mod message;
pub mod receipts;

use std::num::NonZeroU32;

use crate::clock::{Millis, Tick};
use crate::ids::ConnId;
use crate::topic::arena::StrRef;
use crate::wire::Version;
use flow::Flow;
use message::Message;

/// One session. What only a connection gives (version, window, …) is of the last one.
#[derive(Debug)]
pub struct Session {
    /// Messages in flight and waiting, and what few sessions have.
    pub flow: Option<Box<Flow>>,
    /// The connection's slot; [`OFFLINE`] without one.
    slot: u32,
    /// The connection's generation; without one, the timer.
    generation: u32,
    /// With a connection the Session Expiry Interval in seconds (MQTT 5 section 3.1.2.11.2), without one the tick at which the session ends.
    ends: u32,
    /// The client identifier, in the shard's arena.
    pub client_id: StrRef,
    /// Tells the session from an earlier one at the same index.
    pub serial: NonZeroU32,
    /// The packet identifier used last.
    pub last_id: u16,
    /// See [`Session::window`].
    window: u8,
    /// See [`Flags`].
    pub flags: Flags,
}

// Two in a cache line.
const _: () = assert!(
    size_of::<Session>() == crate::limits::SESSION_BYTES
        && size_of::<Entry>() == crate::limits::SESSION_BYTES
);

/// The entry of a slab, as `slab` has it: the vacant one finds place in the session's niches.
enum Entry {
    _Vacant(usize),
    _Occupied(Session),
}

/// No slot has this number.
const OFFLINE: u32 = u32::MAX;
/// No timer has this number.
const NO_TIMER: u32 = u32::MAX;
/// The window is as large as the server's own bound.
const FULL_WINDOW: u8 = u8::MAX;

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
    /// Publishers wait for it, and it is looked at again.
    pub const STALLING: Self = Self(16);
    /// It outlives the process: what is promised to it is in the store, and its queue is there alone.
    pub const DURABLE: Self = Self(32);

    /// The protocol version: 3.1, 3.1.1 and 5.0 from 0 on.
    const VERSION_SHIFT: u32 = 6;

    /// Clears those of a connection; the version stays.
    pub fn clear(&mut self) {
        self.0 &= 3 << Self::VERSION_SHIFT | Self::DURABLE.0;
    }

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
    /// The client's Maximum Packet Size, if it has one (section 3.1.2.11.4).
    pub max_packet: Option<u32>,
    /// Shared subscriptions: index of the group among the shard's own, and the place among its members.
    pub shared: Vec<SharedSub>,
}

impl Extras {
    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.will.is_none()
            && self.max_packet.is_none()
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
    /// One without a connection, which never ends by itself.
    pub fn new(client_id: StrRef, serial: NonZeroU32) -> Self {
        Self {
            flow: None,
            slot: OFFLINE,
            generation: NO_TIMER,
            ends: u32::MAX,
            client_id,
            serial,
            last_id: 0,
            window: FULL_WINDOW,
            flags: Flags::default(),
        }
    }

    /// The connection, if there is one.
    pub fn conn(&self) -> Option<ConnId> {
        (self.slot != OFFLINE).then_some(ConnId {
            slot: self.slot,
            generation: self.generation,
        })
    }

    /// It has a connection; `expiry` seconds after that has ended, it ends. Its timer is not set.
    pub fn go_online(&mut self, conn: ConnId, expiry: u32) {
        debug_assert!(conn.slot != OFFLINE && self.timer().is_none());
        self.slot = conn.slot;
        self.generation = conn.generation;
        self.ends = expiry;
    }

    /// It has no connection any more, and ends at this tick; `Tick(u32::MAX)`: never.
    pub fn go_offline(&mut self, until: Tick) {
        self.slot = OFFLINE;
        self.generation = NO_TIMER;
        self.ends = until.0;
    }

    /// When a session without a connection ends.
    pub fn until(&self) -> Option<Tick> {
        (self.slot == OFFLINE).then_some(Tick(self.ends))
    }

    /// Session Expiry Interval of the connection in seconds; 0: the session ends with it. None without a connection.
    pub fn expiry(&self) -> Option<u32> {
        (self.slot != OFFLINE).then_some(self.ends)
    }

    /// The timer of a session without a connection, in the shard's list.
    pub fn timer(&self) -> Option<u32> {
        (self.slot == OFFLINE && self.generation != NO_TIMER).then_some(self.generation)
    }

    /// Sets or forgets the timer of a session without a connection.
    pub fn set_timer(&mut self, timer: Option<u32>) {
        debug_assert_eq!(self.slot, OFFLINE);
        self.generation = timer.unwrap_or(NO_TIMER);
    }

    /// How many QoS 1 and 2 messages may be in flight to it (section 3.1.2.11.3), where the server allows `most`.
    pub fn window(&self, most: u16) -> usize {
        usize::from(if self.window == FULL_WINDOW {
            most
        } else {
            most.min(u16::from(self.window))
        })
    }

    /// The client's Receive Maximum, where the server allows `most`. It is kept in a byte: between 254 and the server's bound 254 are used.
    pub fn set_window(&mut self, receive_maximum: u16, most: u16) {
        self.window = if receive_maximum >= most {
            FULL_WINDOW
        } else {
            receive_maximum.min(u16::from(FULL_WINDOW) - 1) as u8
        };
    }

    /// The largest packet that the client takes.
    pub fn max_packet(&self) -> usize {
        let stated = self.extras().and_then(|extras| extras.max_packet);
        stated.map_or(usize::MAX, |bytes| bytes as usize)
    }

    /// The flow, made if there is none.
    pub fn flow_mut(&mut self) -> &mut Flow {
        self.flow.get_or_insert_default()
    }

    /// The extras, if there are any.
    pub fn extras(&self) -> Option<&Extras> {
        self.flow.as_ref()?.extras.as_deref()
    }

    /// The same, to be changed.
    pub fn some_extras_mut(&mut self) -> Option<&mut Extras> {
        self.flow.as_mut()?.extras.as_deref_mut()
    }

    /// The extras, made if there are none.
    pub fn extras_mut(&mut self) -> &mut Extras {
        self.flow_mut().extras.get_or_insert_default()
    }

    /// Gives back the boxes that hold nothing.
    pub fn tidy(&mut self) {
        let Some(flow) = &mut self.flow else { return };
        if flow.extras.as_ref().is_some_and(|extras| extras.is_empty()) {
            flow.extras = None;
        }
        if flow.is_idle() {
            self.flow = None;
        }
    }

    /// When an offline session is to be looked at next: its end, or its will.
    pub fn next_due(&self) -> Option<Tick> {
        let until = self.until()?;
        let will = self.extras().and_then(|extras| extras.will_due);
        Some(will.map_or(until, |due| due.min(until)))
    }

    /// Protocol version.
    pub fn version(&self) -> Version {
        match self.flags.0 >> Flags::VERSION_SHIFT {
            0 => Version::V31,
            1 => Version::V311,
            _ => Version::V5,
        }
    }

    /// Another protocol version.
    pub fn set_version(&mut self, version: Version) {
        let bits = match version {
            Version::V31 => 0,
            Version::V311 => 1,
            Version::V5 => 2,
        };
        self.flags.0 &= !(3 << Flags::VERSION_SHIFT);
        self.flags.0 |= bits << Flags::VERSION_SHIFT;
    }

    /// True if the client speaks MQTT 5.
    pub fn is_v5(&self) -> bool {
        self.version() == Version::V5
    }

    /// True if it is in the store.
    pub fn is_durable(&self) -> bool {
        self.flags.has(Flags::DURABLE)
    }

    /// True if reason strings and user properties may be sent.
    pub fn wants_reasons(&self) -> bool {
        self.is_v5() && self.flags.has(Flags::PROBLEM_INFORMATION)
    }

    /// The tick at which a session ends whose connection ends now; 0 seconds: now.
    pub fn end_from(expiry: u32, now: Millis) -> Tick {
        if expiry == u32::MAX {
            Tick(u32::MAX)
        } else {
            now.tick().after_millis(u64::from(expiry) * 1000)
        }
    }
}
