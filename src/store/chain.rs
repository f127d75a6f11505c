//! The segments of a log in their order: one that is written, and files of an earlier life put in a row.
//!
//! It decides from the heads alone which files belong to the log; records are looked at only to find the end of the last one.

use super::damage::{Damage, What};
use super::format::{self, HEAD, Head, Header, Kind, NoHead, Position, RECORD_HEAD, footprint};
use super::scan::{Field, Step};
use super::segment::Segment;

/// A segment in its place.
#[derive(Debug)]
pub struct Chunk {
    /// Its bytes.
    pub segment: Segment,
    /// Names its file.
    pub number: u64,
    /// The name of its file, for messages.
    pub name: String,
    /// The position of its first byte.
    pub base: u64,
    /// The positions it stands for: its bytes, unless the file was cut.
    pub size: u64,
    /// The offset behind its last record; of an old one, where records end at the latest.
    pub end: usize,
}

impl Chunk {
    /// A new one. Its heads are written first: records without a head would be lost.
    pub fn begin(mut segment: Segment, number: u64, name: String, head: &Head) -> Self {
        let bytes = head.encode();
        let copy = segment.len() - HEAD;
        segment.write(0, &bytes);
        segment.write(copy, &bytes);
        Self {
            segment,
            number,
            name,
            base: head.base,
            size: head.size,
            end: HEAD,
        }
    }

    /// Bytes that are free for records.
    #[inline]
    pub fn room(&self) -> usize {
        self.segment.len() - HEAD - self.end
    }

    /// Appends a record; the caller has looked at [`Chunk::room`].
    #[inline]
    pub fn put(&mut self, key: u64, header: &Header, parts: &[&[u8]], payload: usize) -> Position {
        let at = self.end;
        let len = RECORD_HEAD + payload;
        let size = footprint(payload);
        debug_assert!(size <= self.room());
        self.segment.write(at + 8, &header.encode());
        let mut to = at + RECORD_HEAD;
        for part in parts {
            self.segment.write(to, part);
            to += part.len();
        }
        self.segment.clear(to, at + size - to);
        let position = self.base + at as u64;
        let rest = &self.segment[at + 8..at + size];
        let crc = format::crc(key, position, len as u32, rest);
        self.segment.publish(at, format::word(crc, len as u32));
        self.end = at + size;
        Position(position)
    }

    /// Writes that the log goes on elsewhere, if there is room to say so; where there is none, nobody looks for it.
    pub fn seal(&mut self, key: u64) {
        if self.room() >= RECORD_HEAD {
            self.put(key, &Header::new(Kind::Seal), &[], 0);
        }
        self.segment.freeze();
    }

    /// For looking through it.
    #[inline]
    pub fn field(&self, key: u64) -> Field<'_> {
        Field {
            segment: &self.segment,
            key,
            base: self.base,
            limit: self.end,
        }
    }

    /// Damage in it.
    pub fn damage(&self, offset: usize, len: usize, what: What) -> Damage {
        Damage {
            file: self.name.clone(),
            offset: offset as u64,
            len: len as u64,
            position: Some(Position(self.base + offset as u64)),
            what,
        }
    }

    /// Where the last readable record ends, and whether all is zeros behind; none if it was sealed.
    fn tail(&self, key: u64) -> Option<(usize, bool)> {
        let field = self.field(key);
        let mut at = HEAD;
        loop {
            match field.step(at) {
                Step::Record(_, payload) => at += footprint(payload.len()),
                Step::Bad(to) => at = to,
                Step::Sealed => return None,
                Step::Open(zeros) => return Some((at, zeros)),
            }
        }
    }
}

/// A file that may be a segment.
#[derive(Debug)]
pub struct Part {
    /// Its bytes; a writable one if it can be cut.
    pub segment: Segment,
    /// From its name.
    pub number: u64,
    /// Its name, for messages.
    pub name: String,
}

/// What became of the files.
#[derive(Debug, Default)]
pub struct Chain {
    /// In the order of their bases.
    pub chunks: Vec<Chunk>,
    /// Files that are of no use any more: prepared and never begun, begun and empty at the end, or removed and come back.
    pub spent: Vec<u64>,
    /// The base of the next segment.
    pub next: u64,
    /// What was wrong.
    pub damage: Vec<Damage>,
    /// A file of a version that this build doesn't read: the log must not be touched.
    pub newer: Option<(String, u32)>,
}

/// What becomes of the end of the last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is cut behind the last readable record, and sealed.
    Cut,
    /// It stays as it is: somebody may be writing it.
    Left,
}

/// The key and reactor of a log, from the newest file that has a readable head.
pub fn identity(parts: &[Part]) -> Option<(u64, u32)> {
    let heads = parts.iter().filter_map(|part| {
        let head = head_of(part, &mut Vec::new()).ok()?;
        Some((part.number, head))
    });
    let (_, head) = heads.max_by_key(|(number, _)| *number)?;
    Some((head.key, head.reactor))
}

