//! MQTT packets: bytes in, values out, and back. Versions 3.1, 3.1.1 and 5.0, both directions.
//!
//! Decoding borrows from the frame and allocates nothing; it is strict by the standard. Encoding appends to a `Vec` that the caller keeps.
//! No I/O, no clock, no state between packets: what a packet means for a session is decided elsewhere, and so is everything about topic names
//! and filters beyond their being strings. Not known here either is who sends: a packet that only the other side may send decodes all the same.
//!
//! Strings are what MQTT 5 section 1.5.4 demands: UTF-8 (which rules out surrogates) without NUL. Control characters and non-characters may be
//! refused by a receiver; here they are taken.

pub mod ack;
mod auth;
mod connack;
pub mod connect;
mod disconnect;
mod error;
pub mod frame;
mod packet;
mod primitive;
mod property;
pub mod publish;
mod reason;
mod suback;
mod subscribe;
#[cfg(test)]
mod tests;
mod unsubscribe;

pub use ack::Ack;
pub use auth::Auth;
pub use connack::Connack;
pub use connect::{Connect, Will};
pub use disconnect::Disconnect;
pub use error::WireError;
pub use frame::{Frame, PacketType};
pub use packet::{Packet, PacketId, Qos, Version, decode};
pub use property::{Forward, ForwardFields, SubscriptionIds, UserProperties};
pub use publish::{Publish, PublishOut, PublishProperties};
pub use reason::ReasonCode;
pub use suback::{Suback, Unsuback};
pub use subscribe::{Filters, RetainHandling, Subscribe, SubscribeOptions};
pub use unsubscribe::{TopicFilters, Unsubscribe};
