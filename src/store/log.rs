//! An append-only log: records go in at the end, are read by position, and leave with the oldest segment.
//!
//! It owns the chain of segments and where the end is. It never looks at a payload, never waits for a disk, and never decides what lives:
//! whoever keeps the log moves what is needed out of the oldest segment with [`Log::copy`] and then says [`Log::drop_oldest`].
//!
//! One thread appends and reads. The medium behind it is the heap ([`Log::in_memory`]: simulations and tests, with crash images) or a
//! directory of mapped files.

use std::collections::VecDeque;
use std::path::Path;

use super::chain::{self, Chunk, End};
use super::damage::{Damage, What};
use super::files::{self, OpenError};
use super::format::{HEAD, Head, Header, Position, footprint};
use super::heap::{Heap, Image, Loss};
use super::scan::Step;
use super::syncer::{Handle, Syncer, Trouble};
use crate::limits;

/// Why a record was not taken. The log is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No prepared room: the disk is full, or slower than what comes in. It may be better in a second.
    Full,
    /// The disk failed to keep something that it had taken. Nothing is taken until the next start; reading goes on.
    Failed,
}

/// How far a record may reach into the room that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// New content: messages, bodies, states, values. Leaves a whole prepared segment free.
    Message,
    /// Small things that make room later, or must not be forgotten: done, received, notes, ends. May use all there is.
    Control,
    /// A living record on its way out of the oldest segment. May use all there is: the oldest goes when the last has moved.
    Moved,
}

/// The sizes of a log's segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the first segments. A power of two.
    pub smallest: usize,
    /// Bytes of the largest. A power of two.
    pub largest: usize,
    /// Bytes of the largest payload that is ever appended. Every segment can hold it, unless it needs more than the largest: then one of those
    /// that are prepared can.
    pub payload: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            smallest: limits::SEGMENT_BYTES_MIN,
            largest: limits::SEGMENT_BYTES_MAX,
            payload: limits::SEGMENT_BYTES_MIN / 2,
        }
    }
}

impl Shape {
    /// The size of the next segment of a log of `bytes`: an eighth of it, so that what the cleaner works on stays a small part.
    pub fn next(&self, bytes: u64) -> usize {
        let wanted = usize::try_from(bytes / limits::SEGMENTS_OF_A_LOG)
            .unwrap_or(usize::MAX)
            .clamp(self.smallest, self.largest);
        // The largest power of two that is not above what is wanted.
        (1 << wanted.ilog2()).max(self.standing().min(self.largest))
    }

    /// The size of a segment that holds the largest payload: one is always prepared.
    pub(super) fn standing(&self) -> usize {
        (footprint(self.payload) + 2 * HEAD).next_power_of_two()
    }
}

/// A record, in the log's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it stands.
    pub at: Position,
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Bytes of the log that it takes.
    pub fn footprint(&self) -> usize {
        footprint(self.payload.len())
    }

    /// The place behind it, where a walk may go on.
    pub fn end(&self) -> Position {
        Position(self.at.0 + self.footprint() as u64)
    }
}

/// A segment that could be removed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// The position of its first byte; [`Log::walk`] may begin here.
    pub base: Position,
    /// The position behind its last byte: of the next segment.
    pub end: Position,
}

/// What segments are made of and where they go.
#[derive(Debug)]
enum Medium {
    Heap(Heap),
    Disk(Handle),
    /// Nothing is written.
    None,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    key: u64,
    reactor: u32,
    shape: Shape,
    /// In the order of their bases; the chain may have gaps where damage took a file.
    sealed: VecDeque<Chunk>,
    /// Where records are appended. None until the first append.
    active: Option<Chunk>,
    /// The base of the next segment.
    base: u64,
    /// Segments that were given up: their bases, and what must be synced before nobody needs them after a power loss.
    going: VecDeque<(u64, u64)>,
    medium: Medium,
}

/// A log that was opened, and what was wrong with its files. Damage inside of segments is found by [`Log::walk`].
#[derive(Debug)]
pub struct Opened {
    /// The log. Appending begins in a new segment.
    pub log: Log,
    /// What was found while its files were put in order.
    pub damage: Vec<Damage>,
}

