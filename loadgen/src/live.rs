//! What is shown while a run goes on: three lines that are redrawn on a terminal, one plain line a second without one.
//!
//! All of it goes to standard error, so that standard output is the report's alone.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// At most ten times a second.
const REDRAW: Duration = Duration::from_millis(100);

const PLAIN: Duration = Duration::from_secs(1);

/// Leaves room on the usual terminal, so that no line wraps and the cursor's way back up is right.
const WIDTH: usize = 79;

/// The live view.
#[derive(Debug)]
pub struct Live {
    terminal: bool,
    quiet: bool,
    drawn: bool,
    last: Option<Instant>,
}

impl Live {
    /// On standard error. `quiet` shows nothing.
    pub fn new(quiet: bool) -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            quiet,
            drawn: false,
            last: None,
        }
    }

    /// It is time to show something; the lines needn't be made before.
    pub fn is_due(&self) -> bool {
        let every = if self.terminal { REDRAW } else { PLAIN };
        !self.quiet && self.last.is_none_or(|last| last.elapsed() >= every)
    }

    /// Shows three lines on a terminal, and `plain` elsewhere.
    pub fn show(&mut self, lines: [&str; 3], plain: &str) {
        if self.quiet {
            return;
        }
        self.last = Some(Instant::now());
        let text = if self.terminal {
            block(lines, self.drawn)
        } else {
            format!("{plain}\n")
        };
        self.drawn = self.terminal;
        put(&text);
    }

    /// A line that stays, above the block.
    pub fn note(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        self.clear();
        put(&format!("{text}\n"));
    }

    /// Takes the block away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            put("\x1b[3A\x1b[J");
        }
        self.last = None;
    }
}

/// Writes to standard error. If nobody reads it any more the run goes on: the report is what counts.
fn put(text: &str) {
    let mut out = io::stderr().lock();
    let _unread = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The lines, each cut to the width and clearing what was there.
fn block(lines: [&str; 3], over: bool) -> String {
    let mut text = String::from(if over { "\x1b[3A" } else { "" });
    for line in lines {
        text.extend(line.chars().take(WIDTH));
        text.push_str("\x1b[K\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_drawn_over_itself() {
        let first = block(["a", "b", "c"], false);
        assert_eq!(first, "a\x1b[K\nb\x1b[K\nc\x1b[K\n");
        assert!(block(["a", "b", "c"], true).starts_with("\x1b[3A"));
        let long = "x".repeat(200);
        assert!(block([&long, "", ""], false).lines().next().unwrap().len() < 90);
    }
}
