//! Finding records in the bytes of one segment, whatever has happened to them.
//!
//! A record counts if its checksum does. Where one doesn't, the next that does is searched for at every multiple of 8. It never repairs,
//! and never believes a length before its checksum.

use super::format::{self, HEAD, Header, Kind, RECORD_HEAD};
use super::segment::Segment;
use crate::limits;

/// A segment to look through.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its bytes.
    pub segment: &'a Segment,
    /// The log's key.
    pub key: u64,
    /// The position of its first byte.
    pub base: u64,
    /// Where its records end at the latest: a multiple of 8.
    pub limit: usize,
}

/// What stands at a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A record.
    Record(Header, &'a [u8]),
    /// Nothing that can be read, up to here, where something can.
    Bad(usize),
    /// The segment ends here as it should.
    Sealed,
    /// Nothing readable from here on, and no seal. True: only zeros.
    Open(bool),
}

impl<'a> Field<'a> {
    /// The record at `at`, a multiple of 8, if it is whole. Seals are records here.
    #[inline]
    pub fn record(&self, at: usize) -> Option<(Header, &'a [u8])> {
        let bytes: &'a [u8] = self.segment;
        if at + RECORD_HEAD > self.limit {
            return None;
        }
        let (crc, len) = format::unword(self.segment.word(at));
        let padded = (len as usize).next_multiple_of(8);
        if (len as usize) < RECORD_HEAD || padded > self.limit - at {
            return None;
        }
        let header = bytes[at + 8..at + RECORD_HEAD].try_into().ok()?;
        let header = Header::decode(header)?;
        let rest = &bytes[at + 8..at + padded];
        if format::crc(self.key, self.base + at as u64, len, rest) != crc {
            return None;
        }
        Some((header, &rest[16..len as usize - 8]))
    }

    /// What stands at `at`, a multiple of 8 and at least [`HEAD`].
    #[inline]
    pub fn step(&self, at: usize) -> Step<'a> {
        debug_assert!(at >= HEAD && at.is_multiple_of(8));
        match self.record(at) {
            Some((header, _)) if header.kind == Kind::Seal => Step::Sealed,
            Some((header, payload)) => Step::Record(header, payload),
            None if at + RECORD_HEAD > self.limit => Step::Sealed,
            None => self.resume(at),
        }
    }

    /// Where the next readable record stands behind a place where none does.
    #[cold]
    fn resume(&self, from: usize) -> Step<'a> {
        // Candidates are cheap to refuse, but who wrote the payloads may have filled them with what looks like long records.
        let mut effort = limits::RESUME_EFFORT * self.segment.len();
        let mut zeros = self.segment.word(from) == 0;
        let mut at = from + 8;
        while at + RECORD_HEAD <= self.limit {
            let word = self.segment.word(at);
            if word == 0 {
                at += 8;
                continue;
            }
            zeros = false;
            if self.record(at).is_some() {
                return Step::Bad(at);
            }
            let (_, len) = format::unword(word);
            if len as usize <= self.limit - at {
                effort = effort.saturating_sub(len as usize);
                if effort == 0 {
                    return Step::Open(false);
                }
            }
            at += 8;
        }
        zeros &= self.segment[at.min(self.limit)..self.limit]
            .iter()
            .all(|byte| *byte == 0);
        Step::Open(zeros)
    }
}
