//! How much to take of something that the poller says is there, without saying how much.
//!
//! To try for one more that isn't there costs a system call for nothing, and with accept(2) a socket that is made and thrown away. So one is taken
//! a turn, and twice as many each time as long as there is always more.

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appetite {
    taken: usize,
    /// The turn after the last one in which something was there.
    next_turn: u64,
}

impl Appetite {
    /// Something is there in this turn: how many to try for.
    pub fn whet(&mut self, turn: u64, most: usize) -> usize {
        self.taken = if self.next_turn == turn {
            most.min(2 * self.taken)
        } else {
            1
        };
        self.next_turn = turn + 1;
        self.taken
    }

    /// There was less.
    pub fn still(&mut self) {
        self.next_turn = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_there_is_more_and_no_longer() {
        let mut appetite = Appetite::default();
        let tries: Vec<_> = (5..11).map(|turn| appetite.whet(turn, 16)).collect();
        assert_eq!(tries, [1, 2, 4, 8, 16, 16]);
        appetite.still();
        assert_eq!(appetite.whet(11, 16), 1, "all were taken");
        assert_eq!(appetite.whet(12, 16), 2);
        assert_eq!(appetite.whet(14, 16), 1, "a turn without");
    }
}
