//! A store over any log: whatever records stand in it, and whatever became of its bytes, recovery never panics, keeps its invariants, and leaves a
//! store that can be used, cleaned and read again.
//!
//! The first byte says how. Even: the input is a script of records, written with right checksums, as no store would. Odd: it says which bytes of a
//! log that a store wrote are changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillwire::ids::{SessionId, SessionIdx};
use stillwire::store::format::{Header, Kind};
use stillwire::store::heap::{Image, Loss};
use stillwire::store::log::{Log, Shape, Urgency};
use stillwire::store::{Recovered, Refused, State, Store};

const KEY: u64 = 9;
const LIMIT: u64 = 1 << 20;
const SHAPE: Shape = Shape { smallest: 1024, largest: 4096, payload: 700 };

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Small as a rule, and sometimes any.
    fn number(&mut self) -> Option<u32> {
        let byte = self.byte()?;
        if byte < 0xf0 {
            return Some(u32::from(byte % 8));
        }
        let mut number = 0;
        for _ in 0..4 {
            number = number << 8 | u32::from(self.byte()?);
        }
        Some(number)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(self.byte()?);
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        Some(head)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    let mut script = Script(rest);
    let image = if how % 2 == 0 {
        let mut log = Log::in_memory(LIMIT, KEY, 0, SHAPE);
        while append(&mut log, &mut script).is_some() {}
        log.image(Loss::Process)
    } else {
        let mut image = written().log().image(Loss::Power(u64::from(*how)));
        while change(&mut image, &mut script).is_some() {}
        image
    };
    let mut recovered = open(&image);
    recovered.store.check_invariants();
    use_it(&mut recovered.store, recovered.highest_serial);
    let again = open(&recovered.store.log().image(Loss::Process));
    again.store.check_invariants();
});

fn open(image: &Image) -> Recovered {
    Recovered::read(Log::from_image(image, LIMIT, KEY, 0, SHAPE), KEY)
}

/// One record that the script makes up.
fn append(log: &mut Log, script: &mut Script<'_>) -> Option<()> {
    let kind = Kind::of(1 + script.byte()? % 11)?;
    let header = Header {
        kind,
        tag: 0,
        aux: script.number()? as u16,
        session: script.number()?,
        serial: script.number()?,
        seq: script.number()?,
    };
    let id = u64::from(script.number()?).to_le_bytes();
    let id: &[u8] = if matches!(kind, Kind::Body | Kind::Fan | Kind::Reference) { &id } else { &[] };
    // None: it has no room.
    log.append(Urgency::Control, &header, &[id, script.bytes()?]).ok()?;
    Some(())
}

/// A log with some of everything.
fn written() -> Store {
    let mut store = Store::new(Log::in_memory(LIMIT, KEY, 0, SHAPE), KEY);
    for idx in 0..6 {
        write(&mut store, idx).expect("there is room");
    }
    store
}

fn write(store: &mut Store, idx: u32) -> Result<(), Refused> {
    let session = id(idx, idx + 1);
    store.create(session, b"state")?;
    store.note(session, b"note")?;
    store.append(session, 5, b"meta", &[&[idx as u8; 100]])?;
    let body = store.share(&[b"shared"])?;
    store.append_shared(session, 5, 1, body)?;
    store.append_reference(session, 5, b"own", body)?;
    store.release(body);
    store.received(session, 5)?;
    store.done(session, 6)?;
    store.keep(&[idx as u8 % 3], &[b"value"])?;
    store.commit()
}

/// Some bytes that the script changes.
fn change(image: &mut Image, script: &mut Script<'_>) -> Option<()> {
    let files = image.files.len();
    let file = &mut image.files[usize::from(script.byte()?) % files].bytes;
    let at = (usize::from(script.byte()?) << 8 | usize::from(script.byte()?)) % file.len();
    for (old, new) in file[at..].iter_mut().zip(script.bytes()?) {
        *old ^= new;
    }
    Some(())
}

fn id(idx: u32, serial: u32) -> SessionId {
    SessionId { idx: SessionIdx(idx), serial }
}

/// What an owner does.
fn use_it(store: &mut Store, highest_serial: u32) {
    let sessions: Vec<SessionId> = store.sessions().collect();
    for session in &sessions {
        let state = store.state(session.idx);
        let notes = state.map_or(0, |(_, notes)| notes.len());
        assert!(notes < 10_000);
    }
    store.walk_entries(|_, _, item| assert!(item.tag.is_none_or(|tag| tag < 4)));
    assert!(store.values().count() <= store.stats().values);
    store.forget_notes();
    for (at, session) in sessions.into_iter().enumerate() {
        if let Some(queue) = store.queue(session.idx) {
            let (head, tail) = (queue.head(), queue.tail());
            assert_ne!(queue.state(head), State::Gone);
            _ = store.item(session.idx, head);
            _ = if at % 2 == 0 { store.done(session, head) } else { store.received(session, head) };
            _ = store.append(session, tail, b"", &[b"new"]);
        }
        if at % 3 == 0 {
            store.remove(session);
        }
    }
    let new = id(3, highest_serial.wrapping_add(1));
    if store.create(new, b"new").is_ok() {
        _ = store.append(new, 0, b"", &[b"new"]);
    }
    _ = store.commit();
    store.check_invariants();
    store.set_slack(0);
    let mut turns = 0;
    while store.clean(500, |_, _, out| out.extend_from_slice(b"described")) {
        turns += 1;
        assert!(turns < 100_000, "cleaning doesn't end");
    }
    store.check_invariants();
}
