use super::*;
use crate::store::format::{self, Kind, RECORD_HEAD};

const SMALL: Shape = Shape {
    smallest: 4096,
    largest: 16384,
    payload: 1000,
};
const KEY: u64 = 0x1234_5678_9abc_def0;

fn log() -> Log {
    Log::in_memory(1 << 20, KEY, 0, SMALL)
}

fn header(seq: u32) -> Header {
    Header {
        seq,
        ..Header::new(Kind::Message)
    }
}

/// A payload that is different for every seq, of different lengths.
fn payload(seq: u32) -> Vec<u8> {
    (0..seq % 97).map(|at| (at ^ seq) as u8).collect()
}

fn fill(log: &mut Log, seqs: std::ops::Range<u32>) -> Vec<Position> {
    seqs.map(|seq| {
        let payload = payload(seq);
        let (front, back) = payload.split_at(payload.len() / 2);
        let at = log.append(Urgency::Message, &header(seq), &[front, back]);
        log.check_invariants();
        at.unwrap()
    })
    .collect()
}

fn seqs(log: &Log) -> Vec<u32> {
    let records = log.records().map(|record| record.unwrap());
    records
        .map(|record| {
            assert_eq!(record.payload, payload(record.header.seq));
            record.header.seq
        })
        .collect()
}

fn reopen(image: &Image) -> Opened {
    let opened = Log::from_image(image, 1 << 20, KEY, 0, SMALL);
    opened.log.check_invariants();
    opened
}

#[test]
fn what_is_appended_is_read_by_place_and_in_order() {
    let mut log = log();
    let places = fill(&mut log, 0..500);
    assert!(log.segments() > 2);
    for (seq, at) in (0..).zip(&places) {
        let record = log.read(*at).unwrap();
        assert_eq!((record.at, record.header), (*at, header(seq)));
        assert_eq!(record.payload, payload(seq));
    }
    assert_eq!(seqs(&log), (0..500).collect::<Vec<_>>());
    assert!(places.is_sorted());
    assert_eq!(log.read(Position(places[3].0 + 8)), None);
    assert_eq!(log.read(log.end()), None);
    assert_eq!(log.next(Position(places[7].0 + 1)).unwrap().at, places[8]);
}

#[test]
fn a_killed_process_leaves_everything() {
    let mut log = log();
    let places = fill(&mut log, 0..500);
    let opened = reopen(&log.image(Loss::Process));
    assert_eq!(opened.damage, []);
    let mut log = opened.log;
    assert_eq!(seqs(&log), (0..500).collect::<Vec<_>>());
    assert_eq!(log.read(places[499]).unwrap().header.seq, 499);
    let more = fill(&mut log, 500..600);
    assert!(more[0] > places[499]);
    let again = reopen(&log.image(Loss::Process));
    assert_eq!(again.damage, []);
    assert_eq!(seqs(&again.log), (0..600).collect::<Vec<_>>());
}

#[test]
fn restarts_without_a_record_leave_no_segments_behind() {
    let mut log = log();
    fill(&mut log, 0..3);
    let mut log = reopen(&log.image(Loss::Process)).log;
    let size = log.size();
    for _ in 0..5 {
        log = reopen(&log.image(Loss::Process)).log;
    }
    assert_eq!(log.size(), size);
    assert_eq!(seqs(&log), [0, 1, 2]);
}

#[test]
fn the_oldest_leaves_when_its_copies_are_synced() {
    let mut log = log();
    log.hold_sync();
    fill(&mut log, 0..200);
    let oldest = log.oldest().unwrap();
    let living: Vec<Position> = log
        .walk(oldest.base)
        .map(Result::unwrap)
        .take_while(|record| record.at < oldest.end)
        .map(|record| record.at)
        .collect();
    assert!(living.len() > 10);
    for at in &living {
        let copy = log.copy(Urgency::Moved, *at).unwrap().unwrap();
        let seq = log.read(*at).unwrap().header.seq;
        assert_eq!(log.read(copy).unwrap().payload, payload(seq));
    }
    log.drop_oldest();
    assert_eq!(log.read(living[0]), None);
    assert!(log.oldest().unwrap().base >= oldest.end);
    // The file is still there for a crash, and comes back with it.
    let image = log.image(Loss::Process);
    assert_eq!(image.files.len(), log.segments() + 1);
    log.complete_sync();
    let image = log.image(Loss::Process);
    assert_eq!(image.files.len(), log.segments());
    let mut left = seqs(&reopen(&image).log);
    left.sort_unstable();
    assert_eq!(left, (0..200).collect::<Vec<_>>());
}

