//! What a server can do wrong.

use std::fmt;

/// The kinds, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An acknowledged message didn't come to a session that was subscribed.
    Lost,
    /// A message came more than once where both sides have QoS 2.
    Twice,
    /// A message came more often than it was sent, on one connection.
    Repeated,
    /// A message came first after one that was sent later.
    Disordered,
    /// A message came to a session that isn't subscribed.
    Unasked,
    /// Not what was sent: topic, payload, QoS.
    Altered,
    /// A retained message that an acknowledged one has replaced, or none where there must be one.
    Stale,
    /// The session present flag is wrong.
    Session,
    /// A message or a client was refused.
    Refused,
    /// A packet that the standard doesn't allow there.
    Protocol,
    /// The server ended by itself, closed a connection, or stopped answering.
    Server,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) who: String,
    pub(super) what: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lost => "lost",
            Self::Twice => "twice at QoS 2",
            Self::Repeated => "repeated",
            Self::Disordered => "out of order",
            Self::Unasked => "unasked",
            Self::Altered => "altered",
            Self::Stale => "retained",
            Self::Session => "session present",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Server => "server",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.who, self.what)
    }
}
