//! What a turn has to say: packets are copied behind each other into one buffer and chained per connection.
//!
//! At the end of the turn each connection that got something is written to once, however many packets it got. The buffer is the reactor's,
//! so a connection owns none; it is small enough to stay in the cache, and is flushed early when it is full. Never writes to a socket.

use std::io::IoSlice;

use crate::ids::ConnId;

/// No piece.
const NIL: u32 = u32::MAX;

/// One connection's packets of this turn: its pieces in the outbox, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    head: u32,
    tail: u32,
    /// Bytes in all.
    pub bytes: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: NIL,
            tail: NIL,
            bytes: 0,
        }
    }
}

impl Chain {
    /// Whether it has no packet.
    pub fn is_empty(&self) -> bool {
        self.head == NIL
    }
}

#[derive(Debug)]
struct Piece {
    start: u32,
    len: u32,
    next: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    /// Connections that got something. One may have left since, or been flushed already.
    touched: Vec<ConnId>,
}

impl Outbox {
    /// Lets go of its memory between two turns' packets.
    pub fn give_back(&mut self) {
        if self.bytes.is_empty() && self.touched.is_empty() {
            *self = Self::default();
        }
    }

    /// Append a packet to a connection's chain.
    pub fn push(&mut self, conn: ConnId, chain: &mut Chain, packet: &[u8]) {
        let start = self.bytes.len() as u32;
        let len = packet.len() as u32;
        let new = self.pieces.len() as u32;
        self.bytes.extend_from_slice(packet);
        chain.bytes += len;
        if chain.is_empty() {
            self.touched.push(conn);
            chain.head = new;
        } else {
            let tail = &mut self.pieces[chain.tail as usize];
            if tail.start + tail.len == start {
                // Nobody else got anything in between: one piece, and in the end one plain write.
                tail.len += len;
                return;
            }
            tail.next = new;
        }
        chain.tail = new;
        self.pieces.push(Piece {
            start,
            len,
            next: NIL,
        });
    }

    /// The pieces of a chain, oldest first.
    pub fn pieces(&self, chain: Chain) -> impl Iterator<Item = &[u8]> {
        let mut at = chain.head;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(at as usize)?;
            at = piece.next;
            Some(&self.bytes[piece.start as usize..][..piece.len as usize])
        })
    }

    /// The bytes of a chain that is one piece, as nearly all are.
    pub fn whole(&self, chain: Chain) -> Option<&[u8]> {
        (chain.head == chain.tail)
            .then(|| self.pieces(chain).next())
            .flatten()
    }

    /// Fill `slices` with the first pieces of a chain: how many there are, and the rest of the chain.
    pub fn gather<'a>(&'a self, chain: Chain, slices: &mut [IoSlice<'a>]) -> (usize, Chain) {
        let mut rest = chain;
        let mut count = 0;
        for slice in slices {
            let Some(piece) = self.pieces.get(rest.head as usize) else {
                break;
            };
            *slice = IoSlice::new(&self.bytes[piece.start as usize..][..piece.len as usize]);
            rest.head = piece.next;
            rest.bytes -= piece.len;
            count += 1;
        }
        (count, rest)
    }

    /// Bytes in the buffer.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nobody got anything.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// The connections that got something, to be given back to [`Outbox::clear`].
    pub fn take_touched(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.touched)
    }

    /// Forget everything; every chain must have been taken from its connection.
    pub fn clear(&mut self, mut touched: Vec<ConnId>) {
        touched.clear();
        self.touched = touched;
        self.bytes.clear();
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId {
            slot,
            generation: 1,
        }
    }

    #[test]
    fn each_chain_has_its_packets_in_order() {
        let mut outbox = Outbox::default();
        let mut chains = [Chain::default(); 2];
        for (slot, packet) in [(0, "a"), (0, "b"), (1, "X"), (0, "c"), (1, "Y"), (1, "Z")] {
            outbox.push(conn(slot), &mut chains[slot as usize], packet.as_bytes());
        }
        let all = |chain| outbox.pieces(chain).collect::<Vec<_>>();
        assert_eq!(all(chains[0]), [b"ab".as_slice(), b"c"]);
        assert_eq!(all(chains[1]), [b"X".as_slice(), b"YZ"]);
        assert_eq!((chains[0].bytes, chains[1].bytes), (3, 3));
        assert_eq!(outbox.whole(chains[0]), None);
        let mut slices = [IoSlice::new(&[]); 1];
        let (count, rest) = outbox.gather(chains[0], &mut slices);
        assert_eq!((count, &*slices[0]), (1, b"ab".as_slice()));
        assert_eq!((all(rest), rest.bytes), (vec![b"c".as_slice()], 1));
        let (count, rest) = outbox.gather(rest, &mut slices);
        assert_eq!((count, &*slices[0]), (1, b"c".as_slice()));
        assert!(rest.is_empty() && rest.bytes == 0);
        let touched = outbox.take_touched();
        assert_eq!(touched, [conn(0), conn(1)]);
        outbox.clear(touched);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }
}