impl Log {
    /// An empty log on the heap, of at most `limit` bytes in segments. `key` seeds the checksums: random outside of tests.
    ///
    /// It counts as on disk what has been synced ([`Log::want_sync`]): at once, or, after [`Log::hold_sync`], when
    /// [`Log::complete_sync`] says so.
    pub fn in_memory(limit: u64, key: u64, reactor: u32, shape: Shape) -> Self {
        Self {
            key,
            reactor,
            shape,
            sealed: VecDeque::new(),
            active: None,
            base: 0,
            going: VecDeque::new(),
            medium: Medium::Heap(Heap::new(limit)),
        }
    }

    /// The log that an image holds, as after a restart.
    pub fn from_image(image: &Image, limit: u64, key: u64, reactor: u32, shape: Shape) -> Opened {
        let (parts, next) = image.parts();
        let chain = chain::assemble(parts, key, reactor, End::Cut);
        let mut log = Self::in_memory(limit, key, reactor, shape);
        let mut heap = Heap::new(limit);
        heap.resume(next, &chain.chunks);
        heap.sync(chain.next);
        log.medium = Medium::Heap(heap);
        log.base = chain.next;
        log.sealed = chain.chunks.into();
        Opened {
            log,
            damage: chain.damage,
        }
    }

    /// The log in a directory, which is created if it is missing. Segments come from the syncer's threads and go with them; `wake` is called in
    /// one of them when [`Log::synced`] has moved. It blocks, for as long as it takes to map all files and to read the last.
    ///
    /// `key` is what the log was first opened with; a file with another is left alone and reported.
    pub fn open(
        directory: &Path,
        key: u64,
        reactor: u32,
        shape: Shape,
        syncer: &Syncer,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Opened, OpenError> {
        let (parts, next) = files::map(directory)?;
        let chain = chain::assemble(parts, key, reactor, End::Cut);
        if let Some((name, version)) = chain.newer {
            return Err(OpenError::Newer(name.into(), version));
        }
        files::tidy(directory, &chain.spent)?;
        let mut chunks: VecDeque<Chunk> = chain.chunks.into();
        for chunk in &mut chunks {
            chunk.segment.freeze();
        }
        let wake = Box::new(wake);
        let mut log = Self {
            key,
            reactor,
            shape,
            medium: Medium::Disk(syncer.join(directory, next, &chunks, chain.next, &shape, wake)),
            sealed: chunks,
            active: None,
            base: chain.next,
            going: VecDeque::new(),
        };
        // What the last process left to the kernel.
        log.want_sync();
        Ok(Opened {
            log,
            damage: chain.damage,
        })
    }

    /// The log in a directory, only to be read; a server may be writing it. What is appended later is not seen. None: there is no segment.
    pub fn view(directory: &Path) -> Result<Option<Opened>, OpenError> {
        let (parts, _) = files::view(directory)?;
        let Some((key, reactor)) = chain::identity(&parts) else {
            return Ok(None);
        };
        let chain = chain::assemble(parts, key, reactor, End::Left);
        if let Some((name, version)) = chain.newer {
            return Err(OpenError::Newer(name.into(), version));
        }
        Ok(Some(Opened {
            log: Self {
                key,
                reactor,
                shape: Shape::default(),
                sealed: chain.chunks.into(),
                active: None,
                base: chain.next,
                going: VecDeque::new(),
                medium: Medium::None,
            },
            damage: chain.damage,
        }))
    }

    /// The reactor that it was written by.
    pub fn reactor(&self) -> u32 {
        self.reactor
    }

    // ---- writing ----

    /// Appends a record; its payload is the parts, one behind the other. It is in the log when this returns, so the death of the process
    /// does not take it; what a power loss takes, [`Log::synced`] tells.
    ///
    /// A payload above [`Shape::payload`] may find no segment that holds it: [`Refused::Full`], until one has been prepared.
    #[inline]
    pub fn append(
        &mut self,
        urgency: Urgency,
        header: &Header,
        parts: &[&[u8]],
    ) -> Result<Position, Refused> {
        let payload = parts.iter().map(|part| part.len()).sum();
        let key = self.key;
        let active = self.room(urgency, footprint(payload))?;
        Ok(active.put(key, header, parts, payload))
    }

    /// Appends a copy of the record at `from`, usually out of the oldest segment. None: there is no whole record there.
    pub fn copy(&mut self, urgency: Urgency, from: Position) -> Result<Option<Position>, Refused> {
        let Some(size) = self.read(from).map(|record| record.footprint()) else {
            return Ok(None);
        };
        self.room(urgency, size)?;
        // Making room may have sealed the segment that it stands in, so it is looked up again.
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.base <= from.0)
        {
            let Some(record) = self.read(from) else {
                return Ok(None);
            };
            let (header, payload) = (record.header, record.payload.to_vec());
            return self.append(urgency, &header, &[&payload]).map(Some);
        }
        let key = self.key;
        let chunk = Self::among(&self.sealed, from);
        let Some((chunk, at)) = chunk else {
            return Ok(None);
        };
        let Some((header, payload)) = chunk.field(key).record(at) else {
            return Ok(None);
        };
        let active = self.active.as_mut().expect("room was made");
        Ok(Some(active.put(key, &header, &[payload], payload.len())))
    }

