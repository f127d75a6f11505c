//! The threads that wait for the disk, so that no reactor does: one prepares segments ahead, one syncs and removes.
//!
//! They own every descriptor of a segment that may still be written: reactors have fd tables of their own and get mappings only. A reactor
//! and the threads share a [`Line`] a log: prepared segments in one direction, begun and given-up ones in the other, and atomics for what
//! is asked on every turn.
//!
//! ```text
//!   preparer: create, allocate, map ──► spares ──► reactor begins one ──► begun ──► syncer: fdatasync up to `end` ──► synced, wake
//!                                                            reactor gives one up ──► leaving ──► syncer: unlink, once all is synced
//! ```
//!
//! A disk that is full is asked again every second. A failed fdatasync is final: the kernel may have dropped what it could not write and
//! would call the next one a success.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::chain::Chunk;
use super::disk::{Disk, Real};
use super::format;
use super::log::Shape;
use super::segment::Segment;
use crate::limits;

/// Why a log takes nothing at the moment, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No segment can be prepared: the file and the system's words. Tried again every second.
    Full(PathBuf, String),
    /// A sync failed. For good.
    Failed(PathBuf, String),
    /// A file that is not needed any more can't be removed. Tried again every second; nothing but space is lost.
    Stuck(PathBuf, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(path, error) => write!(
                f,
                "{}: cannot prepare the next segment of the log: {error}; durable messages are refused until there is room in its directory",
                path.display()
            ),
            Self::Failed(path, error) => write!(
                f,
                "{}: the disk failed to keep what was written: {error}; nothing more is acknowledged as stored. Look at the kernel's log, repair the disk, and start again",
                path.display()
            ),
            Self::Stuck(path, error) => write!(
                f,
                "{}: cannot remove a file of the log that is not needed any more: {error}; give this user the right to write its directory",
                path.display()
            ),
        }
    }
}

/// Prepared segments with which a log takes messages: one to go on in, and one that is left for what makes room.
const ENOUGH: usize = 2;

/// A segment that nobody has begun.
struct Spare {
    number: u64,
    segment: Segment,
}

/// A file whose bytes may not be on the disk yet.
struct Unsynced {
    /// None: not opened since the start.
    file: Option<File>,
    /// Its positions; none until it is begun.
    range: Option<(u64, u64)>,
}

