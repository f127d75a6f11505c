//! The store as a whole, against what its documentation says.

use super::heap::Loss;
use super::log::Shape;
use super::*;
use crate::limits::CLEAN_SLACK;

const KEY: u64 = 0x0123_4567_89ab_cdef;

fn id(idx: u32, serial: u32) -> SessionId {
    SessionId {
        idx: SessionIdx(idx),
        serial,
    }
}

fn store() -> Store {
    Store::in_memory(1 << 30, KEY)
}

/// With sessions at 0.. with serials 1.., of one state.
fn with_sessions(count: u32) -> Store {
    let mut store = store();
    for idx in 0..count {
        store.create(id(idx, idx + 1), b"state").unwrap();
    }
    store
}

fn reopened(store: &Store, loss: Loss) -> Recovered {
    let image = store.log().image(loss);
    let opened = Log::from_image(&image, 1 << 30, KEY, 0, Shape::default());
    let recovered = Recovered::read(opened, KEY);
    recovered.store.check_invariants();
    recovered
}

fn body_of(store: &Store, idx: u32, seq: u32) -> &[u8] {
    store.item(SessionIdx(idx), seq).expect("an entry").body
}

fn no_states(_: SessionId, _: Option<View<'_>>, _: &mut Vec<u8>) {
    panic!("no state is asked for");
}

#[test]
fn states_and_notes_come_back_in_order() {
    let mut store = with_sessions(3);
    store.note(id(1, 2), b"one").unwrap();
    store.note(id(2, 3), b"other").unwrap();
    store.note(id(1, 2), b"two").unwrap();
    // Of a session that is not there.
    store.note(id(1, 9), b"lost").unwrap();
    store.remove(id(0, 1));
    store.create(id(0, 10), b"newer").unwrap();
    store.note(id(2, 3), b"more").unwrap();
    store.create(id(2, 3), b"again").unwrap();
    store.remove(id(1, 9));
    let mut recovered = reopened(&store, Loss::Process);
    let store = &mut recovered.store;
    assert_eq!((recovered.highest_serial, recovered.orphans), (10, 0));
    let all: Vec<SessionId> = store.sessions().collect();
    assert_eq!(all, [id(0, 10), id(1, 2), id(2, 3)]);
    let state = |idx| store.state(SessionIdx(idx)).unwrap();
    assert_eq!(state(0), (&b"newer"[..], vec![]));
    assert_eq!(state(1), (&b"state"[..], vec![&b"one"[..], b"two"]));
    assert_eq!(state(2), (&b"again"[..], vec![]));
    assert_eq!(store.state(SessionIdx(3)), None);
    assert!(!store.clean(1 << 20, no_states), "notes are not forgotten");
    store.forget_notes();
    assert_eq!(store.state(SessionIdx(1)).unwrap().1.len(), 0);
}

#[test]
fn a_queue_keeps_order_metas_and_tags() {
    let mut store = with_sessions(2);
    assert_eq!(store.append(id(0, 1), 77, b"meta", &[b"bo", b"dy"]), Ok(77));
    let body = store.share(&[b"for", b" ", b"many", b"!"]).unwrap();
    assert_eq!(store.append_shared(id(0, 1), 5, 3, body), Ok(78));
    assert_eq!(store.append_shared(id(1, 2), 5, 0, body), Ok(5));
    assert_eq!(store.append_reference(id(0, 1), 0, b"own", body), Ok(79));
    store.release(body);
    store.commit().unwrap();
    store.check_invariants();
    for store in [&store, &reopened(&store, Loss::Process).store] {
        let queue = store.queue(SessionIdx(0)).unwrap();
        assert_eq!((queue.head(), queue.tail(), queue.len()), (77, 80, 3));
        let item = |seq| store.item(SessionIdx(0), seq).unwrap();
        let (body, meta, tag) = (&b"body"[..], &b"meta"[..], None);
        assert_eq!(item(77), Item { body, meta, tag });
        let (body, meta, tag) = (&b"for many!"[..], &b""[..], Some(3));
        assert_eq!(item(78), Item { body, meta, tag });
        let (meta, tag) = (&b"own"[..], None);
        assert_eq!(item(79), Item { body, meta, tag });
        assert_eq!(store.item(SessionIdx(0), 80), None);
        assert_eq!(store.item(SessionIdx(1), 5).unwrap().tag, Some(0));
        let stats = store.stats();
        assert_eq!((stats.messages, stats.bodies, stats.sessions), (4, 1, 2));
    }
}