#[test]
fn a_removed_file_that_comes_back_is_ignored() {
    let mut log = log();
    fill(&mut log, 0..200);
    log.drop_oldest();
    let gone = log.oldest().unwrap().base;
    fill(&mut log, 200..400);
    let images: Vec<Image> = (0..20).map(|seed| log.image(Loss::Power(seed))).collect();
    assert!(
        images
            .iter()
            .any(|image| image.files.len() > log.segments())
    );
    for image in &images {
        let opened = reopen(image);
        assert!(opened.log.oldest().unwrap().base >= gone);
    }
}

#[test]
fn a_copy_of_a_record_beside_it_works_too() {
    let mut log = log();
    let places = fill(&mut log, 0..90);
    for at in [places[89], places[0]] {
        let copy = log.copy(Urgency::Moved, at).unwrap().unwrap();
        let (there, here) = (log.read(at).unwrap(), log.read(copy).unwrap());
        assert_eq!((there.header, there.payload), (here.header, here.payload));
    }
    assert_eq!(log.copy(Urgency::Moved, Position(1)), Ok(None));
}

#[test]
fn new_content_leaves_a_segment_free_and_control_may_use_it() {
    let mut log = Log::in_memory(3 * 4096, KEY, 0, SMALL);
    let mut taken = 0;
    let refused = loop {
        match log.append(Urgency::Message, &header(taken), &[&payload(taken)]) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused, log.segments()), (Refused::Full, 2));
    let mut control = 0;
    while log.append(Urgency::Control, &header(0), &[]).is_ok() {
        control += 1;
    }
    assert!(control > 3900 / 24 && log.segments() == 3);
    assert_eq!(
        log.append(Urgency::Moved, &header(0), &[]),
        Err(Refused::Full)
    );
    // Room comes back by itself, by removal or by a larger disk.
    log.drop_oldest();
    assert_eq!(
        log.append(Urgency::Message, &header(0), &[]),
        Err(Refused::Full)
    );
    log.append(Urgency::Moved, &header(0), &[]).unwrap();
    log.set_limit(8 * 4096);
    log.append(Urgency::Message, &header(0), &[]).unwrap();
}

