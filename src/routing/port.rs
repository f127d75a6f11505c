//! What a shard may ask of the reactor that drives it: bytes out, connections closed or paused, mail to other shards.
//!
//! The reactor implements [`Port`] over sockets, the simulation over a virtual network. Nothing here blocks and nothing fails: what a
//! socket or a mailbox can't take now waits on the reactor's side, and the shard asks for room before it sends what may be shed.

use super::mail::Mail;
use crate::ids::{ConnId, ReactorId};

/// Why a connection ends. Counted by cause; logged where the operator asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// The client sent DISCONNECT.
    Disconnected,
    /// The peer closed or reset the connection without DISCONNECT.
    PeerGone,
    /// Nothing arrived for one and a half times the keep alive (MQTT 5 section 3.1.2.10).
    KeepAlive,
    /// The client broke the protocol.
    Protocol,
    /// The CONNECT was refused.
    Refused,
    /// No whole CONNECT before the deadline.
    ConnectTimeout,
    /// Another connection took the session over.
    TakenOver,
    /// The client didn't take the bytes that waited for it.
    SlowReader,
    /// A limit of the server was reached (quota, packet rate).
    Quota,
    /// The operator has revoked its token, client identifier or tenant.
    Revoked,
    /// The server drains.
    ServerShutdown,
}

/// The reactor as its shard sees it.
pub trait Port {
    /// Queues one whole packet, copied, behind what is already queued for the connection. A stale id is a no-op.
    ///
    /// Never refused: past a hard bound the reactor closes the connection and reports it through `Shard::lost`, later.
    fn send(&mut self, conn: ConnId, packet: &[u8]);

    /// Something will soon be sent to the connection, or asked about it: a hint.
    fn expect(&self, _conn: ConnId) {}

    /// False while the connection's unwritten bytes are at their limit, or the connection is gone.
    fn has_room(&self, conn: ConnId) -> bool;

    /// Closes once everything queued is written. The shard has let go of the connection already: no `lost` follows.
    fn close(&mut self, conn: ConnId, cause: CloseCause);

    /// Stops reading from a connection, or goes on. What was read but not handled waits with the connection.
    fn pause(&mut self, conn: ConnId, paused: bool);

    /// Posts to another reactor's shard, in order per destination. Never refused; see [`Port::has_post_room`].
    fn post(&mut self, to: ReactorId, mail: Mail);

    /// False while too much mail waits for a full mailbox of `to`: QoS 0 messages to it are then shed.
    fn has_post_room(&self, to: ReactorId) -> bool;
}
