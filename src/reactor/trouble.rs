//! Tells the operator what is wrong with a log while the server runs: once when it begins, and once when it is over.
//!
//! It looks once a tick and keeps what it has said. It decides nothing: who is refused because of it, the store says.

use std::mem::discriminant;

use crate::clock::Millis;
use crate::limits;
use crate::store::log::Log;
use crate::store::syncer::Trouble;

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// Something is wrong from now on.
    Begun(Trouble),
    /// What was wrong is so no more.
    Over(Trouble),
    /// Pages of so many of the log's files can't be read; one of them.
    Damaged(usize, String),
    /// So many stored messages could not be read since the last time.
    Unreadable(u64),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Watch {
    said: Option<Trouble>,
    damaged: usize,
    unreadable: u64,
    /// No more is said of a kind before.
    next: [Millis; 3],
}

impl Watch {
    /// `known` has been said already.
    pub fn new(known: Option<Trouble>) -> Self {
        Self {
            said: known,
            ..Self::default()
        }
    }

    /// What is new of a log, of which so many messages could not be read. What comes too soon after the last news of its kind is said later, if it
    /// is still so.
    pub fn look(&mut self, log: &Log, unreadable: u64, now: Millis) -> Vec<News> {
        let mut news = Vec::new();
        news.extend(self.look_at(log.trouble(), now));
        let damaged = log.damaged().count();
        if damaged > self.damaged && self.may_speak(1, now) {
            let last = log.damaged().last().unwrap_or_default().to_owned();
            news.push(News::Damaged(damaged, last));
            self.damaged = damaged;
        }
        // Those in files that have gone since are no reason to be silent about others.
        self.damaged = self.damaged.min(damaged);
        if unreadable > self.unreadable && self.may_speak(2, now) {
            news.push(News::Unreadable(unreadable - self.unreadable));
            self.unreadable = unreadable;
        }
        news
    }

    fn look_at(&mut self, trouble: Option<Trouble>, now: Millis) -> Option<News> {
        let kind = |trouble: &Option<Trouble>| trouble.as_ref().map(discriminant);
        if kind(&trouble) == kind(&self.said) || !self.may_speak(0, now) {
            return None;
        }
        let before = std::mem::replace(&mut self.said, trouble.clone());
        trouble.map(News::Begun).or(before.map(News::Over))
    }

    fn may_speak(&mut self, kind: usize, now: Millis) -> bool {
        let may = now >= self.next[kind];
        if may {
            self.next[kind] = Millis(now.0 + limits::TROUBLE_PAUSE_MILLIS);
        }
        may
    }
}

impl News {
    /// Writes it to the server's log.
    pub fn say(&self, reactor: u16) {
        match self {
            Self::Begun(trouble @ Trouble::Failed(..)) => tracing::error!(reactor, "{trouble}"),
            Self::Begun(trouble) => tracing::warn!(reactor, "{trouble}"),
            Self::Over(Trouble::Stuck(..)) => {
                tracing::info!(reactor, "the log's old files can be removed again");
            }
            Self::Over(_) => tracing::info!(
                reactor,
                "there is room again for the log: durable messages are taken"
            ),
            Self::Damaged(count, file) => tracing::error!(
                reactor,
                "{file}: a page of it can't be read any more, and of {count} files of the log in all: the disk failed, or something cut the file short. What stood there is lost; look at the kernel's log, and run `tools store verify` on the data directory"
            ),
            Self::Unreadable(count) => tracing::error!(
                reactor,
                "{count} stored messages or sessions can't be read back and are lost: their records are damaged. Look at the kernel's log, and run `tools store verify` on the data directory"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(file: &str) -> Trouble {
        Trouble::Full(file.into(), "no space".into())
    }

    #[test]
    fn it_is_said_once_when_it_begins_and_once_when_it_is_over() {
        let mut watch = Watch::default();
        let pause = limits::TROUBLE_PAUSE_MILLIS;
        assert_eq!(watch.look_at(None, Millis(0)), None);
        let news = watch.look_at(Some(full("1")), Millis(1));
        assert_eq!(news, Some(News::Begun(full("1"))));
        // Each try has another file.
        assert_eq!(watch.look_at(Some(full("2")), Millis(1 + pause)), None);
        let news = watch.look_at(None, Millis(2 + pause));
        assert_eq!(news, Some(News::Over(full("1"))));
    }

    #[test]
    fn what_comes_and_goes_is_said_now_and_then() {
        let mut watch = Watch::default();
        let pause = limits::TROUBLE_PAUSE_MILLIS;
        let said: usize = (0..10 * pause)
            .step_by(100)
            .filter_map(|at| {
                let trouble = (at / 100 % 2 == 0).then(|| full("x"));
                watch.look_at(trouble, Millis(at))
            })
            .count();
        assert!((2..=10).contains(&said), "{said}");
    }

    #[test]
    fn what_was_said_at_the_start_is_not_said_again() {
        let mut watch = Watch::new(Some(full("1")));
        assert_eq!(watch.look_at(Some(full("2")), Millis(0)), None);
        assert!(watch.look_at(None, Millis(0)).is_some());
    }

    #[test]
    fn unreadable_messages_are_said_by_their_number() {
        let log = Log::in_memory(1 << 20, 1, 0, crate::store::log::Shape::default());
        let mut watch = Watch::default();
        let pause = limits::TROUBLE_PAUSE_MILLIS;
        assert_eq!(watch.look(&log, 0, Millis(0)), []);
        assert_eq!(watch.look(&log, 3, Millis(0)), [News::Unreadable(3)]);
        assert_eq!(watch.look(&log, 5, Millis(1)), []);
        assert_eq!(watch.look(&log, 5, Millis(pause)), [News::Unreadable(2)]);
    }
}