#[test]
fn what_is_received_or_done_stays_so() {
    let mut store = with_sessions(1);
    let me = id(0, 1);
    for number in 0..6_u8 {
        store.append(me, 1, b"", &[&[number]]).unwrap();
    }
    store.received(me, 2).unwrap();
    store.done(me, 3).unwrap();
    store.received(me, 4).unwrap();
    store.done(me, 4).unwrap();
    store.done(me, 1).unwrap();
    // Not there, or not any more.
    store.done(me, 1).unwrap();
    store.received(me, 3).unwrap();
    store.done(id(0, 9), 5).unwrap();
    store.done(me, 900).unwrap();
    for store in [&store, &reopened(&store, Loss::Process).store] {
        let queue = store.queue(SessionIdx(0)).unwrap();
        let states: Vec<State> = (1..8).map(|seq| queue.state(seq)).collect();
        let (w, r, g) = (State::Waiting, State::Received, State::Gone);
        assert_eq!(states, [g, r, g, g, w, w, g]);
        assert_eq!((queue.head(), queue.len()), (2, 3));
        assert_eq!(store.item(SessionIdx(0), 2), None);
        assert_eq!(body_of(store, 0, 5), [4]);
    }
    for seq in 1..=6 {
        store.done(me, seq).unwrap();
    }
    assert!(store.queue(SessionIdx(0)).is_none());
    assert!(
        reopened(&store, Loss::Process)
            .store
            .queue(SessionIdx(0))
            .is_none()
    );
}

#[test]
fn entries_that_are_over_before_they_are_recorded_are_not() {
    let mut store = with_sessions(3);
    let body = store.share(&[b"x"]).unwrap();
    for idx in 0..3 {
        store.append_shared(id(idx, idx + 1), 7, 1, body).unwrap();
    }
    store.done(id(0, 1), 7).unwrap();
    store.received(id(1, 2), 7).unwrap();
    store.remove(id(2, 3));
    store.release(body);
    store.commit().unwrap();
    let store = reopened(&store, Loss::Process).store;
    assert!(store.queue(SessionIdx(0)).is_none());
    let queue = store.queue(SessionIdx(1)).unwrap();
    assert_eq!(queue.state(7), State::Received);
    assert!(!store.has(SessionIdx(2)));
    assert_eq!(store.stats().bodies, 0);
}

#[test]
fn values_come_back() {
    let mut store = store();
    for number in 0..100_u8 {
        store.keep(&[number], &[b"value ", &[number]]).unwrap();
        store.keep(&[number, 0], &[b"x"]).unwrap();
    }
    store.keep(&[7], &[b"newer"]).unwrap();
    for number in 0..100 {
        store.forget(&[number, 0]).unwrap();
    }
    store.forget(b"nothing").unwrap();
    let recovered = reopened(&store, Loss::Process).store;
    for store in [&store, &recovered] {
        assert_eq!(store.value(&[7]), Some(&b"newer"[..]));
        assert_eq!(store.value(&[8]), Some(&b"value \x08"[..]));
        assert_eq!(store.value(&[8, 0]), None);
        assert_eq!(store.stats().values, 100);
        let mut all: Vec<(&[u8], &[u8])> = store.values().collect();
        all.sort_unstable();
        assert_eq!(all.len(), 100);
        assert_eq!(all[7], (&[7][..], &b"newer"[..]));
    }
    assert_eq!(store.stats().live, recovered.stats().live);
}

#[test]
fn a_broadcast_stores_its_body_once() {
    const COUNT: u32 = 100_000;
    let mut store = with_sessions(COUNT);
    let before = store.stats();
    let body = vec![7; 10_000];
    let shared = store.share(&[&body]).unwrap();
    for idx in 0..COUNT {
        store.append_shared(id(idx, idx + 1), 0, 1, shared).unwrap();
    }
    store.release(shared);
    store.commit().unwrap();
    let after = store.stats();
    assert_eq!((after.messages, after.bodies), (COUNT as usize, 1));
    // 12 bytes an entry in the log; in memory a queue of one entry that rests.
    assert!(after.live - before.live < u64::from(COUNT) * 12 + 12_000);
    assert!(after.memory - before.memory < COUNT as usize * 19 + (64 << 10));
    let mut recovered = reopened(&store, Loss::Process).store;
    assert_eq!(recovered.stats().live, after.live);
    assert_eq!(body_of(&recovered, COUNT - 1, 0), body);
    for idx in 0..COUNT {
        recovered.done(id(idx, idx + 1), 0).unwrap();
    }
    assert_eq!(
        (recovered.stats().bodies, recovered.stats().messages),
        (0, 0)
    );
    assert_eq!(recovered.stats().live, before.live);
}

