//! Times of the log, for a quiet machine: `cargo test --release --lib store::figures -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::format::{Header, Kind, Position};
use super::log::{Log, Shape, Urgency};
use super::syncer::Syncer;

const RECORDS: u32 = 2_000_000;

/// 64 bytes of a message after 36 of meta and topic: 124 with the header, 128 in the log.
const META: [u8; 36] = [1; 36];
const BODY: [u8; 64] = [2; 64];

fn fill(log: &mut Log, waits: &mut u64) -> (Duration, Vec<Position>) {
    let begin = Instant::now();
    let mut places = Vec::with_capacity(RECORDS as usize);
    for seq in 0..RECORDS {
        let header = Header {
            seq,
            aux: META.len() as u16,
            session: seq.wrapping_mul(0x9e37_79b9) >> 8,
            ..Header::new(Kind::Message)
        };
        let at = loop {
            if let Ok(at) = log.append(Urgency::Message, &header, &[&META, &BODY]) {
                break at;
            }
            *waits += 1;
            std::thread::yield_now();
        };
        places.push(at);
    }
    (begin.elapsed(), places)
}

fn tell(what: &str, time: Duration, bytes: u64) {
    let each = time.as_nanos() as f64 / f64::from(RECORDS);
    let rate = bytes as f64 / time.as_secs_f64() / 1e9;
    println!("{what:32} {each:7.1} ns a record  {rate:6.2} GB/s");
}

fn read(log: &Log, places: &[Position]) {
    let bytes = log.size();
    let begin = Instant::now();
    let found = log.records().flatten().count();
    tell("scan", begin.elapsed(), bytes);
    assert_eq!(found, places.len());
    let begin = Instant::now();
    let mut sum = 0;
    // Far apart, as queues are.
    for at in 0..places.len() {
        let place = places[at * 7919 % places.len()];
        sum += log.read(place).unwrap().payload.len();
    }
    tell("read by place, scattered", begin.elapsed(), bytes);
    assert_eq!(sum, places.len() * (META.len() + BODY.len()));
}

#[test]
#[ignore = "times; for a quiet machine"]
fn times() {
    let mut log = Log::in_memory(1 << 32, 1, 0, Shape::default());
    let mut waits = 0;
    let (time, places) = fill(&mut log, &mut waits);
    tell("append, heap", time, log.size());
    read(&log, &places);
    drop(log);

    let directory = std::env::temp_dir().join(format!("stillwire-times-{}", std::process::id()));
    let syncer = Syncer::start(Duration::ZERO).unwrap();
    let open = || Log::open(&directory, 1, 0, Shape::default(), &syncer, || ()).unwrap();
    let mut log = open().log;
    let (time, places) = fill(&mut log, &mut waits);
    tell("append, disk", time, log.size());
    println!("refused {waits} times, {} segments", log.segments());
    read(&log, &places);
    let begin = Instant::now();
    log.want_sync();
    while log.synced() < log.end() {
        std::thread::yield_now();
    }
    println!("sync of all of it: {:?}", begin.elapsed());
    let mut syncs = Vec::new();
    for _ in 0..200 {
        let header = Header::new(Kind::Message);
        log.append(Urgency::Control, &header, &[&BODY]).unwrap();
        let begin = Instant::now();
        log.want_sync();
        while log.synced() < log.end() {
            std::thread::yield_now();
        }
        syncs.push(begin.elapsed());
    }
    syncs.sort();
    println!(
        "sync of one record: median {:?}, p99 {:?}",
        syncs[100], syncs[198]
    );
    drop(log);
    let begin = Instant::now();
    let opened = open();
    println!("open: {:?}", begin.elapsed());
    let begin = Instant::now();
    let found = opened.log.records().flatten().count();
    tell("scan after opening", begin.elapsed(), opened.log.size());
    assert_eq!(found, places.len() + syncs.len());
    drop((opened, syncer));
    std::fs::remove_dir_all(directory).unwrap();
}