    /// Whether nothing of this urgency is taken at present, and why.
    #[inline]
    pub fn refuses(&self, urgency: Urgency) -> Option<Refused> {
        if self.failed() {
            return Some(Refused::Failed);
        }
        // The first record begins the first segment.
        let needed = usize::from(self.active.is_none()) + usize::from(urgency == Urgency::Message);
        (self.spares() < needed).then_some(Refused::Full)
    }

    /// The active segment with room for a record of `size` bytes, a new one if need be.
    #[inline]
    fn room(&mut self, urgency: Urgency, size: usize) -> Result<&mut Chunk, Refused> {
        let spares = self.spares();
        if self.failed() || self.spoilt() {
            return Err(Refused::Failed);
        }
        let fits = self
            .active
            .as_ref()
            .is_some_and(|active| size <= active.room());
        let needed = usize::from(!fits) + usize::from(urgency == Urgency::Message);
        if spares < needed {
            return Err(Refused::Full);
        }
        if !fits {
            self.begin(size)?;
        }
        Ok(self.active.as_mut().expect("it fits, or has just begun"))
    }

    /// Whether what was appended last may not have reached its file. Then nobody may be told that it is kept.
    #[inline]
    fn spoilt(&mut self) -> bool {
        match &self.active {
            Some(active) if active.segment.damaged() => {
                if let Medium::Disk(line) = &self.medium {
                    line.fail(&active.name);
                }
                true
            }
            _ => false,
        }
    }

    /// Goes on in a new segment.
    #[cold]
    fn begin(&mut self, size: usize) -> Result<(), Refused> {
        let wanted = self.shape.next(self.size());
        let needed = size + 2 * HEAD;
        // What queues keep of a position tells no more apart.
        let oldest = self.sealed.front().map_or(self.base, |chunk| chunk.base);
        let largest = wanted.max(needed).max(self.shape.standing()) as u64;
        if self.base + 2 * largest - oldest > limits::LOG_SPAN {
            return Err(Refused::Full);
        }
        let taken = match &mut self.medium {
            Medium::Heap(heap) => heap.take(wanted, needed),
            Medium::Disk(line) => line.take(wanted, needed),
            Medium::None => None,
        };
        let Some((number, name, segment)) = taken else {
            return Err(Refused::Full);
        };
        if let Some(mut chunk) = self.active.take() {
            chunk.seal(self.key);
            self.sealed.push_back(chunk);
        }
        let head = Head {
            reactor: self.reactor,
            key: self.key,
            base: self.base,
            size: segment.len() as u64,
            oldest: self.oldest_needed(),
        };
        self.base += head.size;
        self.active = Some(Chunk::begin(segment, number, name, &head));
        if let Medium::Disk(line) = &self.medium {
            line.begun(number, head.base, head.size);
        }
        Ok(())
    }

    // ---- reading ----

