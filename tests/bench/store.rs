//! What the store does in a second, on one core: `cargo bench --bench store -- [SESSIONS] [DIRECTORY]`.
//!
//! Sessions (500,000) have a state of 150 bytes; messages of 64 bytes go to them in an order that no cache knows, four to each. Without a directory
//! the log is on the heap; with one it is of mapped files, synced by the syncer as for `durability = "process"`, and the log is read again from
//! the page cache. `cargo test --bench store` does a little of each, to see that it works.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use stillwire::ids::{SessionId, SessionIdx};
use stillwire::store::heap::Loss;
use stillwire::store::log::{Log, Shape};
use stillwire::store::syncer::Syncer;
use stillwire::store::{Recovered, Refused, Store};

// As the server has it.
#[global_allocator]
static ALLOCATOR: stillwire::sys::memory::Allocator = stillwire::sys::memory::Allocator;

const KEY: u64 = 0x1234_5678_9abc_def1;
const STATE: [u8; 150] = [7; 150];
const BODY: [u8; 64] = [8; 64];
const META: [u8; 12] = [9; 12];
const EACH: u32 = 4;

fn main() -> ExitCode {
    let (mut is_bench, mut words) = (false, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--bench" => is_bench = true,
            _ => words.push(argument),
        }
    }
    let sessions = if is_bench { 500_000 } else { 500 };
    let sessions = words.first().map_or(Ok(sessions), |word| word.parse());
    let Ok(sessions) = sessions else {
        eprintln!("usage: cargo bench --bench store -- [SESSIONS] [DIRECTORY]");
        return ExitCode::from(2);
    };
    // Segments are prepared as long as it is there.
    let syncer = Syncer::start(Duration::from_millis(100)).expect("a thread");
    let log = match words.get(1) {
        None => Log::in_memory(1 << 40, KEY, 0, Shape::default()),
        Some(directory) => open(Path::new(directory), &syncer).0,
    };
    let store = run(Store::new(log, KEY), sessions);
    if let Some(directory) = words.get(1) {
        drop(store);
        time("read the log from files", 1, || {
            let (log, damage) = open(Path::new(directory), &syncer);
            let opened = stillwire::store::log::Opened { log, damage };
            report(&Recovered::read(opened, KEY));
        });
    } else {
        let image = store.log().image(Loss::Process);
        drop(store);
        let opened = Log::from_image(&image, 1 << 40, KEY, 0, Shape::default());
        drop(image);
        time("read the log", 1, || report(&Recovered::read(opened, KEY)));
        let mut store = Store::in_memory(1 << 40, KEY);
        for idx in 0..sessions {
            let session = SessionId {
                idx: SessionIdx(idx),
                serial: idx + 1,
            };
            insist(|| store.create(session, &STATE));
        }
        let image = store.log().image(Loss::Process);
        drop(store);
        let opened = Log::from_image(&image, 1 << 40, KEY, 0, Shape::default());
        drop(image);
        time("read a log of states alone", u64::from(sessions), || {
            report(&Recovered::read(opened, KEY));
        });
    }
    ExitCode::SUCCESS
}

fn open(directory: &Path, syncer: &Syncer) -> (Log, Vec<stillwire::store::Damage>) {
    std::fs::create_dir_all(directory).expect("a directory");
    let opened = Log::open(directory, KEY, 0, Shape::default(), syncer, || ()).expect("a log");
    (opened.log, opened.damage)
}

fn report(recovered: &Recovered) {
    let stats = recovered.store.stats();
    assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
    println!(
        "  {} records, {} sessions, {} messages, {:.0} MB of log, {:.0} MB of memory",
        recovered.records,
        stats.sessions,
        stats.messages,
        stats.log as f64 / 1e6,
        stats.memory as f64 / 1e6
    );
}

/// Says how long one of `count` takes.
fn time<T>(what: &str, count: u64, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let taken = start.elapsed();
    let each = taken.as_nanos() as f64 / count as f64;
    println!(
        "{what}: {:.3} s, {each:.0} ns each, {:.2} million a second",
        taken.as_secs_f64(),
        1e3 / each
    );
    result
}

/// A disk may be slower than this program: then it waits.
fn insist<T>(mut attempt: impl FnMut() -> Result<T, Refused>) -> T {
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(Refused::Full) => std::thread::yield_now(),
            Err(Refused::Failed) => panic!("the disk has failed"),
        }
    }
}

fn run(mut store: Store, sessions: u32) -> Store {
    let id = |idx: u32| SessionId {
        idx: SessionIdx(idx),
        serial: idx + 1,
    };
    // A prime: the steps visit all.
    let scattered = move |step: u32| id((u64::from(step) * 1_000_003 % u64::from(sessions)) as u32);
    let all = u64::from(sessions);
    time("create", all, || {
        for idx in 0..sessions {
            insist(|| store.create(id(idx), &STATE));
        }
    });
    let sessions_memory = store.stats().memory as f64 / all as f64;
    println!("  {sessions_memory:.1} bytes of memory a session");
    time("append", all * u64::from(EACH), || {
        for step in 0..sessions * EACH {
            insist(|| store.append(scattered(step), 0, &META, &[&BODY]));
        }
    });
    let queued = store.stats();
    let memory = (queued.memory as f64 / all as f64 - sessions_memory) / f64::from(EACH);
    println!("  {memory:.1} bytes of memory a message, with {EACH} in a queue");
    time("append to all, one body", all, || {
        let body = insist(|| store.share(&[&BODY]));
        for idx in 0..sessions {
            insist(|| store.append_shared(id(idx), 0, 1, body));
        }
        insist(|| store.commit());
        store.release(body);
    });
    let mut bytes = 0;
    time("read", all * u64::from(EACH + 1), || {
        // In another order than they were appended: each is somewhere else in the log.
        for idx in 0..sessions {
            let session = id(idx);
            for seq in 0..=EACH {
                let item = store.item(session.idx, seq).expect("an entry");
                bytes += item.body.len();
            }
        }
    });
    assert_eq!(bytes, BODY.len() * (all as usize * (EACH as usize + 1)));
    // Four fifths of all go.
    time("done", all * u64::from(EACH + 1) * 4 / 5, || {
        for idx in 0..sessions / 5 * 4 {
            let session = id(idx);
            for seq in 0..=EACH {
                insist(|| store.done(session, seq));
            }
        }
    });
    time("clean", 1, || {
        let before = store.stats().log;
        store.set_slack(0);
        while store.clean(1 << 20, |_, _, out| out.extend_from_slice(&STATE)) {}
        let after = store.stats();
        println!(
            "  {:.0} MB of log, {:.0} MB before, {:.0} MB live",
            after.log as f64 / 1e6,
            before as f64 / 1e6,
            after.live as f64 / 1e6
        );
    });
    store
}