#[test]
fn a_message_costs_eight_bytes_and_a_session_sixteen() {
    const SESSIONS: u32 = 10_240;
    let mut store = with_sessions(SESSIONS);
    let before = store.stats().memory;
    assert!(before < SESSIONS as usize * 16 + 1024);
    let mut messages = 0;
    for length in 1..=200 {
        for idx in 0..SESSIONS {
            store.append(id(idx, idx + 1), 0, b"", &[b"body"]).unwrap();
        }
        messages += SESSIONS;
        let cost = (store.stats().memory - before) as f64 / f64::from(messages);
        println!("{length}: {cost:.2} bytes a message");
        // A queue itself is 12 bytes, and long ones that grow have room.
        assert!(
            cost <= 8.0 || length < 7 && cost <= 6.5 + 13.0 / f64::from(length),
            "{cost} bytes with {length}"
        );
    }
}

#[test]
fn cleaning_ends_and_bounds_the_log() {
    let mut store = with_sessions(1000);
    let mut largest = 0;
    let mut state = |session: SessionId, _: Option<View<'_>>, out: &mut Vec<u8>| {
        out.extend_from_slice(format!("state of {}", session.serial).as_bytes());
    };
    for round in 0..400_u32 {
        for idx in 0..1000 {
            let seq = store
                .append(id(idx, idx + 1), round, b"", &[&[round as u8; 200]])
                .unwrap();
            // One in a hundred stays.
            if (idx + round) % 100 != 0 {
                store.done(id(idx, idx + 1), seq).unwrap();
            }
        }
        store.clean(1000, &mut state);
        let stats = store.stats();
        largest = largest.max(stats.log);
        assert!(
            stats.log < 2 * stats.live + CLEAN_SLACK + (8 << 20),
            "{} for {}",
            stats.log,
            stats.live
        );
    }
    assert!(largest > CLEAN_SLACK);
    let mut turns = 0;
    while store.clean(64 << 10, &mut state) {
        turns += 1;
        assert!(turns < 10_000, "it doesn't end");
    }
    store.check_invariants();
    let stats = store.stats();
    let recovered = reopened(&store, Loss::Process).store;
    assert_eq!(recovered.stats().messages, stats.messages);
    assert_eq!(recovered.stats().live, stats.live);
    let (state, notes) = recovered.state(SessionIdx(9)).unwrap();
    assert_eq!((state, notes.len()), (&b"state of 10"[..], 0));
}

#[test]
fn cleaning_gives_up_where_nothing_is_to_be_won() {
    // Fans of one entry each: their heads are dead weight that isn't counted.
    let mut store = with_sessions(1);
    let body = store.share(&[b"x"]).unwrap();
    for _ in 0..200_000 {
        store.append_shared(id(0, 1), 0, 0, body).unwrap();
        store.commit().unwrap();
    }
    let (end, mut turns) = (store.end(), 0);
    let mut state =
        |_: SessionId, _: Option<View<'_>>, out: &mut Vec<u8>| out.extend_from_slice(b"state");
    while store.clean(1 << 20, &mut state) {
        turns += 1;
        assert!(turns < 100, "it doesn't end");
    }
    let after = store.end();
    assert!(after.0 - end.0 > 200_000 * 48, "all was moved once");
    assert!(!store.clean(1 << 20, &mut state));
    assert_eq!(store.end(), after);
    assert_eq!(store.stats().messages, 200_000);
}

#[test]
fn a_full_disk_heals() {
    let mut store = with_sessions(2);
    let me = id(0, 1);
    store.log_mut().set_limit(0);
    let mut count = 0;
    let body = store.share(&[b"x"]);
    assert_eq!(body, Err(Refused::Full));
    assert_eq!(store.append(me, 0, b"", &[b"x"]), Err(Refused::Full));
    assert_eq!(store.refuses(), Some(Refused::Full));
    store.log_mut().set_limit(3 << 20);
    let shared = store.share(&[b"shared"]).unwrap();
    while store.append(me, 0, b"", &[&[1; 1000]]).is_ok() {
        count += 1;
    }
    assert!(count > 500);
    while store.append(me, 0, b"", &[&[1; 10]]).is_ok() {
        count += 1;
    }
    // What is collected may still go to the last segment, once.
    while store.append_shared(me, 0, 0, shared).is_ok() {
        count += 1;
    }
    store.commit().unwrap();
    assert_eq!(
        store.append_reference(me, 0, b"", shared),
        Err(Refused::Full)
    );
    assert_eq!(store.create(id(5, 50), b"x"), Err(Refused::Full));
    assert_eq!(store.keep(b"k", &[b"v"]), Err(Refused::Full));
    assert!(!store.has(SessionIdx(5)));
    assert_eq!(store.value(b"k"), None);
    // What was taken can be read, and what makes room is still recorded.
    assert_eq!(body_of(&store, 0, 3), [1; 1000]);
    assert_eq!(body_of(&store, 0, count - 1), b"shared");
    for seq in 0..count - 1 {
        store.done(me, seq).unwrap();
    }
    store.check_invariants();
    let recovered = reopened(&store, Loss::Process).store;
    assert_eq!(recovered.queue(SessionIdx(0)).unwrap().head(), count - 1);
    store.log_mut().set_limit(8 << 20);
    assert_eq!(store.refuses(), None);
    store.append_shared(me, 0, 0, shared).unwrap();
    store.commit().unwrap();
    assert_eq!(body_of(&store, 0, count), b"shared");
}