/// What a reactor and the threads share of one log.
pub(super) struct Line {
    directory: PathBuf,
    /// Wakes the reactor when `synced` has moved or nothing will move any more.
    wake: Box<dyn Fn() + Send + Sync>,
    /// Bytes that the next segment should have; grows with the log.
    size: AtomicUsize,
    /// Bytes of the largest segment that is made for speed.
    largest: usize,
    /// Bytes that one of those prepared has to have always, for the largest record.
    standing: usize,
    /// Bytes of the smallest segment that is of use: what a disk that is nearly full is asked for.
    least: usize,
    /// Bytes that the next one has to have, for a record that fits none.
    demand: AtomicUsize,
    ready: AtomicUsize,
    spares: Mutex<VecDeque<Spare>>,
    /// Told when a spare is there, or can't be had.
    made: Condvar,
    next: AtomicU64,
    /// Segments begun.
    begun: AtomicU64,
    /// The preparer's own.
    pace: Mutex<Pace>,
    unsynced: Mutex<BTreeMap<u64, Unsynced>>,
    /// Given up, and the position that has to be synced before.
    leaving: Mutex<Vec<(Chunk, u64)>>,
    /// Appended up to here, as of the last wish for a sync.
    end: AtomicU64,
    synced: AtomicU64,
    /// Syncs done.
    syncs: AtomicU64,
    failed: AtomicBool,
    /// Nobody appends any more.
    ended: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format::file_name(number))
    }

    /// Waits until the first segments are prepared: a log without any would refuse the first clients. A disk that is full or slow gets no
    /// longer than it gets for a second try; then the log refuses, and says why.
    fn wait_for_spares(&self) {
        let missing = |spares: &mut VecDeque<Spare>| {
            let largest = spares.iter().map(|spare| spare.segment.len()).max();
            let few = spares.len() < limits::SPARES || largest < Some(self.standing);
            few && lock(&self.trouble).is_none()
        };
        let spares = lock(&self.spares);
        let waited = self
            .made
            .wait_timeout_while(spares, limits::DISK_RETRY, missing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Closes files that were written to their end long ago; they are opened again to be synced.
    fn close_some(&self) {
        let mut unsynced = lock(&self.unsynced);
        let open = |file: &&mut Unsynced| file.file.is_some() && file.range.is_some();
        let many = unsynced.values_mut().filter(open).count();
        let close = many.saturating_sub(limits::UNSYNCED_FILES);
        for file in unsynced.values_mut().filter(open).take(close) {
            file.file = None;
        }
    }

    fn trouble(&self, trouble: Trouble) {
        let mut place = lock(&self.trouble);
        // The worst is kept.
        if !matches!(*place, Some(Trouble::Failed(..))) {
            *place = Some(trouble);
        }
    }

    /// Whether somebody appends to it who is refused, because no segment can be prepared.
    fn is_full(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
            && matches!(*lock(&self.trouble), Some(Trouble::Full(..)))
    }

    fn healed(&self, is: impl FnOnce(&Trouble) -> bool) {
        lock(&self.trouble).take_if(|trouble| is(trouble));
    }
}

/// What all logs' threads share.
struct Inner {
    disk: Box<dyn Disk>,
    delay: Duration,
    lines: Mutex<Vec<Arc<Line>>>,
    stop: AtomicBool,
}

/// The threads. Dropping it ends them: what has been asked for is synced first, and what was prepared for nothing removed.
///
/// Start it in the thread whose fd table lives as long as the process; open logs from wherever they are used.
pub struct Syncer {
    inner: Arc<Inner>,
    preparer: Thread,
    syncing: Thread,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Syncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Syncer({} logs)", lock(&self.inner.lines).len())
    }
}

impl Syncer {
    /// Starts the threads. A sync waits `delay` for others to come, so that they share it; zero is best on disks that are fast.
    pub fn start(delay: Duration) -> io::Result<Self> {
        Self::with_disk(Real, delay)
    }

    /// The same with a disk of one's own.
    pub fn with_disk(disk: impl Disk, delay: Duration) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            disk: Box::new(disk),
            delay,
            lines: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        });
        let spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(&inner);
            let stack = limits::SYNCER_STACK;
            let builder = Builder::new().name(name.into()).stack_size(stack);
            builder.spawn(move || run(&inner))
        };
        let preparer = spawn("preparer", Inner::prepare)?;
        let syncer = spawn("syncer", Inner::sync)?;
        Ok(Self {
            preparer: preparer.thread().clone(),
            syncing: syncer.thread().clone(),
            threads: vec![preparer, syncer],
            inner,
        })
    }

    /// Another log. `old` are the files it was opened with, and `base` where its next segment begins: all of that is synced once, for
    /// nobody knows what the process before had left to be written.
    pub(super) fn join(
        &self,
        directory: &Path,
        next: u64,
        old: &VecDeque<Chunk>,
        base: u64,
        shape: &Shape,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Handle {
        let mut synced = base;
        let unsynced = old.iter().map(|chunk| {
            synced = synced.min(chunk.base);
            let range = Some((chunk.base, chunk.base + chunk.size));
            (chunk.number, Unsynced { file: None, range })
        });
        let unsynced = unsynced.collect();
        let line = Arc::new(Line {
            directory: directory.to_owned(),
            wake,
            size: AtomicUsize::new(shape.next(0)),
            largest: shape.largest,
            standing: shape.standing(),
            least: shape.next(0),
            demand: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            spares: Mutex::default(),
            made: Condvar::new(),
            next: AtomicU64::new(next),
            begun: AtomicU64::new(0),
            pace: Mutex::new(Pace::new()),
            unsynced: Mutex::new(unsynced),
            leaving: Mutex::default(),
            end: AtomicU64::new(base),
            synced: AtomicU64::new(synced),
            syncs: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            trouble: Mutex::default(),
        });
        lock(&self.inner.lines).push(Arc::clone(&line));
        self.preparer.unpark();
        self.syncing.unpark();
        line.wait_for_spares();
        Handle {
            line,
            preparer: self.preparer.clone(),
            syncer: self.syncing.clone(),
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Release);
        self.preparer.unpark();
        self.syncing.unpark();
        for thread in self.threads.drain(..) {
            // It has panicked if this fails, and that has been said.
            _ = thread.join();
        }
    }
}