    /// The record at a position that [`Log::append`], [`Log::copy`] or a walk gave. None: it is damaged, or its segment gone.
    #[inline]
    pub fn read(&self, at: Position) -> Option<Record<'_>> {
        let (chunk, offset) = self.locate(at)?;
        if offset < HEAD || !offset.is_multiple_of(8) {
            return None;
        }
        let (header, payload) = chunk.field(self.key).record(offset)?;
        Some(Record {
            at,
            header,
            payload,
        })
    }

    /// All records from `from` on, in order, and the damage between them. `from` is [`Oldest::base`], or [`Record::end`] of one before.
    pub fn walk(&self, from: Position) -> Walk<'_> {
        Walk {
            log: self,
            at: from,
            chunk: None,
        }
    }

    /// All records of the log.
    pub fn records(&self) -> Walk<'_> {
        self.walk(Position(0))
    }

    /// The first record at or behind `from`, damage skipped; for whoever appends between two records of a walk.
    pub fn next(&self, from: Position) -> Option<Record<'_>> {
        self.walk(from).find_map(Result::ok)
    }

    // ---- its extent ----

    /// The oldest segment, unless it is the one that is appended to.
    pub fn oldest(&self) -> Option<Oldest> {
        self.sealed.front().map(|chunk| Oldest {
            base: Position(chunk.base),
            end: Position(chunk.base + chunk.size),
        })
    }

    /// Gives the oldest segment up: its records can't be read any more. Its file goes once everything that has been appended by now is
    /// on disk, so nothing is lost that was copied out of it. Nothing happens if only the active one is left.
    pub fn drop_oldest(&mut self) {
        let end = self.end().0;
        let Some(chunk) = self.sealed.pop_front() else {
            return;
        };
        self.going.push_back((chunk.base, end));
        match &mut self.medium {
            Medium::Heap(heap) => heap.remove(chunk, end),
            Medium::Disk(line) => line.remove(chunk, end),
            Medium::None => {}
        }
        self.want_sync();
    }

    /// The base of the oldest segment that a start after a power loss needs: one that was given up counts until what was moved out of it is on disk.
    fn oldest_needed(&mut self) -> u64 {
        let synced = self.synced().0;
        while self
            .going
            .front()
            .is_some_and(|(_, after)| *after <= synced)
        {
            self.going.pop_front();
        }
        let oldest = self.sealed.front().map_or(self.base, |chunk| chunk.base);
        self.going.front().map_or(oldest, |(base, _)| *base)
    }

    /// Where the next record goes, or would if it fits.
    pub fn end(&self) -> Position {
        Position(
            self.active
                .as_ref()
                .map_or(self.base, |active| active.base + active.end as u64),
        )
    }

    /// Bytes of its segments.
    pub fn size(&self) -> u64 {
        let oldest = self.sealed.front().or(self.active.as_ref());
        self.base - oldest.map_or(self.base, |chunk| chunk.base)
    }

    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.sealed.len() + usize::from(self.active.is_some())
    }

    /// Prepared segments behind the active one.
    #[inline]
    fn spares(&self) -> usize {
        match &self.medium {
            Medium::Heap(heap) => heap.spares(self.shape.next(self.size())),
            Medium::Disk(line) => line.spares(),
            Medium::None => 0,
        }
    }

    // ---- durability ----

    /// Everything before this position outlives a power loss.
    pub fn synced(&self) -> Position {
        Position(match &self.medium {
            Medium::Heap(heap) => heap.synced(),
            Medium::Disk(line) => line.synced(),
            Medium::None => 0,
        })
    }

    /// Have everything that has been appended synced soon. Cheap; may be said again and again.
    pub fn want_sync(&mut self) {
        if self.spoilt() {
            return;
        }
        let end = self.end().0;
        match &mut self.medium {
            Medium::Heap(heap) => heap.want(end),
            Medium::Disk(line) => line.want(end),
            Medium::None => {}
        }
    }

    /// Whether a sync has failed: [`Log::synced`] doesn't move any more, and nothing is taken.
    #[inline]
    pub fn failed(&self) -> bool {
        match &self.medium {
            Medium::Heap(heap) => heap.failed(),
            Medium::Disk(line) => line.failed(),
            Medium::None => false,
        }
    }

    /// Syncs done since it was opened.
    pub fn syncs(&self) -> u64 {
        match &self.medium {
            Medium::Disk(line) => line.syncs(),
            Medium::Heap(_) | Medium::None => 0,
        }
    }

    /// Segments of which a page could not be read or written since they were mapped, by the names of their files.
    pub fn damaged(&self) -> impl Iterator<Item = &str> {
        let chunks = self.sealed.iter().chain(&self.active);
        chunks
            .filter(|chunk| chunk.segment.damaged())
            .map(|chunk| chunk.name.as_str())
    }

    /// What the operator should know, if anything: it is there as long as it holds.
    pub fn trouble(&self) -> Option<Trouble> {
        match &self.medium {
            Medium::Disk(line) => line.trouble(),
            _ => None,
        }
    }

    /// Gives the page cache back what a scan or the past has brought in: pages of old segments count as the system's then, not as this
    /// process's, and come back when they are read. For after a recovery.
    pub fn let_go(&self) {
        for chunk in &self.sealed {
            chunk.segment.let_go();
        }
    }

    // ---- the heap medium's own ----

    fn heap(&mut self) -> &mut Heap {
        match &mut self.medium {
            Medium::Heap(heap) => heap,
            _ => panic!("for logs on the heap"),
        }
    }

    /// From now on a wanted sync of a heap log waits for [`Log::complete_sync`].
    pub fn hold_sync(&mut self) {
        self.heap().hold();
    }

    /// A heap log's wanted sync is done.
    pub fn complete_sync(&mut self) {
        self.heap().complete();
    }

    /// A heap log's sync fails.
    pub fn fail(&mut self) {
        self.heap().fail();
    }

    /// Another limit for a heap log: a disk that fills, or has room again.
    pub fn set_limit(&mut self, limit: u64) {
        self.heap().set_limit(limit);
    }

    /// The files that a crash at this moment leaves of a heap log.
    pub fn image(&self, loss: Loss) -> Image {
        let Medium::Heap(heap) = &self.medium else {
            panic!("only a log on the heap has an image");
        };
        let chunks = self.sealed.iter().chain(&self.active);
        heap.image(chunks, loss)
    }

    // ---- finding ----

    #[inline]
    fn locate(&self, at: Position) -> Option<(&Chunk, usize)> {
        match &self.active {
            Some(active) if active.base <= at.0 => {
                let offset = (at.0 - active.base) as usize;
                (offset < active.end).then_some((active, offset))
            }
            _ => Self::among(&self.sealed, at),
        }
    }

    #[inline]
    fn among(sealed: &VecDeque<Chunk>, at: Position) -> Option<(&Chunk, usize)> {
        let behind = sealed.partition_point(|chunk| chunk.base <= at.0);
        let chunk = sealed.get(behind.checked_sub(1)?)?;
        let offset = (at.0 - chunk.base) as usize;
        (offset < chunk.segment.len()).then_some((chunk, offset))
    }

    /// The chunk that holds `at`, or else the first behind it.
    fn at_or_behind(&self, at: Position) -> Option<&Chunk> {
        let index = self
            .sealed
            .partition_point(|chunk| chunk.base + chunk.size <= at.0);
        self.sealed.get(index).or(self
            .active
            .as_ref()
            .filter(|active| at.0 < active.base + active.size))
    }

    /// Panics if the chain is not in order.
    pub fn check_invariants(&self) {
        let mut end = 0;
        for chunk in self.sealed.iter().chain(&self.active) {
            assert!(chunk.base >= end, "segments overlap");
            assert!(chunk.end <= chunk.segment.len() && chunk.end >= HEAD);
            end = chunk.base + chunk.size;
        }
        assert!(end <= self.base, "a segment lies behind the end");
        assert!(self.active.is_none() || end == self.base);
        assert!(self.synced() <= self.end());
    }
}