/// Puts files in a row. A torn tail is cut, and the last segment sealed, in memory: whoever has files syncs them.
/// With `End::Left` nothing is written: whoever only looks stops where the last segment can't be read any more.
pub fn assemble(mut parts: Vec<Part>, key: u64, reactor: u32, how: End) -> Chain {
    let mut chain = Chain::default();
    let mut oldest = 0;
    // Of two files with the same base, the one begun later is the log's: the other was emptied before.
    parts.sort_by_key(|part| std::cmp::Reverse(part.number));
    for part in parts {
        match head_of(&part, &mut chain.damage) {
            Ok(head) if head.key != key || head.reactor != reactor => {
                chain.damage.push(whole(&part, What::Foreign));
            }
            Ok(head) => {
                oldest = oldest.max(head.oldest);
                chain.next = chain.next.max(head.base + head.size);
                let end = part.segment.len().min(head.size as usize - HEAD);
                chain.chunks.push(Chunk {
                    end: end.max(HEAD) & !7,
                    segment: part.segment,
                    number: part.number,
                    name: part.name,
                    base: head.base,
                    size: head.size,
                });
            }
            Err(NoHead::Blank) if part.segment.iter().all(|byte| *byte == 0) => {
                chain.spent.push(part.number);
            }
            Err(NoHead::Version(version)) => chain.newer = Some((part.name, version)),
            Err(_) => chain.damage.push(whole(&part, What::Heads)),
        }
    }
    chain.chunks.sort_by_key(|chunk| chunk.base);
    row(&mut chain, key, oldest);
    match how {
        End::Cut => finish(&mut chain, key),
        End::Left => {
            let last = chain.chunks.last_mut();
            if let Some((last, (at, _))) =
                last.and_then(|last| last.tail(key).map(|end| (last, end)))
            {
                last.end = at;
            }
        }
    }
    chain
}

/// The head of a file, from either copy.
fn head_of(part: &Part, damage: &mut Vec<Damage>) -> Result<Head, NoHead> {
    let at = |offset: usize| {
        let bytes = part.segment.get(offset..offset + HEAD);
        bytes.map_or(Err(NoHead::Foreign), |bytes| {
            Head::decode(bytes.try_into().expect("as long as a head"))
        })
    };
    let len = part.segment.len();
    if len == 0 {
        return Err(NoHead::Blank);
    }
    let copy_at = len.saturating_sub(HEAD);
    let (first, copy) = (at(0), at(copy_at));
    if let (newer @ Err(NoHead::Version(_)), _) | (_, newer @ Err(NoHead::Version(_))) =
        (first, copy)
    {
        return newer;
    }
    let head = first.or(copy);
    if let Ok(head) = head {
        let mut report = |offset: usize, len: u64, what| {
            damage.push(Damage {
                file: part.name.clone(),
                offset: offset as u64,
                len,
                position: Some(Position(head.base + offset as u64)),
                what,
            });
        };
        if head.size > len as u64 {
            report(len, head.size - len as u64, What::Short);
        } else if first != Ok(head) {
            report(0, HEAD as u64, What::OneHead);
        } else if copy == Err(NoHead::Blank) && is_empty(&part.segment) {
            // It was begun when the process was killed: the copy comes after the head, and before any record.
        } else if copy != Ok(head) {
            report(copy_at, HEAD as u64, What::OneHead);
        }
    }
    head
}

/// Whether a segment with a head has no record, nor a part of one.
fn is_empty(segment: &Segment) -> bool {
    segment[HEAD..].iter().all(|byte| *byte == 0)
}

/// Damage that is a file as a whole.
fn whole(part: &Part, what: What) -> Damage {
    Damage {
        file: part.name.clone(),
        offset: 0,
        len: part.segment.len() as u64,
        position: None,
        what,
    }
}

/// Takes out what was removed once or stands twice, and reports what is missing.
fn row(chain: &mut Chain, key: u64, oldest: u64) {
    let mut end: Option<u64> = None;
    let mut kept: Vec<Chunk> = Vec::with_capacity(chain.chunks.len());
    for chunk in chain.chunks.drain(..) {
        let position = Some(Position(chunk.base));
        match end {
            _ if chunk.base < oldest => {
                chain.spent.push(chunk.number);
                continue;
            }
            Some(end) if chunk.base < end => {
                if chunk.tail(key) == Some((HEAD, true)) {
                    chain.spent.push(chunk.number);
                } else {
                    let whole = chunk.damage(0, chunk.segment.len(), What::Twice);
                    chain.damage.push(Damage { position, ..whole });
                }
                continue;
            }
            Some(end) if chunk.base > end => chain.damage.push(Damage {
                file: chunk.name.clone(),
                offset: 0,
                len: chunk.base - end,
                position: Some(Position(end)),
                what: What::Missing,
            }),
            _ => {}
        }
        end = Some(chunk.base + chunk.size);
        kept.push(chunk);
    }
    chain.chunks = kept;
}

/// Takes empty segments off the end, cuts the last one's torn tail, and seals it.
fn finish(chain: &mut Chain, key: u64) {
    while let Some(last) = chain.chunks.last() {
        match last.tail(key) {
            Some((HEAD, true)) => {
                chain.spent.push(last.number);
                chain.next = chain.next.min(last.base);
                chain.chunks.pop();
            }
            Some((at, zeros)) => {
                let last = chain.chunks.last_mut().expect("it was just there");
                if !zeros {
                    chain
                        .damage
                        .push(last.damage(at, last.end - at, What::Tail));
                    last.segment.clear(at, last.end - at);
                }
                let limit = last.end;
                last.end = at;
                if at + RECORD_HEAD <= limit {
                    last.put(key, &Header::new(Kind::Seal), &[], 0);
                }
                break;
            }
            None => break,
        }
    }
}
