//! One simulated phone: 64 bytes, no strings, no buffer unless a packet is cut in two.

use std::net::TcpStream;
use std::num::NonZeroU32;

use crate::verify::{Floor, Track};

/// Where a phone is on its way to being ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No connection.
    #[default]
    Away,
    /// No connection, but a date for the next one.
    Returning,
    /// No connection; the lookup is asked for a ticket.
    Asking,
    /// The TCP handshake is under way.
    Calling,
    /// CONNECT sent.
    Greeting,
    /// CONNACK received, SUBSCRIBE sent.
    Subscribing,
    /// SUBACK received.
    Ready,
}

/// What a connection leaves over until the next event: rare, so boxed.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    /// The beginning of a packet.
    pub(crate) input: Vec<u8>,
    /// What the socket didn't take.
    pub(crate) output: Vec<u8>,
}

impl Spill {
    /// Nothing is left, so the box can go.
    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_empty() && self.output.is_empty()
    }
}

/// A phone. Its number is its index in the driver's list plus the number of the first.
#[derive(Debug, Default)]
pub(crate) struct Phone {
    /// Bytes between two events.
    pub(crate) spill: Option<Box<Spill>>,
    /// By [`crate::clock::now`], when this connection should have begun, from where its latency counts; once ready, since when it is.
    pub(crate) since: u64,
    /// The connection.
    pub(crate) stream: Option<TcpStream>,
    /// Counts the connections, so that an event of an old one is known.
    pub(crate) generation: u8,
    /// Failures in a row, for the back-off.
    pub(crate) failures: u8,
    /// How far it is.
    pub(crate) stage: Stage,
    /// When the PINGREQ that isn't answered left, in microseconds that wrap after an hour.
    pub(crate) pinged: Option<NonZeroU32>,
    /// It was ready before, so a broker that keeps sessions must have one.
    pub(crate) known: bool,
    /// QoS 0 to this phone.
    pub(crate) unicast0: Track,
    /// What isn't owed of it.
    pub(crate) unicast0_floor: Floor,
    /// QoS 1 to this phone.
    pub(crate) unicast1: Track,
    /// What isn't owed of it: what came before the session.
    pub(crate) unicast1_floor: Floor,
    /// To all.
    pub(crate) broadcast: Track,
    /// What isn't owed of it.
    pub(crate) broadcast_floor: Floor,
}

/// The budget is 128 bytes, the aim 64.
const _: () = assert!(size_of::<Phone>() <= 64);