#[test]
fn what_finds_no_room_is_recorded_later() {
    let mut store = with_sessions(3);
    for idx in 0..3 {
        for _ in 0..3 {
            store.append(id(idx, idx + 1), 0, b"", &[b"x"]).unwrap();
        }
    }
    let body = store.share(&[b"y"]).unwrap();
    store.append_shared(id(0, 1), 0, 0, body).unwrap();
    let limit = store.stats().log;
    store.log_mut().set_limit(limit);
    while store.note(id(0, 1), &[7; 1000]).is_ok() {}
    while store.note(id(0, 1), &[7; 8]).is_ok() {}
    while store.note(id(0, 1), &[]).is_ok() {}
    assert_eq!(store.done(id(0, 1), 0), Err(Refused::Full));
    assert_eq!(store.received(id(0, 1), 1), Err(Refused::Full));
    assert_eq!(store.received(id(1, 2), 0), Err(Refused::Full));
    assert_eq!(store.done(id(1, 2), 0), Err(Refused::Full));
    store.remove(id(2, 3));
    assert_eq!(store.commit(), Err(Refused::Full));
    store.check_invariants();
    store.log_mut().set_limit(1 << 30);
    store.commit().unwrap();
    store.check_invariants();
    let store = reopened(&store, Loss::Process).store;
    let states = |idx, count| {
        let queue = store.queue(SessionIdx(idx)).unwrap();
        (0..count).map(|seq| queue.state(seq)).collect::<Vec<_>>()
    };
    let (w, r, g) = (State::Waiting, State::Received, State::Gone);
    assert_eq!(states(0, 4), [g, r, w, w]);
    assert_eq!(states(1, 3), [g, w, w]);
    assert!(!store.has(SessionIdx(2)));
}

#[test]
fn much_that_found_no_room_is_recorded_in_parts() {
    let mut store = with_sessions(1);
    let me = id(0, 1);
    let count = 2 * OWED_PER_TICK as u32 + 10;
    for _ in 0..=count {
        store.append(me, 0, b"", &[b"x"]).unwrap();
    }
    let limit = store.stats().log;
    store.log_mut().set_limit(limit);
    while store.note(me, &[]).is_ok() {}
    for seq in 0..count {
        assert_eq!(store.done(me, seq), Err(Refused::Full));
    }
    store.log_mut().set_limit(1 << 30);
    let mut parts = 0;
    while store.owes() {
        let before = store.end().0;
        store.commit().unwrap();
        let bytes = store.end().0 - before;
        assert!(bytes < 64 * OWED_PER_TICK as u64, "{bytes} bytes at once");
        parts += 1;
    }
    assert_eq!(parts, 3);
    let store = reopened(&store, Loss::Process).store;
    assert_eq!(store.queue(SessionIdx(0)).unwrap().head(), count);
}

#[test]
fn a_failed_sync_is_final() {
    let mut store = with_sessions(1);
    let me = id(0, 1);
    let seq = store.append(me, 0, b"", &[b"x"]).unwrap();
    let body = store.share(&[b"y"]).unwrap();
    store.append_shared(me, 0, 0, body).unwrap();
    store.log_mut().fail();
    assert_eq!(store.append(me, 0, b"", &[b"x"]), Err(Refused::Failed));
    assert_eq!(store.append_shared(me, 0, 0, body), Err(Refused::Failed));
    assert_eq!(store.commit(), Err(Refused::Failed));
    assert_eq!(store.refuses(), Some(Refused::Failed));
    assert_eq!(body_of(&store, 0, seq), b"x");
    assert_eq!(store.done(me, seq), Err(Refused::Failed));
    let synced = store.synced();
    store.want_sync();
    assert_eq!(store.synced(), synced);
}

