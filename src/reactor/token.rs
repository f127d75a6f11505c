//! The poller's tokens: a connection is its slot and generation, everything else has the generation that no connection has, 0.

use mio::Token;

use crate::ids::ConnId;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A connection, which may be gone.
    Connection(ConnId),
    /// The wake-up: mail, or a word from the server.
    Wake,
    /// Connections handed over to this reactor.
    Arrivals,
    /// A listener, by its place in the list.
    Listener(usize),
}

/// The token of a connection.
pub fn of(conn: ConnId) -> Token {
    debug_assert_ne!(conn.generation, 0, "0 is for what is no connection");
    Token((conn.generation as usize) << 32 | conn.slot as usize)
}

/// The token of the wake-up.
pub const WAKE: Token = Token(0);

/// The token of the hand-over socket.
pub const ARRIVALS: Token = Token(1);

/// The token of a listener.
pub fn listener(index: usize) -> Token {
    Token(2 + index)
}

/// What a token stands for.
pub fn source(token: Token) -> Source {
    let generation = (token.0 >> 32) as u32;
    match (generation, token) {
        (0, WAKE) => Source::Wake,
        (0, ARRIVALS) => Source::Arrivals,
        (0, Token(other)) => Source::Listener(other - 2),
        (generation, Token(low)) => Source::Connection(ConnId {
            slot: low as u32,
            generation,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_say_what_they_were_made_of() {
        assert_eq!(source(WAKE), Source::Wake);
        assert_eq!(source(ARRIVALS), Source::Arrivals);
        assert_eq!(source(listener(3)), Source::Listener(3));
        for (slot, generation) in [(0, 1), (u32::MAX - 1, u32::MAX), (7, 1)] {
            let conn = ConnId { slot, generation };
            assert_eq!(source(of(conn)), Source::Connection(conn));
        }
    }
}