/// A reactor's end of a line.
pub(super) struct Handle {
    line: Arc<Line>,
    preparer: Thread,
    syncer: Thread,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.line.directory.display())
    }
}

impl Handle {
    /// Prepared segments.
    #[inline]
    pub(super) fn spares(&self) -> usize {
        self.line.ready.load(Ordering::Relaxed)
    }

    /// The smallest prepared segment that is large enough, and of those the oldest; `wanted` is the size of the ones to come.
    pub(super) fn take(&self, wanted: usize, needed: usize) -> Option<(u64, String, Segment)> {
        let line = &*self.line;
        line.size.store(wanted, Ordering::Relaxed);
        let spare = {
            let mut spares = lock(&line.spares);
            let fits = |spare: &Spare| spare.segment.len() >= needed;
            let spare = spares
                .iter()
                .enumerate()
                .filter(|(_, spare)| fits(spare))
                .min_by_key(|(_, spare)| spare.segment.len())
                .map(|(at, _)| at)
                .and_then(|at| spares.remove(at));
            line.ready.store(spares.len(), Ordering::Relaxed);
            spare
        };
        if spare.is_some() {
            line.begun.fetch_add(1, Ordering::Relaxed);
        } else {
            line.demand.fetch_max(needed, Ordering::Relaxed);
        }
        self.preparer.unpark();
        let spare = spare?;
        let name = line.path(spare.number).display().to_string();
        Some((spare.number, name, spare.segment))
    }

    /// That segment now holds these positions.
    pub(super) fn begun(&self, number: u64, base: u64, size: u64) {
        if let Some(file) = lock(&self.line.unsynced).get_mut(&number) {
            file.range = Some((base, base + size));
        }
    }

    /// Everything before `end` shall be synced.
    pub(super) fn want(&self, end: u64) {
        if self.line.end.fetch_max(end, Ordering::AcqRel) < end {
            self.syncer.unpark();
        }
    }

    /// A segment that goes when everything before `after` is synced.
    pub(super) fn remove(&self, chunk: Chunk, after: u64) {
        lock(&self.line.leaving).push((chunk, after));
        self.want(after);
        self.syncer.unpark();
    }

    pub(super) fn synced(&self) -> u64 {
        self.line.synced.load(Ordering::Acquire)
    }

    pub(super) fn syncs(&self) -> u64 {
        self.line.syncs.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn failed(&self) -> bool {
        self.line.failed.load(Ordering::Relaxed)
    }

    /// A page of that file is not what was written to it.
    pub(super) fn fail(&self, file: &str) {
        let error = "a page of it could not be written, or the file was cut short".into();
        self.line.trouble(Trouble::Failed(file.into(), error));
        self.line.failed.store(true, Ordering::Release);
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        lock(&self.line.trouble).clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The log has ended: what was prepared for it is of no use.
        self.line.ended.store(true, Ordering::Release);
        self.preparer.unpark();
    }
}

// ---- the preparer ----

/// How fast a log fills its segments.
struct Pace {
    begun: u64,
    since: Instant,
    /// The sizes are multiplied by this: segments that last less than a second come so often that the disk would set the pace.
    boost: usize,
}

impl Inner {
    fn lines(&self) -> Vec<Arc<Line>> {
        lock(&self.lines).clone()
    }

    fn prepare(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let mut full = false;
            let lines = self.lines();
            // What room there is goes round first: a log that fills fast would take all of it ahead of time, and one that has nothing goes on refusing.
            let is_scarce = lines.iter().any(|line| line.is_full());
            for line in lines {
                if line.ended.load(Ordering::Acquire) {
                    self.clear(&line);
                    continue;
                }
                line.close_some();
                full |= !self.prepare_for(&line, is_scarce);
            }
            if full {
                std::thread::park_timeout(limits::DISK_RETRY);
            } else if !is_scarce {
                std::thread::park();
            }
        }
        for line in self.lines() {
            self.clear(&line);
        }
    }