#[test]
fn a_session_that_takes_over_an_index_inherits_nothing() {
    let mut store = with_sessions(1);
    store.append(id(0, 1), 3, b"", &[b"old"]).unwrap();
    store.note(id(0, 1), b"old").unwrap();
    let body = store.share(&[b"shared"]).unwrap();
    store.append_shared(id(0, 1), 3, 0, body).unwrap();
    store.create(id(0, 2), b"new").unwrap();
    store.append_shared(id(0, 2), 3, 0, body).unwrap();
    store.commit().unwrap();
    store.release(body);
    store.check_invariants();
    let store = reopened(&store, Loss::Process).store;
    assert_eq!(store.state(SessionIdx(0)), Some((&b"new"[..], vec![])));
    let queue = store.queue(SessionIdx(0)).unwrap();
    assert_eq!((queue.head(), queue.len()), (3, 1));
    assert_eq!(body_of(&store, 0, 3), b"shared");
}

#[test]
fn all_entries_that_stand_are_walked() {
    let mut store = with_sessions(2);
    store.append(id(0, 1), 0, b"m", &[b"done"]).unwrap();
    let body = store.share(&[b"many"]).unwrap();
    store.append_shared(id(0, 1), 0, 2, body).unwrap();
    store.append_reference(id(1, 2), 9, b"own", body).unwrap();
    store.commit().unwrap();
    store.release(body);
    store.done(id(0, 1), 0).unwrap();
    store.done(id(0, 1), 1).unwrap();
    store.remove(id(1, 2));
    let mut seen = Vec::new();
    store.walk_entries(|session, seq, item| {
        seen.push((
            session,
            seq,
            item.body.to_vec(),
            item.meta.to_vec(),
            item.tag,
        ));
    });
    let many = b"many".to_vec();
    assert_eq!(
        seen,
        [
            (id(0, 1), 0, b"done".to_vec(), b"m".to_vec(), None),
            (id(1, 2), 9, many.clone(), b"own".to_vec(), None),
            (id(0, 1), 1, many, vec![], Some(2)),
        ]
    );
}

#[test]
fn queues_move_to_other_stores() {
    let mut old = with_sessions(3);
    let body = old.share(&[b"many"]).unwrap();
    for idx in 0..3 {
        let session = id(idx, idx + 1);
        for number in 0..4_u8 {
            old.append(session, 10, b"meta", &[&[number]]).unwrap();
        }
        old.append_shared(session, 0, 2, body).unwrap();
        old.append_reference(session, 0, b"own", body).unwrap();
        old.received(session, 11).unwrap();
        old.done(session, 10).unwrap();
        old.done(session, 12).unwrap();
    }
    old.release(body);
    old.commit().unwrap();
    let (mut new, mut moved) = (store(), rehome::Moved::default());
    for idx in 0..3 {
        let session = id(40 + idx, 100 - idx);
        new.create(session, b"merged").unwrap();
        moved
            .queue(&old, SessionIdx(idx), &mut new, session)
            .unwrap();
    }
    moved.finish(&mut new).unwrap();
    new.check_invariants();
    for new in [&new, &reopened(&new, Loss::Process).store] {
        assert_eq!(new.stats().bodies, 1);
        for idx in 0..3 {
            let (from, to) = (
                old.queue(SessionIdx(idx)).unwrap(),
                new.queue(SessionIdx(40 + idx)).unwrap(),
            );
            assert_eq!((from.head(), from.len()), (to.head(), to.len()));
            for seq in 9..20 {
                assert_eq!(from.state(seq), to.state(seq));
                let item = old.item(SessionIdx(idx), seq);
                assert_eq!(item, new.item(SessionIdx(40 + idx), seq));
            }
        }
    }
}

#[test]
fn a_burst_is_not_cleaned_in_one_call() {
    let mut store = Store::in_memory(1 << 30, 7);
    store.set_slack(0);
    let session = id(0, 1);
    store.create(session, b"state").unwrap();
    for _ in 0..8000 {
        let seq = store.append(session, 0, b"", &[&[1; 1000]]).unwrap();
        store.done(session, seq).unwrap();
    }
    let before = store.stats().segments;
    assert!(before > 6);
    let describe = |_: SessionId, _: Option<View<'_>>, out: &mut Vec<u8>| out.extend(b"state");
    assert!(store.clean(1000, describe), "there is more to do");
    assert_eq!(
        store.stats().segments,
        before,
        "a thousand bytes were looked at"
    );
    let mut calls = 1;
    while store.clean(1000, describe) {
        calls += 1;
    }
    assert!(calls > 1000 && store.stats().segments <= 3);
    store.check_invariants();
}
