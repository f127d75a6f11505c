//! JSON that a person can still look at: one line a field, and one line a moment, phase or broadcast. Nothing deeper is broken up.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::Report;

/// Brackets within which each value has its own line: the report and its lists.
const BROKEN_UP: usize = 2;

#[derive(Default)]
struct Lines {
    depth: usize,
    /// The bracket that was opened last has something in it.
    filled: bool,
}

impl Lines {
    fn line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        if self.depth <= BROKEN_UP {
            out.write_all(b"\n")?;
            out.write_all(&b"  "[..self.depth])?;
        }
        Ok(())
    }

    fn open<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        let broken_up = self.filled && self.depth <= BROKEN_UP;
        self.depth -= 1;
        if broken_up {
            self.line(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    fn next<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.filled = true;
        self.line(out)
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(out, first)
    }
}

/// The whole report, with a line end.
pub(super) fn write(report: &Report) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, Lines::default());
    report
        .serialize(&mut serializer)
        .unwrap_or_else(|_| unreachable!("plain data with string keys"));
    out.push(b'\n');
    String::from_utf8(out).unwrap_or_else(|_| unreachable!("JSON is text"))
}