    /// Removes what was prepared for nothing.
    fn clear(&self, line: &Line) {
        let mut spares = lock(&line.spares);
        line.ready.store(0, Ordering::Relaxed);
        for spare in spares.drain(..) {
            lock(&line.unsynced).remove(&spare.number);
            // Of no harm if it stays: the next start removes it.
            _ = self.disk.remove(&line.path(spare.number));
        }
    }

    /// Prepares what is missing, and where room is scarce no more than a log needs to take messages; false: it could not.
    fn prepare_for(&self, line: &Line, is_scarce: bool) -> bool {
        let boost = lock(&line.pace).boost(line.begun.load(Ordering::Relaxed));
        let (boost, most) = if is_scarce {
            (1, ENOUGH)
        } else {
            (boost, limits::SPARES)
        };
        // A disk that is nearly full may have room for smaller ones.
        let mut is_short = false;
        loop {
            let asked = line.demand.load(Ordering::Relaxed);
            let ready = line.ready.load(Ordering::Relaxed);
            let is_met = |spare: &Spare| spare.segment.len() >= line.standing;
            let demand = if ready >= most && !lock(&line.spares).iter().any(is_met) {
                asked.max(line.standing)
            } else {
                asked
            };
            if line.failed.load(Ordering::Relaxed) || (ready >= most && demand == 0) {
                return true;
            }
            let size = line.size.load(Ordering::Relaxed);
            let size = size.max((size * boost).min(line.largest));
            let size = if is_short { line.least } else { size };
            let size = size.max(demand.next_power_of_two());
            let number = line.next.fetch_add(1, Ordering::Relaxed);
            let path = line.path(number);
            let made = self.disk.create(&path, size as u64).and_then(|file| {
                let segment = Segment::map(&file).and_then(|segment| {
                    // Where it pays: pages that are ready count as this process's memory.
                    if boost > 1 {
                        segment.populate()?;
                    }
                    self.disk.sync_directory(&line.directory)?;
                    Ok(segment)
                });
                if segment.is_err() {
                    _ = self.disk.remove(&path);
                }
                segment.map(|segment| (file, segment))
            });
            match made {
                Ok((file, segment)) => {
                    let file = Unsynced {
                        file: Some(file),
                        range: None,
                    };
                    lock(&line.unsynced).insert(number, file);
                    let mut spares = lock(&line.spares);
                    spares.push_back(Spare { number, segment });
                    let ready = spares.len();
                    line.ready.store(ready, Ordering::Relaxed);
                    drop(spares);
                    line.made.notify_all();
                    // A larger one may be wanted by now; then it stays.
                    let met = line.demand.compare_exchange(
                        asked,
                        0,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                    _ = met;
                    if ready >= ENOUGH {
                        line.healed(|trouble| matches!(trouble, Trouble::Full(..)));
                    }
                }
                // A log of an earlier life has just made it, and removes it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) if size > line.least.max(demand.next_power_of_two()) => is_short = true,
                Err(error) => {
                    // Fewer than there should be are no trouble yet.
                    if ready < ENOUGH {
                        line.trouble(Trouble::Full(path, error.to_string()));
                    }
                    line.made.notify_all();
                    return false;
                }
            }
        }
    }
}

impl Pace {
    fn new() -> Self {
        Self {
            begun: 0,
            since: Instant::now(),
            boost: 1,
        }
    }