#[test]
fn a_failed_sync_is_for_good() {
    let mut log = log();
    log.hold_sync();
    let places = fill(&mut log, 0..10);
    log.want_sync();
    log.fail();
    log.complete_sync();
    assert_eq!(log.synced(), Position(0));
    for urgency in [Urgency::Message, Urgency::Control, Urgency::Moved] {
        assert_eq!(log.append(urgency, &header(0), &[]), Err(Refused::Failed));
    }
    assert_eq!(log.read(places[9]).unwrap().payload, payload(9));
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_size() {
    let mut log = log();
    fill(&mut log, 0..3);
    let large = vec![7; 50_000];
    let at = log.append(Urgency::Message, &header(3), &[&large]).unwrap();
    assert_eq!(log.read(at).unwrap().payload, large);
    log.append(Urgency::Message, &header(4), &[]).unwrap();
    let log = reopen(&log.image(Loss::Process)).log;
    assert_eq!(log.read(at).unwrap().payload, large);
    assert_eq!(log.records().count(), 5);
}

#[test]
fn segments_fit_the_log() {
    let shape = Shape {
        smallest: 1 << 20,
        largest: 64 << 20,
        payload: 1 << 20,
    };
    assert_eq!(shape.next(0), 2 << 20);
    assert_eq!(shape.next(33 << 20), 4 << 20);
    assert_eq!(shape.next(1 << 40), 64 << 20);
}

#[test]
fn synced_records_outlive_a_power_loss_and_no_other_is_made_up() {
    for seed in 0..300 {
        let mut log = log();
        log.hold_sync();
        let kept = (seed % 150) as u32;
        fill(&mut log, 0..kept);
        log.want_sync();
        log.complete_sync();
        fill(&mut log, kept..200);
        let opened = reopen(&log.image(Loss::Power(seed)));
        let found: Vec<u32> = opened
            .log
            .records()
            .filter_map(Result::ok)
            .map(|record| {
                assert_eq!(record.payload, payload(record.header.seq), "seed {seed}");
                record.header.seq
            })
            .collect();
        assert!(
            found.is_sorted() && found.iter().all(|seq| *seq < 200),
            "seed {seed}"
        );
        let first: Vec<u32> = found.iter().copied().filter(|seq| *seq < kept).collect();
        assert_eq!(first, (0..kept).collect::<Vec<_>>(), "seed {seed}");
        // What was cut stays cut.
        let again = reopen(&opened.log.image(Loss::Process));
        assert!(again.damage.iter().all(|damage| damage.what != What::Tail));
    }
}

/// Every bit of every file, one at a time: the records that come out are those that went in, but for the one that was hit, and the
/// damage names the place.
#[test]
fn a_flipped_bit_is_found_and_contained() {
    let mut log = log();
    fill(&mut log, 0..140);
    let image = log.image(Loss::Process);
    assert_eq!(image.files.len(), 3);
    for file in 0..image.files.len() {
        let mut damaged = image.clone();
        for byte in 0..image.files[file].bytes.len() {
            damaged.files[file].bytes[byte] ^= 1 << (byte % 8);
            let opened = reopen(&damaged);
            let mut found = Vec::new();
            let mut damage = opened.damage;
            for item in opened.log.records() {
                match item {
                    Ok(record) => {
                        assert_eq!(record.payload, payload(record.header.seq));
                        found.push(record.header.seq);
                    }
                    Err(at) => damage.push(at),
                }
            }
            let lost = 140 - found.len();
            assert!(found.is_sorted() && lost <= 1, "{lost} lost by byte {byte}");
            // Behind the seal nothing is read, so nothing can be damaged.
            let used = image.files[file].bytes.iter().rposition(|byte| *byte != 0);
            let behind = log_end(&image.files[file].bytes);
            if byte < behind || byte >= used.unwrap() + 1 - HEAD {
                assert_eq!(damage.len(), 1, "byte {byte} of file {file}: {damage:?}");
                let at = &damage[0];
                assert_eq!(at.file, format::file_name(image.files[file].number));
                let range = at.offset..at.offset + at.len;
                assert!(range.contains(&(byte as u64)), "byte {byte}: {at}");
            } else {
                assert_eq!(lost, 0);
            }
            damaged.files[file].bytes[byte] ^= 1 << (byte % 8);
        }
    }
}

/// The end of the records, seal included, in a whole file.
fn log_end(bytes: &[u8]) -> usize {
    let mut at = HEAD;
    loop {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let kind = bytes[at + 8];
        if len == 0 {
            return at;
        }
        at += len.next_multiple_of(8);
        if kind == Kind::Seal as u8 || at + RECORD_HEAD > bytes.len() - HEAD {
            return at;
        }
    }
}

#[test]
fn a_record_forged_inside_a_payload_is_never_taken() {
    // A whole log in a payload: every record of it is valid at its own place in its own log.
    let mut other = Log::in_memory(1 << 20, KEY ^ 1, 0, SMALL);
    fill(&mut other, 1000..1020);
    let stranger = other.image(Loss::Process).files[0].bytes[HEAD..900].to_vec();
    // And one of this very log, which a spy has seen, at another place.
    let mut twin = log();
    fill(&mut twin, 1000..1020);
    let own = twin.image(Loss::Process).files[0].bytes[HEAD..900].to_vec();
    for forged in [stranger, own] {
        let mut log = log();
        fill(&mut log, 0..5);
        let at = log
            .append(Urgency::Message, &header(5), &[&forged])
            .unwrap();
        fill(&mut log, 6..9);
        let mut image = log.image(Loss::Process);
        // The record around it is damaged, so that the search goes through the payload.
        image.files[0].bytes[at.0 as usize + 9] ^= 1;
        let opened = reopen(&image);
        let found: Vec<_> = opened.log.records().collect();
        let seqs: Vec<u32> = found
            .iter()
            .flatten()
            .map(|record| record.header.seq)
            .collect();
        assert_eq!(seqs, [0, 1, 2, 3, 4, 6, 7, 8]);
        assert_eq!(found.iter().filter(|item| item.is_err()).count(), 1);
    }
}

#[test]
fn long_forged_records_do_not_hold_the_start_up() {
    let shape = Shape {
        smallest: 1 << 20,
        largest: 1 << 20,
        payload: 600 << 10,
    };
    let mut log = Log::in_memory(1 << 24, KEY, 0, shape);
    // Every 24 bytes a header with a known kind and a length that fits.
    let mut forged = Vec::new();
    while forged.len() < 500 << 10 {
        forged.extend_from_slice(&[1, 2, 3, 4, 0, 0, 4, 0, 4, 0, 0, 0]);
        forged.extend_from_slice(&[0; 12]);
    }
    let at = log
        .append(Urgency::Message, &header(1), &[&forged])
        .unwrap();
    let mut image = log.image(Loss::Process);
    image.files[0].bytes[at.0 as usize + 9] ^= 1;
    let opened = Log::from_image(&image, 1 << 24, KEY, 0, shape);
    assert_eq!(opened.log.records().count(), 0);
    assert_eq!(opened.damage[0].what, What::Tail);
}

#[test]
fn a_missing_a_foreign_and_a_cut_file_are_told() {
    let mut log = log();
    fill(&mut log, 0..300);
    let image = log.image(Loss::Process);
    let whats = |image: &Image| -> Vec<What> {
        let opened = reopen(image);
        let inside = opened.log.records().filter_map(Result::err);
        let all = opened.damage.iter().cloned().chain(inside);
        all.map(|damage| damage.what).collect()
    };
    assert_eq!(whats(&image), []);

    let mut missing = image.clone();
    missing.files.remove(1);
    assert_eq!(whats(&missing), [What::Missing]);
    // Of a missing first file nothing can be told from one that was given up.
    missing.files.remove(0);
    assert_eq!(whats(&missing), []);

    let mut other = Log::in_memory(1 << 20, KEY ^ 1, 0, SMALL);
    fill(&mut other, 0..5);
    let mut foreign = image.clone();
    let mut file = other.image(Loss::Process).files.remove(0);
    file.number = 77;
    foreign.files.push(file);
    assert_eq!(whats(&foreign), [What::Foreign]);

    let mut cut = image.clone();
    cut.files[1].bytes.truncate(2000);
    assert_eq!(whats(&cut), [What::Short, What::Rest]);

    let mut twice = image.clone();
    let mut file = image.files[1].clone();
    file.number = 99;
    twice.files.push(file);
    assert_eq!(whats(&twice), [What::Twice]);

    let mut heads = image.clone();
    heads.files[1].bytes[3] ^= 1;
    *heads.files[1].bytes.last_mut().unwrap() ^= 1;
    assert_eq!(whats(&heads), [What::Heads, What::Missing]);
}

#[test]
fn a_segment_that_was_just_begun_is_not_damaged() {
    let mut log = log();
    fill(&mut log, 0..300);
    let mut image = log.image(Loss::Process);
    let whats = |image: &Image| -> Vec<What> {
        let damage = reopen(image).damage;
        damage.into_iter().map(|damage| damage.what).collect()
    };
    // The process was killed between the two copies of the head.
    let last = image.files.iter_mut().max_by_key(|file| file.number);
    let bytes = &mut last.unwrap().bytes;
    let copy = bytes.len() - HEAD;
    bytes[copy..].fill(0);
    assert_eq!(whats(&image), [What::OneHead], "it has records");
    let last = image.files.iter_mut().max_by_key(|file| file.number);
    last.unwrap().bytes[HEAD..].fill(0);
    assert_eq!(whats(&image), []);
    // A bit is another matter than what was never written.
    let last = image.files.iter_mut().max_by_key(|file| file.number);
    *last.unwrap().bytes.last_mut().unwrap() = 1;
    assert_eq!(whats(&image), [What::OneHead]);
}
