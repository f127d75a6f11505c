//! A log of format version 1, kept in `tests/store-v1` as it was written by the first build that could: later versions must read it.
//!
//! `cargo test --lib -- --ignored store::fixture::written` wrote it. It is not to be written again: another version gets another directory.

use std::path::PathBuf;

use super::heap::Loss;
use super::log::Shape;
use super::*;

const KEY: u64 = 0x5711_1137_2026_1121;
const SHAPE: Shape = Shape {
    smallest: 4096,
    largest: 4096,
    payload: 1000,
};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/store-v1")
}

fn id(idx: u32, serial: u32) -> SessionId {
    SessionId {
        idx: SessionIdx(idx),
        serial,
    }
}

/// Every kind of record, in two segments.
fn written_then() -> Store {
    let mut store = Store::new(Log::in_memory(1 << 20, KEY, 3, SHAPE), KEY);
    for idx in 0..6 {
        store.create(id(idx, 100 + idx), &[idx as u8; 40]).unwrap();
        store.note(id(idx, 100 + idx), b"note").unwrap();
    }
    for number in 0..60_u8 {
        let body = [number; 50];
        store.append(id(0, 100), 7, b"meta", &[&body]).unwrap();
    }
    let body = store.share(&[b"for all"]).unwrap();
    for idx in 0..5 {
        store
            .append_shared(id(idx, 100 + idx), 65_534, 2, body)
            .unwrap();
    }
    let own = store.append_reference(id(5, 105), 1, b"own", body);
    assert_eq!(own, Ok(1));
    store.release(body);
    store.commit().unwrap();
    store.received(id(0, 100), 8).unwrap();
    store.done(id(0, 100), 7).unwrap();
    store.remove(id(4, 104));
    store.keep(b"key", &[b"old"]).unwrap();
    store.keep(b"key", &[b"value"]).unwrap();
    store.keep(b"gone", &[b"x"]).unwrap();
    store.forget(b"gone").unwrap();
    store.create(id(4, 200), b"late").unwrap();
    store
}

fn check(store: &Store) {
    store.check_invariants();
    let sessions: Vec<u32> = store.sessions().map(|session| session.serial).collect();
    assert_eq!(sessions, [100, 101, 102, 103, 200, 105]);
    assert_eq!(
        store.state(SessionIdx(3)),
        Some((&[3; 40][..], vec![&b"note"[..]]))
    );
    assert_eq!(store.state(SessionIdx(4)), Some((&b"late"[..], vec![])));
    let queue = store.queue(SessionIdx(0)).unwrap();
    assert_eq!((queue.head(), queue.tail(), queue.len()), (8, 68, 60));
    assert_eq!(queue.state(8), State::Received);
    for seq in 9..67 {
        let item = store.item(SessionIdx(0), seq).unwrap();
        assert_eq!(
            (item.meta, item.body),
            (&b"meta"[..], &[seq as u8 - 7; 50][..])
        );
    }
    for idx in 0..4 {
        let seq = if idx == 0 { 67 } else { 65_534 };
        let item = store.item(SessionIdx(idx), seq).unwrap();
        assert_eq!((item.body, item.tag), (&b"for all"[..], Some(2)));
    }
    let item = store.item(SessionIdx(5), 1).unwrap();
    assert_eq!(
        (item.body, item.meta, item.tag),
        (&b"for all"[..], &b"own"[..], None)
    );
    assert!(store.queue(SessionIdx(4)).is_none());
    let values: Vec<_> = store.values().collect();
    assert_eq!(values, [(&b"key"[..], &b"value"[..])]);
}

#[test]
fn a_log_of_version_1_is_read() {
    let opened = Log::view(&directory())
        .unwrap()
        .expect("the fixture is a log");
    assert_eq!(opened.log.reactor(), 3);
    let recovered = Recovered::read(opened, KEY);
    assert_eq!((&recovered.damage[..], recovered.orphans), (&[][..], 0));
    assert_eq!(recovered.highest_serial, 200);
    check(&recovered.store);
}

/// What is written today is, byte by byte, what was written then: a change of the format is one on purpose.
#[test]
fn version_1_is_still_what_is_written() {
    let image = written_then().log().image(Loss::Process);
    assert!(image.files.len() == 2);
    for file in &image.files {
        let kept = std::fs::read(directory().join(format::file_name(file.number))).unwrap();
        assert!(kept == file.bytes, "segment {} differs", file.number);
    }
}

#[test]
#[ignore = "writes what the others check, once for each version of the format"]
fn written() {
    std::fs::create_dir_all(directory()).unwrap();
    let image = written_then().log().image(Loss::Process);
    image.write_to(&directory()).unwrap();
}