    /// By how much the next segments shall be larger, after so many were begun.
    fn boost(&mut self, begun: u64) -> usize {
        if begun != self.begun {
            let now = Instant::now();
            let many = u32::try_from(begun - self.begun).unwrap_or(u32::MAX);
            self.boost = if (now - self.since) / many < limits::SEGMENT_LASTS {
                (self.boost * 2).min(limits::SEGMENT_BYTES_MAX / limits::SEGMENT_BYTES_MIN)
            } else {
                (self.boost / 2).max(1)
            };
            self.begun = begun;
            self.since = now;
        }
        self.boost
    }
}

// ---- the syncer ----

impl Inner {
    fn sync(&self) {
        loop {
            // Read before the lines are looked at: what was wanted before the stop is done.
            let stop = self.stop.load(Ordering::Acquire);
            let lines = self.lines();
            let wanted = |line: &Arc<Line>| {
                line.end.load(Ordering::Acquire) > line.synced.load(Ordering::Relaxed)
                    && !line.failed.load(Ordering::Relaxed)
            };
            let busy = lines.iter().any(wanted);
            if busy && !self.delay.is_zero() && !stop {
                std::thread::sleep(self.delay);
            }
            for line in lines.iter().filter(|line| wanted(line)) {
                self.sync_line(line);
                (line.wake)();
            }
            let mut stuck = false;
            for line in &lines {
                stuck |= !self.remove_from(line);
            }
            if stop {
                return;
            }
            if stuck {
                std::thread::park_timeout(limits::DISK_RETRY);
            } else if !busy {
                std::thread::park();
            }
        }
    }

    /// Syncs everything that was appended when this begins.
    fn sync_line(&self, line: &Line) {
        let end = line.end.load(Ordering::Acquire);
        // Whatever was begun before `end` has been noted before it was said.
        let before: Vec<(u64, Option<File>)> = lock(&line.unsynced)
            .iter_mut()
            .filter(|(_, file)| file.range.is_some_and(|(base, _)| base < end))
            .map(|(number, file)| (*number, file.file.take()))
            .collect();
        let mut done = Vec::with_capacity(before.len());
        let mut failure = None;
        for (number, file) in before {
            let path = line.path(number);
            let synced = file
                .map_or_else(|| self.disk.open(&path), Ok)
                .and_then(|file| self.disk.sync(&file).map(|()| file));
            match synced {
                Ok(file) => done.push((number, file)),
                Err(error) => {
                    failure = Some((path, error));
                    break;
                }
            }
        }
        if let Some((path, error)) = failure {
            line.trouble(Trouble::Failed(path, error.to_string()));
            line.failed.store(true, Ordering::Release);
            return;
        }
        let mut unsynced = lock(&line.unsynced);
        for (number, file) in done {
            match unsynced.get_mut(&number) {
                Some(entry) if entry.range.is_some_and(|(_, over)| over > end) => {
                    entry.file = Some(file);
                }
                // All of it: nothing more is written to it.
                _ => {
                    unsynced.remove(&number);
                }
            }
        }
        drop(unsynced);
        line.syncs.fetch_add(1, Ordering::Relaxed);
        line.synced.fetch_max(end, Ordering::Release);
    }

    /// Removes what may go; false: something could not.
    fn remove_from(&self, line: &Line) -> bool {
        let synced = line.synced.load(Ordering::Relaxed);
        let going: Vec<(Chunk, u64)> = lock(&line.leaving)
            .extract_if(.., |(_, after)| *after <= synced)
            .collect();
        if going.is_empty() {
            return true;
        }
        let mut stuck = Vec::new();
        for (chunk, after) in going {
            let path = line.path(chunk.number);
            // In order, so that a crash never leaves an older one without a newer.
            if !stuck.is_empty() {
                stuck.push((chunk, after));
                continue;
            }
            match self.disk.remove(&path) {
                Ok(()) => {
                    lock(&line.unsynced).remove(&chunk.number);
                }
                Err(error) => {
                    line.trouble(Trouble::Stuck(path, error.to_string()));
                    stuck.push((chunk, after));
                }
            }
        }
        // If this fails the files come back at worst, and are told by their bases.
        _ = self.disk.sync_directory(&line.directory);
        let all = stuck.is_empty();
        if all {
            line.healed(|trouble| matches!(trouble, Trouble::Stuck(..)));
        }
        let mut leaving = lock(&line.leaving);
        stuck.append(&mut leaving);
        *leaving = stuck;
        all
    }
}
