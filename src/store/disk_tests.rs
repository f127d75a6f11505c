//! A log in a directory, on a disk that fails when it is told to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::damage::What;
use super::disk::{Disk, Real};
use super::files::OpenError;
use super::format::{self, Header, Kind, Position};
use super::log::{Log, Refused, Shape, Urgency};
use super::syncer::{Syncer, Trouble};

const SMALL: Shape = Shape {
    smallest: 4096,
    largest: 16384,
    payload: 1000,
};
const KEY: u64 = 7;

/// A directory of a test's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("stillwire-log-{name}-{}", std::process::id())))
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the disk does not do.
#[derive(Clone, Default)]
struct Faults(Arc<FaultsInner>);

#[derive(Default)]
struct FaultsInner {
    full: AtomicBool,
    /// Bytes of the largest file that there is room for; 0: any.
    room: AtomicU64,
    unsynced: AtomicBool,
    stuck: AtomicBool,
    syncs: AtomicUsize,
}

impl Disk for Faults {
    fn create(&self, path: &Path, size: u64) -> io::Result<File> {
        let room = self.0.room.load(Ordering::SeqCst);
        if self.0.full.load(Ordering::SeqCst) || room > 0 && size > room {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Real.create(path, size)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        Real.open(path)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        if self.0.unsynced.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Real.sync(file)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.0.stuck.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        Real.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        Real.sync_directory(path)
    }
}

/// Waits for what threads bring about.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}

fn open(scratch: &Scratch, syncer: &Syncer) -> Log {
    let opened = Log::open(&scratch.0, KEY, 0, SMALL, syncer, || ()).unwrap();
    assert_eq!(opened.damage, []);
    opened.log.check_invariants();
    opened.log
}

fn header(seq: u32) -> Header {
    Header {
        seq,
        ..Header::new(Kind::Message)
    }
}

/// Appends, as soon as a segment has been prepared.
fn put(log: &mut Log, seq: u32) -> Position {
    let payload = [seq as u8; 100];
    let mut at = None;
    until("room", || {
        at = log.append(Urgency::Message, &header(seq), &[&payload]).ok();
        at.is_some()
    });
    at.unwrap()
}

fn seqs(log: &Log) -> Vec<u32> {
    let records = log.records().map(|record| record.unwrap());
    records.map(|record| record.header.seq).collect()
}

fn sync(log: &mut Log) {
    log.want_sync();
    let end = log.end();
    until("synced", || log.synced() >= end);
}

#[test]
fn a_log_comes_back_from_its_directory() {
    let scratch = Scratch::new("back");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    let places: Vec<Position> = (0..200).map(|seq| put(&mut log, seq)).collect();
    assert!(log.segments() > 3);
    assert_eq!(log.read(places[0]).unwrap().payload, [0; 100]);
    log.let_go();
    assert_eq!(seqs(&log), (0..200).collect::<Vec<_>>());
    drop(log);
    let mut log = open(&scratch, &syncer);
    assert_eq!(seqs(&log), (0..200).collect::<Vec<_>>());
    assert!(put(&mut log, 200) > places[199]);
    drop((log, syncer));
    // What was prepared and not used is gone when the threads are.
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let log = open(&scratch, &syncer);
    assert_eq!(seqs(&log), (0..=200).collect::<Vec<_>>());
    let segments = log.segments();
    drop((log, syncer));
    assert_eq!(scratch.files().len(), segments);
}

#[test]
fn a_sync_covers_what_was_appended_and_wakes_the_reactor() {
    let scratch = Scratch::new("sync");
    let syncer = Syncer::start(Duration::from_micros(200)).unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let wake = Arc::clone(&woken);
    let opened = Log::open(&scratch.0, KEY, 0, SMALL, &syncer, move || {
        wake.fetch_add(1, Ordering::SeqCst);
    });
    let mut log = opened.unwrap().log;
    for seq in 0..100 {
        put(&mut log, seq);
    }
    assert_eq!(
        (log.synced(), woken.load(Ordering::SeqCst)),
        (Position(0), 0)
    );
    sync(&mut log);
    until("woken", || woken.load(Ordering::SeqCst) > 0);
    put(&mut log, 100);
    assert!(log.synced() < log.end());
    sync(&mut log);
    drop(log);
    // After a restart nothing counts as synced until it has been.
    let mut log = open(&scratch, &syncer);
    let end = log.end();
    until("what the process before left", || log.synced() == end);
    sync(&mut log);
}

#[test]
fn the_oldest_file_goes_after_the_sync_and_not_without() {
    let scratch = Scratch::new("oldest");
    let faults = Faults::default();
    let syncer = Syncer::with_disk(faults.clone(), Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    for seq in 0..600 {
        put(&mut log, seq);
    }
    let first = scratch.files().remove(0);
    let second = scratch.files().remove(1);
    log.drop_oldest();
    until("removed", || !first.exists());
    assert!(log.synced() > Position(0));

    faults.0.stuck.store(true, Ordering::SeqCst);
    log.drop_oldest();
    until("trouble", || log.trouble().is_some());
    assert!(matches!(log.trouble(), Some(Trouble::Stuck(..))));
    assert!(second.exists());
    faults.0.stuck.store(false, Ordering::SeqCst);
    until("removed", || !second.exists());
    until("healed", || log.trouble().is_none());

    put(&mut log, 100);
    let third = scratch.files().remove(0);
    faults.0.unsynced.store(true, Ordering::SeqCst);
    log.drop_oldest();
    until("failed", || log.failed());
    drop((log, syncer));
    assert!(third.exists());
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let scratch = Scratch::new("full");
    let faults = Faults::default();
    let syncer = Syncer::with_disk(faults.clone(), Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    put(&mut log, 0);
    faults.0.full.store(true, Ordering::SeqCst);
    until("full", || {
        let refused = log.append(Urgency::Message, &header(1), &[&[1; 1000]]);
        matches!(log.trouble(), Some(Trouble::Full(..))) && refused == Err(Refused::Full)
    });
    let taken = log.records().count();
    let trouble = log.trouble().unwrap().to_string();
    assert!(
        trouble.contains(".seg: cannot prepare") && !trouble.contains('\n'),
        "{trouble}"
    );
    let mut control = 0;
    while log
        .append(Urgency::Control, &header(0), &[&[2; 100]])
        .is_ok()
    {
        control += 1;
    }
    assert!(control > 25);
    assert_eq!(
        log.append(Urgency::Moved, &header(0), &[&[2; 100]]),
        Err(Refused::Full)
    );
    assert_eq!(seqs(&log).len(), taken + control);
    faults.0.full.store(false, Ordering::SeqCst);
    put(&mut log, 2);
    until("healed", || log.trouble().is_none());
}

#[test]
fn the_largest_record_finds_a_segment_without_having_to_ask() {
    let scratch = Scratch::new("largest");
    let syncer = Syncer::with_disk(Real, Duration::ZERO).unwrap();
    let shape = Shape {
        payload: 10 * SMALL.largest,
        ..SMALL
    };
    let opened = Log::open(&scratch.0, KEY, 3, shape, &syncer, || ()).unwrap();
    let mut log = opened.log;
    let largest = vec![1; shape.payload];
    for seq in 0..5 {
        log.append(Urgency::Message, &header(seq), &[b"small"])
            .unwrap();
        // The next one is being prepared.
        until("prepared", || {
            match log.append(Urgency::Message, &header(seq), &[&largest]) {
                Ok(_) => true,
                Err(refused) => {
                    assert!(refused == Refused::Full && seq > 0, "{seq} {refused:?}");
                    false
                }
            }
        });
    }
    let spares = scratch
        .files()
        .iter()
        .filter(|file| file.metadata().unwrap().len() > shape.largest as u64)
        .count();
    assert!(spares <= 6, "one ahead, not more");
}

#[test]
fn a_disk_that_is_nearly_full_is_used_to_its_end() {
    let scratch = Scratch::new("nearly");
    let faults = Faults::default();
    faults.0.room.store(SMALL.smallest as u64, Ordering::SeqCst);
    let syncer = Syncer::with_disk(faults.clone(), Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    // Larger ones are wanted the longer and faster it grows; this disk gives only the smallest.
    for seq in 0..200 {
        put(&mut log, seq);
    }
    assert_eq!(log.trouble(), None);
}

#[test]
fn a_failed_sync_is_never_taken_back() {
    let scratch = Scratch::new("failed");
    let other = Scratch::new("failed-other");
    let faults = Faults::default();
    let syncer = Syncer::with_disk(faults.clone(), Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    let first = put(&mut log, 0);
    sync(&mut log);
    let synced = log.synced();
    faults.0.unsynced.store(true, Ordering::SeqCst);
    put(&mut log, 1);
    log.want_sync();
    until("failed", || log.failed());
    faults.0.unsynced.store(false, Ordering::SeqCst);
    let syncs = faults.0.syncs.load(Ordering::SeqCst);
    for urgency in [Urgency::Message, Urgency::Control, Urgency::Moved] {
        assert_eq!(log.append(urgency, &header(2), &[]), Err(Refused::Failed));
    }
    log.want_sync();
    // Another log's sync goes through the same thread, so that this one's would have been tried.
    let mut healthy = open(&other, &syncer);
    put(&mut healthy, 0);
    sync(&mut healthy);
    assert_eq!(faults.0.syncs.load(Ordering::SeqCst), syncs + 1);
    assert_eq!(log.synced(), synced);
    assert_eq!(log.read(first).unwrap().header.seq, 0);
    assert!(matches!(log.trouble(), Some(Trouble::Failed(..))));
}

#[test]
fn a_large_record_waits_for_a_segment_that_holds_it() {
    let scratch = Scratch::new("large");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    put(&mut log, 0);
    let large = vec![3; 100_000];
    let mut at = log.append(Urgency::Message, &header(1), &[&large]);
    assert_eq!(at, Err(Refused::Full));
    until("room", || {
        at = log.append(Urgency::Message, &header(1), &[&large]);
        at.is_ok()
    });
    assert_eq!(log.read(at.unwrap()).unwrap().payload, large);
    put(&mut log, 2);
    assert_eq!(seqs(&log), [0, 1, 2]);
}

#[test]
fn a_file_that_is_cut_from_outside_is_contained() {
    let scratch = Scratch::new("cut");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    let places: Vec<Position> = (0..100).map(|seq| put(&mut log, seq)).collect();
    sync(&mut log);
    let files = scratch.files();
    let cut = |path: &Path, len| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(len).unwrap();
    };
    cut(&files[0], 0);
    assert_eq!(log.read(places[0]), None);
    assert_eq!(log.read(places[99]).unwrap().header.seq, 99);
    let damage: Vec<_> = log.records().filter_map(Result::err).collect();
    assert_eq!(damage.len(), 1);
    assert_eq!((damage[0].what, damage[0].offset), (What::Rest, 64));
    assert_eq!(damage[0].file, files[0].display().to_string());
    // The one that is written: what goes in is not kept, so nothing is taken any more.
    let active = log.end();
    for file in &files {
        cut(file, 0);
    }
    until("refused", || {
        log.append(Urgency::Control, &header(0), &[&[0; 900]]) == Err(Refused::Failed)
    });
    log.want_sync();
    assert!(log.synced() <= active);
    assert!(matches!(log.trouble(), Some(Trouble::Failed(..))));
}

#[test]
fn a_view_sees_a_log_that_is_written_and_changes_nothing() {
    let scratch = Scratch::new("view");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    assert!(matches!(
        Log::view(&scratch.0),
        Err(OpenError::Directory(..))
    ));
    let mut log = open(&scratch, &syncer);
    assert!(Log::view(&scratch.0).unwrap().is_none());
    for seq in 0..150 {
        put(&mut log, seq);
        let view = Log::view(&scratch.0).unwrap().unwrap();
        assert_eq!(view.damage, []);
        assert_eq!(view.log.records().count() as u32, seq + 1);
        assert!(view.log.records().all(|record| record.is_ok()));
    }
    let mut view = Log::view(&scratch.0).unwrap().unwrap().log;
    assert_eq!(
        view.append(Urgency::Control, &header(0), &[]),
        Err(Refused::Full)
    );
    put(&mut log, 150);
    drop(log);
    assert_eq!(
        seqs(&open(&scratch, &syncer)),
        (0..=150).collect::<Vec<_>>()
    );
}

#[test]
fn what_cannot_be_opened_says_why_and_stays_as_it_is() {
    let scratch = Scratch::new("odd");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let mut log = open(&scratch, &syncer);
    put(&mut log, 0);
    drop((log, syncer));
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let fails = || Log::open(&scratch.0, KEY, 0, SMALL, &syncer, || ()).unwrap_err();

    let newer = scratch.0.join(format::file_name(900));
    let mut head = std::fs::read(&scratch.files()[0]).unwrap();
    head[8] = 2;
    let check = crc32c::crc32c(&head[..60]).to_le_bytes();
    head[60..64].copy_from_slice(&check);
    std::fs::write(&newer, &head).unwrap();
    let before = scratch.files().len();
    let error = fails();
    assert!(
        matches!(&error, OpenError::Newer(path, 2) if *path == newer),
        "{error}"
    );
    assert_eq!(scratch.files().len(), before);

    std::fs::remove_file(&newer).unwrap();
    std::fs::create_dir(&newer).unwrap();
    let error = fails();
    assert!(
        matches!(&error, OpenError::File(path, _) if *path == newer),
        "{error}"
    );
    std::fs::remove_dir(&newer).unwrap();
    // Files of others are none of ours.
    std::fs::write(scratch.0.join("notes.txt"), "").unwrap();
    assert_eq!(seqs(&open(&scratch, &syncer)), [0]);

    let file = scratch.0.join("notes.txt");
    let error = Log::open(&file, KEY, 0, SMALL, &syncer, || ()).unwrap_err();
    assert!(matches!(error, OpenError::Directory(..)), "{error}");
}

/// Reactors have fd tables of their own: no descriptor of a segment may be opened or closed in one.
#[test]
fn a_thread_with_its_own_table_holds_no_file() {
    let scratch = Scratch::new("table");
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        let reactor = scope.spawn(|| {
            crate::sys::table::make_own(&[]).unwrap();
            let mut log = open(&scratch, &syncer);
            for seq in 0..100 {
                put(&mut log, seq);
            }
            sync(&mut log);
            let first = scratch.files().remove(0);
            log.drop_oldest();
            until("removed", || !first.exists());
            let held: Vec<PathBuf> = std::fs::read_dir("/proc/thread-self/fd")
                .unwrap()
                .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
                .filter(|path| path.starts_with(&scratch.0))
                .collect();
            assert_eq!(held, Vec::<PathBuf>::new());
            drop(log);
            let mut log = open(&scratch, &syncer);
            put(&mut log, 100);
            sync(&mut log);
        });
        reactor.join().unwrap();
    });
}
