//! How much to take of something that the poller says is there, without saying how much.
//!
//! To try for one more that isn't there costs a system call for nothing, and with accept(2) a socket that is made and thrown away. So one is taken
//! a turn, and once there has been more for some turns without a break, twice as many each time.

/// Turns in a row with something there that may be chance.
const PATIENCE: u32 = 4;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appetite {
    /// Turns in a row in which something was there.
    run: u32,
    /// The turn after the last one of them.
    next_turn: u64,
}

impl Appetite {
    /// Something is there in this turn: how many to try for.
    pub fn whet(&mut self, turn: u64, most: usize) -> usize {
        self.run = if self.next_turn == turn {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.next_turn = turn + 1;
        // Enough for every bound there is, and no shift runs over.
        let doublings = self.run.saturating_sub(PATIENCE).min(16);
        most.min(1 << doublings)
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
        let tries: Vec<_> = (5..15).map(|turn| appetite.whet(turn, 16)).collect();
        assert_eq!(tries, [1, 1, 1, 1, 2, 4, 8, 16, 16, 16]);
        appetite.still();
        assert_eq!(appetite.whet(15, 16), 1, "all were taken");
        let tries: Vec<_> = (16..20).map(|turn| appetite.whet(turn, 16)).collect();
        assert_eq!(tries, [1, 1, 1, 2]);
        assert_eq!(appetite.whet(21, 16), 1, "a turn without");
        assert_eq!((0..100).map(|turn| appetite.whet(turn, 64)).max(), Some(64));
    }
}