/// See [`Log::walk`].
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    log: &'a Log,
    at: Position,
    /// Where the last record stood: most often the next one stands there too.
    chunk: Option<&'a Chunk>,
}

impl Walk<'_> {
    /// Where it goes on.
    pub fn position(&self) -> Position {
        self.at
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Record<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let chunk = match self.chunk {
                Some(chunk) if self.at.0 < chunk.base + chunk.size => chunk,
                _ => self.log.at_or_behind(self.at)?,
            };
            self.chunk = Some(chunk);
            let offset = self
                .at
                .0
                .saturating_sub(chunk.base)
                .max(HEAD as u64)
                .next_multiple_of(8) as usize;
            let position = Position(chunk.base + offset as u64);
            let behind = Position(chunk.base + chunk.size);
            if offset >= chunk.end {
                self.at = behind;
                continue;
            }
            match chunk.field(self.log.key).step(offset) {
                Step::Record(header, payload) => {
                    let record = Record {
                        at: position,
                        header,
                        payload,
                    };
                    self.at = record.end();
                    return Some(Ok(record));
                }
                Step::Bad(to) => {
                    self.at = Position(chunk.base + to as u64);
                    return Some(Err(chunk.damage(offset, to - offset, What::Records)));
                }
                Step::Sealed => self.at = behind,
                Step::Open(_) => {
                    self.at = behind;
                    return Some(Err(chunk.damage(offset, chunk.end - offset, What::Rest)));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
